//! Planning rule 11, fleets: `replicas`, `fleet.place`, `fleet.headroom`, labels and `selector`.
//! (`apart` and `server` are in `several.rs`.)
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::Inventory;
use bmslice_plan::Plan;
use bmslice_planner::servers::{Fill, Member, Options, Placement, plan_servers};
use bmslice_planner::{Change, Refusal, plan, plan_following};
use bmslice_spec::Slicing;
use servers::*;

/// A server as the lab's (two nodes, five free cores each) of another name.
fn named(name: &str) -> Inventory {
    let mut server = lab();
    server.machine.hostname = name.into();
    server
}

fn fleet(names: &[&str]) -> Vec<Inventory> {
    names.iter().map(|name| named(name)).collect()
}

fn read(text: &str) -> Slicing {
    let text = format!("apiVersion: bmslice/v1\nkind: Slicing\n{text}");
    Slicing::parse("a.yaml", &text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

/// A slice of a file; with 4 vCPUs it takes three cores.
fn asked(name: &str, vcpus: u32, more: &str) -> String {
    format!(
        "  - {{ name: {name}, vcpus: {vcpus}, memory: {{ size: 1GiB, hugepages: 1GiB }}, image: {{ base: a.qcow2, size: 8GiB }}{more} }}\n"
    )
}

fn planned(spec: &Slicing, server: &Inventory) -> Plan {
    let plan = plan(spec, server).unwrap_or_else(|refusal| panic!("{refusal}"));
    let violations = bmslice_check::check(spec, server, &plan);
    assert!(violations.is_empty(), "{violations:#?}");
    plan
}

fn place(
    spec: &Slicing,
    servers: &[Inventory],
    in_force: &[Option<Plan>],
    options: Options,
) -> Placement {
    let members: Vec<Member<'_>> = servers
        .iter()
        .enumerate()
        .map(|(at, inventory)| Member {
            inventory,
            previous: in_force.get(at).and_then(Option::as_ref),
        })
        .collect();
    let placement = plan_servers(spec, &members, options).unwrap();
    for (member, share) in members.iter().zip(&placement.shares) {
        if let (Some(part), Some(plan)) = (&share.spec, &share.plan) {
            let violations = bmslice_check::check(part, member.inventory, plan);
            assert!(violations.is_empty(), "{violations:#?}");
        }
    }
    assert!(placement.bound >= placement.placed() as u64);
    placement
}

/// Slices by server.
fn seats(placement: &Placement) -> Vec<Vec<&str>> {
    let of = |share: &'_ bmslice_planner::servers::Share| -> Vec<String> {
        let slices = share.spec.iter().flat_map(|spec| &spec.slices);
        slices.map(|slice| slice.name.to_string()).collect()
    };
    let all: Vec<Vec<String>> = placement.shares.iter().map(of).collect();
    assert!(all.iter().flatten().count() == placement.placed());
    placement
        .shares
        .iter()
        .map(|share| {
            let slices = share.spec.iter().flat_map(|spec| &spec.slices);
            slices.map(|slice| slice.name.as_str()).collect()
        })
        .collect()
}

fn plans(placement: &Placement) -> Vec<Option<Plan>> {
    placement
        .shares
        .iter()
        .map(|share| share.plan.clone())
        .collect()
}

fn workers(count: u32, more: &str) -> Slicing {
    read(&format!(
        "slices:\n{}",
        asked("worker", 2, &format!(", replicas: {count}{more}"))
    ))
}

#[test]
fn replicas_that_grow_and_shrink_move_nobody_and_the_highest_go() {
    let server = lab();
    let three = planned(&workers(3, ""), &server);
    let five = plan_following(&workers(5, ""), &applied(&server, &three), Some(&three)).unwrap();
    assert_eq!(five.slices().len(), 5);
    for slice in three.slices() {
        assert_eq!(five.slice(slice.name.as_str()), Some(slice));
    }
    let two = plan_following(&workers(2, ""), &applied(&server, &five), Some(&five)).unwrap();
    let names: Vec<&str> = two.slices().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["worker-1", "worker-2"]);
    for slice in two.slices() {
        assert_eq!(five.slice(slice.name.as_str()), Some(slice));
    }
}

#[test]
fn replicas_of_which_too_many_are_asked_are_refused_with_the_number_that_fits() {
    // Five cores on each of two nodes, two for each of them.
    let spec = workers(6, "");
    let refusal = plan(&spec, &lab()).unwrap_err();
    let change = refusal.change().unwrap();
    assert_eq!(
        change.to_string(),
        "with `emulator: { cores: 0 }` (on the host's cores) for slice `worker` it fits",
        "all of them change as one"
    );
    planned(&change.apply(&spec).unwrap(), &lab());

    let spec = workers(12, ", emulator: { cores: 0 }");
    let refusal = plan(&spec, &lab()).unwrap_err();
    let change = refusal.change().unwrap();
    assert_eq!(
        change.to_string(),
        "with `replicas: 10` for slice `worker` it fits"
    );
    assert_eq!(
        planned(&change.apply(&spec).unwrap(), &lab())
            .slices()
            .len(),
        10
    );
}

#[test]
fn replicas_that_are_apart_take_a_server_each_and_one_too_many_asks_for_one_more() {
    let servers = fleet(&["one", "two", "three"]);
    let placement = place(
        &workers(3, ", apart: workers"),
        &servers,
        &[],
        Options::default(),
    );
    assert_eq!(
        seats(&placement),
        [vec!["worker-1"], vec!["worker-2"], vec!["worker-3"]]
    );
    let four = workers(4, ", apart: workers");
    let after = place(&four, &servers, &plans(&placement), Options::default());
    assert_eq!((after.placed(), after.bound), (3, 3));
    assert_eq!(plans(&after), plans(&placement), "nobody moves");
    let (_, change) = after.unplaced[0].change.as_ref().unwrap();
    assert!(
        matches!(change, Change::OneMore { slice, .. } if slice.as_str() == "worker-4"),
        "{change}"
    );
}

#[test]
fn replicas_on_several_servers_change_as_one_or_not_at_all() {
    // One server has cores for four vCPUs of each on each node, the other one does not fit a fifth.
    let spec = read(&format!("slices:\n{}", asked("w", 6, ", replicas: 5")));
    let servers = fleet(&["one", "two"]);
    let placement = place(&spec, &servers, &[], Options::default());
    assert_eq!((placement.placed(), placement.bound), (4, 4));
    let (_, change) = placement.unplaced[0].change.as_ref().unwrap();
    let changed = change.apply(&spec).unwrap();
    let after = place(&changed, &servers, &[], Options::default());
    let fits = after.placed() == 5 || matches!(change, Change::OneMore { .. });
    assert!(fits, "{change}");
}
