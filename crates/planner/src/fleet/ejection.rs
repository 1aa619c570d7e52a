//! Makes room for a guest by ejecting those that matter least, again and again.
//!
//! Takes a state and the guests that are to be placed; gives a state with as many of them as it
//! finds. A guest that finds no room grows in weight, and what is ejected for it is of the least
//! weight: so the hard ones settle, and the easy ones find what is left. The effort is counted in
//! rounds, and the dice are always the same.

use super::greedy;
use super::load::{self, DIMS, Load};
use super::yard::{Kind, Place, Regret, State};

/// Guests that are ejected from one node at once, at most.
const MOST_EJECTED: usize = 3;

/// Dice that always fall alike.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * n as u64) >> 32) as usize
    }
}

/// What a guest weighs at first, and more each time that it finds no room.
const WEIGHT: u64 = 16;

/// Rounds without anything better before it starts over.
const PATIENCE: u64 = 1500;

/// Who leaves a node.
#[derive(Debug, Clone, Copy, Default)]
struct Leave {
    weight: u64,
    count: usize,
    guests: [u32; MOST_EJECTED],
}

pub(crate) struct Search<'y, 'c> {
    pub state: State<'y>,
    pub best: State<'y>,
    /// By guest.
    weight: Vec<u64>,
    /// Guests that are to be placed and are not, last to go first.
    waiting: Vec<usize>,
    /// Guests that nobody insists on.
    spare: Vec<usize>,
    /// By guest: whether it is insisted on.
    wanted: Vec<bool>,
    /// By guest: its cost by the prices of what is scarce; empty when nothing is known to be.
    cost: &'c [f64],
    regret: &'c Regret,
    /// What a unit of each number is of all there is of it.
    unit: [f64; DIMS],
    /// Whether only those that are wanted may lie.
    exact: bool,
    dice: Dice,
    pub rounds: u64,
}

impl<'y, 'c> Search<'y, 'c> {
    /// Starts from a state; `wanted` are those that are to be placed.
    pub fn new(
        state: State<'y>,
        wanted: Vec<bool>,
        cost: &'c [f64],
        regret: &'c Regret,
        seed: u64,
    ) -> Self {
        let unplaced = |want: bool| {
            (0..state.places.len())
                .filter(|&g| state.places[g].is_none() && state.yard.kind_of[g].is_some())
                .filter(|&g| wanted[g] == want)
                .collect::<Vec<usize>>()
        };
        let mut unit = [0.0; DIMS];
        for (dim, unit) in unit.iter_mut().enumerate() {
            let all: i64 = state
                .yard
                .spots
                .iter()
                .map(|spot| i64::from(spot.room[dim]))
                .sum();
            *unit = if all > 0 && dim <= load::VFS {
                1.0 / all as f64
            } else {
                0.0
            };
        }
        Self {
            weight: vec![WEIGHT; state.places.len()],
            waiting: unplaced(true),
            spare: unplaced(false),
            wanted,
            cost,
            regret,
            best: state.clone(),
            state,
            unit,
            exact: false,
            dice: Dice::new(seed),
            rounds: 0,
        }
    }

    /// Like [`Search::new`], and nobody else is ever placed.
    pub fn only(state: State<'y>, wanted: Vec<bool>, regret: &'c Regret, seed: u64) -> Self {
        let mut search = Self::new(state, wanted, &[], regret, seed);
        search.spare.clear();
        search.exact = true;
        search
    }

    /// Works until so much is placed, or for so many rounds; whether it is.
    pub fn run(&mut self, goal: u64, rounds: u64) -> bool {
        let end = self.rounds + rounds;
        let mut since = (self.best.value, self.rounds);
        while self.best.value < goal && self.rounds < end {
            self.rounds += 1;
            if self.best.value > since.0 {
                since = (self.best.value, self.rounds);
            } else if self.rounds - since.1 > PATIENCE {
                since.1 = self.rounds;
                self.start_over();
            }
            if self.waiting.is_empty() {
                self.take_in_spare();
                if self.best.value >= goal {
                    break;
                }
                // All that was wanted lies, and it is not enough: another one is wanted.
                if self.spare.is_empty() {
                    break;
                }
                let at = self.dice.below(self.spare.len());
                let guest = self.spare.swap_remove(at);
                self.wanted[guest] = true;
                self.waiting.push(guest);
            }
            let Some(guest) = self.waiting.pop() else {
                break;
            };
            if !self.settle(guest) {
                let guest = self.trade(guest);
                self.make_room(guest);
            }
            self.note();
            self.shake();
        }
        self.best.value >= goal
    }

    /// Goes back to the best, with nothing learnt: weights that only grow lead ever farther away.
    fn start_over(&mut self) {
        self.state.clone_from(&self.best);
        self.weight.fill(WEIGHT);
        self.waiting.clear();
        self.spare.clear();
        for guest in 0..self.state.places.len() {
            if self.state.places[guest].is_none() && self.state.yard.kind_of[guest].is_some() {
                if self.wanted[guest] {
                    self.waiting.push(guest);
                } else if !self.exact {
                    self.spare.push(guest);
                }
            }
        }
    }

    /// Now and then somebody else is wanted instead of one that finds no room.
    fn trade(&mut self, guest: usize) -> usize {
        const ONE_IN: usize = 3;
        /// So much dearer another guest may be.
        const DEARER: f64 = 1.1;
        if self.spare.is_empty() || self.dice.below(ONE_IN) > 0 {
            return guest;
        }
        let at = self.dice.below(self.spare.len());
        let other = self.spare[at];
        let cost = |guest: usize| self.cost.get(guest).copied().unwrap_or(1.0);
        if cost(other) > cost(guest) * DEARER + 0.02 {
            return guest;
        }
        self.spare[at] = guest;
        self.wanted[guest] = false;
        self.wanted[other] = true;
        other
    }

    fn note(&mut self) {
        if self.state.value > self.best.value {
            self.best.clone_from(&self.state);
        } else if self.waiting.len() <= 1 && !self.spare.is_empty() {
            self.take_in_spare();
        }
    }

    /// Places of the spare what fits without more ado.
    fn take_in_spare(&mut self) {
        let mut at = 0;
        while at < self.spare.len() {
            let guest = self.spare[at];
            if self.settle(guest) {
                self.spare.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if self.state.value > self.best.value {
            self.best.clone_from(&self.state);
        }
    }

    fn settle(&mut self, guest: usize) -> bool {
        let Some(kind) = self.state.yard.kind_of[guest] else {
            return false;
        };
        greedy::best_place(self.state.yard, kind, &self.state.free, self.regret)
            .is_some_and(|place| self.state.place(guest, place))
    }

    /// Ejects the least that makes room, and takes its place.
    fn make_room(&mut self, guest: usize) {
        self.weight[guest] += WEIGHT;
        let (Some(number), Some(kind)) = (self.state.yard.kind_of[guest], self.state.kind(guest))
        else {
            return;
        };
        let Some((place, leave)) = self.cheapest(number, kind) else {
            if !self.exact {
                self.wanted[guest] = false;
                self.spare.push(guest);
            }
            return;
        };
        let mut out: Vec<usize> = Vec::new();
        for leave in leave {
            for &other in &leave.guests[..leave.count] {
                if self.state.places[other as usize].is_some() {
                    self.state.remove(other as usize);
                    out.push(other as usize);
                }
            }
        }
        if self.state.place(guest, place) {
            for other in out {
                if self.wanted[other] {
                    self.waiting.push(other);
                } else {
                    self.spare.push(other);
                }
            }
        } else {
            self.waiting.push(guest);
            self.waiting.extend(out);
        }
    }

    /// The place whose ejections weigh least, of equals one by the dice.
    fn cheapest(&mut self, number: usize, kind: &Kind) -> Option<(Place, [Leave; 2])> {
        let mut best: Option<(u64, Place, [Leave; 2])> = None;
        let mut loads = Vec::new();
        let mut ties = 0;
        let yard = self.state.yard;
        let mut keep = |weight: u64, place: Place, leave: [Leave; 2], dice: &mut Dice| {
            match &best {
                Some((least, ..)) if *least < weight => return,
                Some((least, ..)) if *least == weight => ties += 1,
                _ => ties = 1,
            }
            if ties == 1 || dice.below(ties) == 0 {
                best = Some((weight, place, leave));
            }
        };
        if kind.cells == 1 {
            let mut least = u64::MAX;
            for (at, spot) in yard.spots.iter().enumerate() {
                let Some(load) = kind.load(spot, 0, kind.vfs()) else {
                    continue;
                };
                let dearer = u64::from(self.regret.at(number, at).unsigned_abs());
                if dearer > least {
                    continue;
                }
                if let Some(mut leave) = self.leave(at, &load, least - dearer, &mut loads) {
                    leave.weight += dearer;
                    least = least.min(leave.weight);
                    let place = Place::one(at, kind.vfs());
                    keep(
                        leave.weight,
                        place,
                        [leave, Leave::default()],
                        &mut self.dice,
                    );
                }
            }
            return best.map(|(_, place, leave)| (place, leave));
        }
        for &(first, end) in &yard.servers {
            for here in 0..=kind.vfs() {
                let there = kind.vfs() - here;
                let mut of = |cell: usize, vfs: i32| -> Vec<Option<Leave>> {
                    let spots = yard.spots[first..end].iter().enumerate();
                    spots
                        .map(|(at, spot)| {
                            let load = kind.load(spot, cell, vfs)?;
                            self.leave(first + at, &load, u64::MAX, &mut loads)
                        })
                        .collect()
                };
                let (ones, others) = (of(0, here), of(1, there));
                for (a, one) in ones.iter().enumerate() {
                    for (b, other) in others.iter().enumerate() {
                        let (Some(one), Some(other)) = (one, other) else {
                            continue;
                        };
                        if a != b {
                            let place = Place {
                                spots: [first + a, first + b],
                                vfs: [here, there],
                            };
                            let weight = one.weight + other.weight;
                            keep(weight, place, [*one, *other], &mut self.dice);
                        }
                    }
                }
            }
        }
        best.map(|(_, place, leave)| (place, leave))
    }

    /// Who has to leave a node for a load; `None` when that cannot be, or weighs more than `most`.
    fn leave(
        &self,
        spot: usize,
        load: &Load,
        most: u64,
        loads: &mut Vec<(u32, u64, Load)>,
    ) -> Option<Leave> {
        if !load::fits(load, &self.state.yard.spots[spot].room) {
            return None;
        }
        let mut need = *load;
        load::take(&mut need, &self.state.free[spot]);
        if need.iter().all(|&n| n <= 0) {
            return Some(Leave::default());
        }
        let mut best = None;
        let mut least = most;
        loads.clear();
        loads.extend(self.state.here[spot].iter().map(|&(guest, cell)| {
            let at = guest as usize;
            let load = self.state.load_of(at, cell as usize);
            (guest, self.weight[at], load)
        }));
        choose(loads, &need, Leave::default(), &mut least, &mut best);
        best
    }

    /// Moves a few guests to where they fit as well, mostly so that room comes together.
    fn shake(&mut self) {
        const MOVES: usize = 4;
        for _ in 0..MOVES {
            let guest = self.dice.below(self.state.places.len());
            let (Some(place), Some(kind)) = (self.state.places[guest], self.state.kind(guest))
            else {
                continue;
            };
            if kind.cells != 1 {
                continue;
            }
            let to = self.dice.below(self.state.yard.spots.len());
            let from = place.spots[0];
            if to == from {
                continue;
            }
            let Some(load) = kind.load(&self.state.yard.spots[to], 0, kind.vfs()) else {
                continue;
            };
            if load::fits(&load, &self.state.free[to]) {
                let before = self.apart(from) + self.apart(to);
                self.state.remove(guest);
                self.state.place(guest, Place::one(to, kind.vfs()));
                if self.worse(before, from, to) {
                    self.state.remove(guest);
                    self.state.place(guest, place);
                }
            } else {
                self.swap(guest, to);
            }
        }
    }

    /// How much a node's room is room together: the square of it.
    fn apart(&self, spot: usize) -> f64 {
        let free = &self.state.free[spot];
        let sum: f64 = self
            .unit
            .iter()
            .zip(free)
            .map(|(unit, free)| unit * f64::from(*free))
            .sum();
        sum * sum
    }

    /// Whether two nodes' room is more scattered than it was, and the dice do not wink at it.
    fn worse(&mut self, before: f64, a: usize, b: usize) -> bool {
        const WINK_ONE_IN: usize = 12;
        self.apart(a) + self.apart(b) < before && self.dice.below(WINK_ONE_IN) > 0
    }

    /// Lets a guest and one of another node change places, when both fit then.
    fn swap(&mut self, guest: usize, to: usize) {
        let count = self.state.here[to].len();
        if count == 0 {
            return;
        }
        let (other, _) = self.state.here[to][self.dice.below(count)];
        let other = other as usize;
        let (Some(from), Some(there)) = (self.state.places[guest], self.state.places[other]) else {
            return;
        };
        if self.state.kind(other).is_none_or(|kind| kind.cells != 1) {
            return;
        }
        let back = from.spots[0];
        let vfs = |place: Place| place.vfs[0];
        let before = self.apart(back) + self.apart(to);
        self.state.remove(guest);
        self.state.remove(other);
        if self.state.place(guest, Place::one(to, vfs(from))) {
            if self.state.place(other, Place::one(back, vfs(there))) {
                if !self.worse(before, back, to) {
                    return;
                }
                self.state.remove(other);
            }
            self.state.remove(guest);
        }
        self.state.place(guest, from);
        self.state.place(other, there);
    }
}

/// The lightest few whose leaving makes up for what is missing.
fn choose(
    loads: &[(u32, u64, Load)],
    need: &Load,
    so_far: Leave,
    least: &mut u64,
    best: &mut Option<Leave>,
) {
    if need.iter().all(|&n| n <= 0) {
        if so_far.weight <= *least {
            *least = so_far.weight;
            *best = Some(so_far);
        }
        return;
    }
    if so_far.count == MOST_EJECTED {
        return;
    }
    for (at, (guest, weight, load)) in loads.iter().enumerate() {
        let mut leave = so_far;
        leave.weight += weight;
        if leave.weight > *least {
            continue;
        }
        let helps = need
            .iter()
            .zip(load)
            .any(|(need, load)| *need > 0 && *load > 0);
        if !helps {
            continue;
        }
        leave.guests[leave.count] = *guest;
        leave.count += 1;
        let mut rest = *need;
        load::take(&mut rest, load);
        choose(&loads[at + 1..], &rest, leave, least, best);
    }
}
