//! What a check found.

use serde::Serialize;

/// How much it matters when a check does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Nothing can be sliced.
    Error,
    /// Slices work, less well or with a risk.
    Warning,
    /// Good to know; some slices may need it.
    Info,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// As it should be.
    Holds {
        /// What was found.
        found: String,
    },
    /// Not as it should be.
    DoesNotHold {
        /// What was found.
        found: String,
        /// What would be right.
        wanted: String,
        /// What to do.
        mend: String,
    },
    /// The inventory lacks what the check needs.
    CouldNotCheck {
        /// Which fact, and why.
        why: String,
    },
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check's name, kebab case.
    pub name: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What is looked at.
    pub about: &'static str,
    /// The result.
    pub outcome: Outcome,
}
