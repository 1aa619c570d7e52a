//! What is filled as one, and what a filling counts.
//!
//! Takes the nodes; gives bins: a server whose two nodes a guest may take together, else a node, those
//! that are alike together, and what of a guest may lie in one.

use super::knapsack::{self, Room};
use super::load::{DIMS, Load, VFS};
use super::yard::{Place, Yard};

/// What is filled as one: alike, so that the same fillings serve all members.
#[derive(Debug, Clone)]
pub(crate) struct Bin {
    /// The first node of each member.
    pub spots: Vec<usize>,
    pub nodes: usize,
    pub smt: bool,
    pub room: Room,
    pub prices: Vec<[f64; DIMS]>,
    /// The server, when the bin is a node of it.
    pub server: Option<usize>,
}

/// What a filling counts: a guest in a bin that is a server, a cell in a bin that is a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub kind: usize,
    /// By node of the bin: the cell that lies there.
    pub cells: [Option<usize>; 2],
    pub vfs: [i32; 2],
    /// The server whose nodes are bins, for a guest of two cells.
    pub server: Option<usize>,
}

/// Where a part that is a whole guest lies, in a bin that starts at this node.
pub(crate) fn place(part: &Part, spot: usize) -> Place {
    let mut place = Place::one(spot, part.vfs[0]);
    for (node, cell) in part.cells.iter().enumerate() {
        if let Some(cell) = *cell {
            place.spots[cell] = spot + node;
            place.vfs[cell] = part.vfs[node];
        }
    }
    place
}

/// What a part takes of its bin.
pub(crate) fn load_of(loads: &[Option<Load>; 2], part: &Part) -> Option<Room> {
    let mut nodes = [[0; 8]; 2];
    for (node, cell) in part.cells.iter().enumerate() {
        if let Some(cell) = *cell {
            nodes[node] = loads[cell]?;
            nodes[node][VFS] = part.vfs[node];
        }
    }
    Some(knapsack::join(&nodes))
}

/// Servers of one node, those of two that a guest may take together, and the nodes of all others: each
/// by itself is filled sooner, and as well when nothing lies on two. Those that are alike together.
pub(crate) fn bins(yard: &Yard, class_of: &[usize], prices: &[[f64; DIMS]]) -> Vec<Bin> {
    let free: Vec<Load> = yard.spots.iter().map(|spot| spot.room).collect();
    let on_both = |server: usize| {
        let mut kinds = (0..yard.kinds.len()).filter(|&kind| yard.kinds[kind].cells == 2);
        kinds.any(|kind| yard.first_fit(kind, server, &free).is_some())
    };
    let mut bins: Vec<Bin> = Vec::new();
    let mut put = |first: usize, nodes: usize, server: Option<usize>| {
        let spots = first..first + nodes;
        let bin = Bin {
            spots: vec![first],
            nodes,
            smt: yard.spots[first].smt,
            room: knapsack::join(yard.spots[spots.clone()].iter().map(|spot| &spot.room)),
            prices: spots.map(|spot| prices[class_of[spot]]).collect(),
            server,
        };
        let like = bins.iter_mut().find(|other| {
            (other.nodes, other.smt, other.room, other.server) == (nodes, bin.smt, bin.room, server)
        });
        match like {
            Some(other) => other.spots.push(first),
            None => bins.push(bin),
        }
    };
    for (server, &(first, end)) in yard.servers.iter().enumerate() {
        if first == end {
            continue;
        }
        let nodes = end - first;
        if nodes == 1 || (nodes <= knapsack::NODES && on_both(server)) {
            put(first, nodes, None);
        } else {
            for spot in first..end {
                put(spot, 1, Some(server));
            }
        }
    }
    bins
}
