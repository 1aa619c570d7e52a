//! Packs guests onto servers: a case a line in, its placement a line out.
//!
//! ```text
//! pack [--model m1|m2] [--objective count|vcpus] [--arrival [--repack]] [--rounds N] [--starts N] [--parts N] [--report FILE] CASES.jsonl > PLACEMENTS.jsonl
//! ```
//!
//! A case has hosts (`tpc` threads a core; nodes with `huge_1g`, `vfs` and cores with their
//! `threads` and those that are `avail`) and requests (`vcpus`, `thread_policy`, `emulator`,
//! `numa_nodes`, `mem_gib`, `vfs`). Model m1 shares cores between guests, m2 does not. Without
//! `--arrival` as many as possible are placed, in whatever order, so `--repack` says nothing more.
//! With it, order counts and nobody who was accepted is dropped; `--repack` lets the placed move.
//! `--rounds`, `--starts` and `--parts` say how much is tried, where the usual effort is not meant.
//! The report has a line for each case with what was reached and what cannot be exceeded.
#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own, that reads the files it is given"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Instant;

use bmslice_model::CpuId;
use bmslice_planner::fleet::{
    self, CellPins, CoreShape, Effort, Guest, NodeShape, Objective, Packing, Sharing, Threads,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct CoreLine {
    l3: usize,
    threads: Vec<u32>,
    avail: Vec<u32>,
}

#[derive(Deserialize)]
struct NodeLine {
    id: u32,
    huge_1g: u32,
    vfs: u32,
    cores: Vec<CoreLine>,
}

#[derive(Deserialize)]
struct Host {
    tpc: u32,
    nodes: Vec<NodeLine>,
}

#[derive(Deserialize)]
struct Request {
    vcpus: u32,
    thread_policy: String,
    emulator: u32,
    numa_nodes: u32,
    mem_gib: u32,
    vfs: u32,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    hosts: Vec<Host>,
    requests: Vec<Request>,
}

#[derive(Default)]
struct Options {
    sharing: Sharing,
    objective: Objective,
    arrival: bool,
    repack: bool,
    effort: Effort,
    report: Option<String>,
    cases: Vec<String>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        sharing: Sharing::Threads,
        ..Options::default()
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("`{arg}` needs a value"));
        match arg.as_str() {
            "--model" => {
                options.sharing = match value()?.as_str() {
                    "m1" => Sharing::Threads,
                    "m2" => Sharing::WholeCores,
                    other => return Err(format!("no model `{other}`; there are m1 and m2").into()),
                }
            }
            "--objective" => {
                options.objective = match value()?.as_str() {
                    "count" => Objective::Count,
                    "vcpus" => Objective::Vcpus,
                    other => {
                        return Err(format!("no objective `{other}`; try count or vcpus").into());
                    }
                }
            }
            "--arrival" => options.arrival = true,
            "--repack" => options.repack = true,
            "--rounds" => options.effort.rounds = value()?.parse()?,
            "--starts" => options.effort.starts = value()?.parse()?,
            "--parts" => options.effort.parts = value()?.parse()?,
            "--report" => options.report = Some(value()?),
            other if other.starts_with('-') => return Err(format!("no option `{other}`").into()),
            _ => options.cases.push(arg),
        }
    }
    if options.cases.is_empty() {
        return Err("name a file of cases".into());
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut report = match &options.report {
        Some(path) => Some(BufWriter::new(File::create(path)?)),
        None => None,
    };
    let (mut cases, mut proven, mut placed, mut asked, mut secs) = (0, 0, 0, 0, 0.0);
    for path in &options.cases {
        let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let case: Case = serde_json::from_str(&line)
                .map_err(|error| format!("{path}:{}: {error}", number + 1))?;
            let done = solve(&case, &options)?;
            cases += 1;
            proven += u32::from(done.packing.is_proven());
            placed += done.packing.seats.iter().flatten().count();
            asked += case.requests.len();
            secs += done.secs;
            if let Some(report) = &mut report {
                writeln!(report, "{}", done.report(&case, &options))?;
            }
            writeln!(out, "{}", done.placements(&case))?;
        }
    }
    out.flush()?;
    eprintln!("{cases} cases: {placed} of {asked} requests placed, {proven} proven, {secs:.4} s");
    Ok(())
}

/// A case's packing, with the threads.
struct Done {
    packing: Packing,
    /// By request.
    pins: Vec<Vec<CellPins>>,
    secs: f64,
    /// Placed in order of arrival while nothing moves, and while it may.
    arrival: Option<[u64; 2]>,
}

fn solve(case: &Case, options: &Options) -> Result<Done, Box<dyn Error>> {
    let began = Instant::now();
    let cores: Vec<Vec<Vec<CoreShape>>> = case.hosts.iter().map(cores).collect::<Result<_, _>>()?;
    let servers: Vec<Vec<NodeShape>> = case
        .hosts
        .iter()
        .zip(&cores)
        .map(|(host, cores)| {
            let nodes = host.nodes.iter().zip(cores);
            nodes
                .map(|(node, cores)| NodeShape::of(cores, host.tpc, node.huge_1g, node.vfs))
                .collect()
        })
        .collect();
    let guests: Vec<Guest> = case.requests.iter().map(guest).collect::<Result<_, _>>()?;
    let (sharing, effort) = (options.sharing, options.effort);
    let packing = if options.arrival {
        fleet::arrive(&servers, &guests, sharing, options.repack, effort)
    } else {
        fleet::pack(&servers, &guests, sharing, options.objective, effort)
    };
    let pins = pins(&packing, &guests, &cores, sharing)
        .ok_or_else(|| format!("{}: the threads do not bear out the numbers", case.id))?;
    let secs = began.elapsed().as_secs_f64();
    let arrival = (options.arrival && options.report.is_some()).then(|| {
        [false, true].map(|repack| {
            let other = fleet::arrive(&servers, &guests, sharing, repack, effort);
            other.seats.iter().flatten().count() as u64
        })
    });
    Ok(Done {
        packing,
        pins,
        secs,
        arrival,
    })
}

fn cores(host: &Host) -> Result<Vec<Vec<CoreShape>>, Box<dyn Error>> {
    let core = |core: &CoreLine| -> Result<CoreShape, Box<dyn Error>> {
        let threads: Result<Vec<CpuId>, _> = core.avail.iter().map(|&n| CpuId::new(n)).collect();
        Ok(CoreShape {
            threads: threads?,
            of: core.threads.len(),
            l3: core.l3,
        })
    };
    host.nodes
        .iter()
        .map(|node| node.cores.iter().map(core).collect())
        .collect()
}

fn guest(request: &Request) -> Result<Guest, Box<dyn Error>> {
    Ok(Guest {
        vcpus: request.vcpus,
        threads: match request.thread_policy.as_str() {
            "prefer" => Threads::Prefer,
            "require" => Threads::Require,
            "isolate" => Threads::Isolate,
            other => return Err(format!("no thread_policy `{other}`").into()),
        },
        emulator: request.emulator > 0,
        cells: request.numa_nodes,
        memory: request.mem_gib,
        vfs: request.vfs,
    })
}

/// The threads of every cell that is placed.
fn pins(
    packing: &Packing,
    guests: &[Guest],
    cores: &[Vec<Vec<CoreShape>>],
    sharing: Sharing,
) -> Option<Vec<Vec<CellPins>>> {
    let mut here: BTreeMap<(usize, usize), Vec<(usize, usize)>> = BTreeMap::new();
    for (guest, seat) in packing.seats.iter().enumerate() {
        let Some(seat) = seat else { continue };
        for (cell, &node) in seat.nodes.iter().enumerate() {
            let at = (seat.server, node);
            here.entry(at).or_default().push((guest, cell));
        }
    }
    let mut all: Vec<Vec<CellPins>> = packing
        .seats
        .iter()
        .map(|seat| vec![CellPins::default(); seat.as_ref().map_or(0, |seat| seat.nodes.len())])
        .collect();
    for ((server, node), cells) in here {
        let asked: Vec<(Guest, usize)> = cells.iter().map(|&(g, cell)| (guests[g], cell)).collect();
        let found = fleet::pin(&cores[server][node], &asked, sharing)?;
        for ((guest, cell), pins) in cells.into_iter().zip(found) {
            all[guest][cell] = pins;
        }
    }
    Some(all)
}

impl Done {
    fn placements(&self, case: &Case) -> Value {
        let mut placements = serde_json::Map::new();
        for (guest, seat) in self.packing.seats.iter().enumerate() {
            let Some(seat) = seat else { continue };
            let id = |node: usize| case.hosts[seat.server].nodes[node].id;
            let mut first = 0;
            let cells: Vec<Value> = seat
                .nodes
                .iter()
                .zip(&self.pins[guest])
                .map(|(&node, cell)| {
                    let pins: BTreeMap<String, u32> = (first..)
                        .zip(&cell.vcpus)
                        .map(|(vcpu, cpu)| (vcpu.to_string(), cpu.number()))
                        .collect();
                    first += cell.vcpus.len();
                    let emulator: Vec<u32> = cell.emulator.iter().map(|cpu| cpu.number()).collect();
                    json!({"node": id(node), "pins": pins, "emulator": emulator})
                })
                .collect();
            let vfs: BTreeMap<String, u32> = seat
                .nodes
                .iter()
                .zip(&seat.vfs)
                .filter(|(_, vfs)| **vfs > 0)
                .map(|(&node, vfs)| (id(node).to_string(), *vfs))
                .collect();
            let placement = json!({"host": seat.server, "cells": cells, "vf_nodes": vfs});
            placements.insert(guest.to_string(), placement);
        }
        json!({"id": case.id, "secs": self.secs, "placements": placements})
    }

    fn report(&self, case: &Case, options: &Options) -> Value {
        let packing = &self.packing;
        let mut report = json!({
            "id": case.id,
            "n": case.requests.len(),
            "best": packing.value,
            "bound": packing.bound,
            "gap": packing.bound - packing.value,
            "proven": packing.is_proven(),
            "means": format!("{:?}", packing.means).to_lowercase(),
            "secs": self.secs,
        });
        if let (Some([still, moving]), Value::Object(report)) = (self.arrival, &mut report) {
            report.insert("arrival".into(), json!(still));
            report.insert("arrival_repack".into(), json!(moving));
            let best = fleet_best(case, options);
            report.insert("optimum".into(), json!(best));
        }
        report
    }
}

/// What could be placed if the order did not matter.
fn fleet_best(case: &Case, options: &Options) -> Option<u64> {
    let free = Options {
        sharing: options.sharing,
        objective: options.objective,
        effort: options.effort,
        ..Options::default()
    };
    solve(case, &free).ok().map(|done| done.packing.value)
}
