//! How vCPUs sit on cores, and what the guest is told of it (planning rule 4).

use bmslice_model::CpuSet;
use bmslice_plan::{GuestCell, SlicePlan};
use bmslice_spec::{SliceSpec, Smt, VcpuOrder};

use crate::server::Server;
use crate::{Case, Found, Invariant};

pub(crate) const VCPU_COUNT: Invariant = Invariant {
    code: "vcpu-count",
    rule: "a slice has as many vCPUs as asked",
    test: |case, found| {
        for (slice, spec) in case.slices() {
            found.differs(
                slice,
                "the number of vCPUs",
                &slice.vcpus.len(),
                &(spec.vcpus as usize),
            );
        }
    },
};

pub(crate) const PLACEMENT: Invariant = Invariant {
    code: "smt",
    rule: "`pack` fills whole cores, in the order asked, with at most one core of a cell part-filled; `isolate` puts each vCPU on a core of its own",
    test: |case, found| {
        for (slice, spec) in case.slices() {
            match spec.smt {
                Smt::Pack => slice
                    .cells
                    .iter()
                    .for_each(|cell| packed(&case.server, slice, spec, cell, found)),
                Smt::Isolate => apart(&case.server, slice, found),
                Smt::Any => {}
            }
        }
    },
};

/// The host core of each vCPU of a cell, in the order of the vCPUs.
fn cores_in_order(server: &Server<'_>, slice: &SlicePlan, cell: &GuestCell) -> Vec<CpuSet> {
    let vcpus = cell.vcpus.iter();
    vcpus
        .filter_map(|vcpu| slice.vcpus.get(vcpu.number() as usize))
        .map(|cpu| server.core(*cpu))
        .collect()
}

fn packed(
    server: &Server<'_>,
    slice: &SlicePlan,
    spec: &SliceSpec,
    cell: &GuestCell,
    found: &mut Found,
) {
    let order = cores_in_order(server, slice, cell);
    let mut cores: Vec<&CpuSet> = Vec::new();
    for core in &order {
        if !cores.contains(&core) {
            cores.push(core);
        }
    }
    let filled = |core: &CpuSet| order.iter().filter(|c| *c == core).count();
    let part: Vec<&&CpuSet> = cores.iter().filter(|c| filled(c) < c.len()).collect();
    if let [_, second, ..] = part[..] {
        found.slice(
            slice,
            format!("vCPUs are to fill whole cores, but core {second} and another are part-filled"),
        );
        return;
    }
    let wanted: Vec<&CpuSet> = match spec.vcpu_order {
        // Each core's threads side by side, the part-filled one last.
        VcpuOrder::SiblingsAdjacent => {
            cores.sort_by_key(|core| filled(core) < core.len());
            let times = cores.iter();
            times
                .flat_map(|core| std::iter::repeat_n(*core, filled(core)))
                .collect()
        }
        // A thread of every core, then another thread of every core that has one left.
        VcpuOrder::SiblingsLast => {
            let most = cores.iter().map(|core| filled(core)).max().unwrap_or(0);
            (0..most)
                .flat_map(|round| {
                    cores
                        .iter()
                        .copied()
                        .filter(move |core| filled(core) > round)
                })
                .collect()
        }
    };
    if !order.iter().eq(wanted.iter().copied()) {
        let is = match spec.vcpu_order {
            VcpuOrder::SiblingsAdjacent => "siblings are not side by side",
            VcpuOrder::SiblingsLast => "siblings do not follow after all first threads",
        };
        found.slice(slice, format!("in the order of its vCPUs {is}"));
    }
}

fn apart(server: &Server<'_>, slice: &SlicePlan, found: &mut Found) {
    let vcpus = slice.vcpu_cpus();
    for core in server.cores(&vcpus) {
        let on_it = core.intersection(&vcpus);
        if on_it.len() > 1 {
            found.slice(
                slice,
                format!("vCPUs are to have a core each, but {on_it} are one core"),
            );
        }
    }
}

pub(crate) const TOPOLOGY: Invariant = Invariant {
    code: "topology",
    rule: "the guest sees as many CPUs as it has; what it sees as threads of one core are siblings; packed siblings are shown, unless the order is the flat one; AMD shows threads only with `topoext`",
    test: |case, found| {
        for (slice, spec) in case.slices() {
            topology(case, slice, spec, found);
        }
    },
};

fn topology(case: &Case<'_>, slice: &SlicePlan, spec: &SliceSpec, found: &mut Found) {
    let seen = slice.topology;
    let product = [seen.sockets, seen.cores, seen.threads]
        .into_iter()
        .map(u64::from)
        .fold(1, u64::saturating_mul);
    if product != slice.vcpus.len() as u64 {
        found.slice(
            slice,
            format!(
                "the guest sees {product} CPUs, it has {}",
                slice.vcpus.len()
            ),
        );
        return;
    }
    let threads = seen.threads as usize;
    for (number, vcpus) in slice.vcpus.chunks(threads).enumerate() {
        let one = case.server.core(vcpus[0]);
        if let Some(other) = vcpus.iter().find(|cpu| !one.contains(**cpu)) {
            found.slice(
                slice,
                format!(
                    "the guest's core {number} is CPUs {} and {other}, which are not one core",
                    vcpus[0]
                ),
            );
        }
    }
    // What packing made of it: the same number of vCPUs on every core, or it cannot be shown.
    let vcpus = slice.vcpu_cpus();
    let cores = case.server.cores(&vcpus);
    let filled = |core: &CpuSet| core.intersection(&vcpus).len();
    let first = cores.first().map_or(1, filled);
    let even = cores.iter().all(|core| filled(core) == first);
    let wanted = match (spec.smt, spec.vcpu_order) {
        (Smt::Pack, VcpuOrder::SiblingsAdjacent) if even => first,
        (Smt::Any, _) => threads,
        _ => 1,
    };
    if threads != wanted {
        found.slice(
            slice,
            format!("the guest sees {threads} threads in a core, should see {wanted}"),
        );
    }
    let vendor = case.inventory.machine.cpu_vendor.as_deref();
    let amd = matches!(vendor, Some("AuthenticAMD" | "HygonGenuine"));
    let has = slice
        .cpu_features
        .iter()
        .any(|feature| feature == "topoext");
    if amd && threads > 1 && !has {
        found.slice(
            slice,
            "on an AMD CPU the guest sees no threads without the feature `topoext`",
        );
    }
}
