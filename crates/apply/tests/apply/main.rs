//! Applying, resuming and releasing on a server that reacts as the kernel, GRUB and libvirt do.

mod bad_days;
mod crash;
mod journal;
mod refusals;
mod story;
mod support;
