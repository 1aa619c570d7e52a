//! The tree that both pictures are drawn from.
//!
//! A thread stands in its package, its node, its last cache and its core. Where a node spans
//! packages, or a cache spans nodes, it appears in each of them and says that it is a part: nothing
//! is forced into a tree that is none.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_inventory::{Cache, CacheKind, Inventory, PciFunction};
use bmslice_model::{ByteSize, CpuId, CpuSet, NumaNodeId, count};
use bmslice_plan::{NicPlan, Plan};

use crate::owner::{Owner, Owners, letter};

/// A server from above.
#[derive(Debug, Clone)]
pub struct Floor {
    /// The server's name and what it is.
    pub title: String,
    /// Sockets, with all that has CPUs.
    pub packages: Vec<Package>,
    /// Nodes without CPUs.
    pub memory: Vec<String>,
    /// Root complexes whose node firmware does not tell.
    pub elsewhere: Vec<RootComplex>,
    /// Slices or guests and their tenants, by the numbers of their owners.
    pub names: Vec<(String, Option<String>)>,
    /// What the labels mean: slices, then the rest.
    pub legend: Vec<(Owner, String)>,
}

/// A socket.
#[derive(Debug, Clone)]
pub struct Package {
    /// `socket 0`.
    pub title: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A NUMA node, as far as it lies in the package.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node 0, 94 GiB`.
    pub title: String,
    /// Groups of cores that share the last cache.
    pub domains: Vec<Domain>,
    /// PCI devices that are local to it.
    pub complexes: Vec<RootComplex>,
}

/// Cores that share a last-level cache, as far as they lie in the node.
#[derive(Debug, Clone)]
pub struct Domain {
    /// `L3 32 MiB`; empty where no cache is told.
    pub title: String,
    /// Its cores.
    pub cores: Vec<Core>,
}

/// A core.
#[derive(Debug, Clone)]
pub struct Core {
    /// Its threads, by number.
    pub threads: Vec<Thread>,
}

/// A thread.
#[derive(Debug, Clone)]
pub struct Thread {
    /// Its number.
    pub cpu: CpuId,
    /// Who has it.
    pub owner: Owner,
}

/// Devices behind one host bridge.
#[derive(Debug, Clone)]
pub struct RootComplex {
    /// `PCI 0000:40`: the root bus.
    pub title: String,
    /// What is there, bridges left out and virtual functions counted.
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Address first, then what it is, then what is made of it.
    pub lines: Vec<String>,
    /// Who has it.
    pub owner: Owner,
}

impl Floor {
    /// Of a server, as it is or as it is planned.
    #[must_use]
    pub fn of(inventory: &Inventory, plan: Option<&Plan>) -> Self {
        let owners = Owners::of(inventory, plan);
        let caches = last_caches(inventory);
        let mut packages: BTreeMap<Option<u32>, BTreeMap<Option<NumaNodeId>, Vec<CpuId>>> =
            BTreeMap::new();
        for cpu in &inventory.cpus {
            let nodes = packages.entry(cpu.package).or_default();
            nodes.entry(cpu.node).or_default().push(cpu.id);
        }
        let mut complexes = root_complexes(inventory, plan, &owners);
        let mut drawn: BTreeSet<NumaNodeId> = BTreeSet::new();
        let spans = |node: NumaNodeId| {
            packages
                .values()
                .filter(|n| n.contains_key(&Some(node)))
                .count()
                > 1
        };
        let mut all = Vec::new();
        for (package, nodes) in &packages {
            let mut inside = Vec::new();
            for (node, cpus) in nodes {
                let title = match node {
                    Some(node) => node_title(inventory, *node, spans(*node)),
                    None => "no node told".into(),
                };
                // A node that spans packages has its devices with its first part.
                let first = node.is_none_or(|node| drawn.insert(node));
                let complexes = match node {
                    Some(node) if first => complexes.remove(&Some(*node)).unwrap_or_default(),
                    _ => Vec::new(),
                };
                inside.push(Node {
                    title,
                    domains: domains(inventory, cpus, &caches, &owners),
                    complexes,
                });
            }
            all.push(Package {
                title: package.map_or("no socket told".into(), |id| format!("socket {id}")),
                nodes: inside,
            });
        }
        let memory = inventory
            .nodes
            .iter()
            .filter(|node| node.cpus.is_empty() && !drawn.contains(&node.id))
            .map(|node| format!("{}, no CPUs", node_title(inventory, node.id, false)))
            .collect();
        let mut floor = Self {
            title: title(inventory),
            packages: all,
            memory,
            elsewhere: complexes.into_values().flatten().collect(),
            names: owners.names.clone(),
            legend: Vec::new(),
        };
        floor.legend = floor.legend(&owners, plan.is_some());
        floor
    }

    /// Every thread of the floor, in its order.
    pub fn threads(&self) -> impl Iterator<Item = &Thread> {
        let nodes = self.packages.iter().flat_map(|package| &package.nodes);
        let domains = nodes.flat_map(|node| &node.domains);
        let cores = domains.flat_map(|domain| &domain.cores);
        cores.flat_map(|core| &core.threads)
    }

    /// Every device of the floor, in its order.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        let nodes = self.packages.iter().flat_map(|package| &package.nodes);
        let complexes = nodes
            .flat_map(|node| &node.complexes)
            .chain(&self.elsewhere);
        complexes.flat_map(|complex| &complex.devices)
    }

    fn legend(&self, owners: &Owners, planned: bool) -> Vec<(Owner, String)> {
        let used: BTreeSet<&Owner> = self
            .threads()
            .map(|thread| &thread.owner)
            .chain(self.devices().map(|device| &device.owner))
            .collect();
        let mut legend = Vec::new();
        for (index, (name, tenant)) in owners.names.iter().enumerate() {
            let tenant = tenant.as_ref().map_or(String::new(), |t| format!(" ({t})"));
            let letter = letter(index);
            if !planned {
                let text = format!("{letter}: guest {name}, which runs now");
                legend.push((Owner::Domain { domain: index }, text));
                continue;
            }
            let mut parts = vec![format!("{letter}: slice {name}{tenant}")];
            parts.push(format!("{letter}0, {letter}1, … its vCPUs"));
            parts.extend(owners.beside(index));
            legend.push((
                Owner::Vcpu {
                    slice: index,
                    vcpu: 0,
                },
                parts.join("; "),
            ));
            for (owner, text) in [
                (
                    Owner::Emulator { slice: index },
                    "its emulator and IOThreads",
                ),
                (
                    Owner::SharedPool { slice: index },
                    "emulators and IOThreads of its tenant's slices",
                ),
                (Owner::Idle { slice: index }, "its siblings that stay idle"),
            ] {
                if used.contains(&owner) {
                    legend.push((owner.clone(), format!("{}: {text}", owner.label())));
                }
            }
        }
        for (owner, text) in [
            (Owner::Host, "host: the host's own"),
            (Owner::Free, "free: nobody's"),
            (Owner::Isolated, "iso: isolated from the host's work"),
            (Owner::Offline, "off: offline"),
        ] {
            if used.contains(&owner) {
                legend.push((owner, text.into()));
            }
        }
        legend
    }
}

fn title(inventory: &Inventory) -> String {
    let machine = &inventory.machine;
    let mut parts = vec![machine.hostname.clone()];
    parts.extend(machine.product.clone());
    parts.extend(machine.cpu_model.clone());
    let online = inventory.cpus.iter().filter(|cpu| cpu.online).count();
    parts.push(count(online, "CPU"));
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// `94 GiB`, `512 MiB`.
fn human(size: ByteSize) -> String {
    let mib = size.bytes() >> 20;
    if mib >= 10 * 1024 {
        format!("{} GiB", (mib + 512) / 1024)
    } else if mib >= 1024 {
        let tenths = (mib * 10 + 512) / 1024;
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    } else if mib > 0 {
        format!("{mib} MiB")
    } else {
        format!("{} KiB", size.bytes() >> 10)
    }
}

fn node_title(inventory: &Inventory, id: NumaNodeId, part: bool) -> String {
    let found = inventory.nodes.iter().find(|node| node.id == id);
    let memory = match found {
        Some(node) if node.memory_total > ByteSize::ZERO => human(node.memory_total),
        _ => "no memory".into(),
    };
    let part = if part { " (a part)" } else { "" };
    format!("node {id}{part}, {memory}")
}

/// The caches of the highest level that is told, data or unified.
fn last_caches(inventory: &Inventory) -> Vec<Cache> {
    let holds_data = |cache: &&Cache| cache.kind != CacheKind::Instruction;
    let level = |cpus: &CpuSet| {
        let of_cpu = inventory.caches.iter().filter(holds_data);
        of_cpu
            .filter(|cache| !cache.cpus.is_disjoint(cpus))
            .map(|cache| cache.level)
            .max()
    };
    // Per cache, not per server: a hybrid's small cores may have one level less.
    inventory
        .caches
        .iter()
        .filter(holds_data)
        .filter(|cache| level(&cache.cpus) == Some(cache.level))
        .cloned()
        .collect()
}

fn domains(
    inventory: &Inventory,
    cpus: &[CpuId],
    caches: &[Cache],
    owners: &Owners,
) -> Vec<Domain> {
    let set: CpuSet = cpus.iter().copied().collect();
    let mut left = set.clone();
    let mut domains = Vec::new();
    for cache in caches {
        let here = cache.cpus.intersection(&left);
        if here.is_empty() {
            continue;
        }
        left = left.difference(&here);
        let part = if here.len() < cache.cpus.len() {
            ", a part"
        } else {
            ""
        };
        let size = cache
            .size
            .map_or(String::new(), |size| format!(" {}", human(size)));
        domains.push(Domain {
            title: format!("L{}{size}{part}", cache.level),
            cores: cores(inventory, &here, owners),
        });
    }
    if !left.is_empty() {
        let title = if domains.is_empty() {
            ""
        } else {
            "no cache told"
        };
        domains.push(Domain {
            title: title.into(),
            cores: cores(inventory, &left, owners),
        });
    }
    // A core alone with its cache says nothing that the core does not.
    if domains.len() > 1 && domains.iter().all(|domain| domain.cores.len() == 1) {
        let cores = domains
            .into_iter()
            .flat_map(|domain| domain.cores)
            .collect();
        return vec![Domain {
            title: String::new(),
            cores,
        }];
    }
    domains
}

fn cores(inventory: &Inventory, cpus: &CpuSet, owners: &Owners) -> Vec<Core> {
    let mut left = cpus.clone();
    let mut cores = Vec::new();
    for cpu in inventory.cpus.iter().filter(|cpu| cpus.contains(cpu.id)) {
        if !left.contains(cpu.id) {
            continue;
        }
        let mut threads = cpu.siblings.intersection(&left);
        threads.insert(cpu.id);
        left = left.difference(&threads);
        let threads = threads.iter().map(|cpu| Thread {
            cpu,
            owner: owners.thread(cpu),
        });
        cores.push(Core {
            threads: threads.collect(),
        });
    }
    cores
}

/// What is worth a box: what can be given away, and what the host sits on.
fn is_drawn(function: &PciFunction) -> bool {
    let class = function.class.trim_start_matches("0x");
    let of_interest = ["01", "02", "03", "0b", "0c06", "12", "108000", "0280"];
    !function.is_bridge()
        && !function.is_vf()
        && (of_interest.iter().any(|prefix| class.starts_with(prefix))
            || function.sriov.is_some()
            || !function.host_needs.is_empty())
}

fn root_complexes(
    inventory: &Inventory,
    plan: Option<&Plan>,
    owners: &Owners,
) -> BTreeMap<Option<NumaNodeId>, Vec<RootComplex>> {
    let mut found: BTreeMap<Option<NumaNodeId>, BTreeMap<String, Vec<Device>>> = BTreeMap::new();
    let known: BTreeSet<NumaNodeId> = inventory.cpus.iter().filter_map(|cpu| cpu.node).collect();
    for function in inventory.pci.iter().filter(|function| is_drawn(function)) {
        let root = function
            .upstream
            .first()
            .unwrap_or(&function.address)
            .to_string();
        // `0000:40:01.0` is on root bus `0000:40`.
        let bus = root
            .rsplit_once(':')
            .map_or(root.as_str(), |(bus, _)| bus)
            .to_owned();
        // The only node is everybody's, said or not.
        let only = (known.len() == 1).then(|| known.first().copied()).flatten();
        let node = function.node.filter(|node| known.contains(node)).or(only);
        let devices = found.entry(node).or_default().entry(bus).or_default();
        devices.push(device(function, inventory, plan, owners));
    }
    found
        .into_iter()
        .map(|(node, buses)| {
            let complexes = buses.into_iter().map(|(bus, devices)| RootComplex {
                title: format!("PCI {bus}"),
                devices,
            });
            (node, complexes.collect())
        })
        .collect()
}

fn device(
    function: &PciFunction,
    inventory: &Inventory,
    plan: Option<&Plan>,
    owners: &Owners,
) -> Device {
    let mut lines = vec![function.address.to_string()];
    let name = function
        .interfaces
        .first()
        .cloned()
        .or_else(|| kind(function).map(str::to_owned));
    lines.extend(name.or_else(|| function.name.clone()));
    let taken = virtual_functions(function, inventory, plan, owners);
    let planned = plan
        .and_then(|plan| {
            plan.host()
                .split
                .iter()
                .find(|split| split.device.address == function.address)
        })
        .map(|split| split.vfs);
    let vfs = planned.or(function.sriov.as_ref().map(|sriov| sriov.current));
    if let Some(vfs) = vfs.filter(|vfs| *vfs > 0) {
        let whose = if taken.is_empty() {
            String::new()
        } else {
            format!(": {}", taken.join(" "))
        };
        lines.push(format!("{}{whose}", count(vfs, "VF")));
    }
    Device {
        lines,
        owner: owners.device(function),
    }
}

/// Who has its virtual functions, by letter.
fn virtual_functions(
    function: &PciFunction,
    inventory: &Inventory,
    plan: Option<&Plan>,
    owners: &Owners,
) -> Vec<String> {
    let mut taken = Vec::new();
    if let Some(plan) = plan {
        // A planned VF may not exist yet.
        for (index, slice) in plan.slices().iter().enumerate() {
            for nic in &slice.nics {
                if matches!(nic, NicPlan::Vf { pf, .. } if pf.address == function.address) {
                    taken.push(letter(index));
                }
            }
        }
        return taken;
    }
    for vf in inventory
        .pci
        .iter()
        .filter(|vf| vf.physfn == Some(function.address))
    {
        taken.extend(owners.device(vf).party().map(letter));
    }
    taken
}

fn kind(function: &PciFunction) -> Option<&'static str> {
    let class = function.class.trim_start_matches("0x");
    [
        ("0108", "NVMe"),
        ("01", "storage"),
        ("0207", "InfiniBand"),
        ("02", "network"),
        ("03", "display"),
        ("0b40", "coprocessor"),
        ("12", "accelerator"),
    ]
    .iter()
    .find(|(prefix, _)| class.starts_with(prefix))
    .map(|(_, kind)| *kind)
}
