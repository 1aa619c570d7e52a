//! The host's routes: through which interface an address is reached, and which interfaces have
//! addresses of the host.
//!
//! Source: proc_pid_net(5): `/proc/net/route`, `ipv6_route`, `if_inet6`. They show the main table;
//! of an IPv4 multipath route only the first way is shown.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::scan::Scan;

/// The route is no way: packets are refused (linux/route.h, linux/ipv6_route.h).
const REJECT: u32 = 0x0200;
const UP: u32 = 0x0001;

/// One way.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    network: IpAddr,
    prefix: u32,
    metric: u32,
}

/// The ways that the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    /// Interfaces with a global, site or unique local IPv6 address.
    addressed: Vec<String>,
}

impl Routes {
    pub(crate) fn read(scan: &Scan) -> Self {
        let mut routes: Vec<Route> = scan
            .file("/proc/net/route")
            .lines()
            .skip(1)
            .filter_map(v4)
            .collect();
        routes.extend(
            scan.file("/proc/net/ipv6_route")
                .lines()
                .filter_map(v6)
                .filter(|route| route.interface != "lo"),
        );
        let addressed = scan
            .file("/proc/net/if_inet6")
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // Scope 0x10 is the host, 0x20 the link.
                let wide = matches!(fields.get(3), Some(&("00" | "40")));
                wide.then(|| fields.get(5).map(|name| (*name).to_owned()))
                    .flatten()
            })
            .collect();
        Self { routes, addressed }
    }

    /// The interfaces of default routes, each once.
    pub(crate) fn defaults(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .routes
            .iter()
            .filter(|route| route.prefix == 0)
            .map(|route| route.interface.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether the host has an address on the interface: a connected route tells of IPv4.
    pub(crate) fn addressed(&self, interface: &str) -> bool {
        self.addressed.iter().any(|name| name == interface)
            || self
                .routes
                .iter()
                .any(|route| route.interface == interface && is_wider_than_the_link(route.network))
    }

    /// The interface towards an address: the longest prefix, then the lowest metric. A zone
    /// (`fe80::1%eno1`) names the interface itself.
    pub(crate) fn towards(&self, peer: &str) -> Option<&str> {
        let (address, zone) = match peer.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (peer, None),
        };
        if let Some(zone) = zone {
            return self
                .routes
                .iter()
                .map(|route| route.interface.as_str())
                .find(|name| *name == zone);
        }
        let address = match address.parse().ok()? {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
            v4 => v4,
        };
        self.routes
            .iter()
            .filter(|route| covers(route, address))
            .min_by_key(|route| (std::cmp::Reverse(route.prefix), route.metric))
            .map(|route| route.interface.as_str())
    }
}

/// Whether a route tells of an IPv4 address that is more than a link's own (169.254.0.0/16), which
/// some systems give to every port.
fn is_wider_than_the_link(network: IpAddr) -> bool {
    match network {
        IpAddr::V4(network) => !network.is_link_local(),
        IpAddr::V6(_) => false,
    }
}

fn covers(route: &Route, address: IpAddr) -> bool {
    match (route.network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - route.prefix).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - route.prefix).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in the byte order of the
/// machine that wrote them: little-endian on all that `bmslice` slices.
fn v4(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let hex = |i: usize| u32::from_str_radix(fields.get(i)?, 16).ok();
    let flags = hex(3)?;
    if flags & UP == 0 || flags & REJECT != 0 {
        return None;
    }
    Some(Route {
        interface: (*fields.first()?).to_owned(),
        network: IpAddr::V4(Ipv4Addr::from(hex(1)?.swap_bytes())),
        prefix: hex(7)?.count_ones(),
        metric: fields.get(6)?.parse().ok()?,
    })
}

/// `destination length source length next-hop metric refcount use flags interface`.
fn v6(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    if flags & UP == 0 || flags & REJECT != 0 {
        return None;
    }
    let prefix = u32::from_str_radix(fields.get(1)?, 16).ok()?;
    Some(Route {
        interface: (*fields.get(9)?).to_owned(),
        network: IpAddr::V6(Ipv6Addr::from(
            u128::from_str_radix(fields.first()?, 16).ok()?,
        )),
        prefix: (prefix <= 128).then_some(prefix)?,
        metric: u32::from_str_radix(fields.get(5)?, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(v4_lines: &str, v6_lines: &str) -> Routes {
        Routes {
            routes: v4_lines
                .lines()
                .filter_map(v4)
                .chain(v6_lines.lines().filter_map(v6))
                .collect(),
            addressed: Vec::new(),
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let routes = routes(
            "eno3\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eno4\t00000000\t0101000A\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
             br0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             dead\t0000000A\t00000000\t0201\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n",
            "fd000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eno1\n\
             00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n",
        );
        assert_eq!(routes.defaults(), ["eno3", "eno4"]);
        assert_eq!(routes.towards("10.0.0.77"), Some("br0"));
        assert_eq!(routes.towards("::ffff:10.0.0.77"), Some("br0"));
        assert_eq!(routes.towards("192.0.2.1"), Some("eno3"));
        assert_eq!(routes.towards("fd00::1"), Some("eno1"));
        assert_eq!(
            routes.towards("2001:db8::1"),
            None,
            "the only default is a refusal"
        );
        assert_eq!(routes.towards("fe80::1%br0"), Some("br0"));
        assert_eq!(routes.towards("not an address"), None);
    }

    #[test]
    fn damaged_lines_are_no_routes() {
        assert!(v4("eno3 0 0").is_none() && v4("").is_none());
        assert!(v6("0 0").is_none());
        assert!(
            v6("00000000000000000000000000000000 ff 0 00 0 0 0 0 00000001 eno1").is_none(),
            "a prefix of 255 bits"
        );
    }
}
