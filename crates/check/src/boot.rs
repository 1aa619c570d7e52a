//! What the next boot is told.

use std::collections::BTreeMap;

use bmslice_model::{ByteSize, CpuSet, KernelArg};
use bmslice_plan::NicPlan;
use bmslice_spec::{IdleStates, Isolation, Mitigations};

use crate::{Case, Found, Invariant};

fn all<'a>(case: &'a Case<'_>, key: &'a str) -> impl Iterator<Item = &'a KernelArg> {
    let args = case.plan.host().kernel_args.iter();
    args.filter(move |arg| arg.is(key))
}

pub(crate) const KERNEL_ARGS: Invariant = Invariant {
    code: "kernel-args",
    rule: "the arguments are about isolation, the IOMMU, huge pages, and the idle states and mitigations that were asked for, or the spec's own, and about nothing else",
    test: kernel_args,
};

/// The arguments behind `idleStates` and `mitigations`.
const BY_NAME: [&str; 4] = [
    "intel_idle.max_cstate",
    "processor.max_cstate",
    "idle",
    "mitigations",
];

/// What the spec's names mean on this server, in the order of the arguments.
fn by_name(case: &Case<'_>) -> Vec<&'static str> {
    let vendor = case.inventory.machine.cpu_vendor.as_deref();
    let amds = vendor.is_some_and(|v| v == "AuthenticAMD" || v == "HygonGenuine");
    let mut args = match case.spec.host.idle_states {
        IdleStates::All => vec![],
        IdleStates::Shallow if amds => vec!["processor.max_cstate=1"],
        IdleStates::Shallow => vec!["intel_idle.max_cstate=1", "processor.max_cstate=1"],
        IdleStates::Poll => vec!["idle=poll"],
    };
    if case.spec.host.mitigations == Mitigations::None {
        args.push("mitigations=off");
    }
    args
}

fn kernel_args(case: &Case<'_>, found: &mut Found) {
    const OURS: [&str; 9] = [
        "intel_iommu",
        "iommu",
        "isolcpus",
        "irqaffinity",
        "nohz_full",
        "rcu_nocbs",
        "default_hugepagesz",
        "hugepagesz",
        "hugepages",
    ];
    let (is, asked) = (
        case.plan.host().fall_back_minutes,
        case.spec.host.fall_back_minutes,
    );
    if is != asked {
        found.host(format!(
            "it falls back after {is} minutes, asked were {asked}"
        ));
    }
    for asked in &case.spec.host.kernel_args {
        if !case.plan.host().kernel_args.contains(asked) {
            found.host(format!("`{asked}` was asked for, and is not there"));
        }
    }
    let named = by_name(case);
    let all = case.plan.host().kernel_args.iter();
    let there: Vec<&str> = all
        .map(KernelArg::as_str)
        .filter(|arg| {
            !case
                .spec
                .host
                .kernel_args
                .iter()
                .any(|own| own.as_str() == *arg)
        })
        .filter(|arg| BY_NAME.iter().any(|key| arg.split('=').next() == Some(key)))
        .collect();
    if there != named {
        found.host(format!(
            "idle states and mitigations are chosen by `{}`, asked was `{}`",
            there.join(" "),
            named.join(" ")
        ));
    }
    for arg in &case.plan.host().kernel_args {
        let asked = case.spec.host.kernel_args.contains(arg) || named.contains(&arg.as_str());
        if !asked && !OURS.iter().any(|key| arg.is(key)) {
            found.host(format!("`{arg}` is not for a plan to set"));
        }
        // Pass-through: only the guests' devices are translated, not each of the host's own.
        if arg.is("iommu") && arg.value() != Some("pt") {
            found.host(format!("`{arg}` should be `iommu=pt`"));
        }
    }
}

pub(crate) const ISOLATION: Invariant = Invariant {
    code: "isolation",
    rule: "with isolation at boot, `isolcpus` stands there once, with `domain` and `managed_irq`, over the isolated CPUs exactly; otherwise not at all; no argument gives the host's work an isolated CPU or the reverse; the tick is stopped and settings are made just as asked; guests are in the partition just when there is one",
    test: isolation,
};

fn isolation(case: &Case<'_>, found: &mut Found) {
    let host = case.plan.host();
    if host.isolation != case.spec.host.isolation {
        let (is, asked) = (host.isolation, case.spec.host.isolation);
        found.host(format!("the isolation is {is:?}, asked was {asked:?}"));
    }
    if host.settings != case.spec.host.settings {
        let (is, asked) = (host.settings, case.spec.host.settings);
        found.host(format!(
            "the kernel's settings are {is:?}, asked were {asked:?}"
        ));
    }
    for key in ["nohz_full", "rcu_nocbs"] {
        let said = all(case, key).count() == 1;
        if said != (case.spec.host.tickless && !host.isolated.is_empty()) {
            let asked = if case.spec.host.tickless { "" } else { "not " };
            found.host(format!("`{key}` was {asked}asked for"));
        }
    }
    let dynamic = host.isolation == Isolation::Dynamic;
    for slice in case.plan.slices() {
        let partition = slice.partition.as_deref();
        if partition != dynamic.then_some("/bmslice") {
            let is = partition.unwrap_or("libvirt's own");
            found.slice(slice, format!("its resource partition is {is}"));
        }
        if dynamic && slice.pool_is_host {
            found.slice(
                slice,
                "its emulator is on the host's CPUs, which its partition has not",
            );
        }
    }
    let said: Vec<&KernelArg> = all(case, "isolcpus").collect();
    let boot = host.isolation == Isolation::Boot && !host.isolated.is_empty();
    match said[..] {
        [] if boot => found.host(format!("no argument isolates CPUs {}", host.isolated)),
        [arg] if boot => isolcpus(arg, &host.isolated, found),
        [] => {}
        [_] => found.host("`isolcpus` stands there though CPUs are not isolated at boot"),
        [_, ..] => found.host("`isolcpus` stands there more than once"),
    }
    let mut list = |key: &'static str, within: &CpuSet, whose: &str| {
        for arg in all(case, key) {
            match arg.value().unwrap_or_default().parse::<CpuSet>() {
                Ok(cpus) if cpus.is_subset(within) => {}
                Ok(cpus) => {
                    let outside = cpus.difference(within);
                    found.host(format!(
                        "`{arg}` names CPUs {outside}, which are not {whose}"
                    ));
                }
                Err(error) => found.host(format!("`{arg}`: {error}")),
            }
        }
    };
    list("irqaffinity", &host.cpus, "the host's");
    list("nohz_full", &host.isolated, "isolated");
    list("rcu_nocbs", &host.isolated, "isolated");
}

/// `isolcpus=[flag-list,]<cpu-list>` (Documentation/admin-guide/kernel-parameters.txt).
fn isolcpus(arg: &KernelArg, isolated: &CpuSet, found: &mut Found) {
    let parts: Vec<&str> = arg.value().unwrap_or_default().split(',').collect();
    let is_flag = |part: &&&str| part.starts_with(|c: char| c.is_ascii_alphabetic());
    let flags: Vec<&str> = parts.iter().take_while(is_flag).copied().collect();
    for wanted in ["domain", "managed_irq"] {
        if !flags.contains(&wanted) {
            found.host(format!("`{arg}` lacks the flag `{wanted}`"));
        }
    }
    match parts[flags.len()..].join(",").parse::<CpuSet>() {
        Ok(cpus) if cpus == *isolated => {}
        Ok(cpus) => found.host(format!(
            "`isolcpus` is over {cpus}, should be over {isolated}"
        )),
        Err(error) => found.host(format!("`{arg}`: {error}")),
    }
}

pub(crate) const IOMMU: Invariant = Invariant {
    code: "iommu",
    rule: "when a slice gets a device, the IOMMU is on or will be: `intel_iommu=on` unless it is on already or the firmware describes another kind, which the kernel turns on by itself",
    test: iommu,
};

fn iommu(case: &Case<'_>, found: &mut Found) {
    let nics = || case.plan.slices().iter().flat_map(|slice| &slice.nics);
    let boot = &case.inventory.boot;
    let asks = all(case, "intel_iommu").any(|arg| {
        let value = arg.value().unwrap_or_default();
        value.split(',').any(|part| part == "on")
    });
    if all(case, "intel_iommu").any(|arg| arg.value() == Some("off")) {
        found.host("the arguments turn the IOMMU off");
    }
    // There is no such switch (Documentation/admin-guide/kernel-parameters.txt): a reader would
    // believe that it did something.
    if all(case, "amd_iommu").any(|arg| arg.value() == Some("on")) {
        found.host("`amd_iommu=on` means nothing to the kernel");
    }
    if nics().all(|nic| nic.functions().is_empty()) || asks || boot.iommu {
        return;
    }
    let by_itself = match &boot.iommu_tables {
        Some(tables) => !tables.is_empty() && tables.iter().all(|table| table != "DMAR"),
        None => case.inventory.machine.cpu_vendor.as_deref() == Some("AuthenticAMD"),
    };
    if !by_itself {
        let first = nics().find_map(|nic: &NicPlan| nic.functions().first().copied());
        let first = first.map(|f| f.to_string()).unwrap_or_default();
        found.host(format!(
            "a slice gets {first}, but the IOMMU is off and no argument turns it on"
        ));
    }
}

pub(crate) const HUGE_PAGE_ARGS: Invariant = Invariant {
    code: "huge-page-args",
    rule: "the arguments ask for exactly the pages that are planned for boot, node by node",
    test: huge_page_args,
};

fn huge_page_args(case: &Case<'_>, found: &mut Found) {
    let mut asked: BTreeMap<(u32, ByteSize), u64> = BTreeMap::new();
    // `hugepages` is about the size that the last `hugepagesz` named.
    let mut size = None;
    for arg in &case.plan.host().kernel_args {
        let value = arg.value().unwrap_or_default();
        if arg.is("hugepagesz") {
            size = page_size(value);
            if size.is_none() {
                found.host(format!("`{arg}` names no page size"));
            }
        } else if arg.is("hugepages") {
            let Some(size) = size else {
                found.host(format!("`{arg}` stands before any `hugepagesz`"));
                continue;
            };
            for part in value.split(',') {
                let pair = part.split_once(':');
                let pair = pair.and_then(|(node, n)| Some((node.parse().ok()?, n.parse().ok()?)));
                let Some((node, count)) = pair else {
                    // Without nodes the kernel spreads them as it likes.
                    found.host(format!("`{arg}` does not say `node:count`"));
                    continue;
                };
                if asked.insert((node, size), count).is_some() {
                    found.host(format!("`{arg}` names node {node} twice"));
                }
            }
        }
    }
    let planned = case
        .plan
        .host()
        .huge_pages
        .iter()
        .filter(|pool| pool.at_boot);
    let planned: BTreeMap<_, _> = planned.map(|p| ((p.node.0, p.size), p.count)).collect();
    let get = |map: &BTreeMap<_, u64>, key| map.get(key).copied().unwrap_or(0);
    for key in asked
        .keys()
        .chain(planned.keys().filter(|k| !asked.contains_key(k)))
    {
        let (is, want) = (get(&asked, key), get(&planned, key));
        if is != want {
            let (node, size) = key;
            found.host(format!(
                "the arguments ask for {is} pages of {size} on node {node}, planned are {want}"
            ));
        }
    }
}

/// `1G`, `2M`: the kernel's memparse().
fn page_size(value: &str) -> Option<ByteSize> {
    let number = value.trim_end_matches(['K', 'k', 'M', 'm', 'G', 'g']);
    let count: u64 = number.parse().ok()?;
    let shift = match &value[number.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return None,
    };
    count.checked_mul(1 << shift).map(ByteSize::from_bytes)
}
