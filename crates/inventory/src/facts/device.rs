//! What a PCI function can be reset with, mapped at, and is plugged into.

use bmslice_model::{ByteSize, PciId};
use serde::{Deserialize, Serialize};

use super::{DevlinkFacts, PciFunction};

/// Details of a PCI function that placement does not need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceFacts {
    /// The root complex: `pci0000:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_complex: Option<String>,
    /// The board's maker and model number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<PciId>,
    /// The slot's name, as firmware calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Firmware's label for an onboard device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How it can be reset, best first: `flr`, `pm`, `bus`; `None` on kernels before 5.15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_methods: Option<Vec<String>>,
    /// Whether it has ACS, which keeps its peers apart; looked at for bridges, and for members of a
    /// group of several; `None` where the configuration space cannot be read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acs: Option<bool>,
    /// Its base address registers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bars: Vec<Bar>,
    /// Serial number of the drive behind it (NVMe).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model of the drive behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Revision of its firmware, where the driver shows one; a NIC's, as ethtool shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Its PTP clock: `ptp0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ptp: Option<String>,
    /// What devlink shows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devlink: Option<DevlinkFacts>,
}

impl DeviceFacts {
    /// Whether the function told nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A window into a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bar {
    /// 0 to 5.
    pub index: u32,
    /// How large.
    pub size: ByteSize,
    /// Whether it is memory; else I/O ports.
    pub memory: bool,
    /// Whether it may lie above 4 GiB.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wide: bool,
    /// Whether reads have no effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefetchable: bool,
}

/// What a function is for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A network controller.
    Network,
    /// An NVMe drive.
    Nvme,
    /// Another storage controller.
    Storage,
    /// A GPU or display.
    Display,
    /// A forward error correction accelerator of radio units.
    Fec,
    /// A cryptography and compression accelerator (QuickAssist).
    Qat,
    /// Another accelerator, or a co-processor.
    Accelerator,
    /// A bridge.
    Bridge,
    /// Anything else.
    Other,
}

impl PciFunction {
    /// What it is for: by class, and for accelerators by the devices that are known.
    #[must_use]
    pub fn role(&self) -> Role {
        let class = self.class.trim_start_matches("0x");
        if self.id.vendor == 0x8086 {
            match self.id.device {
                // ACC100, ACC101, VRB1, VRB2, N3000, and their VFs (dpdk's baseband drivers).
                0x0d5c | 0x0d5d | 0x57c0..=0x57c5 | 0x5052 | 0x5050 | 0x0d8f | 0x0d90 => {
                    return Role::Fec;
                }
                // DH895xCC, C62x, C3xxx, 4xxx, 420xx (the kernel's qat drivers).
                0x0435 | 0x0443 | 0x37c8 | 0x37c9 | 0x19e2 | 0x19e3 | 0x4940..=0x4947 => {
                    return Role::Qat;
                }
                _ => {}
            }
        }
        match (class.get(..2), class.get(..4)) {
            (_, Some("0108")) => Role::Nvme,
            (_, Some("0b40")) | (Some("12"), _) => Role::Accelerator,
            (Some("01"), _) => Role::Storage,
            (Some("02"), _) => Role::Network,
            (Some("03"), _) => Role::Display,
            (Some("06"), _) => Role::Bridge,
            (Some("10"), _) => Role::Accelerator,
            _ => Role::Other,
        }
    }
}
