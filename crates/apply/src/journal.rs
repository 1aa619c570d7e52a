//! The write-ahead journal: what is being done, what was done, and what was there before.
//!
//! One file of lines, each a JSON object with version, sequence number and checksum, appended and
//! synced before the effect that it announces. Two readings of it: an *open* run (it was
//! interrupted, or waits for a reboot), and the [`Ledger`] of everything that is in force on this
//! server with the state before the **first** apply. When a run ends well the file is replaced, in
//! one atomic write, by the ledger alone; after everything was released it is removed. There is no
//! second file that could disagree with it.
//!
//! A torn last line is what a power cut leaves of an append, and is cut off: what it announced was
//! not begun. Damage elsewhere, or a newer version, is an error, for then nobody knows what was
//! there before.

use std::path::Path;

use bmslice_host::{HostError, Machine};
use bmslice_model::SliceName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::paths::JOURNAL;
use crate::step::{Before, Step};

/// The version of the lines. Those of version 1 knew no boot loader but GRUB, and are still read.
const VERSION: u32 = 2;

/// Why the journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A line in the middle is not what was written.
    #[error("line {line} of the journal `{path}` is damaged: {why}")]
    Damaged {
        /// Where.
        path: &'static str,
        /// Which, from 1.
        line: usize,
        /// How it shows.
        why: String,
    },
    /// A later `bmslice` wrote it.
    #[error("the journal `{path}` has version {found}; this bmslice reads {VERSION}")]
    Newer {
        /// Where.
        path: &'static str,
        /// Its version.
        found: u32,
    },
    /// It could not be read or written.
    #[error("{0}")]
    Host(#[from] HostError),
}

impl JournalError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => {
                "keep a copy of it: it holds what was on this server before; each good line can be read, so put back by hand what they name, then move the journal away and apply again"
            }
            Self::Newer { .. } => "use the bmslice that wrote it, or a later one",
            Self::Host(_) => {
                "see that `/var/lib/bmslice` can be written, and that its disk has space"
            }
        }
    }
}

/// A run, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Run {
    /// A plan is made so.
    Apply {
        /// Its digest.
        plan: String,
    },
    /// What a boot took away is made again.
    #[serde(rename_all = "camelCase")]
    Resume {
        /// The stored plan's digest.
        plan: String,
    },
    /// Slices are given back.
    #[serde(rename_all = "camelCase")]
    Release {
        /// Which; `None` is everything.
        slices: Option<Vec<SliceName>>,
        /// Whether disks and seeds go too.
        delete_images: bool,
    },
}

impl Run {
    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Apply { plan } => format!("applying the plan {}", short(plan)),
            Self::Resume { plan } => format!("bringing back the plan {}", short(plan)),
            Self::Release { slices: None, .. } => "releasing the server".into(),
            Self::Release {
                slices: Some(names),
                ..
            } => {
                let names: Vec<&str> = names.iter().map(SliceName::as_str).collect();
                format!("releasing {}", names.join(", "))
            }
        }
    }
}

fn short(digest: &str) -> &str {
    digest
        .strip_prefix("sha256:")
        .and_then(|hex| hex.get(..12))
        .unwrap_or(digest)
}

/// What one line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase")]
pub(crate) enum Record {
    /// A run begins, at so many seconds after 1970.
    Begin { run: Run, at: u64 },
    /// What a step would do, and what is there before any step of this run was done.
    Before { step: Step, before: Before },
    /// A step is about to be done, in this boot of the host.
    Intent { key: String, boot: String },
    /// It was done.
    Done { key: String },
    /// It failed.
    Failed { key: String, error: String },
    /// It was put back.
    Undone { key: String },
    /// In force since an earlier run, and what was there before that.
    Kept { step: Step, before: Before },
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    v: u32,
    n: u64,
    sum: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Head {
    v: u32,
}

fn sum(v: u32, n: u64, body: &str) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(format!("{v} {n} {body}").as_bytes());
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn line(n: u64, record: &Record) -> Result<String, JournalError> {
    let unwritable = |error: serde_json::Error| HostError::File {
        action: "write",
        path: JOURNAL.into(),
        source: error.into(),
    };
    let body = serde_json::value::to_raw_value(record).map_err(unwritable)?;
    let line = Line {
        v: VERSION,
        n,
        sum: sum(VERSION, n, body.get()),
        body: &body,
    };
    let mut text = serde_json::to_string(&line).map_err(unwritable)?;
    text.push('\n');
    Ok(text)
}

fn read_line(text: &str, n: u64) -> Result<Record, String> {
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if line.sum != sum(line.v, line.n, line.body.get()) {
        return Err("its checksum does not match".into());
    }
    if line.n != n {
        return Err(format!("it is number {}, where {n} is due", line.n));
    }
    serde_json::from_str(line.body.get()).map_err(|error| error.to_string())
}

/// Something that is, or may be, in force on this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was done last.
    pub step: Step,
    /// What was there before it was done first.
    pub before: Before,
    /// Whether it was ever begun. What was only looked at is never undone.
    pub touched: bool,
    /// In which boot it was begun, while that run is open and the step neither done nor failed.
    pub(crate) begun_in: Option<String>,
    /// Why it failed last, while that run is open and it was neither begun again nor done.
    pub(crate) failed: Option<String>,
}

/// What was done to this server, in the order in which it was done first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: Vec<Entry>,
    open: Option<Run>,
}

impl Ledger {
    /// The run that did not end.
    #[must_use]
    pub fn open(&self) -> Option<&Run> {
        self.open.as_ref()
    }

    /// What is, or may be, in force.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.step.key() == key)
    }

    /// What was done for this key; `None` when it was never begun.
    pub(crate) fn done(&self, key: &str) -> Option<&Entry> {
        self.get(key).filter(|entry| entry.touched)
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.step.key() == key)
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Begin { run, .. } => self.open = Some(run),
            Record::Before { step, before } => match self.get_mut(&step.key()) {
                // The first state is the one to go back to, also across the reboot of an open run.
                Some(entry) => {
                    // Other kernel arguments are another reboot and another trial.
                    let is_of_a_boot = matches!(step, Step::Reboot(_) | Step::ConfirmBoot(_));
                    if is_of_a_boot && entry.step != step {
                        entry.begun_in = None;
                        entry.failed = None;
                    }
                    entry.step = step;
                }
                None => self.entries.push(Entry {
                    step,
                    before,
                    touched: false,
                    begun_in: None,
                    failed: None,
                }),
            },
            Record::Kept { step, before } => self.entries.push(Entry {
                step,
                before,
                touched: true,
                begun_in: None,
                failed: None,
            }),
            Record::Intent { key, boot } => {
                if let Some(entry) = self.get_mut(&key) {
                    entry.touched = true;
                    entry.begun_in = Some(boot);
                    entry.failed = None;
                }
            }
            Record::Done { key } => {
                if let Some(entry) = self.get_mut(&key) {
                    entry.begun_in = None;
                    entry.failed = None;
                }
            }
            Record::Failed { key, error } => {
                if let Some(entry) = self.get_mut(&key) {
                    // A trial that failed is one that the next boot goes back from: what it was
                    // begun in tells the two apart.
                    if !matches!(entry.step, Step::ConfirmBoot(_)) {
                        entry.begun_in = None;
                    }
                    entry.failed = Some(error);
                }
            }
            Record::Undone { key } => self.entries.retain(|entry| entry.step.key() != key),
        }
    }
}

/// The journal of one machine. Written only while the lock is held.
pub(crate) struct Journal<'m> {
    machine: &'m dyn Machine,
    ledger: Ledger,
    next: u64,
}

/// Reads the journal and says whether its last line is torn.
fn read(machine: &dyn Machine) -> Result<(Vec<Record>, bool), JournalError> {
    let bytes = match machine.root().read(JOURNAL) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Vec::new(), false));
        }
        Err(source) => {
            return Err(JournalError::Host(HostError::File {
                action: "read",
                path: JOURNAL.into(),
                source,
            }));
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.split('\n').collect();
    // What follows the last line feed is nothing, or the beginning of a line.
    let mut torn = lines.pop().is_some_and(|rest| !rest.is_empty());
    let mut records = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        let damaged = |why: String| JournalError::Damaged {
            path: JOURNAL,
            line: index + 1,
            why,
        };
        match serde_json::from_str::<Head>(text) {
            Ok(Head { v }) if v > VERSION => {
                return Err(JournalError::Newer {
                    path: JOURNAL,
                    found: v,
                });
            }
            Ok(_) | Err(_) => {}
        }
        match read_line(text, index as u64 + 1) {
            Ok(record) => records.push(record),
            Err(_) if index + 1 == lines.len() && !torn => torn = true,
            Err(why) => return Err(damaged(why)),
        }
    }
    Ok((records, torn))
}

fn fold(records: Vec<Record>) -> Ledger {
    let mut ledger = Ledger::default();
    for record in records {
        ledger.take(record);
    }
    ledger
}

/// What the journal says, without cutting off a torn line: for `status` and dry runs.
///
/// # Errors
/// [`JournalError`].
pub(crate) fn peek(machine: &dyn Machine) -> Result<Ledger, JournalError> {
    Ok(fold(read(machine)?.0))
}

impl<'m> Journal<'m> {
    /// Reads the journal, and cuts off a torn last line.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(crate) fn open(machine: &'m dyn Machine) -> Result<Self, JournalError> {
        let (records, torn) = read(machine)?;
        let next = records.len() as u64 + 1;
        if torn {
            let mut text = String::new();
            for (index, record) in records.iter().enumerate() {
                text.push_str(&line(index as u64 + 1, record)?);
            }
            machine.install(Path::new(JOURNAL), text.as_bytes(), 0o600)?;
        }
        Ok(Self {
            machine,
            ledger: fold(records),
            next,
        })
    }

    /// What is in force.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Writes records, synced, before it returns.
    ///
    /// # Errors
    /// [`JournalError`]; nothing may then be done.
    pub(crate) fn write(&mut self, records: Vec<Record>) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (n, record) in (self.next..).zip(&records) {
            text.push_str(&line(n, record)?);
        }
        self.machine.append(Path::new(JOURNAL), text.as_bytes())?;
        self.next += records.len() as u64;
        for record in records {
            self.ledger.take(record);
        }
        Ok(())
    }

    /// The run ended well: what is in force is kept, the rest forgotten, in one atomic write.
    ///
    /// # Errors
    /// [`JournalError`]; the run is then still open, and ending it again does no harm.
    pub(crate) fn close(&mut self) -> Result<(), JournalError> {
        self.ledger.open = None;
        self.ledger
            .entries
            .retain(|entry| entry.touched && entry.step.is_undoable());
        if self.ledger.entries.is_empty() {
            self.next = 1;
            return Ok(self.machine.remove(Path::new(JOURNAL))?);
        }
        let mut text = String::new();
        for (n, entry) in (1..).zip(&mut self.ledger.entries) {
            entry.begun_in = None;
            entry.failed = None;
            let kept = Record::Kept {
                step: entry.step.clone(),
                before: entry.before.clone(),
            };
            text.push_str(&line(n, &kept)?);
        }
        self.machine
            .install(Path::new(JOURNAL), text.as_bytes(), 0o600)?;
        self.next = self.ledger.entries.len() as u64 + 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::loader::Loader;

    /// A server that an earlier bmslice sliced is still given back by this one.
    #[test]
    fn lines_of_the_first_version_are_read() {
        let old = |body: &str| {
            let line = format!(
                "{{\"v\":1,\"n\":1,\"sum\":\"{}\",\"body\":{body}}}",
                sum(1, 1, body)
            );
            read_line(&line, 1).unwrap()
        };
        let grub = |config: &str| Loader::Grub {
            config: config.into(),
        };
        let kept = old(
            r##"{"record":"kept","step":{"step":"bootArguments","dropIn":"/etc/default/grub.d/90-bmslice.cfg","content":"#\n","config":"/boot/grub/grub.cfg","args":["iommu=pt"]},"before":{"was":"file","content":null,"mode":420}}"##,
        );
        let Record::Kept {
            step: Step::BootArguments(step),
            ..
        } = kept
        else {
            panic!("{kept:?}");
        };
        assert_eq!(step.loader, grub("/boot/grub/grub.cfg"));
        assert_eq!(step.args[0].as_str(), "iommu=pt");
        let before = old(
            r#"{"record":"before","step":{"step":"confirmBoot","args":["iommu=pt"],"env":"/boot/grub/bmslice.env","management":[],"minutes":10},"before":{"was":"nothing"}}"#,
        );
        let Record::Before {
            step: Step::ConfirmBoot(step),
            ..
        } = before
        else {
            panic!("{before:?}");
        };
        assert_eq!(step.loader, grub("/boot/grub/bmslice.env"));
        assert_eq!(step.minutes, 10);
    }
}
