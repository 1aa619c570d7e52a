//! The vocabulary of `bmslice`: typed numbers, sets and names with one textual form each.
//!
//! Takes text, gives values that cannot be wrong in themselves (a [`CpuSet`] holds real CPU
//! numbers, a [`PciAddress`] has a device of at most 31, a [`ByteSize`] fits in 64 bits). Touches
//! no system, knows no policy. Every type prints the form that it parses.

mod bytesize;
mod cmdline;
mod cpumask;
mod cpuset;
mod ids;
mod names;
mod net;
mod pci;
mod words;

pub use bytesize::{ByteSize, ByteSizeError};
pub use cmdline::{CmdlineError, KernelArg, KernelCmdline};
pub use cpuset::{CpuSet, CpuSetError};
pub use ids::{CpuId, IdError, IommuGroupId, NumaNodeId};
pub use names::{NameError, SliceName, TenantName};
pub use net::{MacAddress, MacError, VlanError, VlanId};
pub use pci::{PciAddress, PciAddressError, PciId};
pub use words::{count, cpus};
