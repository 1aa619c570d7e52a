//! A server as it is: what Linux shows of its CPUs, memory, devices, boot and hypervisor.
//!
//! Takes a [`host::Root`](bmslice_host::Root) (the live `/`, or a captured tree), gives an
//! [`Inventory`]. Keeps true: nothing is guessed silently (what is odd becomes a [`Note`]), and the
//! same tree always gives the same inventory. Reads only.

mod facts;

pub use facts::*;
