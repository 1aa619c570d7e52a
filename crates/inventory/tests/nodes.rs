//! Shapes of memory that servers have: what each becomes.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its tree cannot be read"
)]

mod tree;

use bmslice_inventory::NodeKind;
use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use tree::{Tree, cpus, notes, range};

const NODES: &str = "/sys/devices/system/node";

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

/// Nodes of two CPUs each, then some without.
fn nodes(tree: &Tree, with: u32, rows: &[&str]) {
    for (id, row) in (0u32..).zip(rows) {
        let list = if id < with {
            range(id * 2, 2)
        } else {
            String::new()
        };
        tree.node(id, &list, 1 << 20, 1 << 19, row);
    }
}

fn plain(count: u32) -> Tree {
    cpus(count, |cpu| vec![("core_cpus_list", cpu.to_string())])
}

#[test]
fn a_node_without_cpus_is_near_to_those_at_the_least_distance() {
    let tree = plain(4);
    nodes(
        &tree,
        2,
        &["10 21 17 40", "21 10 28 40", "17 28 10 40", "40 40 40 10"],
    );
    let inventory = tree.read();
    assert_eq!(inventory.nodes[2].nearest, set("0-1"));
    assert!(inventory.nodes[3].nearest.is_empty(), "as far from all");
    assert!(inventory.nodes[2].cpus.is_empty());
}

#[test]
fn firmwares_word_for_initiators_wins_over_distances() {
    let tree = plain(4);
    nodes(&tree, 2, &["10 21 17", "21 10 28", "17 28 10"]);
    tree.folder(&format!("{NODES}/node2/access0/initiators/node0"))
        .folder(&format!("{NODES}/node2/access1/initiators/node1"));
    assert_eq!(tree.read().nodes[2].nearest, set("2-3"));
}

#[test]
fn memory_of_gpus_and_of_cxl_is_named() {
    let tree = plain(4);
    nodes(&tree, 1, &["10 20 20", "20 10 20", "20 20 10"]);
    tree.file(
        "/proc/driver/nvidia/gpus/0004:04:00.0/numa_status",
        "Node:      1\nStatus:    online",
    )
    .file("/sys/devices/platform/cxl/dax1.0/target_node", "2")
    .link(
        "/sys/bus/dax/devices/dax1.0",
        "../../../devices/platform/cxl/dax1.0",
    )
    .link(
        "/sys/bus/dax/drivers/kmem/dax1.0",
        "../../../../devices/platform/cxl/dax1.0",
    );
    let inventory = tree.read();
    assert_eq!(
        inventory.nodes[1].kind,
        Some(NodeKind::Gpu {
            pci: "0004:04:00.0".parse().unwrap()
        })
    );
    assert_eq!(
        inventory.nodes[2].kind,
        Some(NodeKind::Device {
            name: "dax1.0".into(),
            cxl: true,
            medium: None,
        })
    );
    assert_eq!(inventory.nodes[0].kind, None);
}

#[test]
fn speed_and_side_caches_of_memory_are_told_where_firmware_tells_them() {
    let tree = plain(4);
    nodes(&tree, 1, &["10 17", "17 10"]);
    let access = format!("{NODES}/node1/access1/initiators");
    tree.file(&format!("{access}/read_bandwidth"), "300000")
        .file(&format!("{access}/read_latency"), "0")
        .file(
            &format!("{NODES}/node0/memory_side_cache/index1/size"),
            (16u64 << 30).to_string(),
        );
    let inventory = tree.read();
    let access = inventory.nodes[1].access.as_ref().unwrap();
    assert_eq!(access.read_bandwidth, Some(300_000));
    assert_eq!(access.read_latency, None, "zero is not told");
    assert_eq!(inventory.nodes[0].access, None);
    let caches = &inventory.nodes[0].side_caches;
    assert_eq!((caches.len(), caches[0].level), (1, 1));
    assert_eq!(caches[0].size, ByteSize::from_gib(16));
}

#[test]
fn a_cpu_in_two_nodes_and_distances_that_cannot_be_are_noted_and_kept() {
    let tree = plain(4);
    tree.node(0, "0-1", 1 << 20, 1, "10 20")
        .node(1, "1-3", 1 << 20, 1, "30 10");
    let inventory = tree.read();
    assert_eq!(inventory.nodes.len(), 2);
    assert_eq!(inventory.nodes[1].distances, [30, 10]);
    assert_eq!(inventory.cpus[1].node, Some(NumaNodeId(0)));
    let notes = notes(&inventory);
    assert!(
        notes.contains("CPUs 1 are on more than one node"),
        "{notes}"
    );
    assert!(notes.contains("0 to 1 is 20 and back 30"), "{notes}");
}

#[test]
fn nodes_that_the_cgroup_forbids_are_shown_as_such() {
    let tree = plain(4);
    nodes(&tree, 2, &["10 20", "20 10"]);
    tree.file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0")
        .file("/proc/self/cgroup", "0::/a/b")
        .file("/sys/fs/cgroup/a/cpuset.cpus.effective", "0-1")
        .file("/sys/fs/cgroup/a/cpuset.mems.effective", "0");
    let inventory = tree.read();
    assert!(inventory.nodes[0].allowed && !inventory.nodes[1].allowed);
    assert!(inventory.cpus[1].allowed && !inventory.cpus[2].allowed);
}

#[test]
fn an_offline_node_is_left_out_with_a_note() {
    let tree = plain(2);
    nodes(&tree, 1, &["10", "10"]);
    tree.file(&format!("{NODES}/online"), "0");
    let inventory = tree.read();
    assert_eq!(inventory.nodes.len(), 1);
    assert!(notes(&inventory).contains("nodes 1 are not online"));
}

#[test]
fn memory_of_the_whole_server_is_told() {
    let tree = plain(2);
    tree.node(0, "0-1", 1 << 20, 1, "10")
        .huge_pages(0, 2048, 6, 3)
        .file(&format!("{NODES}/node0/hugepages/hugepages-2048kB/surplus_hugepages"), "2")
        .file(
            "/proc/meminfo",
            "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\nSwapTotal: 0 kB\nHugepagesize: 2048 kB",
        )
        .file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
        .file("/sys/kernel/mm/transparent_hugepage/defrag", "always defer [defer+madvise] madvise never")
        .file("/sys/kernel/mm/ksm/run", "0")
        .file("/proc/sys/kernel/numa_balancing", "1")
        .file("/sys/devices/virtual/memory_tiering/memory_tier4/nodelist", "0")
        .file(
            "/proc/buddyinfo",
            "Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3\n\
             Node 0, zone   Normal    900   100      0      0      0      0      0      0      7      2      5",
        );
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    for (file, text) in [
        ("nr_hugepages", "6"),
        ("free_hugepages", "3"),
        ("resv_hugepages", "1"),
    ] {
        tree.file(&format!("{pool}/{file}"), text);
    }
    let inventory = tree.read();
    let memory = &inventory.memory;
    assert_eq!(memory.total, Some(ByteSize::from_gib(1)));
    assert_eq!(memory.swap, Some(ByteSize::ZERO));
    assert_eq!(memory.default_huge_page, Some(ByteSize::from_mib(2)));
    let thp = memory.transparent_huge_pages.as_ref().unwrap();
    assert_eq!(
        (thp.enabled.as_str(), thp.defrag.as_deref()),
        ("madvise", Some("defer+madvise"))
    );
    assert_eq!(
        (memory.ksm, memory.numa_balancing),
        (Some(false), Some(true))
    );
    assert_eq!(memory.tiers[0].nodes, [NumaNodeId(0)]);
    let pool = &memory.huge_pages[0];
    assert_eq!(
        (pool.total, pool.free, pool.reserved, pool.surplus),
        (6, 3, 1, 0)
    );
    let node = &inventory.nodes[0];
    assert_eq!(node.huge_pages[0].surplus, 2);
    // Orders 9 and 10: (1 + 2) × 2 MiB + (3 + 5) × 4 MiB.
    assert_eq!(node.unfragmented, Some(ByteSize::from_mib(6 + 32)));
}

#[test]
fn no_more_memory_is_free_than_a_node_has() {
    let tree = plain(2);
    tree.node(0, "0-1", 1 << 19, 1 << 20, "10");
    let inventory = tree.read();
    let node = &inventory.nodes[0];
    assert_eq!(node.memory_total, ByteSize::from_mib(512));
    assert_eq!(node.memory_free, node.memory_total);
    let said = format!("{:?}", inventory.notes);
    assert!(said.contains("1048576 kB are free of 524288 kB"), "{said}");
}
