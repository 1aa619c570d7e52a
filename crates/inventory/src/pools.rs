//! Memory of the whole server: huge page pools, tiers, transparent huge pages, swap.
//!
//! Source: `Documentation/admin-guide/mm/hugetlbpage.rst`, `transhuge.rst`, `ksm.rst`,
//! `Documentation/ABI/testing/sysfs-kernel-mm-memory-tiers`, proc(5) on `meminfo`.

use bmslice_model::{ByteSize, CpuSet, NumaNodeId};

use crate::facts::{GlobalPool, MemoryFacts, MemoryTier, TransparentHugePages};
use crate::memory::meminfo;
use crate::scan::{Scan, numbered};

const MM: &str = "/sys/kernel/mm";

/// Reads what no node tells.
pub(crate) fn read(scan: &Scan) -> MemoryFacts {
    let text = scan.file("/proc/meminfo");
    let meminfo = meminfo(&text);
    let size = |key: &str| meminfo.get(key).map(|kib| ByteSize::from_kib(*kib));
    let word = |name: &str| scan.text(&format!("{MM}/transparent_hugepage/{name}"));
    MemoryFacts {
        total: size("MemTotal"),
        available: size("MemAvailable"),
        swap: size("SwapTotal"),
        huge_pages: huge_pages(scan),
        default_huge_page: size("Hugepagesize").filter(|size| *size != ByteSize::ZERO),
        transparent_huge_pages: word("enabled").as_deref().and_then(chosen).map(|enabled| {
            TransparentHugePages {
                enabled: enabled.to_owned(),
                defrag: word("defrag").as_deref().and_then(chosen).map(Into::into),
            }
        }),
        ksm: scan
            .number::<u32>(&format!("{MM}/ksm/run"))
            .map(|run| run == 1),
        numa_balancing: scan
            .number::<u32>("/proc/sys/kernel/numa_balancing")
            .map(|mode| mode != 0),
        tiers: tiers(scan),
    }
}

/// The word in brackets: `madvise` of `always [madvise] never`.
pub(crate) fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

fn huge_pages(scan: &Scan) -> Vec<GlobalPool> {
    let folder = format!("{MM}/hugepages");
    let mut pools: Vec<GlobalPool> = scan
        .list(&folder)
        .iter()
        .filter_map(|name| {
            let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            let count = |file: &str| scan.number(&format!("{folder}/{name}/{file}"));
            Some(GlobalPool {
                size: ByteSize::from_kib(kib.parse().ok()?),
                total: count("nr_hugepages")?,
                free: count("free_hugepages").unwrap_or(0),
                reserved: count("resv_hugepages").unwrap_or(0),
                surplus: count("surplus_hugepages").unwrap_or(0),
                overcommit: count("nr_overcommit_hugepages").unwrap_or(0),
            })
        })
        .collect();
    pools.sort_by_key(|pool| pool.size);
    pools
}

fn tiers(scan: &Scan) -> Vec<MemoryTier> {
    const TIERS: &str = "/sys/devices/virtual/memory_tiering";
    let mut tiers: Vec<MemoryTier> = scan
        .list(TIERS)
        .iter()
        .filter_map(|name| {
            let id = numbered(name, "memory_tier")?;
            // Node lists have the form of CPU lists.
            let nodes: CpuSet = scan
                .text(&format!("{TIERS}/{name}/nodelist"))?
                .parse()
                .ok()?;
            Some(MemoryTier {
                id,
                nodes: nodes.iter().map(|node| NumaNodeId(node.number())).collect(),
            })
        })
        .collect();
    tiers.sort_by_key(|tier| tier.id);
    tiers
}
