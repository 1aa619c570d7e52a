//! Faults to order.

use std::path::Path;
use std::time::Duration;

use bmslice_host::fake::{Errno, Failure, FakeMachine, FakeServer, Moment, On};
use bmslice_host::{HostError, Machine};

use crate::{read, run};

const JOURNAL: &str = "/var/lib/bmslice/journal";
const FILE: &str = "/etc/default/grub.d/90-bmslice.cfg";
const NUMVFS: &str = "/sys/bus/pci/devices/0000:41:00.0/sriov_numvfs";

/// Four effects, as a small apply.
fn story(fake: &FakeMachine) -> Result<(), HostError> {
    fake.append(Path::new(JOURNAL), b"intent\n")?;
    fake.install(Path::new(FILE), b"A=1\n", 0o644)?;
    fake.write_attribute(Path::new(NUMVFS), "2")?;
    run(fake, "update-grub", &[])?;
    Ok(())
}

#[test]
fn every_effect_is_logged_in_its_order() {
    let fake = FakeMachine::new(FakeServer::lab());
    story(&fake).unwrap();
    let libvirt = fake.hypervisor().unwrap();
    libvirt.start("blue").unwrap_err();
    let _ = (libvirt.domains().unwrap(), fake.now());
    assert_eq!(
        fake.effects(),
        [
            format!("append {JOURNAL}"),
            format!("install {FILE}"),
            format!("write {NUMVFS} 2"),
            "run update-grub".into(),
            "libvirt start blue".into(),
        ]
    );
}

#[test]
fn a_crash_at_every_boundary_leaves_exactly_what_came_before() {
    for n in 1..=4 {
        for moment in [Moment::Before, Moment::After] {
            let fake = FakeMachine::new(FakeServer::lab());
            let lock = fake
                .lock(Path::new("/var/lib/bmslice/lock"), Duration::ZERO)
                .unwrap();
            fake.crash(On::Nth(n), moment);
            assert!(matches!(story(&fake), Err(HostError::Gone { .. })));
            assert!(fake.crashed());
            let done = n - u64::from(moment == Moment::Before);
            assert_eq!(fake.root().exists(JOURNAL), done >= 1);
            assert_eq!(fake.root().exists(FILE), done >= 2);
            assert_eq!(read(&fake, NUMVFS) == "2", done >= 3);
            // A dead process does nothing and knows nothing.
            assert!(matches!(
                fake.hypervisor().map(|_| ()),
                Err(HostError::Gone { .. })
            ));
            assert!(matches!(
                fake.remove(Path::new(FILE)),
                Err(HostError::Gone { .. })
            ));
            assert_eq!(fake.effects().len() as u64, n);
            // The next one finds the lock free, and the dead one's guard does not take it away.
            fake.revive();
            let path = Path::new("/var/lib/bmslice/lock");
            let _next = fake.lock(path, Duration::ZERO).unwrap();
            drop(lock);
            assert!(matches!(
                fake.lock(path, Duration::ZERO).map(|_| ()),
                Err(HostError::Locked { .. })
            ));
        }
    }
}

#[test]
fn half_of_an_effect_is_what_a_power_cut_leaves() {
    let fake = FakeMachine::new(FakeServer::lab());
    fake.crash(On::Once("append".into()), Moment::Half);
    story(&fake).unwrap_err();
    assert_eq!(read(&fake, JOURNAL), "int");
    fake.revive();
    fake.crash(On::Once("install".into()), Moment::Half);
    story(&fake).unwrap_err();
    fake.revive();
    let names = || fake.root().list("/etc/default/grub.d").unwrap();
    assert_eq!(names(), [".90-bmslice.cfg.5000000-0.bmslice-new"]);
    fake.install(Path::new(FILE), b"A=1\n", 0o644).unwrap();
    assert_eq!(names(), ["90-bmslice.cfg"]);
}

#[test]
fn failures_speak_the_language_of_what_failed() {
    let fake = FakeMachine::new(FakeServer::lab());
    let says = || Failure::Says("made up".into());
    fake.fail(
        On::Once("sriov_numvfs".into()),
        Moment::Before,
        Failure::Errno(Errno::IO),
    );
    let error = story(&fake).unwrap_err().to_string();
    assert!(
        error.contains(NUMVFS) && error.contains("Input/output error"),
        "{error}"
    );
    assert_eq!(read(&fake, NUMVFS), "0");

    fake.fail(On::Nth(4), Moment::After, says());
    let error = story(&fake).unwrap_err().to_string();
    assert_eq!(error, "`update-grub` failed (exit status 1): made up");
    // It did take place, as when an answer is lost.
    assert!(read(&fake, "/boot/grub/grub.cfg").contains("linux"));

    fake.fail(On::Every("libvirt start".into()), Moment::Before, says());
    let libvirt = fake.hypervisor().unwrap();
    for _ in 0..2 {
        let error = libvirt.start("blue").unwrap_err().to_string();
        assert_eq!(error, "libvirt could not start the domain `blue`: made up");
    }
    fake.heal();
    let error = libvirt.start("blue").unwrap_err().to_string();
    assert!(error.contains("Domain not found"), "{error}");
}

#[test]
fn the_lock_has_one_holder_and_the_clock_moves_by_waiting() {
    let fake = FakeMachine::new(FakeServer::lab());
    let path = Path::new("/var/lib/bmslice/lock");
    fake.hold_lock("4711");
    let Err(HostError::Locked { holder }) = fake.lock(path, Duration::from_secs(30)) else {
        panic!("took a lock that another holds")
    };
    assert_eq!(holder, "4711");
    assert!(fake.elapsed() >= Duration::from_secs(30));
    let before = fake.now();
    fake.sleep(Duration::from_secs(7));
    assert!(fake.now().duration_since(before).unwrap() >= Duration::from_secs(7));
}

#[test]
fn without_roots_rights_nothing_is_changed() {
    let fake = FakeMachine::new(FakeServer::lab());
    let before = fake.state();
    fake.become_user();
    assert!(!fake.is_root());
    let error = story(&fake).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::PermissionDenied));
    assert!(
        fake.lock(Path::new("/var/lib/bmslice/lock"), Duration::ZERO)
            .is_err()
    );
    let Err(error) = fake.hypervisor() else {
        panic!("connected")
    };
    assert!(error.to_string().ends_with("Permission denied"));
    assert_eq!(fake.state(), before);
}

#[test]
fn the_state_shows_every_change_and_its_return() {
    let fake = FakeMachine::new(FakeServer::lab());
    let before = fake.state();
    fake.install(Path::new(FILE), b"A=1\n", 0o644).unwrap();
    let with_file = fake.state();
    assert_ne!(with_file, before);
    fake.write_attribute(Path::new(NUMVFS), "2").unwrap();
    assert_ne!(fake.state(), with_file);
    fake.write_attribute(Path::new(NUMVFS), "0").unwrap();
    fake.remove(Path::new(FILE)).unwrap();
    assert_eq!(fake.state(), before);
}
