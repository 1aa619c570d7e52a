//! Memory of the whole server, beside what each node tells.

use bmslice_model::{ByteSize, NumaNodeId, PciAddress};
use serde::{Deserialize, Serialize};

use super::is_zero;

/// Memory of the whole server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryFacts {
    /// `MemTotal` of `/proc/meminfo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<ByteSize>,
    /// `MemAvailable`: what could be had without swapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<ByteSize>,
    /// `SwapTotal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<ByteSize>,
    /// The huge page pools of the server, smallest page first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<GlobalPool>,
    /// The size that is meant where none is named (`Hugepagesize`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_huge_page: Option<ByteSize>,
    /// Transparent huge pages: the words in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparent_huge_pages: Option<TransparentHugePages>,
    /// Whether the kernel merges equal pages (`/sys/kernel/mm/ksm/run` is 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ksm: Option<bool>,
    /// Whether the kernel moves pages between nodes by itself (`kernel.numa_balancing`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_balancing: Option<bool>,
    /// Memory tiers, fastest first; none on kernels before 6.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<MemoryTier>,
}

impl MemoryFacts {
    /// Whether the server told nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The huge pages of one size on the whole server. Reservations are kept for no node of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GlobalPool {
    /// Size of a page.
    pub size: ByteSize,
    /// `nr_hugepages`.
    pub total: u64,
    /// `free_hugepages`.
    pub free: u64,
    /// `resv_hugepages`: promised and not yet taken, among the free ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserved: u64,
    /// `surplus_hugepages`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub surplus: u64,
    /// `nr_overcommit_hugepages`: how many more may be made on demand.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overcommit: u64,
}

/// The words in force in `/sys/kernel/mm/transparent_hugepage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransparentHugePages {
    /// `always`, `madvise` or `never`.
    pub enabled: String,
    /// `always`, `defer`, `defer+madvise`, `madvise` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defrag: Option<String>,
}

/// Nodes of memory of one speed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryTier {
    /// The kernel's number; lower is faster.
    pub id: u32,
    /// Its nodes.
    pub nodes: Vec<NumaNodeId>,
}

/// Memory that a domain takes, as its definition says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainMemory {
    /// The guest's cell; none for a guest without cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<u32>,
    /// How much, at most.
    pub size: ByteSize,
    /// The nodes of the host that it is bound to; empty where it may come from any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NumaNodeId>,
    /// How it is bound: `strict`, `preferred`, `interleave`, `restrictive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether it is of huge pages.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub huge: bool,
    /// The size of a huge page; where the definition names none, the host's default, when that is
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<ByteSize>,
}

/// What a node's memory is, when it is not the server's plain memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "kind",
    deny_unknown_fields
)]
pub enum NodeKind {
    /// Memory of a GPU that the kernel shows as a node.
    Gpu {
        /// The GPU's function.
        pci: PciAddress,
    },
    /// A memory device (persistent memory, CXL, high-bandwidth memory) that the `kmem` driver
    /// added as a node.
    Device {
        /// Its name on the dax bus: `dax0.0`.
        name: String,
        /// Whether it hangs at CXL.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cxl: bool,
        /// What memory it is, where its place tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        medium: Option<Medium>,
    },
}

/// What a memory device is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Medium {
    /// Persistent memory (NVDIMM).
    Persistent,
    /// What firmware set apart for a special purpose: high-bandwidth memory, most of all.
    SpecialPurpose,
}

/// How fast a node's memory is reached from the nodes that reach it best, as firmware says it
/// (HMAT).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryAccess {
    /// In MB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bandwidth: Option<u64>,
    /// In MB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bandwidth: Option<u64>,
    /// In nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_latency: Option<u64>,
    /// In nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_latency: Option<u64>,
}

/// A cache in front of a node's memory: high-bandwidth memory as a cache of slower memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SideCache {
    /// 1 is nearest to the memory.
    pub level: u32,
    /// How much.
    pub size: ByteSize,
}
