//! An inventory against hwloc's reading, topic by topic.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_inventory::{CacheKind, Inventory, NumaNode};
use bmslice_model::CpuSet;

use crate::hwloc::{Kind, Reading, printed};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Which threads there are.
    Threads,
    Cores,
    /// Which cores are of another kind than others.
    Kinds,
    Dies,
    Packages,
    Caches,
    CacheSizes,
    /// Which nodes there are.
    Nodes,
    /// Their CPUs; of a node without, those nearest.
    NodeCpus,
    Memory,
    /// Sizes of the caches in front of memory.
    SideCaches,
    Distances,
    /// Which functions there are, and what they are.
    Devices,
    /// What they are near to.
    DeviceLocality,
}

/// Sets as text, in order: two lists are then easily seen to differ.
fn sorted(sets: impl IntoIterator<Item = CpuSet>) -> Vec<String> {
    let mut texts: Vec<(Option<u32>, String)> = sets
        .into_iter()
        .map(|set| (set.first().map(|c| c.number()), set.to_string()))
        .collect();
    texts.sort();
    texts.dedup();
    texts.into_iter().map(|(_, text)| text).collect()
}

/// Groups the shown CPUs by a key; CPUs without one are in no group.
fn groups<K: Ord>(
    inventory: &Inventory,
    shown: &CpuSet,
    key: impl Fn(&bmslice_inventory::Cpu) -> Option<K>,
) -> Vec<String> {
    let mut groups: BTreeMap<K, CpuSet> = BTreeMap::new();
    for cpu in inventory.cpus.iter().filter(|c| shown.contains(c.id)) {
        if let Some(key) = key(cpu) {
            groups.entry(key).or_default().insert(cpu.id);
        }
    }
    sorted(groups.into_values())
}

/// What differs and should not, and what should differ and no longer does.
pub fn unexpected(
    name: &str,
    found: &BTreeMap<Topic, String>,
    expected: &BTreeSet<Topic>,
) -> Vec<String> {
    let differs = found
        .iter()
        .filter(|(topic, _)| !expected.contains(topic))
        .map(|(topic, text)| format!("{name}: {topic:?}: {text}"));
    let alike = expected
        .iter()
        .filter(|topic| !found.contains_key(topic))
        .map(|topic| format!("{name}: {topic:?} does not differ any more"));
    differs.chain(alike).collect()
}

/// All that differs, each topic once.
pub fn differences(inventory: &Inventory, hwloc: &Reading) -> BTreeMap<Topic, String> {
    let mut found = BTreeMap::new();
    let mut compare = |topic: Topic, ours: Vec<String>, theirs: Vec<String>| {
        if ours != theirs {
            let only = |a: &[String], b: &[String]| {
                let rest: Vec<&String> = a.iter().filter(|x| !b.contains(x)).take(6).collect();
                format!("{} ({rest:?} only here)", a.len())
            };
            let text = format!(
                "ours {}, hwloc's {}",
                only(&ours, &theirs),
                only(&theirs, &ours)
            );
            found.insert(topic, text);
        }
    };
    // hwloc shows online CPUs that the cgroup allows.
    let shown: CpuSet = inventory
        .cpus
        .iter()
        .filter(|cpu| cpu.online && cpu.allowed)
        .map(|cpu| cpu.id)
        .collect();
    // Objects of hwloc's without a CPU stand for memory alone.
    let theirs = |kind: Kind| {
        let objects = hwloc.of(&kind);
        sorted(
            objects
                .iter()
                .filter(|o| !o.cpus.is_empty())
                .map(|o| o.cpus.clone()),
        )
    };
    compare(
        Topic::Threads,
        sorted(shown.iter().map(CpuSet::from)),
        theirs(Kind::Pu),
    );
    compare(
        Topic::Cores,
        groups(inventory, &shown, |cpu| Some(cpu.siblings.to_string())),
        theirs(Kind::Core),
    );
    compare(
        Topic::Packages,
        groups(inventory, &shown, |cpu| cpu.package),
        theirs(Kind::Package),
    );
    // hwloc shows dies where a package has several.
    let several: BTreeSet<(u32, u32)> = inventory
        .cpus
        .iter()
        .filter_map(|cpu| Some((cpu.package?, cpu.die?)))
        .collect();
    compare(
        Topic::Dies,
        groups(inventory, &shown, |cpu| {
            let (package, die) = (cpu.package?, cpu.die?);
            let dies = several.iter().filter(|(p, _)| *p == package).count();
            (dies > 1).then_some((package, die))
        }),
        theirs(Kind::Die),
    );
    // One kind is what most servers have, and no more is told of it.
    let kinds = |mut kinds: Vec<String>| {
        if kinds.len() < 2 {
            kinds.clear();
        }
        kinds
    };
    if !hwloc.kinds.is_empty() {
        compare(
            Topic::Kinds,
            kinds(groups(inventory, &shown, |cpu| {
                // hwloc makes one kind of name, capacity and base frequency.
                let clocks = &inventory.power.frequencies;
                let clock = clocks.iter().find(|group| group.cpus.contains(cpu.id));
                let base = clock.and_then(|group| group.base);
                Some((cpu.kind.clone(), cpu.capacity, base))
            })),
            kinds(sorted(hwloc.kinds.iter().cloned())),
        );
    }
    caches(inventory, hwloc, &shown, &mut compare);
    nodes(inventory, hwloc, &shown, &mut compare);
    devices(inventory, hwloc, &shown, &mut compare);
    found
}

type Compare<'a> = dyn FnMut(Topic, Vec<String>, Vec<String>) + 'a;

fn caches(inventory: &Inventory, hwloc: &Reading, shown: &CpuSet, compare: &mut Compare) {
    let mut ours: Vec<String> = Vec::new();
    let mut our_sizes: Vec<String> = Vec::new();
    for cache in &inventory.caches {
        let kind = match cache.kind {
            CacheKind::Data => 'd',
            CacheKind::Instruction => 'i',
            CacheKind::Unified => 'u',
        };
        let cpus = cache.cpus.intersection(shown);
        if !cpus.is_empty() {
            let name = format!("L{}{kind} {cpus}", cache.level);
            our_sizes.push(format!(
                "{name} {}",
                cache.size.map_or(0, |size| size.bytes())
            ));
            ours.push(name);
        }
    }
    let theirs: Vec<String> = hwloc
        .caches()
        .iter()
        .flat_map(|((level, kind), sets)| {
            sets.iter()
                .filter(|set| !set.is_empty())
                .map(move |set| format!("L{level}{kind} {set}"))
        })
        .collect();
    let text = |mut list: Vec<String>| {
        list.sort();
        list
    };
    compare(Topic::Caches, text(ours), text(theirs));
    // Sizes as printed are rounded: ours are then printed alike.
    let exact = hwloc.all_devices;
    let theirs: Vec<String> = hwloc
        .objects
        .iter()
        .filter_map(|object| {
            let Kind::Cache(level, kind) = object.kind else {
                return None;
            };
            let size = object.size.clone().unwrap_or_else(|| "0KiB".into());
            (!object.cpus.is_empty()).then(|| format!("L{level}{kind} {} {size}", object.cpus))
        })
        .collect();
    let ours = our_sizes
        .into_iter()
        .map(|text| {
            let (name, bytes) = text.rsplit_once(' ').unwrap();
            let bytes: u64 = bytes.parse().unwrap();
            if exact {
                format!("{name} {bytes}")
            } else {
                format!("{name} {}", printed(bytes))
            }
        })
        .collect();
    compare(Topic::CacheSizes, text(ours), text(theirs));
}

/// The nodes that hwloc may show: those that the cgroup allows.
fn shown_nodes(inventory: &Inventory) -> Vec<&NumaNode> {
    inventory.nodes.iter().filter(|node| node.allowed).collect()
}

fn nodes(inventory: &Inventory, hwloc: &Reading, shown: &CpuSet, compare: &mut Compare) {
    let ours = shown_nodes(inventory);
    let mut theirs = hwloc.of(&Kind::Node);
    theirs.sort_by_key(|node| node.number);
    compare(
        Topic::Nodes,
        ours.iter().map(|node| node.id.to_string()).collect(),
        theirs
            .iter()
            .map(|node| node.number.unwrap().to_string())
            .collect(),
    );
    let both = |number: u32| {
        ours.iter().any(|node| node.id.0 == number)
            && theirs.iter().any(|node| node.number == Some(number))
    };
    compare(
        Topic::NodeCpus,
        ours.iter()
            .filter(|node| both(node.id.0))
            .map(|node| {
                let cpus = if node.cpus.is_empty() {
                    &node.nearest
                } else {
                    &node.cpus
                };
                format!("{}: {}", node.id, cpus.intersection(shown))
            })
            .collect(),
        theirs
            .iter()
            .filter(|node| both(node.number.unwrap()))
            .map(|node| format!("{}: {}", node.number.unwrap(), node.cpus))
            .collect(),
    );
    compare(
        Topic::Memory,
        ours.iter()
            .filter(|node| both(node.id.0))
            .map(|node| {
                let bytes = node.memory_total.bytes();
                let text = match (bytes, hwloc.all_devices) {
                    (0, _) => "none".into(),
                    (_, true) => bytes.to_string(),
                    (_, false) => printed(bytes),
                };
                format!("{}: {text}", node.id)
            })
            .collect(),
        theirs
            .iter()
            .filter(|node| both(node.number.unwrap()))
            .map(|node| {
                let size = node.size.clone().filter(|size| size != "0");
                let size = size.unwrap_or_else(|| "none".into());
                format!("{}: {size}", node.number.unwrap())
            })
            .collect(),
    );
    let side_caches = ours.iter().flat_map(|node| &node.side_caches);
    let mut ours_in_front: Vec<String> = side_caches
        .map(|cache| match hwloc.all_devices {
            true => cache.size.bytes().to_string(),
            false => printed(cache.size.bytes()),
        })
        .collect();
    let in_front = hwloc.of(&Kind::SideCache);
    let mut theirs_in_front: Vec<String> = in_front.iter().filter_map(|o| o.size.clone()).collect();
    ours_in_front.sort();
    theirs_in_front.sort();
    compare(Topic::SideCaches, ours_in_front, theirs_in_front);
    if !hwloc.distances.is_empty() {
        let kept: Vec<usize> = inventory
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| both(node.id.0))
            .map(|(i, _)| i)
            .collect();
        let row = |node: &NumaNode| -> Vec<u32> {
            kept.iter()
                .filter_map(|i| node.distances.get(*i).copied())
                .collect()
        };
        let rows = kept
            .iter()
            .map(|i| format!("{:?}", row(&inventory.nodes[*i])));
        compare(
            Topic::Distances,
            rows.collect(),
            hwloc
                .distances
                .iter()
                .map(|row| format!("{row:?}"))
                .collect(),
        );
    }
}

fn devices(inventory: &Inventory, hwloc: &Reading, shown: &CpuSet, compare: &mut Compare) {
    let mut theirs: Vec<(String, CpuSet)> = hwloc
        .objects
        .iter()
        .filter(|o| matches!(o.kind, Kind::Pci | Kind::Bridge))
        .filter_map(|o| Some((o.device.clone()?, o.cpus.clone())))
        .collect();
    theirs.sort_by(|a, b| a.0.cmp(&b.0));
    let known: BTreeSet<&str> = theirs
        .iter()
        .map(|(device, _)| device.split(' ').next().unwrap())
        .collect();
    let ours: Vec<_> = inventory
        .pci
        .iter()
        // hwloc's text leaves out what is of no interest to it.
        .filter(|f| hwloc.all_devices || known.contains(f.address.to_string().as_str()))
        .collect();
    let named = |f: &bmslice_inventory::PciFunction| {
        let class = f.class.trim_start_matches("0x");
        format!("{} {} {}", f.address, f.id, &class[..4])
    };
    let mut names: Vec<String> = ours.iter().map(|f| named(f)).collect();
    names.sort();
    compare(
        Topic::Devices,
        names,
        theirs.iter().map(|(device, _)| device.clone()).collect(),
    );
    let near = |f: &bmslice_inventory::PciFunction| {
        let node = inventory.nodes.iter().find(|node| Some(node.id) == f.node);
        match node {
            Some(node) => node.cpus.intersection(shown),
            None if !f.local_cpus.is_empty() => f.local_cpus.intersection(shown),
            None => shown.clone(),
        }
    };
    let mut localities: Vec<String> = ours
        .iter()
        .filter(|f| known.contains(f.address.to_string().as_str()))
        .map(|f| format!("{}: {}", f.address, near(f)))
        .collect();
    localities.sort();
    compare(
        Topic::DeviceLocality,
        localities,
        theirs
            .iter()
            .map(|(device, cpus)| format!("{}: {cpus}", device.split(' ').next().unwrap()))
            .collect(),
    );
}
