//! The table of checks: `(name, level, what is looked at, function)`.
//!
//! A function's outer result says whether it could check, its inner one whether it holds.

mod boot;
mod cpu;
mod device;
mod hypervisor;
mod memory;
mod quiet;

use bmslice_inventory::Inventory;

use crate::finding::Level;

/// A row of the table.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) about: &'static str,
    pub(crate) examine: fn(&Inventory) -> Examined,
}

/// What was found when it holds, or what is wrong; or why neither is known.
pub(crate) type Examined = Result<Result<String, Fault>, Unchecked>;

/// What is wrong, what would be right, what to do.
pub(crate) struct Fault {
    pub(crate) found: String,
    pub(crate) wanted: String,
    pub(crate) mend: String,
}

/// Which fact is missing.
pub(crate) struct Unchecked(pub(crate) String);

fn holds(found: impl Into<String>) -> Examined {
    Ok(Ok(found.into()))
}

fn fails(found: impl Into<String>, wanted: impl Into<String>, mend: impl Into<String>) -> Examined {
    Ok(Err(Fault {
        found: found.into(),
        wanted: wanted.into(),
        mend: mend.into(),
    }))
}

fn unchecked(why: impl Into<String>) -> Examined {
    Err(Unchecked(why.into()))
}

/// Every check, in the order in which a person would mend what fails.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "architecture",
        level: Level::Error,
        about: "the CPUs' architecture",
        examine: cpu::architecture,
    },
    Check {
        name: "bare-metal",
        level: Level::Info,
        about: "whether the server is itself a guest",
        examine: cpu::bare_metal,
    },
    Check {
        name: "kvm-device",
        level: Level::Error,
        about: "/dev/kvm, opened, and a VM made",
        examine: hypervisor::kvm_device,
    },
    Check {
        name: "kvm-module",
        level: Level::Warning,
        about: "kvm_intel or kvm_amd",
        examine: hypervisor::kvm_module,
    },
    Check {
        name: "libvirt",
        level: Level::Error,
        about: "whether libvirt's QEMU driver answers",
        examine: hypervisor::libvirt,
    },
    Check {
        name: "libvirt-kvm",
        level: Level::Error,
        about: "domain type kvm in libvirt's capabilities",
        examine: hypervisor::libvirt_kvm,
    },
    Check {
        name: "qemu-version",
        level: Level::Warning,
        about: "the version of QEMU",
        examine: hypervisor::qemu_version,
    },
    Check {
        name: "libvirt-guests",
        level: Level::Warning,
        about: "what libvirt-guests.service does at a shutdown and a boot",
        examine: hypervisor::libvirt_guests,
    },
    Check {
        name: "iommu",
        level: Level::Error,
        about: "IOMMU groups, and firmware's DMAR or IVRS table",
        examine: device::iommu,
    },
    Check {
        name: "interrupt-remapping",
        level: Level::Warning,
        about: "whether interrupts of devices are remapped",
        examine: quiet::interrupt_remapping,
    },
    Check {
        name: "x2apic",
        level: Level::Info,
        about: "the CPUs' x2APIC",
        examine: quiet::x2apic,
    },
    Check {
        name: "boot-loader",
        level: Level::Error,
        about: "what writes the next boot's arguments",
        examine: boot::loader,
    },
    Check {
        name: "management-path",
        level: Level::Error,
        about: "the device that carries the default route or this session",
        examine: device::management_path,
    },
    Check {
        name: "root-disk",
        level: Level::Warning,
        about: "the device behind /",
        examine: device::root_disk,
    },
    Check {
        name: "whole-cores",
        level: Level::Error,
        about: "cores with all their threads, on each NUMA node",
        examine: cpu::whole_cores,
    },
    Check {
        name: "smt-siblings",
        level: Level::Warning,
        about: "whether the threads of each core agree",
        examine: cpu::siblings,
    },
    Check {
        name: "smt",
        level: Level::Info,
        about: "simultaneous multithreading, and what it leaves open",
        examine: quiet::smt,
    },
    Check {
        name: "governor",
        level: Level::Warning,
        about: "frequency governors",
        examine: quiet::governor,
    },
    Check {
        name: "idle-states",
        level: Level::Info,
        about: "the deepest idle state",
        examine: quiet::idle_states,
    },
    Check {
        name: "clock-source",
        level: Level::Warning,
        about: "the kernel's clock source",
        examine: quiet::clock_source,
    },
    Check {
        name: "irqbalance",
        level: Level::Warning,
        about: "whether irqbalance runs, and which CPUs it leaves alone",
        examine: quiet::irqbalance,
    },
    Check {
        name: "node-memory",
        level: Level::Warning,
        about: "memory on each NUMA node with CPUs",
        examine: memory::node_memory,
    },
    Check {
        name: "huge-pages",
        level: Level::Error,
        about: "sizes of huge pages that each node can have",
        examine: memory::huge_pages,
    },
    Check {
        name: "huge-pages-1gib",
        level: Level::Info,
        about: "huge pages of 1 GiB",
        examine: memory::gigantic_pages,
    },
    Check {
        name: "huge-page-room",
        level: Level::Warning,
        about: "free memory in large blocks, on each node",
        examine: quiet::huge_page_room,
    },
    Check {
        name: "transparent-huge-pages",
        level: Level::Info,
        about: "transparent huge pages",
        examine: quiet::transparent_huge_pages,
    },
    Check {
        name: "ksm",
        level: Level::Warning,
        about: "merging of equal pages",
        examine: quiet::ksm,
    },
    Check {
        name: "swap",
        level: Level::Info,
        about: "swap space",
        examine: quiet::swap,
    },
    Check {
        name: "numa-balancing",
        level: Level::Info,
        about: "automatic NUMA balancing",
        examine: quiet::numa_balancing,
    },
    Check {
        name: "nics-to-give",
        level: Level::Warning,
        about: "NICs that the host does not need",
        examine: device::nics_to_give,
    },
    Check {
        name: "sriov",
        level: Level::Info,
        about: "NICs with SR-IOV",
        examine: device::sriov,
    },
    Check {
        name: "iommu-groups",
        level: Level::Warning,
        about: "whether NICs share a group with what the host needs",
        examine: device::groups,
    },
    Check {
        name: "rmrr",
        level: Level::Warning,
        about: "memory that firmware keeps for NICs",
        examine: device::rmrr,
    },
    Check {
        name: "isolation",
        level: Level::Warning,
        about: "isolated CPUs in force, and those that the kernel arguments ask for",
        examine: boot::isolation,
    },
    Check {
        name: "cgroup",
        level: Level::Info,
        about: "the version of control groups",
        examine: boot::cgroup,
    },
    Check {
        name: "oddities",
        level: Level::Info,
        about: "what was odd when the server was read",
        examine: boot::oddities,
    },
];
