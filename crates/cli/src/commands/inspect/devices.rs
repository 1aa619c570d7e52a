//! NICs and other PCI functions: what may be given away, and what is kept for the host.

use bmslice_inventory::{HostNeed, Inventory, NetInterface, PciFunction, Role};
use comfy_table::Table;

use crate::output::Output;
use crate::tables::{or_dash, table};

/// A row for each port.
pub(super) fn nics(inventory: &Inventory, output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "NIC",
            "address",
            "driver",
            "MAC",
            "node",
            "group",
            "VFs",
            "link",
            "kept for…",
        ],
    );
    let ports = inventory
        .pci
        .iter()
        .filter(|f| f.is_network() && !f.is_vf());
    for function in ports {
        let interface = inventory
            .interfaces
            .iter()
            .find(|interface| interface.pci == Some(function.address));
        let mac = function.mac.or_else(|| interface.and_then(|i| i.mac));
        table.add_row(vec![
            or_dash(function.interfaces.first()),
            function.address.to_string(),
            or_dash(function.driver.as_ref()),
            or_dash(mac),
            or_dash(function.node),
            or_dash(function.iommu_group),
            function.sriov.as_ref().map_or_else(
                || "-".into(),
                |sriov| format!("{} of {}", sriov.current, sriov.total),
            ),
            interface.map_or_else(|| "-".into(), link),
            needs(function),
        ]);
    }
    table
}

fn link(interface: &NetInterface) -> String {
    match (interface.carrier, interface.speed) {
        (Some(true), Some(speed)) if speed >= 1000 && speed.is_multiple_of(1000) => {
            format!("{}G", speed / 1000)
        }
        (Some(true), Some(speed)) => format!("{speed}M"),
        (Some(true), None) => "up".into(),
        (Some(false), _) => "no link".into(),
        (None, _) => interface.state.clone().unwrap_or_else(|| "-".into()),
    }
}

fn needs(function: &PciFunction) -> String {
    let mut needs: Vec<String> = function.host_needs.iter().map(need).collect();
    if function.rmrr {
        needs.push("firmware (RMRR)".into());
    }
    needs.join(", ")
}

/// Why the host needs it, in a few words.
fn need(need: &HostNeed) -> String {
    match need {
        HostNeed::DefaultRoute { interface } => format!("default route ({interface})"),
        HostNeed::Session { interface } => format!("this session ({interface})"),
        HostNeed::Member { of } => of.clone(),
        HostNeed::Address { interface } => format!("address ({interface})"),
        HostNeed::Mount { at } => format!("file system {at}"),
    }
}

/// What may be passed through beside NICs: storage, displays, accelerators, processors.
pub(super) fn is_of_interest(function: &PciFunction) -> bool {
    let class = function.class.trim_start_matches("0x");
    ["01", "03", "0b40", "10", "12"]
        .iter()
        .any(|of| class.starts_with(of))
}

/// What it is for: what it does for radio and cryptography before its class of PCI.
fn class(function: &PciFunction) -> &'static str {
    match function.role() {
        Role::Fec => return "FEC",
        Role::Qat => return "QAT",
        Role::Nvme => return "NVMe",
        _ => {}
    }
    let class = function.class.trim_start_matches("0x");
    match class.get(..2).unwrap_or_default() {
        "01" => "storage",
        "02" => "network",
        "03" => "display",
        "04" => "multimedia",
        "05" => "memory",
        "06" => "bridge",
        "07" => "communication",
        "08" => "system",
        "0b" => "processor",
        "0c" => "serial bus",
        "10" => "encryption",
        "11" => "signal processing",
        "12" => "accelerator",
        _ => "other",
    }
}

/// A row for each function.
pub(super) fn functions(functions: &[&PciFunction], output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "address",
            "class",
            "id…",
            "driver",
            "node",
            "group",
            "kept for…",
        ],
    );
    for function in functions {
        let class = match function.physfn {
            Some(physfn) => format!("VF of {physfn}"),
            None => class(function).into(),
        };
        table.add_row(vec![
            function.address.to_string(),
            class,
            function
                .name
                .clone()
                .unwrap_or_else(|| function.id.to_string()),
            or_dash(function.driver.as_ref()),
            or_dash(function.node),
            or_dash(function.iommu_group),
            needs(function),
        ]);
    }
    table
}
