//! A server as it is: what Linux shows of its CPUs, memory, devices, boot and hypervisor.
//!
//! Takes a [`host::Root`](bmslice_host::Root) (the live `/`, or a captured tree), gives an
//! [`Inventory`]. Keeps true: nothing is guessed silently (what is odd becomes a [`Note`]), and the
//! same tree always gives the same inventory. Reads only.

mod block;
mod boot;
mod cache;
mod capture;
mod cgroup;
mod contradictions;
mod cpu;
mod device;
mod ethtool;
mod facts;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grub;
mod host;
mod hypervisor;
mod libvirt;
mod machine;
mod memory;
mod needs;
mod net;
mod pci;
mod pools;
mod power;
mod quiet;
mod read;
mod redact;
mod routes;
mod scan;
mod topology;

pub use boot::loader_variable;
pub use capture::{Capture, CaptureError};
pub use contradictions::{Contradiction, contradictions};
pub use ethtool::nic_channels;
pub use facts::*;
pub use grub::grub_cannot_write;
pub use libvirt::libvirt_facts;
pub use quiet::{FIXED_INTERRUPTS, Interrupt, KernelThread, interrupts, kernel_threads};
pub use read::{CapturedInventory, LiveInventory, Probes, ReadError, read};
