//! Captured trees, written by the test that reads them.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests build the trees that are then read through a root"
)]
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bmslice_host::Root;
use bmslice_inventory::{HostNeed, Inventory, PciFunction, Probes, ReadError, read};
use tempfile::TempDir;

/// A folder that stands for `/`.
pub struct Tree(TempDir);

impl Tree {
    pub fn new() -> Self {
        // In memory where there is such a folder: a server is some hundreds of small files.
        Self(tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()))
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file, as the kernel does with a line feed at its end.
    pub fn file(&self, path: &str, text: impl AsRef<str>) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{}\n", text.as_ref())).unwrap();
        self
    }

    pub fn folder(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    pub fn remove(&self, path: &str) -> &Self {
        let path = self.at(path);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        self
    }

    pub fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    pub fn try_read(&self, probes: &Probes) -> Result<Inventory, ReadError> {
        read(&self.root(), probes)
    }

    /// Reads it; whatever was odd about it, the inventory fits together.
    pub fn read(&self) -> Inventory {
        let inventory = self.try_read(&Probes::default()).unwrap();
        assert_eq!(bmslice_inventory::contradictions(&inventory), []);
        inventory
    }

    /// A core's thread, as topology and caches show it. `siblings` and `l3` are lists.
    pub fn cpu(&self, id: u32, package: u32, core: u32, siblings: &str, l3: &str) -> &Self {
        let cpu = format!("/sys/devices/system/cpu/cpu{id}");
        self.file(
            &format!("{cpu}/topology/physical_package_id"),
            package.to_string(),
        )
        .file(&format!("{cpu}/topology/core_id"), core.to_string())
        .file(&format!("{cpu}/topology/thread_siblings_list"), siblings)
        .cache(id, 0, 1, "Data", "32K", siblings)
        .cache(id, 1, 1, "Instruction", "32K", siblings)
        .cache(id, 2, 2, "Unified", "256K", siblings)
        .cache(id, 3, 3, "Unified", "15360K", l3)
    }

    pub fn cache(
        &self,
        cpu: u32,
        index: u32,
        level: u32,
        kind: &str,
        size: &str,
        cpus: &str,
    ) -> &Self {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}");
        self.file(&format!("{folder}/level"), level.to_string())
            .file(&format!("{folder}/type"), kind)
            .file(&format!("{folder}/size"), size)
            .file(&format!("{folder}/shared_cpu_list"), cpus)
    }

    pub fn node(
        &self,
        id: u32,
        cpus: &str,
        total_kib: u64,
        free_kib: u64,
        distance: &str,
    ) -> &Self {
        let node = format!("/sys/devices/system/node/node{id}");
        self.file(&format!("{node}/cpulist"), cpus)
            .file(
                &format!("{node}/meminfo"),
                format!(
                    "Node {id} MemTotal:       {total_kib} kB\nNode {id} MemFree:        {free_kib} kB"
                ),
            )
            .file(&format!("{node}/distance"), distance)
    }

    pub fn huge_pages(&self, node: u32, kib: u64, total: u64, free: u64) -> &Self {
        let pool = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB");
        self.file(&format!("{pool}/nr_hugepages"), total.to_string())
            .file(&format!("{pool}/free_hugepages"), free.to_string())
    }

    /// A PCI function at `path` under `/sys/devices`; its address is the last component.
    pub fn pci(&self, path: &str, id: &str, class: &str, node: i32) -> &Self {
        let folder = format!("/sys/devices/{path}");
        let address = Path::new(path).file_name().unwrap().to_str().unwrap();
        let (vendor, device) = id.split_once(':').unwrap();
        self.file(&format!("{folder}/vendor"), format!("0x{vendor}"))
            .file(&format!("{folder}/device"), format!("0x{device}"))
            .file(&format!("{folder}/class"), class)
            .file(&format!("{folder}/numa_node"), node.to_string())
            .link(
                &format!("/sys/bus/pci/devices/{address}"),
                &format!("../../../devices/{path}"),
            )
    }

    pub fn driver(&self, path: &str, driver: &str) -> &Self {
        self.folder(&format!("/sys/bus/pci/drivers/{driver}")).link(
            &format!("/sys/devices/{path}/driver"),
            &format!("/sys/bus/pci/drivers/{driver}"),
        )
    }

    /// Puts the function into a group whose reserved regions are as VT-d's without RMRR.
    pub fn group(&self, path: &str, group: u32) -> &Self {
        let folder = format!("/sys/kernel/iommu_groups/{group}");
        self.file(
            &format!("{folder}/reserved_regions"),
            "0x00000000fee00000 0x00000000feefffff msi",
        )
        .link(&format!("/sys/devices/{path}/iommu_group"), &folder)
    }

    /// An interface on a device, or `virtual`.
    pub fn interface(&self, device: &str, name: &str, mac: Option<&str>) -> &Self {
        let folder = format!("{device}/net/{name}");
        let sys = format!("/sys/devices/{folder}");
        if let Some(mac) = mac {
            self.file(&format!("{sys}/address"), mac)
                .file(&format!("{sys}/addr_assign_type"), "0");
        }
        self.file(&format!("{sys}/mtu"), "1500").link(
            &format!("/sys/class/net/{name}"),
            &format!("../../devices/{folder}"),
        )
    }

    pub fn state(&self, name: &str, state: &str) -> &Self {
        let sys = format!("/sys/class/net/{name}");
        self.file(&format!("{sys}/operstate"), state).file(
            &format!("{sys}/carrier"),
            if state == "up" { "1" } else { "0" },
        )
    }

    /// Puts an interface under another, as the kernel links both.
    pub fn enslave(&self, lower: &str, upper: &str, master: bool) -> &Self {
        self.link(
            &format!("/sys/class/net/{upper}/lower_{lower}"),
            &format!("/sys/class/net/{lower}"),
        );
        if master {
            self.link(
                &format!("/sys/class/net/{lower}/master"),
                &format!("/sys/class/net/{upper}"),
            );
        }
        self
    }

    /// IPv4 routes as `(interface, destination, mask)` in the kernel's own hexadecimal.
    pub fn routes(&self, routes: &[(&str, &str, &str)]) -> &Self {
        let mut text =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
                .to_owned();
        for (interface, destination, mask) in routes {
            text.push_str(&format!(
                "\n{interface}\t{destination}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0"
            ));
        }
        self.file("/proc/net/route", text)
    }

    /// A disk at `device` under `/sys/devices`, with its number.
    pub fn disk(&self, device: &str, number: &str) -> &Self {
        let name = Path::new(device).file_name().unwrap().to_str().unwrap();
        self.file(&format!("/sys/devices/{device}/dev"), number)
            .link(
                &format!("/sys/dev/block/{number}"),
                &format!("../../devices/{device}"),
            )
            .link(
                &format!("/sys/class/block/{name}"),
                &format!("../../devices/{device}"),
            )
    }

    /// Mounts as `(number, where, kind, source)`.
    pub fn mounts(&self, mounts: &[(&str, &str, &str, &str)]) -> &Self {
        let lines: Vec<String> = mounts
            .iter()
            .enumerate()
            .map(|(i, (number, at, kind, source))| {
                format!("{i} 1 {number} / {at} rw,relatime shared:1 - {kind} {source} rw")
            })
            .collect();
        self.file("/proc/self/mountinfo", lines.join("\n"))
    }
}

pub const X540: [&str; 2] = [
    "pci0000:00/0000:00:01.0/0000:01:00.0",
    "pci0000:00/0000:00:01.0/0000:01:00.1",
];
pub const I350: [&str; 2] = [
    "pci0000:00/0000:00:1c.0/0000:08:00.0",
    "pci0000:00/0000:00:1c.0/0000:08:00.1",
];
pub const AHCI: &str = "pci0000:00/0000:00:1f.2";

/// The document's server, before it is sliced: 2 sockets of 6 cores of 2 threads, interleaved over
/// two nodes; a dual X540 and a dual I350 on node 0; booted with the IOMMU on and no isolation.
pub fn seed_server() -> Tree {
    let tree = Tree::new();
    let node_cpus = |node: u32| -> String {
        (0..24)
            .filter(|cpu| cpu % 2 == node)
            .map(|cpu| cpu.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    for id in 0..24u32 {
        let (core, node) = (id % 12, id % 2);
        tree.cpu(
            id,
            node,
            core / 2,
            &format!("{core},{}", core + 12),
            &node_cpus(node),
        );
    }
    tree.file("/sys/devices/system/cpu/present", "0-23")
        .file("/sys/devices/system/cpu/online", "0-23")
        .file("/sys/devices/system/cpu/isolated", "")
        .file("/sys/devices/system/cpu/nohz_full", "  (null)");
    for (node, distance) in [(0, "10 20"), (1, "20 10")] {
        tree.node(node, &node_cpus(node), 64 << 20, 62 << 20, distance)
            .huge_pages(node, 2048, 0, 0)
            .huge_pages(node, 1 << 20, 0, 0);
    }

    tree.pci("pci0000:00/0000:00:01.0", "8086:0e02", "0x060400", 0)
        .driver("pci0000:00/0000:00:01.0", "pcieport")
        .group("pci0000:00/0000:00:01.0", 18)
        .pci("pci0000:00/0000:00:1c.0", "8086:1d10", "0x060400", 0)
        .driver("pci0000:00/0000:00:1c.0", "pcieport")
        .group("pci0000:00/0000:00:1c.0", 20)
        .pci(AHCI, "8086:1d02", "0x010601", 0)
        .driver(AHCI, "ahci")
        .group(AHCI, 22);
    // The switch learned ..:52 on Red's port and ..:50 on Blue's; Red has 01:00.0.
    let ports = [
        (X540[0], "eno1", Some("bc:30:5b:f2:87:52"), 25),
        (X540[1], "eno2", Some("bc:30:5b:f2:87:50"), 26),
        (I350[0], "eno3", None, 27),
        (I350[1], "eno4", None, 28),
    ];
    for (path, name, mac, group) in ports {
        let x540 = mac.is_some();
        tree.pci(
            path,
            if x540 { "8086:1528" } else { "8086:1521" },
            "0x020000",
            0,
        )
        .driver(path, if x540 { "ixgbe" } else { "igb" })
        .group(path, group)
        .interface(path, name, mac)
        .state(name, if name == "eno4" { "down" } else { "up" });
        let sys = format!("/sys/devices/{path}");
        let (total, offset, stride, device) = if x540 {
            ("63", "128", "2", "1515")
        } else {
            ("7", "128", "4", "1520")
        };
        tree.file(&format!("{sys}/sriov_totalvfs"), total)
            .file(&format!("{sys}/sriov_numvfs"), "0")
            .file(&format!("{sys}/sriov_offset"), offset)
            .file(&format!("{sys}/sriov_stride"), stride)
            .file(&format!("{sys}/sriov_vf_device"), device)
            .file(&format!("{sys}/sriov_drivers_autoprobe"), "1");
    }
    tree.interface("virtual", "virbr0", None)
        .state("virbr0", "down")
        .interface("virtual", "lo", None)
        .routes(&[
            ("eno3", "00000000", "00000000"),
            ("eno3", "0001A8C0", "00FFFFFF"),
            ("virbr0", "007AA8C0", "00FFFFFF"),
        ]);
    let disk = format!("{AHCI}/ata1/host0/target0:0:0/0:0:0:0/block/sda");
    tree.disk(&disk, "8:0")
        .disk(&format!("{disk}/sda2"), "8:2")
        .mounts(&[
            ("0:21", "/proc", "proc", "proc"),
            ("8:2", "/", "ext4", "/dev/sda2"),
        ]);

    tree.file("/proc/sys/kernel/hostname", "server1")
        .file("/proc/sys/kernel/osrelease", "4.15.0-213-generic")
        .file(
            "/etc/os-release",
            "NAME=\"Ubuntu\"\nPRETTY_NAME=\"Ubuntu 18.04.6 LTS\"",
        )
        .file(
            "/proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) CPU E5-2620 v2 @ 2.10GHz\nflags\t\t: fpu vme pse pdpe1gb rdtscp lm vmx x2apic\n",
        )
        .file(
            "/proc/cmdline",
            "BOOT_IMAGE=/boot/vmlinuz-4.15.0-213-generic root=/dev/sda2 ro intel_iommu=on",
        )
        .file("/sys/firmware/acpi/tables/DMAR", "")
        .file("/sys/firmware/acpi/tables/APIC", "")
        .folder("/sys/fs/cgroup/cpuset")
        .file("/boot/grub/grub.cfg", "menuentry 'Ubuntu' {}")
        .file("/usr/sbin/update-grub", "exec grub-mkconfig -o /boot/grub/grub.cfg")
        .file(
            "/usr/sbin/grub-mkconfig",
            "for x in ${sysconfdir}/default/grub.d/*.cfg ; do",
        )
        .file("/dev/kvm", "")
        .file("/sys/module/kvm_intel/parameters/nested", "N");
    tree
}

pub fn function<'a>(inventory: &'a Inventory, address: &str) -> &'a PciFunction {
    let address = address.parse().unwrap();
    inventory.pci.iter().find(|f| f.address == address).unwrap()
}

pub fn needs<'a>(inventory: &'a Inventory, address: &str) -> &'a [HostNeed] {
    &function(inventory, address).host_needs
}

/// CPUs that show topology files alone, as `(file, text)` for each CPU.
pub fn cpus(count: u32, topology: impl Fn(u32) -> Vec<(&'static str, String)>) -> Tree {
    let tree = Tree::new();
    for cpu in 0..count {
        for (file, text) in topology(cpu) {
            tree.file(
                &format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}"),
                text,
            );
        }
    }
    tree.file(
        "/sys/devices/system/cpu/present",
        format!("0-{}", count - 1),
    )
    .file("/sys/devices/system/cpu/online", format!("0-{}", count - 1));
    tree
}

/// `4-7` for four from 4.
pub fn range(start: u32, length: u32) -> String {
    format!("{start}-{}", start + length - 1)
}

/// All notes as text.
pub fn notes(inventory: &Inventory) -> String {
    inventory
        .notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}
