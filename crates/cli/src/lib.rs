//! The `bmslice` command: arguments in, exit code out.
//!
//! Takes what the user typed; gives data on standard output and messages on standard error. Keeps
//! true: exit code 0 is done, 1 does not hold or was refused because of the input, 2 is usage, 3
//! could not be carried out ([`exit::Exit`], `failure::Failure`). Decides nothing about servers:
//! each command is a thin file over one of the libraries.

pub mod arguments;
mod ask;
mod commands;
mod documents;
mod environment;
pub mod exit;
mod failure;
mod files;
mod output;
mod own;
mod picture;
mod plan_change;
mod plan_difference;
mod plan_page;
mod progress;
mod server;
mod several;
mod several_page;
mod tables;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Bmslice;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::output::Output;

/// What every command gets.
struct Context {
    environment: Environment,
    output: Output,
}

/// Runs one command line, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Bmslice::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are data and no mistake.
            let code = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // A closed pipe is all that can go wrong here, and nobody is left to be told.
            let _ = error.print();
            return code.into();
        }
    };
    let context = Context {
        environment: Environment::read(),
        output: Output::new(arguments.output, arguments.color),
    };
    match commands::run(&arguments.command, &context) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            context
                .output
                .message(&failure.render(context.output.colors_messages()));
            failure.exit().into()
        }
    }
}
