//! Is this server fit to be sliced? A table of checks over an [`Inventory`], before any plan.
//!
//! Takes an inventory, gives a [`Finding`] for each check, in the table's order. Keeps true: a
//! check that lacks a fact says so ([`Outcome::CouldNotCheck`]) and never passes; what does not
//! hold comes with what was found, what is wanted and how to mend it. Touches no system.

mod checks;
mod finding;

use bmslice_inventory::Inventory;

pub use finding::{Finding, Level, Outcome};

/// Makes every check.
#[must_use]
pub fn examine(inventory: &Inventory) -> Vec<Finding> {
    checks::CHECKS
        .iter()
        .map(|check| Finding {
            name: check.name,
            level: check.level,
            about: check.about,
            outcome: match (check.examine)(inventory) {
                Ok(Ok(found)) => Outcome::Holds { found },
                Ok(Err(fault)) => Outcome::DoesNotHold {
                    found: fault.found,
                    wanted: fault.wanted,
                    mend: fault.mend,
                },
                Err(why) => Outcome::CouldNotCheck { why: why.0 },
            },
        })
        .collect()
}

/// Whether a server with these findings can be sliced: no check of level error fails or is
/// undecided.
#[must_use]
pub fn is_fit(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|f| f.level != Level::Error || matches!(f.outcome, Outcome::Holds { .. }))
}
