//! Who has a thread or a device.

use std::collections::BTreeMap;

use bmslice_inventory::{Inventory, PciFunction};
use bmslice_model::{CpuId, PciAddress};
use bmslice_plan::{Plan, SlicePlan};

/// Who has a thread or a device. Numbers of slices and domains are places in [`Owners::names`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The host's own work.
    Host,
    /// A vCPU of a slice.
    Vcpu {
        /// Which slice.
        slice: usize,
        /// Which of its vCPUs.
        vcpu: usize,
    },
    /// Emulator threads and IOThreads of a slice.
    Emulator {
        /// Which slice.
        slice: usize,
    },
    /// Emulator threads and IOThreads of several slices of a tenant.
    SharedPool {
        /// The first of them.
        slice: usize,
    },
    /// A sibling that stays idle for a slice's sake.
    Idle {
        /// Which slice.
        slice: usize,
    },
    /// A device of a slice.
    Device {
        /// Which slice.
        slice: usize,
    },
    /// A guest that runs already; without a plan.
    Domain {
        /// Which.
        domain: usize,
    },
    /// Nobody.
    Free,
    /// Kept free of the host's work, and of nobody known; without a plan.
    Isolated,
    /// Not running.
    Offline,
}

/// The owners of everything on a server.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    /// Slices of the plan or, without one, guests that run: name and tenant.
    pub names: Vec<(String, Option<String>)>,
    /// By slice: those of its tenant that share a core with it.
    beside: Vec<Vec<usize>>,
    threads: BTreeMap<CpuId, Owner>,
    devices: BTreeMap<PciAddress, Owner>,
}

impl Owners {
    /// By a plan; without one, by what runs now.
    #[must_use]
    pub fn of(inventory: &Inventory, plan: Option<&Plan>) -> Self {
        let mut owners = match plan {
            Some(plan) => Self::planned(inventory, plan),
            None => Self::running(inventory),
        };
        for cpu in inventory.cpus.iter().filter(|cpu| !cpu.online) {
            owners.threads.insert(cpu.id, Owner::Offline);
        }
        owners
    }

    fn planned(inventory: &Inventory, plan: &Plan) -> Self {
        let mut owners = Self::default();
        for cpu in &inventory.cpus {
            // What a cpuset keeps away is in use by somebody of the host's.
            let owner = if plan.host().isolated.contains(cpu.id) {
                Owner::Free
            } else {
                Owner::Host
            };
            owners.threads.insert(cpu.id, owner);
        }
        for split in &plan.host().split {
            // The function itself stays with the host's driver; its virtual ones are given.
            owners.devices.insert(split.device.address, Owner::Host);
        }
        for (index, slice) in plan.slices().iter().enumerate() {
            owners.take(index, slice);
            let others = plan.slices().iter().enumerate();
            let beside = others.filter(|(_, other)| slice.shares_a_core_with(other));
            owners.beside.push(beside.map(|(other, _)| other).collect());
        }
        owners
    }

    /// Who shares a core with a slice, for the legend.
    pub(crate) fn beside(&self, slice: usize) -> Option<String> {
        let others = self.beside.get(slice)?.iter();
        let letters: Vec<String> = others.map(|&other| letter(other)).collect();
        (!letters.is_empty()).then(|| format!("it shares a core with {}", letters.join(", ")))
    }

    fn take(&mut self, index: usize, slice: &SlicePlan) {
        let tenant = slice.tenant.as_str().to_owned();
        self.names
            .push((slice.name.as_str().to_owned(), Some(tenant)));
        for cpu in slice.idle.iter() {
            self.threads.insert(cpu, Owner::Idle { slice: index });
        }
        for cpu in slice.shared().iter() {
            let taken = matches!(self.threads.get(&cpu), Some(Owner::SharedPool { .. }));
            if !taken {
                self.threads.insert(cpu, Owner::SharedPool { slice: index });
            }
        }
        // A pool on the host's CPUs stays the host's.
        if !slice.pool_is_host && !slice.pool_is_shared {
            for cpu in slice.pool().iter() {
                self.threads.insert(cpu, Owner::Emulator { slice: index });
            }
        }
        for (vcpu, cpu) in slice.vcpus.iter().enumerate() {
            let owner = Owner::Vcpu { slice: index, vcpu };
            self.threads.insert(*cpu, owner);
        }
        for nic in &slice.nics {
            for address in nic.functions() {
                self.devices.insert(address, Owner::Device { slice: index });
            }
        }
    }

    fn running(inventory: &Inventory) -> Self {
        let mut owners = Self::default();
        for cpu in &inventory.cpus {
            let owner = if inventory.boot.isolated.contains(cpu.id) {
                Owner::Isolated
            } else {
                Owner::Host
            };
            owners.threads.insert(cpu.id, owner);
        }
        let libvirt = inventory.hypervisor.libvirt.as_ref();
        let domains = libvirt.map(|libvirt| libvirt.domains.as_slice());
        for domain in domains.unwrap_or_default().iter().filter(|d| d.running) {
            let index = owners.names.len();
            owners.names.push((domain.name.clone(), None));
            for cpu in domain.cpus.iter() {
                owners.threads.insert(cpu, Owner::Domain { domain: index });
            }
            for address in &domain.devices {
                let owner = Owner::Domain { domain: index };
                owners.devices.insert(*address, owner);
            }
        }
        owners
    }

    /// Of a thread.
    #[must_use]
    pub fn thread(&self, cpu: CpuId) -> Owner {
        self.threads.get(&cpu).cloned().unwrap_or(Owner::Free)
    }

    /// Of a device.
    #[must_use]
    pub fn device(&self, function: &PciFunction) -> Owner {
        match self.devices.get(&function.address) {
            Some(owner) => owner.clone(),
            None if function.host_needs.is_empty() => Owner::Free,
            None => Owner::Host,
        }
    }
}

/// `A`, `B`, … `Z`, `AA`, …: short enough for a thread's box.
#[must_use]
pub(crate) fn letter(mut index: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(char::from(b'A' + (index % 26) as u8));
        if index < 26 {
            break;
        }
        index = index / 26 - 1;
    }
    letters.iter().rev().collect()
}

impl Owner {
    /// What stands in its box: `A3` is vCPU 3 of slice A.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Host => "host".into(),
            Self::Vcpu { slice, vcpu } => format!("{}{vcpu}", letter(*slice)),
            Self::Emulator { slice } => format!("{}e", letter(*slice)),
            Self::SharedPool { slice } => format!("{}s", letter(*slice)),
            Self::Idle { slice } => format!("{}-", letter(*slice)),
            Self::Device { slice } => letter(*slice),
            Self::Domain { domain } => letter(*domain),
            Self::Free => "free".into(),
            Self::Isolated => "iso".into(),
            Self::Offline => "off".into(),
        }
    }

    /// The slice or domain that it belongs to.
    #[must_use]
    pub fn party(&self) -> Option<usize> {
        match self {
            Self::Vcpu { slice, .. }
            | Self::Emulator { slice }
            | Self::SharedPool { slice }
            | Self::Idle { slice }
            | Self::Device { slice } => Some(*slice),
            Self::Domain { domain } => Some(*domain),
            Self::Host | Self::Free | Self::Isolated | Self::Offline => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_do_not_run_out() {
        let all: Vec<String> = [0, 25, 26, 51, 52, 701, 702].map(letter).into();
        assert_eq!(all, ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }
}
