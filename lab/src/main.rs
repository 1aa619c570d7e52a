//! The emulated server.
fn main() {}
