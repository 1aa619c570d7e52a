//! What the kernel itself may run on a CPU just now: its threads, and interrupts.
//!
//! Takes a server's root, gives what is there at this moment. No part of an
//! [`Inventory`](crate::Inventory): threads and interrupts come and go, and an inventory is to read alike twice.
//! Source: proc(5), Documentation/core-api/irq/irq-affinity.rst.

use bmslice_host::Root;
use bmslice_model::{CpuId, CpuSet};

/// `PF_KTHREAD` of include/linux/sched.h: a thread of the kernel's own.
const PF_KTHREAD: u64 = 0x0020_0000;
/// `PF_NO_SETAFFINITY`: nobody may move it (`ksoftirqd/4`, `migration/4`, workers of a CPU).
const PF_NO_SETAFFINITY: u64 = 0x0400_0000;

/// Where `apply` notes the interrupts that the kernel refused to move in this boot, a number a line:
/// nothing in `/proc` tells them from others.
pub const FIXED_INTERRUPTS: &str = "/run/bmslice/fixed-irqs";

/// A thread of the kernel's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelThread {
    /// Its id.
    pub pid: u32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// `Cpus_allowed_list`.
    pub allowed: CpuSet,
    /// The CPU it last ran on.
    pub last_cpu: Option<CpuId>,
    /// Whether the kernel keeps it where it is.
    pub bound: bool,
}

impl KernelThread {
    fn parse(pid: u32, stat: &str, status: &str) -> Option<Self> {
        let (_, rest) = stat.split_once('(')?;
        let (name, rest) = rest.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `fields[0]` is field 3 of proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let flags = field(9)?;
        if flags & PF_KTHREAD == 0 {
            return None;
        }
        Some(Self {
            pid,
            name: name.to_owned(),
            allowed: status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?
                .parse()
                .ok()?,
            last_cpu: field(39)
                .and_then(|cpu| u32::try_from(cpu).ok())
                .and_then(|cpu| CpuId::new(cpu).ok()),
            bound: flags & PF_NO_SETAFFINITY != 0,
        })
    }

    /// Whether it works for one guest, and belongs beside it: `kvm-pit/688`, `vhost-688`.
    #[must_use]
    pub fn is_a_guests(&self) -> bool {
        self.name.starts_with("kvm-pit/") || self.name.starts_with("vhost-")
    }
}

/// The kernel's own threads, by id. One that ends meanwhile is left out.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn kernel_threads(root: &Root) -> std::io::Result<Vec<KernelThread>> {
    let mut pids: Vec<u32> = root
        .list("/proc")?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    pids.sort_unstable();
    let read = |pid: u32| {
        let stat = root.read_text(format!("/proc/{pid}/stat")).ok()?;
        let status = root.read_text(format!("/proc/{pid}/status")).ok()?;
        KernelThread::parse(pid, &stat, &status)
    };
    Ok(pids.into_iter().filter_map(read).collect())
}

/// An interrupt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number in this boot.
    pub number: u32,
    /// `smp_affinity_list`: where it may be served.
    pub affinity: CpuSet,
    /// `effective_affinity_list`: where it is served, if the kernel tells.
    pub effective: Option<CpuSet>,
    /// Whether a guest is its user (`vfio-msi[0](0000:41:00.0)`).
    pub is_a_guests: bool,
}

impl Interrupt {
    /// The file that its affinity is written to.
    #[must_use]
    pub fn path(number: u32) -> String {
        format!("/proc/irq/{number}/smp_affinity_list")
    }
}

/// The interrupts, by number; none where the kernel lets nobody set affinities.
///
/// # Errors
/// When `/proc/irq` is there and cannot be read.
pub fn interrupts(root: &Root) -> std::io::Result<Vec<Interrupt>> {
    if !root.exists("/proc/irq") {
        return Ok(Vec::new());
    }
    let mut numbers: Vec<u32> = root
        .list("/proc/irq")?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    numbers.sort_unstable();
    let read = |number: u32| {
        let folder = format!("/proc/irq/{number}");
        let users = root.list(&folder).unwrap_or_default();
        Some(Interrupt {
            number,
            affinity: root.attribute(Interrupt::path(number))?.parse().ok()?,
            effective: root
                .attribute(format!("{folder}/effective_affinity_list"))
                .and_then(|list| list.parse().ok()),
            is_a_guests: users.iter().any(|user| user.starts_with("vfio-")),
        })
    };
    Ok(numbers.into_iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(name: &str, flags: u64) -> Option<KernelThread> {
        let stat = format!(
            "7 ({name}) S 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 5 0 0 0"
        );
        KernelThread::parse(7, &stat, "Name:\tx\nCpus_allowed_list:\t0-23\n")
    }

    #[test]
    fn threads_of_the_kernel_are_told_from_others_and_bound_ones_from_those_that_can_move() {
        assert_eq!(thread("bash", 0x0040_0000), None);
        let worker = thread("kworker/u48:1-events", 0x0420_8060).unwrap();
        assert!(worker.bound, "workers are the workqueues' business");
        let free = thread("kauditd (x) y", 0x0020_8040).unwrap();
        assert_eq!(
            (
                free.name.as_str(),
                free.bound,
                free.last_cpu.map(CpuId::number)
            ),
            ("kauditd (x) y", false, Some(5))
        );
        assert!(thread("kvm-pit/688", 0x0020_8040).unwrap().is_a_guests());
    }
}
