//! Emulator threads and IOThreads have cores of their own, share a pool, or run on the host's.

use super::*;

#[test]
fn a_pool_on_the_hosts_cores_takes_none_of_the_slices() {
    let mut s = slice("s", 10);
    s.emulator_cores = 0;
    let plan = planned(&spec(vec![s]), &lab());
    let s = plan.slice("s").unwrap();
    assert!(s.pool_is_host);
    assert_eq!(s.emulator, plan.host().cpus);
    assert_eq!(s.vcpus.len(), 10);
}

#[test]
fn slices_of_a_tenant_share_one_pool_on_each_node_where_they_ask_for_it() {
    // 5 and 5 free cores. With a pool each, the three on node 0 would need 6.
    let on = |node, mut s: SliceSpec| {
        (s.hugepages, s.memory) = (None, ByteSize::from_mib(512));
        s.numa = Numa::Node(NumaNodeId(node));
        s
    };
    let all = vec![
        on(0, sharing("a", "red", 4)),
        on(0, sharing("b", "red", 2)),
        on(1, sharing("c", "red", 2)),
        on(0, slice("own", 2)),
    ];
    let mut with_tenant = all.clone();
    with_tenant[3].tenant = "red".parse().unwrap();
    with_tenant[3].emulator_cores = 0;
    let plan = planned(&spec(with_tenant), &lab());
    let pool = |name| plan.slice(name).unwrap().pool();
    assert_eq!(pool("a"), pool("b"));
    assert_eq!(pool("a").len(), 2, "one core of two threads");
    assert!(pool("c").is_disjoint(&pool("a")), "a pool on each node");
    assert!(plan.slice("own").unwrap().pool_is_host);
    assert_eq!(plan.slice("a").unwrap().owned().len(), 4);
    assert_eq!(plan.slice("a").unwrap().held().len(), 6);
    // Of 20 CPUs: 4, 2, 2 and 2 vCPUs, and two pools.
    assert_eq!(plan.host().free.len(), 6);

    let refusal = bmslice_planner::plan(&spec(all), &lab()).unwrap_err();
    assert_eq!(refusal.code(), "no-room", "another tenant's has its own");
}

#[test]
fn tenants_never_share_a_pool() {
    let slices = vec![sharing("a", "red", 2), sharing("b", "blue", 2)];
    let plan = planned(&spec(slices), &lab());
    let pool = |name| plan.slice(name).unwrap().pool();
    assert!(pool("a").is_disjoint(&pool("b")));
}

#[test]
fn a_new_slice_finds_its_tenants_pool_and_a_pool_stays_as_long_as_one_uses_it() {
    let server = lab();
    let (a, b) = (sharing("a", "red", 2), sharing("b", "red", 2));
    let first = planned(&spec(vec![b.clone()]), &server);
    let after = applied(&server, &first);
    let both = spec(vec![a.clone(), b.clone()]);
    let second = plan_following(&both, &after, Some(&first)).unwrap();
    holds(&both, &after, &second);
    assert_eq!(second.slice("b"), first.slice("b"));
    assert_eq!(
        second.slice("a").unwrap().pool(),
        first.slice("b").unwrap().pool()
    );
    let after = applied(&after, &second);
    let alone = spec(vec![a]);
    let third = plan_following(&alone, &after, Some(&second)).unwrap();
    follows(&alone, &after, &third, Some(&second));
    assert_eq!(third.slice("a"), second.slice("a"));
    // With another tenant it would share what is not its own.
    let mut other = b;
    other.tenant = "blue".parse().unwrap();
    let moved = spec(vec![sharing("a", "red", 2), other]);
    let fourth = plan_following(&moved, &after, Some(&second)).unwrap();
    holds(&moved, &after, &fourth);
    assert_eq!(fourth.slice("a"), second.slice("a"));
    assert!((fourth.slice("b").unwrap().pool()).is_disjoint(&fourth.slice("a").unwrap().pool()));
}
