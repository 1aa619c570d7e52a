//! What a fuzzer calls: each parser of this crate (and of those that it reads with) on any bytes.
//!
//! Takes bytes; gives nothing. Keeps true: whatever the bytes are, nothing panics, loops or takes
//! memory without bound, and what was parsed prints to what parses alike. `fuzz/` runs these under
//! libFuzzer, `crates/cli/tests/fuzz.rs` briefly on every `cargo test`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a fuzzer wants a panic where something is wrong; the names say it"
)]

use std::path::{Path, PathBuf};

use bmslice_host::{Entry, Limits, Root, Tree};
use bmslice_model::{ByteSize, CpuSet, KernelCmdline, MacAddress, PciAddress, PciId};

use crate::read::{CapturedInventory, Probes, read};
use crate::redact::Redaction;
use crate::scan::{parse_mask, unescape};

/// A target's name, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("cpu_list", cpu_list),
    ("cpu_mask", cpu_mask),
    ("cmdline", cmdline),
    ("attributes", attributes),
    ("proc_files", proc_files),
    ("libvirt_xml", libvirt_xml),
    ("ethtool", ethtool),
    ("inventory_json", inventory_json),
    ("archive", archive),
    ("tree", tree),
];

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// CPU lists, strides too.
pub fn cpu_list(data: &[u8]) {
    if let Ok(set) = text(data).parse::<CpuSet>() {
        let printed = set.to_string();
        assert_eq!(printed.parse::<CpuSet>().unwrap(), set, "{printed}");
        assert_eq!(set.iter().count(), set.len());
    }
}

/// CPU masks.
pub fn cpu_mask(data: &[u8]) {
    if let Some(set) = parse_mask(&text(data)) {
        assert!(set.iter().all(|cpu| set.contains(cpu)));
    }
}

/// Kernel command lines.
pub fn cmdline(data: &[u8]) {
    if let Ok(line) = text(data).parse::<KernelCmdline>() {
        let printed = line.to_string();
        assert_eq!(printed.parse::<KernelCmdline>().unwrap(), line, "{printed}");
    }
}

/// Values of sysfs attributes.
pub fn attributes(data: &[u8]) {
    let text = text(data);
    if let Ok(address) = text.parse::<PciAddress>() {
        assert_eq!(address.to_string().parse::<PciAddress>().unwrap(), address);
    }
    if let Ok(mac) = text.parse::<MacAddress>() {
        assert_eq!(mac.to_string().parse::<MacAddress>().unwrap(), mac);
    }
    if let Ok(id) = text.parse::<PciId>() {
        assert_eq!(id.to_string().parse::<PciId>().unwrap(), id);
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
    }
    let _ = crate::cache::size(&text);
    let _ = crate::pools::chosen(&text);
    let _ = crate::pci::pci_path(Path::new(&text));
    let _ = crate::device::bars(&text);
    let _ = unescape(&text);
}

/// Files of proc(5).
pub fn proc_files(data: &[u8]) {
    let text = text(data);
    let _ = crate::machine::parse_cpuinfo(&text);
    let _ = crate::memory::meminfo(&text);
    let _ = crate::memory::buddies(&text);
    // The same bytes as every file that the kernel writes line by line.
    let mut tree = Tree::default();
    for path in [
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/buddyinfo",
        "/proc/cmdline",
        "/proc/mounts",
        "/proc/self/mounts",
        "/proc/self/mountinfo",
        "/proc/self/cgroup",
        "/proc/swaps",
        "/proc/net/route",
        "/proc/net/ipv6_route",
        "/proc/net/if_inet6",
        "/proc/net/bonding/bond0",
        "/proc/driver/nvidia/gpus/0000:01:00.0/numa_status",
    ] {
        tree.put_file(Path::new(path), data.to_vec()).unwrap();
    }
    tree.put_file(
        Path::new("/sys/devices/system/cpu/present"),
        b"0-3".to_vec(),
    )
    .unwrap();
    inventory(tree);
}

/// libvirt's XML.
pub fn libvirt_xml(data: &[u8]) {
    crate::libvirt::parse(&text(data));
}

/// What the kernel answers about NICs: a byte for what it is, two for its length, the answer.
pub fn ethtool(data: &[u8]) {
    let (nics, devlink) = crate::ethtool::facts(&crate::ethtool::recorded(data));
    let probes = Probes {
        nics,
        devlink,
        ..Probes::default()
    };
    let printed = serde_json::to_string(&probes).unwrap();
    assert_eq!(serde_json::from_str::<Probes>(&printed).unwrap(), probes);
}

/// Inventory files.
pub fn inventory_json(data: &[u8]) {
    if let Ok(inventory) = CapturedInventory::from_json(&text(data)) {
        let printed = serde_json::to_string(&*inventory).unwrap();
        assert_eq!(CapturedInventory::from_json(&printed).unwrap(), inventory);
    }
}

/// Archives: unpacked, read, redacted and packed again.
pub fn archive(data: &[u8]) {
    let limits = Limits {
        entries: 1000,
        file: 1 << 16,
        bytes: 1 << 20,
    };
    if let Ok(tree) = Tree::unpack(data, limits) {
        let redacted = Redaction::of(&tree).apply(&tree);
        let mut packed = Vec::new();
        if tree.pack("again", &mut packed).is_ok() {
            let again = Tree::unpack(packed.as_slice(), Limits::default()).unwrap();
            assert_eq!(flat(&again), flat(&tree));
        }
        drop(redacted);
        inventory(tree);
    }
}

/// Paths and contents: where things lie in memory says nothing.
fn flat(tree: &Tree) -> Vec<(PathBuf, Vec<u8>)> {
    tree.walk()
        .into_iter()
        .map(|(path, entry)| {
            let bytes = match entry {
                Entry::Folder(names) => names.keys().flat_map(|n| n.bytes().chain([0])).collect(),
                Entry::File(bytes) => bytes.clone(),
                Entry::Link(target) => target.to_string_lossy().into_owned().into_bytes(),
            };
            (path, bytes)
        })
        .collect()
}

/// A tree whose files are told by the bytes: `path<NUL>contents<NUL>…`, links with `->` in front
/// of their targets.
pub fn tree(data: &[u8]) {
    let mut tree = Tree::default();
    let mut parts = data.split(|byte| *byte == 0);
    while let (Some(path), Some(contents)) = (parts.next(), parts.next()) {
        let path = format!("/{}", text(path));
        let path = Path::new(&path);
        let _ = match contents.strip_prefix(b"->") {
            Some(target) => tree.put_link(path, text(target).into()),
            None => tree.put_file(path, contents.to_vec()),
        };
    }
    inventory(tree);
}

fn inventory(tree: Tree) {
    let root = Root::tree(tree, Path::new("fuzz"));
    if let Ok(inventory) = read(&root, &Probes::default()) {
        // Siblings are a partition, whatever was told.
        for cpu in &inventory.cpus {
            assert!(cpu.siblings.contains(cpu.id));
            for other in inventory
                .cpus
                .iter()
                .filter(|c| cpu.siblings.contains(c.id))
            {
                assert_eq!(other.siblings, cpu.siblings);
            }
        }
        let printed = serde_json::to_string(&inventory).unwrap();
        let again = CapturedInventory::from_json(&printed).unwrap();
        assert_eq!(*again, inventory);
    }
}
