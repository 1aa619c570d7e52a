//! Changes to a spec that might make it fit.
//!
//! Takes a refusal; tries changes from the nearest to the farthest on the same server, and gives
//! the first with which everything fits. Nothing is proposed that was not tried.

use std::fmt;

use bmslice_inventory::Inventory;
use bmslice_model::{ByteSize, NumaNodeId, SliceName};
use bmslice_plan::Plan;
use bmslice_spec::{NicChoice, NicKind, NicNuma, Numa, SliceSpec, Slicing, Smt};

use crate::Running;
use crate::demand;
use crate::refusal::Refusal;
use crate::text::and;

/// Changes that are put together at most.
const ROUNDS: usize = 6;

/// One change to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another node than the named one.
    Node {
        /// The slice.
        slice: SliceName,
        /// The node.
        node: NumaNodeId,
    },
    /// A NIC that was to be near may be anywhere.
    AnyNic {
        /// The slice.
        slice: SliceName,
    },
    /// Virtual functions instead of whole NICs: slice, card, how the NIC is named.
    Vf {
        /// The cards.
        cards: Vec<(SliceName, usize, String)>,
    },
    /// A whole NIC instead of a virtual function.
    Whole {
        /// The slice.
        slice: SliceName,
        /// The card.
        nic: usize,
        /// How the NIC is named.
        of: String,
    },
    /// Another NIC than the named one.
    OtherNic {
        /// The slice.
        slice: SliceName,
        /// The card.
        nic: usize,
        /// The NIC's name or address.
        with: String,
        /// The choice itself.
        choice: NicChoice,
    },
    /// Fewer vCPUs.
    Vcpus {
        /// The slice.
        slice: SliceName,
        /// How many.
        vcpus: u32,
    },
    /// Several nodes instead of one.
    Spread {
        /// The slice.
        slice: SliceName,
        /// How many.
        nodes: u32,
    },
    /// Emulator threads and IOThreads on the host's cores.
    PoolOnHost {
        /// The slice.
        slice: SliceName,
    },
    /// Sibling pairs instead of a core for each vCPU.
    Pack {
        /// The slice.
        slice: SliceName,
    },
    /// Less memory.
    Memory {
        /// The slice.
        slice: SliceName,
        /// How much.
        size: ByteSize,
    },
    /// A smaller reserve of the host.
    Reserve {
        /// Whole cores.
        cores: u32,
        /// On each node, or in all.
        per_numa: bool,
    },
    /// Everything may be placed anew.
    Repack,
    /// Any server instead of the named one.
    AnyServer {
        /// The slice.
        slice: SliceName,
        /// One on which it fits.
        server: String,
    },
    /// One more server.
    OneMore {
        /// The slice.
        slice: SliceName,
        /// The server that it is to be like.
        like: String,
    },
    /// One slice is left out.
    Without {
        /// The slice.
        slice: SliceName,
    },
    /// Several changes, none of which suffices alone.
    Together(Vec<Change>),
    /// A change that settles what was refused, where something else does not fit either.
    Partly(Box<Change>),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { slice, node } => {
                write!(
                    f,
                    "with `numa: {{ node: {node} }}` for slice `{slice}` it fits"
                )
            }
            Self::AnyNic { slice } => write!(
                f,
                "with `numa: prefer` instead of `numa: same` for the NICs of slice `{slice}` it fits"
            ),
            Self::Vf { cards } => {
                let cards = and(cards
                    .iter()
                    .map(|(slice, _, of)| format!("`vf: {{ of: {of} }}` for slice `{slice}`")));
                write!(f, "with {cards} instead of the whole NIC it fits")
            }
            Self::Whole { slice, of, .. } => {
                write!(
                    f,
                    "with the whole of `{of}` as `passthrough` for slice `{slice}` it fits"
                )
            }
            Self::OtherNic { slice, with, .. } => {
                write!(f, "with the NIC `{with}` for slice `{slice}` it fits")
            }
            Self::Vcpus { slice, vcpus } => {
                write!(f, "with `vcpus: {vcpus}` for slice `{slice}` it fits")
            }
            Self::Spread { slice, nodes } => {
                write!(
                    f,
                    "with `numa: {{ spread: {nodes} }}` for slice `{slice}` it fits"
                )
            }
            Self::PoolOnHost { slice } => write!(
                f,
                "with `emulator: {{ cores: 0 }}` (on the host's cores) for slice `{slice}` it fits"
            ),
            Self::Pack { slice } => write!(f, "with `smt: pack` for slice `{slice}` it fits"),
            Self::Memory { slice, size } => {
                write!(
                    f,
                    "with `size: {size}` of memory for slice `{slice}` it fits"
                )
            }
            Self::Reserve { cores, per_numa } => write!(
                f,
                "with `reserve: {{ cores: {cores}, perNuma: {per_numa} }}` for the host it fits"
            ),
            Self::Repack => write!(
                f,
                "if slices that are placed already may move, it fits: plan with `--repack`; the moved guests restart"
            ),
            Self::AnyServer { slice, server } => {
                write!(f, "with `server: {server}` for slice `{slice}` it fits")
            }
            Self::OneMore { slice, like } => {
                write!(f, "on one more server like `{like}` slice `{slice}` fits")
            }
            Self::Without { slice } => write!(f, "without slice `{slice}` the others fit"),
            Self::Together(changes) => {
                let parts = changes.iter().map(|change| {
                    let text = change.to_string();
                    text.strip_suffix(" it fits").unwrap_or(&text).to_owned()
                });
                write!(f, "{} it fits", and(parts))
            }
            Self::Partly(change) => {
                write!(
                    f,
                    "{change}, as far as this goes; something else is refused then"
                )
            }
        }
    }
}

impl Change {
    /// The spec with this change made; `None` when a rule of specs does not hold then.
    #[must_use]
    pub fn apply(&self, spec: &Slicing) -> Option<Slicing> {
        let (mut host, mut slices) = (spec.host.clone(), spec.slices.clone());
        let mut edit = |name: &SliceName, edit: &dyn Fn(&mut SliceSpec)| {
            for slice in slices.iter_mut().filter(|slice| slice.name == *name) {
                edit(slice);
            }
        };
        match self {
            Self::Node { slice, node } => edit(slice, &|s| s.numa = Numa::Node(*node)),
            Self::AnyNic { slice } => edit(slice, &|s| {
                for nic in &mut s.nics {
                    if let Some(NicChoice::Need { numa, .. }) = choice_mut(&mut nic.kind)
                        && *numa == NicNuma::Same
                    {
                        *numa = NicNuma::Prefer;
                    }
                }
            }),
            Self::Vf { cards } => {
                for (slice, nic, _) in cards {
                    edit(slice, &|s| {
                        if let Some(card) = s.nics.get_mut(*nic)
                            && let NicKind::Passthrough { device } = &card.kind
                        {
                            card.kind = NicKind::Vf {
                                of: device.clone(),
                                vlan: None,
                                mac: None,
                                rules: bmslice_spec::VfRules::default(),
                            };
                        }
                    });
                }
            }
            Self::Whole { slice, nic, .. } => edit(slice, &|s| {
                if let Some(card) = s.nics.get_mut(*nic)
                    && let NicKind::Vf { of, .. } = &card.kind
                {
                    card.kind = NicKind::Passthrough { device: of.clone() };
                }
            }),
            Self::OtherNic {
                slice, nic, choice, ..
            } => edit(slice, &|s| {
                let card = s.nics.get_mut(*nic);
                if let Some(old) = card.and_then(|card| choice_mut(&mut card.kind)) {
                    *old = choice.clone();
                }
            }),
            Self::Vcpus { slice, vcpus } => edit(slice, &|s| s.vcpus = *vcpus),
            Self::Spread { slice, nodes } => edit(slice, &|s| s.numa = Numa::Spread(*nodes)),
            Self::PoolOnHost { slice } => edit(slice, &|s| s.emulator_cores = 0),
            Self::Pack { slice } => edit(slice, &|s| s.smt = Smt::Pack),
            Self::Memory { slice, size } => edit(slice, &|s| s.memory = *size),
            Self::Reserve { cores, per_numa } => {
                host.reserve_cores = *cores;
                host.reserve_per_numa = *per_numa;
            }
            Self::AnyServer { slice, server } => edit(slice, &|s| {
                s.server = Some(server.clone());
            }),
            Self::Repack | Self::OneMore { .. } => {}
            Self::Without { slice } => slices.retain(|s| s.name != *slice),
            Self::Together(changes) => {
                let mut changes = changes.iter();
                let first = changes.next()?.apply(spec)?;
                return changes.try_fold(first, |spec, change| change.apply(&spec));
            }
            Self::Partly(change) => return change.apply(spec),
        }
        Slicing::new(host, slices).ok()
    }
}

fn choice_mut(kind: &mut NicKind) -> Option<&mut NicChoice> {
    match kind {
        NicKind::Passthrough { device } => Some(device),
        NicKind::Vf { of, .. } => Some(of),
        NicKind::Virtio { .. } => None,
    }
}

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

/// The nearest change that makes everything fit; or, where no single one does, the nearest one
/// that makes the slices fit that the refusal is about.
pub(crate) fn nearest(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    refusal: &Refusal,
) -> Option<Change> {
    settles(spec, inventory, previous, refusal)
        .or_else(|| one_by_one(spec, inventory, previous, refusal))
        .or_else(|| in_part(spec, inventory, previous, refusal))
}

/// What settles the first refusal, then what settles the next, until nothing is refused.
fn one_by_one(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    refusal: &Refusal,
) -> Option<Change> {
    let first = in_part(spec, inventory, previous, refusal)?;
    let mut changed = first.apply(spec)?;
    let Change::Partly(first) = first else {
        return None;
    };
    let mut changes = vec![*first];
    while changes.len() < ROUNDS {
        let refusal = crate::place(&changed, inventory, previous, Running::Stays).err()?;
        refusal.has_change().then_some(())?;
        let whole = settles(&changed, inventory, previous, &refusal);
        let (next, last) = match whole {
            Some(change) => (change, true),
            None => match in_part(&changed, inventory, previous, &refusal)? {
                Change::Partly(change) => (*change, false),
                _ => return None,
            },
        };
        // To leave slices out settles everything: that is no answer to the first question.
        if matches!(next, Change::Without { .. } | Change::Repack) {
            return None;
        }
        changed = next.apply(&changed)?;
        match next {
            Change::Together(more) => changes.extend(more),
            next => changes.push(next),
        }
        if last {
            return Some(Change::Together(changes));
        }
    }
    None
}

/// What settles the refusal alone, where something else is refused as well.
fn in_part(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    refusal: &Refusal,
) -> Option<Change> {
    Some(()).and_then(|()| {
        let about = refusal.slices();
        let among = spec
            .slices
            .iter()
            .filter(|slice| about.contains(&&slice.name));
        let among = Slicing::new(spec.host.clone(), among.cloned().collect()).ok()?;
        if among.slices.len() == spec.slices.len() {
            return None;
        }
        settles(&among, inventory, previous, refusal).map(|change| Change::Partly(Box::new(change)))
    })
}

/// The nearest change of one slice with which it fits beside the others of a spec.
pub(crate) fn of_slice(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    slice: &SliceName,
) -> Option<Change> {
    let refusal = Refusal::NoRoom {
        slices: vec![slice.clone()],
        asked: String::new(),
        there: String::new(),
        change: None,
    };
    let change = settles(spec, inventory, previous, &refusal);
    change.filter(|change| !matches!(change, Change::Without { .. }))
}

impl Change {
    /// How much it changes of what is wanted: less is nearer. In the order in which changes are
    /// tried on one server.
    pub(crate) fn distance(&self) -> usize {
        match self {
            Self::AnyServer { .. } => 0,
            Self::Repack => 1,
            Self::Node { .. } => 2,
            Self::AnyNic { .. } => 3,
            Self::Vcpus { .. } => 4,
            Self::Spread { .. } => 5,
            Self::Vf { .. } => 6,
            Self::Pack { .. } => 7,
            Self::PoolOnHost { .. } => 8,
            Self::Memory { .. } => 9,
            Self::Reserve { .. } => 10,
            Self::OtherNic { .. } | Self::Whole { .. } => 11,
            Self::OneMore { .. } => 12,
            Self::Without { .. } => 13,
            Self::Together(changes) => 14 + changes.len(),
            Self::Partly(change) => 40 + change.distance(),
        }
    }
}

/// The nearest change with which a whole spec fits.
fn settles(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    refusal: &Refusal,
) -> Option<Change> {
    let fits = |change: &Change| {
        let running = if *change == Change::Repack {
            Running::MayMove
        } else {
            Running::Stays
        };
        change
            .apply(spec)
            .is_some_and(|spec| crate::fits(&spec, inventory, previous, running))
    };
    // Who came last gives way first.
    let slices: Vec<&SliceSpec> = spec
        .slices
        .iter()
        .rev()
        .filter(|slice| refusal.slices().contains(&&slice.name))
        .collect();
    let each = |changes: &dyn Fn(&SliceSpec) -> Vec<Change>| {
        slices
            .iter()
            .flat_map(|slice| changes(slice))
            .find(|change| fits(change))
    };
    if matches!(refusal, Refusal::NoRoom { .. }) {
        previous
            .and(Some(Change::Repack))
            .filter(|change| fits(change))
            .or_else(|| each(&|slice| other_nodes(slice, inventory)))
            .or_else(|| each(&any_nic))
            .or_else(|| each(&|slice| fewer_vcpus(slice, slice.vcpus.saturating_sub(2))))
            .or_else(|| each(&|slice| spread(slice, inventory)))
            .or_else(|| {
                virtual_functions(&slices)
                    .into_iter()
                    .find(|change| fits(change))
            })
            .or_else(|| each(&pack))
            .or_else(|| each(&pool_on_host))
            .or_else(|| {
                slices
                    .iter()
                    .find_map(|slice| less_memory(spec, slice, &fits))
            })
            .or_else(|| reserves(spec).into_iter().find(|change| fits(change)))
            .or_else(|| slices.iter().find_map(|slice| most_vcpus(slice, &fits)))
            .or_else(|| each(&|slice| other_nics(slice, inventory)))
            .or_else(|| slices.iter().find_map(|slice| smaller(spec, slice, &fits)))
            .or_else(|| each(&without))
    } else {
        virtual_functions(&slices)
            .into_iter()
            .filter(|_| !matches!(refusal, Refusal::NicHostNeeds { .. }))
            .find(|change| fits(change))
            .or_else(|| each(&|slice| other_nics(slice, inventory)))
            .or_else(|| {
                virtual_functions(&slices)
                    .into_iter()
                    .find(|change| fits(change))
            })
            .or_else(|| each(&whole))
    }
}

fn other_nodes(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
    let Numa::Node(named) = slice.numa else {
        return Vec::new();
    };
    let others = inventory.nodes.iter().filter(|node| node.id != named);
    others
        .map(|node| Change::Node {
            slice: slice.name.clone(),
            node: node.id,
        })
        .collect()
}

fn any_nic(slice: &SliceSpec) -> Vec<Change> {
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
        slice: slice.name.clone(),
    };
    same.then_some(change).into_iter().collect()
}

/// Fewer vCPUs, most first, down to `least`.
fn fewer_vcpus(slice: &SliceSpec, least: u32) -> Vec<Change> {
    let cells = demand::cells(slice);
    let fewer = (least.max(1)..slice.vcpus).rev();
    fewer
        .filter(|vcpus| vcpus.is_multiple_of(cells))
        .map(|vcpus| Change::Vcpus {
            slice: slice.name.clone(),
            vcpus,
        })
        .collect()
}

fn spread(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
    let least = match slice.numa {
        Numa::Single => 2,
        Numa::Spread(nodes) => nodes + 1,
        Numa::Node(_) => return Vec::new(),
    };
    let most = u32::try_from(inventory.nodes.len()).unwrap_or(u32::MAX);
    (least..=most)
        .filter(|nodes| slice.vcpus.is_multiple_of(*nodes))
        .map(|nodes| Change::Spread {
            slice: slice.name.clone(),
            nodes,
        })
        .collect()
}

fn pack(slice: &SliceSpec) -> Vec<Change> {
    let change = Change::Pack {
        slice: slice.name.clone(),
    };
    let isolated = slice.smt == Smt::Isolate;
    isolated.then_some(change).into_iter().collect()
}

fn pool_on_host(slice: &SliceSpec) -> Vec<Change> {
    let change = Change::PoolOnHost {
        slice: slice.name.clone(),
    };
    (slice.emulator_cores > 0)
        .then_some(change)
        .into_iter()
        .collect()
}

/// The most vCPUs that fit. Fewer of them fit where more do, so that halving finds it.
fn most_vcpus(slice: &SliceSpec, fits: &dyn Fn(&Change) -> bool) -> Option<Change> {
    let cells = demand::cells(slice);
    let with = |each: u32| Change::Vcpus {
        slice: slice.name.clone(),
        vcpus: each * cells,
    };
    let (mut low, mut high) = (0, slice.vcpus / cells);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if fits(&with(middle)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low > 0).then(|| with(low)).filter(|change| fits(change))
}

/// Fewer vCPUs and less memory together, and NICs anywhere if need be: of what is too large in more
/// than one way.
fn smaller(spec: &Slicing, slice: &SliceSpec, fits: &dyn Fn(&Change) -> bool) -> Option<Change> {
    let page = slice.hugepages.unwrap_or(ByteSize::from_gib(1));
    let little = Change::Memory {
        slice: slice.name.clone(),
        size: ByteSize::from_bytes(page.bytes().checked_mul(u64::from(demand::cells(slice)))?),
    };
    let firsts = std::iter::once(None).chain(any_nic(slice).into_iter().map(Some));
    firsts.into_iter().find_map(|first| {
        let first: Vec<Change> = first.into_iter().collect();
        let all = |more: &[Change]| Change::Together([&first[..], more].concat());
        // As many vCPUs as would fit with hardly any memory, then as much memory as they leave.
        let fewer = most_vcpus(slice, &|vcpus| fits(&all(&[vcpus.clone(), little.clone()])));
        let Some(fewer) = fewer else {
            return less_memory(spec, slice, &|size| fits(&all(std::slice::from_ref(size))))
                .map(|size| all(&[size]));
        };
        let less = less_memory(spec, slice, &|size| {
            fits(&all(&[fewer.clone(), size.clone()]))
        })?;
        Some(all(&[fewer.clone(), less]))
    })
}

/// The most memory that fits.
fn less_memory(
    spec: &Slicing,
    slice: &SliceSpec,
    fits: &dyn Fn(&Change) -> bool,
) -> Option<Change> {
    let page = slice.hugepages.unwrap_or(ByteSize::from_mib(1));
    let step = page.bytes().checked_mul(u64::from(demand::cells(slice)))?;
    let with = |steps: u64| Change::Memory {
        slice: slice.name.clone(),
        size: ByteSize::from_bytes(steps * step),
    };
    // What is too little for any guest counts as fitting, to find the most that fits.
    let enough = |steps: u64| {
        let change = with(steps);
        change.apply(spec).is_none() || fits(&change)
    };
    let (mut low, mut high) = (0, slice.memory.bytes().checked_div(step)?);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(with(low)).filter(|change| fits(change))
}

fn reserves(spec: &Slicing) -> Vec<Change> {
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

fn without(slice: &SliceSpec) -> Vec<Change> {
    vec![Change::Without {
        slice: slice.name.clone(),
    }]
}

/// Virtual functions for one whole NIC that is named, or for one of each of two slices.
fn virtual_functions(slices: &[&SliceSpec]) -> Vec<Change> {
    let cards: Vec<(SliceName, usize, String)> = slices
        .iter()
        .flat_map(|slice| {
            slice
                .nics
                .iter()
                .enumerate()
                .filter_map(|(nic, card)| match &card.kind {
                    NicKind::Passthrough { device } => {
                        Some((slice.name.clone(), nic, written(device)?))
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
fn whole(slice: &SliceSpec) -> Vec<Change> {
    let cards = slice.nics.iter().enumerate();
    cards
        .filter_map(|(nic, card)| match &card.kind {
            NicKind::Vf { of, .. } => Some(Change::Whole {
                slice: slice.name.clone(),
                nic,
                of: written(of)?,
            }),
            NicKind::Passthrough { .. } | NicKind::Virtio { .. } => None,
        })
        .collect()
}

/// Other NICs for those that are named.
fn other_nics(slice: &SliceSpec, inventory: &Inventory) -> Vec<Change> {
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
                slice: slice.name.clone(),
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
