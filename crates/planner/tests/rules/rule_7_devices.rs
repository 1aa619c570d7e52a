//! What is local, and what goes together.

use super::*;

#[test]
fn a_slice_whose_nic_must_be_near_sits_where_one_is_left() {
    let mut server = lab();
    server.pci.retain(|f| f.address != pci("0000:42:00.0"));
    let mut first = slice("first", 2);
    first.nics = vec![whole(need(NicNuma::Same))];
    let mut second = first.clone();
    second.name = "second".parse().unwrap();
    let mut third = slice("third", 2);
    third.nics = vec![vf(by_name("n1p0"))];
    let spec = spec(vec![first, second, third]);
    let plan = planned(&spec, &server);
    assert_eq!(node_of(&plan, "third"), 1);
    let mut given: Vec<String> = ["first", "second"]
        .iter()
        .map(|name| plan.slice(name).unwrap().nics[0].functions()[0].to_string())
        .collect();
    given.sort();
    assert_eq!(given, ["0000:41:00.0", "0000:82:00.0"]);
}

#[test]
fn a_named_nic_draws_its_slice_to_its_node() {
    let mut a = slice("a", 2);
    a.nics = vec![whole(by_name("n1p1"))];
    let plan = planned(&spec(vec![a]), &lab());
    assert_eq!(node_of(&plan, "a"), 1);
    assert!(!codes(&plan, Some("a")).contains(&"remote-device".into()));
}

#[test]
fn a_group_goes_with_its_slice_and_bridges_do_not() {
    let mut server = lab();
    let group = function(&mut server, "0000:41:00.0").iommu_group;
    add_nic(&mut server, "0000:41:00.1", "n0p0b", Some(0), 0);
    function(&mut server, "0000:41:00.1").iommu_group = group;
    add_nic(&mut server, "0000:40:00.0", "port", Some(0), 0);
    let bridge = function(&mut server, "0000:40:00.0");
    bridge.iommu_group = group;
    bridge.class = "0x060400".into();
    let mut s = slice("s", 2);
    s.nics = vec![whole(by_name("n0p0"))];
    let plan = planned(&spec(vec![s]), &server);
    assert_eq!(
        plan.slice("s").unwrap().nics[0].functions(),
        [pci("0000:41:00.0"), pci("0000:41:00.1")]
    );
    assert!(codes(&plan, Some("s")).contains(&"group-goes-along".into()));
}

#[test]
fn both_ports_of_a_card_without_acs_go_to_one_slice() {
    let mut server = lab();
    let group = function(&mut server, "0000:41:00.0").iommu_group;
    for (address, name) in [("0000:41:00.1", "n0p0b"), ("0000:41:00.2", "n0p0c")] {
        add_nic(&mut server, address, name, Some(0), 0);
        function(&mut server, address).iommu_group = group;
    }
    let mut s = slice("s", 2);
    s.nics = vec![whole(by_name("n0p0")), whole(by_name("n0p0b"))];
    let plan = planned(&spec(vec![s]), &server);
    let given: Vec<_> = plan
        .slice("s")
        .unwrap()
        .nics
        .iter()
        .map(NicPlan::functions)
        .collect();
    assert_eq!(
        given,
        [
            vec![pci("0000:41:00.0"), pci("0000:41:00.2")],
            vec![pci("0000:41:00.1")]
        ]
    );
}

#[test]
fn vfs_take_the_lowest_free_index_and_keep_it() {
    let server = lab();
    let with = |names: &[&str]| {
        let slices = names.iter().map(|name| {
            let mut s = slice(name, 2);
            s.nics = vec![vf(by_name("n0p0"))];
            s.emulator_cores = 0;
            s
        });
        spec(slices.collect())
    };
    let first = planned(&with(&["a", "b"]), &server);
    let index = |plan: &Plan, name: &str| match &plan.slice(name).unwrap().nics[0] {
        NicPlan::Vf { index, .. } => *index,
        _ => panic!("a part"),
    };
    assert_eq!((index(&first, "a"), index(&first, "b")), (0, 1));
    let after = applied(&server, &first);
    let second = plan_following(&with(&["c", "b"]), &after, Some(&first)).unwrap();
    assert_eq!((index(&second, "c"), index(&second, "b")), (0, 1));
    assert_eq!(second.host().split[0].vfs, 2);
}

#[test]
fn nics_that_guests_have_are_still_known_by_name_and_mac() {
    let server = lab();
    let mut red = slice("red", 2);
    red.nics = vec![whole(by_name("n0p0")), whole(by_name("alt-n0p1"))];
    let mac = function(&mut server.clone(), "0000:81:00.0").mac.unwrap();
    let mut blue = slice("blue", 2);
    blue.nics = vec![whole(bmslice_spec::NicChoice::Mac(mac))];
    let spec = spec(vec![red, blue]);
    let first = planned(&spec, &server);
    let after = applied(&server, &first);
    assert_eq!(
        plan(&spec, &after).unwrap_err().code(),
        "nic-absent",
        "without the plan in force nobody knows the name"
    );
    // An alternative name is remembered by nobody: only the first name is in the plan.
    let mut slices = spec.slices.clone();
    slices[0].nics[1] = whole(by_name("n0p1"));
    let spec = servers::spec(slices);
    let first = planned(&spec, &server);
    let again = plan_following(&spec, &after, Some(&first)).unwrap();
    assert_eq!(first.to_json(), again.to_json());
    holds(&spec, &after, &again);
}
