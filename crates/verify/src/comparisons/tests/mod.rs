//! Facts that satisfy the plan, damaged in one place each: exactly that place is reported, with
//! what was wanted and what is.

mod devices;
mod fabric;
mod host;
mod memory;
mod pins;
mod quiet;
mod threads;

use std::time::Duration;

use bmslice_host::DomainState;
use bmslice_inventory::PciFunction;
use bmslice_model::{ByteSize, IommuGroupId, NumaNodeId};
use bmslice_plan::{NicPlan, Plan, PlanParts};
use bmslice_spec::Isolation;

use crate::observe::{Observed, Process, Stranger};
use crate::read::numa_maps::Policy;
use crate::report::{Finding, NotSeen, Verdict};
use crate::testing::*;

const GIB: ByteSize = ByteSize::from_gib(1);

/// What is open once these facts were damaged.
fn damaged(damage: impl FnOnce(&mut Observed)) -> Vec<Finding> {
    let mut facts = observed();
    damage(&mut facts);
    open(&plan(), &facts, FDB)
}

/// The one finding that a damage gives.
fn one(damage: impl FnOnce(&mut Observed)) -> (&'static str, Verdict) {
    only(&damaged(damage))
}

fn process(facts: &mut Observed, guest: usize) -> &mut Process {
    facts.guests[guest].process.as_mut().unwrap()
}

fn function<'a>(facts: &'a mut Observed, at: &str) -> &'a mut PciFunction {
    let at = address(at);
    let pci = &mut facts.inventory.pci;
    pci.iter_mut().find(|f| f.address == at).unwrap()
}

/// The one finding when the plan asks for something else.
fn replanned(change: impl FnOnce(&mut PlanParts)) -> Vec<Finding> {
    let mut parts = parts();
    change(&mut parts);
    open(&Plan::new(parts).unwrap(), &observed(), FDB)
}

#[test]
fn facts_as_planned_hold_in_every_check() {
    let report = crate::compare(&plan(), &observed(), Some(&table()));
    assert!(report.holds(), "{:#?}", report.open().collect::<Vec<_>>());
    let when_asked = ["partition", "confinement", "queues", "settings"];
    for check in crate::CHECKS
        .iter()
        .filter(|check| !when_asked.contains(&check.name))
    {
        // Red has no VF; every check finds something to look at in one of the two slices.
        assert!(
            report.findings.iter().any(|f| f.check == check.name),
            "{} gave nothing",
            check.name
        );
    }
}

#[test]
fn facts_of_another_plan_prove_nothing() {
    let mut facts = observed();
    facts.guests.pop();
    let findings = open(&plan(), &facts, FDB);
    assert!(
        findings
            .iter()
            .all(|f| matches!(&f.verdict, Verdict::Unknown { .. }))
    );
    assert!(!findings.is_empty());
}

#[test]
fn a_plan_that_asks_for_another_cpu_is_not_satisfied_by_these_facts() {
    let findings = replanned(|parts| {
        parts.slices[0].vcpus.swap(0, 1);
    });
    let checks: Vec<_> = findings.iter().map(|f| f.check).collect();
    assert_eq!(
        checks,
        [
            "pins",
            "pins",
            "next-start",
            "next-start",
            "vcpu-threads",
            "vcpu-threads"
        ]
    );
    assert_eq!(
        findings[4].verdict,
        differs("thread 4710 `CPU 0/KVM`", "6", &cpu(4).to_string())
    );
}
