//! A walk over all ways to assign slices to nodes and devices.
//!
//! Takes demands, free cores, memory and functions as numbers, and a visitor; goes through every
//! site, take and device, and what is alike (nodes in the same state, slices that ask for the same,
//! functions that differ in nothing) once. What is looked for is the visitor's: anything at all
//! ([`decide`](crate::decide)), or the best ([`best`](crate::best)). Effort is counted in steps,
//! never in time, so that the same input gives the same plan.

use crate::demand::{Counts, Demand};
use crate::devices::Near;
use crate::headroom;
use crate::problem::Problem;
use crate::siblings::Odd;

/// What was chosen for one demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Index into the demand's sites.
    pub site: usize,
    /// For each cell, the index of its vCPUs' take.
    pub vcpus: Vec<usize>,
    /// The index of the pool's take.
    pub pool: usize,
    /// For each want, the function.
    pub pfs: Vec<usize>,
}

/// Which requirements are left out, to find out which of them cannot hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Relax {
    pub cores: bool,
    pub memory: bool,
    pub devices: bool,
    /// Cores that stay free.
    pub headroom: bool,
}

/// A way to say where the walk is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    Stop,
}

/// What has been used, beside what the problem had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    /// Cores by node and class.
    pub cores: Vec<Counts>,
    /// Pages by node and size, then bytes of plain memory.
    pub memory: Vec<Vec<u64>>,
    /// VFs by function.
    pub vfs: Vec<u32>,
    /// Functions that are passed whole as a card of their own.
    pub whole: Vec<bool>,
    /// By IOMMU group: free, split, or passed to a demand.
    pub groups: Vec<Group>,
    /// Pools that tenants share, by node and tenant.
    pub pools: Vec<Vec<SharedPool>>,
    /// Siblings of odd vCPUs that the tenant's next odd vCPU may have, by node and tenant.
    pub open: Vec<Vec<u32>>,
}

/// What a cell takes of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take<'a> {
    /// With the core of the odd vCPU.
    pub vcpus: &'a Counts,
    /// The pool that it brings.
    pub pool: Option<&'a Counts>,
    /// The odd vCPU, where it may share its core.
    odd: Option<Odd>,
    /// Whether it has the sibling of another one, so that it takes a core less.
    beside: bool,
}

impl Take<'_> {
    /// The cores of a class that are free no more.
    pub fn cores(&self, class: usize) -> u32 {
        let saved = self.beside && self.odd.is_some_and(|odd| odd.class == class);
        self.vcpus[class] + self.pool.map_or(0, |pool| pool[class]) - u32::from(saved)
    }
}

/// A tenant's pool on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedPool {
    /// Slices that use it; the first has brought it.
    pub users: u32,
    /// How it was taken, as an index into each user's [`Demand::pool`].
    pub take: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    Free,
    Split,
    Given(usize),
}

/// A walk over all choices, in a given order of demands. What happens at the end of a descent is
/// the visitor's.
pub(crate) struct Walk<'p, V> {
    pub problem: &'p Problem,
    pub order: Vec<usize>,
    pub relax: Relax,
    pub used: Used,
    /// By position in the order.
    pub chosen: Vec<Choice>,
    pub steps: u64,
    pub limit: u64,
    /// Cores that may be taken of all nodes together, when some are to stay free.
    pub most_cores: Option<u32>,
    pub visitor: V,
}

/// What is done on the way of a walk.
pub(crate) trait Visitor: Sized {
    /// Before the demand at this depth is placed; `false` turns back.
    fn enter(walk: &mut Walk<'_, Self>) -> bool;
    /// After all of its choices were walked to the end.
    fn leave(walk: &mut Walk<'_, Self>);
    /// All demands are placed.
    fn complete(walk: &mut Walk<'_, Self>) -> Go;
    /// Whether two nodes are interchangeable now.
    fn alike(walk: &Walk<'_, Self>, a: usize, b: usize) -> bool;
}

impl<'p, V: Visitor> Walk<'p, V> {
    pub fn new(
        problem: &'p Problem,
        order: Vec<usize>,
        relax: Relax,
        limit: u64,
        visitor: V,
    ) -> Self {
        Self {
            used: problem.nothing_used(),
            most_cores: headroom::most_cores(problem, relax),
            problem,
            order,
            relax,
            chosen: Vec::new(),
            steps: 0,
            limit,
            visitor,
        }
    }

    pub fn demand(&self, depth: usize) -> &'p Demand {
        &self.problem.demands[self.order[depth]]
    }

    /// Walks on from the present depth.
    pub fn place(&mut self) -> Go {
        let depth = self.chosen.len();
        if depth == self.order.len() {
            return V::complete(self);
        }
        if !V::enter(self) {
            return Go::On;
        }
        let demand = self.demand(depth);
        let mut tried: Vec<usize> = Vec::new();
        for site in self.first_site(depth)..demand.sites.len() {
            if self.like_one_tried(demand, site, &tried) {
                continue;
            }
            tried.push(site);
            self.steps += 1;
            if self.steps > self.limit {
                return Go::Stop;
            }
            let choice = Choice {
                site,
                vcpus: Vec::new(),
                pool: 0,
                pfs: Vec::new(),
            };
            if self.remember(demand, &choice) {
                let go = self.cells(demand, choice.clone());
                self.forget(demand, &choice);
                if go == Go::Stop {
                    return Go::Stop;
                }
            }
        }
        V::leave(self);
        Go::On
    }

    /// Twins in a row are placed in the order of their sites: the other orders are the same plan
    /// under other names.
    pub fn first_site(&self, depth: usize) -> usize {
        let Some(before) = depth.checked_sub(1) else {
            return 0;
        };
        if self.demand(depth).sites.iter().all(|site| site.len() == 1)
            && self.demand(before).is_twin(self.demand(depth))
        {
            self.chosen[before].site
        } else {
            0
        }
    }

    /// Whether a site differs from one that was tried only by nodes that are alike.
    fn like_one_tried(&self, demand: &Demand, site: usize, tried: &[usize]) -> bool {
        let nodes = &demand.sites[site];
        tried.iter().any(|&other| {
            let others = &demand.sites[other];
            // Two sites may share nodes; where they differ the nodes must be alike, and none may
            // stand in both at different places.
            nodes.iter().zip(others).all(|(a, b)| {
                a == b || (!others.contains(a) && !nodes.contains(b) && V::alike(self, *a, *b))
            })
        })
    }

    /// Cores for each cell in turn, then the devices.
    fn cells(&mut self, demand: &'p Demand, choice: Choice) -> Go {
        let nodes = &demand.sites[choice.site];
        let cell = choice.vcpus.len();
        if cell == nodes.len() {
            return self.devices(demand, choice);
        }
        let node = nodes[cell];
        let tenant = demand.shared.filter(|_| cell == 0);
        let there = tenant
            .map(|tenant| self.used.pools[node][tenant])
            .filter(|pool| pool.users > 0);
        let pools = match there {
            Some(pool) => pool.take..pool.take + 1,
            None if cell == 0 => 0..demand.pool.len(),
            None => 0..1,
        };
        for (vcpus, take) in demand.vcpus.iter().enumerate() {
            for pool in pools.clone() {
                let with = (cell == 0 && there.is_none()).then(|| &demand.pool[pool]);
                let odd = demand.odd_in(take);
                let take = Take {
                    vcpus: take,
                    pool: with,
                    odd,
                    // A sibling that is left over is taken before a core is opened: of both, the
                    // first leaves room for whatever the second does.
                    beside: odd.is_some_and(|odd| self.used.open[node][odd.tenant] > 0),
                };
                if !self.take(node, &take) {
                    continue;
                }
                if let Some(tenant) = tenant {
                    let shared = &mut self.used.pools[node][tenant];
                    shared.users += 1;
                    shared.take = pool;
                }
                let mut choice = choice.clone();
                choice.vcpus.push(vcpus);
                if cell == 0 {
                    choice.pool = pool;
                }
                let go = self.cells(demand, choice);
                if let Some(tenant) = tenant {
                    self.used.pools[node][tenant].users -= 1;
                }
                self.give_back(node, &take);
                if go == Go::Stop {
                    return Go::Stop;
                }
            }
        }
        Go::On
    }

    fn devices(&mut self, demand: &'p Demand, mut choice: Choice) -> Go {
        let at = choice.pfs.len();
        let Some(want) = demand.wants.get(at).filter(|_| !self.relax.devices) else {
            self.chosen.push(choice);
            let go = self.place();
            self.chosen.pop();
            return go;
        };
        let nodes = &demand.sites[choice.site];
        let local = |pf: usize| self.problem.local(pf, nodes);
        let mut candidates: Vec<usize> = want
            .candidates
            .iter()
            .copied()
            .filter(|&pf| want.near != Near::Must || local(pf) == Some(true))
            .collect();
        candidates.sort_by_key(|&pf| (want.near != Near::Any && local(pf) != Some(true), pf));
        let mut tried: Vec<usize> = Vec::new();
        for pf in candidates {
            let like = |&other: &usize| self.same_device(pf, other);
            if tried.iter().any(like) || !self.can_have(demand, pf, want.whole) {
                continue;
            }
            tried.push(pf);
            self.steps += 1;
            if self.steps > self.limit {
                return Go::Stop;
            }
            let before = self.used.groups[self.problem.pfs[pf].group];
            self.have(demand, pf, want.whole);
            choice.pfs.push(pf);
            let go = self.devices(demand, choice.clone());
            choice.pfs.pop();
            self.unhave(pf, want.whole, before);
            if go == Go::Stop {
                return Go::Stop;
            }
        }
        Go::On
    }

    fn can_have(&self, demand: &Demand, pf: usize, whole: bool) -> bool {
        let facts = &self.problem.pfs[pf];
        let group = self.used.groups[facts.group];
        if whole {
            let mine = matches!(group, Group::Given(slice) if slice == demand.slice);
            (group == Group::Free || mine) && !self.used.whole[pf]
        } else {
            matches!(group, Group::Free | Group::Split) && self.used.vfs[pf] < facts.vfs
        }
    }

    fn have(&mut self, demand: &Demand, pf: usize, whole: bool) {
        let group = &mut self.used.groups[self.problem.pfs[pf].group];
        if whole {
            *group = Group::Given(demand.slice);
            self.used.whole[pf] = true;
        } else {
            *group = Group::Split;
            self.used.vfs[pf] += 1;
        }
    }

    fn unhave(&mut self, pf: usize, whole: bool, group: Group) {
        self.used.groups[self.problem.pfs[pf].group] = group;
        if whole {
            self.used.whole[pf] = false;
        } else {
            self.used.vfs[pf] -= 1;
        }
    }

    /// Whether two functions differ in nothing that matters from here on.
    fn same_device(&self, a: usize, b: usize) -> bool {
        let (x, y) = (&self.problem.pfs[a], &self.problem.pfs[b]);
        x.kind == y.kind
            && self.used.vfs[a] == self.used.vfs[b]
            && self.used.whole[a] == self.used.whole[b]
            && self.used.groups[x.group] == self.used.groups[y.group]
    }

    fn take(&mut self, node: usize, take: &Take<'_>) -> bool {
        if self.relax.cores {
            return true;
        }
        if headroom::reaches(self.most_cores, &self.used, take) {
            return false;
        }
        let used = &mut self.used.cores[node];
        let free = &self.problem.cores[node];
        if (0..free.len()).any(|class| used[class] + take.cores(class) > free[class]) {
            return false;
        }
        for (class, used) in used.iter_mut().enumerate() {
            *used += take.cores(class);
        }
        if let Some(odd) = take.odd {
            let open = &mut self.used.open[node][odd.tenant];
            *open = if take.beside { *open - 1 } else { *open + 1 };
        }
        true
    }

    fn give_back(&mut self, node: usize, take: &Take<'_>) {
        if self.relax.cores {
            return;
        }
        for (class, used) in self.used.cores[node].iter_mut().enumerate() {
            *used -= take.cores(class);
        }
        if let Some(odd) = take.odd {
            let open = &mut self.used.open[node][odd.tenant];
            *open = if take.beside { *open + 1 } else { *open - 1 };
        }
    }

    /// Takes the memory of a demand at a site; whether it fits (else nothing is taken).
    fn remember(&mut self, demand: &Demand, choice: &Choice) -> bool {
        if self.relax.memory {
            return true;
        }
        let sizes = self.problem.memory.sizes.len();
        let nodes = &demand.sites[choice.site];
        for &node in nodes {
            self.used.memory[node][demand.page.unwrap_or(sizes)] += demand.memory;
        }
        let fits = nodes.iter().all(|&node| {
            let used = &self.used.memory[node];
            self.problem.memory.fits(node, &used[..sizes], used[sizes])
        });
        if !fits {
            self.forget(demand, choice);
        }
        fits
    }

    fn forget(&mut self, demand: &Demand, choice: &Choice) {
        if self.relax.memory {
            return;
        }
        let sizes = self.problem.memory.sizes.len();
        for &node in &demand.sites[choice.site] {
            self.used.memory[node][demand.page.unwrap_or(sizes)] -= demand.memory;
        }
    }
}

/// Choices by demand; demands that were not placed get an empty one.
pub(crate) fn in_order(order: &[usize], chosen: Vec<Choice>, count: usize) -> Vec<Choice> {
    let nothing = Choice {
        site: 0,
        vcpus: Vec::new(),
        pool: 0,
        pfs: Vec::new(),
    };
    let mut all = vec![nothing; count];
    for (&demand, choice) in order.iter().zip(chosen) {
        all[demand] = choice;
    }
    all
}
