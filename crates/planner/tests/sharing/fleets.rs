//! Several servers: every placement holds, is stable, and never exceeds its bound.

use super::*;
use bmslice_planner::Change;
use bmslice_planner::servers::{Fill, Placement};

#[test]
fn rule_11_the_bound_of_a_fleet_knows_that_cores_are_shared() {
    let any = |s: SliceSpec| SliceSpec {
        numa: Numa::Single,
        ..s
    };
    // Two servers of five free cores on each of two nodes: 40 threads.
    let servers = ["a", "b"].map(|name| {
        let mut server = roomy();
        server.machine.hostname = name.into();
        server
    });
    let ones = |number| (0..number).map(|i| any(red(&format!("s{i}"), 1))).collect();
    let placement = place_with(&spec(ones(44)), &servers, &[], Options::default());
    assert_eq!((placement.placed(), placement.bound), (40, 40));
    // Of 3 vCPUs: six halves of cores each, on five cores three of them fit (2 + 2 + 2 are shared
    // once), so twelve on four nodes; counting threads alone does not say so.
    let threes = |number| (0..number).map(|i| any(red(&format!("s{i}"), 3))).collect();
    let placement = place_with(&spec(threes(14)), &servers, &[], Options::default());
    assert_eq!(placement.placed(), 12);
    assert!(placement.bound >= 12);
    // Without sharing two of them fit on a node.
    let apart: Vec<SliceSpec> = threes(14);
    let apart = spec(apart.into_iter().map(alone).collect());
    assert_eq!(
        place_with(&apart, &servers, &[], Options::default()).placed(),
        8
    );
}

/// What a slice of a random fleet asks for.
#[derive(Debug, Clone)]
struct Asked {
    vcpus: u32,
    cells: u32,
    tenant: usize,
    smt: Smt,
    shares: bool,
    /// Cores of a pool, and whether it is its tenant's.
    pool: (u32, bool),
    /// Whether it is apart from others of its tenant.
    apart: bool,
}

fn asked(most_vcpus: u32) -> impl Strategy<Value = Asked> {
    (
        1..=most_vcpus,
        prop::sample::select(vec![1u32, 1, 1, 2]),
        0..3usize,
        prop::sample::select(vec![
            Smt::Pack,
            Smt::Pack,
            Smt::Pack,
            Smt::Isolate,
            Smt::Any,
        ]),
        prop::bool::weighted(0.6),
        (0..=1u32, any::<bool>()),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(vcpus, cells, tenant, smt, shares, pool, apart)| Asked {
            vcpus,
            cells,
            tenant,
            smt,
            shares,
            pool,
            apart,
        })
}

fn made(name: String, asked: &Asked) -> SliceSpec {
    let tenant = ["red", "blue", "green"][asked.tenant];
    let mut s = of(red(&name, asked.vcpus * asked.cells), tenant);
    s.memory = ByteSize::from_mib(256 * u64::from(asked.cells));
    s.smt = asked.smt;
    if !(asked.shares && asked.smt == Smt::Pack) {
        s.sharing = Sharing::None;
    }
    s.numa = match asked.cells {
        1 => Numa::Single,
        cells => Numa::Spread(cells),
    };
    (s.emulator_cores, s.shared_pool) = (asked.pool.0, asked.pool.0 > 0 && asked.pool.1);
    s.apart = asked.apart.then(|| format!("{tenant}-apart"));
    s
}

fn slices(asked: &[Asked]) -> Vec<SliceSpec> {
    let each = asked.iter().enumerate();
    each.map(|(at, it)| made(format!("s{at}"), it)).collect()
}

/// Servers of so many nodes, cores on each, and threads of a core, of which the host has one core of
/// each node.
fn servers(shapes: &[(u32, u32, u32)], l3: u32) -> Vec<Inventory> {
    let each = shapes.iter().enumerate();
    each.map(|(at, &(nodes, cores, threads))| {
        let shape = Shape {
            nodes,
            cores: cores + 1,
            threads,
            l3,
            memory: ByteSize::from_gib(64),
            ..Shape::lab()
        };
        let mut server = shape.server();
        server.machine.hostname = format!("server{at}");
        server
    })
    .collect()
}

fn asking(slices: Vec<SliceSpec>, headroom_cores: u32) -> Slicing {
    let host = HostSpec {
        headroom_cores,
        ..HostSpec::default()
    };
    Slicing::new(host, slices).unwrap()
}

fn plans(placement: &Placement) -> Vec<Option<Plan>> {
    placement.shares.iter().map(|it| it.plan.clone()).collect()
}

/// A server of which slices take something.
#[derive(Debug, Clone)]
struct Held {
    threads: u32,
    /// Free cores by node.
    free: Vec<u32>,
    /// Siblings that odd vCPUs have left: node and tenant.
    open: Vec<(usize, String)>,
    /// Pools that are there for all of a tenant: node and tenant.
    pools: Vec<(usize, String)>,
    /// Groups of its slices that are apart.
    apart: Vec<String>,
}

impl Held {
    /// All that it may look like with one slice more.
    fn with(&self, slice: &SliceSpec) -> Vec<Self> {
        let cells = match slice.numa {
            Numa::Spread(cells) => cells,
            Numa::Single | Numa::Node(_) => 1,
        };
        let each = slice.vcpus / cells;
        let shares = slice.sharing == Sharing::Tenant;
        let mut next = self.clone();
        if let Some(group) = &slice.apart {
            if self.apart.contains(group) {
                return Vec::new();
            }
            next.apart.push(group.clone());
        }
        if shares && self.threads > 2 && !each.is_multiple_of(self.threads) {
            return Vec::new();
        }
        let odd = shares && self.threads == 2 && each % 2 == 1;
        let cores = match slice.smt {
            Smt::Isolate => each,
            Smt::Pack | Smt::Any => each.div_ceil(self.threads),
        };
        let mut all = vec![(next, Vec::new())];
        for cell in 0..cells {
            let before = std::mem::take(&mut all);
            for (held, nodes) in before {
                for node in (0..self.free.len()).filter(|node| !nodes.contains(node)) {
                    let here = (node, slice.tenant.to_string());
                    let mut held = held.clone();
                    let mut takes = cores;
                    if cell == 0 && !(slice.shared_pool && held.pools.contains(&here)) {
                        takes += slice.emulator_cores;
                        held.pools.extend(slice.shared_pool.then(|| here.clone()));
                    }
                    let nodes = [&nodes[..], &[node]].concat();
                    // An odd vCPU beside another one, or on a core of its own.
                    let left = held.open.iter().position(|open| *open == here);
                    if let Some(left) = left.filter(|_| odd && held.free[node] + 1 >= takes) {
                        let mut beside = held.clone();
                        beside.open.remove(left);
                        beside.free[node] -= takes - 1;
                        all.push((beside, nodes.clone()));
                    }
                    if held.free[node] >= takes {
                        held.free[node] -= takes;
                        held.open.extend(odd.then_some(here));
                        all.push((held, nodes));
                    }
                }
            }
        }
        all.into_iter().map(|(held, _)| held).collect()
    }
}

/// How many slices the servers hold at most, tried without a thought.
fn most(slices: &[SliceSpec], servers: &[Held], headroom: u32) -> usize {
    let Some((slice, rest)) = slices.split_first() else {
        return 0;
    };
    let mut best = most(rest, servers, headroom);
    for (at, server) in servers.iter().enumerate() {
        for held in server.with(slice) {
            if best == slices.len() {
                return best;
            }
            // What is free only gets less.
            if held.free.iter().sum::<u32>() < headroom {
                continue;
            }
            let mut servers = servers.to_vec();
            servers[at] = held;
            best = best.max(1 + most(rest, &servers, headroom));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Small fleets: no more are placed than trying everything places, and the bound is not below it.
    #[test]
    fn rule_11_trying_everything_places_no_fewer_than_the_planner_and_no_more_than_the_bound(
        shapes in prop::collection::vec((1..=2u32, 1..=3u32, prop::sample::select(vec![2u32, 2, 2, 1, 4])), 1..=2),
        asked in prop::collection::vec(asked(4), 1..=6),
        headroom in prop::sample::select(vec![0u32, 0, 1, 2]),
    ) {
        let slices = slices(&asked);
        let spec = asking(slices.clone(), headroom);
        let placement = place_with(&spec, &servers(&shapes, 2), &[], Options::default());
        let empty: Vec<Held> = shapes
            .iter()
            .map(|&(nodes, cores, threads)| Held {
                threads,
                free: vec![cores; nodes as usize],
                open: Vec::new(),
                pools: Vec::new(),
                apart: Vec::new(),
            })
            .collect();
        let most = most(&slices, &empty, headroom);
        prop_assert!(placement.placed() <= most, "{} placed, {most} fit", placement.placed());
        prop_assert!(placement.bound >= most as u64, "bound {}, {most} fit", placement.bound);
    }

    /// Fleets of any kind: the checker objects to nothing, the same input gives the same bytes, and
    /// what has a place keeps it when others come and go; what is told to those without one is true.
    #[test]
    fn rule_2_tenants_share_on_several_servers_and_every_plan_is_right_and_stable(
        shapes in prop::collection::vec((1..=3u32, 1..=7u32, prop::sample::select(vec![2u32, 2, 2, 2, 1, 4])), 1..=4),
        l3 in prop::sample::select(vec![2u32, 3, 16]),
        before in prop::collection::vec((asked(7), any::<bool>()), 1..14),
        after in prop::collection::vec(asked(7), 0..6),
        headroom in prop::sample::select(vec![0u32, 0, 0, 2]),
        spread in any::<bool>(),
    ) {
        let options = Options {
            fill: if spread { Fill::Spread } else { Fill::Pack },
            ..Options::default()
        };
        let servers = servers(&shapes, l3);
        let (all, stays): (Vec<Asked>, Vec<bool>) = before.into_iter().unzip();
        let all = slices(&all);
        let spec = asking(all.clone(), headroom);
        let first = place_with(&spec, &servers, &[], options);
        let in_force = plans(&first);
        prop_assert_eq!(&plans(&place_with(&spec, &servers, &[], options)), &in_force);
        for unplaced in &first.unplaced {
            let Some((name, change @ Change::Share { .. })) = &unplaced.change else { continue };
            let at = servers.iter().position(|server| server.machine.hostname == *name).unwrap();
            let has = first.shares[at].spec.iter().flat_map(|it| &it.slices);
            let mut names: Vec<_> = has.map(|slice| &slice.name).collect();
            names.push(&unplaced.slice);
            let part = all.iter().filter(|slice| names.contains(&&slice.name));
            let part = asking(part.cloned().collect(), headroom);
            prop_assert!(plan(&part, &servers[at]).is_err());
            planned(&change.apply(&part).unwrap(), &servers[at]);
        }

        let there: Vec<Inventory> = servers
            .iter()
            .zip(&in_force)
            .map(|(server, plan)| plan.as_ref().map_or_else(|| server.clone(), |plan| applied(server, plan)))
            .collect();
        if first.unplaced.is_empty() {
            let again = place_with(&spec, &there, &in_force, options);
            prop_assert_eq!(&plans(&again), &in_force);
        }
        let mut left: Vec<SliceSpec> =
            all.into_iter().zip(&stays).filter(|(_, stays)| **stays).map(|(it, _)| it).collect();
        let stay: Vec<String> = left.iter().map(|it| it.name.to_string()).collect();
        left.extend(after.iter().enumerate().map(|(at, it)| made(format!("n{at}"), it)));
        if left.is_empty() {
            return Ok(());
        }
        let second = place_with(&asking(left, headroom), &there, &in_force, options);
        for (was, now) in in_force.iter().zip(plans(&second)) {
            for slice in was.iter().flat_map(Plan::slices) {
                if !stay.contains(&slice.name.to_string()) {
                    continue;
                }
                let now = now.as_ref().and_then(|plan| plan.slice(slice.name.as_str()));
                let now = now.map(|now| (&now.vcpus, now.pool(), now.siblings()));
                prop_assert_eq!(now, Some((&slice.vcpus, slice.pool(), slice.siblings())));
            }
        }
    }
}
