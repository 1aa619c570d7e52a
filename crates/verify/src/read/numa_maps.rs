//! The memory of a process from `/proc/PID/numa_maps` (which pages sit on which node, by policy)
//! and `/proc/PID/maps` (how long each mapping is, touched or not): proc(5),
//! Documentation/admin-guide/mm/numaperf.rst and mm/mempolicy.c of the kernel.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::{ByteSize, CpuSet, NumaNodeId};

/// Where the kernel takes the pages of a mapping from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Only these nodes.
    Bind(BTreeSet<NumaNodeId>),
    /// `default`, `prefer:0`, `interleave:0-1`, …: no promise.
    Loose(String),
}

/// One mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Where it starts.
    pub start: u64,
    /// How long it is, when `maps` told.
    pub length: Option<ByteSize>,
    /// Its policy.
    pub policy: Policy,
    /// What is mapped, `\040` for a blank as the kernel writes it; `None` for anonymous memory.
    pub file: Option<String>,
    /// Whether it is of hugetlb pages.
    pub huge: bool,
    /// The size of its pages (`kernelpagesize_kB`); 4 KiB when nothing of it was touched yet and
    /// the kernel did not say.
    pub page: ByteSize,
    /// Touched bytes by node.
    pub touched: BTreeMap<NumaNodeId, ByteSize>,
}

impl Mapping {
    /// Touched bytes of all nodes.
    #[must_use]
    pub fn touched_total(&self) -> ByteSize {
        ByteSize::from_bytes(self.touched.values().map(|size| size.bytes()).sum())
    }
}

/// A list of nodes has the form of a list of CPUs.
fn nodes(list: &str) -> Option<BTreeSet<NumaNodeId>> {
    let numbers: CpuSet = list.parse().ok()?;
    Some(numbers.iter().map(|n| NumaNodeId(n.number())).collect())
}

fn policy(text: &str) -> Policy {
    // `bind:0`, `bind=static:0`, `bind=relative:0-1`.
    text.strip_prefix("bind")
        .and_then(|rest| rest.split_once(':'))
        .and_then(|(_, list)| nodes(list))
        .map_or_else(|| Policy::Loose(text.into()), Policy::Bind)
}

/// The mappings of a process. Lines that are of no known form are left out: a mapping of guest
/// memory that is missing shows as memory that is missing.
#[must_use]
pub fn parse(numa_maps: &str, maps: &str) -> Vec<Mapping> {
    let lengths: BTreeMap<u64, u64> = maps
        .lines()
        .filter_map(|line| {
            let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            Some((start, end.checked_sub(start)?))
        })
        .collect();
    numa_maps
        .lines()
        .filter_map(|line| mapping(line, &lengths))
        .collect()
}

fn mapping(line: &str, lengths: &BTreeMap<u64, u64>) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace().peekable();
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    // `prefer (many):0` and `weighted interleave:0` are two words.
    let mut name = words.next()?.to_owned();
    if name == "weighted" || words.peek().is_some_and(|word| word.starts_with('(')) {
        name = format!("{name} {}", words.next()?);
    }
    let mut mapping = Mapping {
        start,
        length: lengths.get(&start).copied().map(ByteSize::from_bytes),
        policy: policy(&name),
        file: None,
        huge: false,
        page: ByteSize::from_kib(4),
        touched: BTreeMap::new(),
    };
    let mut pages: BTreeMap<NumaNodeId, u64> = BTreeMap::new();
    for word in words {
        match word.split_once('=') {
            None if word == "huge" => mapping.huge = true,
            Some(("file", path)) => mapping.file = Some(path.into()),
            Some(("kernelpagesize_kB", kib)) => {
                mapping.page = ByteSize::from_kib(kib.parse().ok()?);
            }
            Some((key, count)) => {
                if let Some(node) = key.strip_prefix('N').and_then(|n| n.parse().ok()) {
                    pages.insert(NumaNodeId(node), count.parse().ok()?);
                }
            }
            None => {}
        }
    }
    for (node, count) in pages {
        let bytes = count.saturating_mul(mapping.page.bytes());
        mapping.touched.insert(node, ByteSize::from_bytes(bytes));
    }
    Some(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NUMA_MAPS: &str = "\
55d0c7a00000 default file=/usr/bin/qemu-system-x86_64 mapped=412 N0=300 N1=112 kernelpagesize_kB=4
55d0c9000000 default heap anon=1024 dirty=1024 N0=1024 kernelpagesize_kB=4
7f0000000000 bind:0 file=/memfd:memory-backend-memfd\\040(deleted) huge dirty=2 N0=2 kernelpagesize_kB=1048576
7f0100000000 bind=static:0-1 anon=10 dirty=10 active=0 N1=10 kernelpagesize_kB=4
7f0200000000 prefer (many):0 anon=1 dirty=1 N0=1 kernelpagesize_kB=4
7f0300000000 bind:1 file=/memfd:memory-backend-memfd\\040(deleted) huge
not a mapping
";
    const MAPS: &str = "\
7f0000000000-7f00c0000000 rw-s 00000000 00:01 1234                       /memfd:memory-backend-memfd (deleted)
7f0300000000-7f0380000000 rw-s 00000000 00:01 1235                       /memfd:memory-backend-memfd (deleted)
";

    #[test]
    fn reads_policy_page_size_nodes_and_length() {
        let all = parse(NUMA_MAPS, MAPS);
        assert_eq!(all.len(), 6);
        let ram = &all[2];
        assert_eq!(ram.policy, Policy::Bind([NumaNodeId(0)].into()));
        assert!(ram.huge && ram.page == ByteSize::from_gib(1));
        assert_eq!(ram.length, Some(ByteSize::from_gib(3)));
        assert_eq!(
            ram.touched_total(),
            ByteSize::from_gib(2),
            "one page was not touched yet"
        );
        assert_eq!(all[0].touched[&NumaNodeId(1)], ByteSize::from_kib(448));
        assert_eq!(
            all[3].policy,
            Policy::Bind([NumaNodeId(0), NumaNodeId(1)].into())
        );
        assert_eq!(all[4].policy, Policy::Loose("prefer (many):0".into()));
        assert_eq!(all[4].touched_total(), ByteSize::from_kib(4));
        assert!(all[5].huge && all[5].touched.is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            a in "([0-9a-f]{1,18} )?[a-z(=:]{0,12}( [a-zN0-9=:]{0,24}){0,4}",
            b in "[0-9a-f]{0,18}-[0-9a-f]{0,18} \\PC{0,20}",
        ) {
            let _ = parse(&a, &b);
        }
    }
}
