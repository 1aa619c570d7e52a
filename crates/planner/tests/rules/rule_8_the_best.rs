//! Of what is feasible, the best is taken.

use super::*;

#[test]
fn one_l3_holds_a_slice_that_fits_in_one() {
    let shape = Shape {
        nodes: 1,
        cores: 16,
        l3: 4,
        memory: ByteSize::from_gib(64),
        ..Shape::lab()
    };
    let mut a = slice("a", 8);
    a.emulator_cores = 0;
    let b = slice("b", 6);
    let plan = planned(&spec(vec![a, b]), &shape.server());
    // Of 3, 4, 4 and 4 free cores `a` fills one of 4, `b` with its pool another.
    assert_eq!(
        numbers(&plan.slice("a").unwrap().vcpus),
        (8..16).collect::<Vec<_>>()
    );
    let b = plan.slice("b").unwrap();
    assert_eq!(b.owned().to_string(), "16-23");
    assert!(!codes(&plan, Some("b")).contains(&"l3-split".into()));
}

#[test]
fn the_lab_gives_red_a_whole_nic_on_node_0_and_blue_a_vf_on_node_1() {
    let (spec, server) = (red_blue(), lab());
    let plan = planned(&spec, &server);
    let red = plan.slice("red").unwrap();
    assert_eq!(numbers(&red.vcpus), [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(red.emulator.to_string(), "2-3");
    assert_eq!((red.topology.cores, red.topology.threads), (4, 2));
    let NicPlan::Passthrough { device, .. } = &red.nics[0] else {
        panic!("whole")
    };
    assert_eq!(device.interface.as_deref(), Some("n0p0"));
    let blue = plan.slice("blue").unwrap();
    assert_eq!(numbers(&blue.vcpus), [16, 17, 18, 19, 20, 21, 22, 23]);
    let NicPlan::Vf {
        pf,
        index,
        address,
        nic,
        ..
    } = &blue.nics[0]
    else {
        panic!("a part")
    };
    assert_eq!((pf.interface.as_deref(), *index), (Some("n1p0"), 0));
    // 81:00.0 is routing id 0x8100; 0x8100 + 384 = 0x8280 is 82:10.0.
    assert_eq!(address.to_string(), "0000:82:10.0");
    assert_eq!(nic.mac.unwrap().bytes()[0], 2);
    let host = plan.host();
    assert_eq!((host.split.len(), host.split[0].vfs), (1, 1));
    let args: Vec<String> = host.kernel_args.iter().map(ToString::to_string).collect();
    assert_eq!(
        args,
        [
            "intel_iommu=on",
            "iommu=pt",
            "isolcpus=domain,managed_irq,2-11,14-23",
            "irqaffinity=0-1,12-13",
            "hugepagesz=1G",
            "hugepages=0:2,1:2",
        ]
    );
    assert!(
        host.huge_pages
            .iter()
            .all(|pages| pages.at_boot && pages.count == 2)
    );
}

#[test]
fn the_example_for_the_lab_is_planned_as_it_says() {
    let text = include_str!("../../../../examples/red-blue.yaml");
    let spec = Slicing::parse("red-blue.yaml", text).unwrap();
    let plan = planned(&spec, &lab());
    let [red, blue] = plan.slices() else {
        panic!("two slices")
    };
    assert_eq!((red.cells[0].node.0, blue.cells[0].node.0), (0, 1));
    assert!(matches!(red.nics[..], [NicPlan::Passthrough { .. }]));
    assert!(matches!(
        &blue.nics[..],
        [NicPlan::Vf { vlan: Some(vlan), nic, .. }] if vlan.number() == 102 && nic.mac.is_some()
    ));
    assert!(!codes(&plan, Some("red-worker1")).contains(&"remote-device".into()));
    assert!(!codes(&plan, Some("blue-worker1")).contains(&"remote-device".into()));
}
