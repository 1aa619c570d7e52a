//! What the driver of a NIC tells beside what files show.

use std::collections::BTreeMap;

use bmslice_model::MacAddress;
use serde::{Deserialize, Serialize};

/// What ethtool shows of an interface. Everything that the driver or the kernel did not tell is
/// left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EthtoolFacts {
    /// The driver, as it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The driver's version; the kernel's for drivers that come with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// The version of the firmware that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The version of the expansion ROM (option ROM, PXE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion_rom: Option<String>,
    /// Where it sits, as its driver calls it: a PCI address, `virtio2`, `usb-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// The address that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent_mac: Option<MacAddress>,
    /// Its queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Its descriptor rings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rings: Option<Rings>,
    /// Its offloads, by the kernel's names (`hw-tc-offload`, `rx-gro-hw`, …), of those that matter
    /// for packet work. Where some are named, one that is not named is one that it has not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offloads: BTreeMap<String, Offload>,
    /// How it stamps packets with the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<Timestamps>,
    /// Forward error correction of its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fec: Option<Fec>,
    /// Its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkModes>,
}

/// A number that can be set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Setting {
    /// What it is.
    pub now: u32,
    /// The most that it can be.
    pub max: u32,
}

/// The queues of a NIC, each with its interrupt (`ethtool -l`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channels {
    /// That only receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx: Option<Setting>,
    /// That only send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Setting>,
    /// For what is neither: link events, VFs' mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Setting>,
    /// That do both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined: Option<Setting>,
}

/// The descriptor rings of a NIC, in packets for each queue (`ethtool -g`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rings {
    /// To receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx: Option<Setting>,
    /// To receive small packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_mini: Option<Setting>,
    /// To receive jumbo frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_jumbo: Option<Setting>,
    /// To send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Setting>,
}

/// An offload that a NIC has (`ethtool -k`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offload {
    /// Whether it is in force.
    pub on: bool,
    /// Whether it cannot be changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
}

/// How a NIC stamps packets (`ethtool -T`), in ethtool's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timestamps {
    /// The number of its PTP hardware clock: 0 is `/dev/ptp0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<u32>,
    /// `hardware-transmit`, `hardware-receive`, `software-receive`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// How packets that leave can be stamped by hardware: `off`, `on`, `onestep-sync`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tx: Vec<String>,
    /// Which packets that come can be stamped by hardware: `none`, `all`, `ptpv2-event`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rx: Vec<String>,
}

impl Timestamps {
    /// Whether hardware stamps packets in both directions.
    #[must_use]
    pub fn by_hardware(&self) -> bool {
        ["hardware-transmit", "hardware-receive"]
            .iter()
            .all(|wanted| self.capabilities.iter().any(|has| has == wanted))
    }
}

/// Forward error correction of a link (`ethtool --show-fec`): `RS`, `BASER`, `LLRS`, `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fec {
    /// The encodings that may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configured: Vec<String>,
    /// Whether the NIC chooses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto: bool,
    /// What is in use; unknown without a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
}

/// A link and what it could be, in ethtool's words (`25000baseCR/Full`, `Autoneg`, `FIBRE`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkModes {
    /// The connector: `twistedPair`, `fibre`, `directAttach`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Whether speed and the rest are agreed on with the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoneg: Option<bool>,
    /// Whether both ends may send at once; unknown without a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_duplex: Option<bool>,
    /// How many lanes it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u32>,
    /// What the NIC can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supported: Vec<String>,
    /// What it offers to the other end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertised: Vec<String>,
    /// What the other end offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partner: Vec<String>,
}

/// What devlink shows of a device (`devlink dev info`): serial numbers, and versions by name
/// (`fw`, `fw.mgmt`, `fw.undi`, `board.id`, …).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevlinkFacts {
    /// Serial number of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Serial number of its board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board_serial: Option<String>,
    /// Of what cannot be changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<String, String>,
    /// Of what runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub running: BTreeMap<String, String>,
    /// Of what is stored, and runs after the next reset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stored: BTreeMap<String, String>,
}
