//! What is told of the server as a whole: what the host keeps, boot arguments, the IOMMU, NICs that
//! are split.

use bmslice_inventory::{HostNeed, Inventory};
use bmslice_model::CpuSet;
use bmslice_plan::{HugePagePlan, NicPlan, Plan, PlanParts};
use bmslice_spec::{Isolation, Slicing};

use super::{Notes, prices};
use crate::best::Best;
use crate::function;
use crate::headroom;
use crate::kernel;
use crate::kinds;
use crate::problem::Site;
use crate::text::{and, count, cpus};

pub(super) fn told(
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
    if let Some(text) = one_worker(server.online.len(), parts) {
        notes.info("one-worker", text);
    }
    for text in pages_that_stay(parts) {
        notes.info("pages-stay", text);
    }
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

/// What the slices make of the server, against one worker as large as the largest of them.
fn one_worker(cpus: usize, parts: &PlanParts) -> Option<String> {
    let sizes = parts.slices.iter().map(|slice| slice.vcpus.len());
    let (all, one) = (sizes.clone().sum::<usize>(), sizes.max()?);
    let percent = |part: usize| (100 * part + cpus / 2).checked_div(cpus).unwrap_or(0);
    let run = if all == 1 { "runs" } else { "run" };
    let used = format!(
        "{all} of {} {run} vCPUs ({} %)",
        count(cpus, "CPU"),
        percent(all)
    );
    Some(match parts.slices.as_slice() {
        [_] => format!("{used}, as one worker on this server would"),
        _ => format!(
            "{used}; one worker on this server, the largest of these slices, would run {one} ({} %)",
            percent(one)
        ),
    })
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

/// Pages of the boot arguments that no slice has.
fn pages_that_stay(parts: &PlanParts) -> Vec<String> {
    let told = |pages: &HugePagePlan| {
        let slices = parts.slices.iter();
        let had: u64 = slices.map(|it| it.pages_on(pages.node, pages.size)).sum();
        let idle = pages.count.saturating_sub(had);
        (idle > 0).then(|| {
            format!(
                "{idle} of the {} of {} on node {} {} no slice's any more: they stay, since the server would have to reboot to give them back",
                count(pages.count, "huge page"),
                pages.size,
                pages.node,
                if idle == 1 { "is" } else { "are" },
            )
        })
    };
    parts.host.huge_pages.iter().filter_map(told).collect()
}
