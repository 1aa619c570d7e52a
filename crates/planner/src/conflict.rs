//! Which requirements cannot hold together (planning rule 10).
//!
//! Takes slices that have no placement; leaves out slices, then requirements, as long as there is
//! still none, and says what remains. So that nothing in the message could be dropped from it.

use bmslice_model::{ByteSize, SliceName};
use bmslice_spec::{NicChoice, NicKind, Numa, SliceSpec};

use crate::decide::{self, Answer};
use crate::demand::{Counts, Demand};
use crate::devices::Near;
use crate::ground::Ground;
use crate::headroom;
use crate::problem::{Keep, Site};
use crate::refusal::{Refusal, slice_named};
use crate::search::Relax;
use crate::text::{and, count, ticked};

/// Steps for one question of the many that are asked here.
const STEPS: u64 = 20_000;

/// The refusal of slices without a placement. Which of them stay (`kept`) was seen already.
///
/// What a server can give depends on how many guests are on it, since the host keeps memory for
/// each: so the server is read anew for every set of slices that is asked about.
pub(crate) fn explain(
    slices: &[&SliceSpec],
    ground: &Ground<'_>,
    keep: Keep,
    kept: &[bool],
) -> Result<Refusal, Refusal> {
    let impossible = |asked: &[usize]| {
        Part::read(slices, ground, keep, kept, asked)
            .is_ok_and(|part| part.is_impossible(Relax::default()))
    };
    let mut core: Vec<usize> = (0..first_clash(slices.len(), &impossible)).collect();
    // From the end, but for the last, with which it began: those that remain are the first of the
    // file that clash.
    for at in (0..core.len().saturating_sub(1)).rev() {
        let without: Vec<usize> = core.iter().copied().filter(|&other| other != at).collect();
        if impossible(&without) {
            core = without;
        }
    }
    let part = Part::read(slices, ground, keep, kept, &core)?;
    let Part {
        slices: spec,
        site,
        asked: core,
    } = &part;
    let mut relax = Relax::default();
    for leave_out in [
        |relax: &mut Relax| relax.headroom = true,
        |relax: &mut Relax| relax.devices = true,
        |relax: &mut Relax| relax.memory = true,
        |relax: &mut Relax| relax.cores = true,
    ] {
        let mut more = relax;
        leave_out(&mut more);
        if more.headroom && site.problem.headroom == 0 {
            continue;
        }
        if part.is_impossible(more) {
            relax = more;
        }
    }
    let names: Vec<SliceName> = core.iter().map(|&at| spec[at].name.clone()).collect();
    let asked = and(alike(core.iter().map(|&at| needs(spec, site, at, relax))));
    let mut there = Vec::new();
    if !relax.cores {
        there.push(cores_there(spec, site));
    }
    if site.problem.headroom > 0 && !relax.headroom && !relax.cores {
        there.push(headroom::asked(&site.problem));
    }
    if !relax.memory {
        there.push(memory_there(site, core));
    }
    if !relax.devices {
        there.push(devices_there(spec, site, core));
    }
    Ok(Refusal::NoRoom {
        slices: names,
        asked,
        there: there.join("; "),
        change: None,
    })
}

/// How many of the first slices clash already; of those before the last all have a place.
fn first_clash(slices: usize, impossible: &dyn Fn(&[usize]) -> bool) -> usize {
    let (mut low, mut high) = (0, slices);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        let first: Vec<usize> = (0..middle).collect();
        if impossible(&first) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// Some of the slices, and the server with these and what stays.
struct Part<'a> {
    slices: Vec<&'a SliceSpec>,
    site: Site<'a>,
    /// Those that are asked about; the others only stay.
    asked: Vec<usize>,
}

impl<'a> Part<'a> {
    fn read(
        slices: &[&'a SliceSpec],
        ground: &'a Ground<'a>,
        keep: Keep,
        kept: &[bool],
        asked: &[usize],
    ) -> Result<Self, Refusal> {
        let mut is_asked = vec![false; slices.len()];
        for &at in asked {
            is_asked[at] = true;
        }
        let all: Vec<usize> = (0..slices.len())
            .filter(|&at| is_asked[at] || kept[at])
            .collect();
        let slices: Vec<&SliceSpec> = all.iter().map(|&at| slices[at]).collect();
        Ok(Self {
            site: Site::read(ground, &slices, keep)?,
            asked: (0..all.len()).filter(|&at| is_asked[all[at]]).collect(),
            slices,
        })
    }

    fn is_impossible(&self, relax: Relax) -> bool {
        decide::decide(&self.site.problem, &self.asked, relax, STEPS) == Answer::Impossible
    }
}

/// What one slice needs.
struct Needs {
    slice: SliceName,
    /// `stays` or `needs`; the same of several.
    does: (&'static str, &'static str),
    what: String,
}

/// More slices than this that need the same are told as one.
const MOST_TOLD: usize = 3;

/// Those that need the same together, where they are many.
fn alike(all: impl Iterator<Item = Needs>) -> Vec<String> {
    let mut groups: Vec<Vec<Needs>> = Vec::new();
    for one in all {
        let same = |group: &&mut Vec<Needs>| {
            let first = &group[0];
            first.does == one.does && first.what == one.what
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let mut said = Vec::new();
    for group in groups {
        if let [first, second, .., last] = group.as_slice()
            && group.len() > MOST_TOLD
        {
            said.push(format!(
                "{} slices (`{}`, `{}`, … `{}`) each {} {}",
                group.len(),
                first.slice,
                second.slice,
                last.slice,
                first.does.1,
                first.what
            ));
        } else {
            said.extend(
                group
                    .iter()
                    .map(|one| format!("{} {} {}", slice_named(&one.slice), one.does.0, one.what)),
            );
        }
    }
    said
}

/// What one slice needs, as far as it matters.
fn needs(spec: &[&SliceSpec], site: &Site<'_>, at: usize, relax: Relax) -> Needs {
    let (slice, demand) = (spec[at], &site.problem.demands[at]);
    if demand.kept {
        let nodes = and(demand.sites[0]
            .iter()
            .map(|&node| site.server.nodes[node].id));
        return Needs {
            slice: slice.name.clone(),
            does: ("stays", "stay"),
            what: format!("on node {nodes}"),
        };
    }
    let mut parts = Vec::new();
    if !relax.cores {
        parts.push(cores_needed(site, slice, demand) + &may_share(slice, demand));
    }
    if !relax.memory {
        let kind = match slice.hugepages {
            Some(size) => format!("in huge pages of {size}"),
            None => "of memory".into(),
        };
        let cells = demand.sites.first().map_or(1, Vec::len) as u64;
        let each = ByteSize::from_bytes(slice.memory.bytes() / cells);
        let each_of = if cells > 1 { " each" } else { "" };
        parts.push(format!(
            "{each} {kind}{}{each_of}",
            place(slice, parts.is_empty())
        ));
    }
    if !relax.devices {
        parts.extend(demand.wants.iter().map(|want| {
            let what = if want.whole {
                "a whole NIC"
            } else {
                "a virtual function"
            };
            match want.near {
                Near::Must => format!("{what} on its NUMA node"),
                Near::Should | Near::Any => what.to_owned(),
            }
        }));
    }
    Needs {
        slice: slice.name.clone(),
        does: ("needs", "need"),
        what: and(parts),
    }
}

fn place(slice: &SliceSpec, first: bool) -> String {
    match slice.numa {
        _ if !first => " there".into(),
        Numa::Single => " on one NUMA node".into(),
        Numa::Node(node) => format!(" on node {node}"),
        Numa::Spread(cells) => format!(" on {cells} NUMA nodes"),
    }
}

fn cores_needed(site: &Site<'_>, slice: &SliceSpec, demand: &Demand) -> String {
    let classes = &site.server.classes;
    let (first, other) = demand.fewest_alone();
    match (slice.numa, classes.as_slice()) {
        (Numa::Spread(cells), _) if cells > 1 => {
            if first == other {
                return format!("{} on each of {cells} NUMA nodes", whole_cores(first));
            }
            format!(
                "{} on one NUMA node and {other} on {}",
                whole_cores(first),
                if cells == 2 {
                    "another".into()
                } else {
                    format!("each of {}", count(cells - 1, "other"))
                },
            )
        }
        (_, [_]) => format!("{}{}", whole_cores(first), place(slice, true)),
        // Cores of several kinds: say each way to have them.
        _ => {
            let pool: u32 = demand
                .pool
                .iter()
                .map(|pool| pool.iter().sum())
                .min()
                .unwrap_or(0);
            let ways: Vec<String> = demand
                .vcpus
                .iter()
                .map(|take| kinds(take, classes))
                .collect();
            let more = if pool > 0 {
                format!(", and {pool} more,")
            } else {
                String::new()
            };
            format!(
                "{} for its vCPUs{more}{}",
                ways.join(" or "),
                place(slice, true)
            )
        }
    }
}

/// Which of its cores others of the tenant may have, too: those of a pool that all of it use, and
/// that of an odd vCPU.
fn may_share(slice: &SliceSpec, demand: &Demand) -> String {
    let tenant = &slice.tenant;
    let pool = match (demand.shared, slice.emulator_cores) {
        (None, _) => None,
        (Some(_), 1) => Some(format!("1 of which is the pool of tenant `{tenant}`")),
        (Some(_), cores) => Some(format!(
            "{cores} of which are the pool of tenant `{tenant}`"
        )),
    };
    let odd = match (demand.odd, &pool, demand.fewest_alone()) {
        (None, ..) => None,
        (Some(_), Some(_), _) => Some("1 may be shared within it".to_owned()),
        (Some(_), None, (1, _)) => Some(format!("which may be shared within tenant `{tenant}`")),
        (Some(_), None, _) => Some(format!(
            "one of which may be shared within tenant `{tenant}`"
        )),
    };
    if pool.is_none() && odd.is_none() {
        return String::new();
    }
    format!(", {}", and(pool.into_iter().chain(odd)))
}

fn whole_cores(cores: u32) -> String {
    count(cores, "whole core")
}

/// `4 whole cores of 2 threads and 1 of 1`.
fn kinds(take: &Counts, classes: &[usize]) -> String {
    let kinds = take.iter().zip(classes).filter(|(count, _)| **count > 0);
    and(kinds.map(|(cores, threads)| {
        format!("{} of {}", whole_cores(*cores), count(*threads, "thread"))
    }))
}

fn cores_there(spec: &[&SliceSpec], site: &Site<'_>) -> String {
    let classes = &site.server.classes;
    let nodes = site.server.nodes.iter().zip(&site.problem.cores);
    let each: Vec<String> = nodes
        .enumerate()
        .map(|(at, (node, free))| {
            let all: u32 = free.iter().sum();
            let what = if classes.len() > 1 && all > 0 {
                format!("{} free", kinds(free, classes))
            } else if at == 0 {
                format!("{all} free")
            } else {
                all.to_string()
            };
            let open: u32 = site.problem.open[at].iter().sum();
            let open = match open {
                0 => String::new(),
                open => format!(" and {} of odd vCPUs", count(open, "free sibling")),
            };
            let stays: Vec<String> = spec
                .iter()
                .zip(&site.kept)
                .filter(|(_, kept)| kept.iter().flatten().any(|place| place.node == at))
                .map(|(slice, _)| ticked(&slice.name))
                .collect();
            let beside = match stays.len() {
                0 => String::new(),
                1 => format!(" beside {}, which stays there", and(stays)),
                _ => format!(" beside {}, which stay there", and(stays)),
            };
            format!("node {} has {what}{open}{beside}", node.id)
        })
        .collect();
    each.join(", ")
}

fn memory_there(site: &Site<'_>, core: &[usize]) -> String {
    let memory = &site.problem.memory;
    let mut pages: Vec<Option<usize>> = core
        .iter()
        .map(|&at| site.problem.demands[at].page)
        .collect();
    pages.sort_unstable();
    pages.dedup();
    let nodes = site.server.nodes.iter().enumerate().map(|(at, node)| {
        let room = and(pages.iter().map(|page| match page {
            Some(size) => format!(
                "{} in pages of {}",
                memory.most(at, Some(*size)),
                ByteSize::from_bytes(memory.sizes[*size])
            ),
            None => memory.most(at, None).to_string(),
        }));
        if !memory.nodes[at].allowed {
            return format!(
                "node {} can give none (a cpuset keeps its memory away)",
                node.id
            );
        }
        let kept = ByteSize::from_bytes(memory.nodes[at].kept);
        format!("node {} can give {room} (the host keeps {kept})", node.id)
    });
    nodes.collect::<Vec<_>>().join(", ")
}

/// The NICs that are free and not given for their speed; `None` where no speed was asked or none is
/// free.
fn slow(spec: &[&SliceSpec], site: &Site<'_>, core: &[usize]) -> Option<String> {
    let mut nics = core.iter().flat_map(|&at| &spec[at].nics);
    let asked = nics.any(|nic| match &nic.kind {
        NicKind::Passthrough { device: choice } | NicKind::Vf { of: choice, .. } => {
            matches!(choice, NicChoice::Need { speed: Some(_), .. })
        }
        NicKind::Virtio { .. } => false,
    });
    let free = site.devices.pfs.iter().filter(|pf| {
        let vfs = pf.split.is_ok() && !pf.vfs.is_empty();
        pf.function.host_needs.is_empty() && (pf.whole.is_ok() || vfs)
    });
    let each: Vec<String> = free
        .map(|pf| match pf.speed {
            Some(speed) => format!("{} makes {speed} Mbit/s", pf.label()),
            None => format!("{} has no link, and its driver tells no speed", pf.label()),
        })
        .collect();
    (asked && !each.is_empty()).then(|| and(each.iter()))
}

fn devices_there(spec: &[&SliceSpec], site: &Site<'_>, core: &[usize]) -> String {
    let mut pfs: Vec<usize> = core
        .iter()
        .flat_map(|&at| &site.problem.demands[at].wants)
        .flat_map(|want| want.candidates.iter().copied())
        .collect();
    pfs.sort_unstable();
    pfs.dedup();
    if pfs.is_empty() {
        return match slow(spec, site, core) {
            Some(slow) => format!("no NIC that is free is known to be as fast: {slow}"),
            None => "no NIC fits that is not the host's or in use".into(),
        };
    }
    let each = pfs.iter().map(|&at| {
        let pf = &site.devices.pfs[at];
        let vfs = match pf.vfs.len() {
            0 => String::new(),
            some => format!(" with {}", count(some, "virtual function")),
        };
        match pf.node {
            Some(node) => format!("{}{vfs} on node {node}", pf.label()),
            None => format!("{}{vfs} on a node that firmware does not tell", pf.label()),
        }
    });
    format!("there is {}", and(each))
}
