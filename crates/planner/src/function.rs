//! Physical network functions, and what of each may be given.
//!
//! Takes the inventory's PCI functions and what an earlier plan remembers of them; gives for each
//! its IOMMU group, its free virtual functions, and the obstacles to passing it whole or in parts.

use std::collections::BTreeMap;

use bmslice_inventory::{HostNeed, PciFunction};
use bmslice_model::{MacAddress, NumaNodeId, PciAddress};
use bmslice_plan::{DeviceRef, NicPlan, Plan};

use crate::server::Server;

/// A physical network function.
#[derive(Debug, Clone)]
pub(crate) struct Pf<'a> {
    pub function: &'a PciFunction,
    pub node: Option<NumaNodeId>,
    /// Index of its IOMMU group among the groups of physical functions.
    pub group: usize,
    /// What else of its group would go with it: neither bridges nor its own VFs.
    pub members: Vec<&'a PciFunction>,
    pub speed: Option<u32>,
    /// Indices of VFs that may be given.
    pub vfs: Vec<u32>,
    /// Why it cannot be passed whole.
    pub whole: Result<(), Obstacle>,
    /// Why not even when the host's network may go with it (`takeFromHost`).
    pub taken: Result<(), Obstacle>,
    /// Why none of its VFs can be passed.
    pub split: Result<(), Obstacle>,
    pub reference: DeviceRef,
}

impl Pf<'_> {
    pub fn address(&self) -> PciAddress {
        self.function.address
    }

    /// `0000:01:00.0 (eno1)`.
    pub fn label(&self) -> String {
        label(&self.reference)
    }
}

pub(crate) fn label(device: &DeviceRef) -> String {
    match &device.interface {
        Some(name) => format!("{} ({name})", device.address),
        None => device.address.to_string(),
    }
}

/// Why a function cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The host needs it itself, or another member of its group.
    HostNeeds {
        member: Option<PciAddress>,
        why: String,
    },
    /// A running domain of somebody else has it, a VF of it, or a member of its group.
    InUse { domain: String },
    /// It has no SR-IOV.
    NoSriov,
    /// Firmware keeps memory for it.
    Rmrr,
    /// Where its VFs will be is not told.
    NoVfAddress,
    /// Its VFs cannot be kept apart from other functions.
    VfGroup { group: Vec<PciAddress> },
}

/// Every device that a plan remembers.
pub(crate) fn references(plan: &Plan) -> impl Iterator<Item = &DeviceRef> {
    let cards = plan.slices().iter().flat_map(|slice| &slice.nics);
    cards
        .filter_map(|nic| match nic {
            NicPlan::Passthrough { device, .. } => Some(device),
            NicPlan::Vf { pf, .. } => Some(pf),
            NicPlan::Virtio { .. } => None,
        })
        .chain(plan.host().split.iter().map(|split| &split.device))
}

/// All of a server, by address.
pub(crate) fn physical_functions<'a>(server: &Server<'a>, previous: Option<&Plan>) -> Vec<Pf<'a>> {
    let mut pfs: Vec<Pf<'a>> = server
        .inventory
        .pci
        .iter()
        .filter(|f| f.is_network() && !f.is_vf())
        .map(|function| physical_function(function, server, previous))
        .collect();
    pfs.sort_by_key(Pf::address);
    pfs
}

fn physical_function<'a>(
    function: &'a PciFunction,
    server: &Server<'a>,
    previous: Option<&Plan>,
) -> Pf<'a> {
    let inventory = server.inventory;
    let interface = inventory
        .interfaces
        .iter()
        .find(|interface| interface.pci == Some(function.address));
    let known = previous
        .into_iter()
        .flat_map(references)
        .find(|device| device.address == function.address && device.id == function.id);
    let driver = function
        .driver
        .clone()
        .filter(|driver| driver != "vfio-pci")
        .or_else(|| known.and_then(|known| known.driver.clone()));
    let mac: Option<MacAddress> = function
        .mac
        .or_else(|| known.and_then(|known| known.mac))
        .or_else(|| interface.and_then(|interface| interface.mac));
    let name = function
        .interfaces
        .first()
        .cloned()
        .or_else(|| interface.map(|interface| interface.name.clone()))
        .or_else(|| known.and_then(|known| known.interface.clone()));
    let members: Vec<&PciFunction> = match function.iommu_group {
        // Without an IOMMU nobody knows the groups yet: each function is taken as its own.
        None => Vec::new(),
        Some(group) => inventory
            .pci
            .iter()
            .filter(|f| f.iommu_group == Some(group) && f.address != function.address)
            .filter(|f| !f.is_bridge() && f.physfn != Some(function.address))
            .collect(),
    };
    let own_vfs: Vec<&PciFunction> = inventory
        .pci
        .iter()
        .filter(|f| f.physfn == Some(function.address))
        .collect();
    let vfs = free_vfs(function, server);
    let alone = whole(function, &members, &own_vfs, server, |_| true);
    let taken = match &alone {
        // Only what the host needs can be another answer.
        Err(Obstacle::HostNeeds { .. }) => whole(function, &members, &own_vfs, server, |need| {
            !need.is_network()
        }),
        other => other.clone(),
    };
    Pf {
        node: server.device_node(function.node),
        group: 0,
        speed: interface.and_then(bmslice_inventory::NetInterface::speed_or_most),
        whole: alone,
        taken,
        split: split(function, &vfs, server),
        vfs,
        members,
        reference: DeviceRef {
            address: function.address,
            id: function.id,
            mac,
            interface: name,
            driver,
            node: function.node,
        },
        function,
    }
}

fn user_of(address: PciAddress, server: &Server<'_>) -> Option<String> {
    server
        .foreign
        .iter()
        .find(|domain| domain.devices.contains(&address))
        .map(|domain| domain.name.clone())
}

fn in_use(address: PciAddress, server: &Server<'_>) -> Result<(), Obstacle> {
    user_of(address, server).map_or(Ok(()), |domain| Err(Obstacle::InUse { domain }))
}

fn host_free(
    function: &PciFunction,
    member: Option<PciAddress>,
    counts: fn(&HostNeed) -> bool,
) -> Result<(), Obstacle> {
    let needs = function.host_needs.iter().filter(|need| counts(need));
    let why: Vec<String> = needs.map(said).collect();
    if why.is_empty() {
        return Ok(());
    }
    Err(Obstacle::HostNeeds {
        member,
        why: why.join(", "),
    })
}

/// Why the host needs a device, for people.
pub(crate) fn said(need: &HostNeed) -> String {
    match need {
        HostNeed::DefaultRoute { interface } => {
            format!("the default route goes through {interface}")
        }
        HostNeed::Session { interface } => format!("this session comes in through {interface}"),
        HostNeed::Member { of } => format!("it carries {of}"),
        HostNeed::Address { interface } => format!("the host has an address on {interface}"),
        HostNeed::Mount { at } if at == "swap" => "the host swaps to it".into(),
        HostNeed::Mount { at } => format!("the host's `{at}` is on it"),
    }
}

/// Whether it can be passed whole, as far as the needs of the host that count let it.
fn whole(
    function: &PciFunction,
    members: &[&PciFunction],
    own_vfs: &[&PciFunction],
    server: &Server<'_>,
    counts: fn(&HostNeed) -> bool,
) -> Result<(), Obstacle> {
    host_free(function, None, counts)?;
    in_use(function.address, server)?;
    if function.rmrr {
        return Err(Obstacle::Rmrr);
    }
    // Its VFs end when it leaves the host.
    for vf in own_vfs {
        host_free(vf, Some(vf.address), counts)?;
        in_use(vf.address, server)?;
    }
    for member in members {
        host_free(member, Some(member.address), counts)?;
        in_use(member.address, server)?;
    }
    Ok(())
}

fn split(function: &PciFunction, free: &[u32], server: &Server<'_>) -> Result<(), Obstacle> {
    let Some(sriov) = function.sriov.as_ref().filter(|sriov| sriov.total > 0) else {
        return Err(Obstacle::NoSriov);
    };
    in_use(function.address, server)?;
    // Without access control services (ACS) on the way, a VF shares its group.
    let pci = &server.inventory.pci;
    for vf in pci.iter().filter(|f| f.physfn == Some(function.address)) {
        let Some(group) = vf.iommu_group else {
            continue;
        };
        let members = pci
            .iter()
            .filter(|f| f.iommu_group == Some(group) && !f.is_bridge());
        let group: Vec<PciAddress> = members.map(|member| member.address).collect();
        if group.len() > 1 {
            return Err(Obstacle::VfGroup { group });
        }
    }
    let told = sriov.offset.is_some() && sriov.stride.is_some();
    if !told && free.iter().all(|&i| sriov.vfs.get(i as usize).is_none()) {
        return Err(Obstacle::NoVfAddress);
    }
    Ok(())
}

/// The VFs of a function that may be given, by index.
fn free_vfs(function: &PciFunction, server: &Server<'_>) -> Vec<u32> {
    let Some(sriov) = &function.sriov else {
        return Vec::new();
    };
    let held = |address: &PciAddress| {
        let needed = server
            .inventory
            .pci
            .iter()
            .any(|f| f.address == *address && !f.host_needs.is_empty());
        needed || user_of(*address, server).is_some()
    };
    // The number of VFs changes only by way of 0, which would take them from whoever has them.
    let fixed = sriov.vfs.iter().any(held);
    let count = if fixed { sriov.current } else { sriov.total };
    (0..count)
        .filter(|&index| !sriov.vfs.get(index as usize).is_some_and(held))
        .filter(|&index| vf_address(function, index).is_some())
        .collect()
}

/// Where a VF is or will be: the PF's routing id, plus the first VF's offset, plus the stride for
/// each one before it (PCI Express SR-IOV, "VF discovery"). VFs that exist say it themselves.
pub(crate) fn vf_address(function: &PciFunction, index: u32) -> Option<PciAddress> {
    let sriov = function.sriov.as_ref()?;
    if let Some(address) = sriov.vfs.get(index as usize) {
        return Some(*address);
    }
    let pf = function.address;
    let first = u32::from(pf.bus()) << 8 | u32::from(pf.device()) << 3 | u32::from(pf.function());
    let id = first
        .checked_add(sriov.offset?)?
        .checked_add(index.checked_mul(sriov.stride?)?)?;
    let [high, low] = u16::try_from(id).ok()?.to_be_bytes();
    PciAddress::new(pf.domain(), high, low >> 3, low & 7)
}

/// Gives functions of one IOMMU group one number; how many numbers there are.
pub(crate) fn number_groups(pfs: &mut [Pf<'_>]) -> usize {
    let mut numbers = BTreeMap::new();
    let mut count = 0;
    for pf in pfs {
        pf.group = match pf.function.iommu_group {
            Some(group) => *numbers.entry(group).or_insert(count),
            None => count,
        };
        count = count.max(pf.group + 1);
    }
    count
}
