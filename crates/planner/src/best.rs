//! The best of the placements that are possible (planning rule 8).
//!
//! Takes a problem and one placement that fits; gives the one with the fewest remote devices, then
//! the fewest L3 domains per slice, then pools nearest, then the fewest nodes and L3 domains touched
//! (so that whole ones stay free), then the fewest cores opened for odd vCPUs, then the lowest numbers in the order of the slices. Branch and
//! bound with a bounded number of steps; past the bound, the best that was found.

use std::collections::HashMap;

use crate::cores::{self, Arrangement, CellNeed, InUse};
use crate::demand::Demand;
use crate::devices::Near;
use crate::problem::{Problem, Site};
use crate::search::{self, Choice, Go, Relax, Visitor, Walk};
use crate::server::Core;

/// Steps for finding the best.
pub(crate) const BEST_STEPS: u64 = 20_000;
/// Steps that arranging the cores of one node counts for.
const ARRANGE_STEPS: u64 = 20;

/// Remote devices, L3 domains, far pool cores, nodes touched, L3 domains touched, cores opened for odd
/// vCPUs that may share one.
pub(crate) type Cost = [u32; 6];

/// A placement with its cores.
#[derive(Debug, Clone)]
pub(crate) struct Best {
    /// By demand.
    pub choices: Vec<Choice>,
    /// By node: the demands and cells that lie there, and their cores.
    pub nodes: Vec<(Vec<(usize, usize)>, Arrangement)>,
    /// Whether nothing better exists; else the effort was bounded.
    pub proven: bool,
}

struct Bound<'p> {
    free: &'p [Vec<Core>],
    broken: &'p [usize],
    /// By node and tenant: the L3 domains of siblings that are open.
    open: Vec<Vec<Vec<usize>>>,
    /// Whether cores are to stay free, so that none is opened for an odd vCPU without need.
    sparing: bool,
    /// By node, then number of cores: how few unbroken L3 domains hold so many.
    fewest: Vec<Vec<u32>>,
    /// Nodes that what stays has touched already.
    touched: Vec<bool>,
    /// By demand, then site: the fewest L3 domains.
    l3: Vec<Vec<u32>>,
    /// By depth: the least that the demands from there on cost.
    rest: Vec<[u32; 2]>,
    known: HashMap<(usize, Vec<CellNeed>), Option<Arrangement>>,
    best: Option<(Cost, Vec<Choice>)>,
    /// Whether the best was found on this walk, so that equals come later in order.
    own: bool,
}

/// The best placement, given one that fits.
pub(crate) fn find(site: &Site<'_>, fits: Vec<Choice>) -> Option<Best> {
    let problem = &site.problem;
    let free: Vec<Vec<Core>> = site
        .server
        .nodes
        .iter()
        .map(|node| node.free.clone())
        .collect();
    let order: Vec<usize> = (0..problem.demands.len()).collect();
    let mut touched = vec![false; free.len()];
    for place in site.kept.iter().flatten().flatten() {
        touched[place.node] = true;
    }
    let l3: Vec<Vec<u32>> = problem
        .demands
        .iter()
        .map(|demand| {
            demand
                .sites
                .iter()
                .map(|nodes| least_l3(demand, nodes, &free))
                .collect()
        })
        .collect();
    let mut rest = vec![[0, 0]; order.len() + 1];
    for depth in (0..order.len()).rev() {
        let demand = &problem.demands[depth];
        let sites = 0..demand.sites.len();
        let remote = sites
            .map(|site| least_remote(problem, demand, site))
            .min()
            .unwrap_or(0);
        let domains = l3[depth].iter().min().copied().unwrap_or(0);
        rest[depth] = [
            rest[depth + 1][0] + remote,
            rest[depth + 1][1].saturating_add(domains),
        ];
    }
    let visitor = Bound {
        fewest: free
            .iter()
            .map(|cores| cores::fewest_domains(cores, &site.broken))
            .collect(),
        broken: &site.broken,
        open: (0..free.len())
            .map(|node| site.siblings.open_l3(node))
            .collect(),
        sparing: problem.headroom > 0,
        free: &free,
        touched,
        l3,
        rest,
        known: HashMap::new(),
        best: None,
        own: false,
    };
    let mut walk = Walk::new(problem, order, Relax::default(), BEST_STEPS, visitor);
    let cost = evaluate(&mut walk, &fits)?;
    walk.visitor.best = Some((cost, fits));
    walk.place();
    let proven = walk.steps <= walk.limit;
    let (_, choices) = walk.visitor.best.take()?;
    let mut nodes = Vec::new();
    for node in 0..free.len() {
        let (cells, needs) = on_node(problem, &choices, node);
        nodes.push((cells, walk.visitor.arrange(node, needs).0?));
    }
    Some(Best {
        choices,
        nodes,
        proven,
    })
}

/// The fewest L3 domains that a demand alone could touch at a site.
fn least_l3(demand: &Demand, nodes: &[usize], free: &[Vec<Core>]) -> u32 {
    let cells = nodes.iter().map(|&node| {
        let alone = |take: &Vec<u32>| {
            let none = vec![0; take.len()];
            let mut need = CellNeed {
                vcpus: take.clone(),
                pool: none,
                odd: None,
            };
            // An odd vCPU may lie beside another one, with the others of its cell or elsewhere.
            let odd = demand.odd_in(take);
            if let Some(odd) = odd {
                need.vcpus[odd.class] -= 1;
            }
            let found = cores::arrange(&free[node], &[need], InUse::default())?;
            Some(found.cost[0].max(u32::from(odd.is_some())))
        };
        // A site that cannot hold it is never chosen; it may bound nothing.
        demand
            .vcpus
            .iter()
            .filter_map(alone)
            .min()
            .unwrap_or(u32::MAX / 1024)
    });
    cells.sum()
}

/// Devices that are surely remote at a site.
fn least_remote(problem: &Problem, demand: &Demand, site: usize) -> u32 {
    let nodes = &demand.sites[site];
    let wants = demand.wants.iter().filter(|want| {
        want.near != Near::Any
            && !want.candidates.is_empty()
            && want
                .candidates
                .iter()
                .all(|&pf| problem.local(pf, nodes) == Some(false))
    });
    u32::try_from(wants.count()).unwrap_or(u32::MAX)
}

/// Devices that are remote in a choice.
pub(crate) fn remote(problem: &Problem, demand: &Demand, choice: &Choice) -> u32 {
    let nodes = &demand.sites[choice.site];
    let far =
        demand.wants.iter().zip(&choice.pfs).filter(|(want, pf)| {
            want.near != Near::Any && problem.local(**pf, nodes) == Some(false)
        });
    u32::try_from(far.count()).unwrap_or(u32::MAX)
}

/// What lies on a node: demand and cell, in the order of the demands, and what they need there.
fn on_node(
    problem: &Problem,
    choices: &[Choice],
    node: usize,
) -> (Vec<(usize, usize)>, Vec<CellNeed>) {
    let mut cells = Vec::new();
    let mut needs = Vec::new();
    for (at, (demand, choice)) in problem.demands.iter().zip(choices).enumerate() {
        if demand.kept {
            continue;
        }
        let here = demand.sites[choice.site].iter().position(|&n| n == node);
        let Some(cell) = here else { continue };
        let vcpus = demand.vcpus[choice.vcpus[cell]].clone();
        let odd = demand.odd_in(&vcpus);
        // Of those that share a pool, the first brings it.
        let brought = demand.shared.is_some_and(|tenant| {
            problem.pools[node][tenant]
                || cells.iter().any(|&(other, cell): &(usize, usize)| {
                    cell == 0 && problem.demands[other].shared == Some(tenant)
                })
        });
        let pool = if cell == 0 && !brought {
            demand.pool[choice.pool].clone()
        } else {
            vec![0; vcpus.len()]
        };
        cells.push((at, cell));
        needs.push(CellNeed { vcpus, pool, odd });
    }
    (cells, needs)
}

impl Bound<'_> {
    /// The cores of a node, and whether they had to be worked out.
    fn arrange(&mut self, node: usize, needs: Vec<CellNeed>) -> (Option<Arrangement>, bool) {
        let key = (node, needs);
        if let Some(known) = self.known.get(&key) {
            return (known.clone(), false);
        }
        let in_use = InUse {
            broken: self.broken,
            open: &self.open[node],
            sparing: self.sparing,
        };
        let found = cores::arrange(&self.free[node], &key.1, in_use);
        self.known.insert(key, found.clone());
        (found, true)
    }
}

/// What a whole placement costs.
fn evaluate(walk: &mut Walk<'_, Bound<'_>>, choices: &[Choice]) -> Option<Cost> {
    let problem = walk.problem;
    let mut cost: Cost = [0; 6];
    for (demand, choice) in problem.demands.iter().zip(choices) {
        cost[0] += remote(problem, demand, choice);
    }
    for node in 0..problem.cores.len() {
        let (cells, needs) = on_node(problem, choices, node);
        cost[3] += u32::from(!cells.is_empty() || walk.visitor.touched[node]);
        let (found, fresh) = walk.visitor.arrange(node, needs);
        if fresh {
            walk.steps += ARRANGE_STEPS;
        }
        let [domains, far, touched, opened] = found?.cost;
        cost[1] += domains;
        cost[2] += far;
        cost[4] += touched;
        cost[5] += opened;
    }
    Some(cost)
}

/// The least that a placement that starts like this one costs.
fn bound(walk: &Walk<'_, Bound<'_>>) -> Cost {
    let visitor = &walk.visitor;
    let depth = walk.chosen.len();
    let mut cost: Cost = [visitor.rest[depth][0], visitor.rest[depth][1], 0, 0, 0, 0];
    for (at, choice) in walk.chosen.iter().enumerate() {
        let demand = walk.demand(at);
        cost[0] += remote(walk.problem, demand, choice);
        cost[1] = cost[1].saturating_add(visitor.l3[walk.order[at]][choice.site]);
    }
    for (node, used) in walk.used.cores.iter().enumerate() {
        let used = used.iter().sum::<u32>() as usize;
        cost[3] += u32::from(used > 0 || visitor.touched[node]);
        cost[4] += visitor.fewest[node].get(used).copied().unwrap_or(0);
    }
    cost
}

impl Visitor for Bound<'_> {
    fn enter(walk: &mut Walk<'_, Self>) -> bool {
        let bound = bound(walk);
        walk.visitor.best.as_ref().is_none_or(|(cost, _)| {
            if walk.visitor.own {
                bound < *cost
            } else {
                bound <= *cost
            }
        })
    }

    fn leave(_: &mut Walk<'_, Self>) {}

    fn complete(walk: &mut Walk<'_, Self>) -> Go {
        let chosen = search::in_order(&walk.order, walk.chosen.clone(), walk.order.len());
        let Some(cost) = evaluate(walk, &chosen) else {
            return Go::On;
        };
        let better = walk
            .visitor
            .best
            .as_ref()
            .is_none_or(|(best, _)| cost < *best || (cost == *best && !walk.visitor.own));
        if better {
            walk.visitor.best = Some((cost, chosen));
            walk.visitor.own = true;
        }
        if walk.steps > walk.limit {
            Go::Stop
        } else {
            Go::On
        }
    }

    fn alike(walk: &Walk<'_, Self>, a: usize, b: usize) -> bool {
        let empty = |node: usize| {
            walk.used.cores[node].iter().all(|&n| n == 0)
                && walk.used.memory[node].iter().all(|&n| n == 0)
        };
        // The state of a node with cells is more than its numbers: which cells lie there.
        let touched = &walk.visitor.touched;
        walk.problem.kinds[a] == walk.problem.kinds[b]
            && touched[a] == touched[b]
            && empty(a)
            && empty(b)
            && walk.visitor.fewest[a] == walk.visitor.fewest[b]
    }
}
