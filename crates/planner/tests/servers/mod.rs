//! Made-up servers and slices, and a server on which a plan took effect.
#![allow(dead_code, reason = "each test file uses its own part")]

use bmslice_inventory::{
    BootFacts, BootLoader, Cache, CacheKind, Cpu, DomainFacts, FORMAT, HugePagePool,
    HypervisorFacts, Inventory, LibvirtFacts, MachineFacts, NetInterface, NumaNode, PciFunction,
    Sriov,
};
use bmslice_model::{ByteSize, CpuId, CpuSet, IommuGroupId, KernelCmdline, NumaNodeId, PciAddress};
use bmslice_plan::{NicPlan, Plan};
use bmslice_planner::plan_with;
use bmslice_planner::servers::{Member, Options, Placement, plan_servers};
use bmslice_spec::{
    GuestMachine, GuestSpec, HostSpec, ImageFrom, ImageSpec, Isolation, NicChoice, NicKind,
    NicNuma, NicSpec, Numa, Setup, Sharing, SliceSpec, Slicing, Smt, VcpuOrder,
};

pub fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

pub fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

/// The shape of a server.
#[derive(Debug, Clone)]
pub struct Shape {
    pub nodes: u32,
    pub cores: u32,
    pub threads: u32,
    /// Cores that share an L3; 0 tells no cache.
    pub l3: u32,
    /// Whether siblings have consecutive numbers.
    pub consecutive: bool,
    /// Numbers left out before each node's CPUs.
    pub gap: u32,
    pub memory: ByteSize,
}

impl Shape {
    /// The emulated server of the lab: 2 × 6 × 2, siblings side by side, 4 GiB per node.
    pub fn lab() -> Self {
        Self {
            nodes: 2,
            cores: 6,
            threads: 2,
            l3: 6,
            consecutive: true,
            gap: 0,
            memory: ByteSize::from_mib(3990),
        }
    }

    pub fn server(&self) -> Inventory {
        let Self {
            nodes,
            cores,
            threads,
            l3,
            consecutive,
            gap,
            memory,
        } = *self;
        let number = |node: u32, core: u32, thread: u32| {
            let at = node * cores + core;
            let plain = if consecutive {
                at * threads + thread
            } else {
                thread * nodes * cores + at
            };
            cpu(plain + gap * (if consecutive { node } else { 0 }))
        };
        let mut cpus = Vec::new();
        let mut caches = Vec::new();
        let mut numa = Vec::new();
        for node in 0..nodes {
            let mut here = CpuSet::new();
            for core in 0..cores {
                let siblings: CpuSet = (0..threads).map(|t| number(node, core, t)).collect();
                here.extend_from(&siblings);
                cpus.extend(siblings.iter().map(|id| Cpu {
                    id,
                    online: true,
                    allowed: true,
                    package: Some(node),
                    die: None,
                    core: Some(core),
                    node: Some(NumaNodeId(node)),
                    siblings: siblings.clone(),
                    ..Cpu::default()
                }));
            }
            if l3 > 0 {
                for first in (0..cores).step_by(l3 as usize) {
                    let shared = (first..(first + l3).min(cores))
                        .flat_map(|core| (0..threads).map(move |t| (core, t)))
                        .map(|(core, t)| number(node, core, t));
                    caches.push(Cache {
                        level: 3,
                        kind: CacheKind::Unified,
                        size: Some(ByteSize::from_mib(16)),
                        cpus: shared.collect(),
                    });
                }
            }
            numa.push(NumaNode {
                id: NumaNodeId(node),
                cpus: here,
                memory_total: memory,
                memory_free: memory,
                huge_pages: [ByteSize::from_mib(2), ByteSize::from_gib(1)]
                    .into_iter()
                    .map(|size| HugePagePool {
                        size,
                        total: 0,
                        free: 0,
                        ..HugePagePool::default()
                    })
                    .collect(),
                distances: (0..nodes)
                    .map(|n| if n == node { 10 } else { 21 })
                    .collect(),
                ..NumaNode::default()
            });
        }
        cpus.sort_by_key(|cpu| cpu.id);
        Inventory {
            format: FORMAT.into(),
            machine: MachineFacts {
                hostname: "server1".into(),
                architecture: "x86_64".into(),
                cpu_vendor: Some("GenuineIntel".into()),
                guest: Some(false),
                ..MachineFacts::default()
            },
            cpus,
            caches,
            nodes: numa,
            pci: Vec::new(),
            interfaces: Vec::new(),
            boot: BootFacts {
                cmdline: "root=/dev/sda1 quiet".parse().unwrap(),
                loader: BootLoader::Grub {
                    config: "/boot/grub/grub.cfg".into(),
                    drop_ins: Some("/etc/default/grub.d".into()),
                },
                isolated: CpuSet::new(),
                nohz_full: CpuSet::new(),
                iommu: true,
                iommu_tables: Some(vec!["DMAR".into()]),
                cgroup: Some(2),
            },
            hypervisor: HypervisorFacts {
                libvirt: Some(LibvirtFacts {
                    version: "9.0.0".into(),
                    qemu: Some("7.2.0".into()),
                    kvm: true,
                    domains: Vec::new(),
                }),
                ..HypervisorFacts::default()
            },
            ..Inventory::default()
        }
    }
}

/// Puts a network card into a server: its function and its interface, in a group of its own.
pub fn add_nic(server: &mut Inventory, address: &str, name: &str, node: Option<u32>, vfs: u32) {
    let address = pci(address);
    let last = u8::try_from(server.pci.len()).unwrap();
    let mac = bmslice_model::MacAddress::new([0x52, 0x54, 0, 0, 0, last]);
    let group = server
        .boot
        .iommu
        .then_some(IommuGroupId(u32::from(last) + 10));
    server.pci.push(PciFunction {
        address,
        id: "8086:10c9".parse().unwrap(),
        class: "0x020000".into(),
        name: Some("82576 Gigabit Network Connection".into()),
        driver: Some("igb".into()),
        node: node.map(NumaNodeId),
        iommu_group: group,
        rmrr: false,
        upstream: Vec::new(),
        sriov: (vfs > 0).then_some(Sriov {
            total: vfs,
            current: 0,
            offset: Some(384),
            stride: Some(2),
            vf_device: Some("10ca".into()),
            autoprobe: Some(true),
            vfs: Vec::new(),
        }),
        physfn: None,
        interfaces: vec![name.into()],
        mac: Some(mac),
        ..PciFunction::default()
    });
    server.interfaces.push(NetInterface {
        name: name.into(),
        // As systemd names it by its place.
        altnames: vec![
            format!("alt-{name}"),
            format!("enp{}s{}", address.bus(), address.device()),
        ],
        mac: Some(mac),
        pci: Some(address),
        state: Some("up".into()),
        carrier: Some(true),
        speed: Some(1000),
        mtu: Some(1500),
        master: None,
        lower: Vec::new(),
        default_route: false,
        ..NetInterface::default()
    });
    server.pci.sort_by_key(|f| f.address);
}

/// The lab's server: two SR-IOV NICs on each node, a management NIC that is the host's.
pub fn lab() -> Inventory {
    let mut server = Shape::lab().server();
    add_nic(&mut server, "0000:00:02.0", "mgmt0", None, 0);
    add_nic(&mut server, "0000:41:00.0", "n0p0", Some(0), 7);
    add_nic(&mut server, "0000:42:00.0", "n0p1", Some(0), 7);
    add_nic(&mut server, "0000:81:00.0", "n1p0", Some(1), 7);
    add_nic(&mut server, "0000:82:00.0", "n1p1", Some(1), 7);
    function(&mut server, "0000:00:02.0").host_needs =
        vec![bmslice_inventory::HostNeed::DefaultRoute {
            interface: "mgmt0".into(),
        }];
    server
}

pub fn function<'a>(server: &'a mut Inventory, address: &str) -> &'a mut PciFunction {
    let address = pci(address);
    let found = server.pci.iter_mut().find(|f| f.address == address);
    found.unwrap()
}

/// A slice with the defaults of a spec.
pub fn slice(name: &str, vcpus: u32) -> SliceSpec {
    SliceSpec {
        name: name.parse().unwrap(),
        tenant: name.parse().unwrap(),
        vcpus,
        smt: Smt::Pack,
        vcpu_order: VcpuOrder::SiblingsAdjacent,
        emulator_cores: 1,
        sharing: Sharing::None,
        shared_pool: false,
        iothreads: 1,
        memory: ByteSize::from_gib(1),
        hugepages: Some(ByteSize::from_gib(1)),
        numa: Numa::Single,
        nics: Vec::new(),
        image: ImageSpec {
            base: "base.qcow2".into(),
            size: ByteSize::from_gib(8),
            from: ImageFrom::Overlay,
            setup: Setup::CloudInit,
        },
        guest: GuestSpec {
            hostname: name.to_ascii_lowercase(),
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

pub fn spec(slices: Vec<SliceSpec>) -> Slicing {
    Slicing::new(HostSpec::default(), slices).unwrap()
}

pub fn card(kind: NicKind) -> NicSpec {
    NicSpec {
        kind,
        fabric: None,
        network: None,
        take_from_host: false,
    }
}

pub fn whole(device: NicChoice) -> NicSpec {
    card(NicKind::Passthrough { device })
}

pub fn vf(of: NicChoice) -> NicSpec {
    card(NicKind::Vf {
        of,
        vlan: None,
        mac: None,
        rules: bmslice_spec::VfRules::default(),
    })
}

pub fn by_name(name: &str) -> NicChoice {
    NicChoice::Name(name.into())
}

pub fn by_address(address: &str) -> NicChoice {
    NicChoice::Pci(pci(address))
}

pub fn need(numa: NicNuma) -> NicChoice {
    NicChoice::Need { speed: None, numa }
}

/// The server once a plan took effect: booted with its arguments, pages and VFs made, devices
/// bound to vfio-pci and so without a name, domains running.
pub fn applied(before: &Inventory, plan: &Plan) -> Inventory {
    let mut server = before.clone();
    let host = plan.host();
    let args: KernelCmdline = before
        .boot
        .cmdline
        .iter()
        .chain(&host.kernel_args)
        .cloned()
        .collect();
    server.boot.cmdline = args;
    match host.isolation {
        Isolation::Boot => server.boot.isolated = host.isolated.clone(),
        // The partition's CPUs are nobody else's.
        Isolation::Dynamic => {
            for cpu in server
                .cpus
                .iter_mut()
                .filter(|cpu| host.isolated.contains(cpu.id))
            {
                cpu.allowed = false;
            }
        }
        Isolation::None => {}
    }
    server.boot.iommu = true;
    for pages in &host.huge_pages {
        let node = server
            .nodes
            .iter_mut()
            .find(|n| n.id == pages.node)
            .unwrap();
        // Memory differs a little from boot to boot.
        node.memory_total = ByteSize::from_kib(node.memory_total.kib() - 64);
        let pool = node.huge_pages.iter_mut().find(|p| p.size == pages.size);
        let pool = pool.unwrap();
        pool.total = pool.total.max(pages.count);
        let slices = plan.slices().iter();
        let used: u64 = slices.map(|it| it.pages_on(pages.node, pages.size)).sum();
        pool.free = pool.total - used;
    }
    let mut group = 100;
    for split in &host.split {
        let made: Vec<PciAddress> = (0..split.vfs)
            .map(|index| vf_place(before, split.device.address, index))
            .collect();
        let pf = server
            .pci
            .iter_mut()
            .find(|f| f.address == split.device.address);
        let pf = pf.unwrap();
        let sriov = pf.sriov.as_mut().unwrap();
        sriov.current = split.vfs;
        sriov.vfs = made.clone();
        let template = pf.clone();
        for address in made {
            group += 1;
            if server.pci.iter().any(|f| f.address == address) {
                continue;
            }
            server.pci.push(PciFunction {
                address,
                id: "8086:10ca".parse().unwrap(),
                driver: Some("igbvf".into()),
                iommu_group: Some(IommuGroupId(group)),
                sriov: None,
                physfn: Some(template.address),
                interfaces: Vec::new(),
                mac: None,
                ..template.clone()
            });
        }
    }
    server.pci.sort_by_key(|f| f.address);
    let mut next = 200;
    for f in &mut server.pci {
        next += 1;
        f.iommu_group = f.iommu_group.or(Some(IommuGroupId(next)));
    }
    let libvirt = server.hypervisor.libvirt.as_mut().unwrap();
    for slice in plan.slices() {
        let mut cpus = slice.vcpu_cpus();
        cpus.extend_from(&slice.pool());
        let devices: Vec<PciAddress> = slice.nics.iter().flat_map(NicPlan::functions).collect();
        for address in &devices {
            if let Some(f) = server.pci.iter_mut().find(|f| f.address == *address) {
                f.driver = Some("vfio-pci".into());
                f.interfaces.clear();
                f.mac = None;
            }
            server.interfaces.retain(|i| i.pci != Some(*address));
        }
        libvirt.domains.retain(|d| d.name != slice.name.as_str());
        libvirt.domains.push(DomainFacts {
            name: slice.name.to_string(),
            uuid: slice.uuid.clone(),
            running: true,
            autostart: true,
            cpus,
            devices,
            ..DomainFacts::default()
        });
    }
    server
}

/// Where a virtual function will be (SR-IOV capability of PCI Express).
fn vf_place(server: &Inventory, pf: PciAddress, index: u32) -> PciAddress {
    let function = server.pci.iter().find(|f| f.address == pf).unwrap();
    let sriov = function.sriov.as_ref().unwrap();
    if let Some(there) = sriov.vfs.get(index as usize) {
        return *there;
    }
    let id = (u32::from(pf.bus()) * 256 + u32::from(pf.device()) * 8 + u32::from(pf.function()))
        + sriov.offset.unwrap()
        + sriov.stride.unwrap() * index;
    let byte = |n: u32| u8::try_from(n).unwrap();
    PciAddress::new(
        pf.domain(),
        byte(id / 256),
        byte(id % 256 / 8),
        byte(id % 8),
    )
    .unwrap()
}

/// A server as the lab's (two nodes, five free cores each, two NICs each) of another name.
pub fn named(name: &str) -> Inventory {
    let mut server = lab();
    server.machine.hostname = name.into();
    server
}

pub fn fleet(names: &[&str]) -> Vec<Inventory> {
    names.iter().map(|name| named(name)).collect()
}

/// Places a spec on servers, and holds each share against the checker and against planning it alone.
pub fn place_with(
    spec: &Slicing,
    servers: &[Inventory],
    in_force: &[Option<Plan>],
    options: Options,
) -> Placement {
    let members: Vec<Member<'_>> = servers
        .iter()
        .enumerate()
        .map(|(at, inventory)| Member {
            inventory,
            previous: in_force.get(at).and_then(Option::as_ref),
        })
        .collect();
    let placement = plan_servers(spec, &members, options).unwrap();
    for (member, share) in members.iter().zip(&placement.shares) {
        let (Some(part), Some(plan)) = (&share.spec, &share.plan) else {
            continue;
        };
        let (server, in_force) = (member.inventory, member.previous);
        let violations = bmslice_check::check_following(part, server, plan, in_force);
        assert!(violations.is_empty(), "{violations:#?}");
        let alone = plan_with(part, server, in_force, options.running).unwrap();
        assert_eq!(plan.to_json(), alone.to_json(), "the same as planned alone");
    }
    assert!(placement.bound >= placement.placed() as u64);
    assert_eq!(
        placement.placed() + placement.unplaced.len(),
        spec.slices.len()
    );
    placement
}
