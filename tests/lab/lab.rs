//! The emulated server as the test drives it: the lab's own command line, and ssh.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The lab's program and the one under test.
pub struct Lab {
    program: PathBuf,
    bmslice: PathBuf,
    state: PathBuf,
    begun: Instant,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; 255 is ssh's own.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its output, when it exited with this code.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "exit code {} where {code} was expected\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("this is not JSON:\n{}\n{}", self.stdout, self.stderr))
    }
}

impl Lab {
    /// Both programs as built beside this test, in release mode; the state is the demo's, for its
    /// images, so a demo's server starts anew. `BMSLICE_LAB_STATE` names another folder.
    pub fn new() -> Result<Self> {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()?;
        let built = std::env::var_os("BMSLICE_STORY_PROGRAMS")
            .map_or_else(|| repository.join("target/release"), PathBuf::from);
        let state = std::env::var_os("BMSLICE_LAB_STATE")
            .map_or_else(|| repository.join(".lab"), PathBuf::from);
        let lab = Self {
            program: built.join("bmslice-lab"),
            bmslice: built.join("bmslice"),
            state,
            begun: Instant::now(),
        };
        for program in [&lab.program, &lab.bmslice] {
            ensure!(
                program.exists(),
                "{} is missing: cargo build --release -p bmslice -p bmslice-lab",
                program.display()
            );
        }
        Ok(lab)
    }

    /// A heading, with the time since the start.
    pub fn say(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs();
        println!("[{:02}:{:02}] {text}", seconds / 60, seconds % 60);
        let _ = std::io::stdout().flush();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state").arg(&self.state).args(args);
        command
    }

    /// Runs the lab's program, its output shown as it comes.
    pub fn show(&self, args: &[&str]) -> Result<()> {
        let status = self.command(args).stdin(Stdio::null()).status()?;
        ensure!(
            status.success(),
            "`bmslice-lab {}` ended with {status}",
            args.join(" ")
        );
        Ok(())
    }

    /// Runs the lab's program, its output taken.
    pub fn run(&self, args: &[&str]) -> Result<Ran> {
        Ok(Ran::of(self.command(args).stdin(Stdio::null()).output()?))
    }

    /// Runs a shell line in the server.
    pub fn server(&self, line: &str) -> Result<Ran> {
        self.server_with(line, b"")
    }

    /// Runs a shell line in the server, with this as its input.
    pub fn server_with(&self, line: &str, input: &[u8]) -> Result<Ran> {
        let mut child = self
            .command(&["ssh", "--", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that reads nothing closes the pipe early; that is its right.
            let _ = stdin.write_all(input);
        }
        Ok(Ran::of(child.wait_with_output()?))
    }

    /// Puts a file into the server.
    pub fn push(&self, from: &str, to: &str) -> Result<()> {
        self.run(&["push", from, to])?.expect(0)?;
        Ok(())
    }

    /// Puts the program under test into the server.
    pub fn install(&self) -> Result<()> {
        self.push(&self.bmslice.to_string_lossy(), "/usr/local/bin/bmslice")?;
        self.server("chmod 755 /usr/local/bin/bmslice")?.expect(0)?;
        Ok(())
    }

    /// The server's boot, by the kernel's own id of it.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self
            .server("cat /proc/sys/kernel/random/boot_id")?
            .expect(0)?
            .stdout)
    }

    /// Waits until the server runs another boot than this one.
    pub fn wait_for_reboot(&self, before: &str, patience: Duration) -> Result<()> {
        self.wait("the server to come back", patience, || {
            Ok(self.boot_id().is_ok_and(|now| now != before).then_some(()))
        })
    }

    /// Asks again and again, until there is an answer or patience ends.
    pub fn wait<T>(
        &self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let mut said = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if begun.elapsed() > patience {
                bail!("waited {} s in vain for {what}", patience.as_secs());
            }
            if said.elapsed() > Duration::from_secs(20) {
                self.say(&format!(
                    "  … waiting for {what} ({} s)",
                    begun.elapsed().as_secs()
                ));
                said = Instant::now();
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}
