//! hwloc's captures of real machines, compared with hwloc's own reading: packages, dies, cores,
//! threads and every cache with their CPUs, nodes with their CPUs, memory and distances, and PCI
//! functions with what they are near to.
//!
//! The project's own (`tests/machines/ODDITY/`) are servers of the lab: what `bmslice capture` wrote
//! on each, and what hwloc 2.9 read on it at the same moment, live.
//!
//! `made` has small trees that are made here, each with an oddity that no capture has, against what
//! hwloc 2.9 read of them.
//!
//! The others lie beside a checkout (`../shared/machines`), not in it; without them the test says so
//! and goes on with its own. `BMSLICE_MACHINES` names another folder of the same form: each
//! `NAME.tar.bz2` with `NAME.console` or `NAME.xml` beside it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests unpack and read the captures that they compare with"
)]

mod compare;
mod hwloc;
mod made;
#[path = "../tree/mod.rs"]
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bmslice_host::{Limits, Root};
use bmslice_inventory::{Capture, CapturedInventory, contradictions};
use bmslice_model::CpuSet;
use compare::Topic;

const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machines");
const MACHINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/machines");

/// Where an inventory means otherwise than hwloc, and why. A machine that differs in anything else
/// fails the test, and so does a row here that is no longer true.
const DIFFERENCES: &[(&str, Topic, &str)] = &[
    (
        "4fake-4gr1nu1pu",
        Topic::Cores,
        "no core is told; hwloc then has none, an inventory one for each CPU, since a planner deals in cores",
    ),
    (
        "64amd64-4s2n4ca2co",
        Topic::Cores,
        "two cores of an AMD compute unit share front end, FPU and L2, and are siblings to the kernel: two tenants must not have one each",
    ),
    (
        "32amd64-4s2n4c-cgroup2",
        Topic::Caches,
        "this reading was taken without instruction caches",
    ),
    (
        "32amd64-4s2n4c-cgroup2",
        Topic::CacheSizes,
        "this reading was taken without instruction caches",
    ),
    (
        "nvidiagpunumanodes",
        Topic::Nodes,
        "hwloc hides nodes of GPU memory on POWER; an inventory shows them and says what they are",
    ),
    (
        "32em64t-2n8c+dax+nvme+mic+dimms",
        Topic::Devices,
        "hwloc drops a bridge without a bus behind it (0000:00:11.0); it is there all the same",
    ),
    (
        "32em64t-2n8c+dax+nvme+mic+dimms",
        Topic::DeviceLocality,
        "hwloc takes one locality for all that is under a host bridge; 0000:00:02.0 tells another for itself",
    ),
    (
        "40intel64-2g2n4c+pcilocality",
        Topic::DeviceLocality,
        "this reading was taken with localities that a user gave (HWLOC_PCI_LOCALITY); firmware tells none",
    ),
    (
        "fakepcilocalities",
        Topic::DeviceLocality,
        "this reading was taken with localities that a user gave (HWLOC_PCI_LOCALITY)",
    ),
];

/// A captured machine and hwloc's reading of it.
struct Machine {
    name: String,
    archive: PathBuf,
    reading: PathBuf,
}

impl Machine {
    fn reading(&self) -> hwloc::Reading {
        let text = std::fs::read_to_string(&self.reading).unwrap();
        if self.reading.extension().is_some_and(|e| e == "console") {
            hwloc::console(&text)
        } else {
            hwloc::xml(&text)
        }
    }

    fn open(&self) -> Root {
        Root::captured(&self.archive, Limits::default()).unwrap()
    }

    fn inventory(&self) -> CapturedInventory {
        CapturedInventory::read(&self.open()).unwrap()
    }
}

fn entries(folder: &Path) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    Some(paths)
}

/// The project's own machines, then those that lie beside the checkout or in a folder that was
/// named.
fn machines() -> Vec<Machine> {
    let mut machines: Vec<Machine> = entries(Path::new(OWN))
        .unwrap()
        .into_iter()
        .filter(|path| path.is_dir())
        .map(|folder| Machine {
            name: folder.file_name().unwrap().to_str().unwrap().into(),
            archive: folder.join("server.tar.gz"),
            reading: folder.join("hwloc.xml"),
        })
        .collect();
    assert!(machines.len() >= 5, "{}", machines.len());
    let named = std::env::var("BMSLICE_MACHINES");
    let folder = named.clone().unwrap_or_else(|_| MACHINES.into());
    let Some(paths) = entries(Path::new(&folder)) else {
        eprintln!("SKIPPED: the captures of real machines are not there ({folder})");
        return machines;
    };
    let others = machines.len();
    for path in paths {
        let Some(stem) = path.to_str().unwrap().strip_suffix(".tar.bz2") else {
            continue;
        };
        let console = PathBuf::from(format!("{stem}.console"));
        machines.push(Machine {
            name: Path::new(stem)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .into(),
            reading: if console.exists() {
                console
            } else {
                format!("{stem}.xml").into()
            },
            archive: path,
        });
    }
    let others = machines.len() - others;
    assert!(named.is_ok() || others == 21, "{others}");
    machines
}

#[test]
fn captured_machines_are_read_as_hwloc_reads_them() {
    let mut wrong = Vec::new();
    for machine in machines() {
        let name = machine.name.as_str();
        let inventory = machine.inventory();
        let text = serde_json::to_string(&*inventory).unwrap();
        assert_eq!(
            CapturedInventory::from_json(&text).unwrap(),
            inventory,
            "{name}"
        );
        assert_eq!(contradictions(&inventory), [], "{name}");
        let found = compare::differences(&inventory, &machine.reading());
        let expected: BTreeSet<Topic> = DIFFERENCES
            .iter()
            .filter(|(machine, ..)| *machine == name)
            .map(|(_, topic, _)| *topic)
            .collect();
        wrong.extend(compare::unexpected(name, &found, &expected));
        if std::env::var_os("BMSLICE_NOTES").is_some() {
            eprintln!("{name}: {:#?}", inventory.notes);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn own(name: &str) -> CapturedInventory {
    let machine = machines().into_iter().find(|machine| machine.name == name);
    machine.unwrap().inventory()
}

fn pages(inventory: &CapturedInventory, node: usize) -> (u64, u64) {
    let pool = &inventory.nodes[node].huge_pages[0];
    (pool.total, pool.free)
}

#[test]
fn vfs_and_huge_pages_of_a_server_of_the_lab_are_told() {
    let server = own("two-nodes-with-vfs-and-pages");
    assert_eq!(server.machine.hostname, "server1");
    assert_eq!(server.cpus.iter().filter(|cpu| cpu.online).count(), 24);
    assert_eq!(pages(&server, 0), (0, 0));
    assert_eq!(pages(&server, 1), (64, 64));
    let with_vfs: Vec<(String, Vec<String>)> = server
        .pci
        .iter()
        .filter_map(|function| Some((function, function.sriov.as_ref()?)))
        .filter(|(_, sriov)| sriov.current > 0)
        .map(|(function, sriov)| {
            let vfs = sriov.vfs.iter().map(ToString::to_string).collect();
            (function.address.to_string(), vfs)
        })
        .collect();
    let vfs = vec!["0000:81:10.0".to_owned(), "0000:81:10.2".to_owned()];
    assert_eq!(with_vfs, [("0000:81:00.0".to_owned(), vfs)]);
}

#[test]
fn offline_cpus_and_the_thread_left_of_a_core_are_told() {
    let server = own("offline-threads-and-a-core");
    let offline: CpuSet = server
        .cpus
        .iter()
        .filter(|cpu| !cpu.online)
        .map(|cpu| cpu.id)
        .collect();
    assert_eq!(offline.to_string(), "5,14-15");
    assert_eq!(server.cpus[4].siblings.to_string(), "4");
    assert_eq!(server.cpus[6].siblings.to_string(), "6-7");
    assert_eq!(server.nodes[1].cpus.to_string(), "12-13,16-23");
}

#[test]
fn cpus_and_nodes_that_a_cpuset_keeps_away_are_told() {
    let server = own("cpus-not-allowed");
    let allowed: CpuSet = server
        .cpus
        .iter()
        .filter(|cpu| cpu.allowed)
        .map(|cpu| cpu.id)
        .collect();
    assert_eq!(allowed.to_string(), "0-4,6-8");
    assert!(server.cpus[9].online);
    let nodes: Vec<bool> = server.nodes.iter().map(|node| node.allowed).collect();
    assert_eq!(nodes, [true, false]);
}

#[test]
fn what_a_server_was_booted_with_is_told() {
    let server = own("four-sockets-without-smt-isolated");
    assert_eq!(server.boot.isolated.to_string(), "2-3,6-7");
    assert_eq!(server.boot.nohz_full.to_string(), "2-3,6-7");
    assert_eq!(server.host.rcu_nocbs.to_string(), "2-3,6-7");
    assert_eq!(server.machine.smt.as_deref(), Some("notsupported"));
    let packages: BTreeSet<_> = server.cpus.iter().map(|cpu| cpu.package).collect();
    assert_eq!((packages.len(), server.nodes.len()), (4, 4));
    assert_eq!(server.nodes[3].distances, [21, 21, 21, 10]);
}

#[test]
fn nodes_within_a_socket_are_told() {
    let server = own("four-nodes-in-a-socket");
    let packages: BTreeSet<_> = server.cpus.iter().map(|cpu| cpu.package).collect();
    assert_eq!(packages.len(), 1);
    let cpus: Vec<String> = server
        .nodes
        .iter()
        .map(|node| node.cpus.to_string())
        .collect();
    assert_eq!(cpus, ["0-3", "4-7", "8-11", "12-15"]);
    // Each node has one NIC behind a root complex of its own.
    let near: Vec<_> = server
        .pci
        .iter()
        .filter(|function| function.sriov.is_some())
        .map(|function| function.node.map(|node| node.0))
        .collect();
    assert_eq!(near, [Some(0), Some(1), Some(2), Some(3)]);
}

#[test]
fn captured_machines_are_captured_again_and_redacted() {
    for machine in machines() {
        let name = &machine.name;
        let open = || machine.open();
        let plain = machine.inventory();
        let probes = CapturedInventory::probes(&machine.open());
        let capture = Capture::of(open(), &probes, false).unwrap();
        assert_eq!(*capture.inventory(), *plain, "{name}");
        let packed = capture.pack("again").unwrap();
        capture.compare(packed.as_slice()).unwrap();

        let capture = Capture::of(open(), &probes, true).unwrap();
        capture
            .compare(capture.pack("again").unwrap().as_slice())
            .unwrap();
        let text = serde_json::to_string(capture.inventory()).unwrap();
        let host = &plain.machine.hostname;
        assert!(
            host.is_empty() || !text.contains(host.as_str()),
            "{name}: {host}"
        );
        for mac in plain.interfaces.iter().filter_map(|i| i.mac) {
            assert!(!text.contains(&mac.to_string()), "{name}: {mac}");
        }
    }
}
