//! How long a plan for several servers takes, and how it grows with them.
//!
//! ```text
//! cargo run --release -p bmslice-planner --example several [-- SERVERS [SLICES_A_SERVER]]
//! ```
//!
//! Servers of two nodes of twelve cores with four SR-IOV NICs; slices of two to eight vCPUs, a third
//! of them with a NIC. With 6 slices a server all have a place, with 6.7 the servers are full and a
//! few are left over, with 8 many are. The numbers are drawn by dice that always fall alike.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program of its own, that prints a table"
)]

#[path = "../tests/servers/mod.rs"]
mod servers;

use std::time::Instant;

use bmslice_inventory::Inventory;
use bmslice_model::ByteSize;
use bmslice_planner::servers::{Member, Options, plan_servers};
use bmslice_spec::{NicChoice, NicKind, NicNuma, NicSpec, SliceSpec};
use servers::{Shape, add_nic, slice, spec};

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * n as u64) >> 32) as usize
    }
}

fn server(number: usize) -> Inventory {
    let shape = Shape {
        nodes: 2,
        cores: 12,
        threads: 2,
        l3: 12,
        consecutive: false,
        gap: 0,
        memory: ByteSize::from_gib(128),
    };
    let mut server = shape.server();
    server.machine.hostname = format!("server{number}");
    add_nic(&mut server, "0000:41:00.0", "n0p0", Some(0), 7);
    add_nic(&mut server, "0000:42:00.0", "n0p1", Some(0), 7);
    add_nic(&mut server, "0000:81:00.0", "n1p0", Some(1), 7);
    add_nic(&mut server, "0000:82:00.0", "n1p1", Some(1), 7);
    server
}

fn some_slice(number: usize, dice: &mut Dice) -> SliceSpec {
    let vcpus = [2, 2, 2, 4, 4, 4, 4, 6, 6, 8][dice.below(10)];
    let mut slice = slice(&format!("s{number}"), vcpus);
    slice.memory = ByteSize::from_gib(u64::from(vcpus) * [1, 2, 4][dice.below(3)]);
    slice.hugepages = Some(ByteSize::from_gib(1));
    let numa = [NicNuma::Same, NicNuma::Prefer][dice.below(2)];
    let choice = NicChoice::Need { speed: None, numa };
    let kind = match dice.below(12) {
        0 => NicKind::Passthrough { device: choice },
        1..4 => NicKind::Vf {
            of: choice,
            vlan: None,
            mac: None,
            rules: bmslice_spec::VfRules::default(),
        },
        _ => return slice,
    };
    slice.nics = vec![NicSpec {
        kind,
        fabric: None,
        network: None,
        take_from_host: false,
    }];
    slice
}

fn main() {
    let mut args = std::env::args().skip(1);
    let only: Option<usize> = args.next().and_then(|n| n.parse().ok());
    let load: Option<f64> = args.next().and_then(|n| n.parse().ok());
    println!("| servers | slices | placed | at most | servers used | ms | ms a server |");
    println!("|---|---|---|---|---|---|---|");
    for a_server in [6.0, 6.7, 8.0] {
        for count in [15, 30, 60, 120, 240] {
            if only.is_none_or(|only| only == count) && load.is_none_or(|load| load == a_server) {
                row(count, (count as f64 * a_server).round() as usize);
            }
        }
    }
}

fn row(count: usize, slices: usize) {
    let mut dice = Dice(0x5eed_0000_0000_0001);
    let servers: Vec<Inventory> = (0..count).map(server).collect();
    let spec = spec((0..slices).map(|at| some_slice(at, &mut dice)).collect());
    let members: Vec<Member<'_>> = servers
        .iter()
        .map(|inventory| Member {
            inventory,
            previous: None,
        })
        .collect();
    let began = Instant::now();
    let placement = plan_servers(&spec, &members, Options::default()).unwrap();
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let used = placement.shares.iter().filter(|share| share.plan.is_some());
    println!(
        "| {count} | {slices} | {} | {} | {} | {ms:.0} | {:.1} |",
        placement.placed(),
        placement.bound,
        used.count(),
        ms / count as f64,
    );
}
