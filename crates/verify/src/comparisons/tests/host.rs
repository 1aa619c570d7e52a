//! The host.

use super::*;

#[test]
fn isolation_that_is_silently_absent_differs() {
    let found = one(|facts| facts.inventory.boot.isolated = cpus(""));
    assert_eq!(
        found,
        (
            "isolated-cpus",
            differs("the CPUs isolated at boot", "2-11,14-23", "none")
        )
    );
}

#[test]
fn isolated_partitions_count_when_they_are_what_was_planned() {
    let mut parts = parts();
    parts.host.isolation = Isolation::Dynamic;
    let plan = Plan::new(parts).unwrap();
    let mut facts = observed();
    facts.inventory.boot.isolated = cpus("");
    facts.quiet.partition = Some("isolated".into());
    facts.quiet.partition_cpus = cpus("2-11,14-23");
    facts.quiet.confined.clear();
    let (check, _) = only(&open(&plan, &facts, FDB));
    assert_eq!(check, "isolated-cpus");
    facts.partitioned = cpus("2-11,14-23");
    assert_eq!(open(&plan, &facts, FDB), []);
}

#[test]
fn a_kernel_argument_missing_changed_or_overridden_differs() {
    let with = |change: fn(String) -> String| {
        one(move |facts| {
            let line = &mut facts.inventory.boot.cmdline;
            *line = change(line.to_string()).parse().unwrap();
        })
    };
    let arg = |key: &str, want: &str, got: &str| {
        let what = format!("the kernel argument `{key}`");
        ("kernel-arguments", differs(&what, want, got))
    };
    assert_eq!(
        with(|line| line.replace("iommu=pt ", "")),
        arg("iommu", "iommu=pt", "not there")
    );
    assert_eq!(
        with(|line| line.replace("irqaffinity=0-1,12-13", "irqaffinity=0-23")),
        arg("irqaffinity", "irqaffinity=0-1,12-13", "irqaffinity=0-23")
    );
    assert_eq!(
        with(|line| line + " isolcpus=3"),
        arg(
            "isolcpus",
            "isolcpus=domain,managed_irq,2-11,14-23",
            "isolcpus=domain,managed_irq,2-11,14-23, overridden by a later isolcpus=3"
        )
    );
    assert!(
        damaged(|facts| {
            let line = &mut facts.inventory.boot.cmdline;
            *line = format!("{line} hugepagesz=2M hugepages=512")
                .parse()
                .unwrap();
        })
        .is_empty(),
        "another page size overrides nothing"
    );
}

#[test]
fn too_few_huge_pages_or_virtual_functions_differ() {
    let found = one(|facts| facts.inventory.nodes[1].huge_pages[1].total = 7);
    let what = "huge pages of 1GiB on node 1";
    assert_eq!(found, ("huge-pages", differs(what, "at least 8", "7")));
    let found = one(|facts| {
        let pf = function(facts, "0000:81:00.0");
        pf.sriov.as_mut().unwrap().current = 0;
    });
    let what = "virtual functions of 0000:81:00.0";
    assert_eq!(
        found,
        ("virtual-functions", differs(what, "at least 1", "0"))
    );
}

#[test]
fn a_stranger_on_a_slices_cpu_differs_unless_nobody_promised_quiet() {
    let stranger = || Stranger {
        pid: 99,
        task: task(99, "stress", &cpus("7")),
    };
    let found = one(|facts| facts.strangers = Ok(vec![stranger()]));
    assert_eq!(
        found,
        (
            "quiet-cpus",
            differs(
                "process 99 (`stress`, thread 99)",
                "not on the CPUs of slice `Blue_k8s_cluster_worker1`",
                "last ran on CPU 7, allowed 7"
            )
        )
    );
    let mut parts = parts();
    parts.host.isolation = Isolation::None;
    let mut facts = observed();
    facts.strangers = Ok(vec![stranger()]);
    assert_eq!(open(&Plan::new(parts).unwrap(), &facts, FDB), []);
}
