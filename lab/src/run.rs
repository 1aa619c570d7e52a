//! Running programs: argv only, output kept for the error, and processes that outlive this one
//! remembered by pid *and* start time, so that no stranger is ever ended.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("`{program}` could not be started; `bmslice-lab check` names the missing package")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        command: String,
        status: std::process::ExitStatus,
        stderr: String,
    },
}

/// One word per argument, for messages.
pub fn display(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// Runs to the end, quietly; an exit other than 0 is an error that carries what was said.
pub fn run(command: &mut Command) -> Result<Output, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| RunError::Start { program, source })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.trim().lines().collect();
    let stderr = lines[lines.len().saturating_sub(8)..].join("\n  ");
    Err(RunError::Failed {
        command: display(command),
        status: output.status,
        stderr,
    })
}

/// Runs to the end and gives what was printed.
pub fn read(command: &mut Command) -> Result<String, RunError> {
    run(command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

pub fn command<I, S>(program: &str, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A process that the lab started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// In clock ticks since boot, as `/proc/PID/stat` has it.
    pub started: u64,
}

impl Process {
    /// Looks a process up; `None` when it is gone or only waits to be reaped.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        (state != 'Z').then_some(Self { pid, started })
    }

    pub fn alive(&self) -> bool {
        Self::find(self.pid) == Some(*self)
    }

    /// Waits for the end; whether it came in time.
    pub fn wait(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.alive() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }

    /// Ends it: asks, waits, insists.
    pub fn end(&self) {
        for (signal, seconds) in [(Signal::TERM, 10), (Signal::KILL, 10)] {
            if !self.alive() {
                return;
            }
            if let Some(pid) = Pid::from_raw(self.pid) {
                // Gone in between is what was wanted.
                let _gone = kill_process(pid, signal);
            }
            if self.wait(Duration::from_secs(seconds)) {
                return;
            }
        }
    }
}

/// State and start time out of a line whose second field may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_confuse() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20";
        assert_eq!(parse_stat(stat), Some(('S', 987_654)));
        assert_eq!(parse_stat("42"), None);
    }

    #[test]
    fn a_reused_pid_is_a_stranger() {
        let own = Process::find(std::process::id() as i32).unwrap();
        assert!(own.alive());
        assert!(
            !Process {
                started: own.started + 1,
                ..own
            }
            .alive()
        );
    }

    #[test]
    fn a_failure_carries_what_was_said() {
        let error = run(&mut command("ls", ["/nonexistent-file"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`ls /nonexistent-file` ended with"),
            "{error}"
        );
        assert!(run(&mut command("no-such-program", [""; 0])).is_err());
    }
}
