//! How vCPUs use sibling threads.

use super::*;

#[test]
fn odd_packed_vcpus_leave_a_sibling_idle_and_say_so() {
    let plan = planned(&spec(vec![slice("odd", 5)]), &lab());
    let odd = plan.slice("odd").unwrap();
    assert_eq!(numbers(&odd.vcpus), [4, 5, 6, 7, 8]);
    assert_eq!(odd.idle.to_string(), "9");
    assert_eq!((odd.topology.cores, odd.topology.threads), (5, 1));
    let codes = codes(&plan, Some("odd"));
    assert!(codes.contains(&"idle-sibling".into()) && codes.contains(&"flat-topology".into()));
}

#[test]
fn isolated_vcpus_have_a_core_each() {
    let mut quiet = slice("quiet", 4);
    quiet.smt = Smt::Isolate;
    let plan = planned(&spec(vec![quiet]), &lab());
    let quiet = plan.slice("quiet").unwrap();
    assert_eq!(numbers(&quiet.vcpus), [4, 6, 8, 10]);
    assert_eq!(quiet.idle.to_string(), "5,7,9,11");
    assert_eq!(quiet.topology.threads, 1);
}

#[test]
fn siblings_last_numbers_first_threads_first() {
    let mut s = slice("s", 5);
    s.vcpu_order = VcpuOrder::SiblingsLast;
    let plan = planned(&spec(vec![s]), &lab());
    let s = plan.slice("s").unwrap();
    assert_eq!(numbers(&s.vcpus), [4, 6, 8, 5, 7]);
    assert_eq!(s.idle.to_string(), "9");
}

#[test]
fn without_smt_all_policies_are_alike() {
    let mut shape = Shape::lab();
    shape.threads = 1;
    let server = shape.server();
    let vcpus = |smt| {
        let mut s = slice("s", 3);
        s.smt = smt;
        let plan = planned(&spec(vec![s]), &server);
        let slice = plan.slice("s").unwrap();
        assert!(slice.idle.is_empty() && slice.topology.threads == 1);
        slice.vcpus.clone()
    };
    assert_eq!(vcpus(Smt::Pack), vcpus(Smt::Isolate));
    assert_eq!(vcpus(Smt::Pack), vcpus(Smt::Any));
}
