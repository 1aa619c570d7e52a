//! The floor as lines for a terminal.

use anstyle::{Color, RgbColor, Style};

use crate::floor::{Device, Domain, Floor};
use crate::owner::Owner;
use crate::paint::color;

impl Floor {
    /// Lines of at most `width` columns (at least 20), each with its end. With `colored`, owners
    /// have the colours of the SVG; the labels say the same without.
    #[must_use]
    pub fn map(&self, width: usize, colored: bool) -> String {
        let mut map = Map {
            floor: self,
            width: width.max(20),
            colored,
            text: String::new(),
        };
        map.line(0, &self.title);
        for package in &self.packages {
            map.line(0, &package.title);
            for node in &package.nodes {
                map.line(2, &node.title);
                for domain in &node.domains {
                    map.domain(domain);
                }
                for complex in &node.complexes {
                    map.line(4, &complex.title);
                    complex.devices.iter().for_each(|device| map.device(device));
                }
            }
        }
        for text in &self.memory {
            map.line(0, text);
        }
        for complex in &self.elsewhere {
            map.line(0, &format!("{}, of no node that is told", complex.title));
            complex.devices.iter().for_each(|device| map.device(device));
        }
        map.text.push('\n');
        for (owner, text) in &self.legend {
            let swatch = map.painted("  ", owner);
            let lines = wrapped(text, map.width.saturating_sub(3));
            for (number, line) in lines.iter().enumerate() {
                let start = if number == 0 { swatch.as_str() } else { "  " };
                map.text.push_str(&format!("{start} {line}\n"));
            }
        }
        map.text
    }
}

struct Map<'a> {
    floor: &'a Floor,
    width: usize,
    colored: bool,
    text: String,
}

impl Map<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        for line in wrapped(text, self.width.saturating_sub(indent)) {
            self.text.push_str(&" ".repeat(indent));
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    fn painted(&self, text: &str, owner: &Owner) -> String {
        if !self.colored {
            return text.to_owned();
        }
        let [red, green, blue] = color(owner, &self.floor.names);
        let style = Style::new()
            .fg_color(Some(Color::Rgb(RgbColor(0, 0, 0))))
            .bg_color(Some(Color::Rgb(RgbColor(red, green, blue))));
        format!("{style}{text}{style:#}")
    }

    /// `L3 16 MiB` and its cores, `[2 Ae|3 Ae] [4 A0|5 A1]`, all of one width.
    fn domain(&mut self, domain: &Domain) {
        if !domain.title.is_empty() {
            self.line(4, &domain.title);
        }
        let number = longest(self.floor.threads().map(|t| t.cpu.to_string()));
        let label = longest(self.floor.threads().map(|t| t.owner.label()));
        let indent = 6;
        let mut column = 0;
        for core in &domain.cores {
            let cell = number + 1 + label;
            let wide = core.threads.len() * (cell + 1) + 1;
            if column > 0 && column + 1 + wide > self.width {
                self.text.push('\n');
                column = 0;
            }
            if column == 0 {
                self.text.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                self.text.push(' ');
                column += 1;
            }
            // A core of many threads is wider than a narrow terminal: it goes on in the next line.
            self.text.push('[');
            let mut used = column + 1;
            for (index, thread) in core.threads.iter().enumerate() {
                if index > 0 {
                    self.text.push('|');
                    used += 1;
                    if used + cell + 1 > self.width {
                        self.text.push('\n');
                        self.text.push_str(&" ".repeat(indent + 1));
                        used = indent + 1;
                    }
                }
                let text = format!(
                    "{:>number$} {:<label$}",
                    thread.cpu.to_string(),
                    thread.owner.label()
                );
                let painted = self.painted(&text, &thread.owner);
                self.text.push_str(&painted);
                used += cell;
            }
            self.text.push(']');
            column = used + 1;
        }
        if column > 0 {
            self.text.push('\n');
        }
    }

    fn device(&mut self, device: &Device) {
        let label = device.owner.label();
        let text = format!("{} {}", device.lines.join(" "), label);
        let lines = wrapped(&text, self.width.saturating_sub(6));
        for (number, line) in lines.iter().enumerate() {
            // The owner stands last.
            let painted = match line.strip_suffix(label.as_str()) {
                Some(start) if number + 1 == lines.len() => {
                    format!("{start}{}", self.painted(&label, &device.owner))
                }
                _ => line.clone(),
            };
            self.text.push_str(&format!("      {painted}\n"));
        }
    }
}

fn longest(texts: impl Iterator<Item = String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

/// Broken at spaces; a word that is longer than a line is broken where the line ends.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(String::new());
            used = 0;
        }
        while !word.is_empty() {
            if let Some(line) = lines.last_mut() {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                let part = word.len().min(width - used);
                line.extend(word.drain(..part));
                used += part;
            }
            if !word.is_empty() {
                lines.push(String::new());
                used = 0;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn lines_are_broken_at_spaces_or_where_they_must() {
        assert_eq!(wrapped("one two three", 9), ["one two", "three"]);
        assert_eq!(wrapped("0123456789ab", 8), ["01234567", "89ab"]);
        assert_eq!(wrapped("", 9), [""]);
    }
}
