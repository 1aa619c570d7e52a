//! libvirt's QEMU driver, as it answers and acts.
//!
//! Takes domain XML and names; gives libvirt's messages, and binds, pins and allocates as libvirt
//! and QEMU do. Modelled on libvirt 9.0. Keeps true: a start that fails leaves nothing bound or
//! taken, and a device has one guest.

use std::time::Duration;

use bmslice_model::PciAddress;

use super::domain::{self, FakeDomain, Held, Live, WantedDevice};
use super::images;
use super::pci::VfSettings;
use super::threads;
use super::world::World;
use crate::machine::{DomainPins, DomainState};

type Answer<T> = Result<T, String>;

/// How long a guest takes to shut down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a guest takes until its agent answers.
const BOOT: Duration = Duration::from_secs(20);

impl World {
    /// Guests whose time is up end.
    pub fn settle_guests(&mut self) {
        let over: Vec<String> = self
            .domains
            .values()
            .filter(|domain| {
                let stops = domain.live.as_ref().and_then(|live| live.stops_at);
                stops.is_some_and(|at| at <= self.clock)
            })
            .map(|domain| domain.name.clone())
            .collect();
        for name in over {
            self.end(&name);
        }
    }

    fn domain(&self, name: &str) -> Answer<&FakeDomain> {
        self.domains
            .get(name)
            .ok_or_else(|| format!("Domain not found: no domain with matching name '{name}'"))
    }

    fn running(&self, name: &str) -> Answer<&Live> {
        let live = self.domain(name)?.live.as_ref();
        live.ok_or_else(|| "Requested operation is not valid: domain is not running".into())
    }

    pub fn list(&self) -> Vec<DomainState> {
        self.domains
            .values()
            .map(|domain| DomainState {
                name: domain.name.clone(),
                uuid: domain.uuid.clone(),
                running: domain.live.is_some(),
                persistent: domain.definition.is_some(),
                autostart: domain.autostart,
            })
            .collect()
    }

    pub fn describe(&self, name: &str, inactive: bool) -> Answer<String> {
        let domain = self.domain(name)?;
        let live = domain.live.as_ref().map(|live| {
            let mut element = live.element.clone();
            let answers = live.up_at.is_some_and(|at| at <= self.clock);
            domain::show_agent(&mut element, answers);
            element
        });
        let kept = domain.definition.clone();
        let element = if inactive {
            kept.or(live)
        } else {
            live.or(kept)
        };
        Ok(element.map(|element| element.print()).unwrap_or_default())
    }

    pub fn pins(&self, name: &str) -> Answer<DomainPins> {
        self.running(name).map(|live| live.pins.clone())
    }

    pub fn define(&mut self, xml: &str) -> Answer<()> {
        let element = domain::read(xml)?;
        if element.attr("type") == Some("kvm") && !self.tree.exists("/dev/kvm") {
            return Err("invalid argument: could not get preferred machine for \
                 /usr/bin/qemu-system-x86_64 type=kvm"
                .into());
        }
        let text = |name: &str| element.child(name).map(|child| child.text.clone());
        let name = text("name").unwrap_or_default();
        let given = text("uuid").map(|uuid| uuid.to_lowercase());
        if let Some(uuid) = &given
            && let Some(other) = self.domains.values().find(|domain| domain.uuid == *uuid)
            && other.name != name
        {
            return Err(format!(
                "operation failed: domain '{}' is already defined with uuid {uuid}",
                other.name
            ));
        }
        let known = self.domains.get(&name);
        if let (Some(known), Some(uuid)) = (known, &given)
            && known.uuid != *uuid
        {
            return Err(format!(
                "operation failed: domain '{name}' already exists with uuid {}",
                known.uuid
            ));
        }
        let uuid = given
            .or_else(|| known.map(|known| known.uuid.clone()))
            .unwrap_or_else(|| format!("00000000-0000-4000-8000-{:012x}", self.domains.len() + 1));
        let definition = domain::normalise(element, &uuid);
        let file = format!("/etc/libvirt/qemu/{name}.xml");
        self.tree.put(file, definition.print(), 0o600);
        let domain = self.domains.entry(name.clone()).or_insert(FakeDomain {
            name,
            uuid,
            definition: None,
            live: None,
            autostart: false,
        });
        domain.definition = Some(definition);
        Ok(())
    }

    pub fn undefine(&mut self, name: &str) -> Answer<()> {
        let domain = self.domain(name)?;
        if domain.definition.is_none() {
            return Err(
                "Requested operation is not valid: cannot undefine transient domain".into(),
            );
        }
        let gone = domain.live.is_none();
        self.tree.remove(format!("/etc/libvirt/qemu/{name}.xml"));
        self.tree
            .remove(format!("/etc/libvirt/qemu/autostart/{name}.xml"));
        if gone {
            self.domains.remove(name);
        } else if let Some(domain) = self.domains.get_mut(name) {
            domain.definition = None;
            domain.autostart = false;
        }
        Ok(())
    }

    pub fn set_autostart(&mut self, name: &str, on: bool) -> Answer<()> {
        if self.domain(name)?.definition.is_none() {
            return Err(
                "Requested operation is not valid: cannot set autostart for transient domain"
                    .into(),
            );
        }
        let link = format!("/etc/libvirt/qemu/autostart/{name}.xml");
        if on {
            self.tree
                .link(link, format!("/etc/libvirt/qemu/{name}.xml"));
        } else {
            self.tree.remove(link);
        }
        if let Some(domain) = self.domains.get_mut(name) {
            domain.autostart = on;
        }
        Ok(())
    }

    pub fn start(&mut self, name: &str) -> Answer<()> {
        let domain = self.domain(name)?;
        if domain.live.is_some() {
            return Err("Requested operation is not valid: domain is already running".into());
        }
        let definition = domain
            .definition
            .clone()
            .ok_or("internal error: domain has no definition")?;
        let wants = domain::wants(&definition, &self.all_cpus(), self.server.nodes)?;
        for device in &wants.devices {
            self.check_device(device)?;
        }
        for disk in &wants.disks {
            self.check_disk(disk, name)?;
        }
        // From here on what was done is undone when a later part fails.
        let mut held = Vec::new();
        for device in &wants.devices {
            held.push(Held {
                address: device.address,
                managed: device.managed,
            });
            if device.managed {
                self.detach(device.address);
            }
            let bound = self.functions.get(&device.address);
            if bound.and_then(|function| function.driver.as_deref()) != Some("vfio-pci") {
                self.give_back(&held, &[]);
                return Err(format!(
                    "internal error: Failed to bind PCI device '{}' to vfio-pci",
                    device.address
                ));
            }
        }
        let vfs = self.set_vfs(&wants.devices);
        if let Err(message) = self
            .check_groups(&wants.devices)
            .and_then(|()| self.take_pages(&wants.pages))
        {
            self.give_back(&held, &vfs);
            return Err(format!(
                "internal error: process exited while connecting to monitor: \
                 2026-01-01T00:00:00.000000Z qemu-system-x86_64: {message}"
            ));
        }
        self.next_pid += 100;
        let id = self.next_pid / 100;
        let scope = format!("{}/machine-qemu\\x2d{id}\\x2d{name}.scope", wants.slice);
        self.open_scope(&scope);
        if let Err(message) = self.check_pins(&wants.pins, &scope) {
            self.close_scope(&scope);
            self.give_back(&held, &vfs);
            self.give_pages(&wants.pages);
            return Err(message);
        }
        let live = Live {
            element: domain::running(&definition, id),
            pid: self.next_pid,
            pins: wants.pins,
            pages: wants.pages,
            plain: wants.plain,
            devices: held,
            vfs,
            lost: Vec::new(),
            disks: wants.disks,
            scope,
            up_at: (!self.without_agent.contains_key(name)).then(|| self.clock + BOOT),
            stops_at: None,
        };
        // virtlogd begins the log anew, `append='off'`.
        if let Some(log) = domain::console_log(&definition) {
            let text = self.without_agent.get(name).cloned();
            self.tree.put(log, text.unwrap_or_default(), 0o600);
        }
        if let Some(domain) = self.domains.get_mut(name) {
            domain.live = Some(live.clone());
            threads::show(&self.tree, domain, &live);
        }
        self.mirror_memory();
        Ok(())
    }

    fn check_device(&self, device: &WantedDevice) -> Answer<()> {
        let address = device.address;
        if !self.iommu_on() {
            return Err(
                "unsupported configuration: host doesn't support passthrough of host PCI devices"
                    .into(),
            );
        }
        let Some(function) = self.functions.get(&address) else {
            return Err(format!(
                "Device {address} not found: could not access \
                 /sys/bus/pci/devices/{address}/config: No such file or directory"
            ));
        };
        if let Some(owner) = self.owner(address) {
            return Err(format!(
                "Requested operation is not valid: PCI device {address} is in use by driver QEMU, \
                 domain {owner}"
            ));
        }
        if device.interface.is_some() && function.physfn.is_none() {
            return Err(
                "unsupported configuration: Interface type hostdev is currently supported on \
                 SR-IOV Virtual Functions only"
                    .into(),
            );
        }
        if function.is_bridge() {
            return Err(
                "internal error: Non-endpoint PCI devices cannot be assigned to guests".into(),
            );
        }
        if !device.managed && function.driver.as_deref() != Some("vfio-pci") {
            return Err(format!(
                "Requested operation is not valid: Unmanaged PCI device {address} must be manually \
                 detached from the host"
            ));
        }
        Ok(())
    }

    fn check_disk(&self, path: &str, name: &str) -> Answer<()> {
        let missing = |what: &str| Err(format!("{what}: No such file or directory"));
        if !self.tree.exists(path) {
            return missing(&format!(
                "Cannot access storage file '{path}' (as uid:64055, gid:64055)"
            ));
        }
        if let Some(other) = self.domains.values().find(|domain| {
            domain.name != name
                && domain
                    .live
                    .as_ref()
                    .is_some_and(|live| live.disks.iter().any(|disk| disk == path))
        }) && !path.ends_with(".iso")
        {
            return Err(format!(
                "internal error: qemu unexpectedly closed the monitor: Failed to get \"write\" \
                 lock\nIs another process using the image [{path}]? ({})",
                other.name
            ));
        }
        match images::backing(&self.tree, path) {
            Some(base) if !self.tree.exists(&base) => missing(&format!(
                "Cannot access backing file '{base}' of storage file '{path}' (as uid:64055, \
                 gid:64055)"
            )),
            _ => Ok(()),
        }
    }

    /// A pin outside of what the guest's group has is refused: by the group's own file for CPUs that
    /// are not there, by sched_setaffinity(2) for those that another partition holds.
    fn check_pins(&self, pins: &DomainPins, scope: &str) -> Answer<()> {
        let (all, effective) = (self.all_cpus(), self.effective(scope));
        let sets = pins
            .vcpus
            .iter()
            .chain([&pins.emulator])
            .chain(pins.iothreads.iter().map(|(_, cpus)| cpus));
        for set in sets {
            if set.is_disjoint(&all) {
                return Err(format!(
                    "Unable to write to '/sys/fs/cgroup/{scope}/libvirt\
                     /emulator/cpuset.cpus': Numerical result out of range ({set})"
                ));
            }
            if set.is_disjoint(&effective) {
                return Err(format!(
                    "cannot set CPU affinity on process {}: Invalid argument",
                    self.next_pid
                ));
            }
        }
        Ok(())
    }

    /// VFIO's rule: every member of the group is with vfio-pci, with no driver, or is a bridge.
    fn check_groups(&self, devices: &[WantedDevice]) -> Answer<()> {
        for device in devices {
            let group = self.functions.get(&device.address).and_then(|f| f.group);
            let Some(group) = group else { continue };
            let viable = self.members(group).iter().all(|member| {
                self.functions.get(member).is_none_or(|function| {
                    function.is_bridge()
                        || matches!(function.driver.as_deref(), None | Some("vfio-pci"))
                })
            });
            if !viable {
                return Err(format!(
                    "-device vfio-pci,host={}: vfio {0}: group {group} is not viable\nPlease \
                     ensure all devices within the iommu_group are bound to their vfio bus driver.",
                    device.address
                ));
            }
        }
        Ok(())
    }

    /// The guest that has a device.
    fn owner(&self, address: PciAddress) -> Option<&str> {
        let owner = self.domains.values().find(|domain| {
            domain
                .live
                .iter()
                .flat_map(|live| &live.devices)
                .any(|held| held.address == address)
        });
        owner.map(|domain| domain.name.as_str())
    }

    /// Host driver → vfio-pci, as `virPCIDeviceDetach`.
    fn detach(&mut self, address: PciAddress) {
        self.add_driver("vfio-pci");
        self.rebind(address, "vfio-pci\n");
    }

    fn rebind(&mut self, address: PciAddress, name: &str) {
        // None of these can fail for a function that is there.
        let _ = self.write_override(address, name);
        let driver = self.functions.get(&address).and_then(|f| f.driver.clone());
        if let Some(driver) = driver
            && driver != name.trim_end()
        {
            self.let_go(address);
        }
        let _ = self.probe(address);
    }

    /// MAC and VLAN of `<interface type='hostdev'>`, through the physical function.
    fn set_vfs(&mut self, devices: &[WantedDevice]) -> Vec<(PciAddress, u16, VfSettings)> {
        let mut before = Vec::new();
        for device in devices {
            let Some((mac, vlan)) = &device.interface else {
                continue;
            };
            let physfn = self.functions.get(&device.address).and_then(|f| f.physfn);
            let Some((pf, index)) = physfn else { continue };
            if let Some(settings) = self.vf_settings(pf, index) {
                before.push((pf, index, settings.clone()));
                if let Some(mac) = mac {
                    settings.mac.clone_from(mac);
                }
                settings.vlan = *vlan;
            }
        }
        before
    }

    pub fn vf_settings(&mut self, pf: PciAddress, index: u16) -> Option<&mut VfSettings> {
        let sriov = self.functions.get_mut(&pf)?.sriov.as_mut()?;
        sriov.vfs.get_mut(usize::from(index))
    }

    fn give_back(&mut self, held: &[Held], vfs: &[(PciAddress, u16, VfSettings)]) {
        for (pf, index, before) in vfs {
            if let Some(settings) = self.vf_settings(*pf, *index) {
                *settings = before.clone();
            }
        }
        for device in held.iter().filter(|held| held.managed) {
            self.rebind(device.address, "\n");
        }
    }

    /// The guest's process ends; libvirt gives back what is managed.
    fn end(&mut self, name: &str) {
        let Some(domain) = self.domains.get_mut(name) else {
            return;
        };
        let Some(live) = domain.live.take() else {
            return;
        };
        if domain.definition.is_none() {
            self.domains.remove(name);
        }
        threads::hide(&self.tree, name, live.pid);
        self.give_back(&live.devices, &live.vfs);
        self.give_pages(&live.pages);
        self.close_scope(&live.scope);
    }

    pub fn shutdown(&mut self, name: &str) -> Answer<()> {
        self.running(name)?;
        let over = self.clock + SHUTDOWN;
        if let Some(live) = self.domains.get_mut(name).and_then(|d| d.live.as_mut()) {
            // A second request changes nothing.
            live.stops_at.get_or_insert(over);
        }
        Ok(())
    }

    pub fn destroy(&mut self, name: &str) -> Answer<()> {
        self.running(name)?;
        self.end(name);
        Ok(())
    }

    pub fn reattach(&mut self, nodedev: &str) -> Answer<()> {
        let found = self
            .functions
            .keys()
            .find(|address| address.nodedev_name() == nodedev)
            .copied();
        let address = found.ok_or_else(|| {
            format!("Node device not found: no node device with matching name '{nodedev}'")
        })?;
        if let Some(owner) = self.owner(address) {
            return Err(format!(
                "Requested operation is not valid: PCI device {address} in use by driver QEMU, \
                 domain {owner}"
            ));
        }
        self.rebind(address, "\n");
        Ok(())
    }

    /// What the daemon does as it starts; what could not be started is told by name.
    pub fn autostart(&mut self) -> Vec<(String, String)> {
        let names: Vec<String> = self
            .domains
            .values()
            .filter(|domain| domain.autostart && domain.live.is_none())
            .map(|domain| domain.name.clone())
            .collect();
        names
            .into_iter()
            .filter_map(|name| self.start(&name).err().map(|why| (name, why)))
            .collect()
    }

    /// `virConnectGetCapabilities`.
    pub fn capabilities(&self) -> String {
        let kvm = if self.tree.exists("/dev/kvm") {
            "<domain type='kvm'/>"
        } else {
            ""
        };
        format!(
            "<capabilities>\n  <host>\n    <cpu><arch>x86_64</arch></cpu>\n  </host>\n  <guest>\n    \
             <os_type>hvm</os_type>\n    <arch name='x86_64'>\n      <wordsize>64</wordsize>\n      \
             <emulator>/usr/bin/qemu-system-x86_64</emulator>\n      \
             <machine maxCpus='288'>pc-q35-7.2</machine>\n      \
             <domain type='qemu'/>{kvm}\n    </arch>\n  </guest>\n</capabilities>\n"
        )
    }
}
