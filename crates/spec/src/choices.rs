//! What of the kernel's choices at boot can be asked for by name.
//!
//! Each costs something, which is said where it is asked for (the schema) and where it is planned
//! (the report). The file and the sealed spec have the same words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How deep idle CPUs may sleep, all of the server's
/// (Documentation/admin-guide/kernel-parameters.txt, drivers/idle/intel_idle.c).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a depth of idle states")]
#[schemars(rename = "IdleStates")]
pub enum IdleStates {
    /// As deep as the kernel finds right.
    #[default]
    All,
    /// C1 at most (`processor.max_cstate=1`, on Intel `intel_idle.max_cstate=1` too): a CPU wakes
    /// in microseconds rather than in up to some hundred; idle CPUs draw more power, and leave the
    /// others less of the turbo.
    Shallow,
    /// None (`idle=poll`): a CPU is awake at once; each draws full power and makes heat at all
    /// times, and an idle thread takes time from its sibling. The kernel's documentation advises
    /// against it.
    Poll,
}

/// Whether the kernel guards against flaws of the CPU
/// (Documentation/admin-guide/hw-vuln/index.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a choice of mitigations")]
#[schemars(rename = "Mitigations")]
pub enum Mitigations {
    /// As the kernel finds right.
    #[default]
    Auto,
    /// Not at all (`mitigations=off`): entries into the kernel and into guests are cheaper; a guest
    /// may read the memory of others and of the host. Only where all that runs on the server trusts
    /// each other.
    None,
}
