//! Which devices the host cannot live without, through every layer that a server may have.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its tree cannot be read"
)]

mod tree;

use bmslice_inventory::HostNeed;
use tree::{function, needs, notes, seed_server};

fn mount(at: &str) -> HostNeed {
    HostNeed::Mount { at: at.into() }
}

fn member(of: &str) -> HostNeed {
    HostNeed::Member { of: of.into() }
}

fn address(interface: &str) -> HostNeed {
    HostNeed::Address {
        interface: interface.into(),
    }
}

fn route(interface: &str) -> HostNeed {
    HostNeed::DefaultRoute {
        interface: interface.into(),
    }
}

#[test]
fn the_management_of_a_virtual_function_holds_its_physical_one() {
    let tree = seed_server();
    let path = "pci0000:00/0000:00:01.0/0000:01:10.0";
    tree.pci(path, "8086:1515", "0x020000", 0)
        .link(&format!("/sys/devices/{path}/physfn"), "../0000:01:00.0")
        .interface(path, "eno1v0", Some("02:00:00:00:00:01"))
        .routes(&[("eno1v0", "00000000", "00000000")]);
    let inventory = tree.read();
    assert_eq!(needs(&inventory, "0000:01:10.0"), [route("eno1v0")]);
    assert_eq!(needs(&inventory, "0000:01:00.0"), [route("eno1v0")]);
    assert!(needs(&inventory, "0000:08:00.0").is_empty());
}

#[test]
fn a_default_route_over_vlan_bridge_and_bond_holds_both_members() {
    let tree = seed_server();
    for upper in ["bond0", "bond0.100", "br0"] {
        tree.interface("virtual", upper, Some("bc:30:5b:f2:87:50"));
    }
    tree.enslave("eno1", "bond0", true)
        .enslave("eno2", "bond0", true)
        .enslave("bond0", "bond0.100", false)
        .enslave("bond0.100", "br0", true)
        .routes(&[
            ("br0", "00000000", "00000000"),
            ("br0", "0001A8C0", "00FFFFFF"),
        ]);
    let inventory = tree.read();
    for port in ["0000:01:00.0", "0000:01:00.1"] {
        let found = needs(&inventory, port);
        assert!(found.contains(&route("br0")), "{found:?}");
        assert!(found.contains(&member("bond0")), "{found:?}");
    }
    assert!(needs(&inventory, "0000:08:00.0").is_empty());
    let bond = inventory
        .interfaces
        .iter()
        .find(|i| i.name == "bond0")
        .unwrap();
    assert_eq!(bond.lower, ["eno1", "eno2"]);
    let eno1 = inventory
        .interfaces
        .iter()
        .find(|i| i.name == "eno1")
        .unwrap();
    assert_eq!(eno1.master.as_deref(), Some("bond0"));
    assert!(inventory.notes.is_empty(), "{}", notes(&inventory));
}

#[test]
fn a_bridge_member_is_held_even_without_addresses() {
    let tree = seed_server();
    tree.interface("virtual", "br1", None)
        .enslave("eno2", "br1", true);
    assert_eq!(needs(&tree.read(), "0000:01:00.1"), [member("br1")]);
}

#[test]
fn a_vlan_holds_its_parent_only_with_an_address() {
    let tree = seed_server();
    tree.interface("virtual", "eno2.7", None)
        .enslave("eno2", "eno2.7", false);
    assert!(needs(&tree.read(), "0000:01:00.1").is_empty());

    tree.file(
        "/proc/net/if_inet6",
        "fe800000000000000000000000000001 07 40 20 80   eno2.7",
    );
    assert!(
        needs(&tree.read(), "0000:01:00.1").is_empty(),
        "a link address is nobody's"
    );

    tree.file(
        "/proc/net/if_inet6",
        "20010db8000000000000000000000001 07 40 00 80   eno2.7",
    );
    assert_eq!(needs(&tree.read(), "0000:01:00.1"), [member("eno2.7")]);
}

#[test]
fn a_nic_with_an_address_of_the_host_is_held_without_any_default_route() {
    let tree = seed_server();
    tree.routes(&[("eno2", "0000000A", "000000FF")]);
    assert_eq!(needs(&tree.read(), "0000:01:00.1"), [address("eno2")]);
    // What every port has by itself is nobody's: 169.254.0.0/16.
    tree.routes(&[("eno2", "0000FEA9", "0000FFFF")]);
    assert!(needs(&tree.read(), "0000:01:00.1").is_empty());
    // One reason is enough.
    tree.routes(&[
        ("eno2", "00000000", "00000000"),
        ("eno2", "0000000A", "000000FF"),
    ]);
    assert_eq!(needs(&tree.read(), "0000:01:00.1"), [route("eno2")]);
}

#[test]
fn uppers_that_go_in_a_circle_end() {
    let tree = seed_server();
    tree.interface("virtual", "a0", None)
        .interface("virtual", "b0", None)
        .enslave("a0", "b0", true)
        .enslave("b0", "a0", true)
        .routes(&[("a0", "00000000", "00000000")]);
    let inventory = tree.read();
    assert!(notes(&inventory).contains("net/a0: a default route goes through it, and no device"));
}

#[test]
fn virtio_and_usb_interfaces_belong_to_the_function_above_them() {
    let tree = seed_server();
    let virtio = "pci0000:00/0000:00:03.0";
    let usb = "pci0000:00/0000:00:14.0";
    tree.pci(virtio, "1af4:1000", "0x020000", -1)
        .interface(
            &format!("{virtio}/virtio0"),
            "ens3",
            Some("52:54:00:00:00:01"),
        )
        .pci(usb, "8086:8c31", "0x0c0330", 0)
        .interface(&format!("{usb}/usb1/1-1/1-1:1.0"), "enx1", None)
        .routes(&[
            ("ens3", "00000000", "00000000"),
            ("enx1", "00000000", "00000000"),
        ]);
    let inventory = tree.read();
    assert_eq!(function(&inventory, "0000:00:03.0").interfaces, ["ens3"]);
    assert_eq!(needs(&inventory, "0000:00:03.0"), [route("ens3")]);
    assert_eq!(needs(&inventory, "0000:00:14.0"), [route("enx1")]);
}

#[test]
fn a_root_on_lvm_on_raid_holds_every_controller() {
    let tree = seed_server();
    let nvme = "pci0000:00/0000:00:03.0/0000:03:00.0";
    tree.pci("pci0000:00/0000:00:03.0", "8086:0e08", "0x060400", 0)
        .pci(nvme, "144d:a808", "0x010802", 0)
        .disk(&format!("{nvme}/nvme/nvme0/nvme0n1"), "259:0")
        .disk(&format!("{nvme}/nvme/nvme0/nvme0n1/nvme0n1p2"), "259:2")
        .disk("virtual/block/md0", "9:0")
        .disk("virtual/block/dm-0", "253:0")
        .disk("virtual/block/dm-1", "253:1")
        .link(
            "/sys/devices/virtual/block/dm-0/slaves/md0",
            "/sys/class/block/md0",
        )
        .link(
            "/sys/devices/virtual/block/dm-1/slaves/md0",
            "/sys/class/block/md0",
        )
        .link(
            "/sys/devices/virtual/block/md0/slaves/sda2",
            "/sys/class/block/sda2",
        )
        .link(
            "/sys/devices/virtual/block/md0/slaves/nvme0n1p2",
            "/sys/class/block/nvme0n1p2",
        )
        .mounts(&[
            ("253:0", "/", "xfs", "/dev/mapper/vg-root"),
            ("253:0", "/var/lib/docker", "xfs", "/dev/mapper/vg-root"),
        ])
        .file(
            "/proc/swaps",
            "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-1 partition 1 0 -2\n/swap file 1 0 -3",
        );
    let inventory = tree.read();
    for controller in ["0000:00:1f.2", "0000:03:00.0"] {
        assert_eq!(needs(&inventory, controller), [mount("/"), mount("swap")]);
    }
    assert!(
        needs(&inventory, "0000:00:03.0").is_empty(),
        "a bridge stays anyway"
    );
    assert!(inventory.notes.is_empty(), "{}", notes(&inventory));
}

#[test]
fn nvme_multipath_and_vmd_hold_every_controller_of_the_path() {
    let tree = seed_server();
    let vmd = "pci0000:00/0000:00:05.5";
    let nvme = format!("{vmd}/pci10000:e0/10000:e0:02.0/10000:e1:00.0");
    tree.pci(vmd, "8086:201d", "0x010400", 0)
        .pci(
            &format!("{vmd}/pci10000:e0/10000:e0:02.0"),
            "8086:2032",
            "0x060400",
            0,
        )
        .pci(&nvme, "8086:0a54", "0x010802", 0)
        .folder(&format!("/sys/devices/{nvme}/nvme/nvme0"))
        .disk("virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "259:0")
        .disk(
            "virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1",
            "259:1",
        )
        .link(
            "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0",
            &format!("/sys/devices/{nvme}/nvme/nvme0"),
        )
        .mounts(&[("259:1", "/", "ext4", "/dev/nvme0n1p1")]);
    let inventory = tree.read();
    assert_eq!(needs(&inventory, "10000:e1:00.0"), [mount("/")]);
    assert_eq!(needs(&inventory, "0000:00:05.5"), [mount("/")]);
    assert_eq!(
        function(&inventory, "10000:e1:00.0").upstream,
        [
            "0000:00:05.5".parse().unwrap(),
            "10000:e0:02.0".parse().unwrap()
        ]
    );
    assert!(inventory.notes.is_empty(), "{}", notes(&inventory));
}

#[test]
fn btrfs_is_found_by_its_source_since_its_number_is_its_own() {
    let tree = seed_server();
    let nvme = "pci0000:00/0000:03:00.0";
    tree.pci(nvme, "144d:a808", "0x010802", 0)
        .disk(&format!("{nvme}/nvme/nvme0/nvme0n1"), "259:0")
        .link("/sys/fs/btrfs/u-u/devices/sda2", "/sys/class/block/sda2")
        .link(
            "/sys/fs/btrfs/u-u/devices/nvme0n1",
            "/sys/class/block/nvme0n1",
        )
        .mounts(&[("0:27", "/", "btrfs", "/dev/sda2")]);
    let inventory = tree.read();
    assert_eq!(needs(&inventory, "0000:00:1f.2"), [mount("/")]);
    assert_eq!(needs(&inventory, "0000:03:00.0"), [mount("/")]);
}

#[test]
fn zfs_holds_every_storage_controller_and_says_so() {
    let tree = seed_server();
    tree.mounts(&[("0:30", "/", "zfs", "rpool/ROOT/ubuntu")]);
    let inventory = tree.read();
    assert_eq!(needs(&inventory, "0000:00:1f.2"), [mount("/")]);
    assert!(notes(&inventory).contains("ZFS pool `rpool/ROOT/ubuntu`"));
}

#[test]
fn network_file_systems_hold_the_nic_towards_their_server() {
    let tree = seed_server();
    tree.routes(&[
        ("eno3", "00000000", "00000000"),
        ("eno2", "0000000A", "000000FF"),
    ])
    .file(
        "/proc/self/mountinfo",
        "1 0 0:40 / /srv rw - nfs4 files:/srv rw,vers=4.2,addr=10.1.2.3",
    );
    let inventory = tree.read();
    assert_eq!(
        needs(&inventory, "0000:01:00.1"),
        [address("eno2"), mount("/srv")]
    );
    assert_eq!(needs(&inventory, "0000:08:00.0"), [route("eno3")]);
}

#[test]
fn an_iscsi_disk_holds_the_nic_towards_its_target() {
    let tree = seed_server();
    tree.disk(
        "platform/host7/session1/target7:0:0/7:0:0:0/block/sdb",
        "8:16",
    )
    .file(
        "/sys/class/iscsi_connection/connection1:0/persistent_address",
        "10.1.2.3",
    )
    .file(
        "/sys/class/iscsi_connection/connection12:0/persistent_address",
        "192.168.1.9",
    )
    .routes(&[("eno2", "0000000A", "000000FF")])
    .mounts(&[("8:16", "/", "ext4", "/dev/sdb")]);
    let inventory = tree.read();
    assert_eq!(
        needs(&inventory, "0000:01:00.1"),
        [address("eno2"), mount("/")]
    );
    assert!(inventory.notes.is_empty(), "{}", notes(&inventory));
}

#[test]
fn a_disk_that_is_not_found_is_said() {
    let tree = seed_server();
    tree.disk("virtual/block/nbd0", "43:0").mounts(&[
        ("43:0", "/data", "ext4", "/dev/nbd0"),
        ("8:99", "/lost", "ext4", "/dev/sdq3"),
        ("7:0", "/snap/core", "squashfs", "/dev/loop0"),
    ]);
    tree.disk("virtual/block/loop0", "7:0");
    let notes = notes(&tree.read());
    assert!(
        notes.contains("/data: what `/sys/devices/virtual/block/nbd0` stands on was not found"),
        "{notes}"
    );
    assert!(
        notes.contains("/lost: the device `/dev/sdq3` behind it was not found"),
        "{notes}"
    );
    assert!(!notes.contains("loop0"), "{notes}");
}
