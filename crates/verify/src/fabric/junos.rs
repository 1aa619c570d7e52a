//! Junos: `show ethernet-switching table`, in the older form (one `VLAN MAC Type Age Interfaces`
//! row an entry) and the ELS form (`Vlan name, MAC address, flags, Age, Logical interface`), from
//! a terminal: with prompts, and rows that were wrapped in the interface's name.

use std::time::Duration;

use bmslice_model::{MacAddress, VlanId};

use super::{Age, FabricEntry, FabricError, FabricKind, FabricTable, FabricVlan, is_number, lines};

pub(super) fn parse(text: &str) -> Result<FabricTable, FabricError> {
    let lines: Vec<(usize, &str)> = lines(text).collect();
    let mut entries = Vec::new();
    let mut flooding = 0;
    let mut stated: Option<Stated> = None;
    let mut headed = false;
    let mut index = 0;
    while let Some((number, line)) = lines.get(index).copied() {
        index += 1;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if is_prompt(line) {
            // A command that the terminal wrapped goes on in the next line, and the MAC address
            // that was asked for is no entry.
            if line.ends_with("match") || line.ends_with('|') {
                index += 1;
            }
        } else if let Some(count) = heading(line) {
            headed = true;
            stated = Some(stated.map_or(count, |before| before.and(count)));
        } else if is_columns(&words) {
            headed = true;
        } else if words.get(1) == Some(&"*") {
            flooding += 1;
        } else if words.iter().any(|word| looks_like_mac(word)) {
            let mut row = line.trim().to_owned();
            let entry = loop {
                match entry(&row) {
                    Row::Whole(entry) => break Ok(entry),
                    Row::Damaged(why) => break Err(why),
                    Row::Wrapped(why) => {
                        let next = lines.get(index).map(|(_, line)| *line);
                        let Some(next) = next.filter(|line| continues(line)) else {
                            break Err(why);
                        };
                        index += 1;
                        // `ge-` is half a name; `-` alone is an age that is not told.
                        if row.ends_with('-') && !row.ends_with(" -") {
                            row.push_str(next.trim());
                        } else {
                            row = format!("{row} {}", next.trim());
                        }
                    }
                }
            };
            entries.push(entry.map_err(|why| FabricError::Damaged {
                line: number,
                text: line.to_owned(),
                why,
            })?);
        }
    }
    if !headed && entries.is_empty() && flooding == 0 {
        return Err(FabricError::NoTable);
    }
    if let Some(stated) = stated {
        let found = entries.len() + if stated.unicast { 0 } else { flooding };
        if found < stated.entries {
            return Err(FabricError::CutOff {
                stated: stated.entries,
                found,
            });
        }
    }
    Ok(FabricTable {
        kind: FabricKind::Junos,
        entries,
    })
}

/// What a heading says of the number of entries.
#[derive(Clone, Copy)]
struct Stated {
    entries: usize,
    /// Whether entries for flooding are left out of the count.
    unicast: bool,
}

impl Stated {
    fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            unicast: self.unicast || other.unicast,
        }
    }
}

/// `Ethernet-switching table: 1 unicast entries`, `Ethernet switching table : 3 entries, 3 learned`.
fn heading(line: &str) -> Option<Stated> {
    let line = line.trim();
    let rest = line
        .strip_prefix("Ethernet-switching table")
        .or_else(|| line.strip_prefix("Ethernet switching table"))?;
    let rest = rest.trim_start().strip_prefix(':')?;
    let mut words = rest.split_ascii_whitespace();
    Some(Stated {
        entries: words.next()?.parse().ok()?,
        unicast: words.next() == Some("unicast"),
    })
}

/// The columns' names; in ELS they take two lines.
fn is_columns(words: &[&str]) -> bool {
    words.len() > 2 && words[0].eq_ignore_ascii_case("vlan") && words[1].eq_ignore_ascii_case("mac")
}

/// `fabric-switch> show …`, `user@switch# run show …`.
fn is_prompt(line: &str) -> bool {
    line.split_once(['>', '#', '%'])
        .is_some_and(|(host, command)| {
            let host = host.trim_start();
            !host.is_empty()
                && !host.contains(char::is_whitespace)
                && (command.is_empty() || command.starts_with(' '))
        })
}

/// Whether a line can be the rest of a wrapped row.
fn continues(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next().is_some()
        && !line.split_ascii_whitespace().any(looks_like_mac)
        && words.next() != Some("*")
        && !is_prompt(line)
        && heading(line).is_none()
}

/// An address, or what is left of one: hexadecimal pairs that no age (`4:17`, `1:04:17`) can be.
fn looks_like_mac(word: &str) -> bool {
    let parts: Vec<&str> = word.split(':').collect();
    let hexadecimal = parts
        .iter()
        .all(|part| part.len() <= 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
    let could_be_age = parts.len() <= 3 && !word.bytes().any(|b| b.is_ascii_alphabetic());
    hexadecimal && parts.len() > 1 && !could_be_age
}

enum Row {
    Whole(FabricEntry),
    /// What is missing when nothing follows.
    Wrapped(&'static str),
    Damaged(&'static str),
}

fn entry(row: &str) -> Row {
    let words: Vec<&str> = row.split_ascii_whitespace().collect();
    let (vlan, mac, rest) = match words.as_slice() {
        [vlan, mac, rest @ ..] if looks_like_mac(mac) => (*vlan, *mac, rest),
        _ => return Row::Damaged("an entry starts with a VLAN and a MAC address"),
    };
    let Ok(mac) = mac.parse::<MacAddress>() else {
        return Row::Damaged("the MAC address is not whole");
    };
    let Some((flags, rest)) = rest.split_first() else {
        return Row::Wrapped("the type, age and interface are missing");
    };
    // What follows the interface (next hop, instance) is no age.
    let before = rest.iter().take_while(|word| is_age_column(word)).count();
    let age = rest[..before].iter().find_map(|word| age(word));
    let Some(port) = rest.get(before) else {
        return Row::Wrapped("the interface is missing");
    };
    if port.ends_with('-') {
        return Row::Wrapped("the interface's name is cut off");
    }
    // `Static` in the older form; in ELS flags `S` (static) and `P` (persistent), while `SE` only
    // counts traffic.
    let fixed = flags.starts_with("Static") || flags.split(',').any(|f| f == "S" || f == "P");
    Row::Whole(FabricEntry {
        mac,
        vlan: vlan
            .parse()
            .ok()
            .and_then(|number| VlanId::new(number).ok())
            .map_or_else(|| FabricVlan::Name(vlan.to_owned()), FabricVlan::Number),
        port: (*port).to_owned(),
        port_name: None,
        age: match age {
            _ if fixed => Age::Static,
            Some(left) => Age::Left(left),
            None => Age::Untold,
        },
    })
}

/// `0`, `4:17`, `1:04:17`.
fn age(word: &str) -> Option<Duration> {
    let parts: Vec<&str> = word.split(':').collect();
    if parts.len() > 3 || !parts.iter().all(|part| is_number(part)) {
        return None;
    }
    let mut seconds: u64 = 0;
    for part in parts {
        seconds = seconds
            .checked_mul(60)?
            .checked_add(part.parse::<u64>().ok()?)?;
    }
    Some(Duration::from_secs(seconds))
}

/// What may stand between flags and interface: an age, a group tag, or `-`.
fn is_age_column(word: &str) -> bool {
    word == "-" || age(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As pasted in the seed, prompts and wrapped lines included.
    const SEED: &str = "\
fabric-switch> show ethernet-switching table | match
bc:30:5b:f2:87:52
  Red_Tenant_Network    bc:30:5b:f2:87:52 Learn          0 ge-0/0/9.0

fabric-switch> show ethernet-switching table interface ge-0/0/8
Ethernet-switching table: 1 unicast entries
  VLAN                MAC address          Type          Age Interfaces
  Blue_Tenant_Network  bc:30:5b:f2:87:50 Learn          4:17 ge-
0/0/8.0
";

    const OLDER: &str = "\
user@switch> show ethernet-switching table
Ethernet-switching table: 4 entries, 2 learned
  VLAN              MAC address       Type         Age Interfaces
  Red               *                 Flood          - All-members
  Red               00:00:05:00:00:01 Learn          0 ge-0/0/9.0
  Blue              bc:30:5b:f2:87:50 Learn    1:04:17 ae0.0
  mgmt              00:19:e2:50:3d:e0 Static         - Router
";

    const ELS: &str = "\
user@switch> show ethernet-switching table

MAC flags (S - static MAC, D - dynamic MAC, L - locally learned, P - Persistent static
           SE - statistics enabled, NM - non configured MAC, R - remote PE MAC, O - ovsdb MAC)


Ethernet switching table : 3 entries, 2 learned
Routing instance : default-switch
    Vlan                MAC                 MAC         Age    Logical                NH        RTR
    name                address             flags              interface              Index     ID
    red                 bc:30:5b:f2:87:52   D             -   ge-0/0/9.0             0         0
    102                 bc:30:5b:f2:87:50   D,SE          -   xe-0/0/8.0             0         0
    mgmt                00:19:e2:50:3d:e0   S             -   ae0.0                  0         0
";

    fn rows(text: &str) -> Vec<(String, String, String)> {
        FabricTable::parse(text)
            .unwrap()
            .entries
            .iter()
            .map(|e| (e.vlan.to_string(), e.mac.to_string(), e.port.clone()))
            .collect()
    }

    fn row(vlan: &str, mac: &str, port: &str) -> (String, String, String) {
        (vlan.into(), mac.into(), port.into())
    }

    #[test]
    fn the_seeds_two_tables_as_pasted() {
        let want = [
            row("VLAN Red_Tenant_Network", "bc:30:5b:f2:87:52", "ge-0/0/9.0"),
            row(
                "VLAN Blue_Tenant_Network",
                "bc:30:5b:f2:87:50",
                "ge-0/0/8.0",
            ),
        ];
        assert_eq!(rows(SEED), want);
        assert_eq!(rows(&SEED.replace("ge-\n0/0/8.0", "ge-0/0/8.0")), want);
        assert_eq!(rows(&SEED.replace(" ge-\n", "\n      ge-")), want);
        assert_eq!(rows(&SEED.replace('\n', "\r\n")), want);
        let table = FabricTable::parse(SEED).unwrap();
        assert_eq!(table.entries[0].age, Age::Left(Duration::ZERO));
        assert_eq!(table.entries[1].age, Age::Left(Duration::from_secs(257)));
    }

    #[test]
    fn each_of_the_seeds_tables_alone() {
        let (first, second) = SEED.split_once("\n\n").unwrap();
        assert_eq!(rows(first).len(), 1);
        assert_eq!(rows(second).len(), 1);
    }

    #[test]
    fn the_older_form_with_flooding_and_static_entries() {
        let table = FabricTable::parse(OLDER).unwrap();
        assert_eq!(table.entries.len(), 3, "flooding is no address");
        assert_eq!(table.entries[1].age, Age::Left(Duration::from_secs(3857)));
        assert_eq!(table.entries[2].age, Age::Static);
        assert_eq!(table.entries[2].port, "Router");
    }

    #[test]
    fn the_els_form() {
        assert_eq!(
            rows(ELS),
            [
                row("VLAN red", "bc:30:5b:f2:87:52", "ge-0/0/9.0"),
                row("VLAN 102", "bc:30:5b:f2:87:50", "xe-0/0/8.0"),
                row("VLAN mgmt", "00:19:e2:50:3d:e0", "ae0.0"),
            ]
        );
        let table = FabricTable::parse(ELS).unwrap();
        assert_eq!(table.entries[1].age, Age::Untold);
        assert_eq!(table.entries[2].age, Age::Static);
    }

    #[test]
    fn a_heading_without_entries_is_an_empty_table() {
        for empty in [
            "Ethernet-switching table: 0 unicast entries\n",
            "Ethernet switching table : 0 entries, 0 learned\nRouting instance : default-switch\n",
        ] {
            assert!(FabricTable::parse(empty).unwrap().entries.is_empty());
        }
    }

    #[test]
    fn fewer_entries_than_stated_is_no_table() {
        let cut = OLDER.rsplit_once("  Blue").unwrap().0;
        assert_eq!(
            FabricTable::parse(cut),
            Err(FabricError::CutOff {
                stated: 4,
                found: 2
            })
        );
        assert_eq!(
            FabricTable::parse("Ethernet-switching table: 1 unicast entries\n"),
            Err(FabricError::CutOff {
                stated: 1,
                found: 0
            })
        );
    }

    #[test]
    fn a_damaged_row_is_an_error_with_its_line() {
        for (bad, why) in [
            (
                "Red bc:30:5b:f2:87 Learn 0 ge-0/0/9.0",
                "the MAC address is not whole",
            ),
            (
                "Red bc:30:5b: Learn 0 ge-0/0/9.0",
                "the MAC address is not whole",
            ),
            (
                "Red bc:30:5b:f2:87:52",
                "the type, age and interface are missing",
            ),
            ("Red bc:30:5b:f2:87:52 Learn 0", "the interface is missing"),
            (
                "Red bc:30:5b:f2:87:52 Learn 0 ge-",
                "the interface's name is cut off",
            ),
            (
                "bc:30:5b:f2:87:52 Learn 0 ge-0/0/9.0",
                "an entry starts with a VLAN and a MAC address",
            ),
        ] {
            let text = format!("Ethernet-switching table: 1 unicast entries\n{bad}\n\n");
            match FabricTable::parse(&text) {
                Err(FabricError::Damaged {
                    line: 2, why: said, ..
                }) => assert_eq!(said, why),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_row_cut_off_does_not_swallow_the_next_one() {
        let text = "Ethernet-switching table: 2 unicast entries\n  Red bc:30:5b:f2:87:52 Learn 0 ge-\n  Blue bc:30:5b:f2:87:50 Learn 0 ge-0/0/8.0\n";
        assert!(matches!(
            FabricTable::parse(text),
            Err(FabricError::Damaged { line: 2, .. })
        ));
    }
}
