//! Kernel arguments on a server of ostree's, as Fedora IoT is installed: tried once by an entry beside
//! those of the deployments, kept in the entry of the deployment that runs, taken out to the byte.

use bmslice_apply::{ApplyError, Event, Outcome, Phase, fall_back, resume, status};
use bmslice_host::Machine;
use bmslice_host::fake::{Errno, Failure, FakeMachine, FakeServer, Moment, On};

use crate::support::*;

pub const ENTRIES: &str = "/boot/loader/entries";
const ENV: &str = "/boot/grub2/grubenv";
const CONFIG: &str = "/boot/grub2/grub.cfg";
const STAGED: &str = "/run/ostree/staged-deployment";
const NEWEST: &str = "/boot/loader/entries/ostree-2.conf";

pub fn read(fake: &FakeMachine, path: &str) -> String {
    fake.root().read_text(path).unwrap()
}

fn trials(fake: &FakeMachine) -> Vec<String> {
    let names = fake.root().list(ENTRIES).unwrap();
    let ours = |name: &String| name.starts_with("~bmslice-");
    names.into_iter().filter(ours).collect()
}

pub fn rpm_ostree(fake: &FakeMachine, words: &[&str]) -> String {
    fake.type_in("rpm-ostree", words).unwrap()
}

/// What rpm-ostree calls the arguments of the next boot.
pub fn kargs(fake: &FakeMachine) -> Vec<String> {
    let line = rpm_ostree(fake, &["kargs"]);
    line.split_whitespace().map(str::to_owned).collect()
}

pub fn count(words: &[String], wanted: &str) -> usize {
    words.iter().filter(|word| *word == wanted).count()
}

/// The value of `ostree=`.
fn deployment(line: &str) -> &str {
    let mut words = line.split_whitespace();
    words
        .find_map(|word| word.strip_prefix("ostree="))
        .expect("a deployment")
}

pub fn said(error: &ApplyError) -> String {
    format!("{error} {:?}", error.hints())
}

#[test]
fn arguments_are_tried_once_and_then_kept() {
    let server = iot();
    let (before, own) = (state(&server.fake), kargs(&server.fake));
    let (newest, rollback) = (
        read(&server.fake, NEWEST),
        read(&server.fake, &format!("{ENTRIES}/ostree-1.conf")),
    );
    let runs = cmdline(&server.fake);
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    // Nothing but the next boot takes them, and no deployment is made.
    assert_eq!(read(&server.fake, NEWEST), newest);
    assert_eq!(kargs(&server.fake), own);
    assert!(!server.fake.root().exists(STAGED));
    let [trial] = &trials(&server.fake)[..] else {
        panic!("one entry on trial");
    };
    let next = format!("next_entry={}\n", trial.trim_end_matches(".conf"));
    assert!(read(&server.fake, ENV).contains(&next));
    // Between GRUB and our units.
    server.fake.reboot();
    let line = cmdline(&server.fake);
    assert_eq!(deployment(&line), deployment(&runs), "the one that ran");
    for part in [" isolcpus=", " bmslice.trial=", " panic=30 ", "watchdog"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(
        read(&server.fake, ENV).contains("next_entry=\n"),
        "only once"
    );
    assert_eq!(kargs(&server.fake), own, "what is tried is not passed on");
    assert_eq!(status(&server.fake).unwrap().on_trial, Some(10));
    let mut events: Vec<Event> = Vec::new();
    for phase in [Phase::Host, Phase::All] {
        resume(&server.fake, phase, BINARY, &mut |event| events.push(event)).unwrap();
    }
    assert!(!notes(&events).contains("ostree"), "{}", notes(&events));
    assert_eq!(status(&server.fake).unwrap().on_trial, None);
    assert!(!fall_back(&server.fake, &mut |_| {}).unwrap());
    assert_eq!(trials(&server.fake), [""; 0]);
    // rpm-ostree's own words, and then ours.
    let kept = kargs(&server.fake);
    assert_eq!(kept[..own.len()], own);
    assert!(kept[own.len()].starts_with("bmslice.args="), "{kept:?}");
    assert!(kept.iter().any(|word| word.starts_with("isolcpus=")));
    assert!(!kept.iter().any(|word| word.contains("trial")));
    assert_eq!(
        read(&server.fake, &format!("{ENTRIES}/ostree-1.conf")),
        rollback,
        "what there is to go back to stays as it is"
    );
    server.assert_kept_for_good();
    server.reboot().unwrap().unwrap();
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    server.release().unwrap();
    assert_eq!(kargs(&server.fake), own);
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_kernel_that_panics_is_followed_by_the_one_before() {
    goes_back_from_a_panic(iot());
}

#[test]
fn a_kernel_that_comes_up_without_its_management_is_gone_back_from() {
    goes_back_without_management(iot());
}

#[test]
fn a_power_cut_right_after_the_confirmation_loses_nothing() {
    let server = iot();
    server.apply().unwrap();
    server.reboot().unwrap().unwrap();
    // As a power cut does: nobody makes what is staged, and `/run` is gone.
    server.fake.crash(On::Nth(1), Moment::Before);
    server.release().unwrap_err();
    assert!(server.fake.crashed());
    server.fake.reboot();
    let line = cmdline(&server.fake);
    assert!(
        line.contains("isolcpus=") && !line.contains("trial"),
        "{line}"
    );
}

#[test]
fn the_users_own_argument_that_reads_as_one_of_ours_stays_where_it_is() {
    let server = iot();
    rpm_ostree(&server.fake, &["kargs", "--append=iommu=pt"]);
    server.fake.reboot();
    let (before, own) = (state(&server.fake), kargs(&server.fake));
    assert_eq!(count(&own, "iommu=pt"), 1);
    server.slice();
    assert_eq!(count(&kargs(&server.fake), "iommu=pt"), 2);
    server.release().unwrap();
    assert_eq!(kargs(&server.fake), own);
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_changed_plan_replaces_what_was_confirmed_and_falls_back_to_it() {
    let server = iot();
    let own = kargs(&server.fake);
    server.slice();
    let server = falls_back_to_what_was_confirmed(server, kargs);
    let server = server
        .change(|parts| drop(parts.host.kernel_args.pop()))
        .change(with_argument("nosmt=no"));
    server.slice();
    let now = kargs(&server.fake);
    assert_eq!(now.last().map(String::as_str), Some("nosmt=no"));
    let isolated = now.iter().filter(|word| word.starts_with("isolcpus="));
    assert_eq!(isolated.count(), 1);
    server.release().unwrap();
    assert_eq!(kargs(&server.fake), own);
}

#[test]
fn the_users_own_arguments_that_fight_ours_are_told_with_what_to_type() {
    let server = iot();
    rpm_ostree(&server.fake, &["kargs", "--append=isolcpus=3"]);
    server.fake.reboot();
    let error = server.apply().unwrap_err();
    for part in [
        &*format!("line 3 of `{NEWEST}` has `isolcpus=3`"),
        "rpm-ostree kargs --delete=isolcpus=3",
    ] {
        assert!(said(&error).contains(part), "{part} in {}", said(&error));
    }
    // The one before still has it, and that is no reason.
    rpm_ostree(&server.fake, &["kargs", "--delete=isolcpus=3"]);
    server.fake.reboot();
    server.slice();
}

/// What bootupd writes there, without what only draws and searches.
const STATIC: &str = "if [ -s $prefix/grubenv ]; then\n  load_env\nfi\nset timeout=1\nblscfg\n\
    if [ -f $prefix/custom.cfg ]; then\n  source $prefix/custom.cfg\nfi\n";

#[test]
fn a_static_configuration_is_refused_with_the_lines_that_it_lacks_and_does_with_them() {
    let server = iot();
    server.fake.put(CONFIG, STATIC);
    let error = server.apply().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not boot `next_entry` once"),
        "{error}"
    );
    let hint = error.hints().join("");
    let (_, lines) = hint.split_once("which it reads: ").expect("lines");
    let typed: Vec<&str> = lines.split("`, `").map(|l| l.trim_matches('`')).collect();
    assert_eq!(typed.len(), 5, "{typed:?}");
    let custom = "/boot/grub2/custom.cfg";
    assert!(hint.contains(custom), "{hint}");
    server.fake.put(custom, typed.join("\n"));
    let before = state(&server.fake);
    server.slice();
    assert!(cmdline(&server.fake).contains("isolcpus"));
    server.assert_kept_for_good();
    server.release().unwrap();
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn what_cannot_be_tried_once_is_refused_with_what_to_type() {
    let says = |server: Server, change: &dyn Fn(&FakeMachine), parts: &[&str]| {
        change(&server.fake);
        let before = state(&server.fake);
        let error = server.apply().unwrap_err();
        for part in parts {
            assert!(said(&error).contains(part), "{part} in {}", said(&error));
        }
        assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    };
    // A deployment that systemd-boot starts, or another loader: no entries for GRUB.
    says(
        iot(),
        &|fake| {
            fake.delete(NEWEST);
            fake.delete("/boot/loader/entries/ostree-1.conf");
        },
        &[
            "ostree's deployments, whose entries GRUB does not read",
            "`rpm-ostree kargs --append",
            "--delete-if-present=iommu=pt",
            "nothing goes back to it by itself",
        ],
    );
    // Fedora CoreOS.
    says(
        iot(),
        &|fake| {
            let mounts = read(fake, "/proc/self/mountinfo").replace("/dev/vda2 rw", "/dev/vda2 ro");
            fake.put("/proc/self/mountinfo", mounts);
        },
        &[
            "`/boot` is mounted read-only",
            "systemctl edit boot.mount",
            "mount -o remount,rw /boot",
        ],
    );
    let btrfs = server_of(FakeServer {
        root_fs: "btrfs".into(),
        ..FakeServer::iot()
    });
    says(btrfs, &|_| {}, &["it is on btrfs", "rpm-ostree kargs"]);
    says(
        iot(),
        &|fake| fake.put("/boot/loader/entries/mine.conf", "title Mine\nlinux /m\n"),
        &["`/boot/loader/entries/mine.conf` is no entry of ostree's"],
    );
    says(
        iot(),
        &|fake| {
            let words = ["-", "set", "saved_entry=ostree-1"];
            fake.type_in("grub2-editenv", &words).unwrap();
        },
        &["GRUB's default, `ostree-1.conf`, is not what booted this system"],
    );
    // Entries that were written anew since this boot: the one that runs is not known for sure.
    says(
        iot(),
        &|fake| drop(rpm_ostree(fake, &["rollback"])),
        &["is not what booted this system", "reboot, so that"],
    );
    says(
        iot(),
        &|fake| fake.uninstall("grub2-editenv"),
        &["no `grub2-editenv`"],
    );
}

#[test]
fn what_was_typed_by_hand_is_nobodys_to_take_away() {
    let server = server_of(FakeServer {
        root_fs: "btrfs".into(),
        ..FakeServer::iot()
    });
    let args = server.plan.host().kernel_args.iter();
    let mut words = vec!["kargs".to_owned()];
    words.extend(args.map(|arg| format!("--append={arg}")));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    rpm_ostree(&server.fake, &words);
    server.fake.reboot();
    let kept = kargs(&server.fake);
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    server.release().unwrap();
    assert_eq!(kargs(&server.fake), kept);
}

#[test]
fn a_disk_that_is_full_in_the_boot_on_trial_goes_back_and_costs_no_entry() {
    let server = iot();
    server.apply().unwrap();
    let before = read(&server.fake, NEWEST);
    server.fake.reboot();
    server.fake.fail(
        On::Every("install /boot/loader/entries".into()),
        Moment::Half,
        Failure::Errno(Errno::NOSPC),
    );
    resume(&server.fake, Phase::Host, BINARY, &mut |_| {}).unwrap();
    resume(&server.fake, Phase::All, BINARY, &mut |_| {}).unwrap_err();
    assert_eq!(read(&server.fake, NEWEST), before);
    server.fake.heal();
    assert!(fall_back(&server.fake, &mut |_| {}).unwrap());
    let error = server.reboot().unwrap().unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(server.try_again().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap();
    assert!(cmdline(&server.fake).contains("isolcpus"));
}
