//! The network cards of a plan: virtual function indices, addresses and MACs.
//!
//! Takes which function each card has; gives the cards and the functions that are split. What a
//! slice had it keeps; else the lowest index is taken. Keeps true: no index, address or MAC is
//! given twice.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::{MacAddress, SliceName};
use bmslice_plan::{NicCommon, NicPlan, Plan, SplitPlan};
use bmslice_spec::{NicKind, Slicing};

use crate::function::{self, Pf};
use crate::identity;
use crate::problem::Site;
use crate::refusal::Refusal;
use crate::search::Choice;

/// The cards of every slice, and the functions that are split.
pub(crate) struct Cards {
    /// By slice.
    pub nics: Vec<Vec<NicPlan>>,
    /// By address.
    pub split: Vec<SplitPlan>,
}

/// Deals the cards.
pub(crate) fn deal(
    spec: &Slicing,
    site: &Site<'_>,
    choices: &[Choice],
    previous: Option<&Plan>,
) -> Result<Cards, Refusal> {
    let indices = indices(spec, site, choices, previous);
    let macs = macs(spec, site, choices)?;
    let mut nics = Vec::with_capacity(spec.slices.len());
    for (at, slice) in spec.slices.iter().enumerate() {
        let demand = &site.problem.demands[at];
        let nodes = &demand.sites[choices[at].site];
        let mut cards = Vec::with_capacity(slice.nics.len());
        for (number, card) in slice.nics.iter().enumerate() {
            let taken = demand
                .wants
                .iter()
                .zip(&choices[at].pfs)
                .find(|(want, _)| want.nic == number)
                .map(|(_, &pf)| pf);
            let common = NicCommon {
                mac: macs.get(&(at, number)).copied(),
                local: taken.and_then(|pf| {
                    // Only what firmware tells: that all is local on one node goes without saying.
                    site.devices.pfs[pf].function.node?;
                    site.problem.local(pf, nodes)
                }),
                fabric: card.fabric.clone(),
                network: card.network.clone(),
            };
            let pf = taken.map(|pf| &site.devices.pfs[pf]);
            cards.push(match (&card.kind, pf) {
                (NicKind::Virtio { network, .. }, _) => NicPlan::Virtio {
                    network: network.clone(),
                    nic: common,
                },
                (NicKind::Passthrough { .. }, Some(pf))
                    if common.network.is_some() && common.mac.is_none() =>
                {
                    return Err(Refusal::MacUnknown {
                        slice: slice.name.clone(),
                        nic: pf.label(),
                    });
                }
                (NicKind::Passthrough { .. }, Some(pf)) => NicPlan::Passthrough {
                    device: pf.reference.clone(),
                    group: along(site, pf, &choices[at]),
                    from_host: card.take_from_host,
                    nic: common,
                },
                (NicKind::Vf { vlan, rules, .. }, Some(pf)) => {
                    let index = indices.get(&(at, number)).copied();
                    let found = index
                        .and_then(|index| Some((index, function::vf_address(pf.function, index)?)));
                    let Some((index, address)) = found else {
                        return Err(Refusal::NoVfAddress {
                            slice: slice.name.clone(),
                            device: pf.label(),
                        });
                    };
                    NicPlan::Vf {
                        pf: pf.reference.clone(),
                        index,
                        address,
                        vlan: *vlan,
                        rules: *rules,
                        nic: common,
                    }
                }
                // The search gives every card that takes a device one.
                (NicKind::Passthrough { .. } | NicKind::Vf { .. }, None) => {
                    return Err(Refusal::NicAbsent {
                        slice: slice.name.clone(),
                        asked: format!("nics[{number}]"),
                        there: site.devices.there(),
                        near: None,
                    });
                }
            });
        }
        nics.push(cards);
    }
    let split = split(site, &nics, previous);
    Ok(Cards { nics, split })
}

/// What of a function's group goes with it: what the slice does not have as a card of its own.
fn along(site: &Site<'_>, pf: &Pf<'_>, choice: &Choice) -> Vec<bmslice_model::PciAddress> {
    let cards: Vec<_> = choice
        .pfs
        .iter()
        .map(|&other| site.devices.pfs[other].address())
        .collect();
    // A function that goes along with two cards is listed with the first one.
    let first_of_group = choice
        .pfs
        .iter()
        .find(|&&other| site.devices.pfs[other].group == pf.group)
        .is_some_and(|&other| site.devices.pfs[other].address() == pf.address());
    pf.members
        .iter()
        .map(|member| member.address)
        .filter(|address| first_of_group && !cards.contains(address))
        .collect()
}

/// The index of each virtual function, by slice and card.
fn indices(
    spec: &Slicing,
    site: &Site<'_>,
    choices: &[Choice],
    previous: Option<&Plan>,
) -> BTreeMap<(usize, usize), u32> {
    let mut cards: Vec<(usize, usize, usize)> = Vec::new();
    for (at, demand) in site.problem.demands.iter().enumerate() {
        let wants = demand.wants.iter().zip(&choices[at].pfs);
        cards.extend(
            wants
                .filter(|(want, _)| !want.whole)
                .map(|(want, &pf)| (at, want.nic, pf)),
        );
    }
    let mut given: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    let mut used: BTreeSet<(usize, u32)> = BTreeSet::new();
    for &(at, nic, pf) in &cards {
        let facts = &site.devices.pfs[pf];
        let had = previous
            .and_then(|plan| plan.slice(spec.slices[at].name.as_str()))
            .and_then(|slice| slice.nics.get(nic));
        if let Some(NicPlan::Vf { pf: had, index, .. }) = had
            && had.address == facts.address()
            && facts.vfs.contains(index)
            && used.insert((pf, *index))
        {
            given.insert((at, nic), *index);
        }
    }
    for &(at, nic, pf) in &cards {
        if given.contains_key(&(at, nic)) {
            continue;
        }
        let lowest = site.devices.pfs[pf]
            .vfs
            .iter()
            .find(|&&index| !used.contains(&(pf, index)));
        if let Some(&index) = lowest {
            used.insert((pf, index));
            given.insert((at, nic), index);
        }
    }
    given
}

/// The MAC of each card, by slice and number: what is given, what a whole function has, or what is
/// derived.
fn macs(
    spec: &Slicing,
    site: &Site<'_>,
    choices: &[Choice],
) -> Result<BTreeMap<(usize, usize), MacAddress>, Refusal> {
    let mut macs = BTreeMap::new();
    let mut owners: BTreeMap<MacAddress, SliceName> = BTreeMap::new();
    // The NICs that stay whole answer to their MACs, whoever has them.
    let mut taken: BTreeSet<MacAddress> = site
        .devices
        .pfs
        .iter()
        .filter_map(|pf| pf.reference.mac)
        .collect();
    let mut derived = Vec::new();
    for (at, slice) in spec.slices.iter().enumerate() {
        for (number, card) in slice.nics.iter().enumerate() {
            match &card.kind {
                NicKind::Vf { mac: None, .. } | NicKind::Virtio { mac: None, .. } => {
                    derived.push((at, number));
                }
                NicKind::Vf { mac: Some(mac), .. } | NicKind::Virtio { mac: Some(mac), .. } => {
                    if let Some(first) = owners.insert(*mac, slice.name.clone()) {
                        return Err(Refusal::MacTwice {
                            mac: *mac,
                            first,
                            second: slice.name.clone(),
                        });
                    }
                    taken.insert(*mac);
                    macs.insert((at, number), *mac);
                }
                NicKind::Passthrough { .. } => {
                    let wants = site.problem.demands[at].wants.iter();
                    let pf = wants
                        .zip(&choices[at].pfs)
                        .find(|(want, _)| want.nic == number)
                        .map(|(_, &pf)| &site.devices.pfs[pf]);
                    if let Some(mac) = pf.and_then(|pf| pf.reference.mac) {
                        macs.insert((at, number), mac);
                    }
                }
            }
        }
    }
    let hostname = &site.server.inventory.machine.hostname;
    for (at, number) in derived {
        let mut attempt = 0;
        let mac = loop {
            let mac = identity::mac(hostname, &spec.slices[at].name, number, attempt);
            if taken.insert(mac) {
                break mac;
            }
            attempt += 1;
        };
        macs.insert((at, number), mac);
    }
    Ok(macs)
}

/// The functions that are split, and in how many.
fn split(site: &Site<'_>, nics: &[Vec<NicPlan>], previous: Option<&Plan>) -> Vec<SplitPlan> {
    let mut needed: BTreeMap<bmslice_model::PciAddress, u32> = BTreeMap::new();
    for nic in nics.iter().flatten() {
        if let NicPlan::Vf { pf, index, .. } = nic {
            let count = needed.entry(pf.address).or_default();
            *count = (*count).max(index + 1);
        }
    }
    let pfs = site.devices.pfs.iter();
    pfs.filter_map(|pf| {
        let needed = *needed.get(&pf.address())?;
        let current = pf.function.sriov.as_ref().map_or(0, |sriov| sriov.current);
        let ours = previous
            .into_iter()
            .flat_map(|plan| &plan.host().split)
            .any(|split| split.device.address == pf.address() && split.vfs == current);
        // Virtual functions that somebody else made are left alone.
        let kept = if ours { 0 } else { current };
        Some(SplitPlan {
            device: pf.reference.clone(),
            vfs: needed.max(kept),
        })
    })
    .collect()
}
