//! Frequencies, governors, boost and idle states.
//!
//! Source: `Documentation/admin-guide/pm/cpufreq.rst`, `intel_pstate.rst`, `cpuidle.rst`.
//! Keeps true: frequencies are the hardware's limits, not what the CPU runs at just now, so that
//! the same server reads alike twice. `cpuinfo_cur_freq` is never read: it interrupts the CPU.

use bmslice_model::{CpuId, CpuSet};

use crate::facts::{Cpu, Frequencies, IdleFacts, IdleState, PowerFacts};
use crate::scan::{Scan, numbered};

const CPUS: &str = "/sys/devices/system/cpu";

/// Reads what the online CPUs tell.
pub(crate) fn read(scan: &mut Scan, cpus: &[Cpu]) -> PowerFacts {
    let online: CpuSet = cpus.iter().filter(|c| c.online).map(|c| c.id).collect();
    PowerFacts {
        boost: boost(scan),
        frequencies: frequencies(scan, &online),
        idle: online.first().and_then(|cpu| idle(scan, cpu)),
    }
}

fn boost(scan: &Scan) -> Option<bool> {
    scan.flag(&format!("{CPUS}/cpufreq/boost")).or_else(|| {
        scan.flag(&format!("{CPUS}/intel_pstate/no_turbo"))
            .map(|off| !off)
    })
}

fn frequencies(scan: &mut Scan, online: &CpuSet) -> Vec<Frequencies> {
    let mut found: Vec<Frequencies> = Vec::new();
    let mut seen = CpuSet::new();
    let ends = [online.first(), online.iter().last()];
    // The kernel has one driver, and shows the same files of all CPUs: where neither the first nor
    // the last is clocked, none is.
    let mut shown: Vec<String> = Vec::new();
    for cpu in ends.into_iter().flatten() {
        shown.extend(scan.list(&format!("{CPUS}/cpu{cpu}/cpufreq")));
    }
    if shown.is_empty() {
        return found;
    }
    // Where the first and the last CPU are rated alike, all are: then none of the others is asked.
    let [first, last] = ends.map(|cpu| rated(scan, cpu?));
    let uneven = first != last;
    let has = |name: &str| shown.iter().any(|shown| shown == name);
    let mut either = ends.into_iter().flatten();
    let driver =
        either.find_map(|cpu| scan.text(&format!("{CPUS}/cpu{cpu}/cpufreq/scaling_driver")));
    // A policy for each CPU, as most servers have, is each CPU's own.
    let policies = scan.list(&format!("{CPUS}/cpufreq"));
    let policies = policies
        .iter()
        .filter(|name| numbered(name, "policy").is_some());
    let own = policies.count() >= online.len();
    for cpu in online.iter() {
        if seen.contains(cpu) {
            continue;
        }
        let folder = format!("{CPUS}/cpu{cpu}/cpufreq");
        // A policy is told once, however many CPUs it has; its list has blanks for commas.
        let mut cpus = CpuSet::from(cpu);
        if !own {
            cpus.extend_from(&policy(scan, &folder).intersection(online));
        }
        seen.extend_from(&cpus);
        let one = Frequencies {
            cpus,
            driver: driver.clone(),
            governor: scan.text(&format!("{folder}/scaling_governor")),
            preference: has("energy_performance_preference")
                .then(|| scan.text(&format!("{folder}/energy_performance_preference")))
                .flatten(),
            min: scan.number(&format!("{folder}/cpuinfo_min_freq")),
            max: scan.number(&format!("{folder}/cpuinfo_max_freq")),
            base: has("base_frequency")
                .then(|| scan.number(&format!("{folder}/base_frequency")))
                .flatten()
                .or_else(|| uneven.then(|| rated(scan, cpu)).flatten()),
        };
        if (&one.governor, one.min, one.max, one.base) == (&None, None, None, None) {
            continue;
        }
        let like = |other: &&mut Frequencies| {
            let with = Frequencies {
                cpus: other.cpus.clone(),
                ..one.clone()
            };
            **other == with
        };
        match found.iter_mut().find(like) {
            Some(other) => other.cpus.extend_from(&one.cpus),
            None => found.push(one),
        }
    }
    found
}

/// What ACPI rates a CPU at, in kHz: its base frequency where no driver tells that.
fn rated(scan: &Scan, cpu: CpuId) -> Option<u64> {
    let mhz: u64 = scan.number(&format!("{CPUS}/cpu{cpu}/acpi_cppc/nominal_freq"))?;
    (mhz != 0).then_some(mhz.saturating_mul(1000))
}

/// Tells CPUs of several base frequencies apart as kinds, where nothing tells kinds by name: hybrids
/// whose driver is older than they are, and servers whose cores firmware gave different bases (Intel's
/// Speed Select).
pub(crate) fn kinds(cpus: &mut [Cpu], power: &PowerFacts) {
    if cpus
        .iter()
        .any(|cpu| cpu.kind.is_some() || cpu.capacity.is_some())
    {
        return;
    }
    let mut bases: Vec<u64> = power.frequencies.iter().filter_map(|f| f.base).collect();
    bases.sort_unstable();
    bases.dedup();
    if bases.len() < 2 {
        return;
    }
    for cpu in cpus {
        let of = power.frequencies.iter().find(|f| f.cpus.contains(cpu.id));
        cpu.kind = of
            .and_then(|group| group.base)
            .map(|base| format!("base {} MHz", base / 1000));
    }
}

fn policy(scan: &Scan, folder: &str) -> CpuSet {
    let text = scan
        .text(&format!("{folder}/related_cpus"))
        .or_else(|| scan.text(&format!("{folder}/affected_cpus")))
        .unwrap_or_default();
    text.split_whitespace()
        .filter_map(|number| CpuId::new(number.parse().ok()?).ok())
        .collect()
}

fn idle(scan: &Scan, cpu: CpuId) -> Option<IdleFacts> {
    let folder = format!("{CPUS}/cpu{cpu}/cpuidle");
    let mut states: Vec<(u32, IdleState)> = scan
        .list(&folder)
        .iter()
        .filter_map(|name| {
            let state = format!("{folder}/{name}");
            Some((
                numbered(name, "state")?,
                IdleState {
                    name: scan.text(&format!("{state}/name"))?,
                    latency: scan.number(&format!("{state}/latency")).unwrap_or(0),
                    disabled: scan.flag(&format!("{state}/disable")) == Some(true),
                },
            ))
        })
        .collect();
    states.sort_by_key(|(index, _)| *index);
    let facts = IdleFacts {
        driver: scan.text(&format!("{CPUS}/cpuidle/current_driver")),
        governor: scan
            .text(&format!("{CPUS}/cpuidle/current_governor"))
            .or_else(|| scan.text(&format!("{CPUS}/cpuidle/current_governor_ro"))),
        states: states.into_iter().map(|(_, state)| state).collect(),
    };
    (facts.driver.is_some() || !facts.states.is_empty()).then_some(facts)
}
