//! Addresses that stay addresses: turned so that networks stay networks.
//!
//! Takes addresses as text or as the kernel's tables write them; keeps true: two addresses with a
//! common prefix keep one of the same length, two addresses stay two, and what a network is for
//! (private, link-local, group) stays.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A way to turn addresses; its key goes with it.
#[derive(Default)]
pub(super) struct Addresses {
    key: RandomState,
}

impl Addresses {
    /// Turns bits by a key that depends on the bits before: addresses with a common prefix keep
    /// one of the same length, and no two become one. The first bits of known networks stay.
    fn turned(&self, value: u128, width: u32, known: &[(u128, u32)]) -> u128 {
        let mut out = value;
        for i in 0..width {
            let above = |bits: u128| bits.checked_shr(width - i).unwrap_or(0);
            let prefix = above(value);
            let in_known = known
                .iter()
                .any(|(network, length)| i < *length && above(*network) == prefix);
            if !in_known && self.key.hash_one((width, i, prefix)) & 1 == 1 {
                out ^= 1 << (width - 1 - i);
            }
        }
        out
    }

    pub(super) fn v4(&self, address: Ipv4Addr) -> Ipv4Addr {
        /// Private, link-local, loopback, group and reserved networks.
        const KNOWN: [(u128, u32); 6] = [
            (0x0a00_0000, 8),
            (0xac10_0000, 12),
            (0xc0a8_0000, 16),
            (0xa9fe_0000, 16),
            (0x7f00_0000, 8),
            (0xe000_0000, 3),
        ];
        let bits = u32::from(address);
        let mask = bits.leading_ones() >= 8 && bits.leading_ones() + bits.trailing_zeros() >= 32;
        if mask || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return address;
        }
        let turned = self.turned(u128::from(bits), 32, &KNOWN);
        u32::try_from(turned).map_or(address, Ipv4Addr::from)
    }

    pub(super) fn v6(&self, address: Ipv6Addr) -> Ipv6Addr {
        /// Link-local, unique local, group addresses, and the addresses of the public net.
        const KNOWN: [(u128, u32); 5] = [
            (0xfe80 << 112, 64),
            (0xfc00 << 112, 8),
            (0xfd00 << 112, 8),
            (0xff00 << 112, 8),
            (0x2000 << 112, 3),
        ];
        if let Some(v4) = address.to_ipv4_mapped() {
            return self.v4(v4).to_ipv6_mapped();
        }
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return address;
        }
        Ipv6Addr::from(self.turned(u128::from(address), 128, &KNOWN))
    }

    /// `/proc/net/route`: destination and gateway as the bytes of memory.
    pub(super) fn route4(&self, line: &str) -> String {
        let mut fields: Vec<String> = line
            .trim_end()
            .split('\t')
            .map(|f| f.trim().to_owned())
            .collect();
        let hex = |text: &String| u32::from_str_radix(text, 16).ok();
        let Some(mask) = fields.get(7).and_then(hex) else {
            return line.to_owned();
        };
        for i in [1, 2] {
            if let Some(bits) = fields.get(i).and_then(hex) {
                let address = Ipv4Addr::from(bits.swap_bytes());
                let mut turned = u32::from(self.v4(address)).swap_bytes();
                if i == 1 {
                    turned &= mask;
                }
                fields[i] = format!("{turned:08X}");
            }
        }
        let mut line = fields.join("\t");
        line.push('\n');
        line
    }

    /// `/proc/net/ipv6_route`, `if_inet6`: addresses of 32 digits, networks with their length.
    pub(super) fn route6(&self, line: &str) -> String {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let mut made: Vec<String> = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            let address = (field.len() == 32)
                .then(|| u128::from_str_radix(field, 16).ok())
                .flatten();
            made.push(match address {
                Some(bits) => {
                    let mut turned = u128::from(self.v6(Ipv6Addr::from(bits)));
                    let length = (fields.len() > 6)
                        .then(|| fields.get(i + 1))
                        .flatten()
                        .filter(|text| text.len() == 2)
                        .and_then(|text| u32::from_str_radix(text, 16).ok());
                    if let Some(length) = length {
                        turned &= u128::MAX
                            .checked_shl(128u32.saturating_sub(length))
                            .unwrap_or(0);
                    }
                    format!("{turned:032x}")
                }
                None => (*field).to_owned(),
            });
        }
        let mut line = made.join(" ");
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_stay_networks_and_addresses_stay_apart() {
        let turn = Addresses::default();
        let v4 = |text: &str| turn.v4(text.parse().unwrap());
        let prefix = |a: Ipv4Addr, b: Ipv4Addr| (u32::from(a) ^ u32::from(b)).leading_zeros();
        for (a, b) in [
            ("198.51.100.7", "198.51.100.9"),
            ("198.51.100.7", "198.51.101.7"),
            ("10.1.2.3", "10.200.2.3"),
            ("203.0.113.1", "8.8.8.8"),
        ] {
            let before = prefix(a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(prefix(v4(a), v4(b)), before, "{a} {b}");
        }
        assert!(v4("192.168.7.8").is_private() && v4("10.0.0.1").is_private());
        assert!(
            !v4("11.0.0.1").is_private(),
            "nobody joins a private network"
        );
        for kept in ["0.0.0.0", "127.0.0.1", "255.255.255.0", "224.0.0.1"] {
            assert_eq!(v4(kept).to_string(), kept);
        }
        let v6 = |text: &str| turn.v6(text.parse().unwrap());
        assert!(v6("fe80::1").is_unicast_link_local());
        assert_eq!(v6("::1"), Ipv6Addr::LOCALHOST);
        let common = u128::from(v6("2001:db8::1")) ^ u128::from(v6("2001:db8::2"));
        assert_eq!(common.leading_zeros(), 126);
    }
}
