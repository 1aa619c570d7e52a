//! A sharp bound, from whole fillings of nodes.
//!
//! Takes the nodes, the guests and a first placement; gives a bound that no placement exceeds, and
//! which fillings make it up. Each node chooses among fillings (columns), fractions of several
//! allowed; fillings are made on demand, for the prices that the program asks. Every bound is worked
//! out in whole numbers: for any prices, the best filling of each node and what the guests pay are
//! more than a placement can be worth. Guests of two cells are held together by their numbers, not
//! by their server, and cells that are alike count twice.

use std::collections::HashMap;

use super::knapsack::{self, Filling, Piece};
use super::load::{DIMS, Load, VFS};
use super::simplex::{Column, Program};
use super::ejection::Dice;
use super::yard::{Place, State, Yard};

/// The whole numbers that stand for a gain of 1.
const ONE: i64 = 1 << 32;

/// Nodes that have the same.
#[derive(Debug, Clone)]
pub(crate) struct Bin {
    pub spots: Vec<usize>,
    smt: bool,
    room: Load,
    prices: [f64; DIMS],
}

/// A cell, as a filling counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub kind: usize,
    pub cell: usize,
    pub vfs: i32,
}

#[derive(Debug, Clone, Copy)]
enum Row {
    /// A kind of one cell: its number.
    Number(usize),
    /// A cell of a kind of two.
    Cell(usize),
    /// The virtual functions of a kind of two.
    Vfs(usize),
}

pub(crate) struct Columns<'y> {
    yard: &'y Yard,
    pub bins: Vec<Bin>,
    pub parts: Vec<Part>,
    number_of: HashMap<Part, usize>,
    rows: Vec<Row>,
    /// By part: its own row, and that of its virtual functions.
    row_of: Vec<(usize, Option<usize>)>,
    program: Program,
    /// By variable of the program: the bin and its filling, or a kind of two cells.
    pub columns: Vec<Result<(usize, Filling), usize>>,
    seen: HashMap<(usize, Filling), usize>,
    pub bound: u64,
    /// Times that fillings were asked for.
    pub asked: usize,
}

impl<'y> Columns<'y> {
    pub fn new(yard: &'y Yard, class_of: &[usize], prices: &[[f64; DIMS]], bound: u64) -> Self {
        let mut bins: Vec<Bin> = Vec::new();
        for (at, spot) in yard.spots.iter().enumerate() {
            let like = |bin: &&mut Bin| bin.smt == spot.smt && bin.room == spot.room;
            match bins.iter_mut().find(like) {
                Some(bin) => bin.spots.push(at),
                None => bins.push(Bin {
                    spots: vec![at],
                    smt: spot.smt,
                    room: spot.room,
                    prices: prices[class_of[at]],
                }),
            }
        }
        let mut bounds: Vec<f64> = bins.iter().map(|bin| bin.spots.len() as f64).collect();
        let mut rows = Vec::new();
        let mut parts = Vec::new();
        let mut row_of = Vec::new();
        let mut pairs: Vec<(usize, Column)> = Vec::new();
        for (number, kind) in yard.kinds.iter().enumerate() {
            let mut row = |row: Row, bound: f64| {
                rows.push(row);
                bounds.push(bound);
                bounds.len() - 1
            };
            if kind.cells == 1 {
                let own = row(Row::Number(number), f64::from(kind.count));
                parts.push(Part {
                    kind: number,
                    cell: 0,
                    vfs: kind.vfs(),
                });
                row_of.push((own, None));
                continue;
            }
            let cells = if kind.ordered { 2 } else { 1 };
            let vfs = (kind.vfs() > 0).then(|| row(Row::Vfs(number), 0.0));
            let mut column: Column = vfs
                .map(|row| (row, f64::from(kind.vfs())))
                .into_iter()
                .collect();
            for cell in 0..cells {
                let own = row(Row::Cell(number), 0.0);
                column.push((own, if kind.ordered { 1.0 } else { 2.0 }));
                for share in 0..=kind.vfs() {
                    parts.push(Part {
                        kind: number,
                        cell,
                        vfs: share,
                    });
                    row_of.push((own, vfs));
                }
            }
            pairs.push((number, column));
        }
        let mut program = Program::new(bounds);
        let mut columns = Vec::new();
        for (number, column) in pairs {
            let kind = &yard.kinds[number];
            program.add(column, f64::from(kind.value), f64::from(kind.count));
            columns.push(Err(number));
        }
        Self {
            number_of: parts.iter().enumerate().map(|(at, &part)| (part, at)).collect(),
            yard,
            bins,
            parts,
            rows,
            row_of,
            program,
            columns,
            seen: HashMap::new(),
            bound,
            asked: 0,
        }
    }

    /// Takes the fillings of a placement as columns.
    pub fn learn(&mut self, state: &State<'_>) {
        for bin in 0..self.bins.len() {
            for spot in self.bins[bin].spots.clone() {
                let mut counts: HashMap<usize, u32> = HashMap::new();
                for &(guest, cell) in &state.here[spot] {
                    let guest = guest as usize;
                    let Some(kind) = self.yard.kind_of[guest] else {
                        continue;
                    };
                    let cell = usize::from(cell);
                    let facts = &self.yard.kinds[kind];
                    let part = Part {
                        kind,
                        cell: if facts.ordered { cell } else { 0 },
                        vfs: state.load_of(guest, cell)[VFS],
                    };
                    if let Some(&at) = self.number_of.get(&part) {
                        *counts.entry(at).or_default() += 1;
                    }
                }
                let mut filling: Filling = counts.into_iter().collect();
                filling.sort_unstable();
                self.add(bin, filling);
            }
        }
    }

    fn add(&mut self, bin: usize, mut filling: Filling) -> bool {
        filling.sort_unstable();
        if filling.is_empty() || self.seen.contains_key(&(bin, filling.clone())) {
            return false;
        }
        let mut column: Column = vec![(bin, 1.0)];
        let mut value = 0.0;
        for &(part, count) in &filling {
            let (own, vfs) = self.row_of[part];
            let of = self.parts[part];
            let kind = &self.yard.kinds[of.kind];
            let count = f64::from(count);
            if kind.cells == 1 {
                column.push((own, count));
                value += f64::from(kind.value) * count;
            } else {
                column.push((own, -count));
                if let Some(vfs) = vfs
                    && of.vfs > 0
                {
                    column.push((vfs, -count * f64::from(of.vfs)));
                }
            }
        }
        column.sort_by_key(|entry| entry.0);
        column.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 += later.1;
            }
            same
        });
        self.program.add(column, value, self.bins[bin].spots.len() as f64);
        self.seen.insert((bin, filling.clone()), self.columns.len());
        self.columns.push(Ok((bin, filling)));
        true
    }

    /// Makes columns until none is missing, or the bound is no more than `enough`, or they were
    /// asked for so many times.
    pub fn improve(&mut self, enough: u64, times: usize) {
        const STEPS: usize = 20_000;
        /// Steps for one node, first while any better filling will do, then for the best.
        const QUICK: u32 = 400;
        const EXACT: u32 = 40_000;
        let mut limit = QUICK;
        for _ in 0..times {
            self.program.solve(STEPS);
            self.asked += 1;
            let prices: Vec<i64> = self
                .program
                .prices()
                .iter()
                .map(|&price| (price.clamp(0.0, 1e5) * ONE as f64).round() as i64)
                .collect();
            let (bound, fillings) = self.price(&prices, limit);
            self.bound = self.bound.min(bound);
            if self.bound <= enough {
                return;
            }
            let mut new = false;
            for (bin, filling) in fillings {
                new |= self.add(bin, filling);
            }
            if !new && limit == EXACT {
                return;
            }
            limit = if new { QUICK } else { EXACT };
        }
    }

    /// The bound for these prices, and the fillings that gain by them.
    fn price(&self, prices: &[i64], limit: u32) -> (u64, Vec<(usize, Filling)>) {
        let mut total: i128 = 0;
        for (at, kind) in self.yard.kinds.iter().enumerate() {
            let rows = self.rows.iter().zip(&prices[self.bins.len()..]);
            let value = i128::from(kind.value) * i128::from(ONE);
            let mut paid: i128 = 0;
            for (row, &price) in rows {
                paid += match *row {
                    Row::Number(kind) if kind == at => i128::from(price),
                    Row::Cell(other) if other == at => {
                        i128::from(price) * if kind.ordered { 1 } else { 2 }
                    }
                    Row::Vfs(other) if other == at => i128::from(price) * i128::from(kind.vfs()),
                    _ => 0,
                };
            }
            let each = if kind.cells == 1 {
                paid
            } else {
                (value - paid).max(0)
            };
            total += each * i128::from(kind.count);
        }
        let mut found = Vec::new();
        for (number, bin) in self.bins.iter().enumerate() {
            let pieces = self.pieces(bin, prices);
            let filled = knapsack::fill(&bin.room, &bin.prices, pieces, self.yard.kinds.len(), limit);
            total += i128::from(filled.bound) * bin.spots.len() as i128;
            if filled.gain > prices[number] + ONE / 1_000_000 {
                let last = filled.fillings.len().saturating_sub(2);
                found.extend(filled.fillings[last..].iter().map(|f| (number, f.clone())));
            }
        }
        (u64::try_from(total / i128::from(ONE)).unwrap_or(u64::MAX), found)
    }

    fn pieces(&self, bin: &Bin, prices: &[i64]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (id, part) in self.parts.iter().enumerate() {
            let kind = &self.yard.kinds[part.kind];
            let Some(mut load) = kind.loads[usize::from(bin.smt)][part.cell] else {
                continue;
            };
            load[VFS] = part.vfs;
            let (own, vfs) = self.row_of[id];
            let gain = if kind.cells == 1 {
                i64::from(kind.value) * ONE - prices[own]
            } else {
                prices[own] + vfs.map_or(0, |row| prices[row] * i64::from(part.vfs))
            };
            pieces.push(Piece {
                kind: part.kind,
                id,
                load,
                gain,
                most: kind.count,
            });
        }
        pieces
    }

    /// A placement after the program's: each node gets one of its fillings, the likelier the more
    /// of it the program takes. Guests of two cells stay where they are in `like`.
    pub fn sample(&self, like: &State<'y>, dice: &mut Dice) -> State<'y> {
        let mut state = State::empty(self.yard);
        let mut of_kind: Vec<Vec<usize>> = vec![Vec::new(); self.yard.kinds.len()];
        for (guest, kind) in self.yard.kind_of.iter().enumerate() {
            let Some(kind) = *kind else { continue };
            match like.places[guest] {
                Some(place) if self.yard.kinds[kind].cells == 2 => {
                    state.place(guest, place);
                }
                _ => of_kind[kind].push(guest),
            }
        }
        let mut choices: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.bins.len()];
        for (at, level) in self.program.levels().into_iter().enumerate() {
            if let Ok((bin, _)) = &self.columns[at]
                && level > 1e-6
            {
                choices[*bin].push((level, at));
            }
        }
        let mut left: Vec<(usize, usize)> = self
            .bins
            .iter()
            .enumerate()
            .flat_map(|(bin, facts)| facts.spots.iter().map(move |&spot| (bin, spot)))
            .collect();
        while !left.is_empty() {
            let (bin, spot) = left.swap_remove(dice.below(left.len()));
            let sum: f64 = choices[bin].iter().map(|(level, _)| level).sum();
            let mut thrown = dice.below(1 << 20) as f64 / f64::from(1 << 20) * sum;
            let chosen = choices[bin].iter_mut().find(|(level, _)| {
                thrown -= level;
                thrown < 0.0
            });
            let Some((level, at)) = chosen else { continue };
            *level = (*level - 1.0).max(0.0);
            let Ok((_, filling)) = &self.columns[*at] else {
                continue;
            };
            for &(part, count) in filling {
                let part = self.parts[part];
                for _ in 0..count {
                    let Some(&guest) = of_kind[part.kind].last() else {
                        break;
                    };
                    if self.yard.kinds[part.kind].cells == 1
                        && state.place(guest, Place::one(spot, part.vfs))
                    {
                        of_kind[part.kind].pop();
                    }
                }
            }
        }
        state
    }
}
