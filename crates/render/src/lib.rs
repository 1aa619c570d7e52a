//! A plan as the files and commands that make it so.
//!
//! Takes a [`Plan`](bmslice_plan::Plan), gives texts; the same plan gives the same bytes. Decides
//! nothing (what is in an artifact is in the plan) and touches no system.

mod domain;
mod element;
mod error;

pub use domain::{METADATA_NAMESPACE, console_log, definition_digest, domain_xml};
pub use error::RenderError;
