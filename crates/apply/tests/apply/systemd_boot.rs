//! Kernel arguments on a server that systemd-boot boots: tried once by an entry of their own, kept in
//! the entries of the system, and taken out again to the byte.

use bmslice_apply::{ApplyOptions, Outcome, Phase, fall_back, resume, status};
use bmslice_host::Machine;
use bmslice_host::fake::{FakeLoader, FakeMachine, FakeServer};

use crate::support::*;

const ENTRIES: &str = "/boot/efi/loader/entries";
const CMDLINE: &str = "/etc/kernel/cmdline";
fn read(fake: &FakeMachine, path: &str) -> String {
    fake.root().read_text(path).unwrap()
}

/// What `bootctl list` says of the default.
fn default(fake: &FakeMachine) -> String {
    let list = fake.type_in("bootctl", &["list"]).unwrap();
    let block = list.split("\n\n").find(|block| block.contains("(default)"));
    block
        .unwrap_or_else(|| panic!("no default in {list}"))
        .into()
}

fn trials(fake: &FakeMachine) -> Vec<String> {
    let names = fake.root().list(ENTRIES).unwrap();
    names
        .into_iter()
        .filter(|n| n.starts_with("a-bmslice-"))
        .collect()
}

fn own_entries(fake: &FakeMachine) -> Vec<String> {
    let names = fake.root().list(ENTRIES).unwrap();
    let own = names.iter().filter(|n| n.starts_with("debian-"));
    own.map(|name| read(fake, &format!("{ENTRIES}/{name}")))
        .collect()
}

#[test]
fn arguments_are_tried_once_and_then_kept() {
    let server = efi();
    let (before, untouched) = (state(&server.fake), own_entries(&server.fake));
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    // Nothing but the next boot takes them.
    assert_eq!(own_entries(&server.fake), untouched);
    assert_eq!(trials(&server.fake).len(), 1);
    let own =
        "root=UUID=5f2a0000-0000-4000-8000-000000000001 ro console=tty0 console=ttyS0,115200\n";
    assert_eq!(read(&server.fake, CMDLINE), own);
    // Between systemd-boot and our units.
    server.fake.reboot();
    let line = cmdline(&server.fake);
    for part in [
        "console=tty0 ",
        " isolcpus=",
        " bmslice.trial=",
        " panic=30 ",
        "watchdog",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!default(&server.fake).contains("isolcpus"), "only once");
    assert_eq!(status(&server.fake).unwrap().on_trial, Some(10));
    for phase in [Phase::Host, Phase::All] {
        resume(&server.fake, phase, BINARY, &mut |_| {}).unwrap();
    }
    assert_eq!(status(&server.fake).unwrap().on_trial, None);
    assert!(!fall_back(&server.fake, &mut |_| {}).unwrap());
    assert_eq!(trials(&server.fake), [""; 0]);
    for (entry, was) in own_entries(&server.fake).iter().zip(&untouched) {
        let ours = entry
            .strip_prefix(was.as_str())
            .expect("what was there stays");
        assert!(
            ours.starts_with("options bmslice.args=") && ours.contains(" isolcpus="),
            "{ours}"
        );
    }
    let kept = read(&server.fake, CMDLINE);
    assert!(
        kept.starts_with(own) && kept.contains("isolcpus="),
        "{kept}"
    );
    server.assert_kept_for_good();
    server.reboot().unwrap().unwrap();
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    server.release().unwrap();
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    assert!(!cmdline(&server.fake).contains("bmslice"));
}

#[test]
fn a_kernel_that_panics_is_followed_by_the_one_before() {
    goes_back_from_a_panic(efi());
}

#[test]
fn a_kernel_that_comes_up_without_its_management_is_gone_back_from() {
    goes_back_without_management(efi());
}

#[test]
fn a_changed_plan_replaces_what_was_confirmed_and_falls_back_to_it() {
    let server = efi();
    let untouched = own_entries(&server.fake);
    server.slice();
    let sliced = state(&server.fake);
    let server = falls_back_to_what_was_confirmed(server, own_entries);
    // The plan before applies as it did.
    let server = server.change(|parts| drop(parts.host.kernel_args.pop()));
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let mut left = differences(&sliced, &state(&server.fake));
    left.retain(|line| !line.contains("journal"));
    assert_eq!(left, [""; 0]);
    // One that boots takes the place of the one before, and of nothing else.
    let server = server.change(with_argument("nosmt=no"));
    server.slice();
    for (entry, was) in own_entries(&server.fake).iter().zip(&untouched) {
        assert!(
            entry.starts_with(was) && entry.contains(" nosmt=no\n"),
            "{entry}"
        );
        assert_eq!(entry.matches("isolcpus=").count(), 1, "{entry}");
    }
    server.release().unwrap();
    assert_eq!(own_entries(&server.fake), untouched);
}

#[test]
fn what_others_wrote_meanwhile_stays() {
    let server = efi();
    server.fake.put(
        CMDLINE,
        "root=UUID=5f2a0000-0000-4000-8000-000000000001 ro quiet",
    );
    server.slice();
    // A new kernel, as kernel-install makes its entry: from one line of words.
    let words = read(&server.fake, CMDLINE);
    let words: Vec<&str> = words.split_whitespace().collect();
    let path = format!("{ENTRIES}/debian-7.0.conf");
    let entry = format!(
        "title new\nlinux /debian/7/linux\noptions    {}\n",
        words.join(" ")
    );
    server.fake.put(&path, &entry);
    // Another system on the same partition, and the user's own words.
    let other = format!("{ENTRIES}/other.conf");
    server.fake.put(
        &other,
        "title Other\nlinux /o\noptions root=UUID=2 isolcpus=1\n",
    );
    let old = format!("{ENTRIES}/debian-5.10.0-9-amd64.conf");
    let edited = read(&server.fake, &old).replace("console=tty0", "console=tty0 splash");
    server.fake.put(&old, &edited);
    assert_eq!(server.apply().unwrap(), Outcome::Nothing, "all of it holds");
    server.release().unwrap();
    assert_eq!(
        read(&server.fake, &path),
        "title new\nlinux /debian/7/linux\noptions    root=UUID=5f2a0000-0000-4000-8000-000000000001 ro quiet\n"
    );
    assert!(read(&server.fake, &other).contains("isolcpus=1"));
    assert!(read(&server.fake, &old).contains("splash"));
    assert!(!read(&server.fake, &old).contains("bmslice"));
    assert_eq!(
        read(&server.fake, CMDLINE),
        "root=UUID=5f2a0000-0000-4000-8000-000000000001 ro quiet"
    );
}

#[test]
fn an_entry_that_somebody_added_gets_what_is_confirmed() {
    let server = efi();
    server.slice();
    let path = format!("{ENTRIES}/debian-rescue.conf");
    let rescue = "linux /r\noptions root=UUID=5f2a0000-0000-4000-8000-000000000001 single\n";
    server.fake.put(&path, rescue);
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(read(&server.fake, &path).contains("isolcpus="));
    assert!(!server.fake.reboot_requested());
    server.release().unwrap();
    assert_eq!(read(&server.fake, &path), rescue);
}

#[test]
fn the_users_own_arguments_that_fight_ours_are_told_with_file_and_line() {
    let server = efi();
    let entry = format!("{ENTRIES}/debian-5.10.0-9-amd64.conf");
    let text = read(&server.fake, &entry).replace("console=tty0", "isolcpus=3");
    server.fake.put(&entry, &text);
    server.fake.put(
        CMDLINE,
        "root=UUID=5f2a0000-0000-4000-8000-000000000001\nisolcpus=1\n",
    );
    let reasons = refusal(server.apply());
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons[0].contains(&format!("line 4 of `{entry}` has `isolcpus=3`")),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains(&format!("line 2 of `{CMDLINE}` has `isolcpus=1`")),
        "{reasons:?}"
    );
}

#[test]
fn an_entry_on_trial_that_would_be_the_default_is_not_left_behind() {
    let server = efi();
    server
        .fake
        .put("/boot/efi/loader/loader.conf", "default a-bm*\n");
    let before = own_entries(&server.fake);
    let error = server.apply().unwrap_err();
    assert!(
        error.to_string().contains("by default, and not only once"),
        "{error}"
    );
    assert!(
        error
            .hints()
            .iter()
            .any(|hint| hint.contains("loader.conf"))
    );
    assert_eq!(trials(&server.fake), [""; 0]);
    assert_eq!(own_entries(&server.fake), before);
    assert!(!server.fake.reboot_requested());
}

#[test]
fn a_default_of_another_system_and_a_unified_kernel_image_are_refused() {
    let server = efi();
    server.fake.put(
        &format!("{ENTRIES}/other.conf"),
        "title Other\nlinux /o\noptions root=UUID=2\n",
    );
    server
        .fake
        .put("/boot/efi/loader/loader.conf", "default other.conf\n");
    let reasons = refusal(server.apply());
    assert!(
        reasons[0].contains("`other.conf`, is no entry of this system's"),
        "{reasons:?}"
    );
    server.fake.act_out("bootctl", |_| {
        Ok("  type: Boot Loader Specification Type #2 (.efi)\n title: Debian (default) (selected)\n id: debian-6.12.efi\n".into())
    });
    let reasons = refusal(server.apply());
    assert!(
        reasons[0].contains("unified kernel image `debian-6.12.efi`"),
        "{reasons:?}"
    );
}

#[test]
fn a_server_without_bootctl_or_with_other_variables_is_refused() {
    let server = efi();
    server.fake.uninstall("bootctl");
    let reasons = refusal(server.apply());
    assert!(reasons[0].contains("no `bootctl`"), "{reasons:?}");
    // Variables that do not keep what is written are told before any reboot.
    let server = efi();
    server.fake.act_out("bootctl", |command| {
        let lists = command.args.iter().any(|arg| arg == "list");
        let list = " title: Debian (default)\n id: debian-6.12.95+deb12-amd64.conf\n";
        Ok(if lists { list.into() } else { String::new() })
    });
    let error = server.apply().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`LoaderEntryOneShot` is not set"),
        "{error}"
    );
    assert!(!server.fake.reboot_requested());
}

#[test]
fn a_release_before_the_reboot_leaves_nothing_armed() {
    let server = efi();
    let before = state(&server.fake);
    let options = ApplyOptions {
        allow_reboot: false,
        ..server.options()
    };
    server.apply_with(&options, &mut |_| {}).unwrap();
    assert!(state(&server.fake).contains_key("efi variable LoaderEntryOneShot"));
    server.release().unwrap();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_loader_that_was_exchanged_is_told() {
    let server = lab();
    server.slice();
    let journal = read(&server.fake, "/var/lib/bmslice/journal");
    let other = machine_of(FakeServer {
        loader: FakeLoader::SystemdBoot,
        ..FakeServer::lab()
    });
    other.put_with_mode("/var/lib/bmslice/journal", journal, 0o600);
    let server = Server {
        fake: other,
        plan: server.plan,
    };
    let reasons = refusal(server.apply());
    assert!(
        reasons
            .iter()
            .any(|r| r.contains("GRUB has our kernel arguments")),
        "{reasons:?}"
    );
}
