//! The rules that a slicing keeps whatever made it: a file, or a program through [`Slicing::new`].
//!
//! Takes sealed parts, gives every [`Violation`] with the path of the field that it is about.
//! `seal` turns paths into places of the file.
//!
//! [`Slicing::new`]: crate::Slicing::new

use std::fmt;

use bmslice_model::{ByteSize, count};
use thiserror::Error;

use crate::fleet::{self, FleetSpec};
use crate::sealed::{HostSpec, Isolation, Numa, Sharing, SliceSpec, Smt};
use crate::{guest, host};

mod between;
mod nics;

/// KVM's limit on x86-64 (`KVM_MAX_VCPUS` is configured up to 4096).
const VCPUS: u32 = 4096;
/// No kernel boots in less.
const LEAST_MEMORY: ByteSize = ByteSize::from_mib(32);
/// What five-level page tables address (52 bits).
const MOST_MEMORY: ByteSize = ByteSize::from_gib(4 << 20);

/// A slicing that breaks rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct InvalidSlicing {
    /// Which; at least one.
    pub violations: Vec<Violation>,
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field that it is about.
    pub at: Path,
    /// What is wrong; lower case, no final stop.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The other place, when two do not go together, and what it is.
    pub related: Option<(Path, String)>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// A field's place: `slices[1].memory.size`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a field.
    Field(&'static str),
    /// Into an element of a list, from 0.
    Index(usize),
    /// To a key that the user chose.
    Key(String),
}

impl Path {
    /// The steps from the document down.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(crate) fn field(&self, name: &'static str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Field(name));
        path
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if i == 0 => write!(f, "{name}")?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// Collects violations.
#[derive(Default)]
pub(crate) struct Found(Vec<Violation>);

impl Found {
    pub(crate) fn say(&mut self, at: Path, message: impl Into<String>, hint: impl Into<String>) {
        let hint: String = hint.into();
        self.0.push(Violation {
            at,
            message: message.into(),
            hint: (!hint.is_empty()).then_some(hint),
            related: None,
        });
    }

    pub(crate) fn clash(
        &mut self,
        at: Path,
        message: String,
        hint: &str,
        first: Path,
        label: &str,
    ) {
        self.say(at, message, hint);
        if let Some(last) = self.0.last_mut() {
            last.related = Some((first, label.into()));
        }
    }
}

/// Every rule that does not hold, of slices with their places in the list.
pub(crate) fn violations(host: &HostSpec, slices: &[(usize, &SliceSpec)]) -> Vec<Violation> {
    let mut found = Found::default();
    let root = Path::default();
    host::rules(host, &root.field("host"), &mut found);
    fleet::headroom(host, &mut found);
    if slices.is_empty() {
        found.say(
            root.field("slices"),
            "there are no slices",
            "write at least one; `bmslice release` gives a server back",
        );
    }
    // Replicas, which have one place, differ in nothing that most rules look at.
    let mut once = slices.to_vec();
    once.dedup_by_key(|(i, _)| *i);
    for (i, slice) in &once {
        let at = root.field("slices").index(*i);
        cpu_rules(slice, &at, &mut found);
        if host.isolation == Isolation::Dynamic && slice.emulator_cores == 0 {
            found.clash(
                at.field("emulator").field("cores"),
                "a guest in a partition of CPUs cannot run its emulator on the host's".into(),
                "write 1: a cgroup partition holds all threads of a guest",
                root.field("host").field("isolation"),
                "a partition is asked for here",
            );
        }
        memory_rules(slice, &at, &mut found);
        nics::nic_rules(slice, &at, &mut found);
        server_rules(slice, &at, &mut found);
        apart_rules(slice, &at, &mut found);
        guest::rules(slice, &at, &mut found);
    }
    between::unique_names(slices, &mut found);
    between::one_pool(&once, &mut found);
    between::unique_devices(slices, &mut found);
    between::apart_on_one(slices, &mut found);
    between::bases_are_no_disks(host, slices, &mut found);
    found.0
}

/// Every rule of a fleet that does not hold; of its servers, and of slices that select them.
pub(crate) fn of_fleet(fleet: &FleetSpec, slices: &[(usize, &SliceSpec)]) -> Vec<Violation> {
    let mut found = Found::default();
    fleet::rules(fleet, slices, &mut found);
    found.0
}

/// A host name as `hostname(7)` has it: up to 253 letters, digits, dots and hyphens.
pub(crate) fn is_host_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let ends = outer(name.chars().next()) && outer(name.chars().next_back());
    name.len() <= 253 && ends && name.chars().all(inner)
}

fn server_rules(slice: &SliceSpec, at: &Path, found: &mut Found) {
    let Some(server) = &slice.server else { return };
    if !is_host_name(server) {
        found.say(
            at.field("server"),
            format!("`{}` is no host name", crate::diagnostic::shown(server)),
            "write what `hostname` says on that server, as `server: edge1`",
        );
    }
}

/// A group's name, of the characters of a tenant's.
fn apart_rules(slice: &SliceSpec, at: &Path, found: &mut Found) {
    let Some(group) = &slice.apart else { return };
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let first = group.chars().next();
    let begins = first.is_some_and(|c| c.is_ascii_alphanumeric());
    if group.len() > 63 || !begins || !group.chars().all(inner) {
        found.say(
            at.field("apart"),
            format!("`{}` is no name of a group", crate::diagnostic::shown(group)),
            "write up to 63 letters, digits, `_`, `.` and `-`, the same for each slice of the group, as `apart: red-workers`",
        );
    }
}

fn cpu_rules(slice: &SliceSpec, at: &Path, found: &mut Found) {
    let seconds = slice.up_within_seconds;
    if seconds > 3600 {
        found.say(
            at.field("upWithinSeconds"),
            format!("nobody waits {} for a guest", count(seconds, "second")),
            "1 to 3600 are possible; 0 for a guest that nobody waits for",
        );
    }
    let vcpus = slice.vcpus;
    if !(1..=VCPUS).contains(&vcpus) {
        found.say(
            at.field("vcpus"),
            format!("a guest cannot have {}", count(vcpus, "vCPU")),
            format!("1 to {VCPUS} are possible with KVM"),
        );
    }
    if slice.sharing == Sharing::Tenant && slice.smt != Smt::Pack {
        let (word, why) = match slice.smt {
            Smt::Isolate => ("isolate", "it keeps the siblings of its vCPUs idle"),
            Smt::Pack | Smt::Any => ("any", "it promises nothing of siblings"),
        };
        found.clash(
            at.field("sharing"),
            format!("with `smt: {word}` no core is shared: {why}"),
            "leave `sharing` out, or write `smt: pack`",
            at.field("smt"),
            "asked for here",
        );
    }
    if slice.emulator_cores > 64 {
        let message = format!("{} cores for emulator threads", slice.emulator_cores);
        found.say(
            at.field("emulator").field("cores"),
            message,
            "0 to 64 are possible; 1 is plenty for most guests",
        );
    }
    if slice.iothreads > 64 {
        found.say(
            at.field("iothreads").field("count"),
            format!("{} IOThreads", slice.iothreads),
            "0 to 64 are possible; 1 serves one disk",
        );
    }
    match slice.numa {
        Numa::Single => {}
        Numa::Node(node) => {
            if node.0 > 1023 {
                found.say(
                    at.field("numa"),
                    format!("no server has a NUMA node {node}"),
                    "nodes are numbered from 0; `lscpu` shows them",
                );
            }
        }
        Numa::Spread(cells) => {
            if !(2..=64).contains(&cells) {
                found.say(
                    at.field("numa"),
                    format!(
                        "a guest cannot be spread over {}",
                        count(cells, "NUMA node")
                    ),
                    "write a number from 2 on, or `single` for one node",
                );
            } else if !vcpus.is_multiple_of(cells) {
                let (less, more) = (vcpus / cells * cells, vcpus.div_ceil(cells) * cells);
                let near = if less == 0 {
                    format!("write {}", count(more, "vCPU"))
                } else {
                    format!("write {less} or {more} vCPUs")
                };
                found.say(
                    at.field("numa"),
                    format!(
                        "{} cannot be divided equally over {cells} NUMA nodes",
                        count(vcpus, "vCPU")
                    ),
                    near,
                );
            }
        }
    }
}

fn memory_rules(slice: &SliceSpec, at: &Path, found: &mut Found) {
    let (size, at) = (slice.memory, at.field("memory"));
    if size < LEAST_MEMORY || size > MOST_MEMORY {
        found.say(
            at.field("size"),
            format!("a guest cannot have {size} of memory"),
            format!("{LEAST_MEMORY} to {MOST_MEMORY} are possible"),
        );
        return;
    }
    let page = match slice.hugepages {
        Some(page) if page != ByteSize::from_mib(2) && page != ByteSize::from_gib(1) => {
            found.say(
                at.field("hugepages"),
                format!("there are no huge pages of {page}"),
                "write `2MiB` or `1GiB`",
            );
            return;
        }
        Some(page) => page,
        // libvirt counts guest memory in KiB and QEMU rounds it up to MiB.
        None => ByteSize::from_mib(1),
    };
    let cells = match slice.numa {
        Numa::Spread(cells @ 2..=64) => u64::from(cells),
        _ => 1,
    };
    let step = ByteSize::from_bytes(page.bytes() * cells);
    if size.is_multiple_of(step) {
        return;
    }
    let less = ByteSize::from_bytes(size.bytes() / step.bytes() * step.bytes());
    let more = ByteSize::from_bytes(less.bytes() + step.bytes());
    let near = if less < LEAST_MEMORY {
        format!("write `{more}`")
    } else {
        format!("write `{less}` or `{more}`")
    };
    let what = match (slice.hugepages, cells) {
        (Some(_), 1) => format!("{size} is not made of whole huge pages of {page}"),
        (Some(_), _) => format!(
            "{size} over {cells} NUMA nodes is not made of whole huge pages of {page} on each"
        ),
        (None, 1) => format!("{size} is not a whole number of MiB"),
        (None, _) => format!("{size} over {cells} NUMA nodes is not a whole number of MiB on each"),
    };
    found.say(at.field("size"), what, near);
}
