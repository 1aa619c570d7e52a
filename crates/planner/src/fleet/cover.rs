//! Whether all that the bound promises can be placed, where only few fillings may be part of that.
//!
//! Takes fillings with prices by which the bound is hardly more than a goal. Whatever a filling gains
//! less than the best of its bin, and a guest that is left out would have paid, is lost of the
//! difference: so only fillings that lose little can be part of a placement that reaches the goal,
//! and every guest that pays more has to be in one of them. When these are few, all choices are
//! looked at, those with the fewest ways first; gives a placement that reaches the goal, or the
//! certainty that there is none.

use std::collections::HashMap;
use std::rc::Rc;

use super::bins::{Part, place};
use super::columns::{Columns, ONE, yard_row};
use super::ejection::Dice;
use super::follow;
use super::knapsack::{self, Filling};
use super::pricing::Settled;
use super::yard::{Place, State};

/// What was found out.
pub(crate) enum Cover<'y> {
    Reached(State<'y>),
    /// Nothing reaches the goal.
    Impossible,
    /// There is too much to look at.
    Unknown,
}

/// Steps to find the fillings of a bin, for each that there may be.
const STEPS: u64 = 8;
/// Looks at a filling in all, for each that there may be.
const LOOKS: u64 = 400;
/// What is lost at most: with more there are always too many fillings.
const LOSS: f64 = 0.25;
/// Times that new fillings are asked for.
const TIMES: usize = 400;
/// Runs in an order by dice, left after so many dead ends, before one that is not left.
const RUNS: u32 = 24;
const ENDS: u64 = 40;

/// Losses that differ by less come from rounding.
const NOTHING: i64 = ONE / 4096;

struct Choice {
    bin: usize,
    lost: i64,
    filling: Rc<Filling>,
    /// Kinds, and how many cells of each.
    cells: Vec<(usize, u32)>,
}

struct Search<'c, 'y> {
    columns: &'c Columns<'y>,
    goal: u64,
    choices: Vec<Choice>,
    /// By kind: cells that have no place yet.
    cells: Vec<u32>,
    /// By kind: what is lost when it is left out.
    price: Vec<i64>,
    /// By bin: members that have no filling yet.
    members: Vec<usize>,
    chosen: Vec<usize>,
    /// Members and cells that were left where nothing reached the goal, and what could still be lost.
    failed: HashMap<Box<[u32]>, i64>,
    /// Whether every part is a whole guest, so that these numbers say all that matters.
    whole: bool,
    looks: u64,
    /// Dead ends before this run is left.
    ends: u64,
    /// By choice: its place in the order of this run.
    order: Vec<usize>,
}

/// Looks for a placement that is worth `goal`, where no more than so many fillings have to be
/// looked at.
pub(crate) fn cover<'y>(columns: &mut Columns<'y>, goal: u64, fillings: usize) -> Cover<'y> {
    if columns.promised() > goal as f64 + LOSS {
        return Cover::Unknown;
    }
    let settled = columns.settle(TIMES);
    let budget = settled.bound - i128::from(goal) * i128::from(ONE);
    if budget < 0 {
        return Cover::Impossible;
    }
    let within = |budget: &i64| *budget as f64 <= LOSS * ONE as f64;
    let Some(budget) = i64::try_from(budget).ok().filter(within) else {
        return Cover::Unknown;
    };
    let Some(choices) = choices(columns, &settled, budget, fillings) else {
        return Cover::Unknown;
    };
    let kinds = columns.yard.kinds.iter();
    let mut search = Search {
        columns,
        goal,
        cells: kinds.map(|kind| kind.count * kind.cells as u32).collect(),
        price: settled.prices[yard_row(&columns.bins, 0)..].to_vec(),
        members: columns.bins.iter().map(|bin| bin.spots.len()).collect(),
        chosen: Vec::new(),
        failed: HashMap::new(),
        whole: columns.half_of.iter().all(Option::is_none),
        looks: LOOKS * fillings as u64,
        ends: 0,
        order: Vec::new(),
        choices,
    };
    let mut dice = Dice::new(3);
    for run in 0..=RUNS {
        search.ends = if run < RUNS { ENDS } else { u64::MAX };
        search.order = (0..search.choices.len())
            .map(|_| dice.below(1 << 20))
            .collect();
        let open = (0..search.choices.len()).collect();
        let found = search.descend(open, budget);
        if !matches!(found, Cover::Unknown) {
            return found;
        }
    }
    Cover::Unknown
}

/// The fillings that lose no more than `budget`.
fn choices(
    columns: &Columns<'_>,
    settled: &Settled,
    budget: i64,
    fillings: usize,
) -> Option<Vec<Choice>> {
    let mut choices = Vec::new();
    for (number, bin) in columns.bins.iter().enumerate() {
        let pieces = columns.pieces(number, &settled.prices);
        let weights = knapsack::weigh(&bin.room, &pieces);
        let most = fillings.saturating_sub(choices.len());
        let least = settled.bests[number] - budget;
        let found = follow::all(
            &bin.room,
            &weights[..bin.nodes],
            pieces,
            least,
            most,
            STEPS * fillings as u64,
        )?;
        choices.extend(found.into_iter().map(|(filling, gain)| {
            let mut cells: Vec<(usize, u32)> = Vec::new();
            for &(part, count) in &filling {
                let part = columns.parts[part];
                let count = part.cells.iter().flatten().count() as u32 * count;
                match cells.iter_mut().find(|(kind, _)| *kind == part.kind) {
                    Some((_, cells)) => *cells += count,
                    None => cells.push((part.kind, count)),
                }
            }
            Choice {
                bin: number,
                lost: settled.bests[number] - gain,
                filling: Rc::new(filling),
                cells,
            }
        }));
    }
    Some(choices)
}

/// What is decided next.
#[derive(Clone, Copy)]
enum Next {
    Bin(usize),
    Kind(usize),
}

impl<'y> Search<'_, 'y> {
    /// Goes on with what is open, all of which fits; `left` may still be lost.
    fn descend(&mut self, open: Vec<usize>, left: i64) -> Cover<'y> {
        if self.looks == 0 || self.ends == 0 {
            return Cover::Unknown;
        }
        let members = self.members.iter().map(|&members| members as u32);
        let state: Box<[u32]> = members.chain(self.cells.iter().copied()).collect();
        if self.failed.get(&state).is_some_and(|&lost| left <= lost) {
            return Cover::Impossible;
        }
        let Some(next) = self.next(&open, left) else {
            return match self.placement() {
                Some(state) if state.value >= self.goal => Cover::Reached(state),
                _ => Cover::Impossible,
            };
        };
        let concerns = |choice: &Choice| match next {
            Next::Bin(bin) => choice.bin == bin,
            Next::Kind(kind) => choice.cells.iter().any(|(of, _)| *of == kind),
        };
        let (mut ways, rest): (Vec<usize>, Vec<usize>) = open
            .into_iter()
            .partition(|&at| concerns(&self.choices[at]));
        ways.sort_by_key(|&at| (self.choices[at].lost / NOTHING, self.order[at]));
        if ways.is_empty() {
            self.ends -= 1;
        }
        for (number, &at) in ways.iter().enumerate() {
            self.choose(at, true);
            let left = left - self.choices[at].lost;
            // Whatever has one of the ways before was looked at.
            let others = rest.iter().chain(&ways[number..]).copied();
            self.looks = self
                .looks
                .saturating_sub((rest.len() + ways.len() - number) as u64);
            let open = others.filter(|&at| self.fits(at, left)).collect();
            let found = self.descend(open, left);
            self.choose(at, false);
            if !matches!(found, Cover::Impossible) {
                return found;
            }
        }
        if self.whole {
            self.failed.insert(state, left);
        }
        Cover::Impossible
    }

    fn fits(&self, at: usize, left: i64) -> bool {
        let choice = &self.choices[at];
        let mut cells = choice.cells.iter();
        choice.lost <= left
            && self.members[choice.bin] > 0
            && cells.all(|&(kind, cells)| cells <= self.cells[kind])
    }

    fn choose(&mut self, at: usize, yes: bool) {
        let choice = &self.choices[at];
        if yes {
            self.members[choice.bin] -= 1;
            self.chosen.push(at);
        } else {
            self.members[choice.bin] += 1;
            self.chosen.pop();
        }
        for &(kind, cells) in &choice.cells {
            if yes {
                self.cells[kind] -= cells;
            } else {
                self.cells[kind] += cells;
            }
        }
    }

    /// The bin, or the guest that cannot be left out, with the fewest ways; none when all is decided.
    fn next(&self, open: &[usize], left: i64) -> Option<Next> {
        let mut of_bin = vec![0u32; self.members.len()];
        let mut of_kind = vec![0u32; self.cells.len()];
        for &at in open {
            let choice = &self.choices[at];
            of_bin[choice.bin] += 1;
            for &(kind, _) in &choice.cells {
                of_kind[kind] += 1;
            }
        }
        let bins = (0..of_bin.len()).filter(|&bin| self.members[bin] > 0);
        let bins = bins.map(|bin| (of_bin[bin], Next::Bin(bin)));
        let kinds =
            (0..of_kind.len()).filter(|&kind| self.cells[kind] > 0 && self.price[kind] > left);
        let kinds = kinds.map(|kind| (of_kind[kind], Next::Kind(kind)));
        let least = bins.chain(kinds).min_by_key(|(ways, _)| *ways);
        least.map(|(_, next)| next)
    }

    /// What is chosen, as a placement; none when the halves of guests do not make whole ones.
    fn placement(&self) -> Option<State<'y>> {
        let columns = self.columns;
        let mut state = State::empty(columns.yard);
        let mut of_kind = columns.yard.guests();
        let mut spots: Vec<Vec<usize>> = columns.bins.iter().map(|bin| bin.spots.clone()).collect();
        let mut halves = Vec::new();
        for &at in &self.chosen {
            let choice = &self.choices[at];
            let spot = spots[choice.bin].pop()?;
            for &(id, count) in choice.filling.iter() {
                let part = columns.parts[id];
                for _ in 0..count {
                    if columns.half_of[id].is_some() {
                        halves.push((part, spot));
                    } else {
                        let guest = of_kind[part.kind].pop()?;
                        state.place(guest, place(&part, spot)).then_some(())?;
                    }
                }
            }
        }
        join(&mut state, &mut of_kind, &mut halves).then_some(state)
    }
}

/// Makes whole guests of halves, each on two nodes of a server.
fn join(
    state: &mut State<'_>,
    of_kind: &mut [Vec<usize>],
    halves: &mut Vec<(Part, usize)>,
) -> bool {
    let Some((one, spot)) = halves.pop() else {
        return true;
    };
    let kind = &state.yard.kinds[one.kind];
    for at in 0..halves.len() {
        let (other, there) = halves[at];
        let whole = other.kind == one.kind
            && other.server == one.server
            && there != spot
            && (!kind.ordered || one.cells[0] != other.cells[0])
            && one.vfs[0] + other.vfs[0] == kind.vfs();
        if !whole {
            continue;
        }
        let Some(guest) = of_kind[one.kind].pop() else {
            break;
        };
        let first = one.cells[0] == Some(0);
        let (a, b) = if first {
            ((spot, one), (there, other))
        } else {
            ((there, other), (spot, one))
        };
        let place = Place {
            spots: [a.0, b.0],
            vfs: [a.1.vfs[0], b.1.vfs[0]],
        };
        let other = halves.swap_remove(at);
        if state.place(guest, place) {
            if join(state, of_kind, halves) {
                return true;
            }
            state.remove(guest);
        }
        halves.push(other);
        let last = halves.len() - 1;
        halves.swap(at, last);
        of_kind[one.kind].push(guest);
    }
    halves.push((one, spot));
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::bound;
    use crate::fleet::load::Sharing;
    use crate::fleet::trial::{most, small};
    use crate::fleet::yard::{Objective, Yard};

    #[test]
    fn what_can_be_reached_is_and_what_is_impossible_is() {
        let mut dice = Dice::new(23);
        let (mut reached, mut impossible, mut unknown) = (0, 0, 0);
        for round in 0..2000 {
            let (servers, guests) = small(round, &mut dice);
            let objective = [Objective::Count, Objective::Vcpus][round % 2];
            let sharing = [Sharing::Threads, Sharing::WholeCores][round / 2 % 2];
            let yard = Yard::new(&servers, &guests, sharing, objective);
            let best = most(&mut State::empty(&yard), 0);
            let sums = bound::by_class(&yard);
            let mut root = Columns::new(&yard, &sums.class_of, &sums.prices, sums.value);
            root.improve(0, 400, false);
            for goal in best.saturating_sub(1)..=root.bound + 1 {
                match cover(&mut root, goal, 5_000) {
                    Cover::Reached(state) => {
                        assert!(state.value >= goal && goal <= best, "{round}: {goal}");
                        reached += 1;
                    }
                    Cover::Impossible => {
                        assert!(goal > best, "{round}: {goal} of {best}");
                        impossible += usize::from(goal <= root.bound);
                    }
                    Cover::Unknown => unknown += 1,
                }
            }
        }
        assert!(
            reached > 1000 && impossible > 25 && unknown > 0,
            "{reached} {impossible} {unknown}"
        );
    }
}
