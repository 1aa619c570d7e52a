//! What verification gives: findings in the order of the checks, each with one of four verdicts.

use bmslice_model::SliceName;
use serde::Serialize;
use thiserror::Error;

/// What came of one check of one thing. `Unknown` and `Pending` are never success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// It is as planned.
    Satisfied {
        /// What was looked at and is so.
        what: String,
    },
    /// It is not as planned.
    Differs {
        /// What was looked at.
        what: String,
        /// What the plan says.
        want: String,
        /// What is.
        got: String,
    },
    /// It could not be looked at.
    Unknown {
        /// Why not, and what would help.
        why: String,
    },
    /// It cannot be so yet.
    Pending {
        /// What must happen first.
        after: String,
    },
}

impl Verdict {
    pub(crate) fn satisfied(what: impl Into<String>) -> Self {
        Self::Satisfied { what: what.into() }
    }

    pub(crate) fn differs(
        what: impl Into<String>,
        want: impl ToString,
        got: impl ToString,
    ) -> Self {
        Self::Differs {
            what: what.into(),
            want: want.to_string(),
            got: got.to_string(),
        }
    }

    pub(crate) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    pub(crate) fn pending(after: impl Into<String>) -> Self {
        Self::Pending {
            after: after.into(),
        }
    }

    /// Whether it is as planned.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        matches!(self, Self::Satisfied { .. })
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// About which slice; `None` is about the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<SliceName>,
    /// The name of the check in [`CHECKS`](crate::CHECKS): stable, for programs.
    pub check: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// All findings: the host's first, then each slice's in the plan's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// In order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether everything is as planned. Nothing looked at is nothing proved: an empty report does
    /// not hold.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(|f| f.verdict.is_satisfied())
    }

    /// The findings that keep it from holding.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| !f.verdict.is_satisfied())
    }
}

/// Why a fact is not there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotSeen {
    /// It could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// It does not exist before something else happens.
    #[error("only after {0}")]
    NotYet(String),
}

impl From<NotSeen> for Verdict {
    fn from(reason: NotSeen) -> Self {
        match reason {
            NotSeen::Unreadable(why) => Self::unknown(why),
            NotSeen::NotYet(after) => Self::pending(after),
        }
    }
}

/// A fact, or why it is not there.
pub type Seen<T> = Result<T, NotSeen>;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: Vec<Verdict>) -> Report {
        Report {
            findings: verdicts
                .into_iter()
                .map(|verdict| Finding {
                    slice: None,
                    check: "test",
                    verdict,
                })
                .collect(),
        }
    }

    #[test]
    fn only_satisfied_everywhere_holds() {
        let yes = || Verdict::satisfied("a");
        assert!(report(vec![yes(), yes()]).holds());
        assert!(!report(vec![]).holds(), "nothing looked at proves nothing");
        assert!(!report(vec![yes(), Verdict::unknown("no access")]).holds());
        assert!(!report(vec![Verdict::pending("a boot"), yes()]).holds());
        assert!(!report(vec![Verdict::differs("a", "1", "2")]).holds());
    }

    #[test]
    fn is_serialised_flat_with_the_verdict_named() {
        let mut report = report(vec![Verdict::differs("vCPU 3", "10", "0-23")]);
        report.findings[0].slice = Some("red".parse().unwrap());
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"findings":[{"slice":"red","check":"test","verdict":"differs","what":"vCPU 3","want":"10","got":"0-23"}]}"#
        );
    }
}
