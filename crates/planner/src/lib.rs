//! Placement on one server: what is wanted and what is there, turned into a plan.
//!
//! Takes a sealed spec and an inventory; gives a [`Plan`] that leaves no choice to anybody
//! downstream, or a [`Refusal`] that names what cannot hold together and what would do. Pure and
//! deterministic: the same input gives the same bytes. The rules are planning rules 1 to 8 and 10.
//!
//! ```text
//! Slicing ──► Demand ┐                      ┌► layout ┐
//!                    ├► Problem ─► decide ─► best ────┼► assemble ─► Plan + Report
//! Inventory ► Ground ┘      └► conflict ► nearest     └► cards
//! ```
//!
//! A plan stays what it is when it is applied: [`plan_following`] recognises what the plan in force
//! has changed on the server (isolated CPUs, bound drivers, functions without a name, running
//! domains) and gives back the same bytes as long as nothing else is wanted.

mod assemble;
mod best;
mod candidates;
mod cards;
mod change;
mod conflict;
mod cores;
mod decide;
mod demand;
mod devices;
mod fill;
pub mod fleet;
mod function;
mod ground;
mod headroom;
mod hint;
mod identity;
mod kernel;
mod kinds;
mod layout;
mod lenders;
mod memory;
mod nearest;
mod pages;
mod pools;
mod problem;
mod queues;
mod refusal;
mod report;
mod search;
mod server;
pub mod servers;
mod siblings;
mod text;

use bmslice_inventory::Inventory;
use bmslice_plan::{Plan, PlanParts};
use bmslice_spec::{SliceSpec, Slicing};

pub use change::Change;
pub use refusal::{NicThere, Refusal};

use decide::Answer;
use ground::{Ground, Standing};
use problem::{Keep, Site};
use search::Relax;

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
    plan_on(
        spec,
        &Standing::new(&spec.host, inventory, previous),
        running,
    )
}

/// Plans a server as it stands.
fn plan_on(spec: &Slicing, standing: &Standing<'_>, running: Running) -> Result<Plan, Refusal> {
    let parts = place(spec, standing, running).map_err(|mut refusal| {
        if refusal.change_mut().is_some() {
            let found = nearest::nearest(spec, standing, &refusal);
            if let Some(change) = refusal.change_mut() {
                *change = found.map(Box::new);
            }
        }
        refusal
    })?;
    let Some(previous) = standing.previous else {
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
fn keeps(slices: usize, in_force: bool, running: Running) -> Vec<Keep> {
    let mut keeps = vec![Keep::Cores];
    if !in_force {
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
fn place(spec: &Slicing, standing: &Standing<'_>, running: Running) -> Result<PlanParts, Refusal> {
    let slices: Vec<&SliceSpec> = spec.slices.iter().collect();
    standing.here(&slices)?;
    standing.on_ground(&spec.host, &slices, |ground| {
        place_on(spec, ground, &slices, running)
    })?
}

fn place_on(
    spec: &Slicing,
    ground: &Ground<'_>,
    slices: &[&SliceSpec],
    running: Running,
) -> Result<PlanParts, Refusal> {
    let all: Vec<usize> = (0..slices.len()).collect();
    let undecided = |steps: u64| Refusal::Undecided {
        steps,
        slices: slices.iter().map(|slice| slice.name.clone()).collect(),
    };
    let mut last = None;
    for keep in keeps(slices.len(), ground.previous.is_some(), running) {
        let site = Site::read(ground, slices, keep)?;
        let limit = decide::DECIDE_STEPS;
        match decide::decide(&site.problem, &all, Relax::default(), limit) {
            Answer::Found(choices) => {
                let best = best::find(&site, choices).ok_or_else(|| undecided(limit))?;
                return assemble::parts(spec, &site, &best, ground.previous);
            }
            Answer::Impossible => {
                let nothing_stays = site.kept.iter().all(Option::is_none);
                let keep = if nothing_stays { Keep::Nothing } else { keep };
                let kept: Vec<bool> = site.kept.iter().map(Option::is_some).collect();
                last = Some((keep, kept));
                if nothing_stays {
                    break;
                }
            }
            Answer::GaveUp { steps } => return Err(undecided(steps)),
        }
    }
    match last {
        Some((keep, kept)) => Err(conflict::explain(slices, ground, keep, &kept)?),
        None => Err(undecided(0)),
    }
}

/// Whether slices surely fit, with little effort; of those of these numbers, also the devices near
/// that are to be near if possible.
fn fits(ground: &Ground<'_>, slices: &[&SliceSpec], near: &[usize], running: Running) -> bool {
    const STEPS: u64 = 20_000;
    let all: Vec<usize> = (0..slices.len()).collect();
    keeps(slices.len(), ground.previous.is_some(), running)
        .into_iter()
        .any(|keep| {
            Site::read(ground, slices, keep).is_ok_and(|mut site| {
                for &at in near {
                    site.problem.demands[at].insist_on_near();
                }
                let answer = decide::decide(&site.problem, &all, Relax::default(), STEPS);
                matches!(answer, Answer::Found(_))
            })
        })
}
