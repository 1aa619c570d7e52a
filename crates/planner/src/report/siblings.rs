//! What became of the siblings that odd vCPUs leave (planning rule 2).
//!
//! Takes what was asked and planned; gives sentences for the report.

use bmslice_plan::{PlanParts, SlicePlan};
use bmslice_spec::{Sharing, SliceSpec, Slicing};

use crate::text::{and, cpus, ticked};

/// Beside whom a slice's odd vCPUs run, a sentence for each.
pub(super) fn shared(planned: &SlicePlan, parts: &PlanParts) -> Vec<String> {
    let others = parts.slices.iter();
    let others = others.filter(|other| planned.shares_a_core_with(other));
    others
        .map(|other| {
            let theirs = planned.shared_siblings.intersection(&other.vcpu_cpus());
            let mine = other.shared_siblings.intersection(&planned.vcpu_cpus());
            format!(
                "its vCPU on {} shares a core with that of {} on {}, of the same tenant, as both allow",
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

/// Why nobody has the sibling of a slice's odd vCPU, although it may be had.
pub(super) fn not_shared(spec: &Slicing, planned: &SlicePlan, parts: &PlanParts) -> String {
    let others = spec.slices.iter().zip(&parts.slices);
    let could: Vec<String> = others
        .filter(|(asked, other)| {
            asked.sharing == Sharing::Tenant
                && other.tenant == planned.tenant
                && other.name != planned.name
                && !other.idle.is_empty()
        })
        .map(|(_, other)| ticked(&other.name))
        .collect();
    if could.is_empty() {
        let tenant = &planned.tenant;
        return format!("no other slice of tenant `{tenant}` has an odd vCPU to share it with");
    }
    format!(
        "that of {}, of the same tenant, lies on another node, in another L3 domain, or stays where it is",
        and(could)
    )
}
