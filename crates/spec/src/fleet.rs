//! Servers that are planned together: how they are filled, and what they are called.
//!
//! Takes sealed parts, notes what does not hold. Keeps true: a [`Selector`] knows the servers that it
//! allows, so that a slice can be asked of any server without the rest of the spec.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::diagnostic::shown;
use crate::nearest::nearest;
use crate::rules::{Found, Path, is_host_name};
use crate::sealed::{HostSpec, SliceSpec};

/// How several servers are filled, and their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FleetSpec {
    /// Which server a slice goes to.
    pub place: Place,
    /// Servers and their labels, by host name once each.
    pub servers: Vec<LabelledServer>,
}

impl FleetSpec {
    /// Whether nothing is said of servers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which server a slice goes to, of those that have room for it (planning rule 11).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// One that has slices already, of these the one with the fewest whole cores left.
    #[default]
    Pack,
    /// The one with the fewest slices of its tenant, of these the one with the most whole cores
    /// left.
    Spread,
}

/// A server's labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelledServer {
    /// Its host name.
    pub name: String,
    /// By key.
    pub labels: BTreeMap<String, String>,
}

/// The labels that a slice's server must have, and the servers that have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Selector {
    labels: BTreeMap<String, String>,
    /// No part of what a slice asks: a label more of another server changes nothing here.
    #[serde(skip)]
    servers: Arc<BTreeSet<String>>,
}

impl Selector {
    /// Of all servers of a fleet those that have these labels.
    #[must_use]
    pub fn new(labels: BTreeMap<String, String>, fleet: &FleetSpec) -> Self {
        let has = |server: &&LabelledServer| {
            let mut wanted = labels.iter();
            wanted.all(|(key, value)| server.labels.get(key) == Some(value))
        };
        let servers = fleet.servers.iter().filter(has);
        let servers = servers.map(|server| server.name.clone()).collect();
        Self {
            labels,
            servers: Arc::new(servers),
        }
    }

    /// Whether a server, by its host name, has all of the labels.
    #[must_use]
    pub fn allows(&self, server: &str) -> bool {
        self.servers.contains(server)
    }

    /// The servers that have all of the labels.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(String::as_str)
    }
}

/// `disk: nvme, zone: a`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.labels.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{key}: {value}")?;
        }
        Ok(())
    }
}

/// The most whole cores that can be kept free.
const MOST_HEADROOM: u32 = 1024;

/// What of the host's own share the section `fleet` says.
pub(crate) fn headroom(host: &HostSpec, found: &mut Found) {
    if host.headroom_cores > MOST_HEADROOM {
        found.say(
            Path::default()
                .field("fleet")
                .field("headroom")
                .field("cores"),
            format!("{} cores of headroom", host.headroom_cores),
            format!("0 to {MOST_HEADROOM} are possible"),
        );
    }
}

/// Rules of servers and their labels, and of those who select by them.
pub(crate) fn rules(fleet: &FleetSpec, slices: &[(usize, &SliceSpec)], found: &mut Found) {
    let all = Path::default().field("fleet").field("servers");
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (i, server) in fleet.servers.iter().enumerate() {
        let at = all.index(i);
        if !is_host_name(&server.name) {
            found.say(
                at.field("name"),
                format!("`{}` is no host name", shown(&server.name)),
                "write what `hostname` says on that server, as `name: edge1`",
            );
        }
        match seen.get(server.name.as_str()) {
            Some(&first) => found.clash(
                at.field("name"),
                format!("two servers are named `{}`", shown(&server.name)),
                "put the labels of both into one, or correct a name",
                all.index(first).field("name"),
                "the first one",
            ),
            None => {
                seen.insert(&server.name, i);
            }
        }
        words(&server.labels, &at.field("labels"), found);
    }
    let mut before = None;
    for (i, slice) in slices {
        // Replicas have one place.
        if before.replace(i) == Some(i) {
            continue;
        }
        if let Some(selector) = &slice.selector {
            let at = Path::default().field("slices").index(*i);
            selects(fleet, slice, selector, &at, found);
        }
    }
}

/// Keys and values that any tool of labels takes.
fn words(labels: &BTreeMap<String, String>, at: &Path, found: &mut Found) {
    for (key, value) in labels {
        for (what, text, more) in [("key", key, "_.-/"), ("value", value, "_.-")] {
            let inner = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
            if text.len() > 63 || !begins || !text.chars().all(inner) {
                found.say(
                    at.key(key),
                    format!("`{}` is no {what} of a label", shown(text)),
                    "write up to 63 letters, digits, `_`, `.` and `-`, as `zone: a`",
                );
            }
        }
    }
}

/// Whether there is a server that a slice selects.
fn selects(
    fleet: &FleetSpec,
    slice: &SliceSpec,
    selector: &Selector,
    at: &Path,
    found: &mut Found,
) {
    let here = at.field("selector");
    if selector.labels.is_empty() {
        found.say(
            here,
            "a selector without labels",
            "write one, as `selector: { zone: a }`, or leave it out",
        );
        return;
    }
    words(&selector.labels, &here, found);
    let servers = || fleet.servers.iter();
    let mut missed = false;
    for (key, value) in &selector.labels {
        let values: BTreeSet<&str> = servers()
            .filter_map(|server| server.labels.get(key))
            .map(String::as_str)
            .filter(|value| !value.is_empty())
            .collect();
        if values.contains(value.as_str()) {
            continue;
        }
        missed = true;
        let keys: BTreeSet<&str> = servers()
            .flat_map(|server| server.labels.keys())
            .map(String::as_str)
            .collect();
        let (what, wrong, there) = if values.is_empty() {
            (format!("label `{}`", shown(key)), key, keys)
        } else {
            let what = format!("label `{}: {}`", shown(key), shown(value));
            (what, value, values)
        };
        let there: Vec<&str> = there.into_iter().collect();
        let hint = match nearest(wrong, &there) {
            Some(right) => format!("did you mean `{}`?", shown(right)),
            None if there.is_empty() => {
                "write the labels of servers, as `fleet: { servers: [{ name: edge1, labels: { zone: a } }] }`"
                    .into()
            }
            None => {
                let few: Vec<String> = there.iter().take(8).map(|t| format!("`{}`", shown(t))).collect();
                let verb = if few.len() == 1 { "is" } else { "are" };
                format!("there {verb} {}", few.join(", "))
            }
        };
        found.say(
            here.key(key),
            format!("no server of `fleet` has the {what}"),
            hint,
        );
    }
    if missed {
        return;
    }
    if selector.servers.is_empty() {
        found.say(
            here,
            format!("no server of `fleet` has all of these labels (`{selector}`)"),
            "each of them is one server's, and none has them together: take one out",
        );
    } else if let Some(server) = slice.server.as_ref().filter(|it| !selector.allows(it)) {
        found.clash(
            here,
            format!(
                "`{}` does not have these labels (`{selector}`)",
                shown(server)
            ),
            "leave `selector` out, or `server`",
            at.field("server"),
            "the slice is for this server",
        );
    }
}
