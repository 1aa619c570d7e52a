//! What is wrong with a file, where, and what would be right.
//!
//! Takes byte ranges of the source, gives [`SpecErrors`]: structured (line, column, message, hint)
//! and rendered as compilers do. Lines that carry a password or a private key are blanked before
//! anything is shown, whatever the mistake is about.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A byte range of the source.
pub(crate) type Span = Range<usize>;

/// No more mistakes than this are rendered; the rest are counted.
const SHOWN: usize = 25;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong; lower case, no final stop.
    pub message: String,
    /// What would be right, if that can be said.
    pub hint: Option<String>,
    pub(crate) span: Span,
    pub(crate) label: Option<String>,
    pub(crate) related: Vec<(Span, String)>,
}

/// Every mistake of one file, in the order of the file. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors {
    name: String,
    source: String,
    errors: Vec<SpecError>,
}

impl SpecErrors {
    pub(crate) fn new(name: &str, source: &str, mistakes: Vec<Mistake>) -> Self {
        let mut errors: Vec<SpecError> = mistakes
            .into_iter()
            .map(|mistake| mistake.place(source))
            .collect();
        errors.sort_by_key(|error| error.span.start);
        errors.dedup();
        Self {
            name: name.to_owned(),
            source: redact(source),
            errors,
        }
    }

    /// The file's name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mistakes, in the order of the file.
    #[must_use]
    pub fn errors(&self) -> &[SpecError] {
        &self.errors
    }

    /// All mistakes as a compiler shows them: message, place, the text underlined, hint. Without
    /// `color` it is plain text.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .decor_style(DecorStyle::Ascii)
        .term_width(100);
        let mut text = String::new();
        for error in self.errors.iter().take(SHOWN) {
            text.push_str(&renderer.render(&self.report(error)));
            text.push_str("\n\n");
        }
        if self.errors.len() > SHOWN {
            let more = self.errors.len() - SHOWN;
            text.push_str(&format!("… and {more} more\n\n"));
        }
        text.pop();
        text
    }

    fn report<'a>(&'a self, error: &'a SpecError) -> Vec<Group<'a>> {
        let mut primary = AnnotationKind::Primary.span(self.first_line(&error.span));
        if let Some(label) = &error.label {
            primary = primary.label(label);
        }
        let related = error.related.iter().map(|(span, label)| {
            AnnotationKind::Context
                .span(self.first_line(span))
                .label(label)
        });
        let snippet = Snippet::source(&self.source)
            .path(&self.name)
            .fold(true)
            .annotation(primary)
            .annotations(related);
        let mut group = Level::ERROR.primary_title(&error.message).element(snippet);
        if let Some(hint) = &error.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
        vec![group]
    }

    /// The part of a span on its first line, so that a whole mapping is not underlined.
    fn first_line(&self, span: &Span) -> Span {
        let text = self.source.get(span.clone()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        span.start..span.start + line.len()
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for SpecErrors {}

/// A mistake whose place is still a byte range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) label: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) related: Vec<(Span, String)>,
}

impl Mistake {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            label: None,
            hint: None,
            related: Vec::new(),
        }
    }

    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    fn place(self, source: &str) -> SpecError {
        let clamp = |span: Span| {
            let floor = |at: usize| source.floor_char_boundary(at.min(source.len()));
            let start = floor(span.start);
            start..floor(span.end).max(start)
        };
        let span = clamp(self.span);
        let before = source.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        SpecError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: self.message,
            hint: self.hint,
            span,
            label: self.label,
            related: self
                .related
                .into_iter()
                .map(|(span, label)| (clamp(span), label))
                .collect(),
        }
    }
}

/// A value for a message: in one line, at most 60 characters, nothing that moves a cursor.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(60)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// Whether a line carries a secret.
pub(crate) fn is_secret(line: &str) -> bool {
    redact(line) != line
}

/// The source with secrets overwritten by `*`, byte for byte, so that every span stays true:
/// values of keys that speak of a password, crypt(5) hashes, and PEM private keys.
fn redact(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut in_key = false;
    for line in source.split_inclusive('\n') {
        let from = if in_key || line.contains("PRIVATE KEY-----") {
            Some(line.len() - line.trim_start().len())
        } else {
            secret_start(line)
        };
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY-----") {
            in_key = true;
        }
        if line.contains("-----END") {
            in_key = false;
        }
        let from = from.unwrap_or(line.len());
        out.push_str(&line[..from]);
        out.extend(line[from..].bytes().map(|byte| match byte {
            b'\n' | b'\r' => char::from(byte),
            _ => '*',
        }));
    }
    out
}

/// Where in a line a secret starts.
fn secret_start(line: &str) -> Option<usize> {
    // ASCII lower case keeps byte positions.
    let lower = line.to_ascii_lowercase();
    let value_after = |word: &str| {
        let mut search = 0;
        while let Some(at) = lower[search..].find(word).map(|at| at + search) {
            search = at + word.len();
            let rest = &lower[search..];
            let key: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c))
                .collect();
            let after = &rest[key.len()..];
            let quotes = after.len() - after.trim_start_matches(['"', '\'', ' ', '\t']).len();
            // `passwordHashFile` names a file, which is no secret.
            if after[quotes..].starts_with([':', '=']) && !key.ends_with("file") {
                let value = search + key.len() + quotes + 1;
                let blank = line[value..].len() - line[value..].trim_start().len();
                return Some(value + blank);
            }
        }
        None
    };
    let crypt = [
        "$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$",
    ]
    .iter()
    .filter_map(|mark| line.find(mark))
    .min();
    ["passw", "pwd", "passphrase", "secret"]
        .iter()
        .filter_map(|word| value_after(word))
        .chain(crypt)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blanked_and_bytes_keep_their_places() {
        let source = "user: { name: x, password: hünter2 }\n\
                      passwordHashFile: /etc/bmslice/hash\n\
                      passwordHashFile: $6$salt$hash\n\
                      - -----BEGIN OPENSSH PRIVATE KEY-----\n  b3Bl\n  -----END OPENSSH PRIVATE KEY-----\nname: red\n";
        let redacted = redact(source);
        assert_eq!(redacted.len(), source.len());
        for secret in ["nter2", "salt", "b3Bl"] {
            assert!(!redacted.contains(secret), "{redacted}");
        }
        for kept in ["name: x", "/etc/bmslice/hash", "name: red"] {
            assert!(redacted.contains(kept), "{redacted}");
        }
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let error = Mistake::new(10..11, "x").place("ä: 1\nä: b\n");
        assert_eq!((error.line, error.column), (2, 4));
    }
}
