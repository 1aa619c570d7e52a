//! The switch's table.

use super::*;

const RED_AT: &str = "where the switch sees bc:30:5b:f2:87:52 (NIC 0)";

fn fabric(text: &str) -> Vec<Finding> {
    open(&plan(), &observed(), text)
}

#[test]
fn a_mac_in_the_wrong_vlan_or_on_the_wrong_port_differs() {
    let wrong = fabric(&FDB.replace("1   101", "1   102"));
    assert_eq!(
        only(&wrong),
        (
            "fabric",
            differs(RED_AT, "port n0p0, VLAN 101", "port n0p0, VLAN 102")
        )
    );
    let wrong = fabric(&FDB.replace("    1   101", "    2   101"));
    assert_eq!(
        only(&wrong),
        (
            "fabric",
            differs(RED_AT, "port n0p0, VLAN 101", "port n1p0, VLAN 101")
        )
    );
    let untagged = fabric(&FDB.replace("1   101", "1     0"));
    assert_eq!(
        only(&untagged).1,
        differs(RED_AT, "port n0p0, VLAN 101", "port n0p0, no VLAN")
    );
}

#[test]
fn a_mac_not_learned_yet_is_pending() {
    let missing = fabric(&FDB.replace("    1   101  bc:30:5b:f2:87:52    3\n", ""));
    assert_eq!(
        only(&missing),
        (
            "fabric",
            Verdict::pending("the guest sends a frame from bc:30:5b:f2:87:52 (NIC 0)")
        )
    );
}

#[test]
fn an_entry_older_than_the_guest_is_not_the_guests() {
    let mut facts = observed();
    process(&mut facts, 0).age = Some(Duration::from_secs(2));
    let (check, verdict) = only(&open(&plan(), &facts, FDB));
    assert_eq!(check, "fabric");
    assert!(matches!(verdict, Verdict::Pending { .. }), "{verdict:?}");
}

#[test]
fn one_mac_on_two_ports_differs_and_in_a_second_vlan_too() {
    let two = fabric(&format!("{FDB}    2   101  bc:30:5b:f2:87:52    0\n"));
    assert_eq!(
        only(&two).1,
        differs(
            RED_AT,
            "one port",
            "port n0p0, VLAN 101; port n1p0, VLAN 101: a loop, or two cards with one MAC"
        )
    );
    let leak = fabric(&format!("{FDB}    1   102  bc:30:5b:f2:87:52    0\n"));
    assert_eq!(
        only(&leak).1,
        differs(
            RED_AT,
            "port n0p0, VLAN 101",
            "port n0p0, VLAN 101; port n0p0, VLAN 102"
        )
    );
}

#[test]
fn a_static_entry_and_an_unnamed_port_prove_nothing() {
    let fixed = fabric(&FDB.replace("bc:30:5b:f2:87:52    3", "bc:30:5b:f2:87:52 static"));
    assert!(matches!(only(&fixed).1, Verdict::Unknown { .. }));
    let (_, numbers) = FDB.split_once(" port").unwrap();
    let unnamed = fabric(&format!(" port{numbers}"));
    assert_eq!(unnamed.len(), 2);
    assert!(
        unnamed
            .iter()
            .all(|f| matches!(f.verdict, Verdict::Unknown { .. }))
    );
}

#[test]
fn without_a_table_only_what_was_asked_for_is_unknown() {
    let report = crate::compare(&plan(), &observed(), None);
    let open: Vec<_> = report.open().map(|f| f.check).collect();
    assert_eq!(open, ["fabric", "fabric"]);
    let mut parts = parts();
    for slice in &mut parts.slices {
        forget_fabric(&mut slice.nics[0]);
    }
    let plan = Plan::new(parts).unwrap();
    let report = crate::compare(&plan, &observed(), None);
    assert!(report.holds());
    assert!(report.findings.iter().all(|f| f.check != "fabric"));
}

fn forget_fabric(nic: &mut NicPlan) {
    match nic {
        NicPlan::Passthrough { nic, .. }
        | NicPlan::Vf { nic, .. }
        | NicPlan::Virtio { nic, .. } => {
            nic.fabric = None;
        }
    }
}

#[test]
fn a_table_for_a_card_nobody_asked_about_informs_and_still_finds_a_wrong_vlan() {
    let mut parts = parts();
    for slice in &mut parts.slices {
        forget_fabric(&mut slice.nics[0]);
    }
    let plan = Plan::new(parts).unwrap();
    assert_eq!(open(&plan, &observed(), FDB), []);
    // Nothing is asked of Red; the VLAN that Blue's VF adds is what the switch must see.
    let wrong = FDB
        .replace("1   101", "1   103")
        .replace("2   102", "2   103");
    let findings = open(&plan, &observed(), &wrong);
    assert_eq!(findings[0].slice.as_ref().unwrap().as_str(), BLUE);
    assert_eq!(
        only(&findings).1,
        differs(
            "where the switch sees 52:54:00:6d:90:02 (NIC 0)",
            "any port, VLAN 102",
            "port n1p0, VLAN 103"
        )
    );
    assert_eq!(
        open(&plan, &observed(), " port  VLAN  MAC                Age\n"),
        []
    );
}

#[test]
fn the_seeds_tables_prove_ports_and_vlan_names() {
    let junos = "\
fabric-switch> show ethernet-switching table | match
bc:30:5b:f2:87:52
  Red_Tenant_Network    bc:30:5b:f2:87:52 Learn          0 ge-0/0/9.0
  Blue_Tenant_Network   52:54:00:6d:90:02 Learn       4:17 ge-
0/0/8.0
";
    let mut parts = parts();
    let mut expect = |slice: usize, port: &str, name: &str| {
        let (NicPlan::Passthrough { nic, .. } | NicPlan::Vf { nic, .. }) =
            &mut parts.slices[slice].nics[0]
        else {
            unreachable!()
        };
        let fabric = nic.fabric.as_mut().unwrap();
        fabric.port = Some(port.into());
        fabric.vlan = None;
        fabric.vlan_name = Some(name.into());
    };
    expect(0, "ge-0/0/9", "Red_Tenant_Network");
    expect(1, "ge-0/0/8.0", "Blue_Tenant_Network");
    let plan = Plan::new(parts).unwrap();
    assert_eq!(open(&plan, &observed(), junos), []);
    let swapped = junos.replace("ge-0/0/9.0", "ge-0/0/7.0");
    assert_eq!(
        only(&open(&plan, &observed(), &swapped)).1,
        differs(
            RED_AT,
            "port ge-0/0/9, VLAN Red_Tenant_Network",
            "port ge-0/0/7.0, VLAN Red_Tenant_Network"
        )
    );
}

#[test]
fn a_vlan_told_by_name_and_wanted_by_number_is_unknown() {
    let junos = "  Red_Tenant_Network    bc:30:5b:f2:87:52 Learn          0 n0p0.0\n  102 52:54:00:6d:90:02 Learn 0 n1p0.0\n";
    let findings = fabric(junos);
    assert!(matches!(only(&findings).1, Verdict::Unknown { .. }));
}
