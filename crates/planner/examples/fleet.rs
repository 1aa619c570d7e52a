//! How planning a fleet grows with it: a table from 10 to 10,000 servers.
//!
//! ```text
//! cargo run --release -p bmslice-planner --example fleet [-- SERVERS]
//! ```
//!
//! Six guests a server, on a mix of E5-2620v2 (2 nodes), Xeon 6230 (4 nodes, or 2 without SMT) and
//! EPYC 7713 (8 nodes). The numbers are drawn by dice that always fall alike.
#![allow(
    clippy::print_stdout,
    reason = "a program of its own, that prints a table"
)]

use std::time::Instant;

use bmslice_planner::fleet::{Fleet, Guest, GuestId, NodeShape, Sharing, Threads};

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * n) >> 32
    }

    fn one_of(&mut self, of: &[u32]) -> u32 {
        of[self.below(of.len() as u64) as usize]
    }
}

fn server(dice: &mut Dice) -> Vec<NodeShape> {
    let (nodes, threads_per_core, cores, memory) = match dice.below(100) {
        0..88 => (2, 2, 5, 60),
        88..94 => (4, 2, 10, 92),
        94..97 => (2, 1, 20, 92),
        _ => (8, 2, 16, 120),
    };
    let nic = dice.below(nodes);
    (0..nodes)
        .map(|node| NodeShape {
            threads_per_core,
            full: cores - u32::from(nodes > 2 && node == 0),
            half: u32::from(dice.below(8) == 0),
            memory,
            vfs: if node == nic {
                dice.one_of(&[4, 8, 16])
            } else {
                0
            },
        })
        .collect()
}

fn guest(dice: &mut Dice) -> Guest {
    let cells = if dice.below(100) < 7 { 2 } else { 1 };
    let vcpus = dice.one_of(&[1, 2, 2, 3, 4, 4, 6, 6, 8, 8]);
    let threads = match dice.below(100) {
        0..38 => Threads::Prefer,
        38..78 => Threads::Require,
        _ => Threads::Isolate,
    };
    let vcpus = if threads == Threads::Isolate {
        vcpus.min(4)
    } else {
        vcpus
    };
    let memory = vcpus * dice.one_of(&[1, 2, 2, 4, 6]);
    Guest {
        vcpus: vcpus.next_multiple_of(cells),
        threads,
        emulator: dice.below(2) == 0,
        cells,
        memory: memory.next_multiple_of(cells),
        vfs: if dice.below(5) == 0 {
            dice.one_of(&[1, 1, 2])
        } else {
            0
        },
    }
}

fn main() {
    let only: Option<usize> = std::env::args().nth(1).and_then(|n| n.parse().ok());
    println!(
        "| servers | guests | placed | all, s | µs a guest | one more, µs: median, worst | a lost server, µs: median, worst | of its guests moved |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for servers in [10, 30, 100, 300, 1000, 3000, 10_000] {
        if only.is_none_or(|only| only == servers) {
            row(servers);
        }
    }
}

fn row(count: usize) {
    let mut dice = Dice(0x5eed_0000_0000_0001);
    let servers: Vec<Vec<NodeShape>> = (0..count).map(|_| server(&mut dice)).collect();
    let guests: Vec<Guest> = (0..6 * count).map(|_| guest(&mut dice)).collect();
    let began = Instant::now();
    let mut fleet = Fleet::new(&servers, Sharing::Threads);
    let ids = fleet.add_all(&guests);
    let all = began.elapsed().as_secs_f64();
    let placed = ids.iter().flatten().count();

    let mut one_more = Vec::new();
    for _ in 0..200 {
        let more = guest(&mut dice);
        let began = Instant::now();
        let id = fleet.add(more);
        one_more.push(began.elapsed().as_secs_f64() * 1e6);
        if let Some(id) = id {
            fleet.remove(id);
        }
    }
    let mut lost = Vec::new();
    let (mut moved, mut homeless) = (0, 0);
    for _ in 0..20.min(count / 4) {
        let server = dice.below(count as u64) as usize;
        let mut without = fleet.clone();
        let began = Instant::now();
        let what = without.lose(server);
        lost.push(began.elapsed().as_secs_f64() * 1e6);
        moved += what.moved.len();
        homeless += what.homeless.len();
        let _: Vec<GuestId> = what.homeless;
    }
    let (one_more, lost) = (spread(one_more), spread(lost));
    println!(
        "| {count} | {} | {placed} | {all:.4} | {:.2} | {:.1}, {:.1} | {:.1}, {:.1} | {moved} of {} |",
        guests.len(),
        all * 1e6 / guests.len() as f64,
        one_more.0,
        one_more.1,
        lost.0,
        lost.1,
        moved + homeless,
    );
}

/// The median and the worst.
fn spread(mut all: Vec<f64>) -> (f64, f64) {
    all.sort_by(f64::total_cmp);
    let median = all.get(all.len() / 2).copied().unwrap_or(0.0);
    (median, all.last().copied().unwrap_or(0.0))
}
