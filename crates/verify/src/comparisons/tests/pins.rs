//! Pins, domains and processes.

use super::*;

#[test]
fn stored_pins_are_what_the_next_start_takes() {
    let found = one(|facts| {
        let next = facts.guests[0].next.as_mut().unwrap();
        next.vcpus.remove(&2);
    });
    assert_eq!(
        found,
        (
            "next-start",
            differs("the stored pin of vCPU 2", "8", "no pin")
        )
    );
}

#[test]
fn emulator_and_iothread_pins_are_compared() {
    let findings = damaged(|facts| {
        let pins = facts.pins.get_mut(BLUE).unwrap().as_mut().unwrap();
        pins.emulator = cpus("0-23");
        pins.iothreads.clear();
    });
    let verdicts: Vec<_> = findings.iter().map(|f| f.verdict.clone()).collect();
    // Blue's emulator on every CPU is on Red's, too.
    assert_eq!(
        verdicts,
        [
            differs(
                "the CPUs of the domain `Blue_k8s_cluster_worker1`",
                "none of 2,4,6,8,10,14,16,18,20,22",
                "2,4,6,8,10,14,16,18,20,22 among them"
            ),
            differs("the emulator's pin by libvirt", "3,15", "0-23"),
            differs("the pin of IOThread 1 by libvirt", "3,15", "no pin"),
        ]
    );
}

#[test]
fn another_domain_on_a_slices_cpus_differs() {
    let found = one(|facts| {
        let mut other = pins(&plan().slices()[0]);
        other.vcpus = vec![cpus("0-2,4")];
        other.emulator = cpus("0");
        other.iothreads.clear();
        facts.pins.insert("stray".into(), Ok(other));
    });
    let verdict = differs(
        "the CPUs of the domain `stray`",
        "none of 2,4,6,8,10,14,16,18,20,22",
        "2,4 among them",
    );
    assert_eq!(found, ("alone", verdict));
}

/// What is found of each slice's being alone on its CPUs.
fn alone(plan: &Plan, facts: &Observed) -> Vec<Verdict> {
    let found = crate::compare(plan, facts, None).findings;
    let of = found.into_iter().filter(|f| f.check == "alone");
    of.map(|finding| finding.verdict).collect()
}

#[test]
fn a_tenants_pool_is_for_its_slices_alone() {
    let mut parts = parts();
    for slice in &mut parts.slices {
        slice.tenant = "red".parse().unwrap();
        slice.pool_is_shared = true;
        slice.emulator = cpus("2,14");
        slice.iothreads = vec![cpus("2,14")];
    }
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    for slice in plan.slices() {
        facts.pins.insert(slice.name.to_string(), Ok(pins(slice)));
    }
    let verdicts = alone(&plan, &facts);
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(Verdict::is_satisfied), "{verdicts:?}");

    let mut stray = pins(&plan.slices()[0]);
    stray.vcpus = vec![cpus("0")];
    stray.emulator = cpus("14");
    stray.iothreads.clear();
    facts.pins.insert("stray".into(), Ok(stray));
    assert_eq!(
        alone(&plan, &facts)[0],
        differs(
            "the CPUs of the domain `stray`",
            "none of 2,4,6,8,10,14,16,18,20,22",
            "14 among them"
        )
    );
}

#[test]
fn a_lent_sibling_is_for_the_slice_of_the_tenant_that_has_it() {
    let mut parts = parts();
    let theirs = [0, 1].map(|at| parts.slices[at].vcpus[0]);
    for (at, other) in [(0, 1), (1, 0)] {
        parts.slices[at].tenant = "red".parse().unwrap();
        parts.slices[at].shared_siblings = theirs[other].into();
    }
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    for slice in plan.slices() {
        facts.pins.insert(slice.name.to_string(), Ok(pins(slice)));
    }
    let verdicts = alone(&plan, &facts);
    assert!(verdicts.iter().all(Verdict::is_satisfied), "{verdicts:?}");
    let said = format!("and beside it on {} only its tenant's", theirs[1]);
    assert!(format!("{:?}", verdicts[0]).contains(&said), "{verdicts:?}");

    // A third one on the second's CPU is in the way of both.
    let mut stray = pins(&plan.slices()[0]);
    (stray.vcpus, stray.emulator) = (vec![theirs[1].into()], cpus("0"));
    stray.iothreads.clear();
    facts.pins.insert("stray".into(), Ok(stray));
    let verdicts = alone(&plan, &facts);
    assert!(verdicts.iter().all(|v| !v.is_satisfied()), "{verdicts:?}");
    // And so is the second on another of the first's.
    facts.pins.remove("stray");
    let first = plan.slices()[0].vcpus[1];
    let mut second = pins(&plan.slices()[1]);
    second.vcpus[0] = first.into();
    facts
        .pins
        .insert(plan.slices()[1].name.to_string(), Ok(second));
    assert!(!alone(&plan, &facts)[0].is_satisfied());
}

#[test]
fn a_domain_that_does_not_run_is_pending_everywhere_and_differs_once() {
    let findings = damaged(|facts| {
        let DomainState { running, .. } = &mut facts.domains.as_mut().unwrap()[0];
        *running = false;
        facts.pins.remove(RED);
        let not_yet = NotSeen::NotYet(format!("the domain `{RED}` is started"));
        facts.guests[0].process = Err(not_yet.clone());
        facts.guests[0].live = Err(not_yet);
    });
    let differing: Vec<_> = findings
        .iter()
        .filter(|f| !matches!(f.verdict, Verdict::Pending { .. }))
        .map(|f| (f.check, f.verdict.clone()))
        .collect();
    let what = "the domain `Red_k8s_cluster_worker1`";
    assert_eq!(
        differing,
        [("domain", differs(what, "running", "shut off"))]
    );
    let pending: Vec<_> = findings.iter().skip(1).map(|f| f.check).collect();
    assert_eq!(
        pending,
        [
            "process",
            "pins",
            "vcpu-threads",
            "iothreads",
            "emulator-threads",
            "memory-binding",
            "memory",
            "iommu-groups",
            "hostdevs"
        ]
    );
}

#[test]
fn another_guest_of_the_same_name_differs_by_its_uuid() {
    let found = one(|facts| process(facts, 0).uuid = Some("ffffffff-0000".into()));
    assert_eq!(
        found,
        (
            "process",
            differs(
                "the UUID of the guest that the QEMU process 4700 runs",
                "8e7b0d3f-0000-5000-8000-000000000001",
                "ffffffff-0000"
            )
        )
    );
}

#[test]
fn a_domain_without_kvm_or_that_libvirt_starts_differs() {
    let found = one(|facts| facts.guests[0].live.as_mut().unwrap().kind = "qemu".into());
    let kind = differs(
        "the type of the domain `Red_k8s_cluster_worker1`",
        "kvm",
        "qemu",
    );
    assert_eq!(found, ("domain", kind));
    let (check, verdict) = one(|facts| facts.domains.as_mut().unwrap()[1].autostart = true);
    assert_eq!(check, "domain");
    assert!(matches!(verdict, Verdict::Differs { .. }));
}

#[test]
fn without_libvirt_what_the_kernel_shows_is_still_compared() {
    let findings = damaged(|facts| {
        let gone = NotSeen::Unreadable("libvirt could not connect".into());
        facts.domains = Err(gone.clone());
        facts.pins.clear();
        for guest in &mut facts.guests {
            guest.live = Err(gone.clone());
            guest.next = Err(gone.clone());
        }
        process(facts, 0).threads[3].allowed = cpus("0-23");
    });
    let of = |check| findings.iter().filter(|f| f.check == check).count();
    assert_eq!((of("vcpu-threads"), of("memory"), of("devices")), (1, 0, 0));
    for check in ["domain", "pins", "next-start", "alone", "hostdevs"] {
        assert_eq!(of(check), 2, "{check}");
    }
}
