//! `bmslice apply`: makes it so.

use std::path::PathBuf;

use bmslice_apply::{ApplyError, ApplyOptions, Event, NotUp, Outcome, State, Step};
use bmslice_host::LiveMachine;
use bmslice_inventory::LiveInventory;
use bmslice_plan::Plan;
use clap::Args;
use serde::Serialize;

use crate::Context;
use crate::commands::plan::in_force;
use crate::documents::{self, Document};
use crate::exit::Exit;
use crate::failure::{Failure, Reason};
use crate::progress::Progress;
use crate::tables::{Page, count, table};
use crate::{ask, server};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Make it so on this server: kernel arguments, huge pages, virtual functions, disks, \
domains, guests. Each step is looked at before and after it is done; what holds already is left \
alone, so that running it again does nothing. Whatever interrupts it, `bmslice apply` goes on from \
there and `bmslice release` puts everything back.

When the kernel arguments need a reboot it asks first (`--yes` answers), takes it, and goes on by \
itself after the boot. New kernel arguments are tried once: a server that does not come up with them, \
or not with the network that it is managed through, goes back to those before by itself.";

/// What to make so, and how far to go.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A spec, which is planned first, or a plan file; `-` is standard input
    #[arg(value_name = "SPEC|PLAN")]
    pub document: PathBuf,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before a reboot or before something is put back
    #[arg(short, long)]
    pub yes: bool,
    /// Stop where a reboot is needed (exit code 1)
    #[arg(long, conflicts_with = "yes")]
    pub no_reboot: bool,
    /// Try kernel arguments once more that the server went back from
    #[arg(long)]
    pub try_again: bool,
}

/// One step of a dry run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    /// What is to be done, or looked at.
    what: String,
    /// Whether it holds already.
    holds: bool,
    /// What is there instead.
    #[serde(skip_serializing_if = "String::is_empty")]
    now: String,
    /// Whether it takes the host down.
    reboots: bool,
    /// Whether it puts something back that is no longer in the plan.
    undoes: bool,
}

/// How it ended, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
enum Ended {
    /// Nothing was to be done.
    Nothing,
    /// Everything holds now.
    Done { changed: usize },
    /// Everything holds now, and not every guest came up.
    NotUp { changed: usize, guests: Vec<Guest> },
    /// Stopped before a reboot.
    RebootNeeded { why: String },
    /// The host is going down.
    Rebooting,
}

/// A guest that did not come up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Guest {
    slice: String,
    why: String,
    /// The last lines of its console.
    console: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let document = documents::spec_or_plan(&arguments.document)?;
    let machine = server::machine(context)?;
    if !arguments.dry_run {
        server::need_root(&machine)?;
    }
    let inventory = server::live(&machine, context)?;
    let plan = match document {
        Document::Plan(plan) => {
            documents::judged_alone(&arguments.document, &inventory, &plan)?;
            *plan
        }
        Document::Spec(spec) => {
            let previous = in_force(&machine, context)?;
            documents::planned(&spec, &inventory, previous.as_ref())?
        }
    };
    let options = ApplyOptions {
        dry_run: true,
        binary: binary()?,
        try_again: arguments.try_again,
        ..ApplyOptions::default()
    };
    let planned = dry_run(&machine, &inventory, &plan, &options, context)?;
    if arguments.dry_run {
        context.output.data(&planned, || page(&planned, context))?;
        return Ok(Exit::Done);
    }
    let allow_reboot = !arguments.no_reboot;
    if !arguments.yes {
        ask_first(&planned, allow_reboot, context)?;
    }
    let options = ApplyOptions {
        dry_run: false,
        allow_reboot,
        ..options
    };
    let mut progress = Progress::new(&context.output);
    let outcome = bmslice_apply::apply(&machine, &inventory, &plan, &options, &mut |event| {
        progress.tell(event);
    });
    drop(progress);
    end(outcome.map_err(failure)?, context)
}

/// The absolute path of this program, which the units call after a boot.
pub(crate) fn binary() -> Result<String, Failure> {
    let path = std::env::current_exe().map_err(|error| {
        let error = crate::files::plain(&error);
        Failure::failed(format!("cannot tell where this program is: {error}"))
    })?;
    path.into_os_string().into_string().map_err(|path| {
        let shown = path.to_string_lossy();
        Failure::failed(format!(
            "`{shown}` cannot be written into a unit: it is not UTF-8"
        ))
    })
}

/// What would be done, asked of the library without telling anybody.
fn dry_run(
    machine: &LiveMachine,
    inventory: &LiveInventory,
    plan: &Plan,
    options: &ApplyOptions,
    context: &Context,
) -> Result<Vec<Planned>, Failure> {
    let steps = bmslice_apply::steps(plan, &options.binary, inventory)
        .map_err(|error| failure(error.into()))?;
    let mut planned = Vec::new();
    let mut notes = Vec::new();
    let mut take = |event: Event| match event {
        Event::Step {
            number,
            what,
            state,
            ..
        } => {
            let step = number.checked_sub(1).and_then(|index| steps.get(index));
            let (holds, now) = look(state);
            planned.push(Planned {
                what,
                reboots: !holds && matches!(step, Some(Step::Reboot(_))),
                holds,
                now,
                undoes: false,
            });
        }
        Event::Undo { what, state } => {
            let (holds, now) = look(state);
            planned.push(Planned {
                what,
                holds,
                now,
                reboots: false,
                undoes: true,
            });
        }
        Event::Note(text) => notes.push(text),
        Event::Waiting { .. } | Event::Resuming { .. } => {}
    };
    bmslice_apply::apply(machine, inventory, plan, options, &mut take).map_err(failure)?;
    for note in notes {
        context.output.warn(&note, None);
    }
    Ok(planned)
}

fn look(state: State) -> (bool, String) {
    match state {
        State::Held => (true, String::new()),
        State::Planned { found } => (false, found),
        State::Started | State::Done | State::Failed { .. } => (false, String::new()),
    }
}

fn page(planned: &[Planned], context: &Context) -> String {
    let mut page = Page::new(&context.output);
    let mut table = table(&context.output, &["", "step…", "now…"]);
    for step in planned {
        let word = match (step.holds, step.undoes) {
            (true, _) => "holds",
            (false, true) => "undo",
            (false, false) => "do",
        };
        table.add_row(vec![word.to_owned(), step.what.clone(), step.now.clone()]);
    }
    page.table(&table);
    let todo = planned.iter().filter(|step| !step.holds).count();
    page.line("");
    page.line(&match todo {
        0 => "Everything holds already; nothing would be done.".to_owned(),
        _ => format!("{} would be done; nothing was.", count(todo, "step")),
    });
    page.finish()
}

/// Asks before a reboot, and before something is put back.
fn ask_first(planned: &[Planned], allow_reboot: bool, context: &Context) -> Result<(), Failure> {
    let reboot = allow_reboot && planned.iter().any(|step| step.reboots);
    let undone: Vec<&Planned> = planned.iter().filter(|s| s.undoes && !s.holds).collect();
    if !reboot && undone.is_empty() {
        return Ok(());
    }
    let mut what = String::new();
    for step in &undone {
        what.push_str(&format!("no longer in the plan: {}\n", step.what));
    }
    for step in planned.iter().filter(|step| step.reboots && allow_reboot) {
        let now = if step.now.is_empty() {
            String::new()
        } else {
            format!(" (now: {})", step.now)
        };
        what.push_str(&format!("this host: {}{now}\n", step.what));
    }
    let hint = if reboot {
        "`--yes` goes on without asking; `--no-reboot` stops before the reboot"
    } else {
        "`--yes` goes on without asking"
    };
    ask::confirm(&what, "Go on?", hint, context)
}

/// What is said of guests that did not come up.
pub(crate) fn not_up(guests: &[NotUp]) -> String {
    let told: Vec<String> = guests.iter().map(NotUp::describe).collect();
    format!(
        "Everything holds, but not every guest came up:\n{}\n\
         Nothing was stopped. Look inside with `virsh console NAME`; `bmslice status` shows how it is. \
         `upWithinSeconds` of a slice says how long it has.",
        told.join("\n")
    )
}

fn end(outcome: Outcome, context: &Context) -> Result<Exit, Failure> {
    let (ended, text, exit) = match outcome {
        Outcome::Nothing => (
            Ended::Nothing,
            "Everything held already; nothing was done.".to_owned(),
            Exit::Done,
        ),
        Outcome::Done { changed } => {
            let text = format!("Done: {}. `bmslice verify` proves it.", count(changed, "step"));
            (Ended::Done { changed }, text, Exit::Done)
        }
        Outcome::NotUp { changed, guests } => {
            let text = not_up(&guests);
            let guests = guests.into_iter().map(|guest| Guest {
                slice: guest.slice.to_string(),
                why: guest.why,
                console: guest.console,
            });
            let ended = Ended::NotUp {
                changed,
                guests: guests.collect(),
            };
            (ended, text, Exit::Refused)
        }
        Outcome::RebootNeeded { why } => {
            let text = format!(
                "Stopped before the reboot: {why}.\nReboot when it suits; the rest follows by itself after that."
            );
            (Ended::RebootNeeded { why }, text, Exit::Refused)
        }
        Outcome::Rebooting => (
            Ended::Rebooting,
            "The host reboots now; the rest follows by itself after that. `bmslice status` shows how far it is."
                .to_owned(),
            Exit::Done,
        ),
        Outcome::Planned { steps } => {
            let text = format!("{} would be done.", count(steps.len(), "step"));
            (Ended::Nothing, text, Exit::Done)
        }
    };
    context.output.data(&ended, || format!("{text}\n"))?;
    Ok(exit)
}

/// What the library refused or could not do.
pub(crate) fn failure(error: ApplyError) -> Failure {
    let exit = if error.is_refusal() {
        Exit::Refused
    } else {
        Exit::Failed
    };
    if let ApplyError::Refused { problems } = &error
        && problems.len() > 1
    {
        let reasons = problems.iter().map(|problem| Reason {
            text: problem.text.clone(),
            hint: problem.hint.clone(),
        });
        return Failure::Several {
            exit,
            reasons: reasons.collect(),
        };
    }
    let failure = Failure::message(exit, error.to_string());
    error.hints().into_iter().fold(failure, Failure::hint)
}
