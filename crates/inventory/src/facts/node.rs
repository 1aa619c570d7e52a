//! A NUMA node and its huge pages.

use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use serde::{Deserialize, Serialize};

use super::{MemoryAccess, NodeKind, SideCache};

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumaNode {
    /// Its number.
    pub id: NumaNodeId,
    /// Its CPUs, online ones; none for memory-only nodes.
    pub cpus: CpuSet,
    /// `MemTotal` of the node; zero without memory.
    #[serde(default)]
    pub memory_total: ByteSize,
    /// `MemFree` of the node.
    #[serde(default)]
    pub memory_free: ByteSize,
    /// Huge page pools, smallest page first.
    #[serde(default)]
    pub huge_pages: Vec<HugePagePool>,
    /// Distances to every node, in the order of node numbers (SLIT units: 10 is local).
    #[serde(default)]
    pub distances: Vec<u32>,
    /// Whether this process's cgroup may have memory there.
    #[serde(default = "super::yes", skip_serializing_if = "super::is_yes")]
    pub allowed: bool,
    /// Of a node without CPUs: the CPUs that are nearest, by what firmware says of initiators
    /// (HMAT), or by distance; none when all are as near.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub nearest: CpuSet,
    /// What its memory is, when it is not the server's plain memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NodeKind>,
    /// How fast it is, when firmware says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<MemoryAccess>,
    /// The caches in front of its memory, nearest to the memory first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub side_caches: Vec<SideCache>,
    /// Free memory in blocks of 2 MiB and larger (`/proc/buddyinfo`): what huge pages can be made
    /// of without moving pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfragmented: Option<ByteSize>,
}

/// The huge pages of one size on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugePagePool {
    /// Size of a page.
    pub size: ByteSize,
    /// `nr_hugepages`.
    pub total: u64,
    /// `free_hugepages`.
    pub free: u64,
    /// `surplus_hugepages`: made beyond the pool's size on demand.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub surplus: u64,
}

impl Default for NumaNode {
    fn default() -> Self {
        Self {
            id: NumaNodeId(0),
            cpus: CpuSet::new(),
            memory_total: ByteSize::ZERO,
            memory_free: ByteSize::ZERO,
            huge_pages: Vec::new(),
            distances: Vec::new(),
            allowed: true,
            nearest: CpuSet::new(),
            kind: None,
            access: None,
            side_caches: Vec::new(),
            unfragmented: None,
        }
    }
}
