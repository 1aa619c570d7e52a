//! irqbalance as it is: what it does with interrupts before it is told of the slices' CPUs, while it
//! knows of them, and after.
//!
//! It runs in this chapter only: nobody could say which interrupts are where they were before, while
//! it moves them as it likes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::asked::untouched;
use super::{MINUTE, SPEC, Story};
use crate::lab::Lab;

const DROP_IN: &str = "/etc/systemd/system/irqbalance.service.d";

pub fn told(lab: &Lab, _: &mut Story) -> Result<()> {
    let plan = lab.server(&format!("bmslice plan {SPEC} -o json"))?;
    let plan = plan.expect(0)?.json()?;
    let list = plan["host"]["isolated"].as_str().context("no CPUs")?;
    let isolated = cpus(list)?;
    lab.server("systemctl start irqbalance.service")?
        .expect(0)?;

    // Untold, it has interrupts served there alone, which the kernel by itself does with none: by that
    // those that it takes care of are known.
    let its = lab.wait("irqbalance to use the slices' CPUs", MINUTE, || {
        let there: Vec<String> = affinities(lab)?
            .into_iter()
            .filter(|(_, at)| at.is_subset(&isolated))
            .map(|(irq, _)| irq)
            .collect();
        Ok((!there.is_empty()).then_some(there))
    })?;

    // As far as a reboot, so that it is irqbalance alone that keeps off: our own hand on interrupts
    // comes after it.
    let ran = lab.server(&format!("bmslice apply {SPEC} --no-reboot"))?;
    ensure!(
        format!("{}{}", ran.stdout, ran.stderr).contains("irqbalance"),
        "not said: {ran:?}"
    );
    let banned = environment(lab)?;
    ensure!(
        banned.as_deref() == Some(list),
        "it was told {banned:?}, not {list}"
    );
    let mut astray: Vec<String> = Vec::new();
    lab.wait("irqbalance to leave the slices' CPUs", MINUTE, || {
        let now = affinities(lab)?;
        astray = now
            .into_iter()
            .filter(|(irq, at)| {
                at.is_subset(&isolated) || its.contains(irq) && !at.is_disjoint(&isolated)
            })
            .map(|(irq, _)| irq)
            .collect();
        Ok(astray.is_empty().then_some(()))
    })
    .with_context(|| format!("interrupts {astray:?} are still there"))?;
    // The rest waits for the reboot, and is open.
    let report = lab.server("bmslice verify -o json")?.json()?;
    let findings = report["findings"].as_array().context("no findings")?;
    let seen = findings.iter().find(|f| f["check"] == "irqbalance");
    ensure!(
        seen.is_some_and(|f| f["verdict"] == "satisfied" && f["what"] != "irqbalance does not run"),
        "verify: {seen:?}"
    );
    lab.say(&format!("  {} interrupts kept off CPUs {list}", its.len()));

    lab.server("bmslice release --yes --delete-images")?
        .expect(0)?;
    untouched(lab)?;
    lab.server(&format!("! test -e {DROP_IN}"))?
        .expect(0)
        .context("its drop-in is still there")?;
    ensure!(environment(lab)?.is_none(), "it still knows of a list");
    lab.server("systemctl stop irqbalance.service")?.expect(0)?;
    Ok(())
}

/// The list that the running irqbalance was started with; an error when none runs.
fn environment(lab: &Lab) -> Result<Option<String>> {
    let environment =
        "tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID irqbalance.service)/environ";
    let text = lab.server(environment)?.expect(0)?.stdout;
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("IRQBALANCE_BANNED_CPULIST="));
    Ok(list.map(str::to_owned))
}

/// The CPUs that each interrupt may be served on.
fn affinities(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<u32>>> {
    let text = lab
        .server("cd /proc/irq; grep -H . */smp_affinity_list")?
        .expect(0)?
        .stdout;
    let lines = text.lines().map(|line| {
        let (path, list) = line.split_once(':').context("grep named no file")?;
        let irq = path.split('/').next().unwrap_or_default();
        Ok((irq.to_owned(), cpus(list)?))
    });
    lines.collect()
}

/// `2-11,14` as the kernel writes it.
fn cpus(list: &str) -> Result<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(cpus)
}
