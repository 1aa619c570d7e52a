//! The benchmark of placements: cases in, placements out.
use bmslice_planner::fleet::*;
use serde::Deserialize;
use std::io::{BufRead, Write};

#[derive(Deserialize)]
struct Core { threads: Vec<u32>, avail: Vec<u32>, #[allow(dead_code)] l3: u32 }
#[derive(Deserialize)]
struct Node { huge_1g: u32, vfs: u32, cores: Vec<Core> }
#[derive(Deserialize)]
struct Host { tpc: u32, nodes: Vec<Node> }
#[derive(Deserialize)]
struct Req { vcpus: u32, thread_policy: String, emulator: u32, numa_nodes: u32, mem_gib: u32, vfs: u32 }
#[derive(Deserialize)]
struct Case { id: String, hosts: Vec<Host>, requests: Vec<Req> }

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut sharing, mut objective, mut file) = (Sharing::Threads, Objective::Count, String::new());
    while let Some(a) = args.next() {
        match a.as_str() {
            "--model" => if args.next().unwrap() == "m2" { sharing = Sharing::WholeCores },
            "--objective" => if args.next().unwrap() == "vcpus" { objective = Objective::Vcpus },
            _ => file = a,
        }
    }
    #[allow(clippy::disallowed_methods)]
    let f = std::io::BufReader::new(std::fs::File::open(file).unwrap());
    for line in f.lines() {
        let c: Case = serde_json::from_str(&line.unwrap()).unwrap();
        let t = std::time::Instant::now();
        let servers: Vec<Vec<NodeShape>> = c.hosts.iter().map(|h| h.nodes.iter().map(|n| NodeShape {
            threads_per_core: h.tpc, memory: n.huge_1g, vfs: n.vfs,
            full: n.cores.iter().filter(|c| c.avail.len() == h.tpc as usize).count() as u32,
            half: n.cores.iter().filter(|c| !c.avail.is_empty() && c.avail.len() < h.tpc as usize).count() as u32,
        }).collect()).collect();
        let guests: Vec<Guest> = c.requests.iter().map(|r| Guest {
            vcpus: r.vcpus, emulator: r.emulator > 0, cells: r.numa_nodes, memory: r.mem_gib, vfs: r.vfs,
            threads: match r.thread_policy.as_str() { "require" => Threads::Require, "isolate" => Threads::Isolate, _ => Threads::Prefer },
        }).collect();
        let p = pack(&servers, &guests, sharing, objective);
        let secs = t.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stdout(), "{}", serde_json::json!({"id": c.id, "n": guests.len(), "best": p.value, "bound": p.bound, "proven": p.value == p.bound, "secs": secs, "trace": p.trace}));
    }
}
