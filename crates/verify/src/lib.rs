//! Proves that what runs is the plan, from outside libvirt as well as through it.
//!
//! Takes a machine, what it is ([`bmslice_inventory`]), the plan and, when somebody gives it, the
//! MAC table of the switch; gives a [`Report`]. Two halves that do not know each other's business:
//! [`observe`] collects typed facts ([`Observed`]) and judges nothing; [`compare`] is a
//! pure function over a table of checks ([`CHECKS`]). Keeps true: what could not be seen is
//! [`Verdict::Unknown`], what cannot be there yet is [`Verdict::Pending`], and neither is success.
//! Changes nothing.

mod checks;
mod comparisons;
mod fabric;
mod observe;
mod read;
mod report;
#[cfg(test)]
mod testing;

pub use checks::{CHECKS, Check, Look, compare};
pub use fabric::{Age, FabricEntry, FabricError, FabricKind, FabricTable, FabricVlan};
pub use observe::{Guest, Observed, Process, observe};
pub use read::cmdline::RamBackend;
pub use read::domain_xml::{DomainXml, Hostdev};
pub use read::numa_maps::{Mapping, Policy};
pub use read::task::{Role, Task};
pub use read::vfinfo::VfState;
pub use report::{Finding, NotSeen, Report, Seen, Verdict};

use bmslice_host::Machine;
use bmslice_inventory::LiveInventory;
use bmslice_plan::Plan;

/// Looks at the machine and holds what is seen against the plan.
#[must_use]
pub fn verify(
    machine: &dyn Machine,
    inventory: &LiveInventory,
    plan: &Plan,
    fabric: Option<&FabricTable>,
) -> Report {
    compare(plan, &observe(machine, inventory, plan), fabric)
}
