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

use super::bins::{self, Bin, Part};
use super::knapsack::Filling;
use super::load::DIMS;
use super::pricing::{NEAR, Priced};
use super::simplex::{Column, Program};
use super::terms::Terms;
use super::yard::{State, Yard};

/// The whole numbers that stand for a gain of 1.
pub(crate) const ONE: i64 = 1 << 32;

/// So many entries of the program cost as much as one step of filling.
const ENTRIES: u64 = 256;

/// Steps for one bin, first while any better filling will do, then for the best.
pub(super) const QUICK: u32 = 80;
pub(super) const EXACT: u32 = 40_000;

/// Steps of the program at a time.
pub(super) const STEPS: usize = 20_000;

/// A guest of two cells on a server whose nodes are bins.
#[derive(Debug)]
pub(crate) struct Pair {
    pub kind: usize,
    /// Rows, and how often the pair counts there.
    pub rows: Vec<(usize, i64)>,
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

    /// Takes fillings of bins as columns; whether one of them is new.
    pub(super) fn add_all(&mut self, fillings: Vec<(usize, Filling)>) -> bool {
        let mut new = false;
        for (bin, filling) in fillings {
            new |= self.add(bin, filling);
        }
        new
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
        let mut limit = QUICK;
        for _ in 0..times {
            let before = self.program.work();
            self.program.solve(STEPS);
            self.steps += (self.program.work() - before) / ENTRIES;
            if until && self.promised() >= (enough + 1) as f64 + NEAR {
                return;
            }
            let Priced {
                total, fillings, ..
            } = self.price(&self.prices(), limit, self.slack());
            let bound = u64::try_from(total.max(0) / i128::from(ONE)).unwrap_or(u64::MAX);
            self.bound = self.bound.min(bound);
            if self.bound <= enough {
                return;
            }
            let new = self.add_all(fillings);
            if !new && limit == EXACT {
                return;
            }
            limit = if new { QUICK } else { EXACT };
        }
    }
}

/// The row of a kind's number.
pub(crate) fn yard_row(bins: &[Bin], kind: usize) -> usize {
    bins.len() + kind
}
