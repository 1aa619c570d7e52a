//! Collects the facts that a plan is compared with, and judges none of them.
//!
//! Takes a machine, its inventory and the plan (to know what to look at); gives [`Observed`].
//! Each fact is there, or the reason why it is not. Processes are found by looking through `/proc`
//! and not by asking libvirt, so that libvirt's word and the kernel's can be held against each
//! other. Reads, and runs `ip link show`; changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bmslice_host::{Command, DomainPins, DomainState, HostError, Hypervisor, Machine, Root};
use bmslice_inventory::{Inventory, LiveInventory};
use bmslice_model::{CpuSet, PciAddress, SliceName};
use bmslice_plan::{NicPlan, Plan, SlicePlan};

use crate::read::cmdline::{Arguments, RamBackend};
use crate::read::domain_xml::DomainXml;
use crate::read::numa_maps::{self, Mapping};
use crate::read::task::Task;
use crate::read::vfinfo::{self, VfState};
use crate::report::{NotSeen, Seen};

pub mod quiet;
#[cfg(test)]
mod tests;

use quiet::Quiet;

/// Clock ticks in a second as `/proc` counts them (`USER_HZ`), the same on every architecture that
/// KVM runs on.
const TICKS: u64 = 100;

/// What is.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The server.
    pub inventory: Inventory,
    /// `cpuset.cpus.isolated` of the root cgroup: what isolated partitions hold (Linux 6.7).
    pub partitioned: CpuSet,
    /// What of the kernel and of other units may run where.
    pub quiet: Quiet,
    /// Every domain that libvirt knows.
    pub domains: Seen<Vec<DomainState>>,
    /// The pins of every running domain, by name.
    pub pins: BTreeMap<String, Seen<DomainPins>>,
    /// Tasks that last ran on a CPU of a slice and are not its guest's: those of user space, and the
    /// kernel's threads for another guest (`kvm-pit/PID`, `vhost-PID`).
    pub strangers: Seen<Vec<Stranger>>,
    /// One for each slice, in the plan's order.
    pub guests: Vec<Guest>,
}

/// A task on a CPU that is not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its process.
    pub pid: u32,
    /// The task.
    pub task: Task,
}

/// What is seen of one slice.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Which.
    pub slice: SliceName,
    /// What runs, by libvirt's XML.
    pub live: Seen<DomainXml>,
    /// What the next start takes, by libvirt's XML.
    pub next: Seen<DomainXml>,
    /// Its QEMU process.
    pub process: Seen<Process>,
    /// The settings of its virtual functions, by their address.
    pub vfs: BTreeMap<PciAddress, Seen<VfState>>,
}

/// A QEMU process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The guest's UUID by its arguments.
    pub uuid: Option<String>,
    /// How long it has been running.
    pub age: Option<Duration>,
    /// Its threads, by id.
    pub threads: Vec<Task>,
    /// The memory objects of its guest's cells, by its arguments.
    pub backends: Vec<RamBackend>,
    /// Its memory.
    pub memory: Seen<Vec<Mapping>>,
    /// The device nodes below `/dev/vfio` (and `/dev/iommu`) that it holds open.
    pub vfio: Seen<Vec<String>>,
}

fn unreadable(error: impl std::fmt::Display) -> NotSeen {
    NotSeen::Unreadable(error.to_string())
}

/// Looks at everything that the checks compare.
#[must_use]
pub fn observe(machine: &dyn Machine, inventory: &LiveInventory, plan: &Plan) -> Observed {
    let root = machine.root();
    let processes = qemu_processes(root);
    let hypervisor = machine.hypervisor().map_err(unreadable);
    let hypervisor: Seen<&dyn Hypervisor> = match &hypervisor {
        Ok(hypervisor) => Ok(&**hypervisor),
        Err(reason) => Err(reason.clone()),
    };
    let domains = hypervisor
        .clone()
        .and_then(|hypervisor| hypervisor.domains().map_err(unreadable));
    let pins = match (&hypervisor, &domains) {
        (Ok(hypervisor), Ok(domains)) => domains
            .iter()
            .filter(|domain| domain.running)
            .map(|domain| {
                let pins = hypervisor.pins(&domain.name).map_err(unreadable);
                (domain.name.clone(), pins)
            })
            .collect(),
        _ => BTreeMap::new(),
    };
    let guests: Vec<Guest> = plan
        .slices()
        .iter()
        .map(|slice| guest(machine, inventory, slice, &hypervisor, &domains, &processes))
        .collect();
    let strangers = strangers(root, plan, &guests);
    let quiet = quiet::observe(root);
    Observed {
        inventory: Inventory::clone(inventory),
        partitioned: root
            .attribute("/sys/fs/cgroup/cpuset.cpus.isolated")
            .and_then(|list| list.parse().ok())
            // Kernels before 6.7 tell it only of each group.
            .or_else(|| {
                let valid = quiet.partition.as_deref() == Some("isolated");
                valid.then(|| quiet.partition_cpus.clone())
            })
            .unwrap_or_default(),
        quiet,
        domains,
        pins,
        strangers,
        guests,
    }
}

fn guest(
    machine: &dyn Machine,
    inventory: &Inventory,
    slice: &SlicePlan,
    hypervisor: &Seen<&dyn Hypervisor>,
    domains: &Seen<Vec<DomainState>>,
    processes: &Seen<BTreeMap<String, Vec<Found>>>,
) -> Guest {
    let name = slice.name.as_str();
    let xml = |inactive: bool| -> Seen<DomainXml> {
        let state = domains
            .as_ref()
            .map_err(Clone::clone)?
            .iter()
            .find(|domain| domain.name == name);
        let Some(state) = state else {
            return Err(NotSeen::NotYet(format!("the domain `{name}` is defined")));
        };
        if !inactive && !state.running {
            return Err(not_started(name));
        }
        let xml = hypervisor
            .clone()?
            .xml(name, inactive)
            .map_err(unreadable)?;
        DomainXml::parse(&xml).map_err(unreadable)
    };
    let process = match processes {
        Err(reason) => Err(reason.clone()),
        Ok(found) => match found.get(name).map(Vec::as_slice) {
            None | Some([]) => Err(not_started(name)),
            Some([found]) => process(machine.root(), found),
            Some([first, second, ..]) => Err(NotSeen::Unreadable(format!(
                "two QEMU processes ({} and {}) run a guest named `{name}`",
                first.pid, second.pid
            ))),
        },
    };
    Guest {
        slice: slice.name.clone(),
        live: xml(false),
        next: xml(true),
        process,
        vfs: vf_states(machine, inventory, slice),
    }
}

fn not_started(name: &str) -> NotSeen {
    NotSeen::NotYet(format!("the domain `{name}` is started"))
}

/// A QEMU process that was found, and its arguments.
struct Found {
    pid: u32,
    arguments: Arguments,
}

/// The ids of all processes.
fn pids(root: &Root) -> Seen<Vec<u32>> {
    let names = root
        .list("/proc")
        .map_err(|error| NotSeen::Unreadable(format!("cannot read `/proc`: {error}")))?;
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Every QEMU process by its guest's name. A process that ends meanwhile is left out.
fn qemu_processes(root: &Root) -> Seen<BTreeMap<String, Vec<Found>>> {
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for pid in pids(root)? {
        let Ok(bytes) = root.read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let arguments = Arguments::parse(&bytes);
        if !arguments.is_qemu() {
            continue;
        }
        if let Some(name) = arguments.guest().map(ToOwned::to_owned) {
            found
                .entry(name)
                .or_default()
                .push(Found { pid, arguments });
        }
    }
    Ok(found)
}

fn task(root: &Root, folder: &Path) -> Option<Task> {
    let stat = root.read_text(folder.join("stat")).ok()?;
    let status = root.read_text(folder.join("status")).ok()?;
    Task::parse(&stat, &status)
}

fn process(root: &Root, found: &Found) -> Seen<Process> {
    let pid = found.pid;
    let folder = format!("/proc/{pid}");
    let cannot = |what: &str, error: std::io::Error| {
        NotSeen::Unreadable(format!("cannot read `{folder}/{what}`: {error}"))
    };
    let names = root
        .list(format!("{folder}/task"))
        .map_err(|error| cannot("task", error))?;
    let mut threads: Vec<Task> = names
        .iter()
        .filter_map(|tid| task(root, &Path::new(&folder).join("task").join(tid)))
        .collect();
    threads.sort_by_key(|thread| thread.tid);
    let Some(main) = threads.iter().find(|thread| thread.tid == pid) else {
        return Err(NotSeen::Unreadable(format!(
            "the QEMU process {pid} ended while it was looked at"
        )));
    };
    let age = root
        .attribute("/proc/uptime")
        .and_then(|text| text.split('.').next()?.parse::<u64>().ok())
        .map(|uptime| Duration::from_secs(uptime.saturating_sub(main.started / TICKS)));
    let memory = match (
        root.read_text(format!("{folder}/numa_maps")),
        root.read_text(format!("{folder}/maps")),
    ) {
        (Ok(numa_maps), Ok(maps)) => Ok(numa_maps::parse(&numa_maps, &maps)),
        (Err(error), _) => Err(cannot("numa_maps", error)),
        (_, Err(error)) => Err(cannot("maps", error)),
    };
    Ok(Process {
        pid,
        uuid: found.arguments.uuid().map(ToOwned::to_owned),
        age,
        backends: found.arguments.ram_backends(),
        memory,
        vfio: open_vfio(root, &folder).map_err(|error| cannot("fd", error)),
        threads,
    })
}

fn open_vfio(root: &Root, folder: &str) -> std::io::Result<Vec<String>> {
    let mut open: Vec<String> = root
        .list(format!("{folder}/fd"))?
        .iter()
        // A descriptor that was closed meanwhile holds nothing open.
        .filter_map(|fd| root.link(format!("{folder}/fd/{fd}")).ok())
        .filter_map(|target| target.to_str().map(ToOwned::to_owned))
        .filter(|target| target.starts_with("/dev/vfio/") || target == "/dev/iommu")
        .collect();
    open.sort();
    open.dedup();
    Ok(open)
}

/// Asks each physical function once.
fn vf_states(
    machine: &dyn Machine,
    inventory: &Inventory,
    slice: &SlicePlan,
) -> BTreeMap<PciAddress, Seen<VfState>> {
    let mut asked: BTreeMap<PciAddress, Seen<Vec<VfState>>> = BTreeMap::new();
    let mut states = BTreeMap::new();
    for nic in &slice.nics {
        let NicPlan::Vf {
            pf, index, address, ..
        } = nic
        else {
            continue;
        };
        let all = asked
            .entry(pf.address)
            .or_insert_with(|| ask_pf(machine, inventory, pf.address));
        let state = all.clone().and_then(|all| {
            all.into_iter()
                .find(|state| state.index == *index)
                .ok_or_else(|| NotSeen::NotYet(format!("VF {index} of {} is created", pf.address)))
        });
        states.insert(*address, state);
    }
    states
}

fn ask_pf(machine: &dyn Machine, inventory: &Inventory, pf: PciAddress) -> Seen<Vec<VfState>> {
    let interface = inventory
        .interfaces
        .iter()
        .find(|interface| interface.pci == Some(pf))
        .ok_or_else(|| {
            NotSeen::Unreadable(format!(
                "{pf} has no network interface in the host, so its VFs' settings cannot be asked for"
            ))
        })?;
    let command = Command::new("ip", ["-j", "link", "show", "dev", &interface.name]);
    let output = machine
        .run(&command)
        .map_err(|error: HostError| unreadable(error))?;
    vfinfo::parse(&output.stdout)
        .map_err(|error| NotSeen::Unreadable(format!("`{command}` gave no JSON: {error}")))
}

/// Tasks of user space on the CPUs of slices, and kernel threads that work for a guest on the CPUs
/// of another slice. What a task is *allowed* proves nothing: the kernel widens the masks of all
/// tasks when a cgroup enables cpusets, and isolated CPUs still see none of them. Where it last ran
/// does.
fn strangers(root: &Root, plan: &Plan, guests: &[Guest]) -> Seen<Vec<Stranger>> {
    let owned = plan
        .slices()
        .iter()
        .fold(CpuSet::new(), |all, slice| all.union(&slice.held()));
    let on_a_slice =
        // One that was moved off shows the CPU of before until it runs again.
        |task: &Task, cpus: &CpuSet| {
            task.last_cpu
                .is_some_and(|cpu| cpus.contains(cpu) && task.allowed.contains(cpu))
        };
    let ours: BTreeMap<u32, CpuSet> = guests
        .iter()
        .zip(plan.slices())
        .filter_map(|(guest, slice)| {
            let pid = guest.process.as_ref().ok()?.pid;
            Some((pid, slice.held()))
        })
        .collect();
    let mut strangers = Vec::new();
    for pid in pids(root)? {
        let folder = format!("/proc/{pid}");
        if ours.contains_key(&pid) {
            continue;
        }
        let Some(main) = task(root, Path::new(&folder)) else {
            continue;
        };
        if main.kernel {
            let guest = main.works_for();
            let own = guest.and_then(|guest| ours.get(&guest));
            let others = own.map(|own| owned.difference(own)).unwrap_or_default();
            if on_a_slice(&main, &others) {
                strangers.push(Stranger { pid, task: main });
            }
            continue;
        }
        for tid in root.list(format!("{folder}/task")).unwrap_or_default() {
            let path = Path::new(&folder).join("task").join(&tid);
            if let Some(task) = task(root, &path)
                && !task.kernel
                && on_a_slice(&task, &owned)
            {
                strangers.push(Stranger { pid, task });
            }
        }
    }
    Ok(strangers)
}
