//! What is said when there is no plan, and that what is proposed instead would do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::{DomainFacts, EthtoolFacts, HostNeed, Inventory, LinkModes};
use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use bmslice_plan::NicPlan;
use bmslice_planner::{Change, Refusal, plan};
use bmslice_spec::{HostSpec, NicChoice, NicNuma, Numa, SliceSpec, Slicing, Smt};
use servers::*;

/// The code, the message and the hint; a change that is proposed is tried.
fn refused(spec: &Slicing, server: &Inventory) -> (&'static str, String, String) {
    let refusal = plan(spec, server).unwrap_err();
    match refusal.change() {
        None => {}
        Some(Change::Partly(_)) => {
            let changed = refusal.change().unwrap().apply(spec).unwrap();
            let next = plan(&changed, server).unwrap_err();
            assert_ne!(
                next.to_string(),
                refusal.to_string(),
                "it goes some of the way"
            );
        }
        Some(change) => {
            plan(&change.apply(spec).unwrap(), server).unwrap();
        }
    }
    if refusal.code() == "no-room" {
        cannot_hold_together(spec, server, &refusal);
    }
    (
        refusal.code(),
        refusal.to_string(),
        refusal.hint().unwrap_or_default(),
    )
}

/// Those that a refusal names have no room, with nothing else asked for; without any one of them
/// the others have.
fn cannot_hold_together(spec: &Slicing, server: &Inventory, refusal: &Refusal) {
    let named = refusal.slices();
    let only = |left_out: Option<usize>| {
        let slices = spec.slices.iter().filter(|slice| {
            let at = named.iter().position(|name| **name == slice.name);
            at.is_some() && at != left_out
        });
        Slicing::new(spec.host.clone(), slices.cloned().collect()).ok()
    };
    plan(&only(None).unwrap(), server).unwrap_err();
    for at in 0..named.len() {
        if let Some(fewer) = only(Some(at)) {
            plan(&fewer, server).unwrap();
        }
    }
}

fn says(slices: Vec<SliceSpec>, server: &Inventory, code: &str, message: &str, hint: &str) {
    let (is, said, hinted) = refused(&spec(slices), server);
    assert_eq!((is, said.as_str(), hinted.as_str()), (code, message, hint));
}

fn with_nics(name: &str, nics: Vec<bmslice_spec::NicSpec>) -> SliceSpec {
    let mut s = slice(name, 2);
    s.nics = nics;
    s
}

#[test]
fn too_many_cores_for_any_node() {
    says(
        vec![slice("red-worker1", 10)],
        &lab(),
        "no-room",
        "slice `red-worker1` needs 6 whole cores on one NUMA node; node 0 has 5 free, node 1 has 5",
        "with `vcpus: 8` for slice `red-worker1` it fits",
    );
    let mut big = slice("big", 16);
    big.memory = ByteSize::from_gib(2);
    says(
        vec![big],
        &lab(),
        "no-room",
        "slice `big` needs 9 whole cores on one NUMA node; node 0 has 5 free, node 1 has 5",
        "with `numa: { spread: 2 }` for slice `big` it fits",
    );
}

#[test]
fn a_node_that_is_full_and_another_that_is_not() {
    let (mut a, mut b) = (slice("a", 8), slice("b", 8));
    a.numa = Numa::Node(NumaNodeId(0));
    b.numa = Numa::Node(NumaNodeId(0));
    says(
        vec![a, slice("bystander", 2), b],
        &Shape {
            nodes: 3,
            ..Shape::lab()
        }
        .server(),
        "no-room",
        "slice `a` needs 5 whole cores on node 0 and slice `b` needs 5 whole cores on node 0; node 0 has 5 free, node 1 has 5, node 2 has 5",
        "with `numa: { node: 1 }` for slice `b` it fits",
    );
}

#[test]
fn isolation_that_could_be_packing() {
    let mut quiet = slice("quiet", 8);
    quiet.smt = Smt::Isolate;
    let (code, message, hint) = refused(&spec(vec![quiet, slice("b", 8)]), &lab());
    assert_eq!(code, "no-room");
    assert_eq!(
        message,
        "slice `quiet` needs 9 whole cores on one NUMA node; node 0 has 5 free, node 1 has 5"
    );
    assert_eq!(hint, "with `smt: pack` for slice `quiet` it fits");
}

#[test]
fn memory_that_no_node_has() {
    let mut fat = slice("fat", 2);
    fat.memory = ByteSize::from_gib(4);
    says(
        vec![fat],
        &lab(),
        "no-room",
        "slice `fat` needs 4GiB in huge pages of 1GiB on one NUMA node; node 0 can give 2GiB in pages of 1GiB (the host keeps 1152MiB), node 1 can give 3GiB in pages of 1GiB (the host keeps 640MiB)",
        "with `numa: { spread: 2 }` for slice `fat` it fits",
    );
    let mut plain = slice("plain", 3);
    plain.hugepages = None;
    plain.memory = ByteSize::from_gib(8);
    says(
        vec![plain],
        &lab(),
        "no-room",
        "slice `plain` needs 8GiB of memory on one NUMA node; node 0 can give 2838MiB (the host keeps 1152MiB), node 1 can give 3350MiB (the host keeps 640MiB)",
        "with `size: 3350MiB` of memory for slice `plain` it fits",
    );
}

#[test]
fn those_that_are_named_have_no_room_by_themselves() {
    // The host keeps memory for each guest: what many leave of a node says nothing of a few.
    let mut many: Vec<SliceSpec> = (0..12).map(|n| slice(&format!("s{n}"), 1)).collect();
    for one in &mut many {
        one.emulator_cores = 0;
        one.memory = ByteSize::from_gib(1);
        one.hugepages = None;
    }
    let (_, message, _) = refused(&spec(many), &lab());
    assert_eq!(
        message,
        "5 slices (`s0`, `s1`, … `s4`) each need 1GiB of memory on one NUMA node; node 0 can give 2326MiB (the host keeps 1664MiB), node 1 can give 2838MiB (the host keeps 1152MiB)"
    );
}

#[test]
fn thousands_of_slices_are_refused_by_the_first_that_clash() {
    let mut replicas: Vec<SliceSpec> = (0..5000).map(|n| slice(&format!("s{n}"), 1)).collect();
    for one in &mut replicas {
        one.memory = ByteSize::from_mib(64);
        one.hugepages = None;
    }
    let (_, message, _) = refused(&spec(replicas), &lab());
    assert_eq!(
        message,
        "5 slices (`s0`, `s1`, … `s4`) each need 2 whole cores on one NUMA node; node 0 has 5 free, node 1 has 5"
    );
}

#[test]
fn the_smallest_contradiction_names_only_those_in_it() {
    let mut slices: Vec<SliceSpec> = ["a", "b", "c", "d"].map(|name| slice(name, 2)).into();
    slices[3].nics = vec![whole(need(NicNuma::Same))];
    let mut server = lab();
    server
        .pci
        .retain(|f| !f.address.to_string().starts_with("0000:4"));
    server
        .pci
        .retain(|f| !f.address.to_string().starts_with("0000:8"));
    says(
        slices,
        &server,
        "no-room",
        "slice `d` needs a whole NIC on its NUMA node; no NIC fits that is not the host's or in use",
        "without slice `d` the others fit",
    );
}

#[test]
fn what_is_wrong_twice_is_settled_one_by_one() {
    let mut slices: Vec<SliceSpec> = ["a", "b", "c"].map(|name| slice(name, 4)).into();
    slices.push(with_nics("d", vec![whole(by_name("mgmt0"))]));
    slices[3].memory = ByteSize::from_gib(1);
    slices.push(slice("e", 8));
    let (code, _, hint) = refused(&spec(slices.clone()), &lab());
    assert_eq!(
        (code, hint.as_str()),
        (
            "nic-host-needs",
            "with the NIC `n0p0` for slice `d` and without the slices `c` and `e` it fits; or, to take it from the host all the same, write `passthrough: { name: mgmt0, takeFromHost: true }`, and apply at the server's own console"
        )
    );
    slices.remove(3);
    slices.push(slice("f", 8));
    says(
        slices,
        &lab(),
        "no-room",
        "slice `a` needs 3 whole cores on one NUMA node, slice `b` needs 3 whole cores on one NUMA node and slice `c` needs 3 whole cores on one NUMA node; node 0 has 5 free, node 1 has 5",
        "with `vcpus: 2` for slice `c` and without the slices `e` and `f` it fits",
    );
}

#[test]
fn a_virtual_function_instead_of_a_whole_nic_by_need() {
    // Four NICs, all with VFs, for five slices that want a whole one each.
    let any = |n: u32| with_nics(&format!("s{n}"), vec![whole(need(NicNuma::Any))]);
    let mut five: Vec<SliceSpec> = (0..5).map(any).collect();
    for one in &mut five {
        one.emulator_cores = 0;
        one.memory = ByteSize::from_mib(256);
        one.hugepages = None;
    }
    let (code, _, hint) = refused(&spec(five), &lab());
    assert_eq!(
        (code, hint.as_str()),
        (
            "no-room",
            "with `vf: { of: { numa: any } }` for slice `s4` and `vf: { of: { numa: any } }` for slice `s3` instead of the whole NIC it fits"
        )
    );
}

#[test]
fn more_virtual_functions_than_there_are_get_a_change_that_fits() {
    let of = |n: u32| with_nics(&format!("s{n}"), vec![vf(by_name("n0p0"))]);
    let asked = |count: u32| {
        let mut all: Vec<SliceSpec> = (0..count).map(of).collect();
        for one in &mut all {
            one.vcpus = 1;
            one.emulator_cores = 0;
            one.memory = ByteSize::from_mib(64);
            one.hugepages = None;
        }
        spec(all)
    };
    let (code, _, hint) = refused(&asked(8), &lab());
    assert_eq!(
        (code, hint.as_str()),
        ("vf-total", "with the NIC `n0p1` for slice `s7` it fits")
    );
    let (code, _, hint) = refused(&asked(9), &lab());
    assert_eq!(
        (code, hint.as_str()),
        (
            "vf-total",
            "without the slices `s7` and `s8` the others fit"
        )
    );
}

#[test]
fn near_nics_that_are_too_few() {
    let mut server = lab();
    server.pci.retain(|f| f.address != pci("0000:42:00.0"));
    let near = |name: &str| {
        let mut s = with_nics(name, vec![whole(need(NicNuma::Same))]);
        s.numa = Numa::Node(NumaNodeId(0));
        s
    };
    says(
        vec![near("a"), near("b")],
        &server,
        "no-room",
        "slice `a` needs a whole NIC on its NUMA node and slice `b` needs a whole NIC on its NUMA node; there is 0000:41:00.0 (n0p0) with 7 virtual functions on node 0, 0000:81:00.0 (n1p0) with 7 virtual functions on node 1 and 0000:82:00.0 (n1p1) with 7 virtual functions on node 1",
        "with `numa: { node: 1 }` for slice `b` it fits",
    );
}

#[test]
fn a_nic_that_is_not_there() {
    let there = "0000:00:02.0 (mgmt0) of the host, 0000:41:00.0 (n0p0) on node 0, 0000:42:00.0 (n0p1) on node 0, 0000:81:00.0 (n1p0) on node 1 and 0000:82:00.0 (n1p1) on node 1";
    says(
        vec![with_nics("s", vec![whole(by_name("n0p2"))])],
        &lab(),
        "nic-absent",
        &format!("slice `s` asks for the NIC `n0p2`, which is not there; there is {there}"),
        "did you mean `n0p0`?",
    );
    says(
        vec![with_nics("s", vec![whole(by_name("enp94s0f1"))])],
        &lab(),
        "nic-absent",
        &format!("slice `s` asks for the NIC `enp94s0f1`, which is not there; there is {there}"),
        "a NIC that a guest has shows neither name nor MAC: name it by its PCI address",
    );
}

#[test]
fn the_management_nic() {
    says(
        vec![with_nics("s", vec![whole(by_name("mgmt0"))])],
        &lab(),
        "nic-host-needs",
        "slice `s` cannot have 0000:00:02.0 (mgmt0): the host needs it, since the default route goes through mgmt0",
        "with the NIC `n0p0` for slice `s` it fits; or, to take it from the host all the same, write `passthrough: { name: mgmt0, takeFromHost: true }`, and apply at the server's own console",
    );
}

#[test]
fn the_management_nic_is_taken_from_the_host_where_the_spec_says_so() {
    let take = |name: &str| {
        let mut nic = whole(by_name(name));
        nic.take_from_host = true;
        spec(vec![with_nics("s", vec![nic])])
    };
    let found = plan(&take("mgmt0"), &lab()).unwrap();
    assert!(
        matches!(&found.slices()[0].nics[0], NicPlan::Passthrough { device, from_host: true, .. }
            if device.interface.as_deref() == Some("mgmt0"))
    );
    let findings = &found.parts().report.findings;
    let said = findings.iter().find(|f| f.code == "nic-from-host").unwrap();
    assert_eq!(
        said.text,
        "0000:00:02.0 (mgmt0) is taken from the host, where the default route goes through mgmt0: see that the host is reached another way, and apply at its own console, since over ssh `apply` refuses"
    );
    let violations = bmslice_check::check(&take("mgmt0"), &lab(), &found);
    assert!(violations.is_empty(), "{violations:?}");
    // Of one that the host does not use, nothing is said.
    let found = plan(&take("n0p0"), &lab()).unwrap();
    let mut findings = found.parts().report.findings.iter();
    assert!(findings.all(|f| f.code != "nic-from-host"));
    // What a file system is behind stays, and no way around it is told.
    let mut server = lab();
    function(&mut server, "0000:00:02.0").host_needs = vec![HostNeed::Mount { at: "/srv".into() }];
    let (code, message, hint) = refused(&take("mgmt0"), &server);
    assert_eq!(code, "nic-host-needs");
    assert!(
        message.ends_with("since the host's `/srv` is on it"),
        "{message}"
    );
    assert_eq!(hint, "with the NIC `n0p0` for slice `s` it fits");
}

#[test]
fn a_group_that_holds_the_root_disk() {
    let mut server = lab();
    let group = function(&mut server, "0000:41:00.0").iommu_group;
    let disk = function(&mut server, "0000:00:02.0");
    disk.iommu_group = group;
    disk.class = "0x010000".into();
    disk.host_needs = vec![HostNeed::Mount { at: "/".into() }];
    says(
        vec![with_nics("s", vec![whole(by_name("n0p0"))])],
        &server,
        "group-host-needs",
        "slice `s` cannot have 0000:41:00.0 (n0p0): it goes with its whole IOMMU group (0000:41:00.0 and 0000:00:02.0), and the host needs 0000:00:02.0, since the host's `/` is on it",
        "with `vf: { of: n0p0 }` for slice `s` instead of the whole NIC it fits",
    );
}

#[test]
fn one_group_for_two_slices() {
    let mut server = lab();
    let group = function(&mut server, "0000:41:00.0").iommu_group;
    function(&mut server, "0000:42:00.0").iommu_group = group;
    let (code, message, hint) = refused(
        &spec(vec![
            with_nics("a", vec![whole(by_name("n0p0"))]),
            with_nics("b", vec![whole(by_name("n0p1"))]),
        ]),
        &server,
    );
    assert_eq!(code, "group-shared");
    assert_eq!(
        message,
        "slice `a` asks for the whole of 0000:41:00.0 (n0p0), which goes with its whole IOMMU group (0000:41:00.0 and 0000:42:00.0), and 0000:42:00.0 (n0p1) of that group is asked for by slice `b`"
    );
    assert!(hint.ends_with("it fits"), "{hint}");
}

#[test]
fn one_nic_for_two() {
    // One name for both is the spec's to refuse; a name and an address of one NIC are ours.
    says(
        vec![
            with_nics("a", vec![whole(by_name("n0p0"))]),
            with_nics("b", vec![whole(by_address("0000:41:00.0"))]),
        ],
        &lab(),
        "nic-given-twice",
        "slices `a` and `b` both ask for the whole of 0000:41:00.0 (n0p0)",
        "with `vf: { of: \"0000:41:00.0\" }` for slice `b` and `vf: { of: n0p0 }` for slice `a` instead of the whole NIC it fits",
    );
    says(
        vec![
            with_nics("a", vec![whole(by_name("n0p0"))]),
            with_nics("b", vec![vf(by_address("0000:41:00.0"))]),
        ],
        &lab(),
        "whole-and-split",
        "slice `a` asks for the whole of 0000:41:00.0 (n0p0) and slice `b` for a virtual function of it: a NIC is passed whole or split, not both",
        "with `vf: { of: n0p0 }` for slice `a` instead of the whole NIC it fits",
    );
}

#[test]
fn virtual_functions_that_are_not_there() {
    let mut server = lab();
    function(&mut server, "0000:41:00.0")
        .sriov
        .as_mut()
        .unwrap()
        .total = 1;
    says(
        vec![
            with_nics("a", vec![vf(by_name("n0p0"))]),
            with_nics("b", vec![vf(by_name("n0p0"))]),
        ],
        &server,
        "vf-total",
        "2 virtual functions of 0000:41:00.0 (n0p0) are asked for, the last ones by slice `b`; it has 1, of which 1 are free",
        "with the NIC `n0p1` for slice `b` it fits",
    );
    function(&mut server, "0000:41:00.0").sriov = None;
    says(
        vec![with_nics("a", vec![vf(by_name("n0p0"))])],
        &server,
        "no-sriov",
        "slice `a` asks for a virtual function of 0000:41:00.0 (n0p0), which has no SR-IOV",
        "with the NIC `n0p1` for slice `a` it fits",
    );
}

#[test]
fn vfs_in_use_fix_their_number() {
    let mut server = lab();
    let pf = function(&mut server, "0000:41:00.0");
    let sriov = pf.sriov.as_mut().unwrap();
    sriov.current = 1;
    sriov.vfs = vec![pci("0000:42:10.0")];
    let libvirt = server.hypervisor.libvirt.as_mut().unwrap();
    libvirt.domains.push(DomainFacts {
        name: "legacy".into(),
        uuid: "11111111-2222-3333-4444-555555555555".into(),
        running: true,
        autostart: false,
        cpus: "1".parse().unwrap(),
        devices: vec![pci("0000:42:10.0")],
        ..DomainFacts::default()
    });
    let (code, message, _) = refused(
        &spec(vec![with_nics("a", vec![vf(by_name("n0p0"))])]),
        &server,
    );
    assert_eq!(code, "vf-total");
    assert!(
        message.ends_with("it has 7, of which 0 are free"),
        "{message}"
    );
}

#[test]
fn names_nodes_and_pages_that_are_not_there() {
    let mut server = lab();
    let libvirt = server.hypervisor.libvirt.as_mut().unwrap();
    libvirt.domains.push(DomainFacts {
        name: "s".into(),
        uuid: "11111111-2222-3333-4444-555555555555".into(),
        running: false,
        autostart: false,
        cpus: "1".parse().unwrap(),
        devices: Vec::new(),
        ..DomainFacts::default()
    });
    says(
        vec![slice("s", 2)],
        &server,
        "name-taken",
        "libvirt already has a domain `s` with UUID 11111111-2222-3333-4444-555555555555, which was not made for this slice",
        "give the slice another name, or take the domain away with `virsh undefine s`",
    );
    let mut far = slice("far", 2);
    far.numa = Numa::Node(NumaNodeId(2));
    says(
        vec![far.clone()],
        &lab(),
        "no-such-node",
        "slice `far` asks for NUMA node 2; the server has nodes 0 and 1",
        "write `numa: { node: 0 }` or `numa: single`",
    );
    far.numa = Numa::Spread(4);
    far.vcpus = 4;
    far.memory = ByteSize::from_gib(4);
    says(
        vec![far],
        &lab(),
        "spread-too-wide",
        "slice `far` is to be spread over 4 NUMA nodes; the server has nodes 0 and 1",
        "write `numa: { spread: 2 }`",
    );
    let mut server = lab();
    for node in &mut server.nodes {
        node.huge_pages
            .retain(|pool| pool.size == ByteSize::from_mib(2));
    }
    says(
        vec![slice("s", 2)],
        &server,
        "no-such-page",
        "slice `s` asks for huge pages of 1GiB; the server has 2MiB",
        "write `hugepages: 2MiB`",
    );
}

#[test]
fn a_reserve_that_leaves_nothing() {
    let host = HostSpec {
        reserve_cores: 7,
        ..HostSpec::default()
    };
    let spec = Slicing::new(host, vec![slice("s", 2)]).unwrap();
    let (code, message, hint) = refused(&spec, &lab());
    assert_eq!(code, "reserve");
    assert_eq!(
        message,
        "the host is to keep 7 whole cores on each NUMA node; node 0 has 6"
    );
    assert_eq!(hint, "write `reserve: { cores: 5 }`");
}

#[test]
fn a_virtual_function_or_a_disk_named_as_a_nic() {
    let mut server = lab();
    let mut disk = function(&mut server, "0000:00:02.0").clone();
    disk.address = pci("0000:00:03.0");
    disk.class = "0x010802".into();
    disk.name = Some("NVMe SSD".into());
    server.pci.push(disk);
    let (code, message, _) = refused(
        &spec(vec![with_nics(
            "s",
            vec![whole(by_address("0000:00:03.0"))],
        )]),
        &server,
    );
    assert_eq!(code, "not-a-nic");
    assert!(
        message.starts_with(
            "slice `s` asks for `0000:00:03.0` as a NIC, which is NVMe SSD (class 0x010802); there is"
        ),
        "{message}"
    );
    let mut vf = function(&mut server, "0000:41:00.0").clone();
    vf.address = pci("0000:42:10.0");
    vf.physfn = Some(pci("0000:41:00.0"));
    vf.iommu_group = None;
    server.pci.push(vf);
    says(
        vec![with_nics("s", vec![whole(by_address("0000:42:10.0"))])],
        &server,
        "nic-is-vf",
        "slice `s` asks for `0000:42:10.0`, which is a virtual function of 0000:41:00.0 (n0p0)",
        "write `vf: { of: n0p0 }`: which of its functions it becomes is planned",
    );
}

#[test]
fn a_server_without_cpus() {
    let mut server = lab();
    server.cpus.clear();
    let refusal = plan(&spec(vec![slice("s", 1)]), &server).unwrap_err();
    assert!(matches!(refusal, Refusal::NoCpus { .. }), "{refusal}");
}

#[test]
fn a_server_of_another_architecture() {
    let mut server = lab();
    server.machine.architecture = "ppc64le".into();
    let refusal = plan(&spec(vec![slice("s", 1)]), &server).unwrap_err();
    assert!(
        refusal.to_string().contains("is of architecture ppc64le"),
        "{refusal}"
    );
    server.machine.hostname.clear();
    let refusal = plan(&spec(vec![slice("s", 1)]), &server).unwrap_err();
    assert!(
        refusal
            .to_string()
            .starts_with("this server is of architecture"),
        "{refusal}"
    );
}

#[test]
fn a_network_for_a_nic_that_nothing_tells_apart() {
    let mut server = lab();
    function(&mut server, "0000:41:00.0").mac = None;
    let names = function(&mut server, "0000:41:00.0").interfaces.clone();
    for interface in &mut server.interfaces {
        if names.contains(&interface.name) {
            interface.mac = None;
        }
    }
    let mut nic = whole(by_address("0000:41:00.0"));
    let wanted = with_nics("s", vec![nic.clone()]);
    plan(&spec(vec![wanted]), &server).unwrap();
    nic.network = Some(bmslice_spec::GuestNetwork::default());
    let refusal = plan(&spec(vec![with_nics("s", vec![nic])]), &server).unwrap_err();
    assert_eq!(refusal.code(), "mac-unknown", "{refusal}");
}

#[test]
fn a_server_whose_management_is_not_known_is_said() {
    let mut server = lab();
    let warned = |server: &Inventory| {
        let asked = spec(vec![with_nics(
            "s",
            vec![whole(by_address("0000:41:00.0"))],
        )]);
        let plan = plan(&asked, server).unwrap();
        let findings = plan.parts().report.findings.clone();
        findings.iter().any(|f| f.code == "management-unknown")
    };
    for function in &mut server.pci {
        function.host_needs.clear();
    }
    assert!(warned(&server));
    server.pci[0].host_needs.push(HostNeed::DefaultRoute {
        interface: "eth0".into(),
    });
    assert!(!warned(&server));
}

#[test]
fn a_node_whose_cores_a_cpuset_keeps_away_still_has_its_reserve() {
    let node = lab().nodes[1].cpus.clone();
    // Siblings of the lab are 12 apart: the second set bars one thread of each core.
    let half: CpuSet = node.iter().filter(|cpu| cpu.number() < 12).collect();
    for barred in [node.clone(), half] {
        let mut server = lab();
        for cpu in &mut server.cpus {
            cpu.allowed = !barred.contains(cpu.id);
        }
        let spec = spec(vec![slice("s", 2)]);
        let planned = plan(&spec, &server).unwrap();
        assert!(planned.slices()[0].owned().is_disjoint(&node));
        assert!(!planned.host().cpus.is_disjoint(&node));
        let violations = bmslice_check::check(&spec, &server, &planned);
        assert!(violations.is_empty(), "{barred}: {violations:#?}");
    }
}

#[test]
fn what_is_too_large_in_every_way_gets_all_the_changes_that_it_needs() {
    let server = lab();
    let mut a = slice("a", 64);
    a.memory = ByteSize::from_gib(400);
    let wanted = spec(vec![a]);
    let refusal = bmslice_planner::plan(&wanted, &server).unwrap_err();
    let change = refusal.change().unwrap();
    let Change::Together(changes) = change else {
        panic!("{change}")
    };
    assert_eq!(changes.len(), 2, "{change}");
    bmslice_planner::plan(&change.apply(&wanted).unwrap(), &server).unwrap();
}

#[test]
fn two_slices_that_are_too_large_get_a_change_each() {
    let server = lab();
    let mut slices = vec![slice("a", 10), slice("b", 10)];
    for slice in &mut slices {
        slice.numa = Numa::Single;
    }
    let wanted = spec(slices);
    let refusal = bmslice_planner::plan(&wanted, &server).unwrap_err();
    let change = refusal.change().unwrap();
    assert!(matches!(change, Change::Together(_)), "{change}");
    bmslice_planner::plan(&change.apply(&wanted).unwrap(), &server).unwrap();
}

#[test]
fn a_card_without_a_link_is_as_fast_as_its_driver_says_and_else_of_unknown_speed() {
    let asks = || {
        let choice = NicChoice::Need {
            speed: Some(10_000),
            numa: NicNuma::Any,
        };
        spec(vec![with_nics("red-worker1", vec![whole(choice)])])
    };
    let mut server = lab();
    for interface in &mut server.interfaces {
        interface.carrier = Some(false);
        interface.speed = None;
    }
    let said = plan(&asks(), &server).unwrap_err().to_string();
    assert!(
        said.contains("no NIC that is free is known to be as fast"),
        "{said}"
    );
    assert!(
        said.contains("has no link, and its driver tells no speed"),
        "{said}"
    );
    let free = server
        .pci
        .iter()
        .find(|f| f.is_network() && f.host_needs.is_empty())
        .unwrap()
        .address;
    let interface = server.interfaces.iter_mut().find(|i| i.pci == Some(free));
    interface.unwrap().ethtool = Some(EthtoolFacts {
        link: Some(LinkModes {
            supported: vec!["1000baseT/Full".into(), "10000baseT/Full".into()],
            ..LinkModes::default()
        }),
        ..EthtoolFacts::default()
    });
    assert!(plan(&asks(), &server).is_ok());
}
