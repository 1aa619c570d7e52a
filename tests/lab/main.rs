//! The story on the emulated server, from its first boot to giving it back, with assertions.
//!
//! One program rather than many tests: each chapter stands on the one before, as it does on a real
//! server; the last has a small server of its own, which systemd-boot boots. It ends at the first thing that is not so, says what, and leaves the server running to
//! be looked at (`bmslice-lab ssh`).
//!
//! Run by `./test`. By hand: `cargo test -p bmslice-story`, after `cargo build --release -p bmslice
//! -p bmslice-lab`; `BMSLICE_STORY=skip` skips it, and says so.
#![allow(
    clippy::disallowed_methods,
    reason = "a test that drives two programs from outside"
)]

mod chapters;
mod lab;
mod systemd_boot;

use std::process::ExitCode;

use lab::Lab;

fn main() -> ExitCode {
    // `cargo nextest` and IDEs ask for a list first.
    if std::env::args().any(|arg| arg == "--list") {
        println!("story: test");
        return ExitCode::SUCCESS;
    }
    if std::env::var("BMSLICE_STORY").is_ok_and(|wish| wish == "skip") {
        println!("SKIPPED: the story on the emulated server (BMSLICE_STORY=skip)");
        println!("0 passed, 0 failed, 1 skipped");
        return ExitCode::SUCCESS;
    }
    let mut passed = 0;
    let outcome = Lab::new().and_then(|lab| {
        chapters::tell(&lab, &mut passed)?;
        systemd_boot::tell(&lab, &mut passed)
    });
    match outcome {
        Ok(()) => {
            println!("{passed} passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED: {error:#}");
            println!("{passed} passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
