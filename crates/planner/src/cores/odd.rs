//! Where the odd vCPU of a cell lies, when it may share its core with another one of its tenant.
//!
//! Takes L3 domains with their free cores and open siblings; gives the ways to have a cell's vCPUs,
//! and whether what is left suffices for the rest. Keeps true: since that is asked before a core is
//! opened although a sibling is open, what passed by counts is always found.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use super::{CellNeed, Domain, Part, holds};
use crate::siblings::Odd;

/// The core of an odd vCPU that may share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OddCore {
    /// One of the free cores, of which it leaves the sibling to others.
    Own(usize),
    /// One of the free cores, beside another cell of the same node that has opened it.
    Beside(usize),
    /// Beside a slice that stays, by number among the tenant's open siblings of this node.
    Open(usize),
}

/// Where an odd vCPU lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lies {
    pub domain: usize,
    /// Whether it has a sibling that was open; else it opens a core.
    pub beside: bool,
}

impl Lies {
    /// The core that it opens.
    pub fn opened(self, odd: Odd) -> Part {
        let mut counts = vec![0; odd.class + 1];
        counts[odd.class] = 1;
        Part {
            domain: self.domain,
            counts,
        }
    }
}

/// The domains of a cell's vCPUs, with that of the odd one.
pub(super) fn with(vcpus: &[Part], odd: Option<Lies>) -> Cow<'_, [Part]> {
    let Some(odd) = odd.filter(|odd| !holds(vcpus, odd.domain)) else {
        return Cow::Borrowed(vcpus);
    };
    let mut parts = vcpus.to_vec();
    parts.push(Part {
        domain: odd.domain,
        counts: Vec::new(),
    });
    Cow::Owned(parts)
}

/// Ways to have a cell's vCPUs: those of fewer domains first, then those that open no core.
pub(super) fn ways(domains: &[Domain], need: &CellNeed) -> Vec<(Vec<Part>, Option<Lies>)> {
    let Some(odd) = need.odd else {
        let ways = super::ways(domains, &need.vcpus);
        return ways.into_iter().map(|parts| (parts, None)).collect();
    };
    let mut whole = need.vcpus.clone();
    whole[odd.class] -= 1;
    let mut all = Vec::new();
    for parts in super::ways(domains, &whole) {
        let mut others: Vec<usize> = Vec::new();
        for (at, domain) in domains.iter().enumerate() {
            let like = |&other: &usize| domains[other].is_like(domain);
            let here = holds(&parts, at);
            if domain.open[odd.tenant] == 0 || (!here && others.iter().any(like)) {
                continue;
            }
            if !here {
                others.push(at);
            }
            let lies = Lies {
                domain: at,
                beside: true,
            };
            all.push((parts.clone(), Some(lies)));
        }
    }
    for mut parts in super::ways(domains, &need.vcpus) {
        // In the last of its domains, as where none is shared.
        let last = parts.iter_mut().rev();
        let Some(last) = last.into_iter().find(|part| part.counts[odd.class] > 0) else {
            continue;
        };
        last.counts[odd.class] -= 1;
        let lies = Lies {
            domain: last.domain,
            beside: false,
        };
        parts.retain(|part| part.counts.iter().any(|&n| n > 0));
        all.push((parts, Some(lies)));
    }
    all.sort_by_key(|(parts, odd)| {
        let opens = odd.is_some_and(|odd| !odd.beside);
        (with(parts, *odd).len(), opens)
    });
    all
}

/// The cores of two threads that are left when all cells have what they need, where odd vCPUs share
/// as many as can be; `None` when they do not suffice, or none of the cells shares.
pub(super) fn spare(needs: &[CellNeed], domains: &[Domain]) -> Option<u32> {
    left_over(needs, needs, domains)
}

/// As [`spare`], where the first of the rest has its vCPUs already, and only its pool is to come.
pub(super) fn spare_after(rest: &[CellNeed], domains: &[Domain]) -> Option<u32> {
    left_over(rest, rest.get(1..)?, domains)
}

fn left_over(pools: &[CellNeed], vcpus: &[CellNeed], domains: &[Domain]) -> Option<u32> {
    let class = pools.iter().find_map(|need| need.odd)?.class;
    let free: u32 = domains.iter().map(|domain| domain.free[class]).sum();
    let mut needed: u32 = pools.iter().map(|need| need.pool[class]).sum();
    let mut odds: BTreeMap<usize, u32> = BTreeMap::new();
    for need in vcpus {
        needed += need.vcpus[class];
        if let Some(odd) = need.odd {
            needed -= 1;
            *odds.entry(odd.tenant).or_default() += 1;
        }
    }
    for (tenant, odds) in odds {
        let open: u32 = domains.iter().map(|domain| domain.open[tenant]).sum();
        needed += odds.saturating_sub(open).div_ceil(2);
    }
    free.checked_sub(needed)
}

/// The siblings that are open, by domain and tenant, those of slices that stay first.
#[derive(Debug, Default)]
pub(super) struct Siblings(BTreeMap<(usize, usize), VecDeque<OddCore>>);

impl Siblings {
    pub fn of(domains: &[Domain], open: &[Vec<usize>]) -> Self {
        let mut siblings = Self::default();
        for (tenant, l3s) in open.iter().enumerate() {
            for (number, l3) in l3s.iter().enumerate() {
                if let Some(at) = domains.iter().position(|domain| domain.l3 == *l3) {
                    let there = siblings.0.entry((at, tenant)).or_default();
                    there.push_back(OddCore::Open(number));
                }
            }
        }
        siblings
    }

    pub fn take(&mut self, domain: usize, tenant: usize) -> Option<OddCore> {
        self.0.get_mut(&(domain, tenant))?.pop_front()
    }

    /// A cell has opened a core and leaves its sibling.
    pub fn leave(&mut self, domain: usize, tenant: usize, core: usize) {
        let there = self.0.entry((domain, tenant)).or_default();
        there.push_back(OddCore::Beside(core));
    }
}
