//! The threads of the QEMU process as the kernel schedules them.

use bmslice_model::{CpuId, CpuSet};

use super::or_satisfied;
use crate::checks::SliceView;
use crate::observe::Process;
use crate::read::task::{Role, Task};
use crate::report::{NotSeen, Seen, Verdict};

fn seen<'a>(view: &'a SliceView) -> Seen<&'a Process> {
    let process = view.guest.process.as_ref().map_err(Clone::clone)?;
    let named = process
        .threads
        .iter()
        .any(|thread| matches!(thread.role(process.pid), Role::Vcpu { .. }));
    if named {
        Ok(process)
    } else {
        Err(NotSeen::Unreadable(format!(
            "no thread of process {} is named `CPU N/KVM`: QEMU has not started its vCPUs, or runs without `debug-threads=on`",
            process.pid
        )))
    }
}

fn thread(task: &Task) -> String {
    format!("thread {} `{}`", task.tid, task.comm)
}

pub(crate) fn vcpus(view: &SliceView) -> Seen<Vec<Verdict>> {
    let process = seen(view)?;
    let mut verdicts = Vec::new();
    let mut last = Vec::new();
    let mut found = 0;
    for task in &process.threads {
        let Role::Vcpu { number, kvm } = task.role(process.pid) else {
            continue;
        };
        found += 1;
        let planned = usize::try_from(number)
            .ok()
            .and_then(|number| view.slice.vcpus.get(number));
        let Some(cpu) = planned else {
            verdicts.push(Verdict::differs(
                thread(task),
                "no such vCPU",
                &task.allowed,
            ));
            continue;
        };
        if !kvm {
            verdicts.push(Verdict::differs(thread(task), "run by KVM", "emulated"));
        }
        let want = CpuSet::from(*cpu);
        if task.allowed != want {
            verdicts.push(Verdict::differs(thread(task), &want, &task.allowed));
        }
        last.push(
            task.last_cpu
                .map_or_else(|| "?".into(), |cpu: CpuId| cpu.to_string()),
        );
    }
    let wanted = view.slice.vcpus.len();
    if found != wanted {
        let what = format!("the number of vCPU threads of process {}", process.pid);
        verdicts.push(Verdict::differs(what, wanted, found));
    }
    Ok(or_satisfied(verdicts, || {
        format!(
            "{found} vCPU threads, each bound to its CPU; they last ran on {}",
            last.join(" ")
        )
    }))
}

pub(crate) fn iothreads(view: &SliceView) -> Seen<Vec<Verdict>> {
    let process = seen(view)?;
    let mut verdicts = Vec::new();
    for (id, want) in (1u32..).zip(&view.slice.iothreads) {
        let task = process
            .threads
            .iter()
            .find(|thread| thread.role(process.pid) == Role::IoThread(id));
        match task {
            Some(task) if task.allowed == *want => {}
            Some(task) => verdicts.push(Verdict::differs(thread(task), want, &task.allowed)),
            None => verdicts.push(Verdict::differs(
                format!("IOThread {id} of process {}", process.pid),
                want,
                "no such thread",
            )),
        }
    }
    for task in &process.threads {
        if let Role::IoThread(id) = task.role(process.pid)
            && (id == 0 || u64::from(id) > view.slice.iothreads.len() as u64)
        {
            verdicts.push(Verdict::differs(
                thread(task),
                "no such IOThread",
                &task.allowed,
            ));
        }
    }
    if view.slice.iothreads.is_empty() && verdicts.is_empty() {
        return Ok(verdicts);
    }
    Ok(or_satisfied(verdicts, || {
        let cpus: Vec<String> = view.slice.iothreads.iter().map(CpuSet::to_string).collect();
        format!("{} IOThread(s) bound to {}", cpus.len(), cpus.join(" and "))
    }))
}

/// The main thread has exactly the emulator's CPUs. Its helpers inherit from whoever started them
/// (a worker started by an IOThread has the IOThread's): they must stay in the slice's pool. Only
/// KVM's huge page recovery, which a vCPU starts, sits on a vCPU's CPU, and is said.
pub(crate) fn emulator(view: &SliceView) -> Seen<Vec<Verdict>> {
    let process = seen(view)?;
    let want = &view.slice.emulator;
    let pool = view.slice.pool();
    let mut verdicts = Vec::new();
    let mut others: Vec<&str> = Vec::new();
    let mut recovery = None;
    for task in &process.threads {
        match task.role(process.pid) {
            Role::Vcpu { .. } | Role::IoThread(_) => {}
            Role::Emulator => {
                if task.allowed != *want {
                    verdicts.push(Verdict::differs(thread(task), want, &task.allowed));
                }
            }
            Role::Other if task.is_huge_page_recovery() => {
                let slice = view.slice.owned().union(&pool);
                if !task.allowed.is_subset(&slice) {
                    let want = format!("within {slice}");
                    verdicts.push(Verdict::differs(thread(task), want, &task.allowed));
                } else {
                    recovery = Some(&task.allowed);
                }
            }
            Role::Other => {
                if !task.allowed.is_subset(&pool) {
                    let want = format!("within {pool}");
                    verdicts.push(Verdict::differs(thread(task), want, &task.allowed));
                } else if !others.contains(&task.comm.as_str()) {
                    others.push(&task.comm);
                }
            }
        }
    }
    Ok(or_satisfied(verdicts, || {
        let mut text = format!("the emulator is bound to {want}");
        if !others.is_empty() {
            text.push_str(&format!(
                ", and so are its other threads ({})",
                others.join(", ")
            ));
        }
        if let Some(cpus) = recovery {
            text.push_str(&format!(
                "; KVM's huge page recovery (kvm-nx-lpage-re) is on {cpus}, where the kernel starts it"
            ));
        }
        text
    }))
}
