//! hwloc's captures of real machines, read whole and counted as hwloc counts them.
//!
//! The captures lie beside a checkout (`../shared/machines`), not in it; without them this test
//! says so and ends.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests unpack and read the captures that they compare with"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use bmslice_host::Root;
use bmslice_inventory::{CapturedInventory, Inventory};

const MACHINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/machines");

/// What both hwloc and an inventory count.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    pus: usize,
    cores: usize,
    packages: usize,
    nodes: usize,
}

/// The counts of the CPUs that hwloc shows: online ones that the cgroup allows.
fn counts(inventory: &Inventory) -> Counts {
    let shown: Vec<_> = inventory
        .cpus
        .iter()
        .filter(|cpu| cpu.online && cpu.allowed)
        .collect();
    // hwloc counts the two halves of an AMD compute unit (Bulldozer), which share much of a core
    // and are siblings to the kernel, as two cores by their numbers.
    let cores: BTreeSet<_> = shown
        .iter()
        .map(|c| (c.siblings.to_string(), c.core))
        .collect();
    let packages: BTreeSet<_> = shown.iter().filter_map(|c| c.package).collect();
    Counts {
        pus: shown.len(),
        cores: cores.len(),
        packages: packages.len(),
        nodes: inventory.nodes.len(),
    }
}

/// hwloc's own: from the summary of `lstopo -v`, or from its XML.
fn expected(archive: &Path) -> Counts {
    let beside = |extension: &str| {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix("tar.bz2").unwrap();
        archive.with_file_name(format!("{name}{extension}"))
    };
    if let Ok(text) = std::fs::read_to_string(beside("console")) {
        let of = |kind: &str| {
            text.lines()
                .find(|line| line.contains("depth") && line.contains(&format!(" {kind} (type")))
                .map_or(0, |line| {
                    let count = line.split(':').nth(1).unwrap();
                    count.split_whitespace().next().unwrap().parse().unwrap()
                })
        };
        return Counts {
            pus: of("PU"),
            cores: of("Core"),
            packages: of("Package"),
            nodes: of("NUMANode"),
        };
    }
    let text = std::fs::read_to_string(beside("xml")).unwrap();
    let of = |kind: &str| text.matches(&format!("object type=\"{kind}\"")).count();
    Counts {
        pus: of("PU"),
        cores: of("Core"),
        packages: of("Package"),
        nodes: of("NUMANode"),
    }
}

/// A folder in memory where there is one: the archives hold thousands of files each.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn unpack(archive: &Path, into: &Path) -> PathBuf {
    let status = Command::new("tar")
        .args(["xjf"])
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(
        status.success(),
        "tar could not unpack {}",
        archive.display()
    );
    // Each archive has one folder, named as it likes.
    let top = std::fs::read_dir(into).unwrap().next().unwrap().unwrap();
    top.path()
}

/// What an inventory means otherwise than hwloc, and why.
fn adjusted(name: &str, mut hwloc: Counts, ours: &Counts) -> Counts {
    match name {
        // A cgroup may forbid memory nodes; an inventory shows all that the server has. hwloc
        // keeps a package for the allowed memory in it.
        "16amd64-8n2c-cpusets" => {
            assert_eq!((hwloc.nodes, ours.nodes), (4, 8));
            assert_eq!((hwloc.packages, ours.packages), (7, 6));
            hwloc.nodes = 8;
            hwloc.packages = 6;
        }
        "32amd64-4s2n4c-cgroup2" => {
            assert_eq!((hwloc.nodes, ours.nodes), (6, 8));
            assert_eq!((hwloc.packages, ours.packages), (3, 1));
            hwloc.nodes = 8;
            hwloc.packages = 1;
        }
        // As above; and where no core is told, hwloc has none and an inventory one for each CPU.
        "4fake-4gr1nu1pu" => {
            assert_eq!((hwloc.nodes, ours.nodes), (2, 4));
            assert_eq!((hwloc.cores, ours.cores), (0, 2));
            hwloc.nodes = 4;
            hwloc.cores = 2;
        }
        // hwloc leaves out the memory of GPUs unless asked for it.
        "nvidiagpunumanodes" => {
            assert_eq!((hwloc.nodes, ours.nodes), (2, 8));
            hwloc.nodes = 8;
        }
        _ => {}
    }
    hwloc
}

#[test]
fn captured_machines_are_counted_as_hwloc_counts_them() {
    let Ok(entries) = std::fs::read_dir(MACHINES) else {
        eprintln!("SKIPPED: the captures are not there ({MACHINES})");
        return;
    };
    let mut archives: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".tar.bz2"))
        .collect();
    archives.sort();
    assert_eq!(archives.len(), 21);
    let mut wrong = Vec::new();
    for archive in &archives {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix(".tar.bz2").unwrap();
        let folder = scratch();
        let root = Root::open(&unpack(archive, folder.path())).unwrap();
        let inventory = CapturedInventory::read(&root).unwrap();
        let text = serde_json::to_string(&*inventory).unwrap();
        assert_eq!(
            CapturedInventory::from_json(&text).unwrap(),
            inventory,
            "{name}"
        );
        let ours = counts(&inventory);
        let hwloc = adjusted(name, expected(archive), &ours);
        if ours != hwloc {
            wrong.push(format!(
                "{name}: {ours:?}, hwloc has {hwloc:?}: {:#?}",
                inventory.notes
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
