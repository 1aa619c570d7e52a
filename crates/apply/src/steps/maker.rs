//! Who makes the entries of kernels to come, and where he takes their arguments from: kernel-install
//! or ostree.
//!
//! Takes what [`Entries`](super::entries::Entries) knows; gives it what differs between the two, as
//! [`Starter`] gives what differs between those who start an entry. ADR 0011, ADR 0013 and ADR 0016
//! have the states.

use bmslice_host::HostError;
use bmslice_model::{KernelArg, KernelCmdline};
use bmslice_render::{KERNEL_CMDLINE, entry_value, own_args};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::Before;
use crate::steps::boot::{conflicts, conflicts_with, running_args};
use crate::steps::entries::Entry;
use crate::steps::starter::Starter;
use crate::steps::{kernel_install, ostree};

/// Who makes entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// kernel-install, from `/etc/kernel/cmdline`.
    KernelInstall,
    /// ostree, from the entry of the deployment before.
    Ostree,
}

/// The last value of an argument of the user's in an entry.
fn last<'a>(own: &'a [(usize, KernelCmdline)], key: &str) -> Option<&'a KernelArg> {
    own.iter()
        .filter_map(|(_, args)| args.last(key))
        .next_back()
}

impl Maker {
    /// Whether an entry is given arguments. kernel-install's are those that have the root of the system
    /// that runs, and no other system's id; of ostree's only that of the deployment that runs, since
    /// the one before is there to go back to.
    pub fn is_of_this_system(self, look: &Look<'_>, starter: Starter<'_>, entry: &Entry) -> bool {
        let own = own_args(starter.entry(), &entry.text);
        if entry_value(&entry.text, "linux").is_none() {
            return false;
        }
        match self {
            Self::Ostree => own.iter().any(|(_, args)| ostree::runs(look, args)),
            Self::KernelInstall => {
                let running = running_args(look);
                let machine = look.machine.root().attribute("/etc/machine-id");
                let other_id = match (&machine, entry_value(&entry.text, "machine-id")) {
                    (Some(ours), Some(theirs)) => !ours.is_empty() && ours != theirs,
                    _ => false,
                };
                last(&own, "root") == running.last("root") && !other_id
            }
        }
    }

    /// Whether one of this system's is the entry that the running system was booted by.
    pub fn is_booted(self, look: &Look<'_>, starter: Starter<'_>, entry: &Entry) -> bool {
        match self {
            Self::KernelInstall => starter.is_booted(look, &entry.name, &entry.text),
            // Deployments may share a kernel: which one it is was asked already.
            Self::Ostree => true,
        }
    }

    /// What boots unless somebody says otherwise.
    pub fn default(
        self,
        look: &Look<'_>,
        starter: Starter<'_>,
        folder: &str,
    ) -> Result<Option<String>, HostError> {
        match (self, starter) {
            (Self::Ostree, Starter::Grub { env }) => ostree::default(look, folder, env),
            (Self::Ostree | Self::KernelInstall, _) => starter.default(look),
        }
    }

    /// The program that is not there and that tells what there is.
    pub fn lacks(self, look: &Look<'_>, starter: Starter<'_>) -> Option<Problem> {
        let asks = matches!((self, starter), (Self::KernelInstall, Starter::Grub { .. }));
        (asks && !look.machine.has_program("grubby")).then(|| {
            Problem::new(
                "the plan has kernel arguments for GRUB's entries, and there is no `grubby` here",
            )
            .hint("`dnf install grubby`")
        })
    }

    /// What stands in the way of a trial, beside what the starter says.
    pub fn precondition(self, look: &Look<'_>, folder: &str) -> Result<Vec<Problem>, HostError> {
        match self {
            Self::KernelInstall => Ok(Vec::new()),
            Self::Ostree => ostree::precondition(look, folder),
        }
    }

    /// Whether the trial would still be there at the next boot.
    pub fn may_arm(self, look: &Look<'_>) -> Result<(), StepError> {
        let waiting = match self {
            Self::KernelInstall => None,
            Self::Ostree => ostree::waiting(look)?,
        };
        match waiting {
            Some(problem) => Err(StepError::cannot(
                problem.text,
                problem.hint.unwrap_or_default(),
            )),
            None => Ok(()),
        }
    }

    /// What shows the entries.
    pub fn see(self, starter: Starter<'_>) -> &'static str {
        match self {
            Self::KernelInstall => starter.see(),
            Self::Ostree => "see `rpm-ostree status`",
        }
    }

    /// What makes an entry of this system the default.
    pub fn choose(self, starter: Starter<'_>) -> &'static str {
        match self {
            Self::KernelInstall => starter.choose(),
            Self::Ostree => {
                "reboot, so that what runs is the default; if that is not the one that you want, `rpm-ostree rollback` first"
            }
        }
    }

    /// What a default is that is none of this system's.
    pub fn foreign(self, folder: &str) -> String {
        match self {
            Self::KernelInstall => format!("no entry of this system's in `{folder}`"),
            Self::Ostree => "not what booted this system".into(),
        }
    }

    /// Who took an entry on trial away, as far as it is known.
    pub fn whodunit(self) -> &'static str {
        match self {
            Self::KernelInstall => "",
            Self::Ostree => ": ostree makes that folder anew with each deployment",
        }
    }

    /// Arguments in an entry that fight ours.
    pub fn conflicts(
        self,
        ours: &[KernelArg],
        theirs: &KernelCmdline,
        path: &str,
        number: usize,
    ) -> Vec<Problem> {
        match self {
            Self::KernelInstall => conflicts(ours, theirs, path, number),
            Self::Ostree => conflicts_with(ours, theirs, path, number, |theirs| {
                format!(
                    "`rpm-ostree kargs --delete={theirs}`, and reboot: the plan's own argument replaces it"
                )
            }),
        }
    }

    /// Arguments that fight ours in what entries are made from.
    pub fn conflicting(
        self,
        look: &Look<'_>,
        starter: Starter<'_>,
        args: &[KernelArg],
    ) -> Result<Vec<Problem>, HostError> {
        match self {
            Self::KernelInstall => kernel_install::conflicting(look, starter.cmdline(), args),
            Self::Ostree => Ok(Vec::new()),
        }
    }

    /// What is not ready for a trial.
    pub fn not_ready(self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self {
            Self::KernelInstall => Ok((!kernel_install::is_there(look)?)
                .then(|| format!("`{KERNEL_CMDLINE}` is not there"))),
            Self::Ostree => Ok(None),
        }
    }

    /// What has to be put back.
    pub fn before(
        self,
        look: &Look<'_>,
        starter: Starter<'_>,
        base: Option<&Entry>,
    ) -> Result<Before, HostError> {
        let next_entry = starter.next_entry(look)?;
        match self {
            Self::KernelInstall => Ok(Before::KernelCmdline {
                was_there: kernel_install::is_there(look)?,
                stand_in: match base {
                    Some(entry) => kernel_install::stand_in(look, (starter.entry(), &entry.text))?,
                    None => String::new(),
                },
                next_entry,
            }),
            Self::Ostree => Ok(Before::NextEntry { next_entry }),
        }
    }

    /// Makes ready for a trial.
    pub fn prepare(
        self,
        site: &Site<'_>,
        starter: Starter<'_>,
        base: &Entry,
    ) -> Result<(), HostError> {
        match self {
            Self::KernelInstall => kernel_install::prepare(site, (starter.entry(), &base.text)),
            Self::Ostree => Ok(()),
        }
    }

    /// Gives our arguments to kernels to come.
    pub fn keep(
        self,
        site: &Site<'_>,
        starter: Starter<'_>,
        entry: &Entry,
        args: &[KernelArg],
    ) -> Result<(), HostError> {
        match self {
            Self::KernelInstall => {
                let model = (starter.entry(), &*entry.text);
                kernel_install::keep(site, starter.cmdline(), model, args)
            }
            Self::Ostree => Ok(()),
        }
    }

    /// What would boot without the arguments that were just confirmed.
    pub fn passed_over(
        self,
        look: &Look<'_>,
        args: &[KernelArg],
    ) -> Result<Option<String>, HostError> {
        match self {
            Self::KernelInstall => Ok(None),
            Self::Ostree => ostree::passed_over(look, args),
        }
    }

    /// Takes ours out of what kernels to come are given.
    pub fn undo(
        self,
        site: &Site<'_>,
        starter: Starter<'_>,
        before: &Before,
    ) -> Result<(), StepError> {
        match self {
            Self::KernelInstall => Ok(kernel_install::undo(site, starter.cmdline(), before)?),
            Self::Ostree => match ostree::staged_has_ours(&site.look())? {
                Some(true) => Err(StepError::cannot(
                    "the deployment that is staged has our kernel arguments, and boots next",
                    "reboot into it, or drop it (`rpm-ostree cleanup --pending`); then `bmslice release` again",
                )),
                Some(false) | None => Ok(()),
            },
        }
    }
}
