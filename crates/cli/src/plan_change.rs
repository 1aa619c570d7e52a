//! What a plan changes of the one in force, and what that does to running guests.
//!
//! Takes two plans of one server; gives a line for each slice and one for the host, signed as users
//! of other planners know it: `+` comes, `~` is changed, `-` goes, `=` stays as it is. What a change
//! does to a running guest is what `apply` does: it defines the guest anew, never stops a running
//! one, and never touches a disk.

use bmslice_model::CpuSet;
use bmslice_plan::{Plan, SlicePlan};
use serde::Serialize;

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Sign {
    /// It comes.
    Added,
    /// It is changed.
    Changed,
    /// It goes.
    Removed,
    /// It stays as it is.
    Kept,
}

impl Sign {
    fn mark(self) -> char {
        match self {
            Self::Added => '+',
            Self::Changed => '~',
            Self::Removed => '-',
            Self::Kept => '=',
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    pub sign: Sign,
    /// The slice; nobody's is the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// What is different.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
    /// What that does to a guest that runs.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub guest: String,
    /// Whether the guest has to be restarted for it.
    pub restarts: bool,
}

impl Change {
    fn new(sign: Sign, slice: Option<&SlicePlan>) -> Self {
        Self {
            sign,
            slice: slice.map(|slice| slice.name.to_string()),
            what: Vec::new(),
            guest: String::new(),
            restarts: false,
        }
    }

    /// `~ red: vCPUs on 4,6 instead of 4,5 → …`.
    pub(crate) fn line(&self) -> String {
        let name = self.slice.as_deref().unwrap_or("host");
        let mut line = format!("{} {name}", self.sign.mark());
        if !self.what.is_empty() {
            line.push_str(": ");
            line.push_str(&self.what.join("; "));
        }
        if !self.guest.is_empty() {
            line.push_str(" → ");
            line.push_str(&self.guest);
        }
        line
    }
}

/// Whether nothing changes.
pub(crate) fn is_nothing(changes: &[Change]) -> bool {
    changes.iter().all(|change| change.sign == Sign::Kept)
}

/// All lines: the new plan's slices in their order, those that go, the host.
pub(crate) fn changes(old: Option<&Plan>, new: Option<&Plan>) -> Vec<Change> {
    let slices = |plan: Option<&Plan>| plan.map_or(Vec::new(), |plan| plan.slices().to_vec());
    let mut changes: Vec<Change> = slices(new)
        .iter()
        .map(|slice| {
            let was = old.and_then(|old| old.slice(slice.name.as_str()));
            was.map_or_else(
                || added(slice),
                |was| kept_or_changed(was, slice, &heirs(was, new)),
            )
        })
        .collect();
    for slice in slices(old) {
        if new.is_none_or(|new| new.slice(slice.name.as_str()).is_none()) {
            let mut change = Change::new(Sign::Removed, Some(&slice));
            change.what.push("no longer wanted here".into());
            let heirs = heirs(&slice, new);
            change.guest = if heirs.is_empty() {
                format!("runs on until `bmslice release {}`", slice.name)
            } else {
                format!(
                    "`bmslice release {}` before the plan is applied: {heirs} its CPUs",
                    slice.name
                )
            };
            changes.push(change);
        }
    }
    if let (Some(old), Some(new)) = (old, new) {
        let host = host(old, new);
        if host.as_ref().is_some_and(|host| host.restarts) {
            let there = changes.iter_mut();
            for change in there.filter(|c| matches!(c.sign, Sign::Kept | Sign::Changed)) {
                change.restarts = true;
                change.guest = "restarts with the server".into();
            }
        }
        changes.extend(host);
    }
    changes
}

/// Who gets CPUs that a slice had, as ``\`red\` gets``: while both run they would share them.
fn heirs(had: &SlicePlan, new: Option<&Plan>) -> String {
    let slices = new.map_or(&[][..], |new| new.slices());
    // A sibling that it lends now ran nothing before.
    let stays = new.and_then(|new| new.slice(had.name.as_str()));
    let lent = stays.map_or_else(CpuSet::new, |slice| slice.shared_siblings.clone());
    let had_cpus = had.held().difference(&lent.intersection(&had.idle));
    let names: Vec<String> = slices
        .iter()
        .filter(|slice| slice.name != had.name)
        .filter(|slice| !slice.owned().is_disjoint(&had_cpus))
        .map(|slice| format!("`{}`", slice.name))
        .collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!("{one} gets"),
        more => format!("{} get", more.join(", ")),
    }
}

fn added(slice: &SlicePlan) -> Change {
    let mut change = Change::new(Sign::Added, Some(slice));
    change.guest = if slice.autostart {
        "made and started, and starts with the host".into()
    } else {
        "made and started".into()
    };
    change
}

fn kept_or_changed(was: &SlicePlan, slice: &SlicePlan, heirs: &str) -> Change {
    // A sibling that is lent, or is back, is nothing to the guest.
    let was = &SlicePlan {
        idle: slice.idle.clone(),
        shared_siblings: slice.shared_siblings.clone(),
        ..was.clone()
    };
    let (restarting, others) = slice_changes(was, slice);
    if restarting.is_empty() && others.is_empty() {
        return Change::new(Sign::Kept, Some(slice));
    }
    let mut change = Change::new(Sign::Changed, Some(slice));
    change.restarts = !restarting.is_empty();
    change.guest = if !heirs.is_empty() {
        format!("shut it down before the plan is applied: {heirs} its CPUs")
    } else if change.restarts {
        "runs on as it was until it is restarted".into()
    } else {
        "runs on".into()
    };
    change.what = [restarting, others].concat();
    change
}

fn host(a: &Plan, b: &Plan) -> Option<Change> {
    let (a, b) = (a.host(), b.host());
    let mut change = Change::new(Sign::Changed, None);
    let what = &mut change.what;
    cpus("its CPUs", &a.cpus, &b.cpus, what);
    cpus("isolated", &a.isolated, &b.isolated, what);
    let args = |args: &[bmslice_model::KernelArg]| -> String {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        args.join(" ")
    };
    let (before, now) = (args(&a.kernel_args), args(&b.kernel_args));
    changed("kernel args", &before, &now, what);
    if a.huge_pages != b.huge_pages {
        what.push("other huge pages".into());
    }
    if a.split != b.split {
        what.push("other NICs split into VFs".into());
    }
    if a.queues != b.queues {
        what.push("other queues of NICs".into());
    }
    if what.is_empty() {
        return None;
    }
    if before != now {
        change.guest = "the server reboots, and all of its guests with it".into();
        change.restarts = true;
    }
    Some(change)
}

/// What needs a restart of the guest, and what does not.
fn slice_changes(a: &SlicePlan, b: &SlicePlan) -> (Vec<String>, Vec<String>) {
    let mut all = Vec::new();
    let pins = |slice: &SlicePlan| {
        let pins: Vec<String> = slice.vcpus.iter().map(ToString::to_string).collect();
        pins.join(",")
    };
    changed("vCPUs on", &pins(a), &pins(b), &mut all);
    cpus("emulator on", &a.emulator, &b.emulator, &mut all);
    changed(
        "memory",
        &a.memory.to_string(),
        &b.memory.to_string(),
        &mut all,
    );
    let page = |slice: &SlicePlan| {
        slice
            .huge_pages
            .map_or_else(|| "plain".into(), |page| page.to_string())
    };
    changed("pages", &page(a), &page(b), &mut all);
    for (differs, what) in [
        (a.tenant != b.tenant, "another tenant"),
        (a.iothreads != b.iothreads, "other IOThreads"),
        (a.cells != b.cells, "other guest NUMA cells"),
        (a.nics != b.nics, "other NICs"),
        (a.machine != b.machine, "another machine type"),
    ] {
        if differs {
            all.push(what.into());
        }
    }
    let mut others = Vec::new();
    for (differs, what) in [
        (
            a.disk != b.disk,
            "another disk (one that is there is kept as it is)",
        ),
        (
            a.guest != b.guest,
            "another set-up inside (only a new disk takes it)",
        ),
        (a.autostart != b.autostart, "autostart"),
        (
            a.up_within_seconds != b.up_within_seconds,
            "the time to come up",
        ),
    ] {
        if differs {
            others.push(what.into());
        }
    }
    if all.is_empty() && others.is_empty() && a != b {
        all.push("other details".into());
    }
    (all, others)
}

fn cpus(what: &str, a: &CpuSet, b: &CpuSet, all: &mut Vec<String>) {
    changed(what, &a.to_string(), &b.to_string(), all);
}

fn changed(what: &str, a: &str, b: &str, all: &mut Vec<String>) {
    let shown = |text: &str| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text.to_owned()
        }
    };
    if a != b {
        all.push(format!("{what} {} instead of {}", shown(b), shown(a)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmslice_plan::PlanParts;

    fn seed() -> Plan {
        Plan::parse(include_str!("../../../examples/seed/plan.json")).unwrap()
    }

    fn edited(edit: impl FnOnce(&mut PlanParts)) -> Plan {
        let mut parts = seed().into_parts();
        edit(&mut parts);
        Plan::new(parts).unwrap()
    }

    fn lines(new: &Plan) -> Vec<String> {
        let changes = changes(Some(&seed()), Some(new));
        changes.iter().map(Change::line).collect()
    }

    #[test]
    fn a_plan_changes_nothing_of_itself() {
        let changes = changes(Some(&seed()), Some(&seed()));
        assert!(is_nothing(&changes));
        assert_eq!(
            lines(&seed()),
            ["= Red_k8s_cluster_worker1", "= Blue_k8s_cluster_worker1"]
        );
    }

    #[test]
    fn what_comes_goes_and_moves_is_said_with_what_it_does_to_the_guest() {
        let new = edited(|parts| {
            let red = &mut parts.slices[0];
            red.name = "green".parse().unwrap();
            let blue = &mut parts.slices[1];
            blue.vcpus.swap(0, 1);
            blue.autostart = false;
            parts.host.kernel_args.clear();
        });
        let said = lines(&new);
        assert_eq!(
            said[0],
            "+ green → made and started, and starts with the host"
        );
        assert_eq!(
            said[1],
            "~ Blue_k8s_cluster_worker1: vCPUs on 7,5,9,11,17,19,21,23 instead of \
             5,7,9,11,17,19,21,23; autostart → restarts with the server"
        );
        assert_eq!(
            said[2],
            "- Red_k8s_cluster_worker1: no longer wanted here → `bmslice release \
             Red_k8s_cluster_worker1` before the plan is applied: `green` gets its CPUs"
        );
        assert!(said[3].starts_with("~ host: kernel args none instead of intel_iommu=on"));
        assert!(said[3].ends_with("→ the server reboots, and all of its guests with it"));
    }

    #[test]
    fn a_sibling_that_is_lent_touches_nobody() {
        // Of three vCPUs each, the last beside an idle sibling; then a third slice has red's.
        let odd = |parts: &mut PlanParts| {
            for slice in &mut parts.slices {
                let last = slice.vcpus.split_off(7);
                slice.idle = last.into_iter().collect();
                slice.cells[0].vcpus = "0-6".parse().unwrap();
            }
        };
        let old = edited(odd);
        let new = edited(|parts| {
            odd(parts);
            let mut third = parts.slices[0].clone();
            third.name = "third".parse().unwrap();
            third.nics.clear();
            third.vcpus = parts.slices[0].idle.iter().collect();
            third.cells[0].vcpus = "0".parse().unwrap();
            (third.pool_is_host, third.idle) = (true, CpuSet::new());
            (third.emulator, third.iothreads) = (parts.host.cpus.clone(), Vec::new());
            let red = &mut parts.slices[0];
            red.shared_siblings = std::mem::take(&mut red.idle);
            third.shared_siblings = red.vcpus[6].into();
            red.autostart = false;
            parts.slices.push(third);
        });
        let changes = changes(Some(&old), Some(&new));
        let said: Vec<String> = changes.iter().map(Change::line).collect();
        assert_eq!(said[0], "~ Red_k8s_cluster_worker1: autostart → runs on");
        assert_eq!(said[1], "= Blue_k8s_cluster_worker1");
        assert!(said[2].starts_with("+ third"));
        // And it is back when the third leaves; who stays keeps what it has.
        let back = super::changes(Some(&new), Some(&old));
        assert!(back[0].line().ends_with("autostart → runs on"));
        assert_eq!(
            back[2].line(),
            "- third: no longer wanted here → `bmslice release third` before the plan is applied: `Red_k8s_cluster_worker1` gets its CPUs"
        );
    }

    #[test]
    fn what_the_guest_does_not_see_restarts_nothing() {
        let new = edited(|parts| parts.slices[0].autostart = false);
        let changes = changes(Some(&seed()), Some(&new));
        assert_eq!(
            changes[0].line(),
            "~ Red_k8s_cluster_worker1: autostart → runs on"
        );
        assert!(!changes[0].restarts);
    }
}
