//! The MAC table of the switch, as text that somebody took from it.
//!
//! Takes what Open vSwitch or Junos prints, gives a [`FabricTable`]. Keeps true: a table that is
//! empty and one that could not be read never look alike; an entry that cannot be understood, or
//! fewer entries than the switch says it has, is an error and no shorter table.

mod junos;
mod ovs;

use std::time::Duration;

use bmslice_model::{MacAddress, VlanId};
use thiserror::Error;

/// Why a text is no MAC table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FabricError {
    /// Nothing in it.
    #[error("the fabric's table is an empty text: nothing was read from the switch")]
    Nothing,
    /// The switch, or the tool that asked it, answered with an error.
    #[error("the switch answered with an error in line {line}: `{text}`")]
    Refused {
        /// From 1.
        line: usize,
        /// What it said.
        text: String,
    },
    /// Neither heading nor entry.
    #[error(
        "this is not a MAC table: it has no heading and no entry; give the whole output of `ovs-appctl fdb/show BRIDGE` or `show ethernet-switching table`, without `| match`"
    )]
    NoTable,
    /// A line that holds an entry and cannot be understood as one.
    #[error("line {line} of the fabric's table is damaged: {why}: `{text}`")]
    Damaged {
        /// From 1.
        line: usize,
        /// The line.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Entries are missing.
    #[error(
        "the switch says that its table has {stated} entries, and {found} were found: the text is cut off"
    )]
    CutOff {
        /// By its heading.
        stated: usize,
        /// In the text.
        found: usize,
    },
}

/// Which switch printed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FabricKind {
    /// `ovs-appctl fdb/show BRIDGE`.
    OpenVSwitch,
    /// `show ethernet-switching table`, older or ELS.
    Junos,
}

/// A VLAN as the switch tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FabricVlan {
    /// None.
    Untagged,
    /// By number.
    Number(VlanId),
    /// By the switch's name for it.
    Name(String),
}

impl std::fmt::Display for FabricVlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Untagged => f.write_str("no VLAN"),
            Self::Number(number) => write!(f, "VLAN {number}"),
            Self::Name(name) => write!(f, "VLAN {name}"),
        }
    }
}

/// What the switch says of an entry's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Configured, not learned: it proves no frame.
    Static,
    /// Time since the last frame (Open vSwitch).
    Idle(Duration),
    /// Time until it is forgotten (Junos: "the time remaining before the entry ages out").
    Left(Duration),
    /// Not told.
    Untold,
}

/// A MAC address that the switch knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricEntry {
    /// The address.
    pub mac: MacAddress,
    /// Its VLAN.
    pub vlan: FabricVlan,
    /// The port as the table tells it: `ge-0/0/9.0`, or an OpenFlow port number.
    pub port: String,
    /// The port's name, when the table tells numbers and something else told the names.
    pub port_name: Option<String>,
    /// Its age.
    pub age: Age,
}

impl FabricEntry {
    /// The port as a person calls it.
    #[must_use]
    pub fn port(&self) -> &str {
        self.port_name.as_deref().unwrap_or(&self.port)
    }

    /// Whether it is on the port of this name: `ge-0/0/9` is any unit of it, `ge-0/0/9.0` that
    /// unit. `None` when the table tells numbers, the name is none, and nothing told which is
    /// which.
    #[must_use]
    pub fn is_on(&self, wanted: &str) -> Option<bool> {
        let same = |name: &str| {
            name == wanted
                || (!wanted.contains('.')
                    && name
                        .split_once('.')
                        .is_some_and(|(port, unit)| port == wanted && is_number(unit)))
        };
        let numbered = is_number(&self.port) && !is_number(wanted);
        match &self.port_name {
            Some(name) => Some(same(name) || same(&self.port)),
            None if numbered => None,
            None => Some(same(&self.port)),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A switch's MAC table; one without entries was read and is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricTable {
    /// Who printed it.
    pub kind: FabricKind,
    /// In its order.
    pub entries: Vec<FabricEntry>,
}

impl FabricTable {
    /// Reads a table; the format is told by the text itself: `ovs-appctl fdb/show BRIDGE`, with
    /// the output of `ovs-ofctl show BRIDGE` before or after it if ports are to be known by name;
    /// or Junos's `show ethernet-switching table`, older or ELS, with or without `interface` or
    /// `| match`, with prompts and wrapped lines as they come from a terminal.
    ///
    /// # Errors
    /// [`FabricError`].
    pub fn parse(text: &str) -> Result<Self, FabricError> {
        if text.trim().is_empty() {
            return Err(FabricError::Nothing);
        }
        if let Some((line, text)) = lines(text).find(|(_, line)| is_refusal(line)) {
            let text = text.trim().to_owned();
            return Err(FabricError::Refused { line, text });
        }
        if ovs::is_table(text) {
            ovs::parse(text)
        } else {
            junos::parse(text)
        }
    }

    /// The entries of an address.
    pub fn of(&self, mac: MacAddress) -> impl Iterator<Item = &FabricEntry> {
        self.entries.iter().filter(move |entry| entry.mac == mac)
    }
}

/// Lines with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()))
}

/// Whether a line is what a switch or its tools print instead of a table.
fn is_refusal(line: &str) -> bool {
    let line = line.trim().to_ascii_lowercase();
    let starts = [
        "error:",
        "syntax error",
        "unknown command",
        "ovs-appctl:",
        "ovs-ofctl:",
        "ssh:",
        "permission denied",
        "connection refused",
        "connection closed",
    ];
    starts.iter().any(|start| line.starts_with(start))
        || line.ends_with("no such bridge")
        || line.ends_with("command not found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_not_be_read_is_no_empty_table() {
        assert_eq!(FabricTable::parse(" \n"), Err(FabricError::Nothing));
        for refused in [
            "error: timeout communicating with l2-learning daemon\n",
            "fabric-switch> show ethernet-switching tabel\n                                  ^\nsyntax error, expecting <command>.\n",
            "fabric: no such bridge\novs-appctl: ovs-vswitchd: server returned an error\n",
            " port  VLAN  MAC                Age\novs-appctl: cannot connect\n",
        ] {
            assert!(
                matches!(
                    FabricTable::parse(refused),
                    Err(FabricError::Refused { .. })
                ),
                "{refused}"
            );
        }
        for no_table in [
            "fabric-switch> show ethernet-switching table | match bc:30:5b:f2:87:52\n\nfabric-switch> \n",
            "fabric-switch> show ethernet-switching table | match\nbc:30:5b:f2:87:52\n",
            "hello\n",
        ] {
            assert_eq!(
                FabricTable::parse(no_table),
                Err(FabricError::NoTable),
                "{no_table}"
            );
        }
    }

    #[test]
    fn a_port_without_a_unit_is_any_unit_of_it() {
        let entry = |port: &str, name: Option<&str>| FabricEntry {
            mac: MacAddress::new([2, 0, 0, 0, 0, 1]),
            vlan: FabricVlan::Untagged,
            port: port.into(),
            port_name: name.map(Into::into),
            age: Age::Untold,
        };
        let junos = entry("ge-0/0/9.0", None);
        assert_eq!(junos.is_on("ge-0/0/9"), Some(true));
        assert_eq!(junos.is_on("ge-0/0/9.0"), Some(true));
        assert_eq!(junos.is_on("ge-0/0/9.1"), Some(false));
        assert_eq!(junos.is_on("ge-0/0/90"), Some(false));
        assert_eq!(junos.is_on("ge-0/0"), Some(false));
        let ovs = entry("1", None);
        assert_eq!(ovs.is_on("1"), Some(true));
        assert_eq!(ovs.is_on("2"), Some(false));
        assert_eq!(
            ovs.is_on("n0p0"),
            None,
            "nothing told what port 1 is called"
        );
        let named = entry("1", Some("n0p0"));
        assert_eq!(named.is_on("n0p0"), Some(true));
        assert_eq!(named.is_on("1"), Some(true));
        assert_eq!(named.is_on("n0p1"), Some(false));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(Ethernet-switching table: [0-9]{0,30} entries\n| port  VLAN  MAC  Age\n)?([ -~]{0,60}\n){0,6}") {
            let _ = FabricTable::parse(&text);
        }

        #[test]
        fn rows_in_any_disorder_never_panic(text in "( port  VLAN  MAC  Age\n)?((Red|1|\\*|-|ge-|0/0/8.0|101|Learn|D|bc:30:5b:f2:87:50|4:17|static|\n| ){0,3} ?){0,30}") {
            let _ = FabricTable::parse(&text);
        }
    }
}
