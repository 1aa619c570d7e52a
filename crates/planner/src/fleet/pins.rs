//! Which threads of a node the cells on it get.
//!
//! Takes a node's cores and the cells that lie there; gives each cell its threads. The numbers say
//! already that everything fits, so what is left is to lie well: siblings together, few L3 domains,
//! single threads where a core is shared or broken anyhow. Whole cores are chosen by the same code
//! as for one server.

use bmslice_model::CpuId;

use super::load::{Guest, NodeShape, Sharing, Threads};
use crate::cores::{self, CellNeed};
use crate::server::Core;

/// A core of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreShape {
    /// Threads that guests may have, lowest first.
    pub threads: Vec<CpuId>,
    /// Threads of the core, whoever has them.
    pub of: usize,
    /// Number of its L3 domain.
    pub l3: usize,
}

impl NodeShape {
    /// The numbers of a node with these cores.
    #[must_use]
    pub fn of(cores: &[CoreShape], threads_per_core: u32, memory: u32, vfs: u32) -> Self {
        let count = |fits: &dyn Fn(&CoreShape) -> bool| {
            u32::try_from(cores.iter().filter(|core| fits(core)).count()).unwrap_or(u32::MAX)
        };
        Self {
            threads_per_core,
            full: count(&|core| !core.threads.is_empty() && core.threads.len() == core.of),
            half: count(&|core| !core.threads.is_empty() && core.threads.len() < core.of),
            memory,
            vfs,
        }
    }
}

/// The threads of a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellPins {
    /// In the order of the cell's vCPUs: siblings one after the other.
    pub vcpus: Vec<CpuId>,
    /// The emulator's own thread.
    pub emulator: Option<CpuId>,
}

/// Cores of which all threads are free, and others.
const FULL: usize = 0;
const HALF: usize = 1;

/// What a cell takes: whole cores, single threads, and the emulator on a core of its own.
struct Take {
    whole: u32,
    single: usize,
    apart: bool,
}

/// Gives each cell (a guest and the number of its cell) its threads; `None` when they do not fit.
#[must_use]
pub fn pin(
    node: &[CoreShape],
    cells: &[(Guest, usize)],
    sharing: Sharing,
) -> Option<Vec<CellPins>> {
    let smt = node.iter().any(|core| core.of > 1);
    let free: Vec<Core> = node
        .iter()
        .filter(|core| !core.threads.is_empty())
        .filter(|core| sharing == Sharing::Threads || core.threads.len() == core.of)
        .map(|core| Core {
            threads: core.threads.clone(),
            l3: core.l3,
            class: if core.threads.len() == core.of {
                FULL
            } else {
                HALF
            },
        })
        .collect();
    let full = free.iter().filter(|core| core.class == FULL).count();
    let half = free.len() - full;
    let mut takes: Vec<Take> = cells
        .iter()
        .map(|(guest, cell)| take(guest, *cell, smt, sharing))
        .collect();
    let apart = takes.iter().filter(|take| take.apart).count();
    share_out(
        &mut takes,
        cells,
        full,
        apart.saturating_sub(half),
        smt,
        sharing,
    )?;

    // The largest first: they have the least choice.
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(takes[at].whole), at));
    let mut halves = half;
    let needs: Vec<CellNeed> = order
        .iter()
        .map(|&at| {
            let mut pool = vec![0, 0];
            if takes[at].apart {
                let class = if halves > 0 { HALF } else { FULL };
                halves = halves.saturating_sub(1);
                pool[class] = 1;
            }
            CellNeed {
                vcpus: vec![takes[at].whole, 0],
                pool,
                odd: None,
            }
        })
        .collect();
    let found = if needs.is_empty() {
        Vec::new()
    } else {
        cores::arrange_soon(&free, &needs)?.cells
    };
    let mut used = vec![false; free.len()];
    let mut pins = vec![CellPins::default(); cells.len()];
    let mut home = vec![None; cells.len()];
    for (&at, got) in order.iter().zip(&found) {
        for &core in got.vcpus.iter().chain(&got.pool) {
            used[core] = true;
        }
        home[at] = got.vcpus.first().map(|&core| free[core].l3);
        let mut threads: Vec<CpuId> = got
            .vcpus
            .iter()
            .flat_map(|&core| match cells[at].0.threads {
                Threads::Isolate => &free[core].threads[..1],
                Threads::Prefer | Threads::Require => &free[core].threads[..],
            })
            .copied()
            .collect();
        let wanted = cells[at].0.cell_vcpus() as usize;
        let beyond = threads.split_off(wanted.min(threads.len()));
        pins[at].vcpus = threads;
        pins[at].emulator = got
            .pool
            .first()
            .map(|&core| free[core].threads[0])
            .or(beyond.first().copied())
            .filter(|_| has_emulator(&cells[at]));
    }
    singles(&free, &used, &order, &takes, cells, &home, &mut pins)?;
    Some(pins)
}

fn has_emulator((guest, cell): &(Guest, usize)) -> bool {
    guest.emulator && *cell == 0
}

fn take(guest: &Guest, cell: usize, smt: bool, sharing: Sharing) -> Take {
    let vcpus = guest.cell_vcpus();
    let emulator = u32::from(guest.emulator && cell == 0);
    let isolated = guest.threads == Threads::Isolate;
    match (smt, sharing) {
        (false, _) => Take {
            whole: vcpus,
            single: 0,
            apart: emulator > 0,
        },
        (true, _) if isolated => Take {
            whole: vcpus,
            single: 0,
            apart: emulator > 0,
        },
        (true, Sharing::WholeCores) => Take {
            whole: (vcpus + emulator).div_ceil(2),
            single: 0,
            apart: false,
        },
        (true, Sharing::Threads) => Take {
            whole: vcpus / 2,
            single: (vcpus % 2 + emulator) as usize,
            apart: false,
        },
    }
}

/// Takes whole cores back from cells that do without, as long as there are too few.
fn share_out(
    takes: &mut [Take],
    cells: &[(Guest, usize)],
    full: usize,
    apart: usize,
    smt: bool,
    sharing: Sharing,
) -> Option<()> {
    let asked: usize = takes.iter().map(|take| take.whole as usize).sum();
    let mut over = (asked + apart).saturating_sub(full);
    for (take, (guest, _)) in takes.iter_mut().zip(cells) {
        if smt && sharing == Sharing::Threads && guest.threads == Threads::Prefer {
            let less = over.min(take.whole as usize);
            take.whole -= u32::try_from(less).ok()?;
            take.single += 2 * less;
            over -= less;
        }
    }
    (over == 0).then_some(())
}

/// Gives out single threads: of broken cores first, in the L3 domain of the cell's other threads.
fn singles(
    free: &[Core],
    used: &[bool],
    order: &[usize],
    takes: &[Take],
    cells: &[(Guest, usize)],
    home: &[Option<usize>],
    pins: &mut [CellPins],
) -> Option<()> {
    let mut left: Vec<(usize, bool, CpuId)> = Vec::new();
    for (core, _) in free.iter().zip(used).filter(|(_, used)| !**used) {
        let whole = core.class == FULL;
        left.extend(core.threads.iter().map(|&cpu| (core.l3, whole, cpu)));
    }
    left.sort_by_key(|&(_, whole, cpu)| (whole, cpu));
    for &at in order {
        for _ in 0..takes[at].single {
            let near = |l3: usize| home[at].is_none_or(|home| home == l3);
            let found = left
                .iter()
                .position(|&(l3, ..)| near(l3))
                .or((!left.is_empty()).then_some(0))?;
            let (_, _, cpu) = left.remove(found);
            // Its sibling, if free, is now a thread of a broken core.
            if let Some(core) = free.iter().find(|core| core.threads.contains(&cpu)) {
                for rest in &mut left {
                    rest.1 &= !core.threads.contains(&rest.2);
                }
                left.sort_by_key(|&(_, whole, cpu)| (whole, cpu));
            }
            let cell = &mut pins[at];
            if cell.vcpus.len() < cells[at].0.cell_vcpus() as usize {
                cell.vcpus.push(cpu);
            } else {
                cell.emulator = Some(cpu);
            }
        }
    }
    Some(())
}
