//! The lines of `inspect` on what may disturb quiet cores or leak from them: clocks, memory,
//! mitigations, services.

use bmslice_inventory::Inventory;
use bmslice_model::ByteSize;

/// Lines that have something to tell.
pub(super) fn facts(inventory: &Inventory) -> Vec<(&'static str, String)> {
    [
        ("power", power(inventory)),
        ("memory", memory(inventory)),
        ("security", security(inventory)),
        ("services", services(inventory)),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .collect()
}

fn power(inventory: &Inventory) -> String {
    let facts = &inventory.power;
    let mut parts: Vec<String> = facts
        .frequencies
        .iter()
        .map(|group| {
            let mut text = group.governor.clone().unwrap_or_else(|| "clocked".into());
            if let (Some(min), Some(max)) = (group.min, group.max) {
                text.push_str(&format!(" {}-{} MHz", min / 1000, max / 1000));
            }
            if facts.frequencies.len() > 1 {
                text.push_str(&format!(" on {}", group.cpus));
            }
            text
        })
        .collect();
    if let Some(boost) = facts.boost {
        parts.push(format!("boost {}", if boost { "on" } else { "off" }));
    }
    if let Some(state) = facts.idle.as_ref().and_then(|idle| idle.deepest()) {
        parts.push(format!(
            "idle down to {} ({} µs)",
            state.name, state.latency
        ));
    }
    if let Some(smt) = &inventory.machine.smt {
        parts.push(format!("SMT {smt}"));
    }
    parts.join(", ")
}

fn memory(inventory: &Inventory) -> String {
    let facts = &inventory.memory;
    let mut parts = Vec::new();
    if let Some(thp) = &facts.transparent_huge_pages {
        parts.push(format!("transparent huge pages {}", thp.enabled));
    }
    if let Some(swap) = facts.swap.filter(|swap| *swap != ByteSize::ZERO) {
        parts.push(format!("swap {swap}"));
    }
    if facts.ksm == Some(true) {
        parts.push("KSM on".into());
    }
    for pool in facts.huge_pages.iter().filter(|pool| pool.reserved > 0) {
        parts.push(format!("{} × {} reserved", pool.reserved, pool.size));
    }
    for tier in facts.tiers.iter().filter(|_| facts.tiers.len() > 1) {
        let nodes: Vec<String> = tier.nodes.iter().map(ToString::to_string).collect();
        parts.push(format!("tier {}: nodes {}", tier.id, nodes.join(",")));
    }
    parts.join(", ")
}

/// Microcode, and the vulnerabilities of CPUs that are open.
fn security(inventory: &Inventory) -> String {
    let machine = &inventory.machine;
    let mut parts = Vec::new();
    parts.extend(machine.microcode.as_ref().map(|m| format!("microcode {m}")));
    let known = &machine.vulnerabilities;
    if !known.is_empty() {
        let open: Vec<&str> = known
            .iter()
            .filter(|(_, text)| text.contains("ulnerable"))
            .map(|(name, _)| name.as_str())
            .collect();
        parts.push(match open.len() {
            0 => format!("none of {} known vulnerabilities open", known.len()),
            _ => format!("open: {}", open.join(" ")),
        });
    }
    parts.join(", ")
}

fn services(inventory: &Inventory) -> String {
    let host = &inventory.host;
    let mut parts = Vec::new();
    parts.extend(host.systemd.map(|version| format!("systemd {version}")));
    parts.extend(host.tuned.as_ref().map(|name| format!("TuneD {name}")));
    if host.irqbalance == Some(true) {
        parts.push("irqbalance".into());
    }
    for partition in &host.partitions {
        parts.push(format!(
            "{} {} ({})",
            partition.cgroup, partition.state, partition.cpus
        ));
    }
    parts.join(", ")
}
