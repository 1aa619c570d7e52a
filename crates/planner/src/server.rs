//! A server as the planner sees it: which whole cores may be taken, on which node and L3 domain.
//!
//! Takes an inventory and the host's own share; gives the host's CPUs and, per NUMA node, the
//! cores that slices may have. Keeps true: a core is offered only whole, and only when each of its
//! online threads is allowed, not the host's, and not pinned by somebody else's running domain.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_inventory::{CacheKind, DomainFacts, Inventory};
use bmslice_model::{CpuId, CpuSet, NumaNodeId, PciAddress, SliceName};
use bmslice_plan::Plan;
use bmslice_spec::{HostSpec, Isolation, SliceSpec};

use crate::identity;
use crate::refusal::Refusal;

/// A core: its online threads, lowest first, and what it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Core {
    pub threads: Vec<CpuId>,
    /// Index of its L3 domain, unique in the server.
    pub l3: usize,
    /// Index into [`Server::classes`].
    pub class: usize,
}

impl Core {
    pub fn first(&self) -> CpuId {
        self.threads[0]
    }

    pub fn cpus(&self) -> CpuSet {
        self.threads.iter().copied().collect()
    }
}

/// A NUMA node and what of it may be taken.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub id: NumaNodeId,
    /// Cores for taking, by lowest CPU.
    pub free: Vec<Core>,
    /// How many cores of the host's reserve lie here.
    pub reserved: usize,
    /// Cores that a cpuset keeps from this process, wholly or in part.
    pub barred: Vec<Core>,
}

/// A running domain that is nobody's in this plan.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    pub name: String,
    /// The CPUs that it is pinned to; empty when it may run anywhere.
    pub cpus: CpuSet,
    pub devices: Vec<PciAddress>,
}

#[derive(Debug, Clone)]
pub(crate) struct Server<'a> {
    pub inventory: &'a Inventory,
    /// By node number.
    pub nodes: Vec<Node>,
    /// The different numbers of threads in a core, largest first; almost always one.
    pub classes: Vec<usize>,
    /// The host's reserve.
    pub host: CpuSet,
    pub online: CpuSet,
    /// Online CPUs that a cpuset of somebody else keeps from this process: neither slices nor the
    /// host's isolation may count on them.
    pub kept_away: CpuSet,
    pub foreign: Vec<Foreign>,
    /// Whether a domain of this plan is already running.
    pub own_running: BTreeSet<String>,
    /// Nodes whose reserve is smaller than asked, because others hold the cores there.
    pub short_reserve: Vec<NumaNodeId>,
    /// L3 domains with a core that is not for taking; may repeat.
    pub taken_l3: Vec<usize>,
}

impl<'a> Server<'a> {
    pub fn read(
        host: &HostSpec,
        slices: &[&SliceSpec],
        inventory: &'a Inventory,
        previous: Option<&Plan>,
    ) -> Result<Self, Refusal> {
        let online: CpuSet = inventory
            .cpus
            .iter()
            .filter(|cpu| cpu.online)
            .map(|cpu| cpu.id)
            .collect();
        let Some(boot_cpu) = online.first() else {
            return Err(Refusal::NoCpus {
                hostname: inventory.machine.hostname.clone(),
            });
        };
        let machine = &inventory.machine;
        // Older inventories do not say; then it is what all of them were.
        if !machine.architecture.is_empty() && machine.architecture != "x86_64" {
            return Err(Refusal::Architecture {
                hostname: machine.hostname.clone(),
                architecture: machine.architecture.clone(),
            });
        }
        let (foreign, own_running) = domains(slices, inventory, previous, &online)?;
        let all = cores(inventory, &online);
        let classes: Vec<usize> = all
            .iter()
            .map(|(core, _)| core.threads.len())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .rev()
            .collect();
        let allowed = allowed(inventory, previous);
        let usable = foreign
            .iter()
            .fold(allowed.intersection(&online), |cpus, domain| {
                cpus.difference(&domain.cpus)
            });

        let mut nodes: Vec<Node> = node_ids(inventory)
            .into_iter()
            .map(|id| Node {
                id,
                free: Vec::new(),
                reserved: 0,
                barred: Vec::new(),
            })
            .collect();
        let mut total = vec![0; nodes.len()];
        let mut boot_core = None;
        let mut taken_l3 = Vec::new();
        for (mut core, node) in all {
            core.class = classes
                .iter()
                .position(|&threads| threads == core.threads.len())
                .unwrap_or_default();
            let at = nodes.iter().position(|n| n.id == node).unwrap_or_default();
            total[at] += 1;
            if core.threads.contains(&boot_cpu) {
                taken_l3.push(core.l3);
                boot_core = Some((at, core));
            } else if core.cpus().is_subset(&usable) {
                nodes[at].free.push(core);
            } else {
                taken_l3.push(core.l3);
                let held = |domain: &Foreign| !core.cpus().is_disjoint(&domain.cpus);
                if !core.cpus().is_subset(&allowed) && !foreign.iter().any(held) {
                    nodes[at].barred.push(core);
                }
            }
        }
        let mut server = Self {
            inventory,
            nodes,
            classes,
            host: CpuSet::new(),
            kept_away: online.difference(&allowed),
            online,
            foreign,
            own_running,
            short_reserve: Vec::new(),
            taken_l3,
        };
        let boot_node = boot_core.as_ref().map_or(0, |(at, _)| *at);
        if let Some((at, core)) = boot_core {
            server.host.extend_from(&core.cpus());
            server.nodes[at].reserved = 1;
        }
        let before: Vec<Vec<Core>> = server.nodes.iter().map(|node| node.free.clone()).collect();
        let taken = server.taken_l3.len();
        server.reserve(host, boot_node, &total)?;
        if let Some(plan) = previous {
            server.keep_reserve(&plan.host().cpus, before, taken);
        }
        Ok(server)
    }

    /// Leaves the host the cores that it has, when they are as many on each node as it is to have:
    /// moving it would cost a reboot and gain nothing.
    fn keep_reserve(&mut self, had: &CpuSet, before: Vec<Vec<Core>>, taken: usize) {
        let is_had = |core: &Core| core.cpus().is_subset(had);
        let fixed = before
            .iter()
            .flatten()
            .fold(self.host.clone(), |fixed, core| {
                fixed.difference(&core.cpus())
            });
        // The boot CPU's core was never for taking.
        let boot_cores = |node: &Node, free: &[Core]| {
            let taken = free.iter().filter(|core| !node.free.contains(core)).count();
            node.reserved - taken
        };
        let mut all = fixed;
        for (node, free) in self.nodes.iter().zip(&before) {
            let mine: Vec<&Core> = free.iter().filter(|core| is_had(core)).collect();
            if mine.len() + boot_cores(node, free) != node.reserved {
                return;
            }
            for core in mine {
                all.extend_from(&core.cpus());
            }
        }
        if all != *had {
            return;
        }
        self.taken_l3.truncate(taken);
        for (node, free) in self.nodes.iter_mut().zip(before) {
            let (mine, rest) = free.into_iter().partition(is_had);
            node.free = rest;
            let mine: Vec<Core> = mine;
            self.taken_l3.extend(mine.iter().map(|core| core.l3));
        }
        self.host = all;
    }

    /// Takes the host's reserve out of what is free: CPU 0's core, then the lowest numbers.
    fn reserve(&mut self, host: &HostSpec, boot: usize, total: &[usize]) -> Result<(), Refusal> {
        let asked = host.reserve_cores.max(1) as usize;
        if host.reserve_per_numa {
            for (at, &there) in total.iter().enumerate() {
                // A node without CPUs (memory only, or all offline) has nothing to reserve.
                if there == 0 {
                    continue;
                }
                if there < asked {
                    return Err(Refusal::Reserve {
                        asked: host.reserve_cores,
                        of: format!("on each NUMA node; node {}", self.nodes[at].id),
                        has: there,
                    });
                }
                self.take_for_host(at, asked);
                if self.nodes[at].reserved < asked {
                    self.short_reserve.push(self.nodes[at].id);
                }
            }
            return Ok(());
        }
        let there: usize = total.iter().sum();
        if there < asked {
            return Err(Refusal::Reserve {
                asked: host.reserve_cores,
                of: "in all; the server".into(),
                has: there,
            });
        }
        // Near CPU 0 first: the host's own work stays on one node as long as it can.
        let others = (0..self.nodes.len()).filter(|&at| at != boot);
        let mut left = asked - self.nodes[boot].reserved;
        for at in std::iter::once(boot).chain(others.collect::<Vec<_>>()) {
            let before = self.nodes[at].reserved;
            self.take_for_host(at, before + left);
            left -= self.nodes[at].reserved - before;
        }
        if left > 0 {
            self.short_reserve.push(self.nodes[boot].id);
        }
        Ok(())
    }

    fn take_for_host(&mut self, at: usize, until: usize) {
        let node = &mut self.nodes[at];
        let count = until.saturating_sub(node.reserved).min(node.free.len());
        for core in node.free.drain(..count) {
            self.host.extend_from(&core.cpus());
            self.taken_l3.push(core.l3);
        }
        node.reserved += count;
        // Only where nothing else is left: a cpuset keeps these from slices, and so for the host.
        let count = until.saturating_sub(node.reserved).min(node.barred.len());
        for core in node.barred.drain(..count) {
            self.host.extend_from(&core.cpus());
        }
        node.reserved += count;
    }

    /// Takes a slice's cores out of what is free: those of these CPUs on this node. `None`, and
    /// nothing taken, when they are not just whole free cores of it.
    pub fn take(&mut self, at: usize, cpus: &CpuSet) -> Option<Vec<Core>> {
        let node = &mut self.nodes[at];
        let (mine, rest): (Vec<Core>, Vec<Core>) = node
            .free
            .iter()
            .cloned()
            .partition(|core| core.cpus().is_subset(cpus));
        let all: usize = mine.iter().map(|core| core.threads.len()).sum();
        if all != cpus.len() {
            return None;
        }
        node.free = rest;
        Some(mine)
    }

    pub fn node_index(&self, id: NumaNodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// The node of a device. On a server of one node firmware often tells none, and there is
    /// nothing else that it could be.
    pub fn device_node(&self, told: Option<NumaNodeId>) -> Option<NumaNodeId> {
        match (told, self.nodes.as_slice()) {
            (Some(id), _) => Some(id),
            (None, [only]) => Some(only.id),
            (None, _) => None,
        }
    }
}

/// Whether two texts of a UUID are the same.
fn same_uuid(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// The domains that libvirt knows.
pub(crate) fn domains_of(inventory: &Inventory) -> &[DomainFacts] {
    let libvirt = inventory.hypervisor.libvirt.as_ref();
    libvirt.map_or(&[], |libvirt| &libvirt.domains)
}

/// Whether the plan in force made a domain.
pub(crate) fn is_planned(domain: &DomainFacts, previous: Option<&Plan>) -> bool {
    let slice = previous.and_then(|plan| plan.slice(&domain.name));
    slice.is_some_and(|slice| same_uuid(&slice.uuid, &domain.uuid))
}

/// Running domains that are not this plan's, and the names of those that are.
fn domains(
    slices: &[&SliceSpec],
    inventory: &Inventory,
    previous: Option<&Plan>,
    online: &CpuSet,
) -> Result<(Vec<Foreign>, BTreeSet<String>), Refusal> {
    let mut foreign = Vec::new();
    let mut own = BTreeSet::new();
    for domain in domains_of(inventory) {
        let planned = is_planned(domain, previous);
        let wanted = slices
            .iter()
            .find(|slice| slice.name.as_str() == domain.name);
        if let Some(slice) = wanted
            && !planned
            && !same_uuid(&uuid_of(inventory, &slice.name), &domain.uuid)
        {
            return Err(Refusal::NameTaken {
                slice: slice.name.clone(),
                uuid: domain.uuid.clone(),
            });
        }
        if !domain.running {
            continue;
        }
        if planned || wanted.is_some() {
            own.insert(domain.name.clone());
            continue;
        }
        // A domain without pins may run on every CPU: it holds none of them.
        let cpus = if online.is_subset(&domain.cpus) {
            CpuSet::new()
        } else {
            domain.cpus.clone()
        };
        foreign.push(Foreign {
            name: domain.name.clone(),
            cpus,
            devices: domain.devices.clone(),
        });
    }
    Ok((foreign, own))
}

fn uuid_of(inventory: &Inventory, slice: &SliceName) -> String {
    identity::uuid(&inventory.machine.hostname, slice)
}

/// The CPUs that this process may use, or may not only because the previous plan is in force.
fn allowed(inventory: &Inventory, previous: Option<&Plan>) -> CpuSet {
    // A cgroup partition takes its CPUs away from everybody else's groups, so that once it is in
    // force they are "not allowed" to whoever looks. They are kept free for just what is planned.
    let kept_free = previous
        .map(Plan::host)
        .filter(|host| host.isolation == Isolation::Dynamic)
        .map(|host| &host.isolated);
    inventory
        .cpus
        .iter()
        .filter(|cpu| cpu.allowed || kept_free.is_some_and(|kept| kept.contains(cpu.id)))
        .map(|cpu| cpu.id)
        .collect()
}

fn node_ids(inventory: &Inventory) -> Vec<NumaNodeId> {
    let mut ids: BTreeSet<NumaNodeId> = inventory.nodes.iter().map(|node| node.id).collect();
    if ids.is_empty() {
        ids.insert(NumaNodeId(0));
    }
    ids.into_iter().collect()
}

/// Every core with an online thread, by lowest CPU, with its node. The class is set later.
fn cores(inventory: &Inventory, online: &CpuSet) -> Vec<(Core, NumaNodeId)> {
    let fallback = node_ids(inventory)[0];
    let mut node_of: BTreeMap<CpuId, NumaNodeId> = BTreeMap::new();
    for node in &inventory.nodes {
        node_of.extend(node.cpus.iter().map(|cpu| (cpu, node.id)));
    }
    let mut l3_of: BTreeMap<CpuId, usize> = BTreeMap::new();
    let shared = inventory
        .caches
        .iter()
        .filter(|cache| cache.level == 3 && cache.kind != CacheKind::Instruction);
    let mut domains = 0;
    for cache in shared {
        l3_of.extend(cache.cpus.iter().map(|cpu| (cpu, domains)));
        domains += 1;
    }
    // Cores whose L3 nobody told share one with the rest of their node.
    let untold = domains;
    let mut seen = CpuSet::new();
    let mut all = Vec::new();
    for cpu in inventory.cpus.iter().filter(|cpu| cpu.online) {
        if seen.contains(cpu.id) {
            continue;
        }
        let mut threads = cpu.siblings.intersection(online).difference(&seen);
        threads.insert(cpu.id);
        seen.extend_from(&threads);
        let told = cpu.node.or_else(|| node_of.get(&cpu.id).copied());
        let node = told
            .filter(|id| inventory.nodes.iter().any(|node| node.id == *id))
            .unwrap_or(fallback);
        let l3 = l3_of
            .get(&cpu.id)
            .copied()
            .unwrap_or(untold + node.0 as usize);
        let core = Core {
            threads: threads.iter().collect(),
            l3,
            class: 0,
        };
        all.push((core, node));
    }
    all.sort_by_key(|(core, _)| core.first());
    all
}
