//! Whole cores that stay free on a server (planning rule 11).
//!
//! Takes a problem whose host asks for headroom; tells the walk how many cores it may take of all
//! nodes together, and people what is missing. Exact, since what a walk has used is all that is
//! taken beside what stays. Without headroom nothing of this is asked.

use bmslice_plan::PlanParts;
use bmslice_spec::Slicing;

use crate::problem::{Problem, Site};
use crate::search::{Relax, Take, Used};
use crate::text::count;

/// The cores that may be taken of all nodes together; `None` is all.
pub(crate) fn most_cores(problem: &Problem, relax: Relax) -> Option<u32> {
    let asked = problem.headroom > 0 && !relax.headroom && !relax.cores;
    asked.then(|| free(problem).saturating_sub(problem.headroom))
}

/// Whether what stays has taken of the headroom already, so that nothing helps but to move it.
pub(crate) fn is_gone(problem: &Problem, relax: Relax) -> bool {
    most_cores(problem, relax).is_some() && free(problem) < problem.headroom
}

/// Whether these would take of the headroom.
pub(crate) fn reaches(most: Option<u32>, used: &Used, take: &Take<'_>) -> bool {
    let Some(most) = most else { return false };
    let taken: u32 = used.cores.iter().flatten().sum();
    let more: u32 = (0..take.vcpus.len()).map(|class| take.cores(class)).sum();
    taken + more > most
}

fn free(problem: &Problem) -> u32 {
    problem.cores.iter().flatten().sum()
}

/// What a refusal says of it.
pub(crate) fn asked(problem: &Problem) -> String {
    format!(
        "{} of the server {} to stay free, as `headroom` says",
        count(problem.headroom, "whole core"),
        are(problem.headroom)
    )
}

/// What a plan's report says of it: cores asked, cores free.
pub(crate) fn kept(spec: &Slicing, site: &Site<'_>, parts: &PlanParts) -> Option<String> {
    let asked = spec.host.headroom_cores;
    let nodes = site.server.nodes.iter();
    let free = nodes.flat_map(|node| &node.free);
    let free = free.filter(|core| core.cpus().is_subset(&parts.host.free));
    let free = u32::try_from(free.count()).unwrap_or(u32::MAX);
    (asked > 0).then(|| {
        format!(
            "{} {} to stay free as headroom, {free} {}",
            count(asked, "whole core"),
            are(asked),
            are(free)
        )
    })
}

fn are(cores: u32) -> &'static str {
    if cores == 1 { "is" } else { "are" }
}
