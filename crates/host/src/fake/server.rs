//! What a fake server is made of: a description small enough to write in a test.
//!
//! Takes fields; gives two servers that the tests of every crate know: the seed's and the lab's.

use bmslice_model::{ByteSize, PciAddress};

/// How the firmware numbers hardware threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Siblings side by side, socket after socket: (0,1), (2,3), … as QEMU does.
    Linear,
    /// First threads of all cores, socket after socket, then all second threads: (0,12), (1,13), …
    /// with the first half of them on socket 0, as most firmware does.
    ThreadsLast,
    /// As `ThreadsLast`, with sockets alternating: even numbers on socket 0, as the seed's server.
    Alternating,
}

/// The IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeIommu {
    /// VT-d: on with `intel_iommu=on`.
    Intel,
    /// VT-d under a kernel that turns it on by itself (`CONFIG_INTEL_IOMMU_DEFAULT_ON`, as Debian's):
    /// on unless `intel_iommu=off`.
    IntelByDefault,
    /// AMD-Vi: on unless `amd_iommu=off`.
    Amd,
    /// The machine has none.
    Absent,
}

/// SR-IOV of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSriov {
    /// `sriov_totalvfs`.
    pub total: u16,
    /// `sriov_offset`.
    pub offset: u16,
    /// `sriov_stride`.
    pub stride: u16,
    /// `sriov_vf_device`, hexadecimal.
    pub vf_device: String,
    /// The host's driver of its VFs.
    pub vf_driver: String,
}

/// A network card's function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeNic {
    /// Its interface: `eno1`.
    pub name: String,
    /// Where it sits.
    pub address: PciAddress,
    /// The root port above it; `None` on a root bus.
    pub root_port: Option<PciAddress>,
    /// NUMA node; -1 when firmware does not tell.
    pub node: i32,
    /// Vendor and device, `8086:10c9`.
    pub id: String,
    /// The host's driver. `virtio-pci` puts a virtio device between the function and the interface.
    pub driver: String,
    /// Its permanent MAC.
    pub mac: String,
    /// Mbit/s of the link once it is up; `None` when no cable is in it.
    pub speed: Option<u32>,
    /// Whether the host's own configuration brings it up at boot.
    pub up: bool,
    /// SR-IOV, if it has it.
    pub sriov: Option<FakeSriov>,
    /// Another function whose IOMMU group it shares (a card without ACS).
    pub group_with: Option<PciAddress>,
}

/// Where `/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeDisk {
    /// `vda1` on a virtio-blk function.
    Virtio(PciAddress),
    /// `sda1` on an AHCI controller.
    Sata(PciAddress),
}

/// What boots the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeLoader {
    /// GRUB, as Debian installs it.
    Grub,
    /// systemd-boot on an EFI system partition at `/boot/efi`, with entries as kernel-install makes
    /// them.
    SystemdBoot,
    /// GRUB with boot loader entries and `grubby`, and a partition for `/boot`, as RHEL 9 and what is
    /// made of it are installed.
    Bls,
    /// The same GRUB with the entries of ostree's deployments, as Fedora IoT is installed.
    Ostree,
}

/// A server to be faked. All of it is public: take one of the two below and change what matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeServer {
    /// Host name.
    pub hostname: String,
    /// `vendor_id` and `model name` of cpuinfo.
    pub cpu: (String, String),
    /// Packages.
    pub sockets: u32,
    /// Cores of each.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
    /// How they are numbered.
    pub numbering: Numbering,
    /// NUMA nodes: a divisor or a multiple of the packages.
    pub nodes: u32,
    /// Memory of each node.
    pub node_memory: ByteSize,
    /// How much of it the host itself uses, on each node.
    pub host_memory: ByteSize,
    /// The IOMMU.
    pub iommu: FakeIommu,
    /// Cards.
    pub nics: Vec<FakeNic>,
    /// The interface of the default route.
    pub default_route: String,
    /// The root disk.
    pub disk: FakeDisk,
    /// The file system of `/`, and of `/boot` where that is a partition of its own.
    pub root_fs: String,
    /// `osrelease`.
    pub kernel: String,
    /// The boot loader.
    pub loader: FakeLoader,
    /// `GRUB_CMDLINE_LINUX`, or the entries' own options after the root, as the administrator left
    /// them.
    pub cmdline: String,
    /// Whether `/dev/kvm` is there.
    pub kvm: bool,
    /// Free space of the root file system.
    pub disk_free: ByteSize,
    /// Programs that are installed.
    pub programs: Vec<String>,
}

/// Programs that the fake can act out.
pub const PROGRAMS: [&str; 25] = [
    "bootctl",
    "chmod",
    "chown",
    "ethtool",
    "genisoimage",
    "grub-mkconfig",
    "grub2-editenv",
    "grub2-mkconfig",
    "grubby",
    "ip",
    "mkisofs",
    "modprobe",
    "qemu-img",
    "rmdir",
    "rpm-ostree",
    "sync",
    "systemctl",
    "taskset",
    "true",
    "udevadm",
    "update-grub",
    "virt-customize",
    "virt-resize",
    "xorriso",
    "xorrisofs",
];

fn address(text: &str) -> PciAddress {
    text.parse()
        .expect("the addresses of this file are well written")
}

fn installed() -> Vec<String> {
    PROGRAMS
        .iter()
        .filter(|name| {
            !matches!(
                **name,
                "grub2-editenv" | "grub2-mkconfig" | "grubby" | "mkisofs" | "rpm-ostree"
            )
        })
        .map(|name| (*name).to_owned())
        .collect()
}

impl FakeServer {
    /// The seed's server: 2 × 6 × 2, even CPUs on node 0, siblings n and n + 12, X540 and I350
    /// cards on node 0, management on `eno3`.
    #[must_use]
    pub fn seed() -> Self {
        let nic = |name: &str, at: &str, port: &str, mac: &str, x540: bool| FakeNic {
            name: name.into(),
            address: address(at),
            root_port: Some(address(port)),
            node: 0,
            id: if x540 { "8086:1528" } else { "8086:1521" }.into(),
            driver: if x540 { "ixgbe" } else { "igb" }.into(),
            mac: mac.into(),
            speed: Some(if x540 { 10_000 } else { 1_000 }),
            up: true,
            sriov: Some(FakeSriov {
                total: if x540 { 63 } else { 7 },
                offset: 128,
                stride: if x540 { 2 } else { 4 },
                vf_device: if x540 { "1515" } else { "1520" }.into(),
                vf_driver: if x540 { "ixgbevf" } else { "igbvf" }.into(),
            }),
            group_with: None,
        };
        Self {
            hostname: "server1".into(),
            cpu: (
                "GenuineIntel".into(),
                "Intel(R) Xeon(R) CPU E5-2620 v2 @ 2.10GHz".into(),
            ),
            sockets: 2,
            cores: 6,
            threads: 2,
            numbering: Numbering::Alternating,
            nodes: 2,
            node_memory: ByteSize::from_gib(32),
            host_memory: ByteSize::from_gib(2),
            iommu: FakeIommu::Intel,
            nics: vec![
                nic("eno1", "01:00.0", "00:01.0", "bc:30:5b:f2:87:50", true),
                nic("eno2", "01:00.1", "00:01.0", "bc:30:5b:f2:87:52", true),
                nic("eno3", "08:00.0", "00:02.0", "bc:30:5b:f2:87:54", false),
                nic("eno4", "08:00.1", "00:02.0", "bc:30:5b:f2:87:55", false),
            ],
            default_route: "eno3".into(),
            disk: FakeDisk::Sata(address("00:1f.2")),
            root_fs: "ext4".into(),
            kernel: "6.1.0-26-amd64".into(),
            loader: FakeLoader::Grub,
            cmdline: String::new(),
            kvm: true,
            disk_free: ByteSize::from_gib(500),
            programs: installed(),
        }
    }

    /// The lab's server: 2 × 6 × 2 with siblings side by side, 4 GiB a node, two igb cards with
    /// 7 VFs on each node, down until somebody brings them up, virtio management card and root disk.
    /// Its IOMMU wants to be asked for; the lab's Debian kernel turns it on by itself
    /// ([`FakeIommu::IntelByDefault`]).
    #[must_use]
    pub fn lab() -> Self {
        let nic = |name: &str, bus: &str, port: &str, node: i32, last: u8| FakeNic {
            name: name.into(),
            address: address(&format!("{bus}:00.0")),
            root_port: Some(address(port)),
            node,
            id: "8086:10c9".into(),
            driver: "igb".into(),
            mac: format!("52:54:00:00:00:{last:02x}"),
            speed: Some(1_000),
            up: false,
            sriov: Some(FakeSriov {
                total: 7,
                offset: 128,
                stride: 2,
                vf_device: "10ca".into(),
                vf_driver: "igbvf".into(),
            }),
            group_with: None,
        };
        Self {
            hostname: "lab".into(),
            cpu: ("AuthenticAMD".into(), "QEMU TCG CPU version 2.5+".into()),
            sockets: 2,
            cores: 6,
            threads: 2,
            numbering: Numbering::Linear,
            nodes: 2,
            node_memory: ByteSize::from_gib(4),
            host_memory: ByteSize::from_mib(512),
            iommu: FakeIommu::Intel,
            nics: vec![
                FakeNic {
                    name: "enp0s2".into(),
                    address: address("00:02.0"),
                    root_port: None,
                    node: -1,
                    id: "1af4:1000".into(),
                    driver: "virtio-pci".into(),
                    mac: "52:54:00:12:34:56".into(),
                    speed: Some(10_000),
                    up: true,
                    sriov: None,
                    group_with: None,
                },
                nic("enp65s0", "41", "40:00.0", 0, 0x11),
                nic("enp66s0", "42", "40:01.0", 0, 0x12),
                nic("enp129s0", "81", "80:00.0", 1, 0x21),
                nic("enp130s0", "82", "80:01.0", 1, 0x22),
            ],
            default_route: "enp0s2".into(),
            disk: FakeDisk::Virtio(address("00:03.0")),
            root_fs: "ext4".into(),
            kernel: "6.12.95+deb12-amd64".into(),
            loader: FakeLoader::Grub,
            cmdline: "console=tty0 console=ttyS0,115200".into(),
            kvm: true,
            disk_free: ByteSize::from_gib(100),
            programs: installed(),
        }
    }

    /// The lab's server as Rocky Linux 9 boots it: GRUB with entries, `grubby`, `grub2-editenv`.
    #[must_use]
    pub fn rocky() -> Self {
        let mut server = Self::lab();
        server.loader = FakeLoader::Bls;
        server.kernel = "5.14.0-427.13.1.el9_4.x86_64".into();
        let debians = ["bootctl", "grub-mkconfig", "update-grub"];
        server.programs.retain(|name| !debians.contains(&&**name));
        let own = ["grub2-editenv", "grub2-mkconfig", "grubby"];
        server.programs.extend(own.map(str::to_owned));
        server
    }

    /// The lab's server as Fedora IoT boots it: GRUB with the entries of ostree's deployments, of
    /// which there are two.
    #[must_use]
    pub fn iot() -> Self {
        let mut server = Self::lab();
        server.loader = FakeLoader::Ostree;
        server.kernel = "6.8.5-301.fc40.x86_64".into();
        let debians = ["bootctl", "grub-mkconfig", "update-grub"];
        server.programs.retain(|name| !debians.contains(&&**name));
        let own = ["grub2-editenv", "rpm-ostree"];
        server.programs.extend(own.map(str::to_owned));
        server
    }

    /// How many logical CPUs.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// The number of a thread.
    pub(super) fn cpu(&self, socket: u32, core: u32, thread: u32) -> u32 {
        match self.numbering {
            Numbering::Linear => (socket * self.cores + core) * self.threads + thread,
            Numbering::ThreadsLast => {
                thread * self.sockets * self.cores + socket * self.cores + core
            }
            Numbering::Alternating => {
                thread * self.sockets * self.cores + core * self.sockets + socket
            }
        }
    }

    /// The node of a core.
    pub(super) fn node_of(&self, socket: u32, core: u32) -> u32 {
        if self.nodes <= self.sockets {
            socket * self.nodes / self.sockets
        } else {
            let parts = self.nodes / self.sockets;
            socket * parts + core * parts / self.cores
        }
    }
}
