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
use crate::steps::grub::Grub;

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
}

/// A loader and the arguments that it is to keep.
#[derive(Debug, Clone, Copy)]
pub enum Keeper<'a> {
    /// GRUB.
    Grub(Grub<'a>),
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
            BootLoader::Grub { drop_ins: None, .. }
            | BootLoader::Bls
            | BootLoader::Ostree
            | BootLoader::SystemdBoot
            | BootLoader::Unknown => None,
        }
    }

    /// It, and what it is to keep.
    pub fn with<'a>(&'a self, args: &'a [KernelArg]) -> Keeper<'a> {
        match self {
            Self::Grub { config } => Keeper::Grub(Grub { config, args }),
        }
    }

    /// What is done to it, for people.
    pub fn describe(&self, args: &str) -> String {
        match self {
            Self::Grub { .. } => {
                format!("give GRUB the kernel arguments `{args}` by `{GRUB_DROP_IN}`")
            }
        }
    }

    /// And undone.
    pub fn describe_undo(&self) -> String {
        match self {
            Self::Grub { .. } => {
                format!("take the kernel arguments of `{GRUB_DROP_IN}` away from GRUB")
            }
        }
    }

    /// The digest of what the next boot tries.
    pub fn tried(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.tried(look),
        }
    }

    /// The digest of what was confirmed.
    pub fn confirmed(&self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.confirmed(look),
        }
    }

    /// Why arguments that are still to be tried were not.
    pub fn untried(&self) -> String {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.untried(),
        }
    }

    /// Has the next boot, and only that one, try the arguments.
    pub fn arm(&self, args: &[KernelArg], site: &Site<'_>) -> Result<(), StepError> {
        match self.with(args) {
            Keeper::Grub(grub) => grub.arm(site),
        }
    }

    /// In a boot on trial: whatever still says to try, says so no longer.
    pub fn strike(&self, site: &Site<'_>) -> Result<(), HostError> {
        match self.with(&[]) {
            Keeper::Grub(grub) => grub.strike(site),
        }
    }

    /// Has every boot from now on take the arguments.
    pub fn confirm(&self, args: &[KernelArg], site: &Site<'_>) -> Result<(), StepError> {
        match self.with(args) {
            Keeper::Grub(grub) => grub.confirm(site),
        }
    }
}
