//! Nodes, cells and pages (planning rule 6).

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::{ByteSize, NumaNodeId, count};
use bmslice_spec::Numa;

use crate::{Case, Found, Invariant};

pub(crate) const NUMA: Invariant = Invariant {
    code: "numa",
    rule: "a slice has one cell on one node (the one asked), or as many as asked on as many nodes; vCPUs sit on their cell's node, and cores of emulator and IOThreads on one of the slice's",
    test: numa,
};

fn numa(case: &Case<'_>, found: &mut Found) {
    for (slice, spec) in case.slices() {
        let nodes: BTreeSet<NumaNodeId> = slice.cells.iter().map(|cell| cell.node).collect();
        let wanted = match spec.numa {
            Numa::Single | Numa::Node(_) => 1,
            Numa::Spread(cells) => cells as usize,
        };
        found.differs(slice, "the number of cells", &slice.cells.len(), &wanted);
        if nodes.len() != slice.cells.len() {
            found.slice(slice, "two of its cells are on one node");
        }
        if let Numa::Node(asked) = spec.numa
            && nodes.iter().any(|node| *node != asked)
        {
            found.slice(slice, format!("it is not on node {asked} as asked"));
        }
        for node in &nodes {
            let barred = |n: &&bmslice_inventory::NumaNode| n.id == *node && !n.allowed;
            if case.inventory.nodes.iter().any(|n| barred(&n)) {
                found.slice(
                    slice,
                    format!("a cpuset keeps the memory of node {node} away"),
                );
            }
            if !case.inventory.nodes.iter().any(|n| n.id == *node) {
                found.slice(slice, format!("node {node} is not on this server"));
            }
        }
        for (number, cell) in slice.cells.iter().enumerate() {
            for vcpu in cell.vcpus.iter() {
                let Some(cpu) = slice.vcpus.get(vcpu.number() as usize) else {
                    continue;
                };
                if case.server.node(*cpu) != Some(cell.node) {
                    found.slice(
                        slice,
                        format!(
                            "vCPU {vcpu} of cell {number} is on CPU {cpu}, which is not on node {}",
                            cell.node
                        ),
                    );
                }
            }
        }
        if !slice.pool_is_host {
            for cpu in slice.pool().iter() {
                if !case
                    .server
                    .node(cpu)
                    .is_some_and(|node| nodes.contains(&node))
                {
                    found.slice(
                        slice,
                        format!(
                            "CPU {cpu} of emulator and IOThreads is not on a node of the slice"
                        ),
                    );
                }
            }
        }
    }
}

pub(crate) const CELLS: Invariant = Invariant {
    code: "cells",
    rule: "cells have equal shares of vCPUs and memory, the memory is as much as asked, in whole pages of the size asked",
    test: cells,
};

fn cells(case: &Case<'_>, found: &mut Found) {
    for (slice, spec) in case.slices() {
        found.differs(slice, "the memory", &slice.memory, &spec.memory);
        found.differs(
            slice,
            "the huge page size",
            &slice.huge_pages,
            &spec.hugepages,
        );
        let sum: u64 = slice
            .cells
            .iter()
            .map(|cell| cell.memory.bytes())
            .fold(0, u64::saturating_add);
        if sum != slice.memory.bytes() {
            found.slice(
                slice,
                format!(
                    "its cells have {}, it has {}",
                    ByteSize::from_bytes(sum),
                    slice.memory
                ),
            );
        }
        for (number, cell) in slice.cells.iter().enumerate() {
            let first = &slice.cells[0];
            if cell.vcpus.len() != first.vcpus.len() || cell.memory != first.memory {
                found.slice(slice, format!("cell {number} is not as large as cell 0"));
            }
            let page = slice.huge_pages.unwrap_or(ByteSize::from_kib(4));
            if !cell.memory.is_multiple_of(page) || cell.memory == ByteSize::ZERO {
                found.slice(
                    slice,
                    format!(
                        "the {} of cell {number} are not whole pages of {page}",
                        cell.memory
                    ),
                );
            }
        }
    }
}

pub(crate) const FITS: Invariant = Invariant {
    code: "memory-fits",
    rule: "on no node do slices have more memory than there is, and every node can make pages of the size",
    test: fits,
};

/// Bytes of planned pages that no slice has.
fn idle_pages(case: &Case<'_>, node: NumaNodeId) -> u64 {
    let idle = |pool: &bmslice_plan::HugePagePlan| {
        let slices = case.plan.slices().iter();
        let slices = slices.filter(|slice| slice.huge_pages == Some(pool.size));
        let cells = slices.flat_map(|slice| &slice.cells);
        let cells = cells.filter(|cell| cell.node == node);
        let had = cells.fold(0u64, |sum, cell| sum.saturating_add(cell.memory.bytes()));
        let all = pool.count.saturating_mul(pool.size.bytes());
        all.saturating_sub(had)
    };
    let pools = case.plan.host().huge_pages.iter();
    let here = pools.filter(|pool| pool.node == node).map(idle);
    here.fold(0, u64::saturating_add)
}

fn fits(case: &Case<'_>, found: &mut Found) {
    for node in &case.inventory.nodes {
        let cells = case.plan.slices().iter().flat_map(|slice| &slice.cells);
        let slices = cells
            .filter(|cell| cell.node == node.id)
            .fold(0u64, |sum, cell| sum.saturating_add(cell.memory.bytes()));
        let used = slices.saturating_add(idle_pages(case, node.id));
        if used > node.memory_total.bytes() {
            let used = ByteSize::from_bytes(used);
            found.host(format!(
                "slices have {used} on node {}, there is {}",
                node.id, node.memory_total
            ));
        }
    }
    for slice in case.plan.slices() {
        let Some(page) = slice.huge_pages else {
            continue;
        };
        for cell in &slice.cells {
            let node = case.inventory.nodes.iter().find(|n| n.id == cell.node);
            let there = node.is_some_and(|n| n.huge_pages.iter().any(|pool| pool.size == page));
            if !there {
                found.slice(slice, format!("node {} has no pages of {page}", cell.node));
            }
        }
    }
}

pub(crate) const HUGE_PAGES: Invariant = Invariant {
    code: "huge-pages",
    rule: "the huge pages planned for each node and size are those that the slices need, said once; of those that come with the boot more may stay where the arguments are those in force",
    test: huge_pages,
};

fn huge_pages(case: &Case<'_>, found: &mut Found) {
    let mut needed: BTreeMap<(NumaNodeId, ByteSize), u64> = BTreeMap::new();
    for slice in case.plan.slices() {
        let Some(page) = slice.huge_pages.filter(|page| *page != ByteSize::ZERO) else {
            continue;
        };
        for cell in &slice.cells {
            *needed.entry((cell.node, page)).or_default() +=
                cell.memory.bytes().div_ceil(page.bytes());
        }
    }
    let mut planned: BTreeMap<(NumaNodeId, ByteSize), u64> = BTreeMap::new();
    for pool in &case.plan.host().huge_pages {
        if planned.insert((pool.node, pool.size), pool.count).is_some() {
            found.host(format!(
                "pages of {} on node {} are planned twice",
                pool.size, pool.node
            ));
        }
    }
    let in_force = case
        .in_force
        .is_none_or(|before| before.host().kernel_args == case.plan.host().kernel_args);
    // A plan judged alone stands for the one in force: that it follows another has to do.
    let may_stay = case.plan.parts().follows.is_some() && in_force;
    let from_boot = case
        .plan
        .host()
        .huge_pages
        .iter()
        .filter(|pool| pool.at_boot);
    let from_boot: BTreeSet<_> = from_boot.map(|pool| (pool.node, pool.size)).collect();
    let all: BTreeSet<_> = needed.keys().chain(planned.keys()).copied().collect();
    for (node, size) in all {
        let get = |map: &BTreeMap<_, u64>| map.get(&(node, size)).copied().unwrap_or(0);
        let (need, plan) = (get(&needed), get(&planned));
        let stay = may_stay && from_boot.contains(&(node, size)) && plan > need;
        if need != plan && !stay {
            found.host(format!(
                "{} of {size} {} planned on node {node}, the slices need {need}",
                count(plan, "page"),
                if plan == 1 { "is" } else { "are" }
            ));
        }
    }
}
