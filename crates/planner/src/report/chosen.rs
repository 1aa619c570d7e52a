//! Why a slice has these CPUs and not others of its node.
//!
//! Takes its cores and what is left free; says how its vCPUs use them, how they lie to the L3 and the
//! pool, and whether lower numbers were left. Says nothing that was not looked up in the finished
//! plan.

use bmslice_inventory::CacheKind;
use bmslice_plan::{PlanParts, SlicePlan};
use bmslice_spec::{SliceSpec, Smt, VcpuOrder};

use super::Notes;
use crate::layout::CellPlace;
use crate::server::{Core, Server};
use crate::text::count;

/// How many L3 domains each node has, by server index; 0 where none is told.
pub(super) fn domains(server: &Server<'_>) -> Vec<usize> {
    let inventory = server.inventory;
    let shared = inventory
        .caches
        .iter()
        .filter(|cache| cache.level == 3 && cache.kind != CacheKind::Instruction);
    let mut domains = vec![0; server.nodes.len()];
    for cache in shared {
        for (at, node) in server.nodes.iter().enumerate() {
            let facts = inventory.nodes.iter().find(|facts| facts.id == node.id);
            let there = facts.is_some_and(|facts| !facts.cpus.is_disjoint(&cache.cpus));
            domains[at] += usize::from(there);
        }
    }
    domains
}

pub(super) fn told(
    server: &Server<'_>,
    domains: &[usize],
    slice: &SliceSpec,
    planned: &SlicePlan,
    places: &[CellPlace],
    parts: &PlanParts,
    notes: &mut Notes,
) {
    let mut said = vec![used(slice, planned, places)];
    said.extend(lies(domains, places));
    if !any_lower(server, places, parts) {
        said.push("no lower number is left free there".into());
    }
    notes.info("cpus-chosen", format!("its vCPUs have {}", said.join("; ")));
}

/// How the vCPUs use the threads of their cores.
fn used(slice: &SliceSpec, planned: &SlicePlan, places: &[CellPlace]) -> String {
    let cores = places.iter().flat_map(CellPlace::vcpu_cores).count();
    let widest = places.iter().flat_map(CellPlace::vcpu_cores);
    let widest = widest.map(|core| core.threads.len()).max().unwrap_or(1);
    let cores = count(cores, "whole core");
    if widest == 1 {
        return format!("{cores} of one thread");
    }
    let how = match slice.smt {
        Smt::Isolate => "one vCPU on each".to_owned(),
        Smt::Pack | Smt::Any if slice.vcpu_order == VcpuOrder::SiblingsLast => {
            "the first threads first, then their siblings".into()
        }
        Smt::Pack | Smt::Any if planned.vcpus.len() == 1 => "one thread of it".into(),
        Smt::Pack => "siblings side by side".into(),
        Smt::Any => "as few as hold them".into(),
    };
    format!("{cores}, {how}")
}

/// How they lie to the L3, where a node has several, and to the pool.
fn lies(domains: &[usize], places: &[CellPlace]) -> Option<String> {
    let l3 = |cores: &mut dyn Iterator<Item = &Core>| {
        let mut l3: Vec<usize> = cores.map(|core| core.l3).collect();
        l3.sort_unstable();
        l3.dedup();
        l3
    };
    let several = places.iter().any(|place| domains[place.node] > 1);
    let whole = places
        .iter()
        .all(|place| l3(&mut place.vcpu_cores()).len() == 1);
    // Where they lie in several it is told as a cost.
    if !several || !whole {
        return None;
    }
    let pool = places.first().is_some_and(|place| {
        !place.pool.is_empty() && l3(&mut place.pool.iter()) == l3(&mut place.vcpu_cores())
    });
    Some(format!(
        "they share one L3{}{}",
        if places.len() > 1 {
            " on each node"
        } else {
            ""
        },
        if pool { " with the emulator's" } else { "" }
    ))
}

/// Whether a core with a lower number is left free in the same L3 domains.
fn any_lower(server: &Server<'_>, places: &[CellPlace], parts: &PlanParts) -> bool {
    places.iter().any(|place| {
        let last = place.vcpu_cores().map(Core::first).max();
        let mine = |core: &&Core| place.vcpu_cores().any(|own| own.l3 == core.l3);
        let mut free = server.nodes[place.node].free.iter().filter(mine);
        free.any(|core| Some(core.first()) < last && core.cpus().is_subset(&parts.host.free))
    })
}
