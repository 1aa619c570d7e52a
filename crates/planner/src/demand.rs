//! What each slice asks of nodes, cores and memory, as numbers to search over.
//!
//! Takes the spec and the server; gives per slice its sites (which node carries which guest cell)
//! and its takes (how many cores of each class a cell may use). Keeps true: a take covers exactly
//! what is asked, with no core too many.

use bmslice_model::{ByteSize, NumaNodeId, count};
use bmslice_spec::{NicChoice, NicKind, Numa, Sharing, SliceSpec, Smt};

use crate::devices::{Near, Want};
use crate::memory::Memory;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::siblings::{self, Odd};

/// A number of cores of each class, in the order of [`Server::classes`].
pub(crate) type Counts = Vec<u32>;

/// More ways than this to mix classes of cores are not listed: no machine has been seen with more
/// than two classes.
const MOST_TAKES: usize = 512;

/// More sites than this are not listed, and the answer is then that it was not decided. Sixteen nodes
/// have 12,870 ways to choose eight of them, times eight for the one where the pool lies.
const MOST_SITES: usize = 1 << 17;

/// What one slice asks for.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// Index in the spec.
    pub slice: usize,
    /// The node of each guest cell, by server index; the pool lies with cell 0.
    pub sites: Vec<Vec<usize>>,
    /// Ways to have a cell's vCPUs.
    pub vcpus: Vec<Counts>,
    /// Ways to have the pool; empty counts when it is on the host's cores.
    pub pool: Vec<Counts>,
    /// Index of the page size; `None` is plain memory.
    pub page: Option<usize>,
    /// Pages, or bytes of plain memory, of each cell.
    pub memory: u64,
    pub wants: Vec<Want>,
    /// The tenant whose pool it uses, by [`Pools`](crate::pools::Pools); `None` has its own, or the
    /// host's cores.
    pub shared: Option<usize>,
    /// The odd vCPU of each cell, where it may share its core.
    pub odd: Option<Odd>,
    /// Whether its cores were already taken out of what is free.
    pub kept: bool,
}

impl Demand {
    pub fn read(
        slice: usize,
        spec: &SliceSpec,
        server: &Server<'_>,
        memory: &Memory,
        wants: Vec<Want>,
    ) -> Result<Self, Refusal> {
        let cells = cells(spec);
        let sites = sites(spec, server)?;
        if !spec.vcpus.is_multiple_of(cells) {
            return Err(Refusal::Uneven {
                slice: spec.name.clone(),
                cells,
                what: count(spec.vcpus, "vCPU"),
                near: format!("write `vcpus: {}`", spec.vcpus.next_multiple_of(cells)),
            });
        }
        let unit = spec.hugepages.unwrap_or(ByteSize::from_mib(1)).bytes();
        if unit == 0 || !spec.memory.bytes().is_multiple_of(unit * u64::from(cells)) {
            let step = unit.max(1) * u64::from(cells);
            let up = spec.memory.bytes().next_multiple_of(step);
            return Err(Refusal::Uneven {
                slice: spec.name.clone(),
                cells,
                what: match spec.hugepages {
                    Some(size) => format!("{} of memory in pages of {size}", spec.memory),
                    None => format!("{} of memory", spec.memory),
                },
                near: format!("write `size: {}`", ByteSize::from_bytes(up)),
            });
        }
        let per_cell = spec.vcpus / cells;
        wide_cores(spec, per_cell, &server.classes)?;
        let page = match spec.hugepages {
            None => None,
            Some(size) => Some(page(spec, size, server, memory)?),
        };
        let each = spec.memory.bytes() / u64::from(cells);
        Ok(Self {
            slice,
            sites,
            vcpus: vcpu_takes(per_cell, spec.smt, &server.classes),
            pool: mixes(spec.emulator_cores, &server.classes),
            page,
            memory: if page.is_some() { each / unit } else { each },
            wants,
            shared: None,
            odd: None,
            kept: false,
        })
    }

    /// Makes the search leave its cores alone: they are taken already, on these nodes.
    pub fn keep(&mut self, nodes: Vec<usize>, classes: usize) {
        self.kept = true;
        self.sites = vec![nodes];
        self.vcpus = vec![vec![0; classes]];
        self.pool = vec![vec![0; classes]];
        self.odd = None;
    }

    /// The odd vCPU of a cell that has its vCPUs this way.
    pub fn odd_in(&self, take: &Counts) -> Option<Odd> {
        self.odd.filter(|odd| take[odd.class] > 0)
    }

    /// Makes the search take a device near that is to be near if possible.
    pub fn insist_on_near(&mut self) {
        for want in &mut self.wants {
            if want.near == Near::Should {
                want.near = Near::Must;
            }
        }
    }

    /// Fewest halves of cores that any way takes: of cell 0, with a pool of its own, and of each
    /// other cell. Only an odd vCPU that may share its core takes a half.
    pub fn fewest_halves(&self) -> (u32, u32) {
        let halves = |take: &Counts| {
            let odd = u32::from(self.odd_in(take).is_some());
            (2 * take.iter().sum::<u32>()).saturating_sub(odd)
        };
        let vcpus = self.vcpus.iter().map(halves).min().unwrap_or(0);
        // Another slice may have brought the pool that it shares.
        let own = self.shared.is_none();
        let pool = if own { 2 * fewest(&self.pool) } else { 0 };
        (vcpus + pool, vcpus)
    }

    /// Fewest whole cores that any way takes, of cell 0 and of each other cell, where nobody has
    /// brought the pool that it shares or left a sibling.
    pub fn fewest_alone(&self) -> (u32, u32) {
        let vcpus = fewest(&self.vcpus);
        (vcpus + fewest(&self.pool), vcpus)
    }

    /// Whether the two ask for the same in every way, so that it does not matter which is which.
    pub fn is_twin(&self, other: &Self) -> bool {
        self.sites == other.sites
            && self.vcpus == other.vcpus
            && self.pool == other.pool
            && self.page == other.page
            && self.memory == other.memory
            && self.shared == other.shared
            && self.odd == other.odd
            && self.wants == other.wants
            && self.wants.iter().all(|want| !want.named)
            && !self.kept
            && !other.kept
    }
}

fn fewest(takes: &[Counts]) -> u32 {
    let sums = takes.iter().map(|take| take.iter().sum::<u32>());
    sums.min().unwrap_or(0)
}

/// The cores that a slice surely takes for emulator threads and IOThreads: none where it may find a
/// pool of its tenant's.
pub(crate) fn least_pool(spec: &SliceSpec) -> u32 {
    if spec.shared_pool {
        0
    } else {
        spec.emulator_cores
    }
}

/// Whether two slices that lie nowhere yet ask for the same on every server: all that
/// [`Demand::read`] and the devices' candidates depend on.
pub(crate) fn ask_alike(a: &SliceSpec, b: &SliceSpec) -> bool {
    fn cards(slice: &SliceSpec) -> impl Iterator<Item = (bool, &NicChoice)> {
        slice.nics.iter().filter_map(|nic| match &nic.kind {
            NicKind::Passthrough { device } => Some((true, device)),
            NicKind::Vf { of, .. } => Some((false, of)),
            NicKind::Virtio { .. } => None,
        })
    }
    a.vcpus == b.vcpus
        && a.smt == b.smt
        && a.emulator_cores == b.emulator_cores
        && a.shared_pool == b.shared_pool
        && (!a.shared_pool || a.tenant == b.tenant)
        && a.sharing == b.sharing
        && (!siblings::shares(a) || a.tenant == b.tenant)
        && a.memory == b.memory
        && a.hugepages == b.hugepages
        && a.numa == b.numa
        && a.server == b.server
        && a.apart == b.apart
        && a.selector == b.selector
        && cards(a).eq(cards(b))
}

/// Refuses odd vCPUs that are to share cores of more than two threads, where more than one sibling
/// would be left.
fn wide_cores(spec: &SliceSpec, per_cell: u32, classes: &[usize]) -> Result<(), Refusal> {
    let odd = |threads: &&usize| **threads > 2 && !per_cell.is_multiple_of(narrow(**threads));
    let shares = spec.sharing == Sharing::Tenant;
    match classes.iter().find(odd).filter(|_| shares) {
        None => Ok(()),
        Some(&threads) => Err(Refusal::WideCores {
            slice: spec.name.clone(),
            vcpus: per_cell,
            threads,
        }),
    }
}

/// How many guest cells a slice has.
pub(crate) fn cells(spec: &SliceSpec) -> u32 {
    match spec.numa {
        Numa::Single | Numa::Node(_) => 1,
        Numa::Spread(cells) => cells.max(1),
    }
}

fn page(
    spec: &SliceSpec,
    size: ByteSize,
    server: &Server<'_>,
    memory: &Memory,
) -> Result<usize, Refusal> {
    let mut offered: Vec<ByteSize> = server
        .inventory
        .nodes
        .iter()
        .flat_map(|node| &node.huge_pages)
        .map(|pool| pool.size)
        .collect();
    offered.sort_unstable();
    offered.dedup();
    // An inventory that names no pool at all did not look: that is no reason to refuse.
    let known = offered.is_empty() || offered.contains(&size);
    match memory.sizes.binary_search(&size.bytes()) {
        Ok(page) if known => Ok(page),
        _ => Err(Refusal::NoSuchPage {
            slice: spec.name.clone(),
            size,
            offered,
        }),
    }
}

fn sites(spec: &SliceSpec, server: &Server<'_>) -> Result<Vec<Vec<usize>>, Refusal> {
    let count = server.nodes.len();
    match spec.numa {
        Numa::Single => Ok((0..count).map(|node| vec![node]).collect()),
        Numa::Node(id) => match server.node_index(id) {
            Some(node) => Ok(vec![vec![node]]),
            None => Err(Refusal::NoSuchNode {
                slice: spec.name.clone(),
                node: id,
                nodes: server.nodes.iter().map(|node| node.id).collect(),
            }),
        },
        Numa::Spread(cells) => {
            let cells = cells.max(1) as usize;
            if cells > count {
                return Err(Refusal::SpreadTooWide {
                    slice: spec.name.clone(),
                    cells,
                    nodes: server
                        .nodes
                        .iter()
                        .map(|node| node.id)
                        .collect::<Vec<NumaNodeId>>(),
                });
            }
            if ways(count, cells).is_none_or(|ways| ways * cells > MOST_SITES) {
                return Err(Refusal::Undecided {
                    steps: 0,
                    slices: vec![spec.name.clone()],
                });
            }
            let mut sites = Vec::new();
            combinations(count, cells, &mut Vec::new(), &mut sites);
            if spec.emulator_cores == 0 {
                return Ok(sites);
            }
            // The pool lies with cell 0, so that it matters which node comes first.
            let mut turned = Vec::with_capacity(sites.len() * cells);
            for site in sites {
                for first in 0..cells {
                    let mut nodes = vec![site[first]];
                    nodes.extend(
                        site.iter()
                            .enumerate()
                            .filter(|(i, _)| *i != first)
                            .map(|(_, n)| *n),
                    );
                    turned.push(nodes);
                }
            }
            turned.sort_unstable();
            Ok(turned)
        }
    }
}

/// How many choices there are of so many out of `count`; `None` beyond all bounds.
fn ways(count: usize, size: usize) -> Option<usize> {
    let size = size.min(count - size);
    (0..size).try_fold(1usize, |ways, at| {
        Some(ways.checked_mul(count - at)? / (at + 1))
    })
}

/// Every choice of `size` of the numbers below `count`, in ascending order.
fn combinations(count: usize, size: usize, chosen: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
    if chosen.len() == size {
        all.push(chosen.clone());
        return;
    }
    for next in chosen.last().map_or(0, |last| last + 1)..count {
        chosen.push(next);
        combinations(count, size, chosen, all);
        chosen.pop();
    }
}

/// Ways to have so many vCPUs.
pub(crate) fn vcpu_takes(vcpus: u32, smt: Smt, classes: &[usize]) -> Vec<Counts> {
    match smt {
        Smt::Isolate => mixes(vcpus, classes),
        // The guest's cores mirror the host's, so all of a cell's are of one kind.
        Smt::Pack => (0..classes.len())
            .map(|class| {
                let mut take = vec![0; classes.len()];
                take[class] = vcpus.div_ceil(narrow(classes[class]));
                take
            })
            .collect(),
        Smt::Any => {
            let mut takes = Vec::new();
            fill(vcpus, classes, &mut Vec::new(), &mut takes);
            takes
        }
    }
}

/// Ways to take so many cores of whatever class; those that waste the fewest threads first.
fn mixes(cores: u32, classes: &[usize]) -> Vec<Counts> {
    fn go(left: u32, classes: &[usize], take: &mut Counts, all: &mut Vec<Counts>) {
        if all.len() >= MOST_TAKES {
            return;
        }
        if take.len() + 1 == classes.len() {
            take.push(left);
            all.push(take.clone());
            take.pop();
            return;
        }
        // Classes with many threads come first: start with none of them.
        for count in 0..=left {
            if all.len() >= MOST_TAKES {
                return;
            }
            take.push(count);
            go(left - count, classes, take, all);
            take.pop();
        }
    }
    let mut all = Vec::new();
    go(cores, classes, &mut Vec::new(), &mut all);
    all
}

/// Ways to have so many threads in whole cores, none of them superfluous.
fn fill(vcpus: u32, classes: &[usize], take: &mut Counts, all: &mut Vec<Counts>) {
    if all.len() >= MOST_TAKES {
        return;
    }
    let threads = narrow(classes[take.len()]);
    let most = vcpus.div_ceil(threads);
    if take.len() + 1 == classes.len() {
        take.push(most);
        all.push(take.clone());
        take.pop();
        return;
    }
    for count in (0..=most).rev() {
        if all.len() >= MOST_TAKES {
            return;
        }
        take.push(count);
        fill(vcpus.saturating_sub(count * threads), classes, take, all);
        take.pop();
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_on_one_class_are_single() {
        assert_eq!(vcpu_takes(8, Smt::Pack, &[2]), [[4]]);
        assert_eq!(vcpu_takes(7, Smt::Pack, &[2]), [[4]]);
        assert_eq!(vcpu_takes(8, Smt::Isolate, &[2]), [[8]]);
        assert_eq!(vcpu_takes(5, Smt::Any, &[2]), [[3]]);
        assert_eq!(vcpu_takes(5, Smt::Pack, &[1]), [[5]]);
        assert_eq!(mixes(0, &[2]), [[0]]);
    }

    #[test]
    fn takes_on_two_classes_never_hold_a_superfluous_core() {
        assert_eq!(vcpu_takes(4, Smt::Pack, &[2, 1]), [[2, 0], [0, 4]]);
        assert_eq!(mixes(2, &[2, 1]), [[0, 2], [1, 1], [2, 0]]);
        assert_eq!(vcpu_takes(3, Smt::Any, &[2, 1]), [[2, 0], [1, 1], [0, 3]]);
    }

    #[test]
    fn combinations_are_all_and_ordered() {
        let mut all = Vec::new();
        combinations(4, 2, &mut Vec::new(), &mut all);
        assert_eq!(all, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
    }
}
