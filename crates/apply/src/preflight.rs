//! Everything that can be refused before the first effect, all at once.
//!
//! The plan is not believed: what must never happen (the management NIC or the root disk given
//! away, a device that is another one by now) is looked at again on the server itself.

use std::collections::{BTreeMap, BTreeSet};

use bmslice_host::{HostError, Machine};
use bmslice_inventory::{Inventory, LiveInventory};
use bmslice_model::ByteSize;
use bmslice_plan::{Fingerprint, NicPlan, Plan};
use bmslice_spec::Isolation;

use crate::apply::Phase;
use crate::error::Problem;
use crate::journal::Ledger;
use crate::paths::PLAN;
use crate::site::Look;
use crate::step::{Observation, Step};

mod devices;
mod loader;

/// What stands in the way of these steps; empty when nothing does.
///
/// # Errors
/// When something could not be looked at.
pub fn preflight(
    look: &Look<'_>,
    inventory: &LiveInventory,
    plan: &Plan,
    steps: &[Step],
    phase: Phase,
) -> Result<Vec<Problem>, HostError> {
    let mut problems = Vec::new();
    if !look.machine.is_root() {
        problems.push(
            Problem::server_lacks("this process is not root, and may not change the server")
                .hint("run it with `sudo`"),
        );
    }
    let moved = plan
        .parts()
        .server
        .fingerprint
        .moved(&Fingerprint::of(inventory));
    if !moved.is_empty() {
        problems.push(
            Problem::new(format!(
                "the server is not as it was when the plan was made: {}",
                moved.join("; ")
            ))
            .hint("plan again on this server"),
        );
    }
    problems.extend(devices::unfit(inventory, plan));
    problems.extend(isolation(plan));
    problems.extend(loader::refused(look, inventory, steps));
    if phase == Phase::All {
        problems.extend(space(look, steps)?);
        // Whatever asks libvirt comes last, and not at all when it does not answer.
        match hypervisor(look.machine, inventory, plan) {
            Ok(found) => problems.extend(found),
            Err(problem) => {
                problems.push(problem);
                problems.extend(preconditions(
                    look,
                    steps.iter().filter(|s| !asks_libvirt(s)),
                )?);
                return Ok(problems);
            }
        }
    }
    problems.extend(preconditions(look, steps.iter())?);
    Ok(problems)
}

/// What keeps a plan from taking the place of the one that is in force.
pub fn succession(look: &Look<'_>, plan: &Plan, steps: &[Step]) -> Vec<Problem> {
    let mut problems = forgotten(look.ledger, plan);
    problems.extend(followed(look.machine, plan));
    problems.extend(inhabited(look, steps));
    problems
}

fn preconditions<'s>(
    look: &Look<'_>,
    steps: impl Iterator<Item = &'s Step>,
) -> Result<Vec<Problem>, HostError> {
    let mut problems: Vec<Problem> = Vec::new();
    for step in steps {
        // Observing may need a program that the precondition is there to miss.
        let found = step.precondition(look)?;
        if !found.is_empty()
            && step
                .observe(look)
                .is_ok_and(|seen| seen == Observation::Held)
        {
            continue;
        }
        for problem in found {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    Ok(problems)
}

fn asks_libvirt(step: &Step) -> bool {
    matches!(
        step,
        Step::DefineDomain(_) | Step::SetAutostart(_) | Step::StartDomain(_)
    )
}

/// All threads of a guest in a partition are in it.
fn isolation(plan: &Plan) -> Vec<Problem> {
    if plan.host().isolation != Isolation::Dynamic {
        return Vec::new();
    }
    let on_the_hosts = plan.slices().iter().filter(|slice| slice.pool_is_host);
    on_the_hosts
        .map(|slice| {
            Problem::new(format!(
                "the emulator of `{}` is to run on the host's CPUs, and a guest in a partition has only the partition's",
                slice.name
            ))
            .hint("give it `emulator: { cores: 1 }`, or write `isolation: boot` in the spec")
        })
        .collect()
}

/// Slices that are in force here and not in the plan.
fn forgotten(ledger: &Ledger, plan: &Plan) -> Vec<Problem> {
    let names: BTreeSet<&str> = ledger
        .entries()
        .filter(|entry| entry.touched)
        .filter_map(|entry| entry.step.slice())
        .map(|name| name.as_str())
        .filter(|name| plan.slice(name).is_none())
        .collect();
    names
        .into_iter()
        .map(|name| {
            Problem::new(format!(
                "the slice `{name}` is on this server, and the plan does not have it"
            ))
            .hint(format!(
                "`bmslice release {name}` first: a guest is never ended as a side effect"
            ))
        })
        .collect()
}

/// Guests in a partition that is in force here and not in the plan.
fn inhabited(look: &Look<'_>, steps: &[Step]) -> Option<Problem> {
    let is_partition = |step: &Step| matches!(step, Step::IsolatePartition(_));
    if steps.iter().any(is_partition) {
        return None;
    }
    look.ledger.entries().find_map(|entry| match &entry.step {
        Step::IsolatePartition(partition) if entry.touched => partition.inhabited(look),
        _ => None,
    })
}

/// A plan that was made to follow another one than what is in force.
fn followed(machine: &dyn Machine, plan: &Plan) -> Option<Problem> {
    let follows = plan.parts().follows.as_ref()?;
    let text = machine.root().read_text(PLAN).ok()?;
    let stored = Plan::parse(&text).ok()?.digest();
    if stored == *follows || stored == plan.digest() {
        return None;
    }
    Some(
        Problem::new(format!(
            "the plan follows the plan {follows}, and {stored} is in force on this server"
        ))
        .hint("plan again on this server"),
    )
}

/// Disks that do not fit, by the folder that they go to.
fn space(look: &Look<'_>, steps: &[Step]) -> Result<Vec<Problem>, HostError> {
    let mut needs: BTreeMap<String, (u64, Vec<&str>)> = BTreeMap::new();
    for step in steps {
        let Step::BuildDisk(disk) = step else {
            continue;
        };
        if disk.observe(look) == Observation::Held {
            continue;
        }
        let Some(bytes) = disk.space(look) else {
            continue;
        };
        let need = needs.entry(disk.folder()).or_default();
        need.0 = need.0.saturating_add(bytes);
        need.1.push(disk.slice.as_str());
    }
    let mut problems = Vec::new();
    for (folder, (bytes, slices)) in needs {
        let free = look.machine.free_space(folder.as_ref())?;
        if free.bytes() < bytes {
            problems.push(
                Problem::server_lacks(format!(
                    "the disks of {} need {} in `{folder}`, and {} are free",
                    slices.join(", "),
                    human(bytes),
                    human(free.bytes())
                ))
                .hint("free some space, write `images:` of another file system in the spec, or use `from: overlay`"),
            );
        }
    }
    Ok(problems)
}

/// `1.5 GiB`.
fn human(bytes: u64) -> String {
    let size = ByteSize::from_bytes(bytes);
    if size.mib() < 1024 {
        return format!("{} MiB", size.mib().max(1));
    }
    let tenths = size.mib() * 10 / 1024;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// libvirt that does not answer (the `Err`), that has no KVM, or whose guests are where ours go.
fn hypervisor(
    machine: &dyn Machine,
    inventory: &Inventory,
    plan: &Plan,
) -> Result<Vec<Problem>, Problem> {
    if plan.slices().is_empty() {
        return Ok(Vec::new());
    }
    if let Err(error) = machine
        .hypervisor()
        .and_then(|hypervisor| hypervisor.domains())
    {
        return Err(Problem::server_lacks(error.to_string()).hint(
            "start it with `systemctl start libvirtd` (`apt install libvirt-daemon-system` when it is not there)",
        ));
    }
    let mut problems = Vec::new();
    let Some(libvirt) = &inventory.hypervisor.libvirt else {
        return Ok(problems);
    };
    if !libvirt.kvm {
        problems.push(
            Problem::server_lacks("libvirt offers no guests of type `kvm` on this server").hint(
                "turn on VT-x or AMD-V in the firmware's setup; if `/dev/kvm` is there, remove `/var/cache/libvirt/qemu/capabilities/*` and `systemctl restart libvirtd`",
            ),
        );
    }
    for domain in libvirt.domains.iter().filter(|domain| domain.running) {
        for slice in plan.slices() {
            if domain.uuid == slice.uuid {
                continue;
            }
            // A slice takes what a changed plan gives it when it starts anew; until then it holds
            // what it has, and the kernel lets two guests share a CPU without a word.
            let ours = plan.slices().iter().any(|other| other.uuid == domain.uuid);
            // The pool of a tenant is for its slices that share it.
            let planned = plan.slices().iter();
            let shares = planned
                .filter(|other| other.uuid == domain.uuid)
                .any(|other| other.shares_pool_with(slice));
            let alone = if shares { slice.owned() } else { slice.held() };
            let cpus = domain.cpus.intersection(&alone);
            if !cpus.is_empty() {
                problems.push(
                    Problem::new(format!(
                        "the guest `{}` runs on CPUs {cpus}, which are to be `{}`'s alone",
                        domain.name, slice.name
                    ))
                    .hint(if ours {
                        anew(&domain.name)
                    } else {
                        format!(
                            "pin `{}` to the host's CPUs ({}), or shut it down",
                            domain.name,
                            plan.host().cpus
                        )
                    }),
                );
            }
            let functions: Vec<String> = slice
                .nics
                .iter()
                .flat_map(NicPlan::functions)
                .filter(|function| domain.devices.contains(function))
                .map(|function| function.to_string())
                .collect();
            if !functions.is_empty() {
                problems.push(
                    Problem::new(format!(
                        "the guest `{}` has {}, which `{}` is to get",
                        domain.name,
                        functions.join(", "),
                        slice.name
                    ))
                    .hint(if ours {
                        anew(&domain.name)
                    } else {
                        format!("shut `{}` down first", domain.name)
                    }),
                );
            }
        }
    }
    Ok(problems)
}

/// What lets a slice of ours let go of what it has.
fn anew(name: &str) -> String {
    format!(
        "shut `{name}` down first (`virsh shutdown {name}`): `apply` starts it on what the plan gives it"
    )
}
