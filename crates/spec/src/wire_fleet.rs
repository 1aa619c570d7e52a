//! The section `fleet` of the file as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::decode::Field;

/// Labels of a server, or of those that a slice may be on.
pub(crate) type Labels = BTreeMap<String, Field<String>>;

/// What holds for servers that are planned together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`fleet`"
)]
#[schemars(rename = "Fleet")]
pub(crate) struct Fleet {
    /// Which server a slice goes to, of those that have room for it.
    #[schemars(extend("default" = "pack"))]
    pub place: Field<Place>,
    /// What stays free on each server that has slices.
    pub headroom: Field<Headroom>,
    /// Servers and their labels. Those without labels need not be named.
    pub servers: Field<Vec<Field<LabelledServer>>>,
}

/// Which server a slice goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename = "a way to place slices")]
#[schemars(rename = "Place")]
pub(crate) enum Place {
    /// One that has slices already, of these the one with the fewest whole cores left.
    Pack,
    /// The one with the fewest slices of its tenant, of these the one with the most whole cores
    /// left.
    Spread,
}

/// What stays free on each server that has slices.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "`headroom`"
)]
#[schemars(rename = "Headroom")]
pub(crate) struct Headroom {
    /// Whole cores that nobody has, beside the host's reserve.
    #[schemars(range(min = 0, max = 1024), extend("default" = 0))]
    pub cores: Field<i64>,
}

/// A server and its labels.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    rename = "a server"
)]
#[schemars(rename = "Server", extend("required" = ["name"]))]
pub(crate) struct LabelledServer {
    /// Its host name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"))]
    pub name: Field<String>,
    /// Keys and values of your own, for `selector` of slices: `labels: { zone: a }`.
    pub labels: Field<Labels>,
}
