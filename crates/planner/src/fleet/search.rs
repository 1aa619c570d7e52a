//! The way to the best packing, from the cheapest means to the dearest.
//!
//! Takes the yard; gives a state and what no state exceeds. First everything is tried greedily, then
//! with ejections, towards a goal that sums allow; where these do not meet, whole fillings sharpen
//! the goal and give new starts. Each means is left as soon as the goal is reached.

use super::bound::{self, Bound};
use super::branch;
use super::columns::Columns;
use super::cover::{Cover, cover};
use super::ejection::{Dice, Search};
use super::greedy;
use super::load;
use super::yard::{Regret, State, Yard};

/// How much is tried, in multiples of guests times nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Rounds of ejections before the bound is looked at more closely.
    pub rounds: u64,
    /// Times that new fillings are asked for.
    pub columns: usize,
    /// New starts from fillings; for small fleets, whose starts cost little, up to three times as many.
    pub starts: u64,
    /// Parts that all placements are divided into, where a bound is not met.
    pub parts: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 2000,
            columns: 400,
            starts: 96,
            parts: 400,
        }
    }
}

/// What a search found, and how.
#[derive(Debug)]
pub(crate) struct Found<'y> {
    pub state: State<'y>,
    pub bound: u64,
    pub means: Means,
}

/// The means that a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// One guest after the other.
    Greedy,
    /// Ejections.
    Ejections,
    /// Whole fillings of servers.
    Fillings,
}

/// As much as can be placed.
pub(crate) fn best<'y>(yard: &'y Yard, effort: Effort) -> Found<'y> {
    let all = bound::asked(yard);
    let guests = by_size(yard);
    let size = (guests.len() * yard.spots.len()) as u64;
    if bound::everything_may_fit(yard) {
        let nothing = Regret::default();
        let mut state = State::empty(yard);
        greedy::fill(&mut state, &guests, &nothing);
        let mut means = Means::Greedy;
        if state.value < all {
            let wanted = vec![true; yard.kind_of.len()];
            let mut search = Search::new(state, wanted, &[], &nothing, 1);
            search.run(all, size.clamp(20, (effort.rounds / 6).max(20)));
            state = search.best;
            means = Means::Ejections;
        }
        if state.value == all {
            return Found {
                state,
                bound: all,
                means,
            };
        }
    }
    let bound = bound::by_class(yard);
    let goal = bound.value;
    let aim = Aim::new(yard, &bound, &guests, goal);
    let mut state = State::empty(yard);
    greedy::fill(&mut state, &aim.order, &bound.regret);
    greedy::fill(&mut state, &aim.cheapest, &bound.regret);
    let means = if state.value == goal {
        Means::Greedy
    } else {
        Means::Ejections
    };
    let mut search = Search::new(state, aim.wanted.clone(), &aim.cost, &bound.regret, 1);
    search.run(goal, (size * 2).clamp(20, (effort.rounds * 2).max(20)));
    let state = search.best;
    if state.value >= goal || effort.columns == 0 || effort.rounds == 0 {
        return Found {
            state,
            bound: goal,
            means,
        };
    }
    by_fillings(yard, &bound, &aim, state, size, effort)
}

fn by_fillings<'y>(
    yard: &'y Yard,
    bound: &Bound,
    aim: &Aim,
    mut state: State<'y>,
    size: u64,
    effort: Effort,
) -> Found<'y> {
    let mut columns = Columns::new(yard, &bound.class_of, &bound.prices, bound.value);
    columns.learn(&state);
    columns.improve(state.value, effort.columns, false);
    let mut dice = Dice::new(5);
    let rounds = size.clamp(50, effort.rounds.max(50));
    let starts = (effort.starts * effort.rounds / rounds).min(effort.starts * 3);
    let attempt = |from: &Columns<'y>, state: &mut State<'y>, seed, rounds, dice: &mut Dice| {
        let mut start = from.sample(state, dice);
        greedy::fill(&mut start, &aim.cheapest, &bound.regret);
        let mut search = Search::new(start, aim.wanted.clone(), &aim.cost, &bound.regret, seed);
        search.run(from.bound, rounds);
        let better = search.best.value > state.value;
        if better {
            *state = search.best;
        }
        better
    };
    // A few starts first, since they cost least; most of them only when all else is spent.
    let few = starts.div_ceil(FEW);
    let mut limit = columns.bound;
    let mut since = 0;
    for seed in 0..starts {
        if seed == FIRST.min(few) {
            decide(&mut columns, &mut state, &mut limit, FEW_FILLINGS);
        }
        if seed == few && state.value < limit {
            limit = branch::divide(&columns, state.value, size, effort, |part| {
                attempt(part, &mut state, seed, rounds.min(SHORT), &mut dice);
                state.value
            });
            decide(&mut columns, &mut state, &mut limit, MANY_FILLINGS);
        }
        // A bound that is a little too high must not cost all the effort there is.
        if state.value >= limit || since > starts * 2 / 3 {
            break;
        }
        since += 1;
        if attempt(&columns, &mut state, seed, rounds, &mut dice) {
            since = 0;
        }
    }
    Found {
        bound: limit.max(state.value),
        state,
        means: Means::Fillings,
    }
}

/// Whether the bound can be reached, as far as so many fillings tell.
fn decide<'y>(columns: &mut Columns<'y>, state: &mut State<'y>, limit: &mut u64, fillings: usize) {
    while state.value < *limit {
        match cover(columns, *limit, fillings) {
            Cover::Reached(found) => *state = found,
            Cover::Impossible => *limit -= 1,
            Cover::Unknown => break,
        }
    }
}

/// Starts before the bound is held against all choices of fillings.
const FIRST: u64 = 8;
/// Fillings that are looked at before parts, and after.
const FEW_FILLINGS: usize = 5_000;
const MANY_FILLINGS: usize = 150_000;
/// Of the starts so many a part come before all placements are looked at in parts.
const FEW: u64 = 4;
/// Rounds of ejections for a part.
const SHORT: u64 = 60;

/// Guests by how hard they are to place.
fn by_size(yard: &Yard) -> Vec<usize> {
    let mut guests: Vec<usize> = (0..yard.kind_of.len())
        .filter(|&guest| yard.kind_of[guest].is_some())
        .collect();
    guests.sort_by_cached_key(|&guest| {
        let size = yard.kind_of[guest].map(|kind| {
            let kind = &yard.kinds[kind];
            let load = kind.loads[1][0].or(kind.loads[0][0]).unwrap_or_default();
            (
                kind.cells,
                kind.vfs().min(1),
                load[load::MAIN],
                load[load::MEMORY],
            )
        });
        std::cmp::Reverse(size)
    });
    guests
}

/// Which guests are worth to be placed, when not all can be.
struct Aim {
    /// By guest.
    wanted: Vec<bool>,
    /// By guest: its cost by the prices.
    cost: Vec<f64>,
    /// Those that are wanted, the hardest first.
    order: Vec<usize>,
    /// All, by what they are worth for what they take.
    cheapest: Vec<usize>,
}

impl Aim {
    fn new(yard: &Yard, bound: &Bound, guests: &[usize], goal: u64) -> Self {
        let of = |kind: Option<usize>| kind.map_or(f64::INFINITY, |kind| bound.cost[kind]);
        let cost: Vec<f64> = yard.kind_of.iter().map(|&kind| of(kind)).collect();
        // Those that the best fractional placement has, then the others by cost.
        let mut left = bound.level.clone();
        let mut share = vec![0.0; yard.kind_of.len()];
        for &guest in guests {
            if let Some(kind) = yard.kind_of[guest] {
                share[guest] = (left[kind].clamp(0.0, 1.0) * 64.0_f64).round();
                left[kind] -= 1.0;
            }
        }
        let mut cheapest = guests.to_vec();
        cheapest.sort_by(|&a, &b| {
            let by_share = share[b].total_cmp(&share[a]);
            by_share.then(cost[a].total_cmp(&cost[b]))
        });
        let mut wanted = vec![false; yard.kind_of.len()];
        let mut sum = 0;
        for &guest in &cheapest {
            if sum >= goal {
                break;
            }
            wanted[guest] = true;
            sum += yard.kind_of[guest].map_or(0, |kind| u64::from(yard.kinds[kind].value));
        }
        Self {
            order: guests.iter().copied().filter(|&g| wanted[g]).collect(),
            wanted,
            cost,
            cheapest,
        }
    }
}

/// Guests times nodes up to which every means is used for a guest that arrives.
const SMALL: usize = 500;

/// Places guests in strict order of arrival: nobody who was accepted is sent away again. With
/// `repack` those that lie may move for a new one.
pub(crate) fn arrive(yard: &Yard, repack: bool, effort: Effort) -> State<'_> {
    let nothing = Regret::default();
    let mut state = State::empty(yard);
    let mut accepted = vec![false; yard.kind_of.len()];
    let mut so_far = Yard {
        kinds: yard.kinds.clone(),
        ..yard.clone()
    };
    for kind in &mut so_far.kinds {
        kind.count = 0;
    }
    // What was refused is refused again: there is only ever less room.
    let mut refused = vec![false; yard.kinds.len()];
    for guest in 0..yard.kind_of.len() {
        let Some(kind) = yard.kind_of[guest].filter(|&kind| !refused[kind]) else {
            continue;
        };
        so_far.kinds[kind].count += 1;
        let place = greedy::best_place(yard, kind, &state.free, &nothing);
        let mut fits = place.is_some_and(|place| state.place(guest, place));
        if !fits && repack {
            accepted[guest] = true;
            let goal = state.value + u64::from(yard.kinds[kind].value);
            if bound::by_class(&so_far).value >= goal {
                let mut search =
                    Search::only(state.clone(), accepted.clone(), &nothing, guest as u64);
                if search.run(goal, effort.rounds * 2) {
                    state = search.best;
                    fits = true;
                } else if yard.kind_of.len() * yard.spots.len() <= SMALL
                    && let Some(found) = all_of(yard, &so_far, &accepted, goal, effort)
                {
                    state = found;
                    fits = true;
                }
            }
        }
        accepted[guest] = fits;
        if !fits {
            refused[kind] = true;
            so_far.kinds[kind].count -= 1;
        }
    }
    state
}

/// A placement of all these guests, looked for with every means.
fn all_of<'y>(
    yard: &'y Yard,
    so_far: &Yard,
    accepted: &[bool],
    goal: u64,
    effort: Effort,
) -> Option<State<'y>> {
    let kind_of = yard.kind_of.iter().zip(accepted);
    let only = Yard {
        kind_of: kind_of.map(|(kind, yes)| kind.filter(|_| *yes)).collect(),
        ..so_far.clone()
    };
    let effort = Effort {
        starts: effort.starts / 16,
        ..effort
    };
    let found = best(&only, effort).state;
    if found.value < goal {
        return None;
    }
    let mut state = State::empty(yard);
    for (guest, place) in found.places.iter().enumerate() {
        if let Some(place) = *place {
            state.place(guest, place);
        }
    }
    (state.value == goal).then_some(state)
}
