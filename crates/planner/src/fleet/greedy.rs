//! A first placement: one guest after the other, each where it fits best.
//!
//! Takes a state and an order; places what fits. Best is where virtual functions are not wasted,
//! then where the least is left over.

use super::load::{self, Load, MAIN, MEMORY, VFS};
use super::yard::{Place, Regret, Spot, State, Yard};

/// How ill a cell lies on a node: what is left there, and what others could still have used.
pub(crate) fn fit(spot: &Spot, free: &Load, load: &Load) -> Option<i32> {
    if !load::fits(load, free) {
        return None;
    }
    let mut cost = free[MAIN] - load[MAIN];
    // Threads without memory, or memory without threads, serve nobody.
    let threads = f64::from(free[MAIN] - load[MAIN]) / f64::from(spot.room[MAIN].max(1));
    let memory = f64::from(free[MEMORY] - load[MEMORY]) / f64::from(spot.room[MEMORY].max(1));
    if threads > memory {
        cost += ((threads - memory) * 12.0) as i32;
    }
    if load[VFS] == 0 && free[VFS] > 0 {
        cost += 64;
    }
    Some(cost)
}

/// The best place for one of a kind.
pub(crate) fn best_place(
    yard: &Yard,
    number: usize,
    free: &[Load],
    regret: &Regret,
) -> Option<Place> {
    let kind = &yard.kinds[number];
    let mut best: Option<(i32, Place)> = None;
    let mut keep = |cost: i32, place: Place| {
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, place));
        }
    };
    if kind.cells == 1 {
        for (at, spot) in yard.spots.iter().enumerate() {
            if let Some(load) = kind.load(spot, 0, kind.vfs())
                && let Some(cost) = fit(spot, &free[at], &load)
            {
                keep(cost + 4 * regret.at(number, at), Place::one(at, kind.vfs()));
            }
        }
        return best.map(|(_, place)| place);
    }
    for &(first, end) in &yard.servers {
        for a in first..end {
            let here = kind.vfs().min(free[a][VFS]);
            let spot = &yard.spots[a];
            let Some(one) = kind
                .load(spot, 0, here)
                .and_then(|load| fit(spot, &free[a], &load))
            else {
                continue;
            };
            for b in (first..end).filter(|&b| b != a) {
                let there = kind.vfs() - here;
                let spot = &yard.spots[b];
                if let Some(other) = kind
                    .load(spot, 1, there)
                    .and_then(|load| fit(spot, &free[b], &load))
                {
                    let place = Place {
                        spots: [a, b],
                        vfs: [here, there],
                    };
                    keep(one + other, place);
                }
            }
        }
    }
    best.map(|(_, place)| place)
}

/// Places what of these is not placed and fits, in their order.
pub(crate) fn fill(state: &mut State<'_>, order: &[usize], regret: &Regret) {
    // What did not fit will not fit later: nothing is taken away here.
    let mut full = vec![false; state.yard.kinds.len()];
    for &guest in order {
        let Some(number) = state.yard.kind_of[guest] else {
            continue;
        };
        if state.places[guest].is_some() || full[number] {
            continue;
        }
        match best_place(state.yard, number, &state.free, regret) {
            Some(place) => {
                state.place(guest, place);
            }
            None => full[number] = true,
        }
    }
}
