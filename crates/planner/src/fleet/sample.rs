//! Placements after the fractions of a program.
//!
//! Takes fillings with their program; gives placements in which each bin has one of its fillings,
//! for a search to start from.

use super::bins::place;
use super::columns::{Columns, Variable};
use super::ejection::Dice;
use super::yard::State;

impl<'y> Columns<'y> {
    /// A placement after the program's: each bin gets one of its fillings, the likelier the more of
    /// it the program takes. Guests of two cells on larger servers stay where they are in `like`.
    pub fn sample(&self, like: &State<'y>, dice: &mut Dice) -> State<'y> {
        let mut state = State::empty(self.yard);
        let mut of_kind = self.yard.guests();
        let node_bins = self.bins.iter().filter(|bin| bin.server.is_some());
        let large: Vec<usize> = node_bins
            .flat_map(|bin| bin.spots.iter().copied())
            .collect();
        for (guest, place) in like.places.iter().enumerate() {
            let two = like.kind(guest).is_some_and(|kind| kind.cells == 2);
            if let Some(place) = *place
                && two
                && large.contains(&place.spots[0])
            {
                state.place(guest, place);
            }
        }
        for guests in &mut of_kind {
            guests.retain(|&guest| state.places[guest].is_none());
        }
        let mut choices: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.bins.len()];
        for (at, level) in self.program.levels().into_iter().enumerate() {
            if let Variable::Filling(bin, _) = &self.columns[at]
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
            let Variable::Filling(_, filling) = &self.columns[*at] else {
                continue;
            };
            for &(id, count) in filling.iter() {
                if self.half_of[id].is_some() {
                    continue;
                }
                let part = self.parts[id];
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
