//! The proof from outside the server: what the switch has learned.

use std::time::Duration;

use bmslice_model::VlanId;
use bmslice_plan::NicPlan;
use bmslice_spec::FabricSpec;

use crate::checks::SliceView;
use crate::fabric::{Age, FabricEntry, FabricTable, FabricVlan};
use crate::report::{Seen, Verdict};

pub(crate) fn learned(view: &SliceView) -> Seen<Vec<Verdict>> {
    let up = view.guest.process.as_ref().ok().and_then(|p| p.age);
    Ok(view
        .slice
        .nics
        .iter()
        .enumerate()
        .filter_map(|(index, nic)| card(index, nic, view.fabric, up))
        .collect())
}

/// What is wanted of a card. Without a word of the user's, a VLAN that the NIC itself adds is what
/// the switch must see.
fn wanted(nic: &NicPlan) -> Option<FabricSpec> {
    if let Some(fabric) = &nic.common().fabric {
        return Some(fabric.clone());
    }
    match nic {
        NicPlan::Vf {
            vlan: Some(vlan), ..
        } => Some(FabricSpec {
            port: None,
            vlan: Some(*vlan),
            vlan_name: None,
        }),
        NicPlan::Vf { .. } | NicPlan::Passthrough { .. } | NicPlan::Virtio { .. } => None,
    }
}

fn card(
    index: usize,
    nic: &NicPlan,
    table: Option<&FabricTable>,
    up: Option<Duration>,
) -> Option<Verdict> {
    let asked = nic.common().fabric.is_some();
    let Some(table) = table else {
        return asked.then(|| {
            Verdict::unknown(format!(
                "the plan says where the switch should see NIC {index}, and no table of the switch was given"
            ))
        });
    };
    let Some(mac) = nic.common().mac else {
        return asked.then(|| {
            Verdict::unknown(format!(
                "the MAC of NIC {index} is not known, so the switch's table cannot be searched for it"
            ))
        });
    };
    let what = format!("where the switch sees {mac} (NIC {index})");
    let entries: Vec<&FabricEntry> = table.of(mac).collect();
    let place = |entry: &FabricEntry| format!("port {}, {}", entry.port(), entry.vlan);
    let places: Vec<String> = entries.iter().map(|entry| place(entry)).collect();
    let want = wanted(nic);
    let Some(first) = entries.first() else {
        // Nothing was asked for, and nothing is there to be wrong.
        return asked.then(|| {
            Verdict::pending(format!("the guest sends a frame from {mac} (NIC {index})"))
        });
    };
    if entries.iter().any(|entry| entry.port != first.port) {
        return Some(Verdict::differs(
            what,
            "one port",
            format!("{}: a loop, or two cards with one MAC", places.join("; ")),
        ));
    }
    let Some(want) = want else {
        return Some(Verdict::satisfied(format!(
            "the switch sees {mac} (NIC {index}) on {}; the plan does not say where it should",
            places.join("; ")
        )));
    };
    let sentence = describe(&want);
    let mut known = true;
    for entry in &entries {
        match fits(entry, &want) {
            Fit::Yes => {}
            Fit::No => {
                return Some(Verdict::differs(what, sentence, places.join("; ")));
            }
            Fit::Untold => known = false,
        }
    }
    if !known {
        return Some(Verdict::unknown(format!(
            "the switch sees {mac} on {}, and the table does not tell whether that is {sentence}: give port names (`ovs-ofctl show BRIDGE` beside the table), or the VLAN as the table writes it (`vlan` or `vlanName`)",
            places.join("; ")
        )));
    }
    if entries.iter().all(|entry| entry.age == Age::Static) {
        return Some(Verdict::unknown(format!(
            "the switch's entry for {mac} is configured and not learned: it proves no frame"
        )));
    }
    // An entry that nothing has renewed since before the guest started is somebody else's.
    let stale = |entry: &&FabricEntry| match (entry.age, up) {
        (Age::Idle(idle), Some(up)) => idle > up,
        _ => false,
    };
    if entries.iter().all(stale) {
        return Some(Verdict::pending(format!(
            "the guest sends a frame from {mac} (NIC {index}): the switch's entry is older than the guest"
        )));
    }
    Some(Verdict::satisfied(format!(
        "the switch sees {mac} (NIC {index}) on {}",
        places.join("; ")
    )))
}

fn describe(want: &FabricSpec) -> String {
    let port = want
        .port
        .as_ref()
        .map_or_else(|| "any port".into(), |port| format!("port {port}"));
    let vlan = match (want.vlan, &want.vlan_name) {
        (Some(vlan), Some(name)) => format!("VLAN {vlan} ({name})"),
        (Some(vlan), None) => format!("VLAN {vlan}"),
        (None, Some(name)) => format!("VLAN {name}"),
        (None, None) => "any VLAN".into(),
    };
    format!("{port}, {vlan}")
}

enum Fit {
    Yes,
    No,
    Untold,
}

fn fits(entry: &FabricEntry, want: &FabricSpec) -> Fit {
    let port = match &want.port {
        None => Fit::Yes,
        Some(port) => match entry.is_on(port) {
            Some(true) => Fit::Yes,
            Some(false) => Fit::No,
            None => Fit::Untold,
        },
    };
    match (
        port,
        vlan(&entry.vlan, want.vlan, want.vlan_name.as_deref()),
    ) {
        (Fit::No, _) | (_, Fit::No) => Fit::No,
        (Fit::Untold, _) | (_, Fit::Untold) => Fit::Untold,
        (Fit::Yes, Fit::Yes) => Fit::Yes,
    }
}

/// A table tells a VLAN by number or by name, and the user one or both.
fn vlan(got: &FabricVlan, number: Option<VlanId>, name: Option<&str>) -> Fit {
    let is = |same: bool| if same { Fit::Yes } else { Fit::No };
    match (got, number, name) {
        (_, None, None) => Fit::Yes,
        (FabricVlan::Untagged, _, _) => Fit::No,
        (FabricVlan::Number(got), Some(want), _) => is(*got == want),
        (FabricVlan::Name(got), _, Some(want)) => is(got == want),
        (FabricVlan::Number(_), None, Some(_)) | (FabricVlan::Name(_), Some(_), None) => {
            Fit::Untold
        }
    }
}
