//! Pins as libvirt tells them: in force, stored for the next start, and those of other domains.

use bmslice_host::DomainPins;
use bmslice_model::{CpuId, CpuSet};
use bmslice_plan::SlicePlan;

use super::or_satisfied;
use crate::checks::SliceView;
use crate::report::{NotSeen, Seen, Verdict};

/// CPU lists are compared as sets; a thread without a pin may run anywhere.
fn pin(verdicts: &mut Vec<Verdict>, what: String, want: &CpuSet, got: Option<&CpuSet>) {
    match got {
        Some(got) if got == want => {}
        Some(got) => verdicts.push(Verdict::differs(what, want, got)),
        None => verdicts.push(Verdict::differs(what, want, "no pin")),
    }
}

fn sentence(slice: &SlicePlan) -> String {
    let vcpus: Vec<String> = slice.vcpus.iter().map(CpuId::to_string).collect();
    let mut text = format!(
        "vCPUs on {}, emulator on {}",
        vcpus.join(" "),
        slice.emulator
    );
    for (index, cpus) in slice.iothreads.iter().enumerate() {
        text.push_str(&format!(", IOThread {} on {cpus}", index + 1));
    }
    text
}

pub(crate) fn in_force(view: &SliceView) -> Seen<Vec<Verdict>> {
    let slice = view.slice;
    let name = slice.name.as_str();
    view.observed.domains.as_ref().map_err(Clone::clone)?;
    let pins = match view.observed.pins.get(name) {
        Some(pins) => pins.as_ref().map_err(Clone::clone)?,
        None => return Err(NotSeen::NotYet(format!("the domain `{name}` is started"))),
    };
    let mut verdicts = Vec::new();
    for (vcpu, cpu) in slice.vcpus.iter().enumerate() {
        let what = format!("the pin of vCPU {vcpu} by libvirt");
        pin(
            &mut verdicts,
            what,
            &CpuSet::from(*cpu),
            pins.vcpus.get(vcpu),
        );
    }
    if pins.vcpus.len() > slice.vcpus.len() {
        verdicts.push(Verdict::differs(
            "the number of vCPUs by libvirt",
            slice.vcpus.len(),
            pins.vcpus.len(),
        ));
    }
    let what = "the emulator's pin by libvirt".to_owned();
    pin(&mut verdicts, what, &slice.emulator, Some(&pins.emulator));
    for (id, want) in (1..).zip(&slice.iothreads) {
        let got = pins.iothreads.iter().find(|(known, _)| *known == id);
        let what = format!("the pin of IOThread {id} by libvirt");
        pin(&mut verdicts, what, want, got.map(|(_, cpus)| cpus));
    }
    if pins.iothreads.len() > slice.iothreads.len() {
        verdicts.push(Verdict::differs(
            "the number of IOThreads by libvirt",
            slice.iothreads.len(),
            pins.iothreads.len(),
        ));
    }
    Ok(or_satisfied(verdicts, || {
        format!("libvirt pins {}", sentence(slice))
    }))
}

pub(crate) fn next_start(view: &SliceView) -> Seen<Vec<Verdict>> {
    let slice = view.slice;
    let stored = view.guest.next.as_ref().map_err(Clone::clone)?;
    let mut verdicts = Vec::new();
    for (vcpu, cpu) in (0u32..).zip(&slice.vcpus) {
        let what = format!("the stored pin of vCPU {vcpu}");
        pin(
            &mut verdicts,
            what,
            &CpuSet::from(*cpu),
            stored.vcpus.get(&vcpu),
        );
    }
    let what = "the emulator's stored pin".to_owned();
    pin(
        &mut verdicts,
        what,
        &slice.emulator,
        stored.emulator.as_ref(),
    );
    for (id, want) in (1u32..).zip(&slice.iothreads) {
        let what = format!("the stored pin of IOThread {id}");
        pin(&mut verdicts, what, want, stored.iothreads.get(&id));
    }
    Ok(or_satisfied(verdicts, || {
        "the stored definition has the planned pins".into()
    }))
}

fn all_of(pins: &DomainPins) -> CpuSet {
    pins.vcpus
        .iter()
        .chain(pins.iothreads.iter().map(|(_, cpus)| cpus))
        .fold(pins.emulator.clone(), |all, cpus| all.union(cpus))
}

pub(crate) fn alone(view: &SliceView) -> Seen<Vec<Verdict>> {
    view.observed.domains.as_ref().map_err(Clone::clone)?;
    let held = view.slice.held();
    let mut verdicts = Vec::new();
    let others = view
        .observed
        .pins
        .iter()
        .filter(|(name, _)| name.as_str() != view.slice.name.as_str());
    for (name, pins) in others {
        let planned = view.plan.slice(name);
        let shares = planned.is_some_and(|other| other.shares_pool_with(view.slice));
        let mut alone = if shares {
            view.slice.owned()
        } else {
            held.clone()
        };
        let beside = planned.filter(|other| view.slice.shares_a_core_with(other));
        let beside = beside.map_or_else(CpuSet::new, SlicePlan::vcpu_cpus);
        alone.extend_from(&view.slice.shared_siblings.difference(&beside));
        match pins {
            Ok(pins) => {
                let shared = all_of(pins).intersection(&alone);
                if !shared.is_empty() {
                    verdicts.push(Verdict::differs(
                        format!("the CPUs of the domain `{name}`"),
                        format!("none of {alone}"),
                        format!("{shared} among them"),
                    ));
                }
            }
            Err(reason) => verdicts.push(Verdict::unknown(format!(
                "the pins of the domain `{name}` could not be read: {reason}"
            ))),
        }
    }
    Ok(or_satisfied(verdicts, || {
        let owned = view.slice.owned();
        let mut said = format!("no other running domain is pinned to any of {owned}");
        let (pool, beside) = (view.slice.shared(), &view.slice.shared_siblings);
        if !pool.is_empty() {
            said.push_str(&format!(", and to the pool on {pool} only its tenant's"));
        }
        if !beside.is_empty() {
            said.push_str(&format!(", and beside it on {beside} only its tenant's"));
        }
        said
    }))
}
