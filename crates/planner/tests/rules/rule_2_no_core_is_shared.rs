//! Two slices never share a core; with `sharing: tenant`, see `sharing.rs`.

use super::*;

#[test]
fn slices_of_one_tenant_share_no_core_either() {
    let one = |name: &str| {
        let mut s = slice(name, 1);
        s.tenant = "red".parse().unwrap();
        s.emulator_cores = 0;
        s
    };
    let plan = planned(&spec(vec![one("a"), one("b")]), &lab());
    for s in plan.slices() {
        assert_eq!(s.owned().len(), 2, "the sibling stays idle");
        assert_eq!(s.idle.len(), 1);
    }
    let [a, b] = plan.slices() else {
        panic!("two slices")
    };
    assert!(a.owned().is_disjoint(&b.owned()));
}
