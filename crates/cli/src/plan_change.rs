//! What a plan changes of the one in force, in sentences.

use bmslice_model::CpuSet;
use bmslice_plan::{Plan, SlicePlan};

/// One line for each slice that comes, goes or changes, and for the host; none when both are alike.
pub(crate) fn changes(old: &Plan, new: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for slice in new.slices() {
        match old.slice(slice.name.as_str()) {
            None => lines.push(format!("{}: new", slice.name)),
            Some(before) => {
                let differences = slice_changes(before, slice);
                if !differences.is_empty() {
                    lines.push(format!("{}: {}", slice.name, differences.join("; ")));
                }
            }
        }
    }
    for slice in old.slices() {
        if new.slice(slice.name.as_str()).is_none() {
            lines.push(format!("{}: no longer wanted", slice.name));
        }
    }
    let (a, b) = (old.host(), new.host());
    let mut host = Vec::new();
    cpus("its CPUs", &a.cpus, &b.cpus, &mut host);
    cpus("isolated", &a.isolated, &b.isolated, &mut host);
    let args = |plan: &Plan| -> Vec<String> {
        plan.host()
            .kernel_args
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    changed(
        "kernel args",
        &args(old).join(" "),
        &args(new).join(" "),
        &mut host,
    );
    if a.huge_pages != b.huge_pages {
        host.push("other huge pages".into());
    }
    if a.split != b.split {
        host.push("other NICs split into VFs".into());
    }
    if !host.is_empty() {
        lines.push(format!("host: {}", host.join("; ")));
    }
    lines
}

fn slice_changes(a: &SlicePlan, b: &SlicePlan) -> Vec<String> {
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
        (
            a.disk != b.disk,
            "another disk (one that is there is kept as it is)",
        ),
        (
            a.guest != b.guest,
            "another set-up inside (only a new disk takes it)",
        ),
        (a.autostart != b.autostart, "autostart"),
        (a.machine != b.machine, "another machine type"),
    ] {
        if differs {
            all.push(what.into());
        }
    }
    if all.is_empty() && a != b {
        all.push("other details".into());
    }
    all
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

    #[test]
    fn a_plan_changes_nothing_of_itself() {
        assert_eq!(changes(&seed(), &seed()), Vec::<String>::new());
    }

    #[test]
    fn what_comes_goes_and_moves_is_said() {
        let new = edited(|parts| {
            let red = &mut parts.slices[0];
            red.name = "green".parse().unwrap();
            let blue = &mut parts.slices[1];
            blue.vcpus.swap(0, 1);
            blue.autostart = false;
            parts.host.kernel_args.clear();
        });
        let said = changes(&seed(), &new);
        assert_eq!(said[0], "green: new");
        assert_eq!(
            said[1],
            "Blue_k8s_cluster_worker1: vCPUs on 7,5,9,11,17,19,21,23 instead of \
             5,7,9,11,17,19,21,23; autostart"
        );
        assert_eq!(said[2], "Red_k8s_cluster_worker1: no longer wanted");
        assert!(said[3].starts_with("host: kernel args none instead of intel_iommu=on"));
    }
}
