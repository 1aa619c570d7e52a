//! The arguments that the next boot must have.
//!
//! Takes what was placed; gives the arguments in a fixed order. They are what must be there, never
//! what is missing, so that planning again after they took effect gives the same plan.

use bmslice_model::{ByteSize, CmdlineError, CpuSet, KernelArg, NumaNodeId};
use bmslice_plan::HugePagePlan;
use bmslice_spec::{HostSpec, IdleStates, Isolation, Mitigations};

use crate::server::Server;

/// Pages of this size and more are asked for at boot when there are boot arguments: later, memory
/// is too fragmented for them (Documentation/admin-guide/mm/hugetlbpage.rst).
const AT_BOOT: ByteSize = ByteSize::from_gib(1);

/// Whether pages of this size come from the boot arguments.
pub(crate) fn at_boot(isolation: Isolation, size: ByteSize) -> bool {
    isolation == Isolation::Boot && size >= AT_BOOT
}

/// Whether an argument is about huge pages.
pub(crate) fn is_about_pages(arg: &KernelArg) -> bool {
    arg.is("hugepagesz") || arg.is("hugepages")
}

/// The pages that arguments of [`args`] ask for.
pub(crate) fn pages(args: &[KernelArg]) -> Vec<HugePagePlan> {
    let mut size: Option<ByteSize> = None;
    let mut all = Vec::new();
    for arg in args {
        let value = arg.value().unwrap_or_default();
        if arg.is("hugepagesz") {
            size = format!("{value}iB").parse().ok();
        } else if let Some(size) = size.filter(|_| arg.is("hugepages")) {
            all.extend(value.split(',').filter_map(|part| {
                let (node, count) = part.split_once(':')?;
                Some(HugePagePlan {
                    node: NumaNodeId(node.parse().ok()?),
                    size,
                    count: count.parse().ok()?,
                    at_boot: true,
                })
            }));
        }
    }
    all
}

/// The boot arguments.
pub(crate) fn args(
    server: &Server<'_>,
    spec: &HostSpec,
    isolated: &CpuSet,
    pages: &[HugePagePlan],
    devices: bool,
) -> Result<Vec<KernelArg>, CmdlineError> {
    let mut args = Vec::new();
    let isolation = spec.isolation;
    if devices {
        iommu(server, isolation, &mut args)?;
    }
    if isolation == Isolation::Boot && !isolated.is_empty() {
        let list = format!("domain,managed_irq,{isolated}");
        args.push(KernelArg::new("isolcpus", &list)?);
        if spec.tickless {
            let list = isolated.to_string();
            args.push(KernelArg::new("nohz_full", &list)?);
            args.push(KernelArg::new("rcu_nocbs", &list)?);
        }
        args.push(KernelArg::new("irqaffinity", &server.host.to_string())?);
    }
    choices(server, spec, &mut args)?;
    let mut sizes: Vec<ByteSize> = pages.iter().filter(|p| p.at_boot).map(|p| p.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let counts: Vec<String> = pages
            .iter()
            .filter(|pages| pages.at_boot && pages.size == size)
            .map(|pages| format!("{}:{}", pages.node, pages.count))
            .collect();
        args.push(KernelArg::new("hugepagesz", &kernel_size(size))?);
        args.push(KernelArg::new("hugepages", &counts.join(","))?);
    }
    Ok(args)
}

/// What the spec asks for by name.
fn choices(
    server: &Server<'_>,
    spec: &HostSpec,
    args: &mut Vec<KernelArg>,
) -> Result<(), CmdlineError> {
    match spec.idle_states {
        IdleStates::All => {}
        IdleStates::Shallow => {
            // Intel's CPUs have a driver of their own, and ACPI's where it does not know them.
            if !is_amd(server.inventory.machine.cpu_vendor.as_deref()) {
                args.push(KernelArg::new("intel_idle.max_cstate", "1")?);
            }
            args.push(KernelArg::new("processor.max_cstate", "1")?);
        }
        IdleStates::Poll => args.push(KernelArg::new("idle", "poll")?),
    }
    match spec.mitigations {
        Mitigations::Auto => {}
        Mitigations::None => args.push(KernelArg::new("mitigations", "off")?),
    }
    Ok(())
}

/// `1G`, `512M`: as memparse() of lib/cmdline.c reads it.
pub(crate) fn kernel_size(size: ByteSize) -> String {
    size.to_string().trim_end_matches("iB").to_owned()
}

fn iommu(
    server: &Server<'_>,
    isolation: Isolation,
    args: &mut Vec<KernelArg>,
) -> Result<(), CmdlineError> {
    let (machine, boot) = (&server.inventory.machine, &server.inventory.boot);
    if !machine.architecture.is_empty() && machine.architecture != "x86_64" {
        return Ok(());
    }
    let wanted = [
        intel(server).then(|| KernelArg::new("intel_iommu", "on")),
        Some(KernelArg::new("iommu", "pt")),
    ];
    for arg in wanted.into_iter().flatten() {
        let arg = arg?;
        // Without boot isolation nothing else wants a reboot, so the IOMMU's arguments are asked
        // for only where it is off, or where they are there already.
        if isolation == Isolation::Boot || !boot.iommu || boot.cmdline.contains(&arg) {
            args.push(arg);
        }
    }
    Ok(())
}

/// Whether the IOMMU is Intel's. Firmware's table tells; without it the CPU's maker does, and on
/// an emulated machine the two need not agree. The argument does nothing where there is no VT-d.
fn intel(server: &Server<'_>) -> bool {
    let machine = &server.inventory.machine;
    if let Some(tables) = &server.inventory.boot.iommu_tables
        && !tables.is_empty()
    {
        return tables.iter().any(|table| table == "DMAR");
    }
    let amd = is_amd(machine.cpu_vendor.as_deref());
    !amd || machine.guest == Some(true)
}

/// Whether a CPU is AMD's or made by its design.
pub(crate) fn is_amd(vendor: Option<&str>) -> bool {
    matches!(vendor, Some("AuthenticAMD" | "HygonGenuine"))
}

/// Arguments of the running kernel that do not go together with the plan's, and why.
pub(crate) fn conflicts(
    server: &Server<'_>,
    planned: &[KernelArg],
    earlier: &[KernelArg],
) -> Vec<(KernelArg, String)> {
    let line = &server.inventory.boot.cmdline;
    let mut found = Vec::new();
    let ours = |arg: &KernelArg| {
        let same = |own: &KernelArg| own.is(arg.key()) && own.value() == arg.value();
        planned.iter().any(same) || earlier.iter().any(same)
    };
    let mut page: Option<String> = None;
    for arg in line.kernel_args() {
        let value = arg.value().unwrap_or_default();
        if arg.is("hugepagesz") {
            page = Some(value.to_ascii_uppercase());
        }
        if ours(arg) {
            continue;
        }
        let wanted = planned.iter().find(|own| own.is(arg.key()));
        let why = if arg.is("isolcpus") && wanted.is_some() {
            "the kernel takes the first `isolcpus=` and ignores others that differ: take it out"
        } else if (arg.is("nohz_full") || arg.is("rcu_nocbs")) && wanted.is_some() {
            "its CPUs are not those of the plan: take it out"
        } else if arg.is("irqaffinity") && wanted.is_some() {
            "the last one holds: take it out"
        } else if arg.is("hugepages") && asks_for(planned, page.as_deref()) {
            "it asks for pages of the same size, so that the last one holds: take it out"
        } else if (arg.is("intel_iommu") || arg.is("amd_iommu") || arg.is("iommu"))
            && value.split(',').any(|part| part == "off")
            && planned.iter().any(|own| own.is("iommu"))
        {
            "devices cannot be passed to guests with the IOMMU off: take it out"
        } else if let Some(own) = wanted
            && !own.may_repeat()
            && !own.is("isolcpus")
            && !own.is("irqaffinity")
        {
            found.push((
                arg.clone(),
                format!("the spec asks for `{own}`: take one of them out"),
            ));
            continue;
        } else {
            continue;
        };
        found.push((arg.clone(), why.to_owned()));
    }
    found
}

/// Whether the plan asks for pages of this size at boot.
fn asks_for(planned: &[KernelArg], page: Option<&str>) -> bool {
    let Some(page) = page else { return false };
    planned
        .iter()
        .any(|own| own.is("hugepagesz") && own.value() == Some(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_written_as_the_kernel_reads_them() {
        assert_eq!(kernel_size(ByteSize::from_gib(1)), "1G");
        assert_eq!(kernel_size(ByteSize::from_gib(16)), "16G");
        assert_eq!(kernel_size(ByteSize::from_mib(2)), "2M");
    }
}
