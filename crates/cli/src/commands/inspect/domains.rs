//! libvirt's domains and what they hold: CPUs, memory, PCI functions.

use bmslice_inventory::{DomainMemory, LibvirtFacts};
use comfy_table::Table;

use crate::output::Output;
use crate::tables::table;

/// A row for each domain.
pub(super) fn domains(libvirt: &LibvirtFacts, output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "domain",
            "state",
            "autostart",
            "CPUs…",
            "memory…",
            "PCI functions…",
        ],
    );
    for domain in &libvirt.domains {
        let devices: Vec<String> = domain.devices.iter().map(ToString::to_string).collect();
        table.add_row(vec![
            domain.name.clone(),
            if domain.running {
                "running"
            } else {
                "shut off"
            }
            .into(),
            if domain.autostart { "yes" } else { "no" }.into(),
            domain.cpus.to_string(),
            memory(&domain.memory),
            devices.join(" "),
        ]);
    }
    table
}

/// `8GiB of node 0 in 1GiB pages`, a line for each cell of the guest.
fn memory(parts: &[DomainMemory]) -> String {
    let lines: Vec<String> = parts
        .iter()
        .map(|part| {
            let mut text = part.size.to_string();
            let nodes: Vec<String> = part.nodes.iter().map(ToString::to_string).collect();
            match nodes.len() {
                0 => text.push_str(" of any node"),
                1 => text.push_str(&format!(" of node {}", nodes[0])),
                _ => text.push_str(&format!(" of nodes {}", nodes.join(","))),
            }
            match (part.huge, part.page) {
                (true, Some(page)) => text.push_str(&format!(" in {page} pages")),
                (true, None) => text.push_str(" in huge pages"),
                (false, _) => {}
            }
            text
        })
        .collect();
    lines.join("\n")
}
