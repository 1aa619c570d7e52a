//! Which slices ask for the same, and how many cores they take.
//!
//! Takes the spec and the servers; gives each slice a number that it shares with those of which it
//! does not matter which is which. What was found of one then holds for all of them.

use std::collections::BTreeSet;

use bmslice_spec::{NicChoice, NicKind, NicNuma, SliceSpec, Slicing};

use super::Member;
use crate::demand;
use crate::server;
use crate::siblings;

/// The kinds of slices, and what one takes where.
#[derive(Debug)]
pub(super) struct Kinds {
    /// By slice.
    pub of: Vec<usize>,
    /// By kind: the first slice of it.
    pub first: Vec<usize>,
    /// The different classes of cores of servers.
    classes: Vec<Vec<usize>>,
    /// By kind, then classes: the fewest units of cores, in all cells.
    cores: Vec<Vec<u32>>,
    /// Units of a core: two where odd vCPUs may share one, else one.
    pub per_core: u32,
}

impl Kinds {
    /// Those that are in force, or that libvirt knows by name, are each of a kind of their own.
    pub fn new(spec: &Slicing, members: &[Member<'_>], in_force: &[Option<usize>]) -> Self {
        let known: BTreeSet<&str> = members
            .iter()
            .flat_map(|member| server::domains_of(member.inventory))
            .map(|domain| domain.name.as_str())
            .collect();
        let mut kinds = Self {
            of: Vec::with_capacity(spec.slices.len()),
            first: Vec::new(),
            classes: Vec::new(),
            cores: Vec::new(),
            per_core: if spec.slices.iter().any(siblings::shares) {
                2
            } else {
                1
            },
        };
        let mut open: Vec<usize> = Vec::new();
        for (at, slice) in spec.slices.iter().enumerate() {
            let own = in_force[at].is_some() || known.contains(slice.name.as_str());
            let like = |&&kind: &&usize| demand::ask_alike(&spec.slices[kinds.first[kind]], slice);
            let kind = match open.iter().find(like).filter(|_| !own) {
                Some(&kind) => kind,
                None => {
                    kinds.first.push(at);
                    kinds.cores.push(Vec::new());
                    kinds.first.len() - 1
                }
            };
            if !own && kinds.first[kind] == at {
                open.push(kind);
            }
            kinds.of.push(kind);
        }
        kinds
    }

    /// The number of these classes, with what each kind takes of them.
    pub fn number(&mut self, spec: &Slicing, classes: &[usize]) -> usize {
        let known = self.classes.iter().position(|known| known == classes);
        known.unwrap_or_else(|| {
            for (cores, &first) in self.cores.iter_mut().zip(&self.first) {
                let slice = &spec.slices[first];
                let cells = demand::cells(slice);
                let takes = demand::vcpu_takes(slice.vcpus / cells, slice.smt, classes);
                let two = classes.iter().position(|&threads| threads == 2);
                let two = two.filter(|_| siblings::shares(slice));
                let units = |take: &Vec<u32>| {
                    let odd = two.is_some_and(|class| take[class] > 0);
                    take.iter().sum::<u32>() * self.per_core - u32::from(odd)
                };
                let fewest = takes.iter().map(units).min();
                let pool = demand::least_pool(slice) * self.per_core;
                cores.push(fewest.unwrap_or(0) * cells + pool);
            }
            self.classes.push(classes.to_vec());
            self.classes.len() - 1
        })
    }

    /// The fewest [units](Kinds::per_core) that a slice takes of a server with these classes.
    pub fn needs(&self, slice: usize, classes: usize) -> u32 {
        self.cores[self.of[slice]][classes]
    }

    /// As [`Kinds::needs`], where it takes least of all servers.
    pub fn least(&self, slice: usize) -> u32 {
        let cores = self.cores[self.of[slice]].iter();
        cores.min().copied().unwrap_or(0)
    }
}

/// Whether a slice has a card that is to be near if possible.
pub(super) fn prefers_near(slice: &SliceSpec) -> bool {
    slice.nics.iter().any(|nic| match &nic.kind {
        NicKind::Passthrough { device: choice } | NicKind::Vf { of: choice, .. } => {
            let NicChoice::Need { numa, .. } = choice else {
                return true;
            };
            *numa == NicNuma::Prefer
        }
        NicKind::Virtio { .. } => false,
    })
}
