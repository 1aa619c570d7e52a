//! Servers whose cores are of several kinds: the report says who has which.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::Inventory;
use bmslice_model::CpuSet;
use bmslice_plan::{Level, Plan};
use bmslice_planner::plan;
use bmslice_spec::Smt;
use servers::*;

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

/// 8 P-cores of two threads (0-15) and 8 E-cores (16-23).
fn hybrid() -> Inventory {
    let mut server = Shape {
        nodes: 1,
        cores: 12,
        l3: 12,
        ..Shape::lab()
    }
    .server();
    for cpu in &mut server.cpus {
        let is_small = cpu.id.number() >= 16;
        cpu.kind = Some(if is_small { "atom" } else { "core" }.into());
        if is_small {
            cpu.siblings = CpuSet::from(cpu.id);
        }
    }
    server
}

fn said(plan: &Plan, code: &str) -> Vec<(Level, String)> {
    let findings = plan.parts().report.findings.iter();
    let these = findings.filter(|finding| finding.code == code);
    these.map(|f| (f.level, f.text.clone())).collect()
}

#[test]
fn a_plan_says_which_kinds_of_cores_slices_have_and_which_were_left_out() {
    let server = hybrid();
    let mut small = slice("small", 4);
    small.emulator_cores = 0;
    let plan = plan(&spec(vec![small]), &server).unwrap();
    let owned = plan.slices()[0].owned();
    let (has, left_out) = if owned.is_subset(&set("0-15")) {
        ("P-cores", "of the E-cores (16-23) slices have none")
    } else {
        ("E-cores", "of the P-cores (0-15) slices have none")
    };
    let [(Level::Info, text)] = &said(&plan, "core-kinds")[..] else {
        panic!("{:?}", plan.parts().report);
    };
    assert!(text.starts_with("the cores are of several kinds: of the P-cores (0-15) slices have"));
    assert!(text.contains(left_out), "{text}");
    assert!(text.contains(&format!("slices have {owned}")), "{text}");
    assert_eq!(
        said(&plan, "core-kind"),
        [(Level::Info, format!("its vCPUs are on {has}"))]
    );
}

#[test]
fn a_slice_over_both_kinds_is_warned_of() {
    let server = hybrid();
    let mut wide = slice("wide", 20);
    wide.smt = Smt::Any;
    wide.emulator_cores = 0;
    let plan = plan(&spec(vec![wide]), &server).unwrap();
    let vcpus = plan.slices()[0].vcpu_cpus();
    let big = vcpus.intersection(&set("0-15"));
    let small = vcpus.intersection(&set("16-23"));
    assert!(!big.is_empty() && !small.is_empty());
    let wanted =
        format!("its vCPUs are on P-cores ({big}) and E-cores ({small}), which differ in speed");
    assert_eq!(said(&plan, "core-kinds-mixed"), [(Level::Warning, wanted)]);
}

#[test]
fn nothing_is_said_of_kinds_where_cores_are_alike() {
    let mut server = hybrid();
    for cpu in &mut server.cpus {
        cpu.kind = Some("core".into());
    }
    let plan = plan(&spec(vec![slice("red", 4)]), &server).unwrap();
    for code in ["core-kinds", "core-kind", "core-kinds-mixed"] {
        assert_eq!(said(&plan, code), []);
    }
}
