//! Open vSwitch: `ovs-appctl fdb/show BRIDGE`, and port names from `ovs-ofctl show BRIDGE`.

use std::collections::BTreeMap;
use std::time::Duration;

use bmslice_model::{MacAddress, VlanId};

use super::{Age, FabricEntry, FabricError, FabricKind, FabricTable, FabricVlan, lines};

const HEADING: [&str; 4] = ["port", "VLAN", "MAC", "Age"];

fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// Whether its heading is there.
pub(super) fn is_table(text: &str) -> bool {
    text.lines().any(|line| words(line) == HEADING)
}

pub(super) fn parse(text: &str) -> Result<FabricTable, FabricError> {
    let names = port_names(text);
    let mut entries = Vec::new();
    let mut inside = false;
    for (number, line) in lines(text) {
        let words = words(line);
        if words == HEADING {
            inside = true;
        } else if line.starts_with("OFPT_") || is_prompt(line) {
            inside = false;
        } else if inside && !words.is_empty() {
            let entry = entry(&words, &names).map_err(|why| FabricError::Damaged {
                line: number,
                text: line.to_owned(),
                why,
            })?;
            entries.push(entry);
        }
    }
    Ok(FabricTable {
        kind: FabricKind::OpenVSwitch,
        entries,
    })
}

fn is_prompt(line: &str) -> bool {
    line.contains("ovs-appctl ") || line.contains("ovs-ofctl ")
}

fn entry(
    words: &[&str],
    names: &BTreeMap<&str, Option<&str>>,
) -> Result<FabricEntry, &'static str> {
    let [port, vlan, mac, age] = words else {
        return Err("an entry has a port, a VLAN, a MAC address and an age");
    };
    let vlan: u64 = vlan.parse().map_err(|_| "the VLAN is not a number")?;
    Ok(FabricEntry {
        mac: mac
            .parse::<MacAddress>()
            .map_err(|_| "the MAC address is not whole")?,
        vlan: match vlan {
            0 => FabricVlan::Untagged,
            number => FabricVlan::Number(
                VlanId::new(number).map_err(|_| "there is no VLAN of this number")?,
            ),
        },
        port: (*port).to_owned(),
        port_name: names.get(port).copied().flatten().map(ToOwned::to_owned),
        age: match *age {
            "static" => Age::Static,
            seconds => Age::Idle(Duration::from_secs(
                seconds
                    .parse()
                    .map_err(|_| "the age is not a number of seconds")?,
            )),
        },
    })
}

/// ` 1(n0p0): addr:…` by number. A number with two names (two bridges in one text) has none.
fn port_names(text: &str) -> BTreeMap<&str, Option<&str>> {
    let mut names: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for line in text.lines() {
        let Some((port, _)) = line.split_once("): addr:") else {
            continue;
        };
        if let Some((number, name)) = port.split_once('(') {
            names
                .entry(number.trim())
                .and_modify(|known| *known = known.filter(|known| *known == name))
                .or_insert(Some(name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const FDB: &str = "\
 port  VLAN  MAC                Age
    1   101  bc:30:5b:f2:87:50    0
    2   102  52:54:00:6d:90:02   17
LOCAL     0  fe:00:00:00:00:01  static
";
    const SHOW: &str = "\
OFPT_FEATURES_REPLY (xid=0x2): dpid:0000a6b5f8c3a14d
n_tables:254, n_buffers:0
capabilities: FLOW_STATS TABLE_STATS PORT_STATS QUEUE_STATS ARP_MATCH_IP
actions: output enqueue set_vlan_vid set_vlan_pcp strip_vlan mod_dl_src mod_dl_dst
 1(n0p0): addr:9e:0a:6a:24:f5:d6
     config:     0
     state:      LINK_DOWN
     current:    10MB-FD COPPER
     speed: 10 Mbps now, 0 Mbps max
 2(n1p0): addr:a2:6f:0f:5e:0b:a2
     config:     0
     state:      0
 LOCAL(fabric): addr:a6:b5:f8:c3:a1:4d
     config:     PORT_DOWN
     state:      LINK_DOWN
OFPT_GET_CONFIG_REPLY (xid=0x4): frags=normal miss_send_len=0
";

    #[test]
    fn reads_numbers_or_names_of_ports() {
        let table = FabricTable::parse(FDB).unwrap();
        assert_eq!(table.kind, FabricKind::OpenVSwitch);
        let first = &table.entries[0];
        assert_eq!(first.mac.to_string(), "bc:30:5b:f2:87:50");
        assert_eq!(first.vlan, FabricVlan::Number(VlanId::new(101).unwrap()));
        assert_eq!((first.port(), first.age), ("1", Age::Idle(Duration::ZERO)));
        assert_eq!(table.entries[1].age, Age::Idle(Duration::from_secs(17)));
        assert_eq!(table.entries[2].age, Age::Static);
        assert_eq!(table.entries[2].vlan, FabricVlan::Untagged);

        for both in [format!("{SHOW}{FDB}"), format!("{FDB}{SHOW}")] {
            let table = FabricTable::parse(&both).unwrap();
            let ports: Vec<&str> = table.entries.iter().map(FabricEntry::port).collect();
            assert_eq!(ports, ["n0p0", "n1p0", "fabric"]);
        }
    }

    #[test]
    fn a_captured_table_of_the_emulated_servers_switch() {
        let text = include_str!("../../tests/fixtures/lab/fabric.txt");
        let table = FabricTable::parse(text).unwrap();
        let rows: Vec<String> = table
            .entries
            .iter()
            .map(|e| format!("{} {} {}", e.mac, e.port(), e.vlan))
            .collect();
        assert_eq!(
            rows,
            [
                "52:54:00:1a:01:01 n1p1 VLAN 102",
                "52:54:00:1a:00:00 n0p0 VLAN 101"
            ]
        );
        assert_eq!(table.entries[0].age, Age::Idle(Duration::from_secs(24)));
    }

    #[test]
    fn a_number_with_two_names_has_none() {
        let other = SHOW.replace("(n0p0)", "(other)");
        let table = FabricTable::parse(&format!("{SHOW}{other}{FDB}")).unwrap();
        assert_eq!(table.entries[0].port_name, None);
        assert_eq!(table.entries[1].port_name.as_deref(), Some("n1p0"));
    }

    #[test]
    fn a_heading_alone_is_an_empty_table() {
        let table = FabricTable::parse(" port  VLAN  MAC                Age\n").unwrap();
        assert!(table.entries.is_empty());
    }

    #[test]
    fn a_damaged_entry_is_an_error_with_its_line() {
        for bad in [
            "    1   101  bc:30:5b",
            "    1   101  bc:30:5b:f2:87:50",
            "    1   5000  bc:30:5b:f2:87:50 0",
            "    1   x  bc:30:5b:f2:87:50 0",
            "    1   101  bc:30:5b:f2:87:50 soon",
        ] {
            let error = FabricTable::parse(&format!("{FDB}{bad}\n")).unwrap_err();
            assert!(
                matches!(&error, FabricError::Damaged { line: 5, text, .. } if text == bad),
                "{error}"
            );
        }
    }
}
