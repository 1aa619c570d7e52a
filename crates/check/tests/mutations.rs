//! A right plan passes; whatever is made wrong in it is caught, and by the rule that is about it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

mod server;

use std::collections::BTreeSet;

use bmslice_check::{INVARIANTS, Violation, check, check_alone, check_following};
use bmslice_inventory::Inventory;
use bmslice_model::{ByteSize, CpuSet, NumaNodeId, VlanId};
use bmslice_plan::{DeviceRef, HugePagePlan, NicPlan, Plan, PlanFileError, PlanParts, SplitPlan};
use bmslice_spec::{ImageFrom, Isolation, NicChoice, NicKind, Numa, Setup, SliceSpec, Slicing};
use server::{cpu, cpus, device, mac, pci, stranger};

/// What is made wrong.
enum Wrong {
    Plan(fn(&mut PlanParts)),
    Server(fn(&mut Inventory)),
    Asked(fn(&mut Vec<SliceSpec>)),
}
use Wrong::{Asked, Plan as InPlan, Server as OnServer};

const RED: usize = 0;
const BLUE: usize = 1;
const GREEN: usize = 2;
const WIDE: usize = 3;

fn card(parts: &mut PlanParts, slice: usize, nic: usize) -> &mut NicPlan {
    &mut parts.slices[slice].nics[nic]
}

fn whole(nic: &mut NicPlan) -> (&mut DeviceRef, &mut Vec<bmslice_model::PciAddress>) {
    match nic {
        NicPlan::Passthrough { device, group, .. } => (device, group),
        _ => panic!("a whole function"),
    }
}

fn args(parts: &mut PlanParts, from: &str, to: &str) {
    for arg in &mut parts.host.kernel_args {
        let text = arg.as_str().replace(from, to);
        *arg = text.parse().unwrap();
    }
}

fn common(nic: &mut NicPlan) -> &mut bmslice_plan::NicCommon {
    match nic {
        NicPlan::Passthrough { nic, .. }
        | NicPlan::Vf { nic, .. }
        | NicPlan::Virtio { nic, .. } => nic,
    }
}

fn function<'a>(
    inventory: &'a mut Inventory,
    address: &str,
) -> &'a mut bmslice_inventory::PciFunction {
    let address = pci(address);
    inventory
        .pci
        .iter_mut()
        .find(|f| f.address == address)
        .unwrap()
}

fn domains(inventory: &mut Inventory) -> &mut Vec<bmslice_inventory::DomainFacts> {
    &mut inventory.hypervisor.libvirt.as_mut().unwrap().domains
}

/// The rule that must speak up, what is wrong, and how to make it so.
#[rustfmt::skip]
const MUTATIONS: &[(&str, &str, Wrong)] = &[
    ("spec-digest", "a plan of another spec", InPlan(|p| p.spec_digest = "sha256:0".into())),
    ("spec-digest", "the spec changed since", Asked(|s| s[RED].autostart = false)),
    ("fingerprint", "another digest", InPlan(|p| p.server.fingerprint.digest = "sha256:0".into())),
    ("fingerprint", "another server's name", InPlan(|p| p.server.hostname = "other".into())),
    ("fingerprint", "a card was taken out", OnServer(|i| i.pci.retain(|f| f.address != pci("0000:83:00.0")))),
    ("slices", "one is missing", InPlan(|p| { p.slices.remove(WIDE); })),
    ("apart", "two on one server that are to be apart", Asked(|s| {
        for slice in [RED, BLUE] {
            s[slice].apart = Some("workers".into());
        }
    })),
    ("selector", "a slice for servers with other labels", Asked(|s| {
        let fleet = bmslice_spec::FleetSpec {
            servers: vec![bmslice_spec::LabelledServer {
                name: "another".into(),
                labels: [("zone".into(), "a".into())].into(),
            }],
            ..bmslice_spec::FleetSpec::default()
        };
        let labels = [("zone".into(), "a".into())].into();
        s[RED].selector = Some(bmslice_spec::Selector::new(labels, &fleet));
    })),
    ("headroom", "a core less stays free", InPlan(|p| {
        p.slices[RED].idle.insert(cpu(12));
        p.host.free = cpus("13,26-27");
    })),
    ("headroom", "a free core is a stranger's", OnServer(|i| domains(i).push(stranger("13,27", &[])))),
    ("slices", "one more", InPlan(|p| p.slices[RED].name = "purple".parse().unwrap())),
    ("slices", "another order", InPlan(|p| p.slices.swap(RED, BLUE))),
    ("as-asked", "another tenant", InPlan(|p| p.slices[RED].tenant = "blue-tenant".parse().unwrap())),
    ("as-asked", "no autostart", InPlan(|p| p.slices[RED].autostart = false)),
    ("as-asked", "another time to come up", InPlan(|p| p.slices[RED].up_within_seconds = 0)),
    ("as-asked", "another host name", InPlan(|p| p.slices[RED].guest.hostname = "x".into())),
    ("as-asked", "another machine", InPlan(|p| p.slices[RED].machine = bmslice_spec::GuestMachine::Pc)),
    ("as-asked", "another folder", InPlan(|p| p.host.images = "/tmp".into())),
    ("identity", "one UUID twice", InPlan(|p| p.slices[RED].uuid = p.slices[BLUE].uuid.clone())),
    ("identity", "no UUID", InPlan(|p| p.slices[RED].uuid = "red".into())),
    ("identity", "another domain's name", OnServer(|i| {
        let mut domain = stranger("", &[]);
        domain.name = "red".into();
        domains(i).push(domain);
    })),
    ("disk", "one disk for two", InPlan(|p| p.slices[RED].disk.path = p.slices[BLUE].disk.path.clone())),
    ("disk", "the base is the disk", InPlan(|p| p.slices[RED].disk.path = "/images/base.qcow2".into())),
    ("disk", "a seed over a disk", InPlan(|p| p.slices[RED].disk.seed = Some("/images/blue.qcow2".into()))),
    ("disk", "a smaller disk", InPlan(|p| p.slices[RED].disk.size = ByteSize::from_gib(9))),
    ("disk", "another base", InPlan(|p| p.slices[RED].disk.base = "/images/other.qcow2".into())),
    ("disk", "a copy instead", InPlan(|p| p.slices[RED].disk.from = ImageFrom::Copy)),
    ("disk", "no seed for cloud-init", InPlan(|p| p.slices[RED].disk.seed = None)),
    ("disk", "another set-up", InPlan(|p| p.slices[WIDE].disk.setup = Setup::VirtCustomize)),
    ("disk", "a relative path", InPlan(|p| p.slices[RED].disk.path = "red.qcow2".into())),
    ("host-reserve", "half of CPU 0's core", InPlan(|p| {
        p.host.cpus = cpus("0,7,21");
        p.slices[GREEN].emulator = cpus("0,7,21");
        p.slices[GREEN].iothreads = vec![cpus("0,7,21")];
    })),
    ("host-reserve", "no core on node 1", InPlan(|p| p.host.cpus = cpus("0,14"))),
    ("host-reserve", "more than asked", InPlan(|p| {
        p.host.cpus = cpus("0,7,12,14,21,26");
        p.host.free = cpus("13,27");
    })),
    ("host-reserve", "not CPU 0's core", InPlan(|p| {
        p.host.cpus = cpus("7,21,12,26");
        p.host.free = cpus("0,14,13,27");
    })),
    ("host-reserve", "a host CPU went offline", OnServer(|i| i.cpus[21].online = false)),
    ("isolated", "one CPU too few", InPlan(|p| p.host.isolated.remove(cpu(27)).then_some(()).unwrap())),
    ("isolated", "the host's CPU isolated", InPlan(|p| { p.host.isolated.insert(cpu(0)); })),
    ("isolated", "a free CPU forgotten", InPlan(|p| p.host.free = cpus("12-13,26"))),
    ("cpu-usable", "a CPU went offline", OnServer(|i| i.cpus[15].online = false)),
    ("cpu-usable", "a CPU is not allowed", OnServer(|i| i.cpus[2].allowed = false)),
    ("cpu-usable", "a CPU that is not there", InPlan(|p| p.slices[RED].vcpus[0] = cpu(99))),
    ("core-shared", "two slices on one core", InPlan(|p| {
        p.slices[GREEN].idle = CpuSet::new();
        p.slices[BLUE].idle = cpus("23,18");
    })),
    ("core-shared", "a vCPU beside the host", InPlan(|p| {
        p.host.cpus = cpus("0,7,14");
        p.slices[GREEN].emulator = cpus("0");
        p.slices[GREEN].iothreads = vec![cpus("0")];
        p.slices[BLUE].vcpus[2] = cpu(21);
    })),
    ("sibling-shared", "siblings of two slices that share no core", InPlan(|p| {
        p.slices[RED].tenant = p.slices[BLUE].tenant.clone();
        p.slices[RED].shared_siblings = cpus("8");
        p.slices[BLUE].shared_siblings = cpus("1");
    })),
    ("core-whole", "a sibling left free", InPlan(|p| {
        p.slices[GREEN].idle = CpuSet::new();
        p.host.free = cpus("12-13,18,26-27");
    })),
    ("idle", "a whole core kept for nothing", InPlan(|p| {
        p.slices[GREEN].idle = cpus("18,12,26");
        p.host.free = cpus("13,27");
    })),
    ("pool", "a core more", InPlan(|p| {
        p.slices[BLUE].emulator = cpus("10,12,24,26");
        p.host.free = cpus("13,27");
    })),
    ("pool", "an emulator beside a vCPU", InPlan(|p| {
        p.slices[BLUE].emulator = cpus("23");
        p.slices[BLUE].idle = CpuSet::new();
    })),
    ("pool", "no CPU for the emulator", InPlan(|p| p.slices[RED].emulator = CpuSet::new())),
    ("pool", "no CPU for the IOThread", InPlan(|p| p.slices[RED].iothreads = vec![CpuSet::new()])),
    ("pool", "no IOThread", InPlan(|p| p.slices[RED].iothreads.clear())),
    ("pool", "the host's CPUs though cores were asked", InPlan(|p| {
        p.slices[RED].pool_is_host = true;
        p.slices[RED].emulator = cpus("0");
        p.slices[RED].iothreads = vec![cpus("0")];
    })),
    ("pool", "shared though its own was asked", InPlan(|p| p.slices[RED].pool_is_shared = true)),
    ("pool", "its own though a shared one was asked", Asked(|s| s[RED].shared_pool = true)),
    ("core-shared", "a pool that another slice of the tenant has for vCPUs", InPlan(|p| {
        let [red, blue] = [RED, BLUE].map(|at| p.slices[at].clone());
        let slice = &mut p.slices[BLUE];
        slice.tenant = red.tenant;
        slice.pool_is_shared = true;
        // A sibling of a core that runs vCPUs of the other.
        let beside = red.vcpus[1];
        slice.emulator = CpuSet::from(beside);
        slice.iothreads = vec![CpuSet::from(beside)];
        p.slices[RED].vcpus[1] = blue.emulator.first().unwrap();
        p.host.free = p.host.free.union(&blue.emulator.difference(&CpuSet::from(blue.emulator.first().unwrap())));
    })),
    ("pool", "the host's CPUs that are not the host's", InPlan(|p| p.slices[GREEN].emulator = cpus("12"))),
    ("foreign-domain", "a running domain on the core", OnServer(|i| domains(i).push(stranger("16", &[])))),
    ("foreign-domain", "a running domain with the card", OnServer(|i| domains(i).push(stranger("", &["0000:81:00.0"])))),
    ("vcpu-count", "one vCPU fewer", InPlan(|p| {
        p.slices[BLUE].vcpus.pop();
        p.slices[BLUE].cells[0].vcpus = cpus("0-1");
    })),
    ("smt", "not in whole cores", InPlan(|p| {
        p.slices[BLUE].vcpus = vec![cpu(8), cpu(9), cpu(12)];
        p.slices[BLUE].idle = cpus("22,23,26");
        p.host.free = cpus("13,27");
    })),
    ("smt", "siblings not side by side", InPlan(|p| p.slices[RED].vcpus.swap(1, 2))),
    ("smt", "siblings side by side, asked last", InPlan(|p| {
        // One cell of four, in the order of adjacent siblings.
        let slice = &mut p.slices[WIDE];
        slice.cells[0].vcpus = cpus("0-3");
        slice.cells.truncate(1);
        slice.vcpus = vec![cpu(5), cpu(19), cpu(11), cpu(25)];
    })),
    ("smt", "two vCPUs on one core, asked apart", InPlan(|p| {
        let slice = &mut p.slices[GREEN];
        slice.vcpus.push(cpu(18));
        slice.idle = CpuSet::new();
        slice.cells[0].vcpus = cpus("0-1");
    })),
    ("topology", "more than there are", InPlan(|p| p.slices[RED].topology.cores = 3)),
    ("topology", "none at all", InPlan(|p| p.slices[RED].topology.threads = 0)),
    ("topology", "threads that are not siblings", InPlan(|p| {
        p.slices[WIDE].vcpus = vec![cpu(5), cpu(11), cpu(19), cpu(25)];
        p.slices[WIDE].topology.cores = 1;
        p.slices[WIDE].topology.threads = 2;
    })),
    ("topology", "siblings hidden", InPlan(|p| {
        p.slices[RED].topology.cores = 4;
        p.slices[RED].topology.threads = 1;
    })),
    ("topology", "AMD without topoext", OnServer(|i| i.machine.cpu_vendor = Some("AuthenticAMD".into()))),
    ("numa", "a vCPU from the other node", InPlan(|p| {
        p.slices[RED].vcpus[2] = cpu(12);
        p.slices[RED].vcpus[3] = cpu(26);
        p.host.free = cpus("2,13,16,27");
    })),
    ("numa", "the pool on the other node", InPlan(|p| {
        p.slices[RED].emulator = cpus("12,26");
        p.slices[RED].iothreads = vec![cpus("12,26")];
        p.host.free = cpus("3,13,17,27");
    })),
    ("numa", "memory from the other node", InPlan(|p| p.slices[RED].cells[0].node = NumaNodeId(1))),
    ("numa", "both cells on one node", InPlan(|p| p.slices[WIDE].cells[1].node = NumaNodeId(0))),
    ("numa", "a node whose memory a cpuset keeps away", OnServer(|i| i.nodes[0].allowed = false)),
    ("fingerprint", "a slice that is for another server", Asked(|s| s[RED].server = Some("other".into()))),
    ("numa", "not the node asked", Asked(|s| s[RED].numa = Numa::Node(NumaNodeId(1)))),
    ("numa", "fewer cells than asked", Asked(|s| s[RED].numa = Numa::Spread(2))),
    ("cells", "one page too many", InPlan(|p| p.slices[RED].memory = ByteSize::from_gib(3))),
    ("cells", "cells of unequal size", InPlan(|p| {
        p.slices[WIDE].cells[0].memory = ByteSize::from_mib(256);
        p.slices[WIDE].cells[1].memory = ByteSize::from_mib(768);
    })),
    ("cells", "half a page", InPlan(|p| {
        p.slices[BLUE].memory = ByteSize::from_mib(1023);
        p.slices[BLUE].cells[0].memory = ByteSize::from_mib(1023);
    })),
    ("cells", "other pages than asked", InPlan(|p| p.slices[RED].huge_pages = Some(ByteSize::from_mib(2)))),
    ("memory-fits", "more than the node has", OnServer(|i| i.nodes[0].memory_total = ByteSize::from_gib(2))),
    ("memory-fits", "no pages of that size", OnServer(|i| { i.nodes[0].huge_pages.pop(); })),
    ("huge-pages", "one page too many", InPlan(|p| p.host.huge_pages[0].count = 3)),
    ("huge-pages", "one page too few", InPlan(|p| p.host.huge_pages[1].count = 511)),
    ("huge-pages", "pages that nobody needs", InPlan(|p| p.host.huge_pages.push(HugePagePlan {
        node: NumaNodeId(1), size: ByteSize::from_gib(1), count: 1, at_boot: false,
    }))),
    ("huge-pages", "said twice", InPlan(|p| p.host.huge_pages.push(p.host.huge_pages[1].clone()))),
    ("isolation", "no isolcpus", InPlan(|p| { p.host.kernel_args.remove(2); })),
    ("isolation", "isolcpus over other CPUs", InPlan(|p| args(p, "22-27", "22-26"))),
    ("isolation", "no managed_irq", InPlan(|p| args(p, "managed_irq,", ""))),
    ("isolation", "twice", InPlan(|p| p.host.kernel_args.push("isolcpus=1".parse().unwrap()))),
    ("isolation", "interrupts on isolated CPUs", InPlan(|p| args(p, "irqaffinity=0", "irqaffinity=0,1"))),
    ("isolation", "a partition that nobody asked for", InPlan(|p| p.slices[RED].partition = Some("/bmslice".into()))),
    ("isolation", "a tick that nobody asked to stop", InPlan(|p| p.host.kernel_args.push("nohz_full=22-27".parse().unwrap()))),
    ("isolation", "settings that nobody asked for", InPlan(|p| p.host.settings.ksm = Some(false))),
    ("isolation", "another kind than asked", InPlan(|p| p.host.isolation = Isolation::None)),
    ("iommu", "left off", InPlan(|p| { p.host.kernel_args.remove(0); })),
    ("iommu", "turned off", InPlan(|p| args(p, "intel_iommu=on", "intel_iommu=off"))),
    ("iommu", "an argument that does nothing", InPlan(|p| p.host.kernel_args.push("amd_iommu=on".parse().unwrap()))),
    ("kernel-args", "an argument about something else", InPlan(|p| p.host.kernel_args.push("mitigations=off".parse().unwrap()))),
    ("kernel-args", "CPUs that never idle, though not asked", InPlan(|p| p.host.kernel_args.push("idle=poll".parse().unwrap()))),
    ("kernel-args", "one of the spec's own is missing", InPlan(|p| { p.host.kernel_args.pop(); })),
    ("kernel-args", "another deadline", InPlan(|p| p.host.fall_back_minutes = 11)),
    ("kernel-args", "devices of the host translated too", InPlan(|p| args(p, "iommu=pt", "iommu=nopt"))),
    ("huge-page-args", "too few at boot", InPlan(|p| args(p, "0:2", "0:1"))),
    ("huge-page-args", "on the other node", InPlan(|p| args(p, "0:2", "1:2"))),
    ("huge-page-args", "spread as the kernel likes", InPlan(|p| args(p, "0:2", "2"))),
    ("huge-page-args", "of another size", InPlan(|p| args(p, "1G", "2M"))),
    ("huge-page-args", "at boot, but not asked for there", InPlan(|p| p.host.huge_pages[1].at_boot = true)),
    ("huge-page-args", "of no size", InPlan(|p| args(p, "hugepagesz=1G", "hugepagesz=1Q"))),
    ("device-exists", "a card that is not there", InPlan(|p| whole(card(p, RED, 0)).0.address = pci("0000:99:00.0"))),
    ("device-exists", "another card in its place", OnServer(|i| function(i, "0000:41:00.1").id = "15b3:1017".parse().unwrap())),
    ("device-exists", "the same kind of card with another MAC", OnServer(|i| {
        function(i, "0000:41:00.1").mac = Some(mac("52:54:00:00:09:09"));
        i.interfaces.retain(|n| n.name != "n0p1");
    })),
    ("device-exists", "another node", InPlan(|p| whole(card(p, RED, 0)).0.node = Some(NumaNodeId(1)))),
    ("device-exists", "no network card", OnServer(|i| function(i, "0000:41:00.1").class = "0x030000".into())),
    ("device-exists", "a virtual function as a whole one", OnServer(|i| {
        function(i, "0000:41:00.1").physfn = Some(pci("0000:41:00.0"));
    })),
    ("host-needed", "the management NIC", InPlan(|p| *whole(card(p, GREEN, 0)).0 = device("0000:00:02.0"))),
    ("host-needed", "a root disk in the group", OnServer(|i| {
        let need = bmslice_inventory::HostNeed::Mount { at: "/".into() };
        function(i, "0000:81:00.1").host_needs.push(need);
    })),
    ("host-needed", "memory kept by firmware", OnServer(|i| function(i, "0000:41:00.1").rmrr = true)),
    ("host-needed", "a bridge", InPlan(|p| whole(card(p, BLUE, 0)).1.push(pci("0000:80:00.0")))),
    ("iommu-group", "a member left behind", InPlan(|p| whole(card(p, BLUE, 0)).1.clear())),
    ("iommu-group", "a stranger taken along", InPlan(|p| whole(card(p, RED, 0)).1.push(pci("0000:00:02.0")))),
    ("iommu-group", "a virtual function that is not alone", OnServer(|i| {
        let mut vf = function(i, "0000:41:00.0").clone();
        vf.address = pci("0000:41:10.0");
        vf.physfn = Some(pci("0000:41:00.0"));
        i.pci.push(vf);
    })),
    ("queues", "of a card that a slice has", InPlan(|p| p.host.queues.push(bmslice_plan::QueuePlan {
        device: device("0000:83:00.0"),
        most: 4,
        apart: false,
    }))),
    ("queues", "more than the host has CPUs", OnServer(|i| {
        let combined = Some(bmslice_inventory::Setting { now: 8, max: 8 });
        let channels = Some(bmslice_inventory::Channels { combined, ..Default::default() });
        for interface in &mut i.interfaces {
            interface.ethtool = Some(bmslice_inventory::EthtoolFacts {
                channels: channels.clone(),
                ..Default::default()
            });
        }
    })),
    ("whole-or-split", "both", InPlan(|p| p.host.split.push(SplitPlan { device: device("0000:83:00.0"), vfs: 1 }))),
    ("whole-or-split", "split twice", InPlan(|p| p.host.split.push(p.host.split[0].clone()))),
    ("whole-or-split", "a virtual function of one that is not split", InPlan(|p| { p.host.split.remove(0); })),
    ("virtual-functions", "more than the card makes", InPlan(|p| p.host.split[0].vfs = 8)),
    ("virtual-functions", "none", InPlan(|p| p.host.split[0].vfs = 0)),
    ("virtual-functions", "of a card that cannot", OnServer(|i| function(i, "0000:41:00.0").sriov = None)),
    ("virtual-functions", "beyond the count", InPlan(|p| {
        if let NicPlan::Vf { index, address, .. } = card(p, RED, 1) {
            (*index, *address) = (1, pci("0000:41:10.2"));
        }
    })),
    ("virtual-functions", "at another place", InPlan(|p| {
        if let NicPlan::Vf { address, .. } = card(p, RED, 1) {
            *address = pci("0000:41:10.2");
        }
    })),
    ("virtual-functions", "it exists, and sits elsewhere", OnServer(|i| {
        function(i, "0000:41:00.0").sriov.as_mut().unwrap().vfs = vec![pci("0000:41:11.0")];
    })),
    ("virtual-functions", "given twice", InPlan(|p| {
        let again = card(p, RED, 1).clone();
        p.slices[GREEN].nics.push(again);
        if let NicPlan::Vf { address, .. } = card(p, GREEN, 1) {
            *address = pci("0000:41:10.4");
        }
    })),
    ("nic-as-asked", "a card fewer", InPlan(|p| { p.slices[RED].nics.pop(); })),
    ("nic-as-asked", "another order", InPlan(|p| p.slices[RED].nics.swap(0, 1))),
    ("nic-as-asked", "another card", Asked(|s| s[GREEN].nics[0].kind = NicKind::Passthrough {
        device: NicChoice::Pci(pci("0000:41:00.0")),
    })),
    ("nic-as-asked", "taken from the host though not asked", InPlan(|p| {
        if let NicPlan::Passthrough { from_host, .. } = card(p, RED, 0) {
            *from_host = true;
        }
    })),
    ("nic-as-asked", "another name", OnServer(|i| i.interfaces[1].altnames.clear())),
    ("nic-as-asked", "another VLAN", InPlan(|p| {
        if let NicPlan::Vf { vlan, .. } = card(p, RED, 1) {
            *vlan = Some(VlanId::new(103).unwrap());
        }
    })),
    ("nic-as-asked", "trusted though not asked", InPlan(|p| {
        if let NicPlan::Vf { rules, .. } = card(p, RED, 1) {
            rules.trust = true;
        }
    })),
    ("nic-as-asked", "too slow", OnServer(|i| i.interfaces[2].speed = Some(100))),
    ("nic-as-asked", "on another node though `same` was asked", InPlan(|p| *whole(card(p, RED, 0)).0 = device("0000:82:00.0"))),
    ("nic-as-asked", "another libvirt network", InPlan(|p| {
        if let NicPlan::Virtio { network, .. } = card(p, WIDE, 0) {
            *network = "other".into();
        }
    })),
    ("mac", "none for a virtual function", InPlan(|p| common(card(p, RED, 1)).mac = None)),
    ("mac", "one for two", InPlan(|p| common(card(p, RED, 1)).mac = common(card(p, BLUE, 1)).mac)),
    ("mac", "a group's", InPlan(|p| common(card(p, RED, 1)).mac = Some(mac("01:00:5e:00:00:01")))),
    ("mac", "zero", InPlan(|p| common(card(p, RED, 1)).mac = Some(mac("00:00:00:00:00:00")))),
    ("mac", "that of the management NIC", InPlan(|p| common(card(p, RED, 1)).mac = Some(mac("52:54:00:00:00:01")))),
    ("mac", "not the one asked", InPlan(|p| common(card(p, BLUE, 1)).mac = Some(mac("52:54:00:aa:00:09")))),
    ("mac", "not that of the function", InPlan(|p| common(card(p, RED, 0)).mac = Some(mac("52:54:00:aa:00:09")))),
    ("locality", "a remote card called local", InPlan(|p| common(card(p, GREEN, 0)).local = Some(true))),
    ("locality", "an unknown one called local", OnServer(|i| function(i, "0000:41:00.1").node = None)),
    ("remote-reported", "hidden", InPlan(|p| p.report.findings.clear())),
    ("remote-reported", "told of another slice", InPlan(|p| p.report.findings[0].slice = Some("red".parse().unwrap()))),
];

#[test]
fn the_right_plan_passes() {
    let plan = Plan::new(server::parts()).unwrap();
    assert_eq!(check(&server::spec(), &server::inventory(), &plan), []);
}

/// The violations after something was made wrong; `Err` when reading the plan refuses it already.
fn after(wrong: &Wrong) -> Result<Vec<Violation>, PlanFileError> {
    let (mut parts, mut inventory, mut asked) =
        (server::parts(), server::inventory(), server::slice_specs());
    match wrong {
        InPlan(change) => change(&mut parts),
        OnServer(change) => change(&mut inventory),
        Asked(change) => change(&mut asked),
    }
    let spec = Slicing::new(server::host_spec(), asked).unwrap();
    Ok(check(&spec, &inventory, &Plan::new(parts)?))
}

#[test]
fn whatever_is_made_wrong_is_caught_by_the_rule_about_it() {
    let mut failures = Vec::new();
    for (code, what, wrong) in MUTATIONS {
        match after(wrong) {
            Ok(violations) if violations.iter().any(|v| v.code == *code) => {}
            Ok(violations) => failures.push(format!("{code}, {what}: {violations:#?}")),
            Err(error) => failures.push(format!("{code}, {what}: refused before: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_rule_has_a_plan_that_breaks_it() {
    let rules: BTreeSet<&str> = INVARIANTS.iter().map(|rule| rule.code).collect();
    let tried: BTreeSet<&str> = MUTATIONS.iter().map(|(code, ..)| *code).collect();
    assert_eq!(rules, tried);
    assert_eq!(rules.len(), INVARIANTS.len(), "codes are unique");
}

fn is_caught(parts: PlanParts) -> bool {
    Plan::new(parts).map_or(true, |plan| {
        !check(&server::spec(), &server::inventory(), &plan).is_empty()
    })
}

#[test]
fn no_vcpu_can_move_unseen() {
    for slice in 0..server::parts().slices.len() {
        for vcpu in 0..server::parts().slices[slice].vcpus.len() {
            for to in 0..30 {
                let mut parts = server::parts();
                if parts.slices[slice].vcpus[vcpu] == cpu(to) {
                    continue;
                }
                parts.slices[slice].vcpus[vcpu] = cpu(to);
                assert!(is_caught(parts), "slice {slice}, vCPU {vcpu} to CPU {to}");
            }
        }
    }
}

#[test]
fn no_cpu_can_join_or_leave_a_set_unseen() {
    type Set = fn(&mut PlanParts) -> &mut CpuSet;
    let sets: [(&str, Set); 8] = [
        ("the host", |p| &mut p.host.cpus),
        ("isolated", |p| &mut p.host.isolated),
        ("free", |p| &mut p.host.free),
        ("red's idle", |p| &mut p.slices[RED].idle),
        ("green's idle", |p| &mut p.slices[GREEN].idle),
        ("a cell", |p| &mut p.slices[WIDE].cells[1].vcpus),
        ("wide's emulator", |p| &mut p.slices[WIDE].emulator),
        ("wide's IOThread", |p| &mut p.slices[WIDE].iothreads[0]),
    ];
    for (name, set) in sets {
        for number in 0..30 {
            let mut parts = server::parts();
            let cpus = set(&mut parts);
            if !cpus.remove(cpu(number)) {
                cpus.insert(cpu(number));
            }
            // An emulator on one of its core's threads instead of both is as good: the IOThread
            // still holds the other, so the core stays the slice's.
            let within_the_pool = name.starts_with("wide's") && [6, 20].contains(&number);
            assert!(within_the_pool || is_caught(parts), "{name}, CPU {number}");
        }
    }
}

/// What no rule can know better than the planner: names of new files, made-up identities, words,
/// and virtual functions kept in store.
const FREE: [&str; 9] = [
    "/vfs",
    "/disk/path",
    "/disk/seed",
    "/uuid",
    "/driver",
    "/interface",
    "/nic/mac",
    "/report/findings/0/text",
    "/cpuFeatures",
];

#[test]
fn no_number_flag_or_word_of_a_plan_can_change_unseen() {
    use serde_json::Value;
    fn leaves(value: &Value, path: String, all: &mut Vec<String>) {
        match value {
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    leaves(item, format!("{path}/{i}"), all);
                }
            }
            Value::Object(fields) => {
                for (name, item) in fields {
                    leaves(item, format!("{path}/{name}"), all);
                }
            }
            _ => all.push(path),
        }
    }
    let right: Value =
        serde_json::from_str(&Plan::new(server::parts()).unwrap().to_json()).unwrap();
    let mut paths = Vec::new();
    leaves(&right, String::new(), &mut paths);
    assert!(paths.len() > 150, "{} leaves", paths.len());
    for path in paths {
        if FREE.iter().any(|free| path.ends_with(free)) {
            continue;
        }
        let mut wrong = right.clone();
        let leaf = wrong.pointer_mut(&path).unwrap();
        *leaf = match leaf {
            Value::Bool(flag) => Value::Bool(!*flag),
            Value::Number(number) => Value::from(number.as_u64().unwrap() + 1),
            Value::String(text) => Value::from(format!("{text}1")),
            _ => continue,
        };
        if let Ok(plan) = Plan::parse(&wrong.to_string()) {
            let found = check(&server::spec(), &server::inventory(), &plan);
            assert!(
                !found.is_empty(),
                "{path} became {}",
                wrong.pointer(&path).unwrap()
            );
        }
    }
}

/// What nobody can tell from the plan alone, or what may change while it takes effect.
const NOT_ALONE: [&str; 17] = [
    "spec-digest",
    "fingerprint",
    "slices",
    "apart",
    "selector",
    "headroom",
    "as-asked",
    "identity",
    "cpu-usable",
    "foreign-domain",
    "vcpu-count",
    "memory-fits",
    "kernel-args",
    "device-exists",
    "host-needed",
    "iommu-group",
    "queues",
];

#[test]
fn a_plan_that_was_edited_is_caught_without_its_spec() {
    let right = Plan::new(server::parts()).unwrap();
    assert_eq!(check_alone(&server::inventory(), &right), []);
    let mut missed = Vec::new();
    for (code, what, wrong) in MUTATIONS {
        let InPlan(edit) = wrong else { continue };
        if NOT_ALONE.contains(code) {
            continue;
        }
        let mut parts = server::parts();
        edit(&mut parts);
        if let Ok(plan) = Plan::new(parts)
            && check_alone(&server::inventory(), &plan).is_empty()
        {
            missed.push(format!("{code}: {what}"));
        }
    }
    // Each of these is a right plan of another spec.
    let asked = [
        "disk: a smaller disk",
        "disk: another base",
        "disk: a copy instead",
        "disk: another set-up",
        "pool: a core more",
        "pool: no IOThread",
        "pool: shared though its own was asked",
        "isolation: settings that nobody asked for",
        "nic-as-asked: a card fewer",
        "nic-as-asked: another order",
        "nic-as-asked: taken from the host though not asked",
        "nic-as-asked: another VLAN",
        "nic-as-asked: trusted though not asked",
        "nic-as-asked: another libvirt network",
        "mac: not the one asked",
    ];
    assert_eq!(missed, asked);
}

#[test]
fn a_vcpu_on_any_other_cpu_is_caught_without_the_spec() {
    for slice in 0..server::parts().slices.len() {
        for vcpu in 0..server::parts().slices[slice].vcpus.len() {
            for other in 0..28 {
                let mut parts = server::parts();
                if parts.slices[slice].vcpus[vcpu] == cpu(other) {
                    continue;
                }
                parts.slices[slice].vcpus[vcpu] = cpu(other);
                if let Ok(plan) = Plan::new(parts) {
                    let found = check_alone(&server::inventory(), &plan);
                    assert!(!found.is_empty(), "slice {slice}, vCPU {vcpu} on {other}");
                }
            }
        }
    }
}

#[test]
fn a_guest_of_the_plan_in_force_is_no_stranger_and_one_that_only_has_its_name_is() {
    let plan = Plan::new(server::parts()).unwrap();
    let mut inventory = server::inventory();
    domains(&mut inventory).push(stranger("16", &["0000:81:00.0"]));
    let mut before = server::parts();
    before.slices.truncate(1);
    before.slices[0].name = "stranger".parse().unwrap();
    before.slices[0].uuid = stranger("", &[]).uuid.to_uppercase();
    let found = |before: &PlanParts| {
        let in_force = Plan::new(before.clone()).unwrap();
        let all = check_following(&server::spec(), &inventory, &plan, Some(&in_force));
        all.iter()
            .map(|violation| violation.code)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&before), [""; 0]);
    before.slices[0].uuid = plan.slices()[0].uuid.clone();
    assert_eq!(found(&before), ["foreign-domain"; 2]);
}

#[test]
fn violations_say_whose_they_are_and_what_should_be() {
    let says = |wrong: Wrong, code: &str| -> String {
        let found = after(&wrong).unwrap();
        found.iter().find(|v| v.code == code).unwrap().to_string()
    };
    assert_eq!(
        says(InPlan(|p| p.host.huge_pages[0].count = 3), "huge-pages"),
        "3 pages of 1GiB are planned on node 0, the slices need 2 [huge-pages]"
    );
    assert_eq!(
        says(InPlan(|p| whole(card(p, BLUE, 0)).1.clear()), "iommu-group"),
        "slice `blue`: 0000:81:00.0 goes without 0000:81:00.1 of its IOMMU group [iommu-group]"
    );
}
