//! Tables and sections for people: columns of text, readable without colour and in 80 columns.

use std::fmt::Write;

pub(crate) use bmslice_model::count;

use comfy_table::{ColumnConstraint, ContentArrangement, Table};

use crate::output::{Output, style};

/// A table without lines but one under its heading. Columns whose heading ends in `…` may be
/// wrapped; the others keep the width of what is in them.
pub(crate) fn table(output: &Output, heading: &[&str]) -> Table {
    let mut table = Table::new();
    let names = heading.iter().map(|name| name.trim_end_matches('…'));
    table
        .load_preset("     --            ")
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(output.width())
        .set_header(names);
    for (column, name) in table.column_iter_mut().zip(heading) {
        column.set_padding((0, 1));
        if !name.ends_with('…') {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

/// A document of titled sections.
pub(crate) struct Page<'a> {
    output: &'a Output,
    text: String,
}

impl<'a> Page<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        Self {
            output,
            text: String::new(),
        }
    }

    /// Begins a section.
    pub(crate) fn heading(&mut self, text: &str) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let _ = writeln!(self.text, "{}", style::heading(text, self.output.colors()));
        self
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: &str) -> &mut Self {
        let _ = writeln!(self.text, "{text}");
        self
    }

    /// A table.
    pub(crate) fn table(&mut self, table: &Table) -> &mut Self {
        let _ = writeln!(self.text, "{}", table.trim_fmt());
        self
    }

    /// Names and values, wrapped beside each other.
    pub(crate) fn facts(&mut self, facts: &[(&str, String)]) -> &mut Self {
        let longest = facts.iter().map(|(name, _)| name.chars().count()).max();
        let indent = longest.unwrap_or(0) + 2;
        let width = usize::from(self.output.width())
            .saturating_sub(indent)
            .max(20);
        for (name, value) in facts {
            let mut name = *name;
            for line in wrapped(value, width) {
                let pad = indent - name.chars().count();
                let _ = writeln!(self.text, "{name}{:pad$}{line}", "");
                name = "";
            }
        }
        self
    }

    /// Text wrapped to the width, further lines indented.
    pub(crate) fn paragraph(&mut self, text: &str, indent: usize) -> &mut Self {
        let width = usize::from(self.output.width())
            .saturating_sub(indent)
            .max(20);
        for (i, line) in wrapped(text, width).into_iter().enumerate() {
            let pad = if i == 0 { 0 } else { indent };
            let _ = writeln!(self.text, "{:pad$}{line}", "");
        }
        self
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// Lines of at most `width` characters, broken at spaces; a longer word keeps its length.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let fits = line.chars().count() + 1 + word.chars().count() <= width;
            if line.is_empty() {
                line.push_str(word);
            } else if fits {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(std::mem::replace(&mut line, word.to_owned()));
            }
        }
        lines.push(line);
    }
    lines
}

/// A value, or a dash.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_only() {
        assert_eq!(
            wrapped("a bb ccc\n\nlonger-than-that x", 6),
            ["a bb", "ccc", "", "longer-than-that", "x"]
        );
    }
}
