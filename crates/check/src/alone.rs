//! A plan file without its spec, as `apply` is given it.
//!
//! Takes the server and the plan; gives the rules that it breaks whatever was asked. What was asked is
//! read back from the plan itself, so that a plan that was edited is seen by its parts no longer going
//! together: a vCPU on another node's CPU or beside another slice's, a page too many, a card said to
//! be near that is not. Looks at nothing that changes as the plan takes effect (free memory, drivers,
//! IOMMU groups): that is seen by each step when its time comes.

use bmslice_inventory::Inventory;
use bmslice_plan::{NicPlan, Plan, SlicePlan};
use bmslice_spec::{
    HostSpec, ImageSpec, InvalidSlicing, NicChoice, NicKind, NicSpec, Numa, Sharing, SliceSpec,
    Slicing, VcpuOrder,
};

use crate::server::Server;
use crate::{Case, Invariant, Violation, all};
use crate::{boot, cpus, document, memory, network, pci, smt};

/// The rules that hold of every plan by itself.
const RULES: &[Invariant] = &[
    document::DISK,
    cpus::HOST_RESERVE,
    cpus::ISOLATED,
    cpus::UNSHARED_CORES,
    cpus::SIBLINGS,
    cpus::WHOLE_CORES,
    cpus::IDLE,
    cpus::POOL,
    smt::PLACEMENT,
    smt::TOPOLOGY,
    memory::NUMA,
    memory::CELLS,
    memory::HUGE_PAGES,
    boot::ISOLATION,
    boot::IOMMU,
    boot::HUGE_PAGE_ARGS,
    pci::WHOLE_OR_SPLIT,
    pci::VIRTUAL_FUNCTIONS,
    network::MAC,
    network::LOCALITY,
    network::REMOTE_REPORTED,
];

/// Every rule that a plan breaks whatever was asked; on a server on which it may be in force.
#[must_use]
pub fn check_alone(inventory: &Inventory, plan: &Plan) -> Vec<Violation> {
    let server = Server::of(inventory);
    let slices = plan.slices().iter();
    let mut slices: Vec<SliceSpec> = slices.map(|slice| asked(&server, slice)).collect();
    let judge = |slices: &[SliceSpec], rules: &[Invariant]| {
        let spec = Slicing::new(host(&server, plan), slices.to_vec())?;
        let case = Case {
            spec: &spec,
            inventory,
            plan,
            in_force: Some(plan),
            server: Server::of(inventory),
        };
        Ok::<_, InvalidSlicing>(all(&case, rules))
    };
    let found = judge(&slices, &[smt::PLACEMENT, smt::TOPOLOGY]).and_then(|wrong| {
        // In which order vCPUs were asked for is not told: it is that in which they are.
        for slice in &mut slices {
            if wrong.iter().any(|w| w.slice.as_ref() == Some(&slice.name)) {
                slice.vcpu_order = VcpuOrder::SiblingsLast;
            }
        }
        judge(&slices, RULES)
    });
    found.unwrap_or_else(|invalid| {
        vec![Violation {
            code: "alone",
            slice: None,
            text: format!("nobody could have asked for it: {invalid}"),
        }]
    })
}

/// What the plan says was asked of the host.
fn host(server: &Server<'_>, plan: &Plan) -> HostSpec {
    let host = plan.host();
    HostSpec {
        reserve_cores: number(server.cores(&host.cpus).len()),
        reserve_per_numa: false,
        isolation: host.isolation,
        tickless: host.kernel_args.iter().any(|arg| arg.is("nohz_full")),
        settings: host.settings,
        images: host.images.clone(),
        ..HostSpec::default()
    }
}

/// What the plan says was asked of a slice.
fn asked(server: &Server<'_>, slice: &SlicePlan) -> SliceSpec {
    SliceSpec {
        name: slice.name.clone(),
        replica: None,
        tenant: slice.tenant.clone(),
        vcpus: number(slice.vcpus.len()),
        smt: slice.smt,
        vcpu_order: VcpuOrder::SiblingsAdjacent,
        sharing: if slice.shared_siblings.is_empty() {
            Sharing::None
        } else {
            Sharing::Tenant
        },
        emulator_cores: if slice.pool_is_host {
            0
        } else {
            number(server.cores(&slice.pool()).len())
        },
        shared_pool: slice.pool_is_shared,
        iothreads: number(slice.iothreads.len()),
        memory: slice.memory,
        hugepages: slice.huge_pages,
        numa: match slice.cells.as_slice() {
            [one] => Numa::Node(one.node),
            more => Numa::Spread(number(more.len())),
        },
        nics: slice.nics.iter().map(card).collect(),
        image: ImageSpec {
            base: slice.disk.base.clone(),
            size: slice.disk.size,
            from: slice.disk.from.clone(),
            setup: slice.disk.setup,
        },
        guest: slice.guest.clone(),
        machine: slice.machine,
        autostart: slice.autostart,
        up_within_seconds: slice.up_within_seconds,
        server: None,
        apart: None,
        selector: None,
    }
}

fn card(nic: &NicPlan) -> NicSpec {
    let common = nic.common();
    NicSpec {
        kind: match nic {
            NicPlan::Passthrough { device, .. } => NicKind::Passthrough {
                device: NicChoice::Pci(device.address),
            },
            NicPlan::Vf {
                pf, vlan, rules, ..
            } => NicKind::Vf {
                of: NicChoice::Pci(pf.address),
                vlan: *vlan,
                mac: common.mac,
                rules: *rules,
            },
            NicPlan::Virtio { network, .. } => NicKind::Virtio {
                network: network.clone(),
                mac: common.mac,
            },
        },
        fabric: common.fabric.clone(),
        network: common.network.clone(),
        take_from_host: nic.is_from_host(),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
