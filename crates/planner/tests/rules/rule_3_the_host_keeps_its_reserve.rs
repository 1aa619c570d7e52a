//! The host keeps its reserve.

use super::*;

#[test]
fn cpu_0_is_the_hosts_wherever_it_is_and_offline_cpus_are_nobodys() {
    let mut server = lab();
    server.cpus[2].online = false;
    server.cpus[3].online = false;
    let plan = planned(&spec(vec![slice("s", 6)]), &server);
    assert_eq!(plan.host().cpus.to_string(), "0-1,12-13");
    assert_eq!(plan.slice("s").unwrap().emulator.to_string(), "4-5");
    assert!(codes(&plan, None).contains(&"offline".into()));
}

#[test]
fn a_reserve_in_all_stays_on_the_node_of_cpu_0() {
    let host = HostSpec {
        reserve_cores: 2,
        reserve_per_numa: false,
        ..HostSpec::default()
    };
    let spec = Slicing::new(host, vec![slice("s", 10)]).unwrap();
    let plan = planned(&spec, &lab());
    assert_eq!(plan.host().cpus.to_string(), "0-3");
    assert_eq!(node_of(&plan, "s"), 1);
}
