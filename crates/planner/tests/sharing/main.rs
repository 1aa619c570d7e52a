//! Rule 2's `sharing: tenant`: siblings that odd vCPUs leave go to slices of the same tenant.
//! That trying everything finds no more on an empty server is in `properties.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod fleets;
mod mutations;
mod one_server;
mod refused;
#[path = "../servers/mod.rs"]
mod servers;

use bmslice_inventory::Inventory;
use bmslice_model::{ByteSize, CpuId, NumaNodeId};
use bmslice_plan::{Plan, SlicePlan};
use bmslice_planner::servers::Options;
use bmslice_planner::{Running, plan, plan_following, plan_with};
use bmslice_spec::{HostSpec, Numa, Sharing, SliceSpec, Slicing, Smt, VcpuOrder};
use proptest::prelude::*;
use servers::*;

/// A slice of the tenant `red` on node 0 that may share, with its pool on the host's cores.
fn red(name: &str, vcpus: u32) -> SliceSpec {
    let mut s = slice(name, vcpus);
    s.tenant = "red".parse().unwrap();
    s.sharing = Sharing::Tenant;
    s.emulator_cores = 0;
    (s.hugepages, s.memory) = (None, ByteSize::from_mib(256));
    s.numa = Numa::Node(NumaNodeId(0));
    s
}

fn of(mut slice: SliceSpec, tenant: &str) -> SliceSpec {
    slice.tenant = tenant.parse().unwrap();
    slice
}

fn alone(mut slice: SliceSpec) -> SliceSpec {
    slice.sharing = Sharing::None;
    slice
}

/// The lab's server (five free cores on each of two nodes), with memory for many.
fn roomy() -> Inventory {
    let shape = Shape {
        memory: ByteSize::from_gib(64),
        ..Shape::lab()
    };
    shape.server()
}

fn planned(spec: &Slicing, server: &Inventory) -> Plan {
    let found = plan(spec, server).unwrap();
    holds(spec, server, &found, None);
    found
}

fn holds(spec: &Slicing, server: &Inventory, found: &Plan, in_force: Option<&Plan>) {
    let violations = bmslice_check::check_following(spec, server, found, in_force);
    assert!(
        violations.is_empty(),
        "{violations:#?}\n{}",
        found.to_json()
    );
    assert_eq!(Plan::parse(&found.to_json()).unwrap(), *found);
}

/// The plan for other slices on the server where one is in force, and whether all but its siblings
/// stays the same of those that are named.
fn then(first: &Plan, slices: Vec<SliceSpec>, stay: &[&str]) -> Plan {
    let (server, spec) = (applied(&roomy(), first), spec(slices));
    let second = plan_following(&spec, &server, Some(first)).unwrap();
    holds(&spec, &server, &second, Some(first));
    for name in stay {
        let (was, now) = (at(first, name), at(&second, name));
        assert_eq!(was.siblings(), now.siblings(), "{name}");
        let siblings_apart = SlicePlan {
            idle: was.idle.clone(),
            shared_siblings: was.shared_siblings.clone(),
            ..now.clone()
        };
        assert_eq!(*was, siblings_apart, "{name} is not touched");
    }
    let again = plan_following(&spec, &applied(&roomy(), &second), Some(&second)).unwrap();
    assert_eq!(again.to_json(), second.to_json(), "it is stable");
    second
}

fn at<'a>(plan: &'a Plan, name: &str) -> &'a SlicePlan {
    plan.slice(name).unwrap()
}

fn on(plan: &Plan, name: &str) -> Vec<u32> {
    let vcpus = at(plan, name).vcpus.iter();
    vcpus.map(|cpu: &CpuId| cpu.number()).collect()
}

fn said(plan: &Plan, slice: &str, code: &str) -> Option<String> {
    let mut findings = plan.parts().report.findings.iter();
    let about = |name: &bmslice_model::SliceName| name.as_str() == slice;
    let found = findings.find(|f| f.code == code && f.slice.as_ref().is_some_and(about));
    found.map(|found| found.text.clone())
}
