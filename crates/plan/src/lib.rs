//! The plan file: everything that was decided, so that nobody downstream decides anything.
//!
//! Takes parts from the planner or bytes from a file, gives a [`Plan`] whose CPUs are a partition
//! by construction. Writes the same bytes for the same plan. Knows neither how placements are found
//! nor how they are carried out.

mod document;
mod fingerprint;
mod sealed;

pub use document::*;
pub use fingerprint::Fingerprint;
pub use sealed::{Plan, PlanFileError};
