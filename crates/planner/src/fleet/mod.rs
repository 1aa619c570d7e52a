//! Guests on several servers: as many as can be placed, and how many at most.
//!
//! Takes servers as NUMA nodes with numbers and guests as what they ask for; gives a place for each
//! guest that has one, and a bound that no placement exceeds. When both meet, the placement is
//! proven to be best. First-fit packings differ from the optimum by a tenth and more, so it is
//! searched for: a greedy start, ejections, and only where these do not meet the bound, columns, what
//! few of them can be part of the best, and parts of all placements.

#![allow(
    clippy::needless_range_loop,
    reason = "a number of a load stands at the same place in several vectors"
)]

mod bins;
mod bound;
mod branch;
mod columns;
mod cover;
mod ejection;
mod follow;
mod greedy;
mod knapsack;
mod live;
mod load;
mod loose;
mod pins;
mod pricing;
mod sample;
mod search;
mod simplex;
mod table;
mod terms;
#[cfg(test)]
mod trial;
mod yard;

pub use live::{Fleet, GuestId, Moved};
pub use load::{Guest, NodeShape, Sharing, Threads};
pub use loose::{Located, take_loose};
pub use pins::{CellPins, CoreShape, pin};
pub use search::{Effort, Means};
pub use yard::Objective;

use yard::{State, Yard};

/// Where a guest lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Index of the server.
    pub server: usize,
    /// For each cell, the index of the node in the server.
    pub nodes: Vec<usize>,
    /// For each cell, the virtual functions of its node.
    pub vfs: Vec<u32>,
}

impl Seat {
    /// Of a guest of so many cells; `first` is the server's first spot.
    fn of(place: &yard::Place, cells: usize, server: usize, first: usize) -> Self {
        let (spots, vfs) = (&place.spots[..cells], &place.vfs[..cells]);
        Self {
            server,
            nodes: spots.iter().map(|spot| spot - first).collect(),
            vfs: vfs.iter().map(|&n| n.unsigned_abs()).collect(),
        }
    }
}

/// Who lies where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// By guest.
    pub seats: Vec<Option<Seat>>,
    /// Guests that are placed, or their vCPUs.
    pub value: u64,
    /// What no placement exceeds.
    pub bound: u64,
    /// The means that the search came to.
    pub means: Means,
}

impl Packing {
    /// Whether no placement is better.
    pub fn is_proven(&self) -> bool {
        self.value == self.bound
    }
}

/// Places as many guests as it finds room for.
pub fn pack(
    servers: &[Vec<NodeShape>],
    guests: &[Guest],
    sharing: Sharing,
    objective: Objective,
    effort: Effort,
) -> Packing {
    let yard = Yard::new(servers, guests, sharing, objective);
    if yard.spots.len() > MOST_NODES || yard.kinds.len() > MOST_KINDS {
        return pack_many(&yard, servers, guests, sharing);
    }
    let found = search::best(&yard, effort);
    Packing {
        seats: seats(&found.state),
        value: found.state.value,
        bound: found.bound,
        means: found.means,
    }
}

/// Fleets with more nodes, or more different guests, are packed one guest after the other: in
/// memory and time that grow with the fleet alone.
const MOST_NODES: usize = 512;
const MOST_KINDS: usize = 600;

fn u64_of(n: i32) -> u64 {
    u64::from(n.unsigned_abs())
}

fn pack_many(
    yard: &Yard,
    servers: &[Vec<NodeShape>],
    guests: &[Guest],
    sharing: Sharing,
) -> Packing {
    // Where not all fit, those are left out that take most for what they are worth.
    let mut room: u64 = yard
        .spots
        .iter()
        .map(|spot| spot.room[load::MAIN])
        .map(u64_of)
        .sum();
    let takes = |guest: usize| -> (u64, u64) {
        yard.kind_of[guest].map_or((u64::MAX, 0), |kind| {
            let kind = &yard.kinds[kind];
            let loads = kind.loads[1].iter().take(kind.cells).flatten();
            let all = loads.map(|load| u64_of(load[load::MAIN])).sum::<u64>();
            (all * 1024 / u64::from(kind.value.max(1)), all)
        })
    };
    let mut order: Vec<usize> = (0..guests.len()).collect();
    order.sort_by_cached_key(|&guest| takes(guest));
    let cut = order.iter().position(|&guest| {
        let (_, all) = takes(guest);
        room = room.saturating_sub(all);
        room == 0
    });
    let (first, rest) = order.split_at(cut.unwrap_or(order.len()));
    let mut fleet = Fleet::new(servers, sharing);
    let mut ids = vec![None; guests.len()];
    for part in [first, rest] {
        let asked: Vec<Guest> = part.iter().map(|&guest| guests[guest]).collect();
        for (&guest, id) in part.iter().zip(fleet.add_all(&asked)) {
            ids[guest] = id;
        }
    }
    let value = ids.iter().zip(&yard.kind_of).filter(|(id, _)| id.is_some());
    let value = value.filter_map(|(_, kind)| *kind);
    Packing {
        value: value.map(|kind| u64::from(yard.kinds[kind].value)).sum(),
        seats: ids.into_iter().map(|id| fleet.seat(id?)).collect(),
        bound: bound::by_sums(yard),
        means: Means::Greedy,
    }
}

/// Places guests in strict order of arrival: nobody who was accepted is sent away again. With
/// `repack` those that are placed may move so that a new one fits.
pub fn arrive(
    servers: &[Vec<NodeShape>],
    guests: &[Guest],
    sharing: Sharing,
    repack: bool,
    effort: Effort,
) -> Packing {
    let yard = Yard::new(servers, guests, sharing, Objective::Count);
    let state = search::arrive(&yard, repack, effort);
    let all = guests.len() as u64;
    Packing {
        seats: seats(&state),
        value: state.value,
        bound: all,
        means: if repack {
            Means::Ejections
        } else {
            Means::Greedy
        },
    }
}

fn seats(state: &State<'_>) -> Vec<Option<Seat>> {
    let yard = state.yard;
    let seat = |guest: usize| {
        let place = state.places[guest]?;
        let cells = state.kind(guest)?.cells;
        let server = yard.spots[place.spots[0]].server;
        Some(Seat::of(&place, cells, server, yard.servers[server].0))
    };
    (0..state.places.len()).map(seat).collect()
}
