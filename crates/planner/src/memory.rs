//! Memory per NUMA node: what the host keeps, what is there, what slices may have.
//!
//! Takes the inventory's nodes and page pools; answers whether a demand fits, without ever
//! overcommitting, and gives the huge pages that must be there. The host keeps
//! [`HEADROOM`] on every node, as much again on the node of CPU 0 (kernel, page cache, daemons),
//! and [`PER_SLICE`] on every node for each slice, for QEMU's own memory.

use bmslice_inventory::Inventory;
use bmslice_model::{ByteSize, NumaNodeId};
use bmslice_plan::Plan;

use crate::server::Server;

/// What the host keeps on every node.
pub(crate) const HEADROOM: ByteSize = ByteSize::from_mib(512);
/// What QEMU itself needs for one guest, beside the guest's memory.
pub(crate) const PER_SLICE: ByteSize = ByteSize::from_mib(128);

/// Memory of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeMemory {
    /// `MemTotal`.
    pub total: u64,
    /// What the host keeps of it.
    pub kept: u64,
    /// Whether this process's cgroup may have memory there; what it may not, no guest of it gets.
    pub allowed: bool,
    /// By page size, in the order of [`Memory::sizes`].
    pub pools: Vec<Pool>,
}

/// The huge pages of one size on one node that do not come from this plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Pages that exist already.
    pub existing: u64,
    /// Pages that others hold.
    pub foreign: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// Huge page sizes that are asked for or exist, smallest first.
    pub sizes: Vec<u64>,
    /// By node, in the server's order.
    pub nodes: Vec<NodeMemory>,
}

impl Memory {
    pub fn read(
        server: &Server<'_>,
        asked: impl Iterator<Item = ByteSize>,
        slices: usize,
        previous: Option<&Plan>,
    ) -> Self {
        let inventory = server.inventory;
        let pools = inventory.nodes.iter().flat_map(|node| &node.huge_pages);
        let mut sizes: Vec<u64> = asked
            .chain(pools.map(|pool| pool.size))
            .map(ByteSize::bytes)
            .filter(|&size| size > 0)
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        let boot = server.inventory.cpus.iter().find(|cpu| cpu.online);
        let boot_node = boot
            .and_then(|cpu| cpu.node)
            .and_then(|id| server.node_index(id))
            .unwrap_or(0);
        let nodes = server
            .nodes
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let facts = inventory.nodes.iter().find(|facts| facts.id == node.id);
                let shares = if at == boot_node { 2 } else { 1 };
                NodeMemory {
                    total: facts.map_or(0, |facts| facts.memory_total.bytes()),
                    allowed: facts.is_none_or(|facts| facts.allowed),
                    kept: shares * HEADROOM.bytes() + slices as u64 * PER_SLICE.bytes(),
                    pools: sizes
                        .iter()
                        .map(|&size| pool(server, previous, node.id, ByteSize::from_bytes(size)))
                        .collect(),
                }
            })
            .collect();
        Self { sizes, nodes }
    }

    /// Whether so many pages of each size and so many bytes of plain memory fit on a node.
    pub fn fits(&self, node: usize, pages: &[u64], plain: u64) -> bool {
        let node = &self.nodes[node];
        if !node.allowed {
            return plain == 0 && pages.iter().all(|&pages| pages == 0);
        }
        let (mut there, mut more) = (0u64, plain);
        for ((size, pool), pages) in self.sizes.iter().zip(&node.pools).zip(pages) {
            let needed = pages.saturating_add(pool.foreign);
            there = there.saturating_add(pool.existing.saturating_mul(*size));
            let new = needed.saturating_sub(pool.existing);
            more = more.saturating_add(new.saturating_mul(*size));
        }
        // Pages that exist already are somebody's decision, however little they leave to the host.
        more == 0 || there.saturating_add(more) <= node.total.saturating_sub(node.kept)
    }

    /// The most memory of this kind that one guest could get there, nothing else being placed.
    pub fn most(&self, node: usize, page: Option<usize>) -> ByteSize {
        let unit = page.map_or(1 << 20, |page| self.sizes[page]);
        let fits = |count: u64| {
            let mut pages = vec![0; self.sizes.len()];
            match page {
                Some(page) => {
                    pages[page] = count;
                    self.fits(node, &pages, 0)
                }
                None => self.fits(node, &pages, count.saturating_mul(unit)),
            }
        };
        let (mut low, mut high) = (0, self.nodes[node].total / unit + 1);
        if let Some(page) = page {
            high = high.max(self.nodes[node].pools[page].existing + 1);
        }
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if fits(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        ByteSize::from_bytes(low.saturating_mul(unit))
    }
}

/// What exists on a node that this plan may not count as its own.
fn pool(server: &Server<'_>, previous: Option<&Plan>, node: NumaNodeId, size: ByteSize) -> Pool {
    let facts = find(server.inventory, node, size);
    let Some(facts) = facts else {
        return Pool::default();
    };
    let taken = facts.total.saturating_sub(facts.free);
    // Pages in use by slices of ours that run are not others'. Which those are is known from the
    // previous plan; without it, whatever is in use while a slice of ours runs is taken as theirs.
    let (planned, own) = match previous {
        Some(plan) => {
            let planned = plan
                .host()
                .huge_pages
                .iter()
                .filter(|pages| pages.node == node && pages.size == size)
                .map(|pages| pages.count)
                .sum();
            let own = plan
                .slices()
                .iter()
                .filter(|slice| server.own_running.contains(slice.name.as_str()))
                .map(|slice| slice.pages_on(node, size))
                .sum();
            (planned, own)
        }
        None if server.own_running.is_empty() => (0, 0),
        None => (0, taken),
    };
    Pool {
        existing: facts.total.saturating_sub(planned),
        foreign: taken.saturating_sub(own),
    }
}

fn find(
    inventory: &Inventory,
    node: NumaNodeId,
    size: ByteSize,
) -> Option<&bmslice_inventory::HugePagePool> {
    inventory
        .nodes
        .iter()
        .find(|facts| facts.id == node)?
        .huge_pages
        .iter()
        .find(|pool| pool.size == size)
}
