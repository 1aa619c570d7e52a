//! IOMMU, NICs, and what the host needs.

use bmslice_inventory::{HostNeed, Inventory, PciFunction};
use bmslice_model::{IommuGroupId, count};

use super::{Examined, fails, holds, unchecked};

pub(super) fn iommu(inventory: &Inventory) -> Examined {
    let boot = &inventory.boot;
    if boot.iommu {
        return holds("on: devices have IOMMU groups");
    }
    let off = ["intel_iommu", "amd_iommu", "iommu"].iter().find(|key| {
        boot.cmdline
            .last(key)
            .and_then(|arg| arg.value())
            .is_some_and(|value| value.split(',').any(|v| v == "off"))
    });
    if let Some(key) = off {
        return fails(
            format!("the kernel argument `{key}=off` keeps it off"),
            "an IOMMU that is on",
            format!("take `{key}=off` out of the boot arguments"),
        );
    }
    match &boot.iommu_tables {
        Some(tables) if !tables.is_empty() => holds(format!(
            "off, and firmware describes one ({}): the boot arguments of a plan turn it on",
            tables.join(", ")
        )),
        Some(_) => fails(
            "firmware describes no IOMMU",
            "a DMAR (Intel) or IVRS (AMD) table",
            "turn on VT-d or AMD-Vi in the firmware's setup",
        ),
        None => {
            unchecked("no device has an IOMMU group, and firmware's tables could not be listed")
        }
    }
}

fn label(function: &PciFunction) -> String {
    match function.interfaces.first() {
        Some(name) => format!("{} ({name})", function.address),
        None => function.address.to_string(),
    }
}

fn labels<'a>(functions: impl IntoIterator<Item = &'a PciFunction>) -> String {
    functions
        .into_iter()
        .map(label)
        .collect::<Vec<_>>()
        .join(", ")
}

fn needed_for(inventory: &Inventory, is: impl Fn(&HostNeed) -> bool) -> Vec<&PciFunction> {
    inventory
        .pci
        .iter()
        .filter(|f| f.host_needs.iter().any(&is))
        .collect()
}

pub(super) fn management_path(inventory: &Inventory) -> Examined {
    let found = needed_for(inventory, |need| {
        matches!(
            need,
            HostNeed::DefaultRoute { .. } | HostNeed::Session { .. }
        )
    });
    if !found.is_empty() {
        return holds(labels(found));
    }
    if inventory.interfaces.is_empty() {
        return unchecked("no network interface was shown");
    }
    let virtual_only: Vec<&str> = inventory
        .interfaces
        .iter()
        .filter(|i| i.default_route)
        .map(|i| i.name.as_str())
        .collect();
    let mend = "connect the host by a NIC of its own, as a plain interface, bond, bridge or VLAN, so that the NIC is recognised and never given away";
    if virtual_only.is_empty() {
        fails(
            "no default route",
            "the device that carries the host's management",
            mend,
        )
    } else {
        fails(
            format!(
                "no device was found under {}, which has the default route",
                virtual_only.join(", ")
            ),
            "the device that carries the host's management",
            mend,
        )
    }
}

pub(super) fn root_disk(inventory: &Inventory) -> Examined {
    let found = needed_for(
        inventory,
        |need| matches!(need, HostNeed::Mount { at } if at == "/"),
    );
    if !found.is_empty() {
        return holds(labels(found));
    }
    if inventory.pci.is_empty() {
        return unchecked("no PCI device was shown");
    }
    fails(
        "no device was found behind /",
        "the controller of the disk that the host runs from",
        "never give a storage controller of this server to a slice",
    )
}

/// Physical network functions that may be given away.
fn free_nics(inventory: &Inventory) -> Vec<&PciFunction> {
    inventory
        .pci
        .iter()
        .filter(|f| f.is_network() && !f.is_vf() && f.host_needs.is_empty())
        .collect()
}

pub(super) fn nics_to_give(inventory: &Inventory) -> Examined {
    let free = free_nics(inventory);
    if !free.is_empty() {
        return holds(labels(free));
    }
    let all = inventory.pci.iter().filter(|f| f.is_network()).count();
    if all == 0 {
        return fails(
            "no NIC",
            "a NIC that the host does not need",
            "add a NIC to give slices one; without it they have none",
        );
    }
    fails(
        format!("the host needs all {all} network functions"),
        "a NIC that the host does not need",
        "move the host's management to one NIC, or add one",
    )
}

pub(super) fn sriov(inventory: &Inventory) -> Examined {
    let found: Vec<String> = inventory
        .pci
        .iter()
        .filter(|f| f.is_network())
        .filter_map(|f| {
            let sriov = f.sriov.as_ref().filter(|s| s.total > 0)?;
            Some(format!("{}: {}", label(f), count(sriov.total, "VF")))
        })
        .collect();
    if found.is_empty() {
        return fails(
            "no NIC has SR-IOV",
            "a NIC with SR-IOV, when slices are to share one",
            "turn SR-IOV on in the firmware's setup and the NIC's own; without it a NIC goes whole to one slice",
        );
    }
    holds(found.join(", "))
}

fn members(inventory: &Inventory, group: IommuGroupId) -> Vec<&PciFunction> {
    inventory
        .pci
        .iter()
        .filter(|f| f.iommu_group == Some(group) && !f.is_bridge())
        .collect()
}

const GROUPS_LATER: &str = "the IOMMU is off: groups show after the boot that turns it on";

pub(super) fn groups(inventory: &Inventory) -> Examined {
    if !inventory.boot.iommu {
        return unchecked(GROUPS_LATER);
    }
    let mut faults = Vec::new();
    for nic in free_nics(inventory) {
        let Some(group) = nic.iommu_group else {
            faults.push(format!("{} is in no IOMMU group", label(nic)));
            continue;
        };
        for other in members(inventory, group) {
            if !other.host_needs.is_empty() {
                faults.push(format!(
                    "{} shares group {group} with {}, which the host needs",
                    label(nic),
                    label(other)
                ));
            } else if !other.is_network() {
                faults.push(format!(
                    "{} takes {} along, of the same group {group}",
                    label(nic),
                    label(other)
                ));
            }
        }
    }
    if faults.is_empty() {
        return holds("no NIC to give shares a group with what the host needs");
    }
    fails(
        faults.join("; "),
        "NICs in groups without other devices",
        "put the NIC into another slot, or turn ACS on in the firmware's setup; a group goes to one slice as a whole",
    )
}

pub(super) fn rmrr(inventory: &Inventory) -> Examined {
    if !inventory.boot.iommu {
        return unchecked(GROUPS_LATER);
    }
    let held: Vec<&PciFunction> = inventory
        .pci
        .iter()
        .filter(|f| f.is_network() && f.rmrr)
        .collect();
    if held.is_empty() {
        return holds("firmware keeps no memory for a NIC");
    }
    fails(
        format!("firmware keeps memory (RMRR) for {}", labels(held)),
        "NICs that firmware leaves alone",
        "turn off firmware's shared memory for this slot in its setup; the kernel refuses to give such a NIC to a guest",
    )
}
