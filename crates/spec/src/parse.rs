//! From text to a sealed slicing, or to every mistake.

use crate::decode::{Sink, decode};
use crate::diagnostic::{Mistake, SpecErrors};
use crate::rules::{Violation, of_fleet, violations};
use crate::seal::{Sealer, is_spec, place};
use crate::sealed::{SliceSpec, Slicing};
use crate::wire;
use crate::yaml::{self, Node};

/// A hundred slices with everything are 200 KiB.
const LIMIT: usize = 4 << 20;

impl Slicing {
    /// Reads a spec: YAML, or JSON, which is YAML too. `name` is what messages call the file.
    ///
    /// # Errors
    /// [`SpecErrors`] with every mistake that can be told apart: a text that is not YAML has one;
    /// one with the wrong `apiVersion` or `kind` has these.
    pub fn parse(name: &str, text: &str) -> Result<Self, SpecErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let sink = Sink::default();
        match read(text, &sink) {
            Some(slicing) => Ok(slicing),
            None => Err(SpecErrors::new(name, text, sink.into_mistakes())),
        }
    }

    /// As [`Slicing::parse`], from the bytes of a file.
    ///
    /// # Errors
    /// Also when the bytes are not UTF-8, with the place of the first that is not.
    pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<Self, SpecErrors> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(name, text),
            Err(error) => {
                let at = error.valid_up_to();
                let start = bytes[..at]
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |n| n + 1);
                let end = bytes[at..]
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(bytes.len(), |n| at + n);
                // What is shown: the readable part, up to the end of the line at fault.
                let mut text = String::from_utf8_lossy(&bytes[..start]).into_owned();
                let column = text.len() + (at - start);
                text.push_str(&String::from_utf8_lossy(
                    &bytes[start..end.min(start + 400)],
                ));
                let message = format!(
                    "the file is not UTF-8: byte {:#04x} begins no character",
                    bytes[at]
                );
                let mistake = Mistake::new(column..column + 1, message)
                    .hint("save it as UTF-8; `iconv -f latin1 -t utf-8` converts older files");
                Err(SpecErrors::new(name, &text, vec![mistake]))
            }
        }
    }
}

/// `None` when something was noted.
fn read(text: &str, sink: &Sink) -> Option<Slicing> {
    if text.len() > LIMIT {
        let message = format!(
            "the file has {} bytes; a spec has at most {LIMIT}",
            text.len()
        );
        sink.note(Mistake::new(0..0, message).hint("is this the right file?"));
        return None;
    }
    if text.trim().is_empty() {
        sink.note(yaml::empty());
        return None;
    }
    let (root, mistakes) = yaml::read(text);
    let readable = mistakes.is_empty();
    for mistake in mistakes {
        sink.note(mistake);
    }
    let root = root?;
    if !is_spec(&root, sink) {
        return None;
    }
    let file: wire::File = decode(&root, sink);
    let (host, fleet, slices) = Sealer { sink, root: &root }.file(file);
    if !slices.is_empty() {
        let numbered: Vec<(usize, &SliceSpec)> = slices.iter().map(|(i, s)| (*i, s)).collect();
        for violation in violations(&host, &numbered)
            .into_iter()
            .chain(of_fleet(&fleet, &numbered))
        {
            sink.note(placed(&root, violation));
        }
    } else if sink.is_empty() {
        let at = root.get("slices").unwrap_or(&root).span.clone();
        sink.note(
            Mistake::new(at, "there are no slices")
                .hint("write at least one; `bmslice release` gives a server back"),
        );
    }
    if !readable || !sink.is_empty() {
        return None;
    }
    let slices = slices.into_iter().map(|(_, slice)| slice).collect();
    match Slicing::with_fleet(host, fleet, slices) {
        Ok(slicing) => Some(slicing),
        Err(invalid) => {
            for violation in invalid.violations {
                sink.note(placed(&root, violation));
            }
            None
        }
    }
}

/// A violation with its place in the file.
fn placed(root: &Node, violation: Violation) -> Mistake {
    let span = |path| place(root, path);
    let mut mistake = Mistake::new(span(&violation.at), violation.message);
    mistake.hint = violation.hint;
    if let Some((path, label)) = violation.related {
        mistake = mistake.related(span(&path), label);
    }
    mistake
}
