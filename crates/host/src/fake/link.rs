//! Links of interfaces: set up and down, and there once both ends have agreed; and what a driver lets
//! a VF be held to by it.
//!
//! Sources: `igb_ndo_set_vf_bw` (drivers/net/ethernet/intel/igb/igb_main.c), `ixgbe_ndo_set_vf_bw`
//! (…/ixgbe/ixgbe_sriov.c), and which of them have `ndo_set_vf_link_state`.

use bmslice_model::PciAddress;

use super::commands::{Answer, fail};
use super::pci::{Net, VfSettings};
use super::world::World;

impl Net {
    /// A cable in it, and both ends agreed.
    pub fn has_link(&self) -> bool {
        self.up && self.speed.is_some() && !self.negotiates
    }
}

impl World {
    /// What changes with the link. The kernel answers EINVAL for carrier and speed of an interface
    /// that is down: here they are not there.
    pub fn show_link(&self, net: &Net, at: &str) {
        let tree = &self.tree;
        let linked = net.has_link();
        tree.show(
            format!("{at}/operstate"),
            if linked { "up" } else { "down" },
        );
        tree.knob(
            format!("{at}/flags"),
            if net.up { "0x1003" } else { "0x1002" },
        );
        if net.up {
            tree.knob(format!("{at}/carrier"), u8::from(linked));
            let speed = net.speed.filter(|_| linked).map_or(-1, i64::from);
            tree.show(format!("{at}/speed"), speed);
            tree.show(
                format!("{at}/duplex"),
                if linked { "full" } else { "unknown" },
            );
        } else {
            for name in ["carrier", "speed", "duplex"] {
                tree.remove(format!("{at}/{name}"));
            }
        }
    }

    /// `ip link set dev NAME up`.
    pub fn set_link(&mut self, address: PciAddress, up: bool) {
        if let Some(net) = self
            .functions
            .get_mut(&address)
            .and_then(|f| f.net.as_mut())
        {
            net.negotiates = up && (net.negotiates || !net.up && !self.link_takes.is_zero());
            net.up = up;
            if net.negotiates {
                self.links.push((self.clock + self.link_takes, address));
            }
        }
        self.show_link_of(address);
        if up {
            self.show_queues(address);
        }
    }

    /// Time has passed: links whose ends have agreed by now are there.
    pub fn settle_links(&mut self) {
        let now = self.clock;
        let (due, later) = self.links.drain(..).partition(|(at, _)| *at <= now);
        self.links = later;
        let due: Vec<(_, PciAddress)> = due;
        for (_, address) in due {
            let Some(function) = self.functions.get_mut(&address) else {
                continue;
            };
            if let Some(net) = function.net.as_mut() {
                net.negotiates = false;
            }
            self.show_link_of(address);
        }
    }

    fn show_link_of(&self, address: PciAddress) {
        let function = self.functions.get(&address);
        if let Some((function, net)) = function.and_then(|f| Some((f, f.net.as_ref()?))) {
            self.show_link(net, &format!("{}/net/{}", function.net_parent(), net.name));
        }
    }

    /// What the driver of a physical function refuses of what it is asked for a VF.
    pub fn refuse_vf(
        &self,
        pf: PciAddress,
        known: &VfSettings,
        asked: &VfSettings,
    ) -> Option<Answer> {
        let function = self.functions.get(&pf)?;
        let driver = function.driver.as_deref();
        if driver == Some("igb") && asked.link_state != known.link_state {
            return Some(fail(2, "RTNETLINK answers: Operation not supported"));
        }
        let link = function.net.as_ref().filter(|net| net.has_link());
        let most = link.and_then(|net| net.speed).unwrap_or(0);
        let limits = matches!(driver, Some("igb" | "ixgbe"));
        if limits && asked.max_rate != known.max_rate && (link.is_none() || asked.max_rate > most) {
            return Some(fail(2, "RTNETLINK answers: Invalid argument"));
        }
        None
    }
}
