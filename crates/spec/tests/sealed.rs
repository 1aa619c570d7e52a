//! What a sealed slicing promises.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use bmslice_model::{ByteSize, MacAddress};
use bmslice_spec::{HostSpec, InvalidSlicing, NicKind, Slicing};
use proptest::prelude::*;

const EXAMPLES: [&str; 4] = [
    include_str!("../../../examples/seed/slices.yaml"),
    include_str!("../../../examples/red-blue.yaml"),
    include_str!("../../../examples/tenant.yaml"),
    include_str!("everything.yaml"),
];

const SMALL: &str = "apiVersion: bmslice/v1\nkind: Slicing\nslices:\n  - name: red\n    vcpus: 4\n    \
                     memory: { size: 4GiB }\n    image: { base: a.qcow2, size: 8GiB }\n";

#[test]
fn the_digest_is_of_the_meaning() {
    let digest = |text: &str| Slicing::parse("a", text).unwrap().digest.clone();
    let same = "# a remark\nkind: Slicing\nslices:\n- image:\n    size: 8192MiB\n    base: a.qcow2\n  \
                name: 'red'\n  tenant: red\n  smt: pack\n  memory: {size: 4 GiB, hugepages: none}\n  \
                vcpus: 4\n  nics: []\nhost: {}\napiVersion: bmslice/v1\n";
    assert_eq!(digest(SMALL), digest(same));
    assert!(digest(SMALL).starts_with("sha256:") && digest(SMALL).len() == 71);
    for (from, to) in [
        ("vcpus: 4", "vcpus: 6"),
        ("name: red", "name: rot"),
        ("8GiB", "9GiB"),
    ] {
        assert_ne!(digest(SMALL), digest(&SMALL.replace(from, to)), "{to}");
    }
}

/// The same, made of its parts.
fn again(slicing: &Slicing) -> Result<Slicing, InvalidSlicing> {
    let (host, fleet) = (slicing.host.clone(), slicing.fleet.clone());
    Slicing::with_fleet(host, fleet, slicing.slices.clone())
}

#[test]
fn a_program_cannot_make_what_a_file_may_not_say() {
    let slicing = Slicing::parse("a", EXAMPLES[3]).unwrap();
    let made = again(&slicing).unwrap();
    assert_eq!(made, slicing);

    let mut slices = slicing.slices.clone();
    slices[1].name = slices[0].name.clone();
    slices[0].vcpus = 0;
    slices[0].memory = ByteSize::from_bytes(1);
    let NicKind::Vf { mac, .. } = &mut slices[0].nics[1].kind else {
        panic!("{slices:?}");
    };
    *mac = Some(MacAddress::new([0xff; 6]));
    let host = HostSpec {
        reserve_cores: 0,
        ..slicing.host.clone()
    };
    let invalid = Slicing::new(host, slices).unwrap_err();
    let at: Vec<String> = invalid
        .violations
        .iter()
        .map(|v| v.at.to_string())
        .collect();
    let wanted = [
        "host.reserve.cores",
        "slices[0].vcpus",
        "slices[0].memory.size",
        "slices[0].nics[1].vf.mac",
        "slices[1].name",
    ];
    assert_eq!(at, wanted);
    assert!(Slicing::new(HostSpec::default(), Vec::new()).is_err());
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems_are_no_mistakes() {
    let unix = Slicing::parse("a", SMALL).unwrap();
    let dos = format!("\u{feff}{}", SMALL.replace('\n', "\r\n"));
    assert_eq!(Slicing::parse("a", &dos).unwrap(), unix);
}

/// One change of a text: a piece of it cut out, doubled, or overwritten by something that YAML or
/// a field reads in a way of its own.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "",
        "\t",
        "\n",
        ":",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: *a",
        "!x ",
        "'",
        "\"",
        "|",
        ">",
        "#",
        "%",
        "---\n",
        "...\n",
        "null",
        "~",
        "-1",
        "0",
        "4095",
        "1e9",
        "NaN",
        "9999999999999999999999",
        "8GB",
        "ä",
        "\u{0}",
        "\u{feff}",
        "\u{2028}",
        "? ",
        "true",
    ]);
    let change = (
        any::<prop::sample::Index>(),
        0usize..40,
        piece,
        any::<bool>(),
    );
    (0..EXAMPLES.len(), prop::collection::vec(change, 1..4)).prop_map(|(example, changes)| {
        let mut text = EXAMPLES[example].to_owned();
        for (at, length, piece, double) in changes {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text
                .floor_char_boundary((start + length).min(text.len()))
                .max(start);
            let old = text[start..end].to_owned();
            let new = if double {
                format!("{old}{piece}{old}")
            } else {
                piece.to_owned()
            };
            text.replace_range(start..end, &new);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in mutated()) {
        match Slicing::parse("a.yaml", &text) {
            // What is accepted keeps every rule.
            Ok(slicing) => {
                prop_assert_eq!(again(&slicing).unwrap(), slicing);
            }
            Err(errors) => {
                prop_assert!(!errors.errors().is_empty());
                let lines = text.lines().count().max(1);
                for error in errors.errors() {
                    prop_assert!(error.line <= lines + 1 && error.column >= 1, "{error:?}");
                    prop_assert!(!error.message.is_empty());
                }
                prop_assert!(errors.render(false).contains("error: "));
                prop_assert!(errors.render(true).contains("error"));
            }
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(errors) = Slicing::parse_bytes("a.yaml", &bytes) {
            prop_assert!(errors.render(false).contains("error: "));
        }
    }
}
