//! Sets of CPUs in the kernel's list format (`0-3,8,10-14:2`), and their algebra.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{CpuId, IdError};

const WORD: usize = u64::BITS as usize;

/// Why a text is not a CPU list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CpuSetError {
    /// A part that is neither a number nor a range.
    #[error(
        "`{part}` in the cpu list `{list}` is not a number or a range like `2-5` or `0-31:2/8`"
    )]
    Malformed {
        /// The whole text.
        list: String,
        /// The part at fault.
        part: String,
    },
    /// A range whose end lies before its start.
    #[error("the range `{part}` in the cpu list `{list}` ends before it starts")]
    Backwards {
        /// The whole text.
        list: String,
        /// The part at fault.
        part: String,
    },
    /// A number above [`CpuId::MAX`].
    #[error("in the cpu list `{list}`: {source}")]
    Number {
        /// The whole text.
        list: String,
        /// What is wrong with the number.
        source: IdError,
    },
}

/// A set of CPUs, printed and parsed in the kernel's list format
/// (Documentation/admin-guide/kernel-parameters.rst, “cpu lists”), strides
/// (`0-31:2`, `0-31:2/8`) included.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct CpuSet {
    // Kept without trailing zero words, so that equal sets are equal words.
    words: Vec<u64>,
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// Adds a CPU; whether it was new.
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        let (word, bit) = (cpu.index() / WORD, 1u64 << (cpu.index() % WORD));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Takes a CPU out; whether it was there.
    pub fn remove(&mut self, cpu: CpuId) -> bool {
        let (word, bit) = (cpu.index() / WORD, 1u64 << (cpu.index() % WORD));
        let Some(w) = self.words.get_mut(word) else {
            return false;
        };
        let had = *w & bit != 0;
        *w &= !bit;
        self.trim();
        had
    }

    /// Whether the CPU is in the set.
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words
            .get(cpu.index() / WORD)
            .is_some_and(|w| w & (1u64 << (cpu.index() % WORD)) != 0)
    }

    /// How many CPUs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The lowest CPU.
    #[must_use]
    pub fn first(&self) -> Option<CpuId> {
        self.iter().next()
    }

    /// The CPUs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                CpuId::from_index(i * WORD + bit)
            })
        })
    }

    /// Those in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (long, short) = if self.words.len() >= other.words.len() {
            (self, other)
        } else {
            (other, self)
        };
        let mut words = long.words.clone();
        for (w, o) in words.iter_mut().zip(&short.words) {
            *w |= o;
        }
        Self { words }
    }

    /// Those in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let words = self
            .words
            .iter()
            .zip(&other.words)
            .map(|(a, b)| a & b)
            .collect();
        Self { words }.trimmed()
    }

    /// Those in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut words = self.words.clone();
        for (w, o) in words.iter_mut().zip(&other.words) {
            *w &= !o;
        }
        Self { words }.trimmed()
    }

    /// Whether every CPU of this set is in the other.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.words.len() <= other.words.len()
            && self
                .words
                .iter()
                .zip(&other.words)
                .all(|(a, b)| a & !b == 0)
    }

    /// Whether the two have no CPU in common.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(a, b)| a & b == 0)
    }

    /// Adds all of the other set.
    pub fn extend_from(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (w, o) in self.words.iter_mut().zip(&other.words) {
            *w |= o;
        }
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    fn trimmed(mut self) -> Self {
        self.trim();
        self
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        let mut set = Self::new();
        set.extend(cpus);
        set
    }
}

impl Extend<CpuId> for CpuSet {
    fn extend<I: IntoIterator<Item = CpuId>>(&mut self, cpus: I) {
        for cpu in cpus {
            self.insert(cpu);
        }
    }
}

impl From<CpuId> for CpuSet {
    fn from(cpu: CpuId) -> Self {
        std::iter::once(cpu).collect()
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().map(CpuId::number).peekable();
        let mut separator = "";
        while let Some(start) = cpus.next() {
            let mut end = start;
            while cpus.peek() == Some(&(end + 1)) {
                end += 1;
                cpus.next();
            }
            // As the kernel prints it: two neighbours are `2-3`.
            if start == end {
                write!(f, "{separator}{start}")?;
            } else {
                write!(f, "{separator}{start}-{end}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        let list = text.trim();
        let mut set = Self::new();
        if list.is_empty() {
            return Ok(set);
        }
        for part in list.split(',') {
            // The kernel skips empty parts: `0,,2` and a trailing comma are taken.
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let range = Range::parse(list, part)?;
            for start in (range.start..=range.end).step_by(range.group) {
                for number in start..start.saturating_add(range.used).min(range.end + 1) {
                    set.insert(cpu(list, number)?);
                }
            }
        }
        Ok(set)
    }
}

/// `start-end:used/group`: of each `group` CPUs from `start` on, the first `used`.
struct Range {
    start: u32,
    end: u32,
    used: u32,
    group: usize,
}

impl Range {
    fn parse(list: &str, part: &str) -> Result<Self, CpuSetError> {
        let malformed = || CpuSetError::Malformed {
            list: list.into(),
            part: part.into(),
        };
        let (span, stride) = match part.split_once(':') {
            Some((span, stride)) => (span, Some(stride)),
            None => (part, None),
        };
        let (start, end) = match span.split_once('-') {
            Some((start, end)) => (number(start), number(end)),
            None if stride.is_none() => (number(span), number(span)),
            None => return Err(malformed()),
        };
        let (Some(start), Some(end)) = (start, end) else {
            return Err(malformed());
        };
        if end < start {
            return Err(CpuSetError::Backwards {
                list: list.into(),
                part: part.into(),
            });
        }
        cpu(list, u32::try_from(end).unwrap_or(u32::MAX))?;
        let (used, group) = match stride {
            None => (1, 1),
            Some(stride) => match stride.split_once('/') {
                Some((used, group)) => (
                    number(used).ok_or_else(malformed)?,
                    number(group).ok_or_else(malformed)?,
                ),
                None => (1, number(stride).ok_or_else(malformed)?),
            },
        };
        if used == 0 || group == 0 || used > group {
            return Err(malformed());
        }
        // Both fit: `end` was checked above, and a stride beyond the range changes nothing.
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Self {
            start: narrow(start),
            end: narrow(end),
            used: narrow(used),
            group: narrow(group) as usize,
        })
    }
}

fn number(text: &str) -> Option<u64> {
    // `u64::from_str` would take a leading `+`.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

fn cpu(list: &str, number: u32) -> Result<CpuId, CpuSetError> {
    CpuId::new(number).map_err(|source| CpuSetError::Number {
        list: list.into(),
        source,
    })
}

impl TryFrom<String> for CpuSet {
    type Error = CpuSetError;
    fn try_from(text: String) -> Result<Self, CpuSetError> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn prints_what_it_parses() {
        for text in ["", "0", "2-11,14-23", "0,2,4,6", "1023", "0-255"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set(" 3,1,2\n").to_string(), "1-3");
        assert_eq!(set("0-7:2").to_string(), "0,2,4,6");
        assert_eq!(set("0-15:2/8").to_string(), "0-1,8-9");
        assert_eq!(set("0,,2,").to_string(), "0,2");
    }

    #[test]
    fn refuses_what_is_no_list() {
        for text in [
            "a", "1-", "-1", "1-2-3", "+1", "1:2", "0-7:0", "0-7:3/2", "0x3",
        ] {
            assert!(
                matches!(text.parse::<CpuSet>(), Err(CpuSetError::Malformed { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            "5-2".parse::<CpuSet>(),
            Err(CpuSetError::Backwards { .. })
        ));
        for text in ["65536", "0-99999999999999999999", "4294967296"] {
            assert!(
                matches!(text.parse::<CpuSet>(), Err(CpuSetError::Number { .. })),
                "{text}"
            );
        }
        assert_eq!(
            "2,x".parse::<CpuSet>().unwrap_err().to_string(),
            "`x` in the cpu list `2,x` is not a number or a range like `2-5` or `0-31:2/8`"
        );
    }

    #[test]
    fn algebra() {
        let (a, b) = (set("0-3,70"), set("2-5"));
        assert_eq!(a.union(&b), set("0-5,70"));
        assert_eq!(a.intersection(&b), set("2-3"));
        assert_eq!(a.difference(&b), set("0-1,70"));
        assert!(set("2").is_subset(&a) && !a.is_subset(&b));
        assert!(set("70").is_disjoint(&b) && !a.is_disjoint(&b));
        let mut c = a.clone();
        c.remove(CpuId::from(70));
        assert_eq!(
            c,
            set("0-3"),
            "equal sets are equal whatever was in them before"
        );
        assert_eq!((c.len(), c.first()), (4, Some(CpuId::from(0))));
    }
}
