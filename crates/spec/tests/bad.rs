//! Files with mistakes in `bad/`: what is said of each is beside it, word for word.
//!
//! `BMSLICE_BLESS=1 cargo test -p bmslice-spec --test bad` writes what is said now.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test of files that reads its own files"
)]

use std::fs;
use std::path::{Path, PathBuf};

use bmslice_spec::Slicing;

fn bad_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_mistake_is_said_with_its_place_and_what_would_be_right() {
    let bless = std::env::var_os("BMSLICE_BLESS").is_some();
    let mut wrong = Vec::new();
    let files = bad_files();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let errors = match Slicing::parse_bytes(name, &fs::read(&file).unwrap()) {
            Ok(slicing) => panic!("{name} is taken as right: {slicing:?}"),
            Err(errors) => errors,
        };
        assert!(!errors.errors().is_empty());
        let said = errors.render(false);
        let golden = file.with_extension("txt");
        if bless {
            fs::write(&golden, &said).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != said {
            wrong.push(format!("{name}:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "not as before:\n{}", wrong.join("\n"));
}

#[test]
fn no_secret_is_shown_in_colour_or_without() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad/secrets.yaml");
    let errors = Slicing::parse_bytes("secrets.yaml", &fs::read(file).unwrap()).unwrap_err();
    for said in [
        errors.render(true),
        errors.render(false),
        format!("{errors:?}"),
    ] {
        for secret in ["hunter2", "b3BlbnNz", "salt"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn places_are_lines_and_columns_of_the_file() {
    let text = "apiVersion: bmslice/v1\nkind: Slicing\nslices:\n  - name: röd\n    vcpu: 4\n";
    let errors = Slicing::parse("a.yaml", text).unwrap_err();
    let at: Vec<(usize, usize, &str)> = errors
        .errors()
        .iter()
        .map(|e| {
            (
                e.line,
                e.column,
                e.message.split('`').nth(1).unwrap_or_default(),
            )
        })
        .collect();
    assert!(at.contains(&(5, 5, "vcpu")), "{at:?}");
    assert!(
        at.iter()
            .any(|(line, column, _)| (*line, *column) == (4, 11)),
        "{at:?}"
    );
}
