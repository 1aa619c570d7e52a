//! Which guest lies where, as numbers that can be changed step by step.
//!
//! Takes the servers' nodes and the guests; gives a state in which guests are placed and taken
//! away. Keeps true: what is free on a node is never negative, and a guest's cells lie on distinct
//! nodes of one server.

use std::collections::BTreeMap;

use super::load::{self, Guest, Load, NodeShape, Sharing, VFS};

/// A node of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub server: usize,
    pub smt: bool,
    pub room: Load,
}

/// Guests that ask for the same.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub guest: Guest,
    pub cells: usize,
    pub count: u32,
    pub value: u32,
    /// By SMT (without, with), then cell; without virtual functions.
    pub loads: [[Option<Load>; 2]; 2],
    /// Whether cell 0 and cell 1 differ.
    pub ordered: bool,
}

/// How much dearer than at its best place a kind is on a node, by the prices of what is scarce:
/// by kind, then class of nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Regret {
    pub of: Vec<Vec<i32>>,
    /// By node; empty when nothing is known.
    pub class_of: Vec<usize>,
}

impl Regret {
    pub fn at(&self, kind: usize, spot: usize) -> i32 {
        match self.class_of.get(spot) {
            Some(&class) => self.of[kind][class],
            None => 0,
        }
    }
}

impl Kind {
    /// What a cell takes on such a node with so many of the virtual functions.
    pub fn load(&self, spot: &Spot, cell: usize, vfs: i32) -> Option<Load> {
        let mut load = self.loads[usize::from(spot.smt)][cell]?;
        load[VFS] = vfs;
        Some(load)
    }

    pub fn vfs(&self) -> i32 {
        i32::try_from(self.guest.vfs).unwrap_or(i32::MAX)
    }
}

/// The nodes and the guests: what does not change.
#[derive(Debug, Clone)]
pub(crate) struct Yard {
    pub spots: Vec<Spot>,
    /// By server: its first node, and the one after its last.
    pub servers: Vec<(usize, usize)>,
    pub kinds: Vec<Kind>,
    /// By guest; `None` for one that nothing could hold.
    pub kind_of: Vec<Option<usize>>,
}

/// What a guest counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Objective {
    /// One.
    #[default]
    Count,
    /// Its vCPUs.
    Vcpus,
}

impl Yard {
    pub fn new(
        servers: &[Vec<NodeShape>],
        guests: &[Guest],
        sharing: Sharing,
        objective: Objective,
    ) -> Self {
        let mut spots = Vec::new();
        let mut ranges = Vec::new();
        for (server, nodes) in servers.iter().enumerate() {
            let first = spots.len();
            spots.extend(nodes.iter().map(|node| Spot {
                server,
                smt: node.threads_per_core > 1,
                room: node.room(sharing),
            }));
            ranges.push((first, spots.len()));
        }
        let mut numbers: BTreeMap<Guest, usize> = BTreeMap::new();
        let mut kinds: Vec<Kind> = Vec::new();
        let mut kind_of = Vec::with_capacity(guests.len());
        for guest in guests {
            if !guest.is_sane() {
                kind_of.push(None);
                continue;
            }
            let number = *numbers.entry(*guest).or_insert_with(|| {
                let of = |smt, cell| guest.load(cell, smt, sharing);
                kinds.push(Kind {
                    guest: *guest,
                    cells: if guest.cells == 2 { 2 } else { 1 },
                    count: 0,
                    value: match objective {
                        Objective::Count => 1,
                        Objective::Vcpus => guest.vcpus,
                    },
                    loads: [[of(false, 0), of(false, 1)], [of(true, 0), of(true, 1)]],
                    ordered: [false, true].iter().any(|&smt| of(smt, 0) != of(smt, 1)),
                });
                kinds.len() - 1
            });
            kinds[number].count += 1;
            kind_of.push(Some(number));
        }
        Self {
            spots,
            servers: ranges,
            kinds,
            kind_of,
        }
    }

    /// By kind: its guests.
    pub fn guests(&self) -> Vec<Vec<usize>> {
        let mut guests = vec![Vec::new(); self.kinds.len()];
        for (guest, kind) in self.kind_of.iter().enumerate() {
            if let Some(kind) = *kind {
                guests[kind].push(guest);
            }
        }
        guests
    }

    /// By kind: whether an empty fleet could hold one of it.
    pub fn fit_empty(&self) -> Vec<bool> {
        let free: Vec<Load> = self.spots.iter().map(|spot| spot.room).collect();
        // Servers that are alike answer alike.
        let mut servers: BTreeMap<Vec<(bool, Load)>, usize> = BTreeMap::new();
        for (server, &(first, end)) in self.servers.iter().enumerate() {
            let nodes = self.spots[first..end].iter();
            let shape = nodes.map(|spot| (spot.smt, spot.room)).collect();
            servers.entry(shape).or_insert(server);
        }
        let holds = |kind: usize| {
            let mut servers = servers.values();
            servers.any(|&server| self.first_fit(kind, server, &free).is_some())
        };
        (0..self.kinds.len()).map(holds).collect()
    }

    /// The first place on a server that holds one of this kind.
    pub fn first_fit(&self, kind: usize, server: usize, free: &[Load]) -> Option<Place> {
        let (first, end) = self.servers[server];
        let facts = &self.kinds[kind];
        let has = |spot: usize, cell: usize, vfs: i32| {
            facts
                .load(&self.spots[spot], cell, vfs)
                .is_some_and(|load| load::fits(&load, &free[spot]))
        };
        if facts.cells == 1 {
            let spot = (first..end).find(|&spot| has(spot, 0, facts.vfs()))?;
            return Some(Place::one(spot, facts.vfs()));
        }
        for a in first..end {
            for b in (first..end).filter(|&b| b != a) {
                let here = facts.vfs().min(free[a][VFS]);
                let there = facts.vfs() - here;
                if has(a, 0, here) && has(b, 1, there) {
                    return Some(Place {
                        spots: [a, b],
                        vfs: [here, there],
                    });
                }
            }
        }
        None
    }
}

/// Where a guest lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of each cell; the same twice for a guest of one.
    pub spots: [usize; 2],
    /// Virtual functions of each node.
    pub vfs: [i32; 2],
}

impl Place {
    pub fn one(spot: usize, vfs: i32) -> Self {
        Self {
            spots: [spot, spot],
            vfs: [vfs, 0],
        }
    }
}

/// Who lies where.
#[derive(Debug, Clone)]
pub(crate) struct State<'y> {
    pub yard: &'y Yard,
    pub free: Vec<Load>,
    /// By node: guest and cell.
    pub here: Vec<Vec<(u32, u8)>>,
    /// By guest.
    pub places: Vec<Option<Place>>,
    /// Sum of the values of those that are placed.
    pub value: u64,
}

impl<'y> State<'y> {
    pub fn empty(yard: &'y Yard) -> Self {
        Self {
            free: yard.spots.iter().map(|spot| spot.room).collect(),
            here: vec![Vec::new(); yard.spots.len()],
            places: vec![None; yard.kind_of.len()],
            value: 0,
            yard,
        }
    }

    pub fn kind(&self, guest: usize) -> Option<&'y Kind> {
        self.yard.kind_of[guest].map(|kind| &self.yard.kinds[kind])
    }

    /// What a placed guest takes with one of its cells.
    pub fn load_of(&self, guest: usize, cell: usize) -> Load {
        let at = self.places[guest].zip(self.kind(guest));
        at.and_then(|(place, kind)| {
            kind.load(&self.yard.spots[place.spots[cell]], cell, place.vfs[cell])
        })
        .unwrap_or_default()
    }

    /// Places a guest that is not placed; whether it fitted.
    pub fn place(&mut self, guest: usize, place: Place) -> bool {
        let Some(kind) = self.kind(guest) else {
            return false;
        };
        let mut loads = [[0; 8]; 2];
        for cell in 0..kind.cells {
            let spot = place.spots[cell];
            match kind.load(&self.yard.spots[spot], cell, place.vfs[cell]) {
                Some(load) if load::fits(&load, &self.free[spot]) => loads[cell] = load,
                _ => return false,
            }
        }
        for cell in 0..kind.cells {
            let spot = place.spots[cell];
            load::take(&mut self.free[spot], &loads[cell]);
            self.here[spot].push((guest as u32, cell as u8));
        }
        self.places[guest] = Some(place);
        self.value += u64::from(kind.value);
        true
    }

    /// Takes a guest away.
    pub fn remove(&mut self, guest: usize) {
        let (Some(kind), Some(place)) = (self.kind(guest), self.places[guest]) else {
            return;
        };
        for cell in 0..kind.cells {
            let load = self.load_of(guest, cell);
            let spot = place.spots[cell];
            load::give(&mut self.free[spot], &load);
            self.here[spot].retain(|&(other, _)| other as usize != guest);
        }
        self.places[guest] = None;
        self.value -= u64::from(kind.value);
    }
}
