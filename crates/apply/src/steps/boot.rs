//! Kernel arguments: written for the next boot, and in force in this one.

use bmslice_host::HostError;
use bmslice_model::{ByteSize, CpuSet, KernelArg, KernelCmdline, NumaNodeId, count};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation, Step};
use crate::steps::loader::{Keeper, Loader};
use crate::steps::memory::pool;

/// The key of [`BootArguments`] in the journal.
pub const KEY: &str = "boot arguments";

/// Gives the boot loader our kernel arguments, and reads back what it will make of them. As long as
/// nothing is tried or confirmed, it boots as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootArguments {
    /// The arguments that each entry of this system gets once they are tried or confirmed.
    pub args: Vec<KernelArg>,
    /// What keeps them.
    #[serde(flatten)]
    pub loader: Loader,
}

/// As they are written one after the other.
pub fn line(args: &[KernelArg]) -> String {
    let args: Vec<&str> = args.iter().map(KernelArg::as_str).collect();
    args.join(" ")
}

/// Whether a second, different argument of that name in the user's own files would not add to ours
/// but fight it. Page sizes come in pairs, of which none is the other's.
fn is_exclusive(arg: &KernelArg) -> bool {
    !arg.may_repeat() || arg.is("hugepages") || arg.is("hugepagesz")
}

/// Arguments of the user's own, on a line of a file of his, that would fight ours.
pub fn conflicts(
    ours: &[KernelArg],
    theirs: &KernelCmdline,
    path: &str,
    number: usize,
) -> Vec<Problem> {
    conflicts_with(ours, theirs, path, number, |theirs| {
        format!("take `{theirs}` out of `{path}`: the plan's own argument replaces it")
    })
}

/// The same, with what else is to be done about it.
pub fn conflicts_with(
    ours: &[KernelArg],
    theirs: &KernelCmdline,
    path: &str,
    number: usize,
    hint: impl Fn(&KernelArg) -> String,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for arg in ours.iter().filter(|arg| is_exclusive(arg)) {
        let key = arg.key();
        let Some(theirs) = theirs.last(key) else {
            continue;
        };
        if seen.contains(&key) || ours.contains(theirs) {
            continue;
        }
        seen.push(key);
        problems.push(
            Problem::new(format!(
                "the plan sets the kernel argument `{key}`, and line {number} of `{path}` has `{theirs}`"
            ))
            .hint(hint(theirs)),
        );
    }
    problems
}

impl BootArguments {
    fn keeper(&self) -> Keeper<'_> {
        self.loader.with(&self.args)
    }

    pub fn describe(&self) -> String {
        self.loader.describe(&line(&self.args))
    }

    pub fn describe_undo(&self) -> String {
        self.loader.describe_undo()
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        if let Some(Step::BootArguments(then)) = look.ledger.done(KEY).map(|entry| &entry.step)
            && !then.loader.is_kin(&self.loader)
        {
            let (was, is) = (then.loader.name(), self.loader.name());
            return Ok(vec![
                Problem::new(format!(
                    "{was} has our kernel arguments on this server, which is booted by {is} now"
                ))
                .hint("`bmslice release` first, which takes them back; then apply again"),
            ]);
        }
        match self.keeper() {
            Keeper::Grub(grub) => grub.precondition(look),
            Keeper::Entries(entries) => entries.precondition(look),
        }
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        match self.keeper() {
            Keeper::Grub(grub) => grub.observe(look),
            Keeper::Entries(entries) => entries.observe(look),
        }
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        match self.keeper() {
            Keeper::Grub(grub) => grub.before(look),
            Keeper::Entries(entries) => entries.before(look),
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        match self.keeper() {
            Keeper::Grub(grub) => grub.act(site),
            Keeper::Entries(entries) => entries.act(site),
        }
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        match self.keeper() {
            Keeper::Grub(grub) => grub.undo(before, site)?,
            Keeper::Entries(entries) => entries.undo(before, site)?,
        }
        let running = running_args(&site.look());
        if self.args.iter().any(|arg| running.contains(arg)) {
            site.note("the running kernel keeps its arguments until the next reboot");
        }
        Ok(())
    }
}

/// The arguments of the running kernel.
pub fn running_args(look: &Look<'_>) -> KernelCmdline {
    look.machine
        .root()
        .attribute("/proc/cmdline")
        .and_then(|line| line.parse().ok())
        .unwrap_or_default()
}

/// Which boot of the host this is: random(4).
pub fn boot_id(look: &Look<'_>) -> String {
    look.machine
        .root()
        .attribute("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
}

/// Huge pages that the boot arguments ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPages {
    /// Where.
    pub node: NumaNodeId,
    /// Page size.
    pub size: ByteSize,
    /// How many.
    pub count: u64,
}

/// Boots the host, so that the kernel arguments are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reboot {
    /// Arguments that the running kernel must have.
    pub args: Vec<KernelArg>,
    /// What `/sys/devices/system/cpu/isolated` must say, when the arguments isolate.
    pub isolated: Option<CpuSet>,
    /// Huge pages that must be there.
    pub huge_pages: Vec<BootPages>,
}

impl Reboot {
    pub fn describe(&self) -> String {
        "reboot the host, so that its kernel arguments are in force".into()
    }

    /// What the running kernel lacks, each as a clause.
    pub fn lacking(&self, look: &Look<'_>) -> Vec<String> {
        let mut lacking = Vec::new();
        let running = running_args(look);
        let missing: Vec<&str> = self
            .args
            .iter()
            // `last` would hide a repeated `hugepagesz=` that is there.
            .filter(|arg| !running.contains(arg))
            .map(KernelArg::as_str)
            .collect();
        if !missing.is_empty() {
            lacking.push(format!("the running kernel has no `{}`", missing.join(" ")));
            // What follows from them need not be said too.
            return lacking;
        }
        if let Some(want) = &self.isolated {
            let path = "/sys/devices/system/cpu/isolated";
            let text = look.machine.root().attribute(path).unwrap_or_default();
            let got: Option<CpuSet> = text.parse().ok();
            let is_empty = text.is_empty();
            if got.as_ref() != Some(want) && !(is_empty && want.is_empty()) {
                lacking.push(format!(
                    "CPUs {} are isolated, not {want}",
                    if is_empty { "none" } else { &text }
                ));
            }
        }
        for pages in &self.huge_pages {
            let got = look
                .number(&format!("{}/nr_hugepages", pool(pages.node, pages.size)))
                .unwrap_or(0);
            if got < pages.count {
                lacking.push(format!(
                    "node {} has {} of {}, not {}",
                    pages.node,
                    count(got, "huge page"),
                    pages.size,
                    pages.count
                ));
            }
        }
        lacking
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        let lacking = self.lacking(look);
        if lacking.is_empty() {
            Observation::Held
        } else {
            Observation::different(lacking.join("; "))
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.run("systemctl", ["reboot"])?;
        Ok(())
    }
}
