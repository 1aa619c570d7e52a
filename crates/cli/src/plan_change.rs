//! What a plan changes of the one in force, and what that does to running guests.
//!
//! Takes two plans of one server; gives a line for each slice and one for the host, signed as users
//! of other planners know it: `+` comes, `~` is changed, `-` goes, `=` stays as it is. What a change
//! does to a running guest is what `apply` does: it defines the guest anew, never stops a running
//! one, and never touches a disk.

use bmslice_model::CpuSet;
use bmslice_plan::{NicPlan, Plan, SlicePlan};
use serde::Serialize;

use crate::plan_difference;

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
                    "`bmslice release {}` before the plan is applied: {heirs}",
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

/// Who gets CPUs or NICs that a slice had, and which, as ``\`red\` gets its CPUs``: while both run
/// they would share them.
fn heirs(had: &SlicePlan, new: Option<&Plan>) -> String {
    let slices = new.map_or(&[][..], |new| new.slices());
    // A sibling that it lends now ran nothing before.
    let stays = new.and_then(|new| new.slice(had.name.as_str()));
    let lent = stays.map_or_else(CpuSet::new, |slice| slice.shared_siblings.clone());
    let had_cpus = had.held().difference(&lent.intersection(&had.idle));
    let had_nics: Vec<_> = had.nics.iter().flat_map(NicPlan::functions).collect();
    let gets = |slice: &SlicePlan| {
        let cpus = !slice.owned().is_disjoint(&had_cpus);
        let mut functions = slice.nics.iter().flat_map(NicPlan::functions);
        (cpus, functions.any(|function| had_nics.contains(&function)))
    };
    let others = slices.iter().filter(|slice| slice.name != had.name);
    let all: Vec<(String, (bool, bool))> = others
        .map(|slice| (format!("`{}`", slice.name), gets(slice)))
        .filter(|(_, (cpus, nics))| *cpus || *nics)
        .collect();
    let what = match (
        all.iter().any(|(_, (cpus, _))| *cpus),
        all.iter().any(|(_, (_, nics))| *nics),
    ) {
        (true, true) => "CPUs and NICs",
        (false, true) => "NICs",
        (_, false) => "CPUs",
    };
    let names: Vec<String> = all.into_iter().map(|(name, _)| name).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!("{one} gets its {what}"),
        more => format!("{} get its {what}", more.join(", ")),
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
    let (restarting, others) = plan_difference::of_slice(was, slice);
    if restarting.is_empty() && others.is_empty() {
        return Change::new(Sign::Kept, Some(slice));
    }
    let mut change = Change::new(Sign::Changed, Some(slice));
    change.restarts = !restarting.is_empty();
    change.guest = if !heirs.is_empty() {
        format!("shut it down before the plan is applied: {heirs}")
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
    let what = plan_difference::of_host(a, b);
    if what.is_empty() {
        return None;
    }
    let mut change = Change::new(Sign::Changed, None);
    change.what = what;
    if a.kernel_args != b.kernel_args {
        change.guest = "the server reboots, and all of its guests with it".into();
        change.restarts = true;
    }
    Some(change)
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
             5,7,9,11,17,19,21,23; autostart off → restarts with the server"
        );
        assert_eq!(
            said[2],
            "- Red_k8s_cluster_worker1: no longer wanted here → `bmslice release \
             Red_k8s_cluster_worker1` before the plan is applied: `green` gets its CPUs and NICs"
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
        assert_eq!(
            said[0],
            "~ Red_k8s_cluster_worker1: autostart off → runs on"
        );
        assert_eq!(said[1], "= Blue_k8s_cluster_worker1");
        assert!(said[2].starts_with("+ third"));
        // And it is back when the third leaves; who stays keeps what it has.
        let back = super::changes(Some(&new), Some(&old));
        assert!(back[0].line().ends_with("autostart on → runs on"));
        assert_eq!(
            back[2].line(),
            "- third: no longer wanted here → `bmslice release third` before the plan is applied: `Red_k8s_cluster_worker1` gets its CPUs"
        );
    }

    #[test]
    fn who_gets_a_nic_of_one_that_still_runs_is_said() {
        let new = edited(|parts| {
            let red = parts.slices.remove(0);
            parts.slices[0].nics = red.nics;
        });
        assert_eq!(
            lines(&new)[1],
            "- Red_k8s_cluster_worker1: no longer wanted here → `bmslice release \
             Red_k8s_cluster_worker1` before the plan is applied: `Blue_k8s_cluster_worker1` gets its NICs"
        );
    }

    #[test]
    fn what_changes_is_said_with_both_values() {
        let new = edited(|parts| {
            let [red, blue] = &mut parts.slices[..] else {
                panic!("two slices")
            };
            red.memory = bmslice_model::ByteSize::from_gib(9);
            red.cells[0].memory = red.memory;
            std::mem::swap(&mut red.nics, &mut blue.nics);
            red.iothreads.push(red.emulator.clone());
            blue.nics.clear();
            blue.disk.size = bmslice_model::ByteSize::from_gib(200);
            parts.host.settings.ksm = Some(false);
        });
        let said = lines(&new);
        assert_eq!(
            said[0],
            "~ Red_k8s_cluster_worker1: 2 IOThreads instead of 1 IOThread; memory 9GiB instead of 8GiB; NIC 0: the whole of 0000:01:00.1 (eno2) instead of the whole of 0000:01:00.0 (eno1); NIC 0's MAC bc:30:5b:f2:87:50 instead of bc:30:5b:f2:87:52; the fabric should show something else of NIC 0 → runs on as it was until it is restarted"
        );
        assert_eq!(
            said[1],
            "~ Blue_k8s_cluster_worker1: NIC 0 goes: the whole of 0000:01:00.1 (eno2); disk size 200GiB instead of 100GiB (a disk that is there is kept as it is) → shut it down before the plan is applied: `Red_k8s_cluster_worker1` gets its NICs"
        );
        assert_eq!(said[2], "~ host: ksm off instead of as it is");
    }

    #[test]
    fn what_the_guest_does_not_see_restarts_nothing() {
        let new = edited(|parts| parts.slices[0].autostart = false);
        let changes = changes(Some(&seed()), Some(&new));
        assert_eq!(
            changes[0].line(),
            "~ Red_k8s_cluster_worker1: autostart off → runs on"
        );
        assert!(!changes[0].restarts);
    }
}
