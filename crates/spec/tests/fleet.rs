//! The section `fleet`: what it means, and what it leaves as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bmslice_spec::{Place, Slicing};

fn parse(fleet: &str, more: &str) -> Slicing {
    let text = format!(
        "apiVersion: bmslice/v1\nkind: Slicing\n{fleet}\nslices:\n  - {{ name: a, vcpus: 2, memory: {{ size: 1GiB }}, image: {{ base: 0.qcow2, size: 8GiB }}{more} }}\n"
    );
    Slicing::parse("a.yaml", &text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

const LABELS: &str = "fleet: { servers: [{ name: edge1, labels: { zone: a, rack: 7 } }, { name: edge2, labels: { zone: a } }, { name: edge3 }] }";

#[test]
fn a_fleet_of_which_nothing_is_said_keeps_the_digest() {
    let without = parse("", "");
    for nothing in [
        "fleet: {}",
        "fleet: { place: pack }",
        "fleet: { headroom: { cores: 0 }, servers: [] }",
    ] {
        assert_eq!(parse(nothing, "").digest, without.digest, "{nothing}");
    }
    for something in [
        "fleet: { place: spread }",
        "fleet: { headroom: { cores: 1 } }",
        LABELS,
    ] {
        assert_ne!(parse(something, "").digest, without.digest, "{something}");
    }
    assert_ne!(
        parse(LABELS, ", selector: { zone: a }").digest,
        parse(LABELS, "").digest
    );
}

#[test]
fn a_selector_allows_the_servers_that_have_all_of_its_labels() {
    let servers = |selector: &str| -> Vec<String> {
        let spec = parse(LABELS, &format!(", selector: {selector}"));
        let selector = spec.slices[0].selector.clone().unwrap();
        selector.servers().map(str::to_owned).collect()
    };
    assert_eq!(servers("{ zone: a }"), ["edge1", "edge2"]);
    assert_eq!(servers("{ zone: a, rack: \"7\" }"), ["edge1"]);
    let spec = parse(LABELS, ", selector: { zone: a, rack: 7 }");
    let selector = spec.slices[0].selector.as_ref().unwrap();
    assert_eq!(selector.to_string(), "rack: 7, zone: a");
    assert!(selector.allows("edge1") && !selector.allows("edge3") && !selector.allows("edge9"));
}

#[test]
fn the_share_of_one_server_is_the_same_when_others_get_labels() {
    let share = |fleet: &str| {
        let spec = parse(fleet, ", selector: { zone: a }");
        Slicing::new(spec.host.clone(), spec.slices.clone()).unwrap()
    };
    let more = LABELS.replace("{ name: edge3 }", "{ name: edge3, labels: { zone: a } }");
    assert_eq!(share(LABELS).digest, share(&more).digest);
}

#[test]
fn a_program_cannot_make_a_fleet_that_a_file_may_not_name() {
    let spec = parse(LABELS, "");
    let mut fleet = spec.fleet.clone();
    assert_eq!(fleet.place, Place::Pack);
    fleet.servers[1].name = "edge1".into();
    let invalid = Slicing::with_fleet(spec.host.clone(), fleet, spec.slices.clone()).unwrap_err();
    assert_eq!(
        invalid.violations[0].at.to_string(),
        "fleet.servers[1].name"
    );
    let mut host = spec.host.clone();
    host.headroom_cores = 1025;
    let invalid = Slicing::new(host, spec.slices.clone()).unwrap_err();
    assert_eq!(invalid.violations[0].at.to_string(), "fleet.headroom.cores");
}
