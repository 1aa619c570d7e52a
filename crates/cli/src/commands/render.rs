//! `bmslice render`: every artifact of a plan as a file, to read or to carry elsewhere.

use std::path::PathBuf;

use bmslice_render::{Artifacts, RenderOptions};
use clap::Args;
use serde::Serialize;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, There};
use crate::output::Output;
use crate::tables::{Page, or_dash, table};
use crate::{documents, server};

/// Folders that a rendering has, and nothing else.
const FOLDERS: [&str; 4] = ["domains", "host", "cloud-init", "images"];

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Write every artifact of a plan to a folder: domain XML, kernel arguments, systemd \
units, cloud-init. The same plan gives the same bytes. Nothing is decided here, and nothing but the \
folder is touched.";

/// Which plan, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The plan file (`bmslice plan SPEC --out FILE`), JSON or YAML
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// The folder; made when missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where bmslice is installed on the server; the units run it
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/bmslice")]
    pub binary: String,
}

/// What was written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    /// Below the folder.
    path: String,
    /// `0644`.
    mode: String,
    /// Where `apply` installs it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    installed: Option<&'static str>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let plan = documents::plan(&arguments.plan)?;
    let options = RenderOptions {
        binary: arguments.binary.clone(),
    };
    let artifacts = bmslice_render::render(&plan, &options).map_err(|error| {
        Failure::refused(format!("`{}`: {error}", arguments.plan.display())).hint(error.hint())
    })?;
    check_folder(&arguments.out)?;
    let machine = server::machine(context)?;
    let mut written = Vec::new();
    for (path, artifact) in &artifacts {
        let Some(whole) = files::below(&arguments.out, path) else {
            let text = format!("the artifact `{path}` would leave the folder");
            return Err(Failure::failed(text));
        };
        files::write_with(&machine, &whole, &artifact.bytes, artifact.mode)?;
        written.push(Written {
            path: path.clone(),
            mode: format!("{:04o}", artifact.mode),
            installed: artifact.installed,
        });
    }
    for left in strangers(&arguments.out, &artifacts)? {
        let text = format!("`{left}` was there before, and is not of this plan");
        context.output.warn(&text, None);
    }
    context
        .output
        .data(&written, || page(&written, arguments, &context.output))?;
    Ok(Exit::Done)
}

/// A folder that holds something else is not littered.
fn check_folder(out: &std::path::Path) -> Result<(), Failure> {
    let shown = out.display();
    match files::look(out)? {
        There::Nothing | There::EmptyFolder => Ok(()),
        There::File(_) | There::Special => Err(Failure::refused(format!("`{shown}` is a file"))
            .hint("`--out` names a folder; it is made when missing")),
        There::Folder => {
            let other = files::entries(out)?
                .into_iter()
                .find(|name| !FOLDERS.contains(&name.as_str()));
            match other {
                None => Ok(()),
                Some(other) => Err(Failure::refused(format!(
                    "`{shown}` holds something else than a rendering: `{other}`"
                ))
                .hint("name a new folder, or an empty one")),
            }
        }
    }
}

/// Files of an earlier rendering that this one has not.
fn strangers(out: &std::path::Path, artifacts: &Artifacts) -> Result<Vec<String>, Failure> {
    let there = files::tree(out)?;
    Ok(there
        .into_iter()
        .filter(|path| !artifacts.contains_key(path))
        .collect())
}

fn page(written: &[Written], arguments: &Arguments, output: &Output) -> String {
    let mut page = Page::new(output);
    let mut table = table(output, &["file", "mode", "installed as…"]);
    for file in written {
        table.add_row(vec![
            file.path.clone(),
            file.mode.clone(),
            or_dash(file.installed),
        ]);
    }
    page.heading(&format!("Written to {}", arguments.out.display()));
    page.table(&table);
    page.finish()
}
