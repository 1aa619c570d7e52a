//! Network interfaces: state, what lies under them, their PCI function.
//!
//! Source: `Documentation/ABI/testing/sysfs-class-net`, `Documentation/networking/bonding.rst`.
//! Keeps true: a permanent MAC is one that the driver or the bond gave as permanent; an address
//! that was set or made up is none.

use std::collections::BTreeMap;

use bmslice_host::Root;
use bmslice_model::{MacAddress, PciAddress};

use crate::facts::{EthtoolFacts, NetInterface, PciFunction};
use crate::pci::pci_path;
use crate::scan::Scan;

const NET: &str = "/sys/class/net";

/// An interface, and every PCI function on its path (controllers above its own, too).
pub(crate) struct Interface {
    pub(crate) facts: NetInterface,
    pub(crate) path: Vec<PciAddress>,
}

/// The interfaces with a device under them: those whose driver can be asked.
pub(crate) fn with_device(root: &Root) -> Vec<String> {
    let names = root.list(NET).unwrap_or_default().into_iter();
    names
        .filter(|name| root.exists(format!("{NET}/{name}/device")))
        .collect()
}

/// Reads every interface, by name; `told` is what their drivers tell.
pub(crate) fn read(scan: &mut Scan, told: &BTreeMap<String, EthtoolFacts>) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = scan
        .list(NET)
        .into_iter()
        .filter_map(|name| interface(scan, name))
        .collect();
    for (bond, member, mac) in bonded(scan) {
        if let Some(interface) = interfaces.iter_mut().find(|i| i.facts.name == member) {
            interface.facts.permanent_mac = Some(mac);
            // A capture without links still knows its bonds.
            interface.facts.master.get_or_insert(bond);
        }
    }
    for Interface { facts, .. } in &mut interfaces {
        facts.ethtool = told.get(&facts.name).cloned();
        if facts.permanent_mac.is_none() {
            // An address that was set hides the one in sysfs.
            facts.permanent_mac = facts.ethtool.as_ref().and_then(|told| told.permanent_mac);
        }
    }
    interfaces
}

/// Tells each PCI function its interfaces and its permanent MAC.
pub(crate) fn attach(scan: &mut Scan, interfaces: &[Interface], functions: &mut [PciFunction]) {
    for interface in interfaces {
        let Some(address) = interface.facts.pci else {
            continue;
        };
        let Some(function) = functions.iter_mut().find(|f| f.address == address) else {
            scan.note(
                format!("{NET}/{}", interface.facts.name),
                format!("its PCI function {address} is not shown among the PCI devices"),
            );
            continue;
        };
        function.interfaces.push(interface.facts.name.clone());
        // The first interface is the port's own; representors of VFs come after it by name or
        // have no permanent address.
        if function.mac.is_none() {
            function.mac = interface.facts.permanent_mac;
        }
        let told = interface.facts.ethtool.as_ref();
        if function.details.firmware.is_none() {
            function.details.firmware = told.and_then(|told| told.firmware.clone());
        }
    }
}

fn interface(scan: &mut Scan, name: String) -> Option<Interface> {
    let folder = format!("{NET}/{name}");
    // `bonding_masters` is a file among the interfaces.
    let entries = scan.root.list(&folder).ok()?;
    let path = device_path(scan, &folder, &entries);
    let address: Option<MacAddress> = scan
        .text(&format!("{folder}/address"))
        .and_then(|text| text.parse().ok())
        .filter(|mac: &MacAddress| !mac.is_zero());
    // NET_ADDR_PERM; 1 is random, 2 stolen, 3 set (linux/netdevice.h).
    let permanent = address.filter(|mac| {
        !mac.is_group() && scan.number::<u8>(&format!("{folder}/addr_assign_type")) == Some(0)
    });
    // Fails with EINVAL while the interface is down.
    let carrier = scan.flag(&format!("{folder}/carrier"));
    let kind = scan
        .file(&format!("{folder}/uevent"))
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE=").map(str::to_owned));
    let queues = scan.list(&format!("{folder}/queues"));
    let count = |prefix: &str| {
        let count = queues
            .iter()
            .filter(|name| name.starts_with(prefix))
            .count();
        u32::try_from(count).ok().filter(|count| *count > 0)
    };
    let facts = NetInterface {
        altnames: altnames(scan, &folder, &name),
        vlan: (kind.as_deref() == Some("vlan"))
            .then(|| vlan(scan, &name))
            .flatten(),
        kind,
        permanent_mac: permanent,
        port: scan.text(&format!("{folder}/phys_port_name")),
        rx_queues: count("rx-"),
        tx_queues: count("tx-"),
        name,
        mac: address,
        pci: path.last().copied(),
        state: scan.text(&format!("{folder}/operstate")),
        carrier,
        // -1 and its unsigned form both mean that the driver does not know.
        speed: (carrier != Some(false))
            .then(|| scan.number(&format!("{folder}/speed")))
            .flatten()
            .filter(|speed| *speed != 0 && *speed != u32::MAX),
        mtu: scan.number(&format!("{folder}/mtu")),
        master: entries
            .iter()
            .any(|e| e == "master")
            .then(|| scan.root.link_name(format!("{folder}/master")))
            .flatten(),
        lower: entries
            .iter()
            .filter_map(|e| e.strip_prefix("lower_").map(Into::into))
            .collect(),
        default_route: false,
        ethtool: None,
    };
    Some(Interface { facts, path })
}

/// The names that udev gives an interface beside its own, by its place or its MAC (udev's database,
/// systemd.net-naming-scheme(7)).
fn altnames(scan: &Scan, folder: &str, name: &str) -> Vec<String> {
    let Some(index) = scan.number::<u32>(&format!("{folder}/ifindex")) else {
        return Vec::new();
    };
    let text = scan.file(&format!("/run/udev/data/n{index}"));
    let of = |key: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix("E:")?
                    .strip_prefix(key)?
                    .strip_prefix('=')
            })
            .map(str::to_owned)
    };
    let mut names: Vec<String> = Vec::new();
    for key in ["ONBOARD", "SLOT", "PATH", "MAC"] {
        if let Some(alternative) = of(&format!("ID_NET_NAME_{key}"))
            && alternative != name
            && !names.contains(&alternative)
        {
            names.push(alternative);
        }
    }
    names
}

/// `/proc/net/vlan/eth0.5` begins with `eth0.5  VID: 5`.
fn vlan(scan: &Scan, name: &str) -> Option<u32> {
    let text = scan.file(&format!("/proc/net/vlan/{name}"));
    let (_, rest) = text.split_once("VID:")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The PCI functions on the interface's way: virtio, USB and others sit below one of their own.
fn device_path(scan: &Scan, folder: &str, entries: &[String]) -> Vec<PciAddress> {
    let path = scan
        .root
        .link(folder)
        .map(|path| pci_path(&path))
        .unwrap_or_default();
    if path.is_empty() && entries.iter().any(|e| e == "device") {
        // Before Linux 2.6.25 the interface was a folder of its own with a link to its device.
        return scan
            .root
            .resolve(format!("{folder}/device"))
            .map(|path| pci_path(&path))
            .unwrap_or_default();
    }
    path
}

/// `(bond, member, permanent MAC)` of every bond: a bond overwrites its members' addresses.
fn bonded(scan: &Scan) -> Vec<(String, String, MacAddress)> {
    const BONDS: &str = "/proc/net/bonding";
    let mut found = Vec::new();
    for bond in scan.list(BONDS) {
        let mut member = None;
        for line in scan.file(&format!("{BONDS}/{bond}")).lines() {
            if let Some(name) = line.strip_prefix("Slave Interface: ") {
                member = Some(name.trim().to_owned());
            } else if let Some(mac) = line.strip_prefix("Permanent HW addr: ")
                && let (Some(member), Ok(mac)) = (member.take(), mac.trim().parse())
            {
                found.push((bond.clone(), member, mac));
            }
        }
    }
    found
}
