//! A NIC that the host's network goes through, and that the spec takes from the host by name.

use bmslice_apply::{Outcome, apply};
use bmslice_host::Machine;
use bmslice_inventory::LiveInventory;
use bmslice_plan::NicPlan;

use crate::support::*;

/// The lab's server, whose Red gets the NIC of the default route.
fn taken() -> Server {
    let fake = machine();
    let spec = spec().replacen(
        "passthrough: { numa: same } ",
        "passthrough: { name: enp0s2, takeFromHost: true } ",
        1,
    );
    let plan = plan(&fake, &spec);
    let NicPlan::Passthrough {
        device,
        from_host: true,
        ..
    } = &plan.slices()[0].nics[0]
    else {
        panic!("{:?}", plan.slices()[0].nics);
    };
    assert_eq!(device.interface.as_deref(), Some("enp0s2"));
    Server { fake, plan }
}

fn driver(server: &Server) -> String {
    let NicPlan::Passthrough { device, .. } = &server.plan.slices()[0].nics[0] else {
        panic!("Red's card is a whole one");
    };
    let link = format!("/sys/bus/pci/devices/{}/driver", device.address);
    server.fake.root().link_name(link).unwrap()
}

#[test]
fn over_the_network_nobody_takes_the_hosts_own() {
    let server = taken();
    let before = server.fake.state();
    let remote = LiveInventory::read(&server.fake, Some("10.0.2.2")).unwrap();
    let options = server.options();
    let reasons = refusal(apply(
        &server.fake,
        &remote,
        &server.plan,
        &options,
        &mut |_| {},
    ));
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    for word in ["enp0s2", "from 10.0.2.2", "default route", "`red-worker1`"] {
        assert!(reasons[0].contains(word), "`{word}` in `{}`", reasons[0]);
    }
    assert_eq!(differences(&before, &server.fake.state()), [""; 0]);
}

#[test]
fn at_the_console_the_guest_gets_it_and_release_gives_it_back() {
    let server = taken();
    let before = state(&server.fake);
    assert_eq!(driver(&server), "virtio-pci");
    // A boot on trial does not wait for what was taken on purpose.
    server.slice();
    assert_eq!(driver(&server), "vfio-pci");
    assert!(server.is_running("red-worker1"));
    server.assert_kept_for_good();
    server.reboot().unwrap().unwrap();
    assert_eq!(driver(&server), "vfio-pci");
    // By now nothing is taken from anybody: over another NIC it may be applied from afar.
    let remote = LiveInventory::read(&server.fake, Some("10.0.2.2")).unwrap();
    let options = server.options();
    let again = apply(&server.fake, &remote, &server.plan, &options, &mut |_| {});
    assert_eq!(again.unwrap(), Outcome::Nothing);
    server.release().unwrap();
    server.reboot();
    assert_eq!(driver(&server), "virtio-pci");
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}
