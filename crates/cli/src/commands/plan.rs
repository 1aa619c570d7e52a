//! `bmslice plan`: where everything goes, before anything is done.

use std::path::{Path, PathBuf};

use bmslice_host::Machine;
use bmslice_inventory::Inventory;
use bmslice_plan::Plan;
use clap::Args;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Target};
use crate::output::Format;
use crate::picture::Pictures;
use crate::server::{self, Source};
use crate::tables::count;
use crate::{documents, plan_page};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Compute the placement and show it: who has which CPUs, memory and NICs, what is \
done to the host, and why it is so. Changes nothing on the server. Refuses with the exact reason when \
the slices do not fit, and names the nearest change with which they would.

The same spec and server give the same plan, byte for byte. On a server that is sliced already, what \
is not changed stays where it is.

  bmslice plan red-blue.yaml --out plan.json
  bmslice plan red-blue.yaml --inventory server.json      # anywhere, from `inspect -o json`";

/// What is wanted, and of which server.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The spec (YAML or JSON); `-` is standard input
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The plan in force there, which the new one follows [default: on this server, the applied one]
    #[arg(long, value_name = "PLAN")]
    pub follows: Option<PathBuf>,
    /// Also write the plan to this file, whole or not at all; what is there is replaced only when
    /// it is a plan
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    arguments.pictures.check(context)?;
    let spec = documents::spec(&arguments.spec)?;
    let (inventory, previous) = server(arguments, context)?;
    let plan = documents::planned(&spec, &inventory, previous.as_ref())?;
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
    let given = match &arguments.follows {
        Some(path) => Some(documents::plan(path)?),
        None => None,
    };
    if !arguments.source.is_live() {
        return Ok((arguments.source.read(context)?, given));
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
    let old = target.replaces(|bytes| Plan::parse(&String::from_utf8_lossy(bytes)).is_ok())?;
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
