//! From a plan to a sliced server, and back to it after a boot or a crash.

use std::collections::BTreeSet;
use std::time::Duration;

use bmslice_host::{Command, Machine};
use bmslice_inventory::LiveInventory;
use bmslice_plan::Plan;

use crate::error::{ApplyError, FELL_BACK_HINT, Problem};
use crate::event::{Event, State};
use crate::execute::{AtReboot, Executor, Stop, due, running};
use crate::journal::{self, Ledger, Run};
use crate::libvirt_guests;
use crate::paths::{JOURNAL, PLAN, PLAN_BEFORE};
use crate::preflight::{preflight, succession};
use crate::release::{self, ReleaseOptions};
use crate::sequence::{remember, steps};
use crate::silent::Silent;
use crate::site::{Licence, Look};
use crate::step::{Observation, Step, When};
use crate::steps::trial::{FellBack, is_on_trial, plan_to_go_back_to, unconfirmed};
use crate::up::{self, NotUp};

/// How long another `bmslice` may be at work before we give up: an image takes minutes to copy.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long a deadline waits for it.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// How a plan is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Only tell what would be done. Needs neither root nor the lock, and changes nothing.
    pub dry_run: bool,
    /// Whether the host may be rebooted when the kernel arguments need it.
    pub allow_reboot: bool,
    /// The absolute path of this program, for the units that call it after a boot.
    pub binary: String,
    /// Whether kernel arguments that the server went back from are tried once more.
    pub try_again: bool,
    /// How long another `bmslice` may hold the lock.
    pub patience: Duration,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            allow_reboot: false,
            binary: "/usr/local/bin/bmslice".into(),
            try_again: false,
            patience: PATIENCE,
        }
    }
}

/// How it ended, when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything held already.
    Nothing,
    /// Everything holds now.
    Done {
        /// How many steps were done.
        changed: usize,
    },
    /// Every step holds, and not every guest that runs came up. Nothing was stopped.
    NotUp {
        /// How many steps were done.
        changed: usize,
        /// Which guests, at least one.
        guests: Vec<NotUp>,
    },
    /// The host must be rebooted; the rest follows by itself after that (a unit resumes it), or by
    /// applying again.
    RebootNeeded {
        /// What the running kernel lacks.
        why: String,
    },
    /// The host is going down; a unit resumes after the boot.
    Rebooting,
    /// A dry run: nothing was done.
    Planned {
        /// What would be done, in order.
        steps: Vec<String>,
    },
}

/// What a unit brings back after a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Huge pages and VFs, before libvirt starts. Never asks libvirt.
    Host,
    /// All of it.
    All,
}

/// Makes a plan so. Whatever an earlier, interrupted run left is found and gone on from.
///
/// # Errors
/// [`ApplyError::Refused`] before any effect; else what failed, with everything before it
/// journalled.
pub fn apply(
    machine: &dyn Machine,
    inventory: &LiveInventory,
    plan: &Plan,
    options: &ApplyOptions,
    events: &mut dyn FnMut(Event),
) -> Result<Outcome, ApplyError> {
    let mut steps = steps(plan, &options.binary, inventory)?;
    let ledger = journal::peek(machine)?;
    remember(&mut steps, &ledger);
    check(machine, &ledger, inventory, plan, &steps, options, events)?;
    if options.dry_run {
        return dry_run(machine, &ledger, &steps, events);
    }
    let (mut executor, waited) = Executor::start(machine, options.patience, events)?;
    if waited {
        let ledger = executor.ledger().clone();
        remember(&mut steps, &ledger);
        check(
            machine,
            &ledger,
            inventory,
            plan,
            &steps,
            options,
            executor.events,
        )?;
    }
    executor.running = running(machine, Phase::All)?;
    executor.try_again = options.try_again;
    let open = executor.ledger().open().cloned();
    if let Some(run) = &open {
        (executor.events)(Event::Resuming {
            what: run.describe(),
        });
    }
    let stale = stale(executor.ledger(), &steps);
    if open.is_none() && stale.is_empty() && all_hold(&executor.look(), &steps)? {
        for (index, step) in steps.iter().enumerate() {
            (executor.events)(Event::Step {
                number: index + 1,
                of: steps.len(),
                what: step.describe(),
                state: State::Held,
            });
        }
        drop(executor);
        return up::seen(machine, Outcome::Nothing, &[], events);
    }
    executor.begin(Run::Apply {
        plan: plan.digest(),
    })?;
    executor.record_before(&steps)?;
    say_what_stays(&mut executor, &steps);
    let undone = executor.undo(&stale)?;
    let at_reboot = if options.allow_reboot {
        AtReboot::Take
    } else {
        AtReboot::Leave
    };
    match executor.carry_out(&steps, at_reboot)? {
        Stop::Done { changed } => {
            executor.journal.close()?;
            let outcome = match changed + undone {
                0 => Outcome::Nothing,
                changed => Outcome::Done { changed },
            };
            let started = executor.let_go();
            up::seen(machine, outcome, &started, events)
        }
        Stop::RebootNeeded { why } => Ok(Outcome::RebootNeeded { why }),
        Stop::Rebooting => Ok(Outcome::Rebooting),
    }
}

fn check(
    machine: &dyn Machine,
    ledger: &Ledger,
    inventory: &LiveInventory,
    plan: &Plan,
    steps: &[Step],
    options: &ApplyOptions,
    events: &mut dyn FnMut(Event),
) -> Result<(), ApplyError> {
    // A libvirt that is away is one of the problems, said with the others.
    let running = running(machine, Phase::All).unwrap_or_default();
    let look = Look {
        machine,
        ledger,
        running: &running,
    };
    let mut problems = preflight(&look, inventory, plan, steps, Phase::All)?;
    problems.extend(succession(&look, plan, steps));
    problems.extend(went_back(&look, steps)?.filter(|_| !options.try_again));
    if options.dry_run && !machine.is_root() {
        // It changes nothing; but it may not see everything either.
        problems.remove(0);
        events(Event::Note(
            "not root: what only root can see is not looked at".into(),
        ));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Refused { problems })
    }
}

/// The server tried these very kernel arguments, and went back.
fn went_back(look: &Look<'_>, steps: &[Step]) -> Result<Option<Problem>, ApplyError> {
    let Some(fell_back) = FellBack::seen(look)? else {
        return Ok(None);
    };
    let wanted =
        |step: &Step| matches!(step, Step::ConfirmBoot(step) if step.args == fell_back.args);
    Ok(steps
        .iter()
        .any(wanted)
        .then(|| Problem::new(fell_back.describe()).hint(FELL_BACK_HINT)))
}

fn all_hold(look: &Look<'_>, steps: &[Step]) -> Result<bool, ApplyError> {
    for step in steps {
        if step.observe(look)? != Observation::Held {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is in force for the host or on its NICs, and no longer in the plan. Disks stay: they are
/// somebody's data.
fn stale(ledger: &Ledger, steps: &[Step]) -> BTreeSet<String> {
    let wanted: BTreeSet<String> = steps.iter().map(Step::key).collect();
    let is_hosts = |step: &Step| step.slice().is_none() || matches!(step, Step::ConfigureVf(_));
    ledger
        .entries()
        .filter(|entry| entry.touched && is_hosts(&entry.step))
        .map(|entry| entry.step.key())
        .filter(|key| !wanted.contains(key))
        .collect()
}

/// A disk is never overwritten; that a plan now wants it otherwise must be said.
fn say_what_stays(executor: &mut Executor<'_>, steps: &[Step]) {
    let mut notes = Vec::new();
    for step in steps {
        if let Step::BuildDisk(disk) = step {
            notes.extend(disk.what_stays(&executor.look()));
        }
    }
    for note in notes {
        (executor.events)(Event::Note(note));
    }
}

fn dry_run(
    machine: &dyn Machine,
    ledger: &Ledger,
    steps: &[Step],
    events: &mut dyn FnMut(Event),
) -> Result<Outcome, ApplyError> {
    let running = running(machine, Phase::All)?;
    let look = Look {
        machine,
        ledger,
        running: &running,
    };
    let mut planned = Vec::new();
    let stale = stale(ledger, steps);
    for entry in ledger.entries().rev() {
        if stale.contains(&entry.step.key())
            && let Some(what) = entry.step.describe_undo(Licence::default())
        {
            planned.push(what.clone());
            let found = "no longer in the plan".into();
            events(Event::Undo {
                what,
                state: State::Planned { found },
            });
        }
    }
    for (index, step) in steps.iter().enumerate() {
        let state = match step.observe(&look)? {
            Observation::Held => State::Held,
            Observation::NotHeld => State::Planned {
                found: String::new(),
            },
            Observation::Different { got } => State::Planned { found: got },
        };
        if state != State::Held {
            planned.push(step.describe());
        }
        events(Event::Step {
            number: index + 1,
            of: steps.len(),
            what: step.describe(),
            state,
        });
    }
    Ok(Outcome::Planned { steps: planned })
}

/// The plan that is in force on this server.
pub(crate) fn stored_plan(machine: &dyn Machine) -> Result<Option<Plan>, ApplyError> {
    let text = match machine.root().read_text(PLAN) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ApplyError::Host(bmslice_host::HostError::File {
                action: "read",
                path: PLAN.into(),
                source,
            }));
        }
    };
    Plan::parse(&text)
        .map(Some)
        .map_err(|source| ApplyError::StoredPlan { path: PLAN, source })
}

/// Goes on with what was interrupted, or brings back what a boot took away. Called by our units
/// after each boot, and by whoever wants to finish an interrupted run. Never reboots.
///
/// # Errors
/// As [`apply`].
pub fn resume(
    machine: &dyn Machine,
    phase: Phase,
    binary: &str,
    events: &mut dyn FnMut(Event),
) -> Result<Outcome, ApplyError> {
    let silent = Silent(machine);
    let machine: &dyn Machine = match phase {
        Phase::Host => &silent,
        Phase::All => machine,
    };
    if !machine.is_root() {
        return Err(ApplyError::Refused {
            problems: vec![
                Problem::new("this process is not root, and may not change the server")
                    .hint("run it with `sudo`"),
            ],
        });
    }
    if phase == Phase::Host {
        // Before anything that may fail: what cannot be brought back must not be started either.
        libvirt_guests::keep_out(machine, events);
    }
    let (mut executor, _) = Executor::start(machine, PATIENCE, events)?;
    let outcome = bring_back(&mut executor, phase, binary);
    if let Err(error) = &outcome {
        executor.note_trial(&error.to_string());
    }
    let started = executor.let_go();
    match phase {
        Phase::Host => outcome,
        Phase::All => up::seen(machine, outcome?, &started, events),
    }
}

fn bring_back(
    executor: &mut Executor<'_>,
    phase: Phase,
    binary: &str,
) -> Result<Outcome, ApplyError> {
    let machine = executor.machine;
    let open = executor.ledger().open().cloned();
    if let Some(run) = &open {
        (executor.events)(Event::Resuming {
            what: run.describe(),
        });
    }
    match (&open, phase) {
        (
            Some(Run::Release {
                slices,
                delete_images,
            }),
            Phase::All,
        ) => {
            executor.licence = Licence {
                patience: ReleaseOptions::default().guest_patience,
                force: false,
                delete_images: *delete_images,
            };
            let changed = release::go_on(executor, slices.as_deref())?;
            return Ok(Outcome::Done { changed });
        }
        // What is being given back is not brought back.
        (Some(Run::Release { .. }), Phase::Host) => return Ok(Outcome::Nothing),
        (Some(Run::Apply { .. } | Run::Resume { .. }) | None, _) => {}
    }
    let fell_back = FellBack::seen(&executor.look())?;
    let went_back = fell_back.as_ref().map(FellBack::describe);
    // What was booted is what is brought back: after going back, the plan before.
    let before = match &fell_back {
        Some(to) if to.to_ours => plan_to_go_back_to(&executor.look(), PLAN_BEFORE)?
            .and_then(|text| Plan::parse(&text).ok()),
        Some(_) | None => None,
    };
    if let Some(what) = &went_back {
        let to_ours = fell_back.is_some_and(|fell_back| fell_back.to_ours);
        match phase {
            Phase::All if before.is_none() => {
                return Err(ApplyError::FellBack { what: what.clone() });
            }
            // The server is to be as it was before the first apply.
            Phase::Host if !to_ours => return Ok(Outcome::Nothing),
            Phase::All | Phase::Host => {}
        }
    }
    if let Some(step) = unconfirmed(&executor.look()).cloned() {
        step.strike(&executor.site())?;
    }
    let Some(plan) = before.map_or_else(|| stored_plan(machine), |plan| Ok(Some(plan)))? else {
        if open.is_some() {
            // It was interrupted before anything but the journal was written.
            executor.journal.close()?;
        }
        return Ok(Outcome::Nothing);
    };
    let inventory = LiveInventory::read(machine, None)
        .map_err(|error| ApplyError::Inventory(error.to_string()))?;
    executor.running = running(machine, phase)?;
    let mut all = steps(&plan, binary, &inventory)?;
    remember(&mut all, executor.ledger());
    let applying = matches!(open, Some(Run::Apply { .. }));
    let steps = match phase {
        Phase::Host => due(&all, When::Booted, When::Booted),
        Phase::All if applying && went_back.is_none() => all,
        // A disk that is missing now may be on a file system that is not mounted: only `apply`,
        // which somebody asks for, makes new ones.
        Phase::All => at_boot(&plan, due(&all, When::Booted, When::Sliced)),
    };
    let mut problems = preflight(&executor.look(), &inventory, &plan, &steps, phase)?;
    if phase == Phase::All && went_back.is_none() {
        problems.extend(succession(&executor.look(), &plan, &steps));
    }
    if !problems.is_empty() {
        return Err(ApplyError::Refused { problems });
    }
    let ended = |outcome| match &went_back {
        Some(what) if phase == Phase::All => Err(ApplyError::FellBack { what: what.clone() }),
        Some(_) | None => Ok(outcome),
    };
    if open.is_none() {
        if all_hold(&executor.look(), &steps)? {
            return ended(Outcome::Nothing);
        }
        executor.begin(Run::Resume {
            plan: plan.digest(),
        })?;
    }
    executor.record_before(&steps)?;
    match executor.carry_out(&steps, AtReboot::Stop)? {
        Stop::Done { changed } => {
            // Of an interrupted apply neither the host's part is the whole, nor the plan before.
            if !applying || (phase == Phase::All && went_back.is_none()) {
                executor.journal.close()?;
            }
            ended(match changed {
                0 => Outcome::Nothing,
                changed => Outcome::Done { changed },
            })
        }
        Stop::RebootNeeded { why } => Ok(Outcome::RebootNeeded { why }),
        Stop::Rebooting => Ok(Outcome::Rebooting),
    }
}

/// Reboots a server that tries new kernel arguments and was not confirmed in time, so that it goes
/// back to those before. Called by a unit, minutes after the boot. `false` when there is nothing to
/// go back from.
///
/// # Errors
/// When the journal cannot be read or the reboot is refused; the unit then reboots by itself.
pub fn fall_back(machine: &dyn Machine, events: &mut dyn FnMut(Event)) -> Result<bool, ApplyError> {
    let silent = Silent(machine);
    let ledger = journal::peek(&silent)?;
    let running = BTreeSet::new();
    let look = Look {
        machine: &silent,
        ledger: &ledger,
        running: &running,
    };
    let why = match unconfirmed(&look) {
        Some(step) => {
            let mut why = format!("it was not confirmed within {} minutes", step.minutes);
            for missing in step.unmanaged(&look) {
                why.push_str(&format!("; {missing}"));
            }
            why
        }
        None if !is_on_trial(&look) || machine.root().exists(JOURNAL) => return Ok(false),
        // `/var` did not come up.
        None => format!("`{JOURNAL}` is not there"),
    };
    // Somebody may be stuck with the lock: the reason is worth a moment, the reboot is not put off.
    match Executor::start(&silent, LAST_PATIENCE, events) {
        Ok((mut executor, _)) => {
            executor.note_trial(&why);
            let step = unconfirmed(&executor.look()).cloned();
            if let Some(Err(error)) = step.map(|step| step.strike(&executor.site())) {
                (executor.events)(Event::Note(error.to_string()));
            }
            (executor.events)(Event::Note(why));
        }
        Err(error) => events(Event::Note(format!("{why}; {error}"))),
    }
    machine.run(&Command::new("systemctl", ["reboot"]))?;
    Ok(true)
}

/// After an ordinary boot only the guests that start with the host are started.
fn at_boot(plan: &Plan, steps: Vec<Step>) -> Vec<Step> {
    let stays_off = |step: &Step| {
        if let Step::StartDomain(guest) = step {
            plan.slice(guest.slice.as_str())
                .is_some_and(|slice| !slice.autostart)
        } else {
            false
        }
    };
    steps.into_iter().filter(|step| !stays_off(step)).collect()
}
