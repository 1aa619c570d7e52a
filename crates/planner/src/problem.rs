//! The search problem: everything about one server and one spec, as numbers.
//!
//! Takes the server, its memory and devices, the spec and the plan that is followed; gives demands
//! and capacities. What stays where it is (planning rule 9) is taken out of the capacities here, so
//! that the search cannot move it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bmslice_model::CpuSet;
use bmslice_plan::{NicPlan, Plan, SlicePlan};
use bmslice_spec::SliceSpec;

use crate::demand::{Counts, Demand};
use crate::devices::{Devices, Near};
use crate::ground::Ground;
use crate::layout::{self, CellPlace};
use crate::memory::Memory;
use crate::pools::Pools;
use crate::refusal::Refusal;
use crate::search::{Group, SharedPool, Used};
use crate::server::{Core, Server};
use crate::siblings::Siblings;

/// A physical function, as far as the search needs it.
#[derive(Debug, Clone)]
pub(crate) struct PfFacts {
    pub group: usize,
    /// VFs that may be given.
    pub vfs: u32,
    /// By server index.
    pub node: Option<usize>,
    /// Functions of one number are interchangeable while their use is the same.
    pub kind: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// In the spec's order.
    pub demands: Vec<Demand>,
    /// Free cores by node and class.
    pub cores: Vec<Counts>,
    /// Of them so many stay free, on all nodes together.
    pub headroom: u32,
    pub memory: Memory,
    pub pfs: Vec<PfFacts>,
    pub groups: usize,
    /// By node and tenant: whether the tenant's pool is there already.
    pub pools: Vec<Vec<bool>>,
    /// By node and tenant: siblings that odd vCPUs of what stays leave open.
    pub open: Vec<Vec<u32>>,
    /// Nodes of one number are interchangeable while their use is the same.
    pub kinds: Vec<usize>,
}

/// Which slices stay where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Those that ask for the same cores.
    Cores,
    /// Of those, the ones that ask for the same memory and cards, too.
    Unchanged,
    /// As [`Keep::Unchanged`], but for this slice, by its index in the spec.
    AllBut(usize),
    /// None: everything may move.
    Nothing,
}

impl Keep {
    /// Whether a slice stays, `same` telling whether it asks for the same memory and cards.
    fn holds(self, slice: usize, same: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Cores => true,
            Self::Unchanged => same(),
            Self::AllBut(other) => slice != other && same(),
            Self::Nothing => false,
        }
    }
}

/// The problem, and the facts behind its numbers.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// Without the cores of what stays.
    pub server: Cow<'a, Server<'a>>,
    pub devices: Devices<'a>,
    pub problem: Problem,
    /// By slice: where it stays, when it stays.
    pub kept: Vec<Option<Vec<CellPlace>>>,
    pub pools: Pools,
    pub siblings: Siblings,
    /// L3 domains that are broken already: by the host's reserve or by what stays.
    pub broken: Vec<usize>,
}

impl<'a> Site<'a> {
    pub fn read(
        ground: &'a Ground<'a>,
        slices: &[&SliceSpec],
        keep: Keep,
    ) -> Result<Self, Refusal> {
        let previous = ground.previous;
        let mut server = Cow::Borrowed(&ground.server);
        let devices = Devices::read(ground, slices)?;
        let sizes = slices.iter().filter_map(|slice| slice.hugepages);
        let memory = Memory::read(&server, sizes, slices.len(), previous);
        let mut pools = Pools::of(slices);
        let mut siblings = Siblings::of(slices);
        let mut demands = Vec::with_capacity(slices.len());
        for (at, slice) in slices.iter().enumerate() {
            let wants = devices.wants[at].clone();
            let mut demand = Demand::read(at, slice, &server, &memory, wants)?;
            demand.shared = pools.tenant(slice);
            demand.odd = siblings.odd(slice, &server.classes);
            demands.push(demand);
        }
        let mut broken = server.taken_l3.clone();
        let mut kept = vec![None; slices.len()];
        for at in in_turn(slices, previous, &siblings) {
            let slice = slices[at];
            let was = previous.and_then(|plan| plan.slice(slice.name.as_str()));
            let was =
                was.filter(|was| keep.holds(at, || unchanged(slice, was, &demands[at], &devices)));
            let places =
                was.and_then(|was| stays(slice, was, server.to_mut(), &pools, &mut siblings));
            let Some(places) = places else {
                continue;
            };
            if let (Some(tenant), Some(first)) = (demands[at].shared, places.first()) {
                pools.keep(first.node, tenant, first.pool.clone());
            }
            broken.extend(places.iter().flat_map(CellPlace::cores).map(|core| core.l3));
            let nodes = places.iter().map(|place| place.node).collect();
            demands[at].keep(nodes, server.classes.len());
            kept[at] = Some(places);
        }
        broken.sort_unstable();
        broken.dedup();
        let mut problem = Problem::new(demands, &server, &devices, memory, &pools, &siblings);
        problem.headroom = ground.headroom();
        Ok(Self {
            server,
            devices,
            problem,
            kept,
            pools,
            siblings,
            broken,
        })
    }
}

/// The order in which slices are asked whether they stay. First those that may share a core and are
/// of the tenant that they were of: who asks for something else now gives way to who runs beside it.
fn in_turn(slices: &[&SliceSpec], previous: Option<&Plan>, siblings: &Siblings) -> Vec<usize> {
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|&at| {
        let was = previous.and_then(|plan| plan.slice(slices[at].name.as_str()));
        let same = was.is_some_and(|was| was.tenant == slices[at].tenant);
        !(same && siblings.tenant(slices[at]).is_some())
    });
    order
}

/// Whether a slice asks for the memory and the cards that it has.
fn unchanged(spec: &SliceSpec, was: &SlicePlan, demand: &Demand, devices: &Devices<'_>) -> bool {
    let functions = demand.wants.iter().all(|want| {
        let had = match was.nics.get(want.nic) {
            Some(NicPlan::Passthrough { device, .. }) if want.whole => device.address,
            Some(NicPlan::Vf { pf, .. }) if !want.whole => pf.address,
            _ => return false,
        };
        let mut candidates = want.candidates.iter();
        candidates.any(|&pf| devices.pfs[pf].address() == had)
    });
    spec.memory == was.memory
        && spec.hugepages == was.huge_pages
        && spec.nics.len() == was.nics.len()
        && functions
}

/// Where a slice stays: its cores are taken out of what is free. `None`, and nothing taken, when
/// what is asked now is not what it has, or it cannot stay there.
fn stays(
    spec: &SliceSpec,
    was: &SlicePlan,
    server: &mut Server<'_>,
    pools: &Pools,
    siblings: &mut Siblings,
) -> Option<Vec<CellPlace>> {
    // With another tenant it would share what is not its tenant's.
    if was.pool_is_shared && was.tenant != spec.tenant {
        return None;
    }
    let tenant = pools.tenant(spec);
    let sharing = siblings.tenant(spec);
    let before = siblings.clone();
    let free: Vec<Vec<Core>> = server.nodes.iter().map(|node| node.free.clone()).collect();
    let places = (|| {
        let mut places = Vec::new();
        for (number, cell) in was.cells.iter().enumerate() {
            let node = server.node_index(cell.node)?;
            let mut vcpus: CpuSet = cell
                .vcpus
                .iter()
                .filter_map(|vcpu| was.vcpus.get(vcpu.number() as usize).copied())
                .collect();
            let odd = sharing
                .and_then(|tenant| siblings.keep(&mut server.nodes[node], (node, tenant), &vcpus));
            if let Some(odd) = &odd {
                vcpus.remove(odd.cpu);
            }
            // A cell's idle siblings are on the cores of its vCPUs.
            let on = |core: &Core| core.threads.iter().any(|&cpu| vcpus.contains(cpu));
            let mut with_idle = CpuSet::new();
            for core in server.nodes[node].free.iter().filter(|core| on(core)) {
                with_idle.extend_from(&core.cpus());
            }
            let vcpu_cores = server.take(node, &with_idle)?;
            let pool = if number == 0 && !was.pool_is_host {
                match pools.kept_as(node, tenant, &was.pool()) {
                    Some(shared) => shared,
                    None => server.take(node, &was.pool())?,
                }
            } else {
                Vec::new()
            };
            places.push(CellPlace {
                node,
                vcpus: vcpu_cores,
                odd,
                pool,
            });
        }
        // The same cores must give the same slice: else something else is asked for now.
        let now = layout::lay_out(spec, &places, server)?;
        let same = now.vcpus == was.vcpus
            && now.topology == was.topology
            && now.emulator == was.emulator
            && now.iothreads == was.iothreads
            && now.pool_is_host == was.pool_is_host
            && now.pool_is_shared == was.pool_is_shared
            && now.siblings() == was.siblings()
            && now.nodes_and_vcpus() == layout::nodes_and_vcpus(&was.cells)
            && layout::suits(spec, &places, server)
            && was.smt == spec.smt;
        same.then_some(places)
    })();
    if places.is_none() {
        for (node, free) in server.nodes.iter_mut().zip(free) {
            node.free = free;
        }
        *siblings = before;
    }
    places
}

impl Problem {
    fn new(
        demands: Vec<Demand>,
        server: &Server<'_>,
        devices: &Devices<'_>,
        memory: Memory,
        pools: &Pools,
        siblings: &Siblings,
    ) -> Self {
        let cores = server
            .nodes
            .iter()
            .map(|node| counts(&node.free, server.classes.len()))
            .collect();
        let mut kinds = BTreeMap::new();
        let pfs: Vec<PfFacts> = devices
            .pfs
            .iter()
            .enumerate()
            .map(|(at, pf)| {
                let wanted: Vec<(usize, usize)> = demands
                    .iter()
                    .flat_map(|demand| demand.wants.iter().map(move |want| (demand.slice, want)))
                    .filter(|(_, want)| want.candidates.contains(&at))
                    .map(|(slice, want)| (slice, want.nic))
                    .collect();
                let alone = devices.pfs.iter().filter(|p| p.group == pf.group).count() == 1;
                // Of a group of several, each is a kind of its own.
                let own = (!alone).then_some(at);
                let key = (pf.node, pf.vfs.len(), own, wanted);
                let next = kinds.len();
                PfFacts {
                    group: pf.group,
                    vfs: u32::try_from(pf.vfs.len()).unwrap_or(u32::MAX),
                    node: pf.node.and_then(|id| server.node_index(id)),
                    kind: *kinds.entry(key).or_insert(next),
                }
            })
            .collect();
        let mut problem = Self {
            demands,
            cores,
            headroom: 0,
            memory,
            pfs,
            groups: devices.groups,
            pools: (0..server.nodes.len())
                .map(|node| {
                    let there = |tenant| pools.kept(node, tenant).is_some();
                    (0..pools.len()).map(there).collect()
                })
                .collect(),
            open: (0..server.nodes.len())
                .map(|node| {
                    let open = |tenant| siblings.open(node, tenant).len();
                    (0..siblings.len())
                        .map(|tenant| u32::try_from(open(tenant)).unwrap_or(u32::MAX))
                        .collect()
                })
                .collect(),
            kinds: Vec::new(),
        };
        problem.kinds = problem.node_kinds(server);
        problem
    }

    /// Numbers nodes such that those of one number are interchangeable.
    fn node_kinds(&self, server: &Server<'_>) -> Vec<usize> {
        let count = server.nodes.len();
        let mut kinds = Vec::new();
        (0..count)
            .map(|node| {
                let classes = server.classes.len();
                let mut domains: BTreeMap<usize, Counts> = BTreeMap::new();
                for core in &server.nodes[node].free {
                    let counts = domains.entry(core.l3).or_insert_with(|| vec![0; classes]);
                    counts[core.class] += 1;
                }
                let mut shape: Vec<Counts> = domains.into_values().collect();
                shape.sort_unstable();
                // Somebody may care for just this node: its number, or a device on it.
                let singled_out = self.demands.iter().any(|demand| {
                    let some = demand.sites.iter().any(|site| site.contains(&node));
                    let every =
                        (0..count).all(|n| demand.sites.iter().any(|site| site.contains(&n)));
                    let by_device = demand.wants.iter().any(|want| {
                        want.near != Near::Any
                            && want
                                .candidates
                                .iter()
                                .any(|&pf| self.pfs[pf].node == Some(node))
                    });
                    (some && !every) || by_device
                });
                // Where a sibling is open matters, too: to which L3 it belongs.
                let singled_out = singled_out || self.open[node].iter().any(|&open| open > 0);
                let pools = &self.pools[node];
                let key = (shape, self.room(node), pools, singled_out.then_some(node));
                kinds
                    .iter()
                    .position(|kind| *kind == key)
                    .unwrap_or_else(|| {
                        kinds.push(key);
                        kinds.len() - 1
                    })
            })
            .collect()
    }

    /// What tells a node's memory from another's. When all ask for pages of one size, only whole
    /// pages count: no two nodes have the same number of bytes.
    fn room(&self, node: usize) -> Vec<u64> {
        let mut pages: Vec<Option<usize>> = self.demands.iter().map(|demand| demand.page).collect();
        pages.sort_unstable();
        pages.dedup();
        if let [Some(page)] = pages[..] {
            return vec![self.memory.most(node, Some(page)).bytes()];
        }
        let facts = &self.memory.nodes[node];
        let pools = facts
            .pools
            .iter()
            .flat_map(|pool| [pool.existing, pool.foreign]);
        let allowed = u64::from(facts.allowed);
        [facts.total, facts.kept, allowed]
            .into_iter()
            .chain(pools)
            .collect()
    }

    pub fn nothing_used(&self) -> Used {
        Used {
            cores: self.cores.iter().map(|free| vec![0; free.len()]).collect(),
            memory: vec![vec![0; self.memory.sizes.len() + 1]; self.cores.len()],
            vfs: vec![0; self.pfs.len()],
            whole: vec![false; self.pfs.len()],
            groups: vec![Group::Free; self.groups],
            pools: self
                .pools
                .iter()
                .map(|node| {
                    let users = |&there: &bool| SharedPool {
                        users: u32::from(there),
                        take: 0,
                    };
                    node.iter().map(users).collect()
                })
                .collect(),
            open: self.open.clone(),
        }
    }

    /// Whether a function lies on one of the nodes; `None` when firmware does not tell.
    pub fn local(&self, pf: usize, nodes: &[usize]) -> Option<bool> {
        self.pfs[pf].node.map(|node| nodes.contains(&node))
    }
}

/// How many cores of each class.
fn counts(cores: &[Core], classes: usize) -> Counts {
    let mut counts = vec![0; classes];
    for core in cores {
        counts[core.class] += 1;
    }
    counts
}
