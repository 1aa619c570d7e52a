//! Slips that make a text no YAML, said where they were made.
//!
//! Takes the text and where its reader stopped, gives the mistakes. A reader of YAML often stops a
//! line or more behind the slip (`vcpus:4` is the beginning of a longer text to it), so the lines up
//! to there are looked at for what people do: indent with tabs, leave out the space behind a colon.

use crate::diagnostic::{Mistake, is_secret, shown};

/// The mistakes of a text that is not YAML; at least one.
pub(crate) fn slips(source: &str, at: usize, info: &str) -> Vec<Mistake> {
    let at = source.floor_char_boundary(at.min(source.len()));
    let lines = Line::all(source);
    let here = lines.iter().rposition(|line| line.start <= at).unwrap_or(0);
    if let Some(mistake) = tab(&lines, here) {
        return vec![mistake];
    }
    let narrow = colons(&lines, here);
    if narrow.is_empty() {
        vec![other(source, at, info)]
    } else {
        narrow
    }
}

/// What the reader says, at the character where it stopped.
fn other(source: &str, at: usize, info: &str) -> Mistake {
    let length = source[at..].chars().next().map_or(0, char::len_utf8);
    let mistake = Mistake::new(at..at + length, format!("not YAML: {info}"));
    if info.contains("mapping values") {
        mistake.hint("a text with `: ` in it wants quotes; so does a second `:` on one line")
    } else if info.contains("block") {
        mistake.hint("lines of one mapping or list start in the same column")
    } else {
        mistake
    }
}

struct Line<'a> {
    start: usize,
    text: &'a str,
    /// Where its first word starts in it, behind white space and the `-` of lists.
    word: usize,
}

impl<'a> Line<'a> {
    fn all(source: &'a str) -> Vec<Self> {
        let mut start = 0;
        let lines = source.split_inclusive('\n').map(|text| {
            let line = Self {
                start,
                text: text.trim_end(),
                word: first_word(text),
            };
            start += text.len();
            line
        });
        lines.collect()
    }

    /// Nothing that YAML reads.
    fn is_blank(&self) -> bool {
        let rest = self.text.get(self.word..).unwrap_or_default();
        rest.is_empty() || rest.starts_with('#')
    }
}

fn first_word(line: &str) -> usize {
    let bytes = line.as_bytes();
    let blank = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
    let mut at = 0;
    while blank(at) || bytes.get(at) == Some(&b'-') && blank(at + 1) {
        at += 1;
    }
    at
}

/// The tab that is nearest to where the reader stopped: on that line, on the one above or below.
/// Farther away it may be right, as between the brackets of a list.
fn tab(lines: &[Line<'_>], here: usize) -> Option<Mistake> {
    let written = |line: &&Line<'_>| !line.is_blank();
    let above = lines.iter().take(here + 1).rev().filter(written).take(2);
    let below = lines.iter().skip(here + 1).find(written);
    let found = above.chain(below).find_map(|line| {
        let indent = line.text.get(..line.word)?;
        Some((line, indent, indent.find('\t')?))
    });
    let (line, indent, from) = found?;
    let tabs = indent[from..].bytes().take_while(|b| *b == b'\t').count();
    let start = line.start + from;
    Some(
        Mistake::new(start..start + tabs, "not YAML: a tab indents this line")
            .label(if tabs == 1 { "a tab" } else { "tabs" })
            .hint("indent with spaces: two of them for each level will do"),
    )
}

/// Fields without a space behind their colon, from where the reader stopped upwards as long as line
/// after line is one.
fn colons(lines: &[Line<'_>], here: usize) -> Vec<Mistake> {
    let above = (0..=here).rev().filter_map(|number| lines.get(number));
    let mut written = above.filter(|line| !line.is_blank());
    let mut found = Vec::new();
    // The line at which the reader stopped may be the right one below the slip.
    if let Some(line) = written.next() {
        found.extend(colon(line));
    }
    found.extend(written.map_while(colon));
    found
}

fn colon(line: &Line<'_>) -> Option<Mistake> {
    let rest = line.text.get(line.word..)?;
    let (name, value) = narrow(rest)?;
    let start = line.start + line.word;
    Some(no_space(start..line.start + line.text.len(), name, value))
}

/// `name:value`, where a space belongs between the two.
pub(crate) fn narrow(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let apart = value.starts_with(|c: char| c.is_whitespace() || c == ':');
    (is_name && !value.is_empty() && !apart && !value.starts_with("//")).then_some((name, value))
}

/// Says what to write instead of `name:value`.
pub(crate) fn no_space(span: crate::diagnostic::Span, name: &str, value: &str) -> Mistake {
    let value = value.split(" #").next().unwrap_or_default().trim_end();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    // What may be a secret, or goes on elsewhere, is not repeated.
    let value = if value.chars().all(plain) && !is_secret(&format!("{name}: {value}")) {
        shown(value)
    } else {
        match value.chars().next() {
            Some('{') => "{ … }".into(),
            Some('[') => "[ … ]".into(),
            _ => "…".into(),
        }
    };
    Mistake::new(span, format!("no space behind the colon of `{name}:`"))
        .hint(format!("write `{name}: {value}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tab_far_above_is_not_blamed() {
        let text = "a: [\n\t1,\n\t2]\nb: 1\nc: 2\nd: ]\n";
        let said = slips(text, text.len() - 2, "what the reader says");
        assert!(
            said[0].message.ends_with("what the reader says"),
            "{said:?}"
        );
        let near = slips("a:\n\tb: 1\n", 2, "what the reader says");
        assert_eq!((near[0].span.clone(), near.len()), (3..4, 1));
    }

    #[test]
    fn a_colon_without_a_space_is_told_from_other_colons() {
        assert_eq!(narrow("vcpus:4"), Some(("vcpus", "4")));
        assert_eq!(
            narrow("memory:{ size: 4GiB }"),
            Some(("memory", "{ size: 4GiB }"))
        );
        for text in [
            "vcpus: 4",
            "vcpus:",
            "52:54:00:12:34:56",
            "http://x",
            "a::b",
            "no colon",
            "\"a\":b",
            "echo a:b",
        ] {
            assert_eq!(narrow(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_without_a_space_is_not_repeated() {
        for (name, value) in [
            ("password", "hunter2"),
            ("passwordHashFile", "$6$salt$hash"),
        ] {
            let mistake = no_space(0..1, name, value);
            let said = format!("{} {:?}", mistake.message, mistake.hint);
            assert!(!said.contains(value), "{said}");
        }
    }

    #[test]
    fn words_start_behind_white_space_and_dashes() {
        for (line, word) in [
            ("  - name", 4),
            ("\t- name", 3),
            ("-x", 0),
            ("- - a", 4),
            ("", 0),
        ] {
            assert_eq!(first_word(line), word, "{line:?}");
        }
    }
}
