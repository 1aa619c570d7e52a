//! Isolation without a reboot: made, kept through `daemon-reload` and boots, and given back.

use bmslice_apply::{ApplyError, Outcome, Phase, resume};
use bmslice_host::Machine;
use bmslice_host::fake::{Failure, FakeServer, Moment, On};
use bmslice_spec::Isolation;

use crate::support::*;

const PARTITION: &str = "/sys/fs/cgroup/bmslice.slice/cpuset.cpus.partition";
const HOST: &str = "0-1,12-13";
const SLICES: &str = "2-11,14-23";

/// A server whose IOMMU is on, so that nothing wants a reboot.
fn server() -> Server {
    let fake = machine_of(FakeServer {
        iommu: bmslice_host::fake::FakeIommu::IntelByDefault,
        ..FakeServer::lab()
    });
    let spec = spec().replace("hugepages: 1GiB", "hugepages: 2MiB");
    let plan = plan(&fake, &dynamic(&spec));
    Server { fake, plan }
}

fn dynamic(spec: &str) -> String {
    let changed = spec.replace("isolation: boot", "isolation: dynamic");
    assert_ne!(spec, changed);
    changed
}

fn read(server: &Server, path: &str) -> String {
    server.fake.root().attribute(path).unwrap_or_default()
}

fn assert_isolated(server: &Server) {
    assert_eq!(read(server, PARTITION), "isolated");
    let root = "/sys/fs/cgroup";
    assert_eq!(
        read(server, &format!("{root}/cpuset.cpus.isolated")),
        SLICES
    );
    for unit in ["init.scope", "system.slice", "user.slice", "machine.slice"] {
        assert_eq!(
            read(server, &format!("{root}/{unit}/cpuset.cpus")),
            HOST,
            "{unit}"
        );
    }
    assert_eq!(read(server, "/proc/irq/24/smp_affinity_list"), HOST);
    assert_eq!(read(server, "/proc/irq/default_smp_affinity"), "3003");
    assert_eq!(
        read(server, "/sys/devices/virtual/workqueue/cpumask"),
        "3003"
    );
    let thread = server.fake.root().read_text("/proc/60/status").unwrap();
    assert!(
        thread.contains(&format!("Cpus_allowed_list:\t{HOST}\n")),
        "{thread}"
    );
}

fn applied() -> Server {
    let server = server();
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    server
}

#[test]
fn cpus_are_isolated_without_a_reboot_and_given_back_as_they_were() {
    let server = server();
    let (before, facts_before) = (state(&server.fake), facts(&server.fake));
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(!server.fake.reboot_requested());
    assert_isolated(&server);
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    let xml = server
        .fake
        .hypervisor()
        .unwrap()
        .xml("red-worker1", false)
        .unwrap();
    assert!(xml.contains("<partition>/bmslice</partition>"), "{xml}");
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    server.release().unwrap();
    let folder = "/etc/systemd/system/system.slice.d";
    assert!(
        !server.fake.root().exists(folder),
        "not even an empty folder"
    );
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    assert_eq!(facts_before, facts(&server.fake));
}

#[test]
fn a_daemon_reload_and_a_boot_leave_it_in_force() {
    let server = applied();
    let sliced = state(&server.fake);
    server
        .fake
        .type_in("systemctl", &["daemon-reload"])
        .unwrap();
    assert_isolated(&server);
    assert_eq!(differences(&sliced, &state(&server.fake)), [""; 0]);
    let outcome = server.reboot().unwrap().unwrap();
    assert_eq!(
        outcome,
        Outcome::Done { changed: 2 },
        "the host's unit made it again, before libvirt; the other started the guests"
    );
    assert_isolated(&server);
    assert!(server.is_running("red-worker1"));
    server.release().unwrap();
    server.fake.reboot();
    let fresh = self::server();
    assert_eq!(
        differences(&state(&fresh.fake), &state(&server.fake)),
        [""; 0]
    );
}

#[test]
fn a_release_in_another_boot_puts_back_what_that_boot_had() {
    let server = applied();
    server.reboot().unwrap().unwrap();
    server.release().unwrap();
    let fresh = self::server();
    assert_eq!(
        differences(&state(&fresh.fake), &state(&server.fake)),
        [""; 0]
    );
}

#[test]
fn an_older_kernels_threads_and_workers_are_moved_by_hand() {
    let fake = machine_of(FakeServer {
        iommu: bmslice_host::fake::FakeIommu::IntelByDefault,
        kernel: "6.1.0-26-amd64".into(),
        ..FakeServer::lab()
    });
    let plan = plan(
        &fake,
        &dynamic(&spec().replace("hugepages: 1GiB", "hugepages: 2MiB")),
    );
    let server = Server { fake, plan };
    let before = state(&server.fake);
    server.apply().unwrap();
    assert_isolated(&server);
    let bound = server.fake.root().read_text("/proc/15/status").unwrap();
    assert!(
        bound.contains("Cpus_allowed_list:\t5\n"),
        "ksoftirqd/5 stays: {bound}"
    );
    assert!(
        server
            .fake
            .effects()
            .iter()
            .any(|e| e.contains("taskset -pc 0-1,12-13 60"))
    );
    assert!(!server.fake.effects().iter().any(|e| e.ends_with(" 15")));
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn interrupts_that_the_kernel_manages_are_tried_once() {
    let server = applied();
    let tries = |server: &Server| {
        let effects = server.fake.effects();
        effects.iter().filter(|e| e.contains("irq/26/")).count()
    };
    assert_eq!(tries(&server), 1);
    assert_eq!(read(&server, "/proc/irq/26/smp_affinity_list"), "0-23");
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    assert_eq!(tries(&server), 1);
}

#[test]
fn cpus_that_another_group_has_are_no_partition_and_the_reason_is_the_kernels() {
    let server = server();
    let systemd = "/etc/systemd/system/kube.slice";
    server.fake.put(systemd, "[Slice]\nAllowedCPUs=4-7\n");
    server
        .fake
        .type_in("systemctl", &["start", "kube.slice"])
        .unwrap();
    let before = state(&server.fake);
    let error = server.apply().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("isolated invalid (Cpu list in cpuset.cpus not exclusive)")
            && text.contains("`kube.slice` was given CPUs 4-7"),
        "{text}"
    );
    assert!(!server.is_running("red-worker1"));
    server.release().unwrap();
    // That group keeps systemd from taking the cpuset controller away, and the kernel from leaving
    // groups with processes without CPUs of their own: they have all.
    let mut left = differences(&before, &state(&server.fake));
    left.retain(|line| !line.contains("-> Some(\"cpus `0-23`, member\")"));
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_guest_that_runs_outside_is_not_driven_off_its_cpus() {
    let server = server().change(|parts| {
        parts.host.isolation = Isolation::None;
        for slice in &mut parts.slices {
            slice.partition = None;
        }
    });
    server.apply().unwrap();
    assert!(server.is_running("red-worker1"));
    let plan = self::server().plan;
    let server = Server { plan, ..server };
    let before = state(&server.fake);
    let reasons = refusal(server.apply());
    assert!(
        reasons
            .iter()
            .any(|r| r.contains("`red-worker1` runs on CPUs that become a partition")),
        "{reasons:?}"
    );
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

/// The queues of the two NICs that no slice gets, as their driver tells them.
fn queues(server: &Server) -> Vec<u32> {
    let inventory = inventory(&server.fake);
    let kept = server.plan.host().queues.iter();
    kept.map(|queues| {
        let mut all = inventory.interfaces.iter();
        let nic = all.find(|i| i.pci == Some(queues.device.address)).unwrap();
        let channels = nic.ethtool.as_ref().unwrap().channels.as_ref().unwrap();
        channels.combined.unwrap().now
    })
    .collect()
}

#[test]
fn nics_of_the_hosts_have_no_more_queues_than_the_host_has_cpus() {
    let server = server();
    let before = state(&server.fake);
    assert_eq!(queues(&server), [8, 8], "{:?}", server.plan.host().queues);
    server.apply().unwrap();
    assert_eq!(queues(&server), [4, 4]);
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    server.reboot().unwrap().unwrap();
    assert_eq!(
        queues(&server),
        [4, 4],
        "a boot gives them all, and they are taken again"
    );
    server.release().unwrap();
    assert_eq!(queues(&server), [8, 8]);
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_nic_whose_driver_refuses_keeps_its_queues_and_is_told_of() {
    let server = server();
    server.fake.fail(
        On::Once("run ethtool".into()),
        Moment::Before,
        Failure::Says("netlink error: Device or resource busy".into()),
    );
    let mut notes = Vec::new();
    let outcome = server.apply_with(&server.options(), &mut |event| {
        if let bmslice_apply::Event::Note(note) = event {
            notes.push(note);
        }
    });
    assert!(matches!(outcome, Ok(Outcome::Done { .. })), "{outcome:?}");
    assert!(
        notes
            .iter()
            .any(|n| n.contains("keeps its 8 queues: netlink error: Device or resource busy")),
        "{notes:?}"
    );
    assert_eq!(queues(&server), [8, 4]);
    assert_eq!(
        server.apply().unwrap(),
        Outcome::Nothing,
        "it is not tried again and again"
    );
}

#[test]
fn a_partition_with_guests_in_it_is_not_given_up() {
    let server = applied();
    let server = server.change(|parts| {
        parts.host.isolation = Isolation::None;
        for slice in &mut parts.slices {
            slice.partition = None;
        }
    });
    let before = state(&server.fake);
    let reasons = refusal(server.apply()).join("\n");
    assert!(
        reasons.contains("the plan has no partition any more")
            && reasons.contains("blue-worker1, red-worker1 run"),
        "{reasons}"
    );
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    let libvirt = server.fake.hypervisor().unwrap();
    libvirt.destroy("red-worker1").unwrap();
    libvirt.destroy("blue-worker1").unwrap();
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(server.is_running("red-worker1"));
    assert!(!server.fake.root().exists(PARTITION));
    let xml = libvirt.xml("red-worker1", false).unwrap();
    assert!(!xml.contains("<partition>/bmslice"), "{xml}");
}

#[test]
fn a_server_that_cannot_is_refused_before_anything_is_done() {
    let server = server();
    server
        .fake
        .put("/sys/fs/cgroup/cgroup.controllers", "memory pids\n");
    server.fake.delete("/usr/lib/systemd/systemd-machined");
    let reasons = refusal(server.apply()).join("\n");
    assert!(
        reasons.contains("needs cgroup v2 with cpusets"),
        "{reasons}"
    );
    assert!(reasons.contains("needs systemd-machined"), "{reasons}");
    assert!(
        !server
            .fake
            .root()
            .exists("/etc/systemd/system/bmslice.slice")
    );
}

#[test]
fn an_emulator_on_the_hosts_cpus_is_refused_in_a_partition() {
    let server = server().change(|parts| parts.slices[0].pool_is_host = true);
    let reasons = refusal(server.apply()).join("\n");
    assert!(
        reasons.contains("the emulator of `red-worker1`"),
        "{reasons}"
    );
}

#[test]
fn a_release_beside_a_guest_of_somebody_elses_gives_the_units_all_cpus() {
    let server = server();
    server.apply().unwrap();
    // Its scope keeps systemd from taking the cpuset controller away.
    let xml = "<domain type='kvm'><name>theirs</name><memory>65536</memory><vcpu>1</vcpu>\
               <os><type>hvm</type></os></domain>";
    let libvirt = server.fake.hypervisor().unwrap();
    libvirt.define(xml).unwrap();
    libvirt.start("theirs").unwrap();
    server.release().unwrap();
    for unit in ["init.scope", "system.slice", "user.slice"] {
        let path = format!("/sys/fs/cgroup/{unit}/cpuset.cpus.effective");
        assert_eq!(read(&server, &path), "0-23", "{unit}");
    }
    assert_eq!(read(&server, "/sys/fs/cgroup/cpuset.cpus.isolated"), "");
    assert!(server.is_running("theirs"));
}

#[test]
fn settings_of_the_kernel_are_made_as_asked_and_put_back() {
    let server = server();
    let asked = "isolation: dynamic\n  ksm: false\n  transparentHugePages: madvise\n  governor: performance";
    let spec = dynamic(&spec().replace("hugepages: 1GiB", "hugepages: 2MiB"))
        .replace("isolation: dynamic", asked);
    let plan = plan(&server.fake, &spec);
    let server = Server { plan, ..server };
    let before = state(&server.fake);
    server.apply().unwrap();
    assert_eq!(read(&server, "/sys/kernel/mm/ksm/run"), "2");
    let thp = "/sys/kernel/mm/transparent_hugepage/enabled";
    assert_eq!(read(&server, thp), "always [madvise] never");
    let governor = |cpu: u32| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        read(&server, &path)
    };
    assert_eq!(
        (governor(0), governor(5)),
        ("ondemand".into(), "performance".into())
    );
    server.reboot().unwrap().unwrap();
    assert_eq!(
        governor(5),
        "performance",
        "a boot takes it away, and it is made again"
    );
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    // One that the kernel has not is its own refusal, and nothing is left of the rest.
    let plan = self::plan(&server.fake, &spec.replace("performance", "powersave"));
    let server = Server { plan, ..server };
    server.apply().unwrap_err();
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

/// Cut off at every effect of an apply: finished by the next, or undone at once.
#[test]
fn wherever_it_is_cut_off_it_is_finished_or_undone() {
    let before = state(&server().fake);
    let sliced = state(&applied().fake);
    for (moment, undo) in [
        (Moment::Half, false),
        (Moment::After, false),
        (Moment::After, true),
    ] {
        for n in 1.. {
            let server = server();
            server.fake.crash(On::Nth(n), moment);
            let _ = server.apply();
            let crashed = server.fake.crashed();
            let last = server.fake.effects().last().cloned().unwrap_or_default();
            server.fake.heal();
            server.fake.revive();
            if !crashed {
                assert!(n > 60, "{n} effects");
                break;
            }
            // Half of any other effect is none of it, which is after the one before.
            let halves = ["install", "append"];
            if moment == Moment::Half && !halves.iter().any(|half| last.starts_with(half)) {
                continue;
            }
            let what = format!("effect {n} ({moment:?}, undo {undo}): {last}");
            if !undo {
                server.apply().unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(
                    differences(&sliced, &state(&server.fake)),
                    [""; 0],
                    "{what}"
                );
            }
            server.release().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(
                differences(&before, &state(&server.fake)),
                [""; 0],
                "{what}"
            );
        }
    }
}

/// Cut off at every effect of a release, or of the units after a boot.
#[test]
fn a_release_and_a_boot_that_are_cut_off_are_finished_by_the_next() {
    let before = state(&server().fake);
    let sliced = state(&applied().fake);
    for n in 1.. {
        let server = applied();
        server.fake.crash(On::Nth(n), Moment::After);
        let _ = server.release();
        let crashed = server.fake.crashed();
        server.fake.heal();
        server.fake.revive();
        if !crashed {
            assert!(n > 40, "{n} effects");
            break;
        }
        server
            .release()
            .unwrap_or_else(|e| panic!("release {n}: {e}"));
        assert_eq!(
            differences(&before, &state(&server.fake)),
            [""; 0],
            "release {n}"
        );
    }
    for n in 1.. {
        let server = applied();
        server.fake.reboot_with(|fake| {
            fake.crash(On::Nth(n), Moment::After);
            let _ = resume(fake, Phase::Host, BINARY, &mut |_| {});
        });
        let crashed = server.fake.crashed();
        server.fake.heal();
        server.fake.revive();
        if !crashed {
            assert!(n > 10, "{n} effects");
            break;
        }
        match server.reboot() {
            Some(Ok(_)) => {}
            Some(Err(ApplyError::FellBack { what })) => panic!("boot {n}: {what}"),
            other => panic!("boot {n}: {other:?}"),
        }
        assert_eq!(
            differences(&sliced, &state(&server.fake)),
            [""; 0],
            "boot {n}"
        );
    }
}
