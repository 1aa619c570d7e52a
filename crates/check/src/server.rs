//! The server by what the rules ask of it: the core, node and owner of a CPU.

use std::collections::BTreeMap;

use bmslice_inventory::{Cpu, Inventory, PciFunction};
use bmslice_model::{CpuId, CpuSet, NumaNodeId, PciAddress};

pub(crate) struct Server<'a> {
    cpus: BTreeMap<CpuId, &'a Cpu>,
    functions: BTreeMap<PciAddress, &'a PciFunction>,
    nodes: BTreeMap<CpuId, NumaNodeId>,
    /// Every online CPU.
    pub(crate) online: CpuSet,
}

impl<'a> Server<'a> {
    pub(crate) fn of(inventory: &'a Inventory) -> Self {
        let mut nodes = BTreeMap::new();
        for node in &inventory.nodes {
            nodes.extend(node.cpus.iter().map(|cpu| (cpu, node.id)));
        }
        Self {
            cpus: inventory.cpus.iter().map(|cpu| (cpu.id, cpu)).collect(),
            functions: inventory.pci.iter().map(|f| (f.address, f)).collect(),
            nodes,
            online: inventory
                .cpus
                .iter()
                .filter(|cpu| cpu.online)
                .map(|cpu| cpu.id)
                .collect(),
        }
    }

    pub(crate) fn cpu(&self, id: CpuId) -> Option<&'a Cpu> {
        self.cpus.get(&id).copied()
    }

    pub(crate) fn function(&self, address: PciAddress) -> Option<&'a PciFunction> {
        self.functions.get(&address).copied()
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = &'a PciFunction> {
        self.functions.values().copied()
    }

    /// The online threads of a CPU's core; the CPU alone when the server does not know it.
    pub(crate) fn core(&self, id: CpuId) -> CpuSet {
        let mut core = self
            .cpu(id)
            .map(|cpu| cpu.siblings.intersection(&self.online))
            .unwrap_or_default();
        core.insert(id);
        core
    }

    /// The cores that any of these CPUs sits on, by lowest thread.
    pub(crate) fn cores(&self, cpus: &CpuSet) -> Vec<CpuSet> {
        let mut cores: Vec<CpuSet> = Vec::new();
        for cpu in cpus.iter() {
            if !cores.iter().any(|core| core.contains(cpu)) {
                cores.push(self.core(cpu));
            }
        }
        cores
    }

    pub(crate) fn node(&self, id: CpuId) -> Option<NumaNodeId> {
        self.nodes.get(&id).copied().or_else(|| self.cpu(id)?.node)
    }

    /// Whether the kernel runs on it and this process may use it.
    pub(crate) fn usable(&self, id: CpuId) -> bool {
        self.cpu(id).is_some_and(|cpu| cpu.online && cpu.allowed)
    }
}
