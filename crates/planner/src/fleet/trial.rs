//! Small fleets whose best placement is found by trying everything, for tests.

use super::ejection::Dice;
use super::load::{Guest, NodeShape, Threads};
use super::yard::{Place, State};

/// The most that can be placed, whoever is tried where.
pub(crate) fn most(state: &mut State<'_>, guest: usize) -> u64 {
    let yard = state.yard;
    let Some(kind) = yard.kind_of.get(guest) else {
        return state.value;
    };
    let mut best = most(state, guest + 1);
    let Some(kind) = kind.map(|kind| &yard.kinds[kind]) else {
        return best;
    };
    for &(first, end) in &yard.servers {
        for a in first..end {
            for b in first..end {
                for here in 0..=kind.vfs() {
                    let two = kind.cells == 2;
                    if (a == b) == two || (!two && here < kind.vfs()) {
                        continue;
                    }
                    let place = Place {
                        spots: [a, b],
                        vfs: [here, kind.vfs() - here],
                    };
                    if state.place(guest, place) {
                        best = best.max(most(state, guest + 1));
                        state.remove(guest);
                    }
                }
            }
        }
    }
    best
}

/// Three nodes or four, and six guests or seven.
pub(crate) fn small(round: usize, dice: &mut Dice) -> (Vec<Vec<NodeShape>>, Vec<Guest>) {
    let mut node = |threads_per_core| NodeShape {
        threads_per_core,
        full: 2 + dice.below(3) as u32,
        half: dice.below(2) as u32 * (threads_per_core - 1),
        memory: 8 + dice.below(8) as u32,
        vfs: dice.below(3) as u32,
    };
    let servers = match round % 3 {
        0 => vec![vec![node(2), node(2)], vec![node(1)]],
        1 => vec![vec![node(2), node(2), node(2)]],
        _ => vec![vec![node(2)], vec![node(2)], vec![node(1)]],
    };
    let mut guests: Vec<Guest> = Vec::new();
    while guests.len() < 6 {
        let cells = 1 + dice.below(4) as u32 / 3;
        let guest = Guest {
            vcpus: cells * (1 + dice.below(4) as u32),
            threads: [Threads::Prefer, Threads::Require, Threads::Isolate][dice.below(3)],
            emulator: dice.below(2) == 1,
            cells,
            memory: cells * (1 + dice.below(6) as u32),
            vfs: dice.below(6) as u32 / 4,
        };
        guests.extend(vec![guest; 1 + dice.below(3) / 2]);
    }
    (servers, guests)
}
