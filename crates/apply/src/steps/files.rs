//! Files of ours and systemd units.

use std::path::Path;

use bmslice_host::{HostError, Machine};
use bmslice_plan::Plan;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::paths::{PLAN, PLAN_BEFORE};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::trial;

/// The content of a small file, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Content {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Whether a file has this content and mode.
pub fn observe_file(
    look: &Look<'_>,
    path: &str,
    content: &str,
    mode: u32,
) -> Result<Observation, HostError> {
    Ok(match look.file(path)? {
        None => Observation::NotHeld,
        Some(bytes) if bytes != content.as_bytes() => {
            Observation::different(format!("`{path}` has other content"))
        }
        Some(_) => match look.machine.root().mode(path) {
            Ok(got) if got != mode => {
                Observation::different(format!("`{path}` has mode {got:04o}, not {mode:04o}"))
            }
            Ok(_) | Err(_) => Observation::Held,
        },
    })
}

/// The content and mode of a file, to be put back.
pub fn file_before(look: &Look<'_>, path: &str) -> Result<Before, HostError> {
    let content = look.file(path)?.map(Content::of);
    let mode = look.machine.root().mode(path).unwrap_or(0o644);
    Ok(Before::File { content, mode })
}

/// Puts a file back, or takes it away when there was none.
pub fn restore_file(machine: &dyn Machine, path: &str, before: &Before) -> Result<(), HostError> {
    match before {
        Before::File {
            content: Some(content),
            mode,
        } => machine.install(Path::new(path), content.bytes(), *mode),
        Before::Unit {
            content: Some(content),
            ..
        } => machine.install(Path::new(path), content.bytes(), 0o644),
        Before::Nothing
        | Before::File { content: None, .. }
        | Before::Unit { content: None, .. }
        | Before::HugePages { .. }
        | Before::Autoprobe { .. }
        | Before::Attributes { .. }
        | Before::Confinement { .. }
        | Before::Interrupts { .. }
        | Before::Threads { .. }
        | Before::Queues { .. }
        | Before::Vfs { .. }
        | Before::Vf { .. }
        | Before::Domain { .. }
        | Before::Autostart { .. }
        | Before::KernelCmdline { .. }
        | Before::NextEntry { .. }
        | Before::Guest { .. } => machine.remove(Path::new(path)),
    }
}

/// Takes a drop-in away, and its folder where that was all it held.
pub fn remove_drop_in(site: &Site<'_>, path: &str) -> Result<(), HostError> {
    site.machine.remove(Path::new(path))?;
    let Some((folder, _)) = path.rsplit_once('/') else {
        return Ok(());
    };
    let is_empty = |names: Vec<String>| names.is_empty();
    if folder.ends_with(".d") && site.machine.root().list(folder).is_ok_and(is_empty) {
        site.run("rmdir", [folder])?;
    }
    Ok(())
}

/// Keeps the plan on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePlan {
    /// The plan file's text.
    pub plan: String,
}

impl StorePlan {
    pub fn describe(&self) -> String {
        format!("keep the plan as `{PLAN}`")
    }

    pub fn describe_undo(&self) -> String {
        format!("remove `{PLAN}`")
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        observe_file(look, PLAN, &self.plan, 0o600)
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        // The plan that the server would go back to is kept beside before it is written over.
        if let Some(kept) = trial::plan_to_go_back_to(&site.look(), PLAN)? {
            let digest = |text: &str| Plan::parse(text).map(|plan| trial::digest(&plan));
            let same = matches!((digest(&kept), digest(&self.plan)), (Ok(a), Ok(b)) if a == b);
            if !same {
                site.machine
                    .install(Path::new(PLAN_BEFORE), kept.as_bytes(), 0o600)?;
            }
        }
        site.machine
            .install(Path::new(PLAN), self.plan.as_bytes(), 0o600)?;
        let look = site.look();
        // Its arguments are the confirmed ones: there is nothing to go back to.
        if look.machine.root().exists(PLAN_BEFORE)
            && trial::plan_to_go_back_to(&look, PLAN)?.is_some()
        {
            site.machine.remove(Path::new(PLAN_BEFORE))?;
        }
        Ok(())
    }

    pub fn undo(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.machine.remove(Path::new(PLAN_BEFORE))?;
        Ok(site.machine.remove(Path::new(PLAN))?)
    }
}

/// Puts a file in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallFile {
    /// Where.
    pub path: String,
    /// What.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

impl InstallFile {
    pub fn describe(&self) -> String {
        format!("write `{}`", self.path)
    }

    pub fn describe_undo(&self) -> String {
        format!("put `{}` back as it was", self.path)
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        observe_file(look, &self.path, &self.content, self.mode)
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        file_before(look, &self.path)
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        Ok(site
            .machine
            .install(Path::new(&self.path), self.content.as_bytes(), self.mode)?)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        Ok(restore_file(site.machine, &self.path, before)?)
    }
}

/// Puts a systemd unit in place and enables it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallUnit {
    /// `/etc/systemd/system/bmslice-host.service`.
    pub path: String,
    /// Its file.
    pub content: String,
}

impl InstallUnit {
    /// `bmslice-host.service`.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub fn describe(&self) -> String {
        format!("install and enable the unit `{}`", self.name())
    }

    pub fn describe_undo(&self) -> String {
        format!("disable and remove the unit `{}`", self.name())
    }

    pub fn precondition(&self, look: &Look<'_>) -> Vec<Problem> {
        if look.machine.has_program("systemctl") {
            return Vec::new();
        }
        vec![
            Problem::new("what a reboot takes away is brought back by systemd units, and there is no `systemctl` here")
                .hint("run bmslice on a host that systemd runs"),
        ]
    }

    fn enabled(&self, look: &Look<'_>) -> Result<bool, HostError> {
        // It exits with 1 for `disabled` and for a unit that is not there.
        match look.machine.run(&bmslice_host::Command::new(
            "systemctl",
            ["is-enabled", self.name()],
        )) {
            Ok(output) => Ok(output.stdout.trim() == "enabled"),
            Err(HostError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        match observe_file(look, &self.path, &self.content, 0o644)? {
            Observation::Held if !self.enabled(look)? => Ok(Observation::different(format!(
                "the unit `{}` is there and not enabled",
                self.name()
            ))),
            seen => Ok(seen),
        }
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let content = look.file(&self.path)?.map(Content::of);
        let enabled = content.is_some() && self.enabled(look)?;
        Ok(Before::Unit { content, enabled })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.machine
            .install(Path::new(&self.path), self.content.as_bytes(), 0o644)?;
        site.run("systemctl", ["daemon-reload"])?;
        site.run("systemctl", ["enable", self.name()])?;
        Ok(())
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let was_enabled = matches!(before, Before::Unit { enabled: true, .. });
        if !was_enabled && site.look().file(&self.path)?.is_some() {
            site.run("systemctl", ["disable", self.name()])?;
        }
        restore_file(site.machine, &self.path, before)?;
        site.run("systemctl", ["daemon-reload"])?;
        Ok(())
    }
}
