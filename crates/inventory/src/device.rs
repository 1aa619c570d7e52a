//! Details of PCI functions: slots, BARs, reset methods, ACS, drives, clocks; and why the members
//! of an IOMMU group are together.
//!
//! Source: `Documentation/ABI/testing/sysfs-bus-pci`, `sysfs-kernel-iommu_groups`,
//! `Documentation/driver-api/vfio.rst`; PCI Express Base Specification, extended capabilities.
//! Keeps true: of the configuration space no more is read than ACS needs, since each word of it is
//! a question to the device.

use std::collections::BTreeMap;

use bmslice_model::{ByteSize, IommuGroupId, PciAddress, PciId};

use crate::facts::{Bar, IommuGroup, PciFunction};
use crate::pci::{Entries, pci_path};
use crate::scan::Scan;

const DEVICES: &str = "/sys/bus/pci/devices";

/// Fills in the details of each function, and gives the groups by number.
pub(crate) fn read(
    scan: &mut Scan,
    functions: &mut [PciFunction],
    listed: &Entries,
) -> Vec<IommuGroup> {
    let slots = slots(scan);
    let mut members: BTreeMap<IommuGroupId, Vec<PciAddress>> = BTreeMap::new();
    for function in functions.iter() {
        if let Some(group) = function.iommu_group {
            members.entry(group).or_default().push(function.address);
        }
    }
    for function in functions.iter_mut() {
        let folder = format!("{DEVICES}/{}", function.address);
        let together = function
            .iommu_group
            .and_then(|group| members.get(&group))
            .is_some_and(|members| members.len() > 1);
        let entries = listed.get(&function.address).map_or(&[][..], Vec::as_slice);
        details(scan, function, &folder, entries, &slots, together);
    }
    drives(scan, functions);
    groups(scan, functions, members)
}

fn details(
    scan: &Scan,
    function: &mut PciFunction,
    folder: &str,
    entries: &[String],
    slots: &BTreeMap<String, String>,
    together: bool,
) {
    let is_bridge = function.is_bridge();
    let facts = &mut function.details;
    if (together || is_bridge) && function.iommu_group.is_some() {
        facts.acs = has_acs(scan, folder);
    }
    let address = function.address.to_string();
    let device = address.split('.').next().unwrap_or_default();
    facts.slot = slots.get(device).cloned();
    if is_bridge {
        facts.subsystem = None;
        return;
    }
    let has = |entry: &str| entries.binary_search_by(|e| e.as_str().cmp(entry)).is_ok();
    let hex = |name: &str| {
        let text = scan.text(&format!("{folder}/{name}"))?;
        u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let subsystem = facts.subsystem.take().or_else(|| {
        Some(PciId {
            vendor: hex("subsystem_vendor")?,
            device: hex("subsystem_device")?,
        })
    });
    facts.subsystem = subsystem.filter(|id| id.vendor != 0 && id.vendor != 0xffff);
    if has("label") {
        facts.label = scan.text(&format!("{folder}/label"));
    }
    if has("reset_method") {
        facts.reset_methods = scan
            .root
            .attribute(format!("{folder}/reset_method"))
            .map(|text| text.split_whitespace().map(Into::into).collect());
    }
    facts.bars = bars(&scan.file(&format!("{folder}/resource")));
    if has("ptp") {
        facts.ptp = scan
            .list(&format!("{folder}/ptp"))
            .into_iter()
            .find(|name| name.starts_with("ptp"));
    }
}

/// The names of slots by `domain:bus:device`.
fn slots(scan: &Scan) -> BTreeMap<String, String> {
    const SLOTS: &str = "/sys/bus/pci/slots";
    scan.list(SLOTS)
        .into_iter()
        .filter_map(|slot| Some((scan.text(&format!("{SLOTS}/{slot}/address"))?, slot)))
        .collect()
}

/// The first six lines of `resource`: start, end, flags (linux/ioport.h).
pub(crate) fn bars(text: &str) -> Vec<Bar> {
    const IO: u64 = 0x100;
    const MEMORY: u64 = 0x200;
    const PREFETCH: u64 = 0x2000;
    const WIDE: u64 = 0x10_0000;
    (0u32..6)
        .zip(text.lines())
        .filter_map(|(index, line)| {
            let mut fields = line
                .split_whitespace()
                .map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16).ok());
            let (start, end, flags) = (fields.next()??, fields.next()??, fields.next()??);
            if flags & (IO | MEMORY) == 0 || end < start {
                return None;
            }
            Some(Bar {
                index,
                size: ByteSize::from_bytes((end - start).saturating_add(1)),
                memory: flags & MEMORY != 0,
                wide: flags & WIDE != 0,
                prefetchable: flags & PREFETCH != 0,
            })
        })
        .collect()
}

/// Whether the function has the ACS extended capability (0x000d). The space beyond 256 bytes is
/// there for PCI Express alone, and for root alone.
fn has_acs(scan: &Scan, folder: &str) -> Option<bool> {
    const ACS: u32 = 0x000d;
    let config = format!("{folder}/config");
    let word = |at: u64| {
        let bytes = scan.root.read_range(&config, at, 4).ok()?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let mut at = 0x100u64;
    // A list that goes round is damaged: there is room for no more than these.
    for _ in 0..(4096 - 256) / 8 {
        let header = word(at)?;
        if header == 0 || header == u32::MAX {
            return Some(false);
        }
        if header & 0xffff == ACS {
            return Some(true);
        }
        at = u64::from(header >> 20 & 0xffc);
        if at < 0x100 {
            return Some(false);
        }
    }
    Some(false)
}

/// Tells functions the identity of the NVMe drives behind them.
fn drives(scan: &Scan, functions: &mut [PciFunction]) {
    const NVME: &str = "/sys/class/nvme";
    for name in scan.list(NVME) {
        let folder = format!("{NVME}/{name}");
        let Some(address) = scan
            .root
            .link(&folder)
            .ok()
            .and_then(|path| pci_path(&path).last().copied())
        else {
            continue;
        };
        if let Some(function) = functions.iter_mut().find(|f| f.address == address) {
            let facts = &mut function.details;
            facts.serial = scan.text(&format!("{folder}/serial"));
            facts.model = scan.text(&format!("{folder}/model"));
            facts.firmware = scan.text(&format!("{folder}/firmware_rev"));
        }
    }
}

fn groups(
    scan: &Scan,
    functions: &[PciFunction],
    members: BTreeMap<IommuGroupId, Vec<PciAddress>>,
) -> Vec<IommuGroup> {
    members
        .into_iter()
        .map(|(id, members)| {
            let inside: Vec<&PciFunction> = functions
                .iter()
                .filter(|f| members.contains(&f.address))
                .collect();
            IommuGroup {
                id,
                domain: scan.text(&format!("/sys/kernel/iommu_groups/{id}/type")),
                why: (members.len() > 1).then(|| why(&inside)),
                members,
            }
        })
        .collect()
}

/// Why the members of a group cannot be kept apart, as the kernel decides it
/// (drivers/iommu/iommu.c, `pci_device_group`).
fn why(members: &[&PciFunction]) -> String {
    let bridges: Vec<&&PciFunction> = members.iter().filter(|f| f.is_bridge()).collect();
    let without = |function: &PciFunction| match function.details.acs {
        Some(true) => "",
        Some(false) => " has no ACS",
        None => " shows no ACS",
    };
    // A bridge in the group passes on what its children send to each other.
    let above = bridges.iter().find(|bridge| {
        members
            .iter()
            .any(|member| member.upstream.contains(&bridge.address))
    });
    if let Some(bridge) = above {
        return match without(bridge) {
            "" => format!(
                "they are behind {}, and a bridge below it cannot keep them apart",
                bridge.address
            ),
            text => format!("they are behind {}, which{text}", bridge.address),
        };
    }
    let first = members[0].address;
    let one_device = members.iter().all(|f| {
        let at = f.address;
        (at.domain(), at.bus(), at.device()) == (first.domain(), first.bus(), first.device())
    });
    if one_device {
        let reason = members
            .iter()
            .map(|f| without(f))
            .find(|text| !text.is_empty())
            .unwrap_or(" the kernel does not trust to keep them apart");
        return format!("they are functions of one device that{reason}");
    }
    if members.iter().all(|f| f.upstream == members[0].upstream) && !members[0].upstream.is_empty()
    {
        return format!(
            "they are behind {}, and answer for each other there",
            members[0].upstream[members[0].upstream.len() - 1]
        );
    }
    "the kernel does not tell".into()
}
