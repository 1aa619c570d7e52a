//! So many CPUs of a server, wherever they lie: what kubelet's static policy gives a container.
//!
//! Takes a server's cores and a number; gives the CPUs that touch the fewest sockets, then the
//! fewest NUMA nodes, L3 domains and cores, then leave the least scattered behind, then have the
//! lowest numbers. For guests without NUMA cells, and so that the two can be compared.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::CpuId;

use super::pins::CoreShape;

/// A core and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Number of its socket.
    pub socket: usize,
    /// Number of its NUMA node.
    pub node: usize,
    /// Its free threads.
    pub core: CoreShape,
}

/// Ways that are looked at, where there are very many.
const MOST_WAYS: usize = 1 << 14;

/// Cores that share socket, node and L3 domain.
struct Domain {
    socket: usize,
    node: usize,
    cpus: usize,
    cores: Vec<usize>,
}

/// Takes so many CPUs; `None` when there are fewer.
#[must_use]
pub fn take_loose(cores: &[Located], count: usize) -> Option<Vec<CpuId>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let mut by_place: BTreeMap<(usize, usize, usize), Vec<usize>> = BTreeMap::new();
    for (at, core) in cores.iter().enumerate() {
        if !core.core.threads.is_empty() {
            let place = (core.socket, core.node, core.core.l3);
            by_place.entry(place).or_default().push(at);
        }
    }
    let domains: Vec<Domain> = by_place
        .into_iter()
        .map(|((socket, node, _), members)| Domain {
            socket,
            node,
            cpus: members.iter().map(|&at| cores[at].core.threads.len()).sum(),
            cores: members,
        })
        .collect();
    let groups: Vec<(usize, usize)> = domains
        .iter()
        .map(|domain| (domain.socket, domain.node))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let room: Vec<usize> = groups
        .iter()
        .map(|group| {
            let here = domains.iter().filter(|d| (d.socket, d.node) == *group);
            here.map(|domain| domain.cpus).sum()
        })
        .collect();
    let mut ways = Vec::new();
    for size in 1..=groups.len() {
        subsets(&room, size, count, &mut |chosen| {
            let sockets: BTreeSet<usize> = chosen.iter().map(|&g| groups[g].0).collect();
            let nodes: BTreeSet<usize> = chosen.iter().map(|&g| groups[g].1).collect();
            ways.push((sockets.len(), nodes.len(), chosen.to_vec()));
        });
    }
    let least = ways
        .iter()
        .map(|&(sockets, nodes, _)| (sockets, nodes))
        .min()?;
    let best = ways
        .into_iter()
        .filter(|&(sockets, nodes, _)| (sockets, nodes) == least)
        .filter_map(|(_, _, chosen)| {
            let of: Vec<&Domain> = domains
                .iter()
                .filter(|d| chosen.iter().any(|&g| groups[g] == (d.socket, d.node)))
                .collect();
            fewest_domains(cores, &of, count)
        })
        .min()?;
    let mut cpus = best.cpus;
    cpus.sort_unstable();
    Some(cpus)
}

/// A way to take them, best first in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    domains: usize,
    cores: usize,
    /// CPUs left in the domains that are touched.
    left: usize,
    cpus: Vec<CpuId>,
}

/// The CPUs of these domains that touch the fewest of them, then the fewest cores.
fn fewest_domains(cores: &[Located], domains: &[&Domain], count: usize) -> Option<Way> {
    let room: Vec<usize> = domains.iter().map(|domain| domain.cpus).collect();
    for size in 1..=domains.len() {
        let mut best: Option<Way> = None;
        subsets(&room, size, count, &mut |chosen| {
            let mut of: Vec<usize> = chosen
                .iter()
                .flat_map(|&d| domains[d].cores.clone())
                .collect();
            let (number, cpus) = fewest_cores(cores, &mut of, count);
            let way = Way {
                domains: size,
                cores: number,
                left: chosen.iter().map(|&d| room[d]).sum::<usize>() - count,
                cpus,
            };
            if best.as_ref().is_none_or(|best| way < *best) {
                best = Some(way);
            }
        });
        if best.is_some() {
            return best;
        }
    }
    None
}

/// The CPUs of the fewest of these cores: those with many first, and of the last no more than it
/// takes, a broken one if that will do.
fn fewest_cores(cores: &[Located], of: &mut Vec<usize>, count: usize) -> (usize, Vec<CpuId>) {
    let threads = |at: usize| &cores[at].core.threads;
    of.sort_by_key(|&at| (std::cmp::Reverse(threads(at).len()), threads(at)[0]));
    let mut left = count;
    let mut number = 0;
    let mut cpus = Vec::new();
    while left > 0 {
        let whole = of.iter().position(|&at| threads(at).len() <= left);
        // Nothing is small enough: the smallest that there is gives a part.
        let Some(at) = whole.or(of.len().checked_sub(1)) else {
            break;
        };
        let smallest = threads(of[at]).len();
        let first = of
            .iter()
            .position(|&at| threads(at).len() == smallest)
            .unwrap_or(at);
        let core = of.remove(first);
        let part = threads(core).len().min(left);
        cpus.extend(&threads(core)[..part]);
        left -= part;
        number += 1;
    }
    cpus.sort_unstable();
    (number, cpus)
}

/// Calls for each choice of so many that together have the room; for at most [`MOST_WAYS`].
fn subsets(room: &[usize], size: usize, count: usize, found: &mut impl FnMut(&[usize])) {
    /// What is still to choose, and from where on.
    struct Choice<'r, F> {
        room: &'r [usize],
        ways: usize,
        chosen: Vec<usize>,
        found: F,
    }
    impl<F: FnMut(&[usize])> Choice<'_, F> {
        fn go(&mut self, from: usize, size: usize, count: usize) {
            if size == 0 {
                if count == 0 {
                    (self.found)(&self.chosen);
                }
                return;
            }
            for at in from..self.room.len() {
                if self.ways == 0 || self.room.len() - at < size {
                    return;
                }
                // What cannot reach the number any more is not looked at.
                let mut rest: Vec<usize> = self.room[at + 1..].to_vec();
                rest.sort_unstable_by(|a, b| b.cmp(a));
                let most: usize = self.room[at] + rest.iter().take(size - 1).sum::<usize>();
                if most < count {
                    continue;
                }
                self.ways -= 1;
                self.chosen.push(at);
                self.go(at + 1, size - 1, count.saturating_sub(self.room[at]));
                self.chosen.pop();
            }
        }
    }
    let mut choice = Choice {
        room,
        ways: MOST_WAYS,
        chosen: Vec::new(),
        found,
    };
    choice.go(0, size, count);
}
