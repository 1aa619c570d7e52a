//! The only door to the machine: a root directory to read, and a [`Machine`] to act on.
#![allow(
    clippy::disallowed_methods,
    reason = "this crate is the door that the lint guards"
)]

mod archive;
mod ethtool;
#[cfg(feature = "fake")]
pub mod fake;
mod libvirt;
mod live;
mod machine;
pub mod netlink;
mod record;
mod root;
mod tree;

pub use archive::{ArchiveError, Limits};
pub use ethtool::{EthtoolRequest, NetAnswers, NicAnswers};
pub use libvirt::LibvirtConnection;
pub use live::LiveMachine;
pub use machine::*;
pub use root::Root;
pub use tree::{Entry, Tree};
