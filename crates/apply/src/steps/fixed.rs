//! What the kernel refused to move in this boot.
//!
//! Nothing in `/proc` tells an interrupt whose affinity the kernel manages, or a thread that it
//! keeps, from one that can be moved: only trying does. What was tried in vain is noted below
//! `/run`, so that looking again does not take it for undone work. A boot forgets it.

use std::collections::BTreeSet;
use std::path::Path;

use bmslice_host::HostError;

use crate::site::{Look, Site};

/// Interrupts that stay where they are, a number a line.
pub const IRQS: &str = bmslice_inventory::FIXED_INTERRUPTS;
/// Threads of the kernel's that stay, an id a line.
pub const THREADS: &str = "/run/bmslice/fixed-threads";

/// NICs that keep their queues, the index of an interface a line.
pub const NICS: &str = "/run/bmslice/fixed-nics";

/// What is noted.
pub fn read(look: &Look<'_>, path: &str) -> BTreeSet<u32> {
    let text = look.machine.root().read_text(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Notes them beside those that are noted already.
pub fn add(site: &Site<'_>, path: &str, more: &BTreeSet<u32>) -> Result<(), HostError> {
    let known = read(&site.look(), path);
    if more.is_subset(&known) {
        return Ok(());
    }
    let lines: String = known.union(more).map(|n| format!("{n}\n")).collect();
    site.machine
        .install(Path::new(path), lines.as_bytes(), 0o644)
}

/// Forgets them.
pub fn forget(site: &Site<'_>, path: &str) -> Result<(), HostError> {
    site.machine.remove(Path::new(path))
}
