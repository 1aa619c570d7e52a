//! Which devices the host cannot live without, and why.
//!
//! Takes interfaces, routes, the session's peer and the mounts; gives each PCI function its
//! [`HostNeed`]s. Keeps true: what carries management or a file system is marked through every
//! layer (bond, bridge, team, VLAN; LVM, RAID), on every controller of its path; a virtual
//! function's need is its physical one's too.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_model::PciAddress;

use crate::block::Storage;
use crate::facts::{HostNeed, PciFunction};
use crate::net::Interface;
use crate::routes::Routes;
use crate::scan::Scan;

/// Marks the functions, and the interfaces of default routes.
pub(crate) fn mark(
    scan: &mut Scan,
    interfaces: &mut [Interface],
    routes: &Routes,
    storage: &Storage,
    session_peer: Option<&str>,
    functions: &mut [PciFunction],
) {
    let mut needs = Needs::default();
    let below = Below::of(interfaces);

    for name in routes.defaults() {
        if let Some(interface) = interfaces.iter_mut().find(|i| i.facts.name == name) {
            interface.facts.default_route = true;
        }
        let need = HostNeed::DefaultRoute {
            interface: name.into(),
        };
        if !needs.add_below(&below, name, &need) {
            scan.note(
                format!("/sys/class/net/{name}"),
                "a default route goes through it, and no device was found under it",
            );
        }
    }
    if let Some(peer) = session_peer {
        match routes.towards(peer) {
            Some(name) => {
                let need = HostNeed::Session {
                    interface: name.into(),
                };
                if name != "lo" && !needs.add_below(&below, name, &need) {
                    scan.note(
                        format!("/sys/class/net/{name}"),
                        format!("the session with {peer} comes through it, and no device was found under it"),
                    );
                }
            }
            None => scan.note(
                "session",
                format!("no route to {peer}, from where this session comes, was found"),
            ),
        }
    }
    for interface in interfaces.iter() {
        let name = &interface.facts.name;
        if let Some(master) = &interface.facts.master {
            needs.add_below(&below, name, &HostNeed::Member { of: master.clone() });
        }
        if !routes.addressed(name) {
            continue;
        }
        if !interface.facts.lower.is_empty() {
            needs.add_below(&below, name, &HostNeed::Member { of: name.clone() });
        } else if !needs.names(&below, name) {
            let need = HostNeed::Address {
                interface: name.clone(),
            };
            needs.add_below(&below, name, &need);
        }
    }
    for (function, at) in &storage.functions {
        needs.add(*function, HostNeed::Mount { at: at.clone() });
    }
    for (server, at) in &storage.servers {
        let need = HostNeed::Mount { at: at.clone() };
        let found = routes
            .towards(server)
            .is_some_and(|name| name == "lo" || needs.add_below(&below, name, &need));
        if !found {
            scan.note(
                at.clone(),
                format!("the interface towards its server {server} was not found"),
            );
        }
    }

    for function in functions.iter_mut() {
        // A bridge stays with the host in any case.
        if function.is_bridge() {
            continue;
        }
        let storage_controller = function.class.starts_with("0x01");
        if storage_controller {
            for at in &storage.anywhere {
                needs.add(function.address, HostNeed::Mount { at: at.clone() });
            }
        }
        function.host_needs = needs.0.remove(&function.address).unwrap_or_default();
    }
    inherit(functions);
    for address in needs.0.keys() {
        // Left over: bridges, and functions that sysfs shows in a path alone.
        if !functions.iter().any(|f| f.address == *address) {
            scan.note(
                format!("/sys/bus/pci/devices/{address}"),
                "the host needs it, and it is not shown among the PCI devices",
            );
        }
    }
}

/// A physical function cannot go where its virtual one must stay.
fn inherit(functions: &mut [PciFunction]) {
    let of_vfs: Vec<(PciAddress, Vec<HostNeed>)> = functions
        .iter()
        .filter(|f| !f.host_needs.is_empty())
        .filter_map(|f| Some((f.physfn?, f.host_needs.clone())))
        .collect();
    for (physfn, needs) in of_vfs {
        if let Some(function) = functions.iter_mut().find(|f| f.address == physfn) {
            for need in needs {
                if !function.host_needs.contains(&need) {
                    function.host_needs.push(need);
                }
            }
        }
    }
}

#[derive(Default)]
struct Needs(BTreeMap<PciAddress, Vec<HostNeed>>);

impl Needs {
    fn add(&mut self, function: PciAddress, need: HostNeed) {
        let needs = self.0.entry(function).or_default();
        if !needs.contains(&need) {
            needs.push(need);
        }
    }

    /// Whether each function under an interface is kept for it already, by a route or the session.
    fn names(&self, below: &Below, interface: &str) -> bool {
        below.functions(interface).iter().all(|function| {
            let needs = self.0.get(function).map_or(&[][..], Vec::as_slice);
            needs.iter().any(|need| {
                matches!(need, HostNeed::DefaultRoute { interface: of } | HostNeed::Session { interface: of } if of == interface)
            })
        })
    }

    /// Adds the need to every function under an interface; whether there was one.
    fn add_below(&mut self, below: &Below, interface: &str, need: &HostNeed) -> bool {
        let functions = below.functions(interface);
        for function in &functions {
            self.add(*function, need.clone());
        }
        !functions.is_empty()
    }
}

/// What lies directly under each interface, and the PCI functions on its own path.
struct Below(BTreeMap<String, (BTreeSet<String>, Vec<PciAddress>)>);

impl Below {
    fn of(interfaces: &[Interface]) -> Self {
        let mut below: BTreeMap<String, (BTreeSet<String>, Vec<PciAddress>)> = BTreeMap::new();
        for interface in interfaces {
            let facts = &interface.facts;
            let entry = below.entry(facts.name.clone()).or_default();
            entry.0.extend(facts.lower.iter().cloned());
            entry.1.clone_from(&interface.path);
            if let Some(master) = &facts.master {
                below
                    .entry(master.clone())
                    .or_default()
                    .0
                    .insert(facts.name.clone());
            }
        }
        Self(below)
    }

    fn functions(&self, interface: &str) -> BTreeSet<PciAddress> {
        let mut functions = BTreeSet::new();
        let mut open = vec![interface];
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            if let Some((lower, path)) = self.0.get(name) {
                functions.extend(path);
                open.extend(lower.iter().map(String::as_str));
            }
        }
        functions
    }
}
