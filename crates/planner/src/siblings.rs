//! Siblings that odd vCPUs leave, and that other slices of the tenant may have (planning rule 2).
//!
//! Takes the slices and the classes of cores; tells which cells leave such a sibling (or take one),
//! and which are open already with the slices that stay. Keeps true: only a core of two threads is
//! shared, only by the odd vCPUs of two slices, of one tenant, that both say `sharing: tenant`.

use std::collections::BTreeMap;

use bmslice_model::{CpuId, CpuSet, TenantName};
use bmslice_spec::{Sharing, SliceSpec, Smt};

use crate::demand;
use crate::server::{Core, Node};

/// The odd vCPU of a cell, where it may share its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Odd {
    /// The tenant, by [`Siblings`].
    pub tenant: usize,
    /// The class of cores of two threads.
    pub class: usize,
}

/// Where the odd vCPU of a cell lies, when it may share its core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OddPlace {
    pub core: Core,
    pub cpu: CpuId,
    /// Whether another slice's lies beside it.
    pub beside: bool,
}

impl OddPlace {
    /// The other thread of the core.
    pub fn sibling(&self) -> CpuSet {
        self.core.cpus().difference(&CpuSet::from(self.cpu))
    }
}

/// A core of which one thread runs the odd vCPU of a slice that stays, and the other is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    pub core: Core,
    pub thread: CpuId,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Siblings {
    tenants: Vec<TenantName>,
    /// By node (of the server's) and tenant; by CPU.
    open: BTreeMap<(usize, usize), Vec<Open>>,
}

/// Whether each cell of a slice has an odd vCPU that may share its core.
pub(crate) fn shares(slice: &SliceSpec) -> bool {
    slice.sharing == Sharing::Tenant && is_odd(slice)
}

/// Whether each cell of a slice has an odd vCPU whose core it shares, or could if the slice said so.
pub(crate) fn is_odd(slice: &SliceSpec) -> bool {
    slice.smt == Smt::Pack && !(slice.vcpus / demand::cells(slice)).is_multiple_of(2)
}

impl Siblings {
    pub fn of(slices: &[&SliceSpec]) -> Self {
        let mut tenants = Vec::new();
        for slice in slices.iter().filter(|slice| shares(slice)) {
            if !tenants.contains(&slice.tenant) {
                tenants.push(slice.tenant.clone());
            }
        }
        Self {
            tenants,
            open: BTreeMap::new(),
        }
    }

    /// How many tenants have slices that share.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// The tenant within which a slice shares cores.
    pub fn tenant(&self, slice: &SliceSpec) -> Option<usize> {
        let mut tenants = self.tenants.iter();
        let tenant = tenants.position(|tenant| *tenant == slice.tenant);
        tenant.filter(|_| shares(slice))
    }

    /// A slice's odd vCPUs, where there are cores of two threads.
    pub fn odd(&self, slice: &SliceSpec, classes: &[usize]) -> Option<Odd> {
        Some(Odd {
            tenant: self.tenant(slice)?,
            class: classes.iter().position(|&threads| threads == 2)?,
        })
    }

    /// Those open with slices that stay.
    pub fn open(&self, node: usize, tenant: usize) -> &[Open] {
        self.open.get(&(node, tenant)).map_or(&[], Vec::as_slice)
    }

    /// The L3 domains of those open on a node, by tenant.
    pub fn open_l3(&self, node: usize) -> Vec<Vec<usize>> {
        let of = |tenant| self.open(node, tenant).iter();
        (0..self.len())
            .map(|tenant| of(tenant).map(|open| open.core.l3).collect())
            .collect()
    }

    /// A slice's cell stays: its odd one of these vCPUs keeps its thread, beside another one that
    /// stays or with an open sibling. `None`, and nothing taken, when no core is shared there.
    pub fn keep(&mut self, node: &mut Node, at: (usize, usize), cpus: &CpuSet) -> Option<OddPlace> {
        let open = self.open.entry(at).or_default();
        if let Some(found) = open.iter().position(|open| cpus.contains(open.thread)) {
            let Open { core, thread } = open.remove(found);
            return Some(OddPlace {
                core,
                cpu: thread,
                beside: true,
            });
        }
        let found = node.free.iter().position(|core| {
            core.threads.len() == 2 && core.cpus().intersection(cpus).len() == 1
        })?;
        let core = node.free.remove(found);
        let mine = |thread: &&CpuId| cpus.contains(**thread);
        let cpu = *core.threads.iter().find(mine)?;
        let thread = *core.threads.iter().find(|thread| !mine(thread))?;
        open.push(Open {
            core: core.clone(),
            thread,
        });
        open.sort_by_key(|open| open.thread);
        Some(OddPlace {
            core,
            cpu,
            beside: false,
        })
    }
}
