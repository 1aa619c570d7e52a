//! Where steps look and act.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bmslice_host::{Command, HostError, Machine, Output};

use crate::event::Event;
use crate::journal::Ledger;

/// What a step may look at.
pub struct Look<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// What was done here before.
    pub ledger: &'a Ledger,
    /// The slices whose guests run, as known when the run began.
    pub running: &'a BTreeSet<String>,
}

impl Look<'_> {
    /// The bytes of a file; `None` when it is not there.
    pub fn file(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        match self.machine.root().read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HostError::File {
                action: "read",
                path: path.into(),
                source,
            }),
        }
    }

    /// A number that an attribute holds.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.machine.root().attribute(path)?.parse().ok()
    }
}

/// How far undoing may go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Licence {
    /// How long a guest may take to shut down.
    pub patience: Duration,
    /// Whether a guest that did not may be ended as by pulling its plug.
    pub force: bool,
    /// Whether disks and seeds that we made are deleted.
    pub delete_images: bool,
}

/// What a step may act on.
pub struct Site<'a> {
    /// The machine.
    pub machine: &'a dyn Machine,
    /// What was done here before.
    pub ledger: &'a Ledger,
    /// The slices whose guests run, as known when the run began.
    pub running: &'a BTreeSet<String>,
    /// How far undoing may go.
    pub licence: Licence,
    /// Where to tell what the user should know.
    pub events: &'a mut dyn FnMut(Event),
}

impl Site<'_> {
    /// To look, in the midst of acting.
    pub fn look(&self) -> Look<'_> {
        Look {
            machine: self.machine,
            ledger: self.ledger,
            running: self.running,
        }
    }

    /// Tells the user something.
    pub fn note(&mut self, text: impl Into<String>) {
        (self.events)(Event::Note(text.into()));
    }

    /// Runs a command.
    pub fn run<A: Into<std::ffi::OsString>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Output, HostError> {
        self.machine.run(&Command::new(program, args))
    }

    /// Writes an attribute.
    pub fn write(&self, path: &str, value: impl ToString) -> Result<(), HostError> {
        self.machine
            .write_attribute(Path::new(path), &value.to_string())
    }
}
