//! Domains: defined, started with the host or not, running.

use std::time::Duration;

use bmslice_host::{DomainState, HostError};
use bmslice_model::{PciAddress, SliceName};
use serde::{Deserialize, Serialize};

use crate::console::last_lines;
use crate::domain_xml::{Meaning, is_ours};
use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::device::{driver, sysfs};
use crate::steps::sriov::settle;

/// Between two looks at a guest that shuts down.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two requests to shut down: a guest that was still booting did not hear the first.
const ASK_EVERY: u32 = 15;

/// The domain of this name, if there is one.
pub fn state(look: &Look<'_>, name: &SliceName) -> Result<Option<DomainState>, HostError> {
    let domains = look.machine.hypervisor()?.domains()?;
    Ok(domains
        .into_iter()
        .find(|domain| domain.name == name.as_str()))
}

fn unreadable(name: &SliceName, message: String) -> HostError {
    HostError::Hypervisor {
        action: format!("describe the domain `{name}`"),
        message,
    }
}

/// Defines a slice's domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefineDomain {
    /// Whose.
    pub slice: SliceName,
    /// Its UUID.
    pub uuid: String,
    /// Its definition.
    pub xml: String,
}

impl DefineDomain {
    pub fn describe(&self) -> String {
        format!("define the domain `{}`", self.slice)
    }

    pub fn describe_undo(&self) -> String {
        format!("undefine the domain `{}`", self.slice)
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let hypervisor = look.machine.hypervisor()?;
        for domain in hypervisor.domains()? {
            let (named, identified) = (
                domain.name == self.slice.as_str(),
                domain.uuid == self.uuid.to_lowercase(),
            );
            if named && !is_ours(&hypervisor.xml(&domain.name, domain.persistent)?) {
                return Ok(vec![
                    Problem::new(format!(
                        "a domain named `{}` is there, and bmslice did not make it (UUID {})",
                        self.slice, domain.uuid
                    ))
                    .hint(format!(
                        "give the slice another name, or rename the domain with `virsh domrename {} NEW`; bmslice never replaces it",
                        self.slice
                    )),
                ]);
            }
            if identified && !named {
                return Ok(vec![
                    Problem::new(format!(
                        "the domain `{}` has the UUID {} of the slice `{}`",
                        domain.name, domain.uuid, self.slice
                    ))
                    .hint("undefine that domain if it is a renamed one of bmslice"),
                ]);
            }
        }
        Ok(Vec::new())
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        let Some(domain) = state(look, &self.slice)? else {
            return Ok(Observation::NotHeld);
        };
        if !domain.persistent {
            return Ok(Observation::different(format!(
                "the domain `{}` runs without a definition",
                self.slice
            )));
        }
        let kept = look.machine.hypervisor()?.xml(self.slice.as_str(), true)?;
        if !is_ours(&kept) {
            return Ok(Observation::different(format!(
                "the domain `{}` is not bmslice's",
                self.slice
            )));
        }
        let unreadable = |message| unreadable(&self.slice, message);
        let wanted = Meaning::read(&self.xml).map_err(unreadable)?;
        let differences = wanted.differences(&Meaning::read(&kept).map_err(unreadable)?);
        Ok(if differences.is_empty() {
            Observation::Held
        } else {
            Observation::different(differences.join("; "))
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        let xml = match state(look, &self.slice)? {
            Some(domain) if domain.persistent => {
                Some(look.machine.hypervisor()?.xml(self.slice.as_str(), true)?)
            }
            Some(_) | None => None,
        };
        Ok(Before::Domain { xml })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        // Looked at again: between the first look and now somebody may have defined theirs.
        if let Some(problem) = self.precondition(&site.look())?.into_iter().next() {
            return Err(StepError::Cannot {
                what: problem.text,
                hint: problem.hint,
            });
        }
        site.machine.hypervisor()?.define(&self.xml)?;
        if state(&site.look(), &self.slice)?.is_some_and(|domain| domain.running) {
            site.note(format!(
                "`{}` runs on with its old definition; the new one is taken at its next start",
                self.slice
            ));
        }
        Ok(())
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        let Some(domain) = state(&site.look(), &self.slice)? else {
            return Ok(());
        };
        let hypervisor = site.machine.hypervisor()?;
        if !is_ours(&hypervisor.xml(&domain.name, domain.persistent)?) {
            // Somebody put another one in its place: that one is not ours to remove.
            return Ok(());
        }
        // libvirt may have started it again: a power cut can come between its shutdown and this.
        shut_down(&self.slice, site)?;
        if let Before::Domain { xml: Some(xml) } = before {
            hypervisor.define(xml)?;
        } else {
            hypervisor.undefine(self.slice.as_str())?;
        }
        Ok(())
    }
}

/// Lets a domain start with the host, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAutostart {
    /// Whose.
    pub slice: SliceName,
    /// Whether it does.
    pub on: bool,
}

impl SetAutostart {
    pub fn describe(&self) -> String {
        if self.on {
            format!("let `{}` start with the host", self.slice)
        } else {
            format!("keep libvirt from starting `{}` unasked", self.slice)
        }
    }

    pub fn describe_undo(&self) -> String {
        format!("put the autostart of `{}` back", self.slice)
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        Ok(match state(look, &self.slice)? {
            Some(domain) if domain.autostart == self.on => Observation::Held,
            Some(_) | None => Observation::NotHeld,
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        Ok(
            state(look, &self.slice)?.map_or(Before::Nothing, |domain| Before::Autostart {
                on: domain.autostart,
            }),
        )
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        Ok(site
            .machine
            .hypervisor()?
            .set_autostart(self.slice.as_str(), self.on)?)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        // Of a domain that was not there before nothing stays.
        let Before::Autostart { on } = before else {
            return Ok(());
        };
        if state(&site.look(), &self.slice)?.is_some_and(|domain| domain.persistent) {
            site.machine
                .hypervisor()?
                .set_autostart(self.slice.as_str(), *on)?;
        }
        Ok(())
    }
}

/// How long after its start a guest is looked at again.
const FIRST_BREATHS: Duration = Duration::from_secs(1);

/// Starts a slice's guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDomain {
    /// Whose.
    pub slice: SliceName,
    /// The PCI functions that it gets.
    pub functions: Vec<PciAddress>,
}

impl StartDomain {
    pub fn describe(&self) -> String {
        format!("start `{}`", self.slice)
    }

    pub fn describe_undo(&self) -> String {
        format!(
            "shut `{}` down, and give its devices back to the host",
            self.slice
        )
    }

    pub fn observe(&self, look: &Look<'_>) -> Result<Observation, HostError> {
        Ok(match state(look, &self.slice)? {
            Some(domain) if domain.running => Observation::Held,
            Some(_) | None => Observation::NotHeld,
        })
    }

    pub fn before(&self, look: &Look<'_>) -> Result<Before, HostError> {
        Ok(Before::Guest {
            drivers: self
                .functions
                .iter()
                .map(|address| (*address, driver(look, *address)))
                .collect(),
        })
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let start = |site: &Site<'_>| site.machine.hypervisor()?.start(self.slice.as_str());
        let Err(error) = start(site) else {
            return self.stays(site);
        };
        // Right after a VF was made, udev may not have opened its group's file to QEMU yet.
        if !error.to_string().contains("/dev/vfio") {
            return Err(error.into());
        }
        site.note(format!(
            "`{}` did not start ({error}); once more, when udev has settled",
            self.slice
        ));
        settle(site);
        start(site)?;
        self.stays(site)
    }

    /// What QEMU or its guest gives up on at once is told with what the guest last wrote.
    fn stays(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.machine.sleep(FIRST_BREATHS);
        if self.observe(&site.look())? == Observation::Held {
            return Ok(());
        }
        let lines = last_lines(site.machine.root(), &self.slice);
        let console = if lines.is_empty() {
            "it wrote nothing to its console".to_owned()
        } else {
            format!("the last lines of its console:\n  {}", lines.join("\n  "))
        };
        Err(StepError::cannot(
            format!(
                "the guest `{}` ended as soon as it was started; {console}",
                self.slice
            ),
            format!("see `/var/log/libvirt/qemu/{}.log`", self.slice),
        ))
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        shut_down(&self.slice, site)?;
        let Before::Guest { drivers } = before else {
            return Ok(());
        };
        let mut kept = Vec::new();
        for (address, was) in drivers {
            let look = site.look();
            // A VF that is gone has nothing to go back to.
            if !look.machine.root().exists(sysfs(*address)) {
                continue;
            }
            // A VF has no driver of its own to go back to: undoing its making sees to that.
            let is_vf = look
                .machine
                .root()
                .exists(format!("{}/physfn", sysfs(*address)));
            let was = if is_vf { &None } else { was };
            let now = driver(&look, *address);
            if now == *was {
                continue;
            }
            if now.as_deref() == Some("vfio-pci") {
                site.machine
                    .hypervisor()?
                    .reattach(&address.nodedev_name())?;
            } else if now.is_none() && was.is_some() {
                site.write("/sys/bus/pci/drivers_probe", address)?;
            }
            let now = driver(&site.look(), *address);
            if was.is_some() && now != *was {
                kept.push(format!(
                    "{address} has {} instead of the driver `{}`",
                    now.map_or("no driver".into(), |driver| format!("`{driver}`")),
                    was.as_deref().unwrap_or_default()
                ));
            }
        }
        if kept.is_empty() {
            Ok(())
        } else {
            Err(StepError::NotEffective {
                got: kept.join(", "),
            })
        }
    }

    /// Asks the guest to shut down, and does not wait: several guests then do it side by side.
    pub fn ask(&self, site: &mut Site<'_>) -> Result<(), HostError> {
        if runs(&self.slice, &site.look())? {
            site.machine.hypervisor()?.shutdown(self.slice.as_str())?;
        }
        Ok(())
    }
}

/// Whether the guest runs, and is ours to end.
fn runs(slice: &SliceName, look: &Look<'_>) -> Result<bool, HostError> {
    Ok(match state(look, slice)? {
        Some(domain) if domain.running => {
            let hypervisor = look.machine.hypervisor()?;
            is_ours(&hypervisor.xml(&domain.name, false)?)
        }
        Some(_) | None => false,
    })
}

/// Asks the guest to shut down and waits, as long as the licence goes.
fn shut_down(slice: &SliceName, site: &mut Site<'_>) -> Result<(), StepError> {
    let runs = |site: &Site<'_>| runs(slice, &site.look());
    if !runs(site)? {
        return Ok(());
    }
    let begin = site.machine.now();
    let mut looks = 0;
    loop {
        if looks % ASK_EVERY == 0
            && let Err(error) = site.machine.hypervisor()?.shutdown(slice.as_str())
        {
            // It may have ended by itself just now; the look below tells.
            site.note(format!("{error}"));
        }
        site.machine.sleep(LOOK_EVERY);
        looks += 1;
        if !runs(site)? {
            return Ok(());
        }
        let waited = site.machine.now().duration_since(begin).unwrap_or_default();
        if waited >= site.licence.patience {
            break;
        }
    }
    if site.licence.force {
        site.note(format!(
            "`{}` did not shut down within {} s and is stopped, as asked",
            slice,
            site.licence.patience.as_secs()
        ));
        let stopped = site.machine.hypervisor()?.destroy(slice.as_str());
        return match stopped {
            // It ended by itself after the last look: that is what was wanted.
            Err(error) if !runs(site)? => {
                site.note(format!("{error}"));
                Ok(())
            }
            stopped => Ok(stopped?),
        };
    }
    Err(StepError::cannot(
        format!(
            "the guest `{}` did not shut down within {} s, and is not stopped unasked",
            slice,
            site.licence.patience.as_secs()
        ),
        "look at its console, wait longer with `--patience`, or pull its plug with `--force`",
    ))
}
