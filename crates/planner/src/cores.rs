//! Which cores of one node go to which cells.
//!
//! Takes a node's free cores and how many of each class every cell needs; gives the cores, such
//! that each slice touches the fewest L3 domains, then pools lie near their vCPUs, then the fewest
//! L3 domains are touched at all, then the fewest cores are opened for odd vCPUs that may share one,
//! then numbers are lowest. Cores of a class are alike to feasibility, so whatever passed the search by counts is found here; what is bounded is only the
//! effort for the best one.

use std::collections::BTreeMap;

use crate::demand::Counts;
use crate::server::Core;
use crate::siblings::Odd;

mod odd;
#[cfg(test)]
mod tests;

pub(crate) use odd::OddCore;

/// What one cell needs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CellNeed {
    pub vcpus: Counts,
    pub pool: Counts,
    /// An odd vCPU that may share its core, which is one of those of the vCPUs.
    pub odd: Option<Odd>,
}

/// The cores of one cell, as indices into the node's free cores, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CellCores {
    /// But for that of an odd vCPU that may share it.
    pub vcpus: Vec<usize>,
    pub odd: Option<OddCore>,
    pub pool: Vec<usize>,
}

/// L3 domains of all cells' vCPUs, pool cores outside them, L3 domains touched, cores opened for odd
/// vCPUs that may share one: less is better, in that order.
pub(crate) type Cost = [u32; 4];

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
#[derive(Debug, Clone)]
struct Domain {
    /// Which, of the server's.
    l3: usize,
    /// Free cores of each class.
    free: Counts,
    /// Siblings of odd vCPUs that are open, by tenant.
    open: Vec<u32>,
    touched: bool,
}

impl Domain {
    /// Whether it does not matter which of the two is taken.
    fn is_like(&self, other: &Self) -> bool {
        self.free == other.free && self.open == other.open && self.touched == other.touched
    }
}

/// Counts taken of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    domain: usize,
    counts: Counts,
}

/// What of a node is in use already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InUse<'a> {
    /// To touch an L3 domain that is broken already costs nothing.
    pub broken: &'a [usize],
    /// By tenant: the L3 domains of siblings that are open.
    pub open: &'a [Vec<usize>],
    /// Whether no more cores may be opened than odd vCPUs need.
    pub sparing: bool,
}

/// Finds the cores; `None` only when the counts do not fit.
pub(crate) fn arrange(free: &[Core], needs: &[CellNeed], in_use: InUse<'_>) -> Option<Arrangement> {
    arrange_within(free, needs, in_use, STEPS)
}

/// Finds cores with little effort, for packings of many nodes.
pub(crate) fn arrange_soon(free: &[Core], needs: &[CellNeed]) -> Option<Arrangement> {
    const FEW: u32 = 24;
    arrange_within(free, needs, InUse::default(), FEW)
}

fn arrange_within(
    free: &[Core],
    needs: &[CellNeed],
    in_use: InUse<'_>,
    limit: u32,
) -> Option<Arrangement> {
    let classes = needs.first().map_or(0, |need| need.vcpus.len());
    let (domains, members) = domains(free, classes, needs, in_use);
    let open = odd::Siblings::of(&domains, in_use.open);
    let least = odd::spare(needs, &domains).filter(|_| in_use.sparing);
    let mut search = Search {
        needs,
        spare: least.unwrap_or(0),
        domains,
        placed: Vec::new(),
        cost: [0; 4],
        best: None,
        steps: 0,
        limit,
    };
    search.place();
    let (cost, placed) = search.best?;
    Some(Arrangement {
        cost,
        cells: concrete(needs, &placed, members, open),
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

fn domains(
    free: &[Core],
    classes: usize,
    needs: &[CellNeed],
    in_use: InUse<'_>,
) -> (Vec<Domain>, Members) {
    let mut domains: Vec<Domain> = Vec::new();
    let mut members: Members = Vec::new();
    let odd = needs.iter().filter_map(|need| need.odd);
    let tenants = odd.map(|odd| odd.tenant + 1).max().unwrap_or(0);
    let at = |l3: usize, domains: &mut Vec<Domain>, members: &mut Members| {
        let known = domains.iter().position(|domain| domain.l3 == l3);
        known.unwrap_or_else(|| {
            domains.push(Domain {
                l3,
                free: vec![0; classes],
                open: vec![0; tenants],
                touched: in_use.broken.contains(&l3),
            });
            members.push(vec![Vec::new(); classes]);
            domains.len() - 1
        })
    };
    for (i, core) in free.iter().enumerate() {
        let at = at(core.l3, &mut domains, &mut members);
        if core.class < classes {
            domains[at].free[core.class] += 1;
            members[at][core.class].push(i);
        }
    }
    for (tenant, l3s) in in_use.open.iter().enumerate().take(tenants) {
        for &l3 in l3s {
            let at = at(l3, &mut domains, &mut members);
            domains[at].open[tenant] += 1;
        }
    }
    (domains, members)
}

#[derive(Debug, Clone)]
struct Placed {
    vcpus: Vec<Part>,
    odd: Option<odd::Lies>,
    pool: Vec<Part>,
}

struct Search<'n> {
    needs: &'n [CellNeed],
    /// Cores of two threads that must be left over.
    spare: u32,
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
            self.cost[3],
        ];
        if self.best.as_ref().is_some_and(|(cost, _)| bound >= *cost) {
            return;
        }
        // The first descent always ends, so that bounded effort never loses a placement.
        if self.steps >= self.limit && self.best.is_some() {
            return;
        }
        self.steps += 1;
        // Of the ways that leave room for the rest, those that touch the fewest domains.
        let mut fewest = None;
        for (vcpus, odd) in odd::ways(&self.domains, need) {
            let lies = odd::with(&vcpus, odd);
            if fewest.is_some_and(|fewest| lies.len() > fewest) {
                break;
            }
            let cost = self.cost;
            let before = self.take(&vcpus);
            if let Some((odd, lies)) = need.odd.zip(odd) {
                self.take_odd(odd, lies);
            }
            if need.odd.is_none() || odd::spare_after(rest, &self.domains) >= Some(self.spare) {
                fewest = Some(lies.len());
                self.cost[0] += u32::try_from(lies.len()).unwrap_or(u32::MAX);
                self.place_pool(&vcpus, odd, &lies);
            }
            self.domains = before;
            self.cost = cost;
        }
    }

    /// With the vCPUs of a cell taken: its pool, then the cells after it.
    fn place_pool(&mut self, vcpus: &[Part], odd: Option<odd::Lies>, lies: &[Part]) {
        let need = &self.needs[self.placed.len()];
        for pool in pool_ways(&self.domains, &need.pool, lies) {
            let cost = self.cost;
            let far = pool
                .iter()
                .filter(|part| !lies.is_empty() && !holds(lies, part.domain));
            self.cost[1] += far.map(|part| part.counts.iter().sum::<u32>()).sum::<u32>();
            let before = self.take(&pool);
            self.placed.push(Placed {
                vcpus: vcpus.to_vec(),
                odd,
                pool,
            });
            self.place();
            self.placed.pop();
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

    /// Takes a sibling that is open, or opens a core and leaves its sibling so.
    fn take_odd(&mut self, odd: Odd, lies: odd::Lies) {
        let domain = &mut self.domains[lies.domain];
        if lies.beside {
            domain.open[odd.tenant] -= 1;
            return;
        }
        domain.free[odd.class] -= 1;
        domain.open[odd.tenant] += 1;
        self.cost[2] += u32::from(!domain.touched);
        self.cost[3] += 1;
        domain.touched = true;
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
        let alike = (start..next).any(|earlier| domains[earlier].is_like(&domains[next]));
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
            let alike = |other: &Vec<Part>| domains[other[0].domain].is_like(domain);
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

/// The cores behind the counts: lowest numbers first, a cell's pool before its vCPUs, and the odd
/// one of these last.
fn concrete(
    needs: &[CellNeed],
    placed: &[Placed],
    members: Members,
    mut open: odd::Siblings,
) -> Vec<CellCores> {
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
    let mut cells = Vec::with_capacity(placed.len());
    for (need, cell) in needs.iter().zip(placed) {
        let pool = give(&cell.pool);
        let vcpus = give(&cell.vcpus);
        let odd = need.odd.zip(cell.odd).and_then(|(odd, lies)| {
            if lies.beside {
                return open.take(lies.domain, odd.tenant);
            }
            let core = *give(&[lies.opened(odd)]).first()?;
            open.leave(lies.domain, odd.tenant, core);
            Some(OddCore::Own(core))
        });
        cells.push(CellCores { vcpus, odd, pool });
    }
    cells
}
