//! A placement as a plan.
//!
//! Takes the best placement; gives all parts of the plan file. Makes no choice of its own.

use bmslice_model::{ByteSize, CpuId, CpuSet};
use bmslice_plan::{
    DiskPlan, FORMAT, Fingerprint, GuestCell, HostPlan, Plan, PlanParts, ServerRef, SlicePlan,
};
use bmslice_spec::{Isolation, Setup, SliceSpec, Slicing};

use crate::best::Best;
use crate::cards;
use crate::cores::OddCore;
use crate::identity;
use crate::kernel;
use crate::layout::{self, CellPlace, Laid};
use crate::pages;
use crate::problem::Site;
use crate::queues;
use crate::refusal::Refusal;
use crate::report;
use crate::server::Core;
use crate::siblings::OddPlace;

/// libvirt's resource partition of slices that share a cgroup partition: systemd makes the slice
/// `bmslice.slice` of it, apart from `machine.slice`, where guests of others are.
const PARTITION: &str = "/bmslice";

/// Makes the parts.
pub(crate) fn parts(
    spec: &Slicing,
    site: &Site<'_>,
    best: &Best,
    previous: Option<&Plan>,
) -> Result<PlanParts, Refusal> {
    let server = &site.server;
    let mut places: Vec<Vec<CellPlace>> = (0..spec.slices.len())
        .map(|at| places(site, best, at))
        .collect();
    find_neighbours(&mut places);
    let cards = cards::deal(spec, site, &best.choices, previous)?;
    let mut slices = Vec::with_capacity(spec.slices.len());
    for ((slice, places), nics) in spec.slices.iter().zip(&places).zip(cards.nics) {
        // The search only gives what suffices; were it not so, the plan's own invariants say it.
        let laid = layout::lay_out(slice, places, server).unwrap_or_else(|| nothing(server));
        slices.push(slice_plan(spec, slice, site, laid, nics, previous));
    }
    let isolated = server
        .online
        .difference(&server.host)
        .difference(&server.kept_away);
    let free = slices
        .iter()
        .fold(isolated.clone(), |free: CpuSet, slice: &SlicePlan| {
            free.difference(&slice.held())
        });
    let mut huge_pages = pages::needed(spec, site, &slices, &[]);
    let devices = slices
        .iter()
        .flat_map(|slice| &slice.nics)
        .any(|nic| !nic.functions().is_empty());
    // An IOMMU that is on for devices stays on when they are given back: to turn it off would cost
    // the others a reboot and gain nothing.
    let mut earlier = previous.iter().flat_map(|plan| &plan.host().kernel_args);
    let devices = devices || earlier.any(|arg| arg.is("iommu"));
    let mut kernel_args = kernel::args(server, &spec.host, &isolated, &huge_pages, devices)?;
    // After ours: none of them is one that the plan sets.
    kernel_args.extend(spec.host.kernel_args.iter().cloned());
    if let Some(previous) = previous
        && let Some(more) = pages::that_stay(spec, site, &slices, &kernel_args, previous)
    {
        huge_pages = more;
        kernel_args = previous.host().kernel_args.clone();
    }
    let mut parts = PlanParts {
        format: FORMAT.to_owned(),
        spec_digest: spec.digest.clone(),
        server: ServerRef {
            hostname: server.inventory.machine.hostname.clone(),
            fingerprint: Fingerprint::of(server.inventory),
        },
        follows: None,
        host: HostPlan {
            cpus: server.host.clone(),
            isolated,
            free,
            isolation: spec.host.isolation,
            settings: spec.host.settings,
            kernel_args,
            huge_pages,
            queues: queues::fitted(spec.host.isolation, site, &slices, &cards.split),
            split: cards.split,
            images: spec.host.images.clone(),
            fall_back_minutes: spec.host.fall_back_minutes,
        },
        slices,
        report: bmslice_plan::Report::default(),
    };
    parts.report = report::report(spec, site, best, &places, &parts, previous);
    Ok(parts)
}

/// The cores of a slice's cells.
fn places(site: &Site<'_>, best: &Best, at: usize) -> Vec<CellPlace> {
    if let Some(kept) = &site.kept[at] {
        return kept.clone();
    }
    let nodes = &site.problem.demands[at].sites[best.choices[at].site];
    let cells = nodes.iter().enumerate().map(|(cell, &node)| {
        let (here, found) = &best.nodes[node];
        let free = &site.server.nodes[node].free;
        let cores = here
            .iter()
            .position(|&lies| lies == (at, cell))
            .and_then(|position| found.cells.get(position));
        let these = |cores: &[usize]| cores.iter().map(|&core| free[core].clone()).collect();
        let shared = (cell == 0).then(|| shared_pool(site, best, at, node));
        CellPlace {
            node,
            vcpus: cores.map(|cores| these(&cores.vcpus)).unwrap_or_default(),
            odd: cores.and_then(|cores| odd(site, at, node, cores.odd.as_ref()?)),
            pool: shared
                .flatten()
                .or_else(|| cores.map(|cores| these(&cores.pool)))
                .unwrap_or_default(),
        }
    });
    cells.collect()
}

/// Where an odd vCPU lies that may share its core.
fn odd(site: &Site<'_>, at: usize, node: usize, found: &OddCore) -> Option<OddPlace> {
    let free = &site.server.nodes[node].free;
    let (core, cpu) = match *found {
        OddCore::Own(core) => (&free[core], free[core].threads[0]),
        OddCore::Beside(core) => (&free[core], *free[core].threads.get(1)?),
        OddCore::Open(number) => {
            let tenant = site.problem.demands[at].odd?.tenant;
            let open = site.siblings.open(node, tenant).get(number)?;
            (&open.core, open.thread)
        }
    };
    Some(OddPlace {
        core: core.clone(),
        cpu,
        beside: false,
    })
}

/// Tells odd vCPUs who share a core of each other.
fn find_neighbours(places: &mut [Vec<CellPlace>]) {
    let odd = places
        .iter()
        .flatten()
        .filter_map(|place| place.odd.as_ref());
    let firsts: Vec<CpuId> = odd.map(|odd| odd.core.first()).collect();
    for place in places.iter_mut().flatten() {
        if let Some(odd) = &mut place.odd {
            let here = firsts.iter().filter(|first| **first == odd.core.first());
            odd.beside = here.count() > 1;
        }
    }
}

/// The pool of the tenant of a slice on a node: of what stays there, or of the first that brings it.
fn shared_pool(site: &Site<'_>, best: &Best, at: usize, node: usize) -> Option<Vec<Core>> {
    let demands = &site.problem.demands;
    let tenant = demands[at].shared?;
    if let Some(kept) = site.pools.kept(node, tenant) {
        return Some(kept.to_vec());
    }
    let free = &site.server.nodes[node].free;
    let (here, found) = &best.nodes[node];
    let mut cells = here.iter().zip(&found.cells);
    let (_, brought) =
        cells.find(|((other, cell), _)| *cell == 0 && demands[*other].shared == Some(tenant))?;
    let cores = brought.pool.iter();
    Some(cores.map(|&core| free[core].clone()).collect())
}

fn nothing(server: &crate::server::Server<'_>) -> Laid {
    Laid {
        vcpus: Vec::new(),
        cells: Vec::new(),
        topology: bmslice_plan::GuestTopology {
            sockets: 0,
            cores: 0,
            threads: 0,
        },
        emulator: server.host.clone(),
        iothreads: Vec::new(),
        pool_is_host: true,
        pool_is_shared: false,
        idle: CpuSet::new(),
        shared_siblings: CpuSet::new(),
    }
}

fn slice_plan(
    spec: &Slicing,
    slice: &SliceSpec,
    site: &Site<'_>,
    laid: Laid,
    nics: Vec<bmslice_plan::NicPlan>,
    previous: Option<&Plan>,
) -> SlicePlan {
    let machine = &site.server.inventory.machine;
    let each = slice.memory.bytes() / (laid.cells.len() as u64).max(1);
    let topoext = laid.topology.threads > 1 && kernel::is_amd(machine.cpu_vendor.as_deref());
    let images = spec.host.images.trim_end_matches('/');
    let base = &slice.image.base;
    SlicePlan {
        name: slice.name.clone(),
        tenant: slice.tenant.clone(),
        // A domain keeps its UUID when the server is given another name.
        uuid: previous
            .and_then(|plan| plan.slice(slice.name.as_str()))
            .map_or_else(
                || identity::uuid(&machine.hostname, &slice.name),
                |was| was.uuid.clone(),
            ),
        machine: slice.machine,
        smt: slice.smt,
        partition: (spec.host.isolation == Isolation::Dynamic).then(|| PARTITION.to_owned()),
        topology: laid.topology,
        cpu_features: topoext.then(|| "topoext".to_owned()).into_iter().collect(),
        cells: laid
            .cells
            .into_iter()
            .map(|(node, vcpus)| GuestCell {
                node,
                vcpus,
                memory: ByteSize::from_bytes(each),
            })
            .collect(),
        vcpus: laid.vcpus,
        emulator: laid.emulator,
        iothreads: laid.iothreads,
        pool_is_host: laid.pool_is_host,
        pool_is_shared: laid.pool_is_shared,
        idle: laid.idle,
        shared_siblings: laid.shared_siblings,
        memory: slice.memory,
        huge_pages: slice.hugepages,
        nics,
        disk: DiskPlan {
            path: format!("{images}/{}.qcow2", slice.name),
            base: if base.starts_with('/') {
                base.clone()
            } else {
                format!("{images}/{base}")
            },
            size: slice.image.size,
            from: slice.image.from.clone(),
            setup: slice.image.setup,
            seed: (slice.image.setup == Setup::CloudInit)
                .then(|| format!("{images}/{}-seed.iso", slice.name)),
        },
        guest: slice.guest.clone(),
        autostart: slice.autostart,
        up_within_seconds: slice.up_within_seconds,
    }
}
