//! What a switch knows of a NIC: MAC address and VLAN.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a MAC address that a NIC may carry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MacError {
    /// Not six bytes.
    #[error("`{0}` is not a MAC address: write six bytes in hexadecimal, as `52:54:00:12:34:56`")]
    Malformed(String),
}

/// A 48-bit MAC address, printed in lower case with colons.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// An address by its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes, first on the wire first.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Whether it addresses a group (multicast, broadcast): no NIC may have it as its own.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it is all zeroes, which is how the kernel shows a VF without an address.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let malformed = || MacError::Malformed(text.into());
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(malformed)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// A number that no VLAN has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("VLAN {0} does not exist: 1 to 4094 can be used (IEEE 802.1Q)")]
pub struct VlanError(u64);

/// An 802.1Q VLAN, 1 to 4094.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u64", into = "u64")]
#[schemars(with = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// A VLAN by its number.
    ///
    /// # Errors
    /// [`VlanError`] for 0 and above 4094.
    pub fn new(number: u64) -> Result<Self, VlanError> {
        match u16::try_from(number) {
            Ok(id @ 1..=4094) => Ok(Self(id)),
            _ => Err(VlanError(number)),
        }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for VlanId {
    type Error = VlanError;
    fn try_from(number: u64) -> Result<Self, VlanError> {
        Self::new(number)
    }
}

impl From<VlanId> for u64 {
    fn from(vlan: VlanId) -> Self {
        u64::from(vlan.0)
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        let mac: MacAddress = "BC-30-5B-F2-87-50".parse().unwrap();
        assert_eq!(mac.to_string(), "bc:30:5b:f2:87:50");
        assert!(!mac.is_group() && MacAddress::new([0xff; 6]).is_group());
        for bad in [
            "",
            "bc:30:5b:f2:87",
            "bc:30:5b:f2:87:50:01",
            "+c:30:5b:f2:87:50",
            "bc305bf28750",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn vlans() {
        assert_eq!(VlanId::new(101).unwrap().number(), 101);
        for bad in [0, 4095, 65_537] {
            assert!(VlanId::new(bad).is_err(), "{bad}");
        }
    }
}
