//! What holds for every server and every spec.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::Inventory;
use bmslice_model::{ByteSize, NumaNodeId};
use bmslice_plan::{Plan, SlicePlan};
use bmslice_planner::{Change, plan, plan_following};
use bmslice_spec::{
    HostSpec, Isolation, NicChoice, NicKind, NicNuma, Numa, Replica, Sharing, SliceSpec, Slicing,
    Smt, VcpuOrder,
};
use proptest::prelude::*;
use proptest::sample::select;
use servers::*;

/// A card that is asked for by need, or a named one.
#[derive(Debug, Clone)]
enum Card {
    Need { whole: bool, numa: NicNuma },
    Named { whole: bool, index: usize },
}

#[derive(Debug, Clone)]
struct Asked {
    vcpus: u32,
    smt: Smt,
    order: VcpuOrder,
    pool: u32,
    /// With a pool: shared with the others of this tenant that share.
    shared: Option<bool>,
    /// Whether odd vCPUs may share a core with others of this tenant.
    siblings: Option<bool>,
    pages: u64,
    page: Option<ByteSize>,
    numa: Option<u32>,
    spread: u32,
    replicas: u32,
    cards: Vec<Card>,
}

fn card_strategy(named: bool) -> impl Strategy<Value = Card> {
    let numa = select(vec![NicNuma::Same, NicNuma::Prefer, NicNuma::Any]);
    (any::<bool>(), numa, any::<bool>(), 0usize..6).prop_map(
        move |(whole, numa, by_name, index)| {
            if named && by_name {
                Card::Named { whole, index }
            } else {
                Card::Need { whole, numa }
            }
        },
    )
}

fn asked(most_vcpus: u32, named: bool) -> impl Strategy<Value = Asked> {
    (
        1..=most_vcpus,
        select(vec![Smt::Pack, Smt::Pack, Smt::Isolate, Smt::Any]),
        select(vec![VcpuOrder::SiblingsAdjacent, VcpuOrder::SiblingsLast]),
        (
            0..=2u32,
            proptest::option::weighted(0.3, any::<bool>()),
            proptest::option::weighted(0.5, any::<bool>()),
        ),
        1..=3u64,
        select(vec![
            Some(ByteSize::from_gib(1)),
            Some(ByteSize::from_mib(2)),
            None,
        ]),
        proptest::option::weighted(0.2, 0..4u32),
        (
            select(vec![1u32, 1, 1, 2, 3]),
            select(vec![1u32, 1, 1, 2, 4]),
        ),
        proptest::collection::vec(card_strategy(named), 0..=2),
    )
        .prop_map(
            |(
                vcpus,
                smt,
                order,
                (pool, shared, siblings),
                pages,
                page,
                numa,
                (spread, replicas),
                cards,
            )| {
                Asked {
                    vcpus,
                    smt,
                    order,
                    pool,
                    shared,
                    siblings,
                    pages,
                    page,
                    numa,
                    spread,
                    replicas,
                    cards,
                }
            },
        )
}

fn slice_of(number: usize, asked: &Asked, server: &Inventory) -> SliceSpec {
    let mut s = slice(&format!("s{number}"), asked.vcpus * asked.spread);
    s.smt = asked.smt;
    s.vcpu_order = asked.order;
    s.emulator_cores = asked.pool;
    if let Some(second) = asked.shared.filter(|_| asked.pool > 0) {
        let (tenant, cores) = if second { ("t2", 2) } else { ("t1", 1) };
        s.tenant = tenant.parse().unwrap();
        s.shared_pool = true;
        // All that share it ask for the same.
        s.emulator_cores = cores;
    }
    if let Some(second) = asked.siblings.filter(|_| asked.smt == Smt::Pack) {
        if !s.shared_pool {
            s.tenant = if second { "t2" } else { "t1" }.parse().unwrap();
        }
        s.sharing = Sharing::Tenant;
    }
    s.hugepages = asked.page;
    s.memory = ByteSize::from_bytes((asked.pages << 30) * u64::from(asked.spread));
    s.numa = match (asked.spread, asked.numa) {
        (1, Some(node)) => Numa::Node(NumaNodeId(node)),
        (1, None) => Numa::Single,
        (cells, _) => Numa::Spread(cells),
    };
    s.nics = asked
        .cards
        .iter()
        .map(|card| {
            let (is_whole, choice) = match card {
                Card::Need { whole, numa } => (*whole, need(*numa)),
                Card::Named { whole, index } => {
                    let at = index % server.pci.len().max(1);
                    let address = server.pci.get(at).map(|f| f.address);
                    (
                        *whole,
                        NicChoice::Pci(address.unwrap_or(pci("0000:01:00.0"))),
                    )
                }
            };
            if is_whole { whole(choice) } else { vf(choice) }
        })
        .collect();
    s
}

/// As many slices as are asked for, as `replicas` of a file makes them.
fn replicas(slice: SliceSpec, number: u32) -> Vec<SliceSpec> {
    if number == 1 {
        return vec![slice];
    }
    let of = slice.name.clone();
    let each = (1..=number).map(|number| SliceSpec {
        name: format!("{of}-{number}").parse().unwrap(),
        replica: Some(Replica {
            of: of.clone(),
            number,
        }),
        ..slice.clone()
    });
    each.collect()
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        1..=8u32,
        1..=10u32,
        select(vec![1u32, 2, 2, 4]),
        select(vec![0u32, 2, 3, 4, 16]),
        any::<bool>(),
        0..=5u32,
        select(vec![2u64, 5, 9]),
    )
        .prop_map(
            |(nodes, cores, threads, l3, consecutive, gap, memory)| Shape {
                nodes,
                cores,
                threads,
                l3,
                consecutive,
                gap,
                memory: ByteSize::from_mib(memory * 1024 - 70),
            },
        )
}

/// A server with NICs here and there, and some CPUs offline or not allowed.
fn server() -> impl Strategy<Value = Inventory> {
    let holes = proptest::collection::vec((0..200usize, any::<bool>()), 0..4);
    let nics = proptest::collection::vec((0..9u32, 0..4u32, any::<bool>()), 0..5);
    (shape(), holes, nics, any::<bool>()).prop_map(|(shape, holes, nics, iommu)| {
        let mut server = shape.server();
        server.boot.iommu = iommu;
        for (at, offline) in holes {
            let at = at % server.cpus.len();
            if at > 0 && offline {
                server.cpus[at].online = false;
                let gone = server.cpus[at].id;
                for node in &mut server.nodes {
                    node.cpus.remove(gone);
                }
            } else if at > 0 {
                server.cpus[at].allowed = false;
            }
        }
        for (i, (node, vfs, shared)) in nics.into_iter().enumerate() {
            let node = (node < shape.nodes).then_some(node);
            // Sometimes a second function of the card before.
            let address = match (shared, i) {
                (true, 1..) => format!("0000:{i:02x}:00.1"),
                _ => format!("0000:{:02x}:00.0", i + 1),
            };
            if server.pci.iter().all(|f| f.address != pci(&address)) {
                add_nic(&mut server, &address, &format!("nic{i}"), node, vfs);
            }
        }
        server
    })
}

fn host() -> impl Strategy<Value = HostSpec> {
    (
        1..=2u32,
        any::<bool>(),
        select(vec![0u32, 0, 1, 4]),
        select(vec![Isolation::Boot, Isolation::Dynamic, Isolation::None]),
    )
        .prop_map(
            |(reserve_cores, reserve_per_numa, headroom_cores, isolation)| HostSpec {
                reserve_cores,
                reserve_per_numa,
                headroom_cores,
                isolation,
                ..HostSpec::default()
            },
        )
}

/// The lines of a plan that are others in the second.
fn moved(first: &Plan, second: &Plan) -> Vec<String> {
    let (first, second) = (first.to_json(), second.to_json());
    let (a, b): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let gone = a
        .iter()
        .filter(|line| !b.contains(line))
        .map(|line| format!("- {line}"));
    let new = b
        .iter()
        .filter(|line| !a.contains(line))
        .map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

/// A slice with its siblings as they were: one that is lent, or is back, is nothing to its guest.
fn siblings_as(was: Option<&SlicePlan>, now: &SlicePlan) -> SlicePlan {
    match was.filter(|was| was.siblings() == now.siblings()) {
        None => now.clone(),
        Some(was) => SlicePlan {
            idle: was.idle.clone(),
            shared_siblings: was.shared_siblings.clone(),
            ..now.clone()
        },
    }
}

/// Cards that were to be near if possible, and are not.
fn remote(spec: &Slicing, plan: &Plan) -> usize {
    let cards = spec
        .slices
        .iter()
        .zip(plan.slices())
        .flat_map(|(slice, planned)| slice.nics.iter().zip(&planned.nics));
    cards
        .filter(|(asked, _)| match &asked.kind {
            NicKind::Passthrough { device: choice } | NicKind::Vf { of: choice, .. } => {
                *choice == need(NicNuma::Prefer)
            }
            NicKind::Virtio { .. } => false,
        })
        .filter(|(_, nic)| nic.common().local == Some(false))
        .count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A plan holds every rule of the independent checker, gives the same bytes again, also once
    /// it is in force; a refusal is never the planner's own mistake, and what it proposes fits.
    #[test]
    fn a_plan_is_right_and_stable_and_a_refusal_helps(
        server in server(),
        host in host(),
        asked in proptest::collection::vec(asked(9, true), 1..7),
    ) {
        let slices: Vec<SliceSpec> = asked
            .iter()
            .enumerate()
            .flat_map(|(i, asked)| replicas(slice_of(i, asked, &server), asked.replicas))
            .map(|mut slice| {
                if host.isolation == Isolation::Dynamic {
                    slice.emulator_cores = slice.emulator_cores.max(1);
                }
                slice
            })
            .collect();
        // The spec has rules of its own.
        let Ok(spec) = Slicing::new(host, slices) else { return Ok(()) };
        match plan(&spec, &server) {
            Ok(first) => {
                let violations = bmslice_check::check(&spec, &server, &first);
                prop_assert!(violations.is_empty(), "{violations:#?}\n{}", first.to_json());
                let violations = bmslice_check::check_alone(&server, &first);
                prop_assert!(violations.is_empty(), "alone: {violations:#?}");
                prop_assert_eq!(Plan::parse(&first.to_json()).unwrap(), first.clone());
                prop_assert_eq!(plan(&spec, &server).unwrap().to_json(), first.to_json());
                let after = applied(&server, &first);
                let again = plan_following(&spec, &after, Some(&first)).unwrap();
                prop_assert_eq!(moved(&first, &again), Vec::<String>::new());
                let violations = bmslice_check::check(&spec, &after, &again);
                prop_assert!(violations.is_empty(), "in force: {violations:#?}");
                let violations = bmslice_check::check_alone(&after, &again);
                prop_assert!(violations.is_empty(), "alone, in force: {violations:#?}");
            }
            Err(refusal) => {
                prop_assert!(!matches!(refusal.code(), "unsound" | "argument"), "{refusal:?}");
                prop_assert!(!refusal.to_string().is_empty());
                match refusal.change() {
                    None | Some(Change::Partly(_)) => {}
                    Some(change) => {
                        let changed = change.apply(&spec).unwrap();
                        let fits = plan(&changed, &server);
                        prop_assert!(fits.is_ok(), "{change}: {}", fits.unwrap_err());
                    }
                }
            }
        }
    }

    /// Rule 9: on a server where a plan is in force, slices leave and come, and one asks for more;
    /// nothing that is asked for as before is touched, and the checker finds nothing.
    #[test]
    fn what_is_asked_for_as_before_is_not_touched(
        server in server(),
        host in host(),
        asked in proptest::collection::vec(asked(6, true), 2..6),
        new in asked(6, false),
        (leaves, grows, comes) in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()),
    ) {
        let make = |(i, asked): (usize, &Asked)| {
            let mut slice = slice_of(i, asked, &server);
            if host.isolation == Isolation::Dynamic {
                slice.emulator_cores = slice.emulator_cores.max(1);
            }
            slice
        };
        let mut slices: Vec<SliceSpec> = asked.iter().enumerate().map(make).collect();
        let Ok(spec) = Slicing::new(host.clone(), slices.clone()) else { return Ok(()) };
        let Ok(first) = plan(&spec, &server) else { return Ok(()) };
        let after = applied(&server, &first);

        slices.remove(leaves.index(slices.len()));
        let grown = grows.index(slices.len());
        slices[grown].vcpus += 1 + slices[grown].vcpus % 2;
        if comes {
            slices.insert(0, make((asked.len(), &new)));
        }
        let name = slices.iter().find(|slice| spec.slices.iter().all(|was| was != *slice));
        let name = name.map(|slice| slice.name.clone());
        let Ok(changed) = Slicing::new(host, slices) else { return Ok(()) };
        match plan_following(&changed, &after, Some(&first)) {
            Ok(second) => {
                let violations =
                    bmslice_check::check_following(&changed, &after, &second, Some(&first));
                prop_assert!(violations.is_empty(), "{name:?}: {violations:#?}");
                for slice in &changed.slices {
                    if spec.slices.contains(slice) {
                        let name = slice.name.as_str();
                        let now = second.slice(name).map(|now| siblings_as(first.slice(name), now));
                        prop_assert_eq!(first.slice(name), now.as_ref());
                    }
                }
                // In force after a reboot, with what left released.
                let after = applied(&server, &second);
                let again = plan_following(&changed, &after, Some(&second)).unwrap();
                prop_assert_eq!(moved(&second, &again), Vec::<String>::new());
            }
            Err(refusal) => {
                prop_assert!(!matches!(refusal.code(), "unsound" | "argument"), "{refusal:?}");
            }
        }
    }

    /// Small servers: a plan is found if and only if trying everything finds one, and it has as few
    /// remote devices as any.
    #[test]
    fn trying_everything_finds_no_more(
        nodes in 1..=3u32,
        cores in 1..=5u32,
        threads in 1..=2u32,
        memory in 1..=4u64,
        nics in proptest::collection::vec((0..3u32, 0..3u32), 0..4),
        asked in proptest::collection::vec(asked(5, false), 1..5),
        headroom in select(vec![0u32, 0, 1, 3]),
    ) {
        let shape = Shape {
            nodes,
            cores,
            threads,
            l3: 2,
            consecutive: true,
            gap: 0,
            memory: ByteSize::from_gib(memory + 2),
        };
        let mut server = shape.server();
        for (i, (node, vfs)) in nics.iter().enumerate() {
            add_nic(&mut server, &format!("0000:{:02x}:00.0", i + 1), &format!("nic{i}"), Some(node % nodes), *vfs);
        }
        let slices: Vec<SliceSpec> = asked
            .iter()
            .enumerate()
            .map(|(i, asked)| {
                let mut asked = asked.clone();
                asked.spread = asked.spread.min(nodes);
                asked.numa = asked.numa.map(|node| node % nodes);
                asked.page = Some(ByteSize::from_gib(1));
                slice_of(i, &asked, &server)
            })
            .collect();
        let host = HostSpec {
            headroom_cores: headroom,
            ..HostSpec::default()
        };
        let spec = Slicing::new(host, slices).unwrap();
        let everything = Everything::new(&shape, &server, &spec);
        let wanted = everything.fewest_remote();
        match (plan(&spec, &server), wanted) {
            (Ok(found), Some(fewest)) => prop_assert_eq!(remote(&spec, &found), fewest),
            (Err(refusal), None) => prop_assert_eq!(refusal.code(), "no-room"),
            (Ok(found), None) => prop_assert!(false, "it does not fit:\n{}", found.to_json()),
            (Err(refusal), Some(_)) => prop_assert!(false, "it fits: {refusal}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Servers that a hidden packing fills to the last core: it, or its like, is found.
    #[test]
    fn a_packing_that_leaves_no_core_is_found(
        nodes in 1..=8u32,
        cores in 4..=32u32,
        l3 in select(vec![4u32, 8, 64]),
        cuts in proptest::collection::vec(1..=9u32, 64),
        turn in any::<usize>(),
    ) {
        let shape = Shape {
            nodes,
            cores,
            threads: 2,
            l3,
            consecutive: false,
            gap: 0,
            memory: ByteSize::from_gib(512),
        };
        let mut sizes = Vec::new();
        let mut cuts = cuts.into_iter();
        for _ in 0..nodes {
            let mut left = cores - 1;
            while left > 0 {
                let size = cuts.next().unwrap_or(left).min(left);
                sizes.push(size);
                left -= size;
            }
        }
        let count = sizes.len();
        sizes.rotate_left(turn % count);
        let slices = sizes.iter().enumerate().map(|(i, size)| {
            let mut s = slice(&format!("s{i}"), 2 * size);
            s.emulator_cores = 0;
            s
        });
        let spec = spec(slices.collect());
        let found = plan(&spec, &shape.server());
        prop_assert!(found.is_ok(), "{:?}: {}", sizes, found.unwrap_err());
        prop_assert!(found.unwrap().host().free.is_empty());
    }
}

/// Every way to place slices, tried without a thought.
struct Everything<'a> {
    spec: &'a Slicing,
    threads: u32,
    /// Free cores and pages by node.
    free: Vec<(u32, u64)>,
    /// The node and the number of VFs of each NIC.
    nics: Vec<(usize, u32)>,
}

#[derive(Clone)]
struct State {
    free: Vec<(u32, u64)>,
    /// Each NIC: whole, or how many VFs are given.
    nics: Vec<Option<u32>>,
    remote: usize,
    /// Pools that are there for all of a tenant: node and tenant.
    pools: Vec<(usize, String)>,
    /// Siblings that odd vCPUs have left: node and tenant.
    siblings: Vec<(usize, String)>,
}

impl<'a> Everything<'a> {
    fn new(shape: &Shape, server: &Inventory, spec: &'a Slicing) -> Self {
        let slices = spec.slices.len() as u64;
        let free = (0..shape.nodes).map(|node| {
            let kept = 512 * (if node == 0 { 2 } else { 1 }) + 128 * slices;
            let pages = shape.memory.mib().saturating_sub(kept) / 1024;
            (shape.cores - 1, pages)
        });
        let nics = server.pci.iter().map(|f| {
            let node = f.node.unwrap().0 as usize;
            (node, f.sriov.as_ref().map_or(0, |sriov| sriov.total))
        });
        Self {
            spec,
            threads: shape.threads,
            free: free.collect(),
            nics: nics.collect(),
        }
    }

    fn fewest_remote(&self) -> Option<usize> {
        self.place(
            0,
            State {
                free: self.free.clone(),
                nics: vec![Some(0); self.nics.len()],
                remote: 0,
                pools: Vec::new(),
                siblings: Vec::new(),
            },
        )
    }

    fn place(&self, at: usize, state: State) -> Option<usize> {
        let Some(slice) = self.spec.slices.get(at) else {
            let left: u32 = state.free.iter().map(|(cores, _)| cores).sum();
            return (left >= self.spec.host.headroom_cores).then_some(state.remote);
        };
        let all: Vec<usize> = (0..self.free.len()).collect();
        let cells = match slice.numa {
            Numa::Spread(cells) => cells as usize,
            Numa::Single | Numa::Node(_) => 1,
        };
        let mut best: Option<usize> = None;
        for nodes in arrangements(&all, cells) {
            if let Numa::Node(node) = slice.numa
                && nodes[0] != node.0 as usize
            {
                continue;
            }
            let each = slice.vcpus / u32::try_from(cells).unwrap();
            let odd = self.threads == 2
                && each % 2 == 1
                && (slice.smt, slice.sharing) == (Smt::Pack, Sharing::Tenant);
            // Each odd vCPU beside another one, or on a core of its own.
            for beside in 0..if odd { 1u32 << cells } else { 1 } {
                let mut next = state.clone();
                if self.take(slice, each, &nodes, odd, beside, &mut next) {
                    best = least(best, self.cards(at, 0, &nodes, &next));
                }
            }
        }
        best
    }

    fn take(
        &self,
        slice: &SliceSpec,
        each: u32,
        nodes: &[usize],
        odd: bool,
        beside: u32,
        next: &mut State,
    ) -> bool {
        let pages = (slice.memory.bytes() >> 30) / nodes.len() as u64;
        nodes.iter().enumerate().all(|(cell, &node)| {
            let mut per_cell = match slice.smt {
                Smt::Isolate => each,
                Smt::Pack | Smt::Any => each.div_ceil(self.threads),
            };
            let here = (node, slice.tenant.to_string());
            if beside & 1 << cell != 0 {
                let Some(left) = next.siblings.iter().position(|left| *left == here) else {
                    return false;
                };
                next.siblings.remove(left);
                per_cell -= 1;
            } else if odd {
                next.siblings.push(here.clone());
            }
            let there = slice.shared_pool && next.pools.contains(&here);
            let pool = if cell == 0 && !there {
                slice.emulator_cores
            } else {
                0
            };
            if cell == 0 && slice.shared_pool && !there {
                next.pools.push(here);
            }
            let (cores, there) = &mut next.free[node];
            let enough = *cores >= per_cell + pool && *there >= pages;
            if enough {
                *cores -= per_cell + pool;
                *there -= pages;
            }
            enough
        })
    }

    fn cards(&self, at: usize, card: usize, nodes: &[usize], state: &State) -> Option<usize> {
        let Some(nic) = self.spec.slices[at].nics.get(card) else {
            return self.place(at + 1, state.clone());
        };
        let (choice, is_whole) = match &nic.kind {
            NicKind::Passthrough { device } => (device, true),
            NicKind::Vf { of, .. } => (of, false),
            NicKind::Virtio { .. } => panic!("none is asked for"),
        };
        let NicChoice::Need { numa, .. } = choice else {
            panic!("none is named")
        };
        let mut best = None;
        for (i, (node, vfs)) in self.nics.iter().enumerate() {
            let local = nodes.contains(node);
            if *numa == NicNuma::Same && !local {
                continue;
            }
            let mut next = state.clone();
            next.nics[i] = match (is_whole, next.nics[i]) {
                (true, Some(0)) => None,
                (false, Some(given)) if given < *vfs => Some(given + 1),
                _ => continue,
            };
            if *numa == NicNuma::Prefer && !local {
                next.remote += 1;
            }
            best = least(best, self.cards(at, card + 1, nodes, &next));
        }
        best
    }
}

fn least(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Every order of every choice of so many of these.
fn arrangements(of: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in arrangements(of, size - 1) {
        for next in of.iter().filter(|next| !shorter.contains(next)) {
            let mut longer = shorter.clone();
            longer.push(*next);
            all.push(longer);
        }
    }
    all
}
