//! Why a command did not do as asked: what is told, and the exit code.
//!
//! The libraries have their own typed errors; here each becomes a message of one form: what was
//! asked and what is there, a blank line, what to do.

use bmslice_spec::SpecErrors;

use crate::exit::Exit;
use crate::output::style;

/// A failure, ready to be told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Mistakes in the user's file, which know their places.
    Spec(Box<SpecErrors>),
    /// Anything else.
    Message {
        exit: Exit,
        text: String,
        hints: Vec<String>,
    },
}

impl Failure {
    /// The input is not right, or what is asked for cannot be had: exit code 1.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::message(Exit::Refused, text)
    }

    /// It could not be carried out: exit code 3.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::message(Exit::Failed, text)
    }

    pub(crate) fn message(exit: Exit, text: impl Into<String>) -> Self {
        Self::Message {
            exit,
            text: text.into(),
            hints: Vec::new(),
        }
    }

    /// Says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Message { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Spec(_) => Exit::Refused,
            Self::Message { exit, .. } => *exit,
        }
    }

    /// The whole message, with a line's end.
    pub(crate) fn render(&self, color: bool) -> String {
        match self {
            Self::Spec(errors) => errors.render(color),
            Self::Message { text, hints, .. } => {
                let mut all = format!("{}: {text}\n", style::error("error", color));
                for (i, hint) in hints.iter().enumerate() {
                    if i == 0 {
                        all.push('\n');
                    }
                    all.push_str(&format!("{}: {hint}\n", style::hint("hint", color)));
                }
                all
            }
        }
    }
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        Self::Spec(Box::new(errors))
    }
}
