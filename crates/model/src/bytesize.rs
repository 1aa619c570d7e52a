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

fn unit_hint(number: &str, unit: &str) -> String {
    let meant = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('t') => "TiB",
        Some('g') => "GiB",
        Some('m') => "MiB",
        Some('k') => "KiB",
        _ => return "write `KiB`, `MiB`, `GiB` or `TiB`".into(),
    };
    format!("write `{number}{meant}`")
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
