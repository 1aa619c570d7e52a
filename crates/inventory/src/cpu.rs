//! Logical CPUs: which are there, online and allowed, and which share a core.
//!
//! Source: `Documentation/ABI/stable/sysfs-devices-system-cpu`,
//! `Documentation/admin-guide/cputopology.rst`.
//! Keeps true: siblings are a partition of the CPUs, whatever the kernel says; a server without
//! topology files has cores of one thread, and a note.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::{CpuId, CpuSet};

use crate::facts::Cpu;
use crate::machine::CpuInfo;
use crate::scan::{Scan, numbered};
use crate::topology::{self, Shown};

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
    let present = present.union(&unlisted(scan, &present, &folders));
    let online = online(scan, &present, cpuinfo);
    let allowed = crate::cgroup::allowed_cpus(scan);
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
            siblings: CpuSet::from(id),
            ..Cpu::default()
        })
        .collect();
    let shown = topology::Shown::of(scan, CPUS, &online);
    let untold = siblings(scan, &mut cpus, &online, &shown);
    for level in &topology::LEVELS {
        topology::read(scan, CPUS, &mut cpus, &online, &shown, level);
    }
    let untold = from_cpuinfo(scan, &mut cpus, &untold, cpuinfo);
    if !untold.is_empty() {
        scan.note(
            CPUS,
            format!("the core of CPUs {untold} is not told; each is taken as a core of its own"),
        );
    }
    close(scan, &mut cpus);
    kinds(scan, &mut cpus, cpuinfo);
    cpus
}

/// Reads core numbers and siblings; gives the online CPUs whose siblings are not told.
fn siblings(scan: &mut Scan, cpus: &mut [Cpu], online: &CpuSet, shown: &Shown) -> CpuSet {
    let mut untold = CpuSet::new();
    for cpu in cpus {
        let folder = format!("{CPUS}/cpu{}/topology", cpu.id);
        cpu.core = scan
            .number(&format!("{folder}/core_id"))
            .filter(|number| topology::is_known(*number));
        if !cpu.online {
            continue;
        }
        // `core_cpus` is the name since Linux 5.3; both mean the threads of the core.
        let told = ["core_cpus", "thread_siblings"]
            .into_iter()
            .filter(|name| shown.has(name))
            .find_map(|name| scan.cpus(&folder, &format!("{name}_list"), name));
        match told {
            Some(set) => {
                if !set.contains(cpu.id) {
                    scan.note(
                        &folder,
                        format!("CPU {} is not among its own siblings {set}", cpu.id),
                    );
                }
                cpu.siblings = set.intersection(online).union(&CpuSet::from(cpu.id));
            }
            None => {
                untold.insert(cpu.id);
            }
        }
    }
    untold
}

/// Fills in what `/proc/cpuinfo` tells of CPUs that sysfs tells nothing of (x86 kernels before
/// 2.6.16, and captures without the topology files); gives those that are still untold.
fn from_cpuinfo(scan: &mut Scan, cpus: &mut [Cpu], untold: &CpuSet, info: &CpuInfo) -> CpuSet {
    let mut cores: BTreeMap<(u32, u32), CpuSet> = BTreeMap::new();
    for cpu in cpus.iter_mut().filter(|cpu| untold.contains(cpu.id)) {
        let Some(&(package, core)) = info.places.get(&cpu.id) else {
            continue;
        };
        cpu.package = cpu.package.or(Some(package));
        cpu.core = cpu.core.or(Some(core));
        cores.entry((package, core)).or_default().insert(cpu.id);
    }
    let mut told = CpuSet::new();
    for core in cores.values() {
        told.extend_from(core);
        for cpu in cpus.iter_mut().filter(|cpu| core.contains(cpu.id)) {
            cpu.siblings.clone_from(core);
        }
    }
    if !told.is_empty() {
        scan.note(
            CPUS,
            format!("the cores of CPUs {told} are told by /proc/cpuinfo alone; it was taken"),
        );
    }
    untold.difference(&told)
}

/// Tells cores of different kinds apart, and what each can do.
fn kinds(scan: &mut Scan, cpus: &mut [Cpu], cpuinfo: &CpuInfo) {
    // Intel's hybrids have a performance monitor for each kind of core.
    let mut kinds: Vec<(String, CpuSet)> = Vec::new();
    for kind in ["core", "atom", "lowpower"] {
        if let Some(set) = scan.cpu_list(&format!("/sys/devices/cpu_{kind}/cpus")) {
            kinds.push((kind.to_owned(), set));
        }
    }
    if kinds.is_empty() {
        for name in scan.list(&format!("{CPUS}/types")) {
            let folder = format!("{CPUS}/types/{name}");
            if let Some(set) = scan.cpus(&folder, "cpulist", "cpumap") {
                kinds.push((name, set));
            }
        }
    }
    let parts: BTreeSet<&String> = cpuinfo.parts.values().collect();
    if kinds.is_empty() && parts.len() > 1 {
        for part in parts {
            let of = cpuinfo.parts.iter().filter(|(_, other)| *other == part);
            kinds.push((format!("part {part}"), of.map(|(cpu, _)| *cpu).collect()));
        }
    }
    // The kernel shows capacities of all CPUs or of none; an offline one may lack its folder.
    let online = |cpu: &&Cpu| cpu.online;
    let ends = [cpus.iter().find(online), cpus.iter().rfind(online)];
    let uneven = ends.into_iter().flatten().any(|cpu| {
        scan.root
            .exists(format!("{CPUS}/cpu{}/cpu_capacity", cpu.id))
    });
    for cpu in cpus.iter_mut() {
        cpu.kind = kinds
            .iter()
            .find(|(_, set)| set.contains(cpu.id))
            .map(|(name, _)| name.clone());
        if uneven {
            cpu.capacity = scan.number(&format!("{CPUS}/cpu{}/cpu_capacity", cpu.id));
        }
    }
}

/// CPUs that are online and not among those present: one that runs is there, if it has a folder.
fn unlisted(scan: &mut Scan, present: &CpuSet, folders: &CpuSet) -> CpuSet {
    let path = format!("{CPUS}/online");
    let Some(online) = scan.cpu_list(&path) else {
        return CpuSet::new();
    };
    let unlisted = online.difference(present);
    let taken = unlisted.intersection(folders);
    let left = unlisted.difference(folders);
    if !taken.is_empty() {
        scan.note(
            &path,
            format!("CPUs {taken} are online and not present; they were taken as present"),
        );
    }
    if !left.is_empty() {
        scan.note(
            &path,
            format!("CPUs {left} are online, and neither present nor shown; they were left out"),
        );
    }
    taken
}

/// The online CPUs: from the one list, or on kernels and captures without it from each CPU.
fn online(scan: &mut Scan, present: &CpuSet, cpuinfo: &CpuInfo) -> CpuSet {
    if let Some(online) = scan.cpu_list(&format!("{CPUS}/online"))
        && !online.is_empty()
    {
        return online.intersection(present);
    }
    // CPU 0 has no such file where it cannot be taken offline.
    let mut online: CpuSet = present
        .iter()
        .filter(|id| scan.flag(&format!("{CPUS}/cpu{id}/online")) != Some(false))
        .collect();
    // A folder may stand for a CPU that could be added: it then has no topology, and no entry in
    // cpuinfo.
    let doubtful = online.difference(&cpuinfo.processors);
    if cpuinfo.processors.is_empty() || doubtful.is_empty() {
        return online;
    }
    let has_topology = |id: &CpuId| scan.root.exists(format!("{CPUS}/cpu{id}/topology"));
    let absent: CpuSet = doubtful.iter().filter(|id| !has_topology(id)).collect();
    let told = online
        .difference(&absent)
        .iter()
        .any(|id| has_topology(&id));
    if told && !absent.is_empty() {
        scan.note(
            CPUS,
            format!("CPUs {absent} have neither topology nor an entry in /proc/cpuinfo; they were taken as offline"),
        );
        online = online.difference(&absent);
    }
    online
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
