//! A fleet that lives: guests come and go, servers are lost.
//!
//! Takes servers, then guests one by one or all at once; keeps them placed and an index of what is
//! free, so that a place is found in a time that hardly grows with the fleet. Keeps true: no node
//! holds more than it has, nobody moves who was not told to, and the answer "no room" is exact: as
//! everybody lies, no node or pair of nodes of the fleet could hold the guest.

use std::collections::BTreeSet;

use super::Seat;
use super::load::{self, Guest, Load, MAIN, MEMORY, NodeShape, Sharing, VFS};
use super::yard::{Place, Spot};

/// A guest's number in its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestId(usize);

/// A number and whose it is, in order.
type Shelf = BTreeSet<(i32, usize)>;

/// Servers and who lies on them.
#[derive(Debug, Clone)]
pub struct Fleet {
    sharing: Sharing,
    spots: Vec<Spot>,
    /// By server: its first node, and the one after its last.
    servers: Vec<(usize, usize)>,
    lost: Vec<bool>,
    free: Vec<Load>,
    /// By node.
    here: Vec<Vec<usize>>,
    /// Those that left leave a hole.
    guests: Vec<Option<(Guest, Place)>>,
    /// By SMT, virtual functions left, then threads left: memory left and node.
    index: [[Vec<Shelf>; 2]; 2],
    /// By SMT and virtual functions left: the second most threads left on any node, and server.
    pairs: [[Shelf; 2]; 2],
    /// By server: where it stands among the pairs.
    pair_of: Vec<Option<(usize, usize, i32)>>,
}

/// What became of the guests of a lost server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Those that lie elsewhere now.
    pub moved: Vec<GuestId>,
    /// Those for which there is no room.
    pub homeless: Vec<GuestId>,
}

impl Fleet {
    /// Servers on which nobody lies.
    #[must_use]
    pub fn new(servers: &[Vec<NodeShape>], sharing: Sharing) -> Self {
        let mut fleet = Self {
            sharing,
            spots: Vec::new(),
            servers: Vec::with_capacity(servers.len()),
            lost: vec![false; servers.len()],
            free: Vec::new(),
            here: Vec::new(),
            guests: Vec::new(),
            index: Default::default(),
            pairs: Default::default(),
            pair_of: vec![None; servers.len()],
        };
        for (server, nodes) in servers.iter().enumerate() {
            let first = fleet.spots.len();
            for node in nodes {
                let room = node.room(sharing);
                fleet.spots.push(Spot {
                    server,
                    smt: node.threads_per_core > 1,
                    room,
                });
                fleet.free.push(room);
                fleet.here.push(Vec::new());
            }
            fleet.servers.push((first, fleet.spots.len()));
        }
        for spot in 0..fleet.spots.len() {
            fleet.list(spot);
        }
        for server in 0..servers.len() {
            fleet.list_pair(server);
        }
        fleet
    }

    /// Where a guest lies.
    #[must_use]
    pub fn seat(&self, guest: GuestId) -> Option<Seat> {
        let (asked, place) = (*self.guests.get(guest.0)?)?;
        let server = self.spots[place.spots[0]].server;
        let cells = asked.cells as usize;
        Some(Seat::of(&place, cells, server, self.servers[server].0))
    }

    /// Guests that lie somewhere.
    #[must_use]
    pub fn len(&self) -> usize {
        self.guests.iter().flatten().count()
    }

    /// Whether nobody lies anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guests.iter().all(Option::is_none)
    }

    /// Places a guest where it fits best, and moves nobody; `None` when there is no room.
    pub fn add(&mut self, guest: Guest) -> Option<GuestId> {
        let place = self.find(&guest)?;
        self.guests.push(None);
        let id = self.guests.len() - 1;
        self.put(id, guest, place);
        Some(GuestId(id))
    }

    /// Places many, the hardest first; in the order of the guests. Tens of thousands take about a
    /// second.
    pub fn add_all(&mut self, guests: &[Guest]) -> Vec<Option<GuestId>> {
        let mut order: Vec<usize> = (0..guests.len()).collect();
        order.sort_by_cached_key(|&at| std::cmp::Reverse(self.size(&guests[at])));
        let mut ids = vec![None; guests.len()];
        let mut refused: Option<Guest> = None;
        for at in order {
            // Those that ask for the same come one after the other.
            if refused == Some(guests[at]) {
                continue;
            }
            ids[at] = self.add(guests[at]);
            if ids[at].is_none() {
                refused = Some(guests[at]);
            }
        }
        ids
    }

    /// Lets a guest go; whether it was there.
    pub fn remove(&mut self, guest: GuestId) -> bool {
        let Some((asked, place)) = self.guests.get_mut(guest.0).and_then(Option::take) else {
            return false;
        };
        for cell in 0..asked.cells as usize {
            let spot = place.spots[cell];
            let Some(load) = self.load(&asked, cell, spot, place.vfs[cell]) else {
                continue;
            };
            self.unlist(spot);
            load::give(&mut self.free[spot], &load);
            self.here[spot].retain(|&other| other != guest.0);
            self.list(spot);
        }
        self.list_pair(self.spots[place.spots[0]].server);
        true
    }

    /// Loses a server: its guests are placed elsewhere, the hardest first, as far as there is room.
    pub fn lose(&mut self, server: usize) -> Moved {
        let Some(&(first, end)) = self.servers.get(server) else {
            return Moved::default();
        };
        let mut guests: Vec<usize> = (first..end)
            .flat_map(|spot| self.here[spot].clone())
            .collect();
        guests.sort_unstable();
        guests.dedup();
        let asked: Vec<(usize, Guest)> = guests
            .into_iter()
            .filter_map(|id| self.guests[id].map(|(guest, _)| (id, guest)))
            .collect();
        for &(id, _) in &asked {
            self.remove(GuestId(id));
        }
        if !std::mem::replace(&mut self.lost[server], true) {
            for spot in first..end {
                self.drop_from_index(spot);
            }
            self.list_pair(server);
        }
        let mut order = asked;
        order.sort_by_cached_key(|(id, guest)| (std::cmp::Reverse(self.size(guest)), *id));
        let mut moved = Moved::default();
        for (id, guest) in order {
            match self.find(&guest) {
                Some(place) => {
                    self.put(id, guest, place);
                    moved.moved.push(GuestId(id));
                }
                None => moved.homeless.push(GuestId(id)),
            }
        }
        moved
    }

    /// How hard a guest is to place; guests that ask for the same are neighbours in this order.
    fn size(&self, guest: &Guest) -> (u32, bool, i32, u32, Guest) {
        let load = guest.load(0, true, self.sharing).unwrap_or_default();
        (guest.cells, guest.vfs > 0, load[MAIN], guest.memory, *guest)
    }

    fn load(&self, guest: &Guest, cell: usize, spot: usize, vfs: i32) -> Option<Load> {
        let mut load = guest.load(cell, self.spots[spot].smt, self.sharing)?;
        load[VFS] = vfs;
        Some(load)
    }

    fn put(&mut self, id: usize, guest: Guest, place: Place) {
        for cell in 0..guest.cells as usize {
            let spot = place.spots[cell];
            let Some(load) = self.load(&guest, cell, spot, place.vfs[cell]) else {
                continue;
            };
            self.unlist(spot);
            load::take(&mut self.free[spot], &load);
            self.here[spot].push(id);
            self.list(spot);
        }
        self.list_pair(self.spots[place.spots[0]].server);
        self.guests[id] = Some((guest, place));
    }

    /// Puts a server where it belongs among those that may hold guests of two cells.
    fn list_pair(&mut self, server: usize) {
        let (first, end) = self.servers[server];
        let (mut most, mut second, mut vfs) = (-1, -1, 0);
        for free in &self.free[first..end] {
            vfs = vfs.max(free[VFS]);
            if free[MAIN] > most {
                (most, second) = (free[MAIN], most);
            } else {
                second = second.max(free[MAIN]);
            }
        }
        let now = (!self.lost[server] && second > 0).then(|| {
            (
                usize::from(self.spots[first].smt),
                usize::from(vfs > 0),
                second,
            )
        });
        if self.pair_of[server] == now {
            return;
        }
        if let Some((smt, vfs, second)) = std::mem::replace(&mut self.pair_of[server], now) {
            self.pairs[smt][vfs].remove(&(second, server));
        }
        if let Some((smt, vfs, second)) = now {
            self.pairs[smt][vfs].insert((second, server));
        }
    }

    fn shelf(&mut self, spot: usize) -> &mut Shelf {
        let free = &self.free[spot];
        let of = &mut self.index[usize::from(self.spots[spot].smt)][usize::from(free[VFS] > 0)];
        let main = free[MAIN].unsigned_abs() as usize;
        if of.len() <= main {
            of.resize_with(main + 1, BTreeSet::new);
        }
        &mut of[main]
    }

    fn list(&mut self, spot: usize) {
        if self.lost[self.spots[spot].server] {
            return;
        }
        let memory = self.free[spot][MEMORY];
        self.shelf(spot).insert((memory, spot));
    }

    fn unlist(&mut self, spot: usize) {
        if !self.lost[self.spots[spot].server] {
            self.drop_from_index(spot);
        }
    }

    fn drop_from_index(&mut self, spot: usize) {
        let memory = self.free[spot][MEMORY];
        self.shelf(spot).remove(&(memory, spot));
    }

    fn find(&self, guest: &Guest) -> Option<Place> {
        if !guest.is_sane() {
            return None;
        }
        if guest.cells == 1 {
            let vfs = i32::try_from(guest.vfs).ok()?;
            let spot = self.best_spot(guest, vfs)?;
            return Some(Place::one(spot, vfs));
        }
        self.find_pair(guest)
    }

    /// The node that a guest of one cell fits best.
    fn best_spot(&self, guest: &Guest, vfs: i32) -> Option<usize> {
        let mut best: Option<(i32, usize)> = None;
        for smt in [true, false] {
            let Some(mut load) = guest.load(0, smt, self.sharing) else {
                continue;
            };
            load[VFS] = vfs;
            for with_vfs in [false, true] {
                if vfs > 0 && !with_vfs {
                    continue;
                }
                // A node's virtual functions are not for those that need none, if it can be helped.
                let wasted = if vfs == 0 && with_vfs { 64 } else { 0 };
                let shelves = &self.index[usize::from(smt)][usize::from(with_vfs)];
                let least = load[MAIN].unsigned_abs() as usize;
                for (main, shelf) in shelves.iter().enumerate().skip(least) {
                    let left = (main - least) as i32 + wasted;
                    if best.is_some_and(|(cost, _)| left >= cost) {
                        break;
                    }
                    let mut enough = shelf.range((load[MEMORY], 0)..);
                    let found = enough.find(|(_, spot)| load::fits(&load, &self.free[*spot]));
                    if let Some(&(_, spot)) = found {
                        let cost = wasted + self.ill(spot, &load);
                        if best.is_none_or(|(least, _)| cost < least) {
                            best = Some((cost, spot));
                        }
                    }
                }
            }
        }
        best.map(|(_, spot)| spot)
    }

    /// How ill a cell lies on a node: threads left, and more of them than memory to go with.
    fn ill(&self, spot: usize, load: &Load) -> i32 {
        let (free, room) = (&self.free[spot], &self.spots[spot].room);
        let left = free[MAIN] - load[MAIN];
        let threads = f64::from(left) / f64::from(room[MAIN].max(1));
        let memory = f64::from(free[MEMORY] - load[MEMORY]) / f64::from(room[MEMORY].max(1));
        left + ((threads - memory).max(0.0) * 12.0) as i32
    }

    /// Two nodes of one server: of the first few servers that have them, where the least is left.
    fn find_pair(&self, guest: &Guest) -> Option<Place> {
        const FEW: usize = 8;
        let all = i32::try_from(guest.vfs).ok()?;
        let mut best: Option<(i32, Place)> = None;
        for smt in [true, false] {
            let (Some(one), Some(other)) = (
                guest.load(0, smt, self.sharing),
                guest.load(1, smt, self.sharing),
            ) else {
                continue;
            };
            let least = one[MAIN].min(other[MAIN]);
            for with_vfs in [false, true] {
                if all > 0 && !with_vfs {
                    continue;
                }
                let shelf = &self.pairs[usize::from(smt)][usize::from(with_vfs)];
                let found = shelf
                    .range((least, 0)..)
                    .filter_map(|&(_, server)| self.pair_on(guest, server, all))
                    .take(FEW)
                    .min_by_key(|(cost, place)| (*cost, place.spots));
                if let Some((cost, place)) = found
                    && best.as_ref().is_none_or(|(least, _)| cost < *least)
                {
                    best = Some((cost, place));
                }
            }
        }
        best.map(|(_, place)| place)
    }

    fn pair_on(&self, guest: &Guest, server: usize, all: i32) -> Option<(i32, Place)> {
        let (first, end) = self.servers[server];
        let mut best: Option<(i32, Place)> = None;
        for a in first..end {
            let here = all.min(self.free[a][VFS]);
            let Some(one) = self.fit(guest, 0, a, here) else {
                continue;
            };
            for b in (first..end).filter(|&b| b != a) {
                let Some(other) = self.fit(guest, 1, b, all - here) else {
                    continue;
                };
                if best.as_ref().is_none_or(|(least, _)| one + other < *least) {
                    let place = Place {
                        spots: [a, b],
                        vfs: [here, all - here],
                    };
                    best = Some((one + other, place));
                }
            }
        }
        best
    }

    fn fit(&self, guest: &Guest, cell: usize, spot: usize, vfs: i32) -> Option<i32> {
        let load = self.load(guest, cell, spot, vfs)?;
        if !load::fits(&load, &self.free[spot]) {
            return None;
        }
        let wasted = if vfs == 0 && self.free[spot][VFS] > 0 {
            8
        } else {
            0
        };
        Some(self.ill(spot, &load) + wasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Threads;

    fn node(cores: u32, vfs: u32) -> NodeShape {
        NodeShape {
            threads_per_core: 2,
            full: cores,
            half: 0,
            memory: 64,
            vfs,
        }
    }

    fn guest(vcpus: u32, cells: u32) -> Guest {
        Guest {
            vcpus,
            threads: Threads::Prefer,
            emulator: false,
            cells,
            memory: 4 * cells,
            vfs: 0,
        }
    }

    #[test]
    fn what_leaves_makes_room_for_the_same_again() {
        let mut fleet = Fleet::new(&[vec![node(4, 0), node(4, 0)]], Sharing::WholeCores);
        let ids = fleet.add_all(&[guest(8, 1), guest(4, 1), guest(4, 1), guest(2, 1)]);
        assert_eq!(ids.iter().flatten().count(), 3);
        assert_eq!(fleet.add(guest(2, 1)), None);
        assert!(fleet.remove(ids[1].unwrap()));
        assert!(!fleet.remove(ids[1].unwrap()), "it can leave but once");
        let again = fleet.add(guest(4, 1)).unwrap();
        assert_eq!(fleet.seat(again).unwrap().nodes.len(), 1);
    }

    #[test]
    fn a_lost_server_gives_no_room_and_its_guests_lie_elsewhere() {
        let servers = [vec![node(4, 0), node(4, 0)], vec![node(4, 0), node(4, 0)]];
        let mut fleet = Fleet::new(&servers, Sharing::WholeCores);
        let ids = fleet.add_all(&[guest(8, 2), guest(8, 1)]);
        let homes: Vec<usize> = ids
            .iter()
            .map(|id| fleet.seat(id.unwrap()).unwrap().server)
            .collect();
        let lost = homes[0];
        let moved = fleet.lose(lost);
        assert_eq!(
            moved.homeless.len() + moved.moved.len(),
            homes.iter().filter(|&&h| h == lost).count()
        );
        for id in &moved.moved {
            assert_ne!(fleet.seat(*id).unwrap().server, lost);
        }
        for id in &moved.homeless {
            assert_eq!(fleet.seat(*id), None);
        }
        while let Some(id) = fleet.add(guest(2, 1)) {
            assert_ne!(fleet.seat(id).unwrap().server, lost);
        }
    }

    #[test]
    fn virtual_functions_are_kept_for_those_that_need_them() {
        let mut fleet = Fleet::new(&[vec![node(4, 2), node(4, 0)]], Sharing::WholeCores);
        let plain = fleet.add(guest(4, 1)).unwrap();
        assert_eq!(fleet.seat(plain).unwrap().nodes, [1]);
        let with = Guest {
            vfs: 2,
            ..guest(4, 1)
        };
        let with = fleet.add(with).unwrap();
        assert_eq!(fleet.seat(with).unwrap().nodes, [0]);
    }

    #[test]
    fn absurd_guests_are_refused_at_once() {
        let mut fleet = Fleet::new(&[vec![node(4, 2)]], Sharing::Threads);
        for odd in [
            guest(u32::MAX - 1, 2),
            guest(0, 1),
            guest(3, 2),
            guest(2, 9),
            guest(2, 0),
        ] {
            assert_eq!(fleet.add(odd), None);
        }
    }
}
