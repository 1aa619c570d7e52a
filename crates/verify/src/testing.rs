//! A plan of two slices on the seed's server, and facts that satisfy it, for tests to damage.

use std::collections::BTreeMap;
use std::time::Duration;

use bmslice_host::{DomainPins, DomainState};
use bmslice_inventory::{Interrupt, Inventory, KernelThread};
use bmslice_model::{ByteSize, CpuId, CpuSet, NumaNodeId, PciAddress, VlanId};
use bmslice_plan::{NicPlan, Plan, PlanParts, SlicePlan};

use crate::fabric::FabricTable;
use crate::observe::quiet::{Irqbalance, Quiet};
use crate::observe::{Guest, Observed, Process};
use crate::read::cmdline::RamBackend;
use crate::read::domain_xml::{DomainXml, Hostdev};
use crate::read::numa_maps::{Mapping, Policy};
use crate::read::task::Task;
use crate::read::vfinfo::VfState;
use crate::report::{Finding, Verdict};

pub(crate) const RED: &str = "Red_k8s_cluster_worker1";
pub(crate) const BLUE: &str = "Blue_k8s_cluster_worker1";

/// The switch as Open vSwitch shows it when both guests have sent a frame.
pub(crate) const FDB: &str = "\
 1(n0p0): addr:9e:0a:6a:24:f5:d6
 2(n1p0): addr:a2:6f:0f:5e:0b:a2
 port  VLAN  MAC                Age
    1   101  bc:30:5b:f2:87:52    3
    2   102  52:54:00:6d:90:02    1
";

pub(crate) fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

pub(crate) fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

pub(crate) fn parts() -> PlanParts {
    serde_json::from_str(include_str!("../tests/fixtures/plan.json")).unwrap()
}

/// Red: a whole NIC on node 0, 8 GiB in 1 GiB pages. Blue: a VF with MAC and VLAN, node 1.
pub(crate) fn plan() -> Plan {
    Plan::new(parts()).unwrap()
}

pub(crate) fn table() -> FabricTable {
    FabricTable::parse(FDB).unwrap()
}

pub(crate) fn task(tid: u32, comm: &str, allowed: &CpuSet) -> Task {
    Task {
        tid,
        comm: comm.into(),
        allowed: allowed.clone(),
        last_cpu: allowed.first(),
        kernel: false,
        kernel_worker: false,
        started: 100,
    }
}

fn threads(slice: &SlicePlan, pid: u32) -> Vec<Task> {
    let mut threads = vec![
        task(pid, "qemu-system-x86", &slice.emulator),
        task(pid + 1, "call_rcu", &slice.emulator),
    ];
    for (id, on) in (1..).zip(&slice.iothreads) {
        threads.push(task(pid + 1 + id, &format!("IO iothread{id}"), on));
    }
    for (number, cpu) in (0..).zip(&slice.vcpus) {
        let name = format!("CPU {number}/KVM");
        threads.push(task(pid + 10 + number, &name, &CpuSet::from(*cpu)));
    }
    threads.push(task(pid + 90, "worker", &slice.emulator));
    threads
}

pub(crate) fn ram(node: NumaNodeId, size: ByteSize, page: ByteSize) -> Mapping {
    Mapping {
        start: 0x7f00_0000_0000,
        length: Some(size),
        policy: Policy::Bind([node].into()),
        file: Some("/memfd:memory-backend-memfd\\040(deleted)".into()),
        huge: true,
        page,
        touched: [(node, size)].into(),
    }
}

fn process(slice: &SlicePlan, pid: u32, group: u32) -> Process {
    let cell = &slice.cells[0];
    let page = slice.huge_pages.unwrap_or(ByteSize::from_kib(4));
    Process {
        pid,
        uuid: Some(slice.uuid.clone()),
        age: Some(Duration::from_secs(600)),
        threads: threads(slice, pid),
        backends: vec![RamBackend {
            cell: 0,
            size: cell.memory,
            bound: Some(vec![cell.node]),
        }],
        memory: Ok(vec![ram(cell.node, cell.memory, page)]),
        vfio: Ok(vec![format!("/dev/vfio/{group}"), "/dev/vfio/vfio".into()]),
    }
}

fn xml(slice: &SlicePlan) -> DomainXml {
    DomainXml {
        kind: "kvm".into(),
        vcpus: (0..)
            .zip(slice.vcpus.iter().copied().map(CpuSet::from))
            .collect(),
        emulator: Some(slice.emulator.clone()),
        iothreads: (1..).zip(slice.iothreads.iter().cloned()).collect(),
        hostdevs: slice
            .nics
            .iter()
            .map(|nic| match nic {
                NicPlan::Vf {
                    address, vlan, nic, ..
                } => Hostdev {
                    address: *address,
                    mac: nic.mac,
                    vlan: *vlan,
                },
                other => Hostdev {
                    address: other.functions()[0],
                    mac: None,
                    vlan: None,
                },
            })
            .collect(),
    }
}

pub(crate) fn pins(slice: &SlicePlan) -> DomainPins {
    DomainPins {
        vcpus: slice.vcpus.iter().copied().map(CpuSet::from).collect(),
        emulator: slice.emulator.clone(),
        iothreads: (1..).zip(slice.iothreads.iter().cloned()).collect(),
    }
}

pub(crate) fn state(slice: &SlicePlan) -> DomainState {
    DomainState {
        name: slice.name.to_string(),
        uuid: slice.uuid.clone(),
        running: true,
        persistent: true,
        autostart: false,
    }
}

fn inventory() -> Inventory {
    serde_json::from_str(include_str!("../tests/fixtures/inventory.json")).unwrap()
}

/// Facts that satisfy [`plan`] wholly.
/// Everything of the kernel's on the host's CPUs, as boot arguments have it.
pub(crate) fn quiet() -> Quiet {
    let host = cpus("0-1,12-13");
    Quiet {
        partition: None,
        partition_cpus: CpuSet::new(),
        confined: vec![("system.slice".into(), None)],
        interrupts: Ok(vec![Interrupt {
            number: 24,
            affinity: host.clone(),
            effective: None,
            is_a_guests: false,
        }]),
        fixed: [].into(),
        new_interrupts: Some(host.clone()),
        workers: Some(host.clone()),
        threads: Ok(vec![KernelThread {
            pid: 60,
            name: "kauditd".into(),
            allowed: host.clone(),
            last_cpu: host.first(),
            bound: false,
        }]),
        irqbalance: Irqbalance::Told(Some("2-11,14-23".into())),
    }
}

pub(crate) fn observed() -> Observed {
    let plan = plan();
    let guests = (0u32..)
        .zip(plan.slices())
        .map(|(index, slice)| Guest {
            slice: slice.name.clone(),
            live: Ok(xml(slice)),
            next: Ok(xml(slice)),
            process: Ok(process(slice, 4700 + 1000 * index, 25 + index)),
            vfs: slice
                .nics
                .iter()
                .filter_map(|nic| match nic {
                    NicPlan::Vf {
                        index,
                        address,
                        vlan,
                        rules,
                        nic,
                        ..
                    } => Some((
                        *address,
                        Ok(VfState {
                            index: *index,
                            mac: nic.mac,
                            vlan: *vlan,
                            trust: Some(rules.trust),
                            spoof_check: Some(rules.spoof_check),
                            max_rate: rules.max_rate,
                            link: Some(rules.link),
                        }),
                    )),
                    _ => None,
                })
                .collect(),
        })
        .collect();
    Observed {
        inventory: inventory(),
        partitioned: CpuSet::new(),
        quiet: quiet(),
        domains: Ok(plan.slices().iter().map(state).collect()),
        pins: plan
            .slices()
            .iter()
            .map(|slice| (slice.name.to_string(), Ok(pins(slice))))
            .collect::<BTreeMap<_, _>>(),
        strangers: Ok(Vec::new()),
        guests,
    }
}

/// The findings that keep the plan from holding, as `(slice, check, verdict)`.
pub(crate) fn open(plan: &Plan, observed: &Observed, fabric: &str) -> Vec<Finding> {
    let table = FabricTable::parse(fabric).unwrap();
    crate::compare(plan, observed, Some(&table))
        .open()
        .cloned()
        .collect()
}

/// The one finding that keeps it from holding, as `check: verdict`.
pub(crate) fn only(findings: &[Finding]) -> (&'static str, Verdict) {
    match findings {
        [one] => (one.check, one.verdict.clone()),
        many => panic!("one finding was expected: {many:#?}"),
    }
}

pub(crate) fn differs(what: &str, want: &str, got: &str) -> Verdict {
    Verdict::differs(what, want, got)
}

pub(crate) fn vlan(number: u64) -> VlanId {
    VlanId::new(number).unwrap()
}

pub(crate) fn cpu(number: u8) -> CpuId {
    CpuId::from(number)
}
