#![allow(
    clippy::disallowed_methods,
    reason = "tests read the answers that were recorded of real interfaces, and record them"
)]

use std::path::Path;

use bmslice_host::{LiveMachine, Machine};

use super::*;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/ethtool");

fn recording(answers: &NetAnswers) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |kind: u8, answer: &[u8]| {
        bytes.push(kind);
        bytes.extend(u16::try_from(answer.len()).unwrap().to_le_bytes());
        bytes.extend(answer);
    };
    let nic = &answers.nics[0];
    for (request, answer) in &nic.ethtool {
        put(*request as u8, answer);
    }
    for (kind, answer) in [(1, &nic.driver), (3, &nic.permanent)] {
        if let Some(answer) = answer {
            put(kind, answer);
        }
    }
    answers.devlink.iter().for_each(|answer| put(0, answer));
    bytes
}

/// Records what the interfaces of this machine answer, each in a file of its name:
/// `cargo test -p bmslice-inventory record -- --ignored`.
#[test]
#[ignore = "it writes the corpus"]
fn record_the_interfaces() {
    let machine = LiveMachine::new().unwrap();
    for name in machine.root().list("/sys/class/net").unwrap() {
        let answers = machine.nics(std::slice::from_ref(&name)).unwrap();
        std::fs::write(Path::new(CORPUS).join(name), recording(&answers)).unwrap();
    }
}

fn corpus(name: &str) -> EthtoolFacts {
    let bytes = std::fs::read(Path::new(CORPUS).join(name)).unwrap();
    let (nics, _) = facts(&recorded(&bytes));
    nics["eth0"].clone()
}

fn setting(now: u32, max: u32) -> Option<Setting> {
    Some(Setting { now, max })
}

#[test]
fn what_a_virtio_nic_answered_is_what_ethtool_shows_of_it() {
    let nic = corpus("virtio");
    assert_eq!(nic.driver.as_deref(), Some("virtio_net"));
    assert_eq!(nic.driver_version.as_deref(), Some("1.0.0"));
    assert_eq!(nic.bus.as_deref(), Some("0000:00:03.0"));
    assert_eq!((nic.firmware, nic.expansion_rom), (None, None));
    let mac = nic.permanent_mac.unwrap().to_string();
    assert_eq!(mac, "02:fc:00:00:00:01");
    let channels = nic.channels.unwrap();
    assert_eq!(channels.combined, setting(1, 1));
    assert_eq!(
        (channels.rx, channels.tx, channels.other),
        (None, None, None)
    );
    let rings = nic.rings.unwrap();
    assert_eq!((rings.rx, rings.tx), (setting(256, 256), setting(256, 256)));
    let offload = |name: &str| nic.offloads.get(name).map(|o| (o.on, o.fixed));
    assert_eq!(offload("rx-gro-hw"), Some((true, true)));
    assert_eq!(offload("tx-tcp-segmentation"), Some((true, false)));
    assert_eq!(offload("rx-udp-gro-forwarding"), Some((false, false)));
    assert_eq!(offload("hw-tc-offload"), None, "it has none");
    let timestamps = nic.timestamps.unwrap();
    assert_eq!(timestamps.clock, None);
    assert!(!timestamps.by_hardware());
    assert!(timestamps.capabilities.contains(&"software-receive".into()));
    // virtio knows neither duplex nor connector.
    let link = nic.link.unwrap();
    assert_eq!(
        (link.autoneg, link.full_duplex, link.port),
        (Some(false), None, None)
    );
    assert_eq!(nic.fec, None);
}

#[test]
fn what_a_veth_and_a_tap_answered_is_told() {
    let veth = corpus("veth");
    let channels = veth.channels.unwrap();
    assert_eq!((channels.rx, channels.tx), (setting(1, 2), setting(1, 2)));
    assert_eq!((veth.permanent_mac, veth.rings), (None, None));
    let tap = corpus("tap");
    assert_eq!(tap.driver.as_deref(), Some("tun"));
    let link = tap.link.unwrap();
    assert_eq!(link.port.as_deref(), Some("twistedPair"));
    assert_eq!(link.full_duplex, Some(true));
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_ne_bytes())
}

/// A verbose bitset as `ethnl_put_bitset32` writes it; with `None` for whether a bit is set, one
/// without a mask.
fn bitset(kind: u16, bits: &[(&str, Option<bool>)]) -> Vec<u8> {
    let mut listed = Vec::new();
    for (index, (name, set)) in (0u32..).zip(bits) {
        let mut bit = number(1, index);
        bit.extend(attribute(2, &[name.as_bytes(), b"\0"].concat()));
        if *set == Some(true) {
            bit.extend(attribute(3, b""));
        }
        listed.extend(attribute(1 | 0x8000, &bit));
    }
    let mut set = Vec::new();
    if bits.iter().any(|(_, set)| set.is_none()) {
        set.extend(attribute(1, b""));
    }
    set.extend(number(2, 75));
    set.extend(attribute(3 | 0x8000, &listed));
    attribute(kind | 0x8000, &set)
}

fn version(kind: u16, name: &str, value: &str) -> Vec<u8> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), b"\0"].concat());
    attribute(kind, &[text(103, name), text(104, value)].concat())
}

/// A 25 Gbit/s port as the drivers of such cards answer; no such card was at hand to record.
fn port_of_a_du() -> NetAnswers {
    let mut driver = vec![0; 196];
    for (at, text) in [
        (4, "ice"),
        (36, "6.8.0"),
        (68, "4.40 0x8001c7d4 1.3534.0"),
        (100, "0000:4b:00.0"),
        (132, "N/A"),
    ] {
        driver[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let ethtool = vec![
        (EthtoolRequest::LinkInfo, attribute(2, &[5])),
        (
            EthtoolRequest::LinkModes,
            [
                attribute(2, &[1]),
                bitset(
                    3,
                    &[
                        ("Autoneg", Some(true)),
                        ("10000baseCR/Full", Some(false)),
                        ("25000baseCR/Full", Some(true)),
                    ],
                ),
                bitset(4, &[("25000baseCR/Full", None)]),
                number(5, 25_000),
                attribute(6, &[1]),
                number(9, 1),
            ]
            .concat(),
        ),
        (
            EthtoolRequest::Features,
            [
                bitset(
                    2,
                    &[
                        ("hw-tc-offload", Some(true)),
                        ("rx-ntuple-filter", Some(true)),
                        ("rx-gro-hw", Some(false)),
                        ("rx-vlan-filter", Some(true)),
                    ],
                ),
                bitset(4, &[("rx-ntuple-filter", None), ("rx-vlan-filter", None)]),
                bitset(5, &[("rx-vlan-filter", None)]),
            ]
            .concat(),
        ),
        (
            EthtoolRequest::Rings,
            [
                number(2, 8160),
                number(5, 8160),
                number(6, 2048),
                number(9, 256),
            ]
            .concat(),
        ),
        (
            EthtoolRequest::Channels,
            [
                number(4, 1),
                number(5, 96),
                number(8, 1),
                number(9, 32),
                // One without its limit is not told by halves.
                number(6, 7),
            ]
            .concat(),
        ),
        (
            EthtoolRequest::Timestamps,
            [
                bitset(
                    2,
                    &[("hardware-transmit", None), ("hardware-receive", None)],
                ),
                bitset(3, &[("off", None), ("on", None)]),
                bitset(4, &[("none", None), ("all", None)]),
                number(5, 2),
            ]
            .concat(),
        ),
        (
            EthtoolRequest::Fec,
            [
                bitset(2, &[("RS", None)]),
                attribute(3, &[1]),
                number(4, 50),
            ]
            .concat(),
        ),
    ];
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), b"\0"].concat());
    let devlink = [
        text(1, "pci"),
        text(2, "0000:4b:00.0"),
        text(99, "00-11-22-ff-ff-33-44-55"),
        version(100, "board.id", "K91258-000"),
        version(101, "fw.mgmt", "6.1.23"),
        version(101, "fw.undi", "1.3534.0"),
        version(102, "fw.mgmt", "7.3.4"),
    ]
    .concat();
    let other_bus = [text(1, "netdevsim"), text(2, "netdevsim1"), text(99, "x")].concat();
    NetAnswers {
        nics: vec![NicAnswers {
            name: "ens1f0".into(),
            ethtool,
            driver: Some(driver),
            permanent: Some(vec![0x40, 0xa6, 0xb7, 1, 2, 3]),
        }],
        devlink: vec![other_bus, devlink],
    }
}

#[test]
fn a_port_of_a_5g_server_tells_firmware_queues_clock_fec_and_link() {
    let (nics, devlink) = facts(&port_of_a_du());
    let nic = &nics["ens1f0"];
    assert_eq!(nic.firmware.as_deref(), Some("4.40 0x8001c7d4 1.3534.0"));
    assert_eq!(nic.expansion_rom, None, "`N/A` is none");
    let channels = nic.channels.clone().unwrap();
    assert_eq!(
        (channels.combined, channels.other),
        (setting(32, 96), setting(1, 1))
    );
    assert_eq!(channels.rx, None);
    let rings = nic.rings.clone().unwrap();
    assert_eq!(
        (rings.rx, rings.tx),
        (setting(2048, 8160), setting(256, 8160))
    );
    let offloads: Vec<(&str, bool, bool)> = nic
        .offloads
        .iter()
        .map(|(name, o)| (name.as_str(), o.on, o.fixed))
        .collect();
    assert_eq!(
        offloads,
        [
            ("hw-tc-offload", false, false),
            ("rx-ntuple-filter", true, false),
            ("rx-vlan-filter", true, true),
        ]
    );
    let timestamps = nic.timestamps.clone().unwrap();
    assert_eq!(timestamps.clock, Some(2));
    assert!(timestamps.by_hardware());
    assert_eq!(timestamps.rx, ["none", "all"]);
    let fec = nic.fec.clone().unwrap();
    assert_eq!((fec.active.as_deref(), fec.auto), (Some("RS"), true));
    let link = nic.link.clone().unwrap();
    assert_eq!(link.port.as_deref(), Some("directAttach"));
    assert_eq!(link.supported.len(), 3);
    assert_eq!(link.advertised, ["Autoneg", "25000baseCR/Full"]);
    assert_eq!(link.partner, ["25000baseCR/Full"]);
    assert_eq!((link.full_duplex, link.lanes), (Some(true), Some(1)));
    assert_eq!(
        devlink.len(),
        1,
        "what is not on the PCI bus is no function"
    );
    let card = &devlink[&"0000:4b:00.0".parse().unwrap()];
    assert_eq!(card.fixed["board.id"], "K91258-000");
    assert_eq!(
        (&*card.running["fw.mgmt"], &*card.stored["fw.mgmt"]),
        ("6.1.23", "7.3.4")
    );
    assert!(card.serial.is_some());
}

#[test]
fn answers_cut_anywhere_tell_less_and_nothing_else() {
    let (whole, _) = facts(&port_of_a_du());
    let whole = &whole["ens1f0"];
    for (i, (_, full)) in port_of_a_du().nics[0].ethtool.iter().enumerate() {
        for end in 0..full.len() {
            let mut answers = port_of_a_du();
            answers.nics[0].ethtool[i].1.truncate(end);
            let (nics, _) = facts(&answers);
            let cut = &nics["ens1f0"];
            assert!(cut.offloads.is_empty() || cut.offloads == whole.offloads);
            let channels = cut.channels.clone().unwrap_or_default();
            assert!(channels.combined.is_none() || channels.combined == setting(32, 96));
            let fec = cut.fec.clone().unwrap_or_default();
            assert!(fec.active.is_none() || fec.active.as_deref() == Some("RS"));
        }
    }
}

#[test]
fn who_answers_nothing_is_left_out() {
    let answers = NetAnswers {
        nics: vec![NicAnswers {
            name: "usb0".into(),
            permanent: Some(vec![0; 6]),
            driver: Some(vec![0; 196]),
            ethtool: vec![(EthtoolRequest::Rings, number(6, 0))],
        }],
        devlink: vec![Vec::new()],
    };
    let (nics, devlink) = facts(&answers);
    assert!(nics.is_empty() && devlink.is_empty());
    // An InfiniBand address has twenty bytes, and is no MAC.
    let answers = NicAnswers {
        permanent: Some(vec![7; 20]),
        ..NicAnswers::default()
    };
    assert_eq!(nic(&answers), EthtoolFacts::default());
}

#[test]
fn this_machines_interfaces_answer_and_can_be_recorded() {
    let machine = LiveMachine::new().unwrap();
    let names = machine.root().list("/sys/class/net").unwrap();
    for name in names {
        let Ok(answers) = machine.nics(std::slice::from_ref(&name)) else {
            println!("SKIPPED: the kernel tells nothing of NICs here");
            return;
        };
        let (now, _) = facts(&answers);
        let (again, _) = facts(&recorded(&recording(&answers)));
        assert_eq!(now.get(&name), again.get("eth0"), "{name}");
    }
    let none = machine.nics(&["bmslice-none".into()]).unwrap();
    assert!(facts(&none).0.is_empty());
}
