//! `bmslice release`: gives slices, or the whole server, back as it was.

use std::time::Duration;

use bmslice_apply::{ReleaseOptions, Released, Which};
use bmslice_host::Machine;
use bmslice_model::SliceName;
use bmslice_plan::Plan;
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
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct GivenBack {
    undone: usize,
    kept: Vec<String>,
    until_reboot: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let machine = server::machine(context)?;
    server::need_root(&machine)?;
    // What cannot be read is told by the release itself.
    if let Ok(status) = bmslice_apply::status(&machine) {
        let is_open = status.open.is_some();
        need(&arguments.slices, status.plan.as_ref(), is_open)?;
    }
    let is_ours = |path| machine.root().exists(path);
    let anything = is_ours(bmslice_apply::JOURNAL) || is_ours(bmslice_apply::PLAN);
    if !anything && arguments.slices.is_empty() {
        return tell(&GivenBack::default(), context);
    }
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
            let is = if names.len() == 1 { "is" } else { "are" };
            let names = names.join(", ");
            format!("{names} {is} shut down and given back{images}\n")
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
    tell(&given, context)
}

fn tell(given: &GivenBack, context: &Context) -> Result<Exit, Failure> {
    context.output.data(given, || page(given, context))?;
    Ok(Exit::Done)
}

/// Refuses slices that are not here. After a run that did not end there may be others than those of
/// the plan in force: then the journal tells, when they are given back.
fn need(asked: &[SliceName], plan: Option<&Plan>, is_open: bool) -> Result<(), Failure> {
    let here: Vec<&SliceName> = plan
        .iter()
        .flat_map(|plan| plan.slices())
        .map(|s| &s.name)
        .collect();
    let strange = asked.iter().find(|name| !here.contains(name));
    let Some(strange) = strange.filter(|_| !is_open) else {
        return Ok(());
    };
    let names: Vec<String> = here.iter().map(|name| format!("`{name}`")).collect();
    let there = match names.as_slice() {
        [] => "nothing is sliced here".to_owned(),
        [one] => format!("there is {one}"),
        names => format!("there are {}", names.join(", ")),
    };
    let text = format!("the slice `{strange}` is not on this server; {there}");
    Err(Failure::refused(text).hint("see `bmslice status`"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_is_not_here_is_refused_before_anybody_is_asked() {
        let plan = Plan::parse(include_str!("../../../../examples/seed/plan.json")).unwrap();
        let names = |text: &str| -> Vec<SliceName> {
            text.split(' ').map(|name| name.parse().unwrap()).collect()
        };
        let red = names("Red_k8s_cluster_worker1");
        assert!(need(&red, Some(&plan), false).is_ok());
        assert!(need(&[], None, false).is_ok());
        let said = |asked: &str, plan| {
            let refused = need(&names(asked), plan, false).unwrap_err();
            assert_eq!(refused.exit(), Exit::Refused);
            refused.render(false)
        };
        let strange = said("Red_k8s_cluster_worker1 gren", Some(&plan));
        assert!(
            strange.contains("`gren` is not on this server; there are `Red_k8s"),
            "{strange}"
        );
        assert!(said("gren", None).contains("nothing is sliced here"));
        // A run that did not end may have made others.
        assert!(need(&names("gren"), Some(&plan), true).is_ok());
    }
}
