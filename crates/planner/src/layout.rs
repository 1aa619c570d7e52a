//! Which host thread is which vCPU, and what the guest sees.
//!
//! Takes a slice and the cores of its cells; gives its pins, its pool, its idle siblings and the
//! guest's topology. Keeps true: the guest is never shown siblings that are not siblings of the
//! host.

use bmslice_model::{CpuId, CpuSet, NumaNodeId};
use bmslice_plan::{GuestCell, GuestTopology};
use bmslice_spec::{Numa, SliceSpec, Smt, VcpuOrder};

use crate::demand;
use crate::server::{Core, Server};
use crate::siblings::OddPlace;

/// The cores of one guest cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CellPlace {
    /// By server index.
    pub node: usize,
    /// The cores of its vCPUs, but for that of an odd one that may share it.
    pub vcpus: Vec<Core>,
    /// Where the odd vCPU lies, if it may share its core.
    pub odd: Option<OddPlace>,
    /// Of cell 0, unless it is on the host's cores.
    pub pool: Vec<Core>,
}

impl CellPlace {
    /// All of its cores.
    pub fn cores(&self) -> impl Iterator<Item = &Core> {
        self.vcpu_cores().chain(&self.pool)
    }

    /// The cores of its vCPUs.
    pub fn vcpu_cores(&self) -> impl Iterator<Item = &Core> {
        self.vcpus
            .iter()
            .chain(self.odd.iter().map(|odd| &odd.core))
    }
}

/// A slice's CPUs in their roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Laid {
    pub vcpus: Vec<CpuId>,
    /// The node and the vCPU numbers of each cell.
    pub cells: Vec<(NumaNodeId, CpuSet)>,
    pub topology: GuestTopology,
    pub emulator: CpuSet,
    pub iothreads: Vec<CpuSet>,
    pub pool_is_host: bool,
    pub pool_is_shared: bool,
    pub idle: CpuSet,
    pub shared_siblings: CpuSet,
}

impl Laid {
    pub fn nodes_and_vcpus(&self) -> Vec<(NumaNodeId, CpuSet)> {
        self.cells.clone()
    }

    /// As [`SlicePlan::siblings`](bmslice_plan::SlicePlan::siblings).
    pub fn siblings(&self) -> CpuSet {
        self.idle.union(&self.shared_siblings)
    }
}

pub(crate) fn nodes_and_vcpus(cells: &[GuestCell]) -> Vec<(NumaNodeId, CpuSet)> {
    cells
        .iter()
        .map(|cell| (cell.node, cell.vcpus.clone()))
        .collect()
}

/// Lays a slice out on its cores; `None` when they are too few.
pub(crate) fn lay_out(spec: &SliceSpec, places: &[CellPlace], server: &Server<'_>) -> Option<Laid> {
    let per_cell = spec.vcpus / u32::try_from(places.len()).ok()?.max(1);
    let mut vcpus: Vec<CpuId> = Vec::new();
    let mut cells = Vec::new();
    let mut idle = CpuSet::new();
    let mut shared_siblings = CpuSet::new();
    let mut pool = CpuSet::new();
    for place in places {
        let mine = pins(spec, place, per_cell as usize);
        if mine.len() != per_cell as usize {
            return None;
        }
        let first = u32::try_from(vcpus.len()).ok()?;
        let numbers: Option<CpuSet> = (first..first + per_cell)
            .map(|number| CpuId::new(number).ok())
            .collect::<Option<Vec<CpuId>>>()
            .map(|numbers| numbers.into_iter().collect());
        cells.push((server.nodes[place.node].id, numbers?));
        let used: CpuSet = mine.iter().copied().collect();
        for core in &place.vcpus {
            idle.extend_from(&core.cpus().difference(&used));
        }
        if let Some(odd) = &place.odd {
            let siblings = if odd.beside {
                &mut shared_siblings
            } else {
                &mut idle
            };
            siblings.extend_from(&odd.sibling());
        }
        for core in &place.pool {
            pool.extend_from(&core.cpus());
        }
        vcpus.extend(mine);
    }
    let pool_is_host = spec.emulator_cores == 0;
    if pool_is_host {
        pool = server.host.clone();
    }
    Some(Laid {
        topology: topology(spec, places, per_cell)?,
        vcpus,
        cells,
        iothreads: (0..spec.iothreads).map(|_| pool.clone()).collect(),
        emulator: pool,
        pool_is_host,
        pool_is_shared: spec.shared_pool && !pool_is_host,
        idle,
        shared_siblings,
    })
}

/// The host threads of a cell's vCPUs, in the order of the vCPUs.
fn pins(spec: &SliceSpec, place: &CellPlace, count: usize) -> Vec<CpuId> {
    let used = |thread: usize| match spec.smt {
        Smt::Isolate => thread == 0,
        Smt::Pack | Smt::Any => true,
    };
    // Core after core is filled, so that at most one is filled in part.
    let mut pins: Vec<(usize, CpuId)> = place
        .vcpus
        .iter()
        .flat_map(|core| core.threads.iter().copied().enumerate())
        .filter(|(thread, _)| used(*thread))
        .take(count)
        .collect();
    // The odd vCPU is the last; on whichever thread it lies, it is the first of its core.
    pins.extend(place.odd.iter().map(|odd| (0, odd.cpu)));
    if spec.vcpu_order == VcpuOrder::SiblingsLast {
        pins.sort_by_key(|(thread, _)| *thread);
    }
    pins.into_iter().map(|(_, cpu)| cpu).collect()
}

/// What the guest sees: a socket for each cell, since a guest's scheduler takes each socket for a
/// cache of its own and a cell is just that; in it cores of as many threads as every host core
/// carries vCPUs, or of one thread where they differ.
fn topology(spec: &SliceSpec, places: &[CellPlace], per_cell: u32) -> Option<GuestTopology> {
    let mirrors = spec.smt == Smt::Pack && spec.vcpu_order == VcpuOrder::SiblingsAdjacent;
    let mut filled = Vec::new();
    for place in places {
        let mut left = per_cell as usize;
        for core in &place.vcpus {
            let on_it = left.min(core.threads.len());
            filled.push(on_it);
            left -= on_it;
        }
        filled.extend(place.odd.iter().map(|_| 1));
    }
    let first = filled.first().copied().unwrap_or(1);
    let even = filled.iter().all(|&on_it| on_it == first);
    let threads = if mirrors && even {
        u32::try_from(first).ok()?.max(1)
    } else {
        1
    };
    Some(GuestTopology {
        sockets: u32::try_from(places.len()).ok()?,
        cores: per_cell / threads,
        threads,
    })
}

/// Whether what a slice has is just what it asks for now: as many cells, on the node that it
/// names, with no core too many.
pub(crate) fn suits(spec: &SliceSpec, places: &[CellPlace], server: &Server<'_>) -> bool {
    let cells = demand::cells(spec) as usize;
    let on_node = match spec.numa {
        Numa::Node(id) => places.iter().all(|place| server.nodes[place.node].id == id),
        Numa::Single | Numa::Spread(_) => true,
    };
    let pool: usize = places.iter().map(|place| place.pool.len()).sum();
    let per_cell = (spec.vcpus as usize) / cells.max(1);
    let tight = places.iter().all(|place| {
        let threads = |core: &Core| match spec.smt {
            Smt::Isolate => 1,
            Smt::Pack | Smt::Any => core.threads.len(),
        };
        if place.odd.is_some() {
            let whole: usize = place.vcpus.iter().map(threads).sum();
            return whole + 1 == per_cell;
        }
        let all: usize = place.vcpus.iter().map(threads).sum();
        let least = place.vcpus.iter().map(threads).min().unwrap_or(0);
        all >= per_cell && all - least < per_cell
    });
    places.len() == cells && on_node && pool == spec.emulator_cores as usize && tight
}
