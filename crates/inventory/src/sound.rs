//! Whether an inventory that comes from a file can be a server at all.
//!
//! Takes an [`Inventory`]; gives what contradicts itself in it. Keeps true: what [`read`](crate::read)
//! gives is sound, however odd the server, so that what is found here was written by another hand.
//! What a server may really be like (a CPU on two nodes, distances that depend on the direction, an
//! interface without its function) is no contradiction.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::{CpuId, CpuSet, IommuGroupId, PciAddress};

use crate::facts::{Cpu, Inventory};

/// As many are told; one edit often breaks much.
const TOLD: usize = 5;

/// What contradicts itself, by where it stands; empty for a sound inventory.
pub(crate) fn contradictions(inventory: &Inventory) -> Vec<String> {
    let mut found = Vec::new();
    cpus(inventory, &mut found);
    nodes(inventory, &mut found);
    functions(inventory, &mut found);
    let names = inventory.interfaces.iter().map(|i| i.name.clone());
    twice("interfaces", names, &mut found);
    if found.len() > TOLD {
        let more = found.len() - TOLD;
        found.truncate(TOLD);
        found.push(format!("and {more} more"));
    }
    found
}

/// Notes each key that a list has twice.
fn twice<K: Ord + ToString>(list: &str, keys: impl Iterator<Item = K>, found: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for key in keys {
        let text = key.to_string();
        if !seen.insert(key) {
            found.push(format!("{list}: {text} is there twice"));
        }
    }
}

fn cpus(inventory: &Inventory, found: &mut Vec<String>) {
    if inventory.cpus.is_empty() {
        found.push("cpus: there is none".into());
    }
    twice("cpus", inventory.cpus.iter().map(|cpu| cpu.id), found);
    let ordered = inventory.cpus.is_sorted_by_key(|cpu| cpu.id);
    if !ordered {
        found.push("cpus: they are not in the order of their numbers".into());
    }
    let by_id: BTreeMap<CpuId, &Cpu> = inventory.cpus.iter().map(|cpu| (cpu.id, cpu)).collect();
    let present: CpuSet = by_id.keys().copied().collect();
    for cpu in &inventory.cpus {
        let id = cpu.id;
        if !cpu.siblings.contains(id) {
            found.push(format!(
                "cpus: CPU {id} is not among its own siblings {}",
                cpu.siblings
            ));
        }
        let unknown = cpu.siblings.difference(&present);
        if !unknown.is_empty() {
            found.push(format!(
                "cpus: CPU {id} has siblings {unknown}, which are not there"
            ));
        }
        if !cpu.online && cpu.siblings.len() > 1 {
            found.push(format!(
                "cpus: CPU {id} is offline and has siblings {}",
                cpu.siblings
            ));
        }
        // Each pair once, from its lower side.
        for other in cpu.siblings.iter().filter_map(|other| by_id.get(&other)) {
            if other.id > id && other.siblings != cpu.siblings {
                found.push(format!(
                    "cpus: CPU {id} has siblings {}, and its sibling CPU {} has {}",
                    cpu.siblings, other.id, other.siblings
                ));
            }
        }
        let Some(node) = cpu.node else { continue };
        let of = inventory.nodes.iter().find(|of| of.id == node);
        match of {
            None => found.push(format!(
                "cpus: CPU {id} is on node {node}, which is not there"
            )),
            Some(of) if !of.cpus.contains(id) => found.push(format!(
                "cpus: CPU {id} is on node {node}, whose CPUs are {}",
                of.cpus
            )),
            Some(_) => {}
        }
    }
    for (i, cache) in inventory.caches.iter().enumerate() {
        let unknown = cache.cpus.difference(&present);
        if !unknown.is_empty() {
            found.push(format!("caches[{i}]: CPUs {unknown} are not there"));
        }
    }
}

fn nodes(inventory: &Inventory, found: &mut Vec<String>) {
    if inventory.nodes.is_empty() {
        found.push("nodes: there is none".into());
    }
    twice("nodes", inventory.nodes.iter().map(|node| node.id.0), found);
    let online: CpuSet = inventory
        .cpus
        .iter()
        .filter(|cpu| cpu.online)
        .map(|cpu| cpu.id)
        .collect();
    let count = inventory.nodes.len();
    for node in &inventory.nodes {
        let id = node.id;
        let unknown = node.cpus.difference(&online);
        if !unknown.is_empty() {
            found.push(format!(
                "nodes: node {id} has CPUs {unknown}, which are not online"
            ));
        }
        let homeless: CpuSet = inventory
            .cpus
            .iter()
            .filter(|cpu| cpu.node.is_none() && node.cpus.contains(cpu.id))
            .map(|cpu| cpu.id)
            .collect();
        if !homeless.is_empty() {
            found.push(format!(
                "nodes: node {id} has CPUs {homeless}, which say that they are on none"
            ));
        }
        if !node.distances.is_empty() && node.distances.len() != count {
            found.push(format!(
                "nodes: node {id} has {} distances, for {count} nodes",
                node.distances.len()
            ));
        }
    }
}

fn functions(inventory: &Inventory, found: &mut Vec<String>) {
    twice("pci", inventory.pci.iter().map(|f| f.address), found);
    let mut members: BTreeMap<IommuGroupId, BTreeSet<PciAddress>> = BTreeMap::new();
    for function in &inventory.pci {
        if let Some(group) = function.iommu_group {
            members.entry(group).or_default().insert(function.address);
        }
    }
    twice(
        "iommuGroups",
        inventory.iommu_groups.iter().map(|g| g.id),
        found,
    );
    for group in &inventory.iommu_groups {
        let listed: BTreeSet<PciAddress> = group.members.iter().copied().collect();
        let told = members.remove(&group.id).unwrap_or_default();
        if listed != told {
            let texts = |set: &BTreeSet<PciAddress>| {
                let texts: Vec<String> = set.iter().map(ToString::to_string).collect();
                texts.join(" ")
            };
            found.push(format!(
                "iommuGroups: group {} lists {}, and of the PCI functions {} say that they are in it",
                group.id,
                texts(&listed),
                if told.is_empty() { "none".into() } else { texts(&told) },
            ));
        }
    }
}
