//! What became of the siblings that odd vCPUs leave (planning rule 2).
//!
//! Takes what was asked and planned; gives sentences for the report.

use bmslice_plan::{PlanParts, SlicePlan};
use bmslice_spec::{Sharing, SliceSpec, Slicing};

use crate::siblings::is_odd;
use crate::text::{and, cpus, ticked};

/// Beside whom a slice's odd vCPUs run, a sentence for each.
pub(super) fn shared(planned: &SlicePlan, parts: &PlanParts) -> Vec<String> {
    let others = parts.slices.iter();
    let others = others.filter(|other| planned.shares_a_core_with(other));
    others
        .map(|other| {
            let theirs = planned.shared_siblings.intersection(&other.vcpu_cpus());
            let mine = other.shared_siblings.intersection(&planned.vcpu_cpus());
            let (vcpus, a_core, that) = match mine.len() {
                1 => ("vCPU", "shares a core", "that"),
                _ => ("vCPUs", "share cores", "those"),
            };
            format!(
                "its {vcpus} on {} {a_core} with {that} of {} on {}, of the same tenant, as both allow",
                cpus(&mine),
                ticked(&other.name),
                cpus(&theirs)
            )
        })
        .collect()
}

/// That a slice which may share has nothing to share.
pub(super) fn none(slice: &SliceSpec, planned: &SlicePlan) -> Option<String> {
    let none = slice.sharing == Sharing::Tenant && planned.siblings().is_empty();
    none.then(|| {
        "no vCPU of it is alone on a core of two threads: `sharing` changes nothing".into()
    })
}

/// Why nobody has the siblings that a slice leaves, on cores of so many threads at most.
pub(super) fn not_shared(
    spec: &Slicing,
    threads: usize,
    slice: &SliceSpec,
    planned: &SlicePlan,
    parts: &PlanParts,
) -> String {
    let says = |it: &SliceSpec| it.sharing == Sharing::Tenant;
    // Others of the tenant that have such a sibling, too.
    let others = spec.slices.iter().zip(&parts.slices);
    let others: Vec<&SliceSpec> = others
        .filter(|(asked, other)| {
            other.tenant == planned.tenant
                && other.name != planned.name
                && is_odd(asked)
                && !other.idle.is_empty()
        })
        .map(|(asked, _)| asked)
        .collect();
    if threads > 2 || !is_odd(slice) || (!says(slice) && others.is_empty()) {
        return "cores are not shared".into();
    }
    let tenant = &planned.tenant;
    if !says(slice) {
        return format!(
            "tenant `{tenant}` shares cores only among slices that say `sharing: tenant`"
        );
    }
    let named = |says_so: bool| {
        let those = others.iter().filter(|it| says(it) == says_so);
        let names: Vec<String> = those.map(|it| ticked(&it.name)).collect();
        (!names.is_empty()).then(|| (names.len() > 1, and(names)))
    };
    if let Some((several, names)) = named(true) {
        let (vcpu, lies, stays) = match several {
            false => ("the odd vCPU", "lies", "stays where it is"),
            true => ("the odd vCPUs", "lie", "stay where they are"),
        };
        return format!(
            "{vcpu} of {names}, of the same tenant, {lies} on another node, in another L3 domain, or {stays}"
        );
    }
    if let Some((several, names)) = named(false) {
        let does = if several { "do" } else { "does" };
        return format!("{names}, of the same tenant, {does} not say `sharing: tenant`");
    }
    format!("no other odd vCPU of tenant `{tenant}` is left to share the core with")
}
