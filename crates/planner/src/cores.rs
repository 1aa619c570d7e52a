//! Which cores of one node go to which cells.
//!
//! Takes a node's free cores and how many of each class every cell needs; gives the cores, such
//! that each slice touches the fewest L3 domains, then pools lie near their vCPUs, then the fewest
//! L3 domains are touched at all, then numbers are lowest. Cores of a class are alike to
//! feasibility, so whatever passed the search by counts is found here; what is bounded is only the
//! effort for the best one.

use std::collections::BTreeMap;

use crate::demand::Counts;
use crate::server::Core;

/// What one cell needs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CellNeed {
    pub vcpus: Counts,
    pub pool: Counts,
}

/// The cores of one cell, as indices into the node's free cores, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CellCores {
    pub vcpus: Vec<usize>,
    pub pool: Vec<usize>,
}

/// L3 domains of all cells' vCPUs, pool cores outside them, L3 domains touched: less is better, in
/// that order.
pub(crate) type Cost = [u32; 3];

/// Where the cells of a node lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrangement {
    pub cost: Cost,
    /// In the order of the needs.
    pub cells: Vec<CellCores>,
}

/// Steps of search per node before the best so far is taken.
const STEPS: u32 = 3000;
/// Sets of L3 domains that are tried for one cell.
const MOST_SETS: usize = 256;

/// An L3 domain (or what of it lies on this node), by its free cores.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Domain {
    /// Free cores of each class.
    free: Counts,
    touched: bool,
}

/// Counts taken of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    domain: usize,
    counts: Counts,
}

/// Finds the cores; `None` only when the counts do not fit. To touch an L3 domain that is broken
/// already costs nothing.
pub(crate) fn arrange(free: &[Core], needs: &[CellNeed], broken: &[usize]) -> Option<Arrangement> {
    arrange_within(free, needs, broken, STEPS)
}

/// Finds cores with little effort, for packings of many nodes.
pub(crate) fn arrange_soon(free: &[Core], needs: &[CellNeed]) -> Option<Arrangement> {
    const FEW: u32 = 24;
    arrange_within(free, needs, &[], FEW)
}

fn arrange_within(
    free: &[Core],
    needs: &[CellNeed],
    broken: &[usize],
    limit: u32,
) -> Option<Arrangement> {
    let classes = needs.first().map_or(0, |need| need.vcpus.len());
    let (domains, members) = domains(free, classes, broken);
    let mut search = Search {
        needs,
        domains,
        placed: Vec::new(),
        cost: [0; 3],
        best: None,
        steps: 0,
        limit,
    };
    search.place();
    let (cost, placed) = search.best?;
    Some(Arrangement {
        cost,
        cells: concrete(&placed, members),
    })
}

/// For each number of cores, the fewest unbroken L3 domains of the node that hold so many, beside
/// the broken ones.
pub(crate) fn fewest_domains(free: &[Core], broken: &[usize]) -> Vec<u32> {
    let mut sizes: BTreeMap<usize, u32> = BTreeMap::new();
    let mut beside = 0;
    for core in free {
        if broken.contains(&core.l3) {
            beside += 1;
        } else {
            *sizes.entry(core.l3).or_default() += 1;
        }
    }
    let mut sizes: Vec<u32> = sizes.into_values().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut fewest = vec![0; beside + 1];
    for (i, size) in (1u32..).zip(sizes) {
        fewest.extend(std::iter::repeat_n(i, size as usize));
    }
    fewest
}

/// The cores of each domain and class that are still free, highest number last to be given.
type Members = Vec<Vec<Vec<usize>>>;

fn domains(free: &[Core], classes: usize, broken: &[usize]) -> (Vec<Domain>, Members) {
    let mut order: Vec<usize> = Vec::new();
    let mut domains: Vec<Domain> = Vec::new();
    let mut members: Members = Vec::new();
    for (i, core) in free.iter().enumerate() {
        let at = order
            .iter()
            .position(|&l3| l3 == core.l3)
            .unwrap_or_else(|| {
                order.push(core.l3);
                domains.push(Domain {
                    free: vec![0; classes],
                    touched: broken.contains(&core.l3),
                });
                members.push(vec![Vec::new(); classes]);
                order.len() - 1
            });
        if core.class < classes {
            domains[at].free[core.class] += 1;
            members[at][core.class].push(i);
        }
    }
    (domains, members)
}

#[derive(Debug, Clone)]
struct Placed {
    vcpus: Vec<Part>,
    pool: Vec<Part>,
}

struct Search<'n> {
    needs: &'n [CellNeed],
    domains: Vec<Domain>,
    placed: Vec<Placed>,
    cost: Cost,
    best: Option<(Cost, Vec<Placed>)>,
    steps: u32,
    limit: u32,
}

impl Search<'_> {
    fn place(&mut self) {
        let at = self.placed.len();
        let Some(need) = self.needs.get(at) else {
            if self.best.as_ref().is_none_or(|(cost, _)| self.cost < *cost) {
                self.best = Some((self.cost, self.placed.clone()));
            }
            return;
        };
        let rest = &self.needs[at..];
        let to_come = rest
            .iter()
            .filter(|need| need.vcpus.iter().any(|&n| n > 0))
            .count();
        let bound = [
            self.cost[0] + u32::try_from(to_come).unwrap_or(0),
            self.cost[1],
            self.cost[2],
        ];
        if self.best.as_ref().is_some_and(|(cost, _)| bound >= *cost) {
            return;
        }
        // The first descent always ends, so that bounded effort never loses a placement.
        if self.steps >= self.limit && self.best.is_some() {
            return;
        }
        self.steps += 1;
        for vcpus in ways(&self.domains, &need.vcpus) {
            let cost = self.cost;
            let before = self.take(&vcpus);
            self.cost[0] += u32::try_from(vcpus.len()).unwrap_or(u32::MAX);
            for pool in pool_ways(&self.domains, &need.pool, &vcpus) {
                let cost = self.cost;
                let far = pool
                    .iter()
                    .filter(|part| !vcpus.is_empty() && !holds(&vcpus, part.domain));
                self.cost[1] += far.map(|part| part.counts.iter().sum::<u32>()).sum::<u32>();
                let before = self.take(&pool);
                self.placed.push(Placed {
                    vcpus: vcpus.clone(),
                    pool,
                });
                self.place();
                self.placed.pop();
                self.domains = before;
                self.cost = cost;
            }
            self.domains = before;
            self.cost = cost;
        }
    }

    /// Takes the parts; what the domains were before.
    fn take(&mut self, parts: &[Part]) -> Vec<Domain> {
        let before = self.domains.clone();
        for part in parts {
            let domain = &mut self.domains[part.domain];
            for (free, count) in domain.free.iter_mut().zip(&part.counts) {
                *free -= count;
            }
            if !domain.touched {
                domain.touched = true;
                self.cost[2] += 1;
            }
        }
        before
    }
}

fn holds(parts: &[Part], domain: usize) -> bool {
    parts.iter().any(|part| part.domain == domain)
}

/// Ways to take these counts from the fewest domains that can give them, domains that are alike
/// taken as one. Of several domains all but one give all they can.
fn ways(domains: &[Domain], need: &Counts) -> Vec<Vec<Part>> {
    if need.iter().all(|&n| n == 0) {
        return vec![Vec::new()];
    }
    let mut sets = Vec::new();
    for size in 1..=domains.len() {
        subsets(domains, need, size, &mut Vec::new(), &mut sets);
        if !sets.is_empty() {
            break;
        }
    }
    let mut ways: Vec<Vec<Part>> = Vec::new();
    for set in sets {
        // The domain that gives the rest is tried in every place; the lowest numbers first means
        // that the last one does.
        for last in (0..set.len()).rev() {
            let mut left = need.clone();
            let order = set
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != last)
                .map(|(_, domain)| *domain)
                .chain(std::iter::once(set[last]));
            let mut parts: Vec<Part> = order
                .map(|domain| {
                    let counts: Counts = left
                        .iter_mut()
                        .zip(&domains[domain].free)
                        .map(|(left, free)| {
                            let count = (*left).min(*free);
                            *left -= count;
                            count
                        })
                        .collect();
                    Part { domain, counts }
                })
                .filter(|part| part.counts.iter().any(|&n| n > 0))
                .collect();
            parts.sort_by_key(|part| part.domain);
            if left.iter().all(|&n| n == 0) && !ways.contains(&parts) {
                ways.push(parts);
            }
        }
    }
    ways
}

/// Sets of so many domains that together hold the need; of domains that are alike the lowest.
fn subsets(
    domains: &[Domain],
    need: &Counts,
    size: usize,
    chosen: &mut Vec<usize>,
    sets: &mut Vec<Vec<usize>>,
) {
    if sets.len() >= MOST_SETS {
        return;
    }
    if chosen.len() == size {
        let enough = need
            .iter()
            .enumerate()
            .all(|(class, &n)| chosen.iter().map(|&d| domains[d].free[class]).sum::<u32>() >= n);
        if enough {
            sets.push(chosen.clone());
        }
        return;
    }
    let start = chosen.last().map_or(0, |last| last + 1);
    for next in start..domains.len() {
        // Skipping one and taking its like later would be the same set under another name.
        let alike = (start..next).any(|earlier| domains[earlier] == domains[next]);
        if alike || domains[next].free.iter().all(|&n| n == 0) {
            continue;
        }
        chosen.push(next);
        subsets(domains, need, size, chosen, sets);
        chosen.pop();
    }
}

/// Ways to have the pool: where the vCPUs are first, then elsewhere, whole before in parts.
fn pool_ways(domains: &[Domain], need: &Counts, vcpus: &[Part]) -> Vec<Vec<Part>> {
    if need.iter().all(|&n| n == 0) {
        return vec![Vec::new()];
    }
    let mut near = Vec::new();
    let mut far = Vec::new();
    for (at, domain) in domains.iter().enumerate() {
        if domain.free.iter().zip(need).all(|(free, n)| free >= n) {
            let part = Part {
                domain: at,
                counts: need.clone(),
            };
            let alike = |other: &Vec<Part>| domains[other[0].domain] == *domain;
            if holds(vcpus, at) {
                near.push(vec![part]);
            } else if !far.iter().any(alike) {
                far.push(vec![part]);
            }
        }
    }
    near.append(&mut far);
    if !near.is_empty() {
        return near;
    }
    // Nowhere whole: what is left beside the vCPUs, then from the lowest numbers on.
    let mut left = need.clone();
    let beside = vcpus.iter().map(|part| part.domain);
    let mut order: Vec<usize> = beside.collect();
    order.extend((0..domains.len()).filter(|&d| !holds(vcpus, d)));
    let mut parts = Vec::new();
    for domain in order {
        let counts: Counts = left
            .iter_mut()
            .zip(&domains[domain].free)
            .map(|(left, free)| {
                let count = (*left).min(*free);
                *left -= count;
                count
            })
            .collect();
        if counts.iter().any(|&n| n > 0) {
            parts.push(Part { domain, counts });
        }
    }
    if left.iter().all(|&n| n == 0) {
        vec![parts]
    } else {
        Vec::new()
    }
}

/// The cores behind the counts: lowest numbers first, a cell's pool before its vCPUs.
fn concrete(placed: &[Placed], members: Members) -> Vec<CellCores> {
    let mut left: Vec<Vec<std::vec::IntoIter<usize>>> = members
        .into_iter()
        .map(|classes| classes.into_iter().map(Vec::into_iter).collect())
        .collect();
    let mut give = |parts: &[Part]| {
        let mut cores: Vec<usize> = Vec::new();
        for part in parts {
            for (class, &count) in part.counts.iter().enumerate() {
                cores.extend(left[part.domain][class].by_ref().take(count as usize));
            }
        }
        cores.sort_unstable();
        cores
    };
    placed
        .iter()
        .map(|cell| {
            let pool = give(&cell.pool);
            let vcpus = give(&cell.vcpus);
            CellCores { vcpus, pool }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmslice_model::CpuId;

    fn core(number: u32, l3: usize) -> Core {
        Core {
            threads: vec![CpuId::new(number).unwrap()],
            l3,
            class: 0,
        }
    }

    fn need(vcpus: u32, pool: u32) -> CellNeed {
        CellNeed {
            vcpus: vec![vcpus],
            pool: vec![pool],
        }
    }

    /// Three L3 domains of 3, 4 and 4 cores, as after the host's reserve.
    fn epyc() -> Vec<Core> {
        (1..12).map(|n| core(n, (n / 4) as usize)).collect()
    }

    #[test]
    fn a_slice_that_fits_in_one_l3_lies_in_one() {
        let found = arrange(&epyc(), &[need(4, 0), need(3, 0)], &[0]).unwrap();
        assert_eq!(found.cost, [2, 0, 1]);
        // 4 cores fit only in the second or third domain; the 3 take the first, which is broken
        // anyway.
        assert_eq!(found.cells[0].vcpus, [3, 4, 5, 6]);
        assert_eq!(found.cells[1].vcpus, [0, 1, 2]);
    }

    #[test]
    fn the_pool_lies_in_the_l3_of_its_vcpus() {
        let found = arrange(&epyc(), &[need(3, 1)], &[0]).unwrap();
        assert_eq!(found.cost, [1, 0, 1]);
        assert_eq!(found.cells[0].pool, [3]);
        assert_eq!(found.cells[0].vcpus, [4, 5, 6]);
    }

    #[test]
    fn one_l3_for_the_vcpus_matters_more_than_a_near_pool() {
        let found = arrange(&epyc(), &[need(4, 1)], &[0]).unwrap();
        assert_eq!(found.cost, [1, 1, 1]);
    }

    #[test]
    fn whole_l3_domains_are_kept_free() {
        let found = arrange(&epyc(), &[need(1, 0), need(1, 0), need(1, 0)], &[0]).unwrap();
        assert_eq!(found.cost, [3, 0, 0]);
        let found = arrange(&epyc(), &[need(2, 0), need(4, 0), need(2, 0)], &[]).unwrap();
        assert_eq!(found.cost, [3, 0, 2], "2 and 2 share a domain of 4");
    }

    #[test]
    fn what_fits_by_count_is_always_found() {
        let found = arrange(&epyc(), &[need(5, 1), need(4, 1)], &[]).unwrap();
        let all: std::collections::BTreeSet<usize> = found
            .cells
            .iter()
            .flat_map(|cell| cell.vcpus.iter().chain(&cell.pool))
            .copied()
            .collect();
        assert_eq!(all.len(), 11, "each core is given once");
        assert!(arrange(&epyc(), &[need(12, 0)], &[]).is_none());
    }
}
