//! The fuzzers' functions, briefly and always alike: the corpus of `fuzz/corpus` and a fixed number
//! of changes to it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads its own corpus"
)]

use std::path::Path;

use bmslice_inventory::fuzzing::{TARGETS, Target};
use bmslice_spec::Slicing;
use bmslice_verify::FabricTable;

/// The parsers of what users and switches write; those of what a server shows are the inventory's.
const MORE: [Target; 2] = [("fabric", fabric), ("spec", spec)];

fn fabric(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(table) = FabricTable::parse(&text) {
        for entry in &table.entries {
            assert!(table.of(entry.mac).any(|found| found == entry));
        }
    }
}

fn spec(data: &[u8]) {
    if let Err(errors) = Slicing::parse_bytes("fuzz.yaml", data) {
        assert!(!errors.render(false).is_empty());
    }
}

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");

/// xorshift64*: no more is needed to change bytes, and it is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end.max(1)
    }
}

/// What parsers trip over.
const WORDS: &[&[u8]] = &[
    b"-1",
    b"0",
    b"4294967295",
    b"18446744073709551616",
    b"-",
    b",",
    b":",
    b"/",
    b"\"",
    b"..",
    b"\0",
    b"\n",
    b"0x",
    b"\xff\xfe",
    "é".as_bytes(),
];

fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        match random.below(6) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = u8::try_from(random.below(256)).unwrap(),
            2 => data.truncate(at),
            3 => {
                let word = WORDS[random.below(WORDS.len())];
                data.splice(at..at, word.iter().copied());
            }
            4 if at < data.len() => {
                let end = (at + 1 + random.below(16)).min(data.len());
                data.drain(at..end);
            }
            _ => {
                let end = (at + random.below(32)).min(data.len());
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
        }
    }
    data
}

#[test]
fn no_bytes_break_a_parser() {
    let mut runs = 0;
    for (name, target) in TARGETS.iter().chain(&MORE) {
        let folder = Path::new(CORPUS).join(name);
        let mut seeds: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{name} has no corpus");
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let each = 400 / seeds.len() + 1;
        for seed in seeds {
            let seed = std::fs::read(seed).unwrap();
            target(&seed);
            for _ in 0..each {
                target(&changed(&seed, &mut random));
                runs += 1;
            }
        }
    }
    assert!(runs > 3000, "{runs}");
}
