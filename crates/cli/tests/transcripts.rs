//! What `bmslice` says, word for word: each file in `transcripts/` is a session in a shell, with
//! the exit code, standard output and standard error of every command.
//!
//! A session runs in a folder of its own, in which `examples` and `bad` (files with mistakes) are
//! those of the repository. Lines that start with `$ ` are commands, those with `# ` are remarks;
//! the rest is what is said. `BMSLICE_BLESS=1 cargo test -p bmslice --test transcripts` writes what
//! is said now.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that runs the program and reads its own files"
)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn sessions() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    files
}

/// Runs the commands of a session and gives it anew.
fn play(session: &str) -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, target) in [("examples", "examples"), ("bad", "crates/spec/tests/bad")] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(repository.join(target), link).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_bmslice"));
    let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
    let mut text = String::new();
    // What was said may look like a command or a remark, too: it ends with the exit code.
    let mut saying = false;
    for line in session.lines() {
        if line.starts_with("--- ") {
            saying = !line.starts_with("--- exit ");
        }
        if saying {
            continue;
        }
        if line.starts_with("# ") {
            writeln!(text, "{line}").unwrap();
        }
        let Some(command) = line.strip_prefix("$ ") else {
            continue;
        };
        let output = Command::new("bash")
            .args(["-c", &format!("set -o pipefail; {command}")])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", &path)
            .env("LC_ALL", "C.UTF-8")
            // Nothing answers there, whatever runs on this machine.
            .env(
                "BMSLICE_LIBVIRT_URI",
                "qemu:///session?socket=/nowhere/libvirt",
            )
            .stdin(Stdio::null())
            .output()
            .unwrap();
        writeln!(text, "$ {command}").unwrap();
        let said = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(&*folder.path().to_string_lossy(), "[FOLDER]")
                .replace(&*repository.to_string_lossy(), "[REPOSITORY]")
        };
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                let said = said(bytes);
                let end = if said.ends_with('\n') {
                    ""
                } else {
                    "\n[no line's end]\n"
                };
                write!(text, "--- {name}\n{said}{end}").unwrap();
            }
        }
        let code = output.status.code().unwrap_or(-1);
        write!(text, "--- exit {code}\n\n").unwrap();
    }
    text
}

#[test]
fn sessions_go_as_they_are_written() {
    let bless = std::env::var_os("BMSLICE_BLESS").is_some();
    let files = sessions();
    assert!(files.len() > 8, "{files:?}");
    let mut wrong = String::new();
    for file in files {
        let session = fs::read_to_string(&file).unwrap();
        let now = play(&session);
        if bless {
            fs::write(&file, &now).unwrap();
        } else if now != session {
            let name = file.file_name().unwrap().to_string_lossy();
            writeln!(wrong, "==== {name}: {}", first_difference(&session, &now)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_example_plan_is_what_the_command_makes_of_the_example_spec() {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/seed");
    let output = Command::new(env!("CARGO_BIN_EXE_bmslice"))
        .arg("plan")
        .arg(seed.join("slices.yaml"))
        .arg("--inventory")
        .arg(seed.join("inventory.json"))
        .args(["-o", "json"])
        .output()
        .unwrap();
    let example = fs::read(seed.join("plan.json")).unwrap();
    assert!(output.status.success());
    assert!(
        output.stdout == example,
        "examples/seed/plan.json is another plan"
    );
}

/// The lab's server is an example, so that its spec can be planned without it.
#[test]
fn the_example_of_the_labs_server_is_what_its_capture_is_read_as() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let capture = "tests/machines/two-nodes-with-vfs-and-pages/server.tar.gz";
    let output = Command::new(env!("CARGO_BIN_EXE_bmslice"))
        .args(["inspect", "-o", "json", "--root"])
        .arg(repository.join(capture))
        .output()
        .unwrap();
    assert!(output.status.success());
    let example = repository.join("examples/lab-server.json");
    if std::env::var_os("BMSLICE_BLESS").is_some() {
        fs::write(&example, &output.stdout).unwrap();
    }
    assert!(
        output.stdout == fs::read(example).unwrap(),
        "examples/lab-server.json is of another reading"
    );
}

/// Where two texts part, with the lines around it.
fn first_difference(before: &str, now: &str) -> String {
    let same = before
        .lines()
        .zip(now.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let lines = |text: &str| -> String {
        let lines: Vec<&str> = text.lines().skip(same.saturating_sub(2)).take(8).collect();
        lines.join("\n    ")
    };
    format!(
        "from line {}\n  written:\n    {}\n  said:\n    {}",
        same + 1,
        lines(before),
        lines(now)
    )
}
