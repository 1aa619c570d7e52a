//! What would do instead of what is refused (planning rule 10).
//!
//! Takes a refusal; gives a hint for people: the nearest change, which is only named after it was
//! tried, or how to write what was meant.

use crate::change::Change;
use crate::refusal::Refusal;

impl Refusal {
    /// What would make it fit, lower case, without a full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let nearest = self.change().map(ToString::to_string);
        if let Self::NicHostNeeds { take, .. } | Self::GroupHostNeeds { take, .. } = self {
            let all_the_same = take.as_ref().map(|device| {
                let named = match &device.interface {
                    Some(name) => format!("name: {name}"),
                    None => format!("pci: \"{}\"", device.address),
                };
                format!(
                    "to take it from the host all the same, write `passthrough: {{ {named}, takeFromHost: true }}`, and apply at the server's own console"
                )
            });
            let both: Vec<String> = nearest.into_iter().chain(all_the_same).collect();
            return (!both.is_empty()).then(|| both.join("; or, "));
        }
        if nearest.is_some() {
            return nearest;
        }
        match self {
            Self::NicAbsent {
                near: Some(near), ..
            } => Some(format!("did you mean `{near}`?")),
            Self::NicAbsent { .. } => Some(
                "a NIC that a guest has shows neither name nor MAC: name it by its PCI address"
                    .into(),
            ),
            Self::NicIsVf { of: Some(of), .. } => Some(format!(
                "write `vf: {{ of: {of} }}`: which of its functions it becomes is planned"
            )),
            Self::NameTaken { slice, .. } => Some(format!(
                "give the slice another name, or take the domain away with `virsh undefine {slice}`"
            )),
            Self::Reserve { has, .. } if *has > 0 => Some(format!(
                "write `reserve: {{ cores: {} }}`",
                has.saturating_sub(1).max(1)
            )),
            Self::Uneven { near, .. } => Some(near.clone()),
            Self::WideCores { threads, .. } => Some(format!(
                "leave `sharing` out, or ask for a multiple of {threads} vCPUs in each cell"
            )),
            Self::NoSuchPage { offered, .. } => Some(match offered.first() {
                Some(size) => format!("write `hugepages: {size}`"),
                None => "leave `hugepages` out".into(),
            }),
            Self::NoSuchNode { nodes, .. } => {
                let first = nodes.first()?;
                Some(format!(
                    "write `numa: {{ node: {first} }}` or `numa: single`"
                ))
            }
            Self::SpreadTooWide { nodes, .. } if nodes.len() > 1 => {
                Some(format!("write `numa: {{ spread: {} }}`", nodes.len()))
            }
            Self::SpreadTooWide { .. } => Some("write `numa: single`".into()),
            Self::MacUnknown { .. } => Some(
                "give the NIC back to its driver and read the inventory again, or leave `network` out"
                    .into(),
            ),
            Self::OtherServer { server, .. } => Some(format!(
                "plan the servers together: give `--inventory` of `{server}`, too"
            )),
            Self::Selector { servers, .. } => Some(match servers.as_slice() {
                [] => "give a server these labels, under `fleet: { servers: … }`".into(),
                [one] => format!("plan it on `{one}`: give `--inventory` of it, too"),
                [first, ..] => format!(
                    "plan it on one of {} servers that have them, as `{first}`: give `--inventory` of it, too",
                    servers.len()
                ),
            }),
            Self::Apart { .. } => Some(
                "plan several servers together: give `--inventory` of one more".into(),
            ),
            Self::MacTwice { .. } => Some("write `mac: auto` for one of them".into()),
            Self::Undecided { .. } => {
                Some("say of the largest slices where they go, with `numa: { node: N }`".into())
            }
            Self::Unsound(_) | Self::Argument(_) => Some(
                "this is a mistake of bmslice, unless the inventory was changed by hand: report it with the spec and a capture of the server"
                    .into(),
            ),
            Self::NoVfAddress { .. } => {
                Some("make one virtual function on the server and read the inventory again".into())
            }
            _ => None,
        }
    }

    /// The change that was tried and would do.
    #[must_use]
    pub fn change(&self) -> Option<&Change> {
        self.place()?.as_deref()
    }

    /// Whether a change can make it fit at all.
    pub(crate) fn has_change(&self) -> bool {
        self.place().is_some()
    }

    /// The place for a change, in refusals that can have one.
    fn place(&self) -> Option<&Option<Box<Change>>> {
        match self {
            Self::NicHostNeeds { change, .. }
            | Self::GroupHostNeeds { change, .. }
            | Self::NicInUse { change, .. }
            | Self::NoSriov { change, .. }
            | Self::NicRmrr { change, .. }
            | Self::VfGroup { change, .. }
            | Self::NicGivenTwice { change, .. }
            | Self::WholeAndSplit { change, .. }
            | Self::GroupShared { change, .. }
            | Self::VfTotal { change, .. }
            | Self::NoRoom { change, .. } => Some(change),
            _ => None,
        }
    }

    /// The same place, to put one there.
    pub(crate) fn change_mut(&mut self) -> Option<&mut Option<Box<Change>>> {
        match self {
            Self::NicHostNeeds { change, .. }
            | Self::GroupHostNeeds { change, .. }
            | Self::NicInUse { change, .. }
            | Self::NoSriov { change, .. }
            | Self::NicRmrr { change, .. }
            | Self::VfGroup { change, .. }
            | Self::NicGivenTwice { change, .. }
            | Self::WholeAndSplit { change, .. }
            | Self::GroupShared { change, .. }
            | Self::VfTotal { change, .. }
            | Self::NoRoom { change, .. } => Some(change),
            _ => None,
        }
    }
}
