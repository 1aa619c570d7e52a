//! Shapes of CPU and memory that servers have: what each becomes.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its tree cannot be read"
)]

mod tree;

use std::collections::BTreeSet;

use bmslice_inventory::{Inventory, NodeKind};
use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use tree::{Tree, notes};

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

/// CPUs that show topology files alone, as `(file, text)` for each CPU.
fn cpus(count: u32, topology: impl Fn(u32) -> Vec<(&'static str, String)>) -> Tree {
    let tree = Tree::new();
    for cpu in 0..count {
        for (file, text) in topology(cpu) {
            tree.file(&format!("{CPUS}/cpu{cpu}/topology/{file}"), text);
        }
    }
    tree.file(&format!("{CPUS}/present"), format!("0-{}", count - 1))
        .file(&format!("{CPUS}/online"), format!("0-{}", count - 1));
    tree
}

fn range(start: u32, length: u32) -> String {
    format!("{start}-{}", start + length - 1)
}

/// The groups that a key makes, as lists.
fn groups<K: Ord>(inventory: &Inventory, key: impl Fn(&bmslice_inventory::Cpu) -> K) -> usize {
    inventory
        .cpus
        .iter()
        .map(key)
        .collect::<BTreeSet<_>>()
        .len()
}

#[test]
fn dies_and_clusters_are_told_apart_in_their_packages() {
    // Two packages of two dies of two clusters of two cores; dies and clusters count anew.
    let tree = cpus(16, |cpu| {
        vec![
            ("physical_package_id", (cpu / 8).to_string()),
            ("package_cpus_list", range(cpu / 8 * 8, 8)),
            ("die_id", (cpu / 4 % 2).to_string()),
            ("die_cpus_list", range(cpu / 4 * 4, 4)),
            ("cluster_id", (cpu / 2 % 4).to_string()),
            ("cluster_cpus_list", range(cpu / 2 * 2, 2)),
            ("core_id", (cpu % 8).to_string()),
            ("core_cpus_list", cpu.to_string()),
        ]
    });
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.package), 2);
    assert_eq!(groups(&inventory, |c| (c.package, c.die)), 4);
    assert_eq!(groups(&inventory, |c| (c.package, c.cluster)), 8);
    let cpu = &inventory.cpus[13];
    assert_eq!(
        (cpu.package, cpu.die, cpu.cluster),
        (Some(1), Some(1), Some(2))
    );
    assert!(!notes(&inventory).contains("told apart"));
}

#[test]
fn sockets_that_each_book_counts_anew_are_packages_of_their_own() {
    // s390: two drawers of two books of two sockets of two cores.
    let tree = cpus(16, |cpu| {
        vec![
            ("physical_package_id", (cpu / 2 % 2).to_string()),
            ("core_siblings", format!("{:08x}", 0x3u32 << (cpu / 2 * 2))),
            ("book_id", (cpu / 4 % 2).to_string()),
            ("book_siblings", format!("{:08x}", 0xfu32 << (cpu / 4 * 4))),
            ("drawer_id", (cpu / 8).to_string()),
            (
                "drawer_siblings",
                format!("{:08x}", 0xffu32 << (cpu / 8 * 8)),
            ),
            ("core_id", cpu.to_string()),
            ("thread_siblings", format!("{:08x}", 1u32 << cpu)),
        ]
    });
    tree.file(
        "/proc/cpuinfo",
        "vendor_id       : IBM/S390\nprocessor 0: version = FF,  identification = 2733E8,  machine = 3906",
    );
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.package), 8);
    assert_eq!(groups(&inventory, |c| c.book), 4);
    assert_eq!(groups(&inventory, |c| c.drawer), 2);
    assert_eq!(inventory.machine.architecture, "s390x");
    assert_eq!(inventory.machine.cpu_vendor.as_deref(), Some("IBM/S390"));
    let notes = notes(&inventory);
    assert!(
        notes.contains(
            "8 packages are not told apart by their numbers (4 have number 0, 4 have number 1)"
        ),
        "{notes}"
    );
}

#[test]
fn firmware_that_numbers_nothing_still_has_packages_and_no_dies() {
    // An arm64 kernel without PPTT: -1 for each number, each CPU a die and a cluster of its own.
    let tree = cpus(8, |cpu| {
        vec![
            ("physical_package_id", "-1".into()),
            ("package_cpus_list", range(cpu / 4 * 4, 4)),
            ("die_id", "-1".into()),
            ("die_cpus_list", cpu.to_string()),
            ("cluster_id", "-1".into()),
            ("cluster_cpus_list", cpu.to_string()),
            ("core_id", (cpu % 4).to_string()),
            ("core_cpus_list", cpu.to_string()),
        ]
    });
    tree.file(
        "/proc/cpuinfo",
        "processor\t: 0\nCPU implementer\t: 0xc0\nCPU part\t: 0xac3\n",
    );
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.package), 2);
    assert!(
        inventory
            .cpus
            .iter()
            .all(|c| c.die.is_none() && c.cluster.is_none())
    );
    assert_eq!(inventory.machine.architecture, "aarch64");
    assert_eq!(inventory.machine.cpu_vendor.as_deref(), Some("Ampere"));
    assert!(notes(&inventory).contains("2 packages have no number; they were counted"));
}

#[test]
fn cores_of_eight_threads_are_cores() {
    let tree = cpus(32, |cpu| {
        vec![
            ("physical_package_id", "-1".into()),
            ("core_siblings", "ffffffff".into()),
            ("core_id", (cpu / 8 * 8).to_string()),
            (
                "thread_siblings",
                format!("{:08x}", 0xffu32 << (cpu / 8 * 8)),
            ),
        ]
    });
    let inventory = tree.read();
    assert_eq!(groups(&inventory, |c| c.siblings.to_string()), 4);
    assert_eq!(inventory.cpus[9].siblings, set("8-15"));
}

#[test]
fn kinds_and_capacities_of_a_hybrid_are_told() {
    let tree = cpus(6, |cpu| {
        let siblings = if cpu < 4 {
            range(cpu / 2 * 2, 2)
        } else {
            cpu.to_string()
        };
        vec![
            ("physical_package_id", "0".into()),
            ("core_id", cpu.to_string()),
            ("thread_siblings_list", siblings),
        ]
    });
    tree.file("/sys/devices/cpu_core/cpus", "0-3")
        .file("/sys/devices/cpu_atom/cpus", "4-5");
    for cpu in 0..6 {
        let (capacity, max) = if cpu < 4 {
            ("1024", "5000000")
        } else {
            ("580", "3900000")
        };
        let policy = format!("{CPUS}/cpu{cpu}/cpufreq");
        tree.file(&format!("{CPUS}/cpu{cpu}/cpu_capacity"), capacity)
            .file(&format!("{policy}/related_cpus"), cpu.to_string())
            .file(&format!("{policy}/scaling_driver"), "intel_pstate")
            .file(&format!("{policy}/scaling_governor"), "powersave")
            .file(&format!("{policy}/cpuinfo_min_freq"), "400000")
            .file(&format!("{policy}/cpuinfo_max_freq"), max);
    }
    tree.file(&format!("{CPUS}/intel_pstate/no_turbo"), "0");
    let inventory = tree.read();
    let of = |cpu: usize| {
        let cpu = &inventory.cpus[cpu];
        (cpu.kind.as_deref(), cpu.capacity)
    };
    assert_eq!(of(3), (Some("core"), Some(1024)));
    assert_eq!(of(4), (Some("atom"), Some(580)));
    assert_eq!(inventory.power.boost, Some(true));
    let groups: Vec<(String, Option<u64>)> = inventory
        .power
        .frequencies
        .iter()
        .map(|group| (group.cpus.to_string(), group.max))
        .collect();
    assert_eq!(
        groups,
        [
            ("0-3".to_owned(), Some(5_000_000)),
            ("4-5".to_owned(), Some(3_900_000))
        ]
    );
}

#[test]
fn the_deepest_idle_state_is_the_last_that_is_not_disabled() {
    let tree = cpus(1, |_| vec![("core_cpus_list", "0".into())]);
    for (state, name, latency, disable) in [
        (0, "POLL", "0", "0"),
        (1, "C1", "2", "0"),
        (2, "C6", "133", "1"),
    ] {
        let folder = format!("{CPUS}/cpu0/cpuidle/state{state}");
        tree.file(&format!("{folder}/name"), name)
            .file(&format!("{folder}/latency"), latency)
            .file(&format!("{folder}/disable"), disable);
    }
    tree.file(&format!("{CPUS}/cpuidle/current_driver"), "intel_idle");
    let idle = tree.read().power.idle.unwrap();
    assert_eq!(idle.driver.as_deref(), Some("intel_idle"));
    assert_eq!(idle.states.len(), 3);
    assert_eq!(idle.deepest().unwrap().name, "C1");
}

#[test]
fn mitigations_microcode_and_the_hypervisor_above_are_told() {
    let tree = cpus(1, |_| vec![("core_cpus_list", "0".into())]);
    tree.file(
        "/proc/cpuinfo",
        "processor : 0\nvendor_id : GenuineIntel\nmicrocode : 0x2b000603\nflags : fpu lm hypervisor",
    )
    .file(&format!("{CPUS}/vulnerabilities/l1tf"), "Not affected")
    .file(&format!("{CPUS}/vulnerabilities/mds"), "Vulnerable; SMT Host state unknown")
    .file(&format!("{CPUS}/smt/control"), "notsupported")
    .file("/sys/class/dmi/id/sys_vendor", "QEMU")
    .file("/sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)");
    let machine = tree.read().machine;
    assert_eq!(machine.vulnerabilities["l1tf"], "Not affected");
    assert_eq!(machine.vulnerabilities.len(), 2);
    assert_eq!(machine.microcode.as_deref(), Some("0x2b000603"));
    assert_eq!(machine.smt.as_deref(), Some("notsupported"));
    assert_eq!(
        (machine.guest, machine.guest_of.as_deref()),
        (Some(true), Some("kvm"))
    );
}

#[test]
fn cpu_0_may_be_offline_and_numbers_may_be_huge() {
    let tree = Tree::new();
    for cpu in [0u32, 4095, 8191] {
        tree.file(
            &format!("{CPUS}/cpu{cpu}/topology/core_cpus_list"),
            cpu.to_string(),
        )
        .file(
            &format!("{CPUS}/cpu{cpu}/topology/physical_package_id"),
            "0",
        );
    }
    tree.file(&format!("{CPUS}/present"), "0,4095,8191")
        .file(&format!("{CPUS}/online"), "4095,8191")
        .node(0, "4095,8191", 1 << 20, 1 << 19, "10");
    let inventory = tree.read();
    assert_eq!(inventory.cpus.len(), 3);
    assert!(!inventory.cpus[0].online && inventory.cpus[2].online);
    assert_eq!(inventory.cpus[0].node, None);
    assert_eq!(inventory.nodes[0].cpus, set("4095,8191"));
}

#[test]
fn a_cpu_list_beyond_all_numbers_is_noted_and_not_followed() {
    let tree = cpus(2, |cpu| vec![("core_cpus_list", cpu.to_string())]);
    tree.file(&format!("{NODES}/node0/cpulist"), "0-4294967295")
        .file(&format!("{NODES}/node0/meminfo"), "Node 0 MemTotal: 1 kB");
    let inventory = tree.read();
    assert!(inventory.nodes[0].cpus.is_empty());
    assert!(
        notes(&inventory).contains("node0/cpulist"),
        "{}",
        notes(&inventory)
    );
}

#[test]
fn the_mask_is_believed_before_the_list() {
    let tree = cpus(4, |cpu| {
        vec![
            ("thread_siblings", format!("{:x}", 3 << (cpu / 2 * 2))),
            // As a list too long for its page once ended.
            ("thread_siblings_list", cpu.to_string()),
        ]
    });
    assert_eq!(tree.read().cpus[3].siblings, set("2-3"));
}

#[test]
fn a_kernel_older_than_topology_files_tells_cores_in_cpuinfo() {
    let entry = |cpu: u32, package: u32, core: u32| {
        format!("processor : {cpu}\nphysical id : {package}\nsiblings : 2\ncore id : {core}\n\n")
    };
    let tree = Tree::new();
    tree.file(
        "/proc/cpuinfo",
        [
            entry(0, 0, 0),
            entry(1, 3, 0),
            entry(2, 0, 0),
            entry(3, 3, 0),
        ]
        .concat(),
    );
    for cpu in 0..4 {
        tree.folder(&format!("{CPUS}/cpu{cpu}"));
    }
    let inventory = tree.read();
    assert_eq!(inventory.cpus[2].siblings, set("0,2"));
    assert_eq!(inventory.cpus[3].package, Some(3));
    assert!(notes(&inventory).contains("the cores of CPUs 0-3 are told by /proc/cpuinfo alone"));
}

#[test]
fn a_folder_for_a_cpu_that_could_be_added_is_no_cpu_that_runs() {
    let tree = Tree::new();
    for cpu in 0..2 {
        tree.file(
            &format!("{CPUS}/cpu{cpu}/topology/thread_siblings"),
            (1 << cpu).to_string(),
        );
    }
    tree.folder(&format!("{CPUS}/cpu2"))
        .file("/proc/cpuinfo", "processor : 0\nprocessor : 1");
    let inventory = tree.read();
    assert!(!inventory.cpus[2].online);
    assert!(notes(&inventory).contains("CPUs 2 have neither topology"));
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
            cxl: true
        })
    );
    assert_eq!(inventory.nodes[0].kind, None);
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
fn an_empty_share_is_the_cores_own_cache_and_a_kind_need_not_be_told() {
    let tree = cpus(4, |cpu| {
        vec![("thread_siblings", format!("{:x}", 3 << (cpu / 2 * 2)))]
    });
    for cpu in 0..4 {
        let folder = format!("{CPUS}/cpu{cpu}/cache/index0");
        tree.file(&format!("{folder}/level"), "3")
            .file(&format!("{folder}/shared_cpu_map"), "00000000");
    }
    let caches = tree.read().caches;
    let sets: Vec<String> = caches.iter().map(|cache| cache.cpus.to_string()).collect();
    assert_eq!(sets, ["0-1", "2-3"]);
}
