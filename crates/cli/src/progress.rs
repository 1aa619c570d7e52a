//! What is told while steps are carried out: a spinner where somebody watches, plain lines else.
//! There is no silent minute either way.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bmslice_apply::{Event, State};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{Output, style};

/// How often plain lines say that a step is still at work.
const REMINDER: Duration = Duration::from_secs(20);

/// Tells events on standard error.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    /// A line that is redrawn, where somebody watches.
    bar: Option<ProgressBar>,
    /// What reminds of a step that takes long, where nobody watches.
    reminder: Option<Reminder>,
    started: Option<Instant>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        let bar = output.is_watched().then(|| {
            let bar = ProgressBar::new_spinner();
            // A template without mistakes: the fallback is never needed.
            let template = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Self {
            output,
            bar,
            reminder: None,
            started: None,
        }
    }

    /// Takes an event as it happens.
    pub(crate) fn tell(&mut self, event: Event) {
        match event {
            Event::Waiting { holder } => {
                let text = format!("waiting for another bmslice (process {holder})");
                self.line(&text);
                self.begin(text);
            }
            Event::Resuming { what } => {
                self.end();
                self.line(&format!("going on with what was interrupted: {what}"));
            }
            Event::Step {
                number,
                of,
                what,
                state,
            } => {
                let width = of.to_string().len();
                self.state(&format!("[{number:width$}/{of}]"), &what, &state);
            }
            Event::Undo { what, state } => self.state("[undo]", &what, &state),
            Event::Note(text) => self.line(&format!("note: {text}")),
        }
    }

    fn state(&mut self, place: &str, what: &str, state: &State) {
        let color = self.output.colors_messages();
        let (word, why) = match state {
            State::Started => {
                if self.bar.is_none() {
                    self.line(&format!("{place} begins   {what}"));
                }
                self.begin(format!("{place} {what}"));
                return;
            }
            State::Held => ("holds  ".to_owned(), String::new()),
            State::Planned { found } if found.is_empty() => ("would  ".to_owned(), String::new()),
            State::Planned { found } => ("would  ".to_owned(), format!(" (now: {found})")),
            State::Done => (style::good("done   ", color), self.took()),
            State::Failed { error } => (style::error("FAILED ", color), format!(": {error}")),
        };
        self.end();
        self.line(&format!("{place} {word}  {what}{why}"));
    }

    fn took(&self) -> String {
        match self.started.map(|started| started.elapsed().as_secs()) {
            Some(seconds @ 1..) => format!(" ({seconds} s)"),
            _ => String::new(),
        }
    }

    fn begin(&mut self, what: String) {
        self.end();
        self.started = Some(Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message(what);
                bar.enable_steady_tick(Duration::from_millis(120));
            }
            None => self.reminder = Some(Reminder::start(what)),
        }
    }

    fn end(&mut self) {
        self.reminder = None;
        if let Some(bar) = &self.bar {
            bar.disable_steady_tick();
            bar.set_message("");
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.note(text)),
            None => self.output.note(text),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.reminder = None;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A thread that says every [`REMINDER`] what is still at work, until it is dropped.
struct Reminder {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reminder {
    fn start(what: String) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            while stopped.recv_timeout(REMINDER) == Err(RecvTimeoutError::Timeout) {
                let seconds = started.elapsed().as_secs();
                // Nobody is left to be told when this fails.
                let _ = writeln!(
                    std::io::stderr(),
                    "… still at work after {seconds} s: {what}"
                );
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Reminder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only waits and prints; it has nothing to tell.
            let _ = thread.join();
        }
    }
}
