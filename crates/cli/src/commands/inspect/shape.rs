//! Cores and NUMA nodes: what is near to what.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_inventory::{CacheKind, Cpu, Inventory, Medium, NodeKind, NumaNode};
use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use comfy_table::Table;

use crate::output::Output;
use crate::tables::{or_dash, table};

/// Cores by their sibling sets, lowest CPU first, with the first of their CPUs.
pub(super) fn cores_of<'a>(online: &[&'a Cpu]) -> Vec<(CpuSet, &'a Cpu)> {
    let mut seen = CpuSet::new();
    let mut cores = Vec::new();
    for cpu in online {
        if seen.insert(cpu.id) {
            seen.extend_from(&cpu.siblings);
            cores.push((cpu.siblings.clone(), *cpu));
        }
    }
    cores
}

/// What cores of one row have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    node: Option<NumaNodeId>,
    drawer: Option<u32>,
    book: Option<u32>,
    package: Option<u32>,
    die: Option<u32>,
    kind: Option<String>,
    /// Index of the last-level cache.
    cache: Option<usize>,
}

/// A row for each group of cores that share node, socket, die, kind and last-level cache. What is
/// the same for all, or not told, has no column.
pub(super) fn cores(inventory: &Inventory, output: &Output) -> Table {
    let online: Vec<&Cpu> = inventory.cpus.iter().filter(|cpu| cpu.online).collect();
    let mut groups: BTreeMap<Group, Vec<CpuSet>> = BTreeMap::new();
    for (core, cpu) in cores_of(&online) {
        let group = Group {
            node: cpu.node,
            drawer: cpu.drawer,
            book: cpu.book,
            package: cpu.package,
            die: cpu.die,
            kind: kind(cpu),
            cache: last_cache(inventory, cpu),
        };
        groups.entry(group).or_default().push(core);
    }
    let differ = |of: fn(&Group) -> Option<String>| {
        let told: BTreeSet<Option<String>> = groups.keys().map(of).collect();
        told.len() > 1
    };
    // A die is worth a column where a socket has several.
    let dies: BTreeSet<_> = groups
        .keys()
        .map(|group| (group.package, group.die))
        .collect();
    let sockets: BTreeSet<_> = groups.keys().map(|group| group.package).collect();
    let dies = dies.len() > sockets.len();
    let drawers = differ(|group| group.drawer.map(|n| n.to_string()));
    let books = differ(|group| group.book.map(|n| n.to_string()));
    let kinds = differ(|group| group.kind.clone());
    let mut heading = vec!["node"];
    heading.extend(drawers.then_some("drawer"));
    heading.extend(books.then_some("book"));
    heading.push("socket");
    heading.extend(dies.then_some("die"));
    heading.extend(kinds.then_some("kind"));
    heading.extend(["last cache", "cores…"]);
    let mut table = table(output, &heading);
    for (group, cores) in groups {
        let mut row = vec![or_dash(group.node)];
        row.extend(drawers.then(|| or_dash(group.drawer)));
        row.extend(books.then(|| or_dash(group.book)));
        row.push(or_dash(group.package));
        row.extend(dies.then(|| or_dash(group.die)));
        row.extend(kinds.then(|| or_dash(group.kind)));
        row.push(group.cache.map_or_else(
            || "-".into(),
            |i| {
                let cache = &inventory.caches[i];
                format!("L{} {}", cache.level, or_dash(cache.size))
            },
        ));
        let cores: Vec<String> = cores.iter().map(ToString::to_string).collect();
        row.push(cores.join("  "));
        table.add_row(row);
    }
    table
}

/// `atom`, or `atom (580 of 1024)` where the scheduler weighs cores.
fn kind(cpu: &Cpu) -> Option<String> {
    match (&cpu.kind, cpu.capacity) {
        (Some(kind), Some(capacity)) => Some(format!("{kind} ({capacity} of 1024)")),
        (Some(kind), None) => Some(kind.clone()),
        (None, capacity) => capacity.map(|capacity| format!("{capacity} of 1024")),
    }
}

/// The index of a CPU's cache of the highest level.
fn last_cache(inventory: &Inventory, cpu: &Cpu) -> Option<usize> {
    let of = |i: &usize| {
        let cache = &inventory.caches[*i];
        cache.kind != CacheKind::Instruction && cache.cpus.contains(cpu.id)
    };
    let all = 0..inventory.caches.len();
    all.filter(of).max_by_key(|i| inventory.caches[*i].level)
}

/// A row for each node; what is special about one has a column where there is any.
pub(super) fn nodes(inventory: &Inventory, output: &Output) -> Table {
    let special = inventory.nodes.iter().any(|node| !special(node).is_empty());
    let mut heading = vec![
        "node",
        "CPUs…",
        "memory",
        "free",
        "huge pages (free of all)",
        "distances",
    ];
    heading.extend(special.then_some("special…"));
    let mut table = table(output, &heading);
    for node in &inventory.nodes {
        let pages: Vec<String> = node
            .huge_pages
            .iter()
            .map(|pool| format!("{} of {} × {}", pool.free, pool.total, pool.size))
            .collect();
        let distances: Vec<String> = node.distances.iter().map(ToString::to_string).collect();
        let mut row = vec![
            node.id.to_string(),
            node.cpus.to_string(),
            rounded(node.memory_total),
            rounded(node.memory_free),
            pages.join("\n"),
            distances.join(" "),
        ];
        row.extend(special.then(|| self::special(node)));
        table.add_row(row);
    }
    table
}

/// What a node has that plain ones have not: no CPUs, memory of another kind, a cache in front of
/// it, speeds that firmware tells.
fn special(node: &NumaNode) -> String {
    let mut parts = Vec::new();
    match &node.kind {
        Some(NodeKind::Gpu { pci }) => parts.push(format!("memory of GPU {pci}")),
        Some(NodeKind::Device { name, cxl, medium }) => {
            let medium = match medium {
                Some(Medium::Persistent) => ", persistent",
                Some(Medium::SpecialPurpose) => ", for a special purpose",
                None => "",
            };
            let cxl = if *cxl { ", CXL" } else { "" };
            parts.push(format!("memory of {name}{cxl}{medium}"));
        }
        None => {}
    }
    if node.cpus.is_empty() && !node.nearest.is_empty() {
        parts.push(format!("nearest to CPUs {}", node.nearest));
    }
    for cache in &node.side_caches {
        parts.push(format!("{} of cache in front", cache.size));
    }
    if let Some(access) = &node.access {
        parts.extend(access.read_bandwidth.map(|mb| format!("reads {mb} MB/s")));
        parts.extend(access.read_latency.map(|ns| format!("after {ns} ns")));
    }
    if !node.allowed {
        parts.push("not allowed here".into());
    }
    parts.join(", ")
}

/// A size in MiB or GiB with one decimal: memory totals are never whole.
fn rounded(size: ByteSize) -> String {
    let mib = size.mib();
    if mib < 1024 {
        format!("{mib} MiB")
    } else {
        format!("{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024)
    }
}
