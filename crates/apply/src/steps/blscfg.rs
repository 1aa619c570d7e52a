//! GRUB that reads boot loader entries: what it is told by its environment block.
//!
//! ADR 0013 has the states. Takes the path of the block (`grubenv`) and what `grubby` prints; gives
//! ids of entries, with their `.conf`. Source: the GRUB manual ("Environment block", grub-reboot),
//! grubby(8), and Fedora's GRUB (`00_header`, `10_linux`, `blscfg`). Keeps true: of the block, only
//! `next_entry` is written.

use bmslice_host::{Command, HostError};
use bmslice_model::KernelArg;
use bmslice_render::{grub_can_carry, trial_entry_digest};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::steps::boot::{conflicts, running_args};

/// What writes the block.
const EDITENV: &str = "grub2-editenv";
/// The entry that boots once.
const NEXT: &str = "next_entry";

/// Whether GRUB's script language, of which an entry's arguments become a line, leaves an argument
/// as it is written.
fn can_carry(arg: &KernelArg) -> bool {
    grub_can_carry(arg)
        && !arg
            .as_str()
            .contains([';', '&', '|', '<', '>', '{', '}', '#'])
}

/// What keeps this GRUB from trying an entry once.
pub fn precondition(
    look: &Look<'_>,
    env: &str,
    args: &[KernelArg],
) -> Result<Vec<Problem>, HostError> {
    if !look.machine.has_program(EDITENV) {
        return Ok(vec![
            Problem::new(format!(
                "the plan has kernel arguments for GRUB's entries, and there is no `{EDITENV}` here"
            ))
            .hint("`dnf install grub2-tools-minimal`"),
        ]);
    }
    let mut problems: Vec<Problem> = Config::read(look, env)?.lacks().into_iter().collect();
    for arg in args.iter().filter(|arg| !can_carry(arg)) {
        problems.push(
            Problem::new(format!(
                "GRUB would change the kernel argument `{arg}` on its way to the kernel"
            ))
            .hint("leave it out of the plan, or write it without quotes, `$`, `;`, `&`, `|`, `#`, brackets and wildcards"),
        );
    }
    let Some(variables) = block(look, env)? else {
        problems.push(
            Problem::new(format!("`{env}` is no environment block of GRUB's"))
                .hint(format!("`{EDITENV} {env} create`")),
        );
        return Ok(problems);
    };
    for Variable {
        number,
        name,
        value,
    } in &variables
    {
        if name == NEXT && !value.is_empty() && trial_entry_digest(&with_end(value)).is_none() {
            problems.push(
                Problem::new(format!(
                    "line {number} of `{env}` has `{NEXT}={value}`: somebody asked GRUB to boot that entry next, once"
                ))
                .hint(format!(
                    "reboot, which takes it, or `{EDITENV} {env} unset {NEXT}`"
                )),
            );
        }
    }
    Ok(problems)
}

/// Arguments that fight ours in variables that entries take in: what tuned and others give to all of
/// them (`$tuned_params`).
pub fn conflicting(
    look: &Look<'_>,
    env: &str,
    args: &[KernelArg],
) -> Result<Vec<Problem>, HostError> {
    let variables = block(look, env)?.unwrap_or_default().into_iter();
    let problems = variables
        .filter(|variable| variable.name != NEXT)
        .flat_map(|variable| {
            let theirs = variable
                .value
                .split_whitespace()
                .filter_map(|word| word.parse().ok());
            conflicts(args, &theirs.collect(), env, variable.number)
        });
    Ok(problems.collect())
}

/// What has GRUB boot `next_entry`, and only once.
const ONCE: [&str; 4] = [
    "if [ \"${next_entry}\" ]; then",
    "set default=\"${next_entry}\"",
    "set next_entry=",
    "save_env next_entry",
];

/// GRUB's configuration beside the block, and the administrator's part of it where it has one.
struct Config {
    path: String,
    /// `/boot/grub2/custom.cfg`, when the configuration reads it.
    custom: Option<String>,
    lines: Vec<String>,
}

impl Config {
    fn read(look: &Look<'_>, env: &str) -> Result<Self, HostError> {
        let folder = env.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = format!("{folder}/grub.cfg");
        let lines = |path: &str| -> Result<Vec<String>, HostError> {
            let bytes = look.file(path)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().map(str::trim);
            let code = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            Ok(code.map(str::to_owned).collect())
        };
        let mut all = lines(&path)?;
        let reads = |line: &String| line.starts_with("source ") && line.ends_with("/custom.cfg");
        let custom = all
            .iter()
            .any(reads)
            .then(|| format!("{folder}/custom.cfg"));
        if let Some(custom) = &custom {
            all.extend(lines(custom)?);
        }
        Ok(Self {
            path,
            custom,
            lines: all,
        })
    }

    fn has(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    /// Whether it boots `next_entry`, and empties it before a kernel is started.
    fn boots_once(&self) -> bool {
        self.has(ONCE[1]) && self.has(ONCE[3])
    }

    /// What keeps an entry from being tried.
    fn lacks(&self) -> Option<Problem> {
        let Self { path, custom, .. } = self;
        let first_word = |line: &String| line.split(' ').next() == Some("blscfg");
        let lacks = if self.lines.is_empty() {
            "is not there"
        } else if !self.lines.iter().any(first_word) {
            "reads no entries (`blscfg`)"
        } else if !self.boots_once() {
            "does not boot `next_entry` once"
        } else {
            return None;
        };
        // What is generated has both; a static one, as Fedora CoreOS has, leaves this to its reader.
        let is_static = !self.has("next_entry") && !self.has("saved_entry");
        let hint = match custom {
            Some(custom) if is_static && self.lines.iter().any(first_word) => format!(
                "write these lines into `{custom}`, which it reads: `{}`, `fi`",
                ONCE.join("`, `")
            ),
            _ => format!(
                "write `GRUB_ENABLE_BLSCFG=true` into `/etc/default/grub`, and generate it anew: `grub2-mkconfig -o {path}`"
            ),
        };
        Some(
            Problem::server_lacks(format!(
                "GRUB's configuration `{path}` {lacks}, so kernel arguments cannot be tried by an entry of their own"
            ))
            .hint(hint),
        )
    }
}

/// A line of the block.
struct Variable {
    /// Its number, from 1.
    number: usize,
    name: String,
    value: String,
}

/// The variables of the block; `None` when it is none.
fn block(look: &Look<'_>, env: &str) -> Result<Option<Vec<Variable>>, HostError> {
    let Some(bytes) = look.file(env)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    if !text.starts_with("# GRUB Environment Block\n") {
        return Ok(None);
    }
    let lines = text.lines().enumerate().filter_map(|(number, line)| {
        let (name, value) = line.split_once('=')?;
        (!name.starts_with('#')).then(|| Variable {
            number: number + 1,
            name: name.to_owned(),
            value: value.to_owned(),
        })
    });
    Ok(Some(lines.collect()))
}

/// A variable as it is written; `None` when the block does not have it.
fn value(look: &Look<'_>, env: &str, name: &str) -> Result<Option<String>, HostError> {
    let variables = block(look, env)?.unwrap_or_default();
    let found = variables.into_iter().find(|variable| variable.name == name);
    Ok(found.map(|variable| variable.value))
}

/// `next_entry` as it is written; `None` when the block does not have it.
pub fn next(look: &Look<'_>, env: &str) -> Result<Option<String>, HostError> {
    value(look, env, NEXT)
}

/// What the block says of the default, if the configuration minds it.
pub fn saved(look: &Look<'_>, env: &str) -> Result<Option<String>, HostError> {
    let saved = value(look, env, "saved_entry")?.filter(|saved| !saved.is_empty());
    let minds = Config::read(look, env)?.has("set default=\"${saved_entry}\"");
    Ok(saved.filter(|_| minds))
}

/// Writes `next_entry`, or takes it away.
pub fn set_next(site: &Site<'_>, env: &str, value: Option<&str>) -> Result<(), HostError> {
    match value {
        Some(value) => site.run(EDITENV, [env, "set", &format!("{NEXT}={value}")])?,
        None => site.run(EDITENV, [env, "unset", NEXT])?,
    };
    site.machine.sync(std::path::Path::new(env))
}

/// An id as the entry's file has it.
fn with_end(id: &str) -> String {
    format!("{id}.conf")
}

/// A file of an entry as GRUB's id.
fn without_end(name: &str) -> &str {
    name.strip_suffix(".conf").unwrap_or(name)
}

/// The entry that boots next, once.
pub fn armed(look: &Look<'_>, env: &str) -> Result<Option<String>, HostError> {
    let next = next(look, env)?.filter(|id| !id.is_empty());
    Ok(next.as_deref().map(with_end))
}

/// Has an entry boot next, once, and reads that back.
pub fn arm(site: &Site<'_>, env: &str, name: &str) -> Result<(), StepError> {
    set_next(site, env, Some(without_end(name)))?;
    let armed = armed(&site.look(), env)?;
    if armed.as_deref() == Some(name) {
        return Ok(());
    }
    Err(StepError::NotEffective {
        got: format!(
            "`{NEXT}` in `{env}` is {}",
            armed.map_or_else(|| "not set".into(), |id| format!("`{}`", without_end(&id)))
        ),
    })
}

/// Leaves `next_entry` as it was before us: GRUB, which has taken it, writes it empty.
pub fn settle(site: &Site<'_>, env: &str, before: Option<&str>) -> Result<(), HostError> {
    let Some(now) = next(&site.look(), env)? else {
        return Ok(());
    };
    let is_ours = now.is_empty() || trial_entry_digest(&with_end(&now)).is_some();
    if !is_ours || before == Some(&*now) {
        return Ok(());
    }
    // A wish of somebody's that was there before has been granted or given up since.
    set_next(site, env, before.map(|_| ""))
}

/// What boots unless somebody says otherwise, as `grubby` sees it: `saved_entry`, or the first.
pub fn default(look: &Look<'_>) -> Result<Option<String>, HostError> {
    let command = Command::new("grubby", ["--info=DEFAULT"]);
    let text = look.machine.run(&command)?.stdout;
    let id = text.lines().find_map(|line| line.strip_prefix("id="));
    let id = id.map(|id| id.trim_matches('"'));
    Ok(id.filter(|id| !id.is_empty()).map(with_end))
}

/// The kernel's image that booted, as the entries name it: `/vmlinuz-6.8.5-301.fc40.x86_64`.
pub fn image(look: &Look<'_>) -> Option<String> {
    let running = running_args(look);
    let image = running.last("BOOT_IMAGE")?.value()?;
    let path = match image.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?.1,
        None => image,
    };
    Some(path.to_owned())
}
