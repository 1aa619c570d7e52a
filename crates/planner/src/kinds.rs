//! Cores of several kinds, as hybrid CPUs have them: who has which.
//!
//! Takes the server and what was planned; gives sentences for the report, and none where all cores
//! are alike. Placement knows cores by their threads alone: this only tells what came of it.

use bmslice_inventory::Inventory;
use bmslice_model::CpuSet;

use crate::text::and;

/// The online CPUs of each kind, by lowest CPU; none when there are not several kinds.
fn kinds(inventory: &Inventory) -> Vec<(&str, CpuSet)> {
    let mut kinds: Vec<(&str, CpuSet)> = Vec::new();
    for cpu in inventory.cpus.iter().filter(|cpu| cpu.online) {
        let Some(kind) = cpu.kind.as_deref() else {
            continue;
        };
        match kinds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, cpus)) => {
                cpus.insert(cpu.id);
            }
            None => kinds.push((kind, CpuSet::from(cpu.id))),
        }
    }
    if kinds.len() > 1 { kinds } else { Vec::new() }
}

/// What people call them; the kernel's own names are `core`, `atom` and `lowpower`.
fn called(kind: &str) -> String {
    match kind {
        "core" => "P-cores".into(),
        "atom" => "E-cores".into(),
        "lowpower" => "low-power E-cores".into(),
        other => format!("cores of the kind `{other}`"),
    }
}

/// Of each kind which CPUs are these slices'.
pub(crate) fn taken(inventory: &Inventory, slices: &CpuSet) -> Option<String> {
    let kinds = kinds(inventory);
    let each: Vec<String> = kinds
        .iter()
        .map(|(kind, cpus)| {
            let mine = cpus.intersection(slices);
            let which = if mine.is_empty() {
                "none".to_owned()
            } else if mine == *cpus {
                "all".to_owned()
            } else {
                mine.to_string()
            };
            format!("of the {} ({cpus}) slices have {which}", called(kind))
        })
        .collect();
    (!each.is_empty()).then(|| format!("the cores are of several kinds: {}", and(each)))
}

/// The kinds that some vCPUs are on.
pub(crate) enum Used {
    /// They are alike.
    One(String),
    /// They are not, and run at different speeds.
    Several(String),
}

/// On which kinds of cores these vCPUs are.
pub(crate) fn used(inventory: &Inventory, vcpus: &CpuSet) -> Option<Used> {
    let kinds = kinds(inventory);
    let mine: Vec<(String, CpuSet)> = kinds
        .iter()
        .map(|(kind, cpus)| (called(kind), cpus.intersection(vcpus)))
        .filter(|(_, cpus)| !cpus.is_empty())
        .collect();
    match mine.as_slice() {
        [] => None,
        [(kind, _)] => Some(Used::One(format!("its vCPUs are on {kind}"))),
        several => {
            let each = several
                .iter()
                .map(|(kind, cpus)| format!("{kind} ({cpus})"));
            Some(Used::Several(format!(
                "its vCPUs are on {}, which differ in speed",
                and(each)
            )))
        }
    }
}
