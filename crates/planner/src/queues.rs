//! The queues of the NICs that the host keeps.
//!
//! Takes what their drivers tell of queues; gives the NICs that would have more of them than the host
//! has CPUs. Each queue has an interrupt of its own, and a driver spreads them over all CPUs.

use bmslice_inventory::Channels;
use bmslice_model::PciAddress;
use bmslice_plan::{DeviceRef, NicPlan, QueuePlan, SlicePlan, SplitPlan};
use bmslice_spec::Isolation;

use crate::problem::Site;

/// Whether a NIC has queues for one direction only; `None` when it cannot have more than `most`.
fn apart(channels: &Channels, most: u32) -> Option<bool> {
    let above = |setting: Option<bmslice_inventory::Setting>| setting.is_some_and(|s| s.max > most);
    if above(channels.combined) {
        return Some(false);
    }
    (above(channels.rx) || above(channels.tx)).then_some(true)
}

/// The NICs that get fewer queues than they could have, by address. A function that is split is left
/// alone: its driver chooses by the VFs (igb and ixgbe have one queue of their own then).
pub(crate) fn fitted(
    isolation: Isolation,
    site: &Site<'_>,
    slices: &[SlicePlan],
    split: &[SplitPlan],
) -> Vec<QueuePlan> {
    if isolation == Isolation::None {
        return Vec::new();
    }
    let most = u32::try_from(site.server.host.len()).unwrap_or(u32::MAX);
    let given: Vec<PciAddress> = slices
        .iter()
        .flat_map(|slice| slice.nics.iter().flat_map(NicPlan::functions))
        .chain(split.iter().map(|split| split.device.address))
        .collect();
    let inventory = site.server.inventory;
    let functions = inventory.pci.iter().filter(|f| !given.contains(&f.address));
    functions
        .filter_map(|function| {
            let interface = inventory
                .interfaces
                .iter()
                .find(|i| i.pci == Some(function.address))?;
            let channels = interface.ethtool.as_ref()?.channels.as_ref()?;
            Some(QueuePlan {
                apart: apart(channels, most)?,
                most,
                device: DeviceRef {
                    address: function.address,
                    id: function.id,
                    mac: function.mac.or(interface.permanent_mac).or(interface.mac),
                    interface: Some(interface.name.clone()),
                    driver: function.driver.clone(),
                    node: function.node,
                },
            })
        })
        .collect()
}
