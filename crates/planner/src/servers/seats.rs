//! Which slice goes to which server.
//!
//! Takes the spec and the servers; gives a server for as many slices as it finds room for. Every
//! seat is tried on the server itself, with all that is exact there (nodes, cores, pages, NICs), so
//! that numbers only say where to look first. What is in force stays; then the large come before the
//! small; who finds no room has others moved on, two servers far. The effort is counted in trials.

use std::collections::HashMap;

use bmslice_spec::{SliceSpec, Slicing};

use super::{Fill, Member, Options, ceiling};
use crate::Running;
use crate::demand;
use crate::problem::{Keep, Site};
use crate::server::Server;

/// Trials of a set of slices on a server beyond which nobody is moved on any more.
const TRIALS: usize = 20_000;
/// How many others may be moved on, one making room for the next.
const DEPTH: u32 = 2;

/// Whole cores of a server that are for taking, and how wide they are.
#[derive(Debug, Clone)]
pub(super) struct Cores {
    pub by_node: Vec<u32>,
    pub classes: Vec<usize>,
}

pub(super) struct Seats<'a> {
    pub spec: &'a Slicing,
    pub members: &'a [Member<'a>],
    pub options: Options,
    /// By server; `None` when nothing at all can be placed there.
    pub cores: Vec<Option<Cores>>,
    /// By server, in the order of the spec.
    lists: Vec<Vec<usize>>,
    /// By slice.
    seats: Vec<Option<usize>>,
    /// By slice: the server that it is in force on.
    homes: Vec<Option<usize>>,
    known: HashMap<(usize, Vec<usize>), bool>,
    trials: usize,
}

/// The spec with some slices only; `None` for none.
pub(super) fn part(spec: &Slicing, slices: &[usize]) -> Option<Slicing> {
    let slices = slices.iter().map(|&at| spec.slices[at].clone()).collect();
    Slicing::new(spec.host.clone(), slices).ok()
}

impl<'a> Seats<'a> {
    pub fn new(spec: &'a Slicing, members: &'a [Member<'a>], options: Options) -> Self {
        let home = |slice: &SliceSpec| {
            members.iter().position(|member| {
                let plan = member.previous;
                plan.is_some_and(|plan| plan.slice(slice.name.as_str()).is_some())
            })
        };
        let cores = |member: &Member<'_>| {
            let read = |spec: &Slicing| Server::read(spec, member.inventory, member.previous).ok();
            // One slice that cannot be there, as for its name, does not keep the others away.
            let server = read(spec).or_else(|| {
                let each = 0..spec.slices.len();
                let could = |at: &usize| part(spec, &[*at]).is_some_and(|one| read(&one).is_some());
                let could: Vec<usize> = each.filter(could).collect();
                read(&part(spec, &could)?)
            })?;
            let by_node = server.nodes.iter().map(|node| node.free.len());
            Some(Cores {
                by_node: by_node
                    .map(|cores| u32::try_from(cores).unwrap_or(u32::MAX))
                    .collect(),
                classes: server.classes,
            })
        };
        Self {
            cores: members.iter().map(cores).collect(),
            lists: vec![Vec::new(); members.len()],
            seats: vec![None; spec.slices.len()],
            homes: spec.slices.iter().map(home).collect(),
            known: HashMap::new(),
            trials: 0,
            spec,
            members,
            options,
        }
    }

    /// The slices of a server, in the order of the spec.
    pub fn on(&self, server: usize) -> &[usize] {
        &self.lists[server]
    }

    /// The slices without a server, in the order of the spec.
    pub fn unplaced(&self) -> Vec<usize> {
        let slices = 0..self.seats.len();
        slices.filter(|&at| self.seats[at].is_none()).collect()
    }

    /// The servers that a slice may be on at all.
    pub fn eligible(&self, slice: usize) -> Vec<usize> {
        let named = self.spec.slices[slice].server.as_deref();
        let servers = 0..self.members.len();
        servers
            .filter(|&at| named.is_none_or(|name| name == self.members[at].name()))
            .collect()
    }

    /// The fewest whole cores that a slice takes of a server, in all of its cells.
    pub fn needs(&self, slice: usize, classes: &[usize]) -> u32 {
        let spec = &self.spec.slices[slice];
        let cells = demand::cells(spec);
        let takes = demand::vcpu_takes(spec.vcpus / cells, spec.smt, classes);
        let fewest = takes.iter().map(|take| take.iter().sum::<u32>()).min();
        fewest.unwrap_or(0) * cells + spec.emulator_cores
    }

    /// Cores that are left on a server beside its slices; negative when there are too few.
    fn left(&self, server: usize) -> Option<i64> {
        let cores = self.cores[server].as_ref()?;
        let all: i64 = cores.by_node.iter().map(|&cores| i64::from(cores)).sum();
        let list = self.lists[server].iter();
        let taken = list.map(|&slice| i64::from(self.needs(slice, &cores.classes)));
        Some(all - taken.sum::<i64>())
    }

    /// Whether a server holds these slices and no others.
    pub fn fits(&mut self, server: usize, slices: &[usize]) -> bool {
        if slices.is_empty() {
            return true;
        }
        let Some(cores) = &self.cores[server] else {
            return false;
        };
        let all: u64 = cores.by_node.iter().map(|&cores| u64::from(cores)).sum();
        let needs = slices
            .iter()
            .map(|&slice| u64::from(self.needs(slice, &cores.classes)));
        if needs.sum::<u64>() > all {
            return false;
        }
        let key = (server, slices.to_vec());
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        self.trials += 1;
        let member = &self.members[server];
        let fits = part(self.spec, slices).is_some_and(|part| {
            crate::fits(
                &part,
                member.inventory,
                member.previous,
                self.options.running,
            )
        });
        self.known.insert(key, fits);
        fits
    }

    /// A server's slices, without some and with others.
    fn changed(&self, server: usize, without: &[usize], with: &[usize]) -> Vec<usize> {
        let list = self.lists[server].iter().copied();
        let mut list: Vec<usize> = list.filter(|at| !without.contains(at)).collect();
        list.extend(with);
        list.sort_unstable();
        list
    }

    /// Whether a server holds its slices without some and with others.
    pub fn holds(&mut self, server: usize, without: &[usize], with: &[usize]) -> bool {
        let list = self.changed(server, without, with);
        self.fits(server, &list)
    }

    fn sit(&mut self, slice: usize, server: usize) {
        self.leave(slice);
        self.lists[server] = self.changed(server, &[], &[slice]);
        self.seats[slice] = Some(server);
    }

    /// Takes a slice's seat away.
    pub fn leave(&mut self, slice: usize) {
        if let Some(server) = self.seats[slice].take() {
            self.lists[server] = self.changed(server, &[slice], &[]);
        }
    }

    /// Gives seats to as many as it can.
    pub fn fill(&mut self) {
        self.keep_homes();
        let kept = (self.lists.clone(), self.seats.clone());
        let mut order: Vec<usize> = (0..self.seats.len()).collect();
        order.sort_by_key(|&slice| {
            let one = self.eligible(slice).len() <= 1;
            (!one, std::cmp::Reverse(self.needs(slice, &[2])), slice)
        });
        self.make_room(&order, 0);
        if self.unplaced().is_empty() {
            return;
        }
        // The numbers of `fleet` find more where the large ones stand in the way of many small ones.
        let first = (self.lists.clone(), self.seats.clone());
        (self.lists, self.seats) = kept;
        for (slice, server) in ceiling::seats(self) {
            if self.seats[slice].is_none() && self.holds(server, &[], &[slice]) {
                self.sit(slice, server);
            }
        }
        self.make_room(&order, DEPTH);
        let second = (
            self.unplaced().len(),
            self.lists.clone(),
            self.seats.clone(),
        );
        (self.lists, self.seats) = first;
        self.make_room(&order, DEPTH);
        if second.0 < self.unplaced().len() {
            (self.lists, self.seats) = (second.1, second.2);
        }
    }

    /// Seats who has none yet, moving others on if need be.
    fn make_room(&mut self, order: &[usize], depth: u32) {
        for &slice in order {
            if self.seats[slice].is_none() {
                self.seat(slice, depth, &mut Vec::new());
            }
        }
    }

    /// Who is in force keeps the server: first those that are not changed, then the others.
    fn keep_homes(&mut self) {
        for untouched in [true, false] {
            for slice in 0..self.seats.len() {
                let Some(home) = self.homes[slice] else {
                    continue;
                };
                if self.seats[slice].is_none()
                    && self.eligible(slice).contains(&home)
                    && (!untouched || self.is_untouched(slice, home))
                    && self.holds(home, &[], &[slice])
                {
                    self.sit(slice, home);
                }
            }
        }
    }

    fn is_untouched(&self, slice: usize, home: usize) -> bool {
        let member = &self.members[home];
        let Some(part) = part(self.spec, &[slice]) else {
            return false;
        };
        Site::read(&part, member.inventory, member.previous, Keep::Unchanged)
            .is_ok_and(|site| site.kept[0].is_some())
    }

    /// Whether a slice may be moved on to another server.
    fn may_move(&self, slice: usize) -> bool {
        let home = self.homes[slice];
        home.is_none() || home != self.seats[slice] || self.options.running == Running::MayMove
    }

    /// The servers for a slice, the best first.
    fn preferred(&self, slice: usize) -> Vec<usize> {
        let mut servers: Vec<(bool, bool, i64, usize)> = Vec::new();
        for server in self.eligible(slice) {
            let Some(left) = self.left(server) else {
                continue;
            };
            let empty = self.lists[server].is_empty();
            let away = self.homes[slice] != Some(server);
            servers.push(match self.options.fill {
                Fill::Pack => (away, empty, left, server),
                Fill::Spread => (away, false, -left, server),
            });
        }
        servers.sort_unstable();
        servers.into_iter().map(|(.., server)| server).collect()
    }

    /// Finds a seat, if need be by moving others on, `depth` deep. Nothing is changed without one.
    fn seat(&mut self, slice: usize, depth: u32, moving: &mut Vec<usize>) -> bool {
        let servers = self.preferred(slice);
        for &server in &servers {
            if self.holds(server, &[], &[slice]) {
                self.sit(slice, server);
                return true;
            }
        }
        if depth == 0 || self.trials > TRIALS {
            return false;
        }
        moving.push(slice);
        for &server in &servers {
            for others in self.ways_out(server, moving) {
                if !self.holds(server, &others, &[slice]) {
                    continue;
                }
                let before = (self.lists.clone(), self.seats.clone());
                for &other in &others {
                    self.leave(other);
                }
                self.sit(slice, server);
                if others
                    .iter()
                    .all(|&other| self.seat(other, depth - 1, moving))
                {
                    moving.pop();
                    return true;
                }
                (self.lists, self.seats) = before;
            }
        }
        moving.pop();
        false
    }

    /// Who could leave a server: one, then two.
    fn ways_out(&self, server: usize, moving: &[usize]) -> Vec<Vec<usize>> {
        let list = self.lists[server].iter().copied();
        let movable: Vec<usize> = list
            .filter(|at| !moving.contains(at) && self.may_move(*at))
            .collect();
        let mut ways: Vec<Vec<usize>> = movable.iter().map(|&one| vec![one]).collect();
        for (at, &one) in movable.iter().enumerate() {
            ways.extend(movable[at + 1..].iter().map(|&two| vec![one, two]));
        }
        ways
    }
}
