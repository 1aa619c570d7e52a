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
use bmslice_planner::servers::{Fill, Options, Placement};
use bmslice_planner::{Change, Refusal, plan, plan_following};
use bmslice_spec::Slicing;
use servers::*;

fn read(text: &str) -> Slicing {
    let text = format!("apiVersion: bmslice/v1\nkind: Slicing\n{text}");
    Slicing::parse("a.yaml", &text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

/// A slice of a file; with 4 vCPUs it takes three cores.
fn asked(name: &str, vcpus: u32, more: &str) -> String {
    format!(
        "  - {{ name: {name}, vcpus: {vcpus}, memory: {{ size: 256MiB, hugepages: 2MiB }}, image: {{ base: base.qcow2, size: 8GiB }}{more} }}\n"
    )
}

fn planned(spec: &Slicing, server: &Inventory) -> Plan {
    let plan = plan(spec, server).unwrap_or_else(|refusal| panic!("{refusal}"));
    let violations = bmslice_check::check(spec, server, &plan);
    assert!(violations.is_empty(), "{violations:#?}");
    plan
}

/// Slices by server.
fn seats(placement: &Placement) -> Vec<Vec<&str>> {
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
    let four = plan_following(&workers(4, ""), &applied(&server, &three), Some(&three)).unwrap();
    assert_eq!(four.slices().len(), 4);
    for slice in three.slices() {
        assert_eq!(four.slice(slice.name.as_str()), Some(slice));
    }
    let two = plan_following(&workers(2, ""), &applied(&server, &four), Some(&four)).unwrap();
    let names: Vec<&str> = two.slices().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["worker-1", "worker-2"]);
    for slice in two.slices() {
        assert_eq!(four.slice(slice.name.as_str()), Some(slice));
    }
}

#[test]
fn replicas_of_which_too_many_are_asked_are_refused_with_the_number_that_fits() {
    // Five cores on each of two nodes, and two for each slice.
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
    let placement = place_with(
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
    let after = place_with(&four, &servers, &plans(&placement), Options::default());
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
    // Four cores each: one on each of four nodes.
    let spec = read(&format!("slices:\n{}", asked("w", 6, ", replicas: 5")));
    let servers = fleet(&["one", "two"]);
    let placement = place_with(&spec, &servers, &[], Options::default());
    assert_eq!((placement.placed(), placement.bound), (4, 4));
    let (_, change) = placement.unplaced[0].change.as_ref().unwrap();
    let changed = change.apply(&spec).unwrap();
    let after = place_with(&changed, &servers, &[], Options::default());
    let fits = after.placed() == 5 || matches!(change, Change::OneMore { .. });
    assert!(fits, "{change}");
}

fn headroom(cores: u32, slices: &[(&str, u32)], more: &str) -> Slicing {
    let slices: String = slices
        .iter()
        .map(|(name, vcpus)| asked(name, *vcpus, more))
        .collect();
    read(&format!(
        "fleet: {{ headroom: {{ cores: {cores} }} }}\nslices:\n{slices}"
    ))
}

fn free_cores(plan: &Plan) -> usize {
    // Two threads each, and nobody has half a core.
    plan.host().free.len() / 2
}

#[test]
fn headroom_is_kept_to_the_core_on_one_server() {
    // Ten cores, of which each slice takes three.
    let two = [("a", 4), ("b", 4)];
    for cores in [0, 1, 4] {
        let plan = planned(&headroom(cores, &two, ""), &lab());
        assert_eq!(free_cores(&plan), 4);
        let told = plan.parts().report.findings.iter();
        let told: Vec<&str> = told
            .filter(|finding| finding.code == "headroom")
            .map(|finding| finding.text.as_str())
            .collect();
        let wanted = match cores {
            0 => vec![],
            1 => vec!["1 whole core is to stay free as headroom, 4 are"],
            _ => vec!["4 whole cores are to stay free as headroom, 4 are"],
        };
        assert_eq!(told, wanted);
    }
    let refusal = plan(&headroom(5, &two, ""), &lab()).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
}

#[test]
fn headroom_that_does_not_stay_is_refused_by_name_with_the_most_that_would() {
    let spec = headroom(9, &[("a", 2), ("b", 2)], ", emulator: { cores: 0 }");
    let refusal = plan(&spec, &lab()).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "slice `a` needs 1 whole core on one NUMA node and slice `b` needs 1 whole core on one NUMA node; \
         node 0 has 5 free, node 1 has 5; 9 whole cores of the server are to stay free, as `headroom` says"
    );
    let change = refusal.change().unwrap();
    assert_eq!(change.to_string(), "with `headroom: { cores: 8 }` it fits");
    planned(&change.apply(&spec).unwrap(), &lab());
}

#[test]
fn headroom_is_no_reason_where_something_else_is() {
    let refusal = plan(&headroom(1, &[("a", 40)], ""), &lab()).unwrap_err();
    assert!(!refusal.to_string().contains("headroom"), "{refusal}");
}

#[test]
fn headroom_that_what_runs_has_taken_is_refused_and_moves_nobody() {
    let server = lab();
    let before = planned(&headroom(0, &[("a", 4), ("b", 4)], ""), &server);
    let after = applied(&server, &before);
    let four = plan_following(
        &headroom(4, &[("a", 4), ("b", 4)], ""),
        &after,
        Some(&before),
    );
    assert_eq!(four.unwrap().slices(), before.slices());
    let five = headroom(5, &[("a", 4), ("b", 4)], "");
    let refusal = plan_following(&five, &after, Some(&before)).unwrap_err();
    assert!(
        refusal
            .to_string()
            .contains("5 whole cores of the server are to stay free"),
        "{refusal}"
    );
}

#[test]
fn headroom_is_kept_on_each_server_and_the_bound_knows_it() {
    let five: Vec<(String, u32)> = (0..5).map(|n| (format!("s{n}"), 4)).collect();
    let five: Vec<(&str, u32)> = five.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    let servers = fleet(&["one", "two"]);
    let placement = place_with(&headroom(4, &five, ""), &servers, &[], Options::default());
    assert_eq!((placement.placed(), placement.bound), (4, 4));
    for plan in plans(&placement) {
        assert_eq!(free_cores(&plan.unwrap()), 4);
    }
    let without = place_with(&headroom(0, &five, ""), &servers, &[], Options::default());
    assert_eq!(
        without.placed(),
        4,
        "two nodes of five cores each hold one each"
    );
    let small: Vec<(&str, u32)> = five.iter().map(|(name, _)| (*name, 2)).collect();
    // Four of two cores fit on one; with three to stay free, three do.
    let packed = place_with(&headroom(3, &small, ""), &servers, &[], Options::default());
    assert_eq!(seats(&packed)[0].len(), 3);
    assert_eq!(packed.placed(), 5);
}

#[test]
fn spread_goes_by_tenant_first_and_then_by_cores() {
    let text = [
        asked("big", 8, ", tenant: blue"),
        asked("red", 4, ", replicas: 2"),
    ]
    .concat();
    let spread = read(&format!("fleet: {{ place: spread }}\nslices:\n{text}"));
    let options = Options {
        fill: spread.fleet.place.into(),
        ..Options::default()
    };
    assert_eq!(options.fill, Fill::Spread);
    let servers = fleet(&["one", "two"]);
    // `two` has more cores left for the second one, and has the first one.
    assert_eq!(
        seats(&place_with(&spread, &servers, &[], options)),
        [vec!["big", "red-2"], vec!["red-1"]]
    );
    let pack = read(&format!("slices:\n{text}"));
    assert_eq!(Fill::from(pack.fleet.place), Fill::Pack);
    assert_eq!(
        seats(&place_with(&pack, &servers, &[], Options::default())),
        [vec!["big", "red-1"], vec!["red-2"]]
    );
}

const LABELS: &str = "fleet: { servers: [{ name: one, labels: { zone: a } }, { name: two, labels: { zone: b, disk: nvme } }, { name: three, labels: { zone: b } }] }\n";

fn selecting(slices: &[String]) -> Slicing {
    read(&format!("{LABELS}slices:\n{}", slices.concat()))
}

#[test]
fn a_selector_takes_only_servers_with_all_of_its_labels() {
    let spec = selecting(&[
        asked("a", 2, ", selector: { zone: b, disk: nvme }"),
        asked("b", 2, ", selector: { zone: b }, replicas: 2, apart: bs"),
        asked("c", 2, ""),
    ]);
    let servers = fleet(&["one", "two", "three"]);
    let placement = place_with(&spec, &servers, &[], Options::default());
    let seats = seats(&placement);
    assert_eq!(seats.concat().len(), 4);
    assert!(seats[1].contains(&"a"), "{seats:?}");
    for (server, slices) in seats.iter().enumerate() {
        let bs = slices.iter().filter(|name| name.starts_with("b-")).count();
        assert_eq!(bs, usize::from(server > 0), "{seats:?}");
    }
}

#[test]
fn one_server_without_the_labels_refuses_the_slice_and_names_one_with_them() {
    let spec = selecting(&[asked("a", 2, ", selector: { disk: nvme }")]);
    let refusal = plan(&spec, &named("one")).unwrap_err();
    assert!(matches!(refusal, Refusal::Selector { .. }), "{refusal}");
    assert_eq!(
        refusal.to_string(),
        "slice `a` is for servers with the labels `disk: nvme`, which `one` does not have"
    );
    assert_eq!(
        refusal.hint().unwrap(),
        "plan it on `two`: give `--inventory` of it, too"
    );
    let plan = planned(&spec, &named("two"));
    let told = plan.parts().report.findings.iter();
    let mut told = told.filter(|finding| finding.code == "selector");
    assert_eq!(
        told.next().unwrap().text,
        "this server has the labels that it selects by: `disk: nvme`"
    );
}

#[test]
fn a_selector_whose_servers_are_full_or_absent_says_what_it_costs() {
    let spec = selecting(&[
        asked("a", 8, ", selector: { zone: a }, replicas: 2"),
        asked("b", 8, ", selector: { zone: a }"),
    ]);
    let servers = fleet(&["one", "two"]);
    let placement = place_with(&spec, &servers, &[], Options::default());
    assert_eq!((placement.placed(), placement.unplaced.len()), (2, 1));
    let unplaced = &placement.unplaced[0];
    assert_eq!((unplaced.slice.as_str(), unplaced.eligible), ("b", 1));
    let (server, change) = unplaced.change.as_ref().unwrap();
    assert_eq!(server, "two");
    assert_eq!(
        change.to_string(),
        "without `selector` for slice `b` it fits"
    );
    let changed = change.apply(&spec).unwrap();
    assert_eq!(
        place_with(&changed, &servers, &[], Options::default()).placed(),
        3
    );

    let absent = place_with(&spec, &fleet(&["two"]), &[], Options::default());
    assert_eq!((absent.placed(), absent.bound), (0, 0));
    assert!(absent.unplaced.iter().all(|it| it.eligible == 0));
}

#[test]
fn labels_that_change_move_who_selects_by_them_and_nobody_else() {
    let slices = [asked("a", 2, ", selector: { zone: a }"), asked("b", 2, "")];
    let servers = fleet(&["one", "two"]);
    let before = place_with(&selecting(&slices), &servers, &[], Options::default());
    assert_eq!(seats(&before), [vec!["a", "b"], vec![]]);
    // A label more of another server changes no byte.
    let more = LABELS.replace("disk: nvme", "disk: nvme, zone-of: x");
    let spec = read(&format!("{more}slices:\n{}", slices.concat()));
    let same = place_with(&spec, &servers, &plans(&before), Options::default());
    assert_eq!(plans(&same), plans(&before));
    // Then `zone: a` is another server's.
    let swapped = LABELS
        .replace("zone: a", "zone: x")
        .replace("zone: b, disk", "zone: a, disk");
    let spec = read(&format!("{swapped}slices:\n{}", slices.concat()));
    let after = place_with(&spec, &servers, &plans(&before), Options::default());
    assert_eq!(seats(&after), [vec!["b"], vec!["a"]]);
    let b = |placement: &Placement| {
        let plan = placement.shares[0].plan.as_ref().unwrap();
        plan.slice("b").unwrap().clone()
    };
    assert_eq!(b(&before), b(&after));
}
