//! The kernel's own work, off the slices' CPUs: interrupts, workers, threads; and settings of the
//! whole server that disturb.
//!
//! Each remembers the exact values, and in which boot they were: after another boot the kernel has
//! its own again, and what an earlier one had is nobody's state any more.

use std::collections::BTreeSet;
use std::path::Path;

use bmslice_host::HostError;
use bmslice_inventory::{Interrupt, KernelThread, interrupts, kernel_threads};
use bmslice_model::CpuSet;
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::boot::boot_id;
use crate::steps::files::{file_before, observe_file, remove_drop_in, restore_file};
use crate::steps::fixed;

/// The mask that new interrupts get.
const DEFAULT: &str = "/proc/irq/default_smp_affinity";

fn unread(path: &str) -> impl FnOnce(std::io::Error) -> HostError {
    let path = path.into();
    move |source| HostError::File {
        action: "read",
        path,
        source,
    }
}

/// Gives interrupts to the host's CPUs (Documentation/core-api/irq/irq-affinity.rst).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveInterrupts {
    /// The host's CPUs.
    pub cpus: CpuSet,
}

impl MoveInterrupts {
    pub fn describe(&self) -> String {
        format!("serve interrupts on CPUs {}", self.cpus)
    }

    pub fn describe_undo(&self) -> String {
        "serve interrupts where they were served".into()
    }

    fn default(look: &Look<'_>) -> Option<CpuSet> {
        CpuSet::from_mask(&look.machine.root().attribute(DEFAULT)?)
    }

    /// Interrupts that may be served on others' CPUs, and are not known to stay there. A guest's
    /// own are its.
    fn astray(&self, look: &Look<'_>) -> Result<Vec<Interrupt>, HostError> {
        let fixed = fixed::read(look, fixed::IRQS);
        let mut all = interrupts(look.machine.root()).map_err(unread("/proc/irq"))?;
        all.retain(|irq| {
            !irq.is_a_guests && !irq.affinity.is_subset(&self.cpus) && !fixed.contains(&irq.number)
        });
        Ok(all)
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let astray = self.astray(look)?;
        if let Some(default) = Self::default(look)
            && default != self.cpus
        {
            return Ok(Observation::different(format!(
                "new interrupts are served on CPUs {default}"
            )));
        }
        Ok(match astray.first() {
            None => Observation::Held,
            Some(irq) => Observation::different(format!(
                "interrupt {} may be served on CPUs {}",
                irq.number, irq.affinity
            )),
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let all = interrupts(look.machine.root()).map_err(unread("/proc/irq"))?;
        Ok(Before::Interrupts {
            boot: boot_id(look),
            default: Self::default(look),
            affinities: all
                .into_iter()
                .filter(|irq| !irq.affinity.is_subset(&self.cpus))
                .map(|irq| (irq.number, irq.affinity))
                .collect(),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        if Self::default(&site.look()).is_some_and(|default| default != self.cpus) {
            site.write(DEFAULT, self.cpus.to_mask())?;
        }
        let mut fixed = BTreeSet::new();
        for irq in self.astray(&site.look())? {
            match site.write(&Interrupt::path(irq.number), &self.cpus) {
                Ok(()) => {}
                Err(error @ HostError::Gone { .. }) => return Err(error.into()),
                // EIO of one that the kernel manages or a CPU has for itself; ENOSPC where the
                // host's CPUs have no vector left; ENOENT of one that is gone.
                Err(_) => drop(fixed.insert(irq.number)),
            }
        }
        // One that another CPU's driver took back at once would be tried for ever.
        fixed.extend(self.astray(&site.look())?.iter().map(|irq| irq.number));
        Ok(fixed::add(site, fixed::IRQS, &fixed)?)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Before::Interrupts {
            boot,
            default,
            affinities,
        } = before
        else {
            return Ok(());
        };
        let now = interrupts(site.machine.root()).map_err(unread("/proc/irq"))?;
        let same_boot = *boot == boot_id(&site.look());
        let fixed = fixed::read(&site.look(), fixed::IRQS);
        for irq in now {
            let was = affinities.iter().find(|(number, _)| *number == irq.number);
            let want = match (was, default) {
                (Some((_, cpus)), _) if same_boot => cpus,
                // Numbers of another boot mean other interrupts: those on just our CPUs get what
                // the kernel gives to any.
                (_, Some(cpus)) if !same_boot && irq.affinity == self.cpus => cpus,
                _ => continue,
            };
            if irq.affinity == *want || fixed.contains(&irq.number) {
                continue;
            }
            match site.write(&Interrupt::path(irq.number), want) {
                // It went away; or, in another boot, it is on these CPUs by nature and not by us (the
                // timer's, above all), and the kernel does not let it go.
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
                Err(error) if !same_boot && error.io_kind().is_some() => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {}
            }
        }
        if let Some(default) = default
            && Self::default(&site.look()).as_ref() != Some(default)
        {
            site.write(DEFAULT, default.to_mask())?;
        }
        Ok(fixed::forget(site, fixed::IRQS)?)
    }
}

/// Moves threads of the kernel's own that can be moved, where it did not do so by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveKernelThreads {
    /// The host's CPUs.
    pub cpus: CpuSet,
    /// The slices'.
    pub isolated: CpuSet,
}

impl MoveKernelThreads {
    pub fn describe(&self) -> String {
        format!("move threads of the kernel to CPUs {}", self.cpus)
    }

    pub fn describe_undo(&self) -> String {
        "let threads of the kernel run where they could".into()
    }

    /// Those that may run on the slices' CPUs, and can be moved.
    fn movable(&self, look: &Look<'_>) -> Result<Vec<KernelThread>, HostError> {
        let fixed = fixed::read(look, fixed::THREADS);
        let mut all = kernel_threads(look.machine.root()).map_err(unread("/proc"))?;
        all.retain(|thread| {
            !thread.bound
                && !thread.is_a_guests()
                && !thread.allowed.is_disjoint(&self.isolated)
                && !fixed.contains(&thread.pid)
        });
        Ok(all)
    }

    /// A thread that is allowed there and never was does no harm, and new ones appear all the time:
    /// those that were there count.
    fn astray(&self, look: &Look<'_>) -> Result<Option<KernelThread>, HostError> {
        let there = |thread: &KernelThread| {
            let cpu = thread.last_cpu;
            cpu.is_some_and(|cpu| self.isolated.contains(cpu))
        };
        Ok(self.movable(look)?.into_iter().find(there))
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        Ok(match self.astray(look)? {
            None => Observation::Held,
            Some(thread) => Observation::different(format!(
                "the kernel's thread {} (`{}`) may run on CPUs {}",
                thread.pid, thread.name, thread.allowed
            )),
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let threads = self.movable(look)?.into_iter();
        Ok(Before::Threads {
            boot: boot_id(look),
            threads: threads.map(|t| (t.pid, t.name, t.allowed)).collect(),
        })
    }

    fn place(site: &Site<'_>, pid: u32, cpus: &CpuSet) -> Result<bool, HostError> {
        match site.run("taskset", ["-pc", &cpus.to_string(), &pid.to_string()]) {
            Ok(_) => Ok(true),
            // The kernel's refusal, or the thread has ended.
            Err(HostError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let mut fixed = BTreeSet::new();
        for thread in self.movable(&site.look())? {
            if !Self::place(site, thread.pid, &self.cpus)? {
                fixed.insert(thread.pid);
            }
        }
        Ok(fixed::add(site, fixed::THREADS, &fixed)?)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let now = kernel_threads(site.machine.root()).map_err(unread("/proc"))?;
        let Before::Threads { boot, threads } = before else {
            return Ok(());
        };
        if *boot != boot_id(&site.look()) {
            // Ids of another boot mean other threads: those on just our CPUs may be on all again.
            let ours = |thread: &&KernelThread| !thread.bound && thread.allowed == self.cpus;
            for thread in now.iter().filter(ours) {
                Self::place(site, thread.pid, &self.cpus.union(&self.isolated))?;
            }
        } else {
            for (pid, name, allowed) in threads {
                let same = |thread: &&KernelThread| thread.pid == *pid && thread.name == *name;
                if now
                    .iter()
                    .find(same)
                    .is_some_and(|thread| thread.allowed != *allowed)
                {
                    Self::place(site, *pid, allowed)?;
                }
            }
        }
        Ok(fixed::forget(site, fixed::THREADS)?)
    }
}

/// How an attribute's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// As it is.
    Word,
    /// One of several, the one in force in brackets: `always [madvise] never`.
    Choice,
    /// A mask of CPUs: `00000000,00ffffff`.
    Mask,
}

/// Sets attributes of the kernel to one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttributes {
    /// What it is about: `the workqueues' CPUs`.
    pub about: String,
    /// Where. What the kernel does not have is left out.
    pub paths: Vec<String>,
    /// What.
    pub value: String,
    /// How they read.
    pub form: Form,
}

impl SetAttributes {
    pub fn describe(&self) -> String {
        format!("set {} to `{}`", self.about, self.value)
    }

    pub fn describe_undo(&self) -> String {
        format!("set {} back", self.about)
    }

    /// The value in force, in one spelling.
    fn value(&self, look: &Look<'_>, path: &str) -> Option<String> {
        let text = look.machine.root().attribute(path)?;
        Some(match self.form {
            Form::Word => text,
            Form::Choice => text
                .split_whitespace()
                .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?
                .to_owned(),
            Form::Mask => CpuSet::from_mask(&text)?.to_mask(),
        })
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let values = self.paths.iter().filter_map(|path| self.value(look, path));
        Ok(
            match values.into_iter().find(|value| *value != self.value) {
                None => Observation::Held,
                Some(value) => Observation::different(format!("{}: `{value}`", self.about)),
            },
        )
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let values = self.paths.iter();
        Ok(Before::Attributes {
            values: values
                .filter_map(|path| Some((path.clone(), self.value(look, path)?)))
                .collect(),
        })
    }

    fn put(&self, site: &Site<'_>, path: &str, value: &str) -> Result<(), HostError> {
        match self.value(&site.look(), path) {
            Some(now) if now != value => site.write(path, value),
            Some(_) | None => Ok(()),
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        for path in &self.paths {
            self.put(site, path, &self.value)?;
        }
        Ok(())
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        if let Before::Attributes { values } = before {
            for (path, value) in values {
                self.put(site, path, value)?;
            }
        }
        Ok(())
    }
}

/// Tells irqbalance which CPUs to leave alone; restarts it only where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TellIrqbalance {
    /// Its drop-in.
    pub path: String,
    /// What it says.
    pub content: String,
    /// `IRQBALANCE_BANNED_CPULIST`.
    pub banned: CpuSet,
}

impl TellIrqbalance {
    const UNIT: &str = "irqbalance.service";

    pub fn describe(&self) -> String {
        format!("have irqbalance leave CPUs {} alone", self.banned)
    }

    pub fn describe_undo(&self) -> String {
        "have irqbalance know of no slices' CPUs".into()
    }

    fn process(look: &Look<'_>) -> Option<String> {
        let group = format!("/sys/fs/cgroup/system.slice/{}", Self::UNIT);
        let pids = look
            .machine
            .root()
            .read_text(format!("{group}/cgroup.procs"));
        pids.ok()?.lines().next().map(str::to_owned)
    }

    /// What the one that runs was started with; `None` when none runs, or it does not tell.
    fn started_with(&self, look: &Look<'_>) -> Option<Option<String>> {
        let pid = Self::process(look)?;
        let bytes = look
            .machine
            .root()
            .read(format!("/proc/{pid}/environ"))
            .ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let list = text
            .split('\0')
            .find_map(|pair| pair.strip_prefix("IRQBALANCE_BANNED_CPULIST="));
        Some(list.map(str::to_owned))
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let seen = observe_file(look, &self.path, &self.content, 0o644)?;
        if seen != Observation::Held {
            return Ok(seen);
        }
        Ok(match self.started_with(look) {
            Some(Some(list)) if list.parse::<CpuSet>().as_ref() == Ok(&self.banned) => {
                Observation::Held
            }
            Some(Some(list)) => Observation::different(format!(
                "irqbalance was told to leave CPUs {list} alone (see /etc/default/irqbalance)"
            )),
            Some(None) => Observation::different("irqbalance was started before it was told"),
            None => Observation::Held,
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        file_before(look, &self.path)
    }

    fn restart(&self, site: &Site<'_>) -> Result<(), HostError> {
        if Self::process(&site.look()).is_some() {
            site.run("systemctl", ["daemon-reload"])?;
            site.run("systemctl", ["try-restart", Self::UNIT])?;
        }
        Ok(())
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.machine
            .install(Path::new(&self.path), self.content.as_bytes(), 0o644)?;
        Ok(self.restart(site)?)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        match before {
            Before::File { content: None, .. } => remove_drop_in(site, &self.path)?,
            before => restore_file(site.machine, &self.path, before)?,
        }
        Ok(self.restart(site)?)
    }
}
