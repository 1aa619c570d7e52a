//! Single changes that are worth trying.
//!
//! Takes a slice (or the host's share); gives the changes of one kind that it allows, the nearest
//! first. Whether one of them would do is not asked here.

use bmslice_inventory::{Inventory, PciFunction};
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

/// How a choice is written.
fn written(choice: &NicChoice) -> String {
    match choice {
        NicChoice::Pci(address) => format!("\"{address}\""),
        NicChoice::Name(name) => name.clone(),
        NicChoice::Mac(mac) => format!("{{ mac: \"{mac}\" }}"),
        NicChoice::Need { speed, numa } => {
            let speed = speed.map(|speed| format!("speed: {speed}M, "));
            let numa = match numa {
                NicNuma::Same => "same",
                NicNuma::Prefer => "prefer",
                NicNuma::Any => "any",
            };
            format!("{{ {}numa: {numa} }}", speed.unwrap_or_default())
        }
    }
}

/// Whether a choice names this function.
fn names(choice: &NicChoice, function: &PciFunction, inventory: &Inventory) -> bool {
    let mut interfaces = inventory.interfaces.iter();
    match choice {
        NicChoice::Pci(address) => *address == function.address,
        NicChoice::Name(name) => {
            function.interfaces.contains(name)
                || interfaces.any(|it| {
                    it.pci == Some(function.address)
                        && (it.name == *name || it.altnames.contains(name))
                })
        }
        NicChoice::Mac(mac) => function.mac == Some(*mac),
        NicChoice::Need { .. } => false,
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

/// Pairs of cards that are tried at most: of 12 slices with a card each.
const MOST_PAIRS: usize = 66;

/// Virtual functions for one whole NIC, or for one of each of two slices.
pub(crate) fn virtual_functions(slices: &[&SliceSpec]) -> Vec<Change> {
    let mut cards: Vec<(SliceName, usize, String)> = slices
        .iter()
        .flat_map(|slice| {
            let cards = slice.nics.iter().enumerate();
            cards.filter_map(|(nic, card)| match &card.kind {
                NicKind::Passthrough { device } => {
                    Some((slice.written().clone(), nic, written(device)))
                }
                NicKind::Vf { .. } | NicKind::Virtio { .. } => None,
            })
        })
        .collect();
    // Those of replicas are one.
    cards.dedup();
    let mut changes: Vec<Change> = cards
        .iter()
        .map(|card| Change::Vf {
            cards: vec![card.clone()],
        })
        .collect();
    let pairs = cards.iter().enumerate().flat_map(|(i, a)| {
        let others = cards[i + 1..].iter();
        others.map(move |b| vec![a.clone(), b.clone()])
    });
    changes.extend(pairs.take(MOST_PAIRS).map(|cards| Change::Vf { cards }));
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
                of: written(of),
            }),
            NicKind::Passthrough { .. } | NicKind::Virtio { .. } => None,
        })
        .collect()
}

/// Other NICs for those that are named.
pub(crate) fn other_nics(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
    let mut changes = Vec::new();
    for (nic, card) in slice.nics.iter().enumerate() {
        let Some((named @ (NicChoice::Pci(_) | NicChoice::Name(_) | NicChoice::Mac(_)), _)) =
            choice(&card.kind)
        else {
            continue;
        };
        let others = inventory
            .pci
            .iter()
            .filter(|f| f.is_network() && !f.is_vf() && f.host_needs.is_empty())
            .filter(|f| !names(named, f, inventory));
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
