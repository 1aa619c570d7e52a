//! Placement on one server: what is wanted and what is there, turned into a plan.
//!
//! Takes a sealed spec and an inventory; gives a [`Plan`] that leaves no choice to anybody
//! downstream, or a [`Refusal`] that names what cannot hold together and what would do. Pure and
//! deterministic: the same input gives the same bytes. The rules are planning rules 1 to 8 and 10.
//!
//! ```text
//! Slicing ─► Demand ┐                      ┌► layout ┐
//!                   ├► Problem ─► search ─► best ────┼► assemble ─► Plan + Report
//! Inventory ► Server┘      └► conflict ► change      └► cards
//! ```
//!
//! A plan stays what it is when it is applied: [`plan_following`] recognises what the plan in force
//! has changed on the server (isolated CPUs, bound drivers, functions without a name, running
//! domains) and gives back the same bytes as long as nothing else is wanted.

mod assemble;
mod best;
mod cards;
mod change;
mod conflict;
mod cores;
mod demand;
mod devices;
mod fill;
pub mod fleet;
mod function;
mod identity;
mod kernel;
mod kinds;
mod layout;
mod memory;
mod problem;
mod queues;
mod refusal;
mod report;
mod search;
mod server;
pub mod servers;
mod text;

use bmslice_inventory::Inventory;
use bmslice_plan::{Plan, PlanParts};
use bmslice_spec::Slicing;

pub use change::Change;
pub use refusal::{NicThere, Refusal};

use problem::{Keep, Site};
use search::{Answer, Relax};

/// Plans a server that no plan is in force on.
///
/// # Errors
/// [`Refusal`], when there is no placement.
pub fn plan(spec: &Slicing, inventory: &Inventory) -> Result<Plan, Refusal> {
    plan_following(spec, inventory, None)
}

/// Plans a server on which a plan may be in force: slices that are asked for as before stay where
/// they are, and the very same plan is given back when nothing changes. Else the new one names the
/// one that it [follows](PlanParts::follows).
///
/// # Errors
/// [`Refusal`], when there is no placement.
pub fn plan_following(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
) -> Result<Plan, Refusal> {
    plan_with(spec, inventory, previous, Running::Stays)
}

/// What becomes of slices that a plan in force has placed (planning rule 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Running {
    /// A slice that asks for what it has stays where it is.
    #[default]
    Stays,
    /// It may move where something would not fit otherwise: as few as can be.
    MayMove,
}

/// As [`plan_following`], and with [`Running::MayMove`] slices in force may make room for others.
///
/// # Errors
/// [`Refusal`], when there is no placement.
pub fn plan_with(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    running: Running,
) -> Result<Plan, Refusal> {
    let parts = place(spec, inventory, previous, running).map_err(|mut refusal| {
        if refusal.change_mut().is_some() {
            let found = change::nearest(spec, inventory, previous, &refusal);
            if let Some(change) = refusal.change_mut() {
                *change = found.map(Box::new);
            }
        }
        refusal
    })?;
    let Some(previous) = previous else {
        return Ok(Plan::new(parts)?);
    };
    // The report speaks of the server as it was when the plan was made: that alone is no change.
    let unchanged = PlanParts {
        follows: previous.parts().follows.clone(),
        report: previous.parts().report.clone(),
        ..parts.clone()
    };
    if unchanged == *previous.parts() {
        return Ok(previous.clone());
    }
    Ok(Plan::new(PlanParts {
        follows: Some(previous.digest()),
        ..parts
    })?)
}

/// What is kept, from the most to the least: a slice that is changed in whatever way restarts, and
/// may as well move; one that is not changed moves only when that is allowed, and then alone if that
/// suffices.
fn keeps(slices: usize, previous: Option<&Plan>, running: Running) -> Vec<Keep> {
    let mut keeps = vec![Keep::Cores];
    if previous.is_none() {
        return keeps;
    }
    keeps.push(Keep::Unchanged);
    if running == Running::MayMove {
        keeps.extend((0..slices).rev().map(Keep::AllBut));
        keeps.push(Keep::Nothing);
    }
    keeps
}

/// Finds a placement and makes the parts of its plan.
fn place(
    spec: &Slicing,
    inventory: &Inventory,
    previous: Option<&Plan>,
    running: Running,
) -> Result<PlanParts, Refusal> {
    let all: Vec<usize> = (0..spec.slices.len()).collect();
    let undecided = |steps: u64| Refusal::Undecided {
        steps,
        slices: spec.slices.iter().map(|slice| slice.name.clone()).collect(),
    };
    let mut last = None;
    for keep in keeps(spec.slices.len(), previous, running) {
        let site = Site::read(spec, inventory, previous, keep)?;
        let limit = search::DECIDE_STEPS;
        match search::decide(&site.problem, &all, Relax::default(), limit) {
            Answer::Found(choices) => {
                let best = best::find(&site, choices).ok_or_else(|| undecided(limit))?;
                return assemble::parts(spec, &site, &best, previous);
            }
            Answer::Impossible => {
                let nothing_stays = site.kept.iter().all(Option::is_none);
                last = Some(site);
                if nothing_stays {
                    break;
                }
            }
            Answer::GaveUp { steps } => return Err(undecided(steps)),
        }
    }
    match last {
        Some(site) => Err(conflict::explain(spec, &site)),
        None => Err(undecided(0)),
    }
}

/// Whether a spec surely fits, with little effort.
fn fits(spec: &Slicing, inventory: &Inventory, previous: Option<&Plan>, running: Running) -> bool {
    const STEPS: u64 = 20_000;
    let all: Vec<usize> = (0..spec.slices.len()).collect();
    keeps(spec.slices.len(), previous, running)
        .into_iter()
        .any(|keep| {
            Site::read(spec, inventory, previous, keep).is_ok_and(|site| {
                let answer = search::decide(&site.problem, &all, Relax::default(), STEPS);
                matches!(answer, Answer::Found(_))
            })
        })
}
