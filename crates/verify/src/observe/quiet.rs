//! What of the kernel and of systemd's units may run on the slices' CPUs just now.

use std::collections::BTreeSet;

use bmslice_host::Root;
use bmslice_inventory::{FIXED_INTERRUPTS, Interrupt, KernelThread, interrupts, kernel_threads};
use bmslice_model::CpuSet;

use crate::report::{NotSeen, Seen};

const CGROUPS: &str = "/sys/fs/cgroup";
/// The slice of systemd's that is the partition.
const PARTITION: &str = "bmslice.slice";
/// What everybody else's processes are in.
const CONFINED: [&str; 4] = ["init.scope", "system.slice", "user.slice", "machine.slice"];

/// What may run where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    /// `cpuset.cpus.partition` of the slices' group; `None` when there is no such group.
    pub partition: Option<String>,
    /// `cpuset.cpus.effective` of that group.
    pub partition_cpus: CpuSet,
    /// The groups of everybody else that are there, and their `cpuset.cpus`; `None` where they may
    /// use all.
    pub confined: Vec<(String, Option<CpuSet>)>,
    /// The interrupts.
    pub interrupts: Seen<Vec<Interrupt>>,
    /// Those that the kernel refused to move.
    pub fixed: BTreeSet<u32>,
    /// Where new interrupts go.
    pub new_interrupts: Option<CpuSet>,
    /// Where unbound workers of the kernel run.
    pub workers: Option<CpuSet>,
    /// The kernel's own threads.
    pub threads: Seen<Vec<KernelThread>>,
    /// irqbalance.
    pub irqbalance: Irqbalance,
}

/// irqbalance, if it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Irqbalance {
    /// It does not.
    Off,
    /// `IRQBALANCE_BANNED_CPULIST` of its environment.
    Told(Option<String>),
    /// It runs, and does not tell what it was told.
    Hidden,
}

fn cpus(root: &Root, path: String) -> Option<CpuSet> {
    root.attribute(path)?.parse().ok()
}

fn mask(root: &Root, path: &str) -> Option<CpuSet> {
    CpuSet::from_mask(&root.attribute(path)?)
}

fn irqbalance(root: &Root) -> Irqbalance {
    let group = format!("{CGROUPS}/system.slice/irqbalance.service/cgroup.procs");
    let pids = root.read_text(group).unwrap_or_default();
    let Some(pid) = pids.lines().next() else {
        return Irqbalance::Off;
    };
    let Ok(bytes) = root.read(format!("/proc/{pid}/environ")) else {
        return Irqbalance::Hidden;
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let list = text
        .split('\0')
        .find_map(|pair| pair.strip_prefix("IRQBALANCE_BANNED_CPULIST="));
    Irqbalance::Told(list.map(str::to_owned))
}

/// Looks.
pub(crate) fn observe(root: &Root) -> Quiet {
    let unreadable = |what: &str, error: std::io::Error| {
        NotSeen::Unreadable(format!("cannot read `{what}`: {error}"))
    };
    let group = format!("{CGROUPS}/{PARTITION}");
    Quiet {
        partition: root.attribute(format!("{group}/cpuset.cpus.partition")),
        partition_cpus: cpus(root, format!("{group}/cpuset.cpus.effective")).unwrap_or_default(),
        confined: CONFINED
            .iter()
            .filter(|name| root.exists(format!("{CGROUPS}/{name}")))
            .map(|name| {
                let own = cpus(root, format!("{CGROUPS}/{name}/cpuset.cpus"));
                ((*name).to_owned(), own.filter(|cpus| !cpus.is_empty()))
            })
            .collect(),
        interrupts: interrupts(root).map_err(|error| unreadable("/proc/irq", error)),
        fixed: root
            .read_text(FIXED_INTERRUPTS)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect(),
        new_interrupts: mask(root, "/proc/irq/default_smp_affinity"),
        workers: mask(root, "/sys/devices/virtual/workqueue/cpumask"),
        threads: kernel_threads(root).map_err(|error| unreadable("/proc", error)),
        irqbalance: irqbalance(root),
    }
}
