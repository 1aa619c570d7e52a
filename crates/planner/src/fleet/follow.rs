//! The fillings of a bin, by following a table.
//!
//! Takes a bin's room and pieces with gains, as [`super::knapsack`] does; gives the best filling
//! where that one would look at too many, or all that gain enough. The table knows what is still to
//! be gained, so that hardly a step is in vain: only half cores, guests on two nodes and kinds with
//! several pieces lead astray.

use std::cmp::Reverse;

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
    pieces.sort_by_key(|piece| (Reverse(nodes(piece)), vfs(piece) == 0, piece.kind, piece.id));
}

/// Pieces in order, with their tables.
struct Ground {
    pieces: Vec<Piece>,
    tables: Tables,
}

impl Ground {
    /// None where a node is too large for a table.
    fn new(room: &Room, prices: &[[f64; DIMS]], mut pieces: Vec<Piece>) -> Option<Self> {
        pieces.retain(|piece| fits(&piece.load, room));
        order(&mut pieces);
        let tables = Tables::new(room, prices, &pieces)?;
        Some(Self { pieces, tables })
    }
}

/// What is chosen so far.
struct Walk<'g> {
    ground: &'g Ground,
    /// By kind.
    used: Vec<u32>,
    chosen: Vec<(usize, u32)>,
}

impl<'g> Walk<'g> {
    fn over(ground: &'g Ground) -> Self {
        let kinds = ground.pieces.iter().map(|piece| piece.kind + 1).max();
        Self {
            ground,
            used: vec![0; kinds.unwrap_or(0)],
            chosen: Vec::new(),
        }
    }

    /// No more is gained from a piece on in what is free.
    fn most(&self, at: usize, free: &Room) -> i64 {
        self.ground.tables.most(at, free)
    }

    /// So many of a piece as there may be, from none on, and what is free then.
    fn ways(&self, at: usize, free: &Room) -> impl Iterator<Item = (u32, Room)> + use<'g> {
        let piece = &self.ground.pieces[at];
        let left = piece.most.saturating_sub(self.used[piece.kind]);
        std::iter::successors(Some((0, *free)), move |&(count, mut free)| {
            (count < left && fits(&piece.load, &free)).then(|| {
                for (free, load) in free.iter_mut().zip(&piece.load) {
                    *free -= load;
                }
                (count + 1, free)
            })
        })
    }

    fn take(&mut self, at: usize, count: u32) {
        if count > 0 {
            self.chosen.push((at, count));
            self.used[self.ground.pieces[at].kind] += count;
        }
    }

    fn leave(&mut self, at: usize, count: u32) {
        if count > 0 {
            self.chosen.pop();
            self.used[self.ground.pieces[at].kind] -= count;
        }
    }

    fn filling(&self) -> Filling {
        let chosen = self.chosen.iter();
        chosen
            .map(|&(at, count)| (self.ground.pieces[at].id, count))
            .collect()
    }
}

/// As [`super::knapsack::fill`]; none where a node is too large for a table.
pub(crate) fn fill(
    room: &Room,
    prices: &[[f64; DIMS]],
    mut pieces: Vec<Piece>,
    floor: i64,
    limit: u32,
) -> Option<Filled> {
    pieces.retain(|piece| piece.gain > 0);
    let ground = Ground::new(room, prices, pieces)?;
    let spent = u32::try_from(ground.tables.cells() / CELLS_A_STEP).unwrap_or(u32::MAX);
    let mut best = Best {
        walk: Walk::over(&ground),
        gain: floor.max(0),
        found: Vec::new(),
        steps: spent,
        limit: limit.saturating_add(spent),
    };
    best.descend(0, room, 0);
    Some(Filled {
        bound: if best.steps > best.limit {
            ground.tables.most(0, room).max(floor)
        } else {
            best.gain
        },
        steps: best.steps,
        fillings: best.found,
    })
}

/// The search for the best.
struct Best<'g> {
    walk: Walk<'g>,
    /// What the best so far gains.
    gain: i64,
    found: Vec<Filling>,
    steps: u32,
    limit: u32,
}

impl Best<'_> {
    /// Adds to what is chosen, from a piece on, what the table promises most for first.
    fn descend(&mut self, at: usize, free: &Room, gain: i64) {
        if gain > self.gain {
            self.gain = gain;
            self.found.push(self.walk.filling());
        }
        let Some(piece) = self.walk.ground.pieces.get(at) else {
            return;
        };
        if self.steps > self.limit || gain + self.walk.most(at, free) <= self.gain {
            return;
        }
        self.steps += 1;
        let ways = self.walk.ways(at, free).map(|(count, rest)| {
            let gain = gain + piece.gain * i64::from(count);
            (gain + self.walk.most(at + 1, &rest), count, gain, rest)
        });
        let mut ways: Vec<_> = ways.collect();
        ways.sort_by_key(|&(most, count, ..)| (Reverse(most), Reverse(count)));
        for (most, count, gain, rest) in ways {
            if most <= self.gain {
                return;
            }
            self.walk.take(at, count);
            self.descend(at + 1, &rest, gain);
            self.walk.leave(at, count);
        }
    }
}

/// All fillings that gain at least so much, with what they gain; none when there are too many, or
/// looking for them takes too long.
pub(crate) fn all(
    room: &Room,
    prices: &[[f64; DIMS]],
    pieces: Vec<Piece>,
    least: i64,
    most: usize,
    limit: u64,
) -> Option<Vec<(Filling, i64)>> {
    let ground = Ground::new(room, prices, pieces)?;
    let mut all = All {
        walk: Walk::over(&ground),
        least,
        most,
        steps: limit,
        found: Vec::new(),
    };
    all.descend(0, room, 0).then_some(all.found)
}

/// The search for all.
struct All<'g> {
    walk: Walk<'g>,
    least: i64,
    most: usize,
    steps: u64,
    found: Vec<(Filling, i64)>,
}

impl All<'_> {
    /// Whether everything was looked at.
    fn descend(&mut self, at: usize, free: &Room, gain: i64) -> bool {
        if gain + self.walk.most(at, free) < self.least {
            return true;
        }
        if self.steps == 0 {
            return false;
        }
        self.steps -= 1;
        let Some(piece) = self.walk.ground.pieces.get(at) else {
            if self.found.len() == self.most {
                return false;
            }
            self.found.push((self.walk.filling(), gain));
            return true;
        };
        for (count, rest) in self.walk.ways(at, free) {
            self.walk.take(at, count);
            let done = self.descend(at + 1, &rest, gain + piece.gain * i64::from(count));
            self.walk.leave(at, count);
            if !done {
                return false;
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
            let Some(found) = fill(&room, &[prices], pieces.clone(), 0, 100_000) else {
                panic!("{round}: no table");
            };
            assert_eq!(Some(found.bound), most, "{round}");
            let last = found.fillings.last().cloned().unwrap_or_default();
            assert_eq!(gain(&pieces, &last), found.bound, "{round}");
            // What is given when the effort is spent is no less.
            let spent = fill(&room, &[prices], pieces.clone(), 0, 0);
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
        assert!(fill(&room, &prices, pieces.clone(), 0, 100).is_none());
        assert!(all(&room, &prices, pieces, 0, 100, 100).is_none());
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
            let found = all(&room, &prices, pieces.clone(), least, 100_000, 1_000_000);
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
            let few = all(&room, &prices, pieces, least, enough.len() - 1, 1_000_000);
            assert_eq!(few, None, "{round}: one too many is too many");
        }
        assert!(some > 30 && more > 100, "{some} {more}");
    }
}
