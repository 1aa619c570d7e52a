//! A server of 256 CPUs as a tree of files, as Linux 6 shows it: two sockets of four nodes, cores of
//! two threads, an L3 for each eight cores, and a root complex with NICs and drives for each node.
//!
//! Keeps true: whoever reads it has as many files to look at as on a real one; every CPU tells its
//! topology by number, mask and list, and four caches.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const CORES: u32 = 128;
const CORES_OF_L3: u32 = 8;
const CORES_OF_NODE: u32 = 16;
const CORES_OF_SOCKET: u32 = 64;

struct Tree(PathBuf);

impl Tree {
    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A set of CPUs as the kernel writes it: a mask, and a list beside it.
    fn cpus(&self, mask: &str, list: &str, cpus: &[u32]) {
        let mut words = [0u32; 8];
        for cpu in cpus {
            words[*cpu as usize / 32] |= 1 << (cpu % 32);
        }
        let text: Vec<String> = words.iter().rev().map(|w| format!("{w:08x}")).collect();
        self.file(mask, &text.join(","));
        let text: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        self.file(list, &text.join(","));
    }
}

/// The threads of some cores: CPU `n` and CPU `n + 128` are those of core `n`.
fn threads(first: u32, cores: u32) -> Vec<u32> {
    let cores = first..first + cores;
    cores
        .clone()
        .chain(cores.map(|core| core + CORES))
        .collect()
}

/// Writes the server below a folder that is made.
pub fn write(folder: &Path) {
    let tree = Tree(folder.to_owned());
    for cpu in 0..2 * CORES {
        write_cpu(&tree, cpu);
    }
    for list in ["online", "present", "possible"] {
        tree.file(&format!("sys/devices/system/cpu/{list}"), "0-255");
    }
    for node in 0..CORES / CORES_OF_NODE {
        write_node(&tree, node);
        write_root_complex(&tree, node);
    }
    tree.file("sys/devices/system/node/online", "0-7");
    let cpuinfo: Vec<String> = (0..2 * CORES)
        .map(|cpu| {
            format!(
                "processor\t: {cpu}\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7763 64-Core Processor\n\
                 physical id\t: {}\ncore id\t\t: {}\nflags\t\t: fpu lm svm x2apic pdpe1gb\n",
                cpu % CORES / CORES_OF_SOCKET,
                cpu % CORES_OF_SOCKET
            )
        })
        .collect();
    tree.file("proc/cpuinfo", &cpuinfo.join("\n"));
    tree.file(
        "proc/meminfo",
        "MemTotal: 1056768000 kB\nHugepagesize: 2048 kB",
    );
    tree.file("proc/cmdline", "root=/dev/nvme0n1p2 iommu=pt");
}

fn write_cpu(tree: &Tree, cpu: u32) {
    let core = cpu % CORES;
    let folder = format!("sys/devices/system/cpu/cpu{cpu}");
    let socket = threads(core / CORES_OF_SOCKET * CORES_OF_SOCKET, CORES_OF_SOCKET);
    let l3 = threads(core / CORES_OF_L3 * CORES_OF_L3, CORES_OF_L3);
    let own = threads(core, 1);
    let number = |name: &str, number: u32| {
        tree.file(&format!("{folder}/topology/{name}"), &number.to_string());
    };
    number("physical_package_id", core / CORES_OF_SOCKET);
    number("die_id", 0);
    number("cluster_id", core % CORES_OF_SOCKET);
    number("core_id", core % CORES_OF_SOCKET);
    for (mask, list, cpus) in [
        ("package_cpus", "package_cpus_list", &socket),
        ("core_siblings", "core_siblings_list", &socket),
        ("die_cpus", "die_cpus_list", &socket),
        ("cluster_cpus", "cluster_cpus_list", &own),
        ("core_cpus", "core_cpus_list", &own),
        ("thread_siblings", "thread_siblings_list", &own),
    ] {
        let at = format!("{folder}/topology");
        tree.cpus(&format!("{at}/{mask}"), &format!("{at}/{list}"), cpus);
    }
    for (index, level, kind, size, cpus) in [
        (0, "1", "Data", "32K", &own),
        (1, "1", "Instruction", "32K", &own),
        (2, "2", "Unified", "512K", &own),
        (3, "3", "Unified", "32768K", &l3),
    ] {
        let at = format!("{folder}/cache/index{index}");
        for (name, text) in [
            ("level", level),
            ("type", kind),
            ("size", size),
            ("coherency_line_size", "64"),
            ("number_of_sets", "64"),
            ("ways_of_associativity", "8"),
        ] {
            tree.file(&format!("{at}/{name}"), text);
        }
        tree.cpus(
            &format!("{at}/shared_cpu_map"),
            &format!("{at}/shared_cpu_list"),
            cpus,
        );
    }
    tree.file(&format!("{folder}/online"), "1");
    let at = format!("{folder}/cpufreq");
    tree.file(&format!("{at}/related_cpus"), &cpu.to_string());
    tree.file(&format!("{at}/scaling_driver"), "acpi-cpufreq");
    tree.file(&format!("{at}/scaling_governor"), "performance");
    tree.file(&format!("{at}/cpuinfo_min_freq"), "1500000");
    tree.file(&format!("{at}/cpuinfo_max_freq"), "2450000");
}

fn write_node(tree: &Tree, node: u32) {
    let folder = format!("sys/devices/system/node/node{node}");
    let cpus = threads(node * CORES_OF_NODE, CORES_OF_NODE);
    tree.cpus(
        &format!("{folder}/cpumap"),
        &format!("{folder}/cpulist"),
        &cpus,
    );
    tree.file(
        &format!("{folder}/meminfo"),
        &format!("Node {node} MemTotal: 132096000 kB\nNode {node} MemFree: 130000000 kB"),
    );
    let distances: Vec<&str> = (0..CORES / CORES_OF_NODE)
        .map(|other| match (other == node, other / 4 == node / 4) {
            (true, _) => "10",
            (false, true) => "12",
            (false, false) => "32",
        })
        .collect();
    tree.file(&format!("{folder}/distance"), &distances.join(" "));
    for (size, count) in [("2048", "0"), ("1048576", "96")] {
        let pool = format!("{folder}/hugepages/hugepages-{size}kB");
        tree.file(&format!("{pool}/nr_hugepages"), count);
        tree.file(&format!("{pool}/free_hugepages"), count);
        tree.file(&format!("{pool}/surplus_hugepages"), "0");
    }
}

/// Two ports with a NIC of two functions each, and a drive behind a third.
fn write_root_complex(tree: &Tree, node: u32) {
    let bus = node * 0x20;
    let root = format!("sys/devices/pci0000:{bus:02x}");
    for (port, id, class, functions) in [
        (1, "8086:159b", "0x020000", 2),
        (2, "15b3:101d", "0x020000", 2),
        (3, "144d:a80a", "0x010802", 1),
    ] {
        let bridge = format!("0000:{bus:02x}:{port:02x}.1");
        function(
            tree,
            &format!("{root}/{bridge}"),
            "1022:1483",
            "0x060400",
            node,
        );
        for number in 0..functions {
            let at = format!("{root}/{bridge}/0000:{:02x}:00.{number}", bus + port);
            function(tree, &at, id, class, node);
        }
    }
}

fn function(tree: &Tree, at: &str, id: &str, class: &str, node: u32) {
    let (vendor, device) = id.split_once(':').unwrap();
    for (name, text) in [
        ("vendor", format!("0x{vendor}")),
        ("device", format!("0x{device}")),
        ("subsystem_vendor", "0x8086".into()),
        ("subsystem_device", "0x0001".into()),
        ("revision", "0x01".into()),
        ("class", class.into()),
        ("numa_node", node.to_string()),
    ] {
        tree.file(&format!("{at}/{name}"), &text);
    }
    let node_cpus = threads(node * CORES_OF_NODE, CORES_OF_NODE);
    tree.cpus(
        &format!("{at}/local_cpus"),
        &format!("{at}/local_cpulist"),
        &node_cpus,
    );
    let mut config = vec![0u8; 256];
    let bytes = |text: &str| u16::from_str_radix(text, 16).unwrap().to_le_bytes();
    config[..2].copy_from_slice(&bytes(vendor));
    config[2..4].copy_from_slice(&bytes(device));
    fs::write(tree.0.join(at).join("config"), config).unwrap();
    let address = at.rsplit('/').next().unwrap();
    let path = at.trim_start_matches("sys/devices/");
    tree.link(
        &format!("sys/bus/pci/devices/{address}"),
        &format!("../../../devices/{path}"),
    );
}
