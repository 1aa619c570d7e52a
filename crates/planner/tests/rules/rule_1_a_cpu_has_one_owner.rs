//! A CPU belongs to at most one.

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
        2, 4, 9, 2, 3, 6, 7, 3, 3, 6, 7, 2, 9, 2, 9, 2, 2, 3, 5, 4, 3, 7, 4, 9, 9, 3, 5, 6, 4, 4,
        5, 7,
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
