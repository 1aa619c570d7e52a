//! What is different between two plans' shares of one thing, a phrase each: `memory 2GiB instead of
//! 1GiB`.
//!
//! Takes a slice, or the host, as it was and as it is to be; gives phrases with both values, apart by
//! whether a guest has to restart for them. Keeps true: two that differ have a phrase.

use std::fmt::Debug;

use bmslice_model::CpuSet;
use bmslice_plan::{HostPlan, NicPlan, SlicePlan};

use crate::plan_page::device;
use crate::tables::count;

/// Of a slice: what needs a restart of its guest, and what does not.
pub(crate) fn of_slice(a: &SlicePlan, b: &SlicePlan) -> (Vec<String>, Vec<String>) {
    let mut all = Vec::new();
    nodes(a, b, &mut all);
    let pins = |slice: &SlicePlan| {
        let pins: Vec<String> = slice.vcpus.iter().map(ToString::to_string).collect();
        pins.join(",")
    };
    changed("vCPUs on", &pins(a), &pins(b), &mut all);
    pools(a, b, &mut all);
    let memory = |slice: &SlicePlan| slice.memory.to_string();
    changed("memory", &memory(a), &memory(b), &mut all);
    let page = |slice: &SlicePlan| {
        slice
            .huge_pages
            .map_or_else(|| "plain".into(), |page| page.to_string())
    };
    changed("pages", &page(a), &page(b), &mut all);
    changed("tenant", a.tenant.as_str(), b.tenant.as_str(), &mut all);
    changed("machine", &word(&a.machine), &word(&b.machine), &mut all);
    changed("smt", &word(&a.smt), &word(&b.smt), &mut all);
    let threads = |slice: &SlicePlan| slice.topology.threads.to_string();
    changed("threads of a core", &threads(a), &threads(b), &mut all);
    let partition = |slice: &SlicePlan| slice.partition.clone().unwrap_or("libvirt's own".into());
    changed("partition", &partition(a), &partition(b), &mut all);
    let mut others = Vec::new();
    nics(a, b, &mut all, &mut others);
    disk(a, b, &mut others);
    if a.guest != b.guest {
        others.push("another set-up inside (only a new disk takes it)".into());
    }
    if a.autostart != b.autostart {
        others.push(format!("autostart {}", on(b.autostart)));
    }
    let time = |slice: &SlicePlan| format!("{} s", slice.up_within_seconds);
    changed("time to come up", &time(a), &time(b), &mut others);
    if all.is_empty() && others.is_empty() && a != b {
        all.push("other details".into());
    }
    (all, others)
}

/// Of the host.
pub(crate) fn of_host(a: &HostPlan, b: &HostPlan) -> Vec<String> {
    let mut all = Vec::new();
    changed(
        "its CPUs",
        &a.cpus.to_string(),
        &b.cpus.to_string(),
        &mut all,
    );
    let isolated = |host: &HostPlan| host.isolated.to_string();
    changed("isolated", &isolated(a), &isolated(b), &mut all);
    changed(
        "isolation",
        &word(&a.isolation),
        &word(&b.isolation),
        &mut all,
    );
    kernel_args(a, b, &mut all);
    let pages = |host: &HostPlan| {
        let said = |it: &bmslice_plan::HugePagePlan| {
            format!("{} × {} on node {}", it.count, it.size, it.node)
        };
        listed(&host.huge_pages, said, ", ")
    };
    changed("huge pages", &pages(a), &pages(b), &mut all);
    let split = |host: &HostPlan| {
        let said = |it: &bmslice_plan::SplitPlan| {
            format!("{} into {}", device(&it.device), count(it.vfs, "VF"))
        };
        listed(&host.split, said, ", ")
    };
    changed("split", &split(a), &split(b), &mut all);
    let queues = |host: &HostPlan| {
        let said = |it: &bmslice_plan::QueuePlan| format!("{} for {}", it.most, device(&it.device));
        listed(&host.queues, said, ", ")
    };
    changed("most queues", &queues(a), &queues(b), &mut all);
    settings(a, b, &mut all);
    changed("images in", &a.images, &b.images, &mut all);
    let minutes = |host: &HostPlan| host.fall_back_minutes.to_string();
    changed(
        "minutes to confirm a boot",
        &minutes(a),
        &minutes(b),
        &mut all,
    );
    all
}

/// Of many arguments, those that are other ones.
fn kernel_args(a: &HostPlan, b: &HostPlan, all: &mut Vec<String>) {
    let (a, b) = (&a.kernel_args, &b.kernel_args);
    let beyond = |these: &[bmslice_model::KernelArg], those: &[bmslice_model::KernelArg]| {
        let beyond = these.iter().filter(|arg| !those.contains(arg));
        let beyond: Vec<String> = beyond.map(ToString::to_string).collect();
        beyond.join(" ")
    };
    let (comes, goes) = (beyond(b, a), beyond(a, b));
    if a.is_empty() || b.is_empty() || (comes.is_empty() && goes.is_empty()) {
        let whole = |args: &[bmslice_model::KernelArg]| listed(args, ToString::to_string, " ");
        changed("kernel args", &whole(a), &whole(b), all);
        return;
    }
    all.push(match (comes.as_str(), goes.as_str()) {
        (comes, "") => format!("kernel args gain {comes}"),
        ("", goes) => format!("kernel args lose {goes}"),
        (comes, goes) => format!("kernel args gain {comes} and lose {goes}"),
    });
}

/// Only a move is told: how many vCPUs and how much memory a cell has follows from the rest.
fn nodes(a: &SlicePlan, b: &SlicePlan, all: &mut Vec<String>) {
    let nodes = |slice: &SlicePlan| listed(&slice.cells, |cell| cell.node.to_string(), ",");
    let word = if a.cells.len() == 1 && b.cells.len() == 1 {
        "on node"
    } else {
        "on nodes"
    };
    changed(word, &nodes(a), &nodes(b), all);
}

fn pools(a: &SlicePlan, b: &SlicePlan, all: &mut Vec<String>) {
    let together = |slice: &SlicePlan| {
        let alike = slice.iothreads.iter().all(|cpus| *cpus == slice.emulator);
        alike && !slice.iothreads.is_empty()
    };
    let pool = |slice: &SlicePlan, cpus: &CpuSet| match () {
        () if slice.pool_is_host => format!("{cpus} (host)"),
        () if slice.pool_is_shared => format!("{cpus} (shared)"),
        () => cpus.to_string(),
    };
    let emulator = |slice: &SlicePlan| pool(slice, &slice.emulator);
    let threads = |slice: &SlicePlan| count(slice.iothreads.len(), "IOThread");
    if together(a) && together(b) {
        changed("emulator and IOThreads on", &emulator(a), &emulator(b), all);
        changed("", &threads(a), &threads(b), all);
        return;
    }
    changed("emulator on", &emulator(a), &emulator(b), all);
    changed("", &threads(a), &threads(b), all);
    if a.iothreads.len() == b.iothreads.len() {
        let iothreads = |slice: &SlicePlan| listed(&slice.iothreads, |it| pool(slice, it), "; ");
        changed("IOThreads on", &iothreads(a), &iothreads(b), all);
    }
}

fn nics(a: &SlicePlan, b: &SlicePlan, all: &mut Vec<String>, others: &mut Vec<String>) {
    for number in 0..a.nics.len().max(b.nics.len()) {
        match (a.nics.get(number), b.nics.get(number)) {
            (Some(was), Some(now)) if was != now => nic(number, was, now, all, others),
            (None, Some(now)) => all.push(format!("NIC {number} comes: {}", what(now))),
            (Some(was), None) => all.push(format!("NIC {number} goes: {}", what(was))),
            _ => {}
        }
    }
}

fn nic(
    number: usize,
    was: &NicPlan,
    now: &NicPlan,
    all: &mut Vec<String>,
    others: &mut Vec<String>,
) {
    let before = (all.len(), others.len());
    let name = |what: &str| format!("NIC {number}{what}");
    changed(&name(":"), &what(was), &what(now), all);
    let mac = |nic: &NicPlan| nic.common().mac.map(|mac| mac.to_string());
    let text = |text: Option<String>| text.unwrap_or_default();
    changed(&name("'s MAC"), &text(mac(was)), &text(mac(now)), all);
    if let (
        NicPlan::Vf {
            vlan: a, rules: x, ..
        },
        NicPlan::Vf {
            vlan: b, rules: y, ..
        },
    ) = (was, now)
    {
        let vlan = |vlan: &Option<_>| vlan.as_ref().map(ToString::to_string);
        changed(&name("'s VLAN"), &text(vlan(a)), &text(vlan(b)), all);
        let (x, y) = (x.described().join(", "), y.described().join(", "));
        changed(&name(" is held to:"), &x, &y, all);
    }
    let (a, b) = (was.common(), now.common());
    if a.network != b.network {
        others.push(format!(
            "another network of NIC {number} inside (only a new disk takes it)"
        ));
    }
    if a.fabric != b.fabric {
        others.push(format!(
            "the fabric should show something else of NIC {number}"
        ));
    }
    if (all.len(), others.len()) == before {
        all.push(format!("other details of NIC {number}"));
    }
}

/// A card for people, by what it is on the server.
fn what(nic: &NicPlan) -> String {
    match nic {
        NicPlan::Passthrough {
            device: whole,
            group,
            ..
        } if group.is_empty() => {
            format!("the whole of {}", device(whole))
        }
        NicPlan::Passthrough {
            device: whole,
            group,
            ..
        } => format!(
            "the whole of {} with {}",
            device(whole),
            listed(group, ToString::to_string, ", ")
        ),
        NicPlan::Vf { pf, index, .. } => format!("VF {index} of {}", device(pf)),
        NicPlan::Virtio { network, .. } => format!("virtio on network {network}"),
    }
}

fn disk(a: &SlicePlan, b: &SlicePlan, others: &mut Vec<String>) {
    let (a, b) = (&a.disk, &b.disk);
    if a == b {
        return;
    }
    let mut parts = Vec::new();
    changed("disk of", &a.base, &b.base, &mut parts);
    changed(
        "disk size",
        &a.size.to_string(),
        &b.size.to_string(),
        &mut parts,
    );
    changed("disk", &a.path, &b.path, &mut parts);
    if parts.is_empty() {
        parts.push("another making of the disk".into());
    }
    others.push(format!(
        "{} (a disk that is there is kept as it is)",
        parts.join(", ")
    ));
}

fn settings(a: &HostPlan, b: &HostPlan, all: &mut Vec<String>) {
    let (a, b) = (&a.settings, &b.settings);
    let as_is = || "as it is".to_owned();
    let ksm = |ksm: Option<bool>| ksm.map_or_else(as_is, |ksm| on(ksm).to_owned());
    changed("ksm", &ksm(a.ksm), &ksm(b.ksm), all);
    let (x, y) = (a.transparent_huge_pages, b.transparent_huge_pages);
    let pages = |it: Option<bmslice_spec::TransparentHugePages>| {
        it.map_or_else(as_is, |it| it.word().to_owned())
    };
    changed("transparent huge pages", &pages(x), &pages(y), all);
    let governor =
        |it: Option<bmslice_spec::Governor>| it.map_or_else(as_is, |it| it.word().to_owned());
    changed(
        "governor",
        &governor(a.governor),
        &governor(b.governor),
        all,
    );
}

fn on(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}

/// A choice of one word, as it is written.
fn word(choice: &impl Debug) -> String {
    format!("{choice:?}").to_lowercase()
}

fn listed<T>(items: &[T], said: impl Fn(&T) -> String, between: &str) -> String {
    let items: Vec<String> = items.iter().map(said).collect();
    items.join(between)
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
        let text = format!("{what} {} instead of {}", shown(b), shown(a));
        all.push(text.trim_start().to_owned());
    }
}
