//! What the kernel does when `bind`, `unbind`, `drivers_probe`, `driver_override` and
//! `sriov_numvfs` are written.
//!
//! Takes the path and the value; gives the kernel's errno or its reaction. Modelled on
//! drivers/base/bus.c, drivers/base/dd.c, drivers/pci/pci-driver.c and drivers/pci/iov.c of Linux
//! 6.12. Keeps true: a probe reports success whatever came of it, and a driver that lets go of a
//! physical function takes its VFs away.

use bmslice_model::PciAddress;
use rustix::io::Errno;

use super::pci::{Function, Net, Sriov, VfSettings};
use super::world::World;

const VFIO: &str = "vfio-pci";

impl World {
    /// Lets the drivers try an unbound function, as `device_attach` does.
    ///
    /// # Errors
    /// The errno of the probe, which `drivers_probe` does not pass on.
    pub fn probe(&mut self, address: PciAddress) -> Result<(), Errno> {
        let function = self.functions.get(&address).ok_or(Errno::NODEV)?;
        if function.driver.is_some() {
            return Ok(());
        }
        let wanted = function.driver_override.clone().or(function.native.clone());
        match wanted {
            Some(driver) if self.has_driver(&driver) => self.attach(address, &driver),
            _ => Ok(()),
        }
    }

    fn has_driver(&self, name: &str) -> bool {
        self.tree.exists(format!("/sys/bus/pci/drivers/{name}"))
    }

    /// A matching driver takes a function.
    fn attach(&mut self, address: PciAddress, driver: &str) -> Result<(), Errno> {
        let function = self.functions.get(&address).ok_or(Errno::NODEV)?;
        if !self.may_probe(function) {
            return Err(Errno::NODEV);
        }
        // vfio-pci cannot take a device that is in no group.
        if driver == VFIO && function.group.is_none() {
            return Err(Errno::INVAL);
        }
        let (path, group) = (function.path.clone(), function.group);
        if let Some(function) = self.functions.get_mut(&address) {
            function.driver = Some(driver.to_owned());
        }
        let home = format!("/sys/bus/pci/drivers/{driver}");
        self.tree.link(format!("{path}/driver"), &home);
        self.tree.link(format!("{home}/{address}"), &path);
        if let (VFIO, Some(group)) = (driver, group) {
            self.tree.put(format!("/dev/vfio/{group}"), "", 0o600);
        }
        self.show_interface(address);
        self.mirror_routes();
        Ok(())
    }

    /// `pci_device_can_probe`: a PF may keep drivers off its VFs, except one asked for by name.
    fn may_probe(&self, function: &Function) -> bool {
        let Some((pf, _)) = function.physfn else {
            return true;
        };
        let pf = self.functions.get(&pf).and_then(|pf| pf.sriov.as_ref());
        pf.is_none_or(|sriov| sriov.autoprobe) || function.driver_override.is_some()
    }

    /// The driver, if any, lets go.
    pub fn let_go(&mut self, address: PciAddress) {
        let Some(function) = self.functions.get(&address) else {
            return;
        };
        let Some(driver) = function.driver.clone() else {
            return;
        };
        let path = function.path.clone();
        if function
            .sriov
            .as_ref()
            .is_some_and(|sriov| sriov.current > 0)
        {
            self.remove_vfs(address);
        }
        self.hide_interface(address);
        let mut group = None;
        if let Some(function) = self.functions.get_mut(&address) {
            function.driver = None;
            group = function.group;
            // An interface that is made anew is down until somebody brings it up.
            if let Some(net) = &mut function.net {
                net.up = false;
            }
        }
        self.tree.remove(format!("{path}/driver"));
        self.tree
            .remove(format!("/sys/bus/pci/drivers/{driver}/{address}"));
        if let Some(group) = group {
            let still = self.members(group).iter().any(|member| {
                self.functions
                    .get(member)
                    .is_some_and(|function| function.driver.as_deref() == Some(VFIO))
            });
            if !still {
                self.tree.remove(format!("/dev/vfio/{group}"));
            }
        }
        self.mirror_routes();
    }

    /// `drivers/NAME/bind`.
    ///
    /// # Errors
    /// ENODEV when there is no such function or the driver does not match, EBUSY when it is bound.
    pub fn write_bind(&mut self, driver: &str, value: &str) -> Result<(), Errno> {
        let address = function_name(value)?;
        let function = self.functions.get(&address).ok_or(Errno::NODEV)?;
        let matching = match &function.driver_override {
            Some(only) => only == driver,
            None => function.native.as_deref() == Some(driver),
        };
        if !matching {
            return Err(Errno::NODEV);
        }
        if function.driver.is_some() {
            return Err(Errno::BUSY);
        }
        self.attach(address, driver)
    }

    /// `drivers/NAME/unbind`.
    ///
    /// # Errors
    /// ENODEV when that driver does not have it.
    pub fn write_unbind(&mut self, driver: &str, value: &str) -> Result<(), Errno> {
        let address = function_name(value)?;
        let bound = self
            .functions
            .get(&address)
            .is_some_and(|function| function.driver.as_deref() == Some(driver));
        if !bound {
            return Err(Errno::NODEV);
        }
        if driver == VFIO {
            self.lose(address);
        }
        self.let_go(address);
        Ok(())
    }

    /// `drivers_probe`: success even when no driver took it.
    ///
    /// # Errors
    /// ENODEV when there is no such function.
    pub fn write_probe(&mut self, value: &str) -> Result<(), Errno> {
        let address = function_name(value)?;
        if !self.functions.contains_key(&address) {
            return Err(Errno::NODEV);
        }
        let _ = self.probe(address);
        Ok(())
    }

    /// `driver_override`: a name, or a newline to take it back.
    ///
    /// # Errors
    /// ENODEV when there is no such function.
    pub fn write_override(&mut self, address: PciAddress, value: &str) -> Result<(), Errno> {
        let function = self.functions.get_mut(&address).ok_or(Errno::NODEV)?;
        let name = value.strip_suffix('\n').unwrap_or(value);
        function.driver_override = (!name.is_empty()).then(|| name.to_owned());
        let shown = function.driver_override.as_deref().unwrap_or("(null)");
        self.tree
            .knob(format!("{}/driver_override", function.path), shown);
        Ok(())
    }

    /// `sriov_drivers_autoprobe`: a boolean.
    ///
    /// # Errors
    /// EINVAL for anything else.
    pub fn write_autoprobe(&mut self, address: PciAddress, value: &str) -> Result<(), Errno> {
        let on = match value.trim() {
            "1" | "y" | "Y" | "on" => true,
            "0" | "n" | "N" | "off" => false,
            _ => return Err(Errno::INVAL),
        };
        let function = self.functions.get_mut(&address).ok_or(Errno::NODEV)?;
        let sriov = function.sriov.as_mut().ok_or(Errno::NODEV)?;
        sriov.autoprobe = on;
        let path = format!("{}/sriov_drivers_autoprobe", function.path);
        self.tree.knob(path, u8::from(on));
        Ok(())
    }

    /// `sriov_numvfs`.
    ///
    /// # Errors
    /// EINVAL for what is no number, ERANGE above the total, ENOENT without the card's own driver,
    /// EBUSY from one count other than 0 to another.
    pub fn write_numvfs(&mut self, address: PciAddress, value: &str) -> Result<(), Errno> {
        let wanted: u16 = value
            .trim_end_matches('\n')
            .parse()
            .map_err(|_| Errno::INVAL)?;
        let function = self.functions.get(&address).ok_or(Errno::NODEV)?;
        let sriov = function.sriov.as_ref().ok_or(Errno::NODEV)?;
        if wanted > sriov.total {
            return Err(Errno::RANGE);
        }
        if wanted == sriov.current {
            return Ok(());
        }
        // vfio-pci and no driver at all have no way to make VFs.
        if function.driver.is_none() || function.driver != function.native {
            return Err(Errno::NOENT);
        }
        if wanted == 0 {
            self.remove_vfs(address);
            return Ok(());
        }
        if sriov.current > 0 {
            return Err(Errno::BUSY);
        }
        self.create_vfs(address, wanted)
    }

    fn create_vfs(&mut self, pf: PciAddress, count: u16) -> Result<(), Errno> {
        let function = self.functions.get(&pf).ok_or(Errno::NODEV)?.clone();
        let sriov = function.sriov.clone().ok_or(Errno::NODEV)?;
        // Addresses first: the kernel gives up before it makes any VF when the bus numbers end.
        let addresses = (0..count)
            .map(|index| vf_address(pf, &sriov, index).ok_or(Errno::NOMEM))
            .collect::<Result<Vec<_>, _>>()?;
        self.add_driver(&sriov.vf_driver);
        self.set_sriov(pf, |sriov| {
            sriov.current = count;
            sriov.vfs = vec![VfSettings::default(); usize::from(count)];
        });
        let vendor = function.id.split(':').next().unwrap_or_default();
        let dir = function.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        for (index, address) in (0u16..).zip(addresses) {
            let path = format!("{dir}/{address}");
            self.tree.link(format!("{path}/physfn"), &function.path);
            self.tree
                .link(format!("{}/virtfn{index}", function.path), &path);
            let name = function.net.as_ref().map(|net| net.name.clone());
            self.add_function(Function {
                address,
                path,
                id: format!("{vendor}:{}", sriov.vf_device),
                class: "0x020000",
                native: Some(sriov.vf_driver.clone()),
                driver: None,
                driver_override: None,
                node: function.node,
                group: None,
                group_with: None,
                net: name.map(|name| Net {
                    name: format!("{name}v{index}"),
                    mac: made_up_mac(address),
                    speed: None,
                    up: false,
                    negotiates: false,
                    queues: 0,
                }),
                sriov: None,
                physfn: Some((pf, index)),
            });
        }
        Ok(())
    }

    /// Takes every VF away, from whoever has it.
    fn remove_vfs(&mut self, pf: PciAddress) {
        let vfs: Vec<(PciAddress, u16)> = self
            .functions
            .values()
            .filter_map(|function| match function.physfn {
                Some((of, index)) if of == pf => Some((function.address, index)),
                _ => None,
            })
            .collect();
        let path = self.functions.get(&pf).map(|pf| pf.path.clone());
        for (address, index) in vfs {
            self.lose(address);
            self.remove_function(address);
            if let Some(path) = &path {
                self.tree.remove(format!("{path}/virtfn{index}"));
            }
        }
        self.set_sriov(pf, |sriov| {
            sriov.current = 0;
            sriov.vfs.clear();
        });
    }

    fn set_sriov(&mut self, pf: PciAddress, change: impl FnOnce(&mut Sriov)) {
        if let Some(function) = self.functions.get_mut(&pf)
            && let Some(sriov) = &mut function.sriov
        {
            change(sriov);
            let path = format!("{}/sriov_numvfs", function.path);
            self.tree.knob(path, sriov.current);
        }
    }

    /// A guest that has the device loses it: what nobody wants to happen.
    fn lose(&mut self, address: PciAddress) {
        for domain in self.domains.values_mut() {
            domain.lose(address);
        }
    }
}

/// The address as written to `bind` and its like; anything else is no device's name.
fn function_name(value: &str) -> Result<PciAddress, Errno> {
    let name = value.strip_suffix('\n').unwrap_or(value);
    let address: PciAddress = name.parse().map_err(|_| Errno::NODEV)?;
    // The kernel compares names: `41:00.0` is not one.
    if address.to_string() == name {
        Ok(address)
    } else {
        Err(Errno::NODEV)
    }
}

/// Routing id of the PF + offset + index × stride (PCIe SR-IOV, 9.3.3.9).
fn vf_address(pf: PciAddress, sriov: &Sriov, index: u16) -> Option<PciAddress> {
    let function = u32::from(pf.device()) << 3 | u32::from(pf.function());
    let pf_id = u32::from(pf.bus()) << 8 | function;
    let id = pf_id + u32::from(sriov.offset) + u32::from(index) * u32::from(sriov.stride);
    PciAddress::new(
        pf.domain(),
        u8::try_from(id >> 8).ok()?,
        u8::try_from(id >> 3 & 0x1f).ok()?,
        u8::try_from(id & 7).ok()?,
    )
}

/// What a VF without a MAC comes up with.
fn made_up_mac(address: PciAddress) -> String {
    format!(
        "ba:d0:00:{:02x}:{:02x}:{:02x}",
        address.bus(),
        address.device(),
        address.function()
    )
}
