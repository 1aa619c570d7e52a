//! The families of steps, one file each.
//!
//! Every step has the same questions to answer (`describe`, `precondition`, `observe`, `before`,
//! `act`, `undo`); [`crate::step`] asks them in exhaustive matches. An `act` may find the work of
//! an earlier, interrupted one, and an `undo` may find that nothing was ever done.

pub mod blscfg;
pub mod boot;
pub mod boot_interface;
pub mod device;
pub mod disk;
pub mod domain;
pub mod entries;
pub mod files;
pub mod fixed;
pub mod grub;
pub mod kernel_install;
pub mod loader;
pub mod maker;
pub mod memory;
pub mod ostree;
pub mod partition;
pub mod queues;
pub mod quiet;
pub mod seed;
pub mod sriov;
pub mod starter;
pub mod trial;
pub mod vf;
