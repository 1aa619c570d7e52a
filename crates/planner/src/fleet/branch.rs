//! All placements looked at in parts, where a bound and a placement do not meet.
//!
//! Takes fillings with a bound, and the best placement so far; gives a bound that is no more than
//! that placement when nothing is better, and a better one when it comes across it. A part is made
//! by taking for granted how many guests of a kind there are, or where one lies: where the fractions
//! of the program disagree with that, its bound falls. Parts whose bound is no more than what is
//! placed are left; the part with the highest bound is divided next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::columns::Columns;
use super::search::Effort;

/// A part of all placements.
struct Part<'y> {
    columns: Columns<'y>,
    depth: u32,
    /// Whether there are more of a kind here than in its twin.
    upper: bool,
}

impl Part<'_> {
    /// The highest bound first, of those the one that is divided most.
    fn rank(&self) -> (u64, u32, bool) {
        (self.columns.bound, self.depth, self.upper)
    }
}

impl PartialEq for Part<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Part<'_> {}

impl PartialOrd for Part<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// How a part is divided.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// A kind has at most so many, or more.
    Number(usize, u32),
    /// The one guest of a kind does not lie in a bin, or nowhere else.
    Bin(usize, usize),
}

/// Steps of filling in all, for each guest and node: about as long as a few starts take.
const STEPS: u64 = 2000;
/// Steps at most, however large the fleet is.
const MOST_STEPS: u64 = 6_000_000;

/// Divides until no part can hold more than `value`, or the effort is spent; the bound. `size` is
/// the number of guests times that of nodes.
///
/// `look` is shown every part that may hold more, and gives the value that is reached with it.
pub(crate) fn divide<'y>(
    root: &Columns<'y>,
    mut value: u64,
    size: u64,
    effort: Effort,
    mut look: impl FnMut(&Columns<'y>) -> u64,
) -> u64 {
    let mut open = BinaryHeap::from([Part {
        columns: root.clone(),
        depth: 0,
        upper: false,
    }]);
    let mut bound = value;
    let (mut parts, mut steps) = (0, 0);
    while let Some(part) = open.pop() {
        if part.columns.bound <= value {
            break;
        }
        let cut = cut(&part.columns);
        let spent = parts >= effort.parts || steps >= (size * STEPS).min(MOST_STEPS);
        let Some(cut) = cut.filter(|_| !spent) else {
            bound = bound.max(part.columns.bound);
            if spent {
                break;
            }
            continue;
        };
        for upper in [true, false] {
            let mut columns = part.columns.clone();
            match cut {
                Cut::Number(kind, most) => {
                    let (low, high) = columns.counts(kind);
                    let (least, most) = if upper { (most + 1, high) } else { (low, most) };
                    columns.narrow(kind, least, most);
                }
                Cut::Bin(kind, bin) => columns.bar(kind, bin, upper),
            }
            columns.improve(value, effort.columns, true);
            parts += 1;
            steps += columns.steps - part.columns.steps;
            if columns.bound > value {
                value = value.max(look(&columns));
            }
            if columns.bound > value {
                let depth = part.depth + 1;
                open.push(Part {
                    columns,
                    depth,
                    upper,
                });
            }
        }
    }
    bound.max(value)
}

/// How far from a whole number something is taken to be one.
const WHOLE: f64 = 1e-3;

/// Where the fractions of a part's program disagree most with whole numbers.
fn cut(columns: &Columns<'_>) -> Option<Cut> {
    let from_whole = |n: f64| (n - n.floor()).min(n.ceil() - n);
    let mut best = None;
    let mut most = 0.0;
    for (kind, total) in columns.totals().into_iter().enumerate() {
        let (low, high) = columns.counts(kind);
        let off = from_whole(total);
        let between = total > f64::from(low) && total < f64::from(high);
        let score = off * columns.weight(kind);
        if off > WHOLE && between && columns.may_narrow(kind) && score > most {
            most = score;
            best = Some(Cut::Number(kind, total.floor() as u32));
        }
    }
    if best.is_some() {
        return best;
    }
    let mut shares: Vec<((usize, usize), f64)> = columns.shares().into_iter().collect();
    shares.sort_by_key(|(at, _)| *at);
    for ((kind, bin), share) in shares {
        let score = from_whole(share) * columns.weight(kind);
        if from_whole(share) > WHOLE && columns.is_single(kind) && score > most {
            most = score;
            best = Some(Cut::Bin(kind, bin));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::bound;
    use crate::fleet::ejection::Dice;
    use crate::fleet::load::Sharing;
    use crate::fleet::trial::{most, small};
    use crate::fleet::yard::{Objective, State, Yard};

    #[test]
    fn no_part_is_left_that_holds_the_best_placement() {
        let mut dice = Dice::new(11);
        let mut divided = 0;
        for round in 0..300 {
            let (servers, guests) = small(round, &mut dice);
            let objective = [Objective::Count, Objective::Vcpus][round % 2];
            let yard = Yard::new(&servers, &guests, Sharing::Threads, objective);
            let best = most(&mut State::empty(&yard), 0);
            let sums = bound::by_class(&yard);
            let mut root = Columns::new(&yard, &sums.class_of, &sums.prices, sums.value);
            root.improve(0, 400, false);
            assert!(root.bound >= best, "{round}: {} < {best}", root.bound);
            // As if one fewer were known, and as if nothing were: what is left holds the best.
            for known in [best.saturating_sub(1), best * 2 / 3] {
                let mut parts = 0;
                let bound = divide(&root, known, 1 << 20, Effort::default(), |_| {
                    parts += 1;
                    known
                });
                assert!(bound >= best, "{round}: {bound} < {best} from {known}");
                divided += parts;
            }
        }
        assert!(divided > 300, "{divided}");
    }
}
