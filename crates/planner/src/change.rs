//! A change to a spec that might make it fit.
//!
//! Takes a spec; gives the spec with the change made, says it for people. Which
//! change would do is found elsewhere ([`nearest`](crate::nearest)).

use std::collections::BTreeSet;
use std::fmt;

use bmslice_model::{ByteSize, NumaNodeId, SliceName};
use bmslice_spec::{HostSpec, NicChoice, NicKind, NicNuma, Numa, Sharing, SliceSpec, Slicing, Smt};

use crate::text::{and, named, ticked};

/// More slices than this that are left out are not all named.
const MOST_TOLD: usize = 8;

/// One change to what is wanted. Its slices are those that the file names: of replicas, all.
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
    /// Siblings of odd vCPUs go to others of the tenant.
    Share {
        /// The slices that are to say so.
        slices: Vec<SliceName>,
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
    /// Fewer cores that stay free.
    Headroom {
        /// Whole cores.
        cores: u32,
    },
    /// Any server, whatever its labels.
    AnyLabels {
        /// The slice.
        slice: SliceName,
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
    /// A slice need not be apart from others.
    NotApart {
        /// The slice.
        slice: SliceName,
    },
    /// One slice is left out.
    Without {
        /// The slice.
        slice: SliceName,
    },
    /// Several slices are left out.
    LeaveOut {
        /// The slices.
        slices: Vec<SliceName>,
        /// Those that stay.
        rest: Vec<SliceName>,
    },
    /// Fewer slices of those that are written as one.
    Replicas {
        /// The slice.
        slice: SliceName,
        /// How many.
        replicas: u32,
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
                    "with `passthrough: {of}` instead of the virtual function for slice `{slice}` it fits"
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
            Self::Share { slices } => write!(
                f,
                "with `sharing: tenant` for {} (odd vCPUs of a tenant then share cores) it fits",
                named(slices)
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
            Self::Headroom { cores: 0 } => f.write_str("without `headroom` it fits"),
            Self::Headroom { cores } => {
                write!(f, "with `headroom: {{ cores: {cores} }}` it fits")
            }
            Self::AnyLabels { slice } => {
                write!(f, "without `selector` for slice `{slice}` it fits")
            }
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
            Self::NotApart { slice } => write!(f, "without `apart` for slice `{slice}` it fits"),
            Self::Without { slice } => write!(f, "without slice `{slice}` the others fit"),
            Self::LeaveOut { slices, rest } => match slices.as_slice() {
                all if all.len() <= MOST_TOLD => write!(
                    f,
                    "without the slices {} the others fit",
                    and(all.iter().map(ticked))
                ),
                _ if rest.len() <= MOST_TOLD => {
                    let word = if rest.len() == 1 { "slice" } else { "slices" };
                    let rest = and(rest.iter().map(ticked));
                    write!(f, "with only the {word} {rest} it fits")
                }
                [first, .., last] => write!(
                    f,
                    "without {} slices (from `{first}` to `{last}`) the others fit",
                    slices.len()
                ),
                _ => Ok(()),
            },
            Self::Replicas { slice, replicas } => {
                write!(f, "with `replicas: {replicas}` for slice `{slice}` it fits")
            }
            Self::Together(changes) => {
                let parts = changes.iter().map(|change| {
                    let text = change.to_string();
                    let text = text.strip_suffix(" it fits").unwrap_or(&text);
                    let text = text.strip_suffix(" the others fit").unwrap_or(text);
                    text.to_owned()
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
        self.make(&mut host, &mut slices);
        Slicing::new(host, slices).ok()
    }

    /// Makes the change, whether or not the rules of specs hold then.
    pub(crate) fn make(&self, host: &mut HostSpec, slices: &mut Vec<SliceSpec>) {
        // Those that are written as one change as one.
        let mut edit = |name: &SliceName, edit: &dyn Fn(&mut SliceSpec)| {
            for slice in slices.iter_mut().filter(|slice| slice.written() == name) {
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
                            card.take_from_host = false;
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
                if let Some(card) = s.nics.get_mut(*nic)
                    && let Some(old) = choice_mut(&mut card.kind)
                {
                    *old = choice.clone();
                    // What is proposed is free.
                    card.take_from_host = false;
                }
            }),
            Self::Vcpus { slice, vcpus } => edit(slice, &|s| s.vcpus = *vcpus),
            Self::Spread { slice, nodes } => edit(slice, &|s| s.numa = Numa::Spread(*nodes)),
            Self::PoolOnHost { slice } => edit(slice, &|s| s.emulator_cores = 0),
            Self::Share { slices } => {
                for slice in slices {
                    edit(slice, &|s| s.sharing = Sharing::Tenant);
                }
            }
            Self::Pack { slice } => edit(slice, &|s| s.smt = Smt::Pack),
            Self::Memory { slice, size } => edit(slice, &|s| s.memory = *size),
            Self::Reserve { cores, per_numa } => {
                host.reserve_cores = *cores;
                host.reserve_per_numa = *per_numa;
            }
            Self::Headroom { cores } => host.headroom_cores = *cores,
            Self::AnyLabels { slice } => edit(slice, &|s| s.selector = None),
            Self::AnyServer { slice, server } => edit(slice, &|s| {
                s.server = Some(server.clone());
            }),
            Self::NotApart { slice } => edit(slice, &|s| s.apart = None),
            Self::Repack | Self::OneMore { .. } => {}
            Self::Without { slice } => slices.retain(|s| s.written() != slice),
            Self::LeaveOut { slices: all, .. } => {
                let all: BTreeSet<&SliceName> = all.iter().collect();
                slices.retain(|s| !all.contains(s.written()));
            }
            Self::Replicas { slice, replicas } => slices.retain(|s| {
                let replica = s.replica.as_ref();
                replica.is_none_or(|it| it.of != *slice || it.number <= *replicas)
            }),
            Self::Together(changes) => {
                for change in changes {
                    change.make(host, slices);
                }
            }
            Self::Partly(change) => change.make(host, slices),
        }
    }
}

fn choice_mut(kind: &mut NicKind) -> Option<&mut NicChoice> {
    match kind {
        NicKind::Passthrough { device } => Some(device),
        NicKind::Vf { of, .. } => Some(of),
        NicKind::Virtio { .. } => None,
    }
}
