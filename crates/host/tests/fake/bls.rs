//! GRUB with boot loader entries: what `grubby` of RHEL 9 and `grub-editenv` 2.06 did with the same
//! files, word for word.

use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_inventory::{BlsObstacle, BootLoader, GrubEntries, Probes};

use crate::run;

const MACHINE: &str = "8a1f0000000000000000000000000000";
const RUNNING: &str = "5.14.0-427.13.1.el9_4.x86_64";
const ENV: &str = "/boot/grub2/grubenv";
const ROOT: &str = "root=UUID=5f2a0000-0000-4000-8000-000000000001";

fn rocky() -> FakeMachine {
    FakeMachine::new(FakeServer::rocky())
}

fn said(fake: &FakeMachine, args: &[&str]) -> String {
    run(fake, "grubby", args).unwrap_err().to_string()
}

fn read(fake: &FakeMachine, path: &str) -> String {
    fake.root().read_text(path).unwrap()
}

fn entry(kernel: &str) -> String {
    format!("/boot/loader/entries/{MACHINE}-{kernel}.conf")
}

fn grubby(fake: &FakeMachine, args: &[&str]) -> String {
    run(fake, "grubby", args).unwrap().stdout
}

/// The ids that `grubby --info` prints.
fn ids(text: &str) -> Vec<&str> {
    let ids = text.lines().filter_map(|line| line.strip_prefix("id="));
    ids.map(|id| id.trim_matches('"')).collect()
}

#[test]
fn it_is_read_as_grub_with_entries() {
    let loader = |server: FakeServer| {
        let fake = FakeMachine::new(server);
        let inventory = bmslice_inventory::read(fake.root(), &Probes::default()).unwrap();
        assert_eq!(inventory.notes, []);
        inventory.boot.loader
    };
    let bls = |obstacle| {
        BootLoader::Bls(GrubEntries {
            entries: Some("/boot/loader/entries".into()),
            env: Some(ENV.into()),
            obstacle,
        })
    };
    assert_eq!(loader(FakeServer::rocky()), bls(None));
    let mut btrfs = FakeServer::rocky();
    btrfs.root_fs = "btrfs".into();
    let why = "it is on btrfs".to_owned();
    assert_eq!(loader(btrfs), bls(Some(BlsObstacle::ReadOnly { why })));
}

#[test]
fn the_default_is_the_saved_entry_or_the_newest() {
    let fake = rocky();
    let text = grubby(&fake, &["--info=DEFAULT"]);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "index=0",
            &format!("kernel=\"/boot/vmlinuz-{RUNNING}\""),
            "args=\"ro console=tty0 console=ttyS0,115200 $tuned_params\"",
            &format!("root=\"{}\"", &ROOT[5..]),
            &format!("initrd=\"/boot/initramfs-{RUNNING}.img $tuned_initrd\""),
            &format!("title=\"Rocky Linux ({RUNNING}) 9.4 (Blue Onyx)\""),
            &format!("id=\"{MACHINE}-{RUNNING}\""),
        ]
    );
    // What begins with `~` is the last.
    let trial = "/boot/loader/entries/~bmslice-0011223344556677.conf";
    fake.put(trial, read(&fake, &entry(RUNNING)));
    let all = grubby(&fake, &["--info=ALL"]);
    let newest = format!("{MACHINE}-{RUNNING}");
    assert_eq!(ids(&all)[0], newest);
    assert_eq!(ids(&all)[3], "~bmslice-0011223344556677");
    run(&fake, "grub2-editenv", &[ENV, "unset", "saved_entry"]).unwrap();
    assert_eq!(ids(&grubby(&fake, &["--info=DEFAULT"])), [newest]);
    run(&fake, "grub2-editenv", &[ENV, "set", "saved_entry=gone"]).unwrap();
    assert_eq!(grubby(&fake, &["--info=DEFAULT"]), "");
    assert!(said(&fake, &["--info=/boot/none"]).contains("is incorrect"));
    assert!(said(&fake, &["--args=a"]).contains("no action specified"));
}

#[test]
fn grubby_rewrites_what_is_there_and_takes_out_all_of_a_name() {
    let fake = rocky();
    let ours = "bmslice.args=0011223344556677 isolcpus=domain,managed_irq,2-11 iommu=pt hugepagesz=1G hugepages=0:2";
    for kernel in [RUNNING, "0-rescue"] {
        let text = read(&fake, &entry(kernel));
        let text = text.replace(" $tuned_params", &format!("  $tuned_params {ours}"));
        fake.put(&entry(kernel), text);
    }
    let cmdline = "/etc/kernel/cmdline";
    fake.put(cmdline, format!("{ROOT} ro console=tty0 {ours}\n# mine\n"));
    let words = [
        "--update-kernel=ALL",
        "--args=nosmt quiet console=tty1",
        "--remove-args=ro",
    ];
    grubby(&fake, &words);
    let line = format!("options {ROOT} $tuned_params {ours} nosmt quiet console=tty1\n");
    assert!(read(&fake, &entry(RUNNING)).contains(&line));
    assert!(read(&fake, &entry("0-rescue")).contains(&line));
    assert_eq!(
        read(&fake, cmdline),
        format!("{ROOT} {ours} nosmt quiet console=tty1\n")
    );
    let defaults = read(&fake, "/etc/default/grub");
    assert!(defaults.contains("\nGRUB_CMDLINE_LINUX=\"nosmt quiet console=tty1\"\n"));
}

#[test]
fn grub_takes_next_entry_once_and_leaves_it_empty() {
    let fake = rocky();
    let rescue = format!("next_entry={MACHINE}-0-rescue");
    run(&fake, "grub2-editenv", &["-", "set", &rescue]).unwrap();
    assert_eq!(read(&fake, ENV).len(), 1024);
    fake.reboot();
    assert!(read(&fake, "/proc/cmdline").contains("vmlinuz-0-rescue"));
    assert!(read(&fake, ENV).contains("\nnext_entry=\n"));
    fake.reboot();
    let line = read(&fake, "/proc/cmdline");
    assert!(line.starts_with(&format!(
        "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-{RUNNING} {ROOT} ro "
    )));
    assert!(!line.contains('$'), "GRUB fills its variables in: {line}");
    // Of several lines of options, the first counts.
    let text = read(&fake, &entry(RUNNING)) + "options splash\n";
    fake.put(&entry(RUNNING), text);
    fake.reboot();
    assert!(!read(&fake, "/proc/cmdline").contains("splash"));
    // Where GRUB cannot write, it takes it again and again.
    let mut server = FakeServer::rocky();
    server.root_fs = "btrfs".into();
    let fake = FakeMachine::new(server);
    run(&fake, "grub2-editenv", &["-", "set", &rescue]).unwrap();
    for _ in 0..2 {
        fake.reboot();
        assert!(read(&fake, "/proc/cmdline").contains("vmlinuz-0-rescue"));
    }
}
