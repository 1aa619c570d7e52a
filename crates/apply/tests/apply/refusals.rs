//! What is refused, before the first effect, with everything that stands in the way at once.

use bmslice_apply::{ApplyError, ApplyOptions, ReleaseOptions, Which, release};
use bmslice_host::Machine;
use bmslice_host::fake::FakeServer;
use bmslice_model::ByteSize;
use bmslice_plan::NicPlan;

use crate::support::*;

/// Refused, for one reason that has these words; nothing was done.
fn refused(server: &Server, words: &[&str]) {
    let before = server.fake.state();
    let reasons = refusal(server.apply());
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    for word in words {
        assert!(reasons[0].contains(word), "`{word}` in `{}`", reasons[0]);
    }
    assert_eq!(differences(&before, &server.fake.state()), [""; 0]);
    assert!(!server.fake.root().exists("/var/lib/bmslice"));
}

#[test]
fn a_process_that_is_not_root() {
    let server = lab();
    server.fake.become_user();
    let before = server.fake.state();
    // libvirt does not let it in either: both are said.
    let reasons = refusal(server.apply());
    assert!(reasons[0].contains("not root"), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("libvirt")));
    assert_eq!(differences(&before, &server.fake.state()), [""; 0]);
    let error = release(
        &server.fake,
        &Which::All,
        &ReleaseOptions::default(),
        &mut |_| {},
    );
    assert!(matches!(error, Err(ApplyError::Refused { .. })));
}

#[test]
fn a_base_image_that_is_missing() {
    let server = lab().change(|parts| parts.slices[1].disk.base = "/srv/none.qcow2".into());
    refused(
        &server,
        &["`blue-worker1`", "`/srv/none.qcow2`", "is not there"],
    );
}

#[test]
fn a_base_image_that_is_a_text() {
    let server = lab().change(|parts| parts.slices[0].disk.base = "/srv/page.qcow2".into());
    server
        .fake
        .put("/srv/page.qcow2", "<html>404 not found</html>".repeat(100));
    refused(
        &server,
        &[
            "`/srv/page.qcow2`",
            "not a disk image",
            "neither a partition table",
        ],
    );
    // A raw disk is one.
    let mut disk = vec![0u8; 4096];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    server.fake.put("/srv/page.qcow2", disk);
    server.slice();
}

#[test]
fn a_base_image_that_is_larger_than_the_disk() {
    let server = lab().change(|parts| parts.slices[0].disk.size = ByteSize::from_gib(1));
    refused(&server, &["has 2GiB", "a disk of 1GiB"]);
}

#[test]
fn a_server_that_has_changed_since() {
    let mut other = FakeServer::lab();
    other.nics.remove(2);
    let server = lab();
    let moved = Server {
        fake: machine_of(other),
        plan: server.plan,
    };
    let reasons = refusal(moved.apply());
    assert!(
        reasons[0].contains("network device 8086:10c9 at 0000:42:00.0 is gone"),
        "{reasons:?}"
    );
}

#[test]
fn another_card_at_the_same_address() {
    let server = lab().change(|parts| {
        if let NicPlan::Passthrough { device, .. } = &mut parts.slices[0].nics[0] {
            device.mac = Some("52:54:00:99:99:99".parse().unwrap());
        }
    });
    refused(
        &server,
        &["is not the device of the plan", "52:54:00:99:99:99"],
    );
}

#[test]
fn the_management_card_even_when_the_plan_has_it() {
    let server = lab();
    let management = inventory(&server.fake)
        .pci
        .iter()
        .find(|f| f.interfaces == ["enp0s2"])
        .unwrap()
        .clone();
    let server = server.change(|parts| {
        if let NicPlan::Passthrough { device, .. } = &mut parts.slices[0].nics[0] {
            device.address = management.address;
            device.id = management.id;
            device.mac = management.mac;
        }
    });
    refused(
        &server,
        &[
            "`red-worker1`",
            "cannot live without",
            "default route",
            "enp0s2",
        ],
    );
}

#[test]
fn the_root_disks_controller_even_when_the_plan_has_it() {
    let server = lab();
    let disk = inventory(&server.fake)
        .pci
        .iter()
        .find(|f| {
            f.host_needs
                .iter()
                .any(|n| format!("{n:?}").contains("Mount"))
        })
        .unwrap()
        .clone();
    let server = server.change(|parts| {
        if let NicPlan::Passthrough { group, .. } = &mut parts.slices[0].nics[0] {
            group.push(disk.address);
        }
    });
    refused(&server, &["cannot live without", "`/`"]);
}

#[test]
fn a_domain_of_somebody_elses_with_the_same_name() {
    let server = lab();
    let xml = "<domain type='kvm'><name>red-worker1</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices/></domain>";
    server.fake.hypervisor().unwrap().define(xml).unwrap();
    refused(
        &server,
        &["a domain named `red-worker1` is there", "did not make it"],
    );
    assert_eq!(
        server.fake.hypervisor().unwrap().domains().unwrap().len(),
        1
    );
}

#[test]
fn somebody_elses_guest_on_our_cpus() {
    let server = lab();
    let xml = "<domain type='kvm'><name>db</name><memory unit='MiB'>64</memory><vcpu cpuset='4-5'>1</vcpu><cputune><vcpupin vcpu='0' cpuset='4-5'/></cputune><os><type>hvm</type></os><devices/></domain>";
    server.fake.hypervisor().unwrap().define(xml).unwrap();
    server.fake.hypervisor().unwrap().start("db").unwrap();
    refused(
        &server,
        &["the guest `db` runs on CPUs 4-5", "`red-worker1`'s alone"],
    );
}

#[test]
fn a_libvirt_that_does_not_answer() {
    let server = lab();
    server.fake.stop_libvirtd();
    refused(&server, &["libvirt could not connect"]);
}

#[test]
fn programs_that_are_missing_each_with_its_package() {
    let server = lab();
    for program in ["qemu-img", "genisoimage", "xorriso", "ip"] {
        server.fake.uninstall(program);
    }
    let ApplyError::Refused { problems } = server.apply().unwrap_err() else {
        panic!()
    };
    let hints: Vec<_> = problems.iter().filter_map(|p| p.hint.as_deref()).collect();
    for package in ["qemu-utils", "genisoimage", "iproute2"] {
        assert!(
            hints.contains(&format!("`apt install {package}`").as_str()),
            "{package}: {hints:?}"
        );
    }
}

#[test]
fn a_password_file_that_holds_a_password() {
    let server = lab();
    server.fake.put("/root/ops.hash", "hunter2\n");
    refused(&server, &["`/root/ops.hash`", "crypt(5)"]);
    let error = server.apply().unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "it is not told on");
    server.fake.delete("/root/ops.hash");
    refused(&server, &["`/root/ops.hash`", "cannot be used"]);
}

#[test]
fn kernel_arguments_of_the_users_that_fight_ours() {
    let server = lab();
    server.fake.put(
        "/etc/default/grub.d/50-mine.cfg",
        "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet isolcpus=2-5\"\n",
    );
    refused(
        &server,
        &[
            "line 1 of `/etc/default/grub.d/50-mine.cfg`",
            "`isolcpus=2-5`",
        ],
    );
}

#[test]
fn a_boot_loader_that_is_not_known() {
    let server = lab();
    server.fake.delete("/boot/grub/grub.cfg");
    let reasons = refusal(server.apply());
    assert!(
        reasons
            .iter()
            .any(|r| r.contains("no boot loader that is known")),
        "{reasons:?}"
    );
    let error = server.apply().unwrap_err();
    assert!(
        error
            .hints()
            .iter()
            .any(|hint| hint.contains("isolcpus=domain,managed_irq,"))
    );
}

#[test]
fn disks_that_do_not_fit() {
    let server = lab().change(|parts| {
        for slice in &mut parts.slices {
            slice.disk.from = bmslice_spec::ImageFrom::Copy;
        }
    });
    server.fake.set_free_space(ByteSize::from_mib(1));
    refused(
        &server,
        &["red-worker1, blue-worker1", "2 MiB", "1 MiB are free"],
    );
}

#[test]
fn a_plan_that_forgets_a_slice_that_is_here() {
    let server = lab();
    server.slice();
    let server = server.change(|parts| {
        let blue = parts.slices.remove(1);
        parts.host.free.extend_from(&blue.owned());
        parts.host.split.clear();
    });
    let before = state(&server.fake);
    let reasons = refusal(server.apply());
    assert!(
        reasons[0].contains("the slice `blue-worker1` is on this server"),
        "{reasons:?}"
    );
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    assert!(server.is_running("blue-worker1"));
}

#[test]
fn a_plan_that_gives_away_what_a_running_slice_still_holds() {
    let server = lab();
    server.slice();
    let server = server.change(|parts| {
        let (red, blue) = parts.slices.split_at_mut(1);
        std::mem::swap(&mut red[0].vcpus, &mut blue[0].vcpus);
    });
    let before = state(&server.fake);
    let reasons = refusal(server.apply());
    for (holder, heir) in [
        ("red-worker1", "blue-worker1"),
        ("blue-worker1", "red-worker1"),
    ] {
        let tells = |reason: &String| {
            reason.starts_with(&format!("the guest `{holder}` runs on CPUs "))
                && reason.ends_with(&format!("which are to be `{heir}`'s alone"))
        };
        assert!(reasons.iter().any(tells), "{holder}: {reasons:?}");
    }
    let hints = server.apply().unwrap_err().hints();
    assert!(
        hints
            .iter()
            .any(|hint| hint.contains("virsh shutdown red-worker1")),
        "{hints:?}"
    );
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
}

#[test]
fn vfs_that_somebody_uses() {
    let mut with_iommu = FakeServer::lab();
    with_iommu.cmdline = "intel_iommu=on".into();
    let fake = machine_of(with_iommu);
    let plan = plan(&fake, &spec());
    let server = Server { fake, plan };
    let NicPlan::Vf { pf, .. } = &server.plan.slice("blue-worker1").unwrap().nics[0] else {
        panic!()
    };
    let numvfs = format!("/sys/bus/pci/devices/{}/sriov_numvfs", pf.address);
    server.fake.write_attribute(numvfs.as_ref(), "3").unwrap();
    let vf = server
        .fake
        .root()
        .link_name(format!("/sys/bus/pci/devices/{}/virtfn2", pf.address))
        .unwrap();
    server.fake.rebind(vf.parse().unwrap(), Some("vfio-pci"));
    refused(
        &server,
        &["has 3 VFs and is to have 1", &vf, "given to a guest"],
    );
}

#[test]
fn everything_at_once() {
    let server = lab().change(|parts| parts.slices[0].disk.base = "/srv/none".into());
    server.fake.stop_libvirtd();
    server.fake.uninstall("ip");
    server.fake.put("/root/ops.hash", "");
    let reasons = refusal(server.apply());
    for word in ["`/srv/none`", "libvirt", "`ip`", "`/root/ops.hash`"] {
        assert!(
            reasons.iter().any(|r| r.contains(word)),
            "{word}: {reasons:#?}"
        );
    }
}

#[test]
fn a_dry_run_refuses_alike_and_needs_no_root() {
    let server = lab();
    let options = ApplyOptions {
        dry_run: true,
        ..server.options()
    };
    server.fake.become_user();
    server.fake.put_with_mode("/root/ops.hash", HASH, 0o600);
    let error = server.apply_with(&options, &mut |_| {}).unwrap_err();
    assert!(!error.to_string().contains("not root"), "{error}");
}

#[test]
fn a_release_of_a_slice_that_is_not_here() {
    let server = lab();
    server.slice();
    let which = Which::Slices(vec!["green".parse().unwrap()]);
    let error = release(
        &server.fake,
        &which,
        &ReleaseOptions::default(),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("`green` is not on this server"));
}
