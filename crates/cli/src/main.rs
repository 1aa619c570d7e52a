//! The `bmslice` command: a shim over the library crate beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    bmslice::run(std::env::args_os())
}
