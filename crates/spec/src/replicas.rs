//! Slices that are written once: `replicas: N`.
//!
//! Takes a sealed slice and what was written of it; gives as many slices as are asked for, named
//! `NAME-1` to `NAME-N`, so that nothing downstream knows of replicas: the spec means what it would
//! mean with all of them written out. Keeps true: nothing is copied that only one of them can have.

use std::collections::HashMap;

use bmslice_model::{SliceName, count};

use crate::decode::Field;
use crate::diagnostic::Mistake;
use crate::rules::Path;
use crate::seal::Sealer;
use crate::sealed::{NicChoice, NicKind, SliceSpec};
use crate::wire;

/// The most of one slice: a server of a large fleet each.
const MOST: u32 = 10_000;
/// The most slices of a file that has replicas.
const MOST_IN_ALL: usize = 100_000;

/// Which of several slices that the file writes as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The name in the file.
    pub of: SliceName,
    /// From 1.
    pub number: u32,
}

impl SliceSpec {
    /// The name that the file has for it: without a replica's number.
    #[must_use]
    pub fn written(&self) -> &SliceName {
        match &self.replica {
            Some(replica) => &replica.of,
            None => &self.name,
        }
    }
}

/// What of a slice its sealed form does not tell.
pub(crate) struct Written {
    replicas: Field<i64>,
    hostname: bool,
}

impl Written {
    pub(crate) fn of(slice: &wire::Slice) -> Self {
        Self {
            replicas: slice.replicas.clone(),
            hostname: matches!(slice.hostname, Field::Given(..)),
        }
    }
}

impl Sealer<'_> {
    /// The slices of one that is written; itself, when something is wrong. `before`: how many slices
    /// there are already.
    pub(crate) fn replicas(
        &self,
        slice: SliceSpec,
        written: &Written,
        at: &Path,
        before: usize,
    ) -> Vec<SliceSpec> {
        let Field::Given(asked, span) = &written.replicas else {
            return vec![slice];
        };
        let note = |message: String, hint: &str| {
            self.sink
                .note(Mistake::new(span.clone(), message).hint(hint));
        };
        let number = u32::try_from(*asked).unwrap_or(0);
        if !(1..=MOST).contains(&number) {
            note(
                format!("a slice cannot have {asked} replicas"),
                &format!("1 to {MOST} are possible; leave the slice out to have none"),
            );
            return vec![slice];
        }
        let all = before.saturating_add(number as usize);
        if all > MOST_IN_ALL {
            note(
                format!("these are {all} slices in all"),
                &format!("a spec has at most {MOST_IN_ALL}; write several"),
            );
            return vec![slice];
        }
        if number > 1 && self.alone(&slice, written, number, at) {
            return vec![slice];
        }
        let mut replicas = Vec::with_capacity(number as usize);
        for number in 1..=number {
            let name = match format!("{}-{number}", slice.name).parse::<SliceName>() {
                Ok(name) => name,
                Err(error) => {
                    self.noted(&error, &self.span(&at.field("name")));
                    return vec![slice];
                }
            };
            let mut replica = slice.clone();
            if !written.hostname {
                replica.guest.hostname = name.hostname();
            }
            replica.replica = Some(Replica {
                of: slice.name.clone(),
                number,
            });
            replica.name = name;
            replicas.push(replica);
        }
        replicas
    }

    /// Notes what only one of several slices can have; whether there was anything.
    fn alone(&self, slice: &SliceSpec, written: &Written, number: u32, at: &Path) -> bool {
        let several = count(number, "replica");
        let mut found = false;
        let mut say = |at: Path, message: String, hint: &str| {
            let label = format!("{several} are asked for");
            let mistake = Mistake::new(self.span(&at), message).hint(hint);
            self.sink.note(match &written.replicas {
                Field::Given(_, span) => mistake.related(span.clone(), label),
                _ => mistake,
            });
            found = true;
        };
        if written.hostname {
            say(
                at.field("hostname"),
                format!("{several} cannot all have one host name"),
                "leave `hostname` out: each gets one that is made of its own name",
            );
        }
        if let (Some(group), Some(server)) = (&slice.apart, &slice.server) {
            say(
                at.field("server"),
                format!(
                    "{several} of the group `{group}`, which are to be apart, are for `{server}`"
                ),
                "leave `server` out, or `apart`",
            );
        }
        for (i, nic) in slice.nics.iter().enumerate() {
            let at = at.field("nics").index(i);
            let (kind, mac) = match &nic.kind {
                NicKind::Passthrough { device } => {
                    let named = match device {
                        NicChoice::Pci(_) => Some("pci"),
                        NicChoice::Name(_) => Some("name"),
                        NicChoice::Mac(_) => Some("mac"),
                        NicChoice::Need { .. } => None,
                    };
                    if let Some(field) = named {
                        say(
                            at.field("passthrough").field(field),
                            format!("{several} cannot all have one whole NIC"),
                            "say what is needed of it, as `passthrough: { numa: same }`, or take a VF of it with `vf: { of: … }`",
                        );
                    } else if nic
                        .fabric
                        .as_ref()
                        .is_some_and(|fabric| fabric.port.is_some())
                    {
                        say(
                            at.field("fabric").field("port"),
                            format!(
                                "{several} with a whole NIC each are not on one port of the switch"
                            ),
                            "leave `port` out: any is accepted then",
                        );
                    }
                    continue;
                }
                NicKind::Vf { mac, .. } => (at.field("vf"), *mac),
                NicKind::Virtio { mac, .. } => (at.field("virtio"), *mac),
            };
            if mac.is_some() {
                say(
                    kind.field("mac"),
                    format!("{several} cannot all have one MAC"),
                    "leave `mac` out, or write `auto`: each gets one that is derived from its name",
                );
            }
        }
        for (i, nic) in slice.nics.iter().enumerate() {
            let network = nic.network.as_ref();
            if network.is_some_and(|network| !network.addresses.is_empty()) {
                say(
                    at.field("nics")
                        .index(i)
                        .field("network")
                        .field("addresses"),
                    format!("{several} cannot all have one address"),
                    "write `dhcp4: true`, or write the slices out, each with its own addresses",
                );
            }
        }
        found
    }

    /// Notes slices that are named as others are written which have replicas: nobody could tell
    /// which of them is meant.
    pub(crate) fn names_of_replicas(&self, slices: &[(usize, SliceSpec)]) {
        let mut several: HashMap<&str, usize> = HashMap::new();
        for (i, slice) in slices {
            if let Some(replica) = &slice.replica {
                several.entry(replica.of.as_str()).or_insert(*i);
            }
        }
        for (i, slice) in slices.iter().filter(|(_, slice)| slice.replica.is_none()) {
            let Some(&other) = several.get(slice.name.as_str()) else {
                continue;
            };
            let at = |i: usize| Path::default().field("slices").index(i).field("name");
            let (first, second) = (other.min(*i), other.max(*i));
            let message = format!("two slices are named `{}`", slice.name);
            self.sink.note(
                Mistake::new(self.span(&at(second)), message)
                    .related(self.span(&at(first)), "the first one")
                    .hint(
                        "one of them has replicas, which are named after it: give one another name",
                    ),
            );
        }
    }
}
