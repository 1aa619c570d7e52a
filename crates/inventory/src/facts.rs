//! The types of an inventory. Everything `Option` is something that a server may not show.

use std::collections::BTreeMap;

use bmslice_model::{
    ByteSize, CpuId, CpuSet, IommuGroupId, MacAddress, NumaNodeId, PciAddress, PciId,
};
use serde::{Deserialize, Serialize};

mod boot;
mod device;
mod host;
mod interface;
mod memory;
mod nic;
mod node;
mod power;

pub use boot::*;
pub use device::*;
pub use host::*;
pub use interface::*;
pub use memory::*;
pub use nic::*;
pub use node::*;
pub use power::*;

/// The format of an inventory file.
pub const FORMAT: &str = "bmslice/inventory/v1";

/// A server as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    /// [`FORMAT`].
    pub format: String,
    /// What the machine is.
    pub machine: MachineFacts,
    /// Every present logical CPU, by number; offline ones too.
    pub cpus: Vec<Cpu>,
    /// Every cache, by level, then kind, then lowest CPU.
    #[serde(default)]
    pub caches: Vec<Cache>,
    /// NUMA nodes, by number. A kernel without NUMA gets one node 0 with every CPU, and a note.
    pub nodes: Vec<NumaNode>,
    /// Memory of the whole server: huge pages, tiers, transparent huge pages, swap.
    #[serde(default, skip_serializing_if = "MemoryFacts::is_empty")]
    pub memory: MemoryFacts,
    /// Frequencies, governors, idle states.
    #[serde(default, skip_serializing_if = "PowerFacts::is_empty")]
    pub power: PowerFacts,
    /// PCI functions, by address.
    #[serde(default)]
    pub pci: Vec<PciFunction>,
    /// IOMMU groups, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iommu_groups: Vec<IommuGroup>,
    /// Network interfaces, by name.
    #[serde(default)]
    pub interfaces: Vec<NetInterface>,
    /// Kernel arguments, boot loader, isolation in force.
    pub boot: BootFacts,
    /// What runs on the host and holds CPUs or interrupts.
    #[serde(default, skip_serializing_if = "HostFacts::is_empty")]
    pub host: HostFacts,
    /// KVM, QEMU, libvirt, running domains.
    #[serde(default)]
    pub hypervisor: HypervisorFacts,
    /// What is odd, in the order found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// What the machine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineFacts {
    /// `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// `x86_64`, `aarch64`, …
    #[serde(default)]
    pub architecture: String,
    /// `/proc/sys/kernel/osrelease`.
    #[serde(default)]
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// `vendor_id` of cpuinfo: `GenuineIntel`, `AuthenticAMD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_vendor: Option<String>,
    /// `model name` of cpuinfo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// DMI system vendor and product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Whether this server is itself a guest (the `hypervisor` CPU flag); unknown on some
    /// architectures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<bool>,
    /// Whose guest it is, when that is told: `kvm`, `xen`, `vmware`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_of: Option<String>,
    /// Revision of the CPU's microcode: `0x2b000603`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// `/sys/devices/system/cpu/smt/control`: `on`, `off`, `forceoff`, `notsupported`,
    /// `notimplemented`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smt: Option<String>,
    /// What the kernel says of each vulnerability of CPUs that it knows
    /// (`/sys/devices/system/cpu/vulnerabilities`): `l1tf` → `Mitigation: …`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vulnerabilities: BTreeMap<String, String>,
    /// The clock source in use: `tsc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_source: Option<String>,
}

/// A logical CPU (hardware thread).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// Whether the kernel runs on it.
    #[serde(default = "yes")]
    pub online: bool,
    /// Whether this process's cgroup may use it.
    #[serde(default = "yes")]
    pub allowed: bool,
    /// Physical package (socket).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<u32>,
    /// Die in its package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub die: Option<u32>,
    /// Core number as firmware gave it; unique in package and die at best. Siblings are the truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u32>,
    /// Cluster in its package: cores that share more than the package does (an L2, a ring stop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<u32>,
    /// Book above its package (s390).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub book: Option<u32>,
    /// Drawer above its book (s390).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawer: Option<u32>,
    /// NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NumaNodeId>,
    /// The threads of its core, itself included; only itself when offline or not told.
    pub siblings: CpuSet,
    /// Which kind of core it is, where cores differ: `core` and `atom` of Intel's hybrids, a name of
    /// the kernel's `types` folder, `part 0xd05` of Arm's, or `base 1900 MHz` where nothing but base frequencies tells them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it can do, as the scheduler weighs it; 1024 is the strongest (`cpu_capacity`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

fn yes() -> bool {
    true
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// A cache and who shares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cache {
    /// 1 to 4.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// How much, when told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// The CPUs that share it.
    pub cpus: CpuSet,
}

/// A PCI function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PciFunction {
    /// Where it sits.
    pub address: PciAddress,
    /// Vendor and device.
    pub id: PciId,
    /// The 24-bit class code in hexadecimal as sysfs prints it: `0x020000` is Ethernet.
    pub class: String,
    /// Vendor and device names from the PCI ids, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The bound driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// NUMA node; `None` when firmware does not say (-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NumaNodeId>,
    /// The CPUs that firmware calls near, where it names no node; empty when they are all CPUs.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub local_cpus: CpuSet,
    /// IOMMU group; `None` while the IOMMU is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<IommuGroupId>,
    /// Whether firmware keeps memory of its own for it (a region of type `direct` in its group's
    /// `reserved_regions`: RMRR): the kernel then refuses to give it to a guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rmrr: bool,
    /// The bridges above, root port first; empty on a root bus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<PciAddress>,
    /// SR-IOV of a physical function that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sriov: Option<Sriov>,
    /// The physical function of a virtual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physfn: Option<PciAddress>,
    /// Names of its network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Permanent MAC of its port, when one driver or the kernel showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Why the host cannot live without it; empty for what may be passed through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_needs: Vec<HostNeed>,
    /// What placement does not need.
    #[serde(default, skip_serializing_if = "DeviceFacts::is_empty")]
    pub details: DeviceFacts,
}

impl PciFunction {
    /// Whether it is an Ethernet or other network controller (class 02).
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.class.trim_start_matches("0x").starts_with("02")
    }

    /// Whether it is a bridge (class 06): bridges stay with the host when their group is passed
    /// through.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.class.trim_start_matches("0x").starts_with("06")
    }

    /// Whether it is a virtual function.
    #[must_use]
    pub fn is_vf(&self) -> bool {
        self.physfn.is_some()
    }
}

/// Why a device must stay with the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "why", deny_unknown_fields)]
pub enum HostNeed {
    /// It carries a default route, itself or under a bond, bridge, VLAN or team.
    DefaultRoute {
        /// The interface of the route.
        interface: String,
    },
    /// The session that is running comes through it.
    Session {
        /// The interface of the session's path.
        interface: String,
    },
    /// It is a member of a bond, bridge or team, or carries a VLAN with an address of the host.
    Member {
        /// The bond, bridge or VLAN that it carries.
        of: String,
    },
    /// The host has an address on it, wider than the link: storage, a cluster's ring, management
    /// without a default route.
    Address {
        /// The interface that has it.
        interface: String,
    },
    /// A file system of the host lives behind it.
    Mount {
        /// Where it is mounted; `swap` for swap space.
        at: String,
    },
}

impl HostNeed {
    /// Whether it is for the host's network alone: the host lives on without it, and is then
    /// reached another way. What a file system is behind, over a network too, is not.
    #[must_use]
    pub fn is_network(&self) -> bool {
        match self {
            Self::DefaultRoute { .. }
            | Self::Session { .. }
            | Self::Member { .. }
            | Self::Address { .. } => true,
            Self::Mount { .. } => false,
        }
    }
}

/// SR-IOV of a physical function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sriov {
    /// `sriov_totalvfs`.
    pub total: u32,
    /// `sriov_numvfs`.
    #[serde(default)]
    pub current: u32,
    /// `sriov_offset`: routing id of the first VF less the PF's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// `sriov_stride`: between the routing ids of two VFs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u32>,
    /// `sriov_vf_device`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf_device: Option<String>,
    /// `sriov_drivers_autoprobe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoprobe: Option<bool>,
    /// The VFs that exist, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vfs: Vec<PciAddress>,
}

/// KVM, QEMU and libvirt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HypervisorFacts {
    /// `/dev/kvm` is there.
    #[serde(default)]
    pub kvm_device: bool,
    /// Whether a VM was made with it; never tried when an inventory is read, only by who asks: `doctor`
    /// and `capture`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kvm_works: bool,
    /// Why none could be made, when that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm_error: Option<String>,
    /// `kvm_intel`, `kvm_amd`, when loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm_module: Option<String>,
    /// Whether the module allows nesting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<bool>,
    /// libvirt's daemon, when it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<LibvirtFacts>,
    /// Why libvirt's daemon did not answer; `None` when it did, or when it was not asked (as in a
    /// capture).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt_error: Option<String>,
}

/// What libvirt said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LibvirtFacts {
    /// `9.0.0`.
    pub version: String,
    /// `7.2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<String>,
    /// Whether its capabilities have an x86_64 (or the host's) guest of domain type `kvm`.
    #[serde(default)]
    pub kvm: bool,
    /// Every domain, by name.
    #[serde(default)]
    pub domains: Vec<DomainFacts>,
}

/// A libvirt domain and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainFacts {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether it is running (or paused).
    pub running: bool,
    /// Whether it starts with the host.
    #[serde(default)]
    pub autostart: bool,
    /// The CPUs it is pinned to: vCPUs, emulator and IOThreads together.
    #[serde(default)]
    pub cpus: CpuSet,
    /// The PCI functions it has.
    #[serde(default)]
    pub devices: Vec<PciAddress>,
    /// Its memory: what runs, or for one that is shut off what its next start takes; a part for
    /// each cell of the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<DomainMemory>,
}

/// Something odd that was found, and taken as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Note {
    /// The file or thing it is about.
    pub about: String,
    /// What is odd, lower case, no final stop.
    pub text: String,
}
