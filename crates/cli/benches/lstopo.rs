//! `bmslice inspect -o json` against `lstopo --of xml` (hwloc 2.9, with I/O devices): whole
//! processes, wall time and peak memory, on this server and on captured ones of 256 CPUs, in one run.
//!
//! The two take turns, so that what else the machine does falls on both; what counts is the median
//! of each, and their ratio. `cargo bench -p bmslice --bench lstopo -- [TREE…]`; each TREE is one
//! more folder that stands for `/` (lstopo reads no archives). Without any, the captured servers are
//! one that is made here (two sockets, eight nodes, 256 CPUs, as Linux 6 shows them) and a real one,
//! hwloc's `256ppc-8n8s4t`, where it lies beside the checkout. `LSTOPO` names another lstopo. Exit
//! code 1 when something does not hold or could not be measured.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark runs programs and times them"
)]

#[path = "lstopo/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TURNS: usize = 41;
/// Where hwloc's captures of real servers lie: beside a checkout, not in it. `BMSLICE_MACHINES` names
/// another folder.
const MACHINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/machines");

struct Run {
    program: String,
    arguments: Vec<String>,
    times: Vec<Duration>,
}

impl Run {
    fn new(program: &str, arguments: &[&str]) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.iter().map(|a| (*a).into()).collect(),
            times: Vec::new(),
        }
    }

    fn turn(&mut self) {
        let start = Instant::now();
        let status = Command::new(&self.program)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        self.times.push(start.elapsed());
        assert!(status.success(), "{} {:?}", self.program, self.arguments);
    }

    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times[times.len() / 2]
    }

    /// The most memory that it had, in KiB, as GNU time tells it.
    fn peak(&self) -> Option<u64> {
        let output = Command::new("/usr/bin/time")
            .args(["-f", "%M", &self.program])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        text.lines().last()?.trim().parse().ok()
    }
}

/// The folder that stands for `/` in a folder around it.
fn inner(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("sys").is_dir())
        .map(|path| path.display().to_string())
}

/// The captured servers to read: those that were named, or one that is made and a real one.
fn trees(kept: &Path) -> Vec<(String, String)> {
    let named: Vec<(String, String)> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(|tree| {
            let path = fs::canonicalize(&tree).unwrap().display().to_string();
            (path.clone(), path)
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let made = kept.join("made");
    server::write(&made);
    let mut trees = vec![(
        "a server of 256 CPUs that was made here".to_owned(),
        made.display().to_string(),
    )];
    let real = kept.join("real");
    fs::create_dir(&real).unwrap();
    let machines = std::env::var("BMSLICE_MACHINES").unwrap_or_else(|_| MACHINES.into());
    let archive = format!("{machines}/256ppc-8n8s4t.tar.bz2");
    let unpacked = Command::new("tar")
        .args(["xjf", &archive, "-C"])
        .arg(&real)
        .stderr(Stdio::null())
        .status();
    match inner(&real).filter(|_| unpacked.is_ok_and(|status| status.success())) {
        Some(tree) => trees.push(("256ppc-8n8s4t, a real server of 256 CPUs".to_owned(), tree)),
        None => println!("SKIPPED: a real server of 256 CPUs ({archive} is not there)"),
    }
    trees
}

fn main() {
    let lstopo = std::env::var("LSTOPO").unwrap_or_else(|_| "lstopo-no-graphics".into());
    let bmslice = env!("CARGO_BIN_EXE_bmslice");
    match Command::new(&lstopo).arg("--version").output() {
        Ok(output) => print!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => {
            println!("SKIPPED: `{lstopo}` is not installed (Debian's package hwloc-nox)");
            return;
        }
    }
    // In memory where there is such a folder: what is measured is reading, not a disk.
    let kept = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let mut pairs = vec![(
        "this server".to_owned(),
        Run::new(&lstopo, &["--of", "xml"]),
        Run::new(bmslice, &["inspect", "-o", "json"]),
    )];
    for (name, tree) in trees(kept.path()) {
        let theirs = ["--input", &tree, "--if", "fsroot", "--of", "xml"];
        pairs.push((
            name,
            Run::new(&lstopo, &theirs),
            Run::new(bmslice, &["inspect", "--root", &tree, "-o", "json"]),
        ));
    }
    let mut holds = true;
    for (name, theirs, ours) in &mut pairs {
        // Once to have the programs and the tree in memory.
        theirs.turn();
        ours.turn();
        theirs.times.clear();
        ours.times.clear();
        for _ in 0..TURNS {
            theirs.turn();
            ours.turn();
        }
        let ratio = ours.median().as_secs_f64() / theirs.median().as_secs_f64();
        println!("{name}: medians of {TURNS} turns");
        println!("  lstopo  {:8.2} ms", theirs.median().as_secs_f64() * 1e3);
        println!(
            "  bmslice {:8.2} ms, {ratio:.2} of it (wanted: at most 0.50)",
            ours.median().as_secs_f64() * 1e3
        );
        match ours.peak() {
            Some(kib) => {
                println!(
                    "  bmslice {:8.2} MiB at most (wanted: below 30 MB)",
                    kib as f64 / 1024.0
                );
                holds &= kib * 1024 < 30_000_000;
            }
            None => {
                println!("  peak memory was not measured: GNU time is not installed");
                holds = false;
            }
        }
        holds &= ratio <= 0.5;
    }
    println!("{}", if holds { "holds" } else { "DOES NOT HOLD" });
    drop(kept);
    if !holds {
        std::process::exit(1);
    }
}
