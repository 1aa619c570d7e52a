//! What an inventory says of one thing in two ways.
//!
//! Takes an [`Inventory`], gives each [`Contradiction`] with its place in the file. Reading a server
//! never makes one: cores are a partition, a CPU's node has that CPU, an address is one function's.
//! A file with one was changed after it was written, and a plan made from it would be of no server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bmslice_model::{CpuId, CpuSet, PciAddress, count};

use crate::facts::{Cpu, Inventory, PciFunction};

/// A part of an inventory that does not fit another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Its place in the file: `cpus[3].siblings`, as `jq` has it.
    pub at: String,
    /// What it says, and what does not fit; lower case, no final stop.
    pub text: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.at, self.text)
    }
}

/// Every contradiction, in the order of the file; none in what was read from a server.
#[must_use]
pub fn contradictions(inventory: &Inventory) -> Vec<Contradiction> {
    let mut found = Found(Vec::new());
    cpus(inventory, &mut found);
    caches(inventory, &mut found);
    nodes(inventory, &mut found);
    functions(inventory, &mut found);
    groups(inventory, &mut found);
    found.0
}

struct Found(Vec<Contradiction>);

impl Found {
    fn say(&mut self, at: String, text: String) {
        self.0.push(Contradiction { at, text });
    }
}

fn cpus(inventory: &Inventory, found: &mut Found) {
    if inventory.cpus.is_empty() {
        found.say("cpus".into(), "there is no CPU".into());
    }
    if !inventory.cpus.is_sorted_by_key(|cpu| cpu.id) {
        let text = "the CPUs are not in the order of their numbers";
        found.say("cpus".into(), text.into());
    }
    let mut known: BTreeMap<CpuId, &Cpu> = BTreeMap::new();
    for (i, cpu) in inventory.cpus.iter().enumerate() {
        if known.insert(cpu.id, cpu).is_some() {
            found.say(
                format!("cpus[{i}].id"),
                format!("CPU {} is there already", cpu.id),
            );
        }
    }
    for (i, cpu) in inventory.cpus.iter().enumerate() {
        let at = format!("cpus[{i}].siblings");
        if !cpu.siblings.contains(cpu.id) {
            let text = format!(
                "CPU {} is not among its own siblings {}",
                cpu.id, cpu.siblings
            );
            found.say(at.clone(), text);
        }
        for sibling in cpu.siblings.iter().filter(|id| *id != cpu.id) {
            let why = match known.get(&sibling) {
                None => "which is not there".to_owned(),
                Some(other) if other.online != cpu.online => "one of which is offline".to_owned(),
                Some(other) if other.siblings != cpu.siblings => {
                    format!("whose own siblings are {}", other.siblings)
                }
                Some(_) => continue,
            };
            let text = format!(
                "CPU {} has the siblings {}, among them CPU {sibling}, {why}",
                cpu.id, cpu.siblings
            );
            found.say(at.clone(), text);
        }
        let Some(node) = cpu.node else { continue };
        let has = |node: &crate::NumaNode| node.cpus.contains(cpu.id);
        let why = match inventory.nodes.iter().find(|other| other.id == node) {
            None => "which is not there".to_owned(),
            Some(node) if !has(node) => format!("whose CPUs are {}", node.cpus),
            Some(_) => continue,
        };
        let text = format!("CPU {} is on node {node}, {why}", cpu.id);
        found.say(format!("cpus[{i}].node"), text);
    }
}

fn caches(inventory: &Inventory, found: &mut Found) {
    for (i, cache) in inventory.caches.iter().enumerate() {
        unknown(inventory, &cache.cpus, format!("caches[{i}].cpus"), found);
    }
}

fn unknown(inventory: &Inventory, cpus: &CpuSet, at: String, found: &mut Found) {
    let all: CpuSet = inventory.cpus.iter().map(|cpu| cpu.id).collect();
    let strange = cpus.difference(&all);
    if !strange.is_empty() {
        let are = if strange.len() == 1 { "is" } else { "are" };
        let text = format!("{} {are} not among `cpus`", bmslice_model::cpus(&strange));
        found.say(at, text);
    }
}

fn nodes(inventory: &Inventory, found: &mut Found) {
    if inventory.nodes.is_empty() {
        found.say("nodes".into(), "there is no NUMA node".into());
    }
    let mut seen = BTreeSet::new();
    for (i, node) in inventory.nodes.iter().enumerate() {
        if !seen.insert(node.id) {
            let text = format!("node {} is there already", node.id);
            found.say(format!("nodes[{i}].id"), text);
        }
        unknown(inventory, &node.cpus, format!("nodes[{i}].cpus"), found);
        let elsewhere = |cpu: &&Cpu| cpu.node.is_none() && node.cpus.contains(cpu.id);
        if let Some(cpu) = inventory.cpus.iter().find(elsewhere) {
            let text = format!("CPU {} of node {} says that it is on none", cpu.id, node.id);
            found.say(format!("nodes[{i}].cpus"), text);
        }
        let (distances, all) = (node.distances.len(), inventory.nodes.len());
        if distances != 0 && distances != all {
            let text = format!(
                "node {} has {}, for {}",
                node.id,
                count(distances, "distance"),
                count(all, "node")
            );
            found.say(format!("nodes[{i}].distances"), text);
        }
        if node.memory_free > node.memory_total {
            found.say(
                format!("nodes[{i}].memoryFree"),
                format!(
                    "of the {} of node {}, {} are free",
                    node.memory_total, node.id, node.memory_free
                ),
            );
        }
    }
}

fn functions(inventory: &Inventory, found: &mut Found) {
    let mut known: BTreeMap<PciAddress, &PciFunction> = BTreeMap::new();
    let mut interfaces: BTreeMap<&str, PciAddress> = BTreeMap::new();
    for (i, function) in inventory.pci.iter().enumerate() {
        let address = function.address;
        if known.insert(address, function).is_some() {
            let text = format!("the function {address} is there already");
            found.say(format!("pci[{i}].address"), text);
            continue;
        }
        for name in &function.interfaces {
            if let Some(first) = interfaces.insert(name, address) {
                let text = format!("the interface `{name}` is that of {first} already");
                found.say(format!("pci[{i}].interfaces"), text);
            }
        }
    }
    for (i, function) in inventory.pci.iter().enumerate() {
        let Some(whole) = function.physfn.and_then(|whole| known.get(&whole)) else {
            continue;
        };
        let vfs = whole.sriov.as_ref().map_or(&[][..], |sriov| &sriov.vfs);
        if !vfs.is_empty() && !vfs.contains(&function.address) {
            let text = format!(
                "{} is a virtual function of {}, which does not name it",
                function.address, whole.address
            );
            found.say(format!("pci[{i}].physfn"), text);
        }
    }
}

fn groups(inventory: &Inventory, found: &mut Found) {
    // Inventories from before there was this list have the groups with the functions only.
    for (i, group) in inventory.iommu_groups.iter().enumerate() {
        let members: BTreeSet<PciAddress> = inventory
            .pci
            .iter()
            .filter(|function| function.iommu_group == Some(group.id))
            .map(|function| function.address)
            .collect();
        let listed: BTreeSet<PciAddress> = group.members.iter().copied().collect();
        if let Some(odd) = members.symmetric_difference(&listed).next() {
            let side = if listed.contains(odd) {
                "is listed, and says another group of itself"
            } else {
                "says that it is in it, and is not listed"
            };
            let text = format!("of IOMMU group {}, {odd} {side}", group.id);
            found.say(format!("iommuGroups[{i}].members"), text);
        }
    }
}
