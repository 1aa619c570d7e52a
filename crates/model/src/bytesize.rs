//! Sizes of memory and disks, in bytes, with the binary units of IEC 80000-13.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ByteSizeError {
    /// No number in front.
    #[error("`{0}` is not a size: write a whole number and a unit, as `8GiB`")]
    Malformed(String),
    /// A number without a unit.
    #[error("`{0}` has no unit: write `{0}GiB`, `{0}MiB` or `{0}KiB`")]
    NoUnit(String),
    /// A decimal or unknown unit.
    #[error("`{unit}` in `{text}` is not a unit of size: {hint}")]
    Unit {
        /// The whole text.
        text: String,
        /// The unit at fault.
        unit: String,
        /// What would be right.
        hint: String,
    },
    /// A fraction of a unit.
    #[error("`{text}` is not a whole number: {hint}")]
    Fraction {
        /// The whole text.
        text: String,
        /// What would be right.
        hint: String,
    },
    /// More than 64 bits.
    #[error("`{0}` is larger than any machine's memory or disk (the limit is 8 EiB)")]
    TooLarge(String),
}

/// A number of bytes. Text needs a binary unit (`KiB`, `MiB`, `GiB`, `TiB`); decimal units are
/// refused, since a guest of `8GB` cannot be backed by whole huge pages and nobody means it.
/// Serialised as the text.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ByteSize(u64);

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ByteSize {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB; at most `u64::MAX` bytes.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    /// So many MiB; at most `u64::MAX` bytes.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// So many GiB; at most `u64::MAX` bytes.
    #[must_use]
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib.saturating_mul(1 << 30))
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whole KiB, rounded down.
    #[must_use]
    pub const fn kib(self) -> u64 {
        self.0 >> 10
    }

    /// Whole MiB, rounded down.
    #[must_use]
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }

    /// Whether it is made of whole pages of this size; never of pages of no bytes.
    #[must_use]
    pub const fn is_multiple_of(self, page: Self) -> bool {
        page.0 != 0 && self.0.is_multiple_of(page.0)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            let size = 1u64 << shift;
            if self.0 >= size && self.0.is_multiple_of(size) {
                return f.pad(&format!("{}{unit}", self.0 >> shift));
            }
        }
        f.pad("0B")
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(ByteSizeError::Malformed(text.into()));
        }
        let (number, unit) = (&trimmed[..digits], trimmed[digits..].trim());
        if let Some(rest) = unit.strip_prefix(['.', ',']) {
            return Err(ByteSizeError::Fraction {
                text: text.into(),
                hint: whole_hint(number, rest),
            });
        }
        if unit.is_empty() {
            return Err(ByteSizeError::NoUnit(number.into()));
        }
        let Some((_, shift)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(ByteSizeError::Unit {
                text: text.into(),
                unit: unit.into(),
                hint: unit_hint(number, unit),
            });
        };
        let too_large = || ByteSizeError::TooLarge(text.into());
        let number: u64 = number.parse().map_err(|_| too_large())?;
        number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes <= 1 << 63)
            .map(Self)
            .ok_or_else(too_large)
    }
}

/// The size that a fraction means, in whole units, or the nearest ones to it.
fn whole_hint(whole: &str, rest: &str) -> String {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, unit) = (&rest[..digits], rest[digits..].trim());
    let usual = || "write a whole number and a unit, as `8GiB`".to_owned();
    let Some((_, shift)) = meant(unit) else {
        return usual();
    };
    // Nine digits of each are exact here, and nobody means more.
    let (Ok(whole), Ok(part), Ok(places @ 0..=9)) = (
        whole.parse::<u32>(),
        format!("0{fraction}").parse::<u32>(),
        u32::try_from(fraction.len()),
    ) else {
        return usual();
    };
    let parts = 10u128.pow(places);
    let all = (u128::from(whole) * parts + u128::from(part)) << shift;
    // Down to the unit below: a tenth of a GiB is no whole number of bytes.
    let step = 1u128 << shift.saturating_sub(10);
    let less = all / (parts * step) * step;
    let size = |bytes: u128| u64::try_from(bytes).map(ByteSize);
    match (all == less * parts, size(less), size(less + step)) {
        (true, Ok(size), _) => format!("write `{size}`"),
        (false, Ok(less), Ok(more)) if less == ByteSize::ZERO => format!("write `{more}`"),
        (false, Ok(less), Ok(more)) => format!("write `{less}` or `{more}`"),
        _ => usual(),
    }
}

fn unit_hint(number: &str, unit: &str) -> String {
    match meant(unit) {
        Some((meant, _)) => format!("write `{number}{meant}`"),
        None => "write `KiB`, `MiB`, `GiB` or `TiB`".into(),
    }
}

/// The binary unit that begins as this one does.
fn meant(unit: &str) -> Option<(&'static str, u32)> {
    let first = unit.chars().next()?.to_ascii_uppercase();
    let binary = UNITS.iter().filter(|(_, shift)| *shift > 0);
    binary.copied().find(|(name, _)| name.starts_with(first))
}

impl TryFrom<String> for ByteSize {
    type Error = ByteSizeError;
    fn try_from(text: String) -> Result<Self, ByteSizeError> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_largest_whole_unit() {
        for text in ["0B", "8GiB", "1536MiB", "1TiB", "4KiB", "100GiB", "1B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!(ByteSize::from_mib(2048).to_string(), "2GiB");
        assert_eq!("8 GiB".parse(), Ok(ByteSize::from_gib(8)));
    }

    #[test]
    fn says_what_would_be_right() {
        let says = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(
            says("8GB"),
            "`GB` in `8GB` is not a unit of size: write `8GiB`"
        );
        assert_eq!(
            says("8g"),
            "`g` in `8g` is not a unit of size: write `8GiB`"
        );
        assert_eq!(says("8"), "`8` has no unit: write `8GiB`, `8MiB` or `8KiB`");
        for (text, right) in [
            ("8.5GiB", "`8704MiB`"),
            ("8,5 GiB", "`8704MiB`"),
            ("8.0GiB", "`8GiB`"),
            ("0.5TiB", "`512GiB`"),
            ("8.3GiB", "`8499MiB` or `8500MiB`"),
            ("0.0001GiB", "`1MiB`"),
            ("8.5GB", "`8704MiB`"),
            ("8.5B", "a whole number and a unit, as `8GiB`"),
            ("8.5", "a whole number and a unit, as `8GiB`"),
            ("99999999999.5GiB", "a whole number and a unit, as `8GiB`"),
            (
                "8.99999999999999GiB",
                "a whole number and a unit, as `8GiB`",
            ),
        ] {
            let wanted = format!("`{text}` is not a whole number: write {right}");
            assert_eq!(says(text), wanted);
        }
        assert_eq!(
            says("-1GiB"),
            "`-1GiB` is not a size: write a whole number and a unit, as `8GiB`"
        );
        assert_eq!(
            says("99999999999TiB"),
            "`99999999999TiB` is larger than any machine's memory or disk (the limit is 8 EiB)"
        );
    }
}
