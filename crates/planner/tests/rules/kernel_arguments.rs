//! The arguments that the next boot must have.

use super::*;

#[test]
fn the_specs_own_arguments_come_after_the_plans_and_fight_with_no_others() {
    let host = HostSpec {
        kernel_args: vec!["processor.max_cstate=1".parse().unwrap()],
        fall_back_minutes: 15,
        ..HostSpec::default()
    };
    let spec = Slicing::new(host, vec![slice("s", 2)]).unwrap();
    let mut server = lab();
    let plan = planned(&spec, &server);
    let last = plan.host().kernel_args.last().map(ToString::to_string);
    assert_eq!(last.as_deref(), Some("processor.max_cstate=1"));
    assert_eq!(plan.host().fall_back_minutes, 15);
    let warned = |plan: &bmslice_plan::Plan| plan.to_json().contains("take one of them out");
    assert!(!warned(&plan));
    let after = applied(&server, &plan);
    let again = plan_following(&spec, &after, Some(&plan)).unwrap();
    assert!(!warned(&again), "what runs is what it asked for");
    server.boot.cmdline = "processor.max_cstate=9".parse().unwrap();
    assert!(warned(&planned(&spec, &server)));
}

#[test]
fn dynamic_isolation_asks_for_no_reboot_where_the_iommu_is_on() {
    let host = HostSpec {
        isolation: Isolation::Dynamic,
        ..HostSpec::default()
    };
    let mut s = slice("s", 2);
    s.nics = vec![whole(by_name("n0p0"))];
    let spec = Slicing::new(host, vec![s]).unwrap();
    let mut server = lab();
    let plan = planned(&spec, &server);
    assert!(plan.host().kernel_args.is_empty());
    assert!(!plan.host().huge_pages[0].at_boot);
    server.boot.iommu = false;
    let off = planned(&spec, &server);
    let args: Vec<String> = off
        .host()
        .kernel_args
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(args, ["intel_iommu=on", "iommu=pt"]);
    let after = applied(&server, &off);
    let again = plan_following(&spec, &after, Some(&off)).unwrap();
    assert_eq!(off.to_json(), again.to_json(), "the IOMMU's arguments stay");
}

#[test]
fn arguments_of_the_user_that_differ_are_told() {
    let mut server = lab();
    server.boot.cmdline = "root=/dev/sda1 isolcpus=2-3 hugepagesz=1G hugepages=1 quiet"
        .parse()
        .unwrap();
    let spec = red_blue();
    let plan = planned(&spec, &server);
    let told: Vec<_> = plan
        .parts()
        .report
        .findings
        .iter()
        .filter(|f| f.code == "boot-argument")
        .collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told.iter().all(|f| f.level == Level::Warning));
    assert!(told[0].text.contains("`isolcpus=2-3`"));
    // Ours, once they are there, are no conflict.
    let server = lab();
    let first = planned(&spec, &server);
    let mut slices = spec.slices.clone();
    slices.pop();
    let less = servers::spec(slices);
    let after = applied(&server, &first);
    let second = plan_following(&less, &after, Some(&first)).unwrap();
    assert!(!codes(&second, None).contains(&"boot-argument".into()));
}
