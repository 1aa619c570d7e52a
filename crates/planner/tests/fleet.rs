//! Packings of guests on several servers: each is checked thread by thread by code that shares
//! nothing with the planner, and small ones against every placement there is.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::CpuId;
use bmslice_planner::fleet::{
    CellPins, CoreShape, Effort, Fleet, Guest, Located, NodeShape, Objective, Packing, Sharing,
    Threads, arrive, pack, pin, take_loose,
};
use proptest::prelude::*;

/// A server: its nodes' cores, memory and virtual functions.
#[derive(Debug, Clone)]
struct Host {
    tpc: u32,
    nodes: Vec<(Vec<CoreShape>, u32, u32)>,
}

impl Host {
    fn shapes(&self) -> Vec<NodeShape> {
        let nodes = self.nodes.iter();
        nodes
            .map(|(cores, memory, vfs)| NodeShape::of(cores, self.tpc, *memory, *vfs))
            .collect()
    }
}

fn shapes(hosts: &[Host]) -> Vec<Vec<NodeShape>> {
    hosts.iter().map(Host::shapes).collect()
}

/// The threads of every cell, or none when they cannot be given.
fn pins(
    hosts: &[Host],
    guests: &[Guest],
    packing: &Packing,
    sharing: Sharing,
) -> BTreeMap<(usize, usize), CellPins> {
    let mut all = BTreeMap::new();
    for (server, host) in hosts.iter().enumerate() {
        for node in 0..host.nodes.len() {
            let mut here = Vec::new();
            for (guest, seat) in packing.seats.iter().enumerate() {
                let Some(seat) = seat.as_ref().filter(|seat| seat.server == server) else {
                    continue;
                };
                let cells = seat.nodes.iter().enumerate().filter(|(_, n)| **n == node);
                here.extend(cells.map(|(cell, _)| (guest, cell)));
            }
            let asked: Vec<(Guest, usize)> =
                here.iter().map(|&(g, cell)| (guests[g], cell)).collect();
            let found = pin(&host.nodes[node].0, &asked, sharing)
                .expect("what fits by numbers has threads");
            all.extend(here.into_iter().zip(found));
        }
    }
    all
}

/// What is wrong with a packing, thread by thread.
fn faults(hosts: &[Host], guests: &[Guest], packing: &Packing, sharing: Sharing) -> Vec<String> {
    let mut faults = Vec::new();
    let pins = pins(hosts, guests, packing, sharing);
    let mut owner: BTreeMap<(usize, CpuId), usize> = BTreeMap::new();
    let mut core_owner: BTreeMap<(usize, usize, usize), usize> = BTreeMap::new();
    let mut memory: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    let mut vfs: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for (number, (guest, seat)) in guests.iter().zip(&packing.seats).enumerate() {
        let Some(seat) = seat else { continue };
        let distinct: BTreeSet<usize> = seat.nodes.iter().copied().collect();
        if distinct.len() != guest.cells as usize || seat.nodes.len() != distinct.len() {
            faults.push(format!("{number}: cells on nodes {:?}", seat.nodes));
        }
        if seat.vfs.iter().sum::<u32>() != guest.vfs {
            faults.push(format!("{number}: virtual functions {:?}", seat.vfs));
        }
        for (cell, &node) in seat.nodes.iter().enumerate() {
            let at = (seat.server, node);
            *memory.entry(at).or_default() += guest.memory / guest.cells;
            *vfs.entry(at).or_default() += seat.vfs[cell];
            let cores = &hosts[seat.server].nodes[node].0;
            let cell_pins = &pins[&(number, cell)];
            if cell_pins.vcpus.len() != (guest.vcpus / guest.cells) as usize {
                faults.push(format!("{number}: {} vCPUs", cell_pins.vcpus.len()));
            }
            if cell_pins.emulator.is_some() != (guest.emulator && cell == 0) {
                faults.push(format!("{number}: emulator {:?}", cell_pins.emulator));
            }
            let mut on: BTreeMap<usize, usize> = BTreeMap::new();
            for (vcpu, &cpu) in cell_pins
                .vcpus
                .iter()
                .chain(&cell_pins.emulator)
                .enumerate()
            {
                let Some(core) = cores.iter().position(|core| core.threads.contains(&cpu)) else {
                    faults.push(format!("{number}: {cpu} is not the node's"));
                    continue;
                };
                let is_vcpu = vcpu < cell_pins.vcpus.len();
                *on.entry(core).or_default() += usize::from(is_vcpu);
                let mut taken = vec![cpu];
                if guest.threads == Threads::Isolate {
                    taken = cores[core].threads.clone();
                    if is_vcpu && cores[core].threads.len() != cores[core].of {
                        faults.push(format!("{number}: {cpu} is on a half core"));
                    }
                }
                for cpu in taken {
                    if let Some(other) = owner.insert((seat.server, cpu), number) {
                        faults.push(format!("{number}: {cpu} is {other}'s"));
                    }
                }
                if sharing == Sharing::WholeCores {
                    let other = core_owner.insert((seat.server, node, core), number);
                    if other.is_some_and(|other| other != number) {
                        faults.push(format!("{number}: core {core} is shared"));
                    }
                }
            }
            if guest.threads == Threads::Require {
                let odd = on.values().filter(|&&n| n == 1).count();
                if hosts[seat.server].tpc < 2 || odd > cell_pins.vcpus.len() % 2 {
                    faults.push(format!("{number}: siblings are apart"));
                }
            }
        }
    }
    for ((server, node), used) in memory {
        if used > hosts[server].nodes[node].1 {
            faults.push(format!("memory of {server}.{node}"));
        }
    }
    for ((server, node), used) in vfs {
        if used > hosts[server].nodes[node].2 {
            faults.push(format!("virtual functions of {server}.{node}"));
        }
    }
    faults
}

/// The most that can be placed, by trying everything.
fn most(free: &mut Vec<Vec<NodeState>>, guests: &[Guest], sharing: Sharing) -> u64 {
    let Some((guest, rest)) = guests.split_first() else {
        return 0;
    };
    let mut best = most(free, rest, sharing);
    for server in 0..free.len() {
        for a in 0..free[server].len() {
            if guest.cells == 1 {
                let before = free[server][a].clone();
                if free[server][a].hold(guest, 0, guest.vfs, sharing) {
                    best = best.max(1 + most(free, rest, sharing));
                }
                free[server][a] = before;
                continue;
            }
            for b in (0..free[server].len()).filter(|&b| b != a) {
                for here in 0..=guest.vfs {
                    let before = free[server].clone();
                    if free[server][a].hold(guest, 0, here, sharing)
                        && free[server][b].hold(guest, 1, guest.vfs - here, sharing)
                    {
                        best = best.max(1 + most(free, rest, sharing));
                    }
                    free[server] = before;
                }
            }
        }
    }
    best
}

/// A node as the benchmark's page counts it.
#[derive(Debug, Clone)]
struct NodeState {
    smt: bool,
    full: i64,
    half: i64,
    whole: i64,
    single: i64,
    apart: i64,
    memory: i64,
    vfs: i64,
}

impl NodeState {
    fn of(shape: &NodeShape, sharing: Sharing) -> Self {
        Self {
            smt: shape.threads_per_core > 1,
            full: shape.full.into(),
            half: if sharing == Sharing::Threads {
                shape.half.into()
            } else {
                0
            },
            whole: 0,
            single: 0,
            apart: 0,
            memory: shape.memory.into(),
            vfs: shape.vfs.into(),
        }
    }

    fn hold(&mut self, guest: &Guest, cell: u32, vfs: u32, sharing: Sharing) -> bool {
        let c = i64::from(guest.vcpus / guest.cells);
        let e = i64::from(guest.emulator && cell == 0);
        match (guest.threads, sharing) {
            (Threads::Require, _) if !self.smt => return false,
            _ if !self.smt => self.whole += c + e,
            (Threads::Isolate, Sharing::WholeCores) => self.whole += c + e,
            (_, Sharing::WholeCores) => self.whole += (c + e + 1) / 2,
            (Threads::Isolate, Sharing::Threads) => {
                self.whole += c;
                self.apart += e;
            }
            (Threads::Require, Sharing::Threads) => {
                self.whole += c / 2;
                self.single += c % 2 + e;
            }
            (Threads::Prefer, Sharing::Threads) => self.single += c + e,
        }
        self.memory -= i64::from(guest.memory / guest.cells);
        self.vfs -= i64::from(vfs);
        let e = self.apart.min(self.half);
        self.whole + self.apart - e <= self.full
            && self.single <= 2 * (self.full - self.whole - self.apart + e) + self.half - e
            && self.memory >= 0
            && self.vfs >= 0
    }
}

fn host(most_nodes: usize, most_cores: usize) -> impl Strategy<Value = Host> {
    let node = (
        proptest::collection::vec(0..10u32, 1..=most_cores),
        0..40u32,
        0..4u32,
        1..3usize,
    );
    (1..3u32, proptest::collection::vec(node, 1..=most_nodes)).prop_map(|(tpc, nodes)| {
        let mut next = 0;
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(number, (cores, memory, vfs, domains))| {
                let cores: Vec<CoreShape> = cores
                    .iter()
                    .enumerate()
                    .map(|(at, state)| {
                        let all: Vec<CpuId> = (0..tpc)
                            .map(|thread| CpuId::new(next + 512 * thread).unwrap())
                            .collect();
                        next += 1;
                        // One in ten is taken, and one in ten is half of one.
                        let threads = match (state, tpc) {
                            (0, _) => Vec::new(),
                            (1, 2) => vec![all[1]],
                            _ => all,
                        };
                        CoreShape {
                            threads,
                            of: tpc as usize,
                            l3: number * 2 + at % domains,
                        }
                    })
                    .collect();
                (cores, memory, vfs)
            })
            .collect();
        Host { tpc, nodes }
    })
}

fn guest() -> impl Strategy<Value = Guest> {
    (
        1..7u32,
        0..3usize,
        any::<bool>(),
        0..5u32,
        0..12u32,
        0..6u32,
    )
        .prop_map(|(vcpus, threads, emulator, two, memory, vfs)| {
            let cells = if two == 0 { 2 } else { 1 };
            Guest {
                vcpus: vcpus.next_multiple_of(cells),
                threads: [Threads::Prefer, Threads::Require, Threads::Isolate][threads],
                emulator,
                cells,
                memory: memory.next_multiple_of(cells),
                vfs: vfs.saturating_sub(3),
            }
        })
}

fn sharing() -> impl Strategy<Value = Sharing> {
    prop_oneof![Just(Sharing::Threads), Just(Sharing::WholeCores)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_packing_holds_thread_by_thread(
        hosts in proptest::collection::vec(host(4, 8), 1..4),
        guests in proptest::collection::vec(guest(), 0..30),
        sharing in sharing(),
    ) {
        let packing = pack(&shapes(&hosts), &guests, sharing, Objective::Count, Effort::default());
        prop_assert_eq!(faults(&hosts, &guests, &packing, sharing), Vec::<String>::new());
        let placed = packing.seats.iter().flatten().count() as u64;
        prop_assert_eq!(placed, packing.value);
        prop_assert!(packing.value <= packing.bound);
        let again = pack(&shapes(&hosts), &guests, sharing, Objective::Count, Effort::default());
        prop_assert_eq!(packing, again);
    }

    #[test]
    fn small_packings_are_the_best_of_all(
        hosts in proptest::collection::vec(host(2, 4), 1..3),
        guests in proptest::collection::vec(guest(), 0..6),
        sharing in sharing(),
    ) {
        let servers = shapes(&hosts);
        let packing = pack(&servers, &guests, sharing, Objective::Count, Effort::default());
        let mut free: Vec<Vec<NodeState>> = servers
            .iter()
            .map(|nodes| nodes.iter().map(|node| NodeState::of(node, sharing)).collect())
            .collect();
        let best = most(&mut free, &guests, sharing);
        prop_assert!(packing.bound >= best, "bound {} < {best}", packing.bound);
        prop_assert_eq!(packing.value, best);
    }

    #[test]
    fn nobody_who_arrived_is_dropped_and_repacking_never_places_fewer(
        hosts in proptest::collection::vec(host(2, 6), 1..3),
        guests in proptest::collection::vec(guest(), 0..14),
        sharing in sharing(),
    ) {
        let servers = shapes(&hosts);
        let mut accepted: Vec<bool> = Vec::new();
        for count in 0..=guests.len() {
            let packing = arrive(&servers, &guests[..count], sharing, true, Effort::default());
            prop_assert_eq!(faults(&hosts, &guests[..count], &packing, sharing), Vec::<String>::new());
            let now: Vec<bool> = packing.seats.iter().map(Option::is_some).collect();
            prop_assert_eq!(&now[..accepted.len()], &accepted[..]);
            accepted = now;
        }
    }

    #[test]
    fn a_living_fleet_never_holds_too_much_and_says_no_only_when_it_must(
        hosts in proptest::collection::vec(host(3, 6), 1..5),
        guests in proptest::collection::vec(guest(), 1..40),
        sharing in sharing(),
        leaving in any::<u64>(),
    ) {
        let servers = shapes(&hosts);
        let mut fleet = Fleet::new(&servers, sharing);
        let mut here = Vec::new();
        for (number, guest) in guests.iter().enumerate() {
            let added = fleet.add(*guest);
            if let Some(id) = added {
                here.push((id, *guest));
            }
            if leaving >> (number % 64) & 1 == 1 && !here.is_empty() {
                let (id, _) = here.remove(number % here.len());
                prop_assert!(fleet.remove(id));
            }
            let mut free: Vec<Vec<NodeState>> = servers
                .iter()
                .map(|nodes| nodes.iter().map(|node| NodeState::of(node, sharing)).collect())
                .collect();
            for (id, guest) in &here {
                let seat = fleet.seat(*id).expect("it lies somewhere");
                for (cell, &node) in seat.nodes.iter().enumerate() {
                    let held = free[seat.server][node].hold(guest, cell as u32, seat.vfs[cell], sharing);
                    prop_assert!(held, "{:?} at {:?}", guest, seat);
                }
            }
            if added.is_none() && leaving >> (number % 64) & 1 == 0 {
                prop_assert_eq!(most(&mut free, &[*guest], sharing), 0, "{:?}", guest);
            }
        }
    }
}

#[test]
fn absurd_numbers_are_left_out_and_the_others_placed() {
    let node = NodeShape {
        threads_per_core: 2,
        full: 4,
        half: 0,
        memory: 16,
        vfs: 0,
    };
    let sane = Guest {
        vcpus: 2,
        threads: Threads::Prefer,
        emulator: false,
        cells: 1,
        memory: 4,
        vfs: 0,
    };
    let absurd = [
        Guest {
            vcpus: 1 << 31,
            ..sane
        },
        Guest {
            memory: u32::MAX,
            ..sane
        },
        Guest {
            vfs: u32::MAX,
            ..sane
        },
        Guest { vcpus: 0, ..sane },
        Guest { cells: 0, ..sane },
        Guest {
            cells: 3,
            vcpus: 3,
            ..sane
        },
    ];
    let guests: Vec<Guest> = absurd.into_iter().chain([sane]).collect();
    let packing = pack(
        &[vec![node]],
        &guests,
        Sharing::Threads,
        Objective::Count,
        Effort::default(),
    );
    assert_eq!(packing.value, 1);
    assert!(packing.seats[absurd.len()].is_some());
    let none = pack(
        &[],
        &guests,
        Sharing::Threads,
        Objective::Count,
        Effort::default(),
    );
    assert_eq!((none.value, none.bound), (0, 0));
    let empty = pack(
        &[vec![]],
        &guests,
        Sharing::Threads,
        Objective::Vcpus,
        Effort::default(),
    );
    assert_eq!(empty.value, 0);
}

#[test]
fn a_fleet_of_thousands_is_packed_and_its_gap_is_stated() {
    let node = NodeShape {
        threads_per_core: 2,
        full: 5,
        half: 1,
        memory: 60,
        vfs: 4,
    };
    let servers = vec![vec![node, node]; 2000];
    let guests: Vec<Guest> = (0..12_000)
        .map(|at| Guest {
            vcpus: 1 + at % 6,
            threads: [Threads::Prefer, Threads::Require, Threads::Isolate][at as usize % 3],
            emulator: at % 2 == 0,
            cells: 1,
            memory: 1 + at % 13,
            vfs: at % 5 / 4,
        })
        .collect();
    for objective in [Objective::Count, Objective::Vcpus] {
        let packing = pack(
            &servers,
            &guests,
            Sharing::Threads,
            objective,
            Effort::default(),
        );
        assert!(packing.value <= packing.bound);
        // First fit comes within a tenth of what the sums allow.
        assert!(
            packing.value * 10 >= packing.bound * 9,
            "{} of {}",
            packing.value,
            packing.bound
        );
        assert!(packing.bound < guests.iter().map(|guest| u64::from(guest.vcpus)).sum());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn loose_cpus_are_as_many_as_asked_and_free(
        host in host(3, 6),
        count in 0..40usize,
    ) {
        let cores: Vec<Located> = host
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(node, (cores, ..))| cores.iter().map(move |core| Located {
                socket: node / 2,
                node,
                core: core.clone(),
            }))
            .collect();
        let free: BTreeSet<CpuId> = cores.iter().flat_map(|core| core.core.threads.clone()).collect();
        match take_loose(&cores, count) {
            None => prop_assert!(count > free.len()),
            Some(cpus) => {
                let distinct: BTreeSet<CpuId> = cpus.iter().copied().collect();
                prop_assert_eq!((cpus.len(), distinct.len()), (count, count));
                prop_assert!(distinct.is_subset(&free));
            }
        }
    }
}
