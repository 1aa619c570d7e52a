//! Reading a whole server, phase by phase, and the two kinds of inventory that come of it.

use std::collections::BTreeMap;
use std::ops::Deref;

use bmslice_host::{Machine, NetAnswers, Root};
use bmslice_model::PciAddress;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::contradictions::{Contradiction, contradictions};
use crate::facts::{DevlinkFacts, EthtoolFacts, FORMAT, Inventory, LibvirtFacts, Note};
use crate::scan::Scan;
use crate::{
    block, boot, cache, cpu, device, ethtool, host, hypervisor, machine, memory, needs, net, pci,
    pools, power, routes,
};

/// Where a capture keeps its [`Probes`].
pub(crate) const PROBES: &str = "/bmslice/probes.json";

/// Why there is no inventory. Anything less than this becomes a [`Note`](crate::Note).
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not the root of a Linux system.
    #[error(
        "`{root}` shows no CPU: neither /sys/devices/system/cpu nor /proc/cpuinfo is there; give the folder that stands for /"
    )]
    NoCpus {
        /// The folder that was read.
        root: String,
    },
    /// An inventory file that is not JSON, or not of this form.
    #[error("this is not an inventory file: {0}")]
    Malformed(#[from] serde_json::Error),
    /// An inventory file that contradicts itself: no server was read so.
    #[error("{} of the inventory what the rest says: {}", if .found.len() == 1 { "one part contradicts" } else { "parts contradict" }, listed(.found))]
    Contradicts {
        /// What, and where, in the order of the file.
        found: Vec<Contradiction>,
    },
    /// An inventory file of another version.
    #[error("the inventory has format `{found}`; this bmslice reads `{FORMAT}`")]
    Format {
        /// What it says it is.
        found: String,
    },
}

/// What files do not tell; a capture holds it beside the files (`capture`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probes {
    /// The address that the running session comes from (the first field of `SSH_CONNECTION`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_peer: Option<String>,
    /// What libvirt said (see [`libvirt_facts`](crate::libvirt_facts)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<LibvirtFacts>,
    /// Why libvirt did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt_error: Option<String>,
    /// Whether a VM was made with `/dev/kvm`; tried by who asks alone (`doctor`, `capture`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kvm_works: bool,
    /// Why none could be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm_error: Option<String>,
    /// What the drivers of NICs tell, by interface.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nics: BTreeMap<String, EthtoolFacts>,
    /// What devlink tells, by PCI function.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devlink: BTreeMap<PciAddress, DevlinkFacts>,
    /// Why the kernel did not tell of the NICs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nics_error: Option<String>,
}

impl Probes {
    /// Asks a machine; a libvirt that does not answer is told in `libvirt_error`, a kernel that
    /// does not in `nics_error`.
    #[must_use]
    pub fn of(machine: &dyn Machine, session_peer: Option<&str>) -> Self {
        let answer = machine
            .hypervisor()
            .and_then(|hypervisor| crate::libvirt_facts(&*hypervisor));
        let (libvirt, libvirt_error) = match answer {
            Ok(facts) => (Some(facts), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let told = machine.nics(&net::with_device(machine.root()));
        let (answers, nics_error) = match told {
            Ok(answers) => (answers, None),
            Err(error) => (NetAnswers::default(), Some(error.to_string())),
        };
        let (nics, devlink) = ethtool::facts(&answers);
        Self {
            session_peer: session_peer.map(Into::into),
            libvirt,
            libvirt_error,
            nics,
            devlink,
            nics_error,
            ..Self::default()
        }
    }
}

/// Reads a server through its root.
///
/// # Errors
/// [`ReadError::NoCpus`] when the root is no Linux system's.
pub fn read(root: &Root, probes: &Probes) -> Result<Inventory, ReadError> {
    let mut scan = Scan::new(root);
    let cpuinfo = machine::read_cpuinfo(&scan);
    let machine = machine::read(&scan, &cpuinfo);
    let mut cpus = cpu::read(&mut scan, &cpuinfo);
    if cpus.is_empty() {
        return Err(ReadError::NoCpus {
            root: root.path().display().to_string(),
        });
    }
    let caches = cache::read(&mut scan, &cpus);
    let nodes = memory::read(&mut scan, &mut cpus);
    let whole = pools::read(&scan);
    let power = power::read(&mut scan, &cpus);
    power::kinds(&mut cpus, &power);
    let online = cpus.iter().filter(|c| c.online).map(|c| c.id).collect();
    let (mut pci, listed) = pci::read(&mut scan, &online);
    let iommu_groups = device::read(&mut scan, &mut pci, &listed);
    let mut interfaces = net::read(&mut scan, &probes.nics);
    net::attach(&mut scan, &interfaces, &mut pci);
    for function in &mut pci {
        function.details.devlink = probes.devlink.get(&function.address).cloned();
    }
    if let Some(error) = &probes.nics_error {
        scan.note("/sys/class/net", error);
    }
    let routes = routes::Routes::read(&scan);
    let storage = block::read(&mut scan);
    needs::mark(
        &mut scan,
        &mut interfaces,
        &routes,
        &storage,
        probes.session_peer.as_deref(),
        &mut pci,
    );
    let boot = boot::read(&mut scan, &pci);
    let present = cpus.iter().map(|cpu| cpu.id).collect();
    let host = host::read(&mut scan, &cpuinfo, &boot, &present);
    let mut hypervisor = hypervisor::read(&scan);
    hypervisor.libvirt.clone_from(&probes.libvirt);
    hypervisor.libvirt_error.clone_from(&probes.libvirt_error);
    hypervisor.kvm_works = probes.kvm_works;
    hypervisor.kvm_error.clone_from(&probes.kvm_error);
    for domain in hypervisor.libvirt.iter_mut().flat_map(|l| &mut l.domains) {
        for part in domain.memory.iter_mut().filter(|part| part.huge) {
            part.page = part.page.or(whole.default_huge_page);
        }
    }
    Ok(Inventory {
        format: FORMAT.into(),
        machine,
        cpus,
        caches,
        nodes,
        memory: whole,
        power,
        pci,
        iommu_groups,
        interfaces: interfaces.into_iter().map(|i| i.facts).collect(),
        boot,
        host,
        hypervisor,
        notes: scan.notes,
    })
}

/// The inventory of a machine that can be acted on: only this one becomes steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveInventory {
    facts: Inventory,
    session_peer: Option<String>,
}

impl LiveInventory {
    /// Reads the machine, its hypervisor too; a libvirt that does not answer is told in
    /// [`libvirt_error`](crate::HypervisorFacts::libvirt_error). `session_peer` as in [`Probes`].
    ///
    /// # Errors
    /// [`ReadError::NoCpus`].
    pub fn read(machine: &dyn Machine, session_peer: Option<&str>) -> Result<Self, ReadError> {
        let probes = Probes::of(machine, session_peer);
        Ok(Self {
            facts: read(machine.root(), &probes)?,
            session_peer: probes.session_peer,
        })
    }

    /// The address that the session comes from that asks for this; `None` at the server's own
    /// console, and for what systemd starts.
    #[must_use]
    pub fn session_peer(&self) -> Option<&str> {
        self.session_peer.as_deref()
    }
}

/// The inventory of a captured tree or a file: to look at and to plan with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedInventory(Inventory);

impl CapturedInventory {
    /// Reads a captured tree, and what `capture` put beside its files.
    ///
    /// # Errors
    /// [`ReadError::NoCpus`].
    pub fn read(root: &Root) -> Result<Self, ReadError> {
        let (probes, damaged) = captured_probes(root);
        let mut inventory = read(root, &probes)?;
        if let Some(text) = damaged {
            inventory.notes.push(Note {
                about: PROBES.into(),
                text: format!("it was left out: {text}"),
            });
        }
        Ok(Self(inventory))
    }

    /// What `capture` put beside the files; nothing in a tree that another program captured.
    #[must_use]
    pub fn probes(root: &Root) -> Probes {
        captured_probes(root).0
    }

    /// Reads an inventory file.
    ///
    /// # Errors
    /// [`ReadError::Malformed`], [`ReadError::Format`] for a file of another version, or
    /// [`ReadError::Contradicts`] for one that somebody edited into what no server can be.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        // The version first: a file of another one need not have this one's fields.
        let value: serde_json::Value = serde_json::from_str(text)?;
        if let Some(found) = value.get("format").and_then(|format| format.as_str())
            && found != FORMAT
        {
            return Err(ReadError::Format {
                found: found.into(),
            });
        }
        // From the text again, so that an error has its line.
        let inventory: Inventory = serde_json::from_str(text)?;
        let found = contradictions(&inventory);
        if found.is_empty() {
            Ok(Self(inventory))
        } else {
            Err(ReadError::Contradicts { found })
        }
    }
}

fn listed(found: &[Contradiction]) -> String {
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

fn captured_probes(root: &Root) -> (Probes, Option<String>) {
    match root.read_text(PROBES) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(probes) => (probes, None),
            Err(error) => (Probes::default(), Some(error.to_string())),
        },
        Err(_) => (Probes::default(), None),
    }
}

macro_rules! is_an_inventory {
    ($name:ident, $facts:tt) => {
        impl $name {
            /// The facts alone.
            #[must_use]
            pub fn into_inner(self) -> Inventory {
                self.$facts
            }
        }

        impl Deref for $name {
            type Target = Inventory;
            fn deref(&self) -> &Inventory {
                &self.$facts
            }
        }
    };
}

is_an_inventory!(LiveInventory, facts);
is_an_inventory!(CapturedInventory, 0);
