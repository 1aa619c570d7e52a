//! The chapters, in their order.

mod asked;
mod bad_days;
mod fake;
mod falls_back;
mod given_back;
mod irqbalance;
mod made;
mod proved;
mod quiet;
pub mod read;
mod secrets;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::Lab;

const MINUTE: Duration = Duration::from_secs(60);
const SPEC: &str = "/root/red-blue.yaml";
const PLAN: &str = "/root/plan.json";

type Chapter = fn(&Lab, &mut Story) -> Result<()>;

/// What later chapters know of earlier ones.
#[derive(Default)]
pub struct Story {
    /// The server before anything was done to it.
    before: Value,
    /// The plan.
    plan: Value,
}

const CHAPTERS: [(&str, Chapter); 23] = [
    ("a pristine server starts", start),
    (
        "inspect reads it, live and from a capture alike",
        read::inspect,
    ),
    ("doctor finds it fit", asked::doctor),
    (
        "a spec with mistakes is refused, and nothing is done",
        asked::bad_specs,
    ),
    (
        "plan gives Red a whole NIC on the first node and Blue a VF on the last",
        asked::plan,
    ),
    ("a dry run changes nothing", asked::dry_run),
    (
        "the kernel answers as the fake of the other tests does",
        fake::alike,
    ),
    ("without libvirt nothing is begun", bad_days::libvirt_down),
    (
        "a full disk ends apply, and release leaves nothing",
        bad_days::disk_full,
    ),
    (
        "isolation without a reboot holds through a daemon-reload, and is given back",
        quiet::dynamic,
    ),
    (
        "irqbalance is told of the slices' CPUs, keeps off them, and forgets them again",
        irqbalance::told,
    ),
    (
        "no secret is an argument while apply runs",
        secrets::no_arguments,
    ),
    (
        "a kernel that panics is followed by the one before",
        falls_back::panics,
    ),
    (
        "a server that comes up without its management goes back",
        falls_back::cut_off,
    ),
    (
        "apply killed in the middle, then again, takes the reboot",
        made::apply,
    ),
    (
        "after the reboot both guests run, and apply has nothing to do",
        made::resume,
    ),
    (
        "the fabric learns both guests, and verify holds",
        proved::verify,
    ),
    (
        "the guests are what was asked for, seen from inside",
        made::inside,
    ),
    ("a wrong pin is found", proved::wrong_pin),
    ("a NIC in the wrong VLAN is found", proved::wrong_vlan),
    (
        "a domain of somebody else's is never taken over",
        proved::foreign_domain,
    ),
    ("release gives the server back", given_back::release),
    ("after a reboot it is as it was", given_back::as_before),
];

/// Tells the story.
pub fn tell(lab: &Lab, passed: &mut usize) -> Result<()> {
    let mut story = Story::default();
    // While a chapter is written, it and the start will do: `BMSLICE_STORY_CHAPTERS=panics`.
    let wanted = std::env::var("BMSLICE_STORY_CHAPTERS").unwrap_or_default();
    for (number, (name, chapter)) in CHAPTERS.into_iter().enumerate() {
        if number > 0 && !wanted.split(',').any(|part| name.contains(part)) {
            continue;
        }
        lab.say(name);
        chapter(lab, &mut story).with_context(|| format!("chapter: {name}"))?;
        *passed += 1;
    }
    Ok(())
}

fn start(lab: &Lab, _: &mut Story) -> Result<()> {
    // While a chapter is written, the server that runs will do: `BMSLICE_STORY=running`.
    if std::env::var("BMSLICE_STORY").is_ok_and(|wish| wish == "running") {
        lab.say("  the running server is taken as it is");
    } else {
        lab.show(&["stop"])?;
        lab.show(&["reset"])?;
        // Another shape of server: `BMSLICE_STORY_TOPOLOGY=2x4x1`.
        match std::env::var("BMSLICE_STORY_TOPOLOGY") {
            Ok(shape) => lab.show(&["start", "--topology", &shape])?,
            Err(_) => lab.show(&["start", "--topology", "2x6x2"])?,
        }
    }
    lab.install()?;
    let spec = lab.run(&["spec"])?.expect(0)?;
    lab.server_with(&format!("cat > {SPEC}"), spec.stdout.as_bytes())?
        .expect(0)?;
    Ok(())
}

/// The plan's slice of a tenant.
fn slice<'a>(plan: &'a Value, tenant: &str) -> Result<&'a Value> {
    let slices = plan["slices"]
        .as_array()
        .context("the plan has no slices")?;
    slices
        .iter()
        .find(|s| s["tenant"] == tenant)
        .with_context(|| format!("no slice of {tenant}"))
}

fn name<'a>(plan: &'a Value, tenant: &str) -> Result<&'a str> {
    slice(plan, tenant)?["name"]
        .as_str()
        .context("a slice without a name")
}
