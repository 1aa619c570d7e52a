//! `inspect`: what is read of the server, live and from a copy of its files.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Story;
use crate::lab::Lab;

pub fn inventory(lab: &Lab) -> Result<Value> {
    lab.server("bmslice inspect -o json")?.expect(0)?.json()
}

/// A capture of the server, and what `inspect` makes of it.
const CAPTURE: &str = "rm -f /root/server.tar.gz; bmslice capture --out /root/server.tar.gz >/dev/null && \
    bmslice inspect --root /root/server.tar.gz -o json";

pub fn inspect(lab: &Lab, story: &mut Story) -> Result<()> {
    let live = inventory(lab)?;
    let cpus = live["cpus"].as_array().context("no CPUs")?;
    let topology = lab.run(&["status", "-o", "json"])?.expect(0)?.json()?;
    let shape = &topology["topology"];
    let count = |key: &str| {
        shape[key]
            .as_u64()
            .with_context(|| format!("lab status has no {key}"))
    };
    let threads = count("threads")?;
    ensure!(
        cpus.len() as u64 == count("sockets")? * count("cores")? * threads,
        "{} CPUs",
        cpus.len()
    );
    let nics = physical_nics(&live);
    ensure!(
        nics.len() as u64 == count("nodes")? * count("nics_per_node")?,
        "{} SR-IOV NICs",
        nics.len()
    );
    for nic in &nics {
        ensure!(
            nic["node"].is_u64() && nic["mac"].is_string(),
            "a NIC without node or MAC: {nic}"
        );
        ensure!(nic["driver"] == "igb", "a NIC without its driver: {nic}");
    }
    ensure!(
        live["boot"]["loader"]["kind"] == "grub",
        "boot loader: {}",
        live["boot"]["loader"]
    );
    ensure!(
        live["hypervisor"]["libvirt"]["kvm"] == true,
        "libvirt: {}",
        live["hypervisor"]
    );
    let needed = live["pci"]
        .as_array()
        .context("no PCI")?
        .iter()
        .filter(|f| {
            f["hostNeeds"]
                .as_array()
                .is_some_and(|needs| !needs.is_empty())
        });
    ensure!(
        needed.count() >= 2,
        "the root disk and the management NIC are not recognised"
    );
    let table = lab.server("bmslice inspect")?.expect(0)?.stdout;
    for nic in &nics {
        let address = nic["address"].as_str().context("a NIC without address")?;
        ensure!(
            table.contains(address),
            "the table lacks {address}:\n{table}"
        );
    }

    story.before = captured_alike(lab)?;
    Ok(())
}

/// The inventory, which a capture gives as well.
pub fn captured_alike(lab: &Lab) -> Result<Value> {
    let captured = comparable(lab.server(CAPTURE)?.expect(0)?.json()?);
    let live = comparable(inventory(lab)?);
    ensure_same(&live, &captured, "live and captured inventory")?;
    Ok(live)
}

/// An inventory without what no file tells (libvirt's answers, the session that asks) and what
/// changes from one reading to the next (free memory).
pub fn comparable(mut inventory: Value) -> Value {
    inventory["hypervisor"] = Value::Null;
    inventory["notes"] = Value::Null;
    inventory["memory"]["available"] = Value::Null;
    for node in inventory["nodes"].as_array_mut().into_iter().flatten() {
        node["memoryFree"] = Value::Null;
        node["unfragmented"] = Value::Null;
    }
    for function in inventory["pci"].as_array_mut().into_iter().flatten() {
        if let Some(needs) = function["hostNeeds"].as_array_mut() {
            needs.retain(|need| need["why"] != "session");
        }
    }
    inventory
}

fn physical_nics(inventory: &Value) -> Vec<&Value> {
    let functions = inventory["pci"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    functions
        .iter()
        .filter(|f| f["sriov"].is_object())
        .collect()
}

/// The first place where two values differ, said by its path.
pub fn ensure_same(a: &Value, b: &Value, what: &str) -> Result<()> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys()) {
                ensure_same(&a[key], &b[key], &format!("{what}, {key}"))?;
            }
            Ok(())
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                ensure_same(x, y, &format!("{what}, {i}"))?;
            }
            Ok(())
        }
        _ => {
            ensure!(a == b, "{what}: {a} and {b}");
            Ok(())
        }
    }
}
