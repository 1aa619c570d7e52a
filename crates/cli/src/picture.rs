//! `--svg` and `--map`: the server from above.

use std::path::{Path, PathBuf};

use bmslice_inventory::Inventory;
use bmslice_picture::Floor;
use bmslice_plan::Plan;
use clap::Args;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Target};
use crate::output::Format;

/// Which pictures.
#[derive(Debug, Clone, Args)]
pub struct Pictures {
    /// Also draw the server's floor plan into this file: packages, nodes, caches, cores, threads and
    /// PCI devices, with who has them; what is there is replaced only when it is an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Show the floor plan in the terminal, in place of the tables
    #[arg(long)]
    pub map: bool,
}

impl Pictures {
    /// Refuses what contradicts itself, before anything is read.
    pub(crate) fn check(&self, context: &Context) -> Result<(), Failure> {
        if self.map && context.output.format() != Format::Table {
            let text = "`--map` is for people, and `-o json` or `-o yaml` for programs";
            return Err(Failure::message(Exit::Usage, text)
                .hint("take one of them; `--svg FILE` goes with both"));
        }
        Ok(())
    }

    /// Draws what is asked for; whether the tables are still wanted.
    pub(crate) fn draw(
        &self,
        inventory: &Inventory,
        plan: Option<&Plan>,
        context: &Context,
    ) -> Result<bool, Failure> {
        if self.svg.is_none() && !self.map {
            return Ok(true);
        }
        let floor = Floor::of(inventory, plan);
        if let Some(path) = &self.svg {
            write(path, &floor.svg(), context)?;
        }
        if self.map {
            let width = usize::from(context.output.width());
            context
                .output
                .text(&floor.map(width, context.output.colors()))?;
        }
        Ok(!self.map)
    }
}

pub(crate) fn write(path: &Path, svg: &str, context: &Context) -> Result<(), Failure> {
    let target = Target {
        path,
        option: "--svg",
        usual: "server.svg",
        what: "SVG file",
        instead: "name a file: `--svg server.svg`",
    };
    target.replaces(|bytes| String::from_utf8_lossy(bytes).contains("<svg"))?;
    files::write(path, svg.as_bytes())?;
    context.output.note(&format!("drew `{}`", path.display()));
    Ok(())
}
