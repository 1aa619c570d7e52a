//! The fillings of a bin, by following a table.
//!
//! Takes a bin's room and pieces with gains, as [`super::knapsack`] does; gives the best filling
//! where that one would look at too many, or all that gain enough. The table knows what is still to
//! be gained, so that hardly a step is in vain: only half cores, guests on two nodes and kinds with
//! several pieces lead astray.

use super::knapsack::{Filled, Filling, Piece, Room, fits};
use super::load::{DIMS, VFS};
use super::table::Tables;

/// Cells of a table that cost as much to fill in as one step of a search.
const CELLS_A_STEP: usize = 256;

/// Pieces in the order of a search: what tables tell least of comes first.
fn order(pieces: &mut [Piece]) {
    let nodes = |piece: &Piece| {
        piece
            .load
            .chunks(8)
            .filter(|node| node.iter().any(|&n| n > 0))
            .count()
    };
    let vfs = |piece: &Piece| piece.load[VFS] + piece.load[8 + VFS];
    pieces.sort_by_key(|piece| {
        (
            std::cmp::Reverse(nodes(piece)),
            vfs(piece) == 0,
            piece.kind,
            piece.id,
        )
    });
}

struct Search<'p> {
    pieces: &'p [Piece],
    tables: &'p Tables,
    used: Vec<u32>,
    chosen: Vec<(usize, u32)>,
    best: i64,
    found: Vec<Filling>,
    steps: u32,
    limit: u32,
}

/// As [`super::knapsack::fill`]; none where a node is too large for a table.
pub(crate) fn fill(
    room: &Room,
    prices: &[[f64; DIMS]],
    mut pieces: Vec<Piece>,
    kinds: usize,
    floor: i64,
    limit: u32,
) -> Option<Filled> {
    pieces.retain(|piece| piece.gain > 0 && fits(&piece.load, room));
    order(&mut pieces);
    let tables = Tables::new(room, prices, &pieces)?;
    let mut search = Search {
        pieces: &pieces,
        tables: &tables,
        used: vec![0; kinds],
        chosen: Vec::new(),
        best: floor.max(0),
        found: Vec::new(),
        steps: u32::try_from(tables.cells() / CELLS_A_STEP).unwrap_or(u32::MAX),
        limit,
    };
    let spent = search.steps;
    search.limit = limit.saturating_add(spent);
    search.descend(0, room, 0);
    Some(Filled {
        bound: if search.steps > search.limit {
            tables.most(0, room).max(floor)
        } else {
            search.best
        },
        steps: search.steps,
        fillings: search.found,
    })
}

impl Search<'_> {
    /// Adds to what is chosen, from a piece on, what the table promises most for first.
    fn descend(&mut self, at: usize, free: &Room, gain: i64) {
        if gain > self.best {
            self.best = gain;
            let ids = self.chosen.iter();
            let filling = ids.map(|&(piece, n)| (self.pieces[piece].id, n)).collect();
            self.found.push(filling);
        }
        let Some(piece) = self.pieces.get(at) else {
            return;
        };
        if self.steps > self.limit || gain + self.tables.most(at, free) <= self.best {
            return;
        }
        self.steps += 1;
        let left = piece.most.saturating_sub(self.used[piece.kind]);
        let mut ways = Vec::new();
        let mut rest = *free;
        for count in 0..=left {
            let now = gain + piece.gain * i64::from(count);
            ways.push((now + self.tables.most(at + 1, &rest), count, rest));
            if count == left || !fits(&piece.load, &rest) {
                break;
            }
            for (free, load) in rest.iter_mut().zip(&piece.load) {
                *free -= load;
            }
        }
        ways.sort_by_key(|&(most, count, _)| (std::cmp::Reverse(most), std::cmp::Reverse(count)));
        for (most, count, rest) in ways {
            if most <= self.best {
                return;
            }
            if count > 0 {
                self.chosen.push((at, count));
                self.used[piece.kind] += count;
            }
            self.descend(at + 1, &rest, gain + piece.gain * i64::from(count));
            if count > 0 {
                self.chosen.pop();
                self.used[piece.kind] -= count;
            }
        }
    }
}

/// All fillings that gain at least so much, with what they gain; none when there are too many, or
/// looking for them takes too long.
pub(crate) fn all(
    room: &Room,
    prices: &[[f64; DIMS]],
    mut pieces: Vec<Piece>,
    kinds: usize,
    least: i64,
    most: usize,
    limit: u64,
) -> Option<Vec<(Filling, i64)>> {
    pieces.retain(|piece| fits(&piece.load, room));
    order(&mut pieces);
    let tables = Tables::new(room, prices, &pieces)?;
    let mut all = All {
        pieces: &pieces,
        tables: &tables,
        used: vec![0; kinds],
        chosen: Vec::new(),
        least,
        most,
        steps: limit,
        found: Vec::new(),
    };
    all.descend(0, room, 0).then_some(all.found)
}

struct All<'p> {
    pieces: &'p [Piece],
    tables: &'p Tables,
    used: Vec<u32>,
    chosen: Vec<(usize, u32)>,
    least: i64,
    most: usize,
    steps: u64,
    found: Vec<(Filling, i64)>,
}

impl All<'_> {
    /// Whether everything was looked at.
    fn descend(&mut self, at: usize, free: &Room, gain: i64) -> bool {
        if gain + self.tables.most(at, free) < self.least {
            return true;
        }
        if self.steps == 0 {
            return false;
        }
        self.steps -= 1;
        let Some(piece) = self.pieces.get(at) else {
            if self.found.len() == self.most {
                return false;
            }
            let ids = self.chosen.iter();
            let filling = ids.map(|&(piece, n)| (self.pieces[piece].id, n)).collect();
            self.found.push((filling, gain));
            return true;
        };
        let left = piece.most.saturating_sub(self.used[piece.kind]);
        let mut rest = *free;
        for count in 0..=left {
            if count > 0 {
                self.chosen.push((at, count));
                self.used[piece.kind] += count;
            }
            let done = self.descend(at + 1, &rest, gain + piece.gain * i64::from(count));
            if count > 0 {
                self.chosen.pop();
                self.used[piece.kind] -= count;
            }
            if !done {
                return false;
            }
            if count == left || !fits(&piece.load, &rest) {
                break;
            }
            for (free, load) in rest.iter_mut().zip(&piece.load) {
                *free -= load;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::fleet::ejection::Dice;
    use crate::fleet::knapsack::join;
    use crate::fleet::load::Load;

    /// Every filling with what it gains, one after the other.
    fn every(pieces: &[Piece], room: Room) -> Vec<(Filling, i64)> {
        let mut found = vec![(Filling::new(), 0, room, HashMap::new())];
        for piece in pieces {
            for (filling, gain, free, used) in found.clone() {
                let mut free: Room = free;
                let before = used.get(&piece.kind).copied().unwrap_or(0);
                for count in 1..=piece.most.saturating_sub(before) {
                    if !fits(&piece.load, &free) {
                        break;
                    }
                    for (free, load) in free.iter_mut().zip(&piece.load) {
                        *free -= load;
                    }
                    let mut filling = filling.clone();
                    filling.push((piece.id, count));
                    let mut used = used.clone();
                    used.insert(piece.kind, before + count);
                    let gain = gain + piece.gain * i64::from(count);
                    found.push((filling, gain, free, used));
                }
            }
        }
        let found = found.into_iter();
        found.map(|(filling, gain, ..)| (filling, gain)).collect()
    }

    /// A room and what may lie there, some of it on both nodes, some with two ways for one kind.
    fn question(round: usize, nodes: usize, dice: &mut Dice) -> (Room, Vec<Piece>) {
        // With so much memory its units are coarse.
        let scale = if round.is_multiple_of(3) { 4099 } else { 1 };
        let mut node = || {
            let (full, half) = (3 + dice.below(4) as i32, dice.below(3) as i32);
            let memory = (8 + dice.below(20) as i32) * scale;
            let vfs = dice.below(4) as i32;
            [
                2 * (full + half),
                memory,
                vfs,
                2 * full + half,
                full,
                0,
                0,
                0,
            ]
        };
        let rooms: Vec<Load> = (0..nodes).map(|_| node()).collect();
        let most = [(); 3].map(|()| 1 + dice.below(2) as u32);
        let mut pieces = Vec::new();
        for id in 0..6 {
            let mut load = |on: bool| {
                let (whole, single) = (dice.below(3) as i32, dice.below(3) as i32);
                let apart = dice.below(2) as i32;
                let main = 2 * whole + single + 2 * apart;
                let memory = dice.below(9) as i32 * scale + dice.below(2) as i32;
                let vfs = dice.below(5) as i32 / 3;
                let threads = 2 * whole + single + apart;
                let load = [main.max(1), memory, vfs, threads.max(1), whole, 0, 0, 0];
                if on { load } else { [0; 8] }
            };
            let on = [(true, false), (false, true), (true, true)][(round + id) % 3];
            let (first, second) = (load(nodes == 1 || on.0), load(nodes == 2 && on.1));
            pieces.push(Piece {
                kind: id / 2,
                id,
                load: join(&[first, second]),
                gain: dice.below(100) as i64 - 5,
                most: most[id / 2],
            });
        }
        (join(&rooms), pieces)
    }

    fn gain(pieces: &[Piece], filling: &Filling) -> i64 {
        let each = filling.iter();
        each.map(|&(id, n)| pieces[id].gain * i64::from(n)).sum()
    }

    #[test]
    fn a_node_is_filled_as_well_as_when_everything_is_tried() {
        let mut dice = Dice::new(3);
        for round in 0..300 {
            let (room, pieces) = question(round, 1, &mut dice);
            let most = every(&pieces, room).iter().map(|(_, gain)| *gain).max();
            let prices = [(); DIMS].map(|()| dice.below(9) as f64 * 1e-5);
            let Some(found) = fill(&room, &[prices], pieces.clone(), 3, 0, 100_000) else {
                panic!("{round}: no table");
            };
            assert_eq!(Some(found.bound), most, "{round}");
            let last = found.fillings.last().cloned().unwrap_or_default();
            assert_eq!(gain(&pieces, &last), found.bound, "{round}");
            // What is given when the effort is spent is no less.
            let spent = fill(&room, &[prices], pieces.clone(), 3, 0, 0);
            assert!(
                spent.is_some_and(|spent| spent.bound >= found.bound),
                "{round}"
            );
        }
    }

    #[test]
    fn there_is_no_table_for_an_absurd_node() {
        let mut dice = Dice::new(1);
        let (_, pieces) = question(1, 1, &mut dice);
        let much = 1 << 21;
        let room = join(&[[much, much, 0, much, much / 2, 0, 0, 0]]);
        let prices = [[0.0; DIMS]];
        assert!(fill(&room, &prices, pieces.clone(), 3, 0, 100).is_none());
        assert!(all(&room, &prices, pieces, 3, 0, 100, 100).is_none());
    }

    #[test]
    fn the_fillings_that_gain_enough_are_all_found_and_no_others() {
        let mut dice = Dice::new(9);
        let (mut some, mut more) = (0, 0);
        for round in 0..300 {
            let nodes = 1 + round % 2;
            let (room, pieces) = question(round, nodes, &mut dice);
            let every = every(&pieces, room);
            let most = every.iter().map(|(_, gain)| *gain).max().unwrap_or(0);
            let least = most - dice.below(40) as i64;
            let prices = vec![[1e-3, 2e-3, 1e-2, 1e-3, 0.0]; nodes];
            let found = all(&room, &prices, pieces.clone(), 3, least, 100_000, 1_000_000);
            let sorted = |fillings: Vec<(Filling, i64)>| {
                let each = fillings.into_iter().map(|(mut filling, gain)| {
                    filling.sort_unstable();
                    (filling, gain)
                });
                let mut each: Vec<_> = each.collect();
                each.sort();
                each
            };
            let enough = every.into_iter().filter(|(_, gain)| *gain >= least);
            let enough = sorted(enough.collect());
            some += usize::from(enough.len() == 1);
            more += usize::from(enough.len() > 1);
            assert_eq!(found.map(sorted), Some(enough.clone()), "{round}");
            let few = all(
                &room,
                &prices,
                pieces,
                3,
                least,
                enough.len() - 1,
                1_000_000,
            );
            assert_eq!(few, None, "{round}: one too many is too many");
        }
        assert!(some > 30 && more > 100, "{some} {more}");
    }
}
