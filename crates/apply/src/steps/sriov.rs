//! Virtual functions (Documentation/PCI/pci-iov-howto.rst; ip-link(8)).

use bmslice_host::HostError;
use bmslice_model::{PciAddress, count};
use bmslice_plan::DeviceRef;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::device::{driver, interface, sysfs};

pub fn name(pf: &DeviceRef) -> String {
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
                "{} has {} and is to have {want}; the kernel changes that only by removing all, and {}",
                name(&self.pf),
                count(current, "VF"),
                used.join(", ")
            ))
            .hint("shut down what uses those VFs first"),
        )
    }

    pub fn describe(&self) -> String {
        format!("make {} of {}", count(self.count, "VF"), name(&self.pf))
    }

    pub fn describe_undo(&self) -> String {
        format!("put the VFs of {} back as they were", name(&self.pf))
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let mut problems = need_programs(look);
        let Some(current) = self.current(look) else {
            problems.push(
                Problem::new(format!(
                    "{} is to be split into {}, and has no SR-IOV here (`{}` is not there)",
                    name(&self.pf),
                    count(self.count, "VF"),
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
                    "{} is to be split into {}, and can have {total}",
                    name(&self.pf),
                    count(self.count, "VF")
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
