//! What is asked for by name and costs the host, or all that run on it, something.
//!
//! Takes the spec and what was planned; notes each such choice with its price. The price is said
//! whenever it is paid, not only the first time.

use std::collections::BTreeSet;

use bmslice_inventory::HostNeed;
use bmslice_plan::{NicPlan, SlicePlan};
use bmslice_spec::{IdleStates, Mitigations, Slicing};

use super::Notes;
use crate::function;
use crate::problem::Site;

use crate::text::and;

/// The price of what the spec asks for by name.
pub(super) fn choices(spec: &Slicing, notes: &mut Notes) {
    match spec.host.idle_states {
        IdleStates::All => {}
        IdleStates::Shallow => notes.info(
            "idle-states",
            "idle CPUs go no deeper than C1 and wake within microseconds; the price is power, on all CPUs at all times, and less turbo for those at work".into(),
        ),
        IdleStates::Poll => notes.warn(
            "idle-states",
            "idle CPUs do not sleep at all: each draws full power and makes heat at all times, and an idle thread takes time from its sibling; `idleStates: shallow` costs less and wakes within microseconds".into(),
        ),
    }
    match spec.host.mitigations {
        Mitigations::Auto => {}
        Mitigations::None => {
            let tenants: BTreeSet<&str> = spec
                .slices
                .iter()
                .map(|slice| slice.tenant.as_str())
                .collect();
            let whose = match tenants.len() {
                0 | 1 => "a guest may read the memory of other guests".to_owned(),
                _ => format!(
                    "a guest of one tenant may read the memory of the others ({})",
                    and(tenants.iter().map(|tenant| format!("`{tenant}`")))
                ),
            };
            notes.warn(
                "mitigations",
                format!("nothing guards against flaws of the CPU: {whose} and of the host; right only where all that runs here is trusted alike"),
            );
        }
    }
}

/// What the spec takes from the host's network.
pub(super) fn from_host(site: &Site<'_>, planned: &SlicePlan, notes: &mut Notes) {
    for nic in &planned.nics {
        let NicPlan::Passthrough {
            device,
            from_host: true,
            ..
        } = nic
        else {
            continue;
        };
        let taken = nic.functions();
        let functions = site.server.inventory.pci.iter();
        let needs: Vec<&HostNeed> = functions
            .filter(|f| taken.contains(&f.address))
            .flat_map(|f| &f.host_needs)
            .collect();
        // A guest that has it already took it from nobody.
        if needs.is_empty() {
            continue;
        }
        notes.warn(
            "nic-from-host",
            format!(
                "{} is taken from the host, where {}: see that the host is reached another way, and apply at its own console, since over ssh `apply` refuses",
                function::label(device),
                and(needs.into_iter().map(function::said)),
            ),
        );
    }
}
