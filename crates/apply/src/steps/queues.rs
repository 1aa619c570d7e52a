//! The queues of NICs that the host keeps (ethtool(8), `--set-channels`).
//!
//! Each has an interrupt. A driver that gets fewer of them lets go of those that it had on others'
//! CPUs, and drops the link for a moment where its hardware has to start anew.

use bmslice_host::HostError;
use bmslice_inventory::{Setting, nic_channels};
use bmslice_plan::DeviceRef;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::device::interface;
use crate::steps::fixed;

/// Sees that a NIC has no more queues than the host has CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FitQueues {
    /// Which.
    pub nic: DeviceRef,
    /// How many of a kind at most.
    pub most: u32,
    /// Whether there are queues to receive and queues to send, and none that do both.
    pub apart: bool,
}

impl FitQueues {
    fn name(&self) -> String {
        match &self.nic.interface {
            Some(name) => format!("{} ({name})", self.nic.address),
            None => self.nic.address.to_string(),
        }
    }

    pub fn describe(&self) -> String {
        format!("give {} at most {} queues", self.name(), self.most)
    }

    pub fn describe_undo(&self) -> String {
        format!("give {} the queues that it had", self.name())
    }

    /// How many it receives and sends with; `None` when its driver does not tell. sysfs shows those of
    /// an interface that is up, and what it had before on one that is down.
    fn now(&self, look: &Look<'_>, interface: &str) -> Result<Option<(u32, u32)>, HostError> {
        let now = |setting: Option<Setting>| setting.map_or(0, |setting| setting.now);
        let channels = nic_channels(look.machine, interface)?;
        Ok(channels.map(|channels| match now(channels.combined) {
            both if !self.apart => (both, both),
            both => (both + now(channels.rx), both + now(channels.tx)),
        }))
    }

    fn index(look: &Look<'_>, interface: &str) -> Option<u32> {
        let index = look.number(&format!("/sys/class/net/{interface}/ifindex"))?;
        u32::try_from(index).ok()
    }

    pub fn precondition(&self, look: &Look<'_>) -> Vec<Problem> {
        if look.machine.has_program("ethtool") {
            return Vec::new();
        }
        vec![
            Problem::server_lacks(
                "the plan gives NICs of the host fewer queues, by `ethtool`, which is not here",
            )
            .hint("`apt install ethtool`"),
        ]
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let Some(interface) = interface(look, self.nic.address) else {
            // Without a driver of the host's it has no queue.
            return Ok(Observation::Held);
        };
        let Some((rx, tx)) = self.now(look, &interface)? else {
            return Ok(Observation::Held);
        };
        let kept = || {
            let known = fixed::read(look, fixed::NICS);
            Self::index(look, &interface).is_some_and(|index| known.contains(&index))
        };
        if rx.max(tx) <= self.most || kept() {
            return Ok(Observation::Held);
        }
        Ok(Observation::different(format!(
            "`{interface}` has {} queues",
            rx.max(tx)
        )))
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let now = match interface(look, self.nic.address) {
            Some(interface) => self.now(look, &interface)?,
            None => None,
        };
        Ok(now.map_or(Before::Nothing, |(rx, tx)| Before::Queues { rx, tx }))
    }

    fn set(&self, site: &Site<'_>, interface: &str, rx: u32, tx: u32) -> Result<(), HostError> {
        let (rx, tx) = (rx.to_string(), tx.to_string());
        let words = if self.apart {
            vec!["-L", interface, "rx", &rx, "tx", &tx]
        } else {
            vec!["-L", interface, "combined", &rx]
        };
        site.run("ethtool", words).map(drop)
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let Some(interface) = interface(&site.look(), self.nic.address) else {
            return Ok(());
        };
        let Some((rx, tx)) = self.now(&site.look(), &interface)? else {
            return Ok(());
        };
        match self.set(site, &interface, rx.min(self.most), tx.min(self.most)) {
            Ok(()) => Ok(()),
            // What the driver does not do (steering rules that name a queue, AF_XDP) is no reason
            // to give up a server: `verify` tells of it.
            Err(HostError::Failed { stderr, .. }) => {
                site.note(format!("`{interface}` keeps its {rx} queues: {stderr}"));
                let index = Self::index(&site.look(), &interface);
                Ok(fixed::add(site, fixed::NICS, &index.into_iter().collect())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Before::Queues { rx, tx } = *before else {
            return Ok(());
        };
        if let Some(interface) = interface(&site.look(), self.nic.address)
            && rx.max(tx) > self.most
            && self
                .now(&site.look(), &interface)?
                .is_some_and(|now| now != (rx, tx))
        {
            self.set(site, &interface, rx, tx)?;
        }
        Ok(fixed::forget(site, fixed::NICS)?)
    }
}
