//! Why there is no plan.
//!
//! Takes what was found; says what was asked and what is there, to people, and by codes and names to
//! programs. What would do instead is said by [`hint`](crate::hint).

use bmslice_model::{ByteSize, CmdlineError, MacAddress, NumaNodeId, PciAddress, SliceName};
use bmslice_plan::{DeviceRef, PlanFileError};
use thiserror::Error;

use crate::change::Change;
use crate::text::{and, count, named, server, ticked};

/// A physical function that is there, for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicThere {
    /// `0000:01:00.0 (eno1)`.
    pub label: String,
    /// Its NUMA node, when firmware tells.
    pub node: Option<NumaNodeId>,
}

/// Why there is no plan. The message says what was asked and what is there; [`Refusal::hint`] says
/// what would do.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The inventory has no online CPU.
    #[error("the inventory of {} has no online CPU", server(hostname))]
    NoCpus {
        /// The server.
        hostname: String,
    },
    /// A server whose guests would not be those that are rendered.
    #[error(
        "{} is of architecture {architecture}, and slices are guests of x86_64",
        server(hostname)
    )]
    Architecture {
        /// The server.
        hostname: String,
        /// What it is.
        architecture: String,
    },
    /// A card that cannot be told from the others inside the guest.
    #[error(
        "slice `{slice}` configures the network of its NIC {nic}, whose MAC address is not known"
    )]
    MacUnknown {
        /// The slice.
        slice: SliceName,
        /// `0000:01:00.0 (eno1)`.
        nic: String,
    },
    /// libvirt has a domain of that name that is not this slice's.
    #[error(
        "libvirt already has a domain `{slice}` with UUID {uuid}, which was not made for this slice"
    )]
    NameTaken {
        /// The slice.
        slice: SliceName,
        /// The domain's.
        uuid: String,
    },
    /// More reserve than there are cores.
    #[error("the host is to keep {} {of} has {has}", count(*.asked, "whole core"))]
    Reserve {
        /// Whole cores.
        asked: u32,
        /// `in all; the server`, `on each NUMA node; node 1`.
        of: String,
        /// Cores that are there.
        has: usize,
    },
    /// A NIC that is not there.
    #[error("slice `{slice}` asks for the NIC `{asked}`, which is not there; there is {}", nics(.there))]
    NicAbsent {
        /// The slice.
        slice: SliceName,
        /// As written.
        asked: String,
        /// What is there.
        there: Vec<NicThere>,
        /// What was likely meant.
        near: Option<String>,
    },
    /// A virtual function named as if it were a physical one.
    #[error("slice `{slice}` asks for `{asked}`, which is a virtual function of {pf}")]
    NicIsVf {
        /// The slice.
        slice: SliceName,
        /// As written.
        asked: String,
        /// The physical function.
        pf: String,
        /// How to name it in a spec.
        of: Option<String>,
    },
    /// A PCI function that is no network card.
    #[error(
        "slice `{slice}` asks for `{asked}` as a NIC, which is {} (class {class}); there is {}",
        .name.as_deref().unwrap_or("something else"), nics(.there)
    )]
    NotANic {
        /// The slice.
        slice: SliceName,
        /// As written.
        asked: String,
        /// Its PCI class.
        class: String,
        /// What it is.
        name: Option<String>,
        /// What is there.
        there: Vec<NicThere>,
    },
    /// A NIC that carries the host.
    #[error("slice `{slice}` cannot have {device}: the host needs it, since {why}")]
    NicHostNeeds {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
        /// What for.
        why: String,
        /// The NIC, where `takeFromHost` would do.
        take: Option<Box<DeviceRef>>,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// A NIC whose IOMMU group holds something that carries the host.
    #[error(
        "slice `{slice}` cannot have {device}: it goes with its whole IOMMU group ({}), and the host needs {member}, since {why}",
        and(group.iter())
    )]
    GroupHostNeeds {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
        /// Its group, without bridges.
        group: Vec<PciAddress>,
        /// The member that the host needs.
        member: PciAddress,
        /// What for.
        why: String,
        /// The NIC, where `takeFromHost` would do.
        take: Option<Box<DeviceRef>>,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// A NIC that somebody else's running domain has.
    #[error(
        "slice `{slice}` cannot have {device}: the running domain `{domain}` has it or a part of it"
    )]
    NicInUse {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
        /// Whose.
        domain: String,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// A VF of a NIC without SR-IOV.
    #[error("slice `{slice}` asks for a virtual function of {device}, which has no SR-IOV")]
    NoSriov {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// A NIC that firmware keeps memory for.
    #[error(
        "slice `{slice}` cannot have {device}: firmware keeps memory of its own for it (RMRR), so that the kernel gives it to no guest"
    )]
    NicRmrr {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// Nobody tells where the VFs will be.
    #[error(
        "the virtual functions of {device}, of which slice `{slice}` asks for one, cannot be planned: neither they nor the function's `sriov_offset` and `sriov_stride` are in the inventory"
    )]
    NoVfAddress {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
    },
    /// VFs that share their IOMMU group.
    #[error(
        "slice `{slice}` cannot have a virtual function of {device}: the IOMMU cannot keep them apart, since {} are one group",
        and(group.iter())
    )]
    VfGroup {
        /// The slice.
        slice: SliceName,
        /// The NIC.
        device: String,
        /// A group of several.
        group: Vec<PciAddress>,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// Two cards that name one function.
    #[error(
        "{}",
        if .first == .second {
            format!("slice `{first}` asks twice for the whole of {device}")
        } else {
            format!("slices `{first}` and `{second}` both ask for the whole of {device}")
        }
    )]
    NicGivenTwice {
        /// The NIC.
        device: String,
        /// One slice.
        first: SliceName,
        /// The other.
        second: SliceName,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// A function passed whole and split.
    #[error(
        "slice `{whole}` asks for the whole of {device} and slice `{split}` for a virtual function of it: a NIC is passed whole or split, not both"
    )]
    WholeAndSplit {
        /// The NIC.
        device: String,
        /// Who wants all of it.
        whole: SliceName,
        /// Who wants a part.
        split: SliceName,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// Two slices with members of one group.
    #[error(
        "slice `{slice}` asks for the whole of {device}, which goes with its whole IOMMU group ({}), and {other} of that group is asked for {}",
        and(group.iter()),
        if .slice == .other_slice { "as a virtual function".to_owned() } else { format!("by slice `{other_slice}`") }
    )]
    GroupShared {
        /// The NIC.
        device: String,
        /// Its group, without bridges.
        group: Box<[PciAddress]>,
        /// Who wants it.
        slice: SliceName,
        /// The other member.
        other: String,
        /// Who wants that.
        other_slice: SliceName,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// More VFs than there are.
    #[error(
        "{asked} virtual functions of {device} are asked for, the last ones by slice `{slice}`; it has {total}, of which {free} are free"
    )]
    VfTotal {
        /// The NIC.
        device: String,
        /// How many are asked for.
        asked: usize,
        /// How many may be given.
        free: usize,
        /// `sriov_totalvfs`.
        total: u32,
        /// The first that gets none.
        slice: SliceName,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// vCPUs or memory that cells cannot share evenly.
    #[error("slice `{slice}` asks for {what}, which {cells} guest cells cannot share evenly")]
    Uneven {
        /// The slice.
        slice: SliceName,
        /// How many cells.
        cells: u32,
        /// Of what.
        what: String,
        /// What would be right.
        near: String,
    },
    /// Odd vCPUs that are to share cores which have more than one sibling left.
    #[error(
        "slice `{slice}` asks for `sharing: tenant`, and {} in a cell do not fill cores of {threads} threads: only cores of 2 threads are shared",
        count(*.vcpus, "vCPU")
    )]
    WideCores {
        /// The slice.
        slice: SliceName,
        /// vCPUs of each guest cell.
        vcpus: u32,
        /// Threads of a core.
        threads: usize,
    },
    /// A page size that the server lacks.
    #[error(
        "slice `{slice}` asks for huge pages of {size}; the server has {}",
        if .offered.is_empty() { "none".to_owned() } else { and(.offered.iter()) }
    )]
    NoSuchPage {
        /// The slice.
        slice: SliceName,
        /// The size.
        size: ByteSize,
        /// The sizes that are there.
        offered: Vec<ByteSize>,
    },
    /// A node that is not there.
    #[error("slice `{slice}` asks for NUMA node {node}; the server has {}", numbers(.nodes))]
    NoSuchNode {
        /// The slice.
        slice: SliceName,
        /// The node.
        node: NumaNodeId,
        /// The nodes that are there.
        nodes: Vec<NumaNodeId>,
    },
    /// More cells than nodes.
    #[error("slice `{slice}` is to be spread over {}; the server has {}", count(*.cells, "NUMA node"), numbers(.nodes))]
    SpreadTooWide {
        /// The slice.
        slice: SliceName,
        /// The cells.
        cells: usize,
        /// The nodes that are there.
        nodes: Vec<NumaNodeId>,
    },
    /// One MAC for two cards.
    #[error(
        "{} the MAC {mac}",
        if .first == .second {
            format!("two cards of slice `{first}` have")
        } else {
            format!("a card of slice `{first}` and one of slice `{second}` have")
        }
    )]
    MacTwice {
        /// The MAC.
        mac: MacAddress,
        /// One slice.
        first: SliceName,
        /// The other.
        second: SliceName,
    },
    /// A slice that is for a server which this is not.
    #[error("slice `{slice}` is for the server `{server}`; this is `{here}`")]
    OtherServer {
        /// The slice.
        slice: SliceName,
        /// The server that it names.
        server: String,
        /// The server that is planned.
        here: String,
    },
    /// A slice whose labels this server does not have.
    #[error(
        "slice `{slice}` is for servers with the labels `{labels}`, which `{here}` does not have"
    )]
    Selector {
        /// The slice.
        slice: SliceName,
        /// The labels that it selects by.
        labels: String,
        /// The server that is planned.
        here: String,
        /// The servers that have them.
        servers: Vec<String>,
    },
    /// Two slices of a group whose slices lie on different servers.
    #[error(
        "slices `{first}` and `{second}` are to be on different servers, as the group `{group}` says"
    )]
    Apart {
        /// One slice.
        first: SliceName,
        /// The other.
        second: SliceName,
        /// Their group.
        group: String,
    },
    /// The smallest set of slices and requirements that cannot hold together.
    #[error("{asked}; {there}")]
    NoRoom {
        /// The slices, none of which could be left out of the contradiction.
        slices: Vec<SliceName>,
        /// What they need.
        asked: String,
        /// What is there.
        there: String,
        /// What would do.
        change: Option<Box<Change>>,
    },
    /// The search was bounded.
    #[error(
        "after {} it is not known whether {} fit together on this server",
        count(*.steps, "step"),
        named(.slices)
    )]
    Undecided {
        /// The effort.
        steps: u64,
        /// All slices.
        slices: Vec<SliceName>,
    },
    /// A plan whose invariants do not hold: a mistake of the planner, caught by the plan.
    #[error("the planner made a plan that does not hold")]
    Unsound(#[from] PlanFileError),
    /// A boot argument that cannot be written.
    #[error("a boot argument cannot be written")]
    Argument(#[from] CmdlineError),
}

impl Refusal {
    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCpus { .. } => "no-cpus",
            Self::Architecture { .. } => "architecture",
            Self::MacUnknown { .. } => "mac-unknown",
            Self::NameTaken { .. } => "name-taken",
            Self::Reserve { .. } => "reserve",
            Self::NicAbsent { .. } => "nic-absent",
            Self::NicIsVf { .. } => "nic-is-vf",
            Self::NotANic { .. } => "not-a-nic",
            Self::NicHostNeeds { .. } => "nic-host-needs",
            Self::GroupHostNeeds { .. } => "group-host-needs",
            Self::NicInUse { .. } => "nic-in-use",
            Self::NoSriov { .. } => "no-sriov",
            Self::NicRmrr { .. } => "nic-rmrr",
            Self::NoVfAddress { .. } => "no-vf-address",
            Self::VfGroup { .. } => "vf-group",
            Self::NicGivenTwice { .. } => "nic-given-twice",
            Self::WholeAndSplit { .. } => "whole-and-split",
            Self::GroupShared { .. } => "group-shared",
            Self::VfTotal { .. } => "vf-total",
            Self::Uneven { .. } => "uneven",
            Self::WideCores { .. } => "wide-cores",
            Self::NoSuchPage { .. } => "no-such-page",
            Self::NoSuchNode { .. } => "no-such-node",
            Self::SpreadTooWide { .. } => "spread-too-wide",
            Self::MacTwice { .. } => "mac-twice",
            Self::OtherServer { .. } => "other-server",
            Self::Selector { .. } => "selector",
            Self::Apart { .. } => "apart",
            Self::NoRoom { .. } => "no-room",
            Self::Undecided { .. } => "undecided",
            Self::Unsound(_) => "unsound",
            Self::Argument(_) => "argument",
        }
    }

    /// The slices that it is about.
    #[must_use]
    pub fn slices(&self) -> Vec<&SliceName> {
        match self {
            Self::NoCpus { .. }
            | Self::Architecture { .. }
            | Self::Reserve { .. }
            | Self::Unsound(_)
            | Self::Argument(_) => Vec::new(),
            Self::NameTaken { slice, .. }
            | Self::MacUnknown { slice, .. }
            | Self::NicAbsent { slice, .. }
            | Self::NicIsVf { slice, .. }
            | Self::NotANic { slice, .. }
            | Self::NicHostNeeds { slice, .. }
            | Self::GroupHostNeeds { slice, .. }
            | Self::NicInUse { slice, .. }
            | Self::NoSriov { slice, .. }
            | Self::NicRmrr { slice, .. }
            | Self::NoVfAddress { slice, .. }
            | Self::VfGroup { slice, .. }
            | Self::VfTotal { slice, .. }
            | Self::Uneven { slice, .. }
            | Self::WideCores { slice, .. }
            | Self::NoSuchPage { slice, .. }
            | Self::NoSuchNode { slice, .. }
            | Self::SpreadTooWide { slice, .. }
            | Self::OtherServer { slice, .. }
            | Self::Selector { slice, .. } => vec![slice],
            Self::NicGivenTwice { first, second, .. }
            | Self::MacTwice { first, second, .. }
            | Self::Apart { first, second, .. } => {
                vec![first, second]
            }
            Self::WholeAndSplit { whole, split, .. } => vec![whole, split],
            Self::GroupShared {
                slice, other_slice, ..
            } => vec![slice, other_slice],
            Self::NoRoom { slices, .. } | Self::Undecided { slices, .. } => slices.iter().collect(),
        }
    }
}

fn nics(there: &[NicThere]) -> String {
    if there.is_empty() {
        return "no NIC at all".into();
    }
    and(there.iter().map(|nic| match nic.node {
        Some(node) => format!("{} on node {node}", nic.label),
        None => nic.label.clone(),
    }))
}

fn numbers(nodes: &[NumaNodeId]) -> String {
    let word = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("{word} {}", and(nodes.iter()))
}

/// Used by messages of other modules, too.
pub(crate) fn slice_named(name: &SliceName) -> String {
    format!("slice {}", ticked(name))
}
