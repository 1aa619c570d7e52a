//! The types of a plan, and the invariants that reading or making one enforces.

use std::collections::BTreeSet;

use bmslice_model::{
    ByteSize, CpuId, CpuSet, KernelArg, MacAddress, NumaNodeId, PciAddress, PciId, SliceName,
    TenantName, VlanId,
};
use bmslice_spec::{
    FALL_BACK_MINUTES, FabricSpec, GuestMachine, GuestNetwork, GuestSpec, ImageFrom, Isolation,
    KernelSettings, Setup, Smt, VfRules,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::fingerprint::Fingerprint;

/// The format of a plan file.
pub const FORMAT: &str = "bmslice/plan/v1";

/// Why something is not a plan.
#[derive(Debug, Error)]
pub enum PlanFileError {
    /// Not JSON, or not of this form.
    #[error("this is not a plan file: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field that plans do not have, where the form itself would not notice it.
    #[error("the plan has a field `{0}`, which this bmslice does not know")]
    Unknown(String),
    /// Of another version.
    #[error("the plan has format `{found}`; this bmslice reads `{FORMAT}`")]
    Format {
        /// What it says it is.
        found: String,
    },
    /// Two owners of one CPU.
    #[error("in the plan, CPUs {cpus} belong to {first} and to {second}")]
    Shared {
        /// Which.
        cpus: CpuSet,
        /// One owner.
        first: String,
        /// The other.
        second: String,
    },
    /// Two slices of one name.
    #[error("the plan has two slices named `{0}`")]
    Duplicate(SliceName),
    /// vCPU numbers with holes, or a vCPU in no cell.
    #[error("in the plan, the vCPUs of slice `{0}` are not numbered 0, 1, 2, …")]
    Numbering(SliceName),
    /// Two cards on one function.
    #[error("in the plan, PCI function {0} is given twice")]
    Device(PciAddress),
}

/// A plan, all of whose invariants hold: every CPU has at most one owner, names and devices are
/// given once, vCPUs are numbered without holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(PlanParts);

/// What a plan file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanParts {
    /// [`FORMAT`].
    pub format: String,
    /// [`Slicing::digest`](bmslice_spec::Slicing::digest) of what was asked.
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
    /// CPUs that are this slice's and run nothing: siblings kept quiet.
    pub idle: CpuSet,
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
}

impl SlicePlan {
    /// Every CPU that is this slice's alone: vCPUs, idle siblings, and the pool unless it is the
    /// host's.
    #[must_use]
    pub fn owned(&self) -> CpuSet {
        let mut cpus: CpuSet = self.vcpus.iter().copied().collect();
        cpus.extend_from(&self.idle);
        if !self.pool_is_host {
            cpus.extend_from(&self.pool());
        }
        cpus
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

/// Of a text that is not a plan of this format: that it is one of another.
fn other_format(text: &str) -> Option<PlanFileError> {
    let value: Value = serde_json::from_str(text).ok()?;
    let found = value.get("format")?.as_str()?;
    (found != FORMAT).then(|| PlanFileError::Format {
        found: found.to_owned(),
    })
}

/// The path of the first field with a value that the second lacks: `slices[0].nics[0].vlna`.
fn lost(read: &Value, kept: &Value) -> Option<String> {
    match (read, kept) {
        (Value::Object(read), Value::Object(kept)) => read.iter().find_map(|(key, value)| {
            let deeper = match kept.get(key) {
                Some(kept) => lost(value, kept)?,
                None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {
                    return None;
                }
                None => String::new(),
            };
            let dot = if deeper.is_empty() || deeper.starts_with('[') {
                ""
            } else {
                "."
            };
            Some(format!("{key}{dot}{deeper}"))
        }),
        (Value::Array(read), Value::Array(kept)) => {
            read.iter()
                .zip(kept)
                .enumerate()
                .find_map(|(i, (read, kept))| {
                    let deeper = lost(read, kept)?;
                    let dot = if deeper.starts_with('[') { "" } else { "." };
                    Some(format!("[{i}]{dot}{deeper}"))
                })
        }
        _ => None,
    }
}

impl Plan {
    /// A plan of these parts.
    ///
    /// # Errors
    /// [`PlanFileError`], when an invariant does not hold.
    pub fn new(parts: PlanParts) -> Result<Self, PlanFileError> {
        if parts.format != FORMAT {
            return Err(PlanFileError::Format {
                found: parts.format,
            });
        }
        let mut names = BTreeSet::new();
        let mut devices = BTreeSet::new();
        let mut owners: Vec<(String, CpuSet)> = vec![
            ("the host".into(), parts.host.cpus.clone()),
            ("nobody".into(), parts.host.free.clone()),
        ];
        for slice in &parts.slices {
            if !names.insert(&slice.name) {
                return Err(PlanFileError::Duplicate(slice.name.clone()));
            }
            for function in slice.nics.iter().flat_map(NicPlan::functions) {
                if !devices.insert(function) {
                    return Err(PlanFileError::Device(function));
                }
            }
            let name = &slice.name;
            // A duplicate inside one slice would vanish in a set: compare the counts.
            if slice.vcpu_cpus().len() != slice.vcpus.len() {
                return Err(PlanFileError::Shared {
                    cpus: slice.vcpu_cpus(),
                    first: format!("a vCPU of `{name}`"),
                    second: "another one of its vCPUs".into(),
                });
            }
            let mut numbered: Vec<u32> = slice
                .cells
                .iter()
                .flat_map(|cell| cell.vcpus.iter())
                .map(CpuId::number)
                .collect();
            numbered.sort_unstable();
            let wanted = 0..u32::try_from(slice.vcpus.len()).unwrap_or(u32::MAX);
            if numbered.is_empty() || !numbered.into_iter().eq(wanted) {
                return Err(PlanFileError::Numbering(name.clone()));
            }
            owners.push((format!("the vCPUs of `{name}`"), slice.vcpu_cpus()));
            owners.push((format!("the idle siblings of `{name}`"), slice.idle.clone()));
            if !slice.pool_is_host {
                owners.push((
                    format!("the emulator and IOThreads of `{name}`"),
                    slice.pool(),
                ));
            }
        }
        for (i, (first, a)) in owners.iter().enumerate() {
            if let Some((second, b)) = owners[i + 1..].iter().find(|(_, b)| !a.is_disjoint(b)) {
                return Err(PlanFileError::Shared {
                    cpus: a.intersection(b),
                    first: first.clone(),
                    second: second.clone(),
                });
            }
        }
        Ok(Self(parts))
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// [`PlanFileError`].
    pub fn parse(text: &str) -> Result<Self, PlanFileError> {
        let parts: PlanParts = match serde_json::from_str(text) {
            Ok(parts) => parts,
            Err(error) => return Err(other_format(text).unwrap_or(error.into())),
        };
        let plan = Self::new(parts)?;
        // Cards are variants with common fields, of which serde cannot refuse unknown ones: what
        // was read and would not be written again was not understood.
        let (read, kept) = (serde_json::from_str(text)?, serde_json::to_value(&plan.0)?);
        match lost(&read, &kept) {
            Some(path) => Err(PlanFileError::Unknown(path)),
            None => Ok(plan),
        }
    }

    /// The bytes of the plan file: the same for the same plan.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every map in it has text keys and every number is finite, so this cannot fail.
        let mut text = serde_json::to_string_pretty(&self.0).unwrap_or_default();
        text.push('\n');
        text
    }

    /// `sha256:…` of the plan file's bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        crate::fingerprint::sha256(self.to_json().as_bytes())
    }

    /// What is done to the host.
    #[must_use]
    pub fn host(&self) -> &HostPlan {
        &self.0.host
    }

    /// The slices.
    #[must_use]
    pub fn slices(&self) -> &[SlicePlan] {
        &self.0.slices
    }

    /// A slice by its name.
    #[must_use]
    pub fn slice(&self, name: &str) -> Option<&SlicePlan> {
        self.0
            .slices
            .iter()
            .find(|slice| slice.name.as_str() == name)
    }

    /// All of it.
    #[must_use]
    pub fn parts(&self) -> &PlanParts {
        &self.0
    }

    /// All of it, to be changed and made anew.
    #[must_use]
    pub fn into_parts(self) -> PlanParts {
        self.0
    }
}
