//! A sharp bound, from whole fillings of servers and nodes.
//!
//! Takes the nodes, the guests and a first placement; gives a bound that no placement exceeds, and
//! which fillings make it up. Each bin (a server of one or two nodes, or a node of a larger one)
//! chooses among fillings (columns), fractions of several allowed; fillings are made on demand, for
//! the prices that the program asks. Every bound is worked out in whole numbers: for any prices, the
//! best filling of each bin and what the guests pay are more than a placement can be worth. On a
//! larger server the two cells of a guest are held together by their numbers.

use std::collections::HashMap;

use super::ejection::Dice;
use super::knapsack::{self, Filling, Piece, Room};
use super::load::{DIMS, Load, VFS};
use super::simplex::{Column, Program};
use super::yard::{Place, State, Yard};

/// The whole numbers that stand for a gain of 1.
const ONE: i64 = 1 << 32;

/// What a filling has to gain beyond its bin's price to be worth a column.
const LEAST: i64 = ONE / 1_000_000;

/// What is filled as one: alike, so that the same fillings serve all members.
#[derive(Debug, Clone)]
struct Bin {
    /// The first node of each member.
    spots: Vec<usize>,
    nodes: usize,
    smt: bool,
    room: Room,
    prices: Vec<[f64; DIMS]>,
    /// The server, when the bin is a node of it.
    server: Option<usize>,
}

/// What a filling counts: a guest in a bin that is a server, a cell in a bin that is a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Part {
    kind: usize,
    /// By node of the bin: the cell that lies there.
    cells: [Option<usize>; 2],
    vfs: [i32; 2],
    /// The server whose nodes are bins, for a guest of two cells.
    server: Option<usize>,
}

/// A guest of two cells on a server whose nodes are bins.
#[derive(Debug)]
struct Pair {
    kind: usize,
    /// Rows, and how often the pair counts there.
    rows: Vec<(usize, i64)>,
}

pub(crate) struct Columns<'y> {
    yard: &'y Yard,
    bins: Vec<Bin>,
    parts: Vec<Part>,
    number_of: HashMap<Part, usize>,
    /// By part: the rows of its cell and of its virtual functions; none when it counts as a guest.
    half_of: Vec<Option<(usize, Option<usize>)>>,
    pairs: Vec<Pair>,
    program: Program,
    /// By variable of the program: the bin and its filling; none for a pair.
    columns: Vec<Option<(usize, Filling)>>,
    seen: HashMap<(usize, Filling), ()>,
    pub bound: u64,
    /// Times that fillings were asked for.
    pub asked: usize,
}

impl<'y> Columns<'y> {
    pub fn new(yard: &'y Yard, class_of: &[usize], prices: &[[f64; DIMS]], bound: u64) -> Self {
        let bins = bins(yard, class_of, prices);
        let mut bounds: Vec<f64> = bins.iter().map(|bin| bin.spots.len() as f64).collect();
        bounds.extend(yard.kinds.iter().map(|kind| f64::from(kind.count)));
        let mut parts = Vec::new();
        let mut half_of = Vec::new();
        let mut pairs = Vec::new();
        let (small, large) = (
            bins.iter()
                .filter(|bin| bin.server.is_none())
                .map(|bin| bin.nodes)
                .max(),
            bins.iter().filter_map(|bin| bin.server),
        );
        let mut large: Vec<usize> = large.collect();
        large.dedup();
        for (number, kind) in yard.kinds.iter().enumerate() {
            let mut part = |cells, vfs, server, half| {
                parts.push(Part {
                    kind: number,
                    cells,
                    vfs,
                    server,
                });
                half_of.push(half);
            };
            let all = kind.vfs();
            if kind.cells == 1 {
                part([Some(0), None], [all, 0], None, None);
                if small == Some(2) {
                    part([None, Some(0)], [0, all], None, None);
                }
                continue;
            }
            if small == Some(2) {
                for here in 0..=all {
                    part([Some(0), Some(1)], [here, all - here], None, None);
                    if kind.ordered {
                        part([Some(1), Some(0)], [here, all - here], None, None);
                    }
                }
            }
            for &server in &large {
                let mut row = || {
                    bounds.push(0.0);
                    bounds.len() - 1
                };
                let mut rows = vec![(yard_row(&bins, number), 1)];
                let vfs = (all > 0).then(&mut row);
                rows.extend(vfs.map(|row| (row, i64::from(all))));
                let halves = if kind.ordered { 2 } else { 1 };
                for cell in 0..halves {
                    let own = row();
                    rows.push((own, 2 / halves as i64));
                    for share in 0..=all {
                        let cells = [Some(cell), None];
                        part(cells, [share, 0], Some(server), Some((own, vfs)));
                    }
                }
                pairs.push(Pair { kind: number, rows });
            }
        }
        let mut program = Program::new(bounds);
        let mut columns = Vec::new();
        for pair in &pairs {
            let kind = &yard.kinds[pair.kind];
            let column = pair.rows.iter().map(|&(row, n)| (row, n as f64)).collect();
            program.add(column, f64::from(kind.value), f64::from(kind.count));
            columns.push(None);
        }
        Self {
            number_of: parts
                .iter()
                .enumerate()
                .map(|(at, &part)| (part, at))
                .collect(),
            yard,
            bins,
            parts,
            half_of,
            pairs,
            program,
            columns,
            seen: HashMap::new(),
            bound,
            asked: 0,
        }
    }

    /// Takes the fillings of a placement as columns.
    pub fn learn(&mut self, state: &State<'_>) {
        for bin in 0..self.bins.len() {
            for first in self.bins[bin].spots.clone() {
                let mut counts: HashMap<usize, u32> = HashMap::new();
                for node in 0..self.bins[bin].nodes {
                    for &(guest, cell) in &state.here[first + node] {
                        let (guest, cell) = (guest as usize, usize::from(cell));
                        if let Some(part) = self.part_of(state, guest, cell, bin, first) {
                            *counts.entry(part).or_default() += 1;
                        }
                    }
                }
                self.add(bin, counts.into_iter().collect());
            }
        }
    }

    /// What a cell of a placed guest counts as in a bin; none when its other cell counts already.
    fn part_of(
        &self,
        state: &State<'_>,
        guest: usize,
        cell: usize,
        bin: usize,
        first: usize,
    ) -> Option<usize> {
        let (kind, place) = (self.yard.kind_of[guest]?, state.places[guest]?);
        let facts = &self.yard.kinds[kind];
        let bin = &self.bins[bin];
        let mut part = Part {
            kind,
            cells: [None; 2],
            vfs: [0; 2],
            server: None,
        };
        if facts.cells == 2 && bin.server.is_some() {
            part.cells[0] = Some(if facts.ordered { cell } else { 0 });
            part.vfs[0] = place.vfs[cell];
            part.server = bin.server;
        } else {
            if cell > 0 {
                return None;
            }
            for cell in 0..facts.cells {
                let node = place.spots[cell] - first;
                part.cells[node] = Some(cell);
                part.vfs[node] = place.vfs[cell];
            }
            if facts.cells == 2 && !facts.ordered {
                part.cells = [Some(0), Some(1)];
            }
        }
        self.number_of.get(&part).copied()
    }

    fn add(&mut self, bin: usize, mut filling: Filling) -> bool {
        filling.sort_unstable();
        if filling.is_empty() || self.seen.insert((bin, filling.clone()), ()).is_some() {
            return false;
        }
        let mut column: Column = vec![(bin, 1.0)];
        let mut value = 0.0;
        for &(part, count) in &filling {
            let of = self.parts[part];
            let count = f64::from(count);
            match self.half_of[part] {
                None => {
                    column.push((yard_row(&self.bins, of.kind), count));
                    value += f64::from(self.yard.kinds[of.kind].value) * count;
                }
                Some((own, vfs)) => {
                    column.push((own, -count));
                    let share = f64::from(of.vfs[0]);
                    column.extend(vfs.filter(|_| share > 0.0).map(|row| (row, -count * share)));
                }
            }
        }
        column.sort_by_key(|entry| entry.0);
        column.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 += later.1;
            }
            same
        });
        self.program
            .add(column, value, self.bins[bin].spots.len() as f64);
        self.columns.push(Some((bin, filling)));
        true
    }

    /// Makes columns until none is missing, or the bound is no more than `enough`, or they were
    /// asked for so many times.
    pub fn improve(&mut self, enough: u64, times: usize) {
        const STEPS: usize = 20_000;
        /// Steps for one bin, first while any better filling will do, then for the best.
        const QUICK: u32 = 80;
        const EXACT: u32 = 40_000;
        let mut limit = QUICK;
        for _ in 0..times {
            self.program.solve(STEPS);
            self.asked += 1;
            let prices: Vec<i64> = self
                .program
                .prices()
                .iter()
                .map(|&price| (price.clamp(0.0, 1e5) * ONE as f64).round() as i64)
                .collect();
            let (bound, fillings) = self.price(&prices, limit);
            self.bound = self.bound.min(bound);
            if self.bound <= enough {
                return;
            }
            let mut new = false;
            for (bin, filling) in fillings {
                new |= self.add(bin, filling);
            }
            if !new && limit == EXACT {
                return;
            }
            limit = if new { QUICK } else { EXACT };
        }
    }

    /// The bound for these prices, and the fillings that gain by them.
    fn price(&self, prices: &[i64], limit: u32) -> (u64, Vec<(usize, Filling)>) {
        let mut total: i128 = 0;
        for (number, kind) in self.yard.kinds.iter().enumerate() {
            let paid = prices[yard_row(&self.bins, number)];
            total += i128::from(paid) * i128::from(kind.count);
        }
        for pair in &self.pairs {
            let kind = &self.yard.kinds[pair.kind];
            let rows = pair.rows.iter();
            let paid: i128 = rows
                .map(|&(row, n)| i128::from(prices[row]) * i128::from(n))
                .sum();
            let value = i128::from(kind.value) * i128::from(ONE);
            total += (value - paid).max(0) * i128::from(kind.count);
        }
        let mut found = Vec::new();
        for (number, bin) in self.bins.iter().enumerate() {
            let pieces = self.pieces(bin, prices);
            let kinds = self.yard.kinds.len();
            let filled = knapsack::fill(
                &bin.room,
                &bin.prices,
                pieces,
                kinds,
                prices[number] + LEAST,
                limit,
            );
            total += i128::from(filled.bound) * bin.spots.len() as i128;
            let last = filled.fillings.len().saturating_sub(2);
            found.extend(filled.fillings[last..].iter().map(|f| (number, f.clone())));
        }
        (
            u64::try_from(total / i128::from(ONE)).unwrap_or(u64::MAX),
            found,
        )
    }

    fn pieces(&self, bin: &Bin, prices: &[i64]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (id, part) in self.parts.iter().enumerate() {
            let kind = &self.yard.kinds[part.kind];
            let belongs = match self.half_of[id] {
                Some(_) => part.server == bin.server,
                None => kind.cells == 1 || bin.server.is_none(),
            };
            if !belongs || (bin.nodes < 2 && part.cells[1].is_some()) {
                continue;
            }
            let Some(load) = load(&kind.loads[usize::from(bin.smt)], part) else {
                continue;
            };
            let gain = match self.half_of[id] {
                None => i64::from(kind.value) * ONE - prices[yard_row(&self.bins, part.kind)],
                Some((own, vfs)) => {
                    prices[own] + vfs.map_or(0, |row| prices[row] * i64::from(part.vfs[0]))
                }
            };
            pieces.push(Piece {
                kind: part.kind,
                id,
                load,
                gain,
                most: kind.count,
            });
        }
        pieces
    }

    /// A placement after the program's: each bin gets one of its fillings, the likelier the more of
    /// it the program takes. Guests of two cells on larger servers stay where they are in `like`.
    pub fn sample(&self, like: &State<'y>, dice: &mut Dice) -> State<'y> {
        let mut state = State::empty(self.yard);
        let mut of_kind: Vec<Vec<usize>> = vec![Vec::new(); self.yard.kinds.len()];
        let node_bins = self.bins.iter().filter(|bin| bin.server.is_some());
        let large: Vec<usize> = node_bins
            .flat_map(|bin| bin.spots.iter().copied())
            .collect();
        for (guest, kind) in self.yard.kind_of.iter().enumerate() {
            let Some(kind) = *kind else { continue };
            match like.places[guest] {
                Some(place)
                    if self.yard.kinds[kind].cells == 2 && large.contains(&place.spots[0]) =>
                {
                    state.place(guest, place);
                }
                _ => of_kind[kind].push(guest),
            }
        }
        let mut choices: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.bins.len()];
        for (at, level) in self.program.levels().into_iter().enumerate() {
            if let Some((bin, _)) = &self.columns[at]
                && level > 1e-6
            {
                choices[*bin].push((level, at));
            }
        }
        let mut left: Vec<(usize, usize)> = self
            .bins
            .iter()
            .enumerate()
            .flat_map(|(bin, facts)| facts.spots.iter().map(move |&spot| (bin, spot)))
            .collect();
        while !left.is_empty() {
            let (bin, spot) = left.swap_remove(dice.below(left.len()));
            let sum: f64 = choices[bin].iter().map(|(level, _)| level).sum();
            let mut thrown = dice.below(1 << 20) as f64 / f64::from(1 << 20) * sum;
            let chosen = choices[bin].iter_mut().find(|(level, _)| {
                thrown -= level;
                thrown < 0.0
            });
            let Some((level, at)) = chosen else { continue };
            *level = (*level - 1.0).max(0.0);
            let Some((_, filling)) = &self.columns[*at] else {
                continue;
            };
            for &(part, count) in filling {
                let part = self.parts[part];
                if self.half_of[self.number_of[&part]].is_some() {
                    continue;
                }
                for _ in 0..count {
                    let Some(&guest) = of_kind[part.kind].last() else {
                        break;
                    };
                    if state.place(guest, place(&part, spot)) {
                        of_kind[part.kind].pop();
                    }
                }
            }
        }
        state
    }
}

/// The row of a kind's number.
fn yard_row(bins: &[Bin], kind: usize) -> usize {
    bins.len() + kind
}

/// Where a part that is a whole guest lies, in a bin that starts at this node.
fn place(part: &Part, spot: usize) -> Place {
    let mut place = Place::one(spot, part.vfs[0]);
    for (node, cell) in part.cells.iter().enumerate() {
        if let Some(cell) = *cell {
            place.spots[cell] = spot + node;
            place.vfs[cell] = part.vfs[node];
        }
    }
    place
}

/// What a part takes of its bin.
fn load(loads: &[Option<Load>; 2], part: &Part) -> Option<Room> {
    let mut nodes = [[0; 8]; 2];
    for (node, cell) in part.cells.iter().enumerate() {
        if let Some(cell) = *cell {
            nodes[node] = loads[cell]?;
            nodes[node][VFS] = part.vfs[node];
        }
    }
    Some(knapsack::join(&nodes))
}

/// Servers of one or two nodes, and the nodes of larger ones; those that are alike together.
fn bins(yard: &Yard, class_of: &[usize], prices: &[[f64; DIMS]]) -> Vec<Bin> {
    let mut bins: Vec<Bin> = Vec::new();
    let mut put = |first: usize, nodes: usize, server: Option<usize>| {
        let spots = first..first + nodes;
        let bin = Bin {
            spots: vec![first],
            nodes,
            smt: yard.spots[first].smt,
            room: knapsack::join(yard.spots[spots.clone()].iter().map(|spot| &spot.room)),
            prices: spots.map(|spot| prices[class_of[spot]]).collect(),
            server,
        };
        let like = bins.iter_mut().find(|other| {
            (other.nodes, other.smt, other.room, other.server) == (nodes, bin.smt, bin.room, server)
        });
        match like {
            Some(other) => other.spots.push(first),
            None => bins.push(bin),
        }
    };
    for (server, &(first, end)) in yard.servers.iter().enumerate() {
        if first == end {
            continue;
        }
        if end - first <= knapsack::NODES {
            put(first, end - first, None);
        } else {
            for spot in first..end {
                put(spot, 1, Some(server));
            }
        }
    }
    bins
}
