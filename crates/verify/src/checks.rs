//! The table of checks, and the pure function that runs them over what was observed.

use bmslice_plan::{Plan, SlicePlan};

use crate::comparisons;
use crate::fabric::FabricTable;
use crate::observe::{Guest, Observed};
use crate::report::{Finding, Report, Seen, Verdict};

/// What a check of the host looks at.
pub struct HostView<'a> {
    /// What is wanted.
    pub plan: &'a Plan,
    /// What is.
    pub observed: &'a Observed,
}

/// What a check of a slice looks at.
pub struct SliceView<'a> {
    /// What is wanted of the slice.
    pub slice: &'a SlicePlan,
    /// The plan that it is of.
    pub plan: &'a Plan,
    /// What is seen of it.
    pub guest: &'a Guest,
    /// All that is seen.
    pub observed: &'a Observed,
    /// The switch's table, when somebody gave it.
    pub fabric: Option<&'a FabricTable>,
}

/// Verdicts, none when the plan asks for nothing of the kind; or why the facts are not there.
type Compared = Seen<Vec<Verdict>>;

/// What a check is run over.
#[derive(Clone, Copy)]
pub enum Look {
    /// Once.
    Host(fn(&HostView) -> Compared),
    /// Once for each slice.
    Slice(fn(&SliceView) -> Compared),
}

/// A check.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its name in reports: stable, for programs.
    pub name: &'static str,
    /// What is looked at, for people.
    pub about: &'static str,
    /// The comparison.
    pub look: Look,
}

const fn host(name: &'static str, about: &'static str, look: fn(&HostView) -> Compared) -> Check {
    Check {
        name,
        about,
        look: Look::Host(look),
    }
}

const fn slice(name: &'static str, about: &'static str, look: fn(&SliceView) -> Compared) -> Check {
    Check {
        name,
        about,
        look: Look::Slice(look),
    }
}

/// All checks, in the order of a report.
pub const CHECKS: &[Check] = &[
    host(
        "kernel-arguments",
        "/proc/cmdline has every planned argument, none of them overridden",
        comparisons::host::kernel_arguments,
    ),
    host(
        "isolated-cpus",
        "/sys/devices/system/cpu/isolated, or the isolated cpuset partitions",
        comparisons::host::isolated_cpus,
    ),
    host(
        "partition",
        "cpuset.cpus.partition of the slices' cgroup",
        comparisons::quiet::partition,
    ),
    host(
        "confinement",
        "cpuset.cpus of everybody else's cgroups",
        comparisons::quiet::confinement,
    ),
    host(
        "interrupts",
        "smp_affinity_list of each interrupt, and default_smp_affinity",
        comparisons::quiet::interrupts,
    ),
    host(
        "queues",
        "NICs that the host keeps have no more queues than the host has CPUs",
        comparisons::quiet::queues,
    ),
    host(
        "irqbalance",
        "irqbalance, if it runs, was told of the slices' CPUs",
        comparisons::quiet::irqbalance,
    ),
    host(
        "workqueues",
        "the CPUs of the kernel's unbound workers",
        comparisons::quiet::workers,
    ),
    host(
        "kernel-threads",
        "threads of the kernel that can be moved did not last run on a slice's CPU",
        comparisons::quiet::threads,
    ),
    host(
        "settings",
        "KSM, transparent huge pages and governors that the spec asks for",
        comparisons::quiet::settings,
    ),
    host(
        "huge-pages",
        "nr_hugepages of each node and size",
        comparisons::host::huge_pages,
    ),
    host(
        "virtual-functions",
        "sriov_numvfs of each physical function that is split",
        comparisons::host::virtual_functions,
    ),
    host(
        "quiet-cpus",
        "no other task of user space last ran on a slice's CPU",
        comparisons::host::quiet_cpus,
    ),
    slice(
        "domain",
        "libvirt has the domain with the planned UUID, and it runs under KVM",
        comparisons::domain::domain,
    ),
    slice(
        "process",
        "exactly one QEMU process runs the guest, by /proc",
        comparisons::domain::process,
    ),
    slice(
        "pins",
        "libvirt's pins of vCPUs, emulator and IOThreads",
        comparisons::pins::in_force,
    ),
    slice(
        "next-start",
        "the pins that the next start takes, by the stored definition",
        comparisons::pins::next_start,
    ),
    slice(
        "vcpu-threads",
        "Cpus_allowed_list of each vCPU thread, by /proc",
        comparisons::threads::vcpus,
    ),
    slice(
        "iothreads",
        "Cpus_allowed_list of each IOThread, by /proc",
        comparisons::threads::iothreads,
    ),
    slice(
        "emulator-threads",
        "Cpus_allowed_list of every other thread of the process, by /proc",
        comparisons::threads::emulator,
    ),
    slice(
        "alone",
        "no other domain is pinned to the slice's CPUs",
        comparisons::pins::alone,
    ),
    slice(
        "memory-binding",
        "each guest cell's memory object is bound to its node, by QEMU's arguments",
        comparisons::memory::binding,
    ),
    slice(
        "memory",
        "size, page size and nodes of the guest's memory, by numa_maps",
        comparisons::memory::pages,
    ),
    slice(
        "devices",
        "each planned PCI function is there, is the same, and is bound to vfio-pci",
        comparisons::devices::functions,
    ),
    slice(
        "iommu-groups",
        "nobody else drives a member of its IOMMU groups, and QEMU holds them open",
        comparisons::devices::groups,
    ),
    slice(
        "hostdevs",
        "libvirt's running definition has the planned functions and no others",
        comparisons::devices::hostdevs,
    ),
    slice(
        "vf-settings",
        "MAC, VLAN, trust, spoof check, rate and link state that the physical function enforces",
        comparisons::devices::vf_settings,
    ),
    slice(
        "fabric",
        "the switch has learned the guest's MAC on the planned port and VLAN",
        comparisons::fabric::learned,
    ),
];

/// Holds what was observed against the plan. Pure.
#[must_use]
pub fn compare(plan: &Plan, observed: &Observed, fabric: Option<&FabricTable>) -> Report {
    let mut findings = Vec::new();
    let verdicts = |compared: Compared| compared.unwrap_or_else(|reason| vec![reason.into()]);
    for check in CHECKS {
        if let Look::Host(look) = check.look {
            let view = HostView { plan, observed };
            findings.extend(verdicts(look(&view)).into_iter().map(|verdict| Finding {
                slice: None,
                check: check.name,
                verdict,
            }));
        }
    }
    for slice in plan.slices() {
        let name = &slice.name;
        let guest = observed.guests.iter().find(|guest| guest.slice == *name);
        for check in CHECKS {
            let Look::Slice(look) = check.look else {
                continue;
            };
            let all = match guest {
                Some(guest) => verdicts(look(&SliceView {
                    slice,
                    plan,
                    guest,
                    observed,
                    fabric,
                })),
                // Facts of another plan: whatever they say, this slice was not looked at.
                None => vec![Verdict::unknown(format!(
                    "the slice `{name}` was not looked at"
                ))],
            };
            findings.extend(all.into_iter().map(|verdict| Finding {
                slice: Some(name.clone()),
                check: check.name,
                verdict,
            }));
        }
    }
    Report { findings }
}
