//! Single changes that are worth trying.
//!
//! Takes a slice (or the host's share); gives the changes of one kind that it allows, the nearest
//! first. Whether one of them would do is not asked here.

use bmslice_inventory::Inventory;
use bmslice_model::SliceName;
use bmslice_spec::{NicChoice, NicKind, NicNuma, Numa, SliceSpec, Slicing, Smt};

use crate::change::Change;
use crate::demand;

fn choice(kind: &NicKind) -> Option<(&NicChoice, bool)> {
    match kind {
        NicKind::Passthrough { device } => Some((device, true)),
        NicKind::Vf { of, .. } => Some((of, false)),
        NicKind::Virtio { .. } => None,
    }
}

/// How a choice is written; `None` for a choice by need.
fn written(choice: &NicChoice) -> Option<String> {
    match choice {
        NicChoice::Pci(address) => Some(address.to_string()),
        NicChoice::Name(name) => Some(name.clone()),
        NicChoice::Mac(mac) => Some(mac.to_string()),
        NicChoice::Need { .. } => None,
    }
}

pub(crate) fn other_nodes(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
    let Numa::Node(named) = slice.numa else {
        return Vec::new();
    };
    let others = inventory.nodes.iter().filter(|node| node.id != named);
    others
        .map(|node| Change::Node {
            slice: slice.written().clone(),
            node: node.id,
        })
        .collect()
}

pub(crate) fn any_nic(slice: &SliceSpec) -> Vec<Change> {
    let same = slice.nics.iter().any(|nic| {
        let choice = choice(&nic.kind);
        matches!(
            choice,
            Some((
                NicChoice::Need {
                    numa: NicNuma::Same,
                    ..
                },
                _
            ))
        )
    });
    let change = Change::AnyNic {
        slice: slice.written().clone(),
    };
    same.then_some(change).into_iter().collect()
}

/// Fewer vCPUs, most first, down to `least`.
pub(crate) fn fewer_vcpus(slice: &SliceSpec, least: u32) -> Vec<Change> {
    let cells = demand::cells(slice);
    let fewer = (least.max(1)..slice.vcpus).rev();
    fewer
        .filter(|vcpus| vcpus.is_multiple_of(cells))
        .map(|vcpus| Change::Vcpus {
            slice: slice.written().clone(),
            vcpus,
        })
        .collect()
}

pub(crate) fn spread(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
    let least = match slice.numa {
        Numa::Single => 2,
        Numa::Spread(nodes) => nodes + 1,
        Numa::Node(_) => return Vec::new(),
    };
    let most = u32::try_from(inventory.nodes.len()).unwrap_or(u32::MAX);
    (least..=most)
        .filter(|nodes| slice.vcpus.is_multiple_of(*nodes))
        .map(|nodes| Change::Spread {
            slice: slice.written().clone(),
            nodes,
        })
        .collect()
}

pub(crate) fn pack(slice: &SliceSpec) -> Vec<Change> {
    let change = Change::Pack {
        slice: slice.written().clone(),
    };
    let isolated = slice.smt == Smt::Isolate;
    isolated.then_some(change).into_iter().collect()
}

pub(crate) fn pool_on_host(slice: &SliceSpec) -> Vec<Change> {
    let change = Change::PoolOnHost {
        slice: slice.written().clone(),
    };
    (slice.emulator_cores > 0)
        .then_some(change)
        .into_iter()
        .collect()
}

pub(crate) fn reserves(spec: &Slicing) -> Vec<Change> {
    let host = &spec.host;
    let fewer = (1..host.reserve_cores).rev().map(|cores| Change::Reserve {
        cores,
        per_numa: host.reserve_per_numa,
    });
    let in_all = host.reserve_per_numa.then_some(Change::Reserve {
        cores: host.reserve_cores,
        per_numa: false,
    });
    fewer.chain(in_all).collect()
}

pub(crate) fn not_apart(slice: &SliceSpec) -> Vec<Change> {
    let change = Change::NotApart {
        slice: slice.written().clone(),
    };
    slice
        .apart
        .is_some()
        .then_some(change)
        .into_iter()
        .collect()
}

/// Without a slice; of several that are written as one, without it and those after it.
pub(crate) fn without(slice: &SliceSpec) -> Vec<Change> {
    let fewer = slice.replica.as_ref().map(|replica| replica.number - 1);
    let written = slice.written().clone();
    vec![match fewer {
        Some(replicas @ 1..) => Change::Replicas {
            slice: written,
            replicas,
        },
        Some(0) | None => Change::Without { slice: written },
    }]
}

/// Virtual functions for one whole NIC that is named, or for one of each of two slices.
pub(crate) fn virtual_functions(slices: &[&SliceSpec]) -> Vec<Change> {
    let cards: Vec<(SliceName, usize, String)> = slices
        .iter()
        .flat_map(|slice| {
            slice
                .nics
                .iter()
                .enumerate()
                .filter_map(|(nic, card)| match &card.kind {
                    NicKind::Passthrough { device } => {
                        Some((slice.written().clone(), nic, written(device)?))
                    }
                    NicKind::Vf { .. } | NicKind::Virtio { .. } => None,
                })
        })
        .collect();
    let mut changes: Vec<Change> = cards
        .iter()
        .map(|card| Change::Vf {
            cards: vec![card.clone()],
        })
        .collect();
    for (i, a) in cards.iter().enumerate() {
        changes.extend(cards[i + 1..].iter().map(|b| Change::Vf {
            cards: vec![a.clone(), b.clone()],
        }));
    }
    changes
}

/// A whole NIC where a part of it is not to be had.
pub(crate) fn whole(slice: &SliceSpec) -> Vec<Change> {
    let cards = slice.nics.iter().enumerate();
    cards
        .filter_map(|(nic, card)| match &card.kind {
            NicKind::Vf { of, .. } => Some(Change::Whole {
                slice: slice.written().clone(),
                nic,
                of: written(of)?,
            }),
            NicKind::Passthrough { .. } | NicKind::Virtio { .. } => None,
        })
        .collect()
}

/// Other NICs for those that are named.
pub(crate) fn other_nics(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
    let mut changes = Vec::new();
    for (nic, card) in slice.nics.iter().enumerate() {
        let Some((NicChoice::Pci(_) | NicChoice::Name(_) | NicChoice::Mac(_), _)) =
            choice(&card.kind)
        else {
            continue;
        };
        let others = inventory
            .pci
            .iter()
            .filter(|f| f.is_network() && !f.is_vf() && f.host_needs.is_empty());
        changes.extend(others.map(|function| {
            let name = function.interfaces.first();
            Change::OtherNic {
                slice: slice.written().clone(),
                nic,
                with: name
                    .cloned()
                    .unwrap_or_else(|| function.address.to_string()),
                choice: NicChoice::Pci(function.address),
            }
        }));
    }
    changes
}
