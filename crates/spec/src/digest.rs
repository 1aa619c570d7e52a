//! The digest of what a spec means.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::fleet::FleetSpec;
use crate::sealed::{HostSpec, SliceSpec};

/// What is hashed, as JSON. The version changes when the same meaning would be written in another
/// way.
#[derive(Serialize)]
struct Canonical<'a> {
    version: u32,
    host: &'a HostSpec,
    #[serde(skip_serializing_if = "FleetSpec::is_empty")]
    fleet: &'a FleetSpec,
    slices: &'a [SliceSpec],
}

/// `sha256:` and 64 hexadecimal digits. Defaults count as if they had been written; the order of
/// slices and NICs is part of the meaning, the order of keys is not.
pub(crate) fn digest(host: &HostSpec, fleet: &FleetSpec, slices: &[SliceSpec]) -> String {
    let canonical = Canonical {
        version: 1,
        host,
        fleet,
        slices,
    };
    // Every map in it has text keys and every number is whole, so this cannot fail.
    let bytes = serde_json::to_vec(&canonical).unwrap_or_default();
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(&bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
