//! The host: boot arguments, isolated CPUs, huge pages, virtual functions, quiet.

use bmslice_model::{CpuSet, KernelArg};
use bmslice_spec::Isolation;

use super::or_satisfied;
use crate::checks::HostView;
use crate::report::{Seen, Verdict};

/// Arguments that are meant to be repeated: a second one adds and does not override.
const REPEATABLE: [&str; 4] = ["hugepagesz", "hugepages", "console", "earlycon"];

pub(crate) fn kernel_arguments(view: &HostView) -> Seen<Vec<Verdict>> {
    let wanted = &view.plan.host().kernel_args;
    let cmdline = &view.observed.inventory.boot.cmdline;
    let mut verdicts = Vec::new();
    for arg in wanted {
        let what = || format!("the kernel argument `{}`", arg.key());
        let last = cmdline.last(arg.key());
        // Of a key that the plan itself repeats, the last one is one of several.
        let overriding = last.filter(|last| {
            !REPEATABLE.iter().any(|key| arg.is(key))
                && !wanted
                    .iter()
                    .any(|other| other.is(last.key()) && other.value() == last.value())
        });
        if !cmdline.contains(arg) {
            let got = last.map_or("not there", KernelArg::as_str);
            verdicts.push(Verdict::differs(what(), arg, got));
        } else if let Some(last) = overriding {
            let got = format!("{arg}, overridden by a later {last}");
            verdicts.push(Verdict::differs(what(), arg, got));
        }
    }
    Ok(or_satisfied(verdicts, || {
        if wanted.is_empty() {
            return "the plan needs no kernel argument".into();
        }
        let args: Vec<&str> = wanted.iter().map(KernelArg::as_str).collect();
        format!("the kernel runs with `{}`", args.join(" "))
    }))
}

pub(crate) fn isolated_cpus(view: &HostView) -> Seen<Vec<Verdict>> {
    let want = &view.plan.host().isolated;
    let booted = &view.observed.inventory.boot.isolated;
    let (what, got) = match view.plan.host().isolation {
        Isolation::None => return Ok(Vec::new()),
        Isolation::Boot => ("the CPUs isolated at boot", booted.clone()),
        Isolation::Dynamic => (
            "the CPUs in isolated partitions or isolated at boot",
            booted.union(&view.observed.partitioned),
        ),
    };
    Ok(vec![if got == *want {
        Verdict::satisfied(format!("{what} are {want}"))
    } else {
        Verdict::differs(what, list(want), list(&got))
    }])
}

pub(crate) fn huge_pages(view: &HostView) -> Seen<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for pages in &view.plan.host().huge_pages {
        let node = pages.node;
        let what = format!("huge pages of {} on node {node}", pages.size);
        let pool = view
            .observed
            .inventory
            .nodes
            .iter()
            .find(|known| known.id == node)
            .and_then(|known| known.huge_pages.iter().find(|pool| pool.size == pages.size));
        verdicts.push(match pool {
            Some(pool) if pool.total >= pages.count => Verdict::satisfied(format!(
                "{what}: {} are there, {} are planned",
                pool.total, pages.count
            )),
            Some(pool) => Verdict::differs(what, format!("at least {}", pages.count), pool.total),
            None => Verdict::differs(
                what,
                format!("at least {}", pages.count),
                "no such node or page size",
            ),
        });
    }
    Ok(verdicts)
}

pub(crate) fn virtual_functions(view: &HostView) -> Seen<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for split in &view.plan.host().split {
        let address = split.device.address;
        let what = format!("virtual functions of {address}");
        let sriov = view
            .observed
            .inventory
            .pci
            .iter()
            .find(|function| function.address == address)
            .and_then(|function| function.sriov.as_ref());
        verdicts.push(match sriov {
            Some(sriov) if sriov.current >= split.vfs => {
                Verdict::satisfied(format!("{what}: {} exist", sriov.current))
            }
            Some(sriov) => Verdict::differs(what, format!("at least {}", split.vfs), sriov.current),
            None => Verdict::differs(
                what,
                format!("at least {}", split.vfs),
                "no such device with SR-IOV",
            ),
        });
    }
    Ok(verdicts)
}

pub(crate) fn quiet_cpus(view: &HostView) -> Seen<Vec<Verdict>> {
    let strangers = view.observed.strangers.as_ref().map_err(Clone::clone)?;
    // With pins alone nobody promised quiet.
    if view.plan.host().isolation == Isolation::None {
        return Ok(Vec::new());
    }
    let mut verdicts = Vec::new();
    for stranger in strangers {
        let task = &stranger.task;
        let cpu = task
            .last_cpu
            .map_or_else(String::new, |cpu| cpu.to_string());
        let owner = view
            .plan
            .slices()
            .iter()
            .find(|slice| task.last_cpu.is_some_and(|cpu| slice.held().contains(cpu)))
            .map_or_else(String::new, |slice| slice.name.to_string());
        verdicts.push(Verdict::differs(
            format!(
                "process {} (`{}`, thread {})",
                stranger.pid, task.comm, task.tid
            ),
            format!("not on the CPUs of slice `{owner}`"),
            format!("last ran on CPU {cpu}, allowed {}", list(&task.allowed)),
        ));
    }
    Ok(or_satisfied(verdicts, || {
        "no other process last ran on a CPU of a slice".into()
    }))
}

fn list(cpus: &CpuSet) -> String {
    if cpus.is_empty() {
        "none".into()
    } else {
        cpus.to_string()
    }
}
