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
