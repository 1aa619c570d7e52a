//! Facts that satisfy the plan, damaged in one place each: exactly that place is reported, with
//! what was wanted and what is.

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
    for check in crate::CHECKS {
        // Red has no VF; every check finds something to look at in one of the two slices.
        assert!(
            report.findings.iter().any(|f| f.check == check.name),
            "{} gave nothing",
            check.name
        );
    }
}

// -- threads ---------------------------------------------------------------------------------

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

// -- pins and domains ------------------------------------------------------------------------

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
fn a_domain_without_kvm_or_autostart_differs() {
    let found = one(|facts| facts.guests[0].live.as_mut().unwrap().kind = "qemu".into());
    let kind = differs(
        "the type of the domain `Red_k8s_cluster_worker1`",
        "kvm",
        "qemu",
    );
    assert_eq!(found, ("domain", kind));
    let (check, verdict) = one(|facts| facts.domains.as_mut().unwrap()[1].autostart = false);
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

// -- memory ----------------------------------------------------------------------------------

#[test]
fn memory_on_the_wrong_node_differs() {
    let found = one(|facts| {
        let ram = &mut process(facts, 0).memory.as_mut().unwrap()[0];
        ram.touched = [
            (NumaNodeId(0), ByteSize::from_gib(6)),
            (NumaNodeId(1), ByteSize::from_gib(2)),
        ]
        .into();
    });
    assert_eq!(
        found,
        (
            "memory",
            differs(
                "the guest's memory",
                "8GiB on node 0 in huge pages of 1GiB",
                "6GiB on node 0, 2GiB on node 1 in huge pages of 1GiB, 8GiB mapped"
            )
        )
    );
}

#[test]
fn memory_of_other_pages_differs() {
    let found = one(|facts| {
        process(facts, 0).memory.as_mut().unwrap()[0].page = ByteSize::from_mib(2);
    });
    assert_eq!(
        found,
        (
            "memory",
            differs(
                "the guest's memory",
                "8GiB on node 0 in huge pages of 1GiB",
                "no memory in huge pages of 1GiB, some in huge pages of 2MiB"
            )
        )
    );
}

#[test]
fn memory_not_touched_yet_is_pending_and_a_smaller_guest_differs() {
    let half = |facts: &mut Observed| {
        let ram = &mut process(facts, 0).memory.as_mut().unwrap()[0];
        ram.touched = [(NumaNodeId(0), ByteSize::from_gib(4))].into();
    };
    let (check, verdict) = one(half);
    assert_eq!(check, "memory");
    assert_eq!(
        verdict,
        Verdict::pending(
            "QEMU has touched all of the guest's memory (4GiB on node 0 of 8GiB on node 0)"
        )
    );
    let (_, verdict) = one(|facts| {
        half(facts);
        process(facts, 0).memory.as_mut().unwrap()[0].length = Some(ByteSize::from_gib(4));
    });
    assert!(matches!(verdict, Verdict::Differs { .. }), "{verdict:?}");
}

#[test]
fn plain_memory_is_proved_by_its_policy_where_it_is_not_touched_yet() {
    let plain = |policy: Policy| {
        let mut parts = parts();
        parts.slices[0].huge_pages = None;
        parts.slices[0].memory = GIB;
        parts.slices[0].cells[0].memory = GIB;
        let mut facts = observed();
        let process = process(&mut facts, 0);
        process.backends[0].size = GIB;
        let ram = &mut process.memory.as_mut().unwrap()[0];
        ram.huge = false;
        ram.page = ByteSize::from_kib(4);
        ram.length = Some(GIB);
        ram.policy = policy;
        ram.file = None;
        ram.touched = [(NumaNodeId(0), ByteSize::from_mib(300))].into();
        open(&Plan::new(parts).unwrap(), &facts, FDB)
    };
    assert_eq!(plain(Policy::Bind([NumaNodeId(0)].into())), []);
    let (check, verdict) = only(&plain(Policy::Loose("default".into())));
    assert_eq!(check, "memory");
    assert!(matches!(verdict, Verdict::Pending { .. }), "{verdict:?}");
    let (_, verdict) = only(&plain(Policy::Bind([NumaNodeId(0), NumaNodeId(1)].into())));
    assert!(matches!(verdict, Verdict::Pending { .. }), "{verdict:?}");
}

#[test]
fn cells_that_were_swapped_differ_although_the_sums_agree() {
    let mut parts = parts();
    let slice = &mut parts.slices[0];
    let mut second = slice.cells[0].clone();
    slice.cells[0].memory = ByteSize::from_gib(4);
    slice.cells[0].vcpus = cpus("0-3");
    second.node = NumaNodeId(1);
    second.memory = ByteSize::from_gib(4);
    second.vcpus = cpus("4-7");
    slice.cells.push(second);
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    let process = process(&mut facts, 0);
    let four = ByteSize::from_gib(4);
    process.memory = Ok(vec![
        ram(NumaNodeId(0), four, GIB),
        ram(NumaNodeId(1), four, GIB),
    ]);
    let mut backend = process.backends[0].clone();
    backend.size = four;
    backend.cell = 1;
    process.backends[0].size = four;
    process.backends.push(backend);
    process.backends[0].bound = Some(vec![NumaNodeId(1)]);
    let findings = open(&plan, &facts, FDB);
    let verdicts: Vec<_> = findings.iter().map(|f| f.verdict.clone()).collect();
    assert_eq!(
        verdicts,
        [
            differs(
                "the memory of guest cell 0",
                "4GiB bound to node 0",
                "4GiB bound to node 1"
            ),
            differs(
                "the memory of guest cell 1",
                "4GiB bound to node 1",
                "4GiB bound to node 0"
            ),
        ]
    );
}

// -- host ------------------------------------------------------------------------------------

#[test]
fn isolation_that_is_silently_absent_differs() {
    let found = one(|facts| facts.inventory.boot.isolated = cpus(""));
    assert_eq!(
        found,
        (
            "isolated-cpus",
            differs("the CPUs isolated at boot", "2-11,14-23", "none")
        )
    );
}

#[test]
fn isolated_partitions_count_when_they_are_what_was_planned() {
    let mut parts = parts();
    parts.host.isolation = Isolation::Dynamic;
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    facts.inventory.boot.isolated = cpus("");
    let (check, _) = only(&open(&plan, &facts, FDB));
    assert_eq!(check, "isolated-cpus");
    facts.partitioned = cpus("2-11,14-23");
    assert_eq!(open(&plan, &facts, FDB), []);
}

#[test]
fn a_kernel_argument_missing_changed_or_overridden_differs() {
    let with = |change: fn(String) -> String| {
        one(move |facts| {
            let line = &mut facts.inventory.boot.cmdline;
            *line = change(line.to_string()).parse().unwrap();
        })
    };
    let arg = |key: &str, want: &str, got: &str| {
        let what = format!("the kernel argument `{key}`");
        ("kernel-arguments", differs(&what, want, got))
    };
    assert_eq!(
        with(|line| line.replace("iommu=pt ", "")),
        arg("iommu", "iommu=pt", "not there")
    );
    assert_eq!(
        with(|line| line.replace("irqaffinity=0-1,12-13", "irqaffinity=0-23")),
        arg("irqaffinity", "irqaffinity=0-1,12-13", "irqaffinity=0-23")
    );
    assert_eq!(
        with(|line| line + " isolcpus=3"),
        arg(
            "isolcpus",
            "isolcpus=domain,managed_irq,2-11,14-23",
            "isolcpus=domain,managed_irq,2-11,14-23, overridden by a later isolcpus=3"
        )
    );
    assert!(
        damaged(|facts| {
            let line = &mut facts.inventory.boot.cmdline;
            *line = format!("{line} hugepagesz=2M hugepages=512")
                .parse()
                .unwrap();
        })
        .is_empty(),
        "another page size overrides nothing"
    );
}

#[test]
fn too_few_huge_pages_or_virtual_functions_differ() {
    let found = one(|facts| facts.inventory.nodes[1].huge_pages[1].total = 7);
    let what = "huge pages of 1GiB on node 1";
    assert_eq!(found, ("huge-pages", differs(what, "at least 8", "7")));
    let found = one(|facts| {
        let pf = function(facts, "0000:81:00.0");
        pf.sriov.as_mut().unwrap().current = 0;
    });
    let what = "virtual functions of 0000:81:00.0";
    assert_eq!(
        found,
        ("virtual-functions", differs(what, "at least 1", "0"))
    );
}

#[test]
fn a_stranger_on_a_slices_cpu_differs_unless_nobody_promised_quiet() {
    let stranger = || Stranger {
        pid: 99,
        task: task(99, "stress", &cpus("7")),
    };
    let found = one(|facts| facts.strangers = Ok(vec![stranger()]));
    assert_eq!(
        found,
        (
            "quiet-cpus",
            differs(
                "process 99 (`stress`, thread 99)",
                "not on the CPUs of slice `Blue_k8s_cluster_worker1`",
                "last ran on CPU 7, allowed 7"
            )
        )
    );
    let mut parts = parts();
    parts.host.isolation = Isolation::None;
    let mut facts = observed();
    facts.strangers = Ok(vec![stranger()]);
    assert_eq!(open(&Plan::new(parts).unwrap(), &facts, FDB), []);
}

// -- devices ---------------------------------------------------------------------------------

#[test]
fn a_function_with_another_driver_or_gone_differs() {
    let findings = damaged(|facts| {
        function(facts, "0000:01:00.0").driver = Some("ixgbe".into());
    });
    let seen: Vec<_> = findings.iter().map(|f| (f.check, &f.verdict)).collect();
    let what = "the driver of 0000:01:00.0, of IOMMU group 25";
    assert_eq!(
        seen,
        [
            (
                "devices",
                &differs("the driver of 0000:01:00.0", "vfio-pci", "ixgbe")
            ),
            ("iommu-groups", &differs(what, "vfio-pci or none", "ixgbe")),
        ]
    );
    let findings = damaged(|facts| {
        let gone = address("0000:01:00.0");
        facts.inventory.pci.retain(|f| f.address != gone);
    });
    assert_eq!(
        findings[0].verdict,
        differs("the PCI function 0000:01:00.0", "there", "not there")
    );
    assert!(matches!(findings[1].verdict, Verdict::Unknown { .. }));
}

#[test]
fn another_card_at_the_address_differs() {
    let found = one(|facts| {
        function(facts, "0000:01:00.0").id = "8086:1521".parse().unwrap();
    });
    let what = "the device at 0000:01:00.0";
    assert_eq!(found, ("devices", differs(what, "8086:1528", "8086:1521")));
    let found = one(|facts| {
        function(facts, "0000:81:10.0").physfn = Some(address("0000:01:00.0"));
    });
    let what = "the device at 0000:81:10.0";
    assert_eq!(
        found,
        (
            "devices",
            differs(what, "VF 0 of 0000:81:00.0", "a VF of 0000:01:00.0")
        )
    );
}

#[test]
fn a_member_of_the_group_with_a_host_driver_differs_and_a_bridge_does_not() {
    let found = one(|facts| {
        let pf = function(facts, "0000:81:00.0");
        pf.iommu_group = Some(IommuGroupId(25));
    });
    assert_eq!(
        found,
        (
            "iommu-groups",
            differs(
                "the driver of 0000:81:00.0, of IOMMU group 25",
                "vfio-pci or none",
                "igb"
            )
        )
    );
}

#[test]
fn a_group_that_qemu_does_not_hold_open_differs() {
    let found = one(|facts| process(facts, 0).vfio = Ok(vec!["/dev/vfio/7".into()]));
    assert_eq!(
        found,
        (
            "iommu-groups",
            differs(
                "the IOMMU group of 0000:01:00.0",
                "process 4700 holds /dev/vfio/25 open",
                "it holds /dev/vfio/7 open"
            )
        )
    );
    assert!(
        damaged(|facts| {
            process(facts, 0).vfio =
                Ok(vec!["/dev/iommu".into(), "/dev/vfio/devices/vfio0".into()]);
        })
        .is_empty(),
        "iommufd opens the device"
    );
}

#[test]
fn the_running_definition_has_the_planned_functions_and_no_others() {
    let findings = damaged(|facts| {
        let live = facts.guests[0].live.as_mut().unwrap();
        live.hostdevs[0].address = address("0000:01:00.1");
    });
    let verdicts: Vec<_> = findings.iter().map(|f| f.verdict.clone()).collect();
    let given = "given to the guest";
    let what = |at| format!("the function 0000:01:00.{at} in the running definition");
    assert_eq!(
        verdicts,
        [
            differs(&what(0), given, "not there"),
            differs(&what(1), "not there", given)
        ]
    );
}

#[test]
fn a_vf_with_another_mac_vlan_or_trust_differs() {
    let vf = |change: fn(&mut crate::VfState)| {
        one(move |facts| {
            let vfs = &mut facts.guests[1].vfs;
            change(
                vfs.get_mut(&address("0000:81:10.0"))
                    .unwrap()
                    .as_mut()
                    .unwrap(),
            );
        })
    };
    let of = "VF 0 of 0000:81:00.0 (0000:81:10.0)";
    let says = |what: &str, want, got| {
        (
            "vf-settings",
            differs(&format!("the {what} {of}"), want, got),
        )
    };
    assert_eq!(
        vf(|state| state.vlan = Some(vlan(101))),
        says("VLAN of", "VLAN 102", "VLAN 101")
    );
    assert_eq!(
        vf(|state| state.vlan = None),
        says("VLAN of", "VLAN 102", "no VLAN")
    );
    assert_eq!(
        vf(|state| state.mac = Some("02:00:00:00:00:09".parse().unwrap())),
        says("MAC of", "52:54:00:6d:90:02", "02:00:00:00:00:09")
    );
    assert_eq!(
        vf(|state| state.trust = Some(true)),
        says("trust in", "not trusted", "trusted")
    );
    assert!(
        damaged(|facts| {
            let state = facts.guests[1]
                .vfs
                .get_mut(&address("0000:81:10.0"))
                .unwrap();
            state.as_mut().unwrap().trust = None;
        })
        .is_empty(),
        "a driver without trust trusts nobody"
    );
}

#[test]
fn a_definition_with_another_vlan_differs() {
    let found = one(|facts| facts.guests[1].live.as_mut().unwrap().hostdevs[0].vlan = None);
    assert_eq!(
        found,
        (
            "hostdevs",
            differs(
                "the VLAN of 0000:81:10.0 in the running definition",
                "VLAN 102",
                "no VLAN"
            )
        )
    );
}

// -- fabric ----------------------------------------------------------------------------------

const RED_AT: &str = "where the switch sees bc:30:5b:f2:87:52 (NIC 0)";

fn fabric(text: &str) -> Vec<Finding> {
    open(&plan(), &observed(), text)
}

#[test]
fn a_mac_in_the_wrong_vlan_or_on_the_wrong_port_differs() {
    let wrong = fabric(&FDB.replace("1   101", "1   102"));
    assert_eq!(
        only(&wrong),
        (
            "fabric",
            differs(RED_AT, "port n0p0, VLAN 101", "port n0p0, VLAN 102")
        )
    );
    let wrong = fabric(&FDB.replace("    1   101", "    2   101"));
    assert_eq!(
        only(&wrong),
        (
            "fabric",
            differs(RED_AT, "port n0p0, VLAN 101", "port n1p0, VLAN 101")
        )
    );
    let untagged = fabric(&FDB.replace("1   101", "1     0"));
    assert_eq!(
        only(&untagged).1,
        differs(RED_AT, "port n0p0, VLAN 101", "port n0p0, no VLAN")
    );
}

#[test]
fn a_mac_not_learned_yet_is_pending() {
    let missing = fabric(&FDB.replace("    1   101  bc:30:5b:f2:87:52    3\n", ""));
    assert_eq!(
        only(&missing),
        (
            "fabric",
            Verdict::pending("the guest sends a frame from bc:30:5b:f2:87:52 (NIC 0)")
        )
    );
}

#[test]
fn an_entry_older_than_the_guest_is_not_the_guests() {
    let mut facts = observed();
    process(&mut facts, 0).age = Some(Duration::from_secs(2));
    let (check, verdict) = only(&open(&plan(), &facts, FDB));
    assert_eq!(check, "fabric");
    assert!(matches!(verdict, Verdict::Pending { .. }), "{verdict:?}");
}

#[test]
fn one_mac_on_two_ports_differs_and_in_a_second_vlan_too() {
    let two = fabric(&format!("{FDB}    2   101  bc:30:5b:f2:87:52    0\n"));
    assert_eq!(
        only(&two).1,
        differs(
            RED_AT,
            "one port",
            "port n0p0, VLAN 101; port n1p0, VLAN 101: a loop, or two cards with one MAC"
        )
    );
    let leak = fabric(&format!("{FDB}    1   102  bc:30:5b:f2:87:52    0\n"));
    assert_eq!(
        only(&leak).1,
        differs(
            RED_AT,
            "port n0p0, VLAN 101",
            "port n0p0, VLAN 101; port n0p0, VLAN 102"
        )
    );
}

#[test]
fn a_static_entry_and_an_unnamed_port_prove_nothing() {
    let fixed = fabric(&FDB.replace("bc:30:5b:f2:87:52    3", "bc:30:5b:f2:87:52 static"));
    assert!(matches!(only(&fixed).1, Verdict::Unknown { .. }));
    let (_, numbers) = FDB.split_once(" port").unwrap();
    let unnamed = fabric(&format!(" port{numbers}"));
    assert_eq!(unnamed.len(), 2);
    assert!(
        unnamed
            .iter()
            .all(|f| matches!(f.verdict, Verdict::Unknown { .. }))
    );
}

#[test]
fn without_a_table_only_what_was_asked_for_is_unknown() {
    let report = crate::compare(&plan(), &observed(), None);
    let open: Vec<_> = report.open().map(|f| f.check).collect();
    assert_eq!(open, ["fabric", "fabric"]);
    let mut parts = parts();
    for slice in &mut parts.slices {
        forget_fabric(&mut slice.nics[0]);
    }
    let plan = Plan::new(parts).unwrap();
    let report = crate::compare(&plan, &observed(), None);
    assert!(report.holds());
    assert!(report.findings.iter().all(|f| f.check != "fabric"));
}

fn forget_fabric(nic: &mut NicPlan) {
    match nic {
        NicPlan::Passthrough { nic, .. }
        | NicPlan::Vf { nic, .. }
        | NicPlan::Virtio { nic, .. } => {
            nic.fabric = None;
        }
    }
}

#[test]
fn a_table_for_a_card_nobody_asked_about_informs_and_still_finds_a_wrong_vlan() {
    let mut parts = parts();
    for slice in &mut parts.slices {
        forget_fabric(&mut slice.nics[0]);
    }
    let plan = Plan::new(parts).unwrap();
    assert_eq!(open(&plan, &observed(), FDB), []);
    // Nothing is asked of Red; the VLAN that Blue's VF adds is what the switch must see.
    let wrong = FDB
        .replace("1   101", "1   103")
        .replace("2   102", "2   103");
    let findings = open(&plan, &observed(), &wrong);
    assert_eq!(findings[0].slice.as_ref().unwrap().as_str(), BLUE);
    assert_eq!(
        only(&findings).1,
        differs(
            "where the switch sees 52:54:00:6d:90:02 (NIC 0)",
            "any port, VLAN 102",
            "port n1p0, VLAN 103"
        )
    );
    assert_eq!(
        open(&plan, &observed(), " port  VLAN  MAC                Age\n"),
        []
    );
}

#[test]
fn the_seeds_tables_prove_ports_and_vlan_names() {
    let junos = "\
fabric-switch> show ethernet-switching table | match
bc:30:5b:f2:87:52
  Red_Tenant_Network    bc:30:5b:f2:87:52 Learn          0 ge-0/0/9.0
  Blue_Tenant_Network   52:54:00:6d:90:02 Learn       4:17 ge-
0/0/8.0
";
    let mut parts = parts();
    let mut expect = |slice: usize, port: &str, name: &str| {
        let (NicPlan::Passthrough { nic, .. } | NicPlan::Vf { nic, .. }) =
            &mut parts.slices[slice].nics[0]
        else {
            unreachable!()
        };
        let fabric = nic.fabric.as_mut().unwrap();
        fabric.port = Some(port.into());
        fabric.vlan = None;
        fabric.vlan_name = Some(name.into());
    };
    expect(0, "ge-0/0/9", "Red_Tenant_Network");
    expect(1, "ge-0/0/8.0", "Blue_Tenant_Network");
    let plan = Plan::new(parts).unwrap();
    assert_eq!(open(&plan, &observed(), junos), []);
    let swapped = junos.replace("ge-0/0/9.0", "ge-0/0/7.0");
    assert_eq!(
        only(&open(&plan, &observed(), &swapped)).1,
        differs(
            RED_AT,
            "port ge-0/0/9, VLAN Red_Tenant_Network",
            "port ge-0/0/7.0, VLAN Red_Tenant_Network"
        )
    );
}

#[test]
fn a_vlan_told_by_name_and_wanted_by_number_is_unknown() {
    let junos = "  Red_Tenant_Network    bc:30:5b:f2:87:52 Learn          0 n0p0.0\n  102 52:54:00:6d:90:02 Learn 0 n1p0.0\n";
    let findings = fabric(junos);
    assert!(matches!(only(&findings).1, Verdict::Unknown { .. }));
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
