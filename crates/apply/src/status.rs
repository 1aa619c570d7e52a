//! What is sliced here.

use bmslice_host::{Hypervisor, Machine, Root};
use bmslice_model::SliceName;
use bmslice_plan::Plan;

use crate::apply::stored_plan;
use crate::console::last_lines;
use crate::domain_xml::{Meaning, is_ours};
use crate::error::ApplyError;
use crate::journal::{self, Run};
use crate::sequence::reboot_step;
use crate::site::Look;
use crate::steps::trial::{FellBack, unconfirmed};
use crate::{up, waiting};

/// What is sliced here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The plan in force.
    pub plan: Option<Plan>,
    /// A run that did not end: it was interrupted, or waits for a reboot.
    pub open: Option<Run>,
    /// What the running kernel lacks of the plan, unless the server went back from it.
    pub reboot: Option<String>,
    /// The server tried new kernel arguments and went back: which, and why as far as known.
    pub fell_back: Option<String>,
    /// This boot tries new kernel arguments: minutes after its start in which they have to be
    /// confirmed.
    pub on_trial: Option<u32>,
    /// The plan's slices, in its order.
    pub slices: Vec<SliceStatus>,
    /// Why libvirt could not be asked; the guests' states are then unknown.
    pub libvirt_error: Option<String>,
}

/// One slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceStatus {
    /// Its name.
    pub name: SliceName,
    /// How its guest is.
    pub state: GuestState,
    /// What its next start changes.
    pub at_next_start: Vec<String>,
    /// It runs, and is not seen to be up: why. `None` also where nobody is to wait for it.
    pub not_up: Option<String>,
    /// It is not up yet: `apply` or its unit waits for it, this many seconds more at most. `None`
    /// also where nobody is known to wait.
    pub waited_for: Option<u64>,
    /// The last lines of its console, when it is off or not up.
    pub console: Vec<String>,
}

/// How a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestState {
    /// It runs.
    Running,
    /// It is defined, and off.
    Off,
    /// There is no domain of its name.
    Undefined,
    /// There is one, and it is not ours.
    Foreign,
    /// libvirt did not answer.
    Unknown,
}

/// What is sliced here. Changes nothing, and needs no lock.
///
/// # Errors
/// When journal or stored plan cannot be read.
pub fn status(machine: &dyn Machine) -> Result<Status, ApplyError> {
    let ledger = journal::peek(machine)?;
    let plan = stored_plan(machine)?;
    let running = std::collections::BTreeSet::new();
    let look = Look {
        machine,
        ledger: &ledger,
        running: &running,
    };
    let fell_back = FellBack::seen(&look)?.map(|fell_back| fell_back.describe());
    let on_trial = unconfirmed(&look).map(|step| step.minutes);
    let reboot = plan
        .as_ref()
        .filter(|_| fell_back.is_none())
        .and_then(reboot_step)
        .map(|reboot| reboot.lacking(&look))
        .filter(|lacking| !lacking.is_empty())
        .map(|lacking| lacking.join("; "));
    let planned = plan.iter().flat_map(Plan::slices);
    let planned = planned.map(|slice| (slice.name.clone(), slice.up_within_seconds > 0));
    let connection = machine.hypervisor();
    let mut libvirt_error = connection.as_ref().err().map(ToString::to_string);
    let mut slices = Vec::new();
    for (name, comes_up) in planned {
        let unknown = SliceStatus {
            name: name.clone(),
            state: GuestState::Unknown,
            at_next_start: Vec::new(),
            not_up: None,
            waited_for: None,
            console: Vec::new(),
        };
        slices.push(match &connection {
            Ok(hypervisor) => {
                slice(&**hypervisor, machine.root(), name, comes_up).unwrap_or_else(|error| {
                    libvirt_error.get_or_insert(error.to_string());
                    unknown
                })
            }
            Err(_) => unknown,
        });
    }
    let waited = waiting::now(machine);
    for slice in slices.iter_mut().filter(|slice| slice.not_up.is_some()) {
        slice.waited_for = waited.get(&slice.name).copied();
    }
    Ok(Status {
        open: ledger.open().cloned(),
        plan,
        reboot,
        fell_back,
        on_trial,
        slices,
        libvirt_error,
    })
}

fn slice(
    hypervisor: &dyn Hypervisor,
    root: &Root,
    name: SliceName,
    comes_up: bool,
) -> Result<SliceStatus, bmslice_host::HostError> {
    let domains = hypervisor.domains()?;
    let found = domains.iter().find(|domain| domain.name == name.as_str());
    let Some(domain) = found else {
        return Ok(SliceStatus {
            name,
            state: GuestState::Undefined,
            at_next_start: Vec::new(),
            not_up: None,
            waited_for: None,
            console: Vec::new(),
        });
    };
    let kept = hypervisor.xml(&domain.name, domain.persistent)?;
    let mut at_next_start = Vec::new();
    if domain.running
        && domain.persistent
        && let Ok(next) = Meaning::read(&kept)
        && let Ok(now) = Meaning::read(&hypervisor.xml(&domain.name, false)?)
    {
        at_next_start = now.differences(&next);
    }
    let state = match (is_ours(&kept), domain.running) {
        (false, _) => GuestState::Foreign,
        (true, true) => GuestState::Running,
        (true, false) => GuestState::Off,
    };
    let not_up = match state {
        GuestState::Running if comes_up => up::sign(hypervisor, root, &name)?.and_then(up::not_up),
        _ => None,
    };
    let console = if state == GuestState::Off || not_up.is_some() {
        last_lines(root, &name)
    } else {
        Vec::new()
    };
    Ok(SliceStatus {
        name,
        state,
        at_next_start,
        not_up,
        waited_for: None,
        console,
    })
}
