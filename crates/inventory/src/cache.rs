//! Caches and who shares them.
//!
//! Source: `Documentation/ABI/testing/sysfs-devices-system-cpu` (cache/index*).
//! Keeps true: one entry for each cache, however many CPUs tell of it.

use std::collections::BTreeMap;

use bmslice_model::{ByteSize, CpuSet};

use crate::facts::{Cache, CacheKind, Cpu};
use crate::scan::{Scan, numbered};

/// The level and kind of a CPU's caches, by index.
type Leaves = BTreeMap<u32, (u32, CacheKind)>;

/// Reads the caches of the online CPUs, by level, then kind, then lowest CPU.
pub(crate) fn read(scan: &mut Scan, cpus: &[Cpu]) -> Vec<Cache> {
    let online: CpuSet = cpus.iter().filter(|c| c.online).map(|c| c.id).collect();
    let mut caches: Vec<Cache> = Vec::new();
    // The caches seen by index number: a CPU whose share is already known needs no further file.
    let mut known: BTreeMap<u32, Vec<CpuSet>> = BTreeMap::new();
    let mut untold = CpuSet::new();
    // The kernel lists a CPU's caches from the nearest on: where CPUs have as many, the one of an
    // index is of the same level and kind.
    let mut leaves: Vec<(Vec<String>, Leaves)> = Vec::new();
    for of in cpus.iter().filter(|cpu| cpu.online) {
        let cpu = of.id;
        // Whoever shares each of its caches has told of them.
        if !known.is_empty()
            && known
                .values()
                .all(|shares| shares.iter().any(|share| share.contains(cpu)))
        {
            continue;
        }
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/cache");
        let names = scan.list(&folder);
        let like = leaves.iter().position(|(others, _)| *others == names);
        let like = like.unwrap_or_else(|| {
            leaves.push((names.clone(), BTreeMap::new()));
            leaves.len() - 1
        });
        for name in names {
            let Some(index) = numbered(&name, "index") else {
                continue;
            };
            // Whoever shares this one has told of it.
            let told = known.get(&index);
            if told.is_some_and(|shares| shares.iter().any(|share| share.contains(cpu))) {
                continue;
            }
            let folder = format!("{folder}/{name}");
            let Some(shared) = shared(scan, &folder, of, &online, &mut untold) else {
                continue;
            };
            known.entry(index).or_default().push(shared.clone());
            let told = leaves[like].1.get(&index).copied();
            let Some((level, kind)) = told.or_else(|| leaf(scan, &folder)) else {
                continue;
            };
            leaves[like].1.insert(index, (level, kind));
            let cache = Cache {
                level,
                kind,
                size: scan
                    .text(&format!("{folder}/size"))
                    .and_then(|text| size(&text)),
                cpus: shared,
            };
            if !caches.contains(&cache) {
                caches.push(cache);
            }
        }
    }
    if !untold.is_empty() {
        scan.note(
            "/sys/devices/system/cpu",
            format!("who shares caches of CPUs {untold} is not told; they were left out"),
        );
    }
    caches.sort_by_key(|c| (c.level, c.kind, c.cpus.first()));
    caches
}

/// The level and kind of a cache.
fn leaf(scan: &mut Scan, folder: &str) -> Option<(u32, CacheKind)> {
    let kind = match scan.text(&format!("{folder}/type")).as_deref() {
        Some("Data") => CacheKind::Data,
        Some("Instruction") => CacheKind::Instruction,
        // Some architectures tell a kind for split caches alone.
        Some("Unified") | None => CacheKind::Unified,
        Some(other) => {
            scan.note(
                format!("{folder}/type"),
                format!("`{other}` is no kind of cache that is known; it was left out"),
            );
            return None;
        }
    };
    let level = scan.number(&format!("{folder}/level"));
    if level.is_none() {
        scan.note(folder, "it has no level; it was left out");
    }
    Some((level?, kind))
}

/// The CPUs that share a cache; `None` where that cannot be known.
fn shared(
    scan: &mut Scan,
    folder: &str,
    of: &Cpu,
    online: &CpuSet,
    untold: &mut CpuSet,
) -> Option<CpuSet> {
    let cpu = of.id;
    let Some(told) = scan.cpus(folder, "shared_cpu_list", "shared_cpu_map") else {
        untold.insert(cpu);
        return None;
    };
    if told.is_empty() {
        // Itanium's way to say that a cache is the core's own.
        return Some(of.siblings.clone());
    }
    let shared = told.intersection(online);
    if !shared.contains(cpu) {
        scan.note(
            folder,
            format!(
                "CPU {cpu} is not among the CPUs {shared} that share its cache; it was left out"
            ),
        );
        return None;
    }
    Some(shared)
}

/// `32K`, `12M`; a bare number is KiB, as in kernels before 2.6.
pub(crate) fn size(text: &str) -> Option<ByteSize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    match &text[digits.len()..] {
        "" | "K" | "k" => Some(ByteSize::from_kib(number)),
        "M" => Some(ByteSize::from_mib(number)),
        "G" => Some(ByteSize::from_gib(number)),
        _ => None,
    }
    .filter(|size| *size != ByteSize::ZERO)
}
