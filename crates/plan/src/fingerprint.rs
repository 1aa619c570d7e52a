//! What of a server must not have moved between planning and applying.

use bmslice_inventory::Inventory;
use bmslice_model::CpuSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Facts that a placement rests on and that applying it does not change: cores, their nodes, and
/// the physical network functions. Kept as sentences, so that what moved can be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fingerprint {
    /// `sha256:…` over the facts.
    pub digest: String,
    /// One sentence each, in a fixed order.
    pub facts: Vec<String>,
}

impl Fingerprint {
    /// Takes it of a server.
    ///
    /// Left out on purpose: free memory and huge pages, bound drivers, VFs, MACs and kernel
    /// arguments, all of which `apply` changes itself; and the memory total, which differs by some
    /// pages from boot to boot (`apply` re-reads the huge pages instead).
    #[must_use]
    pub fn of(inventory: &Inventory) -> Self {
        let mut facts = Vec::new();
        let mut seen = CpuSet::new();
        for cpu in inventory.cpus.iter().filter(|cpu| cpu.online) {
            if seen.contains(cpu.id) {
                continue;
            }
            seen.extend_from(&cpu.siblings);
            let node = cpu
                .node
                .map_or_else(|| "none".to_owned(), |node| node.to_string());
            facts.push(format!("core {} on node {node}", cpu.siblings));
        }
        for device in inventory
            .pci
            .iter()
            .filter(|d| d.is_network() && !d.is_vf())
        {
            facts.push(format!(
                "network device {} at {}",
                device.id, device.address
            ));
        }
        let digest = sha256(facts.join("\n").as_bytes());
        Self { digest, facts }
    }

    /// What this one has and the other lacks, then the reverse: `core 2,14 on node 0 is gone`.
    #[must_use]
    pub fn moved(&self, now: &Self) -> Vec<String> {
        let lacks = |a: &Self, b: &Self| -> Vec<String> {
            a.facts
                .iter()
                .filter(|fact| !b.facts.contains(fact))
                .cloned()
                .collect()
        };
        let gone = lacks(self, now)
            .into_iter()
            .map(|fact| format!("{fact} is gone"));
        let new = lacks(now, self)
            .into_iter()
            .map(|fact| format!("{fact} is new"));
        gone.chain(new).collect()
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes)
        .iter()
        .fold(String::from("sha256:"), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
