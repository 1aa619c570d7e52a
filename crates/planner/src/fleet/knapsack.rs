//! The best filling of a node, or of two at once, given what each piece is worth.
//!
//! Takes the room and pieces with gains in whole numbers; gives the filling of the greatest
//! gain, or, when the effort is spent, the best found and a gain that none exceeds.

use std::collections::HashMap;

use super::load::{DIMS, Load};
use super::simplex::{Column, Program};

/// The numbers of up to two nodes, one after the other.
pub(crate) type Room = [i32; 16];
/// Nodes that are filled at once, at most.
pub(crate) const NODES: usize = 2;

/// Puts the numbers of nodes one after the other.
pub(crate) fn join<'l>(loads: impl IntoIterator<Item = &'l Load>) -> Room {
    let mut room = [0; 16];
    for (at, load) in loads.into_iter().take(NODES).enumerate() {
        room[at * 8..at * 8 + 8].copy_from_slice(load);
    }
    room
}

/// A cell that a node may hold, or a guest that two may.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Kind of the guest; pieces of one kind share a limit.
    pub kind: usize,
    /// The number by which its owner knows it.
    pub id: usize,
    pub load: Room,
    pub gain: i64,
    /// How many of the kind there may be in all.
    pub most: u32,
}

/// How often each piece is in a filling: its id and number.
pub(crate) type Filling = Vec<(usize, u32)>;

#[derive(Debug, Clone)]
pub(crate) struct Filled {
    /// No filling gains more; of the last filling, unless the effort was spent.
    pub bound: i64,
    /// The best, after others that were best for a while.
    pub fillings: Vec<Filling>,
    pub steps: u32,
}

struct Filler<'p> {
    pieces: &'p [Piece],
    /// What a piece takes of all numbers together.
    weight: Vec<f64>,
    /// What a piece gains for that; never rising.
    density: Vec<f64>,
    /// Pieces of one kind and gain, of which the bound counts only so many as there are.
    group: Vec<usize>,
    price: [f64; 16],
    used: Vec<u32>,
    /// By group: the bound that counted last, and how many.
    counted: Vec<(u32, u32)>,
    bounds: u32,
    chosen: Vec<(usize, u32)>,
    best: i64,
    found: Vec<Filling>,
    steps: u32,
    /// Steps before the best so far is taken.
    limit: u32,
}

/// What gains are multiplied by in the program that weighs, so that its prices are so much more than the least of [`fill`].
const SCALE: f64 = 1e4 / (1u64 << 32) as f64;

/// Prices in the unit of the gains.
pub(crate) fn whole(prices: &[f64; DIMS]) -> [i64; DIMS] {
    prices.map(|price| (price / SCALE).round() as i64)
}

/// Prices by which the pieces' weights say most: those of the fractional filling.
pub(crate) fn weigh(room: &Room, pieces: &[Piece]) -> Vec<[f64; DIMS]> {
    /// Steps of the program, which is tiny.
    const STEPS: usize = 400;
    let fitting = pieces.iter();
    let fitting = fitting.filter(|piece| piece.gain > 0 && fits(&piece.load, room));
    let mut rows: Vec<f64> = room.iter().map(|&room| f64::from(room.max(0))).collect();
    let mut row_of: HashMap<usize, usize> = HashMap::new();
    for piece in fitting.clone() {
        row_of.entry(piece.kind).or_insert_with(|| {
            rows.push(f64::from(piece.most));
            rows.len() - 1
        });
    }
    let mut program = Program::new(rows);
    for piece in fitting {
        let entries = piece.load.iter().enumerate().filter(|(_, load)| **load > 0);
        let mut column: Column = entries.map(|(at, &load)| (at, f64::from(load))).collect();
        column.push((row_of[&piece.kind], 1.0));
        let most = f64::from(piece.most);
        program.add(column, piece.gain as f64 * SCALE, most);
    }
    program.solve(STEPS);
    let nodes = program.prices()[..room.len()].chunks(8).map(|node| {
        let mut prices = [0.0; DIMS];
        prices.copy_from_slice(&node[..DIMS]);
        prices.map(|price: f64| price.max(0.0))
    });
    nodes.collect()
}

/// Fills a room with what gains more than `floor`. The prices say how the numbers are weighed against each other for the bound; any
/// that are not negative are right, some are better.
pub(crate) fn fill(
    room: &Room,
    prices: &[[f64; DIMS]],
    mut pieces: Vec<Piece>,
    kinds: usize,
    floor: i64,
    limit: u32,
) -> Filled {
    pieces.retain(|piece| piece.gain > 0 && fits(&piece.load, room));
    let mut price = [0.0; 16];
    for (node, prices) in prices.iter().take(NODES).enumerate() {
        for dim in 0..DIMS {
            let at = node * 8 + dim;
            // A number that is dear to nobody still tells full from empty.
            let least = if room[at] > 0 {
                0.01 / f64::from(room[at])
            } else {
                0.0
            };
            price[at] = prices[dim] + least;
        }
    }
    let weigh = |load: &Room| -> f64 {
        let each = price.iter().zip(load);
        each.map(|(price, load)| price * f64::from(*load)).sum()
    };
    let mut order: Vec<(f64, Piece)> = pieces
        .into_iter()
        .map(|piece| (weigh(&piece.load), piece))
        .collect();
    order.sort_by(|(a, x), (b, y)| {
        let density = |weight: f64, piece: &Piece| piece.gain as f64 / weight.max(1e-12);
        density(*b, y)
            .total_cmp(&density(*a, x))
            .then(x.id.cmp(&y.id))
    });
    let (weight, pieces): (Vec<f64>, Vec<Piece>) = order.into_iter().unzip();
    let mut groups: HashMap<(usize, i64), usize> = HashMap::new();
    let group: Vec<usize> = pieces
        .iter()
        .map(|piece| {
            let next = groups.len();
            *groups.entry((piece.kind, piece.gain)).or_insert(next)
        })
        .collect();
    let density = pieces.iter().zip(&weight);
    let mut filler = Filler {
        density: density
            .map(|(piece, weight)| piece.gain as f64 / weight.max(1e-12) * ROUNDED_UP)
            .collect(),
        weight,
        price,
        used: vec![0; kinds],
        counted: vec![(0, 0); groups.len()],
        group,
        bounds: 0,
        chosen: Vec::new(),
        best: floor.max(0),
        found: Vec::new(),
        steps: 0,
        limit,
        pieces: &pieces,
    };
    let left = filler.left(room);
    let root = filler.bound(0, room, left, 0);
    filler.descend(0, room, left, 0);
    Filled {
        bound: if filler.steps > limit {
            root.max(floor)
        } else {
            filler.best
        },
        steps: filler.steps,
        fillings: filler.found,
    }
}

/// So that the arithmetic never hides a better filling.
const ROUNDED_UP: f64 = 1.0 + 1e-12;

/// As [`super::load::fits`].
pub(crate) fn fits(load: &Room, free: &Room) -> bool {
    let each = load.iter().zip(free);
    each.fold(0, |signs, (load, free)| signs | (free - load)) >= 0
}

impl Filler<'_> {
    /// Adds to what is chosen, from a piece on, whatever may still lead to more than the best.
    fn descend(&mut self, from: usize, free: &Room, left: f64, gain: i64) {
        if gain > self.best {
            self.best = gain;
            let ids = self.chosen.iter();
            let filling = ids.map(|&(piece, n)| (self.pieces[piece].id, n)).collect();
            self.found.push(filling);
        }
        for at in from..self.pieces.len() {
            if gain as f64 + left * self.density[at] < (self.best + 1) as f64 {
                return;
            }
            let most = self.most(at, free);
            if most == 0 {
                continue;
            }
            self.steps += 1;
            if self.steps > self.limit || self.bound(at, free, left, gain) <= self.best {
                return;
            }
            let piece = &self.pieces[at];
            for count in (1..=most).rev() {
                let mut free = *free;
                for (free, load) in free.iter_mut().zip(&piece.load) {
                    *free -= load * count as i32;
                }
                self.chosen.push((at, count));
                self.used[piece.kind] += count;
                let rest = left - self.weight[at] * f64::from(count);
                self.descend(at + 1, &free, rest, gain + piece.gain * i64::from(count));
                self.used[piece.kind] -= count;
                self.chosen.pop();
            }
        }
    }

    /// What is free of all numbers together.
    fn left(&self, free: &Room) -> f64 {
        let each = self.price.iter().zip(free);
        each.map(|(price, free)| price * f64::from(*free)).sum()
    }

    /// How many of a piece still fit.
    fn most(&self, at: usize, free: &Room) -> u32 {
        let piece = &self.pieces[at];
        if !fits(&piece.load, free) {
            return 0;
        }
        let mut most = piece.most - self.used[piece.kind].min(piece.most);
        if most > 1 {
            for (free, load) in free.iter().zip(&piece.load) {
                if *load > 0 {
                    most = most.min((free / load).unsigned_abs());
                }
            }
        }
        most
    }

    /// What at most is gained from here on: pieces may be cut, and only their weights count.
    fn bound(&mut self, at: usize, free: &Room, mut left: f64, gain: i64) -> i64 {
        self.bounds += 1;
        let enough = (self.best + 1) as f64;
        let mut sum = gain as f64;
        for at in at..self.pieces.len() {
            // What is left cannot be used better than by this piece.
            if sum + left * self.density[at] < enough {
                return self.best;
            }
            let piece = &self.pieces[at];
            if !fits(&piece.load, free) {
                continue;
            }
            let counted = &mut self.counted[self.group[at]];
            if counted.0 != self.bounds {
                *counted = (self.bounds, self.used[piece.kind]);
            }
            let count = piece.most - counted.1.min(piece.most);
            counted.1 += count;
            let all = self.weight[at] * f64::from(count);
            if all >= left {
                sum += self.density[at] * left;
                break;
            }
            sum += piece.gain as f64 * f64::from(count);
            left -= all;
        }
        (sum * ROUNDED_UP) as i64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ejection::Dice;

    /// Every filling, one after the other.
    fn all(pieces: &[Piece], at: usize, free: Room) -> i64 {
        let Some(piece) = pieces.get(at) else {
            return 0;
        };
        let mut best = 0;
        let mut free = free;
        for count in 0..=piece.most {
            if free.iter().any(|&n| n < 0) {
                break;
            }
            best = best.max(piece.gain * i64::from(count) + all(pieces, at + 1, free));
            for (free, load) in free.iter_mut().zip(&piece.load) {
                *free -= load;
            }
        }
        best
    }

    #[test]
    fn the_best_filling_is_found_whatever_the_prices() {
        let mut dice = Dice::new(7);
        for _ in 0..200 {
            let room = join([&[12, 30, 3, 12, 6, 0, 0, 0], &[10, 20, 0, 12, 6, 0, 0, 0]]);
            let pieces: Vec<Piece> = (0..6)
                .map(|id| {
                    let mut load = [0; 16];
                    for at in 0..DIMS {
                        load[at] = dice.below(7) as i32;
                        load[8 + at] = dice.below(3) as i32;
                    }
                    load[8 + 2] = 0;
                    Piece {
                        kind: id,
                        id,
                        load,
                        gain: 1 + dice.below(100) as i64,
                        most: 1 + dice.below(3) as u32,
                    }
                })
                .collect();
            let mut prices = [[0.0; DIMS]; 2];
            for price in prices.iter_mut().flatten() {
                *price = dice.below(10) as f64;
            }
            let found = fill(&room, &prices, pieces.clone(), 6, 0, 100_000);
            assert_eq!(found.bound, all(&pieces, 0, room));
            let last = found.fillings.last().cloned().unwrap_or_default();
            let gain: i64 = last
                .iter()
                .map(|&(id, n)| pieces[id].gain * i64::from(n))
                .sum();
            assert_eq!(gain, found.bound);
        }
    }
}
