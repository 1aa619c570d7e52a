//! Kernel arguments on a server whose GRUB reads boot loader entries, as Rocky Linux 9 is installed:
//! tried once by an entry of their own, kept in the entries of the system, taken out to the byte.

use bmslice_apply::{ApplyError, ApplyOptions, Outcome, Phase, fall_back, resume, status};
use bmslice_host::Machine;
use bmslice_host::fake::{Errno, Failure, FakeMachine, FakeServer, Moment, On};

use crate::support::*;

const ENTRIES: &str = "/boot/loader/entries";
const CMDLINE: &str = "/etc/kernel/cmdline";
const ENV: &str = "/boot/grub2/grubenv";
const CONFIG: &str = "/boot/grub2/grub.cfg";
const MACHINE: &str = "8a1f0000000000000000000000000000";
const RUNNING: &str = "5.14.0-427.13.1.el9_4.x86_64";
const OWN: &str =
    "root=UUID=5f2a0000-0000-4000-8000-000000000001 ro console=tty0 console=ttyS0,115200";
fn read(fake: &FakeMachine, path: &str) -> String {
    fake.root().read_text(path).unwrap()
}

fn trials(fake: &FakeMachine) -> Vec<String> {
    let names = fake.root().list(ENTRIES).unwrap();
    let ours = |name: &String| name.starts_with("~bmslice-");
    names.into_iter().filter(ours).collect()
}

fn own_entries(fake: &FakeMachine) -> Vec<String> {
    let names = fake.root().list(ENTRIES).unwrap();
    let own = names.iter().filter(|name| name.starts_with(MACHINE));
    own.map(|name| read(fake, &format!("{ENTRIES}/{name}")))
        .collect()
}

/// An entry of the installer's.
fn entry(kernel: &str) -> String {
    format!("{ENTRIES}/{MACHINE}-{kernel}.conf")
}

fn default(fake: &FakeMachine) -> String {
    fake.type_in("grubby", &["--info=DEFAULT"]).unwrap()
}

/// The words of the `options` lines.
fn options(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|l| l.strip_prefix("options "));
    lines.flat_map(str::split_whitespace).collect()
}

#[test]
fn arguments_are_tried_once_and_then_kept() {
    let server = rocky();
    let (before, untouched) = (state(&server.fake), own_entries(&server.fake));
    let chosen = default(&server.fake);
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    // Nothing but the next boot takes them.
    assert_eq!(own_entries(&server.fake), untouched);
    assert_eq!(default(&server.fake), chosen);
    let [trial] = &trials(&server.fake)[..] else {
        panic!("one entry on trial");
    };
    let next = format!("next_entry={}\n", trial.trim_end_matches(".conf"));
    assert!(read(&server.fake, ENV).contains(&next));
    // GRUB's own variables are for GRUB's entries.
    assert_eq!(read(&server.fake, CMDLINE), format!("{OWN}\n"));
    // Between GRUB and our units.
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
    assert!(
        read(&server.fake, ENV).contains("next_entry=\n"),
        "only once"
    );
    assert_eq!(status(&server.fake).unwrap().on_trial, Some(10));
    for phase in [Phase::Host, Phase::All] {
        resume(&server.fake, phase, BINARY, &mut |_| {}).unwrap();
    }
    assert_eq!(status(&server.fake).unwrap().on_trial, None);
    assert!(!fall_back(&server.fake, &mut |_| {}).unwrap());
    assert_eq!(trials(&server.fake), [""; 0]);
    for (entry, was) in own_entries(&server.fake).iter().zip(&untouched) {
        let (own, ours) = entry.split_once(" bmslice.args=").expect("a block");
        let (own_options, rest) = was.split_once(" $tuned_params").unwrap();
        assert_eq!(own, format!("{own_options} $tuned_params"));
        let (ours, after) = ours.split_once('\n').unwrap();
        assert!(ours.contains(" isolcpus=") && !ours.contains("trial"));
        assert_eq!(format!("\n{after}"), rest, "what was there stays");
    }
    let kept = read(&server.fake, CMDLINE);
    assert!(kept.starts_with(OWN) && kept.contains("isolcpus="));
    assert_eq!(kept.lines().count(), 1, "grubby keeps one line: {kept}");
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
    goes_back_from_a_panic(rocky());
}

#[test]
fn a_kernel_that_comes_up_without_its_management_is_gone_back_from() {
    goes_back_without_management(rocky());
}

#[test]
fn a_changed_plan_replaces_what_was_confirmed_and_falls_back_to_it() {
    let server = rocky();
    let untouched = own_entries(&server.fake);
    server.slice();
    let server = falls_back_to_what_was_confirmed(server, own_entries);
    // One that boots takes the place of the one before, and of nothing else.
    let server = server
        .change(|parts| drop(parts.host.kernel_args.pop()))
        .change(with_argument("nosmt=no"));
    server.slice();
    for entry in own_entries(&server.fake) {
        assert!(entry.contains(" nosmt=no\n"), "{entry}");
        assert_eq!(entry.matches("isolcpus=").count(), 1, "{entry}");
    }
    server.release().unwrap();
    assert_eq!(own_entries(&server.fake), untouched);
}

#[test]
fn what_grubby_and_a_new_kernel_do_meanwhile_stays_and_so_do_ours() {
    let server = rocky();
    server.slice();
    // The administrator, with the distribution's tool.
    let theirs = [
        "--update-kernel=ALL",
        "--args=nosmt quiet",
        "--remove-args=ro",
    ];
    server.fake.type_in("grubby", &theirs).unwrap();
    // A kernel's update, as kernel-install makes its entry: from the words of the file.
    let words = read(&server.fake, CMDLINE);
    let words: Vec<&str> = words.split_whitespace().collect();
    assert!(
        words.contains(&"nosmt") && words.contains(&"iommu=pt"),
        "{words:?}"
    );
    let newer = "5.14.0-503.11.1.el9_5.x86_64";
    server.fake.put(&format!("/boot/vmlinuz-{newer}"), "kernel");
    let text = format!(
        "title new\nversion {newer}\nlinux /vmlinuz-{newer}\noptions {} $tuned_params\n",
        words.join(" ")
    );
    server.fake.put(&entry(newer), &text);
    let new_default = format!("--set-default=/boot/vmlinuz-{newer}");
    server.fake.type_in("grubby", &[&new_default]).unwrap();
    server.reboot().unwrap().unwrap();
    assert!(cmdline(&server.fake).contains(newer));
    assert_eq!(server.apply().unwrap(), Outcome::Nothing, "all of it holds");
    server.release().unwrap();
    for text in own_entries(&server.fake) {
        let left = options(&text);
        assert!(left.contains(&"nosmt") && left.contains(&"quiet"), "{text}");
        assert!(!text.contains("isolcpus") && !text.contains("bmslice"));
        assert!(left.contains(&"$tuned_params"));
    }
    let kept = read(&server.fake, CMDLINE);
    assert!(kept.contains(" nosmt quiet") && !kept.contains("isolcpus"));
}

#[test]
fn an_entry_that_lost_ours_gets_them_again_without_a_reboot() {
    let server = rocky();
    let untouched = own_entries(&server.fake);
    server.slice();
    // As `grub2-mkconfig --update-bls-cmdline` does.
    let path = entry("0-rescue");
    let text = read(&server.fake, &path);
    let (own, _) = text.split_once(" bmslice.args=").unwrap();
    let after = text.split_once("\ngrub_users").unwrap().1;
    server.fake.put(&path, format!("{own}\ngrub_users{after}"));
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert!(!server.fake.reboot_requested());
    assert_eq!(read(&server.fake, &path), text);
    server.release().unwrap();
    assert_eq!(own_entries(&server.fake), untouched);
}

#[test]
fn foreign_words_quotes_blanks_and_their_order_stay_to_the_byte() {
    let server = rocky();
    let odd = "options   root=UUID=5f2a0000-0000-4000-8000-000000000001\tro dyndbg=\"file a.c +p\"  iommu=pt  $tuned_params \n";
    let path = entry(RUNNING);
    let text = read(&server.fake, &path);
    let line = text.lines().find(|l| l.starts_with("options ")).unwrap();
    let text = text.replacen(&format!("{line}\n"), odd, 1);
    server.fake.put(&path, &text);
    server.fake.put(CMDLINE, format!("{OWN}  quiet \n# mine\n"));
    let before = state(&server.fake);
    server.slice();
    let sliced = read(&server.fake, &path);
    assert!(sliced.contains(odd.trim_end()), "{sliced}");
    assert!(read(&server.fake, CMDLINE).ends_with(" \n# mine\n"));
    server.release().unwrap();
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn the_users_own_arguments_that_fight_ours_are_told_with_file_and_line() {
    let server = rocky();
    let path = entry("0-rescue");
    let text = read(&server.fake, &path).replace("console=tty0", "isolcpus=3");
    server.fake.put(&path, &text);
    server.fake.put(CMDLINE, format!("{OWN} isolcpus=1\n"));
    // tuned keeps its own in GRUB's block.
    let tuned = ["-", "set", "tuned_params=skew_tick=1 isolcpus=2"];
    server.fake.type_in("grub2-editenv", &tuned).unwrap();
    let reasons = refusal(server.apply());
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    for (reason, text) in reasons.iter().zip([
        format!("line 5 of `{path}` has `isolcpus=3`"),
        format!("line 5 of `{ENV}` has `isolcpus=2`"),
        format!("line 1 of `{CMDLINE}` has `isolcpus=1`"),
    ]) {
        assert!(reason.contains(&text), "{text}: {reasons:?}");
    }
}

#[test]
fn a_grub_that_would_not_try_an_entry_once_is_refused_with_what_to_do() {
    let says = |change: &dyn Fn(&FakeMachine), text: &str| {
        let server = rocky();
        change(&server.fake);
        let before = state(&server.fake);
        let reasons = refusal(server.apply());
        assert!(reasons[0].contains(text), "{text}: {reasons:?}");
        assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    };
    let config = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |fake: &FakeMachine| {
            let text = read(fake, CONFIG).replace(&from, &to);
            fake.put(CONFIG, text);
        }
    };
    says(
        &config("\nblscfg", "\n# blscfg"),
        "reads no entries (`blscfg`)",
    );
    says(
        &config("save_env next_entry", ""),
        "does not boot `next_entry` once",
    );
    says(&|fake| fake.delete(CONFIG), "is not there");
    says(
        &|fake| fake.uninstall("grub2-editenv"),
        "no `grub2-editenv`",
    );
    says(&|fake| fake.put(ENV, "x"), "is no environment block");
    let asked = |fake: &FakeMachine| {
        let words = ["-", "set", "next_entry=memtest"];
        fake.type_in("grub2-editenv", &words).unwrap();
    };
    says(&asked, "somebody asked GRUB to boot that entry next");
    let lost = |fake: &FakeMachine| {
        let words = ["-", "set", "saved_entry=gone"];
        fake.type_in("grub2-editenv", &words).unwrap();
    };
    says(&lost, "GRUB has no default entry");
    let other = |fake: &FakeMachine| {
        let text = "title Other\nlinux /o\noptions root=UUID=2\n";
        fake.put(&format!("{ENTRIES}/other.conf"), text);
        let words = ["-", "set", "saved_entry=other"];
        fake.type_in("grub2-editenv", &words).unwrap();
    };
    says(&other, "`other.conf`, is no entry of this system's");
    let server = rocky().change(with_argument("dyndbg=a;b"));
    let reasons = refusal(server.apply());
    assert!(reasons[0].contains("GRUB would change"), "{reasons:?}");
}

#[test]
fn entries_that_cannot_be_written_are_refused_until_the_kernel_has_the_arguments() {
    // RHEL 8: the arguments are GRUB's variable.
    let server = rocky();
    let path = entry(RUNNING);
    let text = read(&server.fake, &path).replace(OWN, "$kernelopts");
    server.fake.put(&path, text);
    let error = server.apply().unwrap_err();
    let said = format!("{error} {:?}", error.hints());
    for part in ["$kernelopts", &path, "grubby --update-kernel=ALL --args='"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // A file system that GRUB only reads.
    let server = server_of(FakeServer {
        root_fs: "btrfs".into(),
        ..FakeServer::rocky()
    });
    let reasons = refusal(server.apply());
    assert!(reasons[0].contains("it is on btrfs"), "{reasons:?}");
    // And one that nobody may write.
    let read_only = rocky();
    let mounts = read(&read_only.fake, "/proc/self/mountinfo");
    let mounts = mounts.replace("/dev/vda2 rw", "/dev/vda2 ro");
    read_only.fake.put("/proc/self/mountinfo", mounts);
    let error = read_only.apply().unwrap_err();
    let said = format!("{error} {:?}", error.hints());
    for part in ["`/boot` is mounted read-only", "mount -o remount,rw /boot"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // By hand, as the hint says; then nobody asks how they came there.
    let args: Vec<String> = server
        .plan
        .host()
        .kernel_args
        .iter()
        .map(ToString::to_string)
        .collect();
    let typed = format!("--args={}", args.join(" "));
    let words = ["--update-kernel=ALL", &typed];
    server.fake.type_in("grubby", &words).unwrap();
    server.fake.reboot();
    let kept = own_entries(&server.fake);
    let outcome = server.apply().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    server.release().unwrap();
    assert_eq!(own_entries(&server.fake), kept, "they are not ours");
}

#[test]
fn what_is_not_read_back_is_no_reason_to_reboot() {
    // A block that does not keep what is written.
    let server = rocky();
    server.fake.act_out("grub2-editenv", |_| Ok(String::new()));
    let error = server.apply().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`next_entry` in `/boot/grub2/grubenv` is not set"),
        "{error}"
    );
    assert!(!server.fake.reboot_requested());
    // An entry on trial that is the default after all.
    let server = rocky();
    let before = own_entries(&server.fake);
    server.fake.act_out("grubby", |_| {
        Ok("index=0\nid=\"~bmslice-0011223344556677\"\n".into())
    });
    let error = server.apply().unwrap_err();
    assert!(
        error.to_string().contains("by default, and not only once"),
        "{error}"
    );
    assert_eq!(trials(&server.fake), [""; 0]);
    assert_eq!(own_entries(&server.fake), before);
    // A kernel that went meanwhile: an entry that boots nothing.
    let server = rocky();
    server.fake.delete(&format!("/boot/vmlinuz-{RUNNING}"));
    let error = server.apply().unwrap_err();
    assert!(error.to_string().contains("which is not there"), "{error}");
    assert!(!server.fake.reboot_requested());
}

#[test]
fn an_entry_on_trial_that_went_before_the_reboot_is_told_as_gone_back() {
    let server = rocky();
    assert_eq!(server.apply().unwrap(), Outcome::Rebooting);
    let trial = trials(&server.fake).remove(0);
    server.fake.delete(&format!("{ENTRIES}/{trial}"));
    let error = server.reboot().unwrap().unwrap_err();
    assert!(matches!(error, ApplyError::FellBack { .. }), "{error}");
    let gone = format!("its entry `{ENTRIES}/{trial}` was gone");
    assert!(error.to_string().contains(&gone), "{error}");
    assert!(!cmdline(&server.fake).contains("isolcpus"));
    assert_eq!(server.try_again().unwrap(), Outcome::Rebooting);
    server.reboot().unwrap().unwrap();
    assert!(cmdline(&server.fake).contains("isolcpus"));
}

#[test]
fn a_release_before_the_reboot_leaves_nothing_armed() {
    for used in [false, true] {
        let server = rocky();
        if used {
            // What GRUB leaves after somebody's `grub2-reboot`.
            let words = ["-", "set", "next_entry="];
            server.fake.type_in("grub2-editenv", &words).unwrap();
        }
        let before = state(&server.fake);
        let options = ApplyOptions {
            allow_reboot: false,
            ..server.options()
        };
        server.apply_with(&options, &mut |_| {}).unwrap();
        assert!(read(&server.fake, ENV).contains("next_entry=~bmslice-"));
        server.release().unwrap();
        assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
    }
}

#[test]
fn a_disk_that_is_full_costs_no_entry() {
    let server = rocky();
    let before = own_entries(&server.fake);
    server.fake.fail(
        On::Every("install /boot/loader/entries".into()),
        Moment::Half,
        Failure::Errno(Errno::NOSPC),
    );
    server.apply().unwrap_err();
    assert_eq!(own_entries(&server.fake), before);
    assert!(!server.fake.reboot_requested());
    server.fake.heal();
    server.slice();
}
