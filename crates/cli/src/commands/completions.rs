//! `bmslice completions`: what a shell completes.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Context;
use crate::arguments::Bmslice;
use crate::exit::Exit;
use crate::failure::Failure;

/// Which shell.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Bmslice::command(),
        "bmslice",
        &mut script,
    );
    context.output.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
