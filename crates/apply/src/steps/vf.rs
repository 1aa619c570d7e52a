//! One virtual function: what its NIC holds it to (ip-link(8), `vf`).

use std::time::Duration;

use bmslice_host::{Command, HostError};
use bmslice_model::{MacAddress, PciAddress, SliceName, VlanId};
use bmslice_plan::DeviceRef;
use bmslice_spec::{VfLink, VfRules};
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::site::{Look, Site};
use crate::step::{Before, Observation};
use crate::steps::device::{interface, sysfs};
use crate::steps::sriov::name;

/// How long both ends of a link may take to agree; 10GBASE-T takes up to ten seconds.
const LINK_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at a link.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Sets MAC, VLAN and the rules of a VF.
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
    /// What it is held to beside.
    #[serde(flatten)]
    pub rules: VfRules,
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
    spoofchk: Option<bool>,
    #[serde(default)]
    rate: RateJson,
    link_state: Option<String>,
}

/// Mbit/s; 0 is no limit.
#[derive(Default, Deserialize)]
struct RateJson {
    #[serde(default)]
    max_tx: u32,
}

impl VfJson {
    /// What it is held to. A driver that does not tell of one does not know it, which is as good as
    /// what drivers do by themselves.
    fn rules(&self) -> VfRules {
        let itself = VfRules::default();
        VfRules {
            trust: self.trust.unwrap_or(itself.trust),
            spoof_check: self.spoofchk.unwrap_or(itself.spoof_check),
            max_rate: (self.rate.max_tx > 0).then_some(self.rate.max_tx),
            link: self
                .link_state
                .as_deref()
                .and_then(VfLink::from_word)
                .unwrap_or(itself.link),
        }
    }
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
        if !self.rules.trust {
            settings.push("not trusted".into());
        }
        settings.extend(self.rules.described());
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
        let (now, want) = (vf.rules(), self.rules);
        if now.trust != want.trust {
            let text = if want.trust {
                "it is not trusted"
            } else {
                "it is trusted"
            };
            wrong.push(text.into());
        }
        if now.spoof_check != want.spoof_check {
            let text = if now.spoof_check { "is" } else { "is not" };
            wrong.push(format!("its sender's MAC {text} checked"));
        }
        if now.max_rate != want.max_rate {
            wrong.push(now.max_rate.map_or("its rate has no limit".into(), |rate| {
                format!("it sends at most {rate} Mbit/s")
            }));
        }
        if now.link != want.link {
            wrong.push(format!("its link state is `{}`", now.link.word()));
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
            rules: vf.rules(),
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

    /// igb and ixgbe take a rate only while they have a link, which a NIC that was just set up has
    /// not yet, and none above its speed: both are EINVAL (`igb_ndo_set_vf_bw`).
    fn limit(&self, site: &Site<'_>, rate: u32) -> Result<(), StepError> {
        let attribute = |name: &str| {
            let interface = interface(&site.look(), self.pf.address)?;
            let root = site.machine.root();
            root.attribute(format!("/sys/class/net/{interface}/{name}"))
        };
        let begin = site.machine.now();
        let waited = || site.machine.now().duration_since(begin).unwrap_or_default();
        // An interface that is down tells nothing, and waiting does not help it.
        while attribute("carrier").as_deref() == Some("0") && waited() < LINK_WITHIN {
            site.machine.sleep(LOOK_EVERY);
        }
        let Err(error) = self.set(site, &["max_tx_rate", &rate.to_string()]) else {
            return Ok(());
        };
        if attribute("carrier").as_deref() == Some("1") {
            return Err(error);
        }
        Err(StepError::cannot(
            format!(
                "the rate of VF {} of {} was refused, which has no link: {error}",
                self.index,
                name(&self.pf)
            ),
            "plug its cable in and see that the other end is up, or leave `maxRate` out",
        ))
    }

    fn put(
        &self,
        site: &Site<'_>,
        mac: Option<MacAddress>,
        vlan_wanted: Option<VlanId>,
        rules: VfRules,
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
        let on = |on: bool| if on { "on" } else { "off" };
        let has = now.rules();
        if has.trust != rules.trust {
            self.set(site, &["trust", on(rules.trust)])?;
        }
        if has.spoof_check != rules.spoof_check {
            self.set(site, &["spoofchk", on(rules.spoof_check)])?;
        }
        if has.max_rate != rules.max_rate {
            self.limit(site, rules.max_rate.unwrap_or(0))?;
        }
        if has.link != rules.link {
            self.set(site, &["state", rules.link.word()])?;
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
        self.put(site, self.mac, self.vlan, self.rules)
    }

    pub fn undo(&self, before: &Before, site: &mut Site<'_>) -> Result<(), StepError> {
        // VFs that were not there before go away with their number.
        let Before::Vf { mac, vlan, rules } = before else {
            return Ok(());
        };
        if self.read(&site.look())?.is_none() {
            return Ok(());
        }
        self.put(site, *mac, *vlan, *rules)
    }
}

fn vlan(vf: &VfJson) -> Option<VlanId> {
    vf.vlan_list
        .iter()
        .map(|vlan| vlan.vlan)
        .chain([vf.vlan])
        .find_map(|number| VlanId::new(number).ok())
}
