//! Commands as argv, to their end.
//!
//! Takes a [`Command`]; gives what it wrote, or how it failed with the last lines of its error
//! text. Keeps true: no shell, messages in English whatever the user's locale (they are matched
//! and quoted), and no pipe that fills up and stops both sides.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use crate::machine::{Command, HostError, Output};

/// How much of a failed program's text an error quotes.
const LINES: usize = 20;

pub fn run(command: &Command) -> Result<Output, HostError> {
    let not_started = |source| HostError::NotStarted {
        program: command.program.to_string_lossy().into_owned(),
        source,
    };
    let mut process = std::process::Command::new(&command.program);
    process
        .args(&command.args)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .envs(command.env.iter().map(|(key, value)| (key, value)))
        .stdin(if command.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process.spawn().map_err(not_started)?;
    let stdin = child.stdin.take();
    let (fed, ended) = std::thread::scope(|scope| {
        let feeding = scope.spawn(move || match (stdin, &command.stdin) {
            (Some(mut pipe), Some(bytes)) => pipe.write_all(bytes),
            _ => Ok(()),
        });
        // Reads both pipes at once until both are closed, then reaps.
        let ended = child.wait_with_output();
        (feeding.join(), ended)
    });
    let ended = ended.map_err(not_started)?;
    let output = Output {
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    };
    if !ended.status.success() {
        return Err(HostError::Failed {
            command: command.to_string(),
            status: describe(ended.status),
            stderr: last_lines(&output),
        });
    }
    match fed {
        Ok(Ok(())) => Ok(output),
        // A program may end well without reading all that it was given.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(output),
        Ok(Err(error)) => Err(not_started(error)),
        Err(_) => Err(not_started(io::Error::other(
            "its input could not be given",
        ))),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn last_lines(output: &Output) -> String {
    let text = if output.stderr.trim().is_empty() {
        output.stdout.trim()
    } else {
        output.stderr.trim()
    };
    if text.is_empty() {
        return "it said nothing".into();
    }
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The caller's `PATH`, and the folders of administration programs that a user's lacks.
fn search_path() -> OsString {
    let given = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&given)
        .filter(|dir| dir.is_absolute())
        .collect();
    for dir in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !dirs.iter().any(|known| known == Path::new(dir)) {
            dirs.push(dir.into());
        }
    }
    std::env::join_paths(dirs).unwrap_or(given)
}

/// Where [`run`] would find a program.
pub fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.is_empty() {
        return None;
    }
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| executable(path));
    }
    std::env::split_paths(&search_path())
        .map(|dir| dir.join(program))
        .find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        Command::new("sh", ["-c", script])
    }

    #[test]
    fn input_and_output_larger_than_any_pipe_do_not_block() {
        let bytes: Vec<u8> = (0..4 << 20).map(|i| b"abcdefg\n"[i % 8]).collect();
        let output = run(&Command {
            stdin: Some(bytes.clone()),
            ..sh("tee /dev/stderr")
        })
        .unwrap();
        assert_eq!(output.stdout.as_bytes(), bytes);
        assert_eq!(output.stderr.as_bytes(), bytes);
    }

    #[test]
    fn a_program_that_reads_no_input_may_still_succeed() {
        let command = Command {
            stdin: Some(vec![b'x'; 1 << 20]),
            ..Command::new("true", [""; 0])
        };
        run(&command).unwrap();
    }

    #[test]
    fn a_failure_quotes_status_and_the_last_twenty_lines() {
        let error = run(&sh("seq 30 >&2; exit 3")).unwrap_err();
        let HostError::Failed { status, stderr, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(status, "exit status 3");
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[19]), (20, "11", "30"));
        let error = run(&sh("echo only this; false")).unwrap_err().to_string();
        assert!(error.ends_with("(exit status 1): only this"), "{error}");
        let error = run(&sh("kill -9 $$")).unwrap_err().to_string();
        assert!(error.contains("killed by signal 9"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&Command::new("bmslice-no-such-program", [""; 0])).unwrap_err();
        let HostError::NotStarted { program, source } = error else {
            panic!("{error}")
        };
        assert_eq!(program, "bmslice-no-such-program");
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        assert_eq!(find("bmslice-no-such-program"), None);
        assert_eq!(find("/etc/passwd"), None);
        assert!(find("sh").is_some());
    }

    #[test]
    fn the_locale_is_c_and_arguments_are_not_split() {
        let mut command = Command::new("printf", ["%s|", "two words", "$HOME", "*"]);
        assert_eq!(run(&command).unwrap().stdout, "two words|$HOME|*|");
        command = sh("echo $LC_ALL $EXTRA");
        command.env = vec![("EXTRA".into(), "given".into())];
        assert_eq!(run(&command).unwrap().stdout, "C given\n");
    }
}
