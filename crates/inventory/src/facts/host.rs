//! What runs on the host and holds CPUs, interrupts or devices.

use std::collections::BTreeMap;

use bmslice_model::{CpuSet, IommuGroupId, PciAddress};
use serde::{Deserialize, Serialize};

/// Services and settings of the host that slicing touches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFacts {
    /// systemd's version: 252.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<u32>,
    /// TuneD's active profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<String>,
    /// Whether irqbalance runs; unknown where no cgroup tells of services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irqbalance: Option<bool>,
    /// The CPUs that irqbalance is told to leave alone, as written in its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irqbalance_banned: Option<String>,
    /// What libvirt-guests.service does with guests; unknown where no unit files are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt_guests: Option<LibvirtGuests>,
    /// cgroups that are cpuset partitions of their own (`root`, `isolated`), or ought to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// CPUs whose RCU callbacks run elsewhere (`rcu_nocbs=`, `nohz_full=`).
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub rcu_nocbs: CpuSet,
    /// What the IOMMU is: `intel`, `amd`, `arm-smmu`, `virtio`, or its name in `/sys/class/iommu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu: Option<String>,
    /// Whether interrupts of devices are remapped; unknown before any device has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_remapping: Option<bool>,
    /// Whether the CPUs have x2APIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x2apic: Option<bool>,
    /// Options of KVM's modules: `kvm.nx_huge_pages` → `auto`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kvm_options: BTreeMap<String, String>,
}

impl HostFacts {
    /// Whether the server told nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What libvirt-guests.service does when the host goes down and comes up (libvirt-guests(8)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LibvirtGuests {
    /// Whether it starts with the host; otherwise it does nothing.
    pub enabled: bool,
    /// `ON_BOOT`: `start` or `ignore`; the script's own where its settings do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_boot: Option<String>,
    /// `ON_SHUTDOWN`: `suspend` or `shutdown`; the script's own where its settings do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_shutdown: Option<String>,
}

/// A cgroup that has CPUs of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partition {
    /// Its path below the cgroup mount.
    pub cgroup: String,
    /// `root`, `isolated`, or `isolated invalid (reason)`: what the kernel says back.
    pub state: String,
    /// `cpuset.cpus.effective`.
    #[serde(default)]
    pub cpus: CpuSet,
}

/// An IOMMU group: what can only go to a guest together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IommuGroup {
    /// Its number in this boot.
    pub id: IommuGroupId,
    /// All members, bridges too.
    pub members: Vec<PciAddress>,
    /// `DMA`, `DMA-FQ`, `identity`: how the host's own drivers are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Why its members cannot be kept apart, when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
