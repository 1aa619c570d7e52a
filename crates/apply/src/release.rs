//! Gives slices, or the whole server, back as it was before the first apply.

use std::collections::BTreeSet;
use std::time::Duration;

use bmslice_host::Machine;
use bmslice_model::{CpuSet, KernelArg, SliceName};
use bmslice_plan::{Plan, PlanParts};

use crate::apply::stored_plan;
use crate::error::{ApplyError, Problem};
use crate::event::Event;
use crate::execute::{AtReboot, Executor};
use crate::journal::{self, Record, Run};
use crate::paths::{JOURNAL, PLAN};
use crate::sequence::page_steps;
use crate::site::{Licence, Site};
use crate::step::{Before, Step};
use crate::steps::boot::running_args;
use crate::steps::files::StorePlan;

/// What is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Everything.
    All,
    /// These slices; the host stays prepared for the others.
    Slices(Vec<SliceName>),
}

/// How it is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseOptions {
    /// Whether the disks and seeds that we made are deleted.
    pub delete_images: bool,
    /// How long a guest may take to shut down.
    pub guest_patience: Duration,
    /// Whether a guest that did not is ended as by pulling its plug.
    pub force: bool,
    /// How long another `bmslice` may hold the lock.
    pub patience: Duration,
}

impl Default for ReleaseOptions {
    fn default() -> Self {
        Self {
            delete_images: false,
            guest_patience: Duration::from_secs(120),
            force: false,
            patience: Duration::from_secs(900),
        }
    }
}

/// What was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// How many things were undone.
    pub undone: usize,
    /// Disks and seeds that stay, by path.
    pub kept: Vec<String>,
    /// Kernel arguments of ours that the running kernel keeps until the next reboot.
    pub until_reboot: Vec<KernelArg>,
}

/// Gives slices, or the whole server, back: guests are shut down gracefully, then everything is
/// undone in reverse order.
///
/// # Errors
/// [`ApplyError::Refused`] for a slice that is not here; [`ApplyError::Undo`] for what could not be
/// put back, which stays journalled. A guest that does not shut down in time is such a failure
/// unless `force` is set.
pub fn release(
    machine: &dyn Machine,
    which: &Which,
    options: &ReleaseOptions,
    events: &mut dyn FnMut(Event),
) -> Result<Released, ApplyError> {
    let refused = |problem| ApplyError::Refused {
        problems: vec![problem],
    };
    if !machine.is_root() {
        return Err(refused(
            Problem::new("this process is not root, and may not change the server")
                .hint("run it with `sudo`"),
        ));
    }
    let slices = match which {
        Which::All => None,
        Which::Slices(names) => Some(names.clone()),
    };
    let ledger = journal::peek(machine)?;
    if !machine.root().exists(JOURNAL) {
        if machine.root().exists(PLAN) {
            return Err(refused(
                Problem::new(format!(
                    "`{PLAN}` is here, and the journal is not: what was on this server before is not known"
                ))
                .hint("undo by hand what the plan names, then remove `/var/lib/bmslice`"),
            ));
        }
        if slices.is_none() {
            return Ok(Released {
                undone: 0,
                kept: Vec::new(),
                until_reboot: Vec::new(),
            });
        }
    }
    for name in slices.iter().flatten() {
        let here = ledger
            .entries()
            .any(|entry| entry.touched && entry.step.slice() == Some(name));
        if !here {
            return Err(refused(
                Problem::new(format!("the slice `{name}` is not on this server"))
                    .hint("see `bmslice status`"),
            ));
        }
    }
    let (mut executor, _) = Executor::start(machine, options.patience, events)?;
    executor.licence = Licence {
        patience: options.guest_patience,
        force: options.force,
        delete_images: options.delete_images,
    };
    let mut kept = Vec::new();
    let mut args = Vec::new();
    for entry in executor.ledger().entries().filter(|entry| entry.touched) {
        let goes = match (&slices, entry.step.slice()) {
            (None, _) => true,
            (Some(names), Some(slice)) => names.contains(slice),
            (Some(_), None) => false,
        };
        if !goes {
            continue;
        }
        if let Step::BuildDisk(disk) = &entry.step {
            kept.push(disk.path.clone());
        } else if let Step::BuildSeed(seed) = &entry.step {
            kept.push(seed.path.clone());
        } else if let Step::BootArguments(boot) = &entry.step {
            args.clone_from(&boot.args);
        }
    }
    executor.begin(Run::Release {
        slices: slices.clone(),
        delete_images: options.delete_images,
    })?;
    let undone = go_on(&mut executor, slices.as_deref())?;
    let running = running_args(&executor.look());
    args.retain(|arg| running.contains(arg));
    kept.retain(|path| machine.root().exists(path));
    Ok(Released {
        undone,
        kept,
        until_reboot: args,
    })
}

/// Undoes what is due, and ends the run. Also called to finish one that was interrupted.
pub(crate) fn go_on(
    executor: &mut Executor<'_>,
    slices: Option<&[SliceName]>,
) -> Result<usize, ApplyError> {
    let keys: BTreeSet<String> = executor
        .ledger()
        .entries()
        .filter(|entry| match (slices, entry.step.slice()) {
            (None, _) => true,
            (Some(names), Some(slice)) => names.contains(slice),
            (Some(_), None) => false,
        })
        .map(|entry| entry.step.key())
        .collect();
    // Read before anything is undone: one that cannot be read must not surprise half-way.
    let plan = match slices {
        Some(_) => stored_plan(executor.machine)?,
        None => None,
    };
    let undone = executor.undo(&keys)?;
    if let (Some(names), Some(plan)) = (slices, plan) {
        shrink(executor, plan, names)?;
    }
    executor.journal.close()?;
    Ok(undone)
}

/// Siblings that odd vCPUs of these slices ran on are idle again, for the sake of who stays beside.
fn give_siblings_back(parts: &mut PlanParts, names: &[SliceName]) {
    let leave = parts.slices.iter().filter(|s| names.contains(&s.name));
    let leave = leave.fold(CpuSet::new(), |all, slice| all.union(&slice.vcpu_cpus()));
    for slice in parts.slices.iter_mut().filter(|s| !names.contains(&s.name)) {
        let back = slice.shared_siblings.intersection(&leave);
        slice.shared_siblings = slice.shared_siblings.difference(&back);
        slice.idle.extend_from(&back);
    }
}

/// The stored plan without these slices, and the huge pages that only they needed given back.
fn shrink(executor: &mut Executor<'_>, plan: Plan, names: &[SliceName]) -> Result<(), ApplyError> {
    let mut parts = plan.into_parts();
    give_siblings_back(&mut parts, names);
    // A pool of the tenant stays with those that still use it.
    let stays = parts.slices.iter().filter(|s| !names.contains(&s.name));
    let stays = stays.fold(CpuSet::new(), |all, slice| all.union(&slice.held()));
    for slice in parts.slices.iter().filter(|s| names.contains(&s.name)) {
        parts
            .host
            .free
            .extend_from(&slice.held().difference(&stays));
        for pool in &mut parts.host.huge_pages {
            let pages = slice.pages_on(pool.node, pool.size);
            pool.count = pool.count.saturating_sub(pages);
        }
    }
    parts.slices.retain(|slice| !names.contains(&slice.name));
    let plan = Plan::new(parts).map_err(|source| ApplyError::StoredPlan { path: PLAN, source })?;
    let failed = |step: &Step, source| ApplyError::Step {
        step: step.describe(),
        source,
    };
    for step in page_steps(&plan) {
        let Some(entry) = executor.ledger().done(&step.key()).cloned() else {
            continue;
        };
        executor.journal.write(vec![Record::Before {
            step: step.clone(),
            before: entry.before.clone(),
        }])?;
        if let (Step::AllocateHugePages(pages), Before::HugePages { total }) = (&step, entry.before)
        {
            let mut site = Site {
                machine: executor.machine,
                ledger: executor.journal.ledger(),
                running: &executor.running,
                licence: executor.licence,
                events: executor.events,
            };
            pages
                .give_back(total, &mut site)
                .map_err(|error| failed(&step, error))?;
        }
    }
    let step = Step::StorePlan(StorePlan {
        plan: plan.to_json(),
    });
    executor.carry_out(&[step], AtReboot::Stop)?;
    Ok(())
}
