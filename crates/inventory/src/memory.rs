//! NUMA nodes: CPUs, memory, huge pages, distances.
//!
//! Source: `Documentation/ABI/stable/sysfs-devices-node`, `Documentation/admin-guide/mm/hugetlbpage.rst`.
//! Keeps true: there is at least one node; each CPU that a node claims knows its node.

mod hmat;

use std::collections::BTreeMap;

use bmslice_model::{ByteSize, CpuId, CpuSet, NumaNodeId};

use crate::facts::{Cpu, HugePagePool, Medium, NodeKind, NumaNode};
use crate::scan::{Scan, numbered};

const NODES: &str = "/sys/devices/system/node";

/// Reads the nodes and gives each CPU its own.
pub(crate) fn read(scan: &mut Scan, cpus: &mut [Cpu]) -> Vec<NumaNode> {
    let online: CpuSet = cpus.iter().filter(|c| c.online).map(|c| c.id).collect();
    let ids = numbers(scan);
    let blocks = buddies(&scan.file("/proc/buddyinfo"));
    let mut nodes: Vec<NumaNode> = Vec::new();
    let mut kept = vec![false; ids.len()];
    for (i, &id) in ids.iter().enumerate() {
        let mut node = node(scan, NumaNodeId(id), &online);
        node.unfragmented = blocks.get(&id).copied();
        let same = nodes
            .iter()
            .find(|other| !node.cpus.is_empty() && other.cpus == node.cpus);
        if let Some(other) = same {
            // Firmware that describes no locality at all; the first node is the truth.
            let text = format!(
                "it has the same CPUs {} as node {}; it was left out",
                node.cpus, other.id
            );
            scan.note(format!("{NODES}/node{id}"), text);
            continue;
        }
        kept[i] = true;
        nodes.push(node);
    }
    for node in &mut nodes {
        distances(scan, node, &kept);
    }
    asymmetric(scan, &nodes);
    nearest(scan, &mut nodes);
    kinds(scan, &mut nodes);
    if let Some(allowed) = crate::cgroup::allowed_nodes(scan) {
        for node in &mut nodes {
            node.allowed = CpuId::new(node.id.0).is_ok_and(|id| allowed.contains(id));
        }
    }
    if nodes.is_empty() {
        scan.note(
            NODES,
            "this kernel shows no NUMA nodes; one node 0 was taken",
        );
        nodes.push(whole(scan, online.clone()));
    }
    let mut twice = CpuSet::new();
    for node in &nodes {
        for cpu in cpus.iter_mut().filter(|c| node.cpus.contains(c.id)) {
            if cpu.node.is_some() {
                twice.insert(cpu.id);
            } else {
                cpu.node = Some(node.id);
            }
        }
    }
    if !twice.is_empty() {
        scan.note(
            NODES,
            format!("CPUs {twice} are on more than one node; the lowest was taken"),
        );
    }
    let homeless: CpuSet = cpus
        .iter()
        .filter(|c| c.online && c.node.is_none())
        .map(|c| c.id)
        .collect();
    if !homeless.is_empty() {
        scan.note(NODES, format!("CPUs {homeless} are on no node"));
    }
    nodes
}

/// The numbers of the nodes: those with a folder, less those that are offline.
fn numbers(scan: &mut Scan) -> Vec<u32> {
    let mut ids: Vec<u32> = scan
        .list(NODES)
        .iter()
        .filter_map(|name| numbered(name, "node"))
        .collect();
    ids.sort_unstable();
    if let Some(online) = scan.cpu_list(&format!("{NODES}/online"))
        && !online.is_empty()
    {
        let is_online = |id: &u32| CpuId::new(*id).is_ok_and(|id| online.contains(id));
        let offline: Vec<String> = ids
            .iter()
            .filter(|id| !is_online(id))
            .map(ToString::to_string)
            .collect();
        if !offline.is_empty() && offline.len() < ids.len() {
            ids.retain(is_online);
            scan.note(
                NODES,
                format!(
                    "nodes {} are not online; they were left out",
                    offline.join(",")
                ),
            );
        }
    }
    ids
}

/// Distances that depend on the direction are odd, and kept.
fn asymmetric(scan: &mut Scan, nodes: &[NumaNode]) {
    let between = |a: usize, b: usize| nodes[a].distances.get(b).copied();
    let mut pairs = Vec::new();
    for a in 0..nodes.len() {
        for b in 0..a {
            if let (Some(there), Some(back)) = (between(b, a), between(a, b))
                && there != back
            {
                let (a, b) = (nodes[a].id, nodes[b].id);
                pairs.push(format!("{b} to {a} is {there} and back {back}"));
            }
        }
        if let Some(own) = between(a, a)
            && nodes[a].distances.iter().any(|other| *other < own)
        {
            pairs.push(format!(
                "{0} to itself is {own}, and another is nearer",
                nodes[a].id
            ));
        }
    }
    if let Some(first) = pairs.first() {
        scan.note(
            NODES,
            format!(
                "{} pairs of nodes have distances that cannot be right: {first}",
                pairs.len()
            ),
        );
    }
}

/// Tells each node without CPUs which CPUs are nearest to it: firmware's word for who reaches its
/// memory best, or the least distance.
fn nearest(scan: &Scan, nodes: &mut [NumaNode]) {
    for i in (0..nodes.len())
        .filter(|i| nodes[*i].cpus.is_empty())
        .collect::<Vec<_>>()
    {
        let initiators = hmat::initiators(scan, nodes[i].id.0);
        let with_cpus = |j: &usize| !nodes[*j].cpus.is_empty();
        let mut near: Vec<usize> = (0..nodes.len())
            .filter(|j| initiators.contains(&nodes[*j].id.0))
            .filter(with_cpus)
            .collect();
        if near.is_empty() {
            let distance = |j: &usize| nodes[i].distances.get(*j).copied();
            let least = (0..nodes.len())
                .filter(with_cpus)
                .filter_map(|j| distance(&j))
                .min();
            near = (0..nodes.len())
                .filter(with_cpus)
                .filter(|j| least.is_some() && distance(j) == least)
                .collect();
            if near.len() == (0..nodes.len()).filter(with_cpus).count() {
                near.clear();
            }
        }
        let mut cpus = CpuSet::new();
        near.iter().for_each(|j| cpus.extend_from(&nodes[*j].cpus));
        nodes[i].nearest = cpus;
    }
}

/// Tells what the memory of each node is, where a driver made the node.
fn kinds(scan: &mut Scan, nodes: &mut [NumaNode]) {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    const DAX: &str = "/sys/bus/dax/devices";
    let mut found: Vec<(u32, NodeKind)> = Vec::new();
    for gpu in scan.list(GPUS) {
        let text = scan.file(&format!("{GPUS}/{gpu}/numa_status"));
        let node = text
            .lines()
            .find_map(|line| line.strip_prefix("Node:")?.trim().parse().ok());
        if let (Some(node), Ok(pci)) = (node, gpu.to_ascii_lowercase().parse()) {
            found.push((node, NodeKind::Gpu { pci }));
        }
    }
    for name in scan.list(DAX) {
        // Memory that is still a device is no node's.
        if !scan
            .root
            .exists(format!("/sys/bus/dax/drivers/kmem/{name}"))
        {
            continue;
        }
        if let Some(node) = scan.number(&format!("{DAX}/{name}/target_node")) {
            let path = scan.root.link(format!("{DAX}/{name}")).unwrap_or_default();
            let path = path.to_string_lossy();
            // Persistent memory hangs at an nvdimm bus; what firmware set apart for a special
            // purpose (high-bandwidth memory, most of all) at a device of the hmem driver.
            let medium = if path.contains("/ndbus") {
                Some(Medium::Persistent)
            } else if path.contains("/hmem") {
                Some(Medium::SpecialPurpose)
            } else {
                None
            };
            let cxl = path.contains("cxl");
            found.push((node, NodeKind::Device { name, cxl, medium }));
        }
    }
    for (id, kind) in found {
        if let Some(node) = nodes.iter_mut().find(|node| node.id.0 == id) {
            node.kind = Some(kind);
        }
    }
}

/// Free memory in blocks of 2 MiB and larger, by node: `Node 0, zone Normal 1 2 …` counts free
/// blocks of 1, 2, 4, … pages.
pub(crate) fn buddies(text: &str) -> BTreeMap<u32, ByteSize> {
    /// Pages are taken as of 4 KiB; the zones of kernels with larger ones have larger blocks yet.
    const PAGE: u64 = 4096;
    const ORDER: u32 = 9;
    let mut free: BTreeMap<u32, u64> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let node = match (fields.next(), fields.next()) {
            (Some("Node"), Some(node)) => node.trim_end_matches(',').parse().ok(),
            _ => None,
        };
        let (Some(node), Some("zone"), Some(_)) = (node, fields.next(), fields.next()) else {
            continue;
        };
        let entry = free.entry(node).or_default();
        for (order, count) in (0u32..).zip(fields) {
            if order >= ORDER
                && let Some(pages) = 1u64.checked_shl(order)
                && let Ok(count) = count.parse::<u64>()
            {
                *entry = entry.saturating_add(count.saturating_mul(pages.saturating_mul(PAGE)));
            }
        }
    }
    free.into_iter()
        .map(|(node, bytes)| (node, ByteSize::from_bytes(bytes)))
        .collect()
}

/// Drops the distances to nodes that were left out; distances that do not fit the nodes tell
/// nothing.
fn distances(scan: &mut Scan, node: &mut NumaNode, kept: &[bool]) {
    if node.distances.is_empty() {
        return;
    }
    if node.distances.len() == kept.len() {
        let mut kept = kept.iter();
        node.distances.retain(|_| kept.next() == Some(&true));
    } else {
        scan.note(
            format!("{NODES}/node{}/distance", node.id),
            format!(
                "{} distances for {} nodes; they were left out",
                node.distances.len(),
                kept.len()
            ),
        );
        node.distances.clear();
    }
}

fn node(scan: &mut Scan, id: NumaNodeId, online: &CpuSet) -> NumaNode {
    let folder = format!("{NODES}/node{id}");
    let cpus = scan
        .cpus(&folder, "cpulist", "cpumap")
        .unwrap_or_default()
        .intersection(online);
    let text = scan.file(&format!("{folder}/meminfo"));
    let meminfo = meminfo(&text);
    let get = |key: &str| meminfo.get(key).copied().unwrap_or(0);
    let mut huge_pages = pools(scan, &format!("{folder}/hugepages"));
    if huge_pages.is_empty() && meminfo.contains_key("HugePages_Total") {
        // Kernels before 2.6.32 tell the default size alone, and that only in /proc/meminfo.
        let size = self::meminfo(&scan.file("/proc/meminfo"))
            .get("Hugepagesize")
            .copied()
            .unwrap_or(0);
        if size != 0 {
            huge_pages.push(HugePagePool {
                size: ByteSize::from_kib(size),
                total: get("HugePages_Total"),
                free: get("HugePages_Free"),
                surplus: get("HugePages_Surp"),
            });
        }
    }
    let distances = scan
        .text(&format!("{folder}/distance"))
        .map(|text| {
            text.split_whitespace()
                .map_while(|d| d.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    let (memory_total, memory_free) = sizes(scan, &format!("{folder}/meminfo"), &get);
    NumaNode {
        id,
        cpus,
        memory_total,
        memory_free,
        huge_pages,
        distances,
        access: hmat::access(scan, id.0),
        side_caches: hmat::side_caches(scan, id.0),
        ..NumaNode::default()
    }
}

/// All of a node's memory and what is free of it, which is never more than all: who plans by it
/// would give away what is not there.
fn sizes(scan: &mut Scan, path: &str, get: &dyn Fn(&str) -> u64) -> (ByteSize, ByteSize) {
    let (total, free) = (get("MemTotal"), get("MemFree"));
    if free > total {
        scan.note(
            path,
            format!("{free} kB are free of {total} kB in all; no more than all was taken"),
        );
    }
    (
        ByteSize::from_kib(total),
        ByteSize::from_kib(free.min(total)),
    )
}

/// The node that a kernel without NUMA amounts to.
fn whole(scan: &mut Scan, cpus: CpuSet) -> NumaNode {
    let text = scan.file("/proc/meminfo");
    let meminfo = meminfo(&text);
    let get = |key: &str| meminfo.get(key).copied().unwrap_or(0);
    let mut huge_pages = pools(scan, "/sys/kernel/mm/hugepages");
    if huge_pages.is_empty() && get("Hugepagesize") != 0 {
        huge_pages.push(HugePagePool {
            size: ByteSize::from_kib(get("Hugepagesize")),
            total: get("HugePages_Total"),
            free: get("HugePages_Free"),
            surplus: get("HugePages_Surp"),
        });
    }
    let (memory_total, memory_free) = sizes(scan, "/proc/meminfo", &get);
    NumaNode {
        id: NumaNodeId(0),
        cpus,
        memory_total,
        memory_free,
        huge_pages,
        distances: vec![10],
        ..NumaNode::default()
    }
}

/// The pools of a `hugepages` folder, smallest page first.
fn pools(scan: &Scan, folder: &str) -> Vec<HugePagePool> {
    let mut pools: Vec<HugePagePool> = scan
        .list(folder)
        .iter()
        .filter_map(|name| {
            let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            Some(HugePagePool {
                size: ByteSize::from_kib(kib.parse().ok()?),
                total: scan.number(&format!("{folder}/{name}/nr_hugepages"))?,
                free: scan
                    .number(&format!("{folder}/{name}/free_hugepages"))
                    .unwrap_or(0),
                surplus: scan
                    .number(&format!("{folder}/{name}/surplus_hugepages"))
                    .unwrap_or(0),
            })
        })
        .collect();
    pools.sort_by_key(|pool| pool.size);
    pools
}

/// `MemTotal: 16 kB`, with or without `Node 0` in front.
pub(crate) fn meminfo(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.split_whitespace().next()?.parse().ok()?;
            Some((key.rsplit(' ').next()?, value))
        })
        .collect()
}
