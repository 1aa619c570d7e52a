//! Small trees with what kernels and firmware do and no capture at hand has, each against hwloc's
//! reading of it (`made/NAME.xml`).
//!
//! `BMSLICE_BLESS=1` has the installed `lstopo` (Debian's hwloc-nox) read them anew.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use bmslice_model::CpuSet;

use crate::compare::{Topic, differences, unexpected};
use crate::hwloc;
use crate::tree::{Tree, notes};

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";
const READINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/made");

/// Name, tree, and in what an inventory means otherwise than hwloc, with the reason.
type Made = (&'static str, fn() -> Tree, &'static [(Topic, &'static str)]);

const MADE: &[Made] = &[
    ("s390-drawers-and-books", s390, &[]),
    ("nodes-of-high-bandwidth-memory", high_bandwidth, &[]),
    ("a-kernel-with-masks-alone", masks_alone, &[]),
    ("numbers-that-tell-nothing", unnumbered, &[]),
    ("cpu-0-and-node-0-offline", without_zero, &[]),
    ("cpusets-of-version-1", cpusets, &[]),
    ("nodes-within-an-l3-and-l3s-within-a-node", mixed_l3, &[]),
    ("dies-within-packages", dies, &[]),
    ("no-numa-no-caches", bare, &[]),
    ("sparse-and-huge-numbers", sparse, &[]),
    ("hybrid-with-modules", hybrid, &[]),
    ("cores-of-eight-threads", eight_threads, &[]),
    ("nodes-without-memory", no_memory, &[]),
    ("devices-with-near-cpus-alone", near_devices, &[]),
];

/// A mask as the kernel writes it.
fn mask(list: &str) -> String {
    let set: CpuSet = list.parse().unwrap();
    let last = set.iter().last().map_or(0, |cpu| cpu.number()) / 32;
    let mut words = vec![0u32; last as usize + 1];
    for cpu in set.iter() {
        words[cpu.number() as usize / 32] |= 1 << (cpu.number() % 32);
    }
    let words: Vec<String> = words.iter().rev().map(|w| format!("{w:08x}")).collect();
    words.join(",")
}

fn range(first: u32, count: u32) -> String {
    format!("{first}-{}", first + count - 1)
}

/// Topology files of a CPU: numbers as they are, sets as masks.
fn topology(tree: &Tree, cpu: u32, numbers: &[(&str, i64)], sets: &[(&str, &str)]) {
    let folder = format!("{CPUS}/cpu{cpu}/topology");
    for (name, number) in numbers {
        tree.file(&format!("{folder}/{name}"), number.to_string());
    }
    for (name, list) in sets {
        tree.file(&format!("{folder}/{name}"), mask(list));
    }
}

/// Caches of a CPU: level, kind, size, who shares.
fn caches(tree: &Tree, cpu: u32, caches: &[(u32, &str, &str, &str)]) {
    for (index, (level, kind, size, list)) in caches.iter().enumerate() {
        let folder = format!("{CPUS}/cpu{cpu}/cache/index{index}");
        tree.file(&format!("{folder}/level"), level.to_string())
            .file(&format!("{folder}/type"), kind)
            .file(&format!("{folder}/size"), size)
            .file(&format!("{folder}/shared_cpu_map"), mask(list));
    }
}

fn node(tree: &Tree, id: u32, cpus: &str, memory_kib: u64, distances: &str) {
    let folder = format!("{NODES}/node{id}");
    tree.file(&format!("{folder}/cpumap"), mask(cpus))
        .file(
            &format!("{folder}/meminfo"),
            format!("Node {id} MemTotal: {memory_kib} kB\nNode {id} MemFree: {memory_kib} kB"),
        )
        .file(&format!("{folder}/distance"), distances);
}

/// What hwloc takes for uname(2).
fn architecture(tree: &Tree, name: &str) {
    tree.file(
        "/proc/hwloc-nofile-info",
        format!("OSName: Linux\nHostName: made\nArchitecture: {name}"),
    );
}

fn online(tree: &Tree, list: &str) {
    for name in ["possible", "present", "online"] {
        tree.file(&format!("{CPUS}/{name}"), list);
    }
}

/// Two drawers of two books of two sockets of two cores; each level counts anew in the one above.
fn s390() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "s390x");
    for cpu in 0..16 {
        topology(
            &tree,
            cpu,
            &[
                ("physical_package_id", i64::from(cpu / 2 % 2)),
                ("book_id", i64::from(cpu / 4 % 2)),
                ("drawer_id", i64::from(cpu / 8)),
                ("core_id", i64::from(cpu)),
            ],
            &[
                ("thread_siblings", &cpu.to_string()),
                ("core_siblings", &range(cpu / 2 * 2, 2)),
                ("book_siblings", &range(cpu / 4 * 4, 4)),
                ("drawer_siblings", &range(cpu / 8 * 8, 8)),
            ],
        );
        caches(
            &tree,
            cpu,
            &[
                (1, "Instruction", "128K", &cpu.to_string()),
                (1, "Data", "128K", &cpu.to_string()),
                (2, "Unified", "4096K", &cpu.to_string()),
                (3, "Unified", "262144K", &range(cpu / 2 * 2, 2)),
                (4, "Unified", "983040K", &range(cpu / 8 * 8, 8)),
            ],
        );
    }
    online(&tree, "0-15");
    node(&tree, 0, "0-15", 64 << 20, "10");
    tree
}

/// Two sockets, a node of high-bandwidth memory beside each, a cache in front of the slow memory,
/// and firmware that says who reaches what best.
fn high_bandwidth() -> Tree {
    let tree = Tree::new();
    plain(&tree, 8, 4);
    for (id, cpus, memory, distances) in [
        (0, "0-3", 64 << 20, "10 21 13 23"),
        (1, "4-7", 64 << 20, "21 10 23 13"),
        (2, "", 16 << 20, "13 23 10 23"),
        (3, "", 16 << 20, "23 13 23 10"),
    ] {
        node(&tree, id, cpus, memory, distances);
        let near = id % 2;
        let folder = format!("{NODES}/node{id}/access0/initiators");
        tree.folder(&format!("{folder}/node{near}"))
            .file(&format!("{folder}/read_bandwidth"), "120000")
            .file(&format!("{folder}/read_latency"), "90")
            .file(&format!("{folder}/write_bandwidth"), "0");
    }
    let side = format!("{NODES}/node0/memory_side_cache/index1");
    tree.file(&format!("{side}/size"), (16u64 << 30).to_string())
        .file(&format!("{side}/line_size"), "64")
        .file(&format!("{side}/indexing"), "0")
        .file(&format!("{side}/write_policy"), "0")
        .file(&format!("{NODES}/online"), "0-3");
    tree
}

/// Packages of some CPUs, cores of one thread, an L2 each.
fn plain(tree: &Tree, count: u32, of_package: u32) {
    architecture(tree, "x86_64");
    for cpu in 0..count {
        let own = cpu.to_string();
        topology(
            tree,
            cpu,
            &[
                ("physical_package_id", i64::from(cpu / of_package)),
                ("core_id", i64::from(cpu % of_package)),
            ],
            &[
                ("thread_siblings", &own),
                (
                    "core_siblings",
                    &range(cpu / of_package * of_package, of_package),
                ),
            ],
        );
        caches(tree, cpu, &[(2, "Unified", "1024K", &own)]);
    }
    online(tree, &range(0, count));
}

/// Linux 2.6.2x: no lists, neither `present` nor `online`; CPU 3 offline without topology; the
/// default huge page alone.
fn masks_alone() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "x86_64");
    for cpu in 0..4u32 {
        if cpu == 3 {
            tree.file(&format!("{CPUS}/cpu3/online"), "0");
            continue;
        }
        // The kernel names no sibling that is offline.
        let threads = if cpu == 1 {
            "1".to_owned()
        } else {
            "0,2".to_owned()
        };
        topology(
            &tree,
            cpu,
            &[("physical_package_id", 0), ("core_id", i64::from(cpu % 2))],
            &[("thread_siblings", &threads), ("core_siblings", "0-2")],
        );
        caches(
            &tree,
            cpu,
            &[(1, "Data", "32K", &threads), (2, "Unified", "6144K", "0-2")],
        );
        if cpu > 0 {
            tree.file(&format!("{CPUS}/cpu{cpu}/online"), "1");
        }
    }
    let text = "processor : 0\nphysical id : 0\n\nprocessor : 1\nphysical id : 0\n\nprocessor : 2\nphysical id : 0";
    tree.file("/proc/cpuinfo", text)
        .file(&format!("{NODES}/node0/cpumap"), mask("0-2"))
        .file(
            &format!("{NODES}/node0/meminfo"),
            "Node 0 MemTotal: 8388608 kB\nNode 0 HugePages_Total: 4\nNode 0 HugePages_Free: 1",
        )
        .file(
            "/proc/meminfo",
            "MemTotal: 8388608 kB\nHugePages_Total: 4\nHugepagesize: 2048 kB",
        );
    tree
}

/// Packages without numbers, cores numbered alike in both, clusters as a guest of QEMU has them.
fn unnumbered() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "aarch64");
    for cpu in 0..8u32 {
        let own = cpu.to_string();
        topology(
            &tree,
            cpu,
            &[
                ("physical_package_id", -1),
                ("cluster_id", 65535),
                ("die_id", -1),
                ("core_id", i64::from(cpu % 4)),
            ],
            &[
                ("core_cpus", &own),
                ("package_cpus", &range(cpu / 4 * 4, 4)),
                ("cluster_cpus", &own),
                ("die_cpus", &own),
            ],
        );
        caches(&tree, cpu, &[(1, "Data", "64K", &own)]);
    }
    online(&tree, "0-7");
    node(&tree, 0, "0-7", 32 << 20, "10");
    tree
}

fn without_zero() -> Tree {
    let tree = Tree::new();
    plain(&tree, 8, 4);
    tree.file(&format!("{CPUS}/online"), "1-7")
        .file(&format!("{CPUS}/cpu0/online"), "0")
        .remove(&format!("{CPUS}/cpu0/topology"))
        .remove(&format!("{CPUS}/cpu0/cache"));
    for cpu in 1..4 {
        topology(&tree, cpu, &[], &[("core_siblings", "1-3")]);
    }
    for cpu in 1..8 {
        tree.file(&format!("{CPUS}/cpu{cpu}/online"), "1");
    }
    // The memory of node 0 was taken away; its folder is not.
    node(&tree, 0, "", 0, "10 20");
    node(&tree, 1, "1-7", 64 << 20, "20 10");
    tree.file(&format!("{NODES}/online"), "1")
        .file(&format!("{NODES}/possible"), "0-1");
    tree
}

fn cpusets() -> Tree {
    let tree = Tree::new();
    plain(&tree, 8, 4);
    node(&tree, 0, "0-3", 32 << 20, "10 20");
    node(&tree, 1, "4-7", 32 << 20, "20 10");
    tree.file(&format!("{NODES}/online"), "0-1")
        .file(
            "/proc/mounts",
            "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
             cgroup /sys/fs/cgroup/cpuset cgroup rw,nosuid,cpuset 0 0",
        )
        .link("/proc/self/mounts", "../mounts")
        .file("/proc/self/cgroup", "4:memory:/\n3:cpuset:/job/7\n0::/")
        .file("/sys/fs/cgroup/cpuset/job/7/cpuset.cpus", "1-2,5")
        .file("/sys/fs/cgroup/cpuset/job/7/cpuset.mems", "0");
    tree
}

/// Package 0: two nodes within one L3 (sub-NUMA clusters). Package 1: a node with two L3s.
fn mixed_l3() -> Tree {
    let tree = Tree::new();
    plain(&tree, 16, 8);
    for cpu in 0..16u32 {
        let l3 = if cpu < 8 {
            range(0, 8)
        } else {
            range(cpu / 4 * 4, 4)
        };
        caches(
            &tree,
            cpu,
            &[
                (2, "Unified", "1024K", &cpu.to_string()),
                (3, "Unified", "16384K", &l3),
            ],
        );
    }
    node(&tree, 0, "0-3", 16 << 20, "10 12 20");
    node(&tree, 1, "4-7", 16 << 20, "12 10 20");
    node(&tree, 2, "8-15", 32 << 20, "20 20 10");
    tree.file(&format!("{NODES}/online"), "0-2");
    tree
}

/// Two packages of two dies; the numbers of dies and cores begin anew in each package.
fn dies() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "x86_64");
    for cpu in 0..16u32 {
        let (threads, die) = (format!("{},{}", cpu % 8, cpu % 8 + 8), cpu % 8 / 2 % 2);
        let package = cpu % 8 / 4;
        let both =
            |first: u32, count: u32| format!("{},{}", range(first, count), range(first + 8, count));
        topology(
            &tree,
            cpu,
            &[
                ("physical_package_id", i64::from(package)),
                ("die_id", i64::from(die)),
                ("core_id", i64::from(cpu % 2)),
            ],
            &[
                ("core_cpus", &threads),
                ("die_cpus", &both(package * 4 + die * 2, 2)),
                ("package_cpus", &both(package * 4, 4)),
            ],
        );
        caches(
            &tree,
            cpu,
            &[
                (1, "Data", "32K", &threads),
                (3, "Unified", "8192K", &both(package * 4 + die * 2, 2)),
            ],
        );
    }
    online(&tree, "0-15");
    node(&tree, 0, "0-3,8-11", 16 << 20, "10 21");
    node(&tree, 1, "4-7,12-15", 16 << 20, "21 10");
    tree.file(&format!("{NODES}/online"), "0-1");
    tree
}

/// Neither nodes nor caches: a board with an arm64 kernel.
fn bare() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "aarch64");
    for cpu in 0..4u32 {
        topology(
            &tree,
            cpu,
            &[("physical_package_id", 0), ("core_id", i64::from(cpu))],
            &[
                ("thread_siblings", &cpu.to_string()),
                ("core_siblings", "0-3"),
            ],
        );
    }
    online(&tree, "0-3");
    tree.file("/proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 4000000 kB");
    tree
}

fn sparse() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "x86_64");
    for (at, cpu) in [0u32, 64, 1000, 1063].into_iter().enumerate() {
        let package = if at < 2 { "0,64" } else { "1000,1063" };
        topology(
            &tree,
            cpu,
            &[
                ("physical_package_id", if at < 2 { 7 } else { 4090 }),
                ("core_id", i64::from(cpu) * 3),
            ],
            &[
                ("thread_siblings", &cpu.to_string()),
                ("core_siblings", package),
            ],
        );
        caches(&tree, cpu, &[(3, "Unified", "2048K", package)]);
    }
    online(&tree, "0,64,1000,1063");
    node(&tree, 3, "0,64", 8 << 20, "10 40");
    node(&tree, 250, "1000,1063", 8 << 20, "40 10");
    tree.file(&format!("{NODES}/online"), "3,250");
    tree
}

/// Two cores of two threads with an L2 each; four of one that share one, as four more without L3.
fn hybrid() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "x86_64");
    for cpu in 0..12u32 {
        let (threads, l2) = match cpu {
            0..4 => (range(cpu / 2 * 2, 2), range(cpu / 2 * 2, 2)),
            _ => (cpu.to_string(), range(cpu / 4 * 4, 4)),
        };
        topology(
            &tree,
            cpu,
            &[
                ("physical_package_id", 0),
                (
                    "cluster_id",
                    i64::from(if cpu < 4 {
                        cpu / 2 * 8
                    } else {
                        cpu / 4 * 8 + 16
                    }),
                ),
                ("core_id", i64::from(cpu)),
            ],
            &[
                ("core_cpus", &threads),
                ("cluster_cpus", &l2),
                ("package_cpus", "0-11"),
            ],
        );
        let mut told = vec![
            (1, "Data", "48K", threads.as_str()),
            (2, "Unified", "2048K", l2.as_str()),
        ];
        if cpu < 8 {
            told.push((3, "Unified", "24576K", "0-7"));
        }
        caches(&tree, cpu, &told);
    }
    tree.file("/sys/devices/cpu_core/cpus", "0-3")
        .file("/sys/devices/cpu_atom/cpus", "4-11");
    online(&tree, "0-11");
    node(&tree, 0, "0-11", 32 << 20, "10");
    tree
}

fn eight_threads() -> Tree {
    let tree = Tree::new();
    architecture(&tree, "ppc64le");
    for cpu in 0..16u32 {
        let threads = range(cpu / 8 * 8, 8);
        topology(
            &tree,
            cpu,
            &[
                ("physical_package_id", 0),
                ("core_id", i64::from(cpu / 8 * 8)),
            ],
            &[("thread_siblings", &threads), ("core_siblings", "0-15")],
        );
        caches(
            &tree,
            cpu,
            &[
                (1, "Data", "64K", &threads),
                (2, "Unified", "512K", &threads),
                (3, "Unified", "8192K", &threads),
            ],
        );
    }
    online(&tree, "0-15");
    node(&tree, 8, "0-15", 32 << 20, "10");
    tree.file(&format!("{NODES}/online"), "8");
    tree
}

/// A node of CPUs without memory, and one of neither.
fn no_memory() -> Tree {
    let tree = Tree::new();
    plain(&tree, 8, 4);
    node(&tree, 0, "0-3", 32 << 20, "10 20 40");
    node(&tree, 1, "4-7", 0, "20 10 40");
    node(&tree, 2, "", 0, "40 40 10");
    tree.file(&format!("{NODES}/online"), "0-2");
    tree
}

/// Functions whose firmware names near CPUs and no node, in two domains.
fn near_devices() -> Tree {
    let tree = Tree::new();
    plain(&tree, 8, 4);
    node(&tree, 0, "0-3", 32 << 20, "10 20");
    node(&tree, 1, "4-7", 32 << 20, "20 10");
    tree.file(&format!("{NODES}/online"), "0-1");
    for (path, id, class, near) in [
        ("pci0000:00/0000:00:02.0", "8086:1572", "0x020000", "0-3"),
        ("pci0001:e0/0001:e0:00.0", "144d:a80a", "0x010802", "4-7"),
    ] {
        tree.pci(path, id, class, -1)
            .file(&format!("/sys/devices/{path}/local_cpus"), mask(near));
        let number = |text: &str| u16::from_str_radix(text, 16).unwrap().to_le_bytes();
        let (vendor, device) = id.split_once(':').unwrap();
        let mut config = vec![0u8; 64];
        config[..2].copy_from_slice(&number(vendor));
        config[2..4].copy_from_slice(&number(device));
        std::fs::write(tree.at(&format!("/sys/devices/{path}/config")), config).unwrap();
    }
    tree
}

fn reading(name: &str) -> PathBuf {
    PathBuf::from(format!("{READINGS}/{name}.xml"))
}

/// Has the installed hwloc read a tree.
fn bless(name: &str, tree: &Tree) {
    let output = Command::new("lstopo-no-graphics")
        .args(["--if", "fsroot", "--whole-io", "--of", "xml", "--input"])
        .arg(tree.at("/"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{name}: {said}");
    std::fs::create_dir_all(READINGS).unwrap();
    std::fs::write(reading(name), output.stdout).unwrap();
}

#[test]
fn made_trees_are_read_as_hwloc_reads_them() {
    let mut wrong = Vec::new();
    for (name, make, differ) in MADE {
        let tree = make();
        if std::env::var_os("BMSLICE_BLESS").is_some() {
            bless(name, &tree);
        }
        let theirs = hwloc::xml(&std::fs::read_to_string(reading(name)).unwrap());
        let inventory = tree.read();
        let found = differences(&inventory, &theirs);
        let expected: BTreeSet<Topic> = differ.iter().map(|(topic, _)| *topic).collect();
        wrong.extend(unexpected(name, &found, &expected));
        if std::env::var_os("BMSLICE_NOTES").is_some() {
            eprintln!("{name}: {}", notes(&inventory));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
