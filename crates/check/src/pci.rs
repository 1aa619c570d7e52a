//! Which functions are given away (planning rule 7).

use std::collections::{BTreeMap, BTreeSet};

use bmslice_inventory::{HostNeed, PciFunction};
use bmslice_model::PciAddress;
use bmslice_plan::{DeviceRef, NicPlan};
use bmslice_spec::Isolation;

use crate::{Case, Found, Invariant};

/// Every physical function that the plan names, with what names it.
fn physical<'a>(case: &Case<'a>) -> Vec<(String, &'a DeviceRef)> {
    let mut all = Vec::new();
    for slice in case.plan.slices() {
        for (number, nic) in slice.nics.iter().enumerate() {
            let device = match nic {
                NicPlan::Passthrough { device, .. } => device,
                NicPlan::Vf { pf, .. } => pf,
                NicPlan::Virtio { .. } => continue,
            };
            all.push((format!("card {number} of slice `{}`", slice.name), device));
        }
    }
    for split in &case.plan.host().split {
        all.push(("the functions to be split".into(), &split.device));
    }
    all
}

pub(crate) const EXISTS: Invariant = Invariant {
    code: "device-exists",
    rule: "a physical function that the plan names is a network card of this server, with that id, MAC, interface and node",
    test: exists,
};

fn exists(case: &Case<'_>, found: &mut Found) {
    for (whose, device) in physical(case) {
        let address = device.address;
        let Some(there) = case.server.function(address) else {
            found.host(format!(
                "{address}, named for {whose}, is not on this server"
            ));
            continue;
        };
        let mut differs = |what: &str, plan: String, is: String| {
            found.host(format!(
                "{what} of {address}, named for {whose}, is {is}, the plan says {plan}"
            ));
        };
        let show = |value: &dyn std::fmt::Debug| format!("{value:?}");
        if device.id != there.id {
            differs("the id", device.id.to_string(), there.id.to_string());
        }
        if device.node != there.node {
            differs("the node", show(&device.node), show(&there.node));
        }
        let macs = macs(case, there);
        if let Some(mac) = device.mac
            && !macs.is_empty()
            && !macs.contains(&mac)
        {
            differs("the MAC", mac.to_string(), macs[0].to_string());
        }
        // A function that a guest has shows no interface: its name is what the plan remembers.
        if let Some(name) = &device.interface
            && !there.interfaces.is_empty()
            && !there.interfaces.contains(name)
        {
            differs("the interface", show(name), show(&there.interfaces));
        }
        if !there.is_network() {
            found.host(format!(
                "{address}, named for {whose}, is not a network card (class {})",
                there.class
            ));
        }
        if there.is_vf() {
            found.host(format!(
                "{address}, named for {whose}, is itself a virtual function"
            ));
        }
    }
}

/// The MACs by which a function may be recognised: its permanent one, else what its interfaces show.
pub(crate) fn macs(case: &Case<'_>, function: &PciFunction) -> Vec<bmslice_model::MacAddress> {
    let interfaces = case.inventory.interfaces.iter();
    let shown = interfaces
        .filter(|i| i.pci == Some(function.address))
        .filter_map(|i| i.mac);
    function.mac.into_iter().chain(shown).collect()
}

/// Every function that leaves the host: the cards and what goes with their groups.
fn given<'a>(case: &Case<'a>) -> Vec<(&'a bmslice_plan::SlicePlan, PciAddress)> {
    let slices = case.plan.slices().iter();
    slices
        .flat_map(|slice| {
            let functions = slice.nics.iter().flat_map(NicPlan::functions);
            functions.map(move |function| (slice, function))
        })
        .collect()
}

pub(crate) const HOST_NEEDED: Invariant = Invariant {
    code: "host-needed",
    rule: "nothing that the host lives on leaves it: no management NIC, no disk, no bridge, nothing that firmware keeps for itself",
    test: host_needed,
};

/// What was asked to be taken from the host's own network, by slice.
fn from_host<'a>(case: &Case<'a>) -> BTreeSet<(&'a str, PciAddress)> {
    let mut taken = BTreeSet::new();
    for (slice, asked) in case.slices() {
        let cards = slice.nics.iter().zip(&asked.nics);
        for (nic, _) in cards.filter(|(_, card)| card.take_from_host) {
            taken.extend(
                nic.functions()
                    .into_iter()
                    .map(|f| (slice.name.as_str(), f)),
            );
        }
    }
    taken
}

fn host_needed(case: &Case<'_>, found: &mut Found) {
    let taken = from_host(case);
    for (slice, address) in given(case) {
        let Some(there) = case.server.function(address) else {
            continue;
        };
        for need in &there.host_needs {
            // What a file system is on stays, whatever anybody asked.
            let may_go = !matches!(need, HostNeed::Mount { .. });
            if may_go && taken.contains(&(slice.name.as_str(), address)) {
                continue;
            }
            let why = match need {
                HostNeed::DefaultRoute { interface } => {
                    format!("the default route goes through `{interface}`")
                }
                HostNeed::Session { interface } => {
                    format!("this session comes through `{interface}`")
                }
                HostNeed::Member { of } => format!("it carries `{of}`"),
                HostNeed::Address { interface } => {
                    format!("the host has an address on `{interface}`")
                }
                HostNeed::Mount { at } => format!("`{at}` lies behind it"),
            };
            found.slice(slice, format!("{address} must stay with the host: {why}"));
        }
        if there.is_bridge() {
            found.slice(
                slice,
                format!("{address} is a bridge and cannot be passed through"),
            );
        }
        if there.rmrr {
            found.slice(
                slice,
                format!(
                    "firmware keeps memory for {address} (RMRR), so it cannot be passed through"
                ),
            );
        }
    }
}

pub(crate) const GROUP: Invariant = Invariant {
    code: "iommu-group",
    rule: "the whole IOMMU group goes with a device, bridges excepted, and nothing else does",
    test: group,
};

fn group(case: &Case<'_>, found: &mut Found) {
    for slice in case.plan.slices() {
        for nic in &slice.nics {
            let (address, planned): (_, BTreeSet<PciAddress>) = match nic {
                NicPlan::Passthrough { device, group, .. } => {
                    (device.address, group.iter().copied().collect())
                }
                NicPlan::Vf { address, .. } => (*address, BTreeSet::new()),
                NicPlan::Virtio { .. } => continue,
            };
            // A function that is still to be made, or an IOMMU that is still off, shows no group.
            let Some(group) = case.server.function(address).and_then(|f| f.iommu_group) else {
                for member in planned
                    .iter()
                    .filter(|m| case.server.function(**m).is_none())
                {
                    found.slice(
                        slice,
                        format!("{member}, to go with {address}, is not on this server"),
                    );
                }
                continue;
            };
            let members: BTreeSet<PciAddress> = case
                .server
                .functions()
                .filter(|f| f.iommu_group == Some(group) && !f.is_bridge() && f.address != address)
                .map(|f| f.address)
                .collect();
            // A member may be another card of the same slice, or go along with one.
            let with_it: BTreeSet<PciAddress> =
                slice.nics.iter().flat_map(NicPlan::functions).collect();
            for member in members
                .difference(&planned)
                .filter(|m| !with_it.contains(m))
            {
                found.slice(
                    slice,
                    format!("{address} goes without {member} of its IOMMU group"),
                );
            }
            for stranger in planned.difference(&members) {
                found.slice(
                    slice,
                    format!("{stranger} goes with {address}, but is not of its IOMMU group"),
                );
            }
        }
    }
}

pub(crate) const WHOLE_OR_SPLIT: Invariant = Invariant {
    code: "whole-or-split",
    rule: "a physical function is passed through whole or split, not both, and split once",
    test: whole_or_split,
};

fn whole_or_split(case: &Case<'_>, found: &mut Found) {
    let mut split = BTreeSet::new();
    for part in &case.plan.host().split {
        if !split.insert(part.device.address) {
            found.host(format!("{} is split twice", part.device.address));
        }
    }
    for slice in case.plan.slices() {
        for nic in &slice.nics {
            if let NicPlan::Vf { pf, .. } = nic
                && !split.contains(&pf.address)
            {
                found.slice(
                    slice,
                    format!(
                        "it gets a virtual function of {}, which is not split",
                        pf.address
                    ),
                );
            }
        }
    }
    for (slice, address) in given(case) {
        if split.contains(&address) {
            found.slice(
                slice,
                format!("it gets {address} whole, which is split as well"),
            );
        }
        let physfn = case.server.function(address).and_then(|f| f.physfn);
        let whole = |f: &PciAddress| given(case).iter().any(|(_, given)| given == f);
        if let Some(physfn) = physfn.filter(whole) {
            found.slice(
                slice,
                format!(
                    "it gets {address}, whose physical function {physfn} is passed through whole"
                ),
            );
        }
    }
}

pub(crate) const VIRTUAL_FUNCTIONS: Invariant = Invariant {
    code: "virtual-functions",
    rule: "there are no more virtual functions than the card can make, each is given once, and sits where the card will put it",
    test: virtual_functions,
};

fn virtual_functions(case: &Case<'_>, found: &mut Found) {
    let mut counts = BTreeMap::new();
    for split in &case.plan.host().split {
        let address = split.device.address;
        counts.insert(address, split.vfs);
        let sriov = case.server.function(address).and_then(|f| f.sriov.as_ref());
        match sriov {
            None => found.host(format!("{address} has no SR-IOV and cannot be split")),
            Some(sriov) if split.vfs > sriov.total => {
                let (vfs, total) = (split.vfs, sriov.total);
                found.host(format!(
                    "{address} is split into {vfs}, it can make {total}"
                ));
            }
            Some(_) if split.vfs == 0 => found.host(format!("{address} is split into none")),
            Some(_) => {}
        }
    }
    let mut taken = BTreeSet::new();
    for slice in case.plan.slices() {
        for nic in &slice.nics {
            let NicPlan::Vf {
                pf, index, address, ..
            } = nic
            else {
                continue;
            };
            let pf = pf.address;
            if !taken.insert((pf, *index)) {
                found.slice(
                    slice,
                    format!("virtual function {index} of {pf} is given twice"),
                );
            }
            if let Some(count) = counts.get(&pf)
                && index >= count
            {
                found.slice(
                    slice,
                    format!("virtual function {index} of {pf} is not among its {count}"),
                );
            }
            match place(case, pf, *index) {
                Some(place) if place == *address => {}
                Some(place) => found.slice(slice, format!("virtual function {index} of {pf} will be at {place}, the plan says {address}")),
                None => found.slice(slice, format!("where virtual function {index} of {pf} will be cannot be known")),
            }
        }
    }
}

/// Where a virtual function is, or will be: the routing id (bus, device and function as one number)
/// of VF n is the PF's + offset + n × stride (PCI Express, SR-IOV capability).
fn place(case: &Case<'_>, pf: PciAddress, index: u32) -> Option<PciAddress> {
    let sriov = case.server.function(pf)?.sriov.as_ref()?;
    if let Some(there) = sriov.vfs.get(usize::try_from(index).ok()?) {
        return Some(*there);
    }
    let own = u32::from(pf.bus()) << 8 | u32::from(pf.device()) << 3 | u32::from(pf.function());
    let step = index.checked_mul(sriov.stride?)?;
    let id = own.checked_add(sriov.offset?)?.checked_add(step)?;
    let id = u16::try_from(id).ok()?;
    let [bus, devfn] = id.to_be_bytes();
    PciAddress::new(pf.domain(), bus, devfn >> 3, devfn & 7)
}

pub(crate) const QUEUES: Invariant = Invariant {
    code: "queues",
    rule: "of the NICs that stay with the host, exactly those that could have more queues than the host has CPUs are held to that number",
    test: queues,
};

fn queues(case: &Case<'_>, found: &mut Found) {
    let host = case.plan.host();
    let cpus = u32::try_from(host.cpus.len()).unwrap_or(u32::MAX);
    let split = host.split.iter().map(|split| split.device.address);
    let gone: BTreeSet<PciAddress> = given(case)
        .into_iter()
        .map(|(_, address)| address)
        .chain(split)
        .collect();
    let mut wanted = BTreeMap::new();
    for interface in &case.inventory.interfaces {
        let Some(address) = interface.pci.filter(|address| !gone.contains(address)) else {
            continue;
        };
        let channels = interface.ethtool.as_ref().and_then(|e| e.channels.as_ref());
        let Some(channels) = channels else { continue };
        let max = |setting: Option<bmslice_inventory::Setting>| setting.map_or(0, |s| s.max);
        let (both, one) = (
            max(channels.combined),
            max(channels.rx).max(max(channels.tx)),
        );
        if host.isolation != Isolation::None && both.max(one) > cpus {
            wanted.entry(address).or_insert(both <= cpus);
        }
    }
    for queues in &host.queues {
        let address = queues.device.address;
        match wanted.remove(&address) {
            None => found.host(format!(
                "the queues of {address} are to be fewer, and it does not stay with the host, or has no more than {cpus}"
            )),
            Some(apart) if apart != queues.apart => {
                found.host(format!("{address} has queues of another kind"));
            }
            Some(_) if queues.most != cpus => found.host(format!(
                "{address} may have {} queues, the host has {cpus} CPUs",
                queues.most
            )),
            Some(_) => {}
        }
    }
    for address in wanted.keys() {
        found.host(format!(
            "{address} stays with the host, and may have more queues than the host's {cpus} CPUs"
        ));
    }
}
