//! Logical CPUs: which are there, online and allowed, and which share a core.
//!
//! Source: `Documentation/ABI/stable/sysfs-devices-system-cpu`,
//! `Documentation/admin-guide/cputopology.rst`.
//! Keeps true: siblings are a partition of the CPUs, whatever the kernel says; a server without
//! topology files has cores of one thread, and a note.

use bmslice_model::{CpuId, CpuSet};

use crate::facts::Cpu;
use crate::machine::CpuInfo;
use crate::scan::{Scan, numbered};

const CPUS: &str = "/sys/devices/system/cpu";

/// Reads every present CPU, by number, without its NUMA node (see `memory`). None at all when
/// neither sysfs nor cpuinfo shows one.
pub(crate) fn read(scan: &mut Scan, cpuinfo: &CpuInfo) -> Vec<Cpu> {
    let folders: CpuSet = scan
        .list(CPUS)
        .iter()
        .filter_map(|name| CpuId::new(numbered(name, "cpu")?).ok())
        .collect();
    // Folders alone would miss nothing on a new kernel; old ones have one for every possible CPU.
    let present = match scan.cpu_list(&format!("{CPUS}/present")) {
        Some(present) if !present.is_empty() => present,
        _ if !folders.is_empty() => folders.clone(),
        _ => {
            if !cpuinfo.processors.is_empty() {
                scan.note(CPUS, "no CPU is shown here; /proc/cpuinfo was taken");
            }
            cpuinfo.processors.clone()
        }
    };
    let online = online(scan, &present);
    let allowed = crate::cgroup::allowed(scan);
    if let Some(allowed) = &allowed
        && allowed.is_disjoint(&online)
    {
        scan.note("cpuset", "the cgroup of this process has no online CPU");
    }

    let mut cpus: Vec<Cpu> = present
        .iter()
        .map(|id| Cpu {
            id,
            online: online.contains(id),
            allowed: allowed.as_ref().is_none_or(|set| set.contains(id)),
            package: None,
            die: None,
            core: None,
            node: None,
            siblings: CpuSet::from(id),
        })
        .collect();
    let mut untold = CpuSet::new();
    for cpu in &mut cpus {
        let folder = format!("{CPUS}/cpu{}/topology", cpu.id);
        cpu.package = scan.number(&format!("{folder}/physical_package_id"));
        cpu.core = scan.number(&format!("{folder}/core_id"));
        cpu.die = scan.number(&format!("{folder}/die_id"));
        if !cpu.online {
            continue;
        }
        // `core_cpus` is the name since Linux 5.3; both mean the threads of the core.
        let told = scan
            .cpus(&folder, "core_cpus_list", "core_cpus")
            .or_else(|| scan.cpus(&folder, "thread_siblings_list", "thread_siblings"));
        match told {
            Some(set) => {
                if !set.contains(cpu.id) {
                    scan.note(
                        &folder,
                        format!("CPU {} is not among its own siblings {set}", cpu.id),
                    );
                }
                cpu.siblings = set.intersection(&online).union(&CpuSet::from(cpu.id));
            }
            None => {
                untold.insert(cpu.id);
            }
        }
    }
    packages(scan, &mut cpus);
    if !untold.is_empty() {
        scan.note(
            CPUS,
            format!("the core of CPUs {untold} is not told; each is taken as a core of its own"),
        );
    }
    close(scan, &mut cpus);
    cpus
}

/// Numbers the packages that firmware left without a number, in the order of their lowest CPU.
fn packages(scan: &mut Scan, cpus: &mut [Cpu]) {
    let mut found: Vec<CpuSet> = Vec::new();
    let used = cpus.iter().filter_map(|cpu| cpu.package).max();
    let first = used.map_or(0, |used| used.saturating_add(1));
    for cpu in cpus.iter_mut().filter(|c| c.online && c.package.is_none()) {
        let number = match found.iter().position(|set| set.contains(cpu.id)) {
            Some(number) => number,
            None => {
                let folder = format!("{CPUS}/cpu{}/topology", cpu.id);
                let told = scan
                    .cpus(&folder, "package_cpus_list", "package_cpus")
                    .or_else(|| scan.cpus(&folder, "core_siblings_list", "core_siblings"));
                let Some(set) = told.filter(|set| set.contains(cpu.id)) else {
                    continue;
                };
                found.push(set);
                found.len() - 1
            }
        };
        cpu.package = u32::try_from(number)
            .ok()
            .and_then(|n| first.checked_add(n));
    }
    if !found.is_empty() {
        scan.note(
            CPUS,
            format!("{} packages have no number; they were counted", found.len()),
        );
    }
}

/// The online CPUs: from the one list, or on kernels and captures without it from each CPU.
fn online(scan: &mut Scan, present: &CpuSet) -> CpuSet {
    if let Some(online) = scan.cpu_list(&format!("{CPUS}/online"))
        && !online.is_empty()
    {
        let unknown = online.difference(present);
        if !unknown.is_empty() {
            scan.note(
                format!("{CPUS}/online"),
                format!("CPUs {unknown} are online and not present"),
            );
        }
        return online.intersection(present);
    }
    // CPU 0 has no such file where it cannot be taken offline.
    present
        .iter()
        .filter(|id| scan.flag(&format!("{CPUS}/cpu{id}/online")) != Some(false))
        .collect()
}

/// Makes a partition of the siblings: whoever shares a core with one thread of a core shares it
/// with all of them.
fn close(scan: &mut Scan, cpus: &mut [Cpu]) {
    let mut cores: Vec<CpuSet> = Vec::new();
    let mut odd = false;
    for cpu in cpus.iter() {
        if cores.contains(&cpu.siblings) {
            continue;
        }
        let mut core = cpu.siblings.clone();
        cores.retain(|other| {
            let apart = other.is_disjoint(&core);
            if !apart {
                odd = true;
                core.extend_from(other);
            }
            apart
        });
        cores.push(core);
    }
    let mut wider = CpuSet::new();
    for cpu in cpus.iter_mut() {
        if let Some(core) = cores.iter().find(|core| core.contains(cpu.id))
            && *core != cpu.siblings
        {
            cpu.siblings = core.clone();
            wider.insert(cpu.id);
        }
    }
    if odd || !wider.is_empty() {
        scan.note(
            CPUS,
            format!(
                "siblings are not told alike from both sides; CPUs {wider} were taken as of the wider core"
            ),
        );
    }
}
