//! `bmslice inspect -o json` against `lstopo --of xml` (hwloc 2.9, with I/O devices): whole
//! processes, wall time and peak memory, on this server and on a captured one, in one run.
//!
//! The two take turns, so that what else the machine does falls on both; what counts is the median
//! of each, and their ratio. `cargo bench -p bmslice --bench lstopo -- [TREE…]`; each TREE is a
//! folder that stands for `/` (lstopo reads no archives). `LSTOPO` names another lstopo.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark runs programs and times them"
)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TURNS: usize = 41;

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
    let trees: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let mut pairs = vec![(
        "this server".to_owned(),
        Run::new(&lstopo, &["--of", "xml"]),
        Run::new(bmslice, &["inspect", "-o", "json"]),
    )];
    for tree in &trees {
        pairs.push((
            fs::canonicalize(tree).unwrap().display().to_string(),
            Run::new(&lstopo, &["--input", tree, "--of", "xml"]),
            Run::new(bmslice, &["inspect", "--root", tree, "-o", "json"]),
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
            "  bmslice {:8.2} ms, {ratio:.2} of it (wanted: 0.50)",
            ours.median().as_secs_f64() * 1e3
        );
        match ours.peak() {
            Some(kib) => {
                println!(
                    "  bmslice {:8.2} MiB at most (wanted: 30)",
                    kib as f64 / 1024.0
                );
                holds &= kib < 30 << 10;
            }
            None => println!("  SKIPPED: peak memory (GNU time is not installed)"),
        }
        holds &= ratio <= 0.5;
    }
    println!("{}", if holds { "holds" } else { "DOES NOT HOLD" });
}
