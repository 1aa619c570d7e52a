//! What keeps kernel arguments from one boot to the next, behind one face.
//!
//! Takes the boot loader that an inventory found, or the journal; gives what a trial needs of any of
//! them: what is tried, what is confirmed, and to change either.

use bmslice_host::HostError;
use bmslice_inventory::BootLoader;
use bmslice_model::KernelArg;
use bmslice_render::GRUB_DROP_IN;
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::site::{Look, Site};
use crate::steps::entries::Entries;
use crate::steps::grub::Grub;
use crate::steps::maker::Maker;
use crate::steps::starter::Starter;

/// What keeps kernel arguments from one boot to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Loader {
    /// GRUB, by an environment block beside its configuration (ADR 0008).
    Grub {
        /// `/boot/grub/grub.cfg`. The first version of the journal named the block instead.
        #[serde(alias = "env")]
        config: String,
    },
    /// systemd-boot, by entries and a variable that boots one of them once (ADR 0011).
    Entries {
        /// Their folder: `/boot/efi/loader/entries`.
        entries: String,
    },
    /// GRUB that reads entries and boots one of them once by its environment block (ADR 0013).
    Bls {
        /// Their folder: `/boot/loader/entries`.
        bls: String,
        /// The block: `/boot/grub2/grubenv`.
        grubenv: String,
    },
    /// The same where the entries are those of ostree's deployments (ADR 0016).
    Ostree {
        /// Their folder: `/boot/loader/entries`.
        ostree: String,
        /// The block: `/boot/grub2/grubenv`.
        grubenv: String,
    },
}

/// A loader and the arguments that it is to keep.
#[derive(Debug, Clone, Copy)]
pub enum Keeper<'a> {
    /// GRUB.
    Grub(Grub<'a>),
    /// Entries, of systemd-boot's or of GRUB's.
    Entries(Entries<'a>),
}

impl Loader {
    /// That of a server; `None` when its arguments cannot be written by us.
    pub fn of(found: &BootLoader) -> Option<Self> {
        match found {
            BootLoader::Grub {
                config,
                drop_ins: Some(_),
            } => Some(Self::Grub {
                config: config.clone(),
            }),
            BootLoader::SystemdBoot {
                entries: Some(entries),
            } => Some(Self::Entries {
                entries: entries.clone(),
            }),
            BootLoader::Bls(found) => found.usable().map(|(folder, env)| Self::Bls {
                bls: folder.to_owned(),
                grubenv: env.to_owned(),
            }),
            BootLoader::Ostree(found) => found.usable().map(|(folder, env)| Self::Ostree {
                ostree: folder.to_owned(),
                grubenv: env.to_owned(),
            }),
            BootLoader::Grub { drop_ins: None, .. }
            | BootLoader::SystemdBoot { entries: None }
            | BootLoader::Unknown => None,
        }
    }

    /// It, and what it is to keep.
    pub fn with<'a>(&'a self, args: &'a [KernelArg]) -> Keeper<'a> {
        match self {
            Self::Grub { config } => Keeper::Grub(Grub { config, args }),
            Self::Entries { entries } => Keeper::Entries(Entries {
                folder: entries,
                starter: Starter::SystemdBoot,
                maker: Maker::KernelInstall,
                args,
            }),
            Self::Bls { bls, grubenv } => Keeper::Entries(Entries {
                folder: bls,
                starter: Starter::Grub { env: grubenv },
                maker: Maker::KernelInstall,
                args,
            }),
            Self::Ostree { ostree, grubenv } => Keeper::Entries(Entries {
                folder: ostree,
                starter: Starter::Grub { env: grubenv },
                maker: Maker::Ostree,
                args,
            }),
        }
    }

    /// Whether what one of them keeps can be taken back by the other.
    pub fn is_kin(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Grub { .. } => "GRUB",
            Self::Entries { .. } => "systemd-boot",
            Self::Bls { .. } => "GRUB with boot loader entries",
            Self::Ostree { .. } => "GRUB with the entries of ostree's deployments",
        }
    }

    /// What is done to it, for people.
    pub fn describe(&self, args: &str) -> String {
        match self {
            Self::Grub { .. } => {
                format!("give GRUB the kernel arguments `{args}` by `{GRUB_DROP_IN}`")
            }
            Self::Entries { entries } => {
                format!("give systemd-boot the kernel arguments `{args}` by entries in `{entries}`")
            }
            Self::Bls { bls: entries, .. } => {
                format!("give GRUB the kernel arguments `{args}` by entries in `{entries}`")
            }
            Self::Ostree { ostree, .. } => {
                format!(
                    "give the deployment that runs the kernel arguments `{args}` by its entry in `{ostree}`"
                )
            }
        }
    }

    /// And undone.
    pub fn describe_undo(&self) -> String {
        match self {
            Self::Grub { .. } => {
                format!("take the kernel arguments of `{GRUB_DROP_IN}` away from GRUB")
            }
            Self::Entries { entries }
            | Self::Bls { bls: entries, .. }
            | Self::Ostree {
                ostree: entries, ..
            } => {
                format!("take our kernel arguments out of the entries in `{entries}`")
            }
        }
    }

    /// The digest of what the next boot tries.
    pub fn tried(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.tried(look),
            Keeper::Entries(entries) => entries.tried(look),
        }
    }

    /// The digest of what was confirmed.
    pub fn confirmed(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.confirmed(look),
            Keeper::Entries(entries) => entries.confirmed(look),
        }
    }

    /// Why arguments that are still to be tried were not.
    pub fn untried(&self) -> String {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.untried(),
            Keeper::Entries(entries) => entries.untried(),
        }
    }

    /// Why arguments that are no longer to be tried were not, if it shows.
    pub fn lost(&self, look: &Look<'_>, args: &[KernelArg]) -> Option<String> {
        match self.with(args) {
            Keeper::Grub(_) => None,
            Keeper::Entries(entries) => entries.lost(look),
        }
    }

    /// What would boot without the arguments that were just confirmed.
    pub fn passed_over(
        &self,
        look: &Look<'_>,
        args: &[KernelArg],
    ) -> Result<Option<String>, HostError> {
        match self.with(args) {
            Keeper::Grub(_) => Ok(None),
            Keeper::Entries(entries) => entries.passed_over(look),
        }
    }

    /// Has the next boot, and only that one, try the arguments.
    pub fn arm(&self, args: &[KernelArg], site: &Site<'_>) -> Result<(), StepError> {
        match self.with(args) {
            Keeper::Grub(grub) => grub.arm(site),
            Keeper::Entries(entries) => entries.arm(site),
        }
    }

    /// In a boot on trial: whatever still says to try, says so no longer.
    pub fn strike(&self, site: &Site<'_>) -> Result<(), HostError> {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.strike(site),
            // systemd-boot takes the variable away before it starts a kernel; GRUB writes its block
            // then, which may have failed.
            Keeper::Entries(entries) => entries.disarm(site),
        }
    }

    /// Has every boot from now on take the arguments.
    pub fn confirm(&self, args: &[KernelArg], site: &Site<'_>) -> Result<(), StepError> {
        match self.with(args) {
            Keeper::Grub(grub) => grub.confirm(site),
            Keeper::Entries(entries) => entries.confirm(site),
        }
    }
}
