//! What can be done to a server, and for each of it: how it is told, what must hold, what is
//! observed, what was before, how it is done and how it is undone.
//!
//! A step is data: it is journalled whole, so that it can be undone by a later `bmslice` that no
//! longer has the plan. Every `match` here is exhaustive, without a wildcard: a new variant does not
//! compile until each of the questions is answered.

use bmslice_host::HostError;
use bmslice_model::{CpuSet, MacAddress, SliceName, VlanId};
use bmslice_spec::VfRules;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Licence, Look, Site};
use crate::steps::boot::{self, BootArguments, Reboot};
use crate::steps::device::GroupSound;
use crate::steps::disk::BuildDisk;
use crate::steps::domain::{DefineDomain, SetAutostart, StartDomain};
use crate::steps::files::{Content, InstallFile, InstallUnit, StorePlan};
use crate::steps::memory::AllocateHugePages;
use crate::steps::partition::{ConfineHost, IsolatePartition};
use crate::steps::queues::FitQueues;
use crate::steps::quiet::{MoveInterrupts, MoveKernelThreads, SetAttributes, TellIrqbalance};
use crate::steps::seed::BuildSeed;
use crate::steps::sriov::{CreateVfs, DisableVfAutoprobe};
use crate::steps::trial::{self, ConfirmBoot};
use crate::steps::vf::ConfigureVf;

/// One thing that is done to a server, with all that doing and undoing it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase")]
pub enum Step {
    /// Keeps the plan on the server.
    StorePlan(StorePlan),
    /// Puts a file in place.
    InstallFile(InstallFile),
    /// Puts a systemd unit in place and enables it.
    InstallUnit(InstallUnit),
    /// Has systemd confine everybody else to the host's CPUs.
    ConfineHost(ConfineHost),
    /// Tells irqbalance which CPUs to leave alone.
    TellIrqbalance(TellIrqbalance),
    /// Gives the boot loader our kernel arguments.
    BootArguments(BootArguments),
    /// Makes a slice's disk from its base image.
    BuildDisk(BuildDisk),
    /// Makes a slice's cloud-init seed.
    BuildSeed(BuildSeed),
    /// Boots the host, so that the kernel arguments are in force.
    Reboot(Reboot),
    /// Keeps the kernel arguments that the host came up with.
    ConfirmBoot(ConfirmBoot),
    /// Makes the slices' CPUs a partition of their own.
    IsolatePartition(IsolatePartition),
    /// Sets attributes of the kernel to one value.
    SetAttributes(SetAttributes),
    /// Gives interrupts to the host's CPUs.
    MoveInterrupts(MoveInterrupts),
    /// Moves threads of the kernel's own.
    MoveKernelThreads(MoveKernelThreads),
    /// Sees that a NIC has no more queues than the host has CPUs.
    FitQueues(FitQueues),
    /// Sees to huge pages on one node.
    AllocateHugePages(AllocateHugePages),
    /// Keeps the host's driver away from VFs.
    DisableVfAutoprobe(DisableVfAutoprobe),
    /// Splits a physical function.
    CreateVfs(CreateVfs),
    /// Sets MAC, VLAN and the rules of a VF.
    ConfigureVf(ConfigureVf),
    /// Looks that nothing of the host's shares an IOMMU group with what a slice gets.
    GroupSound(GroupSound),
    /// Defines a slice's domain.
    DefineDomain(DefineDomain),
    /// Lets a domain start with the host, or not.
    SetAutostart(SetAutostart),
    /// Starts a slice's guest.
    StartDomain(StartDomain),
}

/// What is there, held against a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It is so already.
    Held,
    /// Nothing of it is there.
    NotHeld,
    /// Something else is there.
    Different {
        /// What.
        got: String,
    },
}

impl Observation {
    pub(crate) fn different(got: impl Into<String>) -> Self {
        Self::Different { got: got.into() }
    }
}

/// What was there before a step, as far as undoing it needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "camelCase")]
pub enum Before {
    /// Nothing that must be put back.
    Nothing,
    /// A file, or none.
    File {
        /// Its content; `None` when it was not there.
        content: Option<Content>,
        /// Its permission bits.
        mode: u32,
    },
    /// The command line that kernel-install gives to kernels to come.
    #[serde(rename_all = "camelCase")]
    KernelCmdline {
        /// Whether its file was there.
        was_there: bool,
        /// What stands in for it where it was not.
        stand_in: String,
        /// GRUB's `next_entry`, where GRUB reads the entries: often there, and empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_entry: Option<String>,
    },
    /// GRUB's wish for the next boot, where ostree makes the entries.
    #[serde(rename_all = "camelCase")]
    NextEntry {
        /// `next_entry`, often there, and empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_entry: Option<String>,
    },
    /// A unit.
    Unit {
        /// Its file's content; `None` when it was not there.
        content: Option<Content>,
        /// Whether it was enabled.
        enabled: bool,
    },
    /// A pool of huge pages.
    HugePages {
        /// `nr_hugepages`.
        total: u64,
    },
    /// Attributes of the kernel.
    Attributes {
        /// Path and value of each that was there.
        values: Vec<(String, String)>,
    },
    /// What systemd confined to which CPUs.
    Confinement {
        /// Path and content of each file; `None` when it was not there.
        files: Vec<(String, Option<Content>)>,
        /// Each cgroup and its `cpuset.cpus`; `None` when it had none.
        groups: Vec<(String, Option<CpuSet>)>,
    },
    /// Where interrupts were served.
    Interrupts {
        /// In which boot.
        boot: String,
        /// `default_smp_affinity`.
        default: Option<CpuSet>,
        /// Number and affinity of those that were not the host's alone.
        affinities: Vec<(u32, CpuSet)>,
    },
    /// Where threads of the kernel's could run.
    Threads {
        /// In which boot.
        boot: String,
        /// Id, name, and `Cpus_allowed_list`.
        threads: Vec<(u32, String, CpuSet)>,
    },
    /// Queues of a NIC.
    Queues {
        /// It received with so many.
        rx: u32,
        /// And sent with so many.
        tx: u32,
    },
    /// `sriov_drivers_autoprobe`.
    Autoprobe {
        /// Whether it was on.
        on: bool,
    },
    /// A physical function.
    Vfs {
        /// `sriov_numvfs`.
        count: u32,
        /// Whether its link was up.
        up: bool,
    },
    /// A virtual function that was there already.
    Vf {
        /// Its MAC.
        mac: Option<MacAddress>,
        /// Its VLAN.
        vlan: Option<VlanId>,
        /// What it was held to.
        #[serde(flatten)]
        rules: VfRules,
    },
    /// A domain, or none.
    Domain {
        /// Its definition; `None` when it was not there.
        xml: Option<String>,
    },
    /// Whether a domain started with the host.
    Autostart {
        /// It did.
        on: bool,
    },
    /// A guest that did not run, and the drivers of the functions that it gets.
    Guest {
        /// PCI address and driver.
        drivers: Vec<(bmslice_model::PciAddress, Option<String>)>,
    },
}

/// When a step is done and undone: what concerns the host, or one slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    /// Once, before the reboot that it may need.
    Installed,
    /// After every boot, before libvirt starts.
    Booted,
    /// After libvirt has started.
    Sliced,
}

impl Step {
    /// What it is about: the same key is the same thing on the server, whatever is wanted of it.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::StorePlan(_) => "plan".into(),
            Self::InstallFile(step) => format!("file {}", step.path),
            Self::InstallUnit(step) => format!("unit {}", step.name()),
            Self::ConfineHost(_) => "confinement".into(),
            Self::TellIrqbalance(_) => "irqbalance".into(),
            Self::IsolatePartition(_) => "partition".into(),
            Self::SetAttributes(step) => format!("setting {}", step.about),
            Self::MoveInterrupts(_) => "interrupts".into(),
            Self::MoveKernelThreads(_) => "kernel threads".into(),
            Self::FitQueues(step) => format!("queues {}", step.nic.address),
            Self::BootArguments(_) => boot::KEY.into(),
            Self::BuildDisk(step) => format!("disk {}", step.path),
            Self::BuildSeed(step) => format!("seed {}", step.path),
            Self::Reboot(_) => "reboot".into(),
            Self::ConfirmBoot(_) => trial::KEY.into(),
            Self::AllocateHugePages(step) => {
                format!("huge pages {} node {}", step.size, step.node)
            }
            Self::DisableVfAutoprobe(step) => format!("autoprobe {}", step.pf.address),
            Self::CreateVfs(step) => format!("vfs {}", step.pf.address),
            Self::ConfigureVf(step) => format!("vf {} {}", step.pf.address, step.index),
            Self::GroupSound(step) => format!("groups {}", step.slice),
            Self::DefineDomain(step) => format!("domain {}", step.slice),
            Self::SetAutostart(step) => format!("autostart {}", step.slice),
            Self::StartDomain(step) => format!("guest {}", step.slice),
        }
    }

    /// Whose it is; `None` is the host's.
    pub(crate) fn slice(&self) -> Option<&SliceName> {
        match self {
            Self::StorePlan(_)
            | Self::InstallFile(_)
            | Self::InstallUnit(_)
            | Self::ConfineHost(_)
            | Self::TellIrqbalance(_)
            | Self::BootArguments(_)
            | Self::Reboot(_)
            | Self::ConfirmBoot(_)
            | Self::IsolatePartition(_)
            | Self::SetAttributes(_)
            | Self::MoveInterrupts(_)
            | Self::MoveKernelThreads(_)
            | Self::FitQueues(_)
            | Self::AllocateHugePages(_)
            | Self::DisableVfAutoprobe(_)
            | Self::CreateVfs(_) => None,
            Self::BuildDisk(step) => Some(&step.slice),
            Self::BuildSeed(step) => Some(&step.slice),
            Self::ConfigureVf(step) => Some(&step.slice),
            Self::GroupSound(step) => Some(&step.slice),
            Self::DefineDomain(step) => Some(&step.slice),
            Self::SetAutostart(step) => Some(&step.slice),
            Self::StartDomain(step) => Some(&step.slice),
        }
    }

    /// When it is due.
    pub(crate) fn when(&self) -> When {
        match self {
            Self::StorePlan(_)
            | Self::InstallFile(_)
            | Self::InstallUnit(_)
            | Self::ConfineHost(_)
            | Self::TellIrqbalance(_)
            | Self::BootArguments(_)
            | Self::BuildDisk(_)
            | Self::BuildSeed(_)
            | Self::Reboot(_)
            | Self::ConfirmBoot(_) => When::Installed,
            Self::IsolatePartition(_)
            | Self::SetAttributes(_)
            | Self::MoveInterrupts(_)
            | Self::MoveKernelThreads(_)
            | Self::FitQueues(_)
            | Self::AllocateHugePages(_)
            | Self::DisableVfAutoprobe(_)
            | Self::CreateVfs(_)
            | Self::ConfigureVf(_) => When::Booted,
            Self::GroupSound(_)
            | Self::DefineDomain(_)
            | Self::SetAutostart(_)
            | Self::StartDomain(_) => When::Sliced,
        }
    }

    /// Whether a boot of the host brings it about by what an earlier step did, so that finding it
    /// held afterwards is our doing: pages that our kernel arguments ask for, guests that libvirt
    /// starts.
    pub(crate) fn comes_with_boot(&self) -> bool {
        match self {
            Self::AllocateHugePages(step) => step.at_boot,
            Self::StartDomain(_) => true,
            Self::StorePlan(_)
            | Self::InstallFile(_)
            | Self::InstallUnit(_)
            | Self::ConfineHost(_)
            | Self::TellIrqbalance(_)
            | Self::BootArguments(_)
            | Self::BuildDisk(_)
            | Self::BuildSeed(_)
            | Self::Reboot(_)
            | Self::ConfirmBoot(_)
            | Self::IsolatePartition(_)
            | Self::SetAttributes(_)
            | Self::MoveInterrupts(_)
            | Self::MoveKernelThreads(_)
            | Self::FitQueues(_)
            | Self::DisableVfAutoprobe(_)
            | Self::CreateVfs(_)
            | Self::ConfigureVf(_)
            | Self::GroupSound(_)
            | Self::DefineDomain(_)
            | Self::SetAutostart(_) => false,
        }
    }

    /// For people, as an order: `make 2 VFs of 0000:41:00.0 (enp65s0)`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::StorePlan(step) => step.describe(),
            Self::InstallFile(step) => step.describe(),
            Self::InstallUnit(step) => step.describe(),
            Self::ConfineHost(step) => step.describe(),
            Self::TellIrqbalance(step) => step.describe(),
            Self::IsolatePartition(step) => step.describe(),
            Self::SetAttributes(step) => step.describe(),
            Self::MoveInterrupts(step) => step.describe(),
            Self::MoveKernelThreads(step) => step.describe(),
            Self::FitQueues(step) => step.describe(),
            Self::BootArguments(step) => step.describe(),
            Self::BuildDisk(step) => step.describe(),
            Self::BuildSeed(step) => step.describe(),
            Self::Reboot(step) => step.describe(),
            Self::ConfirmBoot(step) => step.describe(),
            Self::AllocateHugePages(step) => step.describe(),
            Self::DisableVfAutoprobe(step) => step.describe(),
            Self::CreateVfs(step) => step.describe(),
            Self::ConfigureVf(step) => step.describe(),
            Self::GroupSound(step) => step.describe(),
            Self::DefineDomain(step) => step.describe(),
            Self::SetAutostart(step) => step.describe(),
            Self::StartDomain(step) => step.describe(),
        }
    }

    /// What stands in its way, as far as it can be told before any step is done.
    pub(crate) fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        match self {
            Self::BootArguments(step) => step.precondition(look),
            Self::BuildDisk(step) => step.precondition(look),
            Self::BuildSeed(step) => step.precondition(look),
            Self::CreateVfs(step) => step.precondition(look),
            Self::ConfigureVf(step) => Ok(step.precondition(look)),
            Self::DefineDomain(step) => step.precondition(look),
            Self::InstallUnit(step) => Ok(step.precondition(look)),
            Self::IsolatePartition(step) => Ok(step.precondition(look)),
            Self::FitQueues(step) => Ok(step.precondition(look)),
            Self::AllocateHugePages(step) => Ok(step.precondition(look)),
            // The folder is ours, or made; the journal has been written there before.
            Self::StorePlan(_)
            | Self::InstallFile(_)
            // A host without systemd is refused for its units already.
            | Self::ConfineHost(_)
            | Self::TellIrqbalance(_)
            // What the kernel does not have or does not move is not asked for.
            | Self::SetAttributes(_)
            | Self::MoveInterrupts(_)
            | Self::MoveKernelThreads(_)
            // That its arguments are written is the step before it.
            | Self::Reboot(_)
            | Self::ConfirmBoot(_)
            // The attribute is there wherever VFs can be made.
            | Self::DisableVfAutoprobe(_)
            // Groups and domains exist only after the steps before.
            | Self::GroupSound(_)
            | Self::SetAutostart(_)
            | Self::StartDomain(_) => Ok(Vec::new()),
        }
    }

    /// What is there.
    pub(crate) fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        match self {
            Self::StorePlan(step) => step.observe(look),
            Self::InstallFile(step) => step.observe(look),
            Self::InstallUnit(step) => step.observe(look),
            Self::ConfineHost(step) => step.observe(look),
            Self::TellIrqbalance(step) => step.observe(look),
            Self::IsolatePartition(step) => step.observe(look),
            Self::SetAttributes(step) => step.observe(look),
            Self::MoveInterrupts(step) => step.observe(look),
            Self::MoveKernelThreads(step) => step.observe(look),
            Self::FitQueues(step) => step.observe(look),
            Self::BootArguments(step) => step.observe(look),
            Self::BuildDisk(step) => Ok(step.observe(look)),
            Self::BuildSeed(step) => Ok(step.observe(look)),
            Self::Reboot(step) => Ok(step.observe(look)),
            Self::ConfirmBoot(step) => step.observe(look),
            Self::AllocateHugePages(step) => step.observe(look),
            Self::DisableVfAutoprobe(step) => Ok(step.observe(look)),
            Self::CreateVfs(step) => Ok(step.observe(look)),
            Self::ConfigureVf(step) => step.observe(look),
            Self::GroupSound(step) => Ok(step.observe(look)),
            Self::DefineDomain(step) => step.observe(look),
            Self::SetAutostart(step) => step.observe(look),
            Self::StartDomain(step) => step.observe(look),
        }
    }

    /// What is there that undoing must put back.
    pub(crate) fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        match self {
            Self::InstallFile(step) => step.before(look),
            Self::InstallUnit(step) => step.before(look),
            Self::ConfineHost(step) => step.before(look),
            Self::TellIrqbalance(step) => step.before(look),
            Self::SetAttributes(step) => step.before(look),
            Self::MoveInterrupts(step) => step.before(look),
            Self::MoveKernelThreads(step) => step.before(look),
            Self::FitQueues(step) => step.before(look),
            Self::BootArguments(step) => step.before(look),
            Self::AllocateHugePages(step) => step.before(look),
            Self::DisableVfAutoprobe(step) => Ok(step.before(look)),
            Self::CreateVfs(step) => Ok(step.before(look)),
            Self::ConfigureVf(step) => step.before(look),
            Self::DefineDomain(step) => step.before(look),
            Self::SetAutostart(step) => step.before(look),
            Self::StartDomain(step) => step.before(look),
            // Only ever made where nothing was; a reboot and a look leave nothing to put back; and a
            // plan that an earlier release left behind has no place after the next one.
            Self::StorePlan(_)
            | Self::IsolatePartition(_)
            | Self::BuildDisk(_)
            | Self::BuildSeed(_)
            | Self::Reboot(_)
            // Goes with the block, which is the boot arguments' to remove.
            | Self::ConfirmBoot(_)
            | Self::GroupSound(_) => Ok(Before::Nothing),
        }
    }

    /// Does it. May be called again after it was interrupted anywhere.
    pub(crate) fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        match self {
            Self::StorePlan(step) => step.act(site),
            Self::InstallFile(step) => step.act(site),
            Self::InstallUnit(step) => step.act(site),
            Self::ConfineHost(step) => step.act(site),
            Self::TellIrqbalance(step) => step.act(site),
            Self::IsolatePartition(step) => step.act(site),
            Self::SetAttributes(step) => step.act(site),
            Self::MoveInterrupts(step) => step.act(site),
            Self::MoveKernelThreads(step) => step.act(site),
            Self::FitQueues(step) => step.act(site),
            Self::BootArguments(step) => step.act(site),
            Self::BuildDisk(step) => step.act(site),
            Self::BuildSeed(step) => step.act(site),
            Self::Reboot(step) => step.act(site),
            Self::ConfirmBoot(step) => step.act(site),
            Self::AllocateHugePages(step) => step.act(site),
            Self::DisableVfAutoprobe(step) => step.act(site),
            Self::CreateVfs(step) => step.act(site),
            Self::ConfigureVf(step) => step.act(site),
            Self::GroupSound(step) => step.act(site),
            Self::DefineDomain(step) => step.act(site),
            Self::SetAutostart(step) => step.act(site),
            Self::StartDomain(step) => step.act(site),
        }
    }

    /// For people, what undoing it does; `None` when there is nothing to undo.
    pub(crate) fn describe_undo(&self, licence: Licence) -> Option<String> {
        match self {
            Self::StorePlan(step) => Some(step.describe_undo()),
            Self::InstallFile(step) => Some(step.describe_undo()),
            Self::InstallUnit(step) => Some(step.describe_undo()),
            Self::ConfineHost(step) => Some(step.describe_undo()),
            Self::TellIrqbalance(step) => Some(step.describe_undo()),
            Self::IsolatePartition(step) => Some(step.describe_undo()),
            Self::SetAttributes(step) => Some(step.describe_undo()),
            Self::MoveInterrupts(step) => Some(step.describe_undo()),
            Self::MoveKernelThreads(step) => Some(step.describe_undo()),
            Self::FitQueues(step) => Some(step.describe_undo()),
            Self::BootArguments(step) => Some(step.describe_undo()),
            Self::BuildDisk(step) => Some(step.describe_undo(licence)),
            Self::BuildSeed(step) => Some(step.describe_undo(licence)),
            Self::AllocateHugePages(step) => Some(step.describe_undo()),
            Self::DisableVfAutoprobe(step) => Some(step.describe_undo()),
            Self::CreateVfs(step) => Some(step.describe_undo()),
            Self::ConfigureVf(step) => Some(step.describe_undo()),
            Self::DefineDomain(step) => Some(step.describe_undo()),
            Self::SetAutostart(step) => Some(step.describe_undo()),
            Self::StartDomain(step) => Some(step.describe_undo()),
            Self::Reboot(_) | Self::ConfirmBoot(_) | Self::GroupSound(_) => None,
        }
    }

    /// Whether it leaves anything that can be undone.
    pub(crate) fn is_undoable(&self) -> bool {
        self.describe_undo(Licence::default()).is_some()
    }

    /// Puts back what was before. May be called again after it was interrupted anywhere, and when
    /// the step itself was never finished.
    pub(crate) fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        match self {
            Self::StorePlan(step) => step.undo(site),
            Self::InstallFile(step) => step.undo(before, site),
            Self::InstallUnit(step) => step.undo(before, site),
            Self::ConfineHost(step) => step.undo(before, site),
            Self::TellIrqbalance(step) => step.undo(before, site),
            Self::IsolatePartition(step) => step.undo(site),
            Self::SetAttributes(step) => step.undo(before, site),
            Self::MoveInterrupts(step) => step.undo(before, site),
            Self::MoveKernelThreads(step) => step.undo(before, site),
            Self::FitQueues(step) => step.undo(before, site),
            Self::BootArguments(step) => step.undo(before, site),
            Self::BuildDisk(step) => step.undo(site),
            Self::BuildSeed(step) => step.undo(site),
            Self::AllocateHugePages(step) => step.undo(before, site),
            Self::DisableVfAutoprobe(step) => step.undo(before, site),
            Self::CreateVfs(step) => step.undo(before, site),
            Self::ConfigureVf(step) => step.undo(before, site),
            Self::DefineDomain(step) => step.undo(before, site),
            Self::SetAutostart(step) => step.undo(before, site),
            Self::StartDomain(step) => step.undo(before, site),
            Self::Reboot(_) | Self::ConfirmBoot(_) | Self::GroupSound(_) => Ok(()),
        }
    }
}
