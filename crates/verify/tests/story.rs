//! The example's two slices, applied to the fake lab server and verified there: as planned all
//! holds, and what somebody changes by hand afterwards is found.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

use bmslice_apply::{ApplyOptions, Outcome, Phase, apply, resume};
use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_host::{Command, Machine};
use bmslice_inventory::LiveInventory;
use bmslice_model::ByteSize;
use bmslice_plan::Plan;
use bmslice_spec::Slicing;
use bmslice_verify::{FabricTable, Report, Verdict, verify};

const RED: &str = "red-worker1";
const BINARY: &str = "/usr/local/bin/bmslice";

fn inventory(fake: &FakeMachine) -> LiveInventory {
    LiveInventory::read(fake, None).unwrap()
}

fn planned() -> (FakeMachine, Plan) {
    let fake = FakeMachine::new(FakeServer::lab());
    fake.add_image(
        "/var/lib/libvirt/images/debian-12-guest.qcow2",
        ByteSize::from_gib(2),
        ByteSize::from_mib(1),
    );
    fake.put_with_mode(
        "/usr/sbin/grub-mkconfig",
        "#!/bin/sh\nfor x in ${sysconfdir}/default/grub.d/*.cfg ; do . $x; done\n",
        0o755,
    );
    let spec = include_str!("../../../examples/red-blue.yaml");
    let slicing = Slicing::parse("red-blue.yaml", spec).unwrap();
    let plan = bmslice_planner::plan(&slicing, &inventory(&fake)).unwrap();
    (fake, plan)
}

fn applied() -> (FakeMachine, Plan) {
    let (fake, plan) = planned();
    let options = ApplyOptions {
        allow_reboot: true,
        binary: BINARY.into(),
        ..ApplyOptions::default()
    };
    let outcome = apply(&fake, &inventory(&fake), &plan, &options, &mut |_| {}).unwrap();
    assert_eq!(outcome, Outcome::Rebooting);
    fake.reboot_with(|fake| {
        resume(fake, Phase::Host, BINARY, &mut |_| {}).unwrap();
    });
    resume(&fake, Phase::All, BINARY, &mut |_| {}).unwrap();
    (fake, plan)
}

/// What the lab's switch shows when both guests have sent a frame.
fn fabric(plan: &Plan) -> String {
    let mut text = String::from(
        " 1(n0p0): addr:fe:57:04:df:56:a5\n 4(n1p1): addr:8a:3b:83:09:f6:94\n port  VLAN  MAC                Age\n",
    );
    for (slice, at) in plan.slices().iter().zip(["    1   101", "    4   102"]) {
        let mac = slice.nics[0].common().mac.unwrap();
        text.push_str(&format!("{at}  {mac}    0\n"));
    }
    text
}

fn look(fake: &FakeMachine, plan: &Plan, fabric: &str) -> Report {
    let table = FabricTable::parse(fabric).unwrap();
    verify(fake, &inventory(fake), plan, Some(&table))
}

fn open(report: &Report) -> Vec<String> {
    report
        .open()
        .map(|f| match &f.verdict {
            Verdict::Differs { what, want, got } => {
                format!("{}: {what}: wants {want}, is {got}", f.check)
            }
            other => format!("{}: {other:?}", f.check),
        })
        .collect()
}

#[test]
fn what_apply_made_is_what_verify_wants() {
    let (fake, plan) = applied();
    let report = look(&fake, &plan, &fabric(&plan));
    assert_eq!(open(&report), [""; 0]);
    assert!(report.holds());
}

#[test]
fn before_apply_nothing_holds() {
    let (fake, plan) = planned();
    let report = verify(&fake, &inventory(&fake), &plan, None);
    assert!(!report.holds());
    assert!(
        report
            .findings
            .iter()
            .filter(|f| f.slice.is_some() && f.verdict.is_satisfied())
            .all(|f| f.check == "alone"),
        "{report:#?}"
    );
}

#[test]
fn a_pin_changed_by_hand_is_found_with_both_cpu_lists() {
    let (fake, plan) = applied();
    let slice = plan.slice(RED).unwrap();
    let cpus = "0-23".parse().unwrap();
    fake.vcpupin(RED, 3, &cpus);
    let found = open(&look(&fake, &plan, &fabric(&plan)));
    let planned = slice.vcpus[3];
    assert_eq!(found.len(), 3, "{found:#?}");
    assert_eq!(
        found[0],
        format!("pins: the pin of vCPU 3 by libvirt: wants {planned}, is 0-23")
    );
    assert!(found[1].starts_with("vcpu-threads: thread "));
    assert!(found[1].ends_with(&format!("`CPU 3/KVM`: wants {planned}, is 0-23")));
    // Every CPU is Blue's CPUs, too.
    assert!(found[2].starts_with("alone: the CPUs of the domain `red-worker1`"));
}

#[test]
fn a_vf_moved_to_another_vlan_by_hand_is_found() {
    let (fake, plan) = applied();
    let command = ["link", "set", "enp130s0", "vf", "0", "vlan", "101"];
    fake.run(&Command::new("ip", command)).unwrap();
    let found = open(&look(&fake, &plan, &fabric(&plan)));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("vf-settings: the VLAN of VF 0 of 0000:82:00.0"));
    assert!(found[0].ends_with("wants VLAN 102, is VLAN 101"));
}

#[test]
fn a_nic_in_the_wrong_vlan_of_the_switch_is_found() {
    let (fake, plan) = applied();
    let wrong = fabric(&plan).replace("    1   101", "    1   102");
    let found = open(&look(&fake, &plan, &wrong));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("fabric: where the switch sees "));
    assert!(found[0].ends_with("wants port n0p0, VLAN 101, is port n0p0, VLAN 102"));
}

#[test]
fn a_guest_that_was_stopped_is_found() {
    let (fake, plan) = applied();
    fake.hypervisor().unwrap().destroy(RED).unwrap();
    let report = look(&fake, &plan, &fabric(&plan));
    let found = open(&report);
    assert_eq!(
        found[0],
        "domain: the domain `red-worker1`: wants running, is shut off"
    );
    assert!(
        report
            .open()
            .all(|f| f.slice.as_ref().is_some_and(|s| s.as_str() == RED)),
        "{found:#?}"
    );
}

/// The same slices without a reboot.
fn dynamic() -> (FakeMachine, Plan) {
    let fake = FakeMachine::new(FakeServer {
        iommu: bmslice_host::fake::FakeIommu::IntelByDefault,
        ..FakeServer::lab()
    });
    fake.add_image(
        "/var/lib/libvirt/images/debian-12-guest.qcow2",
        ByteSize::from_gib(2),
        ByteSize::from_mib(1),
    );
    let spec = include_str!("../../../examples/red-blue.yaml")
        .replace("isolation: boot", "isolation: dynamic")
        .replace("hugepages: 1GiB", "hugepages: 2MiB");
    let slicing = Slicing::parse("red-blue.yaml", &spec).unwrap();
    let plan = bmslice_planner::plan(&slicing, &inventory(&fake)).unwrap();
    let options = ApplyOptions {
        binary: BINARY.into(),
        ..ApplyOptions::default()
    };
    let outcome = apply(&fake, &inventory(&fake), &plan, &options, &mut |_| {}).unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    (fake, plan)
}

#[test]
fn isolation_without_a_reboot_holds_and_what_undoes_it_is_found() {
    let (fake, plan) = dynamic();
    let fdb = fabric(&plan);
    assert_eq!(open(&look(&fake, &plan, &fdb)), [""; 0]);
    fake.type_in("systemctl", &["daemon-reload"]).unwrap();
    assert_eq!(open(&look(&fake, &plan, &fdb)), [""; 0]);
    // Somebody gives another group CPUs of the slices: the kernel ends the partition.
    fake.put(
        "/etc/systemd/system/kube.slice",
        "[Slice]\nAllowedCPUs=4-7\n",
    );
    fake.type_in("systemctl", &["start", "kube.slice"]).unwrap();
    let found = open(&look(&fake, &plan, &fdb)).join("\n");
    assert!(
        found.contains("isolated invalid (Cpu list in cpuset.cpus not exclusive)"),
        "{found}"
    );
    assert!(found.contains("the CPUs of unbound workqueues") || found.contains("isolated"));
    // Somebody sets a unit free, and moves an interrupt.
    let (fake, plan) = dynamic();
    fake.delete("/etc/systemd/system/system.slice.d/90-bmslice.conf");
    let group = std::path::Path::new("/sys/fs/cgroup/user.slice/cpuset.cpus");
    let error = fake.write_attribute(group, "").unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
    fake.write_attribute(group, "0").unwrap();
    let irq = std::path::Path::new("/proc/irq/24/smp_affinity_list");
    fake.write_attribute(irq, "0-23").unwrap();
    let found = open(&look(&fake, &plan, &fdb));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("`user.slice`"), "{found:?}");
    assert!(found[1].contains("interrupt 24"), "{found:?}");
}
