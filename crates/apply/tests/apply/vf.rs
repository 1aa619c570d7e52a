//! What virtual functions are held to, by the drivers that do it.

use std::time::Duration;

use bmslice_apply::{ApplyError, Outcome, Phase, resume};
use bmslice_host::fake::{FakeMachine, FakeServer};

use crate::support::*;

/// The lab's server and plan, with Blue's VF as asked.
fn held_to(fake: FakeMachine, asked: &str) -> Server {
    let changed = spec().replace("vlan: 102, mac: auto, trust: false", asked);
    assert!(changed.contains(asked));
    Server {
        plan: plan(&fake, &changed),
        fake,
    }
}

/// The interface that the VF is of.
fn pf(server: &Server) -> String {
    server.plan.host().split[0]
        .device
        .interface
        .clone()
        .unwrap()
}

#[test]
fn a_vf_is_held_to_what_the_spec_says_and_put_back() {
    let asked = "vlan: 102, trust: true, spoofCheck: false, maxRate: 500M";
    let server = held_to(machine(), asked);
    let before = state(&server.fake);
    server.slice();
    let pf = pf(&server);
    let vf = server.fake.vf(&pf, 0).unwrap();
    assert_eq!((vf.trust, vf.spoof_check, vf.max_rate), (true, false, 500));
    assert_eq!(server.apply().unwrap(), Outcome::Nothing);
    server
        .fake
        .type_in(
            "ip",
            &["link", "set", "dev", &pf, "vf", "0", "spoofchk", "on"],
        )
        .unwrap();
    server.apply().unwrap();
    assert!(!server.fake.vf(&pf, 0).unwrap().spoof_check);
    server.release().unwrap();
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

/// What the second unit says after a boot.
fn go_on(server: &Server) -> Result<Outcome, ApplyError> {
    resume(&server.fake, Phase::All, BINARY, &mut |_| {})
}

/// A server's NICs of another driver; its VFs are as the lab's.
fn of_driver(driver: &str) -> FakeMachine {
    let mut server = FakeServer::lab();
    for nic in server.nics.iter_mut().filter(|nic| nic.sriov.is_some()) {
        nic.driver = driver.into();
    }
    machine_of(server)
}

/// igb has no `ndo_set_vf_link_state`, ixgbe has it. No kernel of the lab could show it: its NICs are
/// igb, and Debian builds no netdevsim. That VFs of real cards follow it was not seen.
#[test]
fn a_link_state_is_set_where_the_driver_takes_one_and_refused_with_its_words_elsewhere() {
    let asked = "vlan: 102, link: up";
    let server = held_to(of_driver("ixgbe"), asked);
    server.slice();
    let name = pf(&server);
    assert_eq!(server.fake.vf(&name, 0).unwrap().link_state, "enable");

    let server = held_to(machine(), asked);
    let before = state(&server.fake);
    server.apply().unwrap();
    let outcome = server.reboot();
    let said = format!("{outcome:?}") + &format!("{:?}", go_on(&server));
    assert!(said.contains("Operation not supported"), "{said}");
    server.release().unwrap();
    server.fake.reboot();
    assert_eq!(differences(&before, &state(&server.fake)), [""; 0]);
}

#[test]
fn a_rate_is_set_once_the_link_is_there() {
    let server = held_to(machine(), "vlan: 102, maxRate: 500M");
    server.fake.link_takes(Duration::from_secs(4));
    server.slice();
    let name = pf(&server);
    assert_eq!(server.fake.vf(&name, 0).unwrap().max_rate, 500);
}

#[test]
fn without_a_link_a_rate_is_refused_and_why_is_said() {
    let server = held_to(machine(), "vlan: 102, maxRate: 500M");
    server.fake.link_takes(Duration::from_secs(3600));
    server.apply().unwrap();
    let outcome = server.reboot();
    let said = format!("{outcome:?}") + &format!("{:?}", go_on(&server));
    assert!(said.contains("which has no link"), "{said}");
    // What is too fast for the link is another matter.
    let server = held_to(machine(), "vlan: 102, maxRate: 2000M");
    server.apply().unwrap();
    let outcome = server.reboot();
    let said = format!("{outcome:?}") + &format!("{:?}", go_on(&server));
    assert!(
        said.contains("Invalid argument") && !said.contains("has no link"),
        "{said}"
    );
}
