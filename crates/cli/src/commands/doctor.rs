//! `bmslice doctor`: is this server fit to be sliced?

use bmslice_doctor::{Finding, Level, Outcome, examine, is_fit};
use clap::Args;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::output::{Output, style};
use crate::server::{self, Source};
use crate::tables::{Page, count};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Examine whether a server is fit to be sliced: each check with its level, what was \
found, and how to mend it. Changes nothing.

Exit code 1 when a check of level error does not hold, or could not be made.";

/// Which server.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) source: Source,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let mut inventory = arguments.source.read(context)?;
    if arguments.source.is_live() && inventory.hypervisor.kvm_device {
        let facts = &mut inventory.hypervisor;
        match server::machine(context)?.make_vm() {
            Ok(()) => facts.kvm_works = true,
            Err(error) => facts.kvm_error = Some(files::plain(&error)),
        }
    }
    let findings = examine(&inventory);
    context
        .output
        .data(&findings, || page(&findings, &context.output))?;
    Ok(if is_fit(&findings) {
        Exit::Done
    } else {
        Exit::Refused
    })
}

fn page(findings: &[Finding], output: &Output) -> String {
    let mut page = Page::new(output);
    let color = output.colors();
    for finding in findings {
        let word = match (&finding.outcome, finding.level) {
            (Outcome::Holds { .. }, _) => style::good("holds  ", color),
            (Outcome::DoesNotHold { .. }, Level::Error) => style::error("ERROR  ", color),
            (Outcome::DoesNotHold { .. }, Level::Warning) => style::warning("warning", color),
            (Outcome::DoesNotHold { .. }, Level::Info) => style::hint("info   ", color),
            (Outcome::CouldNotCheck { .. }, _) => style::warning("unknown", color),
        };
        page.line(&format!("{word}  {}: {}", finding.name, finding.about));
        let mut details = |details: &[(&str, &String)]| {
            let details: Vec<(&str, String)> = details
                .iter()
                .map(|(name, text)| (*name, (*text).clone()))
                .collect();
            page.facts(&details);
        };
        match &finding.outcome {
            Outcome::Holds { found } => details(&[("         found", found)]),
            Outcome::DoesNotHold {
                found,
                wanted,
                mend,
            } => details(&[
                ("         found", found),
                ("         wanted", wanted),
                ("         mend", mend),
            ]),
            Outcome::CouldNotCheck { why } => details(&[("         why", why)]),
        }
    }
    let hold = findings
        .iter()
        .filter(|f| matches!(f.outcome, Outcome::Holds { .. }))
        .count();
    let fails = |finding: &&Finding| {
        finding.level == Level::Error && matches!(finding.outcome, Outcome::DoesNotHold { .. })
    };
    let named = |what: &str, keep: &dyn Fn(&Finding) -> bool| {
        let names: Vec<&str> = findings
            .iter()
            .filter(|finding| keep(finding))
            .map(|finding| finding.name)
            .collect();
        (!names.is_empty()).then(|| format!("{} {what}: {}", names.len(), names.join(", ")))
    };
    let does_not_hold = |finding: &Finding| matches!(finding.outcome, Outcome::DoesNotHold { .. });
    let lines = [
        named("in the way", &|f| {
            f.level == Level::Error && does_not_hold(f)
        }),
        named("to be mended", &|f| {
            f.level == Level::Warning && does_not_hold(f)
        }),
        named("could not be checked", &|f| {
            matches!(f.outcome, Outcome::CouldNotCheck { .. })
        }),
    ];
    let verdict = if is_fit(findings) {
        style::good("This server can be sliced", color)
    } else if findings.iter().any(|finding| fails(&finding)) {
        style::error("This server cannot be sliced as it is", color)
    } else {
        style::warning("It is not known whether this server can be sliced", color)
    };
    page.line("");
    page.line(&format!(
        "{verdict}: {hold} of {} hold",
        count(findings.len(), "check")
    ));
    for line in lines.into_iter().flatten() {
        page.facts(&[("", line)]);
    }
    page.finish()
}
