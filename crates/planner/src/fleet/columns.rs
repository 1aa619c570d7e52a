//! A sharp bound, from whole fillings of servers and nodes.
//!
//! Takes the nodes, the guests and a first placement; gives a bound that no placement exceeds, and
//! which fillings make it up. Each bin (a server of one or two nodes, or a node of a larger one)
//! chooses among fillings (columns), fractions of several allowed; fillings are made on demand, for
//! the prices that the program asks. Every bound is worked out in whole numbers: for any prices, the
//! best filling of each bin and what the guests pay are more than a placement can be worth. On a
//! larger server the two cells of a guest are held together by their numbers.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::bins::{self, Bin, Part, load, place};
use super::ejection::Dice;
use super::knapsack::{self, Filling, Piece};
use super::load::DIMS;
use super::simplex::{Column, Program};
use super::terms::Terms;
use super::yard::{State, Yard};

/// The whole numbers that stand for a gain of 1.
const ONE: i64 = 1 << 32;

/// What a filling has to gain beyond its bin's price to be worth a column.
const LEAST: i64 = ONE / 1_000_000;

/// So many entries of the program cost as much as one step of filling.
const ENTRIES: u64 = 256;

/// What the program's arithmetic may be wrong by.
const NEAR: f64 = 1e-3;

/// Steps for one bin, first while any better filling will do, then for the best.
const QUICK: u32 = 80;
const EXACT: u32 = 40_000;

/// A guest of two cells on a server whose nodes are bins.
#[derive(Debug)]
pub(crate) struct Pair {
    pub kind: usize,
    /// Rows, and how often the pair counts there.
    rows: Vec<(usize, i64)>,
}

/// The rows of a part's cell and of its virtual functions; none when it counts as a guest.
type Half = Option<(usize, Option<usize>)>;

/// A variable of the program.
#[derive(Debug, Clone)]
pub(crate) enum Variable {
    Pair(usize),
    /// A bin and its filling.
    Filling(usize, Rc<Filling>),
    /// Takes the place of guests of a kind: how many at most, and what each is worth.
    Idle(usize, i64, i64),
}

#[derive(Debug, Clone)]
pub(crate) struct Columns<'y> {
    pub(super) yard: &'y Yard,
    pub(super) bins: Rc<Vec<Bin>>,
    pub(super) parts: Rc<Vec<Part>>,
    number_of: Rc<HashMap<Part, usize>>,
    /// By part.
    pub(super) half_of: Rc<Vec<Half>>,
    pub(super) pairs: Rc<Vec<Pair>>,
    pub(super) program: Program,
    pub(super) columns: Vec<Variable>,
    seen: HashSet<(usize, Rc<Filling>)>,
    pub(super) terms: Terms,
    pub bound: u64,
    /// Steps that filling took, and solving in terms of these.
    pub steps: u64,
}

impl<'y> Columns<'y> {
    pub fn new(yard: &'y Yard, class_of: &[usize], prices: &[[f64; DIMS]], bound: u64) -> Self {
        let bins = bins::bins(yard, class_of, prices);
        let mut bounds: Vec<f64> = bins.iter().map(|bin| bin.spots.len() as f64).collect();
        bounds.extend(yard.kinds.iter().map(|kind| f64::from(kind.count)));
        let mut parts = Vec::new();
        let mut half_of = Vec::new();
        let mut pairs = Vec::new();
        let (small, large) = (
            bins.iter()
                .filter(|bin| bin.server.is_none())
                .map(|bin| bin.nodes)
                .max(),
            bins.iter().filter_map(|bin| bin.server),
        );
        let mut large: Vec<usize> = large.collect();
        large.dedup();
        for (number, kind) in yard.kinds.iter().enumerate() {
            let mut part = |cells, vfs, server, half| {
                parts.push(Part {
                    kind: number,
                    cells,
                    vfs,
                    server,
                });
                half_of.push(half);
            };
            let all = kind.vfs();
            if kind.cells == 1 {
                part([Some(0), None], [all, 0], None, None);
                if small == Some(2) {
                    part([None, Some(0)], [0, all], None, None);
                }
                continue;
            }
            if small == Some(2) {
                for here in 0..=all {
                    part([Some(0), Some(1)], [here, all - here], None, None);
                    if kind.ordered {
                        part([Some(1), Some(0)], [here, all - here], None, None);
                    }
                }
            }
            for &server in &large {
                let mut row = || {
                    bounds.push(0.0);
                    bounds.len() - 1
                };
                let mut rows = vec![(yard_row(&bins, number), 1)];
                let vfs = (all > 0).then(&mut row);
                rows.extend(vfs.map(|row| (row, i64::from(all))));
                let halves = if kind.ordered { 2 } else { 1 };
                for cell in 0..halves {
                    let own = row();
                    rows.push((own, 2 / halves as i64));
                    for share in 0..=all {
                        let cells = [Some(cell), None];
                        part(cells, [share, 0], Some(server), Some((own, vfs)));
                    }
                }
                pairs.push(Pair { kind: number, rows });
            }
        }
        let mut program = Program::new(bounds);
        let mut columns = Vec::new();
        for pair in &pairs {
            let kind = &yard.kinds[pair.kind];
            let column = pair.rows.iter().map(|&(row, n)| (row, n as f64)).collect();
            program.add(column, f64::from(kind.value), f64::from(kind.count));
            columns.push(Variable::Pair(columns.len()));
        }
        let kinds = yard.kinds.iter();
        Self {
            number_of: Rc::new(
                parts
                    .iter()
                    .enumerate()
                    .map(|(at, &part)| (part, at))
                    .collect(),
            ),
            yard,
            bins: Rc::new(bins),
            parts: Rc::new(parts),
            half_of: Rc::new(half_of),
            pairs: Rc::new(pairs),
            program,
            columns,
            seen: HashSet::new(),
            terms: Terms {
                counts: kinds.clone().map(|kind| (0, kind.count)).collect(),
                worth: kinds.map(|kind| i64::from(kind.value)).collect(),
                barred: HashSet::new(),
                over: 0,
            },
            bound,
            steps: 0,
        }
    }

    /// Takes the fillings of a placement as columns.
    pub fn learn(&mut self, state: &State<'_>) {
        for bin in 0..self.bins.len() {
            for first in self.bins[bin].spots.clone() {
                let mut counts: HashMap<usize, u32> = HashMap::new();
                for node in 0..self.bins[bin].nodes {
                    for &(guest, cell) in &state.here[first + node] {
                        let (guest, cell) = (guest as usize, usize::from(cell));
                        if let Some(part) = self.part_of(state, guest, cell, bin, first) {
                            *counts.entry(part).or_default() += 1;
                        }
                    }
                }
                self.add(bin, counts.into_iter().collect());
            }
        }
    }

    /// What a cell of a placed guest counts as in a bin; none when its other cell counts already.
    fn part_of(
        &self,
        state: &State<'_>,
        guest: usize,
        cell: usize,
        bin: usize,
        first: usize,
    ) -> Option<usize> {
        let (kind, place) = (self.yard.kind_of[guest]?, state.places[guest]?);
        let facts = &self.yard.kinds[kind];
        let bin = &self.bins[bin];
        let mut part = Part {
            kind,
            cells: [None; 2],
            vfs: [0; 2],
            server: None,
        };
        if facts.cells == 2 && bin.server.is_some() {
            part.cells[0] = Some(if facts.ordered { cell } else { 0 });
            part.vfs[0] = place.vfs[cell];
            part.server = bin.server;
        } else {
            if cell > 0 {
                return None;
            }
            for cell in 0..facts.cells {
                let node = place.spots[cell] - first;
                part.cells[node] = Some(cell);
                part.vfs[node] = place.vfs[cell];
            }
            if facts.cells == 2 && !facts.ordered {
                part.cells = [Some(0), Some(1)];
            }
        }
        self.number_of.get(&part).copied()
    }

    fn add(&mut self, bin: usize, mut filling: Filling) -> bool {
        filling.sort_unstable();
        let filling = Rc::new(filling);
        if filling.is_empty() || !self.seen.insert((bin, Rc::clone(&filling))) {
            return false;
        }
        let mut column: Column = vec![(bin, 1.0)];
        for &(part, count) in filling.iter() {
            let of = self.parts[part];
            let count = f64::from(count);
            match self.half_of[part] {
                None => column.push((yard_row(&self.bins, of.kind), count)),
                Some((own, vfs)) => {
                    column.push((own, -count));
                    let share = f64::from(of.vfs[0]);
                    column.extend(vfs.filter(|_| share > 0.0).map(|row| (row, -count * share)));
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
        let most = self.bins[bin].spots.len() as f64;
        let variable = Variable::Filling(bin, filling);
        self.program.add(column, self.value(&variable), most);
        self.columns.push(variable);
        true
    }

    /// What a variable of 1 is worth.
    pub(super) fn value(&self, variable: &Variable) -> f64 {
        /// What a kind costs in a bin that it is barred from: more than anything gains there.
        const BARRED: i64 = 1 << 20;
        let value = match variable {
            Variable::Pair(pair) => self.terms.worth[self.pairs[*pair].kind],
            Variable::Idle(_, _, worth) => *worth,
            Variable::Filling(bin, filling) => {
                let each = filling.iter().map(|&(part, count)| {
                    let kind = self.parts[part].kind;
                    let worth = match self.half_of[part] {
                        None => self.terms.worth[kind],
                        Some(_) => 0,
                    };
                    let barred = self.terms.barred.contains(&(kind, *bin));
                    (worth - if barred { BARRED } else { 0 }) * i64::from(count)
                });
                each.sum()
            }
        };
        value as f64
    }

    /// Values all variables anew.
    pub(super) fn revalue(&mut self) {
        for at in 0..self.columns.len() {
            let value = self.value(&self.columns[at]);
            self.program.set_value(at, value);
        }
        self.program.reprice();
    }

    /// Makes columns until none is missing, or the bound is no more than `enough`, or they were
    /// asked for so many times. With `until` it also ends when it is certain that the bound stays
    /// above `enough`.
    pub fn improve(&mut self, enough: u64, times: usize, until: bool) {
        const STEPS: usize = 20_000;
        let mut limit = QUICK;
        for _ in 0..times {
            let before = self.program.work();
            self.program.solve(STEPS);
            self.steps += (self.program.work() - before) / ENTRIES;
            let sure = self.program.objective() - self.terms.over as f64;
            if until && sure >= (enough + 1) as f64 + NEAR {
                return;
            }
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
    fn price(&mut self, prices: &[i64], limit: u32) -> (u64, Vec<(usize, Filling)>) {
        let mut total = -i128::from(self.terms.over) * i128::from(ONE);
        for (number, kind) in self.yard.kinds.iter().enumerate() {
            let paid = prices[yard_row(&self.bins, number)];
            total += i128::from(paid) * i128::from(kind.count);
        }
        for variable in &self.columns {
            let (paid, number, value) = match variable {
                Variable::Pair(pair) => {
                    let Pair { kind, rows } = &self.pairs[*pair];
                    let rows = rows.iter();
                    let paid = rows.map(|&(row, n)| i128::from(prices[row]) * i128::from(n));
                    let count = i64::from(self.yard.kinds[*kind].count);
                    (paid.sum(), count, self.terms.worth[*kind])
                }
                &Variable::Idle(row, number, worth) => (i128::from(prices[row]), number, worth),
                Variable::Filling(..) => continue,
            };
            let value = i128::from(value) * i128::from(ONE);
            total += (value - paid).max(0) * i128::from(number);
        }
        let mut found = Vec::new();
        let slack = self.slack();
        let bins = Rc::clone(&self.bins);
        for (number, bin) in bins.iter().enumerate() {
            let pieces = self.pieces(bin, prices);
            let pieces = pieces.into_iter();
            let barred = |piece: &Piece| self.terms.barred.contains(&(piece.kind, number));
            let pieces: Vec<Piece> = pieces.filter(|piece| !barred(piece)).collect();
            let weights = if limit > QUICK {
                knapsack::weigh(&bin.room, &pieces)
            } else {
                bin.prices.clone()
            };
            let kinds = self.yard.kinds.len();
            let filled = knapsack::fill(
                &bin.room,
                &weights,
                pieces,
                kinds,
                prices[number] + LEAST.max(slack),
                limit,
            );
            self.steps += u64::from(filled.steps);
            total += i128::from(filled.bound) * bin.spots.len() as i128;
            let last = filled.fillings.len().saturating_sub(2);
            found.extend(filled.fillings[last..].iter().map(|f| (number, f.clone())));
        }
        (
            u64::try_from(total.max(0) / i128::from(ONE)).unwrap_or(u64::MAX),
            found,
        )
    }

    /// What a bin's filling may gain beyond its price without the bound getting to the next whole
    /// number: so near the best need not be looked for.
    fn slack(&self) -> i64 {
        let reached = self.program.objective() - self.terms.over as f64 + NEAR;
        let members: usize = self.bins.iter().map(|bin| bin.spots.len()).sum();
        let left = reached.floor() + 1.0 - reached - NEAR;
        (left * 0.9 / members.max(1) as f64 * ONE as f64) as i64
    }

    fn pieces(&self, bin: &Bin, prices: &[i64]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (id, part) in self.parts.iter().enumerate() {
            let kind = &self.yard.kinds[part.kind];
            let belongs = match self.half_of[id] {
                Some(_) => part.server == bin.server,
                None => kind.cells == 1 || bin.server.is_none(),
            };
            if !belongs || (bin.nodes < 2 && part.cells[1].is_some()) {
                continue;
            }
            let Some(load) = load(&kind.loads[usize::from(bin.smt)], part) else {
                continue;
            };
            let gain = match self.half_of[id] {
                None => self.terms.worth[part.kind] * ONE - prices[yard_row(&self.bins, part.kind)],
                Some((own, vfs)) => {
                    prices[own] + vfs.map_or(0, |row| prices[row] * i64::from(part.vfs[0]))
                }
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

    /// A placement after the program's: each bin gets one of its fillings, the likelier the more of
    /// it the program takes. Guests of two cells on larger servers stay where they are in `like`.
    pub fn sample(&self, like: &State<'y>, dice: &mut Dice) -> State<'y> {
        let mut state = State::empty(self.yard);
        let mut of_kind: Vec<Vec<usize>> = vec![Vec::new(); self.yard.kinds.len()];
        let node_bins = self.bins.iter().filter(|bin| bin.server.is_some());
        let large: Vec<usize> = node_bins
            .flat_map(|bin| bin.spots.iter().copied())
            .collect();
        for (guest, kind) in self.yard.kind_of.iter().enumerate() {
            let Some(kind) = *kind else { continue };
            match like.places[guest] {
                Some(place)
                    if self.yard.kinds[kind].cells == 2 && large.contains(&place.spots[0]) =>
                {
                    state.place(guest, place);
                }
                _ => of_kind[kind].push(guest),
            }
        }
        let mut choices: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.bins.len()];
        for (at, level) in self.program.levels().into_iter().enumerate() {
            if let Variable::Filling(bin, _) = &self.columns[at]
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
            let Variable::Filling(_, filling) = &self.columns[*at] else {
                continue;
            };
            for &(part, count) in filling.iter() {
                let part = self.parts[part];
                if self.half_of[self.number_of[&part]].is_some() {
                    continue;
                }
                for _ in 0..count {
                    let Some(&guest) = of_kind[part.kind].last() else {
                        break;
                    };
                    if state.place(guest, place(&part, spot)) {
                        of_kind[part.kind].pop();
                    }
                }
            }
        }
        state
    }
}

/// The row of a kind's number.
pub(crate) fn yard_row(bins: &[Bin], kind: usize) -> usize {
    bins.len() + kind
}
