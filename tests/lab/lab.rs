//! The emulated server as the test drives it: the lab's own command line, and ssh.

use std::cell::OnceCell;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// The lab's program and the one under test.
pub struct Lab {
    program: PathBuf,
    bmslice: PathBuf,
    state: PathBuf,
    begun: Instant,
    login: OnceCell<Login>,
}

/// How to log into the server. Sessions share one connection while the server runs: to agree on keys,
/// and to open a session with systemd-logind, takes an emulated server longer than most commands.
struct Login {
    namespace: String,
    options: Vec<String>,
    socket: String,
}

impl Login {
    fn of(status: &Value) -> Result<Self> {
        let text = |value: &Value| -> Result<String> {
            let text = value
                .as_str()
                .context("the lab does not tell how to log in")?;
            Ok(text.to_owned())
        };
        let (ssh, namespace) = (&status["ssh"], text(&status["networkNamespace"])?);
        let socket = format!("/run/{namespace}.story");
        let options = [
            format!("Port={}", ssh["port"]),
            format!("User={}", text(&ssh["user"])?),
            format!("IdentityFile={}", text(&ssh["key"])?),
            format!("UserKnownHostsFile={}", text(&ssh["knownHosts"])?),
            format!("HostKeyAlias={}", text(&ssh["hostKeyAlias"])?),
            format!("ControlPath={socket}"),
            "ControlMaster=auto".to_owned(),
            "ControlPersist=300".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
            "ConnectTimeout=10".to_owned(),
            "ServerAliveInterval=10".to_owned(),
        ];
        Ok(Self {
            namespace,
            options: options.to_vec(),
            socket,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        command.args(["--", "ssh", "-F", "none"]);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
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
            login: OnceCell::new(),
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

    fn login(&self) -> Result<&Login> {
        if self.login.get().is_none() {
            let status = self.run(&["status", "-o", "json"])?.expect(0)?.json()?;
            let _ = self.login.set(Login::of(&status)?);
        }
        self.login.get().context("no login")
    }

    /// Lets go of the connection that sessions share: a server that goes down without a word leaves
    /// its other end open, and who asks by it waits for an answer.
    fn hang_up(&self) -> Result<()> {
        let login = self.login()?;
        if std::path::Path::new(&login.socket).exists() {
            // Gone in between is gone as well.
            login
                .command()
                .args(["-O", "exit", "127.0.0.1"])
                .stdin(Stdio::null())
                .output()?;
        }
        Ok(())
    }

    /// Runs a shell line in the server.
    pub fn server(&self, line: &str) -> Result<Ran> {
        self.server_with(line, b"")
    }

    /// Runs a shell line in the server, with this as its input.
    pub fn server_with(&self, line: &str, input: &[u8]) -> Result<Ran> {
        let mut command = self.login()?.command();
        let mut child = command
            .args(["127.0.0.1", line])
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
        Ok(self.server(BOOT_ID)?.expect(0)?.stdout)
    }

    /// Waits until the server runs another boot than this one.
    pub fn wait_for_reboot(&self, before: &str, patience: Duration) -> Result<()> {
        self.hang_up()?;
        self.wait("the server to come back", patience, || {
            // By a connection of its own, which ends with the question.
            let ran = self.run(&["ssh", "--", BOOT_ID])?;
            Ok((ran.code == 0 && ran.stdout != before).then_some(()))
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
