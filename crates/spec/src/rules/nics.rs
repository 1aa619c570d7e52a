//! The rules of one slice's network cards.

use bmslice_model::MacAddress;

use crate::guest;
use crate::rules::{Found, Path};
use crate::sealed::{NicChoice, NicKind, NicSpec, SliceSpec};

pub(super) fn nic_rules(slice: &SliceSpec, at: &Path, found: &mut Found) {
    let nics = at.field("nics");
    if slice.nics.len() > 32 {
        found.say(
            nics.clone(),
            format!("{} NICs do not fit into one guest", slice.nics.len()),
            "32 do",
        );
    }
    for (i, nic) in slice.nics.iter().enumerate() {
        let at = nics.index(i);
        let (kind, device, mac) = match &nic.kind {
            NicKind::Passthrough { device } => (at.field("passthrough"), Some(device), None),
            NicKind::Vf { of, mac, .. } => (at.field("vf"), Some(of), *mac),
            NicKind::Virtio { network, mac } => {
                let kind = at.field("virtio");
                let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if network.is_empty() || !network.chars().all(fits) {
                    found.say(
                        kind.field("network"),
                        format!(
                            "`{}` is not a libvirt network",
                            crate::diagnostic::shown(network)
                        ),
                        "`virsh net-list` shows their names; the usual one is `default`",
                    );
                }
                (kind, None, *mac)
            }
        };
        own_mac(mac, &kind.field("mac"), found);
        let of = match &nic.kind {
            NicKind::Vf { .. } => kind.field("of"),
            _ => kind,
        };
        match device {
            Some(NicChoice::Mac(mac)) => own_mac(Some(*mac), &of.field("mac"), found),
            Some(NicChoice::Name(name)) => {
                let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/';
                // IFNAMSIZ is for names; alternative names may have 127.
                if name.is_empty() || name.len() > 127 || name.chars().any(bad) {
                    found.say(
                        of.field("name"),
                        format!(
                            "`{}` is not an interface's name",
                            crate::diagnostic::shown(name)
                        ),
                        "`ip link` shows them",
                    );
                }
            }
            Some(NicChoice::Need { speed: Some(0), .. }) => {
                found.say(
                    of.field("speed"),
                    "every NIC is faster than 0",
                    "leave it out",
                );
            }
            Some(NicChoice::Pci(_) | NicChoice::Need { .. }) | None => {}
        }
        if nic.take_from_host {
            from_host_rules(nic, &of.field("takeFromHost"), found);
        }
        vlan_rules(nic, &at, found);
        guest::network_rules(slice, nic, &at, found);
    }
}

/// What a NIC tags with one VLAN never shows up in another one on the switch.
fn vlan_rules(nic: &NicSpec, at: &Path, found: &mut Found) {
    let NicKind::Vf {
        vlan: Some(tagged), ..
    } = nic.kind
    else {
        return;
    };
    let shown = nic.fabric.as_ref().and_then(|fabric| fabric.vlan);
    let Some(shown) = shown.filter(|shown| *shown != tagged) else {
        return;
    };
    found.clash(
        at.field("fabric").field("vlan"),
        format!("the switch cannot show VLAN {shown}: the VF tags all that it sends with {tagged}"),
        &format!("write `vlan: {tagged}` in both places, or `vlan: {shown}`"),
        at.field("vf").field("vlan"),
        "the VF's",
    );
}

fn own_mac(mac: Option<MacAddress>, at: &Path, found: &mut Found) {
    let Some(mac) = mac else { return };
    let [first, rest @ ..] = mac.bytes();
    if mac.is_group() {
        let mut near = [first & 0xfe, 0, 0, 0, 0, 0];
        near[1..].copy_from_slice(&rest);
        let near = MacAddress::new(near);
        let hint = if near.bytes() == [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff] {
            "locally administered ones start with `02`, QEMU's with `52:54:00`".into()
        } else {
            format!("the first byte of a card's own address is even: `{near}`")
        };
        let message = format!("{mac} addresses a group (multicast), which no NIC can be");
        found.say(at.clone(), message, hint);
    } else if mac.is_zero() {
        found.say(
            at.clone(),
            format!("{mac} is how the kernel shows a NIC without an address"),
            "leave `mac` out, or write `auto`, to get one derived from server and slice",
        );
    }
}

/// Nobody takes the host's network away by chance.
fn from_host_rules(nic: &NicSpec, at: &Path, found: &mut Found) {
    match &nic.kind {
        NicKind::Passthrough {
            device: NicChoice::Need { .. },
        } => found.say(
            at.clone(),
            "a NIC that the host uses is taken from it only when it is named",
            "write `name`, `pci` or `mac` beside it, or leave it out",
        ),
        NicKind::Passthrough { .. } => {}
        NicKind::Vf { .. } | NicKind::Virtio { .. } => found.say(
            at.clone(),
            "only a NIC that goes whole is taken from the host",
            "leave `takeFromHost` out: a NIC that is split stays with the host",
        ),
    }
}
