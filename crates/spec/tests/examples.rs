//! The examples of the repository are specs, and mean what they say.
#![allow(clippy::panic, reason = "a test that shows why")]

use bmslice_model::ByteSize;
use bmslice_spec::{
    ImageFrom, NicChoice, NicKind, NicNuma, Numa, Setup, Sharing, Slicing, Smt, VcpuOrder,
};

const SEED: &str = include_str!("../../../examples/seed/slices.yaml");
const FLEET: &str = include_str!("../../../examples/fleet/fleet.yaml");
const TENANT: &str = include_str!("../../../examples/tenant.yaml");
const RED_BLUE: &str = include_str!("../../../examples/red-blue.yaml");

fn parse(text: &str) -> Slicing {
    Slicing::parse("example.yaml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_seeds_two_slices_are_read_as_the_document_made_them() {
    let slicing = parse(SEED);
    let [red, blue] = slicing.slices.as_slice() else {
        panic!("{slicing:?}");
    };
    assert_eq!(red.name.as_str(), "Red_k8s_cluster_worker1");
    assert_eq!(blue.name.as_str(), "Blue_k8s_cluster_worker1");
    for slice in [red, blue] {
        assert_eq!((slice.vcpus, slice.smt), (8, Smt::Pack));
        assert_eq!(slice.vcpu_order, VcpuOrder::SiblingsLast);
        assert_eq!((slice.emulator_cores, slice.iothreads), (1, 1));
        assert_eq!(
            (slice.memory, slice.hugepages),
            (ByteSize::from_gib(8), None)
        );
        assert_eq!(slice.image.size, ByteSize::from_gib(100));
        assert_eq!(slice.image.setup, Setup::VirtCustomize);
        let expand = "/dev/sda1".to_owned();
        assert_eq!(slice.image.from, ImageFrom::Resize { expand });
    }
    assert_eq!(
        (red.numa, blue.numa),
        (Numa::Single, Numa::Node(bmslice_model::NumaNodeId(1)))
    );
    let device = NicChoice::Pci("0000:01:00.1".parse().unwrap());
    assert_eq!(blue.nics[0].kind, NicKind::Passthrough { device });
    let fabric = blue.nics[0].fabric.as_ref().unwrap();
    assert_eq!(fabric.port.as_deref(), Some("ge-0/0/8"));
    assert_eq!(fabric.vlan_name.as_deref(), Some("Blue_Tenant_Network"));
}

#[test]
fn the_labs_two_slices_take_a_whole_nic_and_a_vf() {
    let slicing = parse(RED_BLUE);
    let need = NicChoice::Need {
        speed: None,
        numa: NicNuma::Same,
    };
    let kinds: Vec<&NicKind> = slicing.slices.iter().map(|s| &s.nics[0].kind).collect();
    let vlan = Some(bmslice_model::VlanId::new(102).unwrap());
    let (mac, rules) = (None, bmslice_spec::VfRules::default());
    let device = need;
    let vf = NicKind::Vf {
        of: NicChoice::Name("enp130s0".into()),
        vlan,
        mac,
        rules,
    };
    assert_eq!(kinds, [&NicKind::Passthrough { device }, &vf]);
    assert_eq!(slicing.slices[0].hugepages, Some(ByteSize::from_gib(1)));
    assert_eq!(slicing.slices[0].guest.hostname, "red-worker1");
}

#[test]
fn the_fleets_dns_is_for_edge3_and_reds_workers_are_apart() {
    let slicing = parse(FLEET);
    let named: Vec<(&str, Option<&str>)> = slicing
        .slices
        .iter()
        .map(|slice| (slice.name.as_str(), slice.server.as_deref()))
        .filter(|(_, server)| server.is_some())
        .collect();
    assert_eq!(named, [("dns", Some("edge3"))]);
    let apart = slicing.slices.iter().filter_map(|s| s.apart.as_deref());
    assert_eq!(apart.collect::<Vec<_>>(), ["red-workers", "red-workers"]);
    assert_eq!(slicing.slices.len(), 5);
}

#[test]
fn the_tenants_slices_share_a_pool_and_siblings_and_the_other_tenants_does_not() {
    let slicing = parse(TENANT);
    let (blue, red) = slicing.slices.split_last().unwrap();
    let names: Vec<&str> = red.iter().map(|slice| slice.name.as_str()).collect();
    assert_eq!(names, ["red-router", "red-proxy", "red-dns-1", "red-dns-2"]);
    for slice in red {
        assert_eq!(slice.tenant.as_str(), "red");
        assert_eq!((slice.sharing, slice.shared_pool), (Sharing::Tenant, true));
        assert_eq!(slice.vcpus % 2, 1);
    }
    assert_eq!((blue.sharing, blue.shared_pool), (Sharing::None, false));
}

#[test]
fn iothreads_are_placed_by_either_word() {
    let spec = |word: &str| {
        let text = format!(
            "apiVersion: bmslice/v1\nkind: Slicing\nslices:\n  - name: red\n    vcpus: 4\n    \
             iothreads: {{ count: 1, {word}: emulator }}\n    memory: {{ size: 4GiB }}\n    \
             nics: [{{ passthrough: {{ pci: 0000:01:00.0 }} }}]\n    \
             image: {{ base: a.qcow2, size: 20GiB }}\n"
        );
        Slicing::parse("test.yaml", &text).unwrap().slices.clone()
    };
    assert_eq!(spec("on"), spec("place"));
    assert_eq!(spec("on")[0].iothreads, 1);
}
