//! The only door to the machine: a root directory to read, and a [`Machine`] to act on.
#![allow(
    clippy::disallowed_methods,
    reason = "this crate is the door that the lint guards"
)]

#[cfg(feature = "fake")]
pub mod fake;
mod libvirt;
mod live;
mod machine;
mod root;

pub use libvirt::LibvirtConnection;
pub use live::LiveMachine;
pub use machine::*;
pub use root::Root;
