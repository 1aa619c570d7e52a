//! One server: who shares with whom, and who stays when others come and go.

use std::collections::BTreeMap;

use super::*;

#[test]
fn rule_2_odd_vcpus_of_a_tenant_share_a_core_where_both_allow_it() {
    let plan = planned(&spec(vec![red("a", 3), red("b", 5)]), &roomy());
    assert_eq!(on(&plan, "a"), [2, 3, 4]);
    assert_eq!(on(&plan, "b"), [6, 7, 8, 9, 5]);
    let (a, b) = (at(&plan, "a"), at(&plan, "b"));
    assert!(a.idle.is_empty() && b.idle.is_empty());
    assert_eq!(a.shared_siblings.to_string(), "5");
    assert_eq!(b.shared_siblings.to_string(), "4");
    assert!(a.shares_a_core_with(b) && b.shares_a_core_with(a));
    // An odd number does not fill cores, whoever is beside it.
    assert_eq!((a.topology.cores, a.topology.threads), (3, 1));
    assert_eq!(plan.host().free.to_string(), "10-11,14-23");
    assert_eq!(
        said(&plan, "b", "shared-core").unwrap(),
        "its vCPU on CPU 5 shares a core with that of `a` on CPU 4, of the same tenant, as both allow"
    );
    assert_eq!(said(&plan, "a", "idle-sibling"), None);
}

#[test]
fn rule_2_no_core_is_shared_across_tenants_or_where_one_does_not_say_so() {
    let nobody = "no other odd vCPU of tenant `red` is left to share the core with";
    let not_said = "`b`, of the same tenant, does not say `sharing: tenant`";
    for (other, why) in [
        (of(red("b", 3), "blue"), nobody),
        (alone(red("b", 3)), not_said),
        (of(slice("b", 3), "red"), not_said),
    ] {
        let plan = planned(&spec(vec![red("a", 3), other]), &roomy());
        for name in ["a", "b"] {
            let slice = at(&plan, name);
            assert!(slice.shared_siblings.is_empty());
            assert_eq!(slice.idle.len(), 1);
        }
        let idle = said(&plan, "a", "idle-sibling").unwrap();
        assert!(idle.ends_with(why), "{idle}");
    }
}

#[test]
fn rule_2_an_idle_sibling_is_told_with_what_would_lend_it() {
    let why = |slices: Vec<SliceSpec>, server: &Inventory| {
        let idle = said(&planned(&spec(slices), server), "a", "idle-sibling");
        idle.unwrap().rsplit_once(", since ").unwrap().1.to_owned()
    };
    let none = |name: &str| alone(red(name, 3));
    // Only where another slice of the tenant has one, too.
    assert_eq!(why(vec![none("a")], &roomy()), "cores are not shared");
    let blue = of(none("b"), "blue");
    assert_eq!(why(vec![none("a"), blue], &roomy()), "cores are not shared");
    assert_eq!(
        why(vec![none("a"), none("b")], &roomy()),
        "tenant `red` shares cores only among slices that say `sharing: tenant`"
    );
    let mut quiet = none("a");
    quiet.smt = Smt::Isolate;
    assert_eq!(
        why(vec![quiet, none("b")], &roomy()),
        "cores are not shared"
    );
    let wide = Shape {
        threads: 4,
        memory: ByteSize::from_gib(64),
        ..Shape::lab()
    };
    assert_eq!(
        why(vec![none("a"), none("b")], &wide.server()),
        "cores are not shared"
    );
    // Of three, two share.
    let three = vec![red("a", 1), red("b", 1), red("c", 1)];
    let idle = said(&planned(&spec(three), &roomy()), "c", "idle-sibling").unwrap();
    assert!(
        idle.ends_with("no other odd vCPU of tenant `red` is left to share the core with"),
        "{idle}"
    );
}

#[test]
fn rule_2_who_finds_nobody_lies_as_without_sharing() {
    for (vcpus, order) in [
        (3, VcpuOrder::SiblingsAdjacent),
        (5, VcpuOrder::SiblingsLast),
        (1, VcpuOrder::SiblingsAdjacent),
        (4, VcpuOrder::SiblingsAdjacent),
    ] {
        let mut s = red("a", vcpus);
        s.vcpu_order = order;
        let with = planned(&spec(vec![s.clone()]), &roomy());
        let without = planned(&spec(vec![alone(s)]), &roomy());
        assert_eq!(with.slices(), without.slices());
    }
}

#[test]
fn rule_2_siblings_of_isolated_vcpus_and_of_pools_are_never_lent() {
    let mut quiet = red("quiet", 2);
    (quiet.smt, quiet.sharing) = (Smt::Isolate, Sharing::None);
    let mut pool = red("pool", 1);
    pool.emulator_cores = 1;
    let plan = planned(&spec(vec![quiet, pool, red("a", 1)]), &roomy());
    let a = at(&plan, "a");
    assert!(a.shares_a_core_with(at(&plan, "pool")));
    assert_eq!(at(&plan, "quiet").idle.len(), 2);
    assert_eq!(at(&plan, "pool").pool().len(), 2, "a whole core");
    assert!(a.vcpu_cpus().is_disjoint(&at(&plan, "pool").pool()));
}

#[test]
fn rule_2_a_server_is_filled_to_the_last_thread() {
    // Five free cores: ten slices of one vCPU, in five pairs; the eleventh has no room.
    let slices = |number| (0..number).map(|i| red(&format!("s{i}"), 1)).collect();
    let plan = planned(&spec(slices(10)), &roomy());
    assert_eq!(plan.host().free.to_string(), "14-23");
    let refusal = bmslice_planner::plan(&spec(slices(11)), &roomy()).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
    // A core with one of the tenant's is not another tenant's.
    let mixed = |number| {
        let mut mixed: Vec<SliceSpec> = slices(number);
        mixed.push(of(red("blue", 1), "blue"));
        spec(mixed)
    };
    let plan = planned(&mixed(7), &roomy());
    assert_eq!(plan.host().free.to_string(), "14-23");
    assert_eq!(plan.slices().iter().map(|s| s.idle.len()).sum::<usize>(), 2);
    let refusal = bmslice_planner::plan(&mixed(9), &roomy()).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
}

/// One node of L3 domains of two cores; the host has the first core.
fn narrow_l3() -> Inventory {
    let shape = Shape {
        nodes: 1,
        cores: 8,
        l3: 2,
        ..Shape::lab()
    };
    shape.server()
}

#[test]
fn rule_8_no_l3_domain_more_is_touched_to_share_a_core() {
    // Each fills a domain of two cores but for a thread: beside the other it would lie in two.
    let plan = planned(&spec(vec![red("a", 3), red("b", 3)]), &narrow_l3());
    for name in ["a", "b"] {
        assert_eq!(at(&plan, name).idle.len(), 1);
        assert_eq!(said(&plan, name, "l3-split"), None);
    }
    assert_eq!(
        said(&plan, "a", "idle-sibling").unwrap(),
        "3 vCPUs have 2 whole cores: CPU 7 stays idle, since the odd vCPU of `b`, of the same tenant, lies on another node, in another L3 domain, or stays where it is"
    );
    // A small one lies beside one of them, in the domain that is touched already.
    let slices = vec![red("a", 3), red("b", 3), red("c", 1)];
    let plan = planned(&spec(slices), &narrow_l3());
    assert!(at(&plan, "c").shares_a_core_with(at(&plan, "a")));
}

#[test]
fn rule_8_where_there_is_no_room_otherwise_a_core_is_shared_across_l3_domains() {
    // Seven free cores; 3 × 3 and 5 vCPUs take them all only in two pairs.
    let slices = vec![red("a", 3), red("b", 3), red("c", 3), red("d", 5)];
    let plan = planned(&spec(slices), &narrow_l3());
    assert!(plan.host().free.is_empty());
    assert!(plan.slices().iter().all(|slice| slice.idle.is_empty()));
}

#[test]
fn rule_11_cores_that_stay_free_are_shared_for() {
    let slices = || vec![red("a", 3), red("b", 3)];
    let with = |headroom_cores| {
        let host = HostSpec {
            headroom_cores,
            ..HostSpec::default()
        };
        Slicing::new(host, slices()).unwrap()
    };
    let plan = planned(&with(4), &narrow_l3());
    assert!(at(&plan, "a").shares_a_core_with(at(&plan, "b")));
    assert_eq!(plan.host().free.len(), 8);
    let refusal = bmslice_planner::plan(&with(5), &narrow_l3()).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
}

#[test]
fn rule_2_spread_slices_share_on_each_node() {
    let spread = |name: &str| {
        let mut s = red(name, 6);
        s.numa = Numa::Spread(2);
        s.memory = ByteSize::from_mib(512);
        s
    };
    let plan = planned(&spec(vec![spread("a"), spread("b")]), &roomy());
    assert_eq!(at(&plan, "a").shared_siblings.len(), 2);
    assert_eq!(plan.host().free.len(), 8);
    assert_eq!(
        said(&plan, "b", "shared-core").unwrap(),
        "its vCPUs on CPUs 5,17 share cores with those of `a` on CPUs 4,16, of the same tenant, as both allow"
    );
}

#[test]
fn rule_4_siblings_last_counts_a_lent_thread_among_the_first() {
    let mut b = red("b", 5);
    b.vcpu_order = VcpuOrder::SiblingsLast;
    let plan = planned(&spec(vec![red("a", 3), b]), &roomy());
    assert_eq!(on(&plan, "b"), [6, 8, 5, 7, 9]);
}

#[test]
fn rule_2_says_nothing_without_smt_and_refuses_wider_cores() {
    let with = |threads| Shape {
        threads,
        ..Shape::lab()
    };
    let plan = planned(&spec(vec![red("a", 3), red("b", 1)]), &with(1).server());
    assert!(
        plan.slices()
            .iter()
            .all(|slice| slice.siblings().is_empty())
    );
    assert!(said(&plan, "a", "nothing-to-share").is_some());
    let refusal = bmslice_planner::plan(&spec(vec![red("a", 6)]), &with(4).server()).unwrap_err();
    assert_eq!(refusal.code(), "wide-cores");
    assert_eq!(
        refusal.to_string(),
        "slice `a` asks for `sharing: tenant`, and 6 vCPUs in a cell do not fill cores of 4 threads: only cores of 2 threads are shared"
    );
    assert!(refusal.hint().is_some());
    planned(&spec(vec![red("a", 8)]), &with(4).server());
}

#[test]
fn rule_9_a_borrower_stays_when_its_lender_leaves_and_lends_in_turn() {
    let first = planned(&spec(vec![red("a", 3), red("b", 5)]), &roomy());
    let second = then(&first, vec![red("b", 5)], &["b"]);
    assert_eq!(
        at(&second, "b").idle.to_string(),
        "4",
        "the sibling is its own now"
    );
    let third = then(&second, vec![red("b", 5), red("c", 1)], &["b"]);
    assert_eq!(on(&third, "c"), [4]);
    // And the lender, when its borrower leaves.
    let fourth = then(&third, vec![red("c", 1)], &["c"]);
    assert_eq!(at(&fourth, "c").idle.to_string(), "5");
}

#[test]
fn rule_9_siblings_that_slices_have_left_are_filled_exactly() {
    // Six slices in three pairs, of which one each leaves; with two whole cores, seven more fit.
    let names = |from, to| (from..to).map(|i| red(&format!("s{i}"), 1));
    let first = planned(&spec(names(0, 6).collect()), &roomy());
    let stay = ["s1", "s3", "s5"];
    let left = || names(0, 6).filter(|s| stay.contains(&s.name.as_str()));
    let second = then(&first, left().collect(), &stay);
    assert_eq!(
        second.slices().iter().map(|s| s.idle.len()).sum::<usize>(),
        3
    );
    let third = then(&second, left().chain(names(10, 17)).collect(), &stay);
    assert_eq!(third.host().free.to_string(), "14-23");
    let server = applied(&roomy(), &second);
    let more = spec(left().chain(names(10, 18)).collect());
    let refusal = plan_following(&more, &server, Some(&second)).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
    // Placed anew it still fits not: there are ten threads.
    assert!(plan_with(&more, &server, Some(&second), Running::MayMove).is_err());
}

#[test]
fn rule_9_who_grows_over_a_lent_sibling_moves_and_the_other_stays() {
    let first = planned(&spec(vec![red("a", 3), red("b", 3)]), &roomy());
    assert_eq!(on(&first, "b"), [6, 7, 5]);
    let second = then(&first, vec![red("a", 4), red("b", 3)], &["b"]);
    assert_eq!(on(&second, "a"), [2, 3, 8, 9]);
    assert_eq!(at(&second, "b").idle.to_string(), "4");
    // Without room for that, it is refused.
    let full = vec![red("a", 3), red("b", 3), red("c", 4)];
    let first = planned(&spec(full.clone()), &roomy());
    let mut grown = full;
    grown[0].vcpus = 4;
    let server = applied(&roomy(), &first);
    let refusal = plan_following(&spec(grown), &server, Some(&first)).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
    assert!(
        refusal
            .to_string()
            .contains("beside `b` and `c`, which stay there"),
        "{refusal}"
    );
}

#[test]
fn rule_9_who_does_not_share_any_more_moves_and_the_other_stays() {
    let first = planned(&spec(vec![red("a", 3), red("b", 3)]), &roomy());
    for changed in [alone(red("a", 3)), of(red("a", 3), "blue")] {
        let second = then(&first, vec![changed, red("b", 3)], &["b"]);
        assert_eq!(at(&second, "b").idle.to_string(), "4");
        assert!(!at(&second, "a").vcpu_cpus().contains(cpu(4)));
    }
    // The first of two stays; and both, where nobody is beside it.
    let both = || vec![alone(red("a", 3)), alone(red("b", 3))];
    let second = then(&first, both(), &[]);
    assert_eq!(on(&second, "a"), [2, 3, 4]);
    then(&second, vec![red("a", 3), red("b", 3)], &["a", "b"]);
}

/// Whether slices fit on so many free cores of two threads beside odd vCPUs of these tenants, tried
/// without a thought.
pub(super) fn fits(slices: &[SliceSpec], cores: u32, open: &[String]) -> bool {
    let Some((first, rest)) = slices.split_first() else {
        return true;
    };
    let whole = |cores: u32, open: &[String]| {
        let left = cores.checked_sub(first.vcpus / 2);
        left.is_some_and(|left| fits(rest, left, open))
    };
    if first.vcpus.is_multiple_of(2) {
        return whole(cores, open);
    }
    let tenant = first.tenant.to_string();
    let shares = first.sharing == Sharing::Tenant;
    let beside = (0..open.len()).filter(|&at| shares && open[at] == tenant);
    let mut beside = beside.map(|at| {
        let mut open = open.to_vec();
        open.remove(at);
        open
    });
    let mut opened = open.to_vec();
    opened.extend(shares.then(|| tenant.clone()));
    beside.any(|open| whole(cores, &open)) || (cores > 0 && whole(cores - 1, &opened))
}

pub(super) fn some_slice() -> impl Strategy<Value = (u32, bool, bool)> {
    (1..=4u32, any::<bool>(), prop::bool::weighted(0.8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// On what slices that left have left over, a plan is found if and only if trying everything
    /// finds one, and those that stay are not touched.
    #[test]
    fn rule_2_beside_those_that_stay_trying_everything_finds_no_more(
        cores in 3..=9u32,
        l3 in prop::sample::select(vec![2u32, 3, 16]),
        before in prop::collection::vec((some_slice(), any::<bool>()), 1..9),
        after in prop::collection::vec(some_slice(), 1..7),
    ) {
        let make = |prefix: &str, at: usize, (vcpus, blue, shares): (u32, bool, bool)| {
            let slice = of(red(&format!("{prefix}{at}"), vcpus), if blue { "blue" } else { "red" });
            if shares { slice } else { alone(slice) }
        };
        let shape = Shape {
            nodes: 1,
            cores,
            l3,
            memory: ByteSize::from_gib(64),
            ..Shape::lab()
        };
        let server = shape.server();
        let all: Vec<SliceSpec> =
            before.iter().enumerate().map(|(at, (it, _))| make("s", at, *it)).collect();
        let first = plan(&spec(all.clone()), &server);
        prop_assert_eq!(first.is_ok(), fits(&all, cores - 1, &[]));
        let Ok(first) = first else { return Ok(()) };
        holds(&spec(all.clone()), &server, &first, None);

        let stay: Vec<SliceSpec> =
            all.into_iter().zip(&before).filter(|(_, (_, stays))| *stays).map(|(it, _)| it).collect();
        let new: Vec<SliceSpec> = after.iter().enumerate().map(|(at, it)| make("n", at, *it)).collect();
        // Of each core that somebody stays on: whether one thread of it may go to a tenant.
        let mut used = BTreeMap::<u32, Vec<&SliceSpec>>::new();
        for slice in &stay {
            for number in on(&first, slice.name.as_str()) {
                used.entry(number / 2).or_default().push(slice);
            }
        }
        let open: Vec<String> = used
            .values()
            .filter(|there| there.len() == 1 && there[0].sharing == Sharing::Tenant)
            .map(|there| there[0].tenant.to_string())
            .collect();
        let free = cores - 1 - u32::try_from(used.len()).unwrap();

        let (now, after) = ([stay.clone(), new.clone()].concat(), applied(&server, &first));
        let second = plan_following(&spec(now.clone()), &after, Some(&first));
        prop_assert_eq!(second.is_ok(), fits(&new, free, &open));
        let Ok(second) = second else { return Ok(()) };
        holds(&spec(now), &after, &second, Some(&first));
        for slice in &stay {
            prop_assert_eq!(on(&first, slice.name.as_str()), on(&second, slice.name.as_str()));
        }
    }
}
