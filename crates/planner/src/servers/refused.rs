//! Why a slice has no place on several servers, and what would do.
//!
//! Takes seats in which it has none; gives for each server what cannot hold together there, and the
//! nearest change. Nothing is proposed that was not tried beside all that has a place.

use bmslice_spec::{SliceSpec, Slicing};

use super::seats::{Seats, part};
use super::{Placement, Unplaced};
use crate::change::Change;
use crate::ground::Standing;
use crate::{Running, nearest, place};

/// Servers that are explained, and on which changes are tried, those with the least in them first:
/// on each of many it would be the same.
const SERVERS: usize = 8;

/// Explains one slice.
pub(super) fn explain(seats: &mut Seats<'_>, slice: usize) -> Unplaced {
    let (spec, members) = (seats.spec, seats.members);
    let running = seats.options.running;
    let eligible = seats.eligible(slice).to_vec();
    let with = |seats: &Seats<'_>, server: usize| {
        let mut list = seats.on(server).to_vec();
        list.push(slice);
        list.sort_unstable();
        part(spec, &list)
    };
    let mut why = Vec::new();
    for &server in eligible.iter().take(SERVERS) {
        if let Some(part) = with(seats, server)
            && let Err(refusal) = place(&part, &seats.standing[server], running)
        {
            why.push((members[server].name().to_owned(), refusal));
        }
    }
    Unplaced {
        slice: spec.slices[slice].name.clone(),
        eligible: eligible.len(),
        change: nearest_of_any(seats, slice, &eligible, &with),
        why,
    }
}

/// The nearest change on any of the first few servers.
fn nearest_of_any(
    seats: &mut Seats<'_>,
    slice: usize,
    eligible: &[usize],
    with: &dyn Fn(&Seats<'_>, usize) -> Option<Slicing>,
) -> Option<(String, Change)> {
    let (spec, members) = (seats.spec, seats.members);
    let name = &spec.slices[slice].name;
    // Rank, what is lost of it, server.
    let mut found: Vec<(usize, usize, usize, Change)> = Vec::new();
    if let Some(change) = any_server(seats, slice) {
        found.push((0, 0, 0, change));
    } else if let Some((server, change)) = any_labels(seats, slice) {
        found.push((0, 0, server, change));
    }
    let mut servers = eligible.to_vec();
    servers.sort_by_key(|&server| (seats.on(server).len(), server));
    servers.truncate(SERVERS);
    // As it would be without slices, in force or not.
    let one_more = servers.iter().find(|&&server| {
        let alone = Standing::new(&spec.host, members[server].inventory, None);
        alone.fits(&spec.host, &[&spec.slices[slice]], Running::Stays)
    });
    if let Some(&server) = one_more {
        let change = Change::OneMore {
            slice: name.clone(),
            like: members[server].name().to_owned(),
        };
        found.push((nearest::ONE_MORE, 0, server, change));
    }
    for server in servers {
        // What is farther than what was found is not asked for.
        let within = found.iter().map(|(rank, ..)| *rank).min();
        let change = with(seats, server).and_then(|part| {
            let standing = &seats.standing[server];
            nearest::of_slice(&part, standing, name, within.unwrap_or(usize::MAX))
        });
        let change = change.filter(|(_, it)| holds_elsewhere(seats, slice, server, it));
        if let Some((rank, change)) = change {
            // Of two servers on which it would do with fewer vCPUs, the one that takes more.
            let lost = match &change {
                Change::Vcpus { vcpus, .. } => spec.slices[slice].vcpus.abs_diff(*vcpus) as usize,
                _ => 0,
            };
            found.push((rank, lost, server, change));
        }
    }
    found.sort_by_key(|(rank, lost, server, _)| (*rank, *lost, *server));
    let (_, _, server, change) = found.into_iter().next()?;
    let place = match &change {
        Change::AnyServer { server, .. } => server.clone(),
        _ => members[server].name().to_owned(),
    };
    Some((place, change))
}

/// Another server than the named one, that has room as things are.
fn any_server(seats: &Seats<'_>, slice: usize) -> Option<Change> {
    let asked = &seats.spec.slices[slice];
    asked.server.as_ref()?;
    (0..seats.members.len()).find_map(|server| {
        let change = Change::AnyServer {
            slice: asked.written().clone(),
            server: seats.members[server].name().to_owned(),
        };
        holds_beside(seats, slice, server, &change).then_some(change)
    })
}

/// A server without the labels, that has room as things are.
fn any_labels(seats: &Seats<'_>, slice: usize) -> Option<(usize, Change)> {
    let asked = &seats.spec.slices[slice];
    asked.selector.as_ref()?;
    let change = Change::AnyLabels {
        slice: asked.written().clone(),
    };
    let mut servers = 0..seats.members.len();
    let server = servers.find(|&server| holds_beside(seats, slice, server, &change))?;
    Some((server, change))
}

/// Whether a slice with a change has room on a server as things are.
fn holds_beside(seats: &Seats<'_>, slice: usize, server: usize, change: &Change) -> bool {
    let mut list = seats.on(server).to_vec();
    list.push(slice);
    list.sort_unstable();
    let mut slices: Vec<SliceSpec> = list
        .iter()
        .map(|&at| seats.spec.slices[at].clone())
        .collect();
    let mut host = seats.spec.host.clone();
    change.make(&mut host, &mut slices);
    let holds = Slicing::holds(&host, &slices).is_ok();
    let slices: Vec<&SliceSpec> = slices.iter().collect();
    holds
        && seats.standing[server].fits(&host, &slices, Running::Stays)
        && holds_elsewhere(seats, slice, server, change)
}

/// Whether a change, which changes all slices that are written as one, leaves those on other servers
/// where they are.
fn holds_elsewhere(seats: &Seats<'_>, slice: usize, server: usize, change: &Change) -> bool {
    let spec = seats.spec;
    let asked = &spec.slices[slice];
    let beside = match change {
        Change::Share { slices } => slices.as_slice(),
        _ => &[],
    };
    let changes = |it: &SliceSpec| it.written() == asked.written() || beside.contains(it.written());
    let mut others = (0..seats.members.len()).filter(|&other| other != server);
    (asked.replica.is_none() && beside.is_empty())
        || others.all(|other| {
            let list = seats.on(other);
            if !list.iter().any(|&at| changes(&spec.slices[at])) {
                return true;
            }
            let mut slices: Vec<SliceSpec> =
                list.iter().map(|&at| spec.slices[at].clone()).collect();
            let mut host = spec.host.clone();
            change.make(&mut host, &mut slices);
            let slices: Vec<&SliceSpec> = slices.iter().collect();
            seats.standing[other].fits(&host, &slices, seats.options.running)
        })
}

impl Placement {
    /// How many more slices might be placed: 0 when it is proven that no more can.
    #[must_use]
    pub fn gap(&self) -> u64 {
        self.bound.saturating_sub(self.placed() as u64)
    }
}
