//! What of the kernel runs where: interrupts, workqueues, its own threads.
//!
//! Takes masks and lists that are written; gives `/proc/irq`, the workqueues' `cpumask` and
//! `/proc/PID` of a few kernel threads. Keeps true: an interrupt whose affinity the kernel manages
//! answers EIO, a set without an online CPU EINVAL, a bound thread is never moved; and a kernel of
//! 6.7 and later keeps unbound workers and threads that can move off isolated partitions by itself.

use std::collections::BTreeMap;

use bmslice_model::CpuSet;
use rustix::io::Errno;

use super::commands::{Answer, fail};
use super::world::World;

const CPUMASK: &str = "/sys/devices/virtual/workqueue/cpumask";
const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// `PF_KTHREAD`, and `PF_NO_SETAFFINITY`.
const FLAGS: (u64, u64) = (0x0020_8040, 0x0400_0000);

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Quiet {
    /// `default_smp_affinity`.
    default: CpuSet,
    /// By number: where, and whether somebody may say so.
    irqs: BTreeMap<u32, (CpuSet, bool)>,
    /// What was asked of the workqueues' `cpumask`.
    workqueues: CpuSet,
    /// By id: name, where, and whether it is bound there.
    threads: BTreeMap<u32, (String, CpuSet, bool)>,
}

impl World {
    /// What a boot leaves.
    pub fn boot_quiet(&mut self) {
        let all = self.all_cpus();
        let asked = self
            .argument("irqaffinity")
            .and_then(|list| list.parse().ok());
        let default: CpuSet = asked.unwrap_or_else(|| all.clone());
        let one = |cpu: u32| all.iter().filter(|c| c.number() == cpu).collect::<CpuSet>();
        self.quiet = Quiet {
            irqs: BTreeMap::from([
                // The timer's.
                (0, (one(0), false)),
                (4, (default.clone(), true)),
                // Queues of the management card and of the disk; the disk's are managed.
                (24, (default.clone(), true)),
                (25, (default.clone(), true)),
                (26, (all.clone(), false)),
            ]),
            default,
            workqueues: all.difference(&self.isolated()),
            threads: BTreeMap::from([
                (2, ("kthreadd".into(), all.clone(), false)),
                (14, ("ksoftirqd/0".into(), one(0), true)),
                (15, ("ksoftirqd/5".into(), one(5), true)),
                (60, ("kauditd".into(), all.clone(), false)),
                (61, ("khugepaged".into(), all, false)),
            ]),
        };
        self.tree.dir("/sys/devices/virtual/workqueue");
        self.tree.knob("/sys/kernel/mm/ksm/run", 1);
        self.tree.knob(THP, "[always] madvise never");
        for cpu in 0..self.server.cpus() {
            let folder = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq");
            self.tree
                .show(format!("{folder}/scaling_driver"), "acpi-cpufreq");
            self.tree.show(format!("{folder}/related_cpus"), cpu);
            self.tree
                .knob(format!("{folder}/scaling_governor"), "ondemand");
        }
        self.mirror_quiet();
    }

    fn follows_partitions(&self) -> bool {
        let mut parts = self
            .server
            .kernel
            .split('.')
            .map_while(|n| n.parse::<u32>().ok());
        (parts.next(), parts.next()) >= (Some(6), Some(7))
    }

    /// The kernel's own answer to a partition that came or went.
    pub fn follow_partitions(&mut self) {
        if self.quiet.threads.is_empty() {
            // Before the boot has come so far.
            return;
        }
        if self.follows_partitions() {
            let free = self.all_cpus().difference(&self.partitioned());
            for (_, allowed, bound) in self.quiet.threads.values_mut() {
                if !*bound {
                    allowed.clone_from(&free);
                }
            }
        }
        self.mirror_quiet();
    }

    /// The workqueues' mask as it reads.
    fn workers(&self) -> CpuSet {
        let asked = &self.quiet.workqueues;
        if self.follows_partitions() {
            asked.difference(&self.partitioned())
        } else {
            asked.clone()
        }
    }

    fn mirror_quiet(&self) {
        let (tree, quiet) = (&self.tree, &self.quiet);
        tree.knob("/proc/irq/default_smp_affinity", quiet.default.to_mask());
        for (number, (cpus, _)) in &quiet.irqs {
            tree.knob(format!("/proc/irq/{number}/smp_affinity_list"), cpus);
        }
        tree.knob(CPUMASK, self.workers().to_mask());
        for (pid, (name, allowed, bound)) in &quiet.threads {
            let flags = FLAGS.0 | if *bound { FLAGS.1 } else { 0 };
            let last = allowed
                .iter()
                .last()
                .map_or(0, bmslice_model::CpuId::number);
            tree.show(format!("/proc/{pid}/comm"), name);
            tree.show(
                format!("/proc/{pid}/stat"),
                format!(
                    "{pid} ({name}) S 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0 0 0 0 0 \
                     0 0 0 0 0 0 0 0 17 {last} 0 0 0"
                ),
            );
            tree.put(
                format!("/proc/{pid}/status"),
                format!("Name:\t{name}\nPid:\t{pid}\nCpus_allowed_list:\t{allowed}\n"),
                0o444,
            );
        }
    }

    fn some(&self, cpus: CpuSet) -> Result<CpuSet, Errno> {
        if cpus.is_disjoint(&self.all_cpus()) {
            return Err(Errno::INVAL);
        }
        Ok(cpus.intersection(&self.all_cpus()))
    }

    /// A write to `/proc/irq/N/smp_affinity_list`.
    pub fn write_irq(&mut self, number: &str, value: &str) -> Result<(), Errno> {
        let number: u32 = number.parse().map_err(|_| Errno::NOENT)?;
        let (_, movable) = self.quiet.irqs.get(&number).ok_or(Errno::NOENT)?;
        if !movable {
            return Err(Errno::IO);
        }
        let cpus = self.some(value.trim().parse().map_err(|_| Errno::INVAL)?)?;
        self.quiet.irqs.insert(number, (cpus, true));
        self.mirror_quiet();
        Ok(())
    }

    /// A write to `/proc/irq/default_smp_affinity`.
    pub fn write_irq_default(&mut self, value: &str) -> Result<(), Errno> {
        self.quiet.default = self.some(CpuSet::from_mask(value).ok_or(Errno::INVAL)?)?;
        self.mirror_quiet();
        Ok(())
    }

    /// A write to the workqueues' `cpumask`.
    pub fn write_workqueues(&mut self, value: &str) -> Result<(), Errno> {
        self.quiet.workqueues = self.some(CpuSet::from_mask(value).ok_or(Errno::INVAL)?)?;
        self.mirror_quiet();
        Ok(())
    }

    /// A write to `scaling_governor`: of those that the kernel has.
    pub fn write_governor(&mut self, path: &str, value: &str) -> Result<(), Errno> {
        let value = value.trim();
        if !["performance", "schedutil", "ondemand"].contains(&value) {
            return Err(Errno::INVAL);
        }
        self.tree.knob(path, value);
        Ok(())
    }

    /// A write to `transparent_hugepage/enabled`: it reads with brackets around the one in force.
    pub fn write_thp(&mut self, value: &str) -> Result<(), Errno> {
        let value = value.trim();
        let words = ["always", "madvise", "never"];
        if !words.contains(&value) {
            return Err(Errno::INVAL);
        }
        let shown = words.map(|word| {
            if word == value {
                format!("[{word}]")
            } else {
                word.to_owned()
            }
        });
        self.tree.knob(THP, shown.join(" "));
        Ok(())
    }

    /// `taskset -pc LIST PID`.
    pub fn taskset(&mut self, words: &[&str]) -> Answer {
        let ["-pc" | "-cp", list, pid] = words else {
            return fail(1, "taskset: bad usage");
        };
        let says = |what: &str| {
            fail(
                1,
                format!("taskset: failed to set pid {pid}'s affinity: {what}"),
            )
        };
        let Some(thread) = pid
            .parse()
            .ok()
            .and_then(|pid: u32| self.quiet.threads.get_mut(&pid))
        else {
            return says("No such process");
        };
        let Ok(cpus) = list.parse::<CpuSet>() else {
            return fail(1, format!("taskset: failed to parse CPU list: {list}"));
        };
        if thread.2 {
            return says("Invalid argument");
        }
        thread.1 = cpus;
        self.mirror_quiet();
        Ok(String::new())
    }

    /// Where interrupts, workers and threads are.
    pub fn quiet_state(&self) -> Vec<(String, String)> {
        let quiet = &self.quiet;
        let irqs = quiet
            .irqs
            .iter()
            .map(|(number, (cpus, _))| (format!("irq {number}"), cpus.to_string()));
        let threads = quiet
            .threads
            .iter()
            .map(|(pid, (name, cpus, _))| (format!("thread {pid} {name}"), cpus.to_string()));
        let settings = ["/sys/kernel/mm/ksm/run", THP]
            .map(|path| (path.to_owned(), self.tree.read(path).unwrap_or_default()));
        let governors = (0..self.server.cpus()).map(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
            let value = self.tree.read(&path).unwrap_or_default();
            (path, value)
        });
        irqs.chain(threads)
            .chain(settings)
            .chain(governors)
            .chain([
                ("irq default".to_owned(), quiet.default.to_string()),
                ("workqueues".to_owned(), {
                    // Boot arguments hold until the next boot, whatever is given back.
                    let booted = self.all_cpus().difference(&self.isolated());
                    let workers = self.workers();
                    if workers == booted {
                        "as booted".to_owned()
                    } else {
                        workers.to_string()
                    }
                }),
            ])
            .collect()
    }
}
