//! Faults: what goes wrong, when, and whether the effect took place before it did.
//!
//! Takes every effect (a write, a file put in place, a command, a request to libvirt) as one line
//! of text; says whether it fails. Keeps true: effects are counted from 1 in the order asked, reads
//! are never counted, and after a crash nothing happens any more until somebody revives the
//! process.

use rustix::io::Errno;

/// Where in an effect a crash or failure strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The effect does not take place.
    Before,
    /// Half of it does: half of the bytes of an append, an unfinished file beside the one being
    /// installed, a truncated image. As [`Moment::Before`] for what has no half.
    Half,
    /// It takes place, and nobody hears of it.
    After,
}

/// What is said instead of success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The kernel's errno, of a file or attribute; a command or libvirt says its text.
    Errno(Errno),
    /// A message, of a command (exit status 1) or of libvirt.
    Says(String),
}

/// Which effects fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// The n-th from now, the next being 1.
    Nth(u64),
    /// The next one whose line contains this text: `sriov_numvfs`, `run update-grub`,
    /// `libvirt start blue`.
    Once(String),
    /// Every one whose line contains this text, until [`super::FakeMachine::heal`].
    Every(String),
}

#[derive(Debug)]
struct Rule {
    on: On,
    moment: Moment,
    // None is a crash.
    failure: Option<Failure>,
}

/// What the rules make of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes as it goes.
    Normal,
    /// The process has crashed before it, or in it: `Gone` is the answer.
    Crash(Moment),
    /// The answer is this failure.
    Fail(Moment, Failure),
}

/// The rules in force and the history.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    log: Vec<String>,
    pub crashed: bool,
}

impl Faults {
    pub fn fail(&mut self, on: On, moment: Moment, failure: Failure) {
        self.add(on, moment, Some(failure));
    }

    pub fn crash(&mut self, on: On, moment: Moment) {
        self.add(on, moment, None);
    }

    fn add(&mut self, on: On, moment: Moment, failure: Option<Failure>) {
        let on = match on {
            // Kept as an absolute count.
            On::Nth(n) => On::Nth(self.log.len() as u64 + n),
            other => other,
        };
        self.rules.push(Rule {
            on,
            moment,
            failure,
        });
    }

    pub fn heal(&mut self) {
        self.rules.clear();
    }

    /// The effects so far, those that failed among them.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    /// An effect is asked for.
    pub fn effect(&mut self, line: String) -> Verdict {
        if self.crashed {
            return Verdict::Crash(Moment::Before);
        }
        self.log.push(line);
        let (count, line) = (self.log.len() as u64, self.log.last());
        let Some(line) = line else {
            return Verdict::Normal;
        };
        let hit = self.rules.iter().position(|rule| match &rule.on {
            On::Nth(n) => *n == count,
            On::Once(text) | On::Every(text) => line.contains(text.as_str()),
        });
        let Some(hit) = hit else {
            return Verdict::Normal;
        };
        let rule = if matches!(self.rules[hit].on, On::Every(_)) {
            let rule = &self.rules[hit];
            (rule.moment, rule.failure.clone())
        } else {
            let rule = self.rules.remove(hit);
            (rule.moment, rule.failure)
        };
        match rule {
            (moment, Some(failure)) => Verdict::Fail(moment, failure),
            (moment, None) => {
                self.crashed = true;
                Verdict::Crash(moment)
            }
        }
    }
}
