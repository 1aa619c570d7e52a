//! The comparisons behind the table of checks, one file a subject. Each takes a view of plan and
//! facts and gives verdicts; none reads anything.

pub(crate) mod devices;
pub(crate) mod domain;
pub(crate) mod fabric;
pub(crate) mod host;
pub(crate) mod memory;
pub(crate) mod pins;
pub(crate) mod quiet;
pub(crate) mod threads;

#[cfg(test)]
mod tests;

use crate::report::Verdict;

/// Those that differ, or when none does the one sentence that says what holds.
fn or_satisfied(mut verdicts: Vec<Verdict>, what: impl FnOnce() -> String) -> Vec<Verdict> {
    if verdicts.is_empty() {
        verdicts.push(Verdict::satisfied(what()));
    }
    verdicts
}
