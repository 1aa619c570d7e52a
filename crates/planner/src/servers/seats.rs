//! Which slice goes to which server.
//!
//! Takes the spec and the servers; gives a server for as many slices as it finds room for. Every
//! seat is tried on the server itself, with all that is exact there (nodes, cores, pages, NICs), so
//! that numbers only say where to look first. What is in force stays; then the large come before the
//! small, first where their NICs are near; who finds no room has others moved on, two servers far,
//! as long as it is not proven that no more can be placed. The effort is counted in trials.

use std::collections::HashMap;

use bmslice_spec::{SliceSpec, Slicing};

use super::ceiling::{self, Ceiling};
use super::kinds::{self, Kinds};
use super::{Fill, Member, Options};
use crate::Running;
use crate::ground::Standing;
use crate::problem::{Keep, Site};
use crate::server::Server;

/// Trials of a set of slices on a server beyond which nobody is moved on any more.
const TRIALS: usize = 20_000;
/// Questions, most of them answered before, beyond which nobody is moved on for one slice.
const QUESTIONS: usize = 10_000;
/// How many others may be moved on, one making room for the next.
const DEPTH: u32 = 2;

/// Cores of a server that are for taking, in [units](Kinds::per_core), and how wide they are.
#[derive(Debug, Clone)]
pub(super) struct Cores {
    pub by_node: Vec<u32>,
    /// The number by which [`Kinds`] knows its classes.
    classes: usize,
    /// Of all of them so many stay free.
    pub headroom: u32,
}

impl Cores {
    fn of(server: &Server<'_>, spec: &Slicing, kinds: &mut Kinds) -> Self {
        let by_node = server.nodes.iter().map(|node| node.free.len());
        Self {
            by_node: by_node
                .map(|cores| u32::try_from(cores).unwrap_or(u32::MAX))
                .map(|cores| cores.saturating_mul(kinds.per_core))
                .collect(),
            classes: kinds.number(spec, &server.classes),
            headroom: spec.host.headroom_cores.saturating_mul(kinds.per_core),
        }
    }

    /// Those that slices may take.
    pub fn all(&self) -> i64 {
        let all: i64 = self.by_node.iter().map(|&cores| i64::from(cores)).sum();
        all - i64::from(self.headroom)
    }
}

/// Who is where.
#[derive(Debug, Clone)]
struct Seating {
    /// By server, in the order of the spec.
    lists: Vec<Vec<usize>>,
    /// By slice.
    seats: Vec<Option<usize>>,
    /// By server: cores beside its slices.
    left: Vec<i64>,
    /// By slice: whether its devices are seen to be near.
    near: Vec<bool>,
    /// Slices with a seat.
    placed: usize,
}

pub(super) struct Seats<'a> {
    pub spec: &'a Slicing,
    pub members: &'a [Member<'a>],
    pub options: Options,
    /// By server.
    pub standing: Vec<Standing<'a>>,
    /// By server; `None` when nothing at all can be placed there.
    pub cores: Vec<Option<Cores>>,
    pub kinds: Kinds,
    now: Seating,
    /// What was changed: slice, seat and nearness before.
    log: Vec<(usize, Option<usize>, bool)>,
    /// By slice: the server that it is in force on.
    homes: Vec<Option<usize>>,
    /// By slice: the servers that it may be on.
    eligible: Vec<Vec<usize>>,
    /// By server and the kinds on it, each with whether it is to be near.
    known: HashMap<(usize, Vec<(usize, bool)>), bool>,
    trials: usize,
    questions: usize,
    /// What no placement exceeds, once it was asked for.
    pub(super) ceiling: Option<Ceiling>,
}

/// The spec with some slices only; `None` for none.
pub(super) fn part(spec: &Slicing, slices: &[usize]) -> Option<Slicing> {
    let slices = slices.iter().map(|&at| spec.slices[at].clone()).collect();
    Slicing::new(spec.host.clone(), slices).ok()
}

impl<'a> Seats<'a> {
    pub fn new(spec: &'a Slicing, members: &'a [Member<'a>], options: Options) -> Self {
        let mut homes_by_name: HashMap<&str, usize> = HashMap::new();
        for (at, member) in members.iter().enumerate() {
            for slice in member.previous.iter().flat_map(|plan| plan.slices()) {
                homes_by_name.entry(slice.name.as_str()).or_insert(at);
            }
        }
        let slices = spec.slices.iter();
        let homes: Vec<Option<usize>> = slices
            .map(|slice| homes_by_name.get(slice.name.as_str()).copied())
            .collect();
        let standing: Vec<Standing<'a>> = members
            .iter()
            .map(|member| Standing::new(&spec.host, member.inventory, member.previous))
            .collect();
        let mut kinds = Kinds::new(spec, members, &homes);
        let all: Vec<&SliceSpec> = spec.slices.iter().collect();
        let cores: Vec<Option<Cores>> = standing
            .iter()
            .map(|standing| {
                let mut read = |slices: &[&SliceSpec]| {
                    let cores = standing.on_ground(&spec.host, slices, |ground| {
                        Cores::of(&ground.server, spec, &mut kinds)
                    });
                    cores.ok()
                };
                // One slice that cannot be there, as for its name, does not keep the others away.
                read(&all).or_else(|| {
                    let could = all.iter().filter(|&&slice| read(&[slice]).is_some());
                    let could: Vec<&SliceSpec> = could.copied().collect();
                    read(&could)
                })
            })
            .collect();
        let left = cores
            .iter()
            .map(|cores| cores.as_ref().map_or(0, Cores::all));
        let by_name: HashMap<&str, usize> = (0..members.len())
            .rev()
            .map(|at| (members[at].name(), at))
            .collect();
        let selected = |slice: &SliceSpec, server: &usize| {
            let name = members[*server].name();
            let selector = slice.selector.as_ref();
            selector.is_none_or(|selector| selector.allows(name))
        };
        let eligible = spec.slices.iter().map(|slice| match &slice.server {
            None => (0..members.len())
                .filter(|server| selected(slice, server))
                .collect(),
            Some(name) => by_name
                .get(name.as_str())
                .copied()
                .filter(|server| selected(slice, server))
                .into_iter()
                .collect(),
        });
        Self {
            now: Seating {
                lists: vec![Vec::new(); members.len()],
                seats: vec![None; spec.slices.len()],
                left: left.collect(),
                near: vec![false; spec.slices.len()],
                placed: 0,
            },
            log: Vec::new(),
            eligible: eligible.collect(),
            cores,
            standing,
            kinds,
            homes,
            known: HashMap::new(),
            trials: 0,
            questions: 0,
            ceiling: None,
            spec,
            members,
            options,
        }
    }

    /// The slices of a server, in the order of the spec.
    pub fn on(&self, server: usize) -> &[usize] {
        &self.now.lists[server]
    }

    /// The slices without a server, in the order of the spec.
    pub fn unplaced(&self) -> Vec<usize> {
        let slices = 0..self.now.seats.len();
        slices.filter(|&at| self.now.seats[at].is_none()).collect()
    }

    /// The servers that a slice may be on at all.
    pub fn eligible(&self, slice: usize) -> &[usize] {
        &self.eligible[slice]
    }

    /// The fewest units of cores that a slice takes of a server.
    fn needs(&self, slice: usize, server: usize) -> i64 {
        let classes = self.cores[server].as_ref().map(|cores| cores.classes);
        classes.map_or(0, |classes| i64::from(self.kinds.needs(slice, classes)))
    }

    /// Whether a server holds these slices and no others.
    pub fn fits(&mut self, server: usize, slices: &[usize]) -> bool {
        self.fits_near(server, slices, false)
    }

    /// Whether a server holds these slices and no others; `near`: with the devices near of those of
    /// which they are seen to be.
    fn fits_near(&mut self, server: usize, slices: &[usize], near: bool) -> bool {
        if slices.is_empty() {
            return true;
        }
        let Some(cores) = &self.cores[server] else {
            return false;
        };
        let needs = slices.iter().map(|&slice| self.needs(slice, server));
        if needs.sum::<i64>() > cores.all() {
            return false;
        }
        self.questions += 1;
        let is_near = |slice: usize| near && self.now.near[slice];
        let of = slices.iter();
        let mut kinds: Vec<(usize, bool)> = of
            .map(|&slice| (self.kinds.of[slice], is_near(slice)))
            .collect();
        kinds.sort_unstable();
        let key = (server, kinds);
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        self.trials += 1;
        let asked: Vec<&SliceSpec> = slices.iter().map(|&at| &self.spec.slices[at]).collect();
        let near: Vec<usize> = (0..slices.len())
            .filter(|&at| is_near(slices[at]))
            .collect();
        let (host, running) = (&self.spec.host, self.options.running);
        let fits = self.standing[server].fits_near(host, &asked, &near, running);
        self.known.insert(key, fits);
        fits
    }

    /// A server's slices, without some and with others.
    fn changed(&self, server: usize, without: &[usize], with: &[usize]) -> Vec<usize> {
        let list = self.now.lists[server].iter().copied();
        let mut list: Vec<usize> = list.filter(|at| !without.contains(at)).collect();
        list.extend(with);
        list.sort_unstable();
        list
    }

    /// Whether a server holds its slices without some and with others.
    fn holds(&mut self, server: usize, without: &[usize], with: &[usize]) -> bool {
        let list = self.changed(server, without, with);
        self.fits(server, &list)
    }

    /// Seats a slice; `near`: its devices are seen to be near.
    fn sit(&mut self, slice: usize, server: usize, near: bool) {
        self.set(slice, Some(server), near);
        // Whose devices were near may have to do with others now.
        let list = self.now.lists[server].clone();
        if !self.fits_near(server, &list, true) {
            for other in list {
                self.set(other, Some(server), false);
            }
        }
    }

    /// Takes a slice's seat away.
    pub fn leave(&mut self, slice: usize) {
        self.set(slice, None, false);
    }

    /// Gives a slice a seat, or none, and remembers what it had.
    fn set(&mut self, slice: usize, seat: Option<usize>, near: bool) {
        let was = (slice, self.now.seats[slice], self.now.near[slice]);
        self.log.push(was);
        self.put(slice, seat, near);
    }

    fn put(&mut self, slice: usize, seat: Option<usize>, near: bool) {
        self.now.near[slice] = near;
        let was = std::mem::replace(&mut self.now.seats[slice], seat);
        if was == seat {
            return;
        }
        if let Some(server) = was {
            self.now.lists[server].retain(|&other| other != slice);
            self.now.left[server] += self.needs(slice, server);
            self.now.placed -= 1;
        }
        if let Some(server) = seat {
            let list = &mut self.now.lists[server];
            let at = list.partition_point(|&other| other < slice);
            list.insert(at, slice);
            self.now.left[server] -= self.needs(slice, server);
            self.now.placed += 1;
        }
    }

    /// Goes back to where so much had happened.
    fn undo(&mut self, until: usize) {
        while self.log.len() > until {
            if let Some((slice, seat, near)) = self.log.pop() {
                self.put(slice, seat, near);
            }
        }
    }

    /// Seats a slice where there is room without moving anybody: first where its devices and those
    /// of the others there are near, as on one server the fewest remote ones come first.
    fn sit_down(&mut self, slice: usize, servers: &[usize]) -> bool {
        let near = kinds::prefers_near(&self.spec.slices[slice]);
        for &server in servers {
            let list = self.changed(server, &[], &[slice]);
            self.now.near[slice] = near;
            let fits = self.fits_near(server, &list, true);
            self.now.near[slice] = false;
            if fits {
                self.sit(slice, server, near);
                return true;
            }
        }
        for &server in servers {
            if self.holds(server, &[], &[slice]) {
                self.sit(slice, server, false);
                return true;
            }
        }
        false
    }

    /// Gives seats to as many as it can.
    pub fn fill(&mut self) {
        self.keep_homes();
        let kept = self.now.clone();
        let mut order: Vec<usize> = (0..self.spec.slices.len()).collect();
        order.sort_by_key(|&slice| {
            let one = self.eligible(slice).len() <= 1;
            (!one, std::cmp::Reverse(self.kinds.least(slice)), slice)
        });
        self.make_room(&order, 0);
        if self.is_enough() {
            return;
        }
        // The numbers of `fleet` find more where the large ones stand in the way of many small ones.
        let first = std::mem::replace(&mut self.now, kept);
        for (slice, server) in ceiling::seats(self) {
            if self.now.seats[slice].is_none() && self.holds(server, &[], &[slice]) {
                self.sit(slice, server, false);
            }
        }
        self.make_room(&order, DEPTH);
        if self.is_enough() {
            return;
        }
        let second = std::mem::replace(&mut self.now, first);
        self.make_room(&order, DEPTH);
        if second.placed > self.now.placed {
            self.now = second;
        }
    }

    /// Whether it is known that no more can be placed.
    fn is_enough(&mut self) -> bool {
        let placed = self.now.placed;
        placed == self.spec.slices.len() || placed as u64 >= ceiling::bound(self)
    }

    /// Seats who has none yet, moving others on if need be.
    fn make_room(&mut self, order: &[usize], depth: u32) {
        // What found no seat finds none as long as nobody moves.
        let mut nowhere = vec![false; self.kinds.first.len()];
        for &slice in order {
            let kind = self.kinds.of[slice];
            if self.now.seats[slice].is_some() || nowhere[kind] {
                continue;
            }
            if depth > 0 && self.is_enough() {
                return;
            }
            self.log.clear();
            self.questions = 0;
            match self.seat(slice, depth, &mut Vec::new()) {
                Seated::No => nowhere[kind] = true,
                Seated::Free => {}
                Seated::Moved => nowhere.fill(false),
            }
        }
    }

    /// Who is in force keeps the server: first those that are not changed, then the others.
    fn keep_homes(&mut self) {
        for untouched in [true, false] {
            for slice in 0..self.spec.slices.len() {
                let Some(home) = self.homes[slice] else {
                    continue;
                };
                if self.now.seats[slice].is_none()
                    && self.eligible(slice).contains(&home)
                    && (!untouched || self.is_untouched(slice, home))
                    && self.holds(home, &[], &[slice])
                {
                    self.sit(slice, home, false);
                }
            }
        }
    }

    fn is_untouched(&self, slice: usize, home: usize) -> bool {
        let slices = [&self.spec.slices[slice]];
        let kept = self.standing[home].on_ground(&self.spec.host, &slices, |ground| {
            Site::read(ground, &slices, Keep::Unchanged).is_ok_and(|site| site.kept[0].is_some())
        });
        kept.unwrap_or(false)
    }

    /// Whether a slice may be moved on to another server.
    fn may_move(&self, slice: usize) -> bool {
        let home = self.homes[slice];
        home.is_none() || home != self.now.seats[slice] || self.options.running == Running::MayMove
    }

    /// The servers for a slice that may have the cores, the best first.
    fn preferred(&self, slice: usize, at_once: bool) -> Vec<usize> {
        let mut servers: Vec<(bool, usize, i64, usize)> = Vec::new();
        for &server in self.eligible(slice) {
            if self.cores[server].is_none() {
                continue;
            }
            let left = self.now.left[server];
            if at_once && left < self.needs(slice, server) {
                continue;
            }
            let list = &self.now.lists[server];
            let away = self.homes[slice] != Some(server);
            servers.push(match self.options.fill {
                Fill::Pack => (away, usize::from(list.is_empty()), left, server),
                Fill::Spread => (away, self.of_tenant(slice, list), -left, server),
            });
        }
        servers.sort_unstable();
        servers.into_iter().map(|(.., server)| server).collect()
    }

    /// How many others of its tenant are among these.
    fn of_tenant(&self, slice: usize, list: &[usize]) -> usize {
        let tenant = |at: usize| &self.spec.slices[at].tenant;
        let others = list.iter().filter(|&&other| other != slice);
        others
            .filter(|&&other| tenant(other) == tenant(slice))
            .count()
    }

    /// Finds a seat, if need be by moving others on, `depth` deep. Nothing is changed without one.
    fn seat(&mut self, slice: usize, depth: u32, moving: &mut Vec<usize>) -> Seated {
        let servers = self.preferred(slice, true);
        if self.sit_down(slice, &servers) {
            return Seated::Free;
        }
        if depth == 0 || self.is_spent() {
            return Seated::No;
        }
        moving.push(slice);
        for server in self.preferred(slice, false) {
            for others in self.ways_out(server, moving) {
                if self.is_spent() {
                    moving.pop();
                    return Seated::No;
                }
                if !self.holds(server, &others, &[slice]) {
                    continue;
                }
                let before = self.log.len();
                for &other in &others {
                    self.leave(other);
                }
                self.sit(slice, server, false);
                if others
                    .iter()
                    .all(|&other| self.seat(other, depth - 1, moving) != Seated::No)
                {
                    moving.pop();
                    return Seated::Moved;
                }
                self.undo(before);
            }
        }
        moving.pop();
        Seated::No
    }

    fn is_spent(&self) -> bool {
        self.trials > TRIALS || self.questions > QUESTIONS
    }

    /// Who could leave a server: one, then two.
    fn ways_out(&self, server: usize, moving: &[usize]) -> Vec<Vec<usize>> {
        let list = self.now.lists[server].iter().copied();
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

/// How a seat was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seated {
    No,
    /// Nobody was moved.
    Free,
    /// Others were moved on.
    Moved,
}
