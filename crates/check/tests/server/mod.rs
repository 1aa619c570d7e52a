//! A server made by hand, what is asked of it, and a plan made by hand that is right.
//!
//! Two nodes of seven cores with two threads (CPU n and n+14), so that all of it can be worked out
//! on paper:
//!
//! ```text
//! node 0: host 0,14 | red 1,15 2,16 pool 3,17 | green 4 (18 idle) | wide 5,19 pool 6,20
//! node 1: host 7,21 | blue 8,22 9 (23 idle) pool 10,24 | wide 11,25 | free 12,26 13,27
//! ```

use bmslice_inventory::{
    BootFacts, BootLoader, Cpu, DomainFacts, FORMAT, HostNeed, HugePagePool, HypervisorFacts,
    Inventory, LibvirtFacts, MachineFacts, NetInterface, NumaNode, PciFunction, Sriov,
};
use bmslice_model::{
    ByteSize, CpuId, CpuSet, IommuGroupId, KernelCmdline, MacAddress, NumaNodeId, PciAddress,
    VlanId,
};
use bmslice_plan::{
    DeviceRef, DiskPlan, Finding, Fingerprint, GuestCell, GuestTopology, HostPlan, HugePagePlan,
    Level, NicCommon, NicPlan, PlanParts, Report, ServerRef, SlicePlan, SplitPlan,
};
use bmslice_spec::{
    GuestMachine, GuestSpec, HostSpec, ImageFrom, ImageSpec, Isolation, NicChoice, NicKind,
    NicNuma, NicSpec, Numa, Setup, Sharing, SliceSpec, Slicing, Smt, VcpuOrder,
};

const CORES: u32 = 14;

pub fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

pub fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

pub fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

pub fn mac(text: &str) -> MacAddress {
    text.parse().unwrap()
}

fn nic(
    address: &str,
    node: Option<u32>,
    group: u32,
    interface: &str,
    address_of: &str,
) -> PciFunction {
    PciFunction {
        address: pci(address),
        id: "8086:10c9".parse().unwrap(),
        class: "0x020000".into(),
        name: None,
        driver: Some("igb".into()),
        node: node.map(NumaNodeId),
        iommu_group: Some(IommuGroupId(group)),
        rmrr: false,
        upstream: vec![],
        sriov: Some(Sriov {
            total: 7,
            current: 0,
            offset: Some(128),
            stride: Some(2),
            vf_device: None,
            autoprobe: None,
            vfs: vec![],
        }),
        physfn: None,
        interfaces: vec![interface.into()],
        mac: Some(mac(address_of)),
        ..PciFunction::default()
    }
}

fn interface(function: &PciFunction) -> NetInterface {
    NetInterface {
        name: function.interfaces[0].clone(),
        altnames: vec![format!("alt-{}", function.interfaces[0])],
        mac: function.mac,
        pci: Some(function.address),
        state: None,
        carrier: None,
        speed: Some(1000),
        mtu: None,
        master: None,
        lower: vec![],
        default_route: false,
        ..NetInterface::default()
    }
}

pub fn inventory() -> Inventory {
    let node_of = |number: u32| NumaNodeId(u32::from(number % CORES >= CORES / 2));
    let all = (0..2 * CORES).map(|number| Cpu {
        id: cpu(number),
        online: true,
        allowed: true,
        package: None,
        die: None,
        core: None,
        node: Some(node_of(number)),
        siblings: [cpu(number % CORES), cpu(number % CORES + CORES)]
            .into_iter()
            .collect(),
        ..Cpu::default()
    });
    let nodes = [0, 1].map(|id| NumaNode {
        id: NumaNodeId(id),
        cpus: all
            .clone()
            .filter(|c| c.node == Some(NumaNodeId(id)))
            .map(|c| c.id)
            .collect(),
        memory_total: ByteSize::from_gib(4),
        memory_free: ByteSize::from_gib(3),
        huge_pages: [ByteSize::from_mib(2), ByteSize::from_gib(1)]
            .map(|size| HugePagePool {
                size,
                total: 0,
                free: 0,
                ..HugePagePool::default()
            })
            .to_vec(),
        distances: vec![10, 21],
        ..NumaNode::default()
    });
    let mut management = nic("0000:00:02.0", None, 1, "mgmt0", "52:54:00:00:00:01");
    management.host_needs = vec![HostNeed::DefaultRoute {
        interface: "mgmt0".into(),
    }];
    let mut bridge = nic("0000:80:00.0", Some(1), 20, "none", "52:54:00:00:00:02");
    (bridge.class, bridge.sriov, bridge.mac) = ("0x060400".into(), None, None);
    bridge.interfaces.clear();
    let mut companion = bridge.clone();
    (companion.address, companion.class) = (pci("0000:81:00.1"), "0x0c0300".into());
    let functions = vec![
        management,
        nic("0000:41:00.0", Some(0), 10, "n0p0", "52:54:00:00:01:00"),
        nic("0000:41:00.1", Some(0), 11, "n0p1", "52:54:00:00:01:01"),
        bridge,
        nic("0000:81:00.0", Some(1), 20, "n1p0", "52:54:00:00:02:00"),
        companion,
        nic("0000:82:00.0", Some(1), 21, "n1p1", "52:54:00:00:02:01"),
        nic("0000:83:00.0", Some(1), 22, "n1p2", "52:54:00:00:02:02"),
    ];
    Inventory {
        format: FORMAT.into(),
        machine: MachineFacts {
            hostname: "paper".into(),
            cpu_vendor: Some("GenuineIntel".into()),
            ..MachineFacts::default()
        },
        cpus: all.collect(),
        caches: vec![],
        nodes: nodes.to_vec(),
        interfaces: functions
            .iter()
            .filter(|f| f.is_network())
            .map(interface)
            .collect(),
        pci: functions,
        boot: BootFacts {
            cmdline: KernelCmdline::default(),
            loader: BootLoader::Unknown,
            isolated: CpuSet::new(),
            nohz_full: CpuSet::new(),
            iommu: false,
            iommu_tables: Some(vec!["DMAR".into()]),
            cgroup: Some(2),
        },
        hypervisor: HypervisorFacts {
            libvirt: Some(LibvirtFacts {
                version: "9.0.0".into(),
                qemu: None,
                kvm: true,
                domains: vec![],
            }),
            ..HypervisorFacts::default()
        },
        ..Inventory::default()
    }
}

/// A running domain of somebody else.
pub fn stranger(cpus: &str, devices: &[&str]) -> DomainFacts {
    DomainFacts {
        name: "stranger".into(),
        uuid: "00000000-0000-4000-8000-000000000000".into(),
        running: true,
        autostart: false,
        cpus: self::cpus(cpus),
        devices: devices.iter().map(|d| pci(d)).collect(),
        ..DomainFacts::default()
    }
}

fn asked(name: &str, vcpus: u32, memory: ByteSize, numa: Numa, nics: Vec<NicKind>) -> SliceSpec {
    SliceSpec {
        name: name.parse().unwrap(),
        tenant: format!("{name}-tenant").parse().unwrap(),
        vcpus,
        smt: Smt::Pack,
        vcpu_order: VcpuOrder::SiblingsAdjacent,
        emulator_cores: 1,
        sharing: Sharing::None,
        shared_pool: false,
        iothreads: 1,
        memory,
        hugepages: None,
        numa,
        nics: nics
            .into_iter()
            .map(|kind| NicSpec {
                kind,
                fabric: None,
                network: None,
                take_from_host: false,
            })
            .collect(),
        image: ImageSpec {
            base: "base.qcow2".into(),
            size: ByteSize::from_gib(10),
            from: ImageFrom::Overlay,
            setup: Setup::CloudInit,
        },
        guest: GuestSpec {
            hostname: name.into(),
            ..GuestSpec::default()
        },
        machine: GuestMachine::Q35,
        autostart: true,
        up_within_seconds: bmslice_spec::UP_WITHIN_SECONDS,
        server: None,
        apart: None,
        replica: None,
        selector: None,
    }
}

fn vf(of: NicChoice, vlan: u64, mac: Option<MacAddress>) -> NicKind {
    NicKind::Vf {
        of,
        vlan: Some(VlanId::new(vlan).unwrap()),
        mac,
        rules: bmslice_spec::VfRules::default(),
    }
}

fn whole(device: NicChoice) -> NicKind {
    NicKind::Passthrough { device }
}

pub fn host_spec() -> HostSpec {
    HostSpec {
        reserve_cores: 1,
        reserve_per_numa: true,
        headroom_cores: 2,
        isolation: Isolation::Boot,
        settings: bmslice_spec::KernelSettings::default(),
        images: "/images".into(),
        kernel_args: vec!["nosmt=force".parse().unwrap()],
        ..HostSpec::default()
    }
}

pub fn slice_specs() -> Vec<SliceSpec> {
    let near = NicChoice::Need {
        speed: Some(1000),
        numa: NicNuma::Same,
    };
    let mut red = asked(
        "red",
        4,
        ByteSize::from_gib(2),
        Numa::Node(NumaNodeId(0)),
        vec![
            whole(near),
            vf(NicChoice::Name("alt-n0p0".into()), 101, None),
        ],
    );
    red.hugepages = Some(ByteSize::from_gib(1));
    let mut blue = asked(
        "blue",
        3,
        ByteSize::from_gib(1),
        Numa::Single,
        vec![
            whole(NicChoice::Pci(pci("0000:81:00.0"))),
            vf(
                NicChoice::Mac(mac("52:54:00:00:02:01")),
                102,
                Some(mac("52:54:00:aa:00:02")),
            ),
        ],
    );
    blue.hugepages = Some(ByteSize::from_mib(2));
    let remote = whole(NicChoice::Pci(pci("0000:83:00.0")));
    let mut green = asked(
        "green",
        1,
        ByteSize::from_mib(512),
        Numa::Single,
        vec![remote],
    );
    (green.smt, green.emulator_cores) = (Smt::Isolate, 0);
    let virtio = NicKind::Virtio {
        network: "default".into(),
        mac: None,
    };
    let mut wide = asked(
        "wide",
        4,
        ByteSize::from_gib(1),
        Numa::Spread(2),
        vec![virtio],
    );
    wide.vcpu_order = VcpuOrder::SiblingsLast;
    wide.image.setup = Setup::None;
    vec![red, blue, green, wide]
}

pub fn spec() -> Slicing {
    Slicing::new(host_spec(), slice_specs()).unwrap()
}

pub fn device(address: &str) -> DeviceRef {
    let inventory = inventory();
    let there = inventory
        .pci
        .iter()
        .find(|f| f.address == pci(address))
        .unwrap();
    DeviceRef {
        address: there.address,
        id: there.id,
        mac: there.mac,
        interface: there.interfaces.first().cloned(),
        driver: there.driver.clone(),
        node: there.node,
    }
}

fn common(mac: Option<MacAddress>, local: Option<bool>) -> NicCommon {
    NicCommon {
        mac,
        local,
        fabric: None,
        network: None,
    }
}

fn taken(address: &str, group: &[&str], local: bool) -> NicPlan {
    let device = device(address);
    NicPlan::Passthrough {
        nic: common(device.mac, Some(local)),
        device,
        group: group.iter().map(|member| pci(member)).collect(),
        from_host: false,
    }
}

fn virtual_of(pf: &str, address: &str, vlan: u64, own: &str) -> NicPlan {
    NicPlan::Vf {
        pf: device(pf),
        index: 0,
        address: pci(address),
        vlan: Some(VlanId::new(vlan).unwrap()),
        rules: bmslice_spec::VfRules::default(),
        nic: common(Some(mac(own)), Some(true)),
    }
}

struct Placed<'a> {
    vcpus: &'a [u32],
    pool: &'a str,
    idle: &'a str,
    seen: [u32; 3],
    cells: &'a [(u32, &'a str)],
    nics: Vec<NicPlan>,
}

fn placed(spec: &SliceSpec, uuid: u8, at: Placed<'_>) -> SlicePlan {
    let name = &spec.name;
    let share = ByteSize::from_bytes(spec.memory.bytes() / at.cells.len() as u64);
    let [sockets, cores, threads] = at.seen;
    SlicePlan {
        name: name.clone(),
        tenant: spec.tenant.clone(),
        uuid: format!("8c7f3c3e-6a0b-5a3e-9b0e-0000000000{uuid:02x}"),
        machine: spec.machine,
        smt: spec.smt,
        partition: None,
        topology: GuestTopology {
            sockets,
            cores,
            threads,
        },
        cpu_features: vec![],
        cells: at
            .cells
            .iter()
            .map(|(node, vcpus)| GuestCell {
                node: NumaNodeId(*node),
                vcpus: cpus(vcpus),
                memory: share,
            })
            .collect(),
        vcpus: at.vcpus.iter().map(|n| cpu(*n)).collect(),
        emulator: cpus(at.pool),
        iothreads: vec![cpus(at.pool)],
        pool_is_host: spec.emulator_cores == 0,
        pool_is_shared: false,
        shared_siblings: CpuSet::new(),
        idle: cpus(at.idle),
        memory: spec.memory,
        huge_pages: spec.hugepages,
        nics: at.nics,
        disk: DiskPlan {
            path: format!("/images/{name}.qcow2"),
            base: "/images/base.qcow2".into(),
            size: spec.image.size,
            from: spec.image.from.clone(),
            setup: spec.image.setup,
            seed: (spec.image.setup == Setup::CloudInit).then(|| format!("/images/{name}.iso")),
        },
        guest: spec.guest.clone(),
        autostart: spec.autostart,
        up_within_seconds: spec.up_within_seconds,
    }
}

fn slices() -> Vec<SlicePlan> {
    let specs = slice_specs();
    let virtio = NicPlan::Virtio {
        network: "default".into(),
        nic: common(Some(mac("52:54:00:aa:00:04")), None),
    };
    let at = [
        Placed {
            vcpus: &[1, 15, 2, 16],
            pool: "3,17",
            idle: "",
            seen: [1, 2, 2],
            cells: &[(0, "0-3")],
            nics: vec![
                taken("0000:41:00.1", &[], true),
                virtual_of("0000:41:00.0", "0000:41:10.0", 101, "52:54:00:aa:00:01"),
            ],
        },
        Placed {
            vcpus: &[8, 22, 9],
            pool: "10,24",
            idle: "23",
            seen: [1, 3, 1],
            cells: &[(1, "0-2")],
            nics: vec![
                taken("0000:81:00.0", &["0000:81:00.1"], true),
                virtual_of("0000:82:00.0", "0000:82:10.0", 102, "52:54:00:aa:00:02"),
            ],
        },
        Placed {
            vcpus: &[4],
            pool: "0,7,14,21",
            idle: "18",
            seen: [1, 1, 1],
            cells: &[(0, "0")],
            nics: vec![taken("0000:83:00.0", &[], false)],
        },
        Placed {
            vcpus: &[5, 19, 11, 25],
            pool: "6,20",
            idle: "",
            seen: [2, 2, 1],
            cells: &[(0, "0-1"), (1, "2-3")],
            nics: vec![virtio],
        },
    ];
    let numbered = specs.iter().zip(1..).zip(at);
    numbered
        .map(|((spec, uuid), at)| placed(spec, uuid, at))
        .collect()
}

pub fn parts() -> PlanParts {
    let inventory = inventory();
    let args = "intel_iommu=on iommu=pt isolcpus=domain,managed_irq,1-6,8-13,15-20,22-27 \
                irqaffinity=0,7,14,21 hugepagesz=1G hugepages=0:2 nosmt=force";
    let split = ["0000:41:00.0", "0000:82:00.0"].map(|pf| SplitPlan {
        device: device(pf),
        vfs: 1,
    });
    let pages = |node, size, count, at_boot| HugePagePlan {
        node: NumaNodeId(node),
        size,
        count,
        at_boot,
    };
    PlanParts {
        format: bmslice_plan::FORMAT.into(),
        spec_digest: spec().digest.clone(),
        server: ServerRef {
            hostname: inventory.machine.hostname.clone(),
            fingerprint: Fingerprint::of(&inventory),
        },
        follows: None,
        host: HostPlan {
            cpus: cpus("0,7,14,21"),
            isolated: cpus("1-6,8-13,15-20,22-27"),
            free: cpus("12-13,26-27"),
            isolation: Isolation::Boot,
            settings: bmslice_spec::KernelSettings::default(),
            kernel_args: args
                .parse::<KernelCmdline>()
                .unwrap()
                .iter()
                .cloned()
                .collect(),
            huge_pages: vec![
                pages(0, ByteSize::from_gib(1), 2, true),
                pages(1, ByteSize::from_mib(2), 512, false),
            ],
            split: split.to_vec(),
            queues: vec![],
            images: "/images".into(),
            fall_back_minutes: 10,
        },
        slices: slices(),
        report: Report {
            findings: vec![Finding {
                slice: Some("green".parse().unwrap()),
                level: Level::Warning,
                code: "remote-device".into(),
                text: "0000:83:00.0 is on node 1, the slice on node 0".into(),
            }],
        },
    }
}
