//! What the spec asks of the kernel by name: the arguments that it means, and its price.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_inventory::Inventory;
use bmslice_plan::{Level, Plan};
use bmslice_planner::plan;
use bmslice_spec::{HostSpec, IdleStates, Mitigations, Slicing};
use servers::*;

fn planned(host: HostSpec, tenants: &[&str], server: &Inventory) -> Plan {
    let slices = tenants.iter().map(|tenant| {
        let mut slice = slice(&format!("of-{tenant}"), 2);
        slice.tenant = tenant.parse().unwrap();
        slice
    });
    let spec = Slicing::new(host, slices.collect()).unwrap();
    let plan = plan(&spec, server).unwrap();
    let violations = bmslice_check::check(&spec, server, &plan);
    assert!(violations.is_empty(), "{violations:?}");
    plan
}

/// The arguments that are there for what was asked, beside those of a host that asks for nothing.
fn more(host: &HostSpec, server: &Inventory) -> Vec<String> {
    let args = |host: HostSpec| -> Vec<String> {
        let plan = planned(host, &["red"], server);
        let args = plan.host().kernel_args.iter();
        args.map(|arg| arg.as_str().to_owned()).collect()
    };
    let usual = args(HostSpec::default());
    args(host.clone())
        .into_iter()
        .filter(|arg| !usual.contains(arg))
        .collect()
}

fn said(plan: &Plan, code: &str) -> (Level, String) {
    let mut findings = plan.parts().report.findings.iter();
    let found = findings.find(|finding| finding.code == code);
    let found = found.unwrap_or_else(|| panic!("no {code} is said"));
    (found.level, found.text.clone())
}

#[test]
fn idle_states_are_limited_by_the_cpus_own_driver() {
    let shallow = HostSpec {
        idle_states: IdleStates::Shallow,
        ..HostSpec::default()
    };
    let mut server = lab();
    for (vendor, args) in [
        (
            "GenuineIntel",
            vec!["intel_idle.max_cstate=1", "processor.max_cstate=1"],
        ),
        ("AuthenticAMD", vec!["processor.max_cstate=1"]),
        ("HygonGenuine", vec!["processor.max_cstate=1"]),
    ] {
        server.machine.cpu_vendor = Some(vendor.into());
        assert_eq!(more(&shallow, &server), args, "{vendor}");
    }
    let poll = HostSpec {
        idle_states: IdleStates::Poll,
        ..HostSpec::default()
    };
    assert_eq!(more(&poll, &server), ["idle=poll"]);
    assert_eq!(more(&HostSpec::default(), &server), [""; 0]);
}

#[test]
fn each_choice_tells_its_price() {
    let server = lab();
    let host = |idle_states, mitigations| HostSpec {
        idle_states,
        mitigations,
        ..HostSpec::default()
    };
    let plan = planned(
        host(IdleStates::Shallow, Mitigations::None),
        &["red", "blue"],
        &server,
    );
    let (level, text) = said(&plan, "idle-states");
    assert_eq!(level, Level::Info);
    assert!(text.contains("the price is power"), "{text}");
    let (level, text) = said(&plan, "mitigations");
    assert_eq!(level, Level::Warning);
    assert_eq!(
        text,
        "nothing guards against flaws of the CPU: a guest of one tenant may read the memory of the others (`blue` and `red`) and of the host; right only where all that runs here is trusted alike"
    );
    let one = host(IdleStates::Poll, Mitigations::None);
    let plan = planned(one.clone(), &["red"], &server);
    assert_eq!(said(&plan, "idle-states").0, Level::Warning);
    let (_, text) = said(&plan, "mitigations");
    assert!(
        text.contains("the memory of other guests and of the host"),
        "{text}"
    );
    assert_eq!(more(&one, &server), ["idle=poll", "mitigations=off"]);
    let quiet = planned(HostSpec::default(), &["red"], &server);
    let mut findings = quiet.parts().report.findings.iter();
    assert!(findings.all(|f| f.code != "idle-states" && f.code != "mitigations"));
}

#[test]
fn the_users_own_argument_about_the_same_is_told() {
    let mut server = lab();
    server.boot.cmdline = "root=/dev/vda1 processor.max_cstate=9 quiet"
        .parse()
        .unwrap();
    let host = HostSpec {
        idle_states: IdleStates::Shallow,
        ..HostSpec::default()
    };
    let plan = planned(host, &["red"], &server);
    let (level, text) = said(&plan, "boot-argument");
    assert_eq!(level, Level::Warning);
    assert_eq!(
        text,
        "`processor.max_cstate=9` is among the kernel's arguments and not from bmslice: the spec asks for `processor.max_cstate=1`: take one of them out"
    );
}
