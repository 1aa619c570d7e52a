//! How much at most can be placed, from sums over many nodes.
//!
//! Takes the nodes and the guests; gives a number that no placement exceeds, and what a guest costs
//! by the prices of what is scarce. Nodes of a class (with or without SMT, with or without virtual
//! functions) are taken as one great node, so that the program stays small. The bound is worked out
//! in whole numbers from rounded prices, so that it holds whatever the arithmetic did.

use std::collections::BTreeMap;

use super::load::{self, DIMS, Load, VFS};
use super::simplex::{Column, Program};
use super::yard::{Kind, Regret, Yard};

/// The whole numbers that stand for a price of 1.
const ONE: i64 = 1 << 24;
/// Steps of the program before its prices are taken as they are.
const STEPS: usize = 4000;

/// What can be placed at most.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub value: u64,
    /// By kind: what it costs by the prices, in units of its value.
    pub cost: Vec<f64>,
    /// By kind: how many of it the best fractional placement has.
    pub level: Vec<f64>,
    pub regret: Regret,
    /// By class of nodes: what a unit of each number costs.
    pub prices: Vec<[f64; DIMS]>,
    /// By node.
    pub class_of: Vec<usize>,
}

/// A bound from sums alone, dear to nobody: all that is asked for, when no sum says otherwise.
pub(crate) fn everything_may_fit(yard: &Yard) -> bool {
    let mut room = [[0i64; DIMS]; 2];
    let (mut smt, mut smt_asked) = (0i64, 0i64);
    for spot in &yard.spots {
        for dim in 0..DIMS {
            room[0][dim] += i64::from(spot.room[dim]);
            if spot.room[VFS] > 0 {
                room[1][dim] += i64::from(spot.room[dim]);
            }
        }
        if spot.smt {
            smt += i64::from(spot.room[0]);
        }
    }
    let mixed = yard.spots.iter().any(|spot| !spot.smt);
    for kind in &yard.kinds {
        let count = i64::from(kind.count);
        for cell in 0..kind.cells {
            let least = |dim: usize| {
                let both = kind.loads.iter().filter_map(|cells| cells[cell]);
                both.map(|load| load[dim]).min().unwrap_or(0)
            };
            for dim in 0..DIMS {
                // Only where every node counts alike in this number does its sum say anything.
                if mixed && dim > VFS {
                    continue;
                }
                let load = i64::from(least(dim)) * count;
                room[0][dim] -= load;
                if kind.vfs() > 0 && kind.cells == 1 {
                    room[1][dim] -= load;
                }
            }
            if kind.loads[0][cell].is_none() {
                smt_asked += count * kind.loads[1][cell].map_or(0, |load| i64::from(load[0]));
            }
        }
        room[0][VFS] -= i64::from(kind.vfs()) * count;
    }
    smt_asked <= smt
        && room.iter().flatten().all(|&left| left >= 0)
        && yard.fit_empty().into_iter().all(|fits| fits)
}

/// The value of all that is asked for.
pub(crate) fn asked(yard: &Yard) -> u64 {
    let each = yard.kinds.iter();
    each.map(|kind| u64::from(kind.count) * u64::from(kind.value))
        .sum()
}

/// A bound from one sum at a time: the cheapest guests for it, as many as the sum holds. For fleets
/// that are too large for a program.
pub(crate) fn by_sums(yard: &Yard) -> u64 {
    let fit = yard.fit_empty();
    let mut best = asked(yard);
    for dim in [load::MAIN, load::MEMORY, VFS] {
        let all = yard.spots.iter().map(|spot| i64::from(spot.room[dim]));
        let mut left = u64::try_from(all.sum::<i64>()).unwrap_or(0);
        // What a kind takes at least, wherever it lies.
        let takes = |kind: &Kind| -> u64 {
            if dim == VFS {
                return u64::from(kind.guest.vfs);
            }
            let on = kind.loads.iter().filter_map(|cells| {
                let each = cells[..kind.cells].iter();
                each.map(|cell| cell.map(|load| u64::from(load[dim].unsigned_abs())))
                    .sum::<Option<u64>>()
            });
            on.min().unwrap_or(0)
        };
        let could = yard.kinds.iter().zip(&fit).filter(|(_, fits)| **fits);
        let mut kinds: Vec<(u64, &Kind)> = could.map(|(kind, _)| (takes(kind), kind)).collect();
        // By what they take for what they are worth, in whole numbers.
        kinds.sort_by(|(a, x), (b, y)| {
            let (a, b) = (a * u64::from(y.value), b * u64::from(x.value));
            a.cmp(&b)
        });
        let mut sum = 0;
        for (take, kind) in kinds {
            let (value, count) = (u64::from(kind.value), u64::from(kind.count));
            let fit = left.checked_div(take).map_or(count, |fit| fit.min(count));
            sum += fit * value;
            left -= fit * take;
            if fit < count {
                sum += left * value / take.max(1);
                break;
            }
        }
        best = best.min(sum);
    }
    best
}

struct Way {
    kind: usize,
    /// Class and load of each cell.
    parts: Vec<(usize, Load)>,
}

/// The bound of the classes' program.
pub(crate) fn by_class(yard: &Yard) -> Bound {
    let (class_of, classes) = classes(yard);
    let ways = ways(yard, &class_of, &classes);
    let mut room = vec![[0i64; DIMS]; classes.len()];
    for (spot, &class) in yard.spots.iter().zip(&class_of) {
        for dim in 0..DIMS {
            room[class][dim] += i64::from(spot.room[dim]);
        }
    }
    let wide = classes.len() * DIMS;
    let mut bounds: Vec<f64> = room.iter().flatten().map(|&n| n as f64).collect();
    // A kind that may lie in several classes needs a row for its number.
    let mut rows: Vec<Option<usize>> = vec![None; yard.kinds.len()];
    let mut seen = vec![0; yard.kinds.len()];
    for way in &ways {
        seen[way.kind] += 1;
    }
    for (kind, facts) in yard.kinds.iter().enumerate() {
        if seen[kind] > 1 {
            rows[kind] = Some(bounds.len());
            bounds.push(f64::from(facts.count));
        }
    }
    let mut program = Program::new(bounds);
    for way in &ways {
        let facts = &yard.kinds[way.kind];
        let mut column: Column = rows[way.kind].map(|row| (row, 1.0)).into_iter().collect();
        for (class, load) in &way.parts {
            for dim in (0..DIMS).filter(|&dim| load[dim] > 0) {
                column.push((class * DIMS + dim, f64::from(load[dim])));
            }
        }
        program.add(column, f64::from(facts.value), f64::from(facts.count));
    }
    program.solve(STEPS);
    let mut level = vec![0.0; yard.kinds.len()];
    for (way, part) in ways.iter().zip(program.levels()) {
        level[way.kind] += part;
    }
    let prices: Vec<i64> = program.prices()[..wide]
        .iter()
        .map(|&price| (price.clamp(0.0, 1e6) * ONE as f64).round() as i64)
        .collect();
    let mut total: i128 = room
        .iter()
        .flatten()
        .zip(&prices)
        .map(|(&room, &price)| i128::from(room) * i128::from(price))
        .sum();
    let mut cost = vec![f64::INFINITY; yard.kinds.len()];
    let mut gain = vec![0i128; yard.kinds.len()];
    let mut paid_at = vec![vec![f64::INFINITY; classes.len()]; yard.kinds.len()];
    for way in &ways {
        let facts = &yard.kinds[way.kind];
        let paid: i128 = way
            .parts
            .iter()
            .flat_map(|(class, load)| (0..DIMS).map(move |dim| (class * DIMS + dim, load[dim])))
            .map(|(row, load)| i128::from(prices[row]) * i128::from(load))
            .sum();
        let value = i128::from(facts.value) * i128::from(ONE);
        gain[way.kind] = gain[way.kind].max(value - paid);
        let share = paid as f64 / value.max(1) as f64;
        cost[way.kind] = cost[way.kind].min(share);
        if let [(class, _)] = way.parts[..] {
            paid_at[way.kind][class] = share;
        }
    }
    for (kind, gain) in gain.iter().enumerate() {
        total += gain * i128::from(yard.kinds[kind].count);
    }
    let value = u64::try_from(total / i128::from(ONE)).unwrap_or(0);
    let dearer = |(paid, least): (&Vec<f64>, &f64)| -> Vec<i32> {
        let each = paid.iter();
        each.map(|paid| {
            if paid.is_finite() {
                ((paid - least) * 64.0) as i32
            } else {
                0
            }
        })
        .collect()
    };
    let of = paid_at.iter().zip(&cost).map(dearer).collect();
    let mut each = vec![[0.0; DIMS]; classes.len()];
    for (row, price) in prices.iter().enumerate() {
        each[row / DIMS][row % DIMS] = *price as f64 / ONE as f64;
    }
    Bound {
        value: value.min(asked(yard)),
        cost,
        level,
        regret: Regret {
            of,
            class_of: class_of.clone(),
        },
        prices: each,
        class_of,
    }
}

/// The class of each node, and the nodes of each class.
fn classes(yard: &Yard) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut numbers = BTreeMap::new();
    let mut nodes: Vec<Vec<usize>> = Vec::new();
    let class_of = yard
        .spots
        .iter()
        .enumerate()
        .map(|(at, spot)| {
            let next = numbers.len();
            let class = *numbers
                .entry((spot.smt, spot.room[VFS] > 0))
                .or_insert(next);
            if class == nodes.len() {
                nodes.push(Vec::new());
            }
            nodes[class].push(at);
            class
        })
        .collect();
    (class_of, nodes)
}

/// In which classes a kind may lie, and what it takes there.
fn ways(yard: &Yard, class_of: &[usize], classes: &[Vec<usize>]) -> Vec<Way> {
    let has_vfs = |class: usize| yard.spots[classes[class][0]].room[VFS] > 0;
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for &(first, end) in &yard.servers {
        for a in first..end {
            for b in (first..end).filter(|&b| b != a) {
                let pair = (class_of[a], class_of[b]);
                if !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
        }
    }
    let mut ways = Vec::new();
    for (number, kind) in yard.kinds.iter().enumerate() {
        let somewhere = |class: usize, cell: usize, vfs: i32| {
            let mut nodes = classes[class].iter();
            let load = kind.load(&yard.spots[classes[class][0]], cell, vfs)?;
            nodes
                .any(|&spot| load::fits(&load, &yard.spots[spot].room))
                .then_some(load)
        };
        if kind.cells == 1 {
            let found = (0..classes.len())
                .filter_map(|class| Some((class, somewhere(class, 0, kind.vfs())?)));
            ways.extend(found.map(|part| Way {
                kind: number,
                parts: vec![part],
            }));
            continue;
        }
        for &(a, b) in &pairs {
            if !kind.ordered && a > b && pairs.contains(&(b, a)) {
                continue;
            }
            let (Some(mut one), Some(mut other)) = (somewhere(a, 0, 0), somewhere(b, 1, 0)) else {
                continue;
            };
            // Of two classes with virtual functions there is but one a server, so that it does not
            // matter which cell takes them.
            match (has_vfs(a), has_vfs(b)) {
                (true, _) => one[VFS] = kind.vfs(),
                (_, true) => other[VFS] = kind.vfs(),
                _ if kind.vfs() > 0 => continue,
                _ => {}
            }
            ways.push(Way {
                kind: number,
                parts: vec![(a, one), (b, other)],
            });
        }
    }
    ways
}
