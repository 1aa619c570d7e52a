//! How many slices several servers hold at most, and where numbers alone would put them.
//!
//! Takes what slices ask for and servers have, as numbers in which a slice never counts more than it
//! takes and a node never less than it gives; so that what [`fleet`](crate::fleet) proves of the
//! numbers holds for the servers. Left out are whole NICs (counted in a bound of their own), named
//! ones, what lies in force where, and which L3 anything shares. Where servers differ in threads per
//! core, a slice counts as on the server where it takes least.

use std::collections::BTreeMap;

use bmslice_model::ByteSize;
use bmslice_spec::{NicChoice, NicKind, NicNuma};

use super::seats::Seats;
use crate::demand;
use crate::fleet::{self, Effort, Guest, NodeShape, Objective, Packing, Sharing, Threads};
use crate::memory::Memory;

/// More kinds of slices than this times servers, and it is not tried of each whether it fits alone.
const ALONE: usize = 20_000;

/// What the numbers say.
#[derive(Debug)]
pub(super) struct Ceiling {
    /// The slices that some server would hold if it held nothing else.
    slices: Vec<usize>,
    /// Where numbers alone would put these.
    packing: Packing,
    bound: u64,
}

impl Ceiling {
    fn of(seats: &mut Seats<'_>) -> Self {
        let slices = possible(seats);
        let packing = pack(seats, &slices);
        Self {
            bound: packing
                .bound
                .min(by_nics(seats, &slices))
                .min(by_groups(seats, &slices))
                .min(by_cores(seats, &slices)),
            packing,
            slices,
        }
    }
}

/// What no placement exceeds, in slices.
pub(super) fn bound(seats: &mut Seats<'_>) -> u64 {
    known(seats).bound
}

/// Where numbers alone would put slices.
pub(super) fn seats(seats: &mut Seats<'_>) -> Vec<(usize, usize)> {
    let ceiling = known(seats);
    let placed = ceiling.slices.iter().zip(&ceiling.packing.seats);
    placed
        .filter_map(|(&slice, seat)| Some((slice, seat.as_ref()?.server)))
        .collect()
}

/// Works it out once.
fn known<'s>(seats: &'s mut Seats<'_>) -> &'s Ceiling {
    let found = match seats.ceiling.take() {
        Some(found) => found,
        None => Ceiling::of(seats),
    };
    seats.ceiling.insert(found)
}

/// The slices that some server would hold if it held nothing else.
fn possible(seats: &mut Seats<'_>) -> Vec<usize> {
    let all = 0..seats.spec.slices.len();
    if seats.kinds.first.len() * seats.members.len() > ALONE {
        return all.collect();
    }
    let mut holds = vec![None; seats.kinds.first.len()];
    all.filter(|&slice| {
        let kind = seats.kinds.of[slice];
        *holds[kind].get_or_insert_with(|| {
            let servers = seats.eligible(slice).to_vec();
            servers.iter().any(|&server| seats.fits(server, &[slice]))
        })
    })
    .collect()
}

fn pack(seats: &Seats<'_>, slices: &[usize]) -> Packing {
    let spec = &seats.spec.slices;
    let gib = ByteSize::from_gib(1).bytes();
    let whole = slices.iter().all(|&slice| {
        let cells = u64::from(demand::cells(&spec[slice]));
        (spec[slice].memory.bytes() / cells).is_multiple_of(gib)
    });
    let unit = if whole { gib } else { gib / 8 };
    let servers: Vec<Vec<NodeShape>> = (0..seats.members.len())
        .map(|server| nodes(seats, server, unit))
        .collect();
    let guests: Vec<Guest> = slices
        .iter()
        .map(|&slice| guest(seats, slice, unit))
        .collect();
    let (sharing, goal) = (Sharing::WholeCores, Objective::Count);
    // The seats are only a start, and the bound does not gain by more starts; parts are for few
    // servers, where one guest more or less shows.
    let effort = Effort {
        starts: 24,
        parts: 0,
        ..Effort::default()
    };
    fleet::pack(&servers, &guests, sharing, goal, effort)
}

/// A server's nodes, in units of cores: each counts as one thread.
fn nodes(seats: &Seats<'_>, server: usize, unit: u64) -> Vec<NodeShape> {
    let Some(cores) = &seats.cores[server] else {
        return Vec::new();
    };
    let member = &seats.members[server];
    // Never counted too low: memory as the server has it, functions as the NICs could have them.
    let (host, slices) = (&seats.spec.host, &seats.spec.slices);
    let memory_there = seats.standing[server].on_ground(host, &[], |ground| {
        let sizes = slices.iter().filter_map(|slice| slice.hugepages);
        Memory::read(&ground.server, sizes, 1, ground.previous)
    });
    let mut ids: Vec<_> = member.inventory.nodes.iter().map(|node| node.id).collect();
    ids.sort_unstable();
    let of_node = |at: usize| {
        let facts = ids
            .get(at)
            .and_then(|id| member.inventory.nodes.iter().find(|node| node.id == *id));
        let pools = facts.map_or(&[][..], |facts| &facts.huge_pages);
        let pages = pools.iter().map(|pool| pool.total * pool.size.bytes());
        let total = facts.map_or(0, |facts| facts.memory_total.bytes());
        (total.max(pages.sum()), facts.map(|facts| facts.id))
    };
    let alone = cores.by_node.len() == 1;
    let all = cores.by_node.iter().enumerate().map(|(at, &full)| {
        let headroom = if alone { cores.headroom } else { 0 };
        let full = full.saturating_sub(headroom);
        let (mut memory, id) = of_node(at);
        if let Ok(there) = &memory_there {
            let kept = &there.nodes[at];
            let pages = kept.pools.iter().zip(&there.sizes);
            let there: u64 = pages.map(|(pool, size)| pool.existing * size).sum();
            memory = if kept.allowed {
                there.max(kept.total.saturating_sub(kept.kept))
            } else {
                0
            };
        }
        let functions = member.inventory.pci.iter().filter(|f| !f.is_vf());
        let near = functions.filter(|f| f.node.is_none() || f.node == id);
        let vfs: u32 = near
            .filter_map(|f| f.sriov.as_ref())
            .map(|sriov| sriov.total)
            .sum();
        NodeShape {
            threads_per_core: 1,
            full,
            half: 0,
            memory: u32::try_from(memory / unit).unwrap_or(u32::MAX),
            vfs,
        }
    });
    all.collect()
}

/// A slice in units of cores, as on the server where it takes least. Of more than two cells, two count.
fn guest(seats: &Seats<'_>, slice: usize, unit: u64) -> Guest {
    let spec = &seats.spec.slices[slice];
    let cells = demand::cells(spec);
    let counted = cells.min(2);
    let fewest = seats.kinds.least(slice);
    let pool = demand::least_pool(spec) * seats.kinds.per_core;
    let vcpus = fewest.saturating_sub(pool) / cells;
    // With one cell the pool is on its node; with two, one core of it is counted.
    let (each, emulator) = if cells == 1 {
        (vcpus + pool, false)
    } else {
        (vcpus, pool > 0)
    };
    let memory = spec.memory.bytes() / u64::from(cells) / unit;
    let near = spec.nics.iter().filter(|nic| {
        matches!(
            &nic.kind,
            NicKind::Vf {
                of: NicChoice::Need {
                    numa: NicNuma::Same,
                    ..
                },
                ..
            }
        )
    });
    let vfs = if cells > 2 { 0 } else { near.count() };
    Guest {
        vcpus: (each * counted).max(1),
        threads: Threads::Prefer,
        emulator,
        cells: counted,
        memory: u32::try_from(memory * u64::from(counted)).unwrap_or(u32::MAX),
        vfs: u32::try_from(vfs).unwrap_or(u32::MAX),
    }
}

/// A bound from whole NICs: those with the fewest first, as long as there are NICs.
fn by_nics(seats: &Seats<'_>, slices: &[usize]) -> u64 {
    let members = seats.members.iter();
    let functions = members.flat_map(|member| &member.inventory.pci);
    let usable = functions.filter(|f| f.is_network() && !f.is_vf() && f.host_needs.is_empty());
    let mut left = usable.count();
    let mut asked: Vec<usize> = slices
        .iter()
        .map(|&slice| {
            let nics = seats.spec.slices[slice].nics.iter();
            // One that is taken from the host is not among those that are free.
            nics.filter(|nic| matches!(nic.kind, NicKind::Passthrough { .. }))
                .filter(|nic| !nic.take_from_host)
                .count()
        })
        .collect();
    asked.sort_unstable();
    let fit = asked.into_iter().take_while(|&nics| {
        let enough = nics <= left;
        left = left.saturating_sub(nics);
        enough
    });
    fit.count() as u64
}

/// A bound from groups whose slices lie on different servers.
fn by_groups(seats: &Seats<'_>, slices: &[usize]) -> u64 {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    let mut free = 0;
    for &slice in slices {
        match &seats.spec.slices[slice].apart {
            Some(group) => *groups.entry(group).or_default() += 1,
            None => free += 1,
        }
    }
    let servers = seats.members.len();
    let each = groups.into_values().map(|size| size.min(servers));
    (free + each.sum::<usize>()) as u64
}

/// A bound from cores, of which some stay free on each server: those that take the fewest
/// first, as long as there are cores. Without headroom the numbers of nodes tell more.
fn by_cores(seats: &Seats<'_>, slices: &[usize]) -> u64 {
    if seats.spec.host.headroom_cores == 0 {
        return u64::MAX;
    }
    let each = seats.cores.iter().flatten().map(|cores| cores.all().max(0));
    let mut left = u64::try_from(each.sum::<i64>()).unwrap_or(0);
    let takes = slices.iter().map(|&slice| seats.kinds.least(slice));
    let mut takes: Vec<u64> = takes.map(u64::from).collect();
    takes.sort_unstable();
    let fit = takes.into_iter().take_while(|&cores| {
        let enough = cores <= left;
        left = left.saturating_sub(cores);
        enough
    });
    fit.count() as u64
}
