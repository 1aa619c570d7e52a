//! PCI addresses and ids as the kernel writes them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is not a PCI address: write domain:bus:device.function in hexadecimal, as `0000:01:00.0`"
)]
pub struct PciAddressError {
    text: String,
}

/// Where a PCI function sits: `domain:bus:device.function`, as in `/sys/bus/pci/devices`. Addresses
/// move when cards are added; a device is *recognised* by address and MAC or serial together.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// An address by its parts; `None` when the device is above 31 or the function above 7. The
    /// domain is 32 bits wide: Intel VMD puts its own above 0xffff.
    #[must_use]
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self {
            domain,
            bus,
            device,
            function,
        })
    }

    /// The segment.
    #[must_use]
    pub fn domain(self) -> u32 {
        self.domain
    }
    /// The bus in its domain.
    #[must_use]
    pub fn bus(self) -> u8 {
        self.bus
    }
    /// The device (slot) on its bus, at most 31.
    #[must_use]
    pub fn device(self) -> u8 {
        self.device
    }
    /// The function of its device, at most 7.
    #[must_use]
    pub fn function(self) -> u8 {
        self.function
    }

    /// libvirt's name of the node device: `pci_0000_01_00_0`.
    #[must_use]
    pub fn nodedev_name(self) -> String {
        format!(
            "pci_{:04x}_{:02x}_{:02x}_{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        f.pad(&format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
    }
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        parse(text).ok_or_else(|| PciAddressError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.split_once('.')?;
    let mut parts = rest.rsplitn(3, ':');
    let (device, bus) = (parts.next()?, parts.next()?);
    // `01:00.0`, as lspci prints it, means domain 0.
    let domain = parts.next().unwrap_or("0000");
    let hex = |part: &str, width: usize| {
        let ok =
            !part.is_empty() && part.len() <= width && part.bytes().all(|b| b.is_ascii_hexdigit());
        ok.then(|| u32::from_str_radix(part, 16).ok()).flatten()
    };
    PciAddress::new(
        hex(domain, 8)?,
        u8::try_from(hex(bus, 2)?).ok()?,
        u8::try_from(hex(device, 2)?).ok()?,
        u8::try_from(hex(function, 1)?).ok()?,
    )
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;
    fn try_from(text: String) -> Result<Self, PciAddressError> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

/// A vendor and device number: what the function *is*, printed `8086:1528`.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PciId {
    /// As the PCI SIG gave it.
    pub vendor: u16,
    /// As the vendor gave it.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl FromStr for PciId {
    type Err = PciAddressError;
    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        let parsed = text.split_once(':').and_then(|(vendor, device)| {
            let hex = |part: &str| {
                let ok = part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
                ok.then(|| u16::from_str_radix(part, 16).ok()).flatten()
            };
            Some(Self {
                vendor: hex(vendor)?,
                device: hex(device)?,
            })
        });
        parsed.ok_or_else(|| PciAddressError { text: text.into() })
    }
}

impl TryFrom<String> for PciId {
    type Error = PciAddressError;
    fn try_from(text: String) -> Result<Self, PciAddressError> {
        text.parse()
    }
}

impl From<PciId> for String {
    fn from(id: PciId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let a: PciAddress = "0000:01:00.1".parse().unwrap();
        assert_eq!(
            (a.domain(), a.bus(), a.device(), a.function()),
            (0, 1, 0, 1)
        );
        assert_eq!(a.to_string(), "0000:01:00.1");
        assert_eq!(a.nodedev_name(), "pci_0000_01_00_1");
        assert_eq!(
            "81:10.2".parse::<PciAddress>().unwrap().to_string(),
            "0000:81:10.2"
        );
        assert_eq!(
            "10000:e1:00.0".parse::<PciAddress>().unwrap().to_string(),
            "10000:e1:00.0"
        );
        for bad in [
            "",
            "01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "g:01:00.0",
            "0:0:01:00.0",
            "+1:00.0",
        ] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad}");
        }
    }
}
