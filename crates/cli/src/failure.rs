//! Why a command did not do as asked: what is told, and the exit code.
//!
//! The libraries have their own typed errors; here each becomes a message of one form: what was
//! asked and what is there, a blank line, what to do.

use bmslice_spec::SpecErrors;

use crate::exit::Exit;
use crate::output::style;
use crate::tables::count;

/// A failure, ready to be told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Mistakes in the user's file, which know their places.
    Spec(Box<SpecErrors>),
    /// Several reasons at once, each with what to do about it.
    Several { exit: Exit, reasons: Vec<Reason> },
    /// Anything else.
    Message {
        exit: Exit,
        text: String,
        hints: Vec<String>,
    },
}

/// One of several reasons.
#[derive(Debug)]
pub(crate) struct Reason {
    pub text: String,
    pub hint: Option<String>,
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
            Self::Message { exit, .. } | Self::Several { exit, .. } => *exit,
        }
    }

    /// The whole message, with a line's end.
    pub(crate) fn render(&self, color: bool) -> String {
        match self {
            Self::Spec(errors) => errors.render(color),
            Self::Several { reasons, .. } => several(reasons, color),
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

/// A hint stands below its reason; one that is the next reason's, too, below the last of these.
fn several(reasons: &[Reason], color: bool) -> String {
    let mut all = format!(
        "{}: {} stand in the way\n",
        style::error("error", color),
        count(reasons.len(), "thing")
    );
    for (i, reason) in reasons.iter().enumerate() {
        all.push_str(&format!("  - {}\n", reason.text.replace('\n', "\n    ")));
        let Some(hint) = &reason.hint else { continue };
        if reasons.get(i + 1).and_then(|next| next.hint.as_ref()) != Some(hint) {
            all.push_str(&format!("    {}: {hint}\n", style::hint("hint", color)));
        }
    }
    all
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        Self::Spec(Box::new(errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hint_stands_below_its_own_reason() {
        let reason = |text: &str, hint: Option<&str>| Reason {
            text: text.into(),
            hint: hint.map(Into::into),
        };
        let failure = Failure::Several {
            exit: Exit::Failed,
            reasons: vec![
                reason("no root", Some("use sudo")),
                reason("no a.qcow2", Some("fetch it")),
                reason("no b.qcow2", Some("fetch it")),
                reason("no luck", None),
            ],
        };
        let said = "error: 4 things stand in the way\n\
                    \x20 - no root\n    hint: use sudo\n\
                    \x20 - no a.qcow2\n  - no b.qcow2\n    hint: fetch it\n\
                    \x20 - no luck\n";
        assert_eq!(failure.render(false), said);
    }
}
