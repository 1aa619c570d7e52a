//! JSON that any YAML reader takes, too.
//!
//! cloud-init reads its files as YAML 1.1, in which `yes`, `0123` and `12:30` without quotes are not
//! texts. JSON has every text in quotes and is YAML, but for characters that YAML readers refuse
//! (PyYAML: anything not printable) or fold (U+0085, U+2028, U+2029); those are escaped here.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// A value as indented text with a line break at the end.
pub(crate) fn pretty(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let formatter = Printable(PrettyFormatter::new());
    // A `Vec` takes every byte, and nothing that is rendered has a map with keys other than text.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter));
    let mut text = String::from_utf8(bytes).unwrap_or_default();
    text.push('\n');
    text
}

/// Whether a YAML reader may refuse or change it inside quotes. All of them are in the Basic
/// Multilingual Plane, so one `\uXXXX` writes each.
fn is_escaped(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

/// The pretty format with those characters escaped.
struct Printable<'a>(PrettyFormatter<'a>);

impl Formatter for Printable<'_> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_escaped) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut characters = rest[at..].chars();
            if let Some(c) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }
    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }
    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }
    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_only_printable_characters_are_written() {
        let odd = "a\"\\\u{0}\n\u{7f}\u{85}\u{a0}ä\u{2028}\u{2029}\u{feff}\u{fffe}😀";
        let text = pretty(&[odd]);
        let back: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, [odd]);
        assert!(
            text.chars()
                .all(|c| c == '\n' || (!is_escaped(c) && c >= ' ')),
            "{text:?}"
        );
        assert!(
            text.contains('😀'),
            "no surrogates, which PyYAML takes apart"
        );
    }
}
