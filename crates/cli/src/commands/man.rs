//! `bmslice man`: manual pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::Context;
use crate::arguments::Bmslice;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;

/// Where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write bmslice.1 and a page for each command into this folder, instead of printing bmslice.1
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let mut command = Bmslice::command();
    command.build();
    let Some(folder) = &arguments.out else {
        context.output.text(&page(command)?)?;
        return Ok(Exit::Done);
    };
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        // `build` has set the whole name: `bmslice-plan`.
        let name = sub
            .get_display_name()
            .unwrap_or_else(|| sub.get_name())
            .to_owned();
        if sub.get_name() != "help" {
            let path = folder.join(format!("{name}.1"));
            files::write(&path, page(sub.clone())?.as_bytes())?;
        }
    }
    files::write(&folder.join("bmslice.1"), page(command)?.as_bytes())?;
    Ok(Exit::Done)
}

fn page(command: clap::Command) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    Man::new(command)
        .render(&mut bytes)
        .map_err(|error| Failure::failed(format!("cannot write the manual page: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
