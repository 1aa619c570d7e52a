//! Whether all slices have a place together.
//!
//! Takes demands, free cores, memory and functions as numbers; gives a choice for every demand, or
//! says that none exists, or that the bounded effort did not tell. It is exact: the walk stops at
//! the first placement, and states from which nothing was found are remembered.

use std::collections::HashSet;

use crate::fill::fill;
use crate::headroom;
use crate::problem::Problem;
use crate::search::{Choice, Go, Group, Relax, Visitor, Walk, in_order};

/// What a search says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// By demand.
    Found(Vec<Choice>),
    Impossible,
    GaveUp {
        steps: u64,
    },
}

/// Steps for deciding whether anything fits.
pub(crate) const DECIDE_STEPS: u64 = 300_000;

/// Whether anything fits: stops at the first placement.
struct Decide {
    /// States from which nothing was found.
    dead: HashSet<Vec<u64>>,
    found: Option<Vec<Choice>>,
}

impl Decide {
    /// All that the rest of the walk depends on. Nodes that only their state tells apart are
    /// sorted, unless the next demand may depend on their numbers.
    fn state(walk: &Walk<'_, Self>) -> Vec<u64> {
        let depth = walk.chosen.len();
        let first = walk.first_site(depth);
        let mut key = vec![depth as u64, first as u64];
        let problem = walk.problem;
        let node = |node: usize| -> Vec<u64> {
            std::iter::once(problem.kinds[node] as u64)
                .chain(walk.used.cores[node].iter().map(|&n| u64::from(n)))
                .chain(walk.used.memory[node].iter().copied())
                .chain(
                    walk.used.pools[node]
                        .iter()
                        .map(|pool| u64::from(pool.users > 0)),
                )
                .chain(walk.used.open[node].iter().map(|&n| u64::from(n)))
                .collect()
        };
        let mut nodes: Vec<Vec<u64>> = (0..problem.kinds.len()).map(node).collect();
        if first == 0 {
            nodes.sort_unstable();
        }
        key.extend(nodes.into_iter().flatten());
        key.extend(walk.used.vfs.iter().map(|&n| u64::from(n)));
        key.extend(walk.used.whole.iter().map(|&n| u64::from(n)));
        // Whose a group is matters only to the slice itself, whose cards are placed together.
        key.extend(walk.used.groups.iter().map(|group| match group {
            Group::Free => 0,
            Group::Split => 1,
            Group::Given(_) => 2,
        }));
        key
    }

    /// Whether the demands to come ask for more cores than are left, or one of them for more than
    /// any site has.
    fn hopeless(walk: &Walk<'_, Self>) -> bool {
        if walk.relax.cores {
            return false;
        }
        let problem = walk.problem;
        if headroom::is_gone(problem, walk.relax) {
            return true;
        }
        // In halves of cores, since an odd vCPU may share its core.
        let left: Vec<u32> = (problem.cores.iter().zip(&walk.used.cores))
            .zip(&walk.used.open)
            .map(|((free, used), open)| {
                let cores = free.iter().sum::<u32>() - used.iter().sum::<u32>();
                2 * cores + open.iter().sum::<u32>()
            })
            .collect();
        let mut all: u64 = left.iter().map(|&n| u64::from(n)).sum();
        if walk.most_cores.is_some() {
            all = all.saturating_sub(2 * u64::from(problem.headroom));
        }
        for depth in walk.chosen.len()..walk.order.len() {
            let demand = walk.demand(depth);
            let (first, other) = demand.fewest_halves();
            let cells = demand.sites.first().map_or(1, Vec::len) as u64;
            let Some(rest) =
                all.checked_sub(u64::from(first) + u64::from(other) * cells.saturating_sub(1))
            else {
                return true;
            };
            all = rest;
            let somewhere = demand.sites.iter().any(|site| {
                left[site[0]] >= first && site[1..].iter().all(|&node| left[node] >= other)
            });
            if !somewhere {
                return true;
            }
        }
        false
    }
}

impl Visitor for Decide {
    fn enter(walk: &mut Walk<'_, Self>) -> bool {
        if Self::hopeless(walk) {
            return false;
        }
        let state = Self::state(walk);
        !walk.visitor.dead.contains(&state)
    }

    fn leave(walk: &mut Walk<'_, Self>) {
        let state = Self::state(walk);
        walk.visitor.dead.insert(state);
    }

    fn complete(walk: &mut Walk<'_, Self>) -> Go {
        walk.visitor.found = Some(walk.chosen.clone());
        Go::Stop
    }

    fn alike(walk: &Walk<'_, Self>, a: usize, b: usize) -> bool {
        walk.problem.kinds[a] == walk.problem.kinds[b]
            && walk.used.cores[a] == walk.used.cores[b]
            && walk.used.memory[a] == walk.used.memory[b]
            && walk.used.open[a] == walk.used.open[b]
            && (walk.used.pools[a].iter().zip(&walk.used.pools[b]))
                .all(|(a, b)| (a.users > 0) == (b.users > 0))
    }
}

/// Whether these demands (by index) can be placed together. What the walk cannot tell within its
/// steps, filling node by node sometimes can.
pub(crate) fn decide(problem: &Problem, demands: &[usize], relax: Relax, limit: u64) -> Answer {
    match walk(problem, demands, relax, limit) {
        Answer::GaveUp { steps } => match fill(problem, demands, relax) {
            Some(choices) => Answer::Found(choices),
            None => Answer::GaveUp { steps },
        },
        answer => answer,
    }
}

/// Walks over all choices until one is found.
pub(crate) fn walk(problem: &Problem, demands: &[usize], relax: Relax, limit: u64) -> Answer {
    let mut order = demands.to_vec();
    let twins = first_twins(problem);
    // Those with the least choice first, then the largest; twins side by side.
    order.sort_by_key(|&at| {
        let demand = &problem.demands[at];
        (
            demand.sites.len() > 1,
            std::cmp::Reverse(demand.fewest_halves()),
            std::cmp::Reverse(demand.memory),
            twins[at],
            at,
        )
    });
    let visitor = Decide {
        dead: HashSet::new(),
        found: None,
    };
    let mut walk = Walk::new(problem, order, relax, limit, visitor);
    walk.place();
    match walk.visitor.found {
        Some(chosen) => Answer::Found(in_order(&walk.order, chosen, problem.demands.len())),
        None if walk.steps > walk.limit => Answer::GaveUp { steps: limit },
        None => Answer::Impossible,
    }
}

/// For each demand, the first that asks for the same.
fn first_twins(problem: &Problem) -> Vec<usize> {
    let mut firsts: Vec<usize> = Vec::new();
    let demands = problem.demands.iter().enumerate();
    demands
        .map(|(at, demand)| {
            let twin = |&other: &usize| problem.demands[other].is_twin(demand);
            let known = firsts.iter().copied().find(twin);
            known.unwrap_or_else(|| {
                firsts.push(at);
                at
            })
        })
        .collect()
}
