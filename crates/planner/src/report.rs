//! Why a plan is as it is, and what it costs.
//!
//! Takes the placement and the plan's parts; gives findings: the host's first, then each slice's.
//! Codes are stable, texts are for people. A reason is an `Info`, a cost that nobody asked for a
//! `Warning`.

use bmslice_model::{CpuSet, NumaNodeId, SliceName};
use bmslice_plan::{Finding, Level, Plan, PlanParts, Report, SlicePlan};
use bmslice_spec::{Numa, SliceSpec, Slicing, Smt, VcpuOrder};

use crate::best::Best;
use crate::devices::Near;
use crate::function::Pf;
use crate::kinds::{self, Used};
use crate::layout::CellPlace;
use crate::problem::Site;
use crate::text::{and, count, cpus};

mod cards;
mod chosen;
mod host;
mod prices;
mod siblings;

/// All findings.
pub(crate) fn report(
    spec: &Slicing,
    site: &Site<'_>,
    best: &Best,
    places: &[Vec<CellPlace>],
    parts: &PlanParts,
    previous: Option<&Plan>,
) -> Report {
    let mut notes = Notes::default();
    host::told(spec, site, best, parts, previous, &mut notes);
    let domains = chosen::domains(&site.server);
    for (at, (slice, planned)) in spec.slices.iter().zip(&parts.slices).enumerate() {
        notes.about = Some(slice.name.clone());
        placed(site, best, parts, at, slice, planned, &mut notes);
        if !site.problem.demands[at].kept {
            let (server, places) = (&site.server, &places[at]);
            chosen::told(server, &domains, slice, planned, places, parts, &mut notes);
        }
        prices::from_host(site, planned, &mut notes);
        if let Some(selector) = &slice.selector {
            let text = format!("this server has the labels that it selects by: `{selector}`");
            notes.info("selector", text);
        }
        match kinds::used(site.server.inventory, &planned.vcpu_cpus()) {
            None => {}
            Some(Used::One(text)) => notes.info("core-kind", text),
            Some(Used::Several(text)) => notes.warn("core-kinds-mixed", text),
        }
        cores(spec, slice, planned, &places[at], parts, &mut notes);
        for text in siblings::shared(planned, parts) {
            notes.info("shared-core", text);
        }
        if let Some(text) = siblings::none(slice, planned) {
            notes.info("nothing-to-share", text);
        }
        cards::told(site, best, parts, at, planned, &mut notes);
    }
    Report {
        findings: notes.findings,
    }
}

#[derive(Default)]
struct Notes {
    about: Option<SliceName>,
    findings: Vec<Finding>,
}

impl Notes {
    fn add(&mut self, level: Level, code: &str, text: String) {
        self.findings.push(Finding {
            slice: self.about.clone(),
            level,
            code: code.to_owned(),
            text,
        });
    }

    fn info(&mut self, code: &str, text: String) {
        self.add(Level::Info, code, text);
    }

    fn warn(&mut self, code: &str, text: String) {
        self.add(Level::Warning, code, text);
    }
}

fn on_nodes(planned: &SlicePlan) -> String {
    let nodes: Vec<NumaNodeId> = planned.cells.iter().map(|cell| cell.node).collect();
    let word = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("{word} {}", and(nodes))
}

fn placed(
    site: &Site<'_>,
    best: &Best,
    parts: &PlanParts,
    at: usize,
    slice: &SliceSpec,
    planned: &SlicePlan,
    notes: &mut Notes,
) {
    let pool = if planned.pool_is_host {
        "emulator and IOThreads on the host's CPUs".to_owned()
    } else if planned.pool_is_shared {
        format!(
            "emulator and IOThreads on {}, the pool of tenant `{}`",
            planned.pool(),
            planned.tenant
        )
    } else {
        format!("emulator and IOThreads on {}", planned.pool())
    };
    let vcpus: Vec<String> = planned.vcpus.iter().map(ToString::to_string).collect();
    notes.info(
        "placed",
        format!(
            "on {}: vCPUs on {}, {pool}; {}",
            on_nodes(planned),
            vcpus.join(","),
            why(site, best, parts, at, slice)
        ),
    );
}

/// Why a slice is where it is.
fn why(site: &Site<'_>, best: &Best, parts: &PlanParts, at: usize, slice: &SliceSpec) -> String {
    let demand = &site.problem.demands[at];
    let choice = &best.choices[at];
    let nodes = &demand.sites[choice.site];
    if demand.kept {
        return "it stays where it is".into();
    }
    match slice.numa {
        Numa::Node(_) => return "that node is asked for".into(),
        Numa::Spread(_) if site.server.nodes.len() == nodes.len() => {
            return "it is spread over all nodes, as asked".into();
        }
        Numa::Spread(_) | Numa::Single => {}
    }
    let near = demand
        .wants
        .iter()
        .zip(&choice.pfs)
        .filter(|(want, _)| want.near != Near::Any);
    let nics: Vec<&Pf<'_>> = near.map(|(_, &pf)| &site.devices.pfs[pf]).collect();
    let there = |pf: &&&Pf<'_>| {
        let node = pf.node.and_then(|id| site.server.node_index(id));
        node.is_some_and(|node| nodes.contains(&node))
    };
    let local: Vec<String> = nics.iter().filter(there).map(|pf| pf.label()).collect();
    if !local.is_empty() && site.server.nodes.len() > 1 {
        return format!("its NIC {} is there", and(local));
    }
    // Where else it would fit beside all the others.
    let left = |node: usize| -> usize {
        let free = site.server.nodes[node].free.iter();
        free.filter(|core| core.cpus().is_subset(&parts.host.free))
            .count()
    };
    let need = demand.fewest_alone().0 as usize;
    let others: Vec<usize> = (0..site.server.nodes.len())
        .filter(|n| !nodes.contains(n))
        .collect();
    if others.is_empty() {
        return "it is the only node".into();
    }
    if nodes.len() > 1 {
        return "these nodes are the first that have room".into();
    }
    if others.iter().all(|&node| left(node) < need) {
        let rest = others.iter().map(|&node| {
            format!(
                "node {} has {} left",
                site.server.nodes[node].id,
                count(left(node), "whole core")
            )
        });
        return format!(
            "it needs {} and {}{}",
            count(need, "whole core"),
            if parts.slices.len() > 1 {
                "beside the others "
            } else {
                ""
            },
            and(rest)
        );
    }
    "it has room, and other nodes stay as free as can be".into()
}

fn cores(
    spec: &Slicing,
    slice: &SliceSpec,
    planned: &SlicePlan,
    places: &[CellPlace],
    parts: &PlanParts,
    notes: &mut Notes,
) {
    let mut threads: Vec<usize> = places
        .iter()
        .flat_map(CellPlace::vcpu_cores)
        .map(|core| core.threads.len())
        .collect();
    threads.sort_unstable();
    threads.dedup();
    let most = threads.last().copied().unwrap_or(1);
    if !planned.idle.is_empty() {
        let cores: usize = places.iter().flat_map(CellPlace::vcpu_cores).count();
        let why = siblings::not_shared(spec, most, slice, planned, parts);
        let text = format!(
            "{} {} {}: {} {} idle, since {why}",
            count(planned.vcpus.len(), "vCPU"),
            if planned.vcpus.len() == 1 {
                "has"
            } else {
                "have"
            },
            count(cores, "whole core"),
            cpus(&planned.idle),
            if planned.idle.len() == 1 {
                "stays"
            } else {
                "stay"
            }
        );
        let level = if slice.smt == Smt::Isolate {
            Level::Info
        } else {
            Level::Warning
        };
        notes.add(level, "idle-sibling", text);
    }
    let mirrors = slice.smt == Smt::Pack && slice.vcpu_order == VcpuOrder::SiblingsAdjacent;
    // A guest of one vCPU in a cell could not see it otherwise.
    let each = planned.vcpus.len() / places.len().max(1);
    if mirrors && most > 1 && planned.topology.threads == 1 && each > 1 {
        let in_each = if places.len() > 1 {
            " in each cell"
        } else {
            ""
        };
        notes.info(
            "flat-topology",
            format!(
                "the guest sees cores of one thread: {each} vCPUs{in_each} do not fill cores of {most} threads evenly"
            ),
        );
    }
    for place in places {
        let mut domains: Vec<usize> = place.vcpu_cores().map(|core| core.l3).collect();
        domains.sort_unstable();
        domains.dedup();
        if domains.len() > 1 {
            notes.info(
                "l3-split",
                format!("its vCPUs lie in {} L3 domains", domains.len()),
            );
        }
        let far: CpuSet = place
            .pool
            .iter()
            .filter(|core| !domains.contains(&core.l3))
            .flat_map(|core| core.threads.iter().copied())
            .collect();
        if !far.is_empty() {
            notes.info(
                "far-pool",
                format!("its emulator and IOThreads on {far} do not share the L3 of its vCPUs"),
            );
        }
    }
}
