//! PCI functions: what they are, who drives them and their groups, and what libvirt and the
//! physical function say of them.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_inventory::PciFunction;
use bmslice_model::{PciAddress, VlanId};
use bmslice_plan::NicPlan;

use super::or_satisfied;
use crate::checks::SliceView;
use crate::report::{Seen, Verdict};

const VFIO: &str = "vfio-pci";

fn planned(view: &SliceView) -> Vec<PciAddress> {
    view.slice
        .nics
        .iter()
        .flat_map(NicPlan::functions)
        .collect()
}

fn function<'a>(view: &'a SliceView, address: PciAddress) -> Option<&'a PciFunction> {
    view.observed
        .inventory
        .pci
        .iter()
        .find(|function| function.address == address)
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(" ")
}

fn vlan(vlan: Option<VlanId>) -> String {
    vlan.map_or_else(|| "no VLAN".into(), |vlan| format!("VLAN {vlan}"))
}

pub(crate) fn functions(view: &SliceView) -> Seen<Vec<Verdict>> {
    let addresses = planned(view);
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let mut verdicts = Vec::new();
    for nic in &view.slice.nics {
        for address in nic.functions() {
            let Some(found) = function(view, address) else {
                let what = format!("the PCI function {address}");
                verdicts.push(Verdict::differs(what, "there", "not there"));
                continue;
            };
            let driver = found.driver.as_deref().unwrap_or("none");
            if driver != VFIO {
                let what = format!("the driver of {address}");
                verdicts.push(Verdict::differs(what, VFIO, driver));
            }
            verdicts.extend(identity(nic, found));
        }
    }
    Ok(or_satisfied(verdicts, || {
        format!("{} bound to {VFIO}", join(&addresses))
    }))
}

/// Addresses move when cards are added: the thing at the address must be the thing that was
/// planned.
fn identity(nic: &NicPlan, found: &PciFunction) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    match nic {
        NicPlan::Passthrough { device, .. } if device.address == found.address => {
            if found.id != device.id {
                let what = format!("the device at {}", found.address);
                verdicts.push(Verdict::differs(what, device.id, found.id));
            }
            // A driver that shows the MAC is unbound by now; a capture or a cache may still tell.
            if let (Some(want), Some(got)) = (device.mac, found.mac)
                && want != got
            {
                let what = format!("the permanent MAC of {}", found.address);
                verdicts.push(Verdict::differs(what, want, got));
            }
        }
        NicPlan::Vf { pf, index, .. } => {
            if found.physfn != Some(pf.address) {
                let got = found.physfn.map_or_else(
                    || "no virtual function".into(),
                    |pf| format!("a VF of {pf}"),
                );
                let what = format!("the device at {}", found.address);
                verdicts.push(Verdict::differs(
                    what,
                    format!("VF {index} of {}", pf.address),
                    got,
                ));
            }
        }
        NicPlan::Passthrough { .. } | NicPlan::Virtio { .. } => {}
    }
    verdicts
}

pub(crate) fn groups(view: &SliceView) -> Seen<Vec<Verdict>> {
    let addresses = planned(view);
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let mut verdicts = Vec::new();
    let mut groups = BTreeMap::new();
    for address in &addresses {
        let Some(found) = function(view, *address) else {
            verdicts.push(Verdict::unknown(format!(
                "the PCI function {address} is not there, so its IOMMU group is not known"
            )));
            continue;
        };
        match found.iommu_group {
            Some(group) => {
                groups.entry(group).or_insert(*address);
            }
            None => verdicts.push(Verdict::differs(
                format!("the IOMMU group of {address}"),
                "a group",
                "none: the IOMMU is off",
            )),
        }
    }
    for group in groups.keys() {
        let members = view
            .observed
            .inventory
            .pci
            .iter()
            .filter(|function| function.iommu_group == Some(*group) && !function.is_bridge());
        for member in members {
            let driver = member.driver.as_deref();
            if driver.is_some_and(|driver| driver != VFIO) {
                verdicts.push(Verdict::differs(
                    format!("the driver of {}, of IOMMU group {group}", member.address),
                    format!("{VFIO} or none"),
                    driver.unwrap_or_default(),
                ));
            }
        }
    }
    let process = view.guest.process.as_ref().map_err(Clone::clone)?;
    let open = process.vfio.as_ref().map_err(Clone::clone)?;
    // With iommufd a process holds the device and not its group; libvirt uses groups as of 11.
    let iommufd = open.iter().any(|path| path == "/dev/iommu");
    for (group, address) in &groups {
        let path = format!("/dev/vfio/{group}");
        if !iommufd && !open.contains(&path) {
            verdicts.push(Verdict::differs(
                format!("the IOMMU group of {address}"),
                format!("process {} holds {path} open", process.pid),
                if open.is_empty() {
                    "it holds no group open".to_owned()
                } else {
                    format!("it holds {} open", join(open))
                },
            ));
        }
    }
    Ok(or_satisfied(verdicts, || {
        format!("QEMU alone drives IOMMU group(s) {}", join(groups.keys()))
    }))
}

pub(crate) fn hostdevs(view: &SliceView) -> Seen<Vec<Verdict>> {
    let live = view.guest.live.as_ref().map_err(Clone::clone)?;
    let want: BTreeSet<PciAddress> = planned(view).into_iter().collect();
    let got: BTreeSet<PciAddress> = live.hostdevs.iter().map(|device| device.address).collect();
    if want.is_empty() && got.is_empty() {
        return Ok(Vec::new());
    }
    let mut verdicts = Vec::new();
    for missing in want.difference(&got) {
        let what = format!("the function {missing} in the running definition");
        verdicts.push(Verdict::differs(what, "given to the guest", "not there"));
    }
    for extra in got.difference(&want) {
        let what = format!("the function {extra} in the running definition");
        verdicts.push(Verdict::differs(what, "not there", "given to the guest"));
    }
    for nic in &view.slice.nics {
        let NicPlan::Vf {
            address,
            vlan: tag,
            nic,
            ..
        } = nic
        else {
            continue;
        };
        let Some(device) = live.hostdevs.iter().find(|d| d.address == *address) else {
            continue;
        };
        if device.vlan != *tag {
            let what = format!("the VLAN of {address} in the running definition");
            verdicts.push(Verdict::differs(what, vlan(*tag), vlan(device.vlan)));
        }
        if let Some(mac) = nic.mac
            && device.mac != Some(mac)
        {
            let what = format!("the MAC of {address} in the running definition");
            let got = device
                .mac
                .map_or_else(|| "none".into(), |mac| mac.to_string());
            verdicts.push(Verdict::differs(what, mac, got));
        }
    }
    Ok(or_satisfied(verdicts, || {
        format!("the running definition has {}", join(&want))
    }))
}

pub(crate) fn vf_settings(view: &SliceView) -> Seen<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for nic in &view.slice.nics {
        let NicPlan::Vf {
            pf,
            index,
            address,
            vlan: tag,
            rules,
            nic,
        } = nic
        else {
            continue;
        };
        let what = format!("VF {index} of {} ({address})", pf.address);
        let state = match view.guest.vfs.get(address) {
            Some(Ok(state)) => state,
            Some(Err(reason)) => {
                verdicts.push(reason.clone().into());
                continue;
            }
            None => {
                verdicts.push(Verdict::unknown(format!("{what} was not asked about")));
                continue;
            }
        };
        let before = verdicts.len();
        if let Some(mac) = nic.mac
            && state.mac != Some(mac)
        {
            let got = state
                .mac
                .map_or_else(|| "none".into(), |mac| mac.to_string());
            verdicts.push(Verdict::differs(format!("the MAC of {what}"), mac, got));
        }
        if state.vlan != *tag {
            verdicts.push(Verdict::differs(
                format!("the VLAN of {what}"),
                vlan(*tag),
                vlan(state.vlan),
            ));
        }
        let trusted = |trust: bool| if trust { "trusted" } else { "not trusted" };
        match state.trust {
            Some(got) if got != rules.trust => verdicts.push(Verdict::differs(
                format!("the trust in {what}"),
                trusted(rules.trust),
                trusted(got),
            )),
            // A driver that knows no trust gives none.
            None if rules.trust => verdicts.push(Verdict::unknown(format!(
                "the driver of {} does not tell whether it trusts {what}",
                pf.address
            ))),
            _ => {}
        }
        let checked = |on: bool| if on { "checked" } else { "not checked" };
        match state.spoof_check {
            Some(got) if got != rules.spoof_check => verdicts.push(Verdict::differs(
                format!("the sender's MAC of {what}"),
                checked(rules.spoof_check),
                checked(got),
            )),
            _ => {}
        }
        let rate = |rate: Option<u32>| match rate {
            Some(rate) => format!("at most {rate} Mbit/s"),
            None => "no limit".into(),
        };
        if state.max_rate != rules.max_rate {
            verdicts.push(Verdict::differs(
                format!("what {what} sends"),
                rate(rules.max_rate),
                rate(state.max_rate),
            ));
        }
        let link = state.link.unwrap_or_default();
        if link != rules.link {
            verdicts.push(Verdict::differs(
                format!("the link state of {what}"),
                rules.link.word(),
                link.word(),
            ));
        }
        if verdicts.len() == before {
            let mut has = vec![
                nic.mac
                    .map_or_else(|| "any MAC".into(), |mac| mac.to_string()),
                vlan(*tag),
            ];
            if !rules.trust {
                has.push(trusted(false).into());
            }
            has.extend(rules.described());
            verdicts.push(Verdict::satisfied(format!("{what} has {}", has.join(", "))));
        }
    }
    Ok(verdicts)
}
