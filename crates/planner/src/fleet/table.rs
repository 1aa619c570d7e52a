//! What the pieces from one on may gain at most, for so many threads and so much memory.
//!
//! Takes a bin's room and pieces in an order; gives for each of them the most that it and those
//! after it gain in what is free. A node has a table of its own; what it does not count (half cores)
//! has a price instead, so that no filling gains more than is said.

use super::knapsack::{Piece, Room, whole};
use super::load::{DIMS, MAIN, MEMORY, THREADS, VFS, WHOLE};

/// Cells of the table for a piece: with more memory its units are coarser, so that the table
/// bounds from above what is found with the true amounts.
const CELLS: usize = 1 << 15;
/// Cells for all pieces.
const ALL_CELLS: usize = 1 << 22;

/// What pieces from one on gain, by how much of each number is left for them.
struct Layer {
    /// Virtual functions that these pieces can use, and one.
    vfs: usize,
    /// By threads, then virtual functions, then units of memory.
    gain: Vec<i64>,
    /// How much of each number they can use at all.
    usable: [i32; DIMS],
}

struct Table {
    /// The number of threads that it goes by.
    threads: usize,
    /// Units of memory that a room may have, and one; and their size.
    wide: usize,
    unit: usize,
    /// What a unit of each other number costs.
    price: [i64; DIMS],
    layers: Vec<Layer>,
}

fn amount(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// The number of threads that is scarcer, and prices of what the table does not count.
fn scarcest(room: &Room, prices: &[i64; DIMS]) -> (usize, [i64; DIMS]) {
    let mut price = *prices;
    // Where there are no half cores threads and whole cores say no more than the first number.
    if room[THREADS] >= room[MAIN] {
        price[THREADS] = 0;
    }
    if 2 * room[WHOLE] >= room[MAIN] {
        price[WHOLE] = 0;
    }
    let threads = if price[THREADS] > price[MAIN] {
        THREADS
    } else {
        MAIN
    };
    for dim in [threads, MEMORY, VFS] {
        price[dim] = 0;
    }
    (threads, price)
}

impl Table {
    /// None for a node with more threads and virtual functions than fit into a table.
    fn new(room: &Room, prices: &[i64; DIMS], pieces: &[Piece]) -> Option<Self> {
        let (threads, price) = scarcest(room, prices);
        let rows = amount(room[threads]) + 1;
        let mut usable = [0i32; DIMS];
        let mut usables = vec![usable];
        for piece in pieces.iter().rev() {
            let most = i64::from(piece.most.min(room_for(room, piece)));
            for dim in 0..DIMS {
                let all = i64::from(usable[dim]) + i64::from(piece.load[dim]) * most;
                usable[dim] = i32::try_from(all).unwrap_or(i32::MAX).min(room[dim]);
            }
            usables.push(usable);
        }
        let memory = amount(room[MEMORY]);
        let cells = |unit: usize| rows * (amount(usable[VFS]) + 1) * (memory / unit + 1);
        let most = CELLS.min(ALL_CELLS / (pieces.len() + 1));
        let mut unit = 1;
        while cells(unit) > most {
            if unit > memory {
                return None;
            }
            unit *= 2;
        }
        let wide = memory / unit + 1;
        let mut layers = vec![Layer {
            vfs: 1,
            gain: vec![0; rows * wide],
            usable: [0; DIMS],
        }];
        for (piece, &usable) in pieces.iter().rev().zip(&usables[1..]) {
            let after = &layers[layers.len() - 1];
            let vfs = amount(usable[VFS]) + 1;
            let mut gain = Vec::with_capacity(rows * vfs * wide);
            for row in after.gain.chunks(after.vfs * wide) {
                gain.extend_from_slice(row);
                for _ in after.vfs..vfs {
                    gain.extend_from_slice(&row[row.len() - wide..]);
                }
            }
            let paid: i64 = (0..DIMS)
                .map(|dim| price[dim] * i64::from(piece.load[dim]))
                .sum();
            let one = Step {
                down: amount(piece.load[threads]),
                vfs: amount(piece.load[VFS]),
                left: amount(piece.load[MEMORY]) / unit,
                gain: piece.gain - paid,
            };
            for _ in 0..piece.most.min(room_for(room, piece)) {
                one.add(&mut gain, vfs, wide);
            }
            layers.push(Layer { vfs, gain, usable });
        }
        layers.reverse();
        Some(Self {
            threads,
            wide,
            unit,
            price,
            layers,
        })
    }

    /// No more is gained with the pieces from one on in what is free.
    fn most(&self, from: usize, free: &[i32]) -> i64 {
        let layer = &self.layers[from];
        let vfs = amount(free[VFS]).min(layer.vfs - 1);
        let row = amount(free[self.threads]) * layer.vfs + vfs;
        let cell = row * self.wide + amount(free[MEMORY]) / self.unit;
        let other =
            (0..DIMS).map(|dim| self.price[dim] * i64::from(free[dim].min(layer.usable[dim])));
        layer.gain[cell] + other.sum::<i64>()
    }
}

/// The tables of a bin's nodes: what is gained is no more than all of them promise together.
pub(crate) struct Tables {
    nodes: Vec<Table>,
}

impl Tables {
    /// None where a node is too large for it.
    pub fn new(room: &Room, prices: &[[f64; DIMS]], pieces: &[Piece]) -> Option<Self> {
        let each = prices.iter().enumerate().map(|(node, prices)| {
            let at = node * 8..node * 8 + 8;
            let mut own = [0; 16];
            own[..8].copy_from_slice(&room[at.clone()]);
            let part = |piece: &Piece| {
                let mut load = [0; 16];
                load[..8].copy_from_slice(&piece.load[at.clone()]);
                // A guest on both nodes counts on the first.
                let first = piece
                    .load
                    .chunks(8)
                    .position(|load| load.iter().any(|&n| n > 0));
                let gain = if first == Some(node) { piece.gain } else { 0 };
                Piece {
                    load,
                    gain,
                    ..piece.clone()
                }
            };
            let pieces: Vec<Piece> = pieces.iter().map(part).collect();
            Table::new(&own, &whole(prices), &pieces)
        });
        Some(Self {
            nodes: each.collect::<Option<_>>()?,
        })
    }

    /// No more is gained with the pieces from one on in what is free.
    pub fn most(&self, from: usize, free: &Room) -> i64 {
        let each = self.nodes.iter().zip(free.chunks(8));
        each.map(|(table, free)| table.most(from, free)).sum()
    }

    /// Cells in all.
    pub fn cells(&self) -> usize {
        let layers = self.nodes.iter().flat_map(|table| &table.layers);
        layers.map(|layer| layer.gain.len()).sum()
    }
}

/// One more of a piece.
struct Step {
    down: usize,
    vfs: usize,
    left: usize,
    gain: i64,
}

impl Step {
    fn add(&self, gain: &mut [i64], vfs: usize, wide: usize) {
        let rows = gain.len() / wide;
        let back = self.down * vfs + self.vfs;
        if self.gain <= 0 || self.left >= wide {
            return;
        }
        if back == 0 {
            for row in gain.chunks_mut(wide) {
                for at in (self.left..wide).rev() {
                    row[at] = row[at].max(row[at - self.left] + self.gain);
                }
            }
            return;
        }
        for row in (back..rows).rev().filter(|row| row % vfs >= self.vfs) {
            let (before, from) = gain.split_at_mut(row * wide);
            let with = &before[(row - back) * wide..][..wide - self.left];
            for (best, other) in from[self.left..wide].iter_mut().zip(with) {
                *best = (*best).max(other + self.gain);
            }
        }
    }
}

/// How many of a piece fit into an empty room.
fn room_for(room: &Room, piece: &Piece) -> u32 {
    let each = room.iter().zip(&piece.load).filter(|(_, load)| **load > 0);
    let each = each.map(|(room, load)| (room / load).unsigned_abs());
    each.min().unwrap_or(u32::MAX)
}
