//! The `bmslice` command: a shim over the library crate beside it.
fn main() {}
