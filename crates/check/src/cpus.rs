//! Whose each CPU is (planning rules 1, 2, 3 and 5).

use bmslice_inventory::DomainFacts;
use bmslice_model::{CpuId, CpuSet, count};
use bmslice_plan::SlicePlan;
use bmslice_spec::{Isolation, Sharing, Smt};

use crate::{Case, Found, Invariant};

pub(crate) const HOST_RESERVE: Invariant = Invariant {
    code: "host-reserve",
    rule: "the host keeps its reserve: whole online cores, as many as asked (on each node that has CPUs, or in all), CPU 0's core among them",
    test: host_reserve,
};

fn host_reserve(case: &Case<'_>, found: &mut Found) {
    let (server, host) = (&case.server, &case.plan.host().cpus);
    for cpu in host.iter().filter(|cpu| !server.online.contains(*cpu)) {
        found.host(format!("the host's CPU {cpu} is not online on this server"));
    }
    let cores = server.cores(host);
    for core in &cores {
        if !core.is_subset(host) {
            let missing = core.difference(host);
            found.host(format!(
                "the host has a part of core {core}: {missing} is missing"
            ));
        }
    }
    let zero = CpuId::from(0u8);
    if server.online.contains(zero) && !host.contains(zero) {
        found.host("CPU 0 is not the host's");
    }

    let asked = case.spec.host.reserve_cores as usize;
    let mut judge = |place: &str, cores: &[&CpuSet]| {
        // A core that this process may not use cannot go to a slice, so it may stay with the host
        // beyond the reserve.
        let spare = cores
            .iter()
            .filter(|core| core.iter().all(|cpu| server.usable(cpu)))
            .count();
        if cores.len() < asked {
            let have = cores.len();
            found.host(format!(
                "the host has {} {place}, asked were {asked}",
                count(have, "core")
            ));
        } else if spare > asked {
            found.host(format!(
                "the host has {} {place}, asked were only {asked}",
                count(spare, "core")
            ));
        }
    };
    if case.spec.host.reserve_per_numa {
        for node in case.inventory.nodes.iter().filter(|n| !n.cpus.is_empty()) {
            let local: Vec<&CpuSet> = cores
                .iter()
                .filter(|core| core.first().and_then(|cpu| server.node(cpu)) == Some(node.id))
                .collect();
            judge(&format!("on node {}", node.id), &local);
        }
    } else {
        judge("in all", &cores.iter().collect::<Vec<_>>());
    }
}

pub(crate) const ISOLATED: Invariant = Invariant {
    code: "isolated",
    rule: "the isolated CPUs are the online ones that this process may use and the host does not have, and the free ones those of them that no slice has",
    test: isolated,
};

fn isolated(case: &Case<'_>, found: &mut Found) {
    let host = case.plan.host();
    let others = case.server.online.difference(&host.cpus);
    let in_force = in_force(case);
    let allowed: CpuSet = case
        .inventory
        .cpus
        .iter()
        // In force, a partition's CPUs are not allowed to whoever looks from outside of it: then
        // which of them were before cannot be told.
        .filter(|cpu| cpu.allowed || (in_force && host.isolated.contains(cpu.id)))
        .map(|cpu| cpu.id)
        .collect();
    let isolated = others.intersection(&allowed);
    if host.isolated != isolated {
        let text = format!(
            "the isolated CPUs are {}, should be {isolated}",
            host.isolated
        );
        found.host(text);
    }
    let owned = case.plan.slices().iter();
    let owned = owned.fold(CpuSet::new(), |all, slice| all.union(&slice.held()));
    let free = isolated.difference(&owned);
    if host.free != free {
        found.host(format!("the free CPUs are {}, should be {free}", host.free));
    }
}

pub(crate) const USABLE: Invariant = Invariant {
    code: "cpu-usable",
    rule: "every CPU of a slice is there, online, and allowed to this process",
    test: usable,
};

/// Whether an isolated cgroup partition of this plan is in force: it takes its CPUs from everybody
/// else's groups, so that this process may not use them, and they are the slices' all the same.
fn in_force(case: &Case<'_>) -> bool {
    let domains = case.inventory.hypervisor.libvirt.iter();
    let running = domains.flat_map(|libvirt| &libvirt.domains).any(|domain| {
        domain.running
            && case
                .spec
                .slices
                .iter()
                .any(|s| s.name.as_str() == domain.name)
    });
    let partition = |found: &bmslice_inventory::Partition| {
        found.cgroup == "/bmslice.slice" && found.state == "isolated"
    };
    let made = case.inventory.host.partitions.iter().any(partition);
    (running || made) && case.plan.host().isolation == Isolation::Dynamic
}

fn usable(case: &Case<'_>, found: &mut Found) {
    let in_force = in_force(case);
    for slice in case.plan.slices() {
        for cpu in slice.held().iter() {
            let why = match case.server.cpu(cpu) {
                None => "is not on this server",
                Some(cpu) if !cpu.online => "is offline",
                Some(cpu) if !cpu.allowed && !in_force => "is not allowed to this process",
                Some(_) => continue,
            };
            found.slice(slice, format!("CPU {cpu} {why}"));
        }
    }
}

pub(crate) const UNSHARED_CORES: Invariant = Invariant {
    code: "core-shared",
    rule: "no two slices share a core, but for the pool of their tenant and the two threads of a core with an odd vCPU of each, where both are of one tenant and ask for that; and none shares one with the host",
    test: unshared_cores,
};

fn unshared_cores(case: &Case<'_>, found: &mut Found) {
    let slices = case.plan.slices();
    for (i, slice) in slices.iter().enumerate() {
        let mine = slice.held();
        for core in case.server.cores(&mine) {
            if !core.is_disjoint(&case.plan.host().cpus) {
                found.slice(slice, format!("it shares core {core} with the host"));
            }
            for other in &slices[i + 1..] {
                let theirs = other.held();
                if core.is_disjoint(&theirs)
                    || is_one_pool(slice, other, &core)
                    || is_a_thread_each(case, slice, other, &core)
                {
                    continue;
                }
                let text = format!("it shares core {core} with slice `{}`", other.name);
                found.slice(slice, text);
            }
        }
    }
}

/// Whether a core is of the pool that both slices have of their tenant, and nothing else runs there.
fn is_one_pool(a: &SlicePlan, b: &SlicePlan, core: &CpuSet) -> bool {
    a.shares_pool_with(b)
        && core.is_subset(&a.shared())
        && core.is_disjoint(&a.owned())
        && core.is_disjoint(&b.owned())
}

/// Whether a core of two threads has one vCPU of each slice, and both may share it: they are of one
/// tenant and ask for `sharing: tenant` of packed vCPUs.
fn is_a_thread_each(case: &Case<'_>, a: &SlicePlan, b: &SlicePlan, core: &CpuSet) -> bool {
    let allows = |slice: &SlicePlan| {
        let mut asked = case.slices().filter(|(other, _)| other.name == slice.name);
        asked.any(|(_, spec)| {
            spec.sharing == Sharing::Tenant
                && spec.smt == Smt::Pack
                && spec.tenant == slice.tenant
                && core.intersection(&slice.held()).len() == 1
                && core.intersection(&slice.vcpu_cpus()).len() == 1
        })
    };
    core.len() == 2 && a.tenant == b.tenant && allows(a) && allows(b)
}

pub(crate) const SIBLINGS: Invariant = Invariant {
    code: "sibling-shared",
    rule: "the siblings that a slice is said to share are those beside its vCPUs that run vCPUs of other slices",
    test: siblings,
};

fn siblings(case: &Case<'_>, found: &mut Found) {
    let slices = case.plan.slices();
    for (i, slice) in slices.iter().enumerate() {
        let mut beside = CpuSet::new();
        for core in case.server.cores(&slice.vcpu_cpus()) {
            for (_, other) in slices.iter().enumerate().filter(|(j, _)| *j != i) {
                beside.extend_from(&core.intersection(&other.vcpu_cpus()));
            }
        }
        if slice.shared_siblings != beside {
            let shown = |cpus: &CpuSet| match cpus.is_empty() {
                true => "none".to_owned(),
                false => cpus.to_string(),
            };
            let (said, is) = (shown(&slice.shared_siblings), shown(&beside));
            let text = format!("the siblings that it shares are {is}, said is {said}");
            found.slice(slice, text);
        }
    }
}

pub(crate) const WHOLE_CORES: Invariant = Invariant {
    code: "core-whole",
    rule: "a core that a slice uses is wholly its own, but for siblings that it shares: those that run nothing are kept as idle, not left free",
    test: whole_cores,
};

fn whole_cores(case: &Case<'_>, found: &mut Found) {
    for slice in case.plan.slices() {
        let owned = slice.held();
        for core in case.server.cores(&owned) {
            // What it shares, and with whom, is judged by the rules above.
            let left = core.difference(&owned).difference(&slice.shared_siblings);
            if !left.is_empty() {
                found.slice(slice, format!("of core {core} it does not keep {left}"));
            }
        }
    }
}

pub(crate) const IDLE: Invariant = Invariant {
    code: "idle",
    rule: "an idle CPU is a sibling of one that runs something of the same slice",
    test: idle,
};

fn idle(case: &Case<'_>, found: &mut Found) {
    for slice in case.plan.slices() {
        let mut busy = slice.vcpu_cpus();
        if !slice.pool_is_host {
            busy.extend_from(&slice.pool());
        }
        for cpu in slice.idle.iter() {
            if case.server.core(cpu).is_disjoint(&busy) {
                found.slice(
                    slice,
                    format!("CPU {cpu} is kept idle, but nothing of the slice runs beside it"),
                );
            }
        }
    }
}

pub(crate) const POOL: Invariant = Invariant {
    code: "pool",
    rule: "emulator and IOThreads run on as many whole cores as asked, beside no vCPU, shared within the tenant where that is asked; or on the host's CPUs when none were asked",
    test: pool,
};

fn pool(case: &Case<'_>, found: &mut Found) {
    for (slice, spec) in case.slices() {
        let asked = spec.iothreads as usize;
        if slice.iothreads.len() != asked {
            let have = slice.iothreads.len();
            found.slice(
                slice,
                format!("it has {}, asked were {asked}", count(have, "IOThread")),
            );
        }
        if slice.emulator.is_empty() {
            found.slice(slice, "the emulator has no CPU");
        }
        for (index, cpus) in slice.iothreads.iter().enumerate() {
            if cpus.is_empty() {
                found.slice(slice, format!("IOThread {} has no CPU", index + 1));
            }
        }
        let pool = slice.pool();
        let on_host = spec.emulator_cores == 0;
        if slice.pool_is_host != on_host {
            let (is, asked) = if on_host {
                ("cores of their own", "the host's")
            } else {
                ("the host's cores", "cores of their own")
            };
            found.slice(
                slice,
                format!("emulator and IOThreads are on {is}, asked was {asked}"),
            );
        }
        let shared = spec.shared_pool && !on_host;
        if slice.pool_is_shared != shared {
            let (is, asked) = if shared {
                ("cores of its own", "its tenant's")
            } else {
                ("cores that its tenant shares", "its own")
            };
            found.slice(
                slice,
                format!("emulator and IOThreads are on {is}, asked were {asked}"),
            );
        }
        if slice.pool_is_host {
            let outside = pool.difference(&case.plan.host().cpus);
            if !outside.is_empty() {
                found.slice(
                    slice,
                    format!("CPUs {outside} of its emulator and IOThreads are not the host's"),
                );
            }
            continue;
        }
        let cores = case.server.cores(&pool);
        if !on_host && cores.len() != spec.emulator_cores as usize {
            let (have, asked) = (cores.len(), spec.emulator_cores);
            found.slice(
                slice,
                format!(
                    "emulator and IOThreads have {}, asked were {asked}",
                    count(have, "core")
                ),
            );
        }
        let vcpus = slice.vcpu_cpus();
        for core in cores.iter().filter(|core| !core.is_disjoint(&vcpus)) {
            found.slice(
                slice,
                format!("a vCPU runs on core {core} beside the emulator or an IOThread"),
            );
        }
    }
}

pub(crate) const FOREIGN_DOMAINS: Invariant = Invariant {
    code: "foreign-domain",
    rule: "no slice takes a CPU's core or a device of a running domain that is neither one of the slices nor one of the plan in force",
    test: foreign_domains,
};

/// Whether a domain is a slice's: of this plan, or of the one in force, whose place is given back.
pub(crate) fn is_ours(case: &Case<'_>, domain: &DomainFacts) -> bool {
    let was = case.in_force.and_then(|plan| plan.slice(&domain.name));
    let mut asked = case.spec.slices.iter();
    asked.any(|slice| slice.name.as_str() == domain.name)
        || was.is_some_and(|was| was.uuid.eq_ignore_ascii_case(&domain.uuid))
}

fn foreign_domains(case: &Case<'_>, found: &mut Found) {
    let Some(libvirt) = &case.inventory.hypervisor.libvirt else {
        return;
    };
    for domain in libvirt
        .domains
        .iter()
        .filter(|domain| domain.running && !is_ours(case, domain))
    {
        // One without pins floats over all CPUs, and holds none.
        let pinned = !case.server.online.is_subset(&domain.cpus);
        for slice in case.plan.slices() {
            for core in case.server.cores(&slice.held()) {
                if pinned && !core.is_disjoint(&domain.cpus) {
                    let text = format!(
                        "core {core} is used by the running domain `{}`",
                        domain.name
                    );
                    found.slice(slice, text);
                }
            }
            for function in slice.nics.iter().flat_map(bmslice_plan::NicPlan::functions) {
                if domain.devices.contains(&function) {
                    let text = format!(
                        "{function} is in use by the running domain `{}`",
                        domain.name
                    );
                    found.slice(slice, text);
                }
            }
        }
    }
}
