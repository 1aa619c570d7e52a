//! Plans to render: the seed's, and random ones.

#![allow(dead_code, reason = "each test file uses its part")]

use bmslice_model::{ByteSize, CpuId, CpuSet, MacAddress, NumaNodeId, PciAddress, VlanId};
use bmslice_plan::{
    DeviceRef, DiskPlan, FORMAT, Fingerprint, GuestCell, GuestTopology, HostPlan, HugePagePlan,
    NicCommon, NicPlan, Plan, PlanParts, Report, ServerRef, SlicePlan, SplitPlan,
};
use bmslice_spec::{
    GuestMachine, GuestNetwork, GuestSpec, GuestUser, ImageFrom, Isolation, Setup, Smt,
};
use proptest::prelude::*;

pub fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn numbers(list: &[u32]) -> Vec<CpuId> {
    list.iter().map(|n| CpuId::new(*n).unwrap()).collect()
}

pub fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn x540(function: &str, mac: &str, interface: &str) -> DeviceRef {
    DeviceRef {
        address: pci(function),
        id: "8086:1528".parse().unwrap(),
        mac: Some(mac.parse().unwrap()),
        interface: Some(interface.into()),
        driver: Some("ixgbe".into()),
        node: Some(NumaNodeId(0)),
    }
}

fn seed_slice(
    name: &str,
    node: u32,
    vcpus: &[u32],
    pool: &str,
    uuid: &str,
    device: DeviceRef,
) -> SlicePlan {
    SlicePlan {
        name: name.parse().unwrap(),
        tenant: name.split('_').next().unwrap().parse().unwrap(),
        uuid: uuid.into(),
        machine: GuestMachine::Pc,
        smt: Smt::Pack,
        partition: None,
        topology: GuestTopology {
            sockets: 1,
            cores: 8,
            threads: 1,
        },
        cpu_features: vec![],
        cells: vec![GuestCell {
            node: NumaNodeId(node),
            vcpus: cpus("0-7"),
            memory: ByteSize::from_gib(8),
        }],
        vcpus: numbers(vcpus),
        emulator: cpus(pool),
        iothreads: vec![cpus(pool)],
        pool_is_host: false,
        pool_is_shared: false,
        shared_siblings: CpuSet::new(),
        idle: CpuSet::new(),
        memory: ByteSize::from_gib(8),
        huge_pages: None,
        nics: vec![NicPlan::Passthrough {
            nic: NicCommon {
                mac: device.mac,
                local: Some(device.node == Some(NumaNodeId(node))),
                fabric: None,
                network: None,
            },
            device,
            group: vec![],
            from_host: false,
        }],
        disk: DiskPlan {
            path: format!("/var/lib/libvirt/images/{name}.qcow2"),
            base: "/var/lib/libvirt/images/CentOS-7-x86_64-GenericCloud-1811.qcow2".into(),
            size: ByteSize::from_gib(100),
            from: ImageFrom::Resize {
                expand: "/dev/sda1".into(),
            },
            setup: Setup::VirtCustomize,
            seed: None,
        },
        guest: GuestSpec {
            hostname: name.to_lowercase().replace('_', "-"),
            user: Some(GuestUser {
                name: "someuser".into(),
                ssh_keys: vec![],
                password_hash_file: Some("/etc/bmslice/someuser.hash".into()),
                sudo: true,
            }),
            first_commands: vec![],
        },
        autostart: true,
        up_within_seconds: 300,
    }
}

/// The placement that the seed's document made by hand.
pub fn seed() -> Plan {
    let args = ["intel_iommu=on", "isolcpus=domain,managed_irq,2-11,14-23"];
    Plan::new(PlanParts {
        format: FORMAT.into(),
        spec_digest: "sha256:0".into(),
        server: ServerRef {
            hostname: "server1".into(),
            fingerprint: Fingerprint {
                digest: "sha256:0".into(),
                facts: vec![],
            },
        },
        follows: None,
        host: HostPlan {
            cpus: cpus("0-1,12-13"),
            isolated: cpus("2-11,14-23"),
            free: CpuSet::new(),
            isolation: Isolation::Boot,
            settings: bmslice_spec::KernelSettings::default(),
            kernel_args: args.iter().map(|arg| arg.parse().unwrap()).collect(),
            huge_pages: vec![],
            split: vec![],
            queues: vec![],
            images: "/var/lib/libvirt/images".into(),
            fall_back_minutes: 10,
        },
        slices: vec![
            seed_slice(
                "Red_k8s_cluster_worker1",
                0,
                &[4, 6, 8, 10, 16, 18, 20, 22],
                "2,14",
                "8c7f3c3e-6a0b-5a3e-9b0e-2f1f0f6c1a01",
                x540("0000:01:00.0", "bc:30:5b:f2:87:52", "eno1"),
            ),
            seed_slice(
                "Blue_k8s_cluster_worker1",
                1,
                &[5, 7, 9, 11, 17, 19, 21, 23],
                "3,15",
                "8c7f3c3e-6a0b-5a3e-9b0e-2f1f0f6c1a02",
                x540("0000:01:00.1", "bc:30:5b:f2:87:50", "eno2"),
            ),
        ],
        report: Report::default(),
    })
    .unwrap()
}

/// What a random slice is made of; numbers that depend on other slices come later.
#[derive(Debug, Clone)]
struct Draft {
    cells: Vec<(u32, u32)>,
    emulator: usize,
    iothreads: usize,
    pool_is_host: bool,
    idle: usize,
    page: Option<ByteSize>,
    memory: u64,
    machine: GuestMachine,
    smt: Smt,
    nics: Vec<NicDraft>,
    setup: Setup,
    from: ImageFrom,
    text: String,
    user: Option<(bool, Vec<String>)>,
    commands: Vec<String>,
}

#[derive(Debug, Clone)]
enum NicDraft {
    Passthrough(usize),
    Vf(Option<u16>, bool),
    Virtio(String),
}

/// Any text that a user's file can bring: quotes, `$`, `%`, `<`, other scripts, emoji.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,12}",
        "[ -~]{1,24}",
        "[^\\p{Cc}\\u{fffe}\\u{ffff}]{1,12}",
    ]
}

fn nic() -> impl Strategy<Value = NicDraft> {
    prop_oneof![
        (0usize..3).prop_map(NicDraft::Passthrough),
        (proptest::option::of(1u16..4095), any::<bool>())
            .prop_map(|(vlan, trust)| NicDraft::Vf(vlan, trust)),
        text().prop_map(NicDraft::Virtio),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let shape = (
        proptest::collection::vec((0u32..8, 1u32..9), 1..4),
        1usize..4,
        0usize..3,
        any::<bool>(),
        0usize..3,
    );
    let memory = (
        prop_oneof![
            Just(None),
            Just(Some(ByteSize::from_mib(2))),
            Just(Some(ByteSize::from_gib(1)))
        ],
        1u64..64,
    );
    let kinds = (
        prop_oneof![Just(GuestMachine::Q35), Just(GuestMachine::Pc)],
        prop_oneof![Just(Smt::Pack), Just(Smt::Isolate), Just(Smt::Any)],
        proptest::collection::vec(nic(), 0..5),
        prop_oneof![
            Just(Setup::CloudInit),
            Just(Setup::VirtCustomize),
            Just(Setup::None)
        ],
        prop_oneof![
            Just(ImageFrom::Overlay),
            Just(ImageFrom::Copy),
            Just(ImageFrom::Resize {
                expand: "/dev/sda1".into()
            })
        ],
    );
    let guest = (
        text(),
        proptest::option::of((any::<bool>(), proptest::collection::vec(text(), 0..3))),
        proptest::collection::vec(text(), 0..3),
    );
    (shape, memory, kinds, guest).prop_map(
        |(
            (cells, emulator, iothreads, pool_is_host, idle),
            (page, memory),
            (machine, smt, nics, setup, from),
            (text, user, commands),
        )| Draft {
            cells,
            emulator,
            iothreads,
            pool_is_host,
            idle,
            page,
            memory,
            machine,
            smt,
            nics,
            setup,
            from,
            text,
            user,
            commands,
        },
    )
}

/// Gives out CPUs in a shuffled order and PCI functions one after the other, so that no two slices
/// share one.
struct Stock {
    cpus: Vec<u32>,
    next_function: u32,
    split: Vec<SplitPlan>,
}

impl Stock {
    fn take(&mut self, count: usize) -> Vec<CpuId> {
        let rest = self.cpus.split_off(count);
        numbers(&std::mem::replace(&mut self.cpus, rest))
    }

    fn function(&mut self) -> PciAddress {
        let n = self.next_function;
        self.next_function += 1;
        // Some in a domain of its own, as Intel VMD makes them.
        let domain = if n.is_multiple_of(5) { 0x10000 } else { 0 };
        let byte = |shift: u32, mask: u32| u8::try_from((n >> shift) & mask).unwrap();
        PciAddress::new(domain, byte(8, 0xff), byte(3, 0x1f), byte(0, 7)).unwrap()
    }

    fn device(&mut self) -> DeviceRef {
        DeviceRef {
            address: self.function(),
            id: "8086:10c9".parse().unwrap(),
            mac: None,
            interface: None,
            driver: Some("igb".into()),
            node: None,
        }
    }

    fn nic(&mut self, index: usize, draft: &NicDraft) -> NicPlan {
        let last = u8::try_from(index).unwrap();
        let nic = NicCommon {
            mac: Some(MacAddress::new([0x52, 0x54, 0, 1, 2, last])),
            local: None,
            fabric: None,
            network: Some(GuestNetwork {
                dhcp4: index == 0,
                addresses: vec!["192.0.2.10/24".into()],
                gateway4: None,
                nameservers: vec![],
            }),
        };
        match draft {
            NicDraft::Passthrough(group) => NicPlan::Passthrough {
                device: self.device(),
                group: (0..*group).map(|_| self.function()).collect(),
                from_host: false,
                nic,
            },
            NicDraft::Vf(vlan, trust) => {
                let pf = self.device();
                self.split.push(SplitPlan {
                    device: pf.clone(),
                    vfs: 1,
                });
                NicPlan::Vf {
                    pf,
                    index: 0,
                    address: self.function(),
                    vlan: vlan.map(|id| VlanId::new(u64::from(id)).unwrap()),
                    rules: bmslice_spec::VfRules {
                        trust: *trust,
                        ..Default::default()
                    },
                    nic,
                }
            }
            NicDraft::Virtio(network) => NicPlan::Virtio {
                network: network.clone(),
                nic,
            },
        }
    }

    fn slice(&mut self, number: usize, draft: &Draft, host: &CpuSet) -> SlicePlan {
        let count: u32 = draft.cells.iter().map(|(_, vcpus)| vcpus).sum();
        let unit = draft.page.unwrap_or(ByteSize::from_mib(64)).bytes();
        let memory = ByteSize::from_bytes(draft.memory * unit);
        let mut first = 0;
        let mut cells = Vec::new();
        for (node, vcpus) in &draft.cells {
            let ids: Vec<u32> = (first..first + vcpus).collect();
            first += vcpus;
            cells.push(GuestCell {
                node: NumaNodeId(*node),
                vcpus: numbers(&ids).into_iter().collect(),
                memory,
            });
        }
        let total = memory.bytes() * cells.len() as u64;
        let pool = |stock: &mut Self, count: usize| -> CpuSet {
            if draft.pool_is_host {
                host.clone()
            } else {
                stock.take(count).into_iter().collect()
            }
        };
        let emulator = pool(self, draft.emulator);
        let iothreads = (0..draft.iothreads).map(|_| pool(self, 1)).collect();
        let name = format!("slice-{number}.{}", if number == 0 { "A_b" } else { "c" });
        let (user, keys) = match &draft.user {
            Some((hash, keys)) => (Some(*hash), keys.clone()),
            None => (None, vec![]),
        };
        SlicePlan {
            name: name.parse().unwrap(),
            tenant: format!("tenant{number}").parse().unwrap(),
            uuid: format!("8c7f3c3e-6a0b-5a3e-9b0e-{number:012x}"),
            machine: draft.machine,
            smt: draft.smt,
            partition: None,
            topology: GuestTopology {
                sockets: 1,
                cores: count,
                threads: 1,
            },
            cpu_features: if draft.smt == Smt::Pack {
                vec!["topoext".into()]
            } else {
                vec![]
            },
            vcpus: self.take(count as usize),
            cells,
            emulator,
            iothreads,
            pool_is_host: draft.pool_is_host,
            pool_is_shared: false,
            shared_siblings: CpuSet::new(),
            idle: self.take(draft.idle).into_iter().collect(),
            memory: ByteSize::from_bytes(total),
            huge_pages: draft.page,
            nics: draft
                .nics
                .iter()
                .enumerate()
                .map(|(index, nic)| self.nic(index, nic))
                .collect(),
            disk: DiskPlan {
                path: format!("/var/lib/libvirt/images/{}.qcow2", draft.text),
                base: format!("/srv/{}.qcow2", draft.text),
                size: ByteSize::from_gib(20),
                from: draft.from.clone(),
                setup: draft.setup,
                seed: (draft.setup == Setup::CloudInit)
                    .then(|| format!("/var/lib/libvirt/images/{name}-seed.iso")),
            },
            guest: GuestSpec {
                hostname: draft.text.clone(),
                user: user.map(|hash| GuestUser {
                    name: draft.text.clone(),
                    ssh_keys: keys,
                    password_hash_file: hash.then(|| format!("/etc/{}", draft.text)),
                    sudo: hash,
                }),
                first_commands: draft.commands.clone(),
            },
            autostart: draft.pool_is_host,
            up_within_seconds: 300,
        }
    }
}

/// Plans of one to four slices on a machine of 256 CPUs.
pub fn any_plan() -> impl Strategy<Value = Plan> {
    let order = Just((4u32..256).collect::<Vec<u32>>()).prop_shuffle();
    (proptest::collection::vec(draft(), 1..5), order).prop_map(|(drafts, order)| {
        let host = cpus("0-3");
        let mut stock = Stock {
            cpus: order,
            next_function: 0x100,
            split: vec![],
        };
        let slices: Vec<SlicePlan> = drafts
            .iter()
            .enumerate()
            .map(|(number, draft)| stock.slice(number, draft, &host))
            .collect();
        let huge_pages = slices
            .iter()
            .find_map(|s| s.huge_pages)
            .map(|size| HugePagePlan {
                node: NumaNodeId(0),
                size,
                count: 4,
                at_boot: true,
            });
        let parts = PlanParts {
            host: HostPlan {
                cpus: host,
                isolated: cpus("4-255"),
                free: numbers(&stock.cpus).into_iter().collect(),
                huge_pages: huge_pages.into_iter().collect(),
                split: stock.split,
                ..seed().host().clone()
            },
            slices,
            ..seed().into_parts()
        };
        Plan::new(parts).unwrap()
    })
}
