//! Why a plan is as it is, and what it costs.
//!
//! Takes the placement and the plan's parts; gives findings: the host's first, then each slice's.
//! Codes are stable, texts are for people. A reason is an `Info`, a cost that nobody asked for a
//! `Warning`.

use bmslice_inventory::{HostNeed, Inventory};
use bmslice_model::{CpuSet, NumaNodeId, SliceName};
use bmslice_plan::{Finding, Level, NicPlan, Plan, PlanParts, Report, SlicePlan};
use bmslice_spec::{Isolation, Numa, Sharing, SliceSpec, Slicing, Smt, VcpuOrder};

use crate::best::Best;
use crate::devices::Near;
use crate::function::{self, Pf};
use crate::headroom;
use crate::kernel;
use crate::kinds::{self, Used};
use crate::layout::CellPlace;
use crate::prices;
use crate::problem::Site;
use crate::text::{and, count, cpus, ticked};

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
    host(spec, site, best, parts, previous, &mut notes);
    for (at, (slice, planned)) in spec.slices.iter().zip(&parts.slices).enumerate() {
        notes.about = Some(slice.name.clone());
        placed(site, best, parts, at, slice, planned, &mut notes);
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
        cards(site, best, parts, at, planned, &mut notes);
    }
    Report {
        findings: notes.findings,
    }
}

#[derive(Default)]
pub(crate) struct Notes {
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

    pub(crate) fn info(&mut self, code: &str, text: String) {
        self.add(Level::Info, code, text);
    }

    pub(crate) fn warn(&mut self, code: &str, text: String) {
        self.add(Level::Warning, code, text);
    }
}

fn host(
    spec: &Slicing,
    site: &Site<'_>,
    best: &Best,
    parts: &PlanParts,
    previous: Option<&Plan>,
    notes: &mut Notes,
) {
    let server = &site.server;
    let host = &parts.host;
    let gives_nics = parts.slices.iter().any(|slice| !slice.nics.is_empty());
    if gives_nics && !management_is_known(server.inventory) {
        notes.warn(
            "management-unknown",
            "no default route and no session is known of this server: nothing tells which NIC its management needs, so look at the NICs that are given away".into(),
        );
    }
    let owned = parts.slices.iter();
    let owned = owned.fold(CpuSet::new(), |all, slice| all.union(&slice.held()));
    notes.info(
        "utilisation",
        format!(
            "of {} the host keeps {} ({}), {} {} {}, {} {} free",
            count(server.online.len(), "CPU"),
            host.cpus.len(),
            host.cpus,
            count(parts.slices.len(), "slice"),
            if parts.slices.len() == 1 {
                "has"
            } else {
                "have"
            },
            owned.len(),
            host.free.len(),
            if host.free.len() == 1 { "is" } else { "are" },
        ),
    );
    if let Some(text) = headroom::kept(spec, site, parts) {
        notes.info("headroom", text);
    }
    if let Some(text) = kinds::taken(server.inventory, &owned) {
        notes.info("core-kinds", text);
    }
    let kept_away = server.kept_away.difference(&host.cpus);
    if !kept_away.is_empty() {
        notes.info(
            "kept-away",
            format!(
                "a cpuset keeps {} from slices and from isolation",
                cpus(&kept_away)
            ),
        );
    }
    for node in &server.short_reserve {
        notes.warn(
            "short-reserve",
            format!("others hold so many cores of node {node} that the host's reserve is smaller than asked there"),
        );
    }
    let all: CpuSet = server.inventory.cpus.iter().map(|cpu| cpu.id).collect();
    let offline = all.difference(&server.online);
    if !offline.is_empty() {
        notes.info(
            "offline",
            format!(
                "{} {} offline and not used",
                cpus(&offline),
                if offline.len() == 1 { "is" } else { "are" }
            ),
        );
    }
    for domain in &server.foreign {
        let mut holds: Vec<String> = Vec::new();
        if !domain.cpus.is_empty() {
            holds.push(cpus(&domain.cpus));
        }
        holds.extend(domain.devices.iter().map(ToString::to_string));
        if domain.cpus.is_empty() {
            notes.warn(
                "foreign-unpinned",
                format!(
                    "the running domain `{}` is no slice and may run on every CPU, the slices' too: pin it to the host's {}",
                    domain.name, host.cpus
                ),
            );
        }
        if !holds.is_empty() {
            notes.info(
                "foreign-domain",
                format!(
                    "the running domain `{}` is no slice and keeps {}",
                    domain.name,
                    and(holds)
                ),
            );
        }
    }
    let earlier = previous.map_or(&[][..], |plan| &plan.host().kernel_args);
    for (arg, why) in kernel::conflicts(server, &host.kernel_args, earlier) {
        notes.warn(
            "boot-argument",
            format!("`{arg}` is among the kernel's arguments and not from bmslice: {why}"),
        );
    }
    if spec.host.isolation == Isolation::Dynamic {
        notes.info(
            "remaining-noise",
            format!(
                "without boot arguments some of the kernel's own work stays on CPUs {}: the timer's tick, RCU callbacks of what runs there, threads and workers bound to a CPU (ksoftirqd, migration, kworker/N), interrupts whose CPUs the kernel chooses, and flushes that the host's memory management asks of all CPUs",
                host.isolated
            ),
        );
    }
    if spec.host.tickless {
        notes.info(
            "tickless",
            "`nohz_full` makes each entry into the kernel dearer (context tracking), also those that KVM makes, and `rcu_nocbs` moves callbacks to the host's CPUs; where two tasks share a CPU its tick comes back".into(),
        );
    }
    prices::choices(spec, notes);
    if spec.host.isolation == Isolation::None {
        notes.info(
            "no-isolation",
            "slices are pinned, and host work may still run on their CPUs, as asked".into(),
        );
    }
    for pages in host
        .huge_pages
        .iter()
        .filter(|p| !p.at_boot && p.size.bytes() >= 1 << 30)
    {
        notes.info(
            "late-huge-pages",
            format!(
                "{} of {} on node {} {} made at run time, which fails when memory is fragmented",
                count(pages.count, "page"),
                pages.size,
                pages.node,
                if pages.count == 1 { "is" } else { "are" }
            ),
        );
    }
    for pages in &host.huge_pages {
        let memory = &site.problem.memory;
        let size = memory
            .sizes
            .iter()
            .position(|size| *size == pages.size.bytes());
        let node = server.node_index(pages.node);
        let held = node
            .zip(size)
            .map_or(0, |(node, size)| memory.nodes[node].pools[size].foreign);
        if held > 0 {
            notes.warn(
                "foreign-huge-pages",
                format!(
                    "others hold {held} of the pages of {} on node {}: {} must be there for them and the slices",
                    pages.size,
                    pages.node,
                    pages.count + held
                ),
            );
        }
    }
    iommu(site, parts, notes);
    splits(site, parts, notes);
    if !best.proven {
        notes.info(
            "search-bounded",
            "the placement fits; whether a better one exists was not worked out to the end".into(),
        );
    }
}

fn iommu(site: &Site<'_>, parts: &PlanParts, notes: &mut Notes) {
    let boot = &site.server.inventory.boot;
    let passed: Vec<_> = parts
        .slices
        .iter()
        .flat_map(|slice| &slice.nics)
        .flat_map(NicPlan::functions)
        .collect();
    if passed.is_empty() || boot.iommu {
        return;
    }
    if boot.iommu_tables.as_ref().is_some_and(Vec::is_empty) {
        notes.warn(
            "iommu-off",
            "firmware describes no IOMMU: turn on VT-d or AMD-Vi in its setup, or no device can be passed to a guest".into(),
        );
    } else {
        notes.info(
            "iommu-off",
            "the IOMMU is off: the boot arguments turn it on, and its groups are known only then"
                .into(),
        );
    }
    // Functions of one slot can be kept apart only if the device says so (ACS).
    let pci = &site.server.inventory.pci;
    for pf in site
        .devices
        .pfs
        .iter()
        .filter(|pf| passed.contains(&pf.address()))
    {
        let slot = |a: &bmslice_model::PciAddress| (a.domain(), a.bus(), a.device());
        let beside: Vec<_> = pci
            .iter()
            .map(|f| f.address)
            .filter(|a| slot(a) == slot(&pf.address()) && *a != pf.address())
            .collect();
        if !beside.is_empty() {
            notes.info(
                "acs-unknown",
                format!(
                    "{} shares its slot with {}: whether the IOMMU keeps them apart is seen when it is on",
                    pf.label(),
                    and(beside)
                ),
            );
        }
    }
}

fn management_is_known(inventory: &Inventory) -> bool {
    inventory
        .pci
        .iter()
        .flat_map(|f| &f.host_needs)
        .any(|need| {
            matches!(
                need,
                HostNeed::DefaultRoute { .. } | HostNeed::Session { .. }
            )
        })
}

fn splits(site: &Site<'_>, parts: &PlanParts, notes: &mut Notes) {
    for pf in site.devices.pfs {
        let current = pf.function.sriov.as_ref().map_or(0, |sriov| sriov.current);
        let whole = parts.slices.iter().flat_map(|slice| &slice.nics).any(|nic| {
            matches!(nic, NicPlan::Passthrough { device, .. } if device.address == pf.address())
        });
        if whole && current > 0 {
            notes.warn(
                "vfs-end",
                format!(
                    "{} has {}, which ends when it is passed whole",
                    pf.label(),
                    count(current, "virtual function")
                ),
            );
        }
        let split = parts
            .host
            .split
            .iter()
            .find(|split| split.device.address == pf.address());
        let Some(split) = split else { continue };
        if current > 0 && current != split.vfs {
            notes.warn(
                "vfs-remade",
                format!(
                    "{} goes from {current} to {}: all of them end on the way, so that guests that have one must be shut down first",
                    pf.label(),
                    count(split.vfs, "virtual function")
                ),
            );
        }
        if !pf.function.host_needs.is_empty() && current < split.vfs {
            let why = pf.function.host_needs.iter().map(function::said);
            notes.warn(
                "splits-host-nic",
                format!(
                    "{} is split while the host needs it, since {}: its link may drop for a moment",
                    pf.label(),
                    and(why)
                ),
            );
        }
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
            "it needs {} and beside the others {}",
            count(need, "whole core"),
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
    if !planned.idle.is_empty() {
        let cores: usize = places.iter().flat_map(CellPlace::vcpu_cores).count();
        let why = match slice.sharing {
            Sharing::None => "cores are not shared".to_owned(),
            Sharing::Tenant => siblings::not_shared(spec, planned, parts),
        };
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
    let most = threads.last().copied().unwrap_or(1);
    if mirrors && most > 1 && planned.topology.threads == 1 {
        notes.info(
            "flat-topology",
            format!(
                "the guest sees cores of one thread: {} in each cell do not fill cores of {most} threads evenly",
                count(planned.vcpus.len() / places.len().max(1), "vCPU")
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

fn cards(
    site: &Site<'_>,
    best: &Best,
    parts: &PlanParts,
    at: usize,
    planned: &SlicePlan,
    notes: &mut Notes,
) {
    let demand = &site.problem.demands[at];
    for (want, &pf) in demand.wants.iter().zip(&best.choices[at].pfs) {
        let pf = &site.devices.pfs[pf];
        let Some(nic) = planned.nics.get(want.nic) else {
            continue;
        };
        if !want.named {
            let what = if want.whole {
                "the whole of"
            } else {
                "a virtual function of"
            };
            let near = match nic.common().local {
                Some(true) => ", which is on its node",
                Some(false) | None => "",
            };
            notes.info(
                "nic-chosen",
                format!("NIC {} is {what} {}{near}", want.nic, pf.label()),
            );
        }
        match (nic.common().local, pf.node) {
            (Some(false), Some(node)) => notes.warn(
                "remote-device",
                format!(
                    "its NIC {} is on node {node} and its CPUs on {}: what it sends and receives crosses between them{}",
                    pf.label(),
                    on_nodes(planned),
                    no_room(site, parts, node, demand.fewest_alone().0)
                ),
            ),
            (None, _) => notes.info(
                "unknown-node",
                format!("firmware does not tell the node of its NIC {}", pf.label()),
            ),
            _ => {}
        }
        if let NicPlan::Passthrough { group, .. } = nic
            && !group.is_empty()
        {
            notes.warn(
                "group-goes-along",
                format!(
                    "with {} goes the rest of its IOMMU group: {}",
                    pf.label(),
                    and(group)
                ),
            );
        }
    }
}

/// Why a slice is not where its NIC is: who else is there, when that leaves it no room.
fn no_room(site: &Site<'_>, parts: &PlanParts, node: NumaNodeId, need: u32) -> String {
    let Some(at) = site.server.node_index(node) else {
        return String::new();
    };
    let free = &site.server.nodes[at].free;
    let left = free
        .iter()
        .filter(|core| core.cpus().is_subset(&parts.host.free))
        .count();
    let there: Vec<String> = parts
        .slices
        .iter()
        .filter(|slice| slice.cells.iter().any(|cell| cell.node == node))
        .map(|slice| ticked(&slice.name))
        .collect();
    if left >= need as usize || there.is_empty() {
        return String::new();
    }
    format!(
        " (it needs {} and beside {} node {node} has {} left)",
        count(need as usize, "whole core"),
        and(there),
        if left == 0 {
            "none".to_owned()
        } else {
            left.to_string()
        }
    )
}
