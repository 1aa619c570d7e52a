//! Control groups, as systemd and the kernel keep them (cgroup v2).
//!
//! Takes `AllowedCPUs=` of unit files, scopes of guests and what is written to `cpuset.cpus` and
//! `cpuset.cpus.partition`; gives the files of `/sys/fs/cgroup`. Keeps true: a group has cpuset files
//! only while systemd hands the controller down, `AllowedCPUs=` taken back leaves the CPUs of a live
//! group as they are (systemd#43846), a partition that cannot be one says why and *no* write fails
//! for it, a group with processes is not left without CPUs that it was given (ENOSPC), and CPUs of a valid one are nobody else's. (Documentation/admin-guide/cgroup-v2.rst)

use std::collections::BTreeMap;

use bmslice_model::CpuSet;
use rustix::io::Errno;

use super::world::World;

const ROOT: &str = "/sys/fs/cgroup";
const FILES: [&str; 3] = [
    "cpuset.cpus",
    "cpuset.cpus.effective",
    "cpuset.cpus.partition",
];

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// `cpuset.cpus`.
    pub cpus: CpuSet,
    /// What was asked of `cpuset.cpus.partition`: `isolated`, `root`, or nothing.
    pub partition: Option<String>,
}

/// All of them, by path below the mount.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    groups: BTreeMap<String, Group>,
    /// Whether systemd hands cpusets down.
    cpuset: bool,
}

fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

impl World {
    /// What systemd makes at boot.
    pub fn boot_cgroups(&mut self) {
        self.cgroups = Groups::default();
        for name in ["init.scope", "system.slice", "user.slice", "machine.slice"] {
            self.cgroups.groups.insert(name.into(), Group::default());
        }
        self.tree.show(
            format!("{ROOT}/cgroup.controllers"),
            "cpuset cpu io memory pids",
        );
        self.reload_units();
    }

    /// `AllowedCPUs=` of a unit, its drop-ins read after it.
    fn allowed_cpus(&self, unit: &str) -> Option<CpuSet> {
        let dir = "/etc/systemd/system";
        let drop_ins = format!("{dir}/{unit}.d");
        let mut files = vec![format!("{dir}/{unit}")];
        for name in self.tree.list(&drop_ins) {
            if name.ends_with(".conf") {
                files.push(format!("{drop_ins}/{name}"));
            }
        }
        files
            .iter()
            .filter_map(|path| self.tree.read(path).ok())
            .flat_map(|text| {
                let values = text.lines().filter_map(|l| l.strip_prefix("AllowedCPUs="));
                values.map(str::to_owned).collect::<Vec<_>>()
            })
            .filter_map(|value| value.parse::<CpuSet>().ok())
            .rfind(|cpus| !cpus.is_empty())
    }

    /// `daemon-reload`, and whatever else makes systemd realize its groups.
    pub fn reload_units(&mut self) {
        let names: Vec<String> = self.cgroups.groups.keys().cloned().collect();
        let has_scope = names.iter().any(|name| name.contains('/'));
        let mut asked = Vec::new();
        for name in names.iter().filter(|name| !name.contains('/')) {
            asked.extend(self.allowed_cpus(name).map(|cpus| (name.clone(), cpus)));
        }
        self.cgroups.cpuset = has_scope || !asked.is_empty();
        if self.cgroups.cpuset {
            for (name, cpus) in asked {
                if let Some(group) = self.cgroups.groups.get_mut(&name) {
                    group.cpus = cpus;
                }
            }
        } else {
            for group in self.cgroups.groups.values_mut() {
                *group = Group::default();
            }
        }
        self.mirror_cgroups();
    }

    /// `systemctl start` and `stop` of a slice.
    pub fn run_slice(&mut self, unit: &str, on: bool) {
        if on {
            self.cgroups.groups.entry(unit.into()).or_default();
        } else {
            let inside = format!("{unit}/");
            self.cgroups
                .groups
                .retain(|name, _| name != unit && !name.starts_with(&inside));
            self.tree.remove(format!("{ROOT}/{unit}"));
        }
        self.reload_units();
    }

    /// The scope of a guest that starts, in the slice of its `<partition>`.
    pub fn open_scope(&mut self, scope: &str) {
        let slice = top(scope).to_owned();
        self.cgroups.groups.entry(slice).or_default();
        self.cgroups.groups.insert(scope.into(), Group::default());
        self.reload_units();
    }

    /// The guest has ended.
    pub fn close_scope(&mut self, scope: &str) {
        self.cgroups.groups.remove(scope);
        self.tree.remove(format!("{ROOT}/{scope}"));
        self.reload_units();
    }

    /// Why a group that wants to be a partition is none.
    fn invalid(&self, name: &str) -> Option<&'static str> {
        let group = self.cgroups.groups.get(name)?;
        let overlaps = |(other, sibling): (&String, &Group)| {
            other != name && !other.contains('/') && !sibling.cpus.is_disjoint(&group.cpus)
        };
        if name.contains('/') && self.state_of(top(name)) == "member" {
            Some("Parent is not a partition root")
        } else if group.cpus.is_empty() {
            Some("cpuset.cpus and cpuset.cpus.exclusive are empty")
        } else if self.cgroups.groups.iter().any(overlaps) {
            Some("Cpu list in cpuset.cpus not exclusive")
        } else if self.all_cpus().is_subset(&group.cpus) {
            Some("Parent unable to distribute cpu downstream")
        } else {
            None
        }
    }

    /// `cpuset.cpus.partition` as it reads.
    fn state_of(&self, name: &str) -> String {
        let wanted = self
            .cgroups
            .groups
            .get(name)
            .and_then(|g| g.partition.clone());
        match (wanted, self.invalid(name)) {
            (None, _) => "member".into(),
            (Some(kind), None) => kind,
            (Some(kind), Some(why)) => format!("{kind} invalid ({why})"),
        }
    }

    /// The CPUs of valid isolated partitions.
    pub fn partitioned(&self) -> CpuSet {
        let names = self.cgroups.groups.keys();
        names
            .filter(|name| !name.contains('/') && self.state_of(name) == "isolated")
            .fold(CpuSet::new(), |all, name| {
                all.union(&self.cgroups.groups[name].cpus)
            })
    }

    /// `cpuset.cpus.effective` of a group.
    pub fn effective(&self, name: &str) -> CpuSet {
        let Some(group) = self.cgroups.groups.get(name) else {
            return self.all_cpus().difference(&self.partitioned());
        };
        let state = self.state_of(name);
        if state == "isolated" || state == "root" {
            return group.cpus.clone();
        }
        let parent = match name.rsplit_once('/') {
            Some((parent, _)) => self.effective(parent),
            None => self.all_cpus().difference(&self.partitioned()),
        };
        let own = group.cpus.intersection(&parent);
        if own.is_empty() { parent } else { own }
    }

    /// Writes every group where the kernel shows it, and has the kernel follow.
    fn mirror_cgroups(&mut self) {
        let (cpuset, others) = (self.cgroups.cpuset, "cpu io memory pids");
        let handed = if cpuset { "cpuset " } else { "" };
        self.tree.knob(
            format!("{ROOT}/cgroup.subtree_control"),
            format!("{handed}{others}"),
        );
        let free = self.all_cpus().difference(&self.partitioned());
        self.tree
            .show(format!("{ROOT}/cpuset.cpus.effective"), free);
        self.tree
            .show(format!("{ROOT}/cpuset.cpus.isolated"), self.partitioned());
        for (name, group) in &self.cgroups.groups {
            let at = format!("{ROOT}/{name}");
            self.tree.dir(&at);
            let inside = format!("{name}/");
            let populated = name.contains('/')
                || !matches!(top(name), "machine.slice" | "bmslice.slice")
                || self.cgroups.groups.keys().any(|n| n.starts_with(&inside));
            self.tree.show(
                format!("{at}/cgroup.events"),
                format!("populated {}\nfrozen 0", u8::from(populated)),
            );
            if !cpuset {
                for file in FILES {
                    self.tree.remove(format!("{at}/{file}"));
                }
                continue;
            }
            self.tree.knob(format!("{at}/cpuset.cpus"), &group.cpus);
            self.tree
                .show(format!("{at}/cpuset.cpus.effective"), self.effective(name));
            self.tree
                .knob(format!("{at}/cpuset.cpus.partition"), self.state_of(name));
        }
        self.follow_partitions();
    }

    /// A write to `cpuset.cpus` or `cpuset.cpus.partition`.
    pub fn write_cpuset(&mut self, group: &str, file: &str, value: &str) -> Result<(), Errno> {
        let value = value.trim();
        let all = self.all_cpus();
        let Some(known) = self.cgroups.groups.get_mut(group) else {
            return Err(Errno::NODEV);
        };
        if file == "cpuset.cpus" {
            let cpus: CpuSet = value.parse().map_err(|_| Errno::INVAL)?;
            if !cpus.is_subset(&all) {
                return Err(Errno::INVAL);
            }
            let is_populated = !matches!(group, "machine.slice" | "bmslice.slice");
            if cpus.is_empty() && !known.cpus.is_empty() && is_populated {
                return Err(Errno::NOSPC);
            }
            known.cpus = cpus;
        } else {
            known.partition = match value {
                "member" => None,
                "root" | "isolated" => Some(value.to_owned()),
                _ => return Err(Errno::INVAL),
            };
        }
        self.mirror_cgroups();
        Ok(())
    }

    /// Groups whose CPUs somebody set.
    pub fn cgroup_state(&self) -> Vec<(String, String)> {
        let groups = self.cgroups.groups.iter();
        groups
            .filter(|(name, _)| !name.contains('/'))
            .map(|(name, group)| {
                let state = self.state_of(name);
                (
                    format!("cgroup {name}"),
                    format!("cpus `{}`, {state}", group.cpus),
                )
            })
            .collect()
    }
}
