//! Captures: what is read is what is kept, it reads back alike, and redaction leaves no secret.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read the captures that they make"
)]

mod tree;

use std::path::Path;

use bmslice_host::{Entry, Limits, Root, Tree as Kept};
use bmslice_inventory::{
    Capture, CaptureError, CapturedInventory, DevlinkFacts, DomainFacts, DomainMemory,
    EthtoolFacts, HostNeed, Inventory, LibvirtFacts, Probes,
};
use bmslice_model::{ByteSize, NumaNodeId};
use tree::{Tree, X540, needs, seed_server};

fn probes() -> Probes {
    Probes {
        session_peer: Some("198.51.100.77".into()),
        libvirt: Some(LibvirtFacts {
            version: "9.0.0".into(),
            qemu: Some("7.2.0".into()),
            kvm: true,
            domains: vec![DomainFacts {
                name: "red".into(),
                uuid: "6a3c7f0e-5d1b-4a52-9d3e-0c5f8b7a1e42".into(),
                running: true,
                autostart: false,
                cpus: "4-6".parse().unwrap(),
                devices: vec!["0000:01:00.0".parse().unwrap()],
                memory: vec![DomainMemory {
                    size: ByteSize::from_gib(8),
                    nodes: vec![NumaNodeId(1)],
                    huge: true,
                    ..DomainMemory::default()
                }],
            }],
        }),
        nics: [(
            "eno1".to_owned(),
            EthtoolFacts {
                // As long as an IPv4 address, and none.
                firmware: Some("218.0.219.13".into()),
                permanent_mac: Some("bc:30:5b:f2:87:77".parse().unwrap()),
                ..EthtoolFacts::default()
            },
        )]
        .into(),
        devlink: [(
            "0000:01:00.0".parse().unwrap(),
            DevlinkFacts {
                serial: Some("MT2134K0815".into()),
                board_serial: Some("BOARDNO7".into()),
                running: [("fw".to_owned(), "16.35.20.4".to_owned())].into(),
                ..DevlinkFacts::default()
            },
        )]
        .into(),
        ..Probes::default()
    }
}

fn read_back(capture: &Capture) -> (Kept, Inventory) {
    let bytes = capture.pack("server").unwrap();
    let tree = Kept::unpack(bytes.as_slice(), Limits::default()).unwrap();
    let root = Root::tree(tree.clone(), Path::new("capture"));
    (tree, CapturedInventory::read(&root).unwrap().into_inner())
}

#[test]
fn a_capture_reads_back_as_the_server_with_what_libvirt_said() {
    let server = seed_server();
    let capture = Capture::of(server.root(), &probes(), false).unwrap();
    let (_, again) = read_back(&capture);
    assert_eq!(again, *capture.inventory());
    assert_eq!(again, server.try_read(&probes()).unwrap());
    let function = tree::function(&again, "0000:01:00.0");
    assert_eq!(function.details.firmware.as_deref(), Some("218.0.219.13"));
    let red = &again.hypervisor.libvirt.as_ref().unwrap().domains[0];
    assert_eq!(red.name, "red");
    let page = again.memory.default_huge_page;
    assert_eq!(
        (red.memory[0].size, red.memory[0].page),
        (ByteSize::from_gib(8), page)
    );
    capture
        .compare(capture.pack("server").unwrap().as_slice())
        .unwrap();
}

#[test]
fn a_capture_that_tells_another_server_is_an_error_with_the_part() {
    let server = seed_server();
    let capture = Capture::of(server.root(), &Probes::default(), false).unwrap();
    server.file("/sys/devices/system/cpu/online", "0-22");
    let other = Capture::of(server.root(), &Probes::default(), false).unwrap();
    let bytes = other.pack("server").unwrap();
    let error = capture.compare(bytes.as_slice()).unwrap_err();
    assert!(
        matches!(&error, CaptureError::Differs { what } if what == "cpus"),
        "{error}"
    );
    let error = capture.compare(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(matches!(error, CaptureError::Unpack(_)), "{error}");
}

/// All text of a tree: paths, contents, targets.
fn everything(tree: &Kept) -> String {
    let mut text = String::new();
    for (path, entry) in tree.walk() {
        text.push_str(&format!("{}\n", path.display()));
        match entry {
            Entry::File(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
            Entry::Link(target) => text.push_str(&format!("{}\n", target.display())),
            Entry::Folder(_) => {}
        }
    }
    text.to_lowercase()
}

/// The seed's server with secrets wherever a server has them.
fn secretive() -> (Tree, Vec<&'static str>) {
    let server = seed_server();
    server
        .file("/proc/sys/kernel/hostname", "prague-du7.core.example.net")
        .file("/etc/hostname", "prague-du7")
        .file(
            "/proc/cmdline",
            "root=UUID=0b6ce2a1-9d0f-4c4e-8a53-0e6f2f4c7d11 ip=203.0.113.9::203.0.113.1:255.255.255.0:prague-du7:eno3:none resume=PARTUUID=9d3e77c1-02 \
             rd.iscsi.password=tr0ub4dor netroot=iscsi:@198.51.100.20::3260::iqn.2004-04.com.corp:disk7 isolcpus=2-11 ro",
        )
        // An interface that is named by its MAC, and one that has a neighbour's in a bond.
        .interface(X540[0], "enxbc305bf28752", Some("bc:30:5b:f2:87:52"))
        .file(
            "/proc/net/bonding/bond0",
            "Slave Interface: eno1\nPermanent HW addr: BC:30:5B:F2:87:52\nSlave Interface: eno2\nPermanent HW addr: bc:30:5b:f2:87:50",
        )
        .file(
            "/proc/self/mounts",
            "nas04.core.example.net:/export /home nfs rw,addr=198.51.100.20 0 0",
        )
        .file(
            "/proc/self/mountinfo",
            "1 1 8:2 / / rw - ext4 /dev/sda2 rw\n2 1 0:40 / /home rw - nfs4 nas04.core.example.net:/export rw,addr=198.51.100.20",
        )
        .file("/boot/loader/entries/4f2b9c0d1e3a48a79c55d1a0b7e6f312-5.14.conf", "title x")
        .file(
            "/proc/net/ipv6_route",
            "20010db8004211000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eno3",
        )
        .file(
            "/proc/net/if_inet6",
            "20010db8004211000000000000000abc 02 40 00 80     eno3",
        )
        // 198.51.100.0/24 and the default, in memory's order.
        .routes(&[
            ("eno3", "00000000", "00000000"),
            ("eno3", "006433C6", "00FFFFFF"),
        ]);
    // The root port's serial number, in its configuration space, is a MAC with ff:fe in it.
    let mut config = vec![0u8; 4096];
    config[0x100..0x104].copy_from_slice(&(3u32 | 1 << 16 | 0x110 << 20).to_le_bytes());
    config[0x104..0x10c].copy_from_slice(b"SERIALNO");
    config[0x110..0x114].copy_from_slice(&(0x0du32 | 1 << 16).to_le_bytes());
    std::fs::write(
        server.at("/sys/devices/pci0000:00/0000:00:01.0/config"),
        config,
    )
    .unwrap();
    server
        .file(
            &format!("/sys/devices/{}/net/eno3/ifindex", tree::I350[0]),
            "4",
        )
        .file(
            "/run/udev/data/n4",
            "E:ID_SERIAL_SHORT=a1b2c3d4e5\nE:ID_NET_NAME_PATH=enp8s0f0",
        );
    let secrets = vec![
        "serialno",
        "a1b2c3d4e5",
        "prague-du7",
        "core.example.net",
        "nas04",
        "bc:30:5b",
        "bc305bf287",
        "mt2134k0815",
        "boardno7",
        "0b6ce2a1",
        "9d3e77c1",
        "6a3c7f0e",
        "203.0.113",
        "198.51.100",
        "006433c6",
        "tr0ub4dor",
        "com.corp",
        "4f2b9c0d",
        "20010db80042",
        "2001:db8",
    ];
    (server, secrets)
}

#[test]
fn redaction_leaves_no_secret_anywhere() {
    let (server, secrets) = secretive();
    let plain = Capture::of(server.root(), &probes(), false).unwrap();
    let (before, _) = read_back(&plain);
    let before = everything(&before);
    for secret in &secrets {
        if *secret != "2001:db8" {
            assert!(
                before.contains(secret),
                "the test has no `{secret}` to find"
            );
        }
    }
    let capture = Capture::of(server.root(), &probes(), true).unwrap();
    let (tree, again) = read_back(&capture);
    let after = everything(&tree);
    for secret in &secrets {
        assert!(!after.contains(secret), "`{secret}` is left");
    }
    assert_eq!(again, *capture.inventory());
    let json = serde_json::to_string(&again).unwrap().to_lowercase();
    for secret in &secrets {
        assert!(
            !json.contains(secret),
            "`{secret}` is left in the inventory"
        );
    }
}

#[test]
fn what_is_redacted_still_belongs_together() {
    let (server, _) = secretive();
    let plain = server.try_read(&probes()).unwrap();
    let capture = Capture::of(server.root(), &probes(), true).unwrap();
    let redacted = capture.inventory();
    let mac = |inventory: &Inventory, address: &str| tree::function(inventory, address).mac;
    let (one, other) = (mac(redacted, "0000:01:00.0"), mac(redacted, "0000:01:00.1"));
    assert!(one.is_some() && other.is_some());
    assert_ne!(one, other, "two cards stay two");
    assert_ne!(one, mac(&plain, "0000:01:00.0"));
    let named: Vec<&str> = redacted
        .interfaces
        .iter()
        .filter_map(|interface| interface.name.strip_prefix("enx"))
        .collect();
    let bare = one.unwrap().to_string().replace(':', "");
    assert_eq!(named, [bare], "a name that is a MAC is the same MAC's");
    // The session still comes through eno3, since networks are networks still.
    for inventory in [&plain, redacted] {
        let session = HostNeed::Session {
            interface: "eno3".into(),
        };
        assert!(needs(inventory, "0000:08:00.0").contains(&session));
        let home = HostNeed::Mount { at: "/home".into() };
        assert!(needs(inventory, "0000:08:00.0").contains(&home));
    }
    let port = |inventory: &Inventory| tree::function(inventory, "0000:00:01.0").details.acs;
    assert_eq!((port(&plain), port(redacted)), (Some(true), Some(true)));
    assert_eq!(redacted.boot.isolated, plain.boot.isolated);
    let cmdline = redacted.boot.cmdline.to_string();
    assert!(
        cmdline.contains("255.255.255.0") && cmdline.contains("isolcpus=2-11 ro"),
        "{cmdline}"
    );
    assert_eq!(redacted.machine.kernel, plain.machine.kernel);
    let eno1 = |inventory: &Inventory| {
        let found = inventory.interfaces.iter().find(|i| i.name == "eno1");
        found.unwrap().ethtool.clone().unwrap()
    };
    assert_eq!(eno1(redacted).firmware, eno1(&plain).firmware);
    assert_ne!(eno1(redacted).permanent_mac, eno1(&plain).permanent_mac);
    let card = tree::function(redacted, "0000:01:00.0").details.clone();
    assert_eq!(card.devlink.unwrap().running["fw"], "16.35.20.4");
    let domain = &redacted.hypervisor.libvirt.as_ref().unwrap().domains[0];
    assert_eq!(domain.devices, ["0000:01:00.0".parse().unwrap()]);
}

#[test]
fn a_host_that_is_called_like_a_part_of_sysfs_breaks_nothing() {
    let server = seed_server();
    server.file("/proc/sys/kernel/hostname", "eno1");
    let plain = server.read();
    let capture = Capture::of(server.root(), &Probes::default(), true).unwrap();
    assert_eq!(capture.inventory().machine.hostname, "host-0");
    assert_eq!(capture.inventory().cpus, plain.cpus);
    let names = |inventory: &Inventory| -> Vec<String> {
        inventory
            .interfaces
            .iter()
            .map(|i| i.name.clone())
            .collect()
    };
    assert_eq!(names(capture.inventory()), names(&plain));
}
