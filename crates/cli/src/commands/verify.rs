//! `bmslice verify`: proves that what runs is the plan.

use std::path::{Path, PathBuf};

use bmslice_model::SliceName;
use bmslice_plan::Plan;
use bmslice_verify::{FabricTable, Finding, Report, Verdict};
use clap::Args;

use crate::Context;
use crate::commands::plan::in_force;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, style};
use crate::tables::{Page, count};
use crate::{documents, files, server};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Prove that what runs on this server is the plan: each QEMU thread's CPUs by its \
role, libvirt's pins, the guests' memory by node and page, isolated CPUs and kernel arguments, every \
device, its driver and its group; and with the switch's MAC table that each guest is seen on its port \
and VLAN. Changes nothing.

Exit code 0 only when all of it was looked at and holds.

  ovs-ofctl show fabric; ovs-appctl fdb/show fabric      # on the switch: Open vSwitch
  show ethernet-switching table                          # Junos";

/// Which plan, and what the switch says.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The plan file [default: the plan in force here]
    #[arg(value_name = "PLAN")]
    pub plan: Option<PathBuf>,
    /// The switch's MAC table as it prints it; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub fabric: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let fabric = arguments.fabric.as_deref().map(fabric).transpose()?;
    let machine = server::machine(context)?;
    let plan = match &arguments.plan {
        Some(path) => documents::plan(path)?,
        None => applied(&machine, context)?,
    };
    if !bmslice_host::Machine::is_root(&machine) {
        let text = "not root: what only root can see stays unknown";
        context.output.warn(text, Some("run it with `sudo`"));
    }
    let inventory = server::live(&machine, context)?;
    let report = bmslice_verify::verify(&machine, &inventory, &plan, fabric.as_ref());
    context
        .output
        .data(&report, || page(&report, &plan, &context.output))?;
    Ok(if report.holds() {
        Exit::Done
    } else {
        Exit::Refused
    })
}

/// The plan in force, which must be there.
fn applied(machine: &dyn bmslice_host::Machine, context: &Context) -> Result<Plan, Failure> {
    in_force(machine, context)?.ok_or_else(|| {
        Failure::refused("no plan is in force on this server")
            .hint("`bmslice apply SPEC` puts one in force; or name a plan file")
    })
}

/// Reads the switch's table.
pub(crate) fn fabric(path: &Path) -> Result<FabricTable, Failure> {
    let text = files::read_text(path, "a MAC table")?;
    FabricTable::parse(&text).map_err(|error| {
        let shown = path.display();
        Failure::refused(format!("`{shown}`: {error}"))
    })
}

fn page(report: &Report, plan: &Plan, output: &Output) -> String {
    let mut page = Page::new(output);
    let mut about: Vec<Option<&SliceName>> = vec![None];
    about.extend(plan.slices().iter().map(|slice| Some(&slice.name)));
    for subject in about {
        let findings: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|finding| finding.slice.as_ref() == subject)
            .collect();
        if findings.is_empty() {
            continue;
        }
        page.heading(subject.map_or("host", SliceName::as_str));
        section(&findings, output, &mut page);
    }
    page.line("");
    page.line(&summary(report, output));
    page.finish()
}

/// What is satisfied goes together by check; each other finding has its own lines.
fn section(findings: &[&Finding], output: &Output, page: &mut Page<'_>) {
    let color = output.colors();
    let mut rest = findings;
    while let Some(first) = rest.first() {
        let check = first.check;
        let run = rest
            .iter()
            .take_while(|finding| finding.check == check)
            .count();
        let (these, others) = rest.split_at(run);
        rest = others;
        let satisfied: Vec<&str> = these
            .iter()
            .filter_map(|finding| match &finding.verdict {
                Verdict::Satisfied { what } => Some(what.as_str()),
                _ => None,
            })
            .collect();
        if !satisfied.is_empty() {
            let word = style::good("holds  ", color);
            page.paragraph(&format!("{word}  {check}: {}", satisfied.join("; ")), 9);
        }
        for finding in these {
            let text = match &finding.verdict {
                Verdict::Satisfied { .. } => continue,
                Verdict::Differs { what, want, got } => {
                    let word = style::error("DIFFERS", color);
                    format!("{word}  {check}: {what}\nwanted {want}\nfound  {got}")
                }
                Verdict::Unknown { why } => {
                    let word = style::warning("unknown", color);
                    format!("{word}  {check}: {why}")
                }
                Verdict::Pending { after } => {
                    let word = style::hint("pending", color);
                    format!("{word}  {check}: after {after}")
                }
            };
            page.paragraph(&text, 9);
        }
    }
}

fn summary(report: &Report, output: &Output) -> String {
    let color = output.colors();
    let number = |is: fn(&Verdict) -> bool| {
        report
            .findings
            .iter()
            .filter(|finding| is(&finding.verdict))
            .count()
    };
    let held = number(|v| matches!(v, Verdict::Satisfied { .. }));
    let all = count(report.findings.len(), "finding");
    if report.holds() {
        return format!(
            "{}: all of {all} hold",
            style::good("What runs is the plan", color)
        );
    }
    let mut parts = vec![format!("{held} of {all} hold")];
    for (many, word) in [
        (number(|v| matches!(v, Verdict::Differs { .. })), "differ"),
        (number(|v| matches!(v, Verdict::Unknown { .. })), "unknown"),
        (number(|v| matches!(v, Verdict::Pending { .. })), "pending"),
    ] {
        if many > 0 {
            parts.push(format!("{many} {word}"));
        }
    }
    let verdict = style::error("It is not proved that what runs is the plan", color);
    format!("{verdict}: {}", parts.join(", "))
}
