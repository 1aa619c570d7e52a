//! Names that users give.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text cannot be a name. The limits are those of what carries the name: a libvirt domain, a
/// file, an argument.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// No characters.
    #[error("a name cannot be empty")]
    Empty,
    /// More than 63 characters: a guest's host name comes from it (RFC 1123).
    #[error("the name `{0}` has {len} characters; at most 63 are allowed", len = .0.chars().count())]
    TooLong(String),
    /// Digits alone: `virsh` and its like take them for the number of a running domain, whichever
    /// has it.
    #[error(
        "the name `{0}` is a number, which `virsh` takes for a running domain's id: put a letter in front, as `slice-{0}`"
    )]
    Number(String),
    /// A character that a domain, file or argument cannot carry safely.
    #[error(
        "`{character}` cannot be in the name `{name}`: letters, digits, `-`, `_` and `.` can, after a letter or digit in front"
    )]
    Character {
        /// The whole name.
        name: String,
        /// The first character at fault.
        character: char,
    },
}

fn checked(name: &str) -> Result<String, NameError> {
    let mut characters = name.chars();
    let Some(first) = characters.next() else {
        return Err(NameError::Empty);
    };
    let bad = |character| NameError::Character {
        name: name.into(),
        character,
    };
    if !first.is_ascii_alphanumeric() {
        return Err(bad(first));
    }
    if let Some(c) = characters.find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
        return Err(bad(c));
    }
    if name.len() > 63 {
        return Err(NameError::TooLong(name.into()));
    }
    Ok(name.into())
}

/// As [`checked`]; a domain is named, too.
fn checked_domain(name: &str) -> Result<String, NameError> {
    let name = checked(name)?;
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::Number(name));
    }
    Ok(name)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $checked:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $checked(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                $checked(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// A slice's name, which is its libvirt domain's too: `Red_k8s_cluster_worker1`.
    SliceName, checked_domain
}
name! {
    /// Whose slice it is. Siblings of one core never go to two tenants.
    TenantName, checked
}

impl SliceName {
    /// A host name made of it: lower case, `_` and `.` as `-` (RFC 1123 has no underscore).
    #[must_use]
    pub fn hostname(&self) -> String {
        let name: String = self
            .0
            .chars()
            .map(|c| {
                if c == '_' || c == '.' {
                    '-'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect();
        name.trim_end_matches('-').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name: SliceName = "Red_k8s_cluster_worker1".parse().unwrap();
        assert_eq!(name.hostname(), "red-k8s-cluster-worker1");
        for bad in ["", "-x", "a/b", "a b", "..", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<SliceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_is_no_number_and_a_tenant_may_be() {
        let error = "12".parse::<SliceName>().unwrap_err();
        assert!(error.to_string().contains("`slice-12`"), "{error}");
        for good in ["12a", "1.2", "a12", "1_2", "0x12"] {
            assert!(good.parse::<SliceName>().is_ok(), "{good}");
        }
        assert!("12".parse::<TenantName>().is_ok());
    }
}
