//! Whether a guest has come up, and waiting for those that were started.
//!
//! Takes what libvirt tells of a running domain and what the guest wrote to its serial console; gives
//! a [`Sign`]. No more is asked of a guest than it has: it is up when its agent has opened its port,
//! or, where there is no agent, when the last word on its console is a login; it is stuck when the
//! last word is a panic, an emergency mode or a boot loader that found nothing. A guest that says
//! nothing at all, in any of these ways, cannot be told from one that is well: that is said, and
//! held against nobody.
//!
//! Keeps true: looking and waiting change nothing, neither guest nor journal; that it waits is told
//! below `/run` as long as it does.

use std::time::{Duration, SystemTime};

use bmslice_host::{HostError, Hypervisor, Machine, Root};
use bmslice_model::SliceName;
use bmslice_plan::{Plan, SlicePlan};

use crate::apply::{Outcome, stored_plan};
use crate::console::{last_lines, plain};
use crate::domain_xml::is_ours;
use crate::error::ApplyError;
use crate::event::Event;
use crate::{waiting, xml};

/// Between two looks at guests that are coming up.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A guest that is stuck may yet reboot by itself (`panic=` of its kernel) and come up.
const STUCK_FOR: Duration = Duration::from_secs(45);

/// What a running guest tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its agent answers, or it asks for a login.
    Up,
    /// It got no further than this: `its kernel panicked`.
    Stuck(&'static str),
    /// It writes to its console, and has not come to a login.
    OnItsWay,
    /// It has written nothing, and has no agent that answers.
    Silent,
}

/// A guest that runs, or ran, and did not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUp {
    /// Whose.
    pub slice: SliceName,
    /// What is seen instead: `runs, but its kernel panicked`.
    pub why: String,
    /// The last lines of its console.
    pub console: Vec<String>,
}

impl NotUp {
    /// For people: the guest, why, and what it last wrote.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self {
            slice,
            why,
            console,
        } = self;
        format!(
            "`{slice}` {why}; the last lines of its console:\n  {}",
            console.join("\n  ")
        )
    }
}

/// The port of QEMU's guest agent, as libvirt describes it in a running domain: QEMU tells libvirt
/// when the guest opens or closes it (`state` of formatdomain, “Channel”).
fn agent_answers(domain: &str) -> Result<bool, String> {
    let root = xml::parse(domain)?;
    let ports = root.find("devices").into_iter().flat_map(|devices| {
        let channels = devices.all("channel");
        channels.filter_map(|channel| channel.find("target"))
    });
    let mut agents = ports.filter(|port| port.attribute("name") == Some("org.qemu.guest_agent.0"));
    Ok(agents.any(|port| port.attribute("state") == Some("connected")))
}

/// The last words of guests that come no further: Linux, systemd, dracut, initramfs-tools, GRUB,
/// SeaBIOS and OVMF, as they write them.
const STUCK: [(&str, &str); 9] = [
    ("Kernel panic - not syncing", "its kernel panicked"),
    ("You are in emergency mode", "it is in emergency mode"),
    ("You are in rescue mode", "it is in rescue mode"),
    (
        "Entering emergency mode",
        "it is in its initramfs' emergency mode",
    ),
    ("(initramfs)", "it stopped in its initramfs"),
    ("grub rescue>", "its boot loader found nothing to boot"),
    ("grub>", "its boot loader waits for commands"),
    ("No bootable device", "its firmware found nothing to boot"),
    ("No bootable option", "its firmware found nothing to boot"),
];

/// What a console says, by its last word on the matter: a guest that panicked and rebooted has both.
fn on_console(text: &str) -> Sign {
    let sign = |line: &str| {
        if line.contains(" login:") {
            return Some(Sign::Up);
        }
        let stuck = STUCK.iter().find(|(words, _)| line.contains(words));
        stuck.map(|(_, what)| Sign::Stuck(what))
    };
    match text.lines().rev().find_map(sign) {
        Some(sign) => sign,
        None if text.trim().is_empty() => Sign::Silent,
        None => Sign::OnItsWay,
    }
}

/// What a guest of ours tells; `None` when it does not run.
pub fn sign(
    hypervisor: &dyn Hypervisor,
    root: &Root,
    slice: &SliceName,
) -> Result<Option<Sign>, HostError> {
    let domains = hypervisor.domains()?;
    let runs = |name: &str| domains.iter().any(|d| d.name == name && d.running);
    if !runs(slice.as_str()) {
        return Ok(None);
    }
    let xml = hypervisor.xml(slice.as_str(), false)?;
    if !is_ours(&xml) {
        return Ok(None);
    }
    let unreadable = |message| HostError::Hypervisor {
        action: format!("describe the domain `{slice}`"),
        message,
    };
    Ok(Some(if agent_answers(&xml).map_err(unreadable)? {
        Sign::Up
    } else {
        on_console(&plain(root, slice))
    }))
}

/// Why a running guest is not taken to be up.
pub fn not_up(sign: Sign) -> Option<String> {
    match sign {
        Sign::Up => None,
        Sign::Stuck(what) => Some(what.into()),
        Sign::OnItsWay => Some("its agent does not answer, and its console shows no login".into()),
        Sign::Silent => Some("its agent does not answer, and its console shows nothing".into()),
    }
}

/// A guest that is waited for.
struct Waited<'p> {
    slice: &'p SlicePlan,
    stuck_since: Option<SystemTime>,
}

/// How it ended for one guest.
enum Ended {
    NotYet,
    Up,
    CannotTell,
    Not(String),
}

impl Waited<'_> {
    fn within(&self) -> Duration {
        Duration::from_secs(u64::from(self.slice.up_within_seconds))
    }

    fn look(&mut self, machine: &dyn Machine, begin: SystemTime) -> Result<Ended, HostError> {
        let sign = sign(&*machine.hypervisor()?, machine.root(), &self.slice.name)?;
        let now = machine.now();
        let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
        let over = since(begin) >= self.within();
        let seconds = self.slice.up_within_seconds;
        Ok(match sign {
            None => Ended::Not("ended before it was up".into()),
            Some(Sign::Up) => Ended::Up,
            Some(Sign::Stuck(what)) => {
                let stuck_since = *self.stuck_since.get_or_insert(now);
                if over || since(stuck_since) >= STUCK_FOR {
                    Ended::Not(format!("runs, but {what}"))
                } else {
                    Ended::NotYet
                }
            }
            Some(Sign::OnItsWay | Sign::Silent) if !over => {
                self.stuck_since = None;
                Ended::NotYet
            }
            Some(Sign::OnItsWay) => Ended::Not(format!(
                "runs, but its agent did not answer within {seconds} s, and its console shows no login"
            )),
            Some(Sign::Silent) => Ended::CannotTell,
        })
    }
}

fn told(machine: &dyn Machine, slice: &SlicePlan, why: String) -> NotUp {
    NotUp {
        slice: slice.name.clone(),
        why,
        console: last_lines(machine.root(), &slice.name),
    }
}

/// Waits for the guests that were started, side by side, each as long as its slice says; looks once
/// at the others that run, of which only what is stuck is told: they may be coming up by somebody
/// else's hand.
fn wait(
    machine: &dyn Machine,
    plan: &Plan,
    started: &[SliceName],
    events: &mut dyn FnMut(Event),
) -> Result<Vec<NotUp>, HostError> {
    let begin = machine.now();
    let mut found = Vec::new();
    let mut pending = Vec::new();
    for slice in plan.slices().iter().filter(|s| s.up_within_seconds > 0) {
        if started.contains(&slice.name) {
            pending.push(Waited {
                slice,
                stuck_since: None,
            });
        } else if let Some(Sign::Stuck(what)) =
            sign(&*machine.hypervisor()?, machine.root(), &slice.name)?
        {
            found.push(told(machine, slice, format!("runs, but {what}")));
        }
    }
    let mut record = None;
    if !pending.is_empty() {
        let guests = pending.iter().map(|g| (g.slice.name.clone(), g.within()));
        record = waiting::begin(machine, guests).unwrap_or_else(|error| {
            events(Event::Note(format!(
                "`bmslice status` cannot tell that guests are waited for: {error}"
            )));
            None
        });
    }
    let outcome = come_up(machine, pending, begin, found, events);
    // One that stays tells of a process that ends now, and is believed of none other.
    if let Some(Err(error)) = record.map(|path| waiting::end(machine, &path)) {
        events(Event::Note(error.to_string()));
    }
    outcome
}

/// Waits for each of these until it is up, is stuck, or has had its time; adds what is not up.
fn come_up(
    machine: &dyn Machine,
    mut pending: Vec<Waited<'_>>,
    begin: SystemTime,
    mut found: Vec<NotUp>,
    events: &mut dyn FnMut(Event),
) -> Result<Vec<NotUp>, HostError> {
    let mut said = false;
    loop {
        let mut still = Vec::new();
        for mut guest in pending {
            match guest.look(machine, begin)? {
                Ended::NotYet => still.push(guest),
                Ended::Up => {}
                Ended::CannotTell => events(Event::Note(format!(
                    "`{}` runs; whether it came up cannot be told: its agent did not answer within {} s, and it wrote nothing to its console",
                    guest.slice.name, guest.slice.up_within_seconds
                ))),
                Ended::Not(why) => found.push(told(machine, guest.slice, why)),
            }
        }
        pending = still;
        if pending.is_empty() {
            return Ok(found);
        }
        if !std::mem::replace(&mut said, true) {
            let names: Vec<String> = pending
                .iter()
                .map(|guest| {
                    let (name, within) = (&guest.slice.name, guest.slice.up_within_seconds);
                    format!("`{name}` (at most {within} s)")
                })
                .collect();
            events(Event::Note(format!(
                "waiting for {} to come up",
                names.join(" and ")
            )));
        }
        machine.sleep(LOOK_EVERY);
    }
}

/// What became of the guests, once every step holds. The journal is closed and the lock is free by
/// now: whoever interrupts the waiting interrupts nothing else.
pub fn seen(
    machine: &dyn Machine,
    outcome: Outcome,
    started: &[SliceName],
    events: &mut dyn FnMut(Event),
) -> Result<Outcome, ApplyError> {
    let changed = match &outcome {
        Outcome::Nothing => 0,
        Outcome::Done { changed } => *changed,
        Outcome::NotUp { .. }
        | Outcome::RebootNeeded { .. }
        | Outcome::Rebooting
        | Outcome::Planned { .. } => return Ok(outcome),
    };
    let Some(plan) = stored_plan(machine)? else {
        return Ok(outcome);
    };
    let guests = wait(machine, &plan, started, events)?;
    Ok(if guests.is_empty() {
        outcome
    } else {
        Outcome::NotUp { changed, guests }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_the_console_counts() {
        for (text, sign) in [
            ("", Sign::Silent),
            ("\n\n", Sign::Silent),
            ("[    1.2] Run /init as init process\n", Sign::OnItsWay),
            ("Debian GNU/Linux 12 red ttyS0\n\nred login: ", Sign::Up),
            (
                "red login: [   31.0] IPv6: ADDRCONF(NETDEV_CHANGE)\n",
                Sign::Up,
            ),
            (
                "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs\n[    2.1] CPU: 0\n",
                Sign::Stuck("its kernel panicked"),
            ),
            (
                "[    2.1] Kernel panic - not syncing: VFS\n[    0.0] Linux version 6.1\nred login: ",
                Sign::Up,
            ),
            (
                "red login: \n[ 99.0] Kernel panic - not syncing: Attempted to kill init!\n",
                Sign::Stuck("its kernel panicked"),
            ),
            (
                "You are in emergency mode. After logging in, type \"journalctl -xb\"\nPress Enter for maintenance\n",
                Sign::Stuck("it is in emergency mode"),
            ),
            (
                "ALERT!  UUID=1 does not exist.  Dropping to a shell!\n\n(initramfs) ",
                Sign::Stuck("it stopped in its initramfs"),
            ),
            (
                "error: no such device: 1.\ngrub rescue> ",
                Sign::Stuck("its boot loader found nothing to boot"),
            ),
            (
                "BdsDxe: No bootable option or device was found.\n",
                Sign::Stuck("its firmware found nothing to boot"),
            ),
        ] {
            assert_eq!(on_console(text), sign, "{text}");
        }
    }

    #[test]
    fn an_agent_answers_when_libvirt_says_that_its_port_is_open() {
        let now = include_str!("../tests/libvirt/running.now.xml");
        assert_eq!(agent_answers(now), Ok(true));
        let closed = now.replace("state='connected'", "state='disconnected'");
        assert_ne!(now, closed);
        assert_eq!(agent_answers(&closed), Ok(false));
        let kept = include_str!("../tests/libvirt/running.kept.xml");
        assert_eq!(agent_answers(kept), Ok(false), "what is kept has no state");
    }
}
