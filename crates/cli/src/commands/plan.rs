//! `bmslice plan`: where everything goes, before anything is done.

use std::path::{Path, PathBuf};

use bmslice_host::Machine;
use bmslice_inventory::Inventory;
use bmslice_plan::Plan;
use bmslice_planner::Running;
use clap::Args;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Target};
use crate::output::Format;
use crate::picture::Pictures;
use crate::server::{self, Source};
use crate::tables::count;
use crate::{documents, plan_page, several};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Compute the placement and show it: who has which CPUs, memory and NICs, what is \
done to the host, and why it is so. Changes nothing on the server. Refuses with the exact reason when \
the slices do not fit, and names the nearest change with which they would.

The same spec and server give the same plan, byte for byte. On a server that is sliced already, what \
is not changed stays where it is.

  bmslice plan red-blue.yaml --out plan.json
  bmslice plan red-blue.yaml --inventory server.json      # anywhere, from `inspect -o json`

With several inventories one spec is planned over all of these servers, as many slices as find a \
place, and each server gets a plan of its own:

  bmslice plan fleet.yaml --inventory servers/ --out plans/";

/// What is wanted, and of which server.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The spec (YAML or JSON); `-` is standard input
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,
    /// Read a captured tree instead of this server: a folder, or an archive (tar, .gz, .bz2, .xz,
    /// .zst)
    #[arg(long, value_name = "DIR|ARCHIVE", conflicts_with = "inventory")]
    pub root: Option<PathBuf>,
    /// Read an inventory (`bmslice inspect -o json`) instead of this server; `-` is standard input.
    /// Given several times, or as a folder of inventories: plan these servers together
    #[arg(long, value_name = "FILE|DIR")]
    pub inventory: Vec<PathBuf>,
    /// The plan in force there, which the new one follows [default: on this server, the applied
    /// one]. For several servers: given several times, or as a folder of plans
    #[arg(long, value_name = "PLAN|DIR")]
    pub follows: Vec<PathBuf>,
    /// Let slices that are in force move, as few as can be, where others would have no place; the
    /// moved guests restart
    #[arg(long)]
    pub repack: bool,
    /// Of several servers, fill the emptiest first instead of one after the other, as `place: spread`
    /// in the spec's `fleet` does: first those with the fewest slices of the same tenant
    #[arg(long)]
    pub spread: bool,
    /// Also write the plan to this file, whole or not at all; what is there is replaced only when
    /// it is a plan. For several servers: a folder, which gets a plan for each
    #[arg(long, value_name = "FILE|DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
}

impl Arguments {
    /// Whether guests in force may move.
    pub(crate) fn running(&self) -> Running {
        if self.repack {
            Running::MayMove
        } else {
            Running::Stays
        }
    }

    fn source(&self) -> Source {
        Source {
            root: self.root.clone(),
            inventory: self.inventory.first().cloned(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    arguments.pictures.check(context)?;
    if several::is_meant(arguments) {
        return several::run(arguments, context);
    }
    let spec = documents::spec(&arguments.spec)?;
    let (inventory, previous) = server(arguments, context)?;
    let running = arguments.running();
    let plan = documents::planned_with(&spec, &inventory, previous.as_ref(), running)?;
    if let Some(out) = &arguments.out {
        write(&plan, out, context)?;
    }
    if !arguments.pictures.draw(&inventory, Some(&plan), context)? {
        return Ok(Exit::Done);
    }
    match context.output.format() {
        Format::Table => {
            context
                .output
                .text(&plan_page::page(&plan, previous.as_ref(), &context.output))?
        }
        // The plan file itself, byte for byte.
        Format::Json => context.output.text(&plan.to_json())?,
        Format::Yaml => context.output.data(plan.parts(), String::new)?,
    }
    Ok(Exit::Done)
}

fn server(arguments: &Arguments, context: &Context) -> Result<(Inventory, Option<Plan>), Failure> {
    let given = match arguments.follows.as_slice() {
        [] => None,
        [path] => Some(documents::plan(path)?),
        _ => {
            let text = "`--follows` is given several times, and one server is planned";
            return Err(Failure::message(Exit::Usage, text)
                .hint("give `--inventory` of each server, or a folder of inventories"));
        }
    };
    let source = arguments.source();
    if !source.is_live() {
        return Ok((source.read(context)?, given));
    }
    let machine = server::machine(context)?;
    let previous = match given {
        Some(plan) => Some(plan),
        None => in_force(&machine, context)?,
    };
    Ok((server::live(&machine, context)?.into_inner(), previous))
}

/// The plan that is in force on this server.
pub(crate) fn in_force(machine: &dyn Machine, context: &Context) -> Result<Option<Plan>, Failure> {
    let path = bmslice_apply::PLAN;
    match machine.root().read_text(path) {
        Ok(text) => Plan::parse(&text).map(Some).map_err(|error| {
            Failure::failed(format!(
                "the plan in force, `{path}`, cannot be used: {error}"
            ))
            .hint("apply a plan file again to replace it, or `bmslice release`")
        }),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound => Ok(None),
            std::io::ErrorKind::PermissionDenied => {
                context.output.warn(
                    "only root can see whether a plan is in force here; planned as if none were",
                    Some("run it with `sudo`"),
                );
                Ok(None)
            }
            _ => {
                let error = files::plain(&error);
                Err(Failure::failed(format!("cannot read `{path}`: {error}")))
            }
        },
    }
}

fn write(plan: &Plan, out: &Path, context: &Context) -> Result<(), Failure> {
    let target = Target {
        path: out,
        option: "--out",
        usual: "plan.json",
        what: "plan",
        instead: "`-o json` writes the plan to standard output",
    };
    let old = target.replaces(documents::holds_plan)?;
    let shown = out.display();
    let text = plan.to_json();
    let slices = count(plan.slices().len(), "slice");
    match old {
        Some(bytes) if bytes == text.as_bytes() => {
            context
                .output
                .note(&format!("`{shown}` holds this plan already"));
            return Ok(());
        }
        Some(_) => {
            files::write(out, text.as_bytes())?;
            let note = format!("wrote the plan ({slices}) to `{shown}`, in place of another one");
            context.output.note(&note);
        }
        None => {
            files::write(out, text.as_bytes())?;
            context
                .output
                .note(&format!("wrote the plan ({slices}) to `{shown}`"));
        }
    }
    Ok(())
}
