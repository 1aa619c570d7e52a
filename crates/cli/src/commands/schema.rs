//! `bmslice schema`: the JSON schema of the spec.

use clap::Args;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Print the JSON schema of the spec (draft 2020-12), for editors and checkers. It \
knows the form of a file; what else must hold (unique names, whole pages, …) `bmslice plan` says.

For the YAML language server, put this line first into a spec:
  # yaml-language-server: $schema=slicing.schema.json";

/// Nothing but the global options.
#[derive(Debug, Args)]
pub struct Arguments {}

pub(crate) fn run(_: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let schema = bmslice_spec::schema();
    match context.output.format() {
        // A schema is JSON for people, too.
        Format::Table => context.output.text(&format!("{schema:#}\n"))?,
        _ => context.output.data(&schema, String::new)?,
    }
    Ok(Exit::Done)
}
