//! Devices that cannot go to guests.
//!
//! Takes the server as it is and a plan; gives what is wrong with each device of the plan: it is
//! another one by now, firmware keeps it, its group would be torn apart, or the host needs it.
//! Keeps true: what the host's network goes through leaves it only where the plan says
//! `takeFromHost`, and never in a session over the network; what a file system of the host's is
//! behind never leaves it.

use std::collections::BTreeSet;

use bmslice_inventory::{HostNeed, Inventory, LiveInventory, PciFunction};
use bmslice_model::PciAddress;
use bmslice_plan::{DeviceRef, NicPlan, Plan, SlicePlan};

use crate::error::Problem;

/// What is wrong with the devices of a plan.
pub(super) fn unfit(inventory: &LiveInventory, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    let given: BTreeSet<PciAddress> = plan
        .slices()
        .iter()
        .flat_map(|slice| slice.nics.iter().flat_map(NicPlan::functions))
        .collect();
    for split in &plan.host().split {
        if let Err(problem) = identify(inventory, &split.device) {
            problems.push(problem);
        }
    }
    for slice in plan.slices() {
        for nic in &slice.nics {
            let going = Going {
                inventory,
                slice,
                from_host: nic.is_from_host(),
            };
            match nic {
                NicPlan::Passthrough { device, .. } => {
                    match identify(inventory, device) {
                        Err(problem) => problems.push(problem),
                        Ok(function) => problems.extend(going.unfit(function, &given)),
                    }
                    for address in nic.functions().iter().skip(1) {
                        match find(inventory, *address) {
                            Some(function) => problems.extend(going.needed(function)),
                            None => problems.push(absent(*address)),
                        }
                    }
                }
                NicPlan::Vf { pf, address, .. } => {
                    if let Err(problem) = identify(inventory, pf) {
                        problems.push(problem);
                    }
                    // The VF itself is there only later; what is there now is looked at.
                    if let Some(function) = find(inventory, *address) {
                        problems.extend(going.unfit(function, &given));
                    }
                }
                NicPlan::Virtio { .. } => {}
            }
        }
    }
    problems.dedup();
    problems
}

fn find(inventory: &Inventory, address: PciAddress) -> Option<&PciFunction> {
    inventory.pci.iter().find(|f| f.address == address)
}

fn absent(address: PciAddress) -> Problem {
    Problem::new(format!("there is no PCI function at {address}"))
        .hint("see `bmslice inspect`, and plan again")
}

/// The function that the plan means: by its address, and by what it is and its MAC.
fn identify<'i>(inventory: &'i Inventory, device: &DeviceRef) -> Result<&'i PciFunction, Problem> {
    let found = find(inventory, device.address).ok_or_else(|| absent(device.address))?;
    let other = |was: String, is: String| {
        Problem::new(format!(
            "{} is not the device of the plan: it is {is}, not {was}",
            device.address
        ))
        .hint("a card was moved or replaced; plan again")
    };
    if found.id != device.id {
        return Err(other(device.id.to_string(), found.id.to_string()));
    }
    match (device.mac, found.mac) {
        (Some(was), Some(is)) if was != is => Err(other(
            format!("the one with MAC {was}"),
            format!("the one with MAC {is}"),
        )),
        _ => Ok(found),
    }
}

fn why(need: &HostNeed) -> String {
    match need {
        HostNeed::DefaultRoute { interface } => {
            format!("the host's default route goes through `{interface}`")
        }
        HostNeed::Session { interface } => format!("this session comes through `{interface}`"),
        HostNeed::Member { of } => format!("it carries the host's `{of}`"),
        HostNeed::Address { interface } => format!("the host has an address on `{interface}`"),
        HostNeed::Mount { at } => format!("the host's `{at}` is behind it"),
    }
}

/// A card on its way to a slice.
struct Going<'a> {
    inventory: &'a LiveInventory,
    slice: &'a SlicePlan,
    from_host: bool,
}

impl Going<'_> {
    /// What the host needs a function for.
    fn needed(&self, function: &PciFunction) -> Option<Problem> {
        let needs = &function.host_needs;
        let reasons = needs.iter().map(why).collect::<Vec<_>>().join(", ");
        if needs.is_empty() {
            return None;
        }
        let network_only = needs.iter().all(HostNeed::is_network);
        if !(self.from_host && network_only) {
            let hint = if network_only {
                "give the slice another NIC, or a VF; or name this one in the spec with `takeFromHost: true`, plan again, and apply at the server's own console"
            } else {
                "give the slice another NIC, or a VF"
            };
            return Some(
                Problem::new(format!(
                    "the plan gives {} to `{}`, and the host cannot live without it: {reasons}",
                    function.address, self.slice.name,
                ))
                .hint(hint),
            );
        }
        // Whoever sits before the server still has it when its network is gone; nobody else does.
        let peer = self.inventory.session_peer()?;
        Some(
            Problem::new(format!(
                "the plan takes {} from the host's network for `{}`, and this session comes over the network, from {peer}: {reasons}",
                function.address, self.slice.name,
            ))
            .hint("apply at the server's own console (its screen, a serial line, or that of its BMC)"),
        )
    }

    /// Why a function cannot be given away.
    fn unfit(&self, function: &PciFunction, given: &BTreeSet<PciAddress>) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.needed(function).into_iter().collect();
        if function.rmrr {
            problems.push(
                Problem::new(format!(
                    "firmware keeps memory of its own for {} (RMRR), and the kernel gives it to no guest",
                    function.address
                ))
                .hint("turn off what uses it in the firmware's setup, or choose another device"),
            );
        }
        let Some(group) = function.iommu_group else {
            return problems;
        };
        let others = self.inventory.pci.iter().filter(|other| {
            other.iommu_group == Some(group)
                && other.address != function.address
                && !other.is_bridge()
        });
        for other in others.filter(|other| !given.contains(&other.address)) {
            let mut text = format!(
                "the plan gives {} to `{}`, and its IOMMU group {group} holds {} too, which the plan gives to nobody",
                function.address, self.slice.name, other.address
            );
            if let Some(need) = other.host_needs.first() {
                text = format!("{text}; {}", why(need));
            }
            problems.push(
                Problem::new(text)
                    .hint("groups go to guests whole; plan again, or choose another device"),
            );
        }
        problems
    }
}
