//! Threads of QEMU.

use super::*;

#[test]
fn a_vcpu_thread_on_other_cpus_differs_with_both_lists() {
    let found = one(|facts| {
        let thread = &mut process(facts, 0).threads[6];
        assert_eq!(thread.comm, "CPU 3/KVM");
        thread.allowed = cpus("0-23");
    });
    assert_eq!(
        found,
        (
            "vcpu-threads",
            differs("thread 4713 `CPU 3/KVM`", "10", "0-23")
        )
    );
}

#[test]
fn a_pin_changed_through_libvirt_is_found_there_and_in_the_kernel() {
    let findings = damaged(|facts| {
        process(facts, 0).threads[4].allowed = cpus("8");
        let pins = facts.pins.get_mut(RED).unwrap().as_mut().unwrap();
        pins.vcpus[1] = cpus("8");
    });
    let seen: Vec<_> = findings.iter().map(|f| (f.check, &f.verdict)).collect();
    assert_eq!(
        seen,
        [
            ("pins", &differs("the pin of vCPU 1 by libvirt", "6", "8")),
            (
                "vcpu-threads",
                &differs("thread 4711 `CPU 1/KVM`", "6", "8")
            ),
        ]
    );
}

#[test]
fn a_missing_vcpu_thread_and_one_too_many_differ() {
    let missing = one(|facts| {
        process(facts, 0).threads.retain(|t| t.comm != "CPU 7/KVM");
    });
    let what = "the number of vCPU threads of process 4700";
    assert_eq!(missing, ("vcpu-threads", differs(what, "8", "7")));

    let extra = damaged(|facts| {
        let thread = task(4799, "CPU 8/KVM", &cpus("2,14"));
        process(facts, 0).threads.push(thread);
    });
    assert_eq!(
        extra[0].verdict,
        differs("thread 4799 `CPU 8/KVM`", "no such vCPU", "2,14")
    );
    assert_eq!(extra[1].verdict, differs(what, "8", "9"));
}

#[test]
fn an_emulated_vcpu_differs() {
    let found = one(|facts| process(facts, 1).threads[3].comm = "CPU 0/TCG".into());
    assert_eq!(
        found,
        (
            "vcpu-threads",
            differs("thread 5710 `CPU 0/TCG`", "run by KVM", "emulated")
        )
    );
}

#[test]
fn the_main_thread_has_exactly_the_emulators_cpus() {
    let found = one(|facts| process(facts, 0).threads[0].allowed = cpus("2"));
    assert_eq!(
        found,
        (
            "emulator-threads",
            differs("thread 4700 `qemu-system-x86`", "2,14", "2")
        )
    );
}

#[test]
fn a_thread_of_unknown_role_may_have_fewer_cpus_of_the_pool_and_no_others() {
    assert!(
        damaged(|facts| {
            let thread = task(4795, "iou-wrk-4702", &cpus("14"));
            process(facts, 0).threads.push(thread);
        })
        .is_empty()
    );
    let found = one(|facts| {
        let thread = task(4795, "vnc_worker", &cpus("2,4"));
        process(facts, 0).threads.push(thread);
    });
    assert_eq!(
        found,
        (
            "emulator-threads",
            differs("thread 4795 `vnc_worker`", "within 2,14", "2,4")
        )
    );
}

#[test]
fn kvms_huge_page_recovery_may_sit_on_a_vcpus_cpu_of_its_slice_only() {
    let with = |on: &str| {
        damaged(|facts| {
            let mut thread = task(4797, "kvm-nx-lpage-re", &cpus(on));
            thread.kernel_worker = true;
            process(facts, 0).threads.push(thread);
        })
    };
    assert_eq!(with("10"), []);
    assert_eq!(
        only(&with("11")).1,
        differs(
            "thread 4797 `kvm-nx-lpage-re`",
            "within 2,4,6,8,10,14,16,18,20,22",
            "11"
        )
    );
    // A thread of that name which the kernel did not make is any other thread.
    let found = one(|facts| {
        let thread = task(4797, "kvm-nx-lpage-re", &cpus("10"));
        process(facts, 0).threads.push(thread);
    });
    assert_eq!(
        found.1,
        differs("thread 4797 `kvm-nx-lpage-re`", "within 2,14", "10")
    );
}

#[test]
fn an_iothread_elsewhere_missing_or_too_many_differs() {
    let elsewhere = one(|facts| process(facts, 0).threads[2].allowed = cpus("4"));
    assert_eq!(
        elsewhere,
        (
            "iothreads",
            differs("thread 4702 `IO iothread1`", "2,14", "4")
        )
    );
    let missing = one(|facts| {
        process(facts, 0)
            .threads
            .retain(|t| t.comm != "IO iothread1")
    });
    assert_eq!(
        missing,
        (
            "iothreads",
            differs("IOThread 1 of process 4700", "2,14", "no such thread")
        )
    );
    let extra = one(|facts| {
        let thread = task(4796, "IO iothread2", &cpus("2,14"));
        process(facts, 0).threads.push(thread);
    });
    assert_eq!(
        extra,
        (
            "iothreads",
            differs("thread 4796 `IO iothread2`", "no such IOThread", "2,14")
        )
    );
}

#[test]
fn threads_without_names_prove_nothing() {
    let findings = damaged(|facts| {
        for thread in &mut process(facts, 0).threads {
            thread.comm = "qemu-system-x86".into();
        }
    });
    let checks: Vec<_> = findings.iter().map(|f| f.check).collect();
    assert_eq!(checks, ["vcpu-threads", "iothreads", "emulator-threads"]);
    assert!(
        findings
            .iter()
            .all(|f| matches!(f.verdict, Verdict::Unknown { .. }))
    );
}
