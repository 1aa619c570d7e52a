//! Two slices of one tenant that share a core with an odd vCPU of each (`sharing: tenant`): right
//! where both allow it, and objected to wherever one thing of that is not so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod server;

use bmslice_check::check;
use bmslice_model::{CpuSet, NumaNodeId};
use bmslice_plan::{GuestCell, Plan, PlanParts};
use bmslice_spec::{Numa, Sharing, SliceSpec, Slicing, Smt};
use server::{cpu, cpus, stranger};

const RED: usize = 0;
const BLUE: usize = 1;
const GREEN: usize = 2;
const WIDE: usize = 3;

/// `blue` has CPUs 8, 22 and 9, `wide` 11, 25 and 23, which is the sibling of 9.
fn right() -> (Vec<SliceSpec>, PlanParts) {
    let (mut asked, mut parts) = (server::slice_specs(), server::parts());
    for at in [BLUE, WIDE] {
        asked[at].sharing = Sharing::Tenant;
        asked[at].tenant = "blue-tenant".parse().unwrap();
        parts.slices[at].tenant = asked[at].tenant.clone();
    }
    (asked[WIDE].vcpus, asked[WIDE].numa) = (3, Numa::Single);
    let wide = &mut parts.slices[WIDE];
    wide.vcpus = vec![cpu(11), cpu(23), cpu(25)];
    wide.cells = vec![GuestCell {
        node: NumaNodeId(1),
        vcpus: cpus("0-2"),
        memory: wide.memory,
    }];
    (wide.topology.sockets, wide.topology.cores) = (1, 3);
    wide.emulator = cpus("12,26");
    wide.iothreads = vec![cpus("12,26")];
    wide.shared_siblings = cpus("9");
    parts.slices[BLUE].idle = CpuSet::new();
    parts.slices[BLUE].shared_siblings = cpus("23");
    parts.host.free = cpus("5-6,13,19-20,27");
    (asked, parts)
}

fn spec(asked: Vec<SliceSpec>) -> Slicing {
    Slicing::new(server::host_spec(), asked).unwrap()
}

fn violations(asked: Vec<SliceSpec>, mut parts: PlanParts) -> Vec<&'static str> {
    let spec = spec(asked);
    parts.spec_digest.clone_from(&spec.digest);
    let Ok(plan) = Plan::new(parts) else {
        return vec!["refused"];
    };
    let found = check(&spec, &server::inventory(), &plan);
    found.iter().map(|violation| violation.code).collect()
}

type Wrong = (
    &'static str,
    &'static str,
    fn(&mut Vec<SliceSpec>, &mut PlanParts),
);

#[rustfmt::skip]
const WRONG: &[Wrong] = &[
    ("core-shared", "the first does not say so", |s, _| s[BLUE].sharing = Sharing::None),
    ("core-shared", "the second does not say so", |s, _| s[WIDE].sharing = Sharing::None),
    ("core-shared", "asked were two tenants", |s, _| s[WIDE].tenant = "red-tenant".parse().unwrap()),
    ("refused", "two tenants that say so of each other", |s, p| {
        s[WIDE].tenant = "red-tenant".parse().unwrap();
        p.slices[WIDE].tenant = s[WIDE].tenant.clone();
    }),
    ("core-shared", "two tenants, and not said", |s, p| {
        s[WIDE].tenant = "red-tenant".parse().unwrap();
        p.slices[WIDE].tenant = s[WIDE].tenant.clone();
        p.slices[WIDE].shared_siblings = CpuSet::new();
        p.slices[BLUE].shared_siblings = CpuSet::new();
    }),
    ("sibling-shared", "not said", |_, p| {
        p.slices[WIDE].shared_siblings = CpuSet::new();
        p.slices[BLUE].shared_siblings = CpuSet::new();
    }),
    ("refused", "said by one alone", |_, p| p.slices[BLUE].shared_siblings = CpuSet::new()),
    ("refused", "lent, and idle as well", |_, p| p.slices[BLUE].idle = cpus("23")),
    ("refused", "lent, and free as well", |_, p| p.host.free = cpus("5-6,13,19-20,23,27")),
    ("sibling-shared", "another one of the neighbour's vCPUs", |_, p| p.slices[BLUE].shared_siblings = cpus("25")),
    ("core-shared", "an idle sibling of the neighbour's", |_, p| {
        // 23 and 9 are blue's core; wide keeps 23 idle and runs on 5.
        p.slices[WIDE].vcpus[1] = cpu(5);
        p.slices[WIDE].idle = cpus("23");
        p.slices[WIDE].shared_siblings = CpuSet::new();
        p.slices[BLUE].shared_siblings = CpuSet::new();
        p.host.free = cpus("6,13,19-20,27");
    }),
    ("core-shared", "a pool's core", |_, p| {
        p.slices[WIDE].vcpus[1] = cpu(24);
        p.slices[WIDE].shared_siblings = CpuSet::new();
        p.slices[BLUE].shared_siblings = CpuSet::new();
        p.slices[BLUE].idle = cpus("23");
        p.slices[BLUE].emulator = cpus("10");
        p.slices[BLUE].iothreads = vec![cpus("10")];
    }),
    ("core-shared", "the core of an isolated vCPU", |s, p| {
        s[GREEN].tenant = s[WIDE].tenant.clone();
        p.slices[GREEN].tenant = s[WIDE].tenant.clone();
        p.slices[GREEN].idle = CpuSet::new();
        p.slices[GREEN].shared_siblings = cpus("18");
        p.slices[WIDE].vcpus[1] = cpu(18);
        p.slices[WIDE].shared_siblings = cpus("4");
        p.slices[BLUE].shared_siblings = CpuSet::new();
        p.slices[BLUE].idle = cpus("23");
    }),
    ("core-whole", "a sibling neither lent nor idle", |_, p| {
        p.slices[WIDE].vcpus[1] = cpu(13);
        p.slices[WIDE].idle = cpus("27");
        p.slices[WIDE].shared_siblings = CpuSet::new();
        p.slices[BLUE].shared_siblings = CpuSet::new();
        p.host.free = cpus("5-6,19-20,23");
    }),
    ("vcpu-count", "one vCPU more, on the sibling", |_, p| {
        // Two on one core of the other's.
        p.slices[RED].vcpus.pop();
        p.slices[RED].cells[0].vcpus = cpus("0-2");
    }),
];

#[test]
fn rule_2_odd_vcpus_of_a_tenant_may_share_a_core_where_both_allow_it() {
    let (asked, parts) = right();
    assert_eq!(asked[GREEN].smt, Smt::Isolate);
    assert_eq!(violations(asked, parts), Vec::<&str>::new());
}

#[test]
fn rule_2_a_lent_sibling_is_objected_to_where_one_thing_is_wrong() {
    let mut failures = Vec::new();
    for (code, what, change) in WRONG {
        let (mut asked, mut parts) = right();
        change(&mut asked, &mut parts);
        let found = violations(asked, parts);
        if !found.contains(code) {
            failures.push(format!("{code}, {what}: {found:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn rule_2_no_vcpu_of_those_that_share_can_move_unseen() {
    for at in [BLUE, WIDE] {
        for vcpu in 0..3 {
            for to in (0..28).filter(|to| *to != right().1.slices[at].vcpus[vcpu].number()) {
                let (asked, mut parts) = right();
                parts.slices[at].vcpus[vcpu] = cpu(to);
                assert_ne!(
                    violations(asked, parts),
                    Vec::<&str>::new(),
                    "{at} {vcpu} to {to}"
                );
            }
        }
    }
}

#[test]
fn rule_1_a_stranger_on_a_shared_core_is_in_the_way_of_both() {
    let (asked, mut parts) = right();
    let (spec, mut inventory) = (spec(asked), server::inventory());
    parts.spec_digest.clone_from(&spec.digest);
    let libvirt = inventory.hypervisor.libvirt.as_mut().unwrap();
    libvirt.domains.push(stranger("9", &[]));
    let found = check(&spec, &inventory, &Plan::new(parts).unwrap());
    let about = found
        .iter()
        .filter(|violation| violation.code == "foreign-domain");
    let names: Vec<&str> = about
        .filter_map(|v| Some(v.slice.as_ref()?.as_str()))
        .collect();
    assert_eq!(names, ["blue", "wide"]);
}
