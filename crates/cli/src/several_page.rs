//! Several servers' plans, for people and for programs.

use std::collections::BTreeMap;

use bmslice_model::SliceName;
use bmslice_plan::{Level, NicPlan, PlanParts, SlicePlan};
use bmslice_planner::{Change as Nearest, servers::Unplaced};
use bmslice_spec::Slicing;
use serde::Serialize;

use crate::output::Output;
use crate::plan_change::{self, Change, Sign, changes};
use crate::plan_page::{device, nodes, pins};
use crate::several::Planned;
use crate::tables::{Page, count, or_dash, table};

/// All of it, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Data<'a> {
    /// Digest of the spec for all servers; each plan has its own share's.
    spec_digest: &'a str,
    usage: Usage,
    servers: Vec<ServerData<'a>>,
    unplaced: Vec<UnplacedData>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerData<'a> {
    hostname: &'a str,
    /// Where its inventory was read.
    inventory: String,
    plan: Option<&'a PlanParts>,
    changes: Vec<Change>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnplacedData {
    slice: String,
    /// On how many servers it may be.
    eligible: usize,
    /// For the first few of these.
    why: Vec<WhyData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhyData {
    server: String,
    code: &'static str,
    text: String,
}

/// How much of the servers is used, and how much one worker a server would use.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    slices: usize,
    placed: usize,
    /// What no placement exceeds.
    bound: u64,
    servers: usize,
    servers_used: usize,
    /// Online CPUs of all servers.
    cpus: usize,
    /// Of these, the ones that run vCPUs.
    vcpus: usize,
    /// vCPUs of the largest slices that are placed, one on each server.
    one_worker_vcpus: usize,
}

fn plan_of<'a>(result: &'a Planned<'_>, at: usize) -> Option<&'a bmslice_plan::Plan> {
    result.placement.shares.get(at)?.plan.as_ref()
}

fn slices<'a>(result: &'a Planned<'_>) -> impl Iterator<Item = &'a SlicePlan> {
    let plans = result
        .placement
        .shares
        .iter()
        .filter_map(|s| s.plan.as_ref());
    plans.flat_map(|plan| plan.slices())
}

fn usage(result: &Planned<'_>) -> Usage {
    let mut sizes: Vec<usize> = slices(result).map(|slice| slice.vcpus.len()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let servers = result.servers.len();
    let cpus = result.servers.iter().flat_map(|read| &read.inventory.cpus);
    let shares = result.placement.shares.iter();
    Usage {
        slices: result.spec.slices.len(),
        placed: result.placement.placed(),
        bound: result.placement.bound,
        servers,
        servers_used: shares.filter(|share| share.plan.is_some()).count(),
        cpus: cpus.filter(|cpu| cpu.online).count(),
        vcpus: sizes.iter().sum(),
        one_worker_vcpus: sizes.iter().take(servers).sum(),
    }
}

fn percent(part: usize, of: usize) -> String {
    format!("{} %", (100 * part + of / 2).checked_div(of).unwrap_or(0))
}

impl Usage {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let gap = self.bound.saturating_sub(self.placed as u64);
        let proof = if self.placed == self.slices {
            String::new()
        } else if gap == 0 {
            "; it is proven that no more can be".into()
        } else {
            format!(
                "; at most {} can be, a gap of {}",
                self.bound,
                count(usize::try_from(gap).unwrap_or(usize::MAX), "slice")
            )
        };
        let one_worker = match (self.placed, self.placed.min(self.servers)) {
            (0, _) => "none of these slices".to_owned(),
            (1, _) => "the one slice".to_owned(),
            (all, one) if all <= self.servers => format!("all {one} slices"),
            (_, 1) => "the largest of these slices".to_owned(),
            (_, one) => format!("the {one} largest of these slices"),
        };
        let more = if self.placed > self.servers {
            format!("; all {} would need as many servers", self.placed)
        } else {
            String::new()
        };
        vec![
            (
                "servers",
                format!(
                    "{}, {} of them with slices",
                    self.servers, self.servers_used
                ),
            ),
            (
                "slices",
                format!("{} of {} have a place{proof}", self.placed, self.slices),
            ),
            (
                "CPUs",
                format!(
                    "{} of {} {} vCPUs ({})",
                    self.vcpus,
                    self.cpus,
                    if self.vcpus == 1 { "runs" } else { "run" },
                    percent(self.vcpus, self.cpus)
                ),
            ),
            (
                "one worker a server",
                format!(
                    "{one_worker}, {} of {} ({}){more}",
                    self.one_worker_vcpus,
                    count(self.cpus, "CPU"),
                    percent(self.one_worker_vcpus, self.cpus),
                ),
            ),
        ]
    }
}

/// For each server what changes; where slices move from one to another, both say so.
fn all_changes(result: &Planned<'_>) -> Vec<Vec<Change>> {
    let was = |name: &str| {
        let here = result
            .servers
            .iter()
            .filter_map(|read| read.previous.as_ref());
        let mut all = here.chain(result.lost);
        all.find(|plan| plan.slice(name).is_some())
            .map(|plan| plan.parts().server.hostname.clone())
    };
    let mut goes: BTreeMap<String, String> = BTreeMap::new();
    for (at, read) in result.servers.iter().enumerate() {
        for slice in plan_of(result, at).iter().flat_map(|plan| plan.slices()) {
            goes.insert(slice.name.to_string(), read.name().to_owned());
        }
    }
    let servers = result.servers.iter().enumerate();
    servers
        .map(|(at, read)| {
            let mut all = changes(read.previous.as_ref(), plan_of(result, at));
            for change in &mut all {
                let Some(name) = change.slice.as_deref() else {
                    continue;
                };
                match change.sign {
                    Sign::Added => {
                        if let Some(from) = was(name) {
                            change.what = vec![format!("moves here from {from}")];
                            change.guest = "made anew, with a new disk, and started".into();
                            change.restarts = true;
                        }
                    }
                    Sign::Removed => {
                        if let Some(to) = goes.get(name) {
                            change.what = vec![format!("moves to {to}")];
                        }
                    }
                    Sign::Changed | Sign::Kept => {}
                }
            }
            all
        })
        .collect()
}

/// The change that would do, with its server.
pub(crate) fn hint(server: &str, change: &Nearest) -> String {
    match change {
        Nearest::AnyServer { .. } | Nearest::OneMore { .. } => change.to_string(),
        _ => format!("{change} on `{server}`"),
    }
}

/// Why a slice has no place: servers that say the same together.
fn why(unplaced: &Unplaced, names: &[&str], spec: &Slicing) -> Vec<String> {
    let mut slices = spec.slices.iter();
    let slice = slices.find(|slice| slice.name == unplaced.slice);
    let selector = slice.and_then(|slice| slice.selector.as_ref());
    if unplaced.eligible == 0
        && let Some(selector) = selector
        && names.iter().all(|name| !selector.allows(name))
    {
        return vec![format!(
            "none of these servers has the labels that it selects by (`{selector}`): {}",
            names.join(", ")
        )];
    }
    if unplaced.eligible == 0 {
        return vec![format!(
            "the server that it names is none of these: {}",
            names.join(", ")
        )];
    }
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    for (server, refusal) in &unplaced.why {
        let text = refusal.to_string();
        match said.iter_mut().find(|(other, _)| *other == text) {
            Some((_, servers)) => servers.push(server),
            None => said.push((text, vec![server])),
        }
    }
    let mut lines: Vec<String> = said
        .into_iter()
        .map(|(text, servers)| format!("{}: {text}", servers.join(", ")))
        .collect();
    let more = unplaced.eligible.saturating_sub(unplaced.why.len());
    if more > 0 {
        lines.push(format!("{} more", count(more, "server")));
    }
    lines
}

pub(crate) fn data<'a>(result: &'a Planned<'_>) -> Data<'a> {
    let changes = all_changes(result);
    let servers = result.servers.iter().enumerate().zip(changes);
    Data {
        spec_digest: &result.spec.digest,
        usage: usage(result),
        servers: servers
            .map(|((at, read), changes)| ServerData {
                hostname: read.name(),
                inventory: read.file.display().to_string(),
                plan: plan_of(result, at).map(|plan| plan.parts()),
                changes,
            })
            .collect(),
        unplaced: result
            .placement
            .unplaced
            .iter()
            .map(|unplaced| UnplacedData {
                slice: unplaced.slice.to_string(),
                eligible: unplaced.eligible,
                why: unplaced
                    .why
                    .iter()
                    .map(|(server, refusal)| WhyData {
                        server: server.clone(),
                        code: refusal.code(),
                        text: refusal.to_string(),
                    })
                    .collect(),
                hint: unplaced.change.as_ref().map(|(s, change)| hint(s, change)),
            })
            .collect(),
    }
}

/// The page.
pub(crate) fn page(result: &Planned<'_>, output: &Output) -> String {
    let mut page = Page::new(output);
    page.facts(&usage(result).facts());
    page.heading("Servers");
    let mut servers = table(
        output,
        &["server", "slices", "vCPUs", "host", "free", "slices…"],
    );
    for (at, read) in result.servers.iter().enumerate() {
        let Some(plan) = plan_of(result, at) else {
            servers.add_row([read.name(), "0", "0", "-", "all", "-"]);
            continue;
        };
        let vcpus: usize = plan.slices().iter().map(|slice| slice.vcpus.len()).sum();
        let names: Vec<&str> = plan.slices().iter().map(|s| s.name.as_str()).collect();
        servers.add_row(vec![
            read.name().to_owned(),
            plan.slices().len().to_string(),
            vcpus.to_string(),
            plan.host().cpus.to_string(),
            or_dash((!plan.host().free.is_empty()).then_some(&plan.host().free)),
            names.join(", "),
        ]);
    }
    page.table(&servers);
    page.heading("Slices");
    let heading = [
        "slice",
        "server",
        "node",
        "vCPU→CPU…",
        "emulator",
        "memory",
        "NICs…",
    ];
    let mut all = table(output, &heading);
    for (at, read) in result.servers.iter().enumerate() {
        for slice in plan_of(result, at).iter().flat_map(|plan| plan.slices()) {
            let nics: Vec<String> = slice.nics.iter().map(nic).collect();
            all.add_row(vec![
                slice.name.to_string(),
                read.name().to_owned(),
                nodes(slice),
                pins(&slice.vcpus),
                slice.emulator.to_string(),
                slice.memory.to_string(),
                or_dash((!nics.is_empty()).then(|| nics.join("\n"))),
            ]);
        }
    }
    page.table(&all);
    costs(result, &mut page);
    if !result.lost.is_empty() || result.servers.iter().any(|read| read.previous.is_some()) {
        all_the_changes(result, &mut page);
    }
    if !result.placement.unplaced.is_empty() {
        page.heading("No place");
        let names: Vec<&str> = result.servers.iter().map(|read| read.name()).collect();
        let written = |name: &SliceName| {
            let slice = result.spec.slices.iter().find(|slice| slice.name == *name);
            slice.map(|slice| slice.written().clone())
        };
        // Of replicas one is told, since the others ask for the same.
        let all = &result.placement.unplaced;
        for alike in all.chunk_by(|a, b| written(&a.slice) == written(&b.slice)) {
            let [unplaced, others @ ..] = alike else {
                continue;
            };
            page.line(&match others {
                [] => unplaced.slice.to_string(),
                [.., last] => format!(
                    "{}, and {} more to {} likewise",
                    unplaced.slice,
                    others.len(),
                    last.slice
                ),
            });
            for why in why(unplaced, &names, result.spec) {
                page.paragraph(&format!("- {why}"), 2);
            }
        }
    }
    page.finish()
}

/// Costs that are told of one server's page at most.
const COSTS: usize = 20;

/// What nobody may have wanted; the reasons for all else are in each plan's report.
fn costs(result: &Planned<'_>, page: &mut Page<'_>) {
    let mut all: Vec<String> = Vec::new();
    for (at, read) in result.servers.iter().enumerate() {
        let plan = plan_of(result, at).into_iter();
        let findings = plan.flat_map(|plan| &plan.parts().report.findings);
        all.extend(findings.filter(|it| it.level == Level::Warning).map(|it| {
            let about = it.slice.as_ref().map(|slice| format!(", {slice}"));
            format!(
                "- {}{}: {}",
                read.name(),
                about.unwrap_or_default(),
                it.text
            )
        }));
    }
    if all.is_empty() {
        return;
    }
    page.heading("Costs");
    for cost in all.iter().take(COSTS) {
        page.paragraph(cost, 2);
    }
    if let Some(more) = all.len().checked_sub(COSTS).filter(|more| *more > 0) {
        page.line(&format!("{more} more: `-o json` has them, and all reasons"));
    }
}

fn all_the_changes(result: &Planned<'_>, page: &mut Page<'_>) {
    page.heading("Changes of the plans in force");
    let changes = all_changes(result);
    for (read, changes) in result.servers.iter().zip(&changes) {
        if plan_change::is_nothing(changes) {
            page.line(&format!("{}: none", read.name()));
            continue;
        }
        page.line(&format!("{}:", read.name()));
        for change in changes {
            page.paragraph(&change.line(), 4);
        }
    }
    for plan in result.lost {
        let slices = count(plan.slices().len(), "slice");
        let name = &plan.parts().server.hostname;
        page.line(&format!(
            "{name}: is gone, with {slices} of the plan in force"
        ));
    }
    let restarts: Vec<&str> = changes
        .iter()
        .flatten()
        .filter(|change| change.restarts)
        .filter_map(|change| change.slice.as_deref())
        .collect();
    if !restarts.is_empty() {
        page.line(&format!("guests that restart: {}", restarts.join(", ")));
    }
}

/// `VF 0 of 0000:81:00.0 (enp129s0), REMOTE`.
fn nic(nic: &NicPlan) -> String {
    let text = match nic {
        NicPlan::Passthrough { device: whole, .. } => device(whole),
        NicPlan::Vf { pf, index, .. } => format!("VF {index} of {}", device(pf)),
        NicPlan::Virtio { network, .. } => format!("virtio on {network}"),
    };
    match nic.common().local {
        Some(false) => format!("{text}, REMOTE"),
        _ => text,
    }
}
