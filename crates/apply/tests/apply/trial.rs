//! Kernel arguments are tried once, and kept only when the boot with them was confirmed.

use bmslice_apply::{ApplyError, ApplyOptions, Outcome, Phase, fall_back, resume, status};
use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer, Moment, On};

use crate::support::*;

const ENV: &str = "/boot/grub/bmslice.env";
const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

fn env(fake: &FakeMachine, key: &str) -> String {
    let text = fake.root().read_text(ENV).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
        .to_owned()
}

/// What `status` says of having gone back.
fn went_back(server: &Server) -> String {
    let status = status(&server.fake).unwrap();
    assert_eq!(status.reboot, None, "that is not what is to be done now");
    status.fell_back.expect("status says that it went back")
}

#[test]
fn arguments_are_tried_once_and_then_kept() {
    let server = lab();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    assert_ne!(env(&server.fake, "bmslice_try="), "");
    assert_eq!(env(&server.fake, "bmslice_confirmed="), "");
    // Between GRUB and our units.
    server.fake.reboot();
    assert_eq!(env(&server.fake, "bmslice_try="), "", "struck by GRUB");
    let line = cmdline(&server.fake);
    for part in ["isolcpus=", " bmslice.trial=", " panic=30 ", "watchdog"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(status(&server.fake).unwrap().on_trial, Some(10));
    for phase in [Phase::Host, Phase::All] {
        resume(&server.fake, phase, BINARY, &mut |_| {}).unwrap();
    }
    let confirmed = env(&server.fake, "bmslice_confirmed=");
    assert_eq!(confirmed.len(), 16);
    assert_eq!(status(&server.fake).unwrap().on_trial, None);
    assert!(!fall_back(&server.fake, &mut |_| {}).unwrap());
    assert!(
        !server.fake.reboot_requested(),
        "the deadline finds it kept"
    );

    server.assert_kept_for_good();
}

#[test]
fn a_kernel_that_panics_is_followed_by_the_one_before() {
    let server = lab().change(with_argument(PANICS));
    let before = state(&server.fake);
    let line = cmdline(&server.fake);
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    let error = server.reboot().unwrap().unwrap_err();
    assert_eq!(server.fake.power_cycles(), 0, "nobody had to come");
    assert_eq!(cmdline(&server.fake), line);
    assert!(error.to_string().contains(PANICS), "{error}");
    assert!(error.to_string().contains("panicked or hung"), "{error}");
    assert!(
        error
            .hints()
            .iter()
            .any(|hint| hint.contains("--try-again")),
        "{:?}",
        error.hints()
    );
    assert!(went_back(&server).contains(PANICS));
    never_again_unasked(&server);
    assert!(
        !server
            .fake
            .root()
            .exists("/sys/bus/pci/devices/0000:81:10.0")
    );
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    assert_eq!(status(&server.fake).unwrap().fell_back, None);
}

#[test]
fn a_kernel_that_comes_up_without_its_management_is_gone_back_from() {
    let server = lab().change(with_argument(CUTS_OFF));
    let before = state(&server.fake);
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap_err();
    assert!(cmdline(&server.fake).contains(CUTS_OFF), "it is up");
    assert_eq!(env(&server.fake, "bmslice_confirmed="), "");
    assert_eq!(status(&server.fake).unwrap().fell_back, None, "not yet");
    // The timer of the unit elapses.
    assert!(fall_back(&server.fake, &mut |_| {}).unwrap());
    assert!(server.fake.reboot_requested());
    let error = server.reboot().unwrap().unwrap_err();
    assert!(!cmdline(&server.fake).contains(CUTS_OFF));
    assert!(
        error.to_string().contains("no interface `enp0s2`"),
        "{error}"
    );
    assert!(went_back(&server).contains("no interface `enp0s2`"));
    never_again_unasked(&server);
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_management_that_is_late_is_waited_for() {
    let server = lab();
    server.apply().unwrap();
    server.fake.reboot();
    // A cable that is out, or a switch that thinks for long.
    let carrier = "/sys/class/net/enp0s2/carrier";
    server.fake.put(carrier, "0\n");
    let begun = server.fake.elapsed();
    let error = resume(&server.fake, Phase::All, BINARY, &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("`enp0s2` has no link"),
        "{error}"
    );
    let waited = server.fake.elapsed() - begun;
    // Ten minutes less the minute that it was up already and the one for last words.
    assert!(waited >= 8 * MINUTE && waited < 9 * MINUTE, "{waited:?}");
    assert_eq!(env(&server.fake, "bmslice_confirmed="), "");
    // It is there before the deadline.
    server.fake.put(carrier, "1\n");
    resume(&server.fake, Phase::All, BINARY, &mut |_| {}).unwrap();
    assert_ne!(env(&server.fake, "bmslice_confirmed="), "");
    assert!(!fall_back(&server.fake, &mut |_| {}).unwrap());
}

#[test]
fn what_kept_a_boot_from_being_confirmed_is_told_after_it() {
    let server = lab();
    server.apply().unwrap();
    server.fake.reboot();
    server.fake.stop_libvirtd();
    resume(&server.fake, Phase::All, BINARY, &mut |_| {}).unwrap_err();
    assert!(fall_back(&server.fake, &mut |_| {}).unwrap());
    let error = server.reboot().unwrap().unwrap_err();
    assert!(error.to_string().contains("libvirt"), "{error}");
}

#[test]
fn a_server_goes_back_to_the_arguments_that_were_confirmed() {
    let server = lab();
    server.slice();
    let (kept, sliced) = (cmdline(&server.fake), state(&server.fake));
    let server = server.change(with_argument(PANICS));
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap_err();
    let trial = kept.find(" bmslice.trial").unwrap();
    assert!(
        cmdline(&server.fake).starts_with(&kept[..trial]),
        "{kept} then {}",
        cmdline(&server.fake)
    );
    assert!(!cmdline(&server.fake).contains("trial"));
    // libvirt started the guests, for which the host's unit has made pages and VFs.
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    // The plan before applies as it did: its arguments need no trial.
    let server = server.change(|parts| drop(parts.host.kernel_args.pop()));
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(!server.fake.reboot_requested());
    // Once confirmed, what was confirmed before may still stand in the script.
    let mut differences = differences(&sliced, &state(&server.fake));
    differences.retain(|line| !line.contains("grub") && !line.contains("journal"));
    assert_eq!(differences, [""; 0]);
    server.release().unwrap();
}

#[test]
fn a_server_that_goes_back_has_the_pages_and_vfs_of_the_plan_that_it_went_back_to() {
    let server = lab();
    server.slice();
    let pool = "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages";
    let vfs = "/sys/bus/pci/devices/0000:82:00.0/sriov_numvfs";
    let read = |server: &Server, path: &str| server.fake.root().attribute(path).unwrap();
    let sliced = (read(&server, pool), read(&server, vfs));
    assert_eq!(sliced, ("2".into(), "1".into()));
    let server = server.change(|parts| {
        with_argument(PANICS)(parts);
        parts.host.split[0].vfs = 3;
        let pages = parts.host.huge_pages.iter_mut();
        pages.last().unwrap().count = 3;
    });
    // The guest with the VF is shut down for it.
    server
        .fake
        .hypervisor()
        .unwrap()
        .destroy("blue-worker1")
        .unwrap();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap_err();
    assert!(!cmdline(&server.fake).contains(PANICS));
    assert_eq!((read(&server, pool), read(&server, vfs)), sliced);
    assert!(server.is_running("red-worker1") && server.is_running("blue-worker1"));
    // An ordinary boot after that is no other.
    server.reboot().unwrap().unwrap_err();
    assert_eq!((read(&server, pool), read(&server, vfs)), sliced);
    // What is given back is all of it.
    server.release().unwrap();
    let left = server.fake.state();
    assert!(!left.keys().any(|key| key.contains("plan")), "{left:?}");
}

#[test]
fn a_reboot_that_is_left_to_the_user_is_a_trial_too() {
    let server = lab().change(with_argument(PANICS));
    let options = ApplyOptions {
        allow_reboot: false,
        ..server.options()
    };
    let outcome = server.apply_with(&options, &mut |_| {}).unwrap();
    assert!(
        matches!(outcome, Outcome::RebootNeeded { .. }),
        "{outcome:?}"
    );
    assert!(!server.fake.reboot_requested());
    // Days later somebody reboots.
    let error = server.reboot().unwrap().unwrap_err();
    assert!(matches!(error, ApplyError::FellBack { .. }), "{error}");
    assert_eq!(server.fake.power_cycles(), 0);
}

#[test]
fn a_changed_plan_needs_no_permission_to_try() {
    let server = lab().change(with_argument(PANICS));
    server.apply().unwrap();
    server.reboot().unwrap().unwrap_err();
    let server = server.change(|parts| drop(parts.host.kernel_args.pop()));
    server.slice();
    assert!(server.is_running("red-worker1"));
    assert_eq!(status(&server.fake).unwrap().fell_back, None);
}

#[test]
fn where_grub_cannot_write_the_system_strikes_what_is_tried() {
    let server = FakeServer {
        root_fs: "btrfs".into(),
        ..FakeServer::lab()
    };
    let fake = machine_of(server);
    let plan = plan(&fake, &spec());
    let server = Server { fake, plan };
    let before = state(&server.fake);
    let mut events = Vec::new();
    server
        .apply_with(&server.options(), &mut |event| events.push(event))
        .unwrap();
    assert!(
        notes(&events).contains("GRUB cannot write `/boot/grub/bmslice.env` (it is on btrfs)"),
        "{}",
        notes(&events)
    );
    server.fake.reboot();
    assert!(cmdline(&server.fake).contains("bmslice.trial"));
    assert_ne!(env(&server.fake, "bmslice_try="), "", "GRUB could not");
    server.fake.stop_libvirtd();
    resume(&server.fake, Phase::Host, BINARY, &mut |_| {}).unwrap();
    assert_eq!(env(&server.fake, "bmslice_try="), "");
    assert!(fall_back(&server.fake, &mut |_| {}).unwrap());
    let error = server.reboot().unwrap().unwrap_err();
    assert!(matches!(error, ApplyError::FellBack { .. }), "{error}");
    assert_eq!(server.try_again().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap();
    assert!(server.is_running("red-worker1"));
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

/// The deadline itself is cut off at each of its effects, and its unit then reboots by force.
#[test]
fn a_deadline_that_is_cut_off_still_goes_back() {
    for moment in [Moment::Half, Moment::After] {
        for n in 1.. {
            let server = lab().change(with_argument(CUTS_OFF));
            server.apply().unwrap();
            server.reboot().unwrap().unwrap_err();
            server.fake.crash(On::Nth(n), moment);
            let _ = fall_back(&server.fake, &mut |_| {});
            let crashed = server.fake.crashed();
            server.fake.heal();
            let error = server.reboot().unwrap().unwrap_err();
            assert!(
                matches!(error, ApplyError::FellBack { .. }),
                "{n} {moment:?}: {error}"
            );
            assert!(!cmdline(&server.fake).contains(CUTS_OFF));
            if !crashed {
                assert!(n > 2, "{n} effects");
                break;
            }
        }
    }
}

#[test]
fn a_boot_without_its_journal_goes_back_too() {
    let server = lab();
    server.apply().unwrap();
    server.fake.reboot();
    // `/var` is a file system of its own, and did not come up.
    let journal = server.fake.root().read("/var/lib/bmslice/journal").unwrap();
    server.fake.delete("/var/lib/bmslice/journal");
    assert!(fall_back(&server.fake, &mut |_| {}).unwrap());
    assert!(server.fake.reboot_requested());
    server
        .fake
        .put_with_mode("/var/lib/bmslice/journal", journal, 0o600);
    let error = server.reboot().unwrap().unwrap_err();
    assert!(matches!(error, ApplyError::FellBack { .. }), "{error}");
    // An ordinary boot without it is none of the deadline's business.
    server.fake.delete("/var/lib/bmslice/journal");
    assert!(!fall_back(&server.fake, &mut |_| {}).unwrap());
}

#[test]
fn the_users_own_file_with_another_value_of_a_specs_argument_is_a_conflict() {
    let server = lab().change(with_argument("processor.max_cstate=1"));
    server.fake.put(
        "/etc/default/grub.d/50-mine.cfg",
        "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX processor.max_cstate=9\"\n",
    );
    let reasons = refusal(server.apply());
    assert!(
        reasons[0].contains("`processor.max_cstate`") && reasons[0].contains("50-mine.cfg"),
        "{reasons:?}"
    );
    let server = lab().change(with_argument("dyndbg=\"file a.c +p\""));
    let reasons = refusal(server.apply());
    assert!(reasons[0].contains("GRUB would change"), "{reasons:?}");
}
