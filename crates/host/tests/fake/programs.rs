//! Programs of the fake server.

use std::time::Duration;

use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_model::ByteSize;

use crate::{read, run, server, write};

const BASE: &str = "/var/lib/libvirt/images/base.qcow2";
const DISK: &str = "/var/lib/libvirt/images/red.qcow2";

fn with_base() -> FakeMachine {
    let fake = FakeMachine::new(FakeServer::lab());
    fake.add_image(BASE, ByteSize::from_gib(2), ByteSize::from_mib(172));
    fake
}

fn said(fake: &FakeMachine, program: &str, args: &[&str]) -> String {
    run(fake, program, args).unwrap_err().to_string()
}

fn info(fake: &FakeMachine, path: &str) -> serde_json::Value {
    let output = run(fake, "qemu-img", &["info", "--output=json", path]).unwrap();
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn ip_sets_and_shows_vfs_as_iproute2_does() {
    let fake = FakeMachine::new(server());
    let show = || {
        let output = run(&fake, "ip", &["-j", "link", "show", "dev", "enp66s0"]).unwrap();
        let links: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        links[0].clone()
    };
    assert_eq!(show()["vfinfo_list"], serde_json::json!([]));
    assert_eq!(show()["operstate"], "DOWN");
    run(&fake, "ip", &["link", "set", "dev", "enp66s0", "up"]).unwrap();
    assert_eq!(show()["operstate"], "UP");
    assert_eq!(read(&fake, "/sys/class/net/enp66s0/operstate"), "up");

    write(&fake, "/sys/bus/pci/devices/0000:42:00.0/sriov_numvfs", "2").unwrap();
    let mut set = vec!["link", "set", "dev", "enp66s0", "vf", "0"];
    set.extend(["mac", "52:54:00:aa:00:01", "vlan", "101", "trust", "on"]);
    run(&fake, "ip", &set).unwrap();
    let vfs = &show()["vfinfo_list"];
    assert_eq!(vfs[0]["address"], "52:54:00:aa:00:01");
    assert_eq!(vfs[0]["vlan_list"], serde_json::json!([{ "vlan": 101 }]));
    assert_eq!(vfs[0]["trust"], true);
    assert_eq!(vfs[1]["address"], "00:00:00:00:00:00");
    assert_eq!(vfs[1]["vlan_list"], serde_json::json!([{}]));
    let text = run(&fake, "ip", &["link", "show", "dev", "enp66s0"]).unwrap();
    assert!(text.stdout.contains(
        "    vf 0     link/ether 52:54:00:aa:00:01 brd ff:ff:ff:ff:ff:ff, vlan 101, spoof \
         checking on, link-state auto, trust on\n"
    ));

    let vf = |index: &str, key: &str, value: &str| {
        said(
            &fake,
            "ip",
            &["link", "set", "dev", "enp66s0", "vf", index, key, value],
        )
    };
    assert!(vf("2", "vlan", "5").ends_with("(exit status 2): RTNETLINK answers: Invalid argument"));
    assert!(vf("0", "mac", "01:00:5e:00:00:01").contains("RTNETLINK answers: Invalid argument"));
    assert!(vf("0", "vlan", "4096").contains("argument \"4096\" is wrong"));
    assert!(vf("0", "trust", "maybe").contains("must be one of"));
    // igb has no link state to set, and takes a rate only of a link, and none above its speed.
    assert!(vf("0", "state", "enable").ends_with("RTNETLINK answers: Operation not supported"));
    assert!(vf("0", "max_tx_rate", "5000").ends_with("RTNETLINK answers: Invalid argument"));
    let limit = ["link", "set", "dev", "enp66s0", "vf", "0", "max_tx_rate"];
    let limit = |rate| run(&fake, "ip", &[&limit[..], &[rate]].concat());
    limit("500").unwrap();
    assert_eq!(show()["vfinfo_list"][0]["rate"]["max_tx"], 500);
    run(&fake, "ip", &["link", "set", "dev", "enp66s0", "down"]).unwrap();
    assert!(limit("400").is_err());
    fake.link_takes(Duration::from_secs(4));
    run(&fake, "ip", &["link", "set", "dev", "enp66s0", "up"]).unwrap();
    assert_eq!(show()["operstate"], "DOWN");
    assert!(limit("400").is_err());
    fake.sleep(Duration::from_secs(4));
    assert_eq!(show()["operstate"], "UP");
    limit("400").unwrap();
    let none = said(&fake, "ip", &["link", "set", "dev", "nope", "up"]);
    assert!(none.ends_with("Cannot find device \"nope\""));
}

#[test]
fn images_are_made_on_a_base_and_tell_their_sizes() {
    let fake = with_base();
    let make = [
        "create", "-f", "qcow2", "-b", BASE, "-F", "qcow2", DISK, "100G",
    ];
    run(&fake, "qemu-img", &make).unwrap();
    let disk = info(&fake, DISK);
    assert_eq!(disk["format"], "qcow2");
    assert_eq!(disk["virtual-size"], 100u64 << 30);
    assert_eq!(disk["full-backing-filename"], BASE);
    run(&fake, "qemu-img", &["convert", "-O", "qcow2", BASE, DISK]).unwrap();
    assert_eq!(info(&fake, DISK)["virtual-size"], 2u64 << 30);
    assert!(info(&fake, DISK)["backing-filename"].is_null());
    run(&fake, "qemu-img", &["resize", DISK, "20G"]).unwrap();
    assert_eq!(info(&fake, DISK)["virtual-size"], 20u64 << 30);
    assert!(said(&fake, "qemu-img", &["resize", DISK, "1G"]).contains("--shrink"));
}

#[test]
fn a_base_that_is_missing_or_no_image_is_refused_in_qemus_words() {
    let fake = with_base();
    fake.put("/srv/notes.txt", "this is a text\n");
    let on = |base: &str| {
        said(
            &fake,
            "qemu-img",
            &["create", "-f", "qcow2", "-b", base, "-F", "qcow2", DISK],
        )
    };
    assert!(on("/srv/none.qcow2").contains(
        "Could not open '/srv/none.qcow2': No such file or directory\nCould not open backing image."
    ));
    assert!(on("/srv/notes.txt").contains("Image is not in qcow2 format"));
    assert!(!fake.root().exists(DISK));
    let convert = [
        "convert",
        "-f",
        "qcow2",
        "-O",
        "qcow2",
        "/srv/notes.txt",
        DISK,
    ];
    assert!(said(&fake, "qemu-img", &convert).contains("Image is not in qcow2 format"));
    assert_eq!(info(&fake, "/srv/notes.txt")["format"], "raw");
}

#[test]
fn a_full_disk_stops_installs_copies_and_grub_and_a_copy_leaves_its_part() {
    let fake = with_base();
    let old = read(&fake, "/boot/grub/grub.cfg");
    fake.fill_disk();
    let error = fake.install("/etc/x".as_ref(), b"1", 0o644).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
    assert!(!fake.root().exists("/etc/x"));
    assert_eq!(fake.free_space(DISK.as_ref()).unwrap(), ByteSize::ZERO);
    let copy = said(&fake, "qemu-img", &["convert", "-O", "qcow2", BASE, DISK]);
    assert!(copy.contains("No space left on device"), "{copy}");
    assert!(fake.root().exists(DISK));
    assert!(said(&fake, "update-grub", &[]).contains("No space left on device"));
    assert_eq!(read(&fake, "/boot/grub/grub.cfg"), old);
    fake.heal();
    run(&fake, "qemu-img", &["convert", "-O", "qcow2", BASE, DISK]).unwrap();
    // A copy that does not fit, on a disk that has some room.
    fake.set_free_space(ByteSize::from_mib(100));
    let copy = said(&fake, "qemu-img", &["convert", "-O", "qcow2", BASE, DISK]);
    assert!(copy.contains("No space left on device"), "{copy}");
}

#[test]
fn an_iso_holds_its_files_under_its_volume_name_and_keeps_its_mode() {
    let fake = FakeMachine::new(FakeServer::lab());
    let seed = "/var/lib/libvirt/images/red-seed.iso";
    fake.put("/tmp/seed/user-data", "#cloud-config\n");
    fake.put("/tmp/seed/meta-data", "instance-id: red\n");
    fake.install(seed.as_ref(), b"", 0o600).unwrap();
    let mut args = vec![
        "-as", "mkisofs", "-output", seed, "-volid", "cidata", "-joliet", "-rock",
    ];
    args.extend(["/tmp/seed/user-data", "/tmp/seed/meta-data"]);
    run(&fake, "xorriso", &args).unwrap();
    let (volume, files) = fake.iso(seed).unwrap();
    assert_eq!(volume, "cidata");
    assert_eq!(
        files[1],
        ("meta-data".into(), b"instance-id: red\n".to_vec())
    );
    assert_eq!(fake.root().mode(seed).unwrap() & 0o777, 0o600);
    let error = said(&fake, "genisoimage", &["-o", seed, "/tmp/none"]);
    assert!(error.contains("No such file or directory"), "{error}");
}

#[test]
fn units_are_enabled_by_their_install_section() {
    let fake = FakeMachine::new(FakeServer::lab());
    let unit = "bmslice-host.service";
    let missing = said(&fake, "systemctl", &["enable", unit]);
    assert!(missing.ends_with("Unit file bmslice-host.service does not exist."));
    let text = b"[Service]\nExecStart=/usr/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    let path = format!("/etc/systemd/system/{unit}");
    fake.install(path.as_ref(), text, 0o644).unwrap();
    run(&fake, "systemctl", &["daemon-reload"]).unwrap();
    let state = said(&fake, "systemctl", &["is-enabled", unit]);
    assert!(state.ends_with("(exit status 1): disabled"), "{state}");
    run(&fake, "systemctl", &["enable", unit]).unwrap();
    assert!(fake.enabled_units().contains(&unit.to_owned()));
    let output = run(&fake, "systemctl", &["is-enabled", unit]).unwrap();
    assert_eq!(output.stdout, "enabled\n");
    fake.reboot();
    assert!(fake.enabled_units().contains(&unit.to_owned()));
    run(&fake, "systemctl", &["disable", unit]).unwrap();
    assert!(!fake.enabled_units().contains(&unit.to_owned()));
}

#[test]
fn what_is_not_installed_or_not_acted_out_is_an_error() {
    let fake = FakeMachine::new(FakeServer::lab());
    assert!(fake.has_program("update-grub") && !fake.has_program("grubby"));
    assert!(said(&fake, "grubby", &[]).starts_with("cannot run `grubby`: No such file"));
    fake.uninstall("qemu-img");
    assert!(!fake.has_program("qemu-img"));
    assert!(said(&fake, "systemctl", &["frobnicate"]).contains("Unknown command verb"));
    fake.act_out("grubby", |command| Ok(format!("{command}!")));
    assert_eq!(
        run(&fake, "grubby", &["--info=ALL"]).unwrap().stdout,
        "grubby --info=ALL!"
    );
}
