//! A server before any slice is on it.
//!
//! Takes an inventory, the plan in force and the host's own share; gives what every question about
//! slices there begins with (free cores, physical functions), read once however often is asked.
//! Keeps true: it is used only for slices whose names change nothing of it. They do where libvirt
//! has a domain of such a name that no plan made.

use bmslice_inventory::Inventory;
use bmslice_plan::Plan;
use bmslice_spec::{HostSpec, SliceSpec};

use crate::Running;
use crate::function::{Pf, number_groups, physical_functions};
use crate::refusal::Refusal;
use crate::server::{self, Server};

/// Free cores and functions of a server.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub server: Server<'a>,
    /// By address.
    pub pfs: Vec<Pf<'a>>,
    /// IOMMU groups of physical functions.
    pub groups: usize,
    pub previous: Option<&'a Plan>,
    /// The host's whole cores, whether on each node, and those that stay free.
    reserve: (u32, bool, u32),
    /// Domains that no plan made, and whether a slice claims the name.
    strangers: Vec<(&'a str, bool)>,
}

impl<'a> Ground<'a> {
    /// Reads it for slices of these names.
    pub fn read(
        host: &HostSpec,
        slices: &[&SliceSpec],
        inventory: &'a Inventory,
        previous: Option<&'a Plan>,
    ) -> Result<Self, Refusal> {
        let server = Server::read(host, slices, inventory, previous)?;
        let mut pfs = physical_functions(&server, previous);
        let groups = number_groups(&mut pfs);
        let strangers = server::domains_of(inventory)
            .iter()
            .filter(|domain| !server::is_planned(domain, previous))
            .map(|domain| (domain.name.as_str(), claims(slices, &domain.name)))
            .collect();
        Ok(Self {
            server,
            pfs,
            groups,
            previous,
            reserve: reserve(host),
            strangers,
        })
    }

    /// Cores that stay free.
    pub fn headroom(&self) -> u32 {
        self.reserve.2
    }

    /// Whether it would be read the same for these slices.
    fn suits(&self, host: &HostSpec, slices: &[&SliceSpec]) -> bool {
        let mut strangers = self.strangers.iter();
        self.reserve == reserve(host)
            && strangers.all(|(name, claimed)| claims(slices, name) == *claimed)
    }
}

fn reserve(host: &HostSpec) -> (u32, bool, u32) {
    (
        host.reserve_cores,
        host.reserve_per_numa,
        host.headroom_cores,
    )
}

fn claims(slices: &[&SliceSpec], name: &str) -> bool {
    slices.iter().any(|slice| slice.name.as_str() == name)
}

/// A server as it stands, that is asked many times what fits on it.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    pub inventory: &'a Inventory,
    /// The plan in force.
    pub previous: Option<&'a Plan>,
    /// For slices whose names libvirt does not know.
    ground: Option<Ground<'a>>,
}

impl<'a> Standing<'a> {
    pub fn new(host: &HostSpec, inventory: &'a Inventory, previous: Option<&'a Plan>) -> Self {
        Self {
            inventory,
            previous,
            ground: Ground::read(host, &[], inventory, previous).ok(),
        }
    }

    /// Does something on the ground of these slices.
    ///
    /// # Errors
    /// [`Refusal`], when the server cannot be sliced at all, or not under these names.
    pub fn on_ground<T>(
        &self,
        host: &HostSpec,
        slices: &[&SliceSpec],
        then: impl FnOnce(&Ground<'_>) -> T,
    ) -> Result<T, Refusal> {
        match &self.ground {
            Some(ground) if ground.suits(host, slices) => Ok(then(ground)),
            _ => {
                let ground = Ground::read(host, slices, self.inventory, self.previous)?;
                Ok(then(&ground))
            }
        }
    }

    /// Whether slices surely fit, with little effort.
    pub fn fits(&self, host: &HostSpec, slices: &[&SliceSpec], running: Running) -> bool {
        self.fits_near(host, slices, &[], running)
    }

    /// As [`Standing::fits`], and those of these numbers have every device near that is to be near
    /// if possible.
    pub fn fits_near(
        &self,
        host: &HostSpec,
        slices: &[&SliceSpec],
        near: &[usize],
        running: Running,
    ) -> bool {
        let fits = |ground: &Ground<'_>| crate::fits(ground, slices, near, running);
        self.here(slices).is_ok() && self.on_ground(host, slices, fits).unwrap_or(false)
    }

    /// Refuses slices that are not for this server: those that name another one, those that select
    /// others by their labels, and two that are to be on different ones.
    ///
    /// # Errors
    /// [`Refusal::OtherServer`] or [`Refusal::Selector`] of the first that is for another server, else
    /// [`Refusal::Apart`] of the first that is to be elsewhere.
    pub fn here(&self, slices: &[&SliceSpec]) -> Result<(), Refusal> {
        let here = &self.inventory.machine.hostname;
        for slice in slices {
            if let Some(server) = slice.server.as_ref().filter(|server| *server != here) {
                return Err(Refusal::OtherServer {
                    slice: slice.name.clone(),
                    server: server.clone(),
                    here: here.clone(),
                });
            }
            let selector = slice.selector.as_ref();
            if let Some(selector) = selector.filter(|selector| !selector.allows(here)) {
                return Err(Refusal::Selector {
                    slice: slice.name.clone(),
                    labels: selector.to_string(),
                    here: here.clone(),
                    servers: selector.servers().map(str::to_owned).collect(),
                });
            }
        }
        // Only then: of a fleet's slices those for other servers tell more than that they are apart.
        for (at, slice) in slices.iter().enumerate() {
            let Some(group) = &slice.apart else { continue };
            let mut before = slices[..at].iter();
            if let Some(first) = before.find(|other| other.apart.as_ref() == Some(group)) {
                return Err(Refusal::Apart {
                    first: first.name.clone(),
                    second: slice.name.clone(),
                    group: group.clone(),
                });
            }
        }
        Ok(())
    }
}
