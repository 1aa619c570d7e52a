//! The most that a spec can ask for, on odd servers: an answer, soon and in little memory. What is
//! beyond (2^31 vCPUs) is refused where the spec is read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod servers;

use bmslice_model::ByteSize;
use bmslice_planner::{Refusal, plan};
use bmslice_spec::{Numa, Smt};
use servers::*;

#[test]
fn four_thousand_vcpus_are_refused_on_cores_of_one_kind_and_of_two() {
    let even = lab();
    let mut odd = lab();
    // One core has lost a sibling: there are cores of two threads and of one.
    let last = odd.cpus.last_mut().unwrap();
    last.online = false;
    for server in [&even, &odd] {
        for smt in [Smt::Pack, Smt::Isolate, Smt::Any] {
            for numa in [Numa::Single, Numa::Spread(2)] {
                let mut greedy = slice("greedy", 4096);
                greedy.smt = smt;
                greedy.numa = numa;
                greedy.memory = ByteSize::from_gib(2);
                let refusal = plan(&spec(vec![greedy]), server).unwrap_err();
                assert!(matches!(refusal, Refusal::NoRoom { .. }), "{refusal}");
            }
        }
    }
}

#[test]
fn a_pool_of_64_cores_is_refused_on_a_server_of_12() {
    let mut odd = lab();
    odd.cpus.last_mut().unwrap().online = false;
    let mut greedy = slice("greedy", 2);
    greedy.emulator_cores = 64;
    let refusal = plan(&spec(vec![greedy]), &odd).unwrap_err();
    assert!(matches!(refusal, Refusal::NoRoom { .. }), "{refusal}");
}

#[test]
fn more_memory_than_there_is_anywhere_is_refused() {
    let mut greedy = slice("greedy", 2);
    greedy.memory = ByteSize::from_gib(4 << 20);
    greedy.hugepages = Some(ByteSize::from_gib(1));
    let refusal = plan(&spec(vec![greedy]), &lab()).unwrap_err();
    assert!(matches!(refusal, Refusal::NoRoom { .. }), "{refusal}");
}

#[test]
fn a_spread_with_more_ways_than_can_be_listed_is_not_decided() {
    let wide = Shape {
        nodes: 64,
        cores: 2,
        ..Shape::lab()
    };
    let mut spread = slice("spread", 32);
    spread.numa = Numa::Spread(32);
    spread.memory = ByteSize::from_gib(32);
    let refusal = plan(&spec(vec![spread]), &wide.server()).unwrap_err();
    assert!(matches!(refusal, Refusal::Undecided { .. }), "{refusal}");
}

#[test]
fn a_hundred_slices_on_a_small_server_are_refused() {
    let many = (0..100).map(|n| slice(&format!("slice{n}"), 2)).collect();
    let refusal = plan(&spec(many), &lab()).unwrap_err();
    let told = matches!(refusal, Refusal::NoRoom { .. } | Refusal::Undecided { .. });
    assert!(told, "{refusal}");
}
