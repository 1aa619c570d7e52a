//! Applying, resuming and releasing on a server that reacts as the kernel, GRUB and libvirt do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod bad_days;
mod bls;
mod crash;
mod deployments;
mod dynamic;
mod from_host;
mod guests;
mod journal;
mod ostree;
mod refusals;
mod story;
mod support;
mod systemd_boot;
mod trial;
mod vf;
