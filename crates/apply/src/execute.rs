//! Carrying steps out and undoing them, through the journal.
//!
//! Deliberately stupid: for each step look, write the intent, act, look again, write the outcome.
//! What was found before is journalled for all steps at the beginning of a run, because a reboot in
//! its midst changes what is there (huge pages, above all).

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use bmslice_host::{HostError, Lock, Machine};
use bmslice_model::SliceName;

use crate::apply::Phase;
use crate::error::{ApplyError, StepError};
use crate::event::{Event, State};
use crate::journal::{Entry, Journal, Ledger, Record, Run};
use crate::paths::{LOCK, STATE};
use crate::site::{Licence, Look, Site};
use crate::step::{Observation, Step, When};
use crate::steps::boot::boot_id;
use crate::steps::trial::{self, FellBack, unconfirmed};

/// How carrying out steps ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// All hold.
    Done {
        /// How many were done now.
        changed: usize,
    },
    /// The next step is a reboot, which was not allowed.
    RebootNeeded {
        /// What the running kernel lacks.
        why: String,
    },
    /// The host is going down.
    Rebooting,
}

/// What is done where the next step is a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtReboot {
    /// It is taken.
    Take,
    /// It is left to the user, and whatever boots the host next tries the kernel arguments.
    Leave,
    /// Nothing: nobody asked for a reboot now.
    Stop,
}

/// The one writer of this host.
pub struct Executor<'a> {
    pub machine: &'a dyn Machine,
    pub journal: Journal<'a>,
    pub running: BTreeSet<String>,
    /// The guests that this run has started.
    pub started: Vec<SliceName>,
    pub licence: Licence,
    /// Whether kernel arguments that the server went back from are tried once more.
    pub try_again: bool,
    pub events: &'a mut dyn FnMut(Event),
    _lock: Box<dyn Lock>,
}

/// Takes the lock; says so when another has it.
fn lock(
    machine: &dyn Machine,
    patience: Duration,
    events: &mut dyn FnMut(Event),
) -> Result<(Box<dyn Lock>, bool), HostError> {
    machine.create_dir(STATE.as_ref(), 0o700)?;
    match machine.lock(LOCK.as_ref(), Duration::ZERO) {
        Err(HostError::Locked { holder }) if !patience.is_zero() => {
            events(Event::Waiting { holder });
            Ok((machine.lock(LOCK.as_ref(), patience)?, true))
        }
        answer => Ok((answer?, false)),
    }
}

/// The guests that run now. Before libvirt has started only what it has left in `/run` can be seen.
pub fn running(machine: &dyn Machine, phase: Phase) -> Result<BTreeSet<String>, HostError> {
    match phase {
        Phase::All => Ok(machine
            .hypervisor()?
            .domains()?
            .into_iter()
            .filter(|domain| domain.running)
            .map(|domain| domain.name)
            .collect()),
        Phase::Host => {
            let root = machine.root();
            let folder = "/run/libvirt/qemu";
            Ok(root
                .list(folder)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|file| {
                    let name = file.strip_suffix(".pid")?;
                    let process = root.attribute(format!("{folder}/{file}"))?;
                    root.exists(format!("/proc/{process}"))
                        .then(|| name.to_owned())
                })
                .collect())
        }
    }
}

impl<'a> Executor<'a> {
    /// Takes the lock and reads the journal. Also tells whether another process had the lock, so
    /// that what was seen before may have changed.
    ///
    /// # Errors
    /// [`HostError::Locked`], or that of the journal.
    pub fn start(
        machine: &'a dyn Machine,
        patience: Duration,
        events: &'a mut dyn FnMut(Event),
    ) -> Result<(Self, bool), ApplyError> {
        let (lock, waited) = lock(machine, patience, events)?;
        let journal = Journal::open(machine)?;
        let executor = Self {
            machine,
            journal,
            running: BTreeSet::new(),
            started: Vec::new(),
            licence: Licence::default(),
            try_again: false,
            events,
            _lock: lock,
        };
        Ok((executor, waited))
    }

    /// Gives the lock back; tells which guests were started.
    pub fn let_go(self) -> Vec<SliceName> {
        self.started
    }

    pub fn ledger(&self) -> &Ledger {
        self.journal.ledger()
    }

    pub fn look(&self) -> Look<'_> {
        Look {
            machine: self.machine,
            ledger: self.journal.ledger(),
            running: &self.running,
        }
    }

    pub fn site(&mut self) -> Site<'_> {
        Site {
            machine: self.machine,
            ledger: self.journal.ledger(),
            running: &self.running,
            licence: self.licence,
            events: self.events,
        }
    }

    /// Writes that a run begins.
    ///
    /// # Errors
    /// That of the journal.
    pub fn begin(&mut self, run: Run) -> Result<(), ApplyError> {
        let at = self
            .machine
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Ok(self.journal.write(vec![Record::Begin { run, at }])?)
    }

    /// Writes what is there now, of every step that does not hold.
    ///
    /// # Errors
    /// When it cannot be read, or not be written.
    pub fn record_before(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let mut records = Vec::new();
        let look = self.look();
        for step in steps {
            if step.observe(&look)? == Observation::Held {
                continue;
            }
            match look.ledger.get(&step.key()) {
                Some(entry) if entry.step == *step => {}
                Some(_) | None => records.push(Record::Before {
                    step: step.clone(),
                    before: step.before(&look)?,
                }),
            }
        }
        Ok(self.journal.write(records)?)
    }

    /// Does every step that does not hold, in order.
    ///
    /// # Errors
    /// The first step that fails; what was done before it stays done.
    pub fn carry_out(&mut self, steps: &[Step], at_reboot: AtReboot) -> Result<Stop, ApplyError> {
        let mut changed = 0;
        for (index, step) in steps.iter().enumerate() {
            let key = step.key();
            let tell = |events: &mut dyn FnMut(Event), state: State| {
                events(Event::Step {
                    number: index + 1,
                    of: steps.len(),
                    what: step.describe(),
                    state,
                });
            };
            let failed = |source: StepError| ApplyError::Step {
                step: step.describe(),
                source,
            };
            let boot = boot_id(&self.look());
            let seen = step
                .observe(&self.look())
                .map_err(|error| failed(error.into()))?;
            if seen == Observation::Held {
                self.note_held(step, &boot)?;
                tell(self.events, State::Held);
                continue;
            }
            if let (Step::Reboot(reboot), Observation::Different { got }) = (step, &seen) {
                if let Err(error) = self.look_back(&key, &boot, got) {
                    let error_text = error.to_string();
                    tell(self.events, State::Failed { error: error_text });
                    return Err(error);
                }
                if at_reboot == AtReboot::Stop {
                    return Ok(Stop::RebootNeeded { why: got.clone() });
                }
                self.journal.write(vec![Record::Intent {
                    key,
                    boot: boot.clone(),
                }])?;
                tell(self.events, State::Started);
                self.arm(steps, boot)?;
                if at_reboot == AtReboot::Leave {
                    return Ok(Stop::RebootNeeded { why: got.clone() });
                }
                reboot.act(&mut self.site()).map_err(failed)?;
                return Ok(Stop::Rebooting);
            }
            self.journal.write(vec![Record::Intent {
                key: key.clone(),
                boot,
            }])?;
            tell(self.events, State::Started);
            let done =
                step.act(&mut self.site())
                    .and_then(|()| match step.observe(&self.look())? {
                        Observation::Held => Ok(()),
                        Observation::NotHeld => Err(StepError::NotEffective {
                            got: "nothing of it is there".into(),
                        }),
                        Observation::Different { got } => Err(StepError::NotEffective { got }),
                    });
            if let Err(source) = done {
                let error = source.to_string();
                tell(
                    self.events,
                    State::Failed {
                        error: error.clone(),
                    },
                );
                if !source.is_gone()
                    && let Err(also) = self.journal.write(vec![Record::Failed { key, error }])
                {
                    (self.events)(Event::Note(format!("and that could not be noted: {also}")));
                }
                return Err(failed(source));
            }
            self.journal.write(vec![Record::Done { key }])?;
            tell(self.events, State::Done);
            if let Step::StartDomain(guest) = step {
                self.started.push(guest.slice.clone());
            }
            changed += 1;
        }
        Ok(Stop::Done { changed })
    }

    /// Why another reboot would be in vain: the one before it was.
    fn look_back(&mut self, key: &str, boot: &str, got: &str) -> Result<(), ApplyError> {
        if self.try_again {
            return Ok(());
        }
        if let Some(fell_back) = FellBack::seen(&self.look())? {
            return Err(ApplyError::FellBack {
                what: fell_back.describe(),
            });
        }
        let begun_in = self.ledger().get(key).and_then(|e| e.begun_in.clone());
        if begun_in.is_none_or(|begun_in| begun_in == boot) {
            return Ok(());
        }
        self.journal.write(vec![Record::Failed {
            key: key.to_owned(),
            error: got.to_owned(),
        }])?;
        Err(ApplyError::RebootWithoutEffect {
            missing: got.to_owned(),
        })
    }

    /// Puts the kernel arguments on trial in the next boot, unless they are confirmed.
    fn arm(&mut self, steps: &[Step], boot: String) -> Result<(), ApplyError> {
        for step in steps {
            let Step::ConfirmBoot(confirm) = step else {
                continue;
            };
            if confirm.observe(&self.look())? == Observation::Held {
                continue;
            }
            let intent = Record::Intent {
                key: step.key(),
                boot: boot.clone(),
            };
            self.journal.write(vec![intent])?;
            confirm
                .arm(&mut self.site())
                .map_err(|source| ApplyError::Step {
                    step: "put the kernel arguments on trial".into(),
                    source,
                })?;
        }
        Ok(())
    }

    /// What went wrong in a boot on trial is the reason why the next one goes back: it is noted, as
    /// far as it still can be.
    pub fn note_trial(&mut self, error: &str) {
        let known = |entry: &Entry| entry.failed.is_some();
        if unconfirmed(&self.look()).is_none() || self.ledger().get(trial::KEY).is_some_and(known) {
            return;
        }
        let record = Record::Failed {
            key: trial::KEY.into(),
            error: error.to_owned(),
        };
        if let Err(also) = self.journal.write(vec![record]) {
            (self.events)(Event::Note(format!("and that could not be noted: {also}")));
        }
    }

    /// A step that holds although this run found it missing: an interrupted run did it, or the
    /// boot brought it.
    fn note_held(&mut self, step: &Step, boot: &str) -> Result<(), ApplyError> {
        let key = step.key();
        let Some(entry) = self.ledger().get(&key) else {
            return Ok(());
        };
        let records = if entry.begun_in.is_some() {
            vec![Record::Done { key }]
        } else if !entry.touched && step.comes_with_boot() {
            let boot = boot.to_owned();
            vec![
                Record::Intent {
                    key: key.clone(),
                    boot,
                },
                Record::Done { key },
            ]
        } else {
            return Ok(());
        };
        Ok(self.journal.write(records)?)
    }

    /// Undoes what was done for these keys, the last first: the slices' before the host's, and
    /// nothing of the host's while something of a slice could not be undone.
    ///
    /// # Errors
    /// [`ApplyError::Undo`] with the first failure and the others beside it.
    pub fn undo(&mut self, keys: &BTreeSet<String>) -> Result<usize, ApplyError> {
        let mut due: Vec<_> = self
            .ledger()
            .entries()
            .filter(|entry| entry.touched && keys.contains(&entry.step.key()))
            .cloned()
            .collect();
        due.reverse();
        due.sort_by_key(|entry| entry.step.slice().is_none());
        self.ask_guests(due.iter().map(|entry| &entry.step));
        let mut errors: Vec<(String, StepError)> = Vec::new();
        let mut stuck: BTreeSet<String> = BTreeSet::new();
        let mut undone = 0;
        for entry in due {
            let key = entry.step.key();
            let blocked = match entry.step.slice() {
                Some(slice) => stuck.contains(slice.as_str()),
                None => !stuck.is_empty(),
            };
            let Some(what) = entry.step.describe_undo(self.licence) else {
                continue;
            };
            if blocked {
                continue;
            }
            (self.events)(Event::Undo {
                what: what.clone(),
                state: State::Started,
            });
            match entry.step.undo(&entry.before, &mut self.site()) {
                Ok(()) => {
                    self.journal.write(vec![Record::Undone { key }])?;
                    (self.events)(Event::Undo {
                        what,
                        state: State::Done,
                    });
                    undone += 1;
                }
                Err(error) => {
                    (self.events)(Event::Undo {
                        what: what.clone(),
                        state: State::Failed {
                            error: error.to_string(),
                        },
                    });
                    let gone = error.is_gone();
                    if let Some(slice) = entry.step.slice() {
                        stuck.insert(slice.as_str().to_owned());
                    }
                    errors.push((what, error));
                    if gone {
                        break;
                    }
                }
            }
        }
        let mut errors = errors.into_iter();
        match errors.next() {
            None => Ok(undone),
            Some((step, source)) => Err(ApplyError::Undo {
                step,
                source,
                also: errors
                    .map(|(step, error)| format!("{step}: {error}"))
                    .collect(),
            }),
        }
    }

    /// Asks every guest that goes to shut down, so that they do it side by side.
    fn ask_guests<'s>(&mut self, steps: impl Iterator<Item = &'s Step>) {
        let mut guests = Vec::new();
        for step in steps {
            if let Step::StartDomain(guest) = step {
                guests.push(guest.clone());
            }
        }
        for guest in guests {
            if let Err(error) = guest.ask(&mut self.site()) {
                // Undoing it asks again, and then it counts.
                (self.events)(Event::Note(error.to_string()));
            }
        }
    }
}

/// The steps that are due in a phase of a boot.
pub fn due(steps: &[Step], from: When, to: When) -> Vec<Step> {
    steps
        .iter()
        .filter(|step| (from..=to).contains(&step.when()))
        .cloned()
        .collect()
}
