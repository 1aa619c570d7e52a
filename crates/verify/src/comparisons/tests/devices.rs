//! PCI functions.

use super::*;

#[test]
fn a_function_with_another_driver_or_gone_differs() {
    let findings = damaged(|facts| {
        function(facts, "0000:01:00.0").driver = Some("ixgbe".into());
    });
    let seen: Vec<_> = findings.iter().map(|f| (f.check, &f.verdict)).collect();
    let what = "the driver of 0000:01:00.0, of IOMMU group 25";
    assert_eq!(
        seen,
        [
            (
                "devices",
                &differs("the driver of 0000:01:00.0", "vfio-pci", "ixgbe")
            ),
            ("iommu-groups", &differs(what, "vfio-pci or none", "ixgbe")),
        ]
    );
    let findings = damaged(|facts| {
        let gone = address("0000:01:00.0");
        facts.inventory.pci.retain(|f| f.address != gone);
    });
    assert_eq!(
        findings[0].verdict,
        differs("the PCI function 0000:01:00.0", "there", "not there")
    );
    assert!(matches!(findings[1].verdict, Verdict::Unknown { .. }));
}

#[test]
fn another_card_at_the_address_differs() {
    let found = one(|facts| {
        function(facts, "0000:01:00.0").id = "8086:1521".parse().unwrap();
    });
    let what = "the device at 0000:01:00.0";
    assert_eq!(found, ("devices", differs(what, "8086:1528", "8086:1521")));
    let found = one(|facts| {
        function(facts, "0000:81:10.0").physfn = Some(address("0000:01:00.0"));
    });
    let what = "the device at 0000:81:10.0";
    assert_eq!(
        found,
        (
            "devices",
            differs(what, "VF 0 of 0000:81:00.0", "a VF of 0000:01:00.0")
        )
    );
}

#[test]
fn a_member_of_the_group_with_a_host_driver_differs_and_a_bridge_does_not() {
    let found = one(|facts| {
        let pf = function(facts, "0000:81:00.0");
        pf.iommu_group = Some(IommuGroupId(25));
    });
    assert_eq!(
        found,
        (
            "iommu-groups",
            differs(
                "the driver of 0000:81:00.0, of IOMMU group 25",
                "vfio-pci or none",
                "igb"
            )
        )
    );
}

#[test]
fn a_group_that_qemu_does_not_hold_open_differs() {
    let found = one(|facts| process(facts, 0).vfio = Ok(vec!["/dev/vfio/7".into()]));
    assert_eq!(
        found,
        (
            "iommu-groups",
            differs(
                "the IOMMU group of 0000:01:00.0",
                "process 4700 holds /dev/vfio/25 open",
                "it holds /dev/vfio/7 open"
            )
        )
    );
    assert!(
        damaged(|facts| {
            process(facts, 0).vfio =
                Ok(vec!["/dev/iommu".into(), "/dev/vfio/devices/vfio0".into()]);
        })
        .is_empty(),
        "iommufd opens the device"
    );
}

#[test]
fn the_running_definition_has_the_planned_functions_and_no_others() {
    let findings = damaged(|facts| {
        let live = facts.guests[0].live.as_mut().unwrap();
        live.hostdevs[0].address = address("0000:01:00.1");
    });
    let verdicts: Vec<_> = findings.iter().map(|f| f.verdict.clone()).collect();
    let given = "given to the guest";
    let what = |at| format!("the function 0000:01:00.{at} in the running definition");
    assert_eq!(
        verdicts,
        [
            differs(&what(0), given, "not there"),
            differs(&what(1), "not there", given)
        ]
    );
}

#[test]
fn a_vf_with_another_mac_vlan_or_trust_differs() {
    let vf = |change: fn(&mut crate::VfState)| {
        one(move |facts| {
            let vfs = &mut facts.guests[1].vfs;
            change(
                vfs.get_mut(&address("0000:81:10.0"))
                    .unwrap()
                    .as_mut()
                    .unwrap(),
            );
        })
    };
    let of = "VF 0 of 0000:81:00.0 (0000:81:10.0)";
    let says = |what: &str, want, got| {
        (
            "vf-settings",
            differs(&format!("the {what} {of}"), want, got),
        )
    };
    assert_eq!(
        vf(|state| state.vlan = Some(vlan(101))),
        says("VLAN of", "VLAN 102", "VLAN 101")
    );
    assert_eq!(
        vf(|state| state.vlan = None),
        says("VLAN of", "VLAN 102", "no VLAN")
    );
    assert_eq!(
        vf(|state| state.mac = Some("02:00:00:00:00:09".parse().unwrap())),
        says("MAC of", "52:54:00:6d:90:02", "02:00:00:00:00:09")
    );
    assert_eq!(
        vf(|state| state.trust = Some(true)),
        says("trust in", "not trusted", "trusted")
    );
    assert_eq!(
        vf(|state| state.spoof_check = Some(false)),
        says("sender's MAC of", "checked", "not checked")
    );
    assert_eq!(
        vf(|state| state.link = Some(bmslice_spec::VfLink::Down)),
        says("link state of", "auto", "disable")
    );
    assert!(
        damaged(|facts| {
            let state = facts.guests[1]
                .vfs
                .get_mut(&address("0000:81:10.0"))
                .unwrap();
            state.as_mut().unwrap().trust = None;
        })
        .is_empty(),
        "a driver without trust trusts nobody"
    );
}

#[test]
fn a_definition_with_another_vlan_differs() {
    let found = one(|facts| facts.guests[1].live.as_mut().unwrap().hostdevs[0].vlan = None);
    assert_eq!(
        found,
        (
            "hostdevs",
            differs(
                "the VLAN of 0000:81:10.0 in the running definition",
                "VLAN 102",
                "no VLAN"
            )
        )
    );
}
