//! `replicas`: one slice is written, and several are meant.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bmslice_spec::Slicing;

fn parse(slices: &str) -> Slicing {
    let text = format!("apiVersion: bmslice/v1\nkind: Slicing\nslices:\n{slices}");
    Slicing::parse("a.yaml", &text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

fn slice(name: &str, more: &str) -> String {
    format!(
        "  - {{ name: {name}, vcpus: 2, memory: {{ size: 1GiB }}, image: {{ base: 0.qcow2, size: 8GiB }}{more} }}\n"
    )
}

#[test]
fn replicas_are_named_by_number_and_mean_what_they_mean_written_out() {
    let once = parse(&slice("worker", ", replicas: 3"));
    let out: String = (1..=3)
        .map(|n| slice(&format!("worker-{n}"), ", tenant: worker"))
        .collect();
    let out = parse(&out);
    assert_eq!(once.digest, out.digest);
    let names: Vec<&str> = once.slices.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["worker-1", "worker-2", "worker-3"]);
    for slice in &once.slices {
        assert_eq!(slice.guest.hostname, slice.name.as_str());
        assert_eq!(slice.written().as_str(), "worker");
        assert_eq!(slice.tenant.as_str(), "worker", "one tenant together");
    }
    assert_eq!(out.slices[0].written().as_str(), "worker-1");
}

#[test]
fn one_replica_has_its_number_too_and_may_have_what_only_one_can() {
    let one = parse(&slice(
        "du",
        ", replicas: 1, hostname: du.example.org, nics: [{ passthrough: eno2 }]",
    ));
    assert_eq!(one.slices[0].name.as_str(), "du-1");
    assert_eq!(one.slices[0].guest.hostname, "du.example.org");
}

#[test]
fn replicas_keep_their_place_among_the_others() {
    let text = [slice("a", ""), slice("b", ", replicas: 2"), slice("c", "")].concat();
    let names: Vec<String> = parse(&text)
        .slices
        .iter()
        .map(|s| s.name.to_string())
        .collect();
    assert_eq!(names, ["a", "b-1", "b-2", "c"]);
}

#[test]
fn replicas_may_have_virtual_functions_of_one_named_nic() {
    let both = parse(&slice(
        "cu",
        ", replicas: 2, nics: [{ vf: { of: eno2, vlan: 7 } }]",
    ));
    assert_eq!(both.slices[0].nics, both.slices[1].nics);
}

#[test]
fn more_slices_than_a_fleet_has_are_refused_before_they_are_made() {
    let many: String = (0..12)
        .map(|n| slice(&format!("s{n}"), ", replicas: 10000"))
        .collect();
    let text = format!("apiVersion: bmslice/v1\nkind: Slicing\nslices:\n{many}");
    let errors = Slicing::parse("a.yaml", &text).unwrap_err();
    let said: Vec<&str> = errors.errors().iter().map(|e| e.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "these are 110000 slices in all",
            "these are 110001 slices in all"
        ]
    );
    assert_eq!(errors.errors()[0].line, 14);
}
