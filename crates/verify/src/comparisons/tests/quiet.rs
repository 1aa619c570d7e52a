//! What keeps the slices' CPUs quiet.

use super::*;
use crate::observe::quiet::{Irqbalance, Quiet};

fn dynamic() -> Plan {
    let mut parts = parts();
    parts.host.isolation = Isolation::Dynamic;
    Plan::new(parts).unwrap()
}

/// Facts of a server that is isolated without a reboot, damaged.
fn seen(damage: impl FnOnce(&mut Quiet)) -> Vec<Finding> {
    let mut facts = observed();
    facts.inventory.boot.isolated = cpus("");
    facts.partitioned = cpus("2-11,14-23");
    facts.quiet.partition = Some("isolated".into());
    facts.quiet.partition_cpus = cpus("2-11,14-23");
    facts.quiet.confined = vec![("system.slice".into(), Some(cpus("0-1,12-13")))];
    damage(&mut facts.quiet);
    open(&dynamic(), &facts, FDB)
}

#[test]
fn a_partition_in_force_with_everybody_else_confined_holds() {
    assert_eq!(seen(|_| {}), []);
}

#[test]
fn a_partition_that_became_invalid_differs_with_the_kernels_reason() {
    let state = "isolated invalid (Cpu list in cpuset.cpus not exclusive)";
    let found = seen(|quiet| quiet.partition = Some(state.into()));
    let what = "the cgroup `bmslice.slice`";
    let got = format!("`{state}`");
    assert_eq!(
        only(&found),
        ("partition", differs(what, "`isolated`", &got))
    );
    let (check, _) = only(&seen(|quiet| quiet.partition = None));
    assert_eq!(check, "partition");
}

#[test]
fn a_unit_that_may_spread_again_differs() {
    let found = seen(|quiet| quiet.confined[0].1 = None);
    let what = "the CPUs of the unit `system.slice`";
    assert_eq!(
        only(&found),
        ("confinement", differs(what, "0-1,12-13", "all"))
    );
}

#[test]
fn interrupts_workers_and_irqbalance_that_reach_the_slices_cpus_differ() {
    let found = one(|facts| facts.quiet.interrupts.as_mut().unwrap()[0].affinity = cpus("0-23"));
    let what = "the CPUs of interrupt 24";
    assert_eq!(found, ("interrupts", differs(what, "0-1,12-13", "0-23")));
    let found = one(|facts| facts.quiet.new_interrupts = Some(cpus("0-23")));
    let what = "the CPUs of new interrupts";
    assert_eq!(found, ("interrupts", differs(what, "0-1,12-13", "0-23")));
    let found = one(|facts| facts.quiet.workers = Some(cpus("0-23")));
    let what = "the CPUs of unbound workqueues";
    assert_eq!(found, ("workqueues", differs(what, "0-1,12-13", "0-23")));
    let (check, _) = one(|facts| facts.quiet.irqbalance = Irqbalance::Told(None));
    assert_eq!(check, "irqbalance");
    let (check, verdict) = one(|facts| facts.quiet.irqbalance = Irqbalance::Hidden);
    assert_eq!(check, "irqbalance");
    assert!(matches!(verdict, Verdict::Unknown { .. }));
}

#[test]
fn what_the_kernel_keeps_is_told_and_a_guests_own_interrupts_are_its() {
    let mut facts = observed();
    let irqs = facts.quiet.interrupts.as_mut().unwrap();
    irqs.push(irqs[0].clone());
    irqs[0].affinity = cpus("4");
    irqs[0].is_a_guests = true;
    irqs[1].number = 26;
    irqs[1].affinity = cpus("0-23");
    facts.quiet.fixed = [26].into();
    facts.quiet.threads.as_mut().unwrap()[0].bound = true;
    facts.quiet.threads.as_mut().unwrap()[0].allowed = cpus("5");
    let report = crate::compare(&plan(), &facts, Some(&table()));
    assert!(report.holds(), "{:?}", report.open().collect::<Vec<_>>());
    let said: Vec<String> = report
        .findings
        .iter()
        .filter(|f| matches!(f.check, "interrupts" | "kernel-threads"))
        .map(|f| format!("{:?}", f.verdict))
        .collect();
    assert!(said[0].contains("the kernel keeps 26 on 0-23"), "{said:?}");
    assert!(said[1].contains("1 are bound to CPUs 5"), "{said:?}");
}

#[test]
fn a_movable_thread_differs_only_once_it_ran_there() {
    let thread = |allowed: &str, last: u8| {
        seen(|quiet| {
            let thread = &mut quiet.threads.as_mut().unwrap()[0];
            thread.allowed = cpus(allowed);
            thread.last_cpu = Some(cpu(last));
        })
    };
    assert_eq!(thread("0-23", 1), [], "allowed, and never there");
    assert_eq!(thread("0-1", 5), [], "there, before it was moved");
    assert_eq!(only(&thread("0-23", 5)).0, "kernel-threads");
}

#[test]
fn queues_hold_where_there_are_no_more_than_planned() {
    use bmslice_inventory::{Channels, EthtoolFacts, NetInterface, PciFunction, Setting};
    let function = |facts: &Observed| -> PciFunction {
        let mut functions = facts.inventory.pci.iter();
        functions.find(|f| f.is_network()).unwrap().clone()
    };
    let mut facts = observed();
    let PciFunction { address, id, .. } = function(&facts);
    let set = |facts: &mut Observed, now: Option<u32>| {
        let setting = now.map(|now| Setting { now, max: 8 });
        let channels = setting.map(|combined| Channels {
            combined: Some(combined),
            ..Channels::default()
        });
        facts.inventory.interfaces = vec![NetInterface {
            name: "eno3".into(),
            pci: Some(address),
            ethtool: Some(EthtoolFacts {
                channels,
                ..EthtoolFacts::default()
            }),
            ..NetInterface::default()
        }];
    };
    let mut parts = parts();
    parts.host.queues = vec![bmslice_plan::QueuePlan {
        device: bmslice_plan::DeviceRef {
            address,
            id,
            mac: None,
            interface: Some("eno3".into()),
            driver: None,
            node: None,
        },
        most: 4,
        apart: false,
    }];
    let plan = Plan::new(parts).unwrap();
    let queues = |facts: &Observed| {
        let mut all = open(&plan, facts, FDB);
        all.retain(|finding| finding.check == "queues");
        all
    };
    set(&mut facts, Some(4));
    assert_eq!(queues(&facts), []);
    set(&mut facts, Some(8));
    let what = "the queues of `eno3`";
    assert_eq!(only(&queues(&facts)).1, differs(what, "at most 4", "8"));
    set(&mut facts, None);
    assert!(matches!(only(&queues(&facts)).1, Verdict::Unknown { .. }));
}

#[test]
fn settings_hold_only_where_they_were_asked_for_and_are_so() {
    let mut parts = parts();
    parts.host.settings.ksm = Some(false);
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    facts.inventory.memory.ksm = Some(false);
    assert_eq!(open(&plan, &facts, FDB), []);
    facts.inventory.memory.ksm = Some(true);
    let what = "the merging of equal pages (KSM)";
    assert_eq!(
        only(&open(&plan, &facts, FDB)),
        ("settings", differs(what, "off", "on"))
    );
    facts.inventory.memory.ksm = None;
    assert!(matches!(
        only(&open(&plan, &facts, FDB)).1,
        Verdict::Unknown { .. }
    ));
}
