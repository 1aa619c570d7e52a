//! Nodes filled to the last core, one after the other.
//!
//! Takes a problem that the walk gave up on; gives a placement of all demands, when one of a few
//! attempts finds one. The walk places the largest demand first and turns back from the smallest:
//! on servers that are to be filled to the last core, a wrong early choice costs it all its effort.
//! Here a node at a time gets the demands that leave the least of it over (the minimum bin slack
//! heuristic of Gupta and Ho, 1999), and the walk then only confirms. It proves nothing: that there
//! is none is the walk's to say.

use crate::decide::{self, Answer};
use crate::demand::Demand;
use crate::problem::Problem;
use crate::search::{Choice, Relax};

/// Each begins with the demands in another order.
const ATTEMPTS: u64 = 48;
/// Steps for filling one node.
const FILL_STEPS: u32 = 20_000;
/// Steps for confirming one attempt.
const CONFIRM_STEPS: u64 = 4_000;

/// A placement of these demands (by index), by demand.
pub(crate) fn fill(problem: &Problem, demands: &[usize], relax: Relax) -> Option<Vec<Choice>> {
    if relax.cores {
        return None;
    }
    let (loose, fixed): (Vec<usize>, Vec<usize>) = demands
        .iter()
        .partition(|&&at| problem.demands[at].sites.len() > 1);
    if loose.iter().any(|&at| cells(&problem.demands[at]) > 1) {
        return None;
    }
    // In halves of cores, since an odd vCPU may share its core.
    let open = |node: usize| problem.open[node].iter().sum::<u32>();
    let cores = problem.cores.iter().enumerate();
    let mut room: Vec<u32> = cores
        .map(|(node, free)| 2 * free.iter().sum::<u32>() + open(node))
        .collect();
    for at in fixed {
        let demand = &problem.demands[at];
        let (first, other) = demand.fewest_halves();
        for (cell, &node) in demand.sites.first()?.iter().enumerate() {
            let need = if cell == 0 { first } else { other };
            room[node] = room[node].checked_sub(need)?;
        }
    }
    (0..ATTEMPTS).find_map(|attempt| {
        let sites = propose(problem, &loose, &room, attempt)?;
        confirm(problem, demands, relax, &sites)
    })
}

fn cells(demand: &Demand) -> usize {
    demand.sites.first().map_or(1, Vec::len)
}

/// A site for each open demand, node by node; `None` when some are left over.
fn propose(
    problem: &Problem,
    open: &[usize],
    room: &[u32],
    attempt: u64,
) -> Option<Vec<(usize, usize)>> {
    let size = |at: usize| problem.demands[at].fewest_halves().0;
    let mut left = open.to_vec();
    left.sort_by_key(|&at| (std::cmp::Reverse(size(at)), at));
    stir(&mut left, attempt);
    let mut sites = Vec::with_capacity(open.len());
    for (node, &room) in room.iter().enumerate() {
        let site = |at: usize| {
            let sites = &problem.demands[at].sites;
            sites.iter().position(|site| site[0] == node)
        };
        let items: Vec<(usize, u32)> = left
            .iter()
            .filter(|&&at| site(at).is_some())
            .map(|&at| (at, size(at)))
            .collect();
        let chosen = Filling::of(&items, room);
        sites.extend(chosen.iter().filter_map(|&at| Some((at, site(at)?))));
        left.retain(|at| !chosen.contains(at));
    }
    left.is_empty().then_some(sites)
}

/// Changes places of some neighbours, by a fixed sequence: attempt 0 changes none.
fn stir(order: &mut [usize], attempt: u64) {
    if attempt == 0 || order.len() < 2 {
        return;
    }
    // Knuth's MMIX generator; only that attempts differ matters.
    let mut state = attempt;
    for _ in 0..order.len() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap_or(0) % order.len();
        let other = (at + 1 + usize::try_from(attempt % 5).unwrap_or(0)) % order.len();
        order.swap(at, other);
    }
}

/// The search for demands that leave the least of one node over.
struct Filling<'a> {
    items: &'a [(usize, u32)],
    chosen: Vec<usize>,
    best: Vec<usize>,
    /// Halves of cores left over by the best.
    least: u32,
    steps: u32,
}

impl<'a> Filling<'a> {
    fn of(items: &'a [(usize, u32)], room: u32) -> Vec<usize> {
        let mut filling = Self {
            items,
            chosen: Vec::new(),
            best: Vec::new(),
            least: room,
            steps: 0,
        };
        filling.walk(0, room);
        filling.best
    }

    fn walk(&mut self, from: usize, room: u32) {
        if room < self.least {
            self.least = room;
            self.best.clone_from(&self.chosen);
        }
        for at in from..self.items.len() {
            self.steps += 1;
            if self.least == 0 || self.steps > FILL_STEPS {
                return;
            }
            let (demand, size) = self.items[at];
            if let Some(rest) = room.checked_sub(size) {
                self.chosen.push(demand);
                self.walk(at + 1, rest);
                self.chosen.pop();
            }
        }
    }
}

/// The walk with each open demand at its proposed site alone.
fn confirm(
    problem: &Problem,
    demands: &[usize],
    relax: Relax,
    sites: &[(usize, usize)],
) -> Option<Vec<Choice>> {
    let mut narrowed = problem.clone();
    for &(at, site) in sites {
        narrowed.demands[at].sites = vec![problem.demands[at].sites[site].clone()];
    }
    let Answer::Found(mut choices) = decide::walk(&narrowed, demands, relax, CONFIRM_STEPS) else {
        return None;
    };
    for &(at, site) in sites {
        choices[at].site = site;
    }
    Some(choices)
}
