//! `bmslice status`: what is sliced here.

use std::path::PathBuf;

use bmslice_apply::{GuestState, SliceStatus, Status};
use bmslice_model::{CpuSet, MacAddress};
use bmslice_plan::{NicPlan, SlicePlan};
use bmslice_verify::FabricTable;
use clap::Args;
use serde::Serialize;

use crate::Context;
use crate::commands::apply::failure;
use crate::commands::verify;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, style};
use crate::plan_page::{device, pins};
use crate::server;
use crate::tables::{Page, or_dash};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Show what is sliced here: each slice with its guest's state, CPUs, memory and NICs, \
what its next start changes, whether a reboot or an interrupted run is open, and whether the server \
went back from kernel arguments that it tried. Changes nothing.";

/// What the switch says, if anything.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The switch's MAC table as it prints it, to show where each NIC was learned; `-` is standard
    /// input
    #[arg(long, value_name = "FILE")]
    pub fabric: Option<PathBuf>,
}

/// For programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interrupted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reboot_needed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fell_back: Option<String>,
    /// Minutes after this boot in which its kernel arguments have to be confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_trial_minutes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    libvirt_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_cpus: Option<CpuSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_cpus: Option<CpuSet>,
    slices: Vec<Slice>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    name: String,
    tenant: String,
    state: &'static str,
    vcpus: Vec<u32>,
    emulator: CpuSet,
    nodes: Vec<u32>,
    memory: String,
    nics: Vec<Nic>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    at_next_start: Vec<String>,
    /// Why it is not seen to be up, when it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_up: Option<String>,
    /// For how many seconds at most it is still waited for; not there when nobody waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_for_seconds: Option<u64>,
    /// The last lines of its console, when it is off or not up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    console: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Nic {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddress>,
    /// Where the switch has learned it; not there when nobody asked the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<Vec<String>>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let fabric = arguments
        .fabric
        .as_deref()
        .map(verify::fabric)
        .transpose()?;
    let machine = server::machine(context)?;
    let status = bmslice_apply::status(&machine).map_err(failure)?;
    let document = document(&status, fabric.as_ref());
    context
        .output
        .data(&document, || page(&document, &status, &context.output))?;
    Ok(Exit::Done)
}

fn document(status: &Status, fabric: Option<&FabricTable>) -> Document {
    let plan = status.plan.as_ref();
    let slices = status
        .slices
        .iter()
        .filter_map(|state| {
            let slice = plan?.slice(state.name.as_str())?;
            Some(slice_document(slice, state, fabric))
        })
        .collect();
    Document {
        plan: plan.map(bmslice_plan::Plan::digest),
        interrupted: status.open.as_ref().map(bmslice_apply::Run::describe),
        reboot_needed: status.reboot.clone(),
        fell_back: status.fell_back.clone(),
        on_trial_minutes: status.on_trial,
        libvirt_error: status.libvirt_error.clone(),
        host_cpus: plan.map(|plan| plan.host().cpus.clone()),
        free_cpus: plan.map(|plan| plan.host().free.clone()),
        slices,
    }
}

fn slice_document(slice: &SlicePlan, state: &SliceStatus, fabric: Option<&FabricTable>) -> Slice {
    Slice {
        name: slice.name.to_string(),
        tenant: slice.tenant.to_string(),
        state: match state.state {
            GuestState::Running => "running",
            GuestState::Off => "off",
            GuestState::Undefined => "undefined",
            GuestState::Foreign => "foreign",
            GuestState::Unknown => "unknown",
        },
        vcpus: slice.vcpus.iter().map(|cpu| cpu.number()).collect(),
        emulator: slice.emulator.clone(),
        nodes: slice.cells.iter().map(|cell| cell.node.0).collect(),
        memory: match slice.huge_pages {
            Some(page) => format!("{} in pages of {page}", slice.memory),
            None => slice.memory.to_string(),
        },
        nics: slice
            .nics
            .iter()
            .map(|nic| nic_document(nic, fabric))
            .collect(),
        at_next_start: state.at_next_start.clone(),
        not_up: state.not_up.clone(),
        waited_for_seconds: state.waited_for,
        console: state.console.clone(),
    }
}

fn nic_document(nic: &NicPlan, fabric: Option<&FabricTable>) -> Nic {
    let mac = nic.common().mac;
    let what = match nic {
        NicPlan::Passthrough { device: d, .. } => device(d),
        NicPlan::Vf {
            pf,
            index,
            address,
            vlan,
            rules,
            ..
        } => {
            let mut words = vec![format!("VF {index} {address} of {}", device(pf))];
            words.extend(vlan.map(|vlan| format!("VLAN {vlan}")));
            words.extend(rules.described());
            words.join(", ")
        }
        NicPlan::Virtio { network, .. } => format!("virtio on network {network}"),
    };
    let learned = fabric.and_then(|table| {
        let entries = table.of(mac?);
        Some(
            entries
                .map(|entry| format!("port {}, {}", entry.port(), entry.vlan))
                .collect(),
        )
    });
    Nic { what, mac, learned }
}

fn page(document: &Document, status: &Status, output: &Output) -> String {
    let mut page = Page::new(output);
    let color = output.colors();
    if let Some(what) = &document.fell_back {
        let word = style::error("went back", color);
        page.paragraph(
            &format!(
                "{word}: {what}; change the spec, or try the same once more with `bmslice apply --try-again`, or give up with `bmslice release`"
            ),
            2,
        );
    } else if let Some(minutes) = document.on_trial_minutes {
        let word = style::warning("on trial", color);
        page.paragraph(
            &format!(
                "{word}: the kernel arguments of this boot are not confirmed yet; the server goes back to those before {minutes} minutes after its start"
            ),
            2,
        );
    }
    if let Some(what) = &document.interrupted {
        let word = style::warning("interrupted", color);
        let goes_on = match document.fell_back {
            None => "; `bmslice apply` goes on with it",
            Some(_) => "",
        };
        page.paragraph(&format!("{word}: {what}{goes_on}"), 2);
    }
    if let Some(why) = &document.reboot_needed {
        let word = style::warning("reboot needed", color);
        page.paragraph(&format!("{word}: {why}"), 2);
    }
    if let Some(error) = &document.libvirt_error {
        let word = style::warning("warning", color);
        page.paragraph(&format!("{word}: {error}"), 2);
    }
    let Some(plan) = &status.plan else {
        page.line("Nothing is sliced here.");
        return page.finish();
    };
    let host = plan.host();
    page.facts(&[
        ("server", plan.parts().server.hostname.clone()),
        ("plan", plan.digest()),
        ("host's CPUs", host.cpus.to_string()),
        (
            "free CPUs",
            or_dash((!host.free.is_empty()).then_some(&host.free)),
        ),
    ]);
    for (slice, planned) in document.slices.iter().zip(plan.slices()) {
        let state = match slice.state {
            "running" => style::good("running", color),
            "off" => style::warning("off", color),
            other => style::error(other, color),
        };
        page.heading(&format!("{} ({}): {state}", slice.name, slice.tenant));
        let nodes: Vec<String> = slice.nodes.iter().map(ToString::to_string).collect();
        let mut facts = vec![
            ("  vCPU→CPU", pins(&planned.vcpus)),
            ("  emulator", slice.emulator.to_string()),
            (
                "  memory",
                format!("{}, NUMA node {}", slice.memory, nodes.join(", ")),
            ),
        ];
        for nic in &slice.nics {
            let mut text = nic.what.clone();
            if let Some(mac) = nic.mac {
                text.push_str(&format!(", MAC {mac}"));
            }
            match nic.learned.as_deref() {
                None => {}
                Some([]) => text.push_str("\nnot learned by the switch"),
                Some(learned) => {
                    text.push_str(&format!(
                        "\nlearned by the switch on {}",
                        learned.join("; ")
                    ));
                }
            }
            facts.push(("  NIC", text));
        }
        for change in &slice.at_next_start {
            facts.push(("  next start", change.clone()));
        }
        if slice.state == "running" {
            facts.push(("  look inside", format!("virsh console {}", slice.name)));
        }
        match (&slice.not_up, slice.waited_for_seconds) {
            (None, _) => {}
            (Some(why), None) => facts.push(("  not up", why.clone())),
            (Some(why), Some(seconds)) => facts.push((
                "  not up yet",
                format!("{why}; it is waited for, {seconds} s more at most"),
            )),
        }
        if !slice.console.is_empty() {
            facts.push(("  it last wrote", slice.console.join("\n")));
        }
        page.facts(&facts);
    }
    page.finish()
}
