//! One spec on several servers: which slice goes where, and a plan for each server.
//!
//! Takes a sealed spec and servers, each perhaps with the plan in force; gives a plan for every
//! server that gets slices, why the others fit nowhere, and how many could be placed at most. Keeps
//! true: the plan of a server is, byte for byte, what [`plan_with`](crate::plan_with) makes of a spec
//! with just that server's slices, so that everything downstream works on it alone.
//!
//! ```text
//! Slicing, servers ─► seats (exact, server by server) ─► a spec for each server ─► its Plan
//!                └──► ceiling (the numbers of `fleet`) ─► how many at most
//! ```

mod ceiling;
mod kinds;
mod refused;
mod seats;

use std::collections::BTreeMap;

use bmslice_inventory::Inventory;
use bmslice_model::SliceName;
use bmslice_plan::Plan;
use bmslice_spec::{Place, Slicing};
use thiserror::Error;

use crate::refusal::Refusal;
use crate::{Change, Running};
use seats::Seats;

/// A server, and what is in force there.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The server; its host name is its name.
    pub inventory: &'a Inventory,
    /// The plan in force.
    pub previous: Option<&'a Plan>,
}

impl Member<'_> {
    /// The server's host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inventory.machine.hostname
    }
}

/// In which order servers are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fill {
    /// One after the other, so that whole servers stay free.
    #[default]
    Pack,
    /// For each slice the one with the fewest slices of its tenant first, then the emptiest.
    Spread,
}

impl From<Place> for Fill {
    fn from(place: Place) -> Self {
        match place {
            Place::Pack => Self::Pack,
            Place::Spread => Self::Spread,
        }
    }
}

/// How several servers are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which server is filled first.
    pub fill: Fill,
    /// What becomes of slices that are placed already.
    pub running: Running,
}

/// What one server gets.
#[derive(Debug, Clone)]
pub struct Share {
    /// The spec with just its slices; `None` when it has none.
    pub spec: Option<Slicing>,
    /// Its plan, when it has slices.
    pub plan: Option<Plan>,
}

/// A slice that has no place.
#[derive(Debug)]
pub struct Unplaced {
    /// Which.
    pub slice: SliceName,
    /// On how many servers it may be; 0 when its `server` is none of these, or none of these has the
    /// labels that it selects by.
    pub eligible: usize,
    /// By server, for the first few of them: why not there.
    pub why: Vec<(String, Refusal)>,
    /// The nearest change that was tried and would do, and the server where it would.
    pub change: Option<(String, Change)>,
}

/// All servers' plans.
#[derive(Debug)]
pub struct Placement {
    /// In the order of the servers.
    pub shares: Vec<Share>,
    /// In the order of the spec.
    pub unplaced: Vec<Unplaced>,
    /// What no placement exceeds, in slices.
    pub bound: u64,
}

impl Placement {
    /// How many slices have a place.
    #[must_use]
    pub fn placed(&self) -> usize {
        let specs = self.shares.iter().filter_map(|share| share.spec.as_ref());
        specs.map(|spec| spec.slices.len()).sum()
    }
}

/// Why several servers cannot be planned together.
#[derive(Debug, Error)]
pub enum ServersError {
    /// Nobody could tell which is which.
    #[error("two servers have the name `{name}`")]
    SameName {
        /// The host name.
        name: String,
    },
    /// One slice is in force on two servers.
    #[error("slice `{slice}` is in the plans in force of two servers, `{first}` and `{second}`")]
    InForceTwice {
        /// The slice.
        slice: SliceName,
        /// One server.
        first: String,
        /// The other.
        second: String,
    },
}

/// Places as many slices as it finds room for on the servers, and plans each server.
///
/// What a plan in force has placed stays on its server, and there where it is, as
/// [`Options::running`] says; a slice that no longer fits there goes to another server.
///
/// # Errors
/// [`ServersError`], when the servers contradict each other. A slice without a place is none.
pub fn plan_servers(
    spec: &Slicing,
    members: &[Member<'_>],
    options: Options,
) -> Result<Placement, ServersError> {
    consistent(members)?;
    let mut seats = Seats::new(spec, members, options);
    seats.fill();
    let mut failed: BTreeMap<usize, (String, Refusal)> = BTreeMap::new();
    let mut shares = Vec::with_capacity(members.len());
    for (server, member) in members.iter().enumerate() {
        shares.push(share(
            spec,
            server,
            member,
            options,
            &mut seats,
            &mut failed,
        ));
    }
    let without: Vec<usize> = seats.unplaced();
    let bound = if without.is_empty() {
        spec.slices.len() as u64
    } else {
        ceiling::bound(&mut seats).max((spec.slices.len() - without.len()) as u64)
    };
    let unplaced = without
        .into_iter()
        .map(|slice| {
            let mut found = refused::explain(&mut seats, slice);
            if let Some(failed) = failed.remove(&slice) {
                found.why.push(failed);
            }
            found
        })
        .collect();
    Ok(Placement {
        shares,
        unplaced,
        bound,
    })
}

fn consistent(members: &[Member<'_>]) -> Result<(), ServersError> {
    let mut names = BTreeMap::new();
    let mut homes: BTreeMap<&SliceName, &str> = BTreeMap::new();
    for member in members {
        let name = member.name();
        if names.insert(name, ()).is_some() {
            return Err(ServersError::SameName { name: name.into() });
        }
        for slice in member.previous.iter().flat_map(|plan| plan.slices()) {
            if let Some(first) = homes.insert(&slice.name, name) {
                return Err(ServersError::InForceTwice {
                    slice: slice.name.clone(),
                    first: first.into(),
                    second: name.into(),
                });
            }
        }
    }
    Ok(())
}

/// The plan of one server's slices. They were seen to fit, so that a refusal now comes of what the
/// search does not count, as the MACs of cards: then the slice that it names goes.
fn share(
    spec: &Slicing,
    server: usize,
    member: &Member<'_>,
    options: Options,
    seats: &mut Seats<'_>,
    failed: &mut BTreeMap<usize, (String, Refusal)>,
) -> Share {
    loop {
        let own = seats.on(server).to_vec();
        let Some(part) = seats::part(spec, &own) else {
            return Share {
                spec: None,
                plan: None,
            };
        };
        match crate::plan_on(&part, &seats.standing[server], options.running) {
            Ok(plan) => {
                return Share {
                    spec: Some(part),
                    plan: Some(plan),
                };
            }
            Err(refusal) => {
                let named = refusal.slices();
                let last = own
                    .iter()
                    .rev()
                    .find(|&&slice| named.contains(&&spec.slices[slice].name))
                    .or(own.last());
                if let Some(&slice) = last {
                    seats.leave(slice);
                    failed.insert(slice, (member.name().into(), refusal));
                }
            }
        }
    }
}
