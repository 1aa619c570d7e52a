//! What is told while work goes on, so that there is no silent minute.

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It holds already; nothing is done.
    Held,
    /// A dry run would do it here, because of this.
    Planned {
        /// What was found instead; empty when nothing is there.
        found: String,
    },
    /// It begins.
    Started,
    /// It was done, and re-reading shows it.
    Done,
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another `bmslice` is at work; this one waits for it.
    Waiting {
        /// Its process id.
        holder: String,
    },
    /// An earlier run was interrupted; this one goes on where it stopped.
    Resuming {
        /// What it was.
        what: String,
    },
    /// A step.
    Step {
        /// From 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// For people.
        what: String,
        /// How it stands.
        state: State,
    },
    /// Something is put back.
    Undo {
        /// For people.
        what: String,
        /// How it stands.
        state: State,
    },
    /// Something that the user should know.
    Note(String),
}
