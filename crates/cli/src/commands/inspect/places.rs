//! Where PCI functions are, and what they can do for a guest: path, slot, BARs, ACS, resets.

use bmslice_inventory::{Bar, PciFunction};
use comfy_table::Table;

use crate::output::Output;
use crate::tables::{or_dash, table};

/// A row for each function.
pub(super) fn places(functions: &[PciFunction], output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "address",
            "under…",
            "slot",
            "BARs…",
            "ACS",
            "reset by…",
            "serial…",
        ],
    );
    for function in functions {
        let facts = &function.details;
        let mut under: Vec<String> = facts.root_complex.iter().cloned().collect();
        under.extend(function.upstream.iter().map(ToString::to_string));
        let devlink = facts.devlink.as_ref();
        let serial = facts.serial.clone().or_else(|| devlink?.serial.clone());
        table.add_row(vec![
            function.address.to_string(),
            under.join(" "),
            or_dash(facts.slot.as_ref().or(facts.label.as_ref())),
            bars(&facts.bars),
            or_dash(facts.acs.map(|acs| if acs { "yes" } else { "no" })),
            or_dash(facts.reset_methods.as_ref().map(|methods| {
                if methods.is_empty() {
                    "nothing".to_owned()
                } else {
                    methods.join(" ")
                }
            })),
            or_dash(serial),
        ]);
    }
    table
}

/// `0: 16MiB, 3: 32KiB`; I/O ports say so.
fn bars(bars: &[Bar]) -> String {
    let each: Vec<String> = bars
        .iter()
        .map(|bar| {
            let ports = if bar.memory { "" } else { " of ports" };
            format!("{}: {}{ports}", bar.index, bar.size)
        })
        .collect();
    or_dash((!each.is_empty()).then(|| each.join(", ")))
}
