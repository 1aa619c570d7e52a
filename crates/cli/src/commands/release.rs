//! `bmslice release`: gives slices, or the whole server, back as it was.

use std::time::Duration;

use bmslice_apply::{ReleaseOptions, Released, Which};
use bmslice_model::SliceName;
use clap::Args;
use serde::Serialize;

use crate::Context;
use crate::commands::apply::failure;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::tables::{Page, count};
use crate::{ask, server};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Give slices back, or the whole server, as it was before the first `apply`: guests \
are shut down, then domains, virtual functions, drivers, huge pages, units and kernel arguments are \
put back in reverse order. Disks and seeds stay unless `--delete-images` is given. Asks first.";

/// What is given back, and how far to go.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The slices [default: all, and the host]
    #[arg(value_name = "SLICE")]
    pub slices: Vec<SliceName>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Also delete the disks and seeds that were made for them
    #[arg(long)]
    pub delete_images: bool,
    /// Seconds that a guest may take to shut down
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience: u64,
    /// End a guest that did not shut down in time, as by pulling its plug
    #[arg(long)]
    pub force: bool,
}

/// What was given back, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GivenBack {
    undone: usize,
    kept: Vec<String>,
    until_reboot: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let machine = server::machine(context)?;
    server::need_root(&machine)?;
    if !arguments.yes {
        let images = if arguments.delete_images {
            ", and their disks are DELETED"
        } else {
            "; their disks stay"
        };
        let what = if arguments.slices.is_empty() {
            format!("every slice is shut down and given back, and the host is put back{images}\n")
        } else {
            let names: Vec<&str> = arguments.slices.iter().map(SliceName::as_str).collect();
            format!("{} shut down and given back{images}\n", names.join(", "))
        };
        ask::confirm(&what, "Go on?", "`--yes` goes on without asking", context)?;
    }
    let which = if arguments.slices.is_empty() {
        Which::All
    } else {
        Which::Slices(arguments.slices.clone())
    };
    let options = ReleaseOptions {
        delete_images: arguments.delete_images,
        guest_patience: Duration::from_secs(arguments.patience),
        force: arguments.force,
        ..ReleaseOptions::default()
    };
    let mut progress = Progress::new(&context.output);
    let released = bmslice_apply::release(&machine, &which, &options, &mut |event| {
        progress.tell(event)
    });
    drop(progress);
    let Released {
        undone,
        kept,
        until_reboot,
    } = released.map_err(failure)?;
    let given = GivenBack {
        undone,
        kept,
        until_reboot: until_reboot.iter().map(ToString::to_string).collect(),
    };
    context.output.data(&given, || page(&given, context))?;
    Ok(Exit::Done)
}

fn page(given: &GivenBack, context: &Context) -> String {
    let mut page = Page::new(&context.output);
    page.line(&match given.undone {
        0 => "There was nothing to give back.".to_owned(),
        undone => format!("Given back: {} undone.", count(undone, "step")),
    });
    if !given.kept.is_empty() {
        page.line("These disks and seeds stay (`--delete-images` deletes them):");
        for path in &given.kept {
            page.line(&format!("  {path}"));
        }
    }
    if !given.until_reboot.is_empty() {
        let args = given.until_reboot.join(" ");
        page.paragraph(
            &format!("The running kernel keeps these arguments until the next reboot: {args}"),
            2,
        );
    }
    page.finish()
}
