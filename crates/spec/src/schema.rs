//! The JSON schema of the file, from the types that read it.

use schemars::generate::SchemaSettings;

use crate::wire;

/// The JSON schema (draft 2020-12) of a spec. It knows the form of a file; what else must hold
/// (unique names, whole pages, …) only [`Slicing::parse`](crate::Slicing::parse) knows.
#[must_use]
pub fn schema() -> serde_json::Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<wire::File>()
        .to_value()
}
