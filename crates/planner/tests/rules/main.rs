//! The rules of placement, one module each; rule 10 is in `refusals.rs`, rule 11 in `several.rs` and
//! `rule11.rs`, and what holds for every server in `properties.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod kernel_arguments;
mod rule_1_a_cpu_has_one_owner;
mod rule_2_no_core_is_shared;
mod rule_3_the_host_keeps_its_reserve;
mod rule_4_siblings;
mod rule_5_pools;
mod rule_6_nodes_and_memory;
mod rule_7_devices;
mod rule_8_the_best;
mod rule_9_what_runs_stays;
#[path = "../servers/mod.rs"]
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
    let violations = bmslice_check::check_alone(server, plan);
    assert_eq!(violations, [], "alone");
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
