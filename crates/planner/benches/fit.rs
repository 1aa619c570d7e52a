//! How long one answer takes on one server.
//!
//! `fit` places one more guest, with its threads, beside those that lie there, and takes it away;
//! `no` says that there is no room; `plan` makes the whole document of the seed's server. What is
//! timed are functions of their own, so that callgrind can count the instructions of a call.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench may fail where it stands, and reads its own files"
)]

use std::hint::black_box;
use std::path::PathBuf;

use bmslice_inventory::Inventory;
use bmslice_model::CpuId;
use bmslice_plan::Plan;
use bmslice_planner::fleet::{CoreShape, Fleet, Guest, NodeShape, Sharing, Threads, pin};
use bmslice_planner::{plan, plan_following};
use bmslice_spec::Slicing;
use criterion::{Criterion, criterion_group, criterion_main};

/// The cores of a node: so many, in L3 domains of so many, less those of the host.
fn cores(node: u32, count: u32, per_l3: u32, all: u32, host: u32) -> Vec<CoreShape> {
    (node * count + host..(node + 1) * count)
        .map(|core| CoreShape {
            threads: vec![CpuId::new(core).unwrap(), CpuId::new(core + all).unwrap()],
            of: 2,
            l3: (core / per_l3) as usize,
        })
        .collect()
}

struct Server {
    cores: Vec<Vec<CoreShape>>,
    nodes: Vec<NodeShape>,
}

impl Server {
    fn new(nodes: u32, count: u32, per_l3: u32, memory: u32, vfs: &[u32]) -> Self {
        let cores: Vec<Vec<CoreShape>> = (0..nodes)
            .map(|node| cores(node, count, per_l3, nodes * count, 1))
            .collect();
        Self {
            nodes: cores
                .iter()
                .zip(vfs)
                .map(|(cores, vfs)| NodeShape::of(cores, 2, memory, *vfs))
                .collect(),
            cores,
        }
    }

    /// Two sockets of six cores, as in the document.
    fn seed() -> Self {
        Self::new(2, 6, 6, 60, &[8, 0])
    }

    /// An EPYC in eight nodes of sixteen cores, virtual functions on two of them.
    fn epyc() -> Self {
        Self::new(8, 16, 8, 120, &[8, 0, 0, 0, 8, 0, 0, 0])
    }
}

fn guest(vcpus: u32, cells: u32, vfs: u32) -> Guest {
    Guest {
        vcpus,
        threads: Threads::Require,
        emulator: true,
        cells,
        memory: 8,
        vfs,
    }
}

/// A guest more, with the threads of all who lie on its nodes, and away again.
#[inline(never)]
fn fit(fleet: &mut Fleet, server: &Server, more: Guest, here: &[(Guest, usize)]) {
    let id = fleet.add(black_box(more)).unwrap();
    let seat = fleet.seat(id).unwrap();
    for (cell, &node) in seat.nodes.iter().enumerate() {
        let mut cells = here.to_vec();
        cells.push((more, cell));
        black_box(pin(&server.cores[node], &cells, Sharing::WholeCores).unwrap());
    }
    fleet.remove(id);
}

/// There is no room for a guest.
#[inline(never)]
fn no(fleet: &mut Fleet, more: Guest) {
    assert!(fleet.add(black_box(more)).is_none());
}

/// The whole document.
#[inline(never)]
fn document_of(spec: &Slicing, inventory: &Inventory) -> Plan {
    plan(black_box(spec), black_box(inventory)).unwrap()
}

fn one_server(c: &mut Criterion) {
    let seed = Server::seed();
    let mut fleet = Fleet::new(std::slice::from_ref(&seed.nodes), Sharing::WholeCores);
    c.bench_function("fit/seed", |b| {
        b.iter(|| fit(&mut fleet, &seed, guest(8, 1, 0), &[]));
    });

    let epyc = Server::epyc();
    let mut fleet = Fleet::new(std::slice::from_ref(&epyc.nodes), Sharing::WholeCores);
    for _ in 0..8 {
        fleet.add(guest(6, 1, 0)).unwrap();
        fleet.add(guest(4, 1, 1)).unwrap();
    }
    c.bench_function("fit/epyc with a VF", |b| {
        b.iter(|| fit(&mut fleet, &epyc, guest(4, 1, 1), &[]));
    });
    c.bench_function("fit/epyc on two nodes with VFs", |b| {
        b.iter(|| fit(&mut fleet, &epyc, guest(8, 2, 2), &[]));
    });
    while fleet.add(guest(1, 1, 1)).is_some() {}
    c.bench_function("no/epyc, two nodes, VFs exhausted", |b| {
        b.iter(|| no(&mut fleet, guest(8, 2, 2)));
    });
    c.bench_function("no/epyc, one node, VFs exhausted", |b| {
        b.iter(|| no(&mut fleet, guest(8, 1, 2)));
    });
}

fn document(c: &mut Criterion) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/seed");
    let spec = std::fs::read_to_string(folder.join("slices.yaml")).unwrap();
    let spec = Slicing::parse("slices.yaml", &spec).unwrap();
    let inventory = std::fs::read_to_string(folder.join("inventory.json")).unwrap();
    let inventory: Inventory = serde_json::from_str(&inventory).unwrap();
    c.bench_function("plan/seed", |b| {
        b.iter(|| document_of(&spec, &inventory));
    });
    let before = plan(&spec, &inventory).unwrap();
    c.bench_function("plan/seed, nothing changed", |b| {
        b.iter(|| plan_following(black_box(&spec), &inventory, Some(&before)).unwrap());
    });
}

criterion_group!(benches, one_server, document);
criterion_main!(benches);
