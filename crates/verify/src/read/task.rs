//! A thread from `/proc/PID/task/TID/{stat,status}` (proc(5)), and its role in a QEMU process.

use bmslice_model::{CpuId, CpuSet};

/// `PF_KTHREAD` of include/linux/sched.h: a thread of the kernel's own.
const PF_KTHREAD: u64 = 0x0020_0000;
/// `PF_USER_WORKER`: a thread of the kernel's own inside a process (io_uring, vhost, KVM).
const PF_USER_WORKER: u64 = 0x4000;

/// A thread as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its thread id.
    pub tid: u32,
    /// Its name, at most 15 characters.
    pub comm: String,
    /// `Cpus_allowed_list`.
    pub allowed: CpuSet,
    /// The CPU it last ran on (field 39 of stat).
    pub last_cpu: Option<CpuId>,
    /// Whether it is a thread of the kernel's own (field 9 of stat).
    pub kernel: bool,
    /// Whether it is a thread that the kernel keeps inside a process (field 9 of stat).
    pub kernel_worker: bool,
    /// When it started, in clock ticks (1/100 s) since boot (field 22 of stat).
    pub started: u64,
}

/// What a thread of a QEMU process does, by the name that `debug-threads=on` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `CPU N/KVM`.
    Vcpu {
        /// The vCPU's number.
        number: u32,
        /// Whether KVM runs it; `CPU N/TCG` is emulated.
        kvm: bool,
    },
    /// `IO iothreadN`.
    IoThread(u32),
    /// The main loop, whose thread id is the process id.
    Emulator,
    /// Anything else that QEMU, its libraries or the kernel start in the process: `worker`,
    /// `call_rcu`, `vnc_worker`, `IO mon_iothread`, `iou-wrk-…`, `vhost-…`, `kvm-nx-lpage-re`.
    /// They inherit from, and belong beside, the emulator.
    Other,
}

impl Task {
    /// Its role in the process with this id.
    #[must_use]
    pub fn role(&self, pid: u32) -> Role {
        if let Some((number, accelerator)) = self
            .comm
            .strip_prefix("CPU ")
            .and_then(|rest| rest.split_once('/'))
            && let Ok(number) = number.parse()
        {
            return Role::Vcpu {
                number,
                kvm: accelerator == "KVM",
            };
        }
        if let Some(number) = self.comm.strip_prefix("IO iothread")
            && let Ok(number) = number.parse()
        {
            return Role::IoThread(number);
        }
        if self.tid == pid {
            Role::Emulator
        } else {
            Role::Other
        }
    }

    /// Whether it is KVM's huge page recovery (`kvm-nx-lpage-recovery`, of newer kernels, such as
    /// 6.12, a thread of the process): the first vCPU that runs starts it, on its own CPU.
    #[must_use]
    pub fn is_huge_page_recovery(&self) -> bool {
        self.kernel_worker && self.comm == "kvm-nx-lpage-re"
    }

    /// The process that a kernel thread works for, by its name: `kvm-pit/688`, `vhost-688`.
    #[must_use]
    pub fn works_for(&self) -> Option<u32> {
        let name = &self.comm;
        let pid = name
            .strip_prefix("kvm-pit/")
            .or_else(|| name.strip_prefix("vhost-"))?;
        pid.parse().ok()
    }

    /// A thread from its two files; `None` when one of them is not of that form.
    #[must_use]
    pub fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name may itself hold spaces and parentheses: it ends at the last one.
        let (tid, rest) = stat.split_once('(')?;
        let (comm, rest) = rest.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `fields[0]` is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?
            .parse()
            .ok()?;
        Some(Self {
            tid: tid.trim().parse().ok()?,
            comm: comm.to_owned(),
            allowed,
            last_cpu: field(39)
                .and_then(|cpu| u32::try_from(cpu).ok())
                .and_then(|cpu| CpuId::new(cpu).ok()),
            kernel: field(9)? & PF_KTHREAD != 0,
            kernel_worker: field(9)? & PF_USER_WORKER != 0,
            started: field(22)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "4711 (CPU 3/KVM) S 1 4700 4700 0 -1 138412352 1 0 0 0 812 97 0 0 20 0 14 0 93412 9500000000 120000 18446744073709551615 1 1 0 0 0 0 268444224 4096 1073760768 0 0 0 -1 10 0 0 0 2510 0 0 0 0 0 0 0 0 0";
    const STATUS: &str =
        "Name:\tCPU 3/KVM\nCpus_allowed:\t000400\nCpus_allowed_list:\t10\nMems_allowed_list:\t0\n";

    fn named(comm: &str, tid: u32) -> Task {
        let mut task = Task::parse(STAT, STATUS).unwrap();
        task.comm = comm.into();
        task.tid = tid;
        task
    }

    #[test]
    fn reads_name_affinity_last_cpu_and_start() {
        let task = Task::parse(STAT, STATUS).unwrap();
        assert_eq!((task.tid, task.comm.as_str()), (4711, "CPU 3/KVM"));
        assert_eq!(task.allowed.to_string(), "10");
        assert_eq!(task.last_cpu, Some(CpuId::from(10)));
        assert_eq!((task.kernel, task.started), (false, 93412));
    }

    #[test]
    fn a_name_with_parentheses_ends_at_the_last_one() {
        let stat = STAT.replace("(CPU 3/KVM)", "(a) S (b)");
        assert_eq!(Task::parse(&stat, STATUS).unwrap().comm, "a) S (b");
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let stat = STAT.replace(" 138412352 ", " 2129984 ");
        assert!(Task::parse(&stat, STATUS).unwrap().kernel);
    }

    #[test]
    fn roles_follow_the_names_that_qemu_gives() {
        let role = |comm, tid| named(comm, tid).role(100);
        let vcpu = |number, kvm| Role::Vcpu { number, kvm };
        assert_eq!(role("CPU 0/KVM", 101), vcpu(0, true));
        assert_eq!(role("CPU 117/KVM", 101), vcpu(117, true));
        assert_eq!(role("CPU 1/TCG", 101), vcpu(1, false));
        assert_eq!(role("IO iothread2", 101), Role::IoThread(2));
        assert_eq!(role("IO mon_iothread", 101), Role::Other);
        assert_eq!(role("qemu-system-x86", 100), Role::Emulator);
        assert_eq!(role("qemu-system-x86", 101), Role::Other);
        for other in [
            "worker",
            "call_rcu",
            "vhost-100",
            "kvm-nx-lpage-re",
            "CPU x/KVM",
        ] {
            assert_eq!(role(other, 101), Role::Other, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(stat in "\\PC{0,80}", status in "(Cpus_allowed_list:)?\\PC{0,40}") {
            let _ = Task::parse(&stat, &status);
        }
    }
}
