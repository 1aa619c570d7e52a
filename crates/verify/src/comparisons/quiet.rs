//! What keeps the slices' CPUs quiet: the partition, everybody else's confinement, interrupts,
//! workers and threads of the kernel.

use bmslice_inventory::Setting;
use bmslice_model::CpuSet;
use bmslice_spec::Isolation;

use super::or_satisfied;
use crate::checks::HostView;
use crate::observe::quiet::Irqbalance;
use crate::report::{Seen, Verdict};

fn is(view: &HostView, isolation: Isolation) -> bool {
    view.plan.host().isolation == isolation
}

pub(crate) fn partition(view: &HostView) -> Seen<Vec<Verdict>> {
    if !is(view, Isolation::Dynamic) {
        return Ok(Vec::new());
    }
    let (quiet, want) = (&view.observed.quiet, &view.plan.host().isolated);
    let what = "the cgroup `bmslice.slice`";
    Ok(vec![match quiet.partition.as_deref() {
        Some("isolated") if quiet.partition_cpus == *want => {
            Verdict::satisfied(format!("{what} is an isolated partition of CPUs {want}"))
        }
        Some("isolated") => Verdict::differs(
            what,
            format!("an isolated partition of CPUs {want}"),
            format!("one of CPUs {}", quiet.partition_cpus),
        ),
        Some(state) => Verdict::differs(what, "`isolated`", format!("`{state}`")),
        None => Verdict::differs(what, "an isolated partition", "not there"),
    }])
}

pub(crate) fn confinement(view: &HostView) -> Seen<Vec<Verdict>> {
    if !is(view, Isolation::Dynamic) {
        return Ok(Vec::new());
    }
    let want = &view.plan.host().cpus;
    let groups = &view.observed.quiet.confined;
    let verdicts = groups
        .iter()
        .filter(|(_, cpus)| cpus.as_ref() != Some(want))
        .map(|(name, cpus)| {
            let got = cpus
                .as_ref()
                .map_or_else(|| "all".to_owned(), ToString::to_string);
            Verdict::differs(format!("the CPUs of the unit `{name}`"), want, got)
        })
        .collect();
    Ok(or_satisfied(verdicts, || {
        let names: Vec<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
        format!("{} are confined to CPUs {want}", names.join(", "))
    }))
}

pub(crate) fn interrupts(view: &HostView) -> Seen<Vec<Verdict>> {
    if is(view, Isolation::None) {
        return Ok(Vec::new());
    }
    let quiet = &view.observed.quiet;
    let (host, isolated) = (&view.plan.host().cpus, &view.plan.host().isolated);
    let all = quiet.interrupts.as_ref().map_err(Clone::clone)?;
    let mut verdicts = Vec::new();
    if let Some(cpus) = &quiet.new_interrupts
        && !cpus.is_disjoint(isolated)
    {
        verdicts.push(Verdict::differs("the CPUs of new interrupts", host, cpus));
    }
    let mut stay = Vec::new();
    for irq in all.iter().filter(|irq| !irq.is_a_guests) {
        let served = irq.effective.as_ref().unwrap_or(&irq.affinity);
        if quiet.fixed.contains(&irq.number) {
            if !served.is_disjoint(isolated) {
                stay.push(format!("{} on {served}", irq.number));
            }
        } else if !irq.affinity.is_disjoint(isolated) {
            let what = format!("the CPUs of interrupt {}", irq.number);
            verdicts.push(Verdict::differs(what, host, &irq.affinity));
        }
    }
    Ok(or_satisfied(verdicts, || {
        let text = format!("interrupts are served on CPUs {host}");
        match stay[..] {
            [] => text,
            _ => format!("{text}; the kernel keeps {}", stay.join(", ")),
        }
    }))
}

pub(crate) fn queues(view: &HostView) -> Seen<Vec<Verdict>> {
    let planned = &view.plan.host().queues;
    let interfaces = &view.observed.inventory.interfaces;
    let mut verdicts = Vec::new();
    let mut least = Vec::new();
    for queues in planned {
        let address = queues.device.address;
        let Some(interface) = interfaces.iter().find(|i| i.pci == Some(address)) else {
            verdicts.push(Verdict::unknown(format!(
                "{address} has no interface, which would tell its queues"
            )));
            continue;
        };
        let told = interface.ethtool.as_ref().and_then(|e| e.channels.as_ref());
        let Some(channels) = told else {
            verdicts.push(Verdict::unknown(format!(
                "the driver of `{}` tells no queues",
                interface.name
            )));
            continue;
        };
        let now = |setting: Option<Setting>| setting.map_or(0, |setting| setting.now);
        let count = now(channels.combined) + now(channels.rx).max(now(channels.tx));
        if count > queues.most {
            verdicts.push(Verdict::differs(
                format!("the queues of `{}`", interface.name),
                format!("at most {}", queues.most),
                count,
            ));
        }
        least.push(format!("`{}` has {count}", interface.name));
    }
    if planned.is_empty() {
        return Ok(verdicts);
    }
    Ok(or_satisfied(verdicts, || {
        format!("queues of the host's NICs: {}", least.join(", "))
    }))
}

pub(crate) fn workers(view: &HostView) -> Seen<Vec<Verdict>> {
    if is(view, Isolation::None) {
        return Ok(Vec::new());
    }
    let isolated = &view.plan.host().isolated;
    let what = "the CPUs of unbound workqueues";
    Ok(match &view.observed.quiet.workers {
        None => Vec::new(),
        Some(cpus) if cpus.is_disjoint(isolated) => {
            vec![Verdict::satisfied(format!("{what} are {cpus}"))]
        }
        Some(cpus) => vec![Verdict::differs(what, &view.plan.host().cpus, cpus)],
    })
}

/// A thread that was moved keeps the number of the CPU that it last ran on until it runs again, and
/// a new one may be allowed everywhere: only the two together are noise.
pub(crate) fn threads(view: &HostView) -> Seen<Vec<Verdict>> {
    if is(view, Isolation::None) {
        return Ok(Vec::new());
    }
    let threads = view.observed.quiet.threads.as_ref().map_err(Clone::clone)?;
    let isolated = &view.plan.host().isolated;
    let mut verdicts = Vec::new();
    let (mut bound, mut on) = (0, CpuSet::new());
    for thread in threads {
        let there = thread.allowed.intersection(isolated);
        if there.is_empty() {
            continue;
        }
        if thread.bound {
            bound += 1;
            on.extend_from(&there);
        } else if !thread.is_a_guests()
            && thread.last_cpu.is_some_and(|cpu| isolated.contains(cpu))
            && is(view, Isolation::Dynamic)
        {
            verdicts.push(Verdict::differs(
                format!("the kernel's thread {} (`{}`)", thread.pid, thread.name),
                format!("on CPUs {}", view.plan.host().cpus),
                format!(
                    "last ran on CPU {}, allowed {}",
                    thread.last_cpu.map_or(0, |cpu| cpu.number()),
                    thread.allowed
                ),
            ));
        }
    }
    Ok(or_satisfied(verdicts, || {
        let text = "threads of the kernel that can be moved are off the slices' CPUs";
        match bound {
            0 => text.into(),
            _ => format!("{text}; {bound} are bound to CPUs {on} and stay"),
        }
    }))
}

pub(crate) fn irqbalance(view: &HostView) -> Seen<Vec<Verdict>> {
    if is(view, Isolation::None) {
        return Ok(Vec::new());
    }
    let want = &view.plan.host().isolated;
    let what = "the CPUs that irqbalance leaves alone";
    Ok(vec![match &view.observed.quiet.irqbalance {
        Irqbalance::Off => Verdict::satisfied("irqbalance does not run"),
        Irqbalance::Hidden => {
            Verdict::unknown("irqbalance runs, and its environment cannot be read; be root")
        }
        Irqbalance::Told(Some(list)) if list.parse::<CpuSet>().as_ref() == Ok(want) => {
            Verdict::satisfied(format!("irqbalance leaves CPUs {want} alone"))
        }
        Irqbalance::Told(Some(list)) => Verdict::differs(what, want, list),
        Irqbalance::Told(None) => Verdict::differs(what, want, "what it finds out by itself"),
    }])
}

pub(crate) fn settings(view: &HostView) -> Seen<Vec<Verdict>> {
    let (host, inventory) = (view.plan.host(), &view.observed.inventory);
    let asked = host.settings;
    let mut verdicts = Vec::new();
    let mut say = |what: &str, want: &str, got: Option<&str>| {
        verdicts.push(match got {
            Some(got) if got == want => Verdict::satisfied(format!("{what}: {want}")),
            Some(got) => Verdict::differs(what, want, got),
            None => Verdict::unknown(format!("the kernel tells nothing of {what}")),
        });
    };
    let on_off = |on: bool| if on { "on" } else { "off" };
    if let Some(on) = asked.ksm {
        let got = inventory.memory.ksm.map(on_off);
        say("the merging of equal pages (KSM)", on_off(on), got);
    }
    if let Some(pages) = asked.transparent_huge_pages {
        let words = inventory.memory.transparent_huge_pages.as_ref();
        let got = words.map(|words| words.enabled.as_str());
        say("transparent huge pages", pages.word(), got);
    }
    if let Some(governor) = asked.governor {
        let groups = inventory.power.frequencies.iter();
        let mut ours = groups.filter(|group| !group.cpus.is_disjoint(&host.isolated));
        let first = ours.clone().next().and_then(|g| g.governor.as_deref());
        let other = ours.find_map(|group| {
            let name = group.governor.as_deref()?;
            (name != governor.word()).then_some(name)
        });
        let what = format!("the frequency governor of CPUs {}", host.isolated);
        say(&what, governor.word(), other.or(first));
    }
    Ok(verdicts)
}
