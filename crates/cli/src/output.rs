//! Data on standard output, messages on standard error.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// The form of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Never.
    Never,
}

/// Where a command's data and messages go.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    data: bool,
    messages: bool,
    width: u16,
}

impl Output {
    pub(crate) fn new(format: Format, color: Color) -> Self {
        let asked = match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        let colors = |auto: ColorChoice| match asked {
            ColorChoice::Auto => auto != ColorChoice::Never,
            other => other != ColorChoice::Never,
        };
        let width = terminal_size::terminal_size_of(std::io::stdout())
            .map_or(100, |(terminal_size::Width(width), _)| width);
        Self {
            format,
            data: colors(AutoStream::choice(&std::io::stdout())),
            messages: colors(AutoStream::choice(&std::io::stderr())),
            // Below 80 columns a table is no table; above 120 its lines are hard to follow.
            width: width.clamp(80, 120),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether data are coloured.
    pub(crate) fn colors(&self) -> bool {
        self.data
    }

    /// Whether messages are coloured.
    pub(crate) fn colors_messages(&self) -> bool {
        self.messages
    }

    /// Columns that tables may take.
    pub(crate) fn width(&self) -> u16 {
        self.width
    }

    /// Whether somebody watches the messages.
    pub(crate) fn is_watched(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    /// Writes data: for people by `table`, else as JSON or YAML.
    pub(crate) fn data<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.text(&table()),
            Format::Json => self.text(&json(value)?),
            Format::Yaml => {
                let yaml = serde_saphyr::to_string(value)
                    .map_err(|error| Failure::failed(format!("cannot write YAML: {error}")))?;
                self.text(&yaml)
            }
        }
    }

    /// Writes text as data. A reader that has gone away (`| head`) is no mistake.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        match written {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(
                format!("cannot write to standard output: {error}"),
            )),
            _ => Ok(()),
        }
    }

    /// Writes a message as it is.
    pub(crate) fn message(&self, text: &str) {
        // Nobody is left to be told when this fails.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Tells something by the way.
    pub(crate) fn note(&self, text: &str) {
        self.message(&format!("{text}\n"));
    }

    /// Warns.
    pub(crate) fn warn(&self, text: &str, hint: Option<&str>) {
        let mut all = format!("{}: {text}\n", style::warning("warning", self.messages));
        if let Some(hint) = hint {
            let _ = writeln!(all, "\n{}: {hint}", style::hint("hint", self.messages));
        }
        self.message(&all);
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
    text.push('\n');
    Ok(text)
}

/// Words in colour, or as they are. Nothing is said by colour alone.
pub(crate) mod style {
    use anstyle::{AnsiColor, Style};

    fn paint(text: &str, style: Style, color: bool) -> String {
        if color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn error(text: &str, color: bool) -> String {
        paint(text, AnsiColor::Red.on_default().bold(), color)
    }

    pub(crate) fn warning(text: &str, color: bool) -> String {
        paint(text, AnsiColor::Yellow.on_default().bold(), color)
    }

    pub(crate) fn good(text: &str, color: bool) -> String {
        paint(text, AnsiColor::Green.on_default().bold(), color)
    }

    pub(crate) fn hint(text: &str, color: bool) -> String {
        paint(text, AnsiColor::Cyan.on_default().bold(), color)
    }

    pub(crate) fn heading(text: &str, color: bool) -> String {
        paint(text, Style::new().bold(), color)
    }
}
