//! Which card each of a slice's is, and why one is far from it.

use bmslice_model::NumaNodeId;
use bmslice_plan::{NicPlan, PlanParts, SlicePlan};

use super::{Notes, on_nodes};
use crate::best::Best;
use crate::devices::{Near, Want};
use crate::problem::Site;
use crate::text::{and, count, ticked};

pub(super) fn told(
    site: &Site<'_>,
    best: &Best,
    parts: &PlanParts,
    at: usize,
    planned: &SlicePlan,
    notes: &mut Notes,
) {
    let demand = &site.problem.demands[at];
    for (nth, (want, &pf)) in demand.wants.iter().zip(&best.choices[at].pfs).enumerate() {
        let pf = &site.devices.pfs[pf];
        let Some(nic) = planned.nics.get(want.nic) else {
            continue;
        };
        let what = if want.whole {
            "the whole of"
        } else {
            "a virtual function of"
        };
        if want.named {
            let text = format!(
                "NIC {} is {what} {}, which is asked for",
                want.nic,
                pf.label()
            );
            notes.info("nic-named", text);
        } else {
            let near = match nic.common().local {
                Some(true) => ", which is on its node",
                Some(false) | None => "",
            };
            notes.info(
                "nic-chosen",
                format!(
                    "NIC {} is {what} {}{near}{}",
                    want.nic,
                    pf.label(),
                    among(site, parts, want, best.choices[at].pfs[nth])
                ),
            );
        }
        match (nic.common().local, pf.node) {
            (Some(false), Some(node)) => notes.warn(
                "remote-device",
                format!(
                    "its NIC {} is on node {node} and its CPUs on {}: what it sends and receives crosses between them{}",
                    pf.label(),
                    on_nodes(planned),
                    no_room(site, parts, node, demand.fewest_alone().0)
                ),
            ),
            (None, _) => notes.info(
                "unknown-node",
                format!("firmware does not tell the node of its NIC {}", pf.label()),
            ),
            _ => {}
        }
        if let NicPlan::Passthrough { group, .. } = nic
            && !group.is_empty()
        {
            notes.warn(
                "group-goes-along",
                format!(
                    "with {} goes the rest of its IOMMU group: {}",
                    pf.label(),
                    and(group)
                ),
            );
        }
    }
}

/// Why this NIC and no other that would do: of those as near, whether another is left.
fn among(site: &Site<'_>, parts: &PlanParts, want: &Want, chosen: usize) -> String {
    let pfs = site.devices.pfs;
    let node = pfs[chosen].node;
    let as_near = |&&pf: &&usize| pf != chosen && (want.near == Near::Any || pfs[pf].node == node);
    let others: Vec<usize> = want.candidates.iter().filter(as_near).copied().collect();
    let whole = |pf: usize| {
        let address = pfs[pf].address();
        let mut cards = parts.slices.iter().flat_map(|slice| &slice.nics);
        cards.any(|nic| nic.functions().contains(&address))
    };
    let split = |pf: usize| {
        let mut split = parts.host.split.iter();
        split.any(|it| it.device.address == pfs[pf].address())
    };
    let left = |pf: &&usize| !(whole(**pf) || want.whole && split(**pf));
    let left = others.iter().filter(left).min();
    match left {
        _ if want.candidates.len() == 1 => ", the only one that is free and as asked".into(),
        None if others.is_empty() => ", the only one there".into(),
        None => format!(", the only one left of {}", others.len() + 1),
        Some(&other) if other > chosen => format!(
            ", the first by address of {} that would do",
            others.len() + 1
        ),
        Some(_) => String::new(),
    }
}

/// Why a slice is not where its NIC is: who else is there, when that leaves it no room.
fn no_room(site: &Site<'_>, parts: &PlanParts, node: NumaNodeId, need: u32) -> String {
    let Some(at) = site.server.node_index(node) else {
        return String::new();
    };
    let free = &site.server.nodes[at].free;
    let left = free
        .iter()
        .filter(|core| core.cpus().is_subset(&parts.host.free))
        .count();
    let there: Vec<String> = parts
        .slices
        .iter()
        .filter(|slice| slice.cells.iter().any(|cell| cell.node == node))
        .map(|slice| ticked(&slice.name))
        .collect();
    if left >= need as usize || there.is_empty() {
        return String::new();
    }
    format!(
        " (it needs {} and beside {} node {node} has {} left)",
        count(need as usize, "whole core"),
        and(there),
        if left == 0 {
            "none".to_owned()
        } else {
            left.to_string()
        }
    )
}
