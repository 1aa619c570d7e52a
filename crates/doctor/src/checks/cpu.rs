//! CPUs: architecture, whole cores, siblings.

use std::collections::BTreeSet;

use bmslice_inventory::{Cpu, Inventory};
use bmslice_model::{CpuSet, NumaNodeId, count};

use super::{Examined, fails, holds, unchecked};

/// A slice is at least one core of vCPUs and one of the emulator's; the host keeps one.
const CORES: usize = 3;

pub(super) fn architecture(inventory: &Inventory) -> Examined {
    match inventory.machine.architecture.as_str() {
        "" => unchecked("the architecture was not told"),
        "x86_64" => holds("x86_64"),
        other => fails(
            other,
            "x86_64",
            "`bmslice` renders guests for x86_64 alone as yet",
        ),
    }
}

pub(super) fn bare_metal(inventory: &Inventory) -> Examined {
    match inventory.machine.guest {
        Some(false) => holds("bare metal"),
        Some(true) => fails(
            "the server is itself a guest",
            "bare metal",
            "good for a trial; its cores are only as quiet as the hypervisor under it lets them be",
        ),
        None => unchecked("the CPU flags do not tell"),
    }
}

/// The cores of a node, each once, in the order of their lowest CPU.
fn cores(inventory: &Inventory, node: NumaNodeId) -> Vec<&CpuSet> {
    let mut seen = BTreeSet::new();
    inventory
        .cpus
        .iter()
        .filter(|cpu| cpu.online && cpu.allowed && cpu.node == Some(node))
        .filter(|cpu| seen.insert(cpu.siblings.first()))
        .map(|cpu| &cpu.siblings)
        .collect()
}

pub(super) fn whole_cores(inventory: &Inventory) -> Examined {
    let usable: CpuSet = inventory
        .cpus
        .iter()
        .filter(|cpu| cpu.online && cpu.allowed)
        .map(|cpu| cpu.id)
        .collect();
    let some_offline = inventory.cpus.iter().any(|cpu| !cpu.online);
    let threads = inventory
        .cpus
        .iter()
        .map(|cpu| cpu.siblings.len())
        .max()
        .unwrap_or(1);
    // The kernel does not name offline siblings: beside offline CPUs a core with fewer threads
    // than others has lost some. Without offline CPUs cores may differ by design (hybrid CPUs).
    let whole = |core: &CpuSet| core.is_subset(&usable) && (!some_offline || core.len() == threads);
    let nodes: Vec<(NumaNodeId, usize)> = inventory
        .nodes
        .iter()
        .filter(|node| !node.cpus.is_empty())
        .map(|node| {
            let count = cores(inventory, node.id)
                .into_iter()
                .filter(|core| whole(core))
                .count();
            (node.id, count)
        })
        .collect();
    if nodes.is_empty() {
        return unchecked("no NUMA node has CPUs");
    }
    let found = nodes
        .iter()
        .map(|(id, cores)| format!("node {id}: {}", count(*cores, "whole core")))
        .collect::<Vec<_>>()
        .join(", ");
    let most = nodes.iter().map(|(_, count)| *count).max().unwrap_or(0);
    if most < CORES {
        return fails(
            found,
            format!(
                "{CORES} whole cores on one node: one for the host, one for the emulator, one for vCPUs"
            ),
            if some_offline {
                "bring offline CPUs back (`echo 1 > /sys/devices/system/cpu/cpuN/online`)"
            } else {
                "slice a larger server"
            },
        );
    }
    holds(found)
}

pub(super) fn siblings(inventory: &Inventory) -> Examined {
    let online: Vec<&Cpu> = inventory.cpus.iter().filter(|cpu| cpu.online).collect();
    let mut faults = Vec::new();
    for cpu in &online {
        if !cpu.siblings.contains(cpu.id) {
            faults.push(format!("CPU {} is not its own sibling", cpu.id));
        }
        for other in online.iter().filter(|o| cpu.siblings.contains(o.id)) {
            if other.siblings != cpu.siblings {
                faults.push(format!(
                    "CPU {} has siblings {}, and CPU {} has {}",
                    cpu.id, cpu.siblings, other.id, other.siblings
                ));
            }
            if other.id > cpu.id && other.node != cpu.node {
                faults.push(format!(
                    "CPUs {} and {} are one core on two NUMA nodes",
                    cpu.id, other.id
                ));
            }
            if other.id > cpu.id && other.package != cpu.package {
                faults.push(format!(
                    "CPUs {} and {} are one core in two packages",
                    cpu.id, other.id
                ));
            }
        }
    }
    if !faults.is_empty() {
        faults.truncate(8);
        return fails(
            faults.join("; "),
            "each thread of a core tells the same siblings, on one node",
            "update the firmware; until then set `smt: isolate`, or turn SMT off",
        );
    }
    let sizes: BTreeSet<usize> = online.iter().map(|cpu| cpu.siblings.len()).collect();
    let offline: CpuSet = inventory
        .cpus
        .iter()
        .filter(|cpu| !cpu.online)
        .map(|cpu| cpu.id)
        .collect();
    match (sizes.len(), offline.is_empty()) {
        (0, _) => unchecked("no CPU is online"),
        (1, _) => holds(format!(
            "{} on each core",
            count(sizes.first().copied().unwrap_or(1), "thread")
        )),
        (_, true) => holds(format!(
            "{} threads on the cores, as this CPU has them",
            sizes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or ")
        )),
        (_, false) => fails(
            format!("some cores have lost threads: CPUs {offline} are offline"),
            "all threads of a core online, or all offline",
            "bring them back (`echo 1 > /sys/devices/system/cpu/cpuN/online`), or turn SMT off as a whole (`nosmt`)",
        ),
    }
}
