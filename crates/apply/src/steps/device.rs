//! IOMMU groups: the unit in which the kernel gives devices away
//! (Documentation/driver-api/vfio.rst).

use bmslice_model::{PciAddress, SliceName};
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::site::{Look, Site};
use crate::step::Observation;

/// Looks that nothing of the host's shares an IOMMU group with what a slice gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSound {
    /// Whose.
    pub slice: SliceName,
    /// The PCI functions that it gets.
    pub functions: Vec<PciAddress>,
}

/// The folder of a PCI function in sysfs.
pub fn sysfs(address: PciAddress) -> String {
    format!("/sys/bus/pci/devices/{address}")
}

/// The driver that is bound to a PCI function.
pub fn driver(look: &Look<'_>, address: PciAddress) -> Option<String> {
    look.machine
        .root()
        .link_name(format!("{}/driver", sysfs(address)))
}

/// The network interface of a PCI function, by its name of today.
pub fn interface(look: &Look<'_>, address: PciAddress) -> Option<String> {
    look.machine
        .root()
        .list(format!("{}/net", sysfs(address)))
        .ok()?
        .into_iter()
        .next()
}

impl GroupSound {
    pub fn describe(&self) -> String {
        let functions: Vec<String> = self.functions.iter().map(ToString::to_string).collect();
        format!(
            "see that the IOMMU groups of {} hold nothing else of the host's (slice `{}`)",
            functions.join(", "),
            self.slice
        )
    }

    fn unsound(&self, look: &Look<'_>) -> Option<(String, &'static str)> {
        let root = look.machine.root();
        for function in &self.functions {
            let folder = sysfs(*function);
            if !root.exists(&folder) {
                return Some((
                    format!("PCI function {function} is not there"),
                    "see `bmslice inspect`, and plan again",
                ));
            }
            let Ok(members) = root.list(format!("{folder}/iommu_group/devices")) else {
                return Some((
                    format!("PCI function {function} has no IOMMU group: the IOMMU is off"),
                    "turn VT-d or AMD-Vi on in the firmware's setup, and see that `intel_iommu=on` is in `/proc/cmdline` on Intel",
                ));
            };
            for member in members {
                let Ok(address) = member.parse::<PciAddress>() else {
                    continue;
                };
                let class = root
                    .attribute(format!("{}/class", sysfs(address)))
                    .unwrap_or_default();
                let is_bridge = class.trim_start_matches("0x").starts_with("06");
                if is_bridge || self.functions.contains(&address) {
                    continue;
                }
                // A driver that hands devices to guests, or none, lets the group be viable.
                let Some(driver) = driver(look, address) else {
                    continue;
                };
                if driver != "vfio-pci" && driver != "pci-stub" {
                    return Some((
                        format!(
                            "PCI function {function} shares its IOMMU group with {address}, which the host uses with the driver `{driver}`"
                        ),
                        "give the whole group to the slice, or choose another device",
                    ));
                }
            }
        }
        None
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        self.unsound(look)
            .map_or(Observation::Held, |(got, _)| Observation::different(got))
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        // There is nothing to do but to look; a group cannot be changed.
        match self.unsound(&site.look()) {
            None => Ok(()),
            Some((what, hint)) => Err(StepError::cannot(what, hint)),
        }
    }
}
