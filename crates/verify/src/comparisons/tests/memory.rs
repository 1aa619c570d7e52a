//! Memory.

use super::*;

#[test]
fn memory_on_the_wrong_node_differs() {
    let found = one(|facts| {
        let ram = &mut process(facts, 0).memory.as_mut().unwrap()[0];
        ram.touched = [
            (NumaNodeId(0), ByteSize::from_gib(6)),
            (NumaNodeId(1), ByteSize::from_gib(2)),
        ]
        .into();
    });
    assert_eq!(
        found,
        (
            "memory",
            differs(
                "the guest's memory",
                "8GiB on node 0 in huge pages of 1GiB",
                "6GiB on node 0, 2GiB on node 1 in huge pages of 1GiB, 8GiB mapped"
            )
        )
    );
}

#[test]
fn memory_of_other_pages_differs() {
    let found = one(|facts| {
        process(facts, 0).memory.as_mut().unwrap()[0].page = ByteSize::from_mib(2);
    });
    assert_eq!(
        found,
        (
            "memory",
            differs(
                "the guest's memory",
                "8GiB on node 0 in huge pages of 1GiB",
                "no memory in huge pages of 1GiB, some in huge pages of 2MiB"
            )
        )
    );
}

#[test]
fn memory_not_touched_yet_is_pending_and_a_smaller_guest_differs() {
    let half = |facts: &mut Observed| {
        let ram = &mut process(facts, 0).memory.as_mut().unwrap()[0];
        ram.touched = [(NumaNodeId(0), ByteSize::from_gib(4))].into();
    };
    let (check, verdict) = one(half);
    assert_eq!(check, "memory");
    assert_eq!(
        verdict,
        Verdict::pending(
            "QEMU has touched all of the guest's memory (4GiB on node 0 of 8GiB on node 0)"
        )
    );
    let (_, verdict) = one(|facts| {
        half(facts);
        process(facts, 0).memory.as_mut().unwrap()[0].length = Some(ByteSize::from_gib(4));
    });
    assert!(matches!(verdict, Verdict::Differs { .. }), "{verdict:?}");
}

#[test]
fn plain_memory_is_proved_by_its_policy_where_it_is_not_touched_yet() {
    let plain = |policy: Policy| {
        let mut parts = parts();
        parts.slices[0].huge_pages = None;
        parts.slices[0].memory = GIB;
        parts.slices[0].cells[0].memory = GIB;
        let mut facts = observed();
        let process = process(&mut facts, 0);
        process.backends[0].size = GIB;
        let ram = &mut process.memory.as_mut().unwrap()[0];
        ram.huge = false;
        ram.page = ByteSize::from_kib(4);
        ram.length = Some(GIB);
        ram.policy = policy;
        ram.file = None;
        ram.touched = [(NumaNodeId(0), ByteSize::from_mib(300))].into();
        open(&Plan::new(parts).unwrap(), &facts, FDB)
    };
    assert_eq!(plain(Policy::Bind([NumaNodeId(0)].into())), []);
    let (check, verdict) = only(&plain(Policy::Loose("default".into())));
    assert_eq!(check, "memory");
    assert!(matches!(verdict, Verdict::Pending { .. }), "{verdict:?}");
    let (_, verdict) = only(&plain(Policy::Bind([NumaNodeId(0), NumaNodeId(1)].into())));
    assert!(matches!(verdict, Verdict::Pending { .. }), "{verdict:?}");
}

#[test]
fn cells_that_were_swapped_differ_although_the_sums_agree() {
    let mut parts = parts();
    let slice = &mut parts.slices[0];
    let mut second = slice.cells[0].clone();
    slice.cells[0].memory = ByteSize::from_gib(4);
    slice.cells[0].vcpus = cpus("0-3");
    second.node = NumaNodeId(1);
    second.memory = ByteSize::from_gib(4);
    second.vcpus = cpus("4-7");
    slice.cells.push(second);
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    let process = process(&mut facts, 0);
    let four = ByteSize::from_gib(4);
    process.memory = Ok(vec![
        ram(NumaNodeId(0), four, GIB),
        ram(NumaNodeId(1), four, GIB),
    ]);
    let mut backend = process.backends[0].clone();
    backend.size = four;
    backend.cell = 1;
    process.backends[0].size = four;
    process.backends.push(backend);
    process.backends[0].bound = Some(vec![NumaNodeId(1)]);
    let findings = open(&plan, &facts, FDB);
    let verdicts: Vec<_> = findings.iter().map(|f| f.verdict.clone()).collect();
    assert_eq!(
        verdicts,
        [
            differs(
                "the memory of guest cell 0",
                "4GiB bound to node 0",
                "4GiB bound to node 1"
            ),
            differs(
                "the memory of guest cell 1",
                "4GiB bound to node 1",
                "4GiB bound to node 0"
            ),
        ]
    );
}
