//! Why a plan was not applied or released, with what to do.

use bmslice_host::HostError;
use bmslice_plan::PlanFileError;
use bmslice_render::RenderError;
use thiserror::Error;

use crate::journal::JournalError;

/// One reason to refuse before anything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What was asked and what is there.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether the request is fine and the server lacks something: a service, a program, space.
    pub server_lacks: bool,
}

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            hint: None,
            server_lacks: false,
        }
    }

    /// A reason that no other request would take away.
    pub(crate) fn server_lacks(text: impl Into<String>) -> Self {
        Self {
            server_lacks: true,
            ..Self::new(text)
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

/// What to do on a server that went back to the kernel arguments before.
pub(crate) const FELL_BACK_HINT: &str = "see its console, `journalctl -b -1` and `/var/lib/systemd/pstore`; then change the spec, or try the same once more with `bmslice apply --try-again`, or `bmslice release`";

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => one.text.clone(),
        _ => problems.iter().fold(
            format!("{} things stand in the way", problems.len()),
            |all, p| format!("{all}\n  - {p}"),
        ),
    }
}

fn beside(also: &[String]) -> String {
    also.iter().fold(String::new(), |all, error| {
        format!("{all}\n  and besides: {error}")
    })
}

/// Why one step could not be done or undone.
#[derive(Debug, Error)]
pub enum StepError {
    /// The machine did not do as asked.
    #[error("{0}")]
    Host(#[from] HostError),
    /// It was done, and re-reading shows something else.
    #[error("it was done, and yet {got}")]
    NotEffective {
        /// What is there instead.
        got: String,
    },
    /// The machine cannot do it as it is.
    #[error("{what}")]
    Cannot {
        /// What was asked and what is there.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl StepError {
    pub(crate) fn cannot(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Cannot {
            what: what.into(),
            hint: Some(hint.into()),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Cannot { hint, .. } => hint.as_deref(),
            Self::Host(_) | Self::NotEffective { .. } => None,
        }
    }

    /// Whether the machine itself is lost, so that nothing more can be tried or noted.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Host(HostError::Gone { .. }))
    }
}

/// Why a plan was not applied, resumed or released.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Refused before anything was done.
    #[error("{}", list(.problems))]
    Refused {
        /// All reasons, at least one.
        problems: Vec<Problem>,
    },
    /// A step failed. What was done before it stays done, and is journalled.
    #[error("{step}: {source}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: StepError,
    },
    /// Some things could not be put back.
    #[error("{step}: {source}{}", beside(.also))]
    Undo {
        /// The first that failed.
        step: String,
        /// Why.
        source: StepError,
        /// The others.
        also: Vec<String>,
    },
    /// The host was rebooted for new kernel arguments and came up without them.
    #[error("the host was rebooted, and {missing}")]
    RebootWithoutEffect {
        /// What the running kernel lacks.
        missing: String,
    },
    /// The host tried new kernel arguments and is back at those before.
    #[error("{what}")]
    FellBack {
        /// What was tried, and why it was not confirmed.
        what: String,
    },
    /// The machine could not be read or written.
    #[error("{0}")]
    Host(#[from] HostError),
    /// The journal cannot be used.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The stored plan cannot be used.
    #[error("the plan in `{path}` cannot be used: {source}")]
    StoredPlan {
        /// Where.
        path: &'static str,
        /// Why.
        source: PlanFileError,
    },
    /// The plan cannot be written out.
    #[error("{0}")]
    Render(#[from] RenderError),
    /// The server could not be read.
    #[error("the server cannot be read: {0}")]
    Inventory(String),
}

impl ApplyError {
    /// Whether the input was refused (exit code 1), rather than that it could not be carried out
    /// (exit code 3): what the server lacks stands in the way of a right request too.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { problems } => problems.iter().any(|problem| !problem.server_lacks),
            Self::Render(_) => true,
            Self::Step { .. }
            | Self::Undo { .. }
            | Self::RebootWithoutEffect { .. }
            | Self::FellBack { .. }
            | Self::Host(_)
            | Self::Journal(_)
            | Self::StoredPlan { .. }
            | Self::Inventory(_) => false,
        }
    }

    /// What to do, each once.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        let mut hints: Vec<String> = Vec::new();
        match self {
            Self::Refused { problems } => {
                for hint in problems.iter().filter_map(|p| p.hint.as_ref()) {
                    if !hints.contains(hint) {
                        hints.push(hint.clone());
                    }
                }
            }
            Self::Step { source, .. } => {
                hints.extend(source.hint().map(str::to_owned));
                hints.push(
                    "what was done so far is journalled: `bmslice apply` goes on from here, `bmslice release` puts it back".into(),
                );
            }
            Self::Undo { source, .. } => {
                hints.extend(source.hint().map(str::to_owned));
                hints.push("what could not be put back stays journalled: `bmslice release` tries again".into());
            }
            // The arguments are in force then; it is the kernel that could not do more.
            Self::RebootWithoutEffect { missing } if missing.contains("huge pages") => hints.push(
                "there is too little memory on that node for so many pages: ask for less in the spec, then plan and apply again".into(),
            ),
            Self::RebootWithoutEffect { .. } => hints.push(
                "look which entry the boot loader takes (`grub-editenv list`, a menu choice, another disk), then `bmslice apply` again; or `bmslice release`".into(),
            ),
            Self::FellBack { .. } => hints.push(FELL_BACK_HINT.into()),
            Self::Host(HostError::Locked { .. }) => {
                hints.push("wait for it, or see what it does with `bmslice status`".into());
            }
            Self::Host(HostError::Hypervisor { .. }) => {
                hints.push("start it with `systemctl start libvirtd`, and see `journalctl -u libvirtd`".into());
            }
            Self::Journal(error) => hints.push(error.hint().into()),
            Self::StoredPlan { path, .. } => hints.push(format!(
                "apply a plan file again to replace `{path}`, or `bmslice release`"
            )),
            Self::Render(error) => hints.push(error.hint().into()),
            Self::Host(_) | Self::Inventory(_) => {}
        }
        hints
    }
}
