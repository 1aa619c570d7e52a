//! A plan for people: who has which CPUs, memory and NICs, what is done to the host, and why.

use bmslice_model::{CpuId, CpuSet, PciAddress};
use bmslice_plan::{DeviceRef, Level, NicPlan, Plan, SlicePlan};
use bmslice_spec::{ImageFrom, Isolation, Setup, VfRules};
use comfy_table::{ColumnConstraint, Table};

use crate::output::{Output, style};
use crate::plan_change::{changes, is_nothing};
use crate::tables::{Page, count, or_dash, table};

/// The whole page; `previous` is the plan in force.
pub(crate) fn page(plan: &Plan, previous: Option<&Plan>, output: &Output) -> String {
    let mut page = Page::new(output);
    page.facts(&host(plan));
    if let Some(previous) = previous {
        page.heading("Changes of the plan in force");
        let changes = changes(Some(previous), Some(plan));
        if is_nothing(&changes) {
            page.line("none");
        }
        for change in changes {
            page.paragraph(&change.line(), 2);
        }
    }
    page.heading("CPUs").table(&cpus(plan, output));
    page.heading("Memory").table(&memory(plan, output));
    if plan.slices().iter().any(|slice| !slice.nics.is_empty()) {
        page.heading("NICs").table(&nics(plan, output));
    }
    page.heading("Disks").facts(&disks(plan));
    let findings = &plan.parts().report.findings;
    if !findings.is_empty() {
        page.heading("Why");
        for finding in findings {
            let level = match finding.level {
                Level::Info => "-".to_owned(),
                Level::Warning => style::warning("warning:", output.colors()),
            };
            let about = finding.slice.as_ref().map(|slice| format!("{slice}: "));
            let text = format!("{level} {}{}", about.unwrap_or_default(), finding.text);
            page.paragraph(&text, 2);
        }
    }
    page.finish()
}

fn host(plan: &Plan) -> Vec<(&'static str, String)> {
    let host = plan.host();
    let set = |cpus: &CpuSet| {
        if cpus.is_empty() {
            "none".to_owned()
        } else {
            cpus.to_string()
        }
    };
    let isolation = match host.isolation {
        Isolation::Boot => "by boot arguments",
        Isolation::Dynamic => "by a cpuset partition",
        Isolation::None => "by pins only",
    };
    let mut facts = vec![
        ("server", plan.parts().server.hostname.clone()),
        ("host's CPUs", set(&host.cpus)),
        ("isolated", format!("{} {isolation}", set(&host.isolated))),
        ("free", set(&host.free)),
    ];
    if !host.kernel_args.is_empty() {
        let args: Vec<&str> = host.kernel_args.iter().map(|arg| arg.as_str()).collect();
        facts.push(("kernel args", args.join(" ")));
    }
    if !host.huge_pages.is_empty() {
        let pages: Vec<String> = host
            .huge_pages
            .iter()
            .map(|pages| {
                let when = if pages.at_boot {
                    "at boot"
                } else {
                    "at run time"
                };
                format!(
                    "{} × {} on node {} {when}",
                    pages.count, pages.size, pages.node
                )
            })
            .collect();
        facts.push(("huge pages", pages.join(", ")));
    }
    for split in &host.split {
        facts.push((
            "split",
            format!("{} into {}", device(&split.device), count(split.vfs, "VF")),
        ));
    }
    if let Some(first) = host.queues.first() {
        let names: Vec<String> = host.queues.iter().map(|q| device(&q.device)).collect();
        let text = format!("at most {} for each of {}", first.most, names.join(", "));
        facts.push(("queues", text));
    }
    facts
}

/// `0000:01:00.0 (eno1)`.
pub(crate) fn device(device: &DeviceRef) -> String {
    match &device.interface {
        Some(interface) => format!("{} ({interface})", device.address),
        None => device.address.to_string(),
    }
}

pub(crate) fn nodes(slice: &SlicePlan) -> String {
    let nodes: Vec<String> = slice
        .cells
        .iter()
        .map(|cell| cell.node.to_string())
        .collect();
    nodes.join(",")
}

fn cpus(plan: &Plan, output: &Output) -> Table {
    let mut heads = vec![
        "slice",
        "tenant",
        "node",
        "vCPU→CPU…",
        "emulator",
        "IOThreads",
        "idle",
    ];
    // Only where there is something to tell.
    let mut slices = plan.slices().iter();
    let shares = slices.any(|slice| !slice.shared_siblings.is_empty());
    heads.extend(shares.then_some("beside"));
    let mut table = table(output, &heads);
    for slice in plan.slices() {
        let pool = |cpus: &CpuSet| {
            if slice.pool_is_host {
                format!("{cpus} (host)")
            } else if slice.pool_is_shared {
                format!("{cpus} (shared)")
            } else {
                cpus.to_string()
            }
        };
        let iothreads: Vec<String> = slice.iothreads.iter().map(pool).collect();
        let mut row = vec![
            slice.name.to_string(),
            slice.tenant.to_string(),
            nodes(slice),
            pins(&slice.vcpus),
            pool(&slice.emulator),
            if iothreads.is_empty() {
                "-".into()
            } else {
                iothreads.join("\n")
            },
            or_dash(Some(&slice.idle).filter(|idle| !idle.is_empty())),
        ];
        row.extend(shares.then(|| beside(plan, slice)));
        table.add_row(row);
    }
    table
}

/// Who runs on the siblings of its odd vCPUs: `red-2 on 9`.
fn beside(plan: &Plan, slice: &SlicePlan) -> String {
    let others = plan.slices().iter();
    let others = others.filter(|other| slice.shares_a_core_with(other));
    let each = others.map(|other| {
        let cpus = slice.shared_siblings.intersection(&other.vcpu_cpus());
        format!("{} on {cpus}", other.name)
    });
    let each: Vec<String> = each.collect();
    or_dash((!each.is_empty()).then(|| each.join("\n")).as_ref())
}

/// `0→4 1→6 2→8`.
pub(crate) fn pins(vcpus: &[CpuId]) -> String {
    let pins: Vec<String> = vcpus
        .iter()
        .enumerate()
        .map(|(vcpu, cpu)| format!("{vcpu}→{cpu}"))
        .collect();
    pins.join(" ")
}

fn memory(plan: &Plan, output: &Output) -> Table {
    let mut table = table(
        output,
        &["slice", "cell", "node", "vCPUs", "memory", "pages"],
    );
    for slice in plan.slices() {
        for (number, cell) in slice.cells.iter().enumerate() {
            let pages = match slice.huge_pages {
                Some(page) => {
                    let count = cell.memory.bytes().checked_div(page.bytes()).unwrap_or(0);
                    format!("{count} × {page}")
                }
                None => "plain".into(),
            };
            table.add_row(vec![
                slice.name.to_string(),
                number.to_string(),
                cell.node.to_string(),
                cell.vcpus.to_string(),
                cell.memory.to_string(),
                pages,
            ]);
        }
    }
    table
}

/// The VF, with what it is held to otherwise than by itself; whether it is trusted has a column.
fn vf(index: u32, address: PciAddress, pf: &DeviceRef, rules: VfRules) -> String {
    let others = VfRules {
        trust: false,
        ..rules
    };
    let mut words = vec![format!("VF {index} {address} of {}", device(pf))];
    words.extend(others.described());
    words.join(", ")
}

/// Which column of the NICs says whether a VF is trusted.
const TRUST: usize = 6;

fn nics(plan: &Plan, output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "slice",
            "NIC…",
            "node",
            "where",
            "MAC",
            "VLAN",
            "trust",
            "on the fabric…",
        ],
    );
    // Only a VF is trusted or not; without one the room is the others'.
    let mut all = plan.slices().iter().flat_map(|slice| &slice.nics);
    if !all.any(|nic| matches!(nic, NicPlan::Vf { .. }))
        && let Some(trust) = table.column_mut(TRUST)
    {
        trust.set_constraint(ColumnConstraint::Hidden);
    }
    for slice in plan.slices() {
        for nic in &slice.nics {
            let common = nic.common();
            let (what, node, vlan, trust) = match nic {
                NicPlan::Passthrough {
                    device: d, group, ..
                } => {
                    let mut what = device(d);
                    if !group.is_empty() {
                        let group: Vec<String> = group.iter().map(ToString::to_string).collect();
                        what.push_str(&format!(" with {}", group.join(", ")));
                    }
                    (what, d.node, None, None)
                }
                NicPlan::Vf {
                    pf,
                    index,
                    address,
                    vlan,
                    rules,
                    ..
                } => (
                    vf(*index, *address, pf, *rules),
                    pf.node,
                    *vlan,
                    Some(if rules.trust { "yes" } else { "no" }),
                ),
                NicPlan::Virtio { network, .. } => {
                    (format!("virtio on network {network}"), None, None, None)
                }
            };
            let place = match (nic, common.local) {
                (NicPlan::Virtio { .. }, _) => "-",
                (_, Some(true)) => "local",
                (_, Some(false)) => "REMOTE",
                (_, None) => "unknown",
            };
            table.add_row(vec![
                slice.name.to_string(),
                what,
                or_dash(node),
                place.into(),
                or_dash(common.mac),
                or_dash(vlan),
                or_dash(trust),
                fabric(nic),
            ]);
        }
    }
    table
}

fn fabric(nic: &NicPlan) -> String {
    let Some(fabric) = &nic.common().fabric else {
        return "-".into();
    };
    let mut parts: Vec<String> = fabric.port.iter().cloned().collect();
    parts.extend(fabric.vlan.map(|vlan| format!("VLAN {vlan}")));
    parts.extend(fabric.vlan_name.clone());
    if parts.is_empty() {
        "any port".into()
    } else {
        parts.join(" ")
    }
}

fn disks(plan: &Plan) -> Vec<(&str, String)> {
    let disk = |slice: &SlicePlan| {
        let disk = &slice.disk;
        let from = match &disk.from {
            ImageFrom::Overlay => format!("overlay of {}", disk.base),
            ImageFrom::Copy => format!("copy of {}", disk.base),
            ImageFrom::Resize { expand } => format!("copy of {} with {expand} grown", disk.base),
        };
        let setup = match disk.setup {
            Setup::CloudInit => "set up by cloud-init",
            Setup::VirtCustomize => "set up by virt-customize",
            Setup::None => "not set up",
        };
        format!("{}, {}\n{from}, {setup}", disk.path, disk.size)
    };
    let slices = plan.slices().iter();
    slices
        .map(|slice| (slice.name.as_str(), disk(slice)))
        .collect()
}
