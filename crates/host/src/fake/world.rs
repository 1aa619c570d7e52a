//! What the fake knows of itself between two calls, and how it boots.
//!
//! Takes a description and kernel arguments; gives `/proc`, `/sys`, `/dev` and `/run` as Linux
//! shows them after booting with those. Keeps true: memory is the truth, files mirror it; `/etc`,
//! `/boot` and `/var` are the disk and outlive a boot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bmslice_model::{CpuId, CpuSet, KernelCmdline, PciAddress};

use super::cgroup::Groups;
use super::domain::FakeDomain;
use super::memory::Pool;
use super::pci::Function;
use super::quiet::Quiet;
use super::server::{FakeDisk, FakeIommu, FakeLoader, FakeServer};
use super::tree::Tree;

/// The state behind a [`FakeMachine`](super::FakeMachine).
#[derive(Debug)]
pub struct World {
    pub tree: Tree,
    pub server: FakeServer,
    /// The arguments that this boot took.
    pub cmdline: KernelCmdline,
    pub functions: BTreeMap<PciAddress, Function>,
    /// By node and page size in KiB.
    pub pools: BTreeMap<(u32, u64), Pool>,
    pub domains: BTreeMap<String, FakeDomain>,
    /// Guests whose agent never answers, by name, and what each writes to its console instead.
    pub without_agent: BTreeMap<String, String>,
    pub cgroups: Groups,
    pub quiet: Quiet,
    pub modules: BTreeSet<String>,
    /// EFI variables of the boot loader's, by name.
    pub nvram: BTreeMap<String, String>,
    pub clock: Duration,
    /// How long a link takes to be there once its interface is up.
    pub link_takes: Duration,
    /// Links that will be, and when.
    pub links: Vec<(Duration, PciAddress)>,
    pub boots: u32,
    pub next_pid: u32,
    pub libvirtd: bool,
    pub is_root: bool,
    pub disk_full: bool,
    pub reboot_requested: bool,
    pub power_cycles: u32,
}

impl World {
    /// A server that was installed and booted once.
    pub fn new(at: &Path, server: FakeServer) -> Self {
        let mut world = Self {
            tree: Tree::new(at),
            cmdline: KernelCmdline::default(),
            functions: BTreeMap::new(),
            pools: BTreeMap::new(),
            domains: BTreeMap::new(),
            without_agent: BTreeMap::new(),
            cgroups: Groups::default(),
            quiet: Quiet::default(),
            modules: BTreeSet::new(),
            nvram: BTreeMap::new(),
            clock: Duration::ZERO,
            link_takes: Duration::ZERO,
            links: Vec::new(),
            boots: 0,
            next_pid: 2000,
            libvirtd: true,
            is_root: true,
            disk_full: false,
            reboot_requested: false,
            power_cycles: 0,
            server,
        };
        world.install_disk();
        world.boot();
        world
    }

    /// What the installer left on the disk.
    fn install_disk(&mut self) {
        let (tree, server) = (&self.tree, &self.server);
        for dir in [
            "/etc/systemd/system",
            "/usr/lib/systemd/system",
            "/etc/default/grub.d",
            "/etc/grub.d",
            "/etc/modprobe.d",
            "/etc/modules-load.d",
            "/etc/libvirt/qemu",
            "/var/lib/libvirt/images",
            "/var/log/libvirt/qemu",
            "/tmp",
        ] {
            tree.dir(dir);
        }
        for program in &server.programs {
            let script = match program.as_str() {
                // As Debian ships it: upstream's reads no folder.
                "grub-mkconfig" => {
                    "#!/bin/sh\nfor x in ${sysconfdir}/default/grub.d/*.cfg ; do . \"${x}\"; done\n"
                }
                _ => "#!/bin/false\n",
            };
            tree.put(format!("/usr/sbin/{program}"), script, 0o755);
        }
        tree.put("/usr/lib/systemd/systemd-machined", "#!/bin/false\n", 0o755);
        tree.put("/etc/hostname", format!("{}\n", server.hostname), 0o644);
        tree.put(
            "/etc/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
            0o644,
        );
        tree.put(
            "/etc/machine-id",
            "8a1f0000000000000000000000000000\n",
            0o444,
        );
        for unit in ["libvirtd.service", "ssh.service"] {
            tree.put(
                format!("/usr/lib/systemd/system/{unit}"),
                "[Unit]\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
                0o644,
            );
            tree.link(
                format!("/etc/systemd/system/multi-user.target.wants/{unit}"),
                format!("/usr/lib/systemd/system/{unit}"),
            );
        }
        if server.loader == FakeLoader::SystemdBoot {
            self.install_sd_boot();
            return;
        }
        if server.loader == FakeLoader::Bls {
            self.install_bls();
            return;
        }
        if server.loader == FakeLoader::Ostree {
            self.install_ostree();
            return;
        }
        tree.put(format!("/boot/vmlinuz-{}", server.kernel), "kernel", 0o644);
        tree.put(
            "/etc/default/grub",
            format!(
                "# If you change this file, run 'update-grub' afterwards to update\n\
                 # /boot/grub/grub.cfg.\n\n\
                 GRUB_DEFAULT=0\n\
                 GRUB_TIMEOUT=5\n\
                 GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\n\
                 GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n\
                 GRUB_CMDLINE_LINUX=\"{}\"\n",
                server.cmdline
            ),
            0o644,
        );
        let config = super::grub::generate(tree, server)
            .expect("the installed GRUB configuration is well formed");
        tree.put("/boot/grub/grub.cfg", config, 0o600);
    }

    /// Boots what the boot loader would: everything volatile is made anew.
    pub fn boot(&mut self) {
        for volatile in ["/proc", "/sys", "/dev", "/run"] {
            self.tree.remove(volatile);
        }
        self.reboot_requested = false;
        self.modules = BTreeSet::from(["virtio_pci".to_owned()]);
        // A kernel that panics reboots after `panic=` seconds; without, somebody cycles the power.
        for attempt in 1.. {
            assert!(attempt < 9, "this server never comes up");
            self.boots += 1;
            let arguments = match self.server.loader {
                FakeLoader::Grub => super::grub::next_boot(&self.tree, &self.server.root_fs)
                    .expect("the fake acts out all of grub.cfg: the fake wrote it"),
                FakeLoader::Bls => super::blscfg::next_boot(&self.tree, &self.server.root_fs)
                    .expect("GRUB finds what it boots"),
                FakeLoader::Ostree => super::ostree::next_boot(&self.tree, &self.server.root_fs)
                    .expect("GRUB finds what it boots"),
                FakeLoader::SystemdBoot => {
                    self.next_entry().expect("systemd-boot finds what it boots")
                }
            };
            self.tree.show("/proc/cmdline", &arguments);
            self.cmdline = arguments
                .parse()
                .expect("the arguments of the fake have their quotes closed");
            if self.argument("rdinit") != Some("/nonexistent") {
                break;
            }
            let reboots = self.argument("panic").and_then(|s| s.parse::<u32>().ok());
            self.power_cycles += u32::from(reboots.unwrap_or(0) == 0);
        }
        self.boot_cpus();
        self.boot_system();
        self.boot_memory();
        self.boot_pci();
        self.show_nvram();
        self.boot_disk();
        self.quiet = Quiet::default();
        self.boot_cgroups();
        self.boot_quiet();
    }

    /// The last value of a kernel argument.
    pub fn argument(&self, key: &str) -> Option<&str> {
        self.cmdline.last(key)?.value()
    }

    /// Whether translation is on: groups exist and devices can be given away.
    pub fn iommu_on(&self) -> bool {
        match self.server.iommu {
            FakeIommu::Intel => self
                .argument("intel_iommu")
                .is_some_and(|value| value.split(',').any(|part| part == "on")),
            FakeIommu::IntelByDefault => self.argument("intel_iommu") != Some("off"),
            FakeIommu::Amd => self.argument("amd_iommu") != Some("off"),
            FakeIommu::Absent => false,
        }
    }

    /// `/proc` and the odds and ends of `/sys`.
    fn boot_system(&self) {
        let (tree, server) = (&self.tree, &self.server);
        tree.show("/proc/sys/kernel/hostname", &server.hostname);
        tree.show("/proc/sys/kernel/osrelease", &server.kernel);
        tree.show("/proc/sys/kernel/ostype", "Linux");
        tree.show("/proc/sys/kernel/arch", "x86_64");
        let boot = self.boots;
        tree.show(
            "/proc/sys/kernel/random/boot_id",
            format!("00000000-0000-4000-8000-{boot:012x}"),
        );
        tree.show("/proc/uptime", "60.00 1200.00");
        if server.loader == FakeLoader::Ostree {
            tree.put("/run/ostree-booted", "", 0o644);
        }
        tree.show("/sys/class/dmi/id/sys_vendor", "Fake");
        tree.show("/sys/class/dmi/id/product_name", "Server 2000");
        let table = match server.iommu {
            FakeIommu::Intel | FakeIommu::IntelByDefault => Some("DMAR"),
            FakeIommu::Amd => Some("IVRS"),
            FakeIommu::Absent => None,
        };
        tree.dir("/sys/firmware/acpi/tables");
        for table in table.into_iter().chain(["APIC", "SRAT", "SLIT"]) {
            tree.put(format!("/sys/firmware/acpi/tables/{table}"), table, 0o400);
        }
        if self.iommu_on() {
            tree.dir("/sys/class/iommu/dmar0/devices");
            tree.put("/dev/vfio/vfio", "", 0o666);
        }
        tree.dir("/sys/kernel/iommu_groups");
        let vendor = if server.cpu.0 == "GenuineIntel" {
            "kvm_intel"
        } else {
            "kvm_amd"
        };
        if server.kvm {
            tree.put("/dev/kvm", "", 0o660);
            tree.knob(format!("/sys/module/{vendor}/parameters/nested"), "1");
            tree.dir("/sys/module/kvm/parameters");
        }
        tree.show("/proc/self/cgroup", "0::/user.slice/user-0.slice");
        let mut status = format!("Name:\tbmslice\nPid:\t{}\n", std::process::id());
        status.push_str(&format!("Cpus_allowed_list:\t{}\n", self.all_cpus()));
        tree.put("/proc/self/status", status, 0o444);
        tree.put("/proc/modules", "", 0o444);
        tree.put(
            "/proc/swaps",
            "Filename\tType\tSize\tUsed\tPriority\n",
            0o444,
        );
    }

    /// Every CPU.
    pub fn all_cpus(&self) -> CpuSet {
        (0..self.server.cpus())
            .filter_map(|cpu| CpuId::new(cpu).ok())
            .collect()
    }

    fn boot_cpus(&self) {
        let (tree, server) = (&self.tree, &self.server);
        let cpus = "/sys/devices/system/cpu";
        let all = self.all_cpus();
        for list in ["present", "online", "possible"] {
            tree.show(format!("{cpus}/{list}"), &all);
        }
        tree.show(format!("{cpus}/offline"), "");
        tree.show(format!("{cpus}/isolated"), self.isolated());
        let nohz = self
            .argument("nohz_full")
            .unwrap_or("                  (null)");
        tree.show(format!("{cpus}/nohz_full"), nohz);
        tree.show(format!("{cpus}/smt/active"), u8::from(server.threads > 1));
        let set = |wanted: &dyn Fn(u32, u32, u32) -> bool| -> CpuSet {
            self.threads()
                .filter(|&(s, c, t)| wanted(s, c, t))
                .filter_map(|(s, c, t)| CpuId::new(server.cpu(s, c, t)).ok())
                .collect()
        };
        let mut info = String::new();
        for (socket, core, thread) in self.threads() {
            let at = format!("{cpus}/cpu{}", server.cpu(socket, core, thread));
            let siblings = set(&|s, c, _| s == socket && c == core);
            let package = set(&|s, _, _| s == socket);
            if server.cpu(socket, core, thread) != 0 {
                tree.knob(format!("{at}/online"), 1);
            }
            let topology = format!("{at}/topology");
            tree.show(format!("{topology}/physical_package_id"), socket);
            tree.show(format!("{topology}/die_id"), 0);
            tree.show(format!("{topology}/core_id"), core);
            for name in ["thread_siblings_list", "core_cpus_list"] {
                tree.show(format!("{topology}/{name}"), &siblings);
            }
            for name in ["core_siblings_list", "package_cpus_list", "die_cpus_list"] {
                tree.show(format!("{topology}/{name}"), &package);
            }
            let caches = [
                (1, "Data", "32K", &siblings),
                (1, "Instruction", "32K", &siblings),
                (2, "Unified", "256K", &siblings),
                (3, "Unified", "15360K", &package),
            ];
            for (index, (level, kind, size, shared)) in caches.into_iter().enumerate() {
                let cache = format!("{at}/cache/index{index}");
                tree.show(format!("{cache}/level"), level);
                tree.show(format!("{cache}/type"), kind);
                tree.show(format!("{cache}/size"), size);
                tree.show(format!("{cache}/shared_cpu_list"), shared);
            }
            let node = server.node_of(socket, core);
            tree.link(
                format!("{at}/node{node}"),
                format!("/sys/devices/system/node/node{node}"),
            );
        }
        for cpu in 0..server.cpus() {
            let (vendor, model) = &server.cpu;
            let virt = if vendor == "GenuineIntel" {
                "vmx"
            } else {
                "svm"
            };
            info.push_str(&format!(
                "processor\t: {cpu}\nvendor_id\t: {vendor}\nmodel name\t: {model}\n\
                 flags\t\t: fpu pse msr pdpe1gb lm {virt}\n\n"
            ));
        }
        tree.put("/proc/cpuinfo", info, 0o444);
    }

    /// Every thread as (socket, core, thread).
    pub fn threads(&self) -> impl Iterator<Item = (u32, u32, u32)> + use<> {
        let (sockets, cores, threads) =
            (self.server.sockets, self.server.cores, self.server.threads);
        (0..sockets).flat_map(move |socket| {
            (0..cores).flat_map(move |core| (0..threads).map(move |thread| (socket, core, thread)))
        })
    }

    /// What `isolcpus=` isolates from the scheduler: its list, unless flags leave `domain` out.
    pub fn isolated(&self) -> CpuSet {
        let Some(value) = self.argument("isolcpus") else {
            return CpuSet::new();
        };
        let is_flag = |part: &&str| part.starts_with(|c: char| c.is_ascii_alphabetic());
        let flags: Vec<_> = value.split(',').take_while(is_flag).collect();
        if !flags.is_empty() && !flags.contains(&"domain") {
            return CpuSet::new();
        }
        let list: Vec<_> = value.split(',').skip(flags.len()).collect();
        let asked: CpuSet = list.join(",").parse().unwrap_or_default();
        asked.intersection(&self.all_cpus())
    }

    /// The root disk, its partition and where it is mounted.
    fn boot_disk(&self) {
        let tree = &self.tree;
        let (address, below, name, major) = match self.server.disk {
            FakeDisk::Virtio(address) => (address, "virtio9/block", "vda", "254"),
            FakeDisk::Sata(address) => {
                (address, "ata1/host0/target0:0:0/0:0:0:0/block", "sda", "8")
            }
        };
        let function = format!("/sys/devices/pci0000:00/{address}");
        let disk = format!("{function}/{below}/{name}");
        tree.show(format!("{disk}/dev"), format!("{major}:0"));
        tree.show(format!("{disk}/size"), self.server.disk_free.bytes() / 512);
        tree.link(
            format!("{disk}/device"),
            Path::new(&disk)
                .parent()
                .and_then(Path::parent)
                .unwrap_or(Path::new("/")),
        );
        let part = format!("{disk}/{name}1");
        tree.show(format!("{part}/dev"), format!("{major}:1"));
        tree.show(format!("{part}/partition"), 1);
        let mut parts = vec![(0, disk.clone()), (1, part)];
        let mut mounts = format!(
            "22 1 {major}:1 / / rw,relatime shared:1 - {} /dev/{name}1 rw\n",
            self.server.root_fs
        );
        if matches!(self.server.loader, FakeLoader::Bls | FakeLoader::Ostree) {
            let part = format!("{disk}/{name}2");
            tree.show(format!("{part}/dev"), format!("{major}:2"));
            tree.show(format!("{part}/partition"), 2);
            parts.push((2, part));
            mounts.push_str(&format!(
                "23 22 {major}:2 / /boot rw,relatime shared:2 - {} /dev/{name}2 rw\n",
                self.server.root_fs
            ));
        }
        for (number, path) in &parts {
            tree.link(format!("/sys/dev/block/{major}:{number}"), path);
            let name = path.rsplit('/').next().unwrap_or_default();
            tree.link(format!("/sys/class/block/{name}"), path);
        }
        tree.link(format!("/sys/block/{name}"), &disk);
        tree.put("/proc/self/mountinfo", mounts, 0o444);
        let mounts = format!(
            "/dev/{name}1 / ext4 rw,relatime 0 0\nsysfs /sys sysfs rw 0 0\n\
             cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
        );
        tree.put("/proc/self/mounts", &mounts, 0o444);
        tree.link("/proc/mounts", "/proc/self/mounts");
    }
}
