//! The fake server of the other tests against this one: what the kernel and its tools answer to the
//! same acts, one by one.

use anyhow::{Context, Result, ensure};
use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_host::{HostError, Machine};
use serde_json::Value;

use super::Story;
use crate::lab::Lab;

const PF: &str = "/sys/bus/pci/devices/0000:42:00.0";
const VF: &str = "/sys/bus/pci/devices/0000:42:10.0";
const INTERFACE: &str = "enp66s0";
const DRIVER: &str = "/sys/bus/pci/drivers/igbvf";
const POOL: &str = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";

/// Something that is done or looked at.
enum Act {
    /// An attribute is written: `done`, or the kernel's refusal.
    Write(String, &'static str),
    /// An attribute's text.
    Read(String),
    /// The names in a folder that begin so.
    List(&'static str, &'static str),
    /// The last part of where a link goes.
    Link(String),
    /// A program: `done`, or its exit status and the last line of what it says.
    Run(Vec<&'static str>),
    /// What `ip` tells of each VF.
    Vfs,
    /// The interface is set up, and its link is waited for.
    Up,
}

fn acts() -> Vec<Act> {
    let numvfs = |value| Act::Write(format!("{PF}/sriov_numvfs"), value);
    let autoprobe = |value| Act::Write(format!("{PF}/sriov_drivers_autoprobe"), value);
    let driver = || Act::Link(format!("{VF}/driver"));
    let only = |value| Act::Write(format!("{VF}/driver_override"), value);
    let bind = |what: &str, value| Act::Write(format!("{DRIVER}/{what}"), value);
    let probe = |value| Act::Write("/sys/bus/pci/drivers_probe".into(), value);
    let vf = |setting: &[&'static str]| {
        let set = ["ip", "link", "set", "dev", INTERFACE, "vf"];
        Act::Run(set.iter().chain(setting).copied().collect())
    };
    vec![
        Act::Run(vec!["modprobe", "igbvf"]),
        Act::Read(format!("{PF}/sriov_totalvfs")),
        Act::Read(format!("{PF}/sriov_numvfs")),
        Act::Read(format!("{PF}/sriov_drivers_autoprobe")),
        numvfs("x"),
        numvfs("-1"),
        numvfs("8"),
        numvfs("99999"),
        numvfs("2"),
        numvfs("2"),
        numvfs("3"),
        Act::Read(format!("{PF}/sriov_numvfs")),
        Act::List(PF, "virtfn"),
        Act::Link(format!("{PF}/virtfn0")),
        Act::Link(format!("{PF}/virtfn1")),
        driver(),
        Act::Vfs,
        vf(&["0", "mac", "52:54:00:aa:bb:01"]),
        vf(&["0", "vlan", "102"]),
        vf(&["0", "trust", "on"]),
        vf(&["0", "spoofchk", "off"]),
        Act::Vfs,
        // igb takes no link state, and a rate only of a link that there is.
        vf(&["0", "state", "enable"]),
        vf(&["0", "max_tx_rate", "500"]),
        Act::Up,
        vf(&["0", "max_tx_rate", "5000"]),
        vf(&["0", "max_tx_rate", "500"]),
        Act::Vfs,
        vf(&["0", "max_tx_rate", "0"]),
        Act::Run(vec!["ip", "link", "set", "dev", INTERFACE, "down"]),
        vf(&["0", "mac", "01:00:5e:00:00:01"]),
        vf(&["0", "vlan", "5000"]),
        vf(&["0", "trust", "maybe"]),
        vf(&["9", "vlan", "102"]),
        Act::Run(vec!["ip", "link", "set", "dev", "nosuch0", "up"]),
        only("vfio-pci"),
        Act::Read(format!("{VF}/driver_override")),
        driver(),
        bind("unbind", "0000:42:10.0"),
        bind("unbind", "0000:42:10.0"),
        bind("bind", "0000:42:10.0"),
        driver(),
        only("\n"),
        Act::Read(format!("{VF}/driver_override")),
        probe("0000:42:10.0"),
        driver(),
        bind("bind", "0000:42:10.0"),
        probe("0000:ff:00.0"),
        numvfs("0"),
        Act::List(PF, "virtfn"),
        autoprobe("maybe"),
        autoprobe("0"),
        numvfs("1"),
        driver(),
        numvfs("0"),
        autoprobe("1"),
        Act::Read(format!("{PF}/sriov_drivers_autoprobe")),
        Act::Write(POOL.into(), "x"),
        Act::Write(POOL.into(), "3"),
        Act::Read(POOL.into()),
        Act::Write(POOL.into(), "0"),
        Act::Read(POOL.into()),
        Act::Write("/proc/irq/default_smp_affinity".into(), "0"),
        Act::Write("/proc/irq/default_smp_affinity".into(), "zz"),
        Act::Write("/sys/devices/virtual/workqueue/cpumask".into(), "0"),
        Act::Write("/sys/devices/system/cpu/online".into(), "0"),
    ]
}

impl Act {
    /// As a line of bash that prints one line.
    fn script(&self) -> String {
        match self {
            Self::Write(path, value) => {
                let value = value.replace('\n', "\\n");
                format!("w '{path}' '{value}'")
            }
            Self::Read(path) => format!("tr '\\n' ' ' < '{path}'; echo"),
            Self::List(path, prefix) => {
                format!("ls '{path}' | grep '^{prefix}' | sort | tr '\\n' ' '; echo")
            }
            Self::Link(path) => format!("basename \"$(readlink '{path}')\""),
            Self::Run(words) => format!("c {}", words.join(" ")),
            Self::Up => format!(
                "ip link set dev {INTERFACE} up; for i in $(seq 50); do \
                 [ \"$(cat /sys/class/net/{INTERFACE}/carrier)\" = 1 ] && break; sleep 0.2; done; echo done"
            ),
            Self::Vfs => format!("ip -j link show dev {INTERFACE}"),
        }
    }

    fn on(&self, fake: &FakeMachine) -> String {
        let done = "done".to_owned();
        match self {
            Self::Write(path, value) => match fake.write_attribute(path.as_ref(), value) {
                Ok(()) => done,
                Err(HostError::File { source, .. }) => {
                    let text = source.to_string();
                    text.split(" (os error").next().unwrap_or("").to_owned()
                }
                Err(error) => error.to_string(),
            },
            Self::Read(path) => fake.root().attribute(path).unwrap_or_default(),
            Self::List(path, prefix) => {
                let mut names = fake.root().list(path).unwrap_or_default();
                names.retain(|name| name.starts_with(prefix));
                names.sort();
                names.join(" ")
            }
            Self::Link(path) => fake.root().link_name(path).unwrap_or_default(),
            Self::Run(words) => {
                let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
                match fake.type_in(program, arguments) {
                    Ok(_) => done,
                    Err((status, text)) => {
                        format!("{status} {}", text.lines().last().unwrap_or_default())
                    }
                }
            }
            Self::Up => {
                let up = fake.type_in("ip", &["link", "set", "dev", INTERFACE, "up"]);
                up.map_or_else(|(_, text)| text, |_| done)
            }
            Self::Vfs => fake
                .type_in("ip", &["-j", "link", "show", "dev", INTERFACE])
                .unwrap_or_default(),
        }
    }

    /// Of an answer, what the two must have alike.
    fn told(&self, answer: &str) -> Result<String> {
        if !matches!(self, Self::Vfs) {
            return Ok(answer.trim().to_owned());
        }
        let links: Value = serde_json::from_str(answer).context("ip printed no JSON")?;
        let vfs = links[0]["vfinfo_list"].as_array().context("no VFs")?;
        let vfs = vfs.iter().map(|vf| {
            let fields = [
                "vf",
                "address",
                "vlan_list",
                "spoofchk",
                "link_state",
                "trust",
                "rate",
            ];
            fields.map(|field| vf[field].to_string()).join(" ")
        });
        Ok(vfs.collect::<Vec<_>>().join("; "))
    }
}

/// The kernel's refusal is the last part of bash's own message.
const HEAD: &str = "\
w() { if out=$( { printf '%b' \"$2\" > \"$1\"; } 2>&1 ); then echo done; else echo \"${out##*: }\"; fi; }
c() { if out=$(\"$@\" 2>&1); then echo done; else echo \"$? $(tail -n 1 <<< \"$out\")\"; fi; }
";

pub fn alike(lab: &Lab, _: &mut Story) -> Result<()> {
    let interface = lab.server(&format!("test -e {PF}/net/{INTERFACE}"))?;
    if interface.code != 0 {
        // Another topology has its NICs elsewhere, and the fake is the usual one's.
        lab.say("  SKIPPED: this server has other NICs than the fake");
        return Ok(());
    }
    let acts = acts();
    let script: Vec<String> = acts.iter().map(Act::script).collect();
    let script = format!("{HEAD}{}\n", script.join("\n"));
    let ran = lab.server_with("bash -s", script.as_bytes())?.expect(0)?;
    let answers: Vec<&str> = ran.stdout.lines().collect();
    ensure!(
        answers.len() == acts.len(),
        "{} answers to {} acts:\n{}{}",
        answers.len(),
        acts.len(),
        ran.stdout,
        ran.stderr
    );
    let fake = FakeMachine::new(FakeServer::lab());
    let mut differences = Vec::new();
    let mut refused = 0;
    for (act, answer) in acts.iter().zip(answers) {
        let (real, fake) = (act.told(answer)?, act.told(&act.on(&fake))?);
        let is_asked = matches!(act, Act::Write(..) | Act::Run(_));
        refused += usize::from(is_asked && real != "done");
        if real != fake {
            differences.push(format!(
                "{}\n  server: {real}\n  fake:   {fake}",
                act.script()
            ));
        }
    }
    ensure!(
        differences.is_empty(),
        "the fake answers otherwise:\n{}",
        differences.join("\n")
    );
    lab.say(&format!(
        "  {} acts, {refused} of them refused, with the same words",
        acts.len()
    ));
    // What is not refused here proves nothing of refusals.
    ensure!(refused > 15, "only {refused} were refused");
    Ok(())
}
