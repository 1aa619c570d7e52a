//! hwloc's captures of real machines, compared with hwloc's own reading: packages, dies, cores,
//! threads and every cache with their CPUs, nodes with their CPUs, memory and distances, and PCI
//! functions with what they are near to.
//!
//! The captures lie beside a checkout (`../shared/machines`), not in it; without them this test
//! says so and ends. `BMSLICE_MACHINES` names another folder of the same form: each `NAME.tar.bz2`
//! with `NAME.console` or `NAME.xml` beside it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests unpack and read the captures that they compare with"
)]

mod compare;
mod hwloc;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bmslice_host::{Limits, Root};
use bmslice_inventory::{Capture, CapturedInventory, Probes};
use compare::Topic;

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

fn hwloc_reading(archive: &Path) -> hwloc::Reading {
    let beside = |extension: &str| {
        let name = archive.to_str().unwrap();
        let name = name.strip_suffix("tar.bz2").unwrap();
        std::fs::read_to_string(format!("{name}{extension}"))
    };
    match beside("console") {
        Ok(text) => hwloc::console(&text),
        Err(_) => hwloc::xml(&beside("xml").unwrap()),
    }
}

/// The archives, and whether they are of a folder that was named.
fn archives() -> Option<(Vec<PathBuf>, bool)> {
    let folder = std::env::var("BMSLICE_MACHINES");
    let own = folder.is_ok();
    let folder = folder.unwrap_or_else(|_| MACHINES.into());
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: the captures are not there ({folder})");
        return None;
    };
    let mut archives: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".tar.bz2"))
        .collect();
    archives.sort();
    Some((archives, own))
}

#[test]
fn captured_machines_are_read_as_hwloc_reads_them() {
    let Some((archives, own)) = archives() else {
        return;
    };
    assert!(own || archives.len() == 21, "{}", archives.len());
    let mut wrong = Vec::new();
    for archive in &archives {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let name = name.strip_suffix(".tar.bz2").unwrap();
        let root = Root::captured(archive, Limits::default()).unwrap();
        let inventory = CapturedInventory::read(&root).unwrap();
        let text = serde_json::to_string(&*inventory).unwrap();
        assert_eq!(
            CapturedInventory::from_json(&text).unwrap(),
            inventory,
            "{name}"
        );
        let found = compare::differences(&inventory, &hwloc_reading(archive));
        let expected: BTreeSet<Topic> = DIFFERENCES
            .iter()
            .filter(|(machine, ..)| *machine == name)
            .map(|(_, topic, _)| *topic)
            .collect();
        for (topic, text) in &found {
            if !expected.contains(topic) {
                wrong.push(format!("{name}: {topic:?}: {text}"));
            }
        }
        for topic in expected {
            if !found.contains_key(&topic) {
                wrong.push(format!("{name}: {topic:?} does not differ any more"));
            }
        }
        if std::env::var_os("BMSLICE_NOTES").is_some() {
            eprintln!("{name}: {:#?}", inventory.notes);
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn captured_machines_are_captured_again_and_redacted() {
    let Some((archives, _)) = archives() else {
        return;
    };
    for archive in &archives {
        let name = archive.display();
        let open = || Root::captured(archive, Limits::default()).unwrap();
        let plain = CapturedInventory::read(&open()).unwrap();
        let probes = Probes::default();
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
