//! One spec on several servers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::Inventory;
use bmslice_model::ByteSize;
use bmslice_plan::Plan;
use bmslice_planner::servers::{Fill, Member, Options, Placement, ServersError, plan_servers};
use bmslice_planner::{Change, Refusal, Running, plan};
use bmslice_spec::{NicNuma, Numa, SliceSpec, Slicing};
use servers::*;

fn place(spec: &Slicing, servers: &[Inventory]) -> Placement {
    place_with(spec, servers, &[], Options::default())
}

/// What lies on each server, by name.
fn seats(placement: &Placement) -> Vec<Vec<String>> {
    let shares = placement.shares.iter();
    shares
        .map(|share| {
            let plans = share.plan.iter();
            plans
                .flat_map(|plan| plan.slices())
                .map(|slice| slice.name.to_string())
                .collect()
        })
        .collect()
}

fn plans(placement: &Placement) -> Vec<Option<Plan>> {
    let shares = placement.shares.iter();
    shares.map(|share| share.plan.clone()).collect()
}

fn on(mut slice: SliceSpec, server: &str) -> SliceSpec {
    slice.server = Some(server.into());
    slice
}

fn keep() -> Options {
    Options::default()
}

fn repack() -> Options {
    Options {
        running: Running::MayMove,
        ..Options::default()
    }
}

#[test]
fn a_slice_that_names_its_server_goes_there_and_the_others_fill_up() {
    let spec = spec(vec![on(slice("a", 8), "two"), slice("b", 8), slice("c", 4)]);
    let placement = place(&spec, &fleet(&["one", "two"]));
    // 5 cores each for `a` and `b`: nothing is left of `two`.
    assert_eq!(seats(&placement), [vec!["c"], vec!["a", "b"]]);
}

#[test]
fn packing_opens_no_server_that_is_not_needed_and_spreading_opens_all() {
    let spec = spec(vec![slice("a", 8), slice("b", 8)]);
    let servers = fleet(&["one", "two"]);
    let packed = place(&spec, &servers);
    assert_eq!(seats(&packed), [vec!["a", "b"], vec![]]);
    let options = Options {
        fill: Fill::Spread,
        ..Options::default()
    };
    let spread = place_with(&spec, &servers, &[], options);
    assert_eq!(seats(&spread), [vec!["a"], vec!["b"]]);
}

#[test]
fn a_slice_that_names_a_server_which_is_not_planned_is_refused() {
    let spec = spec(vec![on(slice("a", 8), "three"), slice("b", 2)]);
    let placement = place(&spec, &fleet(&["one", "two"]));
    assert_eq!(seats(&placement), [vec!["b"], vec![]]);
    let a = &placement.unplaced[0];
    assert!(a.why.is_empty());
    assert_eq!(placement.bound, 1);
    let Some((_, Change::AnyServer { server, .. })) = &a.change else {
        panic!("{a:?}")
    };
    assert_eq!(server, "one");
}

#[test]
fn one_server_refuses_a_slice_that_is_for_another() {
    let refusal = plan(&spec(vec![on(slice("a", 8), "two")]), &named("one")).unwrap_err();
    assert!(matches!(refusal, Refusal::OtherServer { .. }), "{refusal}");
    assert_eq!(
        refusal.to_string(),
        "slice `a` is for the server `two`; this is `one`"
    );
    plan(&spec(vec![on(slice("a", 8), "one")]), &named("one")).unwrap();
}

#[test]
fn two_servers_of_one_name_are_refused() {
    let servers = fleet(&["one", "one"]);
    let members: Vec<Member<'_>> = servers
        .iter()
        .map(|inventory| Member {
            inventory,
            previous: None,
        })
        .collect();
    let error = plan_servers(&spec(vec![slice("a", 2)]), &members, keep()).unwrap_err();
    assert!(matches!(error, ServersError::SameName { name } if name == "one"));
}

#[test]
fn as_many_as_can_be_are_placed_and_the_bound_proves_it() {
    // Each node has five free cores: a slice of 4 vCPUs takes three with its pool.
    let slices: Vec<SliceSpec> = (0..6).map(|n| slice(&format!("s{n}"), 4)).collect();
    let placement = place(&spec(slices), &fleet(&["one", "two"]));
    assert_eq!((placement.placed(), placement.bound), (4, 4));
    assert_eq!(placement.gap(), 0);
    let refused = &placement.unplaced[0];
    assert_eq!(refused.why.len(), 2, "one reason for each server");
    let (server, change) = refused.change.as_ref().unwrap();
    // Two cores are left on every node: one of them is the pool's.
    assert!(
        matches!(change, Change::Vcpus { vcpus: 2, .. }),
        "{server}: {change}"
    );
}

#[test]
fn a_large_slice_that_comes_last_finds_its_node_although_small_ones_came_first() {
    // 3 + 2 cores on each of two nodes, and one whole node for the large one.
    let mut slices: Vec<SliceSpec> = (0..3).map(|n| slice(&format!("p{n}"), 2)).collect();
    slices.extend((0..2).map(|n| slice(&format!("q{n}"), 4)));
    slices.push(slice("large", 8));
    let placement = place(&spec(slices), &fleet(&["one", "two"]));
    assert_eq!(placement.placed(), 6);
}

#[test]
fn whole_nics_bound_what_can_be_placed() {
    let slices: Vec<SliceSpec> = (0..6)
        .map(|n| {
            let mut slice = slice(&format!("s{n}"), 2);
            slice.nics = vec![whole(need(NicNuma::Any))];
            slice
        })
        .collect();
    let nics = named("one")
        .pci
        .iter()
        .filter(|f| f.is_network() && !f.is_vf() && f.host_needs.is_empty())
        .count();
    let placement = place(&spec(slices), &[named("one")]);
    assert_eq!((placement.placed(), placement.bound), (nics, nics as u64));
}

#[test]
fn what_fits_nowhere_as_it_is_gets_a_change_that_was_tried() {
    let huge = spec(vec![slice("a", 4000)]);
    let placement = place(&huge, &fleet(&["one", "two"]));
    let (_, change) = placement.unplaced[0].change.clone().unwrap();
    let changed = change.apply(&huge).unwrap();
    assert_eq!(place(&changed, &fleet(&["one", "two"])).placed(), 1);
    assert_eq!(placement.bound, 0, "no server holds it, even alone");
}

#[test]
fn replanning_the_same_gives_the_same_plans_byte_for_byte() {
    let spec = spec((0..5).map(|n| slice(&format!("s{n}"), 4)).collect());
    let servers = fleet(&["one", "two"]);
    let first = place(&spec, &servers);
    let in_force = plans(&first);
    for options in [keep(), repack()] {
        let again = place_with(&spec, &servers, &in_force, options);
        assert_eq!(plans(&again), in_force);
    }
}

#[test]
fn what_runs_stays_where_it_is_when_slices_come_and_go() {
    let servers = fleet(&["one", "two"]);
    let spread = Options {
        fill: Fill::Spread,
        ..Options::default()
    };
    let first = spec(vec![slice("a", 4), slice("b", 4), slice("c", 2)]);
    let before = place_with(&first, &servers, &[], spread);
    let in_force = plans(&before);
    // `b` goes, `d` comes, in front of all.
    let second = spec(vec![slice("d", 8), slice("a", 4), slice("c", 2)]);
    let after = place_with(&second, &servers, &in_force, keep());
    assert_eq!(after.placed(), 3);
    for name in ["a", "c"] {
        let of = |placement: &Placement| {
            let plans = placement.shares.iter().filter_map(|s| s.plan.as_ref());
            plans
                .filter_map(|plan| Some((plan.parts().server.hostname.clone(), plan.slice(name)?)))
                .map(|(host, slice)| (host, slice.clone()))
                .next()
                .unwrap()
        };
        assert_eq!(of(&before), of(&after), "{name}");
    }
}

#[test]
fn the_slices_of_a_lost_server_go_to_the_others_and_nobody_else_moves() {
    let servers = fleet(&["one", "two", "three"]);
    let spread = Options {
        fill: Fill::Spread,
        ..Options::default()
    };
    let spec = spec((0..3).map(|n| slice(&format!("s{n}"), 4)).collect());
    let before = place_with(&spec, &servers, &[], spread);
    assert_eq!(seats(&before), [vec!["s0"], vec!["s1"], vec!["s2"]]);
    let in_force = plans(&before);
    let after = place_with(&spec, &servers[..2], &in_force[..2], keep());
    assert_eq!(after.placed(), 3);
    for (at, (old, share)) in in_force.iter().zip(&after.shares).enumerate() {
        let (old, new) = (old.as_ref(), share.plan.as_ref());
        let name = format!("s{at}");
        assert_eq!(old.unwrap().slice(&name), new.unwrap().slice(&name));
    }
}

#[test]
fn an_added_server_takes_what_had_no_place_and_nothing_moves() {
    let servers = fleet(&["one", "two"]);
    let spec = spec((0..4).map(|n| slice(&format!("s{n}"), 8)).collect());
    let before = place(&spec, &servers[..1]);
    assert_eq!((before.placed(), before.bound), (2, 2));
    let in_force = vec![before.shares[0].plan.clone(), None];
    let after = place_with(&spec, &servers, &in_force, keep());
    assert_eq!(after.placed(), 4);
    assert_eq!(after.shares[0].plan, in_force[0]);
}

#[test]
fn a_slice_whose_nic_is_gone_moves_and_the_other_one_stays() {
    let mut servers = fleet(&["one", "two"]);
    let mut a = slice("a", 4);
    a.nics = vec![whole(by_name("n0p0"))];
    let spec = spec(vec![a, slice("b", 4)]);
    let before = place(&spec, &servers);
    assert_eq!(seats(&before), [vec!["a", "b"], vec![]]);
    let gone = function(&mut servers[0], "0000:41:00.0").address;
    servers[0].pci.retain(|f| f.address != gone);
    let after = place_with(&spec, &servers, &plans(&before), keep());
    assert_eq!(seats(&after), [vec!["b"], vec!["a"]]);
    let b = |placement: &Placement| {
        let plan = placement.shares[0].plan.as_ref().unwrap();
        plan.slice("b").unwrap().clone()
    };
    assert_eq!(b(&before), b(&after));
}

#[test]
fn a_slice_that_grows_stays_on_its_server_when_there_is_room() {
    let servers = fleet(&["one", "two"]);
    let spread = Options {
        fill: Fill::Spread,
        ..Options::default()
    };
    let before = place_with(
        &spec(vec![slice("a", 2), slice("b", 2)]),
        &servers,
        &[],
        spread,
    );
    let grown = spec(vec![slice("a", 2), slice("b", 8)]);
    let after = place_with(&grown, &servers, &plans(&before), keep());
    assert_eq!(seats(&after), [vec!["a"], vec!["b"]]);
    let shrunk = place_with(
        &spec(vec![slice("a", 2), slice("b", 2)]),
        &servers,
        &plans(&after),
        keep(),
    );
    assert_eq!(seats(&shrunk), [vec!["a"], vec!["b"]]);
}

/// Two small slices, one on each node of the only server.
fn apart() -> (Slicing, Vec<Inventory>, Vec<Option<Plan>>) {
    let servers = fleet(&["one"]);
    let node = |n: u32, name: &str| {
        let mut slice = slice(name, 2);
        slice.numa = Numa::Node(bmslice_model::NumaNodeId(n));
        slice
    };
    let before = place(&spec(vec![node(0, "a"), node(1, "b")]), &servers);
    let wanted = spec(vec![slice("a", 2), slice("b", 2), slice("large", 8)]);
    (wanted, servers, plans(&before))
}

#[test]
fn keeping_refuses_what_repacking_places_and_repacking_moves_no_more_than_it_must() {
    let (wanted, servers, in_force) = apart();
    let kept = place_with(&wanted, &servers, &in_force, keep());
    assert_eq!(kept.placed(), 2);
    assert_eq!(kept.bound, 3, "nothing but what runs stands in the way");
    let (_, change) = kept.unplaced[0].change.as_ref().unwrap();
    assert!(matches!(change, Change::Repack), "{change}");

    let repacked = place_with(&wanted, &servers, &in_force, repack());
    assert_eq!(repacked.placed(), 3);
    let old = in_force[0].as_ref().unwrap();
    let new = repacked.shares[0].plan.as_ref().unwrap();
    let moved = ["a", "b"]
        .iter()
        .filter(|name| old.slice(name) != new.slice(name));
    assert_eq!(moved.count(), 1);
}

#[test]
fn memory_of_all_kinds_is_counted_in_the_bound() {
    let mut slices = Vec::new();
    for n in 0..6 {
        let mut slice = slice(&format!("s{n}"), 2);
        slice.memory = ByteSize::from_gib(2);
        slices.push(slice);
    }
    // 3990 MiB a node: the host keeps more than half a GiB, so that one slice of 2 GiB fits.
    let placement = place(&spec(slices), &fleet(&["one", "two"]));
    assert_eq!((placement.placed(), placement.bound), (4, 4));
}

fn apart_from(mut slice: SliceSpec, group: &str) -> SliceSpec {
    slice.apart = Some(group.into());
    slice
}

#[test]
fn slices_of_a_group_that_is_apart_lie_on_different_servers() {
    let slices = vec![
        apart_from(slice("a", 2), "workers"),
        apart_from(slice("b", 2), "workers"),
        apart_from(slice("c", 2), "others"),
        slice("d", 2),
    ];
    let placement = place(&spec(slices), &fleet(&["one", "two"]));
    assert_eq!(seats(&placement), [vec!["a", "c", "d"], vec!["b"]]);
}

#[test]
fn a_group_larger_than_the_fleet_leaves_one_over_and_it_is_proven() {
    let slices = (0..3).map(|n| apart_from(slice(&format!("w{n}"), 2), "workers"));
    let placement = place(&spec(slices.collect()), &fleet(&["one", "two"]));
    assert_eq!((placement.placed(), placement.bound), (2, 2));
    let unplaced = &placement.unplaced[0];
    assert_eq!(unplaced.why.len(), 2);
    for (_, refusal) in &unplaced.why {
        assert!(matches!(refusal, Refusal::Apart { .. }), "{refusal}");
    }
    let (_, change) = unplaced.change.as_ref().unwrap();
    assert!(matches!(change, Change::OneMore { .. }), "{change}");
}

#[test]
fn a_slice_for_another_server_is_refused_for_that_before_it_is_apart() {
    let apart = |name| apart_from(slice(name, 2), "workers");
    let slices = vec![apart("a"), apart("b"), on(apart("c"), "two")];
    let refusal = plan(&spec(slices), &named("one")).unwrap_err();
    assert!(matches!(refusal, Refusal::OtherServer { .. }), "{refusal}");
}

#[test]
fn one_server_refuses_two_slices_that_are_to_be_apart() {
    let slices = ["a", "b"].map(|name| apart_from(slice(name, 2), "workers"));
    let refusal = plan(&spec(slices.into()), &named("one")).unwrap_err();
    assert_eq!(refusal.code(), "apart");
    assert_eq!(
        refusal.to_string(),
        "slices `a` and `b` are to be on different servers, as the group `workers` says"
    );
}

#[test]
fn one_of_two_that_run_side_by_side_moves_when_they_are_to_be_apart() {
    let servers = fleet(&["one", "two"]);
    let before = place(&spec(vec![slice("a", 2), slice("b", 2)]), &servers);
    assert_eq!(seats(&before), [vec!["a", "b"], vec![]]);
    let slices = ["a", "b"].map(|name| apart_from(slice(name, 2), "workers"));
    let after = place_with(&spec(slices.into()), &servers, &plans(&before), keep());
    assert_eq!(seats(&after), [vec!["a"], vec!["b"]]);
}

/// Whether the first card of a slice is local.
fn is_local(placement: &Placement, name: &str) -> Option<bool> {
    let plans = placement.shares.iter().filter_map(|s| s.plan.as_ref());
    let slice = plans.filter_map(|plan| plan.slice(name)).next().unwrap();
    slice.nics[0].common().local
}

#[test]
fn a_slice_goes_where_a_nic_is_near_that_is_to_be_near_if_possible() {
    // `one` has NICs on node 0 only, and `a` fills that node.
    let mut servers = fleet(&["one", "two"]);
    servers[0]
        .pci
        .retain(|f| f.node != Some(bmslice_model::NumaNodeId(1)));
    let mut a = slice("a", 8);
    a.numa = Numa::Node(bmslice_model::NumaNodeId(0));
    a.server = Some("one".into());
    let mut b = slice("b", 4);
    b.nics = vec![whole(need(NicNuma::Prefer))];
    let placement = place(&spec(vec![a.clone(), b.clone()]), &servers);
    assert_eq!(seats(&placement), [vec!["a"], vec!["b"]]);
    assert_eq!(is_local(&placement, "b"), Some(true));

    // Alone it goes there all the same, to a remote NIC.
    let placement = place(&spec(vec![a, b]), &servers[..1]);
    assert_eq!(placement.placed(), 2);
    assert_eq!(is_local(&placement, "b"), Some(false));
}

#[test]
fn a_near_nic_does_not_move_what_runs_nor_cost_a_place() {
    let mut servers = fleet(&["one", "two"]);
    servers[0]
        .pci
        .retain(|f| f.node != Some(bmslice_model::NumaNodeId(1)));
    servers[1].pci.clear();
    let near = |name: &str| {
        let mut slice = slice(name, 8);
        slice.nics = vec![vf(need(NicNuma::Prefer))];
        slice
    };
    // Each fills a node, and only one node has NICs.
    let both = spec(vec![near("a"), near("b")]);
    let placement = place(&both, &servers);
    assert_eq!(seats(&placement), [vec!["a", "b"], vec![]]);
    assert_eq!(is_local(&placement, "a"), Some(true));
    assert_eq!(is_local(&placement, "b"), Some(false));

    // `b` stays where it runs, though `three` had a near one.
    let more = [servers, fleet(&["three"])].concat();
    let after = place_with(&both, &more, &plans(&placement), keep());
    assert_eq!(seats(&after), [vec!["a", "b"], vec![], vec![]]);
}
