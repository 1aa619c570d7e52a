//! What the report says of a plan: why these CPUs and this NIC, and what the server is used for.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_model::ByteSize;
use bmslice_plan::Plan;
use bmslice_planner::plan;
use bmslice_spec::{NicNuma, SliceSpec, Smt, VcpuOrder};
use servers::*;

fn said(plan: &Plan, about: Option<&str>, code: &str) -> Vec<String> {
    let findings = plan.parts().report.findings.iter();
    let of = |slice: &Option<bmslice_model::SliceName>| {
        slice.as_ref().map(bmslice_model::SliceName::as_str) == about
    };
    findings
        .filter(|finding| finding.code == code && of(&finding.slice))
        .map(|finding| finding.text.clone())
        .collect()
}

fn small(name: &str, vcpus: u32) -> SliceSpec {
    let mut slice = slice(name, vcpus);
    slice.memory = ByteSize::from_mib(512);
    slice.hugepages = None;
    slice
}

#[test]
fn the_use_of_a_server_is_told_against_one_worker_on_it() {
    let two = plan(&spec(vec![small("a", 8), small("b", 4)]), &lab()).unwrap();
    assert_eq!(
        said(&two, None, "one-worker"),
        [
            "12 of 24 CPUs run vCPUs (50 %); one worker on this server, the largest of these slices, would run 8 (33 %)"
        ]
    );
    let one = plan(&spec(vec![small("a", 8)]), &lab()).unwrap();
    assert_eq!(
        said(&one, None, "one-worker"),
        ["8 of 24 CPUs run vCPUs (33 %), as one worker on this server would"]
    );
}

#[test]
fn each_slice_is_told_why_it_has_these_cpus() {
    let several = Shape {
        cores: 8,
        l3: 4,
        ..Shape::lab()
    };
    let (mut pairs, mut alone, mut last) = (small("pairs", 4), small("alone", 2), small("last", 4));
    alone.smt = Smt::Isolate;
    last.vcpu_order = VcpuOrder::SiblingsLast;
    pairs.emulator_cores = 1;
    let plan = plan(&spec(vec![pairs, alone, last]), &several.server()).unwrap();
    assert_eq!(
        ["pairs", "alone", "last"].map(|name| said(&plan, Some(name), "cpus-chosen").join("|")),
        [
            "its vCPUs have 2 whole cores, siblings side by side; they share one L3 with the emulator's; no lower number is left free there",
            "its vCPUs have 2 whole cores, one vCPU on each; they share one L3 with the emulator's; no lower number is left free there",
            "its vCPUs have 2 whole cores, the first threads first, then their siblings; they share one L3 with the emulator's; no lower number is left free there",
        ]
    );
}

#[test]
fn each_nic_is_told_why_it_is_this_one() {
    let nic = |name: &str, nics| {
        let mut slice = small(name, 2);
        slice.nics = nics;
        slice
    };
    let slices = vec![
        nic("first", vec![whole(need(NicNuma::Same))]),
        nic("named", vec![whole(by_name("n1p0"))]),
    ];
    let plan = plan(&spec(slices), &lab()).unwrap();
    assert_eq!(
        said(&plan, Some("first"), "nic-chosen"),
        ["NIC 0 is the whole of 0000:82:00.0 (n1p1), which is on its node, the only one left of 2"]
    );
    let alone = nic("alone", vec![whole(need(NicNuma::Any))]);
    let first = bmslice_planner::plan(&spec(vec![alone]), &lab()).unwrap();
    assert_eq!(
        said(&first, Some("alone"), "nic-chosen"),
        [
            "NIC 0 is the whole of 0000:41:00.0 (n0p0), which is on its node, the first by address of 4 that would do"
        ]
    );
    assert_eq!(
        said(&plan, Some("named"), "nic-named"),
        ["NIC 0 is the whole of 0000:81:00.0 (n1p0), which is asked for"]
    );
}
