//! Isolation without a reboot: everybody else confined by systemd, and the slices' CPUs a partition
//! of their own (Documentation/admin-guide/cgroup-v2.rst, “Cpuset”). ADR 0010.

use std::path::Path;
use std::time::Duration;

use bmslice_host::HostError;
use bmslice_model::CpuSet;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::files::{Content, observe_file, remove_drop_in};

const CGROUPS: &str = "/sys/fs/cgroup";
/// systemd writes to groups a moment after `daemon-reload` has answered.
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);

fn cpuset(group: &str, file: &str) -> String {
    format!("{CGROUPS}/{group}/cpuset.cpus{file}")
}

fn cpus_of(look: &Look<'_>, group: &str) -> Option<CpuSet> {
    let text = look.machine.root().attribute(cpuset(group, ""))?;
    text.parse().ok()
}

/// A file that systemd reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitFile {
    /// Where.
    pub path: String,
    /// What.
    pub content: String,
}

/// Has systemd confine everybody else to the host's CPUs, and know the slice of the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfineHost {
    /// The host's CPUs.
    pub cpus: CpuSet,
    /// Units and drop-ins.
    pub files: Vec<UnitFile>,
    /// The cgroups that are confined.
    pub groups: Vec<String>,
}

impl ConfineHost {
    pub fn describe(&self) -> String {
        format!("confine {} to CPUs {}", self.groups.join(", "), self.cpus)
    }

    pub fn describe_undo(&self) -> String {
        format!("let {} use all CPUs they had", self.groups.join(", "))
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let mut seen = Vec::new();
        for file in &self.files {
            seen.push(observe_file(look, &file.path, &file.content, 0o644)?);
        }
        if seen.iter().all(|one| *one == Observation::NotHeld) {
            return Ok(Observation::NotHeld);
        }
        if let Some(other) = seen.into_iter().find(|one| *one != Observation::Held) {
            return Ok(match other {
                Observation::NotHeld => Observation::different("only some of the files are there"),
                other => other,
            });
        }
        for group in &self.groups {
            // A slice that nothing was started in has no group yet; systemd limits it when it has.
            if !look.machine.root().exists(format!("{CGROUPS}/{group}")) {
                continue;
            }
            match cpus_of(look, group) {
                Some(cpus) if cpus == self.cpus => {}
                Some(cpus) => {
                    return Ok(Observation::different(format!(
                        "`{group}` may use CPUs {cpus}"
                    )));
                }
                None => {
                    return Ok(Observation::different(format!(
                        "`{group}` has no cpuset controller"
                    )));
                }
            }
        }
        Ok(Observation::Held)
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let mut files = Vec::new();
        for file in &self.files {
            files.push((file.path.clone(), look.file(&file.path)?.map(Content::of)));
        }
        let groups = self.groups.iter();
        Ok(Before::Confinement {
            files,
            groups: groups
                .map(|group| (group.clone(), cpus_of(look, group)))
                .collect(),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        for file in &self.files {
            site.machine
                .install(Path::new(&file.path), file.content.as_bytes(), 0o644)?;
        }
        site.run("systemctl", ["daemon-reload"])?;
        let begun = site.machine.now();
        while self.observe(&site.look())? != Observation::Held {
            let waited = site.machine.now().duration_since(begun).unwrap_or_default();
            if waited >= PATIENCE {
                break;
            }
            site.machine.sleep(PAUSE);
        }
        Ok(())
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Before::Confinement { files, groups } = before else {
            return Ok(());
        };
        for (path, content) in files {
            match content {
                Some(content) => site
                    .machine
                    .install(Path::new(path), content.bytes(), 0o644)?,
                None => remove_drop_in(site, path)?,
            }
        }
        // A file that a changed plan brought has no state from before the first.
        for file in &self.files {
            if !files.iter().any(|(path, _)| *path == file.path) {
                remove_drop_in(site, &file.path)?;
            }
        }
        site.run("systemctl", ["daemon-reload"])?;
        for group in &self.groups {
            let known = groups.iter().find(|(name, _)| name == group);
            let want = known.and_then(|(_, cpus)| cpus.clone()).unwrap_or_default();
            // systemd takes the controller away, or leaves the CPUs as they were (systemd#43846).
            if cpus_of(&site.look(), group).is_some_and(|cpus| cpus != want) {
                let path = cpuset(group, "");
                match site.write(&path, &want) {
                    Ok(()) => {}
                    Err(error) => match error.io_kind() {
                        Some(std::io::ErrorKind::NotFound) => {}
                        // A group with processes is never left without CPUs of its own, where it
                        // once had some (cpuset.c, validate_change()): all of them are the same.
                        Some(std::io::ErrorKind::StorageFull) if want.is_empty() => {
                            let online = "/sys/devices/system/cpu/online";
                            let all = site.machine.root().attribute(online);
                            site.write(&path, all.unwrap_or_default())?;
                        }
                        _ => return Err(error.into()),
                    },
                }
            }
        }
        Ok(())
    }
}

/// Makes the slices' CPUs a partition that the scheduler does not balance, and nobody else uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolatePartition {
    /// systemd's unit, and the cgroup below the mount: `bmslice.slice`.
    pub unit: String,
    /// The slices' CPUs.
    pub cpus: CpuSet,
}

impl IsolatePartition {
    pub fn describe(&self) -> String {
        format!(
            "make CPUs {} the isolated partition `{}`",
            self.cpus, self.unit
        )
    }

    pub fn describe_undo(&self) -> String {
        format!(
            "dissolve the partition `{}` of CPUs {}",
            self.unit, self.cpus
        )
    }

    fn state(&self, look: &Look<'_>) -> Option<String> {
        let root = look.machine.root();
        root.attribute(cpuset(&self.unit, ".partition"))
    }

    pub fn precondition(&self, look: &Look<'_>) -> Vec<Problem> {
        let root = look.machine.root();
        let controllers = root.attribute(format!("{CGROUPS}/cgroup.controllers"));
        let mut problems = Vec::new();
        if !controllers.is_some_and(|text| text.split(' ').any(|name| name == "cpuset")) {
            problems.push(
                Problem::server_lacks(format!(
                    "isolation without a reboot needs cgroup v2 with cpusets, and `{CGROUPS}/cgroup.controllers` names none"
                ))
                .hint("boot with `systemd.unified_cgroup_hierarchy=1`, or write `isolation: boot` in the spec"),
            );
        }
        let machined = ["/usr/lib/systemd", "/lib/systemd"];
        if !machined
            .iter()
            .any(|folder| root.exists(format!("{folder}/systemd-machined")))
        {
            problems.push(
                Problem::server_lacks(
                    "isolation without a reboot needs systemd-machined, by which libvirt puts guests into a slice of systemd's, and it is not here",
                )
                .hint("install `systemd-container`, and restart libvirt's daemon"),
            );
        }
        for name in look.running {
            problems.extend(self.outside(look, name));
        }
        problems
    }

    /// A guest's process, and whether it runs in the partition.
    fn dweller(&self, look: &Look<'_>, name: &str) -> Option<(String, bool)> {
        let root = look.machine.root();
        let pid = root.attribute(format!("/run/libvirt/qemu/{name}.pid"))?;
        let group = root.attribute(format!("/proc/{pid}/cgroup"))?;
        let inside = format!("::/{}/", self.unit);
        let is_inside = group.lines().any(|line| line.contains(&inside));
        Some((pid, is_inside))
    }

    /// Guests that run in the partition, which goes only when it is empty.
    pub fn inhabited(&self, look: &Look<'_>) -> Option<Problem> {
        let inside = |name: &&String| self.dweller(look, name).is_some_and(|(_, inside)| inside);
        let names: Vec<&str> = look
            .running
            .iter()
            .filter(inside)
            .map(String::as_str)
            .collect();
        if names.is_empty() {
            return None;
        }
        let shutdowns: Vec<String> = names
            .iter()
            .map(|name| format!("`virsh shutdown {name}`"))
            .collect();
        Some(
            Problem::new(format!(
                "the plan has no partition any more, and {} in the one that is in force",
                match names.as_slice() {
                    [one] => format!("`{one}` runs"),
                    many => format!("{} run", many.join(", ")),
                }
            ))
            .hint(format!(
                "a guest leaves it only by ending: {}, and apply again",
                shutdowns.join(", ")
            )),
        )
    }

    /// A guest with threads that may run nowhere but on these CPUs, and whose group is another: the
    /// partition would drive them onto the host's.
    fn outside(&self, look: &Look<'_>, name: &str) -> Option<Problem> {
        let root = look.machine.root();
        let (pid, inside) = self.dweller(look, name)?;
        if inside {
            return None;
        }
        let tasks = root.list(format!("/proc/{pid}/task")).unwrap_or_default();
        let pinned = tasks.iter().any(|tid| {
            let status = root.read_text(format!("/proc/{pid}/task/{tid}/status"));
            let status = status.unwrap_or_default();
            let list = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            list.and_then(|list| list.parse::<CpuSet>().ok())
                .is_some_and(|allowed| !allowed.is_empty() && allowed.is_subset(&self.cpus))
        });
        pinned.then(|| {
            Problem::new(format!(
                "the guest `{name}` runs on CPUs that become a partition, and outside of it: its threads would be driven onto the host's CPUs"
            ))
            .hint(format!("shut `{name}` down (`virsh shutdown {name}`), and apply again"))
        })
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let root = look.machine.root();
        Ok(match self.state(look).as_deref() {
            None | Some("member") => Observation::NotHeld,
            Some("isolated") => {
                let got: Option<CpuSet> = root
                    .attribute(cpuset(&self.unit, ".effective"))
                    .and_then(|list| list.parse().ok());
                match got {
                    Some(cpus) if cpus == self.cpus => Observation::Held,
                    Some(cpus) => Observation::different(format!("the partition has CPUs {cpus}")),
                    None => Observation::different("the partition tells no CPUs"),
                }
            }
            Some(other) => Observation::different(format!("the partition is `{other}`")),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let cpus = cpuset(&self.unit, "");
        if !site.machine.root().exists(&cpus) {
            site.run("systemctl", ["start", &self.unit])?;
        }
        let begun = site.machine.now();
        while !site.machine.root().exists(&cpus) {
            let waited = site.machine.now().duration_since(begun).unwrap_or_default();
            if waited >= PATIENCE {
                return Err(StepError::cannot(
                    format!("systemd made no group with cpusets of `{}`", self.unit),
                    "see `systemctl status bmslice.slice`; or write `isolation: boot` in the spec",
                ));
            }
            site.machine.sleep(PAUSE);
        }
        if cpus_of(&site.look(), &self.unit).as_ref() != Some(&self.cpus) {
            site.write(&cpus, &self.cpus)?;
        }
        let partition = cpuset(&self.unit, ".partition");
        if self.state(&site.look()).as_deref() != Some("isolated") {
            site.write(&partition, "isolated")?;
        }
        match self.state(&site.look()) {
            Some(state) if state.contains("invalid") => {
                let others = self.rivals(&site.look());
                site.write(&partition, "member")?;
                let whose = if others.is_empty() {
                    String::new()
                } else {
                    format!("; {}", others.join("; "))
                };
                Err(StepError::cannot(
                    format!(
                        "the kernel makes CPUs {} no partition: `{state}`{whose}",
                        self.cpus
                    ),
                    "free the CPUs of those groups, or write `isolation: boot` in the spec",
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Groups of others that were given some of these CPUs.
    fn rivals(&self, look: &Look<'_>) -> Vec<String> {
        let groups = look.machine.root().list(CGROUPS).unwrap_or_default();
        groups
            .iter()
            .filter(|group| **group != self.unit)
            .filter_map(|group| Some((group, cpus_of(look, group)?)))
            .filter(|(_, cpus)| !cpus.is_disjoint(&self.cpus))
            .map(|(group, cpus)| format!("the group `{group}` was given CPUs {cpus}"))
            .collect()
    }

    pub fn undo(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let folder = format!("{CGROUPS}/{}", self.unit);
        if !site.machine.root().exists(&folder) {
            return Ok(());
        }
        let events = site
            .machine
            .root()
            .read_text(format!("{folder}/cgroup.events"));
        if events.is_ok_and(|text| text.lines().any(|line| line == "populated 1")) {
            return Err(StepError::cannot(
                format!("something still runs in `{}`", self.unit),
                format!("see `systemd-cgls /{}`, and shut it down", self.unit),
            ));
        }
        if self
            .state(&site.look())
            .is_some_and(|state| state != "member")
        {
            site.write(&cpuset(&self.unit, ".partition"), "member")?;
        }
        site.run("systemctl", ["stop", &self.unit])?;
        Ok(())
    }
}
