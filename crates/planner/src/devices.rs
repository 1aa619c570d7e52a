//! Which physical functions there are for slices, and which of them each card may be.
//!
//! Takes the inventory's PCI functions and the spec's cards; gives, per slice, a want with its
//! candidates, or the refusal of a card that no placement could ever give. Keeps true: what the
//! host needs is no candidate (but what its network needs, where the spec takes it from the host by
//! name), the IOMMU group is the unit of passthrough, and a function is either passed whole or split.

use std::collections::BTreeMap;

use bmslice_inventory::PciFunction;
use bmslice_model::{PciAddress, SliceName};
use bmslice_plan::{DeviceRef, NicPlan, Plan};
use bmslice_spec::{NicChoice, NicKind, NicNuma, SliceSpec};

use crate::function::{Obstacle, Pf, references};
use crate::ground::Ground;
use crate::refusal::{NicThere, Refusal};
use crate::server::Server;

/// A card that takes a physical function, whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    /// Index in the slice's cards.
    pub nic: usize,
    pub whole: bool,
    /// Indices of functions, by address.
    pub candidates: Vec<usize>,
    pub near: Near,
    /// Whether the user named the device.
    pub named: bool,
}

/// How near a device must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Near {
    /// On one of the slice's nodes.
    Must,
    /// There if possible.
    Should,
    /// Anywhere.
    Any,
}

#[derive(Debug)]
pub(crate) struct Devices<'a> {
    /// By address.
    pub pfs: &'a [Pf<'a>],
    pub groups: usize,
    /// By slice, then card; virtio cards take no device.
    pub wants: Vec<Vec<Want>>,
}

impl<'a> Devices<'a> {
    pub fn read(ground: &'a Ground<'a>, slices: &[&SliceSpec]) -> Result<Self, Refusal> {
        let (server, previous) = (&ground.server, ground.previous);
        let mut devices = Self {
            pfs: &ground.pfs,
            groups: ground.groups,
            wants: Vec::new(),
        };
        for slice in slices {
            let mut wants = Vec::new();
            for (nic, card) in slice.nics.iter().enumerate() {
                let (choice, whole) = match &card.kind {
                    NicKind::Passthrough { device } => (device, true),
                    NicKind::Vf { of, .. } => (of, false),
                    NicKind::Virtio { .. } => continue,
                };
                let had = previous
                    .and_then(|plan| plan.slice(slice.name.as_str()))
                    .and_then(|slice| slice.nics.get(nic))
                    .and_then(|nic| device_of(nic, whole));
                let looked = Looked {
                    slice: &slice.name,
                    nic,
                    whole,
                    from_host: card.take_from_host,
                };
                wants.push(devices.want(&looked, choice, had, server, previous)?);
            }
            devices.wants.push(wants);
        }
        devices.named_apart(slices)?;
        Ok(devices)
    }

    /// What a card may be.
    fn want(
        &self,
        looked: &Looked<'_>,
        choice: &NicChoice,
        had: Option<&DeviceRef>,
        server: &Server<'_>,
        previous: Option<&Plan>,
    ) -> Result<Want, Refusal> {
        let fits = |pf: &Pf<'_>| {
            if looked.whole {
                pf.whole.is_ok()
            } else {
                pf.split.is_ok() && !pf.vfs.is_empty()
            }
        };
        let NicChoice::Need { speed, numa } = choice else {
            let at = self.find(looked, choice, server, previous)?;
            let pf = &self.pfs[at];
            let state = match (looked.whole, looked.from_host) {
                (true, true) => &pf.taken,
                (true, false) => &pf.whole,
                (false, _) => &pf.split,
            };
            if let Err(obstacle) = state {
                return Err(self.refuse(looked, pf, obstacle));
            }
            return Ok(Want {
                nic: looked.nic,
                whole: looked.whole,
                candidates: vec![at],
                near: Near::Should,
                named: true,
            });
        };
        let had = had.and_then(|had| {
            self.pfs
                .iter()
                .position(|pf| pf.address() == had.address && pf.function.id == had.id && fits(pf))
        });
        let candidates = match had {
            // What a slice has, it keeps: its speed cannot be read while the guest owns it.
            Some(at) => vec![at],
            None => (0..self.pfs.len())
                .filter(|&at| {
                    let pf = &self.pfs[at];
                    let fast =
                        speed.is_none_or(|asked| pf.speed.is_some_and(|speed| speed >= asked));
                    // A card that the host needs is split only for who names it.
                    fits(pf) && fast && pf.function.host_needs.is_empty()
                })
                .collect(),
        };
        Ok(Want {
            nic: looked.nic,
            whole: looked.whole,
            candidates,
            near: match numa {
                NicNuma::Same => Near::Must,
                NicNuma::Prefer => Near::Should,
                NicNuma::Any => Near::Any,
            },
            named: false,
        })
    }

    /// The function that was named.
    fn find(
        &self,
        looked: &Looked<'_>,
        choice: &NicChoice,
        server: &Server<'_>,
        previous: Option<&Plan>,
    ) -> Result<usize, Refusal> {
        let inventory = server.inventory;
        let asked = match choice {
            NicChoice::Pci(address) => address.to_string(),
            NicChoice::Name(name) => name.clone(),
            NicChoice::Mac(mac) => mac.to_string(),
            NicChoice::Need { .. } => String::new(),
        };
        let by_interface = |fits: &dyn Fn(&bmslice_inventory::NetInterface) -> bool| {
            inventory
                .interfaces
                .iter()
                .filter(|interface| fits(interface))
                .find_map(|interface| interface.pci)
        };
        // A function that a guest has shows neither name nor MAC: the plan that gave it away
        // remembers them.
        let remembered = |fits: &dyn Fn(&DeviceRef) -> bool| {
            let known = previous.into_iter().flat_map(references);
            known
                .filter(|device| fits(device))
                .find(|device| {
                    let there = inventory.pci.iter().find(|f| f.address == device.address);
                    there.is_some_and(|f| f.id == device.id && f.interfaces.is_empty())
                })
                .map(|device| device.address)
        };
        let address = match choice {
            NicChoice::Pci(address) => Some(*address),
            NicChoice::Name(name) => by_interface(&|i| i.name == *name)
                .or_else(|| by_interface(&|i| i.altnames.contains(name)))
                .or_else(|| {
                    let named = |f: &&PciFunction| f.interfaces.contains(name);
                    inventory.pci.iter().find(named).map(|f| f.address)
                })
                .or_else(|| remembered(&|d| d.interface.as_ref() == Some(name))),
            NicChoice::Mac(mac) => inventory
                .pci
                .iter()
                .find(|f| f.mac == Some(*mac) && !f.is_vf())
                .map(|f| f.address)
                .or_else(|| by_interface(&|i| i.mac == Some(*mac)))
                .or_else(|| remembered(&|d| d.mac == Some(*mac))),
            NicChoice::Need { .. } => None,
        };
        let function =
            address.and_then(|address| inventory.pci.iter().find(|f| f.address == address));
        let Some(function) = function else {
            return Err(Refusal::NicAbsent {
                slice: looked.slice.clone(),
                near: nearest(&asked, self.pfs),
                asked,
                there: self.there(),
            });
        };
        if let Some(pf) = function.physfn {
            let pf = self.pfs.iter().find(|p| p.address() == pf);
            return Err(Refusal::NicIsVf {
                slice: looked.slice.clone(),
                asked,
                pf: pf.map(Pf::label).unwrap_or_default(),
                of: pf.map(|pf| {
                    let name = pf.reference.interface.clone();
                    name.unwrap_or_else(|| pf.address().to_string())
                }),
            });
        }
        self.pfs
            .iter()
            .position(|pf| pf.address() == function.address)
            .ok_or_else(|| Refusal::NotANic {
                slice: looked.slice.clone(),
                asked,
                class: function.class.clone(),
                name: function.name.clone(),
                there: self.there(),
            })
    }

    /// Every physical function, for messages.
    pub fn there(&self) -> Vec<NicThere> {
        self.pfs
            .iter()
            .map(|pf| NicThere {
                label: if pf.function.host_needs.is_empty() {
                    pf.label()
                } else {
                    format!("{} of the host", pf.label())
                },
                node: pf.node,
            })
            .collect()
    }

    fn refuse(&self, looked: &Looked<'_>, pf: &Pf<'_>, obstacle: &Obstacle) -> Refusal {
        let (slice, device) = (looked.slice.clone(), pf.label());
        // How to have it all the same, where that would do.
        let take = (looked.whole && pf.taken.is_ok()).then(|| Box::new(pf.reference.clone()));
        match obstacle {
            Obstacle::HostNeeds { member: None, why } => Refusal::NicHostNeeds {
                slice,
                device,
                why: why.clone(),
                take,
                change: None,
            },
            Obstacle::HostNeeds {
                member: Some(member),
                why,
            } => Refusal::GroupHostNeeds {
                slice,
                device,
                group: group_of(pf),
                member: *member,
                why: why.clone(),
                take,
                change: None,
            },
            Obstacle::InUse { domain } => Refusal::NicInUse {
                slice,
                device,
                domain: domain.clone(),
                change: None,
            },
            Obstacle::NoSriov => Refusal::NoSriov {
                slice,
                device,
                change: None,
            },
            Obstacle::Rmrr => Refusal::NicRmrr {
                slice,
                device,
                change: None,
            },
            Obstacle::NoVfAddress => Refusal::NoVfAddress { slice, device },
            Obstacle::VfGroup { group } => Refusal::VfGroup {
                slice,
                device,
                group: group.clone(),
                change: None,
            },
        }
    }

    /// Two cards whose devices the user named, and that cannot both have them.
    fn named_apart(&self, slices: &[&SliceSpec]) -> Result<(), Refusal> {
        let named: Vec<(usize, &Want)> = self
            .wants
            .iter()
            .enumerate()
            .flat_map(|(slice, wants)| wants.iter().map(move |want| (slice, want)))
            .filter(|(_, want)| want.named)
            .collect();
        let name = |slice: usize| slices[slice].name.clone();
        let mut split: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &(slice, want) in &named {
            if !want.whole {
                split.entry(want.candidates[0]).or_default().push(slice);
            }
        }
        for (i, &(slice, want)) in named.iter().enumerate() {
            let at = want.candidates[0];
            let pf = &self.pfs[at];
            if !want.whole {
                continue;
            }
            for &(other_slice, other) in &named[i + 1..] {
                if other.whole && other.candidates[0] == at {
                    return Err(Refusal::NicGivenTwice {
                        device: pf.label(),
                        first: name(slice),
                        second: name(other_slice),
                        change: None,
                    });
                }
            }
            if let Some(users) = split.get(&at) {
                return Err(Refusal::WholeAndSplit {
                    device: pf.label(),
                    whole: name(slice),
                    split: name(users[0]),
                    change: None,
                });
            }
            let conflict = named.iter().find(|(other_slice, other)| {
                let member = other.candidates[0];
                member != at
                    && self.pfs[member].group == pf.group
                    && (*other_slice != slice || !other.whole)
            });
            if let Some((other_slice, other)) = conflict {
                return Err(Refusal::GroupShared {
                    device: pf.label(),
                    group: group_of(pf).into(),
                    slice: name(slice),
                    other: self.pfs[other.candidates[0]].label(),
                    other_slice: name(*other_slice),
                    change: None,
                });
            }
        }
        for (at, users) in split {
            let pf = &self.pfs[at];
            if users.len() > pf.vfs.len() {
                return Err(Refusal::VfTotal {
                    device: pf.label(),
                    asked: users.len(),
                    free: pf.vfs.len(),
                    total: pf.function.sriov.as_ref().map_or(0, |sriov| sriov.total),
                    slice: name(users[pf.vfs.len()]),
                    change: None,
                });
            }
        }
        Ok(())
    }
}

/// Who looks for what.
struct Looked<'a> {
    slice: &'a SliceName,
    nic: usize,
    whole: bool,
    /// Whether it may be one that the host's network goes through.
    from_host: bool,
}

/// The members of a function's group, itself first, for messages.
fn group_of(pf: &Pf<'_>) -> Vec<PciAddress> {
    std::iter::once(pf.address())
        .chain(pf.members.iter().map(|member| member.address))
        .collect()
}

/// The physical function behind a card of a plan.
fn device_of(nic: &NicPlan, whole: bool) -> Option<&DeviceRef> {
    match nic {
        NicPlan::Passthrough { device, .. } if whole => Some(device),
        NicPlan::Vf { pf, .. } if !whole => Some(pf),
        _ => None,
    }
}

/// The function whose name or address is nearest to what was written, when it is near at all; what
/// the host needs is not proposed.
fn nearest(asked: &str, pfs: &[Pf<'_>]) -> Option<String> {
    let free = pfs.iter().filter(|pf| pf.function.host_needs.is_empty());
    let names = free.flat_map(|pf| {
        let mac = pf.reference.mac.map(|mac| mac.to_string());
        [
            Some(pf.address().to_string()),
            pf.reference.interface.clone(),
            mac,
        ]
    });
    names
        .flatten()
        .map(|name| (distance(asked, &name), name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len() / 2 + 1)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(distance("eno1", "eno1"), 0);
        assert_eq!(distance("eno1", "eno2"), 1);
        assert_eq!(distance("eno", "eno2"), 1);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("0000:1:00.0", "0000:01:00.0"), 1);
    }
}
