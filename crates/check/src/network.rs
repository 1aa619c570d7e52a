//! Which cards a slice gets, and whether they are what was asked for.

use std::collections::BTreeMap;

use bmslice_inventory::NetInterface;
use bmslice_model::{MacAddress, NumaNodeId, PciAddress};
use bmslice_plan::{DeviceRef, Level, NicPlan, SlicePlan};
use bmslice_spec::{NicChoice, NicKind, NicNuma, NicSpec};

use crate::{Case, Found, Invariant, pci};

pub(crate) const AS_ASKED: Invariant = Invariant {
    code: "nic-as-asked",
    rule: "a slice has the cards that were asked for, in that order: kind, device, speed, nearness, VLAN, rules, network, fabric",
    test: as_asked,
};

fn as_asked(case: &Case<'_>, found: &mut Found) {
    for (slice, spec) in case.slices() {
        found.differs(
            slice,
            "the number of cards",
            &slice.nics.len(),
            &spec.nics.len(),
        );
        for (number, (nic, asked)) in slice.nics.iter().zip(&spec.nics).enumerate() {
            let what = |part: &str| format!("{part} of card {number}");
            let common = nic.common();
            found.differs(slice, &what("the fabric"), &common.fabric, &asked.fabric);
            found.differs(slice, &what("the network"), &common.network, &asked.network);
            match (nic, &asked.kind) {
                (
                    NicPlan::Passthrough {
                        device, from_host, ..
                    },
                    NicKind::Passthrough { device: choice },
                ) => {
                    let (what, asked) = (what("`takeFromHost`"), &asked.take_from_host);
                    found.differs(slice, &what, from_host, asked);
                    chosen(case, slice, number, (nic, device), choice, found);
                }
                (
                    NicPlan::Vf {
                        pf, vlan, rules, ..
                    },
                    NicKind::Vf {
                        of,
                        vlan: asked_vlan,
                        rules: asked_rules,
                        ..
                    },
                ) => {
                    found.differs(slice, &what("the VLAN"), vlan, asked_vlan);
                    found.differs(slice, &what("what the NIC holds to"), rules, asked_rules);
                    chosen(case, slice, number, (nic, pf), of, found);
                }
                (
                    NicPlan::Virtio { network, .. },
                    NicKind::Virtio {
                        network: wanted, ..
                    },
                ) => {
                    found.differs(slice, &what("the libvirt network"), network, wanted);
                }
                _ => found.slice(
                    slice,
                    format!(
                        "card {number} is {}, asked was {}",
                        planned(nic),
                        kind(asked)
                    ),
                ),
            }
        }
    }
}

fn planned(nic: &NicPlan) -> &'static str {
    match nic {
        NicPlan::Passthrough { .. } => "a whole function",
        NicPlan::Vf { .. } => "a virtual function",
        NicPlan::Virtio { .. } => "a virtio card",
    }
}

fn kind(asked: &NicSpec) -> &'static str {
    match asked.kind {
        NicKind::Passthrough { .. } => "a whole function",
        NicKind::Vf { .. } => "a virtual function",
        NicKind::Virtio { .. } => "a virtio card",
    }
}

fn interfaces<'a>(case: &Case<'a>, address: PciAddress) -> impl Iterator<Item = &'a NetInterface> {
    let all = case.inventory.interfaces.iter();
    all.filter(move |interface| interface.pci == Some(address))
}

fn chosen(
    case: &Case<'_>,
    slice: &SlicePlan,
    number: usize,
    (nic, device): (&NicPlan, &DeviceRef),
    choice: &NicChoice,
    found: &mut Found,
) {
    let address = device.address;
    let Some(there) = case.server.function(address) else {
        return;
    };
    let (is_it, asked) = match choice {
        NicChoice::Pci(wanted) => (*wanted == address, wanted.to_string()),
        NicChoice::Name(name) => {
            let alternative =
                interfaces(case, address).any(|i| i.name == *name || i.altnames.contains(name));
            // A function that a guest has shows neither name nor MAC: the plan remembers them.
            let remembered = there.interfaces.is_empty() && device.interface.as_ref() == Some(name);
            (
                alternative || remembered || there.interfaces.contains(name),
                format!("`{name}`"),
            )
        }
        NicChoice::Mac(mac) => {
            let shown = pci::macs(case, there);
            let remembered = shown.is_empty() && device.mac == Some(*mac);
            (remembered || shown.contains(mac), mac.to_string())
        }
        NicChoice::Need { speed, numa } => {
            let known = interfaces(case, address).filter_map(|i| i.speed).max();
            // Without a link nobody knows the speed: the planner says so in its report.
            if let (Some(wanted), Some(known)) = (speed, known)
                && known < *wanted
            {
                found.slice(
                    slice,
                    format!("card {number} at {address} makes {known} Mbit/s, asked were {wanted}"),
                );
            }
            // On a server of one node firmware often tells none, and everything is near.
            let one_node = case.inventory.nodes.len() < 2 && there.node.is_none();
            if *numa == NicNuma::Same && !one_node && truly_local(slice, there.node) != Some(true) {
                found.slice(
                    slice,
                    format!("card {number} at {address} is not on a node of the slice, as asked"),
                );
            }
            (true, String::new())
        }
    };
    if !is_it {
        found.slice(
            slice,
            format!(
                "card {number} is {} at {address}, asked was {asked}",
                planned(nic)
            ),
        );
    }
}

fn truly_local(slice: &SlicePlan, node: Option<NumaNodeId>) -> Option<bool> {
    let node = node?;
    Some(slice.cells.iter().any(|cell| cell.node == node))
}

pub(crate) const MAC: Invariant = Invariant {
    code: "mac",
    rule: "a card has the MAC asked for or, when made, one that the host chose; no two cards have one MAC, none has a group's or that of a card of the server",
    test: mac,
};

fn mac(case: &Case<'_>, found: &mut Found) {
    let mut seen: BTreeMap<MacAddress, String> = BTreeMap::new();
    for slice in case.plan.slices() {
        for (number, nic) in slice.nics.iter().enumerate() {
            let Some(mac) = nic.common().mac else {
                if !matches!(nic, NicPlan::Passthrough { .. }) {
                    found.slice(
                        slice,
                        format!(
                            "card {number} has no MAC, so it would get a new one at each start"
                        ),
                    );
                }
                continue;
            };
            if mac.is_group() || mac.is_zero() {
                found.slice(
                    slice,
                    format!("card {number} has {mac}, which is no card's own address"),
                );
            }
            let card = format!("card {number} of slice `{}`", slice.name);
            if let Some(first) = seen.insert(mac, card) {
                found.slice(slice, format!("card {number} has {mac}, as {first} has"));
            }
            let own: Vec<PciAddress> = nic.functions();
            for other in &case.inventory.interfaces {
                // After apply, the virtual function itself shows it, in the guest's hands or not.
                let same = other.pci.is_some_and(|pci| own.contains(&pci));
                if other.mac == Some(mac) && other.pci.is_some() && !same {
                    found.slice(
                        slice,
                        format!(
                            "card {number} has {mac}, as the server's `{}` has",
                            other.name
                        ),
                    );
                }
            }
        }
    }
    for (slice, spec) in case.slices() {
        for (number, (nic, asked)) in slice.nics.iter().zip(&spec.nics).enumerate() {
            let given = match &asked.kind {
                NicKind::Passthrough { .. } => match nic {
                    NicPlan::Passthrough { device, .. } => device.mac,
                    _ => None,
                },
                NicKind::Vf { mac, .. } | NicKind::Virtio { mac, .. } => *mac,
            };
            if given.is_some() && nic.common().mac != given {
                found.differs(
                    slice,
                    &format!("the MAC of card {number}"),
                    &nic.common().mac,
                    &given,
                );
            }
        }
    }
}

pub(crate) const LOCALITY: Invariant = Invariant {
    code: "locality",
    rule: "what the plan says of a card being local is true",
    test: locality,
};

fn locality(case: &Case<'_>, found: &mut Found) {
    for slice in case.plan.slices() {
        for (number, nic) in slice.nics.iter().enumerate() {
            let truth = physical(nic)
                .and_then(|device| case.server.function(device.address))
                .and_then(|there| truly_local(slice, there.node));
            let said = nic.common().local;
            if said != truth {
                found.slice(
                    slice,
                    format!("of card {number} the plan says local: {said:?}, it is {truth:?}"),
                );
            }
        }
    }
}

fn physical(nic: &NicPlan) -> Option<&DeviceRef> {
    match nic {
        NicPlan::Passthrough { device, .. } => Some(device),
        NicPlan::Vf { pf, .. } => Some(pf),
        NicPlan::Virtio { .. } => None,
    }
}

pub(crate) const REMOTE_REPORTED: Invariant = Invariant {
    code: "remote-reported",
    rule: "a card on another node is reported as a warning `remote-device` of its slice, never hidden",
    test: remote_reported,
};

fn remote_reported(case: &Case<'_>, found: &mut Found) {
    let findings = &case.plan.parts().report.findings;
    for slice in case.plan.slices() {
        let said = findings.iter().any(|finding| {
            finding.slice.as_ref() == Some(&slice.name)
                && finding.code == "remote-device"
                && finding.level == Level::Warning
        });
        for nic in &slice.nics {
            let Some(there) = physical(nic).and_then(|d| case.server.function(d.address)) else {
                continue;
            };
            if truly_local(slice, there.node) == Some(false) && !said {
                found.slice(
                    slice,
                    format!(
                        "{} is on another node than the slice, and the report does not say so",
                        there.address
                    ),
                );
            }
        }
    }
}
