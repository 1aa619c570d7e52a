//! Rule 10: what is refused, and would fit if siblings were shared, is told so, and nothing else is.

use super::*;
use bmslice_planner::Change;
use bmslice_planner::servers::Placement;

/// The names that a refusal would have share, its hint, and that it fits then and not with fewer.
fn would_share(
    spec: &Slicing,
    server: &Inventory,
    in_force: Option<&Plan>,
) -> (Vec<String>, String) {
    let refusal = plan_following(spec, server, in_force).unwrap_err();
    let Some(Change::Share { slices }) = refusal.change() else {
        panic!("{:?}", refusal.hint());
    };
    let fits = |slices: Vec<_>| {
        let changed = Change::Share { slices }.apply(spec).unwrap();
        let found = plan_following(&changed, server, in_force);
        found
            .inspect(|found| holds(&changed, server, found, in_force))
            .is_ok()
    };
    assert!(fits(slices.clone()));
    for at in 0..slices.len() {
        let mut fewer = slices.clone();
        fewer.remove(at);
        assert!(!fits(fewer), "{} is needless", slices[at]);
    }
    let names = slices.iter().map(ToString::to_string).collect();
    (names, refusal.hint().unwrap())
}

fn hint(spec: &Slicing, server: &Inventory) -> String {
    let refusal = plan(spec, server).unwrap_err();
    assert!(!matches!(refusal.change(), Some(Change::Share { .. })));
    refusal.hint().unwrap()
}

/// A server of one node with five free cores.
fn five() -> Inventory {
    let shape = Shape {
        nodes: 1,
        memory: ByteSize::from_gib(64),
        ..Shape::lab()
    };
    shape.server()
}

fn none(name: &str, vcpus: u32) -> SliceSpec {
    alone(red(name, vcpus))
}

/// One of the replicas of `w`.
fn replica(number: u32, vcpus: u32) -> SliceSpec {
    let of = "w".parse().unwrap();
    SliceSpec {
        replica: Some(bmslice_spec::Replica { of, number }),
        ..none(&format!("w-{number}"), vcpus)
    }
}

#[test]
fn rule_10_one_slice_that_could_lie_beside_one_that_shares_is_told_so_before_it_loses_a_vcpu() {
    // Five free cores: 2 + 2 for `a` and `b`, and `c` takes two; beside `a` it takes one.
    let asked = spec(vec![red("a", 3), none("b", 4), none("c", 3)]);
    let (names, hint) = would_share(&asked, &five(), None);
    assert_eq!(names, ["c"]);
    assert_eq!(
        hint,
        "with `sharing: tenant` for slice `c` (odd vCPUs of a tenant then share cores) it fits"
    );
    // Also where it is another one that does not share.
    let asked = spec(vec![none("a", 3), none("b", 4), red("c", 3)]);
    assert_eq!(would_share(&asked, &five(), None).0, ["a"]);
}

#[test]
fn rule_10_slices_that_would_all_have_to_share_come_after_two_vcpus_fewer() {
    let asked = spec(vec![none("a", 3), none("b", 4), none("c", 3)]);
    assert_eq!(
        hint(&asked, &five()),
        "with `vcpus: 2` for slice `c` it fits"
    );
    // Of one vCPU there are no fewer: ten of them are five pairs.
    let ones: Vec<SliceSpec> = (0..10).map(|i| none(&format!("s{i}"), 1)).collect();
    let (names, _) = would_share(&spec(ones.clone()), &five(), None);
    assert_eq!(names.len(), 10);
    // Of seven, two pairs suffice: who came first, and the last that is in nobody's way, stay alone.
    let (names, hint) = would_share(&spec(ones[..7].to_vec()), &five(), None);
    assert_eq!(names, ["s2", "s3", "s4", "s5"]);
    assert_eq!(
        hint,
        "with `sharing: tenant` for slices `s2`, `s3`, `s4` and `s5` (odd vCPUs of a tenant then share cores) it fits"
    );
}

#[test]
fn rule_10_replicas_share_among_themselves_by_one_word() {
    let asked = spec((1..=3).map(|number| replica(number, 3)).collect());
    assert_eq!(would_share(&asked, &five(), None).0, ["w"]);
}

#[test]
fn rule_10_sharing_is_not_told_where_it_does_not_help() {
    let server = five();
    let full = |name: &str| of(none(name, 1), "blue");
    // Of other tenants, of even slices, of isolated ones and of those that promise nothing.
    let other_tenants = vec![none("a", 7), full("b"), of(none("c", 1), "green")];
    assert!(hint(&spec(other_tenants), &server).contains("`vcpus: 6`"));
    assert!(hint(&spec(vec![red("a", 4), none("b", 8)]), &server).contains("`vcpus: 6`"));
    for smt in [Smt::Isolate, Smt::Any] {
        let mut c = none("c", 3);
        c.smt = smt;
        let asked = spec(vec![red("a", 3), none("b", 4), c]);
        assert!(!hint(&asked, &server).contains("sharing"));
    }
    // Two cores short, and sharing gives one.
    let asked = spec(vec![red("a", 3), none("b", 6), none("c", 3)]);
    assert!(!hint(&asked, &server).contains("sharing"));
    // What is short is memory.
    let mut fat = none("c", 3);
    fat.memory = ByteSize::from_gib(100);
    let asked = spec(vec![red("a", 3), fat]);
    assert!(!hint(&asked, &server).contains("sharing"));
    // Cores of one thread have no siblings, and wider ones are not shared.
    for (threads, vcpus) in [(1, 3), (4, 9)] {
        let shape = Shape {
            threads,
            memory: ByteSize::from_gib(64),
            ..Shape::lab()
        };
        let asked = spec(vec![none("a", vcpus), none("b", vcpus)]);
        assert!(!hint(&asked, &shape.server()).contains("sharing"));
    }
}

#[test]
fn rule_10_what_runs_is_told_to_share_and_is_not_touched_by_it() {
    let running = [none("a", 3), none("b", 4)];
    let first = planned(&spec(running.to_vec()), &five());
    let server = applied(&five(), &first);
    // One core is left on node 0; `a` runs beside an idle sibling.
    let asked = spec([&running[..], &[red("c", 3)]].concat());
    let (names, _) = would_share(&asked, &server, Some(&first));
    assert_eq!(names, ["a"]);
    let first = planned(&spec(running.to_vec()), &roomy());
    then(
        &first,
        vec![red("a", 3), none("b", 4), red("c", 3)],
        &["a", "b"],
    );
}

#[test]
fn rule_10_two_tenants_share_each_by_itself_where_one_does_not_suffice() {
    let ones = |tenant: &str| {
        (0..4)
            .map(|i| of(none(&format!("{tenant}{i}"), 1), tenant))
            .collect()
    };
    let (mut all, blue): (Vec<SliceSpec>, Vec<SliceSpec>) = (ones("red"), ones("blue"));
    all.extend(blue);
    let (names, _) = would_share(&spec(all), &five(), None);
    assert_eq!(names.len(), 6);
}

#[test]
fn rule_10_a_refusal_says_which_cores_a_tenant_may_share() {
    let pooled = |name: &str, cores: u32, slice: SliceSpec| SliceSpec {
        name: name.parse().unwrap(),
        emulator_cores: cores,
        shared_pool: true,
        ..slice
    };
    let message = |slices: Vec<SliceSpec>| plan(&spec(slices), &five()).unwrap_err().to_string();
    let a = pooled("a", 1, red("a", 3));
    assert_eq!(
        message(vec![a, pooled("b", 1, none("b", 7))]),
        "slice `a` needs 3 whole cores on node 0, 1 of which is the pool of tenant `red` and 1 may be shared within it and slice `b` needs 5 whole cores on node 0, 1 of which is the pool of tenant `red`; node 0 has 5 free"
    );
    assert_eq!(
        message(vec![red("a", 11)]),
        "slice `a` needs 6 whole cores on node 0, one of which may be shared within tenant `red`; node 0 has 5 free"
    );
    assert_eq!(
        message(vec![pooled("a", 2, none("a", 8))]),
        "slice `a` needs 6 whole cores on node 0, 2 of which are the pool of tenant `red`; node 0 has 5 free"
    );
}

/// Servers of one node with five free cores each.
fn fleet_of(names: &[&str]) -> Vec<Inventory> {
    let named = names.iter().map(|name| {
        let mut server = five();
        server.machine.hostname = (*name).into();
        server
    });
    named.collect()
}

fn change(placement: &Placement) -> &(String, Change) {
    placement.unplaced[0].change.as_ref().unwrap()
}

#[test]
fn rule_10_on_several_servers_a_slice_is_told_to_share_where_it_would_fit() {
    let on = |server: &str, s: SliceSpec| SliceSpec {
        server: Some(server.into()),
        ..s
    };
    let asked = spec(vec![
        on("two", of(none("x", 10), "blue")),
        on("one", red("a", 3)),
        on("one", none("b", 6)),
        none("c", 1),
    ]);
    let servers = fleet_of(&["one", "two"]);
    let placement = place_with(&asked, &servers, &[], Options::default());
    assert_eq!(placement.unplaced[0].slice.as_str(), "c");
    let (server, change) = change(&placement);
    assert_eq!(server, "one");
    assert!(
        matches!(change, Change::Share { slices } if slices.len() == 1),
        "{change}"
    );
    let changed = change.apply(&asked).unwrap();
    assert_eq!(
        place_with(&changed, &servers, &[], Options::default()).placed(),
        4
    );
}

#[test]
fn rule_10_what_would_cost_another_server_its_slices_is_not_told() {
    let replica = |number: u32| SliceSpec {
        apart: Some("ws".into()),
        ..replica(number, 1)
    };
    let on = |server: &str, s: SliceSpec| SliceSpec {
        server: Some(server.into()),
        ..s
    };
    // Both servers are full but for siblings, and on `two`, of wider cores, none is shared.
    for threads in [2, 4] {
        let mut servers = fleet_of(&["one"]);
        let two = Shape {
            nodes: 1,
            threads,
            memory: ByteSize::from_gib(64),
            ..Shape::lab()
        };
        servers.push(two.server());
        servers[1].machine.hostname = "two".into();
        let asked = spec(vec![
            on("one", of(none("x", 8), "blue")),
            on("two", of(none("y", 4 * threads), "blue")),
            replica(1),
            replica(2),
            on("one", none("c", 1)),
        ]);
        let placement = place_with(&asked, &servers, &[], Options::default());
        assert_eq!(placement.placed(), 4);
        let (_, change) = change(&placement);
        let shares = matches!(change, Change::Share { slices } if slices.len() == 2);
        assert_eq!(shares, threads == 2, "{change}");
        if shares {
            let changed = change.apply(&asked).unwrap();
            let after = place_with(&changed, &servers, &[], Options::default());
            assert_eq!(after.placed(), 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is refused is told to share if and only if that helps, as trying everything has it: one
    /// slice before all else, several where one does not suffice and two vCPUs fewer do not.
    #[test]
    fn rule_10_sharing_is_told_where_trying_everything_finds_that_it_helps(
        cores in 2..=5u32,
        asked in prop::collection::vec(one_server::some_slice(), 2..8),
        more in any::<bool>(),
    ) {
        let make = |(at, &(vcpus, blue, shares)): (usize, &(u32, bool, bool))| {
            let slice = of(red(&format!("s{at}"), vcpus), if blue { "blue" } else { "red" });
            if shares && (more || at % 2 == 0) { slice } else { alone(slice) }
        };
        let shape = Shape {
            nodes: 1,
            cores: cores + 1,
            memory: ByteSize::from_gib(64),
            ..Shape::lab()
        };
        let slices: Vec<SliceSpec> = asked.iter().enumerate().map(make).collect();
        let Err(refusal) = plan(&spec(slices.clone()), &shape.server()) else { return Ok(()) };
        let with = |names: &[String]| {
            let mut slices = slices.clone();
            for slice in slices.iter_mut().filter(|it| names.contains(&it.name.to_string())) {
                slice.sharing = Sharing::Tenant;
            }
            one_server::fits(&slices, cores, &[])
        };
        let all: Vec<String> = slices.iter().map(|it| it.name.to_string()).collect();
        let one = all.iter().any(|name| with(std::slice::from_ref(name)));
        match refusal.change() {
            Some(Change::Share { slices }) => {
                let names: Vec<String> = slices.iter().map(ToString::to_string).collect();
                prop_assert!(with(&names));
                prop_assert_eq!(names.len() == 1, one);
                for at in 0..names.len() {
                    let mut fewer = names.clone();
                    fewer.remove(at);
                    prop_assert!(!with(&fewer), "{} is needless", names[at]);
                }
            }
            change => {
                prop_assert!(!one);
                if with(&all) {
                    prop_assert!(matches!(change, Some(Change::Vcpus { .. })), "{change:?}");
                }
            }
        }
    }
}
