//! Things that go wrong in the middle: what is said, what stays, and that the next try succeeds.

use std::time::Duration;

use bmslice_apply::{
    ApplyError, ApplyOptions, Event, Outcome, Phase, ReleaseOptions, Which, release, resume, status,
};
use bmslice_host::fake::{Failure, Moment, On};
use bmslice_host::{HostError, Machine};
use bmslice_model::ByteSize;
use bmslice_plan::NicPlan;
use bmslice_spec::{ImageFrom, Setup};

use crate::support::*;

fn says(text: &str) -> Failure {
    Failure::Says(text.into())
}

#[test]
fn a_disk_that_fills_while_an_image_is_copied() {
    let server = lab().change(|parts| parts.slices[0].disk.from = ImageFrom::Copy);
    let disk = server.plan.slices()[0].disk.path.clone();
    let full = says("qemu-img: error while writing at byte 0: No space left on device");
    server
        .fake
        .fail(On::Once("run qemu-img convert".into()), Moment::Half, full);
    let error = server.apply().unwrap_err();
    assert!(!error.is_refusal());
    assert!(
        error
            .to_string()
            .contains("no space left in `/var/lib/libvirt/images`"),
        "{error}"
    );
    assert!(
        !server.fake.root().exists(&disk),
        "no half a disk in its place"
    );
    assert!(
        !server.fake.root().exists(format!("{disk}.part")),
        "nor beside it"
    );
    assert!(!server.fake.reboot_requested());
    assert!(status(&server.fake).unwrap().open.is_some());
    server.slice();
    assert!(server.is_running("red-worker1"));
}

#[test]
fn a_disk_without_room_for_the_journal_means_that_nothing_is_begun() {
    let server = lab();
    let before = server.fake.state();
    server.fake.fill_disk();
    assert!(server.apply().is_err());
    server.fake.heal();
    assert_eq!(differences(&before, &server.fake.state()), [""; 0]);
    server.slice();
}

#[test]
fn a_libvirt_that_goes_away_in_the_middle() {
    let server = lab();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.fake.reboot();
    let gone = says("Cannot recv data: Connection reset by peer");
    server
        .fake
        .fail(On::Once("libvirt define blue".into()), Moment::Before, gone);
    let error = resume(&server.fake, Phase::All, BINARY, &mut |_| {}).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("define the domain `blue-worker1`"),
        "{error}"
    );
    assert!(server.is_running("red-worker1"), "what was done stays done");
    let outcome = server.apply().unwrap();
    assert!(
        matches!(outcome, Outcome::Done { changed } if changed < 6),
        "{outcome:?}"
    );
    assert!(server.is_running("blue-worker1"));
}

#[test]
fn a_boot_menu_that_takes_another_entry_is_told_and_not_looped_over() {
    let server = lab();
    let config = server.fake.root().read_text("/boot/grub/grub.cfg").unwrap();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    // Somebody puts the old configuration back before the boot.
    server.fake.put("/boot/grub/grub.cfg", &config);
    let error = server.reboot().unwrap().unwrap_err();
    let ApplyError::FellBack { what } = &error else {
        panic!("{error}")
    };
    assert!(what.contains("isolcpus"), "{what}");
    assert!(what.contains("GRUB did not try them"), "{what}");
    assert!(!server.fake.reboot_requested(), "no boot loop");
    assert!(!server.is_running("red-worker1"));
    // Asked again, it writes the configuration again and reboots once more.
    assert_eq!(server.try_again().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap();
    assert!(server.is_running("red-worker1"));
}

#[test]
fn a_generator_that_fails_leaves_the_boot_loader_as_it_was() {
    let server = lab();
    let config = server.fake.root().read_text("/boot/grub/grub.cfg").unwrap();
    let failure = says("/usr/sbin/grub-probe: error: cannot find a device for /");
    server
        .fake
        .fail(On::Once("run update-grub".into()), Moment::Before, failure);
    let error = server.apply().unwrap_err();
    assert!(
        error.to_string().contains("cannot find a device"),
        "{error}"
    );
    assert!(
        !server
            .fake
            .root()
            .exists("/etc/default/grub.d/90-bmslice.cfg")
    );
    assert_eq!(
        server.fake.root().read_text("/boot/grub/grub.cfg").unwrap(),
        config
    );
}

#[test]
fn a_generator_that_drops_our_arguments_is_found_by_reading_back() {
    let server = lab();
    server.fake.act_out("update-grub", |_| Ok(String::new()));
    let error = server.apply().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("boots Linux without `${bmslice_args}`, which stands for `intel_iommu=on"),
        "{error}"
    );
    assert!(!server.fake.reboot_requested(), "a reboot would be in vain");
}

#[test]
fn udev_that_is_late_costs_one_more_try_which_is_said() {
    let server = lab();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.fake.reboot();
    let late = says("internal error: /dev/vfio/10 is not accessible: Permission denied");
    server
        .fake
        .fail(On::Once("libvirt start blue".into()), Moment::Before, late);
    let mut events = Vec::new();
    resume(&server.fake, Phase::All, BINARY, &mut |event| {
        events.push(event)
    })
    .unwrap();
    assert!(server.is_running("blue-worker1"));
    assert!(notes(&events).contains("once more"), "{}", notes(&events));
}

#[test]
fn a_guest_that_does_not_shut_down_is_not_killed_unasked() {
    let server = lab();
    server.slice();
    let impatient = |force| ReleaseOptions {
        guest_patience: Duration::from_secs(2),
        force,
        ..ReleaseOptions::default()
    };
    let sliced = state(&server.fake);
    let error = release(&server.fake, &Which::All, &impatient(false), &mut |_| {}).unwrap_err();
    let ApplyError::Undo { also, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        error.to_string().contains("did not shut down within 2 s"),
        "{error}"
    );
    assert!(error.hints().iter().any(|hint| hint.contains("--force")));
    assert_eq!(also.len(), 1, "the other guest is named beside it");
    let only_journal = differences(&sliced, &state(&server.fake));
    assert!(
        only_journal
            .iter()
            .all(|line| line.starts_with("/var/lib/bmslice/journal")),
        "nothing of the host's is undone under a guest that may run: {only_journal:?}"
    );
    release(&server.fake, &Which::All, &impatient(true), &mut |_| {}).unwrap();
    assert!(server.domains().is_empty());
}

#[test]
fn a_guest_that_ends_while_its_plug_is_pulled_has_ended() {
    let server = lab();
    server.slice();
    let ended = says("Requested operation is not valid: domain is not running");
    server
        .fake
        .fail(On::Once("libvirt destroy".into()), Moment::After, ended);
    let impatient = ReleaseOptions {
        guest_patience: Duration::from_secs(2),
        force: true,
        ..ReleaseOptions::default()
    };
    let mut events = Vec::new();
    release(&server.fake, &Which::All, &impatient, &mut |event| {
        events.push(event)
    })
    .unwrap();
    let destroyed = |effect: &&String| effect.contains("libvirt destroy");
    assert_eq!(server.fake.effects().iter().filter(destroyed).count(), 2);
    assert!(
        notes(&events).contains("domain is not running"),
        "{}",
        notes(&events)
    );
    assert!(server.domains().is_empty());
}

#[test]
fn what_could_not_be_undone_is_told_beside_the_first_and_tried_again() {
    let server = lab();
    let before = state(&server.fake);
    server.slice();
    let denied = || Failure::Errno(bmslice_host::fake::Errno::BUSY);
    server
        .fake
        .fail(On::Once("sriov_numvfs 0".into()), Moment::Before, denied());
    server.fake.fail(
        On::Once("run update-grub".into()),
        Moment::Before,
        says("disk error"),
    );
    let error = server.release().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("sriov_numvfs") && text.contains("and besides:"),
        "{text}"
    );
    assert!(text.contains("disk error"), "{text}");
    assert!(status(&server.fake).unwrap().open.is_some());
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_running_guest_takes_a_changed_definition_at_its_next_start() {
    let server = lab();
    server.slice();
    let server = server.change(|parts| {
        let blue = &mut parts.slices[1];
        let last = blue.vcpus.len() - 1;
        blue.vcpus.swap(0, last);
    });
    let mut events = Vec::new();
    let outcome = server
        .apply_with(&server.options(), &mut |event| events.push(event))
        .unwrap();
    assert_eq!(
        outcome,
        Outcome::Done { changed: 2 },
        "the plan and the definition"
    );
    assert!(
        notes(&events).contains("at its next start"),
        "{}",
        notes(&events)
    );
    assert!(server.is_running("blue-worker1"));
    let seen = status(&server.fake).unwrap();
    assert!(seen.slices[0].at_next_start.is_empty());
    assert!(
        seen.slices[1]
            .at_next_start
            .iter()
            .any(|what| what.contains("the pin of vCPU 0")),
        "{:?}",
        seen.slices[1].at_next_start
    );
}

#[test]
fn a_domain_changed_by_hand_is_put_right() {
    let server = lab();
    server.slice();
    let hypervisor = server.fake.hypervisor().unwrap();
    let xml = hypervisor.xml("red-worker1", true).unwrap();
    let pin = server.plan.slice("red-worker1").unwrap().vcpus[0];
    let changed = xml.replace(
        &format!("vcpu=\"0\" cpuset=\"{pin}\""),
        "vcpu=\"0\" cpuset=\"0\"",
    );
    let changed = changed.replace(&format!("vcpu='0' cpuset='{pin}'"), "vcpu='0' cpuset='0'");
    assert_ne!(xml, changed);
    hypervisor.define(&changed).unwrap();
    drop(hypervisor);
    assert_eq!(server.apply().unwrap(), Outcome::Done { changed: 1 });
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
}

#[test]
fn another_process_is_waited_for_and_named() {
    let server = lab();
    server.fake.hold_lock("4711");
    let options = ApplyOptions {
        patience: Duration::from_secs(5),
        ..server.options()
    };
    let mut events = Vec::new();
    let error = server
        .apply_with(&options, &mut |event| events.push(event))
        .unwrap_err();
    assert!(matches!(&error, ApplyError::Host(HostError::Locked { holder }) if holder == "4711"));
    let waiting = Event::Waiting {
        holder: "4711".into(),
    };
    assert!(events.contains(&waiting));
    server.fake.revive();
    server.slice();
}

#[test]
fn pages_that_cannot_be_had_are_told_before_any_guest_starts() {
    let server = lab();
    let spec = spec().replace("hugepages: 1GiB", "hugepages: 2MiB");
    let server = Server {
        plan: plan(&server.fake, &spec),
        ..server
    };
    assert!(
        server
            .plan
            .host()
            .huge_pages
            .iter()
            .all(|pool| !pool.at_boot)
    );
    let server = server.change(|parts| {
        // More than the node has.
        parts.host.huge_pages[1].count = 100_000;
    });
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.fake.reboot();
    let error = server.apply().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("of the 100000 huge pages of 2MiB"), "{text}");
    assert!(text.contains("`blue-worker1` needs 1024"), "{text}");
    assert!(server.domains().is_empty());
    let pool = inventory(&server.fake).nodes[1].huge_pages.clone();
    assert!(
        pool.iter().all(|pool| pool.total == 0),
        "given back: {pool:?}"
    );
}

#[test]
fn pages_at_run_time_come_and_go_with_the_slices() {
    let server = lab();
    let spec = spec().replace("hugepages: 1GiB", "hugepages: 2MiB");
    let server = Server {
        plan: plan(&server.fake, &spec),
        ..server
    };
    let before = state(&server.fake);
    let size = ByteSize::from_mib(2);
    let total = |node: usize| {
        let inventory = inventory(&server.fake);
        let pools = &inventory.nodes[node].huge_pages;
        pools
            .iter()
            .find(|pool| pool.size == size)
            .map_or(0, |pool| pool.total)
    };
    server.slice();
    assert_eq!((total(0), total(1)), (1024, 1024));
    server.reboot().unwrap().unwrap();
    assert_eq!((total(0), total(1)), (1024, 1024));
    assert!(server.is_running("red-worker1"));
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    let which = Which::Slices(vec!["red-worker1".parse().unwrap()]);
    let options = ReleaseOptions {
        delete_images: true,
        ..ReleaseOptions::default()
    };
    release(&server.fake, &which, &options, &mut |_| {}).unwrap();
    assert_eq!((total(0), total(1)), (0, 1024));
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_boot_makes_no_new_disk_for_one_that_is_missing() {
    let server = lab();
    server.slice();
    let disk = server.plan.slice("red-worker1").unwrap().disk.path.clone();
    server.fake.delete(&disk);
    // Its file system may just not be mounted.
    let error = server.reboot().unwrap().unwrap_err();
    assert!(error.to_string().contains("start `red-worker1`"), "{error}");
    assert!(!server.fake.root().exists(&disk));
    // Who applies asks for one.
    let mut events = Vec::new();
    server
        .apply_with(&server.options(), &mut |event| events.push(event))
        .unwrap();
    assert!(
        notes(&events).contains("is made anew"),
        "{}",
        notes(&events)
    );
    assert!(server.is_running("red-worker1"));
}

#[test]
fn the_documents_own_way_with_an_image() {
    let server = lab().change(|parts| {
        let disk = &mut parts.slices[0].disk;
        disk.from = ImageFrom::Resize {
            expand: "/dev/sda1".into(),
        };
        disk.setup = Setup::VirtCustomize;
        disk.seed = None;
    });
    server.slice();
    let effects = server.fake.effects();
    let at = |text: &str| {
        effects
            .iter()
            .position(|effect| effect.contains(text))
            .unwrap_or_else(|| panic!("{text} in {effects:#?}"))
    };
    assert!(at("run virt-resize") < at("run virt-customize"));
    assert!(
        at("run virt-customize") < at("red-worker1.qcow2.part /var/lib"),
        "renamed when whole"
    );
    assert!(effects[at("run virt-resize")].contains("--format=qcow2"));
    assert!(!effects.join("\n").contains(HASH));
    assert!(
        effects[at("run virt-customize")].contains("/root/ops.hash:"),
        "by file"
    );
}

#[test]
fn a_slice_that_does_not_start_with_the_host_stays_off_after_a_boot() {
    let server = lab().change(|parts| parts.slices[0].autostart = false);
    server.slice();
    assert!(server.is_running("red-worker1"), "applying starts it");
    let outcome = server.reboot().unwrap().unwrap();
    assert_eq!(outcome, Outcome::Done { changed: 1 });
    assert!(!server.is_running("red-worker1") && server.is_running("blue-worker1"));
}

#[test]
fn a_card_that_was_moved_while_the_server_was_off_is_given_to_nobody() {
    let server = lab();
    server.slice();
    let NicPlan::Passthrough { device, .. } = &server.plan.slices()[0].nics[0] else {
        panic!("Red has a whole card");
    };
    let names =
        [device, &server.plan.host().queues[0].device].map(|d| d.interface.clone().unwrap());
    server.fake.swap_cards(&names[0], &names[1]);
    let host = server.reboot().unwrap();
    let slices = resume(&server.fake, Phase::All, BINARY, &mut |_| {});
    for outcome in [host, slices] {
        let reasons = refusal(outcome).join("\n");
        assert!(
            reasons.contains(&format!("{} is not the device of the plan", device.address)),
            "{reasons}"
        );
    }
    assert!(
        !server.is_running("red-worker1"),
        "nor did libvirt start it"
    );
    assert_eq!(server.fake.driver(device.address).as_deref(), Some("igb"));
    server.fake.swap_cards(&names[0], &names[1]);
    server.reboot().unwrap().unwrap();
    assert!(server.is_running("red-worker1"));
}

#[test]
fn the_users_own_vfs_come_back_as_they_were() {
    let server = lab();
    let split = server.plan.host().split[0].device.clone();
    let numvfs = format!("/sys/bus/pci/devices/{}/sriov_numvfs", split.address);
    server.fake.write_attribute(numvfs.as_ref(), "3").unwrap();
    let before = state(&server.fake);
    // They are there again after each boot, by the user's own means.
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.fake.reboot();
    server.fake.write_attribute(numvfs.as_ref(), "3").unwrap();
    server.apply().unwrap();
    assert_eq!(server.fake.root().attribute(&numvfs).as_deref(), Some("1"));
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}
