//! A linear program with bounded variables, for bounds and for choosing columns.
//!
//! Takes rows `A x <= b` with `b >= 0`, bounds `0 <= x <= u` and a value of each variable; gives the
//! greatest total value, approximately, and the price of each row. Columns may be added later, and
//! solving goes on from where it stood. Nobody trusts the floating point: whoever needs a proof
//! rounds the prices and works the bound out again in whole numbers.

/// Where a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Lower,
    Upper,
    Basic,
}

/// A variable's column: row and entry.
pub(crate) type Column = Vec<(usize, f64)>;

#[derive(Debug, Clone)]
pub(crate) struct Program {
    rows: usize,
    columns: Vec<Column>,
    value: Vec<f64>,
    upper: Vec<f64>,
    at: Vec<At>,
    slack_at: Vec<At>,
    /// The inverse of the basis, column after column.
    inverse: Vec<f64>,
    /// By row: the variable that is basic there; slacks come first.
    basis: Vec<usize>,
    level: Vec<f64>,
    price: Vec<f64>,
    /// Variables that entered, so far.
    entered: u64,
}

const TINY: f64 = 1e-9;
/// The least gain for which a variable enters.
const GAIN: f64 = 1e-7;

impl Program {
    pub fn new(bounds: Vec<f64>) -> Self {
        let rows = bounds.len();
        let mut inverse = vec![0.0; rows * rows];
        for row in 0..rows {
            inverse[row * rows + row] = 1.0;
        }
        let mut mixed = 0x9e37_79b9_7f4a_7c15_u64;
        // Right-hand sides are nudged apart, so that no step is of length 0.
        let nudged: Vec<f64> = bounds
            .iter()
            .map(|bound| {
                mixed ^= mixed << 13;
                mixed ^= mixed >> 7;
                mixed ^= mixed << 17;
                bound + 1e-6 * (1.0 + (mixed >> 40) as f64 / (1u64 << 24) as f64)
            })
            .collect();
        Self {
            rows,
            level: nudged,
            columns: Vec::new(),
            value: Vec::new(),
            upper: Vec::new(),
            at: Vec::new(),
            slack_at: vec![At::Basic; rows],
            inverse,
            basis: (0..rows).collect(),
            price: vec![0.0; rows],
            entered: 0,
        }
    }

    /// Adds a variable, at 0.
    pub fn add(&mut self, column: Column, value: f64, upper: f64) -> usize {
        self.columns.push(column);
        self.value.push(value);
        self.upper.push(upper);
        self.at.push(At::Lower);
        self.columns.len() - 1
    }

    /// The price of each row; never negative.
    pub fn prices(&self) -> &[f64] {
        &self.price
    }

    /// The variables' values.
    pub fn levels(&self) -> Vec<f64> {
        let mut levels: Vec<f64> = self
            .at
            .iter()
            .zip(&self.upper)
            .map(|(at, upper)| if *at == At::Upper { *upper } else { 0.0 })
            .collect();
        for (row, &variable) in self.basis.iter().enumerate() {
            if variable >= self.rows {
                levels[variable - self.rows] = self.level[row];
            }
        }
        levels
    }

    /// Values a variable anew; [`Program::reprice`] is to follow.
    pub fn set_value(&mut self, variable: usize, value: f64) {
        self.value[variable] = value;
    }

    /// Works the prices out again from the basis.
    pub fn reprice(&mut self) {
        let rows = self.rows;
        let values = self.basis.iter().map(|&at| match at.checked_sub(rows) {
            Some(variable) => self.value[variable],
            None => 0.0,
        });
        let values: Vec<f64> = values.collect();
        for (price, inverse) in self.price.iter_mut().zip(self.inverse.chunks(rows)) {
            *price = inverse
                .iter()
                .zip(&values)
                .map(|(i, value)| i * value)
                .sum();
        }
    }

    /// The work done so far: entries of the inverse that were looked at.
    pub fn work(&self) -> u64 {
        self.entered * (self.rows * self.rows) as u64
    }

    /// The total value.
    pub fn objective(&self) -> f64 {
        let levels = self.levels();
        levels.iter().zip(&self.value).map(|(l, v)| l * v).sum()
    }

    /// Goes on until nothing gains any more, or for so many steps; whether it is done.
    pub fn solve(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some((entering, rising)) = self.entering() else {
                return true;
            };
            self.entered += 1;
            if !self.step(entering, rising) {
                return true;
            }
        }
        false
    }

    fn gain(&self, column: usize) -> f64 {
        let cost: f64 = self.columns[column]
            .iter()
            .map(|&(row, entry)| self.price[row] * entry)
            .sum();
        self.value[column] - cost
    }

    /// The variable that gains most, and whether it is to rise.
    fn entering(&self) -> Option<(usize, bool)> {
        let mut best = GAIN;
        let mut found = None;
        for column in 0..self.columns.len() {
            let (gain, rising) = match self.at[column] {
                At::Basic => continue,
                At::Lower => (self.gain(column), true),
                At::Upper => (-self.gain(column), false),
            };
            if gain > best {
                best = gain;
                found = Some((self.rows + column, rising));
            }
        }
        for row in 0..self.rows {
            if self.slack_at[row] == At::Lower && -self.price[row] > best {
                best = -self.price[row];
                found = Some((row, true));
            }
        }
        found
    }

    /// The entering variable's column in terms of the basis.
    fn direction(&self, variable: usize) -> Vec<f64> {
        let rows = self.rows;
        if variable < rows {
            return self.inverse[variable * rows..(variable + 1) * rows].to_vec();
        }
        let mut all = vec![0.0; rows];
        for &(row, entry) in &self.columns[variable - rows] {
            let from = &self.inverse[row * rows..(row + 1) * rows];
            for (sum, part) in all.iter_mut().zip(from) {
                *sum += entry * part;
            }
        }
        all
    }

    fn upper_of(&self, variable: usize) -> f64 {
        if variable < self.rows {
            f64::INFINITY
        } else {
            self.upper[variable - self.rows]
        }
    }

    fn set_at(&mut self, variable: usize, at: At) {
        if variable < self.rows {
            self.slack_at[variable] = at;
        } else {
            self.at[variable - self.rows] = at;
        }
    }

    /// Moves one variable as far as it can go; `false` when nothing stops it.
    fn step(&mut self, entering: usize, rising: bool) -> bool {
        let rows = self.rows;
        let direction = self.direction(entering);
        let sign = if rising { 1.0 } else { -1.0 };
        let mut length = self.upper_of(entering);
        let mut leaving = None;
        for (row, along) in direction.iter().enumerate() {
            let fall = along * sign;
            let (room, at) = if fall > TINY {
                (self.level[row].max(0.0) / fall, At::Lower)
            } else if fall < -TINY {
                let upper = self.upper_of(self.basis[row]);
                ((upper - self.level[row]).max(0.0) / -fall, At::Upper)
            } else {
                continue;
            };
            let nearer = room < length - TINY
                || (room < length + TINY
                    && leaving.is_some_and(|(other, _): (usize, At)| {
                        along.abs() > direction[other].abs()
                    }));
            if nearer {
                length = room.min(length);
                leaving = Some((row, at));
            }
        }
        if !length.is_finite() {
            return false;
        }
        for (level, along) in self.level.iter_mut().zip(&direction) {
            *level -= sign * length * along;
        }
        let Some((row, at)) = leaving else {
            self.set_at(entering, if rising { At::Upper } else { At::Lower });
            return true;
        };
        let gain = if entering < rows {
            -self.price[entering]
        } else {
            self.gain(entering - rows)
        };
        let out = self.basis[row];
        self.set_at(out, at);
        self.set_at(entering, At::Basic);
        self.basis[row] = entering;
        self.level[row] = if rising {
            length
        } else {
            self.upper_of(entering) - length
        };
        let pivot = direction[row];
        for column in 0..rows {
            let inverse = &mut self.inverse[column * rows..(column + 1) * rows];
            let here = inverse[row];
            if here == 0.0 {
                continue;
            }
            let share = here / pivot;
            for (entry, along) in inverse.iter_mut().zip(&direction) {
                *entry -= share * along;
            }
            inverse[row] = share;
            self.price[column] += gain * share;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_of_a_small_program_is_found() {
        // 3x + 2y with x + y <= 4, x + 3y <= 6, x <= 3: 11 at (3, 1).
        let mut program = Program::new(vec![4.0, 6.0]);
        program.add(vec![(0, 1.0), (1, 1.0)], 3.0, 3.0);
        program.add(vec![(0, 1.0), (1, 3.0)], 2.0, 10.0);
        assert!(program.solve(100));
        let levels = program.levels();
        assert!((levels[0] - 3.0).abs() < 1e-4 && (levels[1] - 1.0).abs() < 1e-4);
    }

    #[test]
    fn a_column_that_is_added_later_is_taken_in() {
        let mut program = Program::new(vec![10.0]);
        program.add(vec![(0, 2.0)], 1.0, 100.0);
        assert!(program.solve(100));
        assert!((program.prices()[0] - 0.5).abs() < 1e-6);
        program.add(vec![(0, 1.0)], 1.0, 4.0);
        assert!(program.solve(100));
        let levels = program.levels();
        assert!((levels[1] - 4.0).abs() < 1e-4 && (levels[0] - 3.0).abs() < 1e-4);
    }
}
