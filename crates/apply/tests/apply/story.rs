//! The whole story: apply, reboot, resume, again, release.

use bmslice_apply::{
    ApplyOptions, Event, GuestState, Outcome, ReleaseOptions, State, Which, release, status,
};
use bmslice_host::Machine;
use bmslice_model::SliceName;

use crate::support::*;

#[test]
fn a_sliced_server_is_given_back_as_it_was() {
    let server = lab();
    let (before, facts_before) = (state(&server.fake), facts(&server.fake));

    let mut options = server.options();
    options.allow_reboot = false;
    let outcome = server.apply_with(&options, &mut |_| {}).unwrap();
    let Outcome::RebootNeeded { why } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains("isolcpus=domain,managed_irq,"), "{why}");
    assert!(!server.fake.reboot_requested(), "not without being allowed");
    let seen = status(&server.fake).unwrap();
    assert!(seen.open.is_some() && seen.reboot.is_some());

    // The user reboots; the units do the rest.
    let outcome = server.reboot().unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    let seen = status(&server.fake).unwrap();
    assert_eq!((&seen.open, &seen.reboot), (&None, &None));
    assert_eq!(seen.plan.as_ref(), Some(&server.plan));
    for slice in &seen.slices {
        assert_eq!(slice.state, GuestState::Running);
        assert!(slice.at_next_start.is_empty(), "{slice:?}");
    }
    let vf = server
        .fake
        .vf("enp129s0", 0)
        .or(server.fake.vf("enp130s0", 0))
        .unwrap();
    assert_eq!(vf.vlan, 102);

    // Again: nothing.
    let sliced = state(&server.fake);
    let mut events = Vec::new();
    let outcome = server
        .apply_with(&server.options(), &mut |event| events.push(event))
        .unwrap();
    assert_eq!(outcome, Outcome::Nothing);
    assert_eq!(done(&events), [""; 0]);
    assert_eq!(differences(&sliced, &state(&server.fake)), [""; 0]);

    // And back.
    let released = server.release().unwrap();
    assert!(
        !released.until_reboot.is_empty(),
        "the kernel keeps its arguments for now"
    );
    assert_eq!(released.kept, [""; 0]);
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    assert_eq!(facts_before, facts(&server.fake));
    assert_eq!(
        server.release().unwrap().undone,
        0,
        "nothing is left to release"
    );
}

#[test]
fn an_ordinary_boot_brings_everything_back_before_libvirt_starts() {
    let server = lab();
    server.slice();
    let sliced = state(&server.fake);
    let outcome = server.reboot().unwrap().unwrap();
    // VFs and pages were there again before libvirt; the guests are what was left to do.
    assert_eq!(outcome, Outcome::Done { changed: 2 });
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    assert_eq!(differences(&sliced, &state(&server.fake)), [""; 0]);
    // What was there before the first apply is still known.
    server.release().unwrap();
    assert_eq!(
        server
            .fake
            .state()
            .keys()
            .filter(|key| key.contains("bmslice"))
            .collect::<Vec<_>>(),
        ["/var/lib/bmslice/lock"]
    );
}

#[test]
fn the_hosts_part_of_a_boot_never_asks_libvirt() {
    let server = lab();
    server.slice();
    // In `reboot_with` libvirtd is down while the host's unit runs: had it asked, it would have
    // failed. On a live server it would have hung.
    server.fake.reboot_with(|fake| {
        let outcome = bmslice_apply::resume(fake, bmslice_apply::Phase::Host, BINARY, &mut |_| {});
        assert!(matches!(outcome, Ok(Outcome::Done { .. })), "{outcome:?}");
    });
    assert!(
        !server.is_running("blue-worker1"),
        "nobody has looked at its VF yet"
    );
    bmslice_apply::resume(&server.fake, bmslice_apply::Phase::All, BINARY, &mut |_| {}).unwrap();
    assert!(server.is_running("blue-worker1"));
}

#[test]
fn a_dry_run_tells_the_steps_and_changes_nothing() {
    let server = lab();
    let before = server.fake.state();
    let options = ApplyOptions {
        dry_run: true,
        ..server.options()
    };
    let mut events = Vec::new();
    let outcome = server
        .apply_with(&options, &mut |event| events.push(event))
        .unwrap();
    let Outcome::Planned { steps } = outcome else {
        panic!("{outcome:?}")
    };
    for part in [
        "keep the plan as `/var/lib/bmslice/plan.json`",
        "install and enable the unit `bmslice-host.service`",
        "kernel arguments",
        "make the disk",
        "cloud-init seed",
        "reboot the host",
        "huge pages",
        "make 1 VF of 0000:8",
        "VLAN 102",
        "define the domain `red-worker1`",
        "start `blue-worker1`",
    ] {
        assert!(
            steps.iter().any(|step| step.contains(part)),
            "{part} in {steps:#?}"
        );
    }
    let planned = |event: &Event| {
        matches!(
            event,
            Event::Step {
                state: State::Planned { .. },
                ..
            }
        )
    };
    assert_eq!(events.iter().filter(|e| planned(e)).count(), steps.len());
    assert_eq!(differences(&before, &server.fake.state()), [""; 0]);
    assert!(!server.fake.root().exists("/var/lib/bmslice"));
    assert!(!server.fake.reboot_requested());
}

#[test]
fn one_slice_is_released_and_the_other_runs_on() {
    let server = lab();
    server.slice();
    let blue: SliceName = "blue-worker1".parse().unwrap();
    let which = Which::Slices(vec![blue]);
    let released = release(
        &server.fake,
        &which,
        &ReleaseOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    assert!(server.is_running("red-worker1"));
    let domains = server.fake.hypervisor().unwrap().domains().unwrap();
    assert_eq!(domains.len(), 1, "blue is undefined");
    assert_eq!(
        released.kept.len(),
        2,
        "its disk and seed stay: {:?}",
        released.kept
    );
    let stored = status(&server.fake).unwrap().plan.unwrap();
    assert!(stored.slice("blue-worker1").is_none() && stored.slice("red-worker1").is_some());
    let given_back = server.plan.slice("blue-worker1").unwrap().owned();
    assert!(given_back.is_subset(&stored.host().free));
    // Then everything.
    server.release().unwrap();
    assert!(server.domains().is_empty());
    assert_eq!(
        server
            .fake
            .enabled_units()
            .iter()
            .filter(|u| u.contains("bmslice"))
            .count(),
        0
    );
}

#[test]
fn a_pool_stays_kept_free_as_long_as_a_slice_of_the_tenant_uses_it() {
    let fake = machine();
    let spec = spec()
        .replace(
            "emulator: { cores: 1 } ",
            "emulator: { cores: 1, pool: tenant } ",
        )
        .replace(
            "tenant: blue",
            "tenant: red\n    emulator: { pool: tenant }",
        )
        .replace("vcpus: 8", "vcpus: 4")
        .replace("size: 2GiB, hugepages: 1GiB", "size: 1GiB, hugepages: 2MiB")
        .replace("node: 1", "node: 0");
    let plan = plan(&fake, &spec);
    let server = Server { fake, plan };
    let pool = server.plan.slice("red-worker1").unwrap().shared();
    assert_eq!(pool, server.plan.slice("blue-worker1").unwrap().shared());
    assert_eq!(pool.len(), 2);
    server.slice();
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    // Both run, and each is as planned beside the other.
    server.apply().unwrap();
    let release_one = |name: &str| {
        let which = Which::Slices(vec![name.parse().unwrap()]);
        release(
            &server.fake,
            &which,
            &ReleaseOptions::default(),
            &mut |_| {},
        )
        .unwrap();
        status(&server.fake).unwrap().plan
    };
    let stored = release_one("blue-worker1").unwrap();
    assert!(server.is_running("red-worker1"));
    assert!(stored.host().free.is_disjoint(&pool), "red still uses it");
    let blue = server.plan.slice("blue-worker1").unwrap();
    assert!(blue.owned().is_subset(&stored.host().free));
    server.release().unwrap();
    assert!(server.domains().is_empty());
}

#[test]
fn a_shared_sibling_is_idle_again_when_the_slice_beside_goes() {
    let fake = machine();
    let spec = spec()
        .replace("tenant: red", "tenant: red\n    sharing: tenant")
        .replace("tenant: blue", "tenant: red\n    sharing: tenant")
        .replace("vcpus: 8", "vcpus: 3")
        .replace("size: 2GiB, hugepages: 1GiB", "size: 1GiB, hugepages: 2MiB")
        .replace("node: 1", "node: 0");
    let plan = plan(&fake, &spec);
    let server = Server { fake, plan };
    let (red, blue) = (
        server.plan.slice("red-worker1").unwrap(),
        server.plan.slice("blue-worker1").unwrap(),
    );
    assert!(red.shares_a_core_with(blue));
    server.slice();
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    // Both run, and each is as planned beside the other.
    server.apply().unwrap();
    let which = Which::Slices(vec!["blue-worker1".parse().unwrap()]);
    let options = ReleaseOptions::default();
    release(&server.fake, &which, &options, &mut |_| {}).unwrap();
    let stored = status(&server.fake).unwrap().plan.unwrap();
    assert!(server.is_running("red-worker1"));
    let stays = stored.slice("red-worker1").unwrap();
    assert_eq!(stays.idle, red.shared_siblings, "kept quiet, not free");
    assert!(stays.shared_siblings.is_empty());
    let left = blue.owned().difference(&stays.idle);
    assert!(left.is_subset(&stored.host().free));
    assert!(stored.host().free.is_disjoint(&stays.idle));
    server.release().unwrap();
    assert!(server.domains().is_empty());
}

#[test]
fn disks_stay_unless_they_are_to_go() {
    let server = lab();
    server.slice();
    let disk = server.plan.slice("red-worker1").unwrap().disk.path.clone();
    release(
        &server.fake,
        &Which::All,
        &ReleaseOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    assert!(server.fake.root().exists(&disk));
    // A disk that is there is used, never overwritten.
    server.fake.put(&disk, "data of the guest's");
    server.fake.reboot();
    let mut events = Vec::new();
    let _ = server.apply_with(&server.options(), &mut |event| events.push(event));
    assert_eq!(
        server.fake.root().read_text(&disk).unwrap(),
        "data of the guest's"
    );
    assert!(
        notes(&events).contains("was there already"),
        "{}",
        notes(&events)
    );
    // Nor is it ours to delete.
    server.release().unwrap();
    assert_eq!(
        server.fake.root().read_text(&disk).unwrap(),
        "data of the guest's"
    );
}

#[test]
fn the_password_hash_is_in_the_seed_and_nowhere_else() {
    let server = lab();
    server.slice();
    let red = server.plan.slice("red-worker1").unwrap();
    let seed = red.disk.seed.clone().unwrap();
    let (volume, files) = server.fake.iso(&seed).unwrap();
    assert_eq!(volume, "cidata");
    let user_data = files.iter().find(|(name, _)| name == "user-data").unwrap();
    assert!(String::from_utf8_lossy(&user_data.1).contains(HASH));
    assert_eq!(server.fake.root().mode(&seed).unwrap() & 0o077, 0);
    for (path, content) in server.fake.state() {
        assert!(
            path == seed || !content.contains(HASH),
            "the hash is in {path}"
        );
    }
    let commands = server.fake.effects().join("\n");
    assert!(!commands.contains(HASH), "the hash was an argument");
}
