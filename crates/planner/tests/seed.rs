//! The document's server and its two slices, as it placed them by hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may fail where it stands, and reads its own files"
)]

use std::path::PathBuf;

use bmslice_inventory::Inventory;
use bmslice_model::CpuId;
use bmslice_plan::{Level, Plan};
use bmslice_planner::{plan, plan_following};
use bmslice_spec::Slicing;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/seed")
}

fn seed() -> (Slicing, Inventory) {
    let spec = std::fs::read_to_string(folder().join("slices.yaml")).unwrap();
    let inventory = std::fs::read_to_string(folder().join("inventory.json")).unwrap();
    (
        Slicing::parse("slices.yaml", &spec).unwrap(),
        serde_json::from_str(&inventory).unwrap(),
    )
}

fn list(cpus: &[CpuId]) -> String {
    let all: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    all.join(",")
}

fn placement_is_the_documents(plan: &Plan) {
    let host = plan.host();
    assert_eq!(host.cpus.to_string(), "0-1,12-13");
    assert_eq!(host.isolated.to_string(), "2-11,14-23");
    assert!(host.free.is_empty());
    let args: Vec<&str> = host.kernel_args.iter().map(|arg| arg.as_str()).collect();
    assert_eq!(
        args,
        [
            "intel_iommu=on",
            "iommu=pt",
            "isolcpus=domain,managed_irq,2-11,14-23",
            "irqaffinity=0-1,12-13",
        ]
    );
    let red = plan.slice("Red_k8s_cluster_worker1").unwrap();
    assert_eq!(list(&red.vcpus), "4,6,8,10,16,18,20,22");
    assert_eq!(red.emulator.to_string(), "2,14");
    assert_eq!(red.iothreads, std::slice::from_ref(&red.emulator));
    let blue = plan.slice("Blue_k8s_cluster_worker1").unwrap();
    assert_eq!(list(&blue.vcpus), "5,7,9,11,17,19,21,23");
    assert_eq!(blue.emulator.to_string(), "3,15");
    assert_eq!(blue.iothreads, std::slice::from_ref(&blue.emulator));
    for (slice, function, local) in [
        (red, "0000:01:00.0", Some(true)),
        (blue, "0000:01:00.1", Some(false)),
    ] {
        assert!(slice.idle.is_empty() && !slice.pool_is_host);
        let [nic] = &slice.nics[..] else {
            panic!("one card")
        };
        assert_eq!(nic.functions()[0].to_string(), function);
        assert_eq!(nic.common().local, local);
        let topology = slice.topology;
        assert_eq!(
            (topology.sockets, topology.cores, topology.threads),
            (1, 8, 1),
            "siblings come last, so the guest is shown none"
        );
    }
    let remote: Vec<_> = plan
        .parts()
        .report
        .findings
        .iter()
        .filter(|finding| finding.code == "remote-device")
        .collect();
    let [finding] = remote[..] else {
        panic!("one NIC is remote: {remote:?}")
    };
    assert_eq!(finding.level, Level::Warning);
    assert_eq!(
        finding.slice.as_ref().unwrap().as_str(),
        "Blue_k8s_cluster_worker1"
    );
}

#[test]
fn the_documents_server_gets_the_documents_placement() {
    let (spec, inventory) = seed();
    let plan = plan(&spec, &inventory).unwrap();
    placement_is_the_documents(&plan);
    assert_eq!(bmslice_check::check(&spec, &inventory, &plan), []);
    let golden = folder().join("plan.json");
    if std::env::var_os("BMSLICE_BLESS").is_some() {
        std::fs::write(&golden, plan.to_json()).unwrap();
    }
    let wanted = std::fs::read_to_string(&golden).unwrap();
    let text = plan.to_json();
    for (line, (is, was)) in (1..).zip(text.lines().zip(wanted.lines())) {
        assert_eq!(
            is, was,
            "line {line}; if this is meant, BMSLICE_BLESS=1 writes examples/seed/plan.json anew"
        );
    }
    assert_eq!(text, wanted);
    assert_eq!(Plan::parse(&wanted).unwrap(), plan);
}

#[test]
fn the_placement_is_found_without_naming_nodes() {
    let (spec, inventory) = seed();
    let mut slices = spec.slices.clone();
    for slice in &mut slices {
        slice.numa = bmslice_spec::Numa::Single;
    }
    let spec = Slicing::new(spec.host.clone(), slices).unwrap();
    let plan = plan(&spec, &inventory).unwrap();
    placement_is_the_documents(&plan);
}

#[test]
fn planning_again_gives_the_same_bytes() {
    let (spec, inventory) = seed();
    let first = plan(&spec, &inventory).unwrap();
    assert_eq!(first.to_json(), plan(&spec, &inventory).unwrap().to_json());
    let again = plan_following(&spec, &inventory, Some(&first)).unwrap();
    assert_eq!(first.to_json(), again.to_json());
}
