//! `bmslice resume`: what the units of `apply` call after each boot. Hidden: people call `apply`.

use bmslice_apply::{Outcome, Phase};
use clap::Args;

use crate::Context;
use crate::commands::apply::{binary, failure, not_up};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::server;

/// How much of it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only what must be there before libvirt starts: huge pages and virtual functions
    #[arg(long)]
    pub host: bool,
    /// Reboot to the kernel arguments before, unless this boot's were confirmed
    #[arg(long, conflicts_with = "host")]
    pub fall_back: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let machine = server::machine(context)?;
    let phase = if arguments.host {
        Phase::Host
    } else {
        Phase::All
    };
    let mut progress = Progress::new(&context.output);
    if arguments.fall_back {
        bmslice_apply::fall_back(&machine, &mut |event| progress.tell(event)).map_err(failure)?;
        return Ok(Exit::Done);
    }
    let outcome = bmslice_apply::resume(&machine, phase, &binary()?, &mut |event| {
        progress.tell(event)
    });
    // The unit that called this fails then, so that the server's own tools tell of it.
    if let Outcome::NotUp { guests, .. } = outcome.map_err(failure)? {
        return Err(Failure::refused(not_up(&guests)));
    }
    Ok(Exit::Done)
}
