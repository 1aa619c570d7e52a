//! What fillings are missing in a program, by its prices.
//!
//! Takes prices of the program's rows; gives the fillings that gain by them, and a bound in whole
//! numbers that holds whatever the prices are.

use std::rc::Rc;

use super::bins::load_of;
use super::columns::{Columns, EXACT, ONE, Pair, QUICK, STEPS, Variable, yard_row};
use super::follow;
use super::knapsack::{self, Filling, Piece};

/// What a filling has to gain beyond its bin's price to be worth a column.
const LEAST: i64 = ONE / 1_000_000;

/// What the program's arithmetic may be wrong by.
pub(super) const NEAR: f64 = 1e-3;

/// Steps of a search after which a node is filled by a table.
const TABLE: u32 = 1500;

/// What prices tell.
pub(super) struct Priced {
    /// No placement is worth more, in parts of a gain of 1.
    pub total: i128,
    /// Bins and fillings that gain more than the bin's price.
    pub fillings: Vec<(usize, Filling)>,
    /// By bin: no filling gains more.
    pub bests: Vec<i64>,
}

/// Prices by which no filling is missing any more.
#[derive(Debug)]
pub(crate) struct Settled {
    /// By row, in parts of a gain of 1.
    pub prices: Vec<i64>,
    /// No placement is worth more, in parts of a gain of 1.
    pub bound: i128,
    /// By bin: no filling gains more.
    pub bests: Vec<i64>,
}

impl Columns<'_> {
    /// What no placement is worth more than by these prices, and the fillings that gain by them.
    /// What a filling has to gain more than its bin's price is at least `slack`.
    pub(super) fn price(&mut self, prices: &[i64], limit: u32, slack: i64) -> Priced {
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
        let mut bests = Vec::new();
        let bins = Rc::clone(&self.bins);
        for (number, bin) in bins.iter().enumerate() {
            let pieces = self.pieces(number, prices);
            let weights = if limit > QUICK {
                knapsack::weigh(&bin.room, &pieces)
            } else {
                bin.prices.clone()
            };
            let kinds = self.yard.kinds.len();
            let floor = prices[number] + LEAST.max(slack);
            // A table is dear: it is made where a search would be longer.
            let quick = limit.min(TABLE);
            let again = if quick < limit {
                pieces.clone()
            } else {
                Vec::new()
            };
            let mut filled = knapsack::fill(&bin.room, &weights, pieces, kinds, floor, quick);
            if filled.steps > quick && quick < limit {
                self.steps += u64::from(filled.steps);
                let table = (bin.nodes == 1).then(|| {
                    let weights = &weights[..bin.nodes];
                    follow::fill(&bin.room, weights, again.clone(), floor, limit)
                });
                filled = table.flatten().unwrap_or_else(|| {
                    knapsack::fill(&bin.room, &weights, again, kinds, floor, limit)
                });
            }
            self.steps += u64::from(filled.steps);
            bests.push(filled.bound);
            total += i128::from(filled.bound) * bin.spots.len() as i128;
            let last = filled.fillings.len().saturating_sub(2);
            found.extend(filled.fillings[last..].iter().map(|f| (number, f.clone())));
        }
        Priced {
            total,
            fillings: found,
            bests,
        }
    }

    /// Makes columns until none is missing, or they were asked for so many times.
    pub fn settle(&mut self, times: usize) -> Settled {
        let mut limit = QUICK;
        let mut left = times;
        loop {
            left = left.saturating_sub(1);
            self.program.solve(STEPS);
            let prices = self.prices();
            let priced = self.price(&prices, if left == 0 { EXACT } else { limit }, 0);
            let new = self.add_all(priced.fillings);
            if left == 0 || (!new && limit == EXACT) {
                return Settled {
                    prices,
                    bound: priced.total,
                    bests: priced.bests,
                };
            }
            limit = if new { QUICK } else { EXACT };
        }
    }

    /// The price of each row, in parts of a gain of 1.
    pub(super) fn prices(&self) -> Vec<i64> {
        let prices = self.program.prices().iter();
        let whole = prices.map(|&price| (price.clamp(0.0, 1e5) * ONE as f64).round() as i64);
        whole.collect()
    }

    /// What the program promises, with the terms taken into account.
    pub fn promised(&self) -> f64 {
        self.program.objective() - self.terms.over as f64
    }

    /// What a bin's filling may gain beyond its price without the bound getting to the next whole
    /// number: so near the best need not be looked for.
    pub(super) fn slack(&self) -> i64 {
        let reached = self.promised() + NEAR;
        let members: usize = self.bins.iter().map(|bin| bin.spots.len()).sum();
        let left = reached.floor() + 1.0 - reached - NEAR;
        (left * 0.9 / members.max(1) as f64 * ONE as f64) as i64
    }

    /// What may lie in a bin, with what it gains.
    pub(super) fn pieces(&self, number: usize, prices: &[i64]) -> Vec<Piece> {
        let bin = &self.bins[number];
        let mut pieces = Vec::new();
        for (id, part) in self.parts.iter().enumerate() {
            let kind = &self.yard.kinds[part.kind];
            let belongs = match self.half_of[id] {
                Some(_) => part.server == bin.server,
                None => kind.cells == 1 || bin.server.is_none(),
            };
            let barred = self.terms.barred.contains(&(part.kind, number));
            if !belongs || barred || (bin.nodes < 2 && part.cells[1].is_some()) {
                continue;
            }
            let Some(load) = load_of(&kind.loads[usize::from(bin.smt)], part) else {
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
}
