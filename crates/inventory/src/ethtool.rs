//! What the kernel answers about NICs, taken apart.
//!
//! Takes the attributes of ethtool's and devlink's messages and `struct ethtool_drvinfo`; gives
//! facts. Keeps true: bytes that do not fit are left out, a value that means "unknown" is none, and
//! a name is the kernel's own, so that one that is new is told too.
//!
//! Source: `Documentation/networking/ethtool-netlink.rst`, linux/ethtool_netlink.h,
//! `Documentation/networking/devlink/devlink-info.rst`, linux/devlink.h.

use std::collections::BTreeMap;

use bmslice_host::netlink::attributes;
use bmslice_host::{EthtoolRequest, HostError, Machine, NetAnswers, NicAnswers};
use bmslice_model::{MacAddress, PciAddress};

use crate::facts::{
    Channels, DevlinkFacts, EthtoolFacts, Fec, LinkModes, Offload, Rings, Setting, Timestamps,
};

/// The offloads that packet work of 5G and clouds meets, by the kernel's names
/// (net/ethtool/common.c); the other forty are the kernel's own affair.
const OFFLOADS: [&str; 22] = [
    "esp-hw-offload",
    "hw-tc-offload",
    "l2-fwd-offload",
    "macsec-hw-offload",
    "rx-all",
    "rx-checksum",
    "rx-fcs",
    "rx-gro",
    "rx-gro-hw",
    "rx-hashing",
    "rx-lro",
    "rx-ntuple-filter",
    "rx-udp-gro-forwarding",
    "rx-udp_tunnel-port-offload",
    "rx-vlan-filter",
    "rx-vlan-hw-parse",
    "tx-checksum-ip-generic",
    "tx-gre-segmentation",
    "tx-tcp-segmentation",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-vlan-hw-insert",
];

/// What was told of interfaces by name, and of PCI functions by address.
pub(crate) type NetFacts = (
    BTreeMap<String, EthtoolFacts>,
    BTreeMap<PciAddress, DevlinkFacts>,
);

/// Takes the answers apart; who told nothing is left out.
pub(crate) fn facts(answers: &NetAnswers) -> NetFacts {
    let nics = answers.nics.iter().filter_map(|answers| {
        let facts = nic(answers);
        (facts != EthtoolFacts::default()).then(|| (answers.name.clone(), facts))
    });
    let devices = answers.devlink.iter().filter_map(|bytes| devlink(bytes));
    (nics.collect(), devices.collect())
}

/// The queues of one interface as its driver has them now, which for one that is down sysfs does not
/// show; `None` when it does not tell.
///
/// # Errors
/// That of asking the kernel.
pub fn nic_channels(machine: &dyn Machine, interface: &str) -> Result<Option<Channels>, HostError> {
    let answers = machine.nics(&[interface.to_owned()])?;
    let facts = answers.nics.iter().map(nic);
    Ok(facts.filter_map(|facts| facts.channels).next())
}

fn nic(answers: &NicAnswers) -> EthtoolFacts {
    let mut facts = EthtoolFacts::default();
    if let Some(bytes) = &answers.driver {
        // struct ethtool_drvinfo: a command, then fields of 32 bytes each.
        let field = |at: usize| {
            let text = string(bytes.get(at..at + 32)?)?;
            (text != "N/A").then_some(text)
        };
        facts.driver = field(4);
        facts.driver_version = field(36);
        facts.firmware = field(68);
        facts.bus = field(100);
        facts.expansion_rom = field(132);
    }
    facts.permanent_mac = answers.permanent.as_deref().and_then(|bytes| {
        let mac = MacAddress::new(bytes.try_into().ok()?);
        (!mac.is_zero() && !mac.is_group()).then_some(mac)
    });
    let mut link = LinkModes::default();
    for (request, bytes) in &answers.ethtool {
        match request {
            EthtoolRequest::LinkInfo => link.port = port(bytes),
            EthtoolRequest::LinkModes => link_modes(bytes, &mut link),
            EthtoolRequest::Features => facts.offloads = offloads(bytes),
            EthtoolRequest::Rings => facts.rings = rings(bytes),
            EthtoolRequest::Channels => facts.channels = channels(bytes),
            EthtoolRequest::Timestamps => facts.timestamps = timestamps(bytes),
            EthtoolRequest::Fec => facts.fec = fec(bytes),
        }
    }
    facts.link = (link != LinkModes::default()).then_some(link);
    facts
}

/// Text up to its zero, without white space at its ends; `None` when nothing is left.
fn string(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn word(bytes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(bytes, wanted)?.try_into().ok()?))
}

fn byte(bytes: &[u8], wanted: u16) -> Option<u8> {
    match find(bytes, wanted)? {
        [byte] => Some(*byte),
        _ => None,
    }
}

/// A number and its limit; none where the device has neither.
fn setting(bytes: &[u8], now: u16, max: u16) -> Option<Setting> {
    let setting = Setting {
        now: word(bytes, now)?,
        max: word(bytes, max)?,
    };
    (setting != Setting::default()).then_some(setting)
}

/// The four numbers of rings and of channels: both messages have the limits at 2 to 5, and what they
/// limit at 6 to 9.
fn settings(bytes: &[u8]) -> [Option<Setting>; 4] {
    [2, 3, 4, 5].map(|max| setting(bytes, max + 4, max))
}

fn rings(bytes: &[u8]) -> Option<Rings> {
    let [rx, rx_mini, rx_jumbo, tx] = settings(bytes);
    let rings = Rings {
        rx,
        rx_mini,
        rx_jumbo,
        tx,
    };
    (rings != Rings::default()).then_some(rings)
}

fn channels(bytes: &[u8]) -> Option<Channels> {
    let [rx, tx, other, combined] = settings(bytes);
    let channels = Channels {
        rx,
        tx,
        other,
        combined,
    };
    (channels != Channels::default()).then_some(channels)
}

/// The bits of a verbose bitset with their names: `(name, whether it is set)`. A bit that has no
/// name cannot be told.
fn bits(bytes: &[u8], wanted: u16) -> Vec<(String, bool)> {
    let Some(set) = find(bytes, wanted) else {
        return Vec::new();
    };
    // ETHTOOL_A_BITSET_NOMASK: what is listed is set.
    let plain = find(set, 1).is_some();
    let Some(listed) = find(set, 3) else {
        return Vec::new();
    };
    attributes(listed)
        .filter(|(kind, _)| *kind == 1)
        .filter_map(|(_, bit)| {
            let name = string(find(bit, 2)?)?;
            Some((name, plain || find(bit, 3).is_some()))
        })
        .collect()
}

/// The names of the bits that are set, in the kernel's order.
fn names(bytes: &[u8], wanted: u16) -> Vec<String> {
    let set = bits(bytes, wanted).into_iter();
    set.filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

fn offloads(bytes: &[u8]) -> BTreeMap<String, Offload> {
    // One of them without the others would tell of an offload what is not so.
    if [2, 4, 5].iter().any(|set| find(bytes, *set).is_none()) {
        return BTreeMap::new();
    }
    let can = names(bytes, 2);
    let active = names(bytes, 4);
    let never = names(bytes, 5);
    let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
    OFFLOADS
        .into_iter()
        .filter_map(|name| {
            let (can, on) = (has(&can, name), has(&active, name));
            (can || on).then(|| {
                let fixed = !can || has(&never, name);
                (name.to_owned(), Offload { on, fixed })
            })
        })
        .collect()
}

fn timestamps(bytes: &[u8]) -> Option<Timestamps> {
    let timestamps = Timestamps {
        clock: word(bytes, 5),
        capabilities: names(bytes, 2),
        tx: names(bytes, 3),
        rx: names(bytes, 4),
    };
    (timestamps != Timestamps::default()).then_some(timestamps)
}

fn fec(bytes: &[u8]) -> Option<Fec> {
    // The active one is a bit of the link modes (linux/ethtool.h).
    let active = word(bytes, 4).map(|bit| match bit {
        49 => "None".to_owned(),
        50 => "RS".to_owned(),
        51 => "BASER".to_owned(),
        74 => "LLRS".to_owned(),
        other => format!("link mode {other}"),
    });
    let fec = Fec {
        configured: names(bytes, 2),
        auto: byte(bytes, 3) == Some(1),
        active,
    };
    (fec != Fec::default()).then_some(fec)
}

/// `PORT_*` of linux/ethtool.h.
fn port(bytes: &[u8]) -> Option<String> {
    let port = match byte(bytes, 2)? {
        0 => "twistedPair",
        1 => "AUI",
        2 => "MII",
        3 => "fibre",
        4 => "BNC",
        5 => "directAttach",
        0xef => "none",
        _ => return None,
    };
    Some(port.into())
}

fn link_modes(bytes: &[u8], link: &mut LinkModes) {
    link.autoneg = byte(bytes, 2).map(|on| on == 1);
    // Everything that it can do is listed, what it offers is set.
    let ours = bits(bytes, 3);
    link.advertised = ours
        .iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| name.clone())
        .collect();
    link.supported = ours.into_iter().map(|(name, _)| name).collect();
    link.partner = names(bytes, 4);
    link.full_duplex = match byte(bytes, 6) {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    };
    link.lanes = word(bytes, 9).filter(|lanes| *lanes != 0);
}

/// A device on the PCI bus; devices of other buses are no functions.
fn devlink(bytes: &[u8]) -> Option<(PciAddress, DevlinkFacts)> {
    if string(find(bytes, 1)?)? != "pci" {
        return None;
    }
    let address = string(find(bytes, 2)?)?.parse().ok()?;
    let versions = |wanted: u16| -> BTreeMap<String, String> {
        attributes(bytes)
            .filter(|(kind, _)| *kind == wanted)
            .filter_map(|(_, version)| {
                Some((string(find(version, 103)?)?, string(find(version, 104)?)?))
            })
            .collect()
    };
    let facts = DevlinkFacts {
        serial: find(bytes, 99).and_then(string),
        board_serial: find(bytes, 146).and_then(string),
        fixed: versions(100),
        running: versions(101),
        stored: versions(102),
    };
    (facts != DevlinkFacts::default()).then_some((address, facts))
}

/// Answers in a row, for recordings and fuzzers: a byte for what it is (the request's number, 0
/// for devlink, 1 for the driver, 3 for the permanent address), two for its length (little-endian),
/// its bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn recorded(mut bytes: &[u8]) -> NetAnswers {
    let mut nic = NicAnswers {
        name: "eth0".into(),
        ..NicAnswers::default()
    };
    let mut devlink = Vec::new();
    while let [kind, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (answer, after) = rest.split_at(length);
        let answer = answer.to_vec();
        let request = EthtoolRequest::ALL.iter().find(|r| **r as u8 == *kind);
        match (kind, request) {
            (_, Some(request)) => nic.ethtool.push((*request, answer)),
            (0, _) => devlink.push(answer),
            (1, _) => nic.driver = Some(answer),
            (3, _) => nic.permanent = Some(answer),
            _ => {}
        }
        bytes = after;
    }
    NetAnswers {
        nics: vec![nic],
        devlink,
    }
}

#[cfg(test)]
mod tests;
