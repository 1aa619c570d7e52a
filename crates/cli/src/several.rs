//! `bmslice plan` on several servers: their inventories, the plans in force, a plan for each.
//!
//! Takes files and folders; gives a page or data, and a folder of plans and pictures. Keeps true:
//! every plan has passed the checker before anything is written, and nothing is written when a slice
//! has no place or a file of the user's is in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bmslice_inventory::Inventory;
use bmslice_picture::Floor;
use bmslice_plan::Plan;
use bmslice_planner::servers::{Fill, Member, Options, Placement, plan_servers};
use bmslice_spec::Slicing;

use crate::Context;
use crate::commands::plan::Arguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Target, There};
use crate::output::Format;
use crate::several_page;
use crate::tables::count;
use crate::{documents, picture, server};

/// Hints that are told; more of them nobody reads.
const HINTS: usize = 5;

/// A server, where it was read from, and what is in force there.
pub(crate) struct Read {
    pub file: PathBuf,
    pub inventory: Inventory,
    pub previous: Option<Plan>,
}

impl Read {
    pub(crate) fn name(&self) -> &str {
        &self.inventory.machine.hostname
    }
}

/// What is shown.
pub(crate) struct Planned<'a> {
    pub spec: &'a Slicing,
    pub servers: &'a [Read],
    pub placement: &'a Placement,
    /// Plans in force on servers that are not among these.
    pub lost: &'a [Plan],
}

/// Whether more than one server is asked for.
pub(crate) fn is_meant(arguments: &Arguments) -> bool {
    arguments.inventory.len() > 1 || arguments.inventory.iter().any(|path| path.is_dir())
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let spec = documents::spec(&arguments.spec)?;
    let mut servers = inventories(&arguments.inventory)?;
    let lost = in_force(&arguments.follows, &mut servers)?;
    let members: Vec<Member<'_>> = servers
        .iter()
        .map(|read| Member {
            inventory: &read.inventory,
            previous: read.previous.as_ref(),
        })
        .collect();
    let options = Options {
        fill: if arguments.spread {
            Fill::Spread
        } else {
            spec.fleet.place.into()
        },
        running: arguments.running(),
    };
    unknown_servers(&spec, &servers, context);
    let placement = plan_servers(&spec, &members, options)
        .map_err(|error| Failure::refused(error.to_string()))?;
    for (read, share) in servers.iter().zip(&placement.shares) {
        if let (Some(part), Some(plan)) = (&share.spec, &share.plan) {
            documents::judged(part, &read.inventory, plan, read.previous.as_ref())?;
        }
    }
    let result = Planned {
        spec: &spec,
        servers: &servers,
        placement: &placement,
        lost: &lost,
    };
    let all = placement.unplaced.is_empty();
    if all {
        write(arguments, &result, context)?;
    }
    show(arguments, &result, context)?;
    if all {
        return Ok(Exit::Done);
    }
    let text = format!(
        "{} no place{}",
        match placement.unplaced.as_slice() {
            [one] => format!("slice `{}` has", one.slice),
            more => format!("{} have", count(more.len(), "slice")),
        },
        if arguments.out.is_some() || arguments.pictures.svg.is_some() {
            ", and nothing was written"
        } else {
            ""
        }
    );
    let mut failure = Failure::refused(text);
    // Of replicas, one change is all of them's; it was tried for the one that is named.
    let mut told = BTreeSet::new();
    let alone = placement.unplaced.len() == 1;
    let hints: Vec<String> = placement
        .unplaced
        .iter()
        .filter_map(|it| Some((it, it.change.as_ref()?)))
        .map(|(it, (server, change))| (it, several_page::hint(server, change)))
        .filter(|(_, hint)| told.insert(hint.clone()))
        .map(|(it, hint)| match alone {
            true => hint,
            false => format!("for `{}`: {hint}", it.slice),
        })
        .collect();
    for hint in hints.iter().take(HINTS) {
        failure = failure.hint(hint);
    }
    if hints.len() > HINTS {
        let more = hints.len() - HINTS;
        failure = failure.hint(format!(
            "`-o json` has those of {} more",
            count(more, "slice")
        ));
    }
    Err(failure)
}

/// Warns of servers that the spec gives labels and nobody an inventory.
fn unknown_servers(spec: &Slicing, servers: &[Read], context: &Context) {
    let named = spec.fleet.servers.iter().map(|server| server.name.as_str());
    let absent = named.filter(|name| servers.iter().all(|read| read.name() != *name));
    let absent: Vec<String> = absent.map(|name| format!("`{name}`")).collect();
    if absent.is_empty() {
        return;
    }
    let text = format!(
        "the spec's `fleet.servers` names {}, of which there is no inventory",
        absent.join(", ")
    );
    let hint = "a server is known by its host name; give `--inventory` of it, too";
    context.output.warn(&text, Some(hint));
}

/// Reads files, and of folders every inventory in them.
fn inventories(paths: &[PathBuf]) -> Result<Vec<Read>, Failure> {
    let mut servers: Vec<Read> = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            if file != *path && documents::is_plan(&file)? {
                continue;
            }
            let inventory = server::from_file(&file)?;
            let name = inventory.machine.hostname.clone();
            if let Some(other) = servers.iter().find(|other| other.name() == name) {
                let (a, b) = (other.file.display(), file.display());
                let text = if other.file == file {
                    format!("the inventory `{a}` is given twice")
                } else {
                    format!("`{a}` and `{b}` are both inventories of the server `{name}`")
                };
                return Err(Failure::refused(text)
                    .hint("leave one of them out; each server is known by its host name"));
            }
            servers.push(Read {
                file,
                inventory,
                previous: None,
            });
        }
    }
    if servers.is_empty() {
        let shown: Vec<String> = paths.iter().map(|p| format!("`{}`", p.display())).collect();
        let text = format!("there is no inventory in {}", shown.join(", "));
        return Err(Failure::refused(text)
            .hint("put one file for each server there, from `bmslice inspect -o json`"));
    }
    Ok(servers)
}

/// A file itself; of a folder, its `.json` files by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let names = files::entries(path)?.into_iter();
    Ok(names
        .filter(|name| name.ends_with(".json"))
        .map(|name| path.join(name))
        .filter(|file| !file.is_dir())
        .collect())
}

/// Gives each server the plan in force of its name; the others are of servers that are lost.
fn in_force(paths: &[PathBuf], servers: &mut [Read]) -> Result<Vec<Plan>, Failure> {
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut lost = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            if file != *path && !documents::is_plan(&file)? {
                continue;
            }
            let plan = documents::plan(&file)?;
            let name = plan.parts().server.hostname.clone();
            if let Some(other) = seen.insert(name.clone(), file.clone()) {
                let (a, b) = (other.display(), file.display());
                let text = format!("`{a}` and `{b}` are both plans of the server `{name}`");
                return Err(Failure::refused(text).hint("leave out the one that is not in force"));
            }
            match servers.iter_mut().find(|read| read.name() == name) {
                Some(read) => read.previous = Some(plan),
                None => lost.push(plan),
            }
        }
    }
    Ok(lost)
}

/// A file of a server in a folder.
fn of_server(folder: &Path, name: &str, ending: &str) -> Result<PathBuf, Failure> {
    let file = files::below(folder, &format!("{name}.{ending}"));
    file.filter(|_| !name.contains('/')).ok_or_else(|| {
        Failure::refused(format!("the host name `{name}` cannot be a file's name"))
            .hint("correct `machine.hostname` in its inventory")
    })
}

/// Looks at a folder that is to be written to.
fn need(folder: &Path, option: &str) -> Result<bool, Failure> {
    let shown = folder.display();
    files::need_folder(folder)?;
    match files::look(folder)? {
        There::Nothing => Ok(false),
        There::Folder | There::EmptyFolder => Ok(true),
        There::File(_) | There::Special => Err(Failure::refused(format!("`{shown}` is a file"))
            .hint(format!(
                "`{option}` names a folder when several servers are planned; it is made when missing"
            ))),
    }
}

/// Writes plans and pictures, after looking that nothing is in their way.
fn write(arguments: &Arguments, result: &Planned<'_>, context: &Context) -> Result<(), Failure> {
    let plans = || {
        let shares = result.servers.iter().zip(&result.placement.shares);
        shares.filter_map(|(read, share)| Some((read, share.plan.as_ref()?)))
    };
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    if let Some(folder) = &arguments.out {
        let there = need(folder, "--out")?;
        for (read, plan) in plans() {
            let file = of_server(folder, read.name(), "json")?;
            if there {
                target(&file, "--out", "plan").replaces(documents::holds_plan)?;
            }
            files.push((file, plan.to_json().into_bytes()));
        }
    }
    let mut pictures: Vec<(PathBuf, String)> = Vec::new();
    if let Some(folder) = &arguments.pictures.svg {
        let there = need(folder, "--svg")?;
        for (read, share) in result.servers.iter().zip(&result.placement.shares) {
            let file = of_server(folder, read.name(), "svg")?;
            if there {
                let is_svg = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("<svg");
                target(&file, "--svg", "SVG file").replaces(is_svg)?;
            }
            let floor = Floor::of(&read.inventory, share.plan.as_ref());
            pictures.push((file, floor.svg()));
        }
    }
    for (file, bytes) in &files {
        files::write(file, bytes)?;
    }
    for (file, svg) in &pictures {
        if file.parent().is_some_and(Path::is_dir) {
            picture::write(file, svg, context)?;
        } else {
            files::write(file, svg.as_bytes())?;
            context.output.note(&format!("drew `{}`", file.display()));
        }
    }
    if let Some(folder) = &arguments.out {
        let shown = folder.display();
        let plans = count(files.len(), "plan");
        context.output.note(&format!("wrote {plans} to `{shown}`"));
        left_over(folder, &files, context)?;
    }
    Ok(())
}

fn target<'a>(path: &'a Path, option: &'a str, what: &'a str) -> Target<'a> {
    Target {
        path,
        option,
        usual: "",
        what,
        instead: "name a folder",
    }
}

/// Plans that an earlier run wrote for servers which have no slices now.
fn left_over(
    folder: &Path,
    written: &[(PathBuf, Vec<u8>)],
    context: &Context,
) -> Result<(), Failure> {
    for file in files_of(folder)? {
        if written.iter().all(|(path, _)| *path != file) && documents::is_plan(&file)? {
            let text = format!("`{}` was there before, and is not of these", file.display());
            context
                .output
                .warn(&text, Some("its server has no slices now, or is gone"));
        }
    }
    Ok(())
}

fn show(arguments: &Arguments, result: &Planned<'_>, context: &Context) -> Result<(), Failure> {
    let output = &context.output;
    if arguments.pictures.map {
        for (read, share) in result.servers.iter().zip(&result.placement.shares) {
            let floor = Floor::of(&read.inventory, share.plan.as_ref());
            let map = floor.map(usize::from(output.width()), output.colors());
            output.text(&format!("{map}\n"))?;
        }
        return Ok(());
    }
    match output.format() {
        Format::Table => output.text(&several_page::page(result, output)),
        Format::Json | Format::Yaml => output.data(&several_page::data(result), String::new),
    }
}
