//! Lists in sentences.

use std::fmt::Display;

use bmslice_model::SliceName;
pub(crate) use bmslice_model::{count, cpus};

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn and<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// In backticks.
pub(crate) fn ticked(item: impl Display) -> String {
    format!("`{item}`")
}

/// ``slice `a` ``, ``slices `a` and `b` ``.
pub(crate) fn named(slices: &[SliceName]) -> String {
    let word = if slices.len() == 1 { "slice" } else { "slices" };
    format!("{word} {}", and(slices.iter().map(ticked)))
}

/// The server in backticks; one whose name is not known is `this server`.
pub(crate) fn server(hostname: &str) -> String {
    if hostname.is_empty() {
        "this server".to_owned()
    } else {
        ticked(hostname)
    }
}
