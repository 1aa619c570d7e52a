//! Numbers that the kernel gives to things.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A number that is outside what the kernel can have given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Larger than [`CpuId::MAX`].
    #[error("cpu number {0} is above {max}, the largest that is supported", max = CpuId::MAX)]
    CpuTooLarge(u64),
}

/// A logical CPU (a hardware thread), by the kernel's number: the `N` of
/// `/sys/devices/system/cpu/cpuN`.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(with = "u32")]
pub struct CpuId(u16);

impl CpuId {
    /// The largest number: eight times what a distribution's kernel is built for
    /// (`CONFIG_NR_CPUS=8192`), so that a damaged list cannot ask for gigabytes of bits.
    pub const MAX: u32 = u16::MAX as u32;

    /// A CPU by its number.
    ///
    /// # Errors
    /// [`IdError::CpuTooLarge`] above [`CpuId::MAX`].
    pub fn new(number: u32) -> Result<Self, IdError> {
        u16::try_from(number)
            .map(Self)
            .map_err(|_| IdError::CpuTooLarge(u64::from(number)))
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn from_index(index: usize) -> Option<Self> {
        u16::try_from(index).ok().map(Self)
    }
}

impl TryFrom<u32> for CpuId {
    type Error = IdError;
    fn try_from(number: u32) -> Result<Self, IdError> {
        Self::new(number)
    }
}

impl From<CpuId> for u32 {
    fn from(cpu: CpuId) -> Self {
        cpu.number()
    }
}

impl From<u8> for CpuId {
    fn from(number: u8) -> Self {
        Self(u16::from(number))
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! kernel_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

kernel_number! {
    /// A NUMA node of the host: the `N` of `/sys/devices/system/node/nodeN`.
    NumaNodeId
}
kernel_number! {
    /// An IOMMU group: the `N` of `/sys/kernel/iommu_groups/N`. The unit of passthrough, since
    /// its members cannot be kept apart (Documentation/driver-api/vfio.rst). The number may
    /// change from boot to boot; it identifies nothing by itself.
    IommuGroupId
}
