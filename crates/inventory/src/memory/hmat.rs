//! What firmware tells of a node's memory: who reaches it best, how fast, and what caches are in
//! front of it (ACPI's heterogeneous memory attribute table, HMAT).
//!
//! Source: `Documentation/admin-guide/mm/numaperf.rst`, `Documentation/ABI/stable/sysfs-devices-node`.
//! Keeps true: what firmware leaves at zero is not known.

use bmslice_model::ByteSize;

use super::NODES;
use crate::facts::{MemoryAccess, SideCache};
use crate::scan::{Scan, numbered};

/// Access class 1 leaves out initiators that are no CPUs (Linux 5.12).
const CLASSES: [&str; 2] = ["access1", "access0"];

/// The nodes whose CPUs reach a node's memory best; none where firmware does not tell.
pub(super) fn initiators(scan: &Scan, id: u32) -> Vec<u32> {
    CLASSES
        .iter()
        .map(|class| {
            scan.list(&format!("{NODES}/node{id}/{class}/initiators"))
                .iter()
                .filter_map(|name| numbered(name, "node"))
                .collect::<Vec<u32>>()
        })
        .find(|ids| !ids.is_empty())
        .unwrap_or_default()
}

/// How fast its best initiators reach a node's memory.
pub(super) fn access(scan: &Scan, id: u32) -> Option<MemoryAccess> {
    CLASSES.iter().find_map(|class| {
        let folder = format!("{NODES}/node{id}/{class}/initiators");
        let number = |name: &str| {
            let number: Option<u64> = scan.number(&format!("{folder}/{name}"));
            number.filter(|number| *number != 0)
        };
        let access = scan.root.exists(&folder).then(|| MemoryAccess {
            read_bandwidth: number("read_bandwidth"),
            write_bandwidth: number("write_bandwidth"),
            read_latency: number("read_latency"),
            write_latency: number("write_latency"),
        });
        access.filter(|access| *access != MemoryAccess::default())
    })
}

/// The caches in front of a node's memory, nearest to the memory first.
pub(super) fn side_caches(scan: &Scan, id: u32) -> Vec<SideCache> {
    let folder = format!("{NODES}/node{id}/memory_side_cache");
    let mut caches: Vec<SideCache> = scan
        .list(&folder)
        .iter()
        .filter_map(|name| {
            let level = numbered(name, "index")?;
            let size: u64 = scan.number(&format!("{folder}/{name}/size"))?;
            (size != 0).then_some(SideCache {
                level,
                size: ByteSize::from_bytes(size),
            })
        })
        .collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}
