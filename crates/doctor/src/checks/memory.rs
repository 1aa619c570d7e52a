//! Memory and huge pages, node by node.

use bmslice_inventory::{Inventory, NumaNode};
use bmslice_model::ByteSize;

use super::{Examined, fails, holds, unchecked};

fn with_cpus(inventory: &Inventory) -> Vec<&NumaNode> {
    inventory
        .nodes
        .iter()
        .filter(|node| !node.cpus.is_empty())
        .collect()
}

fn numbers(nodes: &[&NumaNode]) -> String {
    let ids: Vec<String> = nodes.iter().map(|node| node.id.to_string()).collect();
    format!(
        "node{} {}",
        if ids.len() == 1 { "" } else { "s" },
        ids.join(", ")
    )
}

pub(super) fn node_memory(inventory: &Inventory) -> Examined {
    let nodes = with_cpus(inventory);
    if nodes.iter().all(|node| node.memory_total == ByteSize::ZERO) {
        return unchecked("no node tells its memory");
    }
    let empty: Vec<&NumaNode> = nodes
        .iter()
        .copied()
        .filter(|node| node.memory_total == ByteSize::ZERO)
        .collect();
    if empty.is_empty() {
        let each: Vec<String> = nodes
            .iter()
            .map(|node| {
                format!(
                    "node {}: {} GiB",
                    node.id,
                    node.memory_total.mib().div_ceil(1024)
                )
            })
            .collect();
        return holds(each.join(", "));
    }
    fails(
        format!("{} with CPUs and no memory", numbers(&empty)),
        "memory beside the CPUs of each node",
        "put memory modules into that socket's slots: guests there would use remote memory",
    )
}

pub(super) fn huge_pages(inventory: &Inventory) -> Examined {
    let nodes = with_cpus(inventory);
    let none: Vec<&NumaNode> = nodes
        .iter()
        .copied()
        .filter(|node| node.huge_pages.is_empty())
        .collect();
    if none.is_empty() {
        let each: Vec<String> = nodes
            .iter()
            .map(|node| {
                let pools: Vec<String> = node
                    .huge_pages
                    .iter()
                    .map(|pool| format!("{} × {} ({} free)", pool.total, pool.size, pool.free))
                    .collect();
                format!("node {}: {}", node.id, pools.join(", "))
            })
            .collect();
        return holds(each.join("; "));
    }
    fails(
        format!("{} can have no huge pages", numbers(&none)),
        "huge pages of 2 MiB or 1 GiB on each node with CPUs",
        "boot a kernel with CONFIG_HUGETLBFS; distributions' kernels have it",
    )
}

pub(super) fn gigantic_pages(inventory: &Inventory) -> Examined {
    let nodes = with_cpus(inventory);
    if nodes.iter().all(|node| node.huge_pages.is_empty()) {
        return unchecked("no node tells of huge pages");
    }
    let none: Vec<&NumaNode> = nodes
        .iter()
        .copied()
        .filter(|node| {
            node.huge_pages
                .iter()
                .all(|pool| pool.size != ByteSize::from_gib(1))
        })
        .collect();
    if none.is_empty() {
        return holds("each node with CPUs can have pages of 1 GiB");
    }
    fails(
        format!("{} without pages of 1 GiB", numbers(&none)),
        "pages of 1 GiB (the CPU flag pdpe1gb)",
        "ask for `hugepages: 2MiB` in the specification",
    )
}
