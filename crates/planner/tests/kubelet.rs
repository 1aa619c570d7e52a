//! kubelet's own cases of its static policy, and what this planner makes of them.
//!
//! Needs `../shared/planning/kubelet-take.json` beside the repository, or its path in
//! `BMSLICE_KUBELET_CASES`; without it the test says so and is skipped, but never in CI.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may fail where it stands, reads its own files, and says when it is skipped"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bmslice_model::CpuId;
use bmslice_planner::fleet::{CoreShape, Located, take_loose};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cpu {
    cpu: u32,
    core: usize,
    socket: usize,
    numa: usize,
    l3: usize,
}

#[derive(Deserialize)]
struct Topology {
    cpus: Vec<Cpu>,
}

#[derive(Deserialize)]
struct Case {
    desc: String,
    topo: String,
    available: BTreeSet<u32>,
    n: usize,
    err: String,
    expect: BTreeSet<u32>,
}

#[derive(Deserialize)]
struct File {
    topologies: BTreeMap<String, Topology>,
    cases: Vec<Case>,
}

fn file() -> Option<File> {
    let path = std::env::var_os("BMSLICE_KUBELET_CASES").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../../shared/planning/kubelet-take.json")
        },
        PathBuf::from,
    );
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "{}: {error}: CI never skips kubelet's cases",
                path.display()
            );
            eprintln!(
                "SKIPPED: kubelet's cases are not there: {}: {error}",
                path.display()
            );
            None
        }
    }
}

/// Sockets, NUMA nodes, L3 domains and cores that these CPUs touch. L3 domains are told apart by
/// socket and node as well: some of kubelet's topologies know of none and number them all 0.
fn touched(topology: &Topology, cpus: &BTreeSet<u32>) -> [usize; 4] {
    let of = |number: &dyn Fn(&Cpu) -> (usize, usize, usize)| {
        let mine = topology.cpus.iter().filter(|cpu| cpus.contains(&cpu.cpu));
        mine.map(number).collect::<BTreeSet<_>>().len()
    };
    [
        of(&|cpu| (cpu.socket, 0, 0)),
        of(&|cpu| (cpu.numa, 0, 0)),
        of(&|cpu| (cpu.socket, cpu.numa, cpu.l3)),
        of(&|cpu| (cpu.socket, cpu.core, 0)),
    ]
}

fn cores(topology: &Topology, available: &BTreeSet<u32>) -> Vec<Located> {
    let mut cores: BTreeMap<(usize, usize), Located> = BTreeMap::new();
    for cpu in &topology.cpus {
        let core = cores.entry((cpu.socket, cpu.core)).or_insert(Located {
            socket: cpu.socket,
            node: cpu.numa,
            core: CoreShape {
                threads: Vec::new(),
                of: 0,
                l3: cpu.l3,
            },
        });
        core.core.of += 1;
        if available.contains(&cpu.cpu) {
            core.core.threads.push(CpuId::new(cpu.cpu).unwrap());
        }
    }
    cores.into_values().collect()
}

#[test]
fn kubelets_cases_are_answered_alike_and_never_touch_more() {
    let Some(file) = file() else { return };
    assert_eq!(file.cases.len(), 61, "all of kubelet's cases are there");
    let mut table = String::new();
    let mut worse = Vec::new();
    for case in &file.cases {
        let topology = &file.topologies[&case.topo];
        let ours = take_loose(&cores(topology, &case.available), case.n);
        assert_eq!(
            ours.is_some(),
            case.err.is_empty(),
            "{}: {}",
            case.desc,
            case.err
        );
        let Some(ours) = ours else { continue };
        let ours: BTreeSet<u32> = ours.into_iter().map(CpuId::number).collect();
        assert_eq!(ours.len(), case.n, "{}", case.desc);
        assert!(ours.is_subset(&case.available), "{}", case.desc);
        let (mine, theirs) = (touched(topology, &ours), touched(topology, &case.expect));
        if mine.iter().zip(&theirs).any(|(mine, theirs)| mine > theirs) {
            worse.push(format!(
                "{} ({}): {mine:?} > {theirs:?}",
                case.desc, case.topo
            ));
        }
        if mine != theirs {
            table += &format!(
                "| {} | {} | {theirs:?} | {mine:?} |\n",
                case.topo, case.desc
            );
        }
    }
    eprintln!("sockets, nodes, L3 domains, cores where we touch fewer:\n{table}");
    assert!(worse.is_empty(), "we touch more: {worse:#?}");
}
