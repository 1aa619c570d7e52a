//! What a plan file holds: its types, as they are written. What must hold among them is [`Plan`](crate::Plan)'s.

use bmslice_model::{
    ByteSize, CpuId, CpuSet, KernelArg, MacAddress, NumaNodeId, PciAddress, PciId, SliceName,
    TenantName, VlanId,
};
use bmslice_spec::{
    FALL_BACK_MINUTES, FabricSpec, GuestMachine, GuestNetwork, GuestSpec, ImageFrom, Isolation,
    KernelSettings, Setup, Smt, UP_WITHIN_SECONDS, VfRules,
};
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

/// The format of a plan file.
pub const FORMAT: &str = "bmslice/plan/v1";

/// What a plan file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanParts {
    /// [`FORMAT`].
    pub format: String,
    /// [`digest`](bmslice_spec::SlicingFields::digest) of what was asked.
    pub spec_digest: String,
    /// The server it is for.
    pub server: ServerRef,
    /// Digest of the plan that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    /// What is done to the host.
    pub host: HostPlan,
    /// The slices, in the spec's order.
    pub slices: Vec<SlicePlan>,
    /// Why it is so.
    pub report: Report,
}

/// The server that a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerRef {
    /// Its host name, for people.
    pub hostname: String,
    /// What must not have moved when the plan is applied.
    pub fingerprint: Fingerprint,
}

/// What is done to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPlan {
    /// The CPUs of the host OS.
    pub cpus: CpuSet,
    /// The CPUs kept free of host work: every online CPU that is not the host's.
    pub isolated: CpuSet,
    /// Of those, the ones that no slice has.
    pub free: CpuSet,
    /// How they are kept free.
    pub isolation: Isolation,
    /// Settings of the kernel that are asked for.
    #[serde(default, skip_serializing_if = "KernelSettings::is_empty")]
    pub settings: KernelSettings,
    /// Arguments that the next boot must have, in this order; empty when none are needed.
    pub kernel_args: Vec<KernelArg>,
    /// Huge pages that must be there, by node and size.
    pub huge_pages: Vec<HugePagePlan>,
    /// Physical functions that are split, by address.
    pub split: Vec<SplitPlan>,
    /// NICs of the host's that have fewer queues than they could, by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueuePlan>,
    /// Where images and seeds are kept.
    pub images: String,
    /// Minutes that a boot with new kernel arguments has to be confirmed in, before the server goes
    /// back to those before.
    #[serde(default = "usual_deadline", skip_serializing_if = "is_usual_deadline")]
    pub fall_back_minutes: u32,
}

fn usual_start() -> u32 {
    UP_WITHIN_SECONDS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_usual_start(seconds: &u32) -> bool {
    *seconds == UP_WITHIN_SECONDS
}

fn usual_deadline() -> u32 {
    FALL_BACK_MINUTES
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_usual_deadline(minutes: &u32) -> bool {
    *minutes == FALL_BACK_MINUTES
}

/// Huge pages on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugePagePlan {
    /// Where.
    pub node: NumaNodeId,
    /// Page size.
    pub size: ByteSize,
    /// How many the slices of this plan need there.
    pub count: u64,
    /// Whether the kernel arguments ask for them (else they are asked for at run time).
    pub at_boot: bool,
}

/// A physical function that is split into virtual ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SplitPlan {
    /// Which.
    pub device: DeviceRef,
    /// How many virtual functions.
    pub vfs: u32,
}

/// A NIC that the host keeps, and that could have more queues than the host has CPUs. Each queue has
/// an interrupt, and its driver would spread them over all CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueuePlan {
    /// Which.
    pub device: DeviceRef,
    /// How many queues of a kind it may have at most.
    pub most: u32,
    /// Whether it has queues to receive and queues to send, and none that do both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
}

/// A PCI function by what it is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceRef {
    /// Where it sat.
    pub address: PciAddress,
    /// What it is.
    pub id: PciId,
    /// Its permanent MAC, if it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Its interface, for people and for `ip link`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The host's driver, to which it goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its NUMA node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NumaNodeId>,
}

/// One slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlicePlan {
    /// Its name and its domain's.
    pub name: SliceName,
    /// Whose it is.
    pub tenant: TenantName,
    /// Its domain's UUID (version 5, of server and slice name).
    pub uuid: String,
    /// QEMU's machine type.
    pub machine: GuestMachine,
    /// How it uses siblings, for people.
    pub smt: Smt,
    /// libvirt's resource partition, when the slices' CPUs are a cgroup partition; else libvirt's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What the guest sees.
    pub topology: GuestTopology,
    /// CPU features that QEMU turns on beyond what `host-passthrough` gives by itself: `topoext`
    /// on an AMD CPU when the guest has several threads in a core, without which it sees none
    /// (QEMU leaves it out of `-cpu host` on purpose).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_features: Vec<String>,
    /// Guest NUMA cells, by number.
    pub cells: Vec<GuestCell>,
    /// The host thread of each vCPU, by vCPU number.
    pub vcpus: Vec<CpuId>,
    /// Emulator threads' CPUs. The host's own when `pool_is_host`.
    pub emulator: CpuSet,
    /// CPUs of each IOThread, the first being IOThread 1.
    pub iothreads: Vec<CpuSet>,
    /// Whether emulator and IOThreads run on the host's CPUs.
    pub pool_is_host: bool,
    /// Whether they run on CPUs that other slices of the tenant use for theirs, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pool_is_shared: bool,
    /// CPUs that are this slice's and run nothing: siblings kept quiet.
    pub idle: CpuSet,
    /// Siblings of its odd vCPUs that run the odd vCPUs of other slices of the tenant, where both
    /// say `sharing: tenant`. Not this slice's: it is told who is beside it.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub shared_siblings: CpuSet,
    /// Memory of all cells.
    pub memory: ByteSize,
    /// Huge page size; `None` is plain memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<ByteSize>,
    /// Network cards, in the guest's order.
    pub nics: Vec<NicPlan>,
    /// The disk.
    pub disk: DiskPlan,
    /// What is set up inside.
    pub guest: GuestSpec,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// Seconds that its guest has to come up in; 0 when nobody waits for it.
    #[serde(default = "usual_start", skip_serializing_if = "is_usual_start")]
    pub up_within_seconds: u32,
}

impl SlicePlan {
    /// Every CPU that is this slice's alone: vCPUs, idle siblings, and the pool unless it is the
    /// host's or the tenant's.
    #[must_use]
    pub fn owned(&self) -> CpuSet {
        let mut cpus: CpuSet = self.vcpus.iter().copied().collect();
        cpus.extend_from(&self.idle);
        if !self.pool_is_host && !self.pool_is_shared {
            cpus.extend_from(&self.pool());
        }
        cpus
    }

    /// Huge pages of this size that it has on a node.
    #[must_use]
    pub fn pages_on(&self, node: NumaNodeId, size: ByteSize) -> u64 {
        if self.huge_pages != Some(size) {
            return 0;
        }
        let cells = self.cells.iter().filter(|cell| cell.node == node);
        cells
            .map(|cell| cell.memory.bytes() / size.bytes().max(1))
            .sum()
    }

    /// Every CPU that is kept free for this slice: its own, and the pool that it shares with others
    /// of its tenant. Not the host's.
    #[must_use]
    pub fn held(&self) -> CpuSet {
        self.owned().union(&self.shared())
    }

    /// The pool that it shares with others of its tenant; empty when it shares none.
    #[must_use]
    pub fn shared(&self) -> CpuSet {
        if self.pool_is_shared {
            self.pool()
        } else {
            CpuSet::new()
        }
    }

    /// Whether the two slices have one pool, of their tenant.
    #[must_use]
    pub fn shares_pool_with(&self, other: &Self) -> bool {
        self.pool_is_shared
            && other.pool_is_shared
            && self.tenant == other.tenant
            && self.pool() == other.pool()
    }

    /// Whether a vCPU of the other slice runs beside one of this slice's on a core, as
    /// `sharing: tenant` allows.
    #[must_use]
    pub fn shares_a_core_with(&self, other: &Self) -> bool {
        self.tenant == other.tenant && !self.shared_siblings.is_disjoint(&other.vcpu_cpus())
    }

    /// The siblings that no other slice of another tenant may have: idle ones, and those that run
    /// odd vCPUs of the same tenant. A sibling goes from one to the other as slices come and go, and
    /// the slice itself is not touched by that.
    #[must_use]
    pub fn siblings(&self) -> CpuSet {
        self.idle.union(&self.shared_siblings)
    }

    /// The CPUs of emulator and IOThreads.
    #[must_use]
    pub fn pool(&self) -> CpuSet {
        self.iothreads
            .iter()
            .fold(self.emulator.clone(), |all, cpus| all.union(cpus))
    }

    /// The CPUs of the vCPUs.
    #[must_use]
    pub fn vcpu_cpus(&self) -> CpuSet {
        self.vcpus.iter().copied().collect()
    }
}

/// What the guest sees of its CPUs: `sockets × cores × threads` is the number of vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestTopology {
    /// Packages.
    pub sockets: u32,
    /// Cores in each.
    pub cores: u32,
    /// Threads in each core.
    pub threads: u32,
}

/// A NUMA cell of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestCell {
    /// The host's node behind it.
    pub node: NumaNodeId,
    /// Its vCPUs, as numbers of the guest.
    pub vcpus: CpuSet,
    /// Its memory.
    pub memory: ByteSize,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum NicPlan {
    /// A whole physical function.
    #[serde(rename_all = "camelCase")]
    Passthrough {
        /// Which.
        device: DeviceRef,
        /// The other members of its IOMMU group that go with it; bridges are not among them.
        group: Vec<PciAddress>,
        /// Whether the spec takes it from the host's own network (`takeFromHost`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        from_host: bool,
        /// What is common to all cards.
        #[serde(flatten)]
        nic: NicCommon,
    },
    /// A virtual function.
    #[serde(rename_all = "camelCase")]
    Vf {
        /// Of which physical function.
        pf: DeviceRef,
        /// Its index there.
        index: u32,
        /// Where it will be.
        address: PciAddress,
        /// The VLAN that the NIC adds and takes away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<VlanId>,
        /// What it is held to beside.
        #[serde(flatten)]
        rules: VfRules,
        /// What is common to all cards.
        #[serde(flatten)]
        nic: NicCommon,
    },
    /// A virtio card on a libvirt network.
    #[serde(rename_all = "camelCase")]
    Virtio {
        /// The network.
        network: String,
        /// What is common to all cards.
        #[serde(flatten)]
        nic: NicCommon,
    },
}

/// What is common to all cards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicCommon {
    /// The MAC that the guest and the fabric will see; unknown for a physical function that never
    /// showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Whether the card sits on one of the slice's nodes; `None` when firmware does not tell, or
    /// for a virtio card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// What the fabric should show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricSpec>,
    /// What cloud-init sets up on it. In the file `guestNetwork`: these fields stand among the
    /// card's own, of which a virtio card has a `network` already.
    #[serde(
        default,
        rename = "guestNetwork",
        skip_serializing_if = "Option::is_none"
    )]
    pub network: Option<GuestNetwork>,
}

impl NicPlan {
    /// What is common to all cards.
    #[must_use]
    pub fn common(&self) -> &NicCommon {
        match self {
            Self::Passthrough { nic, .. } | Self::Vf { nic, .. } | Self::Virtio { nic, .. } => nic,
        }
    }

    /// Whether it is taken from the host's own network.
    #[must_use]
    pub fn is_from_host(&self) -> bool {
        matches!(
            self,
            Self::Passthrough {
                from_host: true,
                ..
            }
        )
    }

    /// The PCI functions that the guest gets: the card, then its group.
    #[must_use]
    pub fn functions(&self) -> Vec<PciAddress> {
        match self {
            Self::Passthrough { device, group, .. } => std::iter::once(device.address)
                .chain(group.iter().copied())
                .collect(),
            Self::Vf { address, .. } => vec![*address],
            Self::Virtio { .. } => Vec::new(),
        }
    }
}

/// The disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskPlan {
    /// The disk that is made, qcow2.
    pub path: String,
    /// The base image, absolute.
    pub base: String,
    /// The disk's size.
    pub size: ByteSize,
    /// How it comes from the base.
    pub from: ImageFrom,
    /// How the guest is set up.
    pub setup: Setup,
    /// The NoCloud seed that is made, when `setup` is cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
}

/// Why a plan is as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// In the order of the slices; what is about the host first.
    pub findings: Vec<Finding>,
}

/// One thing that the reader of a plan should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// About which slice; `None` is about the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<SliceName>,
    /// How much it matters.
    pub level: Level,
    /// `remote-device`, `idle-sibling`, `placed`, …: stable, for programs.
    pub code: String,
    /// For people; lower case, no final stop.
    pub text: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// A reason.
    Info,
    /// A cost that somebody may not have wanted.
    Warning,
}
