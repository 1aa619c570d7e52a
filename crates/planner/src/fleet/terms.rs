//! A part of all placements: what is taken for granted of them beyond the yard.
//!
//! Takes the least and the most that there are of a kind, or where one lies; keeps a program's
//! bound true for all placements that are so, and lets its solving go on from where it stood.

use std::collections::{HashMap, HashSet};

use super::columns::{Columns, Variable, yard_row};
use super::load;

/// What is taken for granted beyond the yard, so that all placements can be looked at in parts.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// By kind: the least and the most of it that there are.
    pub counts: Vec<(u32, u32)>,
    /// By kind: what a guest of it is worth.
    pub worth: Vec<i64>,
    /// Kinds that do not lie in a bin.
    pub barred: HashSet<(usize, usize)>,
    /// What all placements are worth too much.
    pub over: i64,
}

impl Columns<'_> {
    /// The least and the most of a kind that there are.
    pub fn counts(&self, kind: usize) -> (u32, u32) {
        self.terms.counts[kind]
    }

    /// Whether a kind is one guest, which lies in one bin.
    pub fn is_single(&self, kind: usize) -> bool {
        let facts = &self.yard.kinds[kind];
        facts.count == 1 && facts.cells == 1
    }

    /// How much it matters whether a guest of a kind is there.
    pub fn weight(&self, kind: usize) -> f64 {
        let load = &self.yard.kinds[kind].loads;
        let cells = load[1].iter().chain(&load[0]).flatten();
        cells.map(|load| load[load::MAIN]).max().unwrap_or(1).into()
    }

    /// A bonus that no guest of the kind could be worth, in favour of those that there have to be.
    fn bonus(&self, kind: usize) -> i64 {
        2 * i64::from(self.yard.kinds[kind].value)
    }

    /// Whether the terms of a kind's number can be narrowed once more.
    pub fn may_narrow(&self, kind: usize) -> bool {
        self.terms.worth[kind] < 3 * self.bonus(kind) && self.terms.counts[kind].1 > 0
    }

    /// Takes for granted that there are so many of a kind, at least and at most.
    ///
    /// No row is changed, so that solving goes on from where it stood: more room than is wanted is
    /// filled with what is worth more than a guest, and a guest that has to be is worth a bonus
    /// which what is left idle beyond has as well. Both are taken off again at the end.
    pub fn narrow(&mut self, kind: usize, least: u32, most: u32) {
        let row = yard_row(&self.bins, kind);
        let (before, limit) = self.terms.counts[kind];
        let bonus = self.bonus(kind);
        let worth = self.terms.worth[kind];
        let paid = worth - i64::from(self.yard.kinds[kind].value);
        let idle = |number: u32, worth: i64, columns: &mut Self| {
            if number > 0 {
                let column = vec![(row, 1.0)];
                columns.program.add(column, worth as f64, f64::from(number));
                let variable = Variable::Idle(row, i64::from(number), worth);
                columns.columns.push(variable);
            }
        };
        if most < limit {
            let full = 8 * bonus;
            idle(limit - most, full, self);
            self.terms.over += (full - paid) * i64::from(limit - most);
        }
        if least > before {
            self.terms.worth[kind] += bonus;
            idle(most - least, paid + bonus, self);
            self.terms.over += bonus * i64::from(most);
        }
        self.terms.counts[kind] = (before.max(least), most);
        self.revalue();
    }

    /// Takes for granted that a kind does not lie in a bin, or in none but this.
    pub fn bar(&mut self, kind: usize, bin: usize, only: bool) {
        for other in 0..self.bins.len() {
            if (other == bin) != only {
                self.terms.barred.insert((kind, other));
            }
        }
        self.revalue();
    }

    /// By kind: how many of it the program places.
    pub fn totals(&self) -> Vec<f64> {
        let mut totals = vec![0.0; self.yard.kinds.len()];
        for (variable, level) in self.columns.iter().zip(self.program.levels()) {
            match variable {
                Variable::Pair(pair) => totals[self.pairs[*pair].kind] += level,
                Variable::Idle(..) => {}
                Variable::Filling(_, filling) => {
                    for &(part, count) in filling.iter() {
                        if self.half_of[part].is_none() {
                            totals[self.parts[part].kind] += level * f64::from(count);
                        }
                    }
                }
            }
        }
        totals
    }

    /// By kind and bin: how many cells of it the program places there.
    pub fn shares(&self) -> HashMap<(usize, usize), f64> {
        let mut shares = HashMap::new();
        for (variable, level) in self.columns.iter().zip(self.program.levels()) {
            if let Variable::Filling(bin, filling) = variable
                && level > 0.0
            {
                for &(part, count) in filling.iter() {
                    let kind = self.parts[part].kind;
                    *shares.entry((kind, *bin)).or_default() += level * f64::from(count);
                }
            }
        }
        shares
    }
}
