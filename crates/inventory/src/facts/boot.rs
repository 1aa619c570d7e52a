//! How a server boots.

use std::fmt;

use bmslice_model::{CpuSet, KernelCmdline};
use serde::{Deserialize, Serialize};

/// How the host boots, and with what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootFacts {
    /// `/proc/cmdline`.
    #[serde(default)]
    pub cmdline: KernelCmdline,
    /// What writes the next boot's arguments.
    pub loader: BootLoader,
    /// `/sys/devices/system/cpu/isolated`.
    #[serde(default)]
    pub isolated: CpuSet,
    /// `/sys/devices/system/cpu/nohz_full`.
    #[serde(default)]
    pub nohz_full: CpuSet,
    /// Whether any IOMMU group exists.
    #[serde(default)]
    pub iommu: bool,
    /// Firmware's tables that describe an IOMMU (`DMAR`, `IVRS`, `IORT`, `VIOT`), as
    /// `/sys/firmware/acpi/tables` lists them: with one of them the IOMMU can be turned on. `None`
    /// when that folder could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_tables: Option<Vec<String>>,
    /// 1 or 2, when `/sys/fs/cgroup` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u32>,
}

/// What boots the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "kind",
    deny_unknown_fields
)]
pub enum BootLoader {
    /// GRUB whose configuration `update-grub` (or `grub2-mkconfig`) writes.
    Grub {
        /// The generated configuration: `/boot/grub/grub.cfg`.
        config: String,
        /// Where drop-ins are read from: `/etc/default/grub.d`; `None` when this GRUB reads none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drop_ins: Option<String>,
    },
    /// GRUB that reads boot loader entries (`blscfg`), which `grubby` keeps: Fedora, RHEL.
    Bls(GrubEntries),
    /// Deployments of ostree's (Fedora CoreOS, IoT and Silverblue, RHEL for Edge), each of which has a
    /// boot loader entry. rpm-ostree and bootc take the next one's kernel arguments from there.
    Ostree(GrubEntries),
    /// systemd-boot with kernel-install.
    SystemdBoot {
        /// Where its entries (Type #1) are: `/boot/efi/loader/entries`; `None` when there are none,
        /// or none that may be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entries: Option<String>,
    },
    /// Nothing that is known.
    #[default]
    Unknown,
}

/// Boot loader entries that GRUB reads, whoever writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrubEntries {
    /// Where they are: `/boot/loader/entries`; `None` when GRUB does not read them. An older
    /// inventory does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<String>,
    /// GRUB's environment block, links followed: `/boot/grub2/grubenv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// What keeps this GRUB from booting an entry once, or us from writing the entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<BlsObstacle>,
}

impl GrubEntries {
    /// The folder and the block, where entries can be written and one of them booted once.
    #[must_use]
    pub fn usable(&self) -> Option<(&str, &str)> {
        let found = self.entries.as_deref().zip(self.env.as_deref());
        found.filter(|_| self.obstacle.is_none())
    }
}

/// Why kernel arguments cannot be tried once, or kept, in boot loader entries that GRUB reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "what",
    deny_unknown_fields
)]
pub enum BlsObstacle {
    /// There is no environment block, or it may not be seen.
    NoBlock,
    /// GRUB cannot write the block, and would try the same entry at each boot.
    ReadOnly {
        /// As a clause: `it is on btrfs`.
        why: String,
    },
    /// The arguments are a variable of GRUB's (`$kernelopts`, RHEL 8), not words of the entry.
    Variable {
        /// The first such entry.
        entry: String,
    },
    /// The file system that holds the entries is mounted read-only (Fedora CoreOS).
    MountedReadOnly {
        /// Where it is mounted: `/boot`.
        at: String,
    },
}

impl fmt::Display for BlsObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBlock => {
                f.write_str("GRUB's environment block `/boot/grub2/grubenv` is not there")
            }
            Self::ReadOnly { why } => write!(f, "GRUB cannot write its environment block ({why})"),
            Self::Variable { entry } => write!(
                f,
                "`{entry}` takes its arguments from GRUB's variable `$kernelopts`"
            ),
            Self::MountedReadOnly { at } => write!(f, "`{at}` is mounted read-only"),
        }
    }
}
