//! Who reads boot loader entries, and boots one of them once: systemd-boot or GRUB.
//!
//! Takes entries by the names of their files; gives what [`Entries`](super::entries::Entries) needs
//! of either. ADR 0011 and ADR 0013 have the states.

use bmslice_host::{Command, HostError};
use bmslice_model::KernelArg;
use bmslice_render::{Form, entry_value};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::steps::blscfg;
use crate::steps::boot_interface::{VARIABLES, default_in, id, variable};

/// The variable of what systemd-boot boots once.
const ONE_SHOT: &str = "LoaderEntryOneShot";

/// Who starts an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter<'a> {
    /// systemd-boot, by variables of the EFI.
    SystemdBoot,
    /// GRUB's `blscfg`, by its environment block.
    Grub {
        /// Where that is: `/boot/grub2/grubenv`.
        env: &'a str,
    },
}

impl Starter<'_> {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemdBoot => "systemd-boot",
            Self::Grub { .. } => "GRUB",
        }
    }

    /// Where arguments stand in an entry.
    pub fn entry(self) -> Form {
        match self {
            Self::SystemdBoot => Form::Entry,
            Self::Grub { .. } => Form::GrubEntry,
        }
    }

    /// And in kernel-install's command line.
    pub fn cmdline(self) -> Form {
        match self {
            Self::SystemdBoot => Form::Cmdline,
            Self::Grub { .. } => Form::GrubbyCmdline,
        }
    }

    /// What shows the entries.
    pub fn see(self) -> &'static str {
        match self {
            Self::SystemdBoot => "see `bootctl list`",
            Self::Grub { .. } => "see `grubby --info=ALL`",
        }
    }

    /// What makes an entry the default.
    pub fn choose(self) -> &'static str {
        match self {
            Self::SystemdBoot => {
                "name an entry of this system with `bootctl set-default ID`, or with `default` in `loader.conf`"
            }
            Self::Grub { .. } => {
                "name a kernel of this system with `grubby --set-default=/boot/vmlinuz-VERSION`"
            }
        }
    }

    /// What is not there that trying an entry needs.
    pub fn precondition(
        self,
        look: &Look<'_>,
        args: &[KernelArg],
    ) -> Result<Vec<Problem>, HostError> {
        if let Self::Grub { env } = self {
            return blscfg::precondition(look, env, args);
        }
        let mut problems = Vec::new();
        if !look.machine.has_program("bootctl") {
            problems.push(
                Problem::new("the plan has kernel arguments for systemd-boot, and there is no `bootctl` here")
                    .hint("`apt install systemd-boot`"),
            );
        } else if variable(look, "LoaderInfo").is_none() {
            problems.push(
                Problem::server_lacks(format!(
                    "systemd-boot has left no word of itself in `{VARIABLES}`: it did not start this system, or the EFI variables are not there"
                ))
                .hint("see `bootctl status`; mount efivarfs there, and boot by systemd-boot"),
            );
        }
        Ok(problems)
    }

    /// Arguments that fight ours and are neither in an entry nor in kernel-install's file.
    pub fn conflicts(self, look: &Look<'_>, args: &[KernelArg]) -> Result<Vec<Problem>, HostError> {
        match self {
            Self::SystemdBoot => Ok(Vec::new()),
            Self::Grub { env } => blscfg::conflicting(look, env, args),
        }
    }

    /// What boots unless somebody says otherwise. systemd-boot counts a one-shot as that, too.
    pub fn default(self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self {
            Self::SystemdBoot => {
                let command = Command::new("bootctl", ["--no-pager", "list"]);
                Ok(default_in(&look.machine.run(&command)?.stdout))
            }
            Self::Grub { .. } => blscfg::default(look),
        }
    }

    /// Whether it is the entry that the running system was booted by.
    pub fn is_booted(self, look: &Look<'_>, name: &str, text: &str) -> bool {
        match self {
            Self::SystemdBoot => variable(look, "LoaderEntrySelected")
                .is_some_and(|selected| id(&selected) == id(name)),
            Self::Grub { .. } => {
                blscfg::image(look).is_some_and(|image| entry_value(text, "linux") == Some(&image))
            }
        }
    }

    /// Where an entry's kernel may be, `root` being what holds `loader/entries`. GRUB's paths are
    /// those of a file system, which may be mounted at `root` or hold it.
    pub fn kernels(self, root: &str, linux: &str) -> Vec<String> {
        let relative = linux.trim_start_matches('/');
        let at_root = format!("{root}/{relative}");
        match self {
            Self::SystemdBoot => vec![at_root],
            Self::Grub { .. } => {
                let name = relative.rsplit('/').next().unwrap_or(relative);
                vec![at_root, format!("/{relative}"), format!("{root}/{name}")]
            }
        }
    }

    /// What boots next, once.
    pub fn armed(self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self {
            Self::SystemdBoot => Ok(variable(look, ONE_SHOT)),
            Self::Grub { env } => blscfg::armed(look, env),
        }
    }

    /// Has an entry boot next, once, and reads that back.
    pub fn arm(self, site: &Site<'_>, name: &str) -> Result<(), StepError> {
        if let Self::Grub { env } = self {
            return blscfg::arm(site, env, name);
        }
        site.run("bootctl", ["set-oneshot", name])?;
        let armed = variable(&site.look(), ONE_SHOT);
        if armed.as_deref() == Some(name) {
            return Ok(());
        }
        Err(StepError::NotEffective {
            got: format!(
                "`{ONE_SHOT}` is {}",
                armed.map_or_else(|| "not set".into(), |id| format!("`{id}`"))
            ),
        })
    }

    /// Nothing boots next but the default.
    pub fn disarm(self, site: &Site<'_>) -> Result<(), HostError> {
        match self {
            Self::SystemdBoot => site.run("bootctl", ["set-oneshot", ""]).map(drop),
            // As GRUB leaves it.
            Self::Grub { env } => blscfg::set_next(site, env, Some("")),
        }
    }

    /// What GRUB's block says of the next boot, which it never forgets; systemd-boot takes its
    /// variable away.
    pub fn next_entry(self, look: &Look<'_>) -> Result<Option<String>, HostError> {
        match self {
            Self::SystemdBoot => Ok(None),
            Self::Grub { env } => blscfg::next(look, env),
        }
    }

    /// Leaves it as it was.
    pub fn settle(self, site: &Site<'_>, before: Option<&str>) -> Result<(), HostError> {
        match self {
            Self::SystemdBoot => Ok(()),
            Self::Grub { env } => blscfg::settle(site, env, before),
        }
    }

    /// Why arguments that are still to be tried were not.
    pub fn untried(self) -> String {
        match self {
            Self::SystemdBoot => "systemd-boot did not try them: the server booted by another loader, or the EFI variables are not kept".into(),
            Self::Grub { env } => format!("GRUB did not try them: the server booted by another loader or configuration, or GRUB could not write `{env}`"),
        }
    }
}
