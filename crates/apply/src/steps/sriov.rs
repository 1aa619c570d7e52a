//! Virtual functions (Documentation/PCI/pci-iov-howto.rst; ip-link(8)).

use bmslice_host::{Command, HostError};
use bmslice_model::{MacAddress, PciAddress, SliceName, VlanId};
use bmslice_plan::DeviceRef;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::device::{driver, interface, sysfs};

fn name(pf: &DeviceRef) -> String {
    match &pf.interface {
        Some(interface) => format!("{} ({interface})", pf.address),
        None => pf.address.to_string(),
    }
}

fn need_programs(look: &Look<'_>) -> Vec<Problem> {
    if look.machine.has_program("ip") {
        return Vec::new();
    }
    vec![Problem::new("VFs are set up with `ip`, which is not here").hint("`apt install iproute2`")]
}

/// Keeps the host's driver away from VFs that are to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisableVfAutoprobe {
    /// The physical function.
    pub pf: DeviceRef,
}

impl DisableVfAutoprobe {
    fn path(&self) -> String {
        format!("{}/sriov_drivers_autoprobe", sysfs(self.pf.address))
    }

    pub fn describe(&self) -> String {
        format!("keep host drivers away from the VFs of {}", name(&self.pf))
    }

    pub fn describe_undo(&self) -> String {
        format!("let host drivers take the VFs of {} again", name(&self.pf))
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        match look.number(&self.path()) {
            Some(0) => Observation::Held,
            Some(_) | None => Observation::NotHeld,
        }
    }

    pub fn before(&self, look: &Look<'_>) -> Before {
        Before::Autoprobe {
            on: look.number(&self.path()) != Some(0),
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        Ok(site.write(&self.path(), 0)?)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Before::Autoprobe { on: true } = before else {
            return Ok(());
        };
        if site.look().number(&self.path()) == Some(0) {
            site.write(&self.path(), 1)?;
        }
        // VFs that were there before us came back without a driver while this was off.
        for address in virtual_functions(&site.look(), self.pf.address) {
            if driver(&site.look(), address).is_none() {
                site.write("/sys/bus/pci/drivers_probe", address)?;
            }
        }
        Ok(())
    }
}

/// The VFs of a physical function.
fn virtual_functions(look: &Look<'_>, pf: PciAddress) -> Vec<PciAddress> {
    let root = look.machine.root();
    let folder = sysfs(pf);
    let names = root.list(&folder).unwrap_or_default();
    names
        .iter()
        .filter(|name| name.starts_with("virtfn"))
        .filter_map(|link| root.link_name(format!("{folder}/{link}"))?.parse().ok())
        .collect()
}

/// Splits a physical function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateVfs {
    /// Which.
    pub pf: DeviceRef,
    /// Into how many.
    pub count: u32,
}

impl CreateVfs {
    fn path(&self) -> String {
        format!("{}/sriov_numvfs", sysfs(self.pf.address))
    }

    fn current(&self, look: &Look<'_>) -> Option<u64> {
        look.number(&self.path())
    }

    fn is_up(&self, look: &Look<'_>) -> bool {
        let flags = interface(look, self.pf.address).and_then(|interface| {
            look.machine
                .root()
                .attribute(format!("/sys/class/net/{interface}/flags"))
        });
        // IFF_UP of netdevice(7).
        flags
            .and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok())
            .is_some_and(|flags| flags & 1 == 1)
    }

    /// VFs that somebody uses, each with how.
    fn in_use(&self, look: &Look<'_>) -> Vec<String> {
        let root = look.machine.root();
        let mut used = Vec::new();
        for address in virtual_functions(look, self.pf.address) {
            if driver(look, address).as_deref() == Some("vfio-pci") {
                used.push(format!("{address} is given to a guest or program"));
            } else if let Some(interface) = interface(look, address) {
                let state = root.attribute(format!("/sys/class/net/{interface}/operstate"));
                if state.as_deref() == Some("up") {
                    used.push(format!("{address} is the host's interface `{interface}`"));
                }
            }
        }
        used
    }

    fn refuse_in_use(&self, look: &Look<'_>, current: u64, want: u32) -> Option<Problem> {
        let used = self.in_use(look);
        if used.is_empty() {
            return None;
        }
        Some(
            Problem::new(format!(
                "{} has {current} VFs and is to have {want}; the kernel changes that only by removing all, and {}",
                name(&self.pf),
                used.join(", ")
            ))
            .hint("shut down what uses those VFs first"),
        )
    }

    pub fn describe(&self) -> String {
        format!("make {} VFs of {}", self.count, name(&self.pf))
    }

    pub fn describe_undo(&self) -> String {
        format!("put the VFs of {} back as they were", name(&self.pf))
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let mut problems = need_programs(look);
        let Some(current) = self.current(look) else {
            problems.push(
                Problem::new(format!(
                    "{} is to be split into {} VFs, and has no SR-IOV here (`{}` is not there)",
                    name(&self.pf),
                    self.count,
                    self.path()
                ))
                .hint("turn SR-IOV on in the firmware's setup, and see that the host's driver is bound"),
            );
            return Ok(problems);
        };
        let total = look
            .number(&format!("{}/sriov_totalvfs", sysfs(self.pf.address)))
            .unwrap_or(0);
        if u64::from(self.count) > total {
            problems.push(
                Problem::new(format!(
                    "{} is to be split into {} VFs, and can have {total}",
                    name(&self.pf),
                    self.count
                ))
                .hint("plan again"),
            );
        }
        if current != 0 && current != u64::from(self.count) {
            problems.extend(self.refuse_in_use(look, current, self.count));
        }
        Ok(problems)
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        match self.current(look) {
            Some(current) if current == u64::from(self.count) => {
                if self.is_up(look) {
                    Observation::Held
                } else {
                    Observation::different(format!("the link of {} is down", name(&self.pf)))
                }
            }
            Some(0) | None => Observation::NotHeld,
            Some(current) => {
                Observation::different(format!("{} has {current} VFs", name(&self.pf)))
            }
        }
    }

    pub fn before(&self, look: &Look<'_>) -> Before {
        Before::Vfs {
            count: self
                .current(look)
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0),
            up: self.is_up(look),
        }
    }

    /// Writes a number of VFs, through 0: the kernel answers EBUSY to any other change.
    fn set(&self, site: &mut Site<'_>, want: u32) -> Result<(), StepError> {
        let look = site.look();
        let current = self.current(&look).unwrap_or(0);
        if current == u64::from(want) {
            return Ok(());
        }
        if current != 0 {
            if let Some(problem) = self.refuse_in_use(&look, current, want) {
                return Err(StepError::Cannot {
                    what: problem.text,
                    hint: problem.hint,
                });
            }
            site.write(&self.path(), 0)?;
        }
        if want != 0 {
            site.write(&self.path(), want)?;
        }
        // udev names what came and what went; whoever is next finds it done.
        settle(site);
        Ok(())
    }

    fn set_link(&self, site: &Site<'_>, state: &str) -> Result<(), StepError> {
        match interface(&site.look(), self.pf.address) {
            Some(interface) => {
                site.run("ip", ["link", "set", "dev", &interface, state])?;
                Ok(())
            }
            None => Err(StepError::cannot(
                format!("{} has no network interface on the host", name(&self.pf)),
                "see with `lspci -k` which driver is bound to it",
            )),
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        self.set(site, self.count)?;
        if !self.is_up(&site.look()) {
            self.set_link(site, "up")?;
        }
        Ok(())
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Before::Vfs { count, up } = before else {
            return Ok(());
        };
        self.set(site, *count)?;
        if !up && self.is_up(&site.look()) {
            self.set_link(site, "down")?;
        }
        Ok(())
    }
}

/// Waits for udev. Best effort: a host without it has nothing to wait for.
pub fn settle(site: &mut Site<'_>) {
    if site.machine.has_program("udevadm")
        && let Err(error) = site.run("udevadm", ["settle", "--timeout=30"])
    {
        site.note(format!("udev has not settled: {error}"));
    }
}

/// Sets MAC, VLAN and trust of a VF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureVf {
    /// Whose it becomes.
    pub slice: SliceName,
    /// Its physical function.
    pub pf: DeviceRef,
    /// Its index there.
    pub index: u32,
    /// Where it is to be.
    pub address: PciAddress,
    /// The MAC that the guest will see.
    pub mac: Option<MacAddress>,
    /// The VLAN that the NIC adds and takes away.
    pub vlan: Option<VlanId>,
    /// Whether the guest may change its MAC and go promiscuous.
    pub trust: bool,
}

#[derive(Deserialize)]
struct LinkJson {
    #[serde(default)]
    vfinfo_list: Vec<VfJson>,
}

#[derive(Deserialize)]
struct VfJson {
    vf: u32,
    // `mac` before iproute2 5.1.
    #[serde(alias = "mac")]
    address: Option<MacAddress>,
    #[serde(default)]
    vlan_list: Vec<VlanJson>,
    #[serde(default)]
    vlan: u64,
    trust: Option<bool>,
}

#[derive(Deserialize)]
struct VlanJson {
    #[serde(default)]
    vlan: u64,
}

impl ConfigureVf {
    pub fn describe(&self) -> String {
        let mut settings = Vec::new();
        settings.extend(self.mac.map(|mac| format!("MAC {mac}")));
        settings.push(
            self.vlan
                .map_or("no VLAN".into(), |vlan| format!("VLAN {vlan}")),
        );
        settings.push(if self.trust { "trusted" } else { "not trusted" }.into());
        format!(
            "give VF {} of {} to `{}`: {}",
            self.index,
            name(&self.pf),
            self.slice,
            settings.join(", ")
        )
    }

    pub fn describe_undo(&self) -> String {
        format!("put VF {} of {} back as it was", self.index, name(&self.pf))
    }

    pub fn precondition(&self, look: &Look<'_>) -> Vec<Problem> {
        match self.misplaced(look) {
            Some(at) => vec![
                Problem::new(format!(
                    "VF {} of {} is at {at}, and the plan has it at {}",
                    self.index,
                    name(&self.pf),
                    self.address
                ))
                .hint("plan again on this server"),
            ],
            None => Vec::new(),
        }
    }

    /// Where the VF is when it is elsewhere than the plan says.
    fn misplaced(&self, look: &Look<'_>) -> Option<String> {
        look.machine
            .root()
            .link_name(format!("{}/virtfn{}", sysfs(self.pf.address), self.index))
            .filter(|at| *at != self.address.to_string())
    }

    fn read(&self, look: &Look<'_>) -> Result<Option<VfJson>, HostError> {
        let Some(interface) = interface(look, self.pf.address) else {
            return Ok(None);
        };
        let command = Command::new("ip", ["-j", "link", "show", "dev", &interface]);
        let output = look.machine.run(&command)?;
        let links: Vec<LinkJson> =
            serde_json::from_str(&output.stdout).map_err(|error| HostError::Failed {
                command: command.to_string(),
                status: "its output is not as expected".into(),
                stderr: error.to_string(),
            })?;
        Ok(links
            .into_iter()
            .flat_map(|link| link.vfinfo_list)
            .find(|vf| vf.vf == self.index))
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let Some(vf) = self.read(look)? else {
            return Ok(Observation::NotHeld);
        };
        let mut wrong = Vec::new();
        if let Some(at) = self.misplaced(look) {
            wrong.push(format!("it is at {at}, not {}", self.address));
        }
        if self.mac.is_some() && vf.address != self.mac {
            wrong.push(
                vf.address
                    .map_or("it has no MAC".into(), |mac| format!("its MAC is {mac}")),
            );
        }
        let vlan = vlan(&vf);
        if vlan != self.vlan {
            wrong.push(vlan.map_or("it has no VLAN".into(), |vlan| {
                format!("its VLAN is {vlan}")
            }));
        }
        // A driver that does not tell does not know trust, which is as good as none.
        if vf.trust.unwrap_or(false) != self.trust {
            wrong.push(
                if self.trust {
                    "it is not trusted"
                } else {
                    "it is trusted"
                }
                .into(),
            );
        }
        Ok(if wrong.is_empty() {
            Observation::Held
        } else {
            Observation::different(wrong.join(", "))
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        if !look.machine.has_program("ip") {
            return Ok(Before::Nothing);
        }
        Ok(self.read(look)?.map_or(Before::Nothing, |vf| Before::Vf {
            mac: vf.address,
            vlan: vlan(&vf),
            trust: vf.trust,
        }))
    }

    fn set(&self, site: &Site<'_>, setting: &[&str]) -> Result<(), StepError> {
        let Some(interface) = interface(&site.look(), self.pf.address) else {
            return Err(StepError::cannot(
                format!("{} has no network interface on the host", name(&self.pf)),
                "see with `lspci -k` which driver is bound to it",
            ));
        };
        let index = self.index.to_string();
        let command = ["link", "set", "dev", &interface, "vf", &index];
        site.run("ip", command.iter().chain(setting).copied())?;
        Ok(())
    }

    fn put(
        &self,
        site: &Site<'_>,
        mac: Option<MacAddress>,
        vlan_wanted: Option<VlanId>,
        trust: Option<bool>,
    ) -> Result<(), StepError> {
        let Some(now) = self.read(&site.look())? else {
            return Err(StepError::cannot(
                format!("{} has no VF {}", name(&self.pf), self.index),
                "see `dmesg`: the driver may have refused it",
            ));
        };
        if let Some(mac) = mac
            && now.address != Some(mac)
        {
            self.set(site, &["mac", &mac.to_string()])?;
        }
        if vlan(&now) != vlan_wanted {
            // VLAN 0 is none.
            let number = vlan_wanted.map_or(0, VlanId::number).to_string();
            self.set(site, &["vlan", &number])?;
        }
        if let Some(trust) = trust
            && now.trust.unwrap_or(false) != trust
        {
            self.set(site, &["trust", if trust { "on" } else { "off" }])?;
        }
        Ok(())
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        if let Some(at) = self.misplaced(&site.look()) {
            return Err(StepError::cannot(
                format!(
                    "VF {} of {} came up at {at}, and the plan has it at {}",
                    self.index,
                    name(&self.pf),
                    self.address
                ),
                "plan again on this server, now that the VFs are there",
            ));
        }
        self.put(site, self.mac, self.vlan, Some(self.trust))
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        // VFs that were not there before go away with their number.
        let Before::Vf { mac, vlan, trust } = before else {
            return Ok(());
        };
        if self.read(&site.look())?.is_none() {
            return Ok(());
        }
        self.put(site, *mac, *vlan, *trust)
    }
}

fn vlan(vf: &VfJson) -> Option<VlanId> {
    vf.vlan_list
        .iter()
        .map(|vlan| vlan.vlan)
        .chain([vf.vlan])
        .find_map(|number| VlanId::new(number).ok())
}
