//! What runs stays where it is.

use super::*;

#[test]
fn a_plan_stays_the_same_when_it_is_applied() {
    let (spec, mut server) = (red_blue(), lab());
    server.boot.iommu = false;
    for f in &mut server.pci {
        f.iommu_group = None;
    }
    let first = planned(&spec, &server);
    assert!(codes(&first, None).contains(&"iommu-off".into()));
    let after = applied(&server, &first);
    let again = plan_following(&spec, &after, Some(&first)).unwrap();
    assert_eq!(first.to_json(), again.to_json());
    holds(&spec, &after, &again);
}

#[test]
fn a_new_slice_moves_nobody_and_names_the_plan_it_follows() {
    let server = lab();
    let (mut a, mut b) = (slice("a", 2), slice("b", 2));
    a.numa = Numa::Node(NumaNodeId(1));
    b.numa = Numa::Single;
    let first = planned(&spec(vec![a.clone(), b.clone()]), &server);
    let after = applied(&server, &first);
    // Alone, `c` would take the place of `b`.
    let c = slice("c", 4);
    let second_spec = spec(vec![c, a, b]);
    let second = plan_following(&second_spec, &after, Some(&first)).unwrap();
    holds(&second_spec, &after, &second);
    assert_eq!(
        second.parts().follows.as_deref(),
        Some(first.digest().as_str())
    );
    for name in ["a", "b"] {
        assert_eq!(first.slice(name).unwrap(), second.slice(name).unwrap());
    }
    let third = plan_following(&second_spec, &applied(&after, &second), Some(&second)).unwrap();
    assert_eq!(second.to_json(), third.to_json());
}

#[test]
fn what_stays_is_not_moved_even_when_moving_would_make_room() {
    let server = lab();
    let mut a = slice("a", 4);
    a.memory = ByteSize::from_gib(1);
    let first = planned(&spec(vec![a.clone()]), &server);
    assert_eq!(node_of(&first, "a"), 0);
    let after = applied(&server, &first);
    let mut big = slice("big", 8);
    big.numa = Numa::Node(NumaNodeId(0));
    let spec = spec(vec![a, big]);
    let refusal = plan_following(&spec, &after, Some(&first)).unwrap_err();
    assert_eq!(refusal.code(), "no-room");
    assert!(
        refusal
            .to_string()
            .contains("beside `a`, which stays there"),
        "{refusal}"
    );
    assert_eq!(refusal.change(), Some(&bmslice_planner::Change::Repack));
}

#[test]
fn a_slice_that_leaves_frees_its_place_for_the_next_plan() {
    let server = lab();
    let first = planned(&spec(vec![slice("a", 8), slice("b", 8)]), &server);
    let after = applied(&server, &first);
    let spec = spec(vec![slice("b", 8), slice("c", 8)]);
    let second = plan_following(&spec, &after, Some(&first)).unwrap();
    follows(&spec, &after, &second, Some(&first));
    assert_eq!(node_of(&second, "b"), 1);
    assert_eq!(node_of(&second, "c"), 0);
    let refusal = plan(&spec, &after).unwrap_err();
    assert_eq!(
        refusal.code(),
        "no-room",
        "without the plan in force `a` is a stranger"
    );
}

#[test]
fn a_domain_keeps_its_uuid_when_the_server_is_renamed() {
    let server = lab();
    let spec = spec(vec![slice("s", 2)]);
    let first = planned(&spec, &server);
    let mut after = applied(&server, &first);
    after.machine.hostname = "server2".into();
    let second = plan_following(&spec, &after, Some(&first)).unwrap();
    holds(&spec, &after, &second);
    assert_eq!(second.slices()[0].uuid, first.slices()[0].uuid);
    assert_eq!(second.parts().follows, Some(first.digest()));
}

#[test]
fn giving_back_the_last_device_reboots_nobody() {
    let server = lab();
    let plain = |name: &str| {
        let mut slice = slice(name, 2);
        slice.hugepages = None;
        slice.memory = ByteSize::from_gib(1);
        slice
    };
    let mut with_nic = plain("with-nic");
    with_nic.nics = vec![whole(by_name("n0p0"))];
    let first = planned(&spec(vec![with_nic, plain("stays")]), &server);
    let args = |plan: &Plan| plan.host().kernel_args.clone();
    assert!(args(&first).iter().any(|arg| arg.is("iommu")));
    let after = applied(&server, &first);
    let rest = spec(vec![plain("stays")]);
    let second = plan_following(&rest, &after, Some(&first)).unwrap();
    follows(&rest, &after, &second, Some(&first));
    assert_eq!(args(&second), args(&first));
    // A server that never had one is not told of an IOMMU.
    let fresh = planned(&rest, &server);
    assert!(!args(&fresh).iter().any(|arg| arg.is("iommu")));
}

/// Slices with pages of 1 GiB, which come with the boot.
fn with_boot_pages(names: &[&str]) -> Vec<SliceSpec> {
    let slices = names.iter().map(|name| {
        let mut slice = slice(name, 2);
        slice.memory = ByteSize::from_gib(1);
        slice.hugepages = Some(ByteSize::from_gib(1));
        slice.numa = Numa::Node(NumaNodeId(1));
        slice
    });
    slices.collect()
}

#[test]
fn nobody_reboots_because_another_slice_needs_its_boot_pages_no_more() {
    let server = lab();
    let both = spec(with_boot_pages(&["a", "b"]));
    let first = planned(&both, &server);
    let after = applied(&server, &first);
    let pages = |plan: &Plan| {
        let pools = plan.host().huge_pages.iter();
        pools
            .map(|pool| (pool.node.0, pool.count))
            .collect::<Vec<_>>()
    };
    assert_eq!(pages(&first), [(1, 2)]);
    let one = spec(with_boot_pages(&["a"]));
    let second = plan_following(&one, &after, Some(&first)).unwrap();
    assert_eq!(first.host().kernel_args, second.host().kernel_args);
    assert_eq!(pages(&second), [(1, 2)]);
    let mut told = second.parts().report.findings.iter();
    let told = told.find(|finding| finding.code == "pages-stay");
    let text = told.map(|finding| finding.text.clone()).unwrap_or_default();
    assert!(
        text.starts_with("1 of the 2 huge pages of 1GiB on node 1 is no slice's any more"),
        "{text}"
    );
    follows(&one, &after, &second, Some(&first));
    // Where there is no plan before there is nothing that could stay.
    let mut alone = second.clone().into_parts();
    alone.follows = None;
    let alone = Plan::new(alone).unwrap();
    let found = bmslice_check::check_alone(&after, &alone);
    assert!(found.iter().any(|it| it.code == "huge-pages"), "{found:?}");
    let found = bmslice_check::check_following(&one, &after, &alone, Some(&first));
    assert!(found.iter().any(|it| it.code == "huge-pages"), "{found:?}");
    let after = applied(&server, &second);
    // Planned again it is the same, and one that comes takes what is there.
    let again = plan_following(&one, &after, Some(&second)).unwrap();
    assert_eq!(second.to_json(), again.to_json());
    let third = plan_following(&spec(with_boot_pages(&["a", "c"])), &after, Some(&second)).unwrap();
    assert_eq!(first.host().kernel_args, third.host().kernel_args);
    assert!(!codes(&third, None).contains(&"pages-stay".into()));
    // Who never had them is not given them.
    assert_eq!(pages(&planned(&one, &server)), [(1, 1)]);
}

#[test]
fn boot_pages_that_nobody_needs_go_where_their_memory_is_needed() {
    let server = lab();
    let first = planned(&spec(with_boot_pages(&["a", "b"])), &server);
    let after = applied(&server, &first);
    let mut slices = with_boot_pages(&["a"]);
    let mut plain = slice("plain", 2);
    plain.numa = Numa::Node(NumaNodeId(1));
    plain.memory = ByteSize::from_gib(2);
    plain.hugepages = None;
    slices.push(plain);
    let spec = spec(slices);
    let second = plan_following(&spec, &after, Some(&first)).unwrap();
    assert_ne!(first.host().kernel_args, second.host().kernel_args);
    follows(&spec, &after, &second, Some(&first));
}
