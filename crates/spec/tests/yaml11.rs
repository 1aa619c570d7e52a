//! Tools that read YAML 1.1 (PyYAML, yamllint, and what is built on them) read our specs as we do.
//!
//! They take words like `on` for booleans, and digits with colons for sexagesimal numbers. The rules
//! are those of PyYAML's resolver.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test of files that reads the repository's own"
)]

use std::fs;
use std::path::{Path, PathBuf};

use bmslice_spec::schema;
use granit_parser::{Event, Parser, ScalarStyle};
use regex_lite::Regex;
use serde_json::Value;

const BOOL: &str = "(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)";
const FLOAT: &str = r"([-+]?([0-9][0-9_]*)\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))";
const INT: &str = "([-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+)";
const TIME: &str = r"[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?([Tt \t].*)?";
const OTHER: &str = "(<<|=|~|null|Null|NULL)";

/// What YAML 1.1 and 1.2 read alike.
const ALIKE: &str = "(true|false|0|[1-9][0-9]*)";

/// Whether YAML 1.1 reads a text without quotes as something that YAML 1.2 does not.
fn is_read_otherwise(text: &str) -> bool {
    let is = |pattern: &str| Regex::new(&format!("^{pattern}$")).unwrap().is_match(text);
    [BOOL, FLOAT, INT, TIME, OTHER].into_iter().any(is) && !is(ALIKE)
}

/// The texts without quotes that are read otherwise, with their lines.
fn read_otherwise(yaml: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for event in Parser::new_from_str(yaml) {
        let (event, span) = event.unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        if let Event::Scalar(text, ScalarStyle::Plain, ..) = event
            && is_read_otherwise(&text)
        {
            found.push((span.start.line(), text.into_owned()));
        }
    }
    found
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files of the repository with one of these endings, below a folder.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut below = vec![repository().join(folder)];
    while let Some(folder) = below.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The blocks of YAML in a page.
fn blocks(page: &str) -> Vec<String> {
    page.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_rules_are_those_of_yaml_1_1() {
    for text in [
        "on",
        "Off",
        "0000:01:00.0",
        "52:54:00:12:34:56",
        "012",
        "1_000",
        "2024-01-31",
        "1.5",
    ] {
        assert!(is_read_otherwise(text), "{text}");
    }
    for text in [
        "8",
        "true",
        "8GiB",
        "eno1",
        "0000:3b:00.0",
        "192.0.2.1",
        "10.101.0.11/24",
        "ge-0/0/9",
        "emulator",
    ] {
        assert!(!is_read_otherwise(text), "{text}");
    }
}

#[test]
fn examples_mean_the_same_in_yaml_1_1() {
    let mut all = files("examples", "yaml");
    all.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/everything.yaml"));
    assert!(all.len() >= 4, "{all:?}");
    let mut found = Vec::new();
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        found.extend(read_otherwise(&text).into_iter().map(|f| (file.clone(), f)));
    }
    assert!(found.is_empty(), "quote these: {found:#?}");
}

#[test]
fn specs_in_the_documentation_mean_the_same_in_yaml_1_1() {
    let mut pages = files("docs", "md");
    pages.push(repository().join("README.md"));
    pages.push(repository().join("lab/README.md"));
    let mut specs = 0;
    let mut found = Vec::new();
    for page in pages {
        for block in blocks(&fs::read_to_string(&page).unwrap()) {
            specs += 1;
            found.extend(
                read_otherwise(&block)
                    .into_iter()
                    .map(|f| (page.clone(), f)),
            );
        }
    }
    assert!(specs > 0);
    assert!(found.is_empty(), "quote these: {found:#?}");
}

/// Every name of a field and every word that a field can have.
fn words(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("properties", Value::Object(named)) => found.extend(named.keys().cloned()),
                    ("const", Value::String(word)) => found.push(word.clone()),
                    ("enum", Value::Array(words)) => {
                        found.extend(words.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                words(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        _ => {}
    }
}

#[test]
fn no_word_of_a_spec_is_another_in_yaml_1_1() {
    let mut all = Vec::new();
    words(&schema(), &mut all);
    for known in ["iothreads", "place", "emulator", "siblings-last", "2MiB"] {
        assert!(all.iter().any(|word| word == known), "{known} in {all:?}");
    }
    // `on` is a second word for `place`, for whom no such tool reads.
    all.retain(|word| word != "on" && is_read_otherwise(word));
    assert!(all.is_empty(), "{all:?}");
}
