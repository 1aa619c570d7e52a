//! PCI functions: what they are, where they sit, what binds them together.
//!
//! Source: `Documentation/ABI/testing/sysfs-bus-pci`, `sysfs-kernel-iommu_groups`,
//! `Documentation/PCI/sysfs-pci.rst`; names from the PCI ID Repository.
//! Keeps true: host needs, interfaces and MACs are left empty here; `net` and `needs` fill them.

use std::collections::BTreeMap;
use std::path::Path;

use bmslice_model::{CpuSet, IommuGroupId, NumaNodeId, PciAddress, PciId, count};

use crate::facts::{PciFunction, Sriov};
use crate::scan::{Scan, numbered};

const DEVICES: &str = "/sys/bus/pci/devices";

/// The names in each function's folder, sorted: what is not there need not be asked for.
pub(crate) type Entries = BTreeMap<PciAddress, Vec<String>>;

/// Reads every function, by address.
pub(crate) fn read(scan: &mut Scan, online: &CpuSet) -> (Vec<PciFunction>, Entries) {
    let mut functions = Vec::new();
    let mut listed = Entries::new();
    let mut regions: BTreeMap<IommuGroupId, bool> = BTreeMap::new();
    for name in scan.list(DEVICES) {
        match name.parse::<PciAddress>() {
            Ok(address) if listed.contains_key(&address) => {
                scan.note(DEVICES, format!("`{name}` is {address} once more"));
            }
            Ok(address) => {
                let entries = scan.list(&format!("{DEVICES}/{name}"));
                functions.push(function(
                    scan,
                    address,
                    &name,
                    &entries,
                    online,
                    &mut regions,
                ));
                listed.insert(address, entries);
            }
            Err(error) => scan.note(DEVICES, error.to_string()),
        }
    }
    functions.sort_by_key(|f| f.address);
    (functions, listed)
}

fn function(
    scan: &mut Scan,
    address: PciAddress,
    name: &str,
    entries: &[String],
    online: &CpuSet,
    regions: &mut BTreeMap<IommuGroupId, bool>,
) -> PciFunction {
    let folder = format!("{DEVICES}/{name}");
    let has = |entry: &str| entries.binary_search_by(|e| e.as_str().cmp(entry)).is_ok();
    let (id, class, subsystem) = identity(scan, &folder, entries);
    let link = scan.root.link(&folder).unwrap_or_default();
    let mut upstream = pci_path(&link);
    upstream.retain(|bridge| *bridge != address);
    let iommu_group = has("iommu_group")
        .then(|| scan.root.link_name(format!("{folder}/iommu_group")))
        .flatten()
        .and_then(|group| group.parse().ok())
        .map(IommuGroupId);
    let rmrr = iommu_group.is_some_and(|group| {
        *regions
            .entry(group)
            .or_insert_with(|| direct_region(scan, group))
    });
    let mut function = PciFunction {
        address,
        id,
        class,
        name: name_of(id),
        driver: has("driver")
            .then(|| scan.root.link_name(format!("{folder}/driver")))
            .flatten(),
        // -1 does not parse: firmware did not say.
        node: scan.number(&format!("{folder}/numa_node")).map(NumaNodeId),
        local_cpus: CpuSet::new(),
        iommu_group,
        rmrr,
        upstream,
        sriov: has("sriov_totalvfs")
            .then(|| sriov(scan, &folder, entries))
            .flatten(),
        physfn: has("physfn")
            .then(|| scan.root.link_name(format!("{folder}/physfn")))
            .flatten()
            .and_then(|name| name.parse().ok()),
        interfaces: Vec::new(),
        mac: None,
        ..PciFunction::default()
    };
    function.details.root_complex = root_complex(&link);
    function.details.subsystem = subsystem;
    if function.node.is_none() {
        function.local_cpus = scan
            .cpus(&folder, "local_cpulist", "local_cpus")
            .map(|set| set.intersection(online))
            .filter(|set| set != online)
            .unwrap_or_default();
    }
    function
}

/// `pci0000:00` of a device's path.
fn root_complex(path: &Path) -> Option<String> {
    path.components().find_map(|part| {
        let name = part.as_os_str().to_str()?;
        name.strip_prefix("pci")
            .is_some_and(|rest| rest.contains(':'))
            .then(|| name.to_owned())
    })
}

/// Vendor, device, class, and the board's maker and model: all in one file where the kernel has a
/// uevent.
fn identity(scan: &mut Scan, folder: &str, entries: &[String]) -> (PciId, String, Option<PciId>) {
    let mut subsystem = None;
    let mut id = None;
    let mut class = None;
    if entries.iter().any(|e| e == "uevent") {
        for line in scan.file(&format!("{folder}/uevent")).lines() {
            match line.split_once('=') {
                Some(("PCI_ID", value)) => id = value.to_ascii_lowercase().parse().ok(),
                Some(("PCI_SUBSYS_ID", value)) => {
                    subsystem = value.to_ascii_lowercase().parse().ok();
                }
                Some(("PCI_CLASS", value)) => class = u32::from_str_radix(value, 16).ok(),
                _ => {}
            }
        }
    }
    let hex = |scan: &Scan, name: &str| {
        let text = scan.text(&format!("{folder}/{name}"))?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let id = id.or_else(|| {
        Some(PciId {
            vendor: u16::try_from(hex(scan, "vendor")?).ok()?,
            device: u16::try_from(hex(scan, "device")?).ok()?,
        })
    });
    let class = class.or_else(|| hex(scan, "class"));
    if id.is_none() || class.is_none() {
        scan.note(folder, "it does not tell what it is; zeroes stand for it");
    }
    let none = PciId {
        vendor: 0,
        device: 0,
    };
    let class = format!("{:#08x}", class.unwrap_or(0));
    (id.unwrap_or(none), class, subsystem)
}

fn name_of(id: PciId) -> Option<String> {
    use pci_ids::FromId;
    let vendor = pci_ids::Vendor::from_id(id.vendor)?;
    Some(match vendor.devices().find(|d| d.id() == id.device) {
        Some(device) => format!("{} {}", vendor.name(), device.name()),
        None => vendor.name().to_owned(),
    })
}

/// Whether firmware keeps memory of its own for a device of the group. `direct-relaxable` regions
/// (USB, graphics) do not forbid passthrough.
fn direct_region(scan: &Scan, group: IommuGroupId) -> bool {
    scan.file(&format!(
        "/sys/kernel/iommu_groups/{group}/reserved_regions"
    ))
    .lines()
    .any(|line| line.split_whitespace().nth(2) == Some("direct"))
}

fn sriov(scan: &mut Scan, folder: &str, entries: &[String]) -> Option<Sriov> {
    let total = scan.number(&format!("{folder}/sriov_totalvfs"))?;
    let mut vfs: Vec<(u32, PciAddress)> = entries
        .iter()
        .filter_map(|entry| {
            let index = numbered(entry, "virtfn")?;
            let name = scan.root.link_name(format!("{folder}/{entry}"))?;
            Some((index, name.parse().ok()?))
        })
        .collect();
    vfs.sort_unstable();
    let current = scan
        .number(&format!("{folder}/sriov_numvfs"))
        .unwrap_or_default();
    if usize::try_from(current).is_ok_and(|current| current != vfs.len()) {
        scan.note(
            folder,
            format!(
                "sriov_numvfs says {current}, and {} {} there",
                count(vfs.len(), "VF"),
                if vfs.len() == 1 { "is" } else { "are" }
            ),
        );
    }
    Some(Sriov {
        total,
        current,
        offset: scan.number(&format!("{folder}/sriov_offset")),
        stride: scan.number(&format!("{folder}/sriov_stride")),
        vf_device: scan.text(&format!("{folder}/sriov_vf_device")),
        autoprobe: scan.flag(&format!("{folder}/sriov_drivers_autoprobe")),
        vfs: vfs.into_iter().map(|(_, address)| address).collect(),
    })
}

/// The PCI functions of a sysfs path, from the root down: the last one is the device's, those
/// before it are bridges, or controllers that bring a PCI domain of their own (VMD).
pub(crate) fn pci_path(path: &Path) -> Vec<PciAddress> {
    path.components()
        .filter_map(|part| {
            let text = part.as_os_str().to_str()?;
            // `01:00.0` would parse too; sysfs always writes the domain.
            (text.matches(':').count() == 2)
                .then(|| text.parse().ok())
                .flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_functions_from_the_root_down() {
        let path = |text: &str| {
            pci_path(Path::new(text))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            path("../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0"),
            ["0000:00:01.0", "0000:01:00.0"]
        );
        assert_eq!(
            path(
                "/sys/devices/pci0000:64/0000:64:05.5/pci10000:e0/10000:e0:02.0/10000:e1:00.0/nvme/nvme0"
            ),
            ["0000:64:05.5", "10000:e0:02.0", "10000:e1:00.0"]
        );
        assert!(path("../../devices/virtual/net/lo").is_empty());
    }

    #[test]
    fn names_come_from_the_pci_id_repository() {
        let name = |id: &str| name_of(id.parse().unwrap());
        assert_eq!(
            name("8086:1528").as_deref(),
            Some("Intel Corporation Ethernet Controller 10-Gigabit X540-AT2")
        );
        assert_eq!(name("8086:ffff").as_deref(), Some("Intel Corporation"));
        assert_eq!(name("0bad:0001"), None);
    }
}
