//! What a fleet asks of each of its servers: labels, and whole cores that stay free.

use bmslice_model::CpuSet;

use crate::{Invariant, cpus};

pub(crate) const SELECTOR: Invariant = Invariant {
    code: "selector",
    rule: "this server has the labels by which each slice selects its server",
    test: |case, found| {
        let here = case.inventory.machine.hostname.as_str();
        for (slice, spec) in case.slices() {
            let Some(selector) = &spec.selector else {
                continue;
            };
            if selector.servers().all(|server| server != here) {
                found.slice(
                    slice,
                    format!("it is for servers with `{selector}`, and `{here}` is none of them"),
                );
            }
        }
    },
};

pub(crate) const HEADROOM: Invariant = Invariant {
    code: "headroom",
    rule: "as many whole cores stay free as the headroom says: nobody's, and not a running domain's",
    test: |case, found| {
        let asked = case.spec.host.headroom_cores as usize;
        if asked == 0 {
            return;
        }
        let libvirt = case.inventory.hypervisor.libvirt.iter();
        let mut held = CpuSet::new();
        for domain in libvirt.flat_map(|libvirt| &libvirt.domains) {
            // One without pins floats over all CPUs, and holds none.
            let pinned = !case.server.online.is_subset(&domain.cpus);
            if domain.running && pinned && !cpus::is_ours(case, domain) {
                held.extend_from(&domain.cpus);
            }
        }
        let free = &case.plan.host().free;
        let cores = case.server.cores(free).into_iter();
        let whole = cores
            .filter(|core| core.is_subset(free) && core.is_disjoint(&held))
            .count();
        if whole < asked {
            found.host(format!(
                "of whole cores {whole} stay free, asked were {asked} of headroom"
            ));
        }
    },
};
