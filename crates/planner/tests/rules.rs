//! The rules of placement, one module each; rule 10 is in `refusals.rs`, rule 11 in `several.rs` and
//! `rule11.rs`, and what holds for every server in `properties.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::{DomainFacts, Inventory};
use bmslice_model::{ByteSize, NumaNodeId};
use bmslice_plan::{Level, NicPlan, Plan};
use bmslice_planner::{plan, plan_following};
use bmslice_spec::{HostSpec, Isolation, NicNuma, Numa, SliceSpec, Slicing, Smt, VcpuOrder};
use servers::*;

fn numbers(cpus: &[bmslice_model::CpuId]) -> Vec<u32> {
    cpus.iter().map(|cpu| cpu.number()).collect()
}

fn holds(spec: &Slicing, server: &Inventory, plan: &Plan) {
    follows(spec, server, plan, None);
}

fn follows(spec: &Slicing, server: &Inventory, plan: &Plan, in_force: Option<&Plan>) {
    let violations = bmslice_check::check_following(spec, server, plan, in_force);
    assert!(violations.is_empty(), "{violations:#?}");
}

fn planned(spec: &Slicing, server: &Inventory) -> Plan {
    let plan = plan(spec, server).unwrap();
    holds(spec, server, &plan);
    plan
}

fn codes(plan: &Plan, slice: Option<&str>) -> Vec<String> {
    let findings = plan.parts().report.findings.iter();
    findings
        .filter(|f| f.slice.as_ref().map(|s| s.as_str()) == slice)
        .map(|f| f.code.clone())
        .collect()
}

fn node_of(plan: &Plan, slice: &str) -> u32 {
    plan.slice(slice).unwrap().cells[0].node.0
}

fn red_blue() -> Slicing {
    let mut red = slice("red", 8);
    red.memory = ByteSize::from_gib(2);
    red.nics = vec![whole(need(NicNuma::Same))];
    red.numa = Numa::Node(NumaNodeId(0));
    let mut blue = slice("blue", 8);
    blue.memory = ByteSize::from_gib(2);
    blue.nics = vec![vf(need(NicNuma::Same))];
    blue.numa = Numa::Node(NumaNodeId(1));
    spec(vec![red, blue])
}

fn sharing(name: &str, tenant: &str, vcpus: u32) -> SliceSpec {
    let mut s = slice(name, vcpus);
    s.tenant = tenant.parse().unwrap();
    s.shared_pool = true;
    s
}

mod rule_1_a_cpu_has_one_owner {
    use super::*;

    #[test]
    fn running_strangers_keep_their_cpus_and_devices() {
        let mut server = lab();
        let libvirt = server.hypervisor.libvirt.as_mut().unwrap();
        libvirt.domains.push(DomainFacts {
            name: "legacy".into(),
            uuid: "11111111-2222-3333-4444-555555555555".into(),
            running: true,
            autostart: false,
            cpus: "2,4".parse().unwrap(),
            devices: vec![pci("0000:41:00.0")],
            ..DomainFacts::default()
        });
        let mut s = slice("s", 2);
        s.nics = vec![whole(need(NicNuma::Same))];
        s.numa = Numa::Node(NumaNodeId(0));
        let plan = planned(&spec(vec![s.clone()]), &server);
        assert_eq!(plan.slice("s").unwrap().emulator.to_string(), "6-7");
        assert_eq!(
            plan.slice("s").unwrap().nics[0].functions(),
            [pci("0000:42:00.0")]
        );
        assert!(codes(&plan, None).contains(&"foreign-domain".into()));
        s.nics = vec![whole(by_name("n0p0"))];
        let refusal = bmslice_planner::plan(&spec(vec![s]), &server).unwrap_err();
        assert_eq!(refusal.code(), "nic-in-use");
    }

    #[test]
    fn cpus_that_a_cpuset_keeps_away_are_neither_free_nor_isolated_nor_taken_later() {
        let shape = Shape {
            nodes: 2,
            cores: 4,
            threads: 1,
            l3: 0,
            consecutive: true,
            gap: 0,
            memory: ByteSize::from_gib(8),
        };
        for isolation in [Isolation::Boot, Isolation::Dynamic, Isolation::None] {
            let mut server = shape.server();
            for cpu in [4, 5, 6] {
                server.cpus[cpu].allowed = false;
            }
            let host = HostSpec {
                reserve_cores: 2,
                reserve_per_numa: true,
                isolation,
                ..HostSpec::default()
            };
            let spec = Slicing::new(host, vec![slice("s", 1)]).unwrap();
            let first = planned(&spec, &server);
            // Node 1 has one core for the host, and takes the second from those kept away.
            assert_eq!(first.host().cpus.to_string(), "0-1,4,7", "{isolation:?}");
            assert_eq!(first.host().isolated.to_string(), "2-3", "{isolation:?}");
            assert!(codes(&first, None).contains(&"kept-away".into()));
            let after = applied(&server, &first);
            let again = plan_following(&spec, &after, Some(&first)).unwrap();
            assert_eq!(first.to_json(), again.to_json());
            holds(&spec, &after, &again);
        }
    }

    #[test]
    fn a_server_is_filled_to_the_last_core_where_largest_first_goes_astray() {
        let sizes = [
            2, 4, 9, 2, 3, 6, 7, 3, 3, 6, 7, 2, 9, 2, 9, 2, 2, 3, 5, 4, 3, 7, 4, 9, 9, 3, 5, 6, 4,
            4, 5, 7,
        ];
        let shape = Shape {
            nodes: 6,
            cores: 27,
            threads: 2,
            l3: 4,
            consecutive: false,
            gap: 0,
            memory: ByteSize::from_gib(512),
        };
        let slices = sizes.iter().enumerate().map(|(i, size)| {
            let mut slice = slice(&format!("s{i}"), 2 * size);
            slice.emulator_cores = 0;
            slice
        });
        let plan = planned(&spec(slices.collect()), &shape.server());
        assert!(plan.host().free.is_empty());
    }

    #[test]
    fn packing_all_slices_needs_more_than_first_fit() {
        // 5 and 5 free cores: 3+2 and 3+2. Taking them in order would put 2+2 on node 0.
        let sizes = [2, 2, 3, 3];
        let slices = sizes.iter().enumerate().map(|(i, cores)| {
            let mut s = slice(&format!("s{i}"), cores * 2);
            s.emulator_cores = 0;
            s.memory = ByteSize::from_gib(1);
            s
        });
        let spec = spec(slices.collect());
        let plan = planned(&spec, &lab());
        assert!(plan.host().free.is_empty());
    }
}

mod rule_2_no_core_is_shared {
    use super::*;

    #[test]
    fn slices_of_one_tenant_share_no_core_either() {
        let one = |name: &str| {
            let mut s = slice(name, 1);
            s.tenant = "red".parse().unwrap();
            s.emulator_cores = 0;
            s
        };
        let plan = planned(&spec(vec![one("a"), one("b")]), &lab());
        for s in plan.slices() {
            assert_eq!(s.owned().len(), 2, "the sibling stays idle");
            assert_eq!(s.idle.len(), 1);
        }
        let [a, b] = plan.slices() else {
            panic!("two slices")
        };
        assert!(a.owned().is_disjoint(&b.owned()));
    }
}

mod rule_3_the_host_keeps_its_reserve {
    use super::*;

    #[test]
    fn cpu_0_is_the_hosts_wherever_it_is_and_offline_cpus_are_nobodys() {
        let mut server = lab();
        server.cpus[2].online = false;
        server.cpus[3].online = false;
        let plan = planned(&spec(vec![slice("s", 6)]), &server);
        assert_eq!(plan.host().cpus.to_string(), "0-1,12-13");
        assert_eq!(plan.slice("s").unwrap().emulator.to_string(), "4-5");
        assert!(codes(&plan, None).contains(&"offline".into()));
    }

    #[test]
    fn a_reserve_in_all_stays_on_the_node_of_cpu_0() {
        let host = HostSpec {
            reserve_cores: 2,
            reserve_per_numa: false,
            ..HostSpec::default()
        };
        let spec = Slicing::new(host, vec![slice("s", 10)]).unwrap();
        let plan = planned(&spec, &lab());
        assert_eq!(plan.host().cpus.to_string(), "0-3");
        assert_eq!(node_of(&plan, "s"), 1);
    }
}

mod rule_4_siblings {
    use super::*;

    #[test]
    fn odd_packed_vcpus_leave_a_sibling_idle_and_say_so() {
        let plan = planned(&spec(vec![slice("odd", 5)]), &lab());
        let odd = plan.slice("odd").unwrap();
        assert_eq!(numbers(&odd.vcpus), [4, 5, 6, 7, 8]);
        assert_eq!(odd.idle.to_string(), "9");
        assert_eq!((odd.topology.cores, odd.topology.threads), (5, 1));
        let codes = codes(&plan, Some("odd"));
        assert!(codes.contains(&"idle-sibling".into()) && codes.contains(&"flat-topology".into()));
    }

    #[test]
    fn isolated_vcpus_have_a_core_each() {
        let mut quiet = slice("quiet", 4);
        quiet.smt = Smt::Isolate;
        let plan = planned(&spec(vec![quiet]), &lab());
        let quiet = plan.slice("quiet").unwrap();
        assert_eq!(numbers(&quiet.vcpus), [4, 6, 8, 10]);
        assert_eq!(quiet.idle.to_string(), "5,7,9,11");
        assert_eq!(quiet.topology.threads, 1);
    }

    #[test]
    fn siblings_last_numbers_first_threads_first() {
        let mut s = slice("s", 5);
        s.vcpu_order = VcpuOrder::SiblingsLast;
        let plan = planned(&spec(vec![s]), &lab());
        let s = plan.slice("s").unwrap();
        assert_eq!(numbers(&s.vcpus), [4, 6, 8, 5, 7]);
        assert_eq!(s.idle.to_string(), "9");
    }

    #[test]
    fn without_smt_all_policies_are_alike() {
        let mut shape = Shape::lab();
        shape.threads = 1;
        let server = shape.server();
        let vcpus = |smt| {
            let mut s = slice("s", 3);
            s.smt = smt;
            let plan = planned(&spec(vec![s]), &server);
            let slice = plan.slice("s").unwrap();
            assert!(slice.idle.is_empty() && slice.topology.threads == 1);
            slice.vcpus.clone()
        };
        assert_eq!(vcpus(Smt::Pack), vcpus(Smt::Isolate));
        assert_eq!(vcpus(Smt::Pack), vcpus(Smt::Any));
    }
}

mod rule_5_pools {
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
        assert!(
            (fourth.slice("b").unwrap().pool()).is_disjoint(&fourth.slice("a").unwrap().pool())
        );
    }
}

mod rule_6_nodes_and_memory {
    use super::*;

    #[test]
    fn spread_gives_equal_cells_on_different_nodes() {
        let mut wide = slice("wide", 8);
        wide.numa = Numa::Spread(2);
        wide.memory = ByteSize::from_gib(2);
        let plan = planned(&spec(vec![wide]), &lab());
        let wide = plan.slice("wide").unwrap();
        let nodes: Vec<u32> = wide.cells.iter().map(|cell| cell.node.0).collect();
        assert_eq!(nodes, [0, 1]);
        assert_eq!(wide.cells[1].vcpus.to_string(), "4-7");
        assert_eq!(wide.cells[1].memory, ByteSize::from_gib(1));
        assert_eq!(
            (
                wide.topology.sockets,
                wide.topology.cores,
                wide.topology.threads
            ),
            (2, 2, 2)
        );
        assert_eq!(plan.host().huge_pages.len(), 2);
    }

    #[test]
    fn memory_that_a_cpuset_keeps_away_is_given_to_nobody() {
        for pages in [None, Some(ByteSize::from_gib(1))] {
            let mut server = lab();
            server.nodes[0].allowed = false;
            let mut a = slice("a", 2);
            a.hugepages = pages;
            let plan = planned(&spec(vec![a.clone()]), &server);
            assert_eq!(node_of(&plan, "a"), 1);
            a.numa = Numa::Node(NumaNodeId(0));
            let refusal = bmslice_planner::plan(&spec(vec![a]), &server).unwrap_err();
            let text = refusal.to_string();
            assert!(text.contains("a cpuset keeps its memory away"), "{text}");
        }
    }
}

mod rule_7_devices {
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
}

mod rule_8_the_best {
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
        let text = include_str!("../../../examples/red-blue.yaml");
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
}

mod rule_9_what_runs_stays {
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
}

mod kernel_arguments {
    use super::*;

    #[test]
    fn the_specs_own_arguments_come_after_the_plans_and_fight_with_no_others() {
        let host = HostSpec {
            kernel_args: vec!["processor.max_cstate=1".parse().unwrap()],
            fall_back_minutes: 15,
            ..HostSpec::default()
        };
        let spec = Slicing::new(host, vec![slice("s", 2)]).unwrap();
        let mut server = lab();
        let plan = planned(&spec, &server);
        let last = plan.host().kernel_args.last().map(ToString::to_string);
        assert_eq!(last.as_deref(), Some("processor.max_cstate=1"));
        assert_eq!(plan.host().fall_back_minutes, 15);
        let warned = |plan: &bmslice_plan::Plan| plan.to_json().contains("take one of them out");
        assert!(!warned(&plan));
        let after = applied(&server, &plan);
        let again = plan_following(&spec, &after, Some(&plan)).unwrap();
        assert!(!warned(&again), "what runs is what it asked for");
        server.boot.cmdline = "processor.max_cstate=9".parse().unwrap();
        assert!(warned(&planned(&spec, &server)));
    }

    #[test]
    fn dynamic_isolation_asks_for_no_reboot_where_the_iommu_is_on() {
        let host = HostSpec {
            isolation: Isolation::Dynamic,
            ..HostSpec::default()
        };
        let mut s = slice("s", 2);
        s.nics = vec![whole(by_name("n0p0"))];
        let spec = Slicing::new(host, vec![s]).unwrap();
        let mut server = lab();
        let plan = planned(&spec, &server);
        assert!(plan.host().kernel_args.is_empty());
        assert!(!plan.host().huge_pages[0].at_boot);
        server.boot.iommu = false;
        let off = planned(&spec, &server);
        let args: Vec<String> = off
            .host()
            .kernel_args
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(args, ["intel_iommu=on", "iommu=pt"]);
        let after = applied(&server, &off);
        let again = plan_following(&spec, &after, Some(&off)).unwrap();
        assert_eq!(off.to_json(), again.to_json(), "the IOMMU's arguments stay");
    }

    #[test]
    fn arguments_of_the_user_that_differ_are_told() {
        let mut server = lab();
        server.boot.cmdline = "root=/dev/sda1 isolcpus=2-3 hugepagesz=1G hugepages=1 quiet"
            .parse()
            .unwrap();
        let spec = red_blue();
        let plan = planned(&spec, &server);
        let told: Vec<_> = plan
            .parts()
            .report
            .findings
            .iter()
            .filter(|f| f.code == "boot-argument")
            .collect();
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(told.iter().all(|f| f.level == Level::Warning));
        assert!(told[0].text.contains("`isolcpus=2-3`"));
        // Ours, once they are there, are no conflict.
        let server = lab();
        let first = planned(&spec, &server);
        let mut slices = spec.slices.clone();
        slices.pop();
        let less = servers::spec(slices);
        let after = applied(&server, &first);
        let second = plan_following(&less, &after, Some(&first)).unwrap();
        assert!(!codes(&second, None).contains(&"boot-argument".into()));
    }
}
