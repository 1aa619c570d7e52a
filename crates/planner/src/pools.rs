//! Pools of cores that the slices of a tenant share (planning rule 5).
//!
//! Takes the slices; gives each tenant of a shared pool a number, and knows which pools are there
//! already with the slices that stay. Keeps true: a tenant has one pool on each node where one of
//! these slices has its cell 0, and brings it with the first of them; the others find it there.

use std::collections::BTreeMap;

use bmslice_model::{CpuSet, TenantName};
use bmslice_spec::SliceSpec;

use crate::server::Core;

#[derive(Debug, Clone, Default)]
pub(crate) struct Pools {
    tenants: Vec<TenantName>,
    /// By node (of the server's) and tenant.
    kept: BTreeMap<(usize, usize), Vec<Core>>,
}

impl Pools {
    pub fn of(slices: &[&SliceSpec]) -> Self {
        let mut tenants = Vec::new();
        for slice in slices.iter().filter(|slice| slice.shared_pool) {
            if !tenants.contains(&slice.tenant) {
                tenants.push(slice.tenant.clone());
            }
        }
        Self {
            tenants,
            kept: BTreeMap::new(),
        }
    }

    /// How many tenants have one.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// The tenant whose pool a slice uses.
    pub fn tenant(&self, slice: &SliceSpec) -> Option<usize> {
        let shares = slice.shared_pool && slice.emulator_cores > 0;
        let mut tenants = self.tenants.iter();
        tenants
            .position(|tenant| *tenant == slice.tenant)
            .filter(|_| shares)
    }

    /// A pool that is there with a slice that stays.
    pub fn kept(&self, node: usize, tenant: usize) -> Option<&[Core]> {
        self.kept.get(&(node, tenant)).map(Vec::as_slice)
    }

    /// That pool, when it has just these CPUs.
    pub fn kept_as(&self, node: usize, tenant: Option<usize>, cpus: &CpuSet) -> Option<Vec<Core>> {
        let cores = self.kept(node, tenant?)?;
        let mut all = CpuSet::new();
        for core in cores {
            all.extend_from(&core.cpus());
        }
        (all == *cpus).then(|| cores.to_vec())
    }

    /// A slice stays, and with it this pool; the first of several of a node is the one to be shared.
    pub fn keep(&mut self, node: usize, tenant: usize, cores: Vec<Core>) {
        self.kept.entry((node, tenant)).or_insert(cores);
    }
}
