//! What is wanted, after every check that needs no server.

use bmslice_model::{
    ByteSize, KernelArg, MacAddress, NumaNodeId, PciAddress, SliceName, TenantName, VlanId,
};
use serde::{Deserialize, Serialize};

use crate::choices::{IdleStates, Mitigations};
use crate::fleet::{FleetSpec, Selector};
use crate::replicas::Replica;
use crate::rules::InvalidSlicing;
use crate::vf::VfRules;

/// What is wanted of one server (or of each of several), all of whose rules hold.
///
/// Made by [`Slicing::parse`] or [`Slicing::new`] only; its fields are read through
/// [`SlicingFields`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slicing(SlicingFields);

/// The fields of a [`Slicing`], to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicingFields {
    /// The host's own share and how the rest is kept quiet.
    pub host: HostSpec,
    /// How several servers are filled, and their labels.
    pub fleet: FleetSpec,
    /// The slices in the order of the file; names are unique.
    pub slices: Vec<SliceSpec>,
    /// `sha256:…` of the meaning of the file: comments, order of keys and white space do not count.
    pub digest: String,
}

impl std::ops::Deref for Slicing {
    type Target = SlicingFields;

    fn deref(&self) -> &SlicingFields {
        &self.0
    }
}

impl Slicing {
    /// A slicing of these parts.
    ///
    /// # Errors
    /// [`InvalidSlicing`] with every rule that does not hold.
    pub fn new(host: HostSpec, slices: Vec<SliceSpec>) -> Result<Self, InvalidSlicing> {
        Self::with_fleet(host, FleetSpec::default(), slices)
    }

    /// A slicing for several servers: that of one of them is [`Slicing::new`] of its slices, whose
    /// selectors know where they may be.
    ///
    /// # Errors
    /// [`InvalidSlicing`] with every rule that does not hold.
    pub fn with_fleet(
        host: HostSpec,
        fleet: FleetSpec,
        slices: Vec<SliceSpec>,
    ) -> Result<Self, InvalidSlicing> {
        let numbered: Vec<(usize, &SliceSpec)> = slices.iter().enumerate().collect();
        let mut violations = crate::rules::violations(&host, &numbered);
        if !fleet.is_empty() {
            violations.extend(crate::rules::of_fleet(&fleet, &numbered));
        }
        if !violations.is_empty() {
            return Err(InvalidSlicing { violations });
        }
        let digest = crate::digest::digest(&host, &fleet, &slices);
        Ok(Self(SlicingFields {
            host,
            fleet,
            slices,
            digest,
        }))
    }

    /// Whether [`Slicing::new`] would take them. For whoever tries many, since the digest costs more
    /// than the rules.
    ///
    /// # Errors
    /// [`InvalidSlicing`] with every rule that does not hold.
    pub fn holds(host: &HostSpec, slices: &[SliceSpec]) -> Result<(), InvalidSlicing> {
        let numbered: Vec<(usize, &SliceSpec)> = slices.iter().enumerate().collect();
        let violations = crate::rules::violations(host, &numbered);
        if violations.is_empty() {
            Ok(())
        } else {
            Err(InvalidSlicing { violations })
        }
    }
}

/// The host's own share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostSpec {
    /// Whole cores, with their siblings, that stay with the host; at least 1.
    pub reserve_cores: u32,
    /// That many on each NUMA node (the default), or in all.
    pub reserve_per_numa: bool,
    /// Whole cores that nobody has, beside the reserve, on a server with slices: `fleet.headroom`,
    /// kept by each server on its own.
    #[serde(skip_serializing_if = "is_usual")]
    pub headroom_cores: u32,
    /// How the slices' CPUs are kept free of host work.
    pub isolation: Isolation,
    /// Whether the tick and RCU's callbacks leave the slices' CPUs too; only with isolation at boot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tickless: bool,
    /// How deep idle CPUs may sleep.
    #[serde(skip_serializing_if = "is_usual")]
    pub idle_states: IdleStates,
    /// Whether the kernel guards against flaws of the CPU.
    #[serde(skip_serializing_if = "is_usual")]
    pub mitigations: Mitigations,
    /// What of the kernel's settings is asked for.
    #[serde(skip_serializing_if = "KernelSettings::is_empty")]
    pub settings: KernelSettings,
    /// Where images and seeds are kept.
    pub images: String,
    /// Kernel arguments of the user's own, none of which the plan sets itself. Not written when
    /// there are none, so that specs without them keep their digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernel_args: Vec<KernelArg>,
    /// Minutes that a boot with new kernel arguments has to be confirmed in; 2 to 1440.
    #[serde(skip_serializing_if = "is_usual_deadline")]
    pub fall_back_minutes: u32,
}

/// Minutes until a server falls back, unless the spec says otherwise: longer than any boot with its
/// firmware's self-test, shorter than a walk to the server.
pub const FALL_BACK_MINUTES: u32 = 10;

/// Seconds until a guest is up, unless the spec says otherwise: longer than firmware and a first
/// boot with cloud-init take, shorter than somebody would wait without a word.
pub const UP_WITHIN_SECONDS: u32 = 300;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_usual_start(seconds: &u32) -> bool {
    *seconds == UP_WITHIN_SECONDS
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_usual_deadline(minutes: &u32) -> bool {
    *minutes == FALL_BACK_MINUTES
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            reserve_cores: 1,
            reserve_per_numa: true,
            headroom_cores: 0,
            isolation: Isolation::Boot,
            tickless: false,
            idle_states: IdleStates::All,
            mitigations: Mitigations::Auto,
            settings: KernelSettings::default(),
            images: "/var/lib/libvirt/images".into(),
            kernel_args: Vec::new(),
            fall_back_minutes: FALL_BACK_MINUTES,
        }
    }
}

/// Settings of the whole server's kernel that disturb guests, or do not; `None` leaves them as they
/// are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelSettings {
    /// Whether equal pages are merged (Documentation/admin-guide/mm/ksm.rst).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ksm: Option<bool>,
    /// Who gets transparent huge pages (Documentation/admin-guide/mm/transhuge.rst).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transparent_huge_pages: Option<TransparentHugePages>,
    /// How the isolated CPUs are clocked (Documentation/admin-guide/pm/cpufreq.rst).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governor: Option<Governor>,
}

impl KernelSettings {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who gets transparent huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TransparentHugePages {
    /// Every process.
    Always,
    /// Those that ask.
    Madvise,
    /// Nobody.
    Never,
}

impl TransparentHugePages {
    /// As the kernel's file has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Madvise => "madvise",
            Self::Never => "never",
        }
    }
}

/// A frequency governor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Governor {
    /// The highest frequency.
    Performance,
    /// By the scheduler's load.
    Schedutil,
    /// By load.
    Ondemand,
    /// By load, step by step.
    Conservative,
    /// The lowest frequency; with intel_pstate, by load.
    Powersave,
}

impl Governor {
    /// As the kernel's file has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Performance => "performance",
            Self::Schedutil => "schedutil",
            Self::Ondemand => "ondemand",
            Self::Conservative => "conservative",
            Self::Powersave => "powersave",
        }
    }
}

/// How the slices' CPUs are kept free of host work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// `isolcpus=domain,managed_irq,…`, from the next boot on.
    Boot,
    /// A cgroup v2 isolated cpuset partition; no reboot.
    Dynamic,
    /// Pins only.
    None,
}

/// One slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SliceSpec {
    /// Its name and its domain's.
    pub name: SliceName,
    /// Which of several that the file writes as one; no part of the meaning, which is that of as
    /// many slices written out.
    #[serde(skip)]
    pub replica: Option<Replica>,
    /// Whose it is; a slice without a tenant is a tenant of its own.
    pub tenant: TenantName,
    /// vCPUs, one host thread each; at least 1.
    pub vcpus: u32,
    /// How vCPUs use sibling threads.
    pub smt: Smt,
    /// How vCPU numbers follow the siblings.
    pub vcpu_order: VcpuOrder,
    /// Whether the sibling of an odd vCPU may go to another slice of the tenant; only with
    /// [`Smt::Pack`].
    #[serde(skip_serializing_if = "is_usual")]
    pub sharing: Sharing,
    /// Whole cores for emulator threads; 0 puts them on the host's cores.
    pub emulator_cores: u32,
    /// Whether these cores are shared, on each node, with the slices of the same tenant that ask for
    /// the same (planning rule 5); else they are this slice's alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared_pool: bool,
    /// IOThreads, beside the emulator threads.
    pub iothreads: u32,
    /// Guest memory; a multiple of the page size.
    pub memory: ByteSize,
    /// Huge page size; `None` is plain memory.
    pub hugepages: Option<ByteSize>,
    /// Where in the server.
    pub numa: Numa,
    /// Network cards, in the guest's order.
    pub nics: Vec<NicSpec>,
    /// The disk.
    pub image: ImageSpec,
    /// What is set up inside the guest.
    pub guest: GuestSpec,
    /// The machine type.
    pub machine: GuestMachine,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// Seconds that its guest has to come up in; 0 when nobody waits for it, at most 3600.
    #[serde(skip_serializing_if = "is_usual_start")]
    pub up_within_seconds: u32,
    /// The host name of the server that it is for; `None` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The group of slices no two of which share a server (planning rule 11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apart: Option<String>,
    /// The labels that its server must have; `None` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// How vCPUs use sibling threads (planning rule 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Smt {
    /// vCPUs 2k and 2k+1 are siblings; an odd one leaves its sibling idle, unless it is
    /// [shared](Sharing).
    Pack,
    /// A whole core for each vCPU.
    Isolate,
    /// No promise.
    Any,
}

/// Whether the sibling that an odd vCPU leaves may go to another slice (planning rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// It stays idle: no two slices share a core.
    #[default]
    None,
    /// It may go to the odd vCPU of a slice of the same tenant that says so, too.
    Tenant,
}

/// How vCPU numbers follow the siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VcpuOrder {
    /// Siblings side by side; the guest sees them as threads of one core.
    SiblingsAdjacent,
    /// All first threads, then all second ones; the guest sees a flat topology.
    SiblingsLast,
}

/// Where in the server (planning rule 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Numa {
    /// All of it on one node, whichever.
    Single,
    /// All of it on this node.
    Node(NumaNodeId),
    /// This many guest cells of equal size on as many nodes; 2 or more.
    Spread(u32),
}

/// A network card of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NicSpec {
    /// What it is.
    pub kind: NicKind,
    /// What the switch should show of it, when the user wants that proved.
    pub fabric: Option<FabricSpec>,
    /// What cloud-init sets up on it.
    pub network: Option<GuestNetwork>,
    /// Whether a whole function that is named goes to the guest although the host's network goes
    /// through it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub take_from_host: bool,
}

/// What a card is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum NicKind {
    /// A whole physical function.
    Passthrough {
        /// Which.
        device: NicChoice,
    },
    /// A virtual function of a physical one.
    Vf {
        /// Of which.
        of: NicChoice,
        /// The VLAN that the NIC adds and takes away.
        vlan: Option<VlanId>,
        /// A given MAC; `None` derives one from server and slice.
        mac: Option<MacAddress>,
        /// What it is held to beside.
        #[serde(flatten)]
        rules: VfRules,
    },
    /// A virtio card on a libvirt network, only when asked for.
    Virtio {
        /// libvirt network.
        network: String,
        /// A given MAC; `None` derives one.
        mac: Option<MacAddress>,
    },
}

/// How a physical NIC is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum NicChoice {
    /// By address.
    Pci(PciAddress),
    /// By interface name (or altname).
    Name(String),
    /// By MAC.
    Mac(MacAddress),
    /// Any that fits.
    Need {
        /// At least this many Mbit/s.
        speed: Option<u32>,
        /// How near.
        numa: NicNuma,
    },
}

/// How near a NIC must be (planning rule 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NicNuma {
    /// On one of the slice's nodes.
    Same,
    /// There if possible.
    Prefer,
    /// Anywhere.
    Any,
}

/// What the fabric should show of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FabricSpec {
    /// The switch's port: `ge-0/0/9`, `n0p0`; `None` accepts any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The VLAN by number, or …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// … by the switch's name for it: `Red_Tenant_Network`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan_name: Option<String>,
}

/// What cloud-init sets up on a card (network configuration version 2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestNetwork {
    /// Ask a DHCP server.
    #[serde(default)]
    pub dhcp4: bool,
    /// Addresses with prefix length: `192.0.2.10/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<String>,
    /// DNS servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
}

/// The guest's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSpec {
    /// The base image: a file name in the host's image folder, or an absolute path. It is never
    /// written to.
    pub base: String,
    /// The disk's size.
    pub size: ByteSize,
    /// How the disk comes from the base.
    pub from: ImageFrom,
    /// How the guest is set up.
    pub setup: Setup,
}

/// How a disk comes from its base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageFrom {
    /// A qcow2 overlay: quick and small; the base must stay.
    Overlay,
    /// A full copy.
    Copy,
    /// `virt-resize --expand`: a full copy whose named partition (`/dev/sda1`) is grown.
    Resize {
        /// The partition to grow.
        expand: String,
    },
}

/// How a guest is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Setup {
    /// A NoCloud seed disk, read by cloud-init at first boot.
    CloudInit,
    /// `virt-customize` on the disk, as the seed does, for images without cloud-init.
    VirtCustomize,
    /// Nothing.
    None,
}

/// What is set up inside the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestSpec {
    /// Host name; made of the slice's name when not given.
    pub hostname: String,
    /// The user that is made, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<GuestUser>,
    /// Commands of the first boot, one argv or shell line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_commands: Vec<String>,
}

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestUser {
    /// Login name.
    pub name: String,
    /// Public keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// A file on the server with a crypt(5) hash. The hash itself is never in spec, plan or
    /// journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash_file: Option<String>,
    /// Whether it may become root without a password.
    #[serde(default)]
    pub sudo: bool,
}

/// QEMU's machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GuestMachine {
    /// PCI Express.
    Q35,
    /// The i440FX of old images.
    Pc,
}
