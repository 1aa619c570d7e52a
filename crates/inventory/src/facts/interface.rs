//! A network interface.

use bmslice_model::{MacAddress, PciAddress};
use serde::{Deserialize, Serialize};

use super::EthtoolFacts;

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetInterface {
    /// Its name.
    pub name: String,
    /// Alternative names, when they were told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<String>,
    /// Its current address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The PCI function under it; `None` for a virtual interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// `operstate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// `carrier`; unknown while the interface is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// Mbit/s; unknown without a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The bond, bridge or team that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// The interfaces under it (members of a bond or bridge, the parent of a VLAN).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lower: Vec<String>,
    /// Whether a default route goes through it.
    #[serde(default)]
    pub default_route: bool,
    /// The address that it was made with, when the driver or its bond tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent_mac: Option<MacAddress>,
    /// `bond`, `bridge`, `vlan`, `wlan`, …: what is no plain port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The VLAN of a VLAN interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u32>,
    /// Its port on the card: `p0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// How many queues it receives with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_queues: Option<u32>,
    /// How many queues it sends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_queues: Option<u32>,
    /// What its driver tells; of interfaces with a device alone, when the kernel was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethtool: Option<EthtoolFacts>,
}

impl NetInterface {
    /// The speed of its link in Mbit/s; without a link the most that its driver says it can do.
    /// `None` when neither is told: a card without a link and without a driver's word is neither
    /// fast nor slow.
    #[must_use]
    pub fn speed_or_most(&self) -> Option<u32> {
        self.speed.or_else(|| {
            let modes = &self.ethtool.as_ref()?.link.as_ref()?.supported;
            // `25000baseCR/Full`; what is no speed (`Autoneg`, `FIBRE`) has no `base`.
            let speeds = modes
                .iter()
                .filter_map(|mode| mode.split_once("base")?.0.parse().ok());
            speeds.max()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::LinkModes;

    #[test]
    fn without_a_link_the_speed_is_the_most_that_the_driver_tells() {
        let supported = [
            "Autoneg",
            "1000baseKX/Full",
            "25000baseCR/Full",
            "FIBRE",
            "RS",
        ];
        let mut interface = NetInterface {
            ethtool: Some(EthtoolFacts {
                link: Some(LinkModes {
                    supported: supported.map(Into::into).to_vec(),
                    ..LinkModes::default()
                }),
                ..EthtoolFacts::default()
            }),
            ..NetInterface::default()
        };
        assert_eq!(interface.speed_or_most(), Some(25_000));
        interface.speed = Some(10_000);
        assert_eq!(
            interface.speed_or_most(),
            Some(10_000),
            "a link is the truth"
        );
        assert_eq!(NetInterface::default().speed_or_most(), None);
    }
}
