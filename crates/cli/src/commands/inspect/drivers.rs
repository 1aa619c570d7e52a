//! What NICs' drivers tell: firmware, queues, rings, clock, error correction, offloads.

use bmslice_inventory::{EthtoolFacts, Inventory, Setting};
use comfy_table::Table;

use crate::output::Output;
use crate::tables::{or_dash, table};

/// The offloads that decide how packets are steered to queues and guests.
const STEERING: [&str; 4] = [
    "hw-tc-offload",
    "rx-ntuple-filter",
    "rx-gro-hw",
    "l2-fwd-offload",
];

/// A row for each interface whose driver told something; `None` when none did.
pub(super) fn drivers(inventory: &Inventory, output: &Output) -> Option<Table> {
    let mut table = table(
        output,
        &[
            "NIC",
            "driver…",
            "firmware…",
            "queues",
            "rings rx/tx",
            "clock",
            "FEC",
            "offloads…",
        ],
    );
    let mut told = false;
    for interface in &inventory.interfaces {
        let Some(facts) = &interface.ethtool else {
            continue;
        };
        told = true;
        let driver: Vec<&str> = [&facts.driver, &facts.driver_version]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let fec = facts.fec.as_ref();
        table.add_row(vec![
            interface.name.clone(),
            or_dash((!driver.is_empty()).then(|| driver.join(" "))),
            or_dash(facts.firmware.as_ref()),
            queues(facts),
            rings(facts),
            clock(facts),
            or_dash(fec.and_then(|fec| fec.active.as_ref().or(fec.configured.first()))),
            offloads(facts),
        ]);
    }
    told.then_some(table)
}

fn of_most(setting: Setting) -> String {
    format!("{} of {}", setting.now, setting.max)
}

/// `32 of 96`, or receiving and sending ones apart.
fn queues(facts: &EthtoolFacts) -> String {
    let Some(channels) = &facts.channels else {
        return "-".into();
    };
    let apart = [("rx", channels.rx), ("tx", channels.tx)];
    let apart = apart
        .into_iter()
        .filter_map(|(name, setting)| Some(format!("{name} {}", of_most(setting?))));
    let parts: Vec<String> = channels
        .combined
        .map(of_most)
        .into_iter()
        .chain(apart)
        .collect();
    or_dash((!parts.is_empty()).then(|| parts.join(", ")))
}

fn rings(facts: &EthtoolFacts) -> String {
    let Some(rings) = &facts.rings else {
        return "-".into();
    };
    let now = |setting: Option<Setting>| or_dash(setting.map(|s| s.now));
    format!("{}/{}", now(rings.rx), now(rings.tx))
}

fn clock(facts: &EthtoolFacts) -> String {
    match &facts.timestamps {
        Some(timestamps) => match timestamps.clock {
            Some(clock) => format!("ptp{clock}"),
            None if timestamps.by_hardware() => "no clock, stamps".into(),
            None => "-".into(),
        },
        None => "-".into(),
    }
}

fn offloads(facts: &EthtoolFacts) -> String {
    let parts: Vec<String> = STEERING
        .iter()
        .filter_map(|name| {
            let offload = facts.offloads.get(*name)?;
            Some(format!("{name} {}", if offload.on { "on" } else { "off" }))
        })
        .collect();
    or_dash((!parts.is_empty()).then(|| parts.join(", ")))
}
