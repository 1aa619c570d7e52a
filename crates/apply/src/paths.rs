//! Where `bmslice` keeps what it knows of a server between its runs.

/// The folder, mode 0700.
pub const STATE: &str = "/var/lib/bmslice";
/// The plan in force.
pub const PLAN: &str = "/var/lib/bmslice/plan.json";
/// The plan before it, while kernel arguments of the one in force are not confirmed: what a server
/// that goes back has to follow.
pub const PLAN_BEFORE: &str = "/var/lib/bmslice/plan-before.json";
/// What was done, and what was there before.
pub const JOURNAL: &str = "/var/lib/bmslice/journal";
/// Held while one process acts.
pub const LOCK: &str = "/var/lib/bmslice/lock";
/// Where texts that become a seed are written for a moment, mode 0600.
pub const STAGING: &str = "/var/lib/bmslice";
