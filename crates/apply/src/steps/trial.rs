//! Kernel arguments on trial: armed before a reboot, confirmed after it, or gone back from.
//!
//! ADR 0008 has the states. Takes what the boot loader keeps, the running kernel's arguments and
//! the journal; gives [`ConfirmBoot`] and [`FellBack`]. Keeps true: arguments are
//! confirmed only by the boot that has them and its management too, and a server that went back
//! tries them again only when asked.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bmslice_host::HostError;
use bmslice_inventory::{HostNeed, Inventory};
use bmslice_model::{KernelArg, MacAddress, PciAddress};
use bmslice_plan::{NicPlan, Plan};
use bmslice_render::{TRIAL, args_digest};
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::journal::Ledger;
use crate::paths::PLAN_BEFORE;
use crate::site::{Look, Site};
use crate::step::Observation;
use crate::steps::boot::{boot_id, line, running_args};
use crate::steps::loader::Loader;

/// The key of [`ConfirmBoot`] in the journal.
pub const KEY: &str = "confirm boot";

/// How long before the deadline waiting for the management ends, so that what is missing is still
/// noted.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// How long it is waited for even on a server whose boot took all the time.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// An interface that the server is managed through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Management {
    /// Its name before the reboot.
    pub interface: String,
    /// Its address before the reboot, by which it is found under another name.
    pub mac: Option<MacAddress>,
    /// Whether a default route went through it.
    pub default_route: bool,
}

impl Management {
    /// Those of a server that a plan leaves to it: the default routes and the session that is
    /// running.
    pub fn of(inventory: &Inventory, plan: &Plan) -> Vec<Self> {
        let taken = from_host(plan);
        let needs = inventory.pci.iter().flat_map(|f| &f.host_needs);
        let sessions: Vec<&String> = needs
            .filter_map(|need| match need {
                HostNeed::Session { interface } => Some(interface),
                HostNeed::DefaultRoute { .. }
                | HostNeed::Member { .. }
                | HostNeed::Address { .. }
                | HostNeed::Mount { .. } => None,
            })
            .collect();
        inventory
            .interfaces
            .iter()
            // What has no link now cannot be asked of the next boot.
            .filter(|i| i.carrier != Some(false) && i.name != "lo")
            .filter(|i| i.default_route || sessions.contains(&&i.name))
            .filter(|i| !goes(inventory, &i.name, &taken))
            .map(|i| Self {
                interface: i.name.clone(),
                mac: i.mac,
                default_route: i.default_route,
            })
            .collect()
    }

    /// What is missing of it, as a clause.
    fn lacking(&self, look: &Look<'_>) -> Option<String> {
        let root = look.machine.root();
        let net = "/sys/class/net";
        let by_mac = || {
            let wanted = self.mac?.to_string();
            root.list(net).ok()?.into_iter().find(|name| {
                root.attribute(format!("{net}/{name}/address")) == Some(wanted.clone())
            })
        };
        let name = if root.exists(format!("{net}/{}", self.interface)) {
            self.interface.clone()
        } else {
            match by_mac() {
                Some(name) => name,
                None => return Some(format!("there is no interface `{}`", self.interface)),
            }
        };
        if root.attribute(format!("{net}/{name}/carrier")).as_deref() != Some("1") {
            return Some(format!("`{name}` has no link"));
        }
        let read = |path: &str| root.read_text(path).unwrap_or_default();
        // Interface, destination, gateway, flags, …, mask: hexadecimal.
        let routes = read("/proc/net/route");
        let routes: Vec<Vec<&str>> = routes
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect())
            .filter(|words: &Vec<&str>| words.first() == Some(&name.as_str()))
            .collect();
        // Address, index, prefix length, scope (20 is the link's), flags, interface.
        let inet6 = read("/proc/net/if_inet6");
        let has_inet6 = inet6.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(5) == Some(&name.as_str()) && words.get(3) != Some(&"20")
        });
        if routes.is_empty() && !has_inet6 {
            return Some(format!("`{name}` has no address"));
        }
        let route6 = read("/proc/net/ipv6_route");
        let has_default = routes
            .iter()
            .any(|words| words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000"))
            || route6.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.first().is_some_and(|d| d.chars().all(|c| c == '0'))
                    && words.get(1) == Some(&"00")
                    && words.last() == Some(&name.as_str())
            });
        (self.default_route && !has_default)
            .then(|| format!("no default route goes through `{name}`"))
    }
}

/// What a plan takes from the host's network.
fn from_host(plan: &Plan) -> BTreeSet<PciAddress> {
    let cards = plan.slices().iter().flat_map(|slice| &slice.nics);
    let taken = cards.filter(|nic| nic.is_from_host());
    taken.flat_map(NicPlan::functions).collect()
}

/// Whether all that carries an interface is taken.
fn goes(inventory: &Inventory, interface: &str, taken: &BTreeSet<PciAddress>) -> bool {
    let mut carriers = inventory.pci.iter().filter(|f| {
        f.host_needs.iter().any(|need| match need {
            HostNeed::DefaultRoute { interface: of } | HostNeed::Session { interface: of } => {
                of == interface
            }
            HostNeed::Member { .. } | HostNeed::Address { .. } | HostNeed::Mount { .. } => false,
        })
    });
    let mut any = false;
    carriers.all(|function| {
        any = true;
        taken.contains(&function.address)
    }) && any
}

/// Sees that the host came up as it should, and keeps its kernel arguments for the boots to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmBoot {
    /// The arguments.
    pub args: Vec<KernelArg>,
    /// What keeps them.
    #[serde(flatten)]
    pub loader: Loader,
    /// What must be there to reach the server.
    pub management: Vec<Management>,
    /// Minutes after a boot on trial until the server goes back.
    pub minutes: u32,
}

impl ConfirmBoot {
    pub fn digest(&self) -> String {
        args_digest(&self.args)
    }

    pub fn describe(&self) -> String {
        if self.management.is_empty() {
            return "keep the kernel arguments of this boot".into();
        }
        let names: Vec<String> = self
            .management
            .iter()
            .map(|m| format!("`{}`", m.interface))
            .collect();
        format!(
            "keep the kernel arguments of this boot, if the server is reached through {}",
            names.join(" and ")
        )
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        Ok(match self.loader.confirmed(look)? {
            Some(digest) if digest == self.digest() => Observation::Held,
            Some(_) => Observation::different("other arguments are kept for the next boot"),
            None => Observation::NotHeld,
        })
    }

    /// Whether the running boot is one on trial with these arguments.
    pub fn is_on_trial(&self, look: &Look<'_>) -> bool {
        let digest = self.digest();
        running_args(look)
            .iter()
            .any(|arg| arg.is(TRIAL) && arg.value() == Some(&digest))
    }

    /// What is missing of the management, each as a clause.
    pub fn unmanaged(&self, look: &Look<'_>) -> Vec<String> {
        let paths = self.management.iter();
        paths.filter_map(|path| path.lacking(look)).collect()
    }

    /// Has the next boot, and only that one, try the arguments.
    pub fn arm(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        self.loader.arm(&self.args, site)?;
        if !site.machine.root().exists("/dev/watchdog") {
            site.note(
                "there is no `/dev/watchdog`: should the kernel hang rather than panic, somebody has to cycle the server's power; it then boots with the arguments before",
            );
        }
        Ok(())
    }

    /// On trial, a loader that could not strike what it tries would try it again.
    pub fn strike(&self, site: &Site<'_>) -> Result<(), HostError> {
        if !self.is_on_trial(&site.look()) {
            return Ok(());
        }
        self.loader.strike(site)
    }

    /// How long the management may take to come up.
    fn patience(&self, look: &Look<'_>) -> Duration {
        let up = look.machine.root().attribute("/proc/uptime");
        let up = up
            .and_then(|text| text.split('.').next()?.parse().ok())
            .map_or(Duration::ZERO, Duration::from_secs);
        Duration::from_secs(u64::from(self.minutes) * 60)
            .saturating_sub(up)
            .saturating_sub(LAST_WORDS)
            .max(LEAST_PATIENCE)
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let patience = self.patience(&site.look());
        let begun = site.machine.now();
        loop {
            let missing = self.unmanaged(&site.look());
            if missing.is_empty() {
                break;
            }
            let waited = site.machine.now().duration_since(begun).unwrap_or_default();
            if waited >= patience {
                return Err(StepError::cannot(
                    format!(
                        "the server came up without its management: {}",
                        missing.join("; ")
                    ),
                    format!(
                        "unless it is confirmed within {} minutes of its boot, it goes back to the kernel arguments before",
                        self.minutes
                    ),
                ));
            }
            site.machine.sleep(PAUSE);
        }
        self.loader.confirm(&self.args, site)?;
        // There is no way back to the plan before any more.
        site.machine.remove(Path::new(PLAN_BEFORE))?;
        if let Some(what) = self.loader.passed_over(&site.look(), &self.args)? {
            site.note(what);
        }
        Ok(())
    }
}

/// A server that tried kernel arguments and is back at those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FellBack {
    /// What was tried.
    pub args: Vec<KernelArg>,
    /// Why it was not confirmed, as far as the boot on trial could still tell.
    pub why: Option<String>,
    /// Whether what it went back to are arguments of ours that were confirmed earlier.
    pub to_ours: bool,
}

impl FellBack {
    /// Whether the server went back, by what the journal knows and the kernel runs with.
    pub fn seen(look: &Look<'_>) -> Result<Option<Self>, HostError> {
        let Some((step, begun_in, failed)) = on_trial(look.ledger) else {
            return Ok(None);
        };
        let running = running_args(look);
        if begun_in == boot_id(look) || step.args.iter().all(|arg| running.contains(arg)) {
            return Ok(None);
        }
        let still_asked = step.loader.tried(look)? == Some(step.digest());
        let why = match failed {
            Some(why) => Some(why.to_owned()),
            None if still_asked => Some(step.loader.untried()),
            None => step.loader.lost(look, &step.args),
        };
        Ok(Some(Self {
            args: step.args.clone(),
            why,
            to_ours: step.loader.confirmed(look)?.is_some(),
        }))
    }

    /// As a sentence without its stop.
    pub fn describe(&self) -> String {
        let why = self
            .why
            .as_deref()
            .unwrap_or("that boot left no word: its kernel panicked or hung, or the power was cut");
        format!(
            "the server went back to the kernel arguments before; a boot with `{}` was not confirmed: {why}",
            line(&self.args)
        )
    }
}

/// What is tried or was, in which boot it was begun, and why it failed if that is known.
fn on_trial(ledger: &Ledger) -> Option<(&ConfirmBoot, &str, Option<&str>)> {
    let entry = ledger.get(KEY)?;
    let crate::step::Step::ConfirmBoot(step) = &entry.step else {
        return None;
    };
    Some((step, entry.begun_in.as_deref()?, entry.failed.as_deref()))
}

/// The digest of a plan's kernel arguments, as boot loaders tell them apart.
pub fn digest(plan: &Plan) -> String {
    args_digest(&plan.host().kernel_args)
}

/// The plan of a file when it is the one whose kernel arguments are confirmed: what a server that
/// tries others goes back to.
pub fn plan_to_go_back_to(look: &Look<'_>, path: &str) -> Result<Option<String>, HostError> {
    let Some(crate::step::Step::ConfirmBoot(step)) = look.ledger.get(KEY).map(|e| &e.step) else {
        return Ok(None);
    };
    let confirmed = step.loader.confirmed(look)?;
    let Some(text) = look
        .file(path)?
        .and_then(|bytes| String::from_utf8(bytes).ok())
    else {
        return Ok(None);
    };
    // One that cannot be read is none to go back to, and is said where it is the one in force.
    let plan = Plan::parse(&text).ok();
    Ok(plan
        .is_some_and(|plan| confirmed == Some(digest(&plan)))
        .then_some(text))
}

/// What is on trial in the running boot and not confirmed yet.
pub fn unconfirmed<'l>(look: &Look<'l>) -> Option<&'l ConfirmBoot> {
    let (step, ..) = on_trial(look.ledger)?;
    step.is_on_trial(look).then_some(step)
}

/// Whether the running boot tries kernel arguments, whatever the journal knows of it.
pub fn is_on_trial(look: &Look<'_>) -> bool {
    running_args(look).iter().any(|arg| arg.is(TRIAL))
}
