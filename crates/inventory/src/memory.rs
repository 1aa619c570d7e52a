//! NUMA nodes: CPUs, memory, huge pages, distances.
//!
//! Source: `Documentation/ABI/stable/sysfs-devices-node`, `Documentation/admin-guide/mm/hugetlbpage.rst`.
//! Keeps true: there is at least one node; each CPU that a node claims knows its node.

use std::collections::BTreeMap;

use bmslice_model::{ByteSize, CpuSet, NumaNodeId};

use crate::facts::{Cpu, HugePagePool, NumaNode};
use crate::scan::{Scan, numbered};

const NODES: &str = "/sys/devices/system/node";

/// Reads the nodes and gives each CPU its own.
pub(crate) fn read(scan: &mut Scan, cpus: &mut [Cpu]) -> Vec<NumaNode> {
    let online: CpuSet = cpus.iter().filter(|c| c.online).map(|c| c.id).collect();
    let mut ids: Vec<u32> = scan
        .list(NODES)
        .iter()
        .filter_map(|name| numbered(name, "node"))
        .collect();
    ids.sort_unstable();
    let mut nodes: Vec<NumaNode> = Vec::new();
    let mut kept = vec![false; ids.len()];
    for (i, &id) in ids.iter().enumerate() {
        let node = node(scan, NumaNodeId(id), &online);
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
    NumaNode {
        id,
        cpus,
        memory_total: ByteSize::from_kib(get("MemTotal")),
        memory_free: ByteSize::from_kib(get("MemFree")),
        huge_pages,
        distances,
    }
}

/// The node that a kernel without NUMA amounts to.
fn whole(scan: &Scan, cpus: CpuSet) -> NumaNode {
    let text = scan.file("/proc/meminfo");
    let meminfo = meminfo(&text);
    let get = |key: &str| meminfo.get(key).copied().unwrap_or(0);
    let mut huge_pages = pools(scan, "/sys/kernel/mm/hugepages");
    if huge_pages.is_empty() && get("Hugepagesize") != 0 {
        huge_pages.push(HugePagePool {
            size: ByteSize::from_kib(get("Hugepagesize")),
            total: get("HugePages_Total"),
            free: get("HugePages_Free"),
        });
    }
    NumaNode {
        id: NumaNodeId(0),
        cpus,
        memory_total: ByteSize::from_kib(get("MemTotal")),
        memory_free: ByteSize::from_kib(get("MemFree")),
        huge_pages,
        distances: vec![10],
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
            })
        })
        .collect();
    pools.sort_by_key(|pool| pool.size);
    pools
}

/// `MemTotal: 16 kB`, with or without `Node 0` in front.
fn meminfo(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.split_whitespace().next()?.parse().ok()?;
            Some((key.rsplit(' ').next()?, value))
        })
        .collect()
}
