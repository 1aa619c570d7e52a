//! Guests on several servers: as many as can be placed, and how many at most.
//!
//! Takes servers as NUMA nodes with numbers and guests as what they ask for; gives a place for each
//! guest that has one, and a bound that no placement exceeds. When both meet, the placement is
//! proven to be best. First-fit packings differ from the optimum by a tenth and more, so it is
//! searched for: a greedy start, ejections, and only where these do not meet the bound, columns.

mod bound;
mod columns;
mod ejection;
mod greedy;
mod knapsack;
mod load;
mod simplex;
mod yard;

pub use load::{Guest, NodeShape, Sharing, Threads};
pub use yard::Objective;

use ejection::Search;
use yard::{Regret, State, Yard};

/// Where a guest lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Index of the server.
    pub server: usize,
    /// For each cell, the index of the node in the server.
    pub nodes: Vec<usize>,
    /// For each cell, the virtual functions of its node.
    pub vfs: Vec<u32>,
}

/// Who lies where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packing {
    /// By guest.
    pub seats: Vec<Option<Seat>>,
    /// Guests that are placed, or their vCPUs.
    pub value: u64,
    /// What no placement exceeds.
    pub bound: u64,
    /// What the placement took.
    pub trace: String,
}

/// Places as many guests as it finds room for.
pub fn pack(
    servers: &[Vec<NodeShape>],
    guests: &[Guest],
    sharing: Sharing,
    objective: Objective,
) -> Packing {
    let yard = Yard::new(servers, guests, sharing, objective);
    let (state, bound, trace) = search(&yard);
    Packing {
        seats: seats(&state),
        value: state.value,
        bound,
        trace,
    }
}

fn seats(state: &State<'_>) -> Vec<Option<Seat>> {
    let yard = state.yard;
    let seat = |guest: usize| {
        let place = state.places[guest]?;
        let cells = state.kind(guest)?.cells;
        let server = yard.spots[place.spots[0]].server;
        let first = yard.servers[server].0;
        Some(Seat {
            server,
            nodes: place.spots[..cells].iter().map(|spot| spot - first).collect(),
            vfs: place.vfs[..cells].iter().map(|&n| n.unsigned_abs()).collect(),
        })
    };
    (0..state.places.len()).map(seat).collect()
}

fn search<'y>(yard: &'y Yard) -> (State<'y>, u64, String) {
    let all = bound::asked(yard);
    let mut guests: Vec<usize> = (0..yard.kind_of.len())
        .filter(|&guest| yard.kind_of[guest].is_some())
        .collect();
    let size = |guest: &usize| {
        let kind = yard.kind_of[*guest].map(|kind| &yard.kinds[kind]);
        let size = kind.map(|kind| {
            let load = kind.loads[1][0].or(kind.loads[0][0]).unwrap_or_default();
            (kind.cells, kind.vfs().min(1), load[load::MAIN], load[load::MEMORY])
        });
        std::cmp::Reverse(size)
    };
    guests.sort_by_key(size);
    if bound::everything_may_fit(yard) {
        let mut state = State::empty(yard);
        greedy::fill(&mut state, &guests, &Regret::default());
        if state.value == all {
            return (state, all, "greedy".into());
        }
        let none = Regret::default();
        let wanted = vec![true; yard.kind_of.len()];
        let mut search = Search::new(state, wanted, &[], &none, 1);
        if search.run(all, ((guests.len() * yard.spots.len()) as u64).clamp(20, 300)) {
            return (search.best, all, format!("ejection {}", search.rounds));
        }
    }
    let bound = bound::by_class(yard);
    let goal = bound.value;
    let mut trace = format!("bound {goal}");
    // Those that cost least by the prices are the ones to place.
    let cost: Vec<f64> = yard
        .kind_of
        .iter()
        .map(|kind| kind.map_or(f64::INFINITY, |kind| bound.cost[kind]))
        .collect();
    let mut left = bound.level.clone();
    let mut share = vec![0.0; yard.kind_of.len()];
    for &guest in &guests {
        if let Some(kind) = yard.kind_of[guest] {
            share[guest] = left[kind].clamp(0.0, 1.0);
            left[kind] -= 1.0;
        }
    }
    let mut cheap = guests.clone();
    cheap.sort_by(|&a, &b| {
        let by_share = (share[b] * 64.0).round().total_cmp(&(share[a] * 64.0).round());
        by_share.then(cost[a].total_cmp(&cost[b]))
    });
    let mut wanted = vec![false; yard.kind_of.len()];
    let mut sum = 0;
    for &guest in &cheap {
        if sum >= goal {
            break;
        }
        wanted[guest] = true;
        sum += yard.kind_of[guest].map_or(0, |kind| u64::from(yard.kinds[kind].value));
    }
    let order: Vec<usize> = guests.iter().copied().filter(|&g| wanted[g]).collect();
    let mut state = State::empty(yard);
    greedy::fill(&mut state, &order, &bound.regret);
    greedy::fill(&mut state, &cheap, &bound.regret);
    let wanted1 = wanted.clone();
    let mut search = Search::new(state, wanted, &cost, &bound.regret, 1);
    let size = (guests.len() * yard.spots.len()) as u64;
    search.run(goal, (size * 2).clamp(20, 2000));
    trace += &format!(" ejection {}", search.rounds);
    let mut best = search.best;
    let wanted0 = wanted1;
    if best.value == goal {
        return (best, goal, trace);
    }
    let mut columns = columns::Columns::new(yard, &bound.class_of, &bound.prices, goal);
    columns.learn(&best);
    columns.improve(best.value, 400);
    trace += &format!(" columns {} {} asked, bound {}", columns.asked, columns.asked, columns.bound);
    let mut dice = ejection::Dice::new(5);
    for i in 0..24 {
        if best.value >= columns.bound {
            break;
        }
        let mut state = columns.sample(&best, &mut dice);
        let s0 = state.value;
        greedy::fill(&mut state, &cheap, &bound.regret);
        let mut search = Search::new(state, wanted0.clone(), &cost, &bound.regret, i);
        search.run(columns.bound, size.clamp(50, 1500));
        trace += &format!(" {s0}-{}", search.best.value);
        if search.best.value > best.value {
            best = search.best;
        }
    }
    (best, columns.bound, trace)
}
