//! A plan file says all that it holds, the same way each time, and is refused when it is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail where it stands"
)]

use bmslice_model::{ByteSize, CpuId, CpuSet, NumaNodeId, PciAddress, VlanId};
use bmslice_plan::{
    DeviceRef, DiskPlan, FORMAT, Finding, Fingerprint, GuestCell, GuestTopology, HostPlan,
    HugePagePlan, Level, NicCommon, NicPlan, Plan, PlanFileError, PlanParts, Report, ServerRef,
    SlicePlan, SplitPlan,
};
use bmslice_spec::{
    FabricSpec, GuestMachine, GuestNetwork, GuestSpec, GuestUser, ImageFrom, Isolation, Setup, Smt,
};

fn cpus(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn pci(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn device(address: &str) -> DeviceRef {
    DeviceRef {
        address: pci(address),
        id: "8086:10c9".parse().unwrap(),
        mac: Some("52:54:00:00:00:01".parse().unwrap()),
        interface: Some("n0p0".into()),
        driver: Some("igb".into()),
        node: Some(NumaNodeId(0)),
    }
}

/// All that a card can have.
fn full() -> NicCommon {
    NicCommon {
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        local: Some(false),
        fabric: Some(FabricSpec {
            port: Some("ge-0/0/9".into()),
            vlan: Some(VlanId::new(101).unwrap()),
            vlan_name: Some("Red".into()),
        }),
        network: Some(GuestNetwork {
            dhcp4: true,
            addresses: vec!["192.0.2.10/24".into()],
            gateway4: Some("192.0.2.1".into()),
            nameservers: vec!["192.0.2.2".into()],
        }),
    }
}

/// As little as a card can have.
fn bare() -> NicCommon {
    NicCommon {
        mac: None,
        local: None,
        fabric: None,
        network: None,
    }
}

fn slice(name: &str, vcpus: &[u8], pool: &str, idle: &str, nics: Vec<NicPlan>) -> SlicePlan {
    let numbers = 0..u32::try_from(vcpus.len()).unwrap();
    SlicePlan {
        name: name.parse().unwrap(),
        tenant: "red".parse().unwrap(),
        uuid: "ce7be808-44fb-5d4c-a8a4-4ec96eea4453".into(),
        machine: GuestMachine::Q35,
        smt: Smt::Pack,
        partition: None,
        topology: GuestTopology {
            sockets: 1,
            cores: u32::try_from(vcpus.len()).unwrap(),
            threads: 1,
        },
        cpu_features: vec!["topoext".into()],
        cells: vec![GuestCell {
            node: NumaNodeId(0),
            vcpus: numbers.map(|n| CpuId::new(n).unwrap()).collect(),
            memory: ByteSize::from_gib(2),
        }],
        vcpus: vcpus.iter().map(|&n| CpuId::from(n)).collect(),
        emulator: cpus(pool),
        iothreads: vec![cpus(pool)],
        pool_is_host: false,
        pool_is_shared: false,
        shared_siblings: CpuSet::new(),
        idle: cpus(idle),
        memory: ByteSize::from_gib(2),
        huge_pages: Some(ByteSize::from_gib(1)),
        nics,
        disk: DiskPlan {
            path: format!("/images/{name}.qcow2"),
            base: "/images/base.qcow2".into(),
            size: ByteSize::from_gib(8),
            from: ImageFrom::Resize {
                expand: "/dev/sda1".into(),
            },
            setup: Setup::CloudInit,
            seed: Some(format!("/images/{name}-seed.iso")),
        },
        guest: GuestSpec {
            hostname: name.into(),
            user: Some(GuestUser {
                name: "ops".into(),
                ssh_keys: vec!["ssh-ed25519 AAAA".into()],
                password_hash_file: Some("/etc/hash".into()),
                sudo: true,
            }),
            first_commands: vec!["true".into()],
        },
        autostart: true,
        up_within_seconds: 300,
    }
}

/// A plan with every kind of card, each once with all that it can have and once with the least.
fn parts() -> PlanParts {
    let passthrough = |address: &str, group: &[&str], nic| NicPlan::Passthrough {
        device: device(address),
        group: group.iter().map(|address| pci(address)).collect(),
        from_host: false,
        nic,
    };
    let vf = |index, address: &str, vlan, nic| NicPlan::Vf {
        pf: device("0000:81:00.0"),
        index,
        address: pci(address),
        vlan,
        rules: bmslice_spec::VfRules {
            trust: true,
            ..Default::default()
        },
        nic,
    };
    let virtio = |nic| NicPlan::Virtio {
        network: "default".into(),
        nic,
    };
    let anonymous = NicPlan::Passthrough {
        device: DeviceRef {
            mac: None,
            interface: None,
            driver: None,
            node: None,
            ..device("0000:43:00.0")
        },
        group: Vec::new(),
        from_host: false,
        nic: bare(),
    };
    PlanParts {
        format: FORMAT.into(),
        spec_digest: "sha256:0".into(),
        server: ServerRef {
            hostname: "server1".into(),
            fingerprint: Fingerprint {
                digest: "sha256:1".into(),
                facts: vec!["core 0,6 on node 0".into()],
            },
        },
        follows: Some("sha256:2".into()),
        host: HostPlan {
            cpus: cpus("0,6"),
            isolated: cpus("1-5,7-11"),
            free: cpus("5,11"),
            isolation: Isolation::Boot,
            settings: bmslice_spec::KernelSettings::default(),
            kernel_args: vec!["isolcpus=domain,managed_irq,1-5,7-11".parse().unwrap()],
            huge_pages: vec![HugePagePlan {
                node: NumaNodeId(0),
                size: ByteSize::from_gib(1),
                count: 4,
                at_boot: true,
            }],
            split: vec![SplitPlan {
                device: device("0000:81:00.0"),
                vfs: 2,
            }],
            queues: vec![],
            images: "/images".into(),
            fall_back_minutes: 10,
        },
        slices: vec![
            slice(
                "red",
                &[2, 8],
                "1,7",
                "",
                vec![
                    passthrough("0000:41:00.0", &["0000:41:00.1"], full()),
                    anonymous,
                    vf(0, "0000:82:10.0", Some(VlanId::new(102).unwrap()), full()),
                ],
            ),
            slice(
                "blue",
                &[3],
                "4,10",
                "9",
                vec![
                    vf(1, "0000:82:10.2", None, bare()),
                    virtio(full()),
                    virtio(bare()),
                ],
            ),
        ],
        report: Report {
            findings: vec![
                Finding {
                    slice: None,
                    level: Level::Info,
                    code: "utilisation".into(),
                    text: "of 12 CPUs …".into(),
                },
                Finding {
                    slice: Some("red".parse().unwrap()),
                    level: Level::Warning,
                    code: "remote-device".into(),
                    text: "its NIC …".into(),
                },
            ],
        },
    }
}

#[test]
fn every_kind_of_card_is_read_as_it_was_written() {
    let plan = Plan::new(parts()).unwrap();
    let read = Plan::parse(&plan.to_json()).unwrap();
    assert_eq!(read, plan);
    assert_eq!(read.into_parts(), parts());
}

#[test]
fn the_same_plan_has_the_same_bytes() {
    let plan = Plan::new(parts()).unwrap();
    let text = plan.to_json();
    assert_eq!(Plan::parse(&text).unwrap().to_json(), text);
    // The order of keys and the white space of a file that somebody wrote are not the plan's.
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_ne!(value.to_string(), text);
    let again = Plan::parse(&value.to_string()).unwrap();
    assert_eq!((again.to_json(), again.digest()), (text, plan.digest()));
    let mut other = parts();
    other.slices[0].autostart = false;
    assert_ne!(Plan::new(other).unwrap().digest(), plan.digest());
}

fn refused(change: impl FnOnce(&mut PlanParts)) -> PlanFileError {
    let mut parts = parts();
    change(&mut parts);
    let text = serde_json::to_string(&parts).unwrap();
    let error = Plan::parse(&text).unwrap_err();
    assert_eq!(error.to_string(), Plan::new(parts).unwrap_err().to_string());
    error
}

#[test]
fn two_owners_of_a_cpu_are_refused_by_name() {
    let says = |change: fn(&mut PlanParts)| refused(change).to_string();
    assert_eq!(
        says(|p| p.slices[1].vcpus[0] = CpuId::from(8)),
        "in the plan, CPUs 8 belong to the vCPUs of `red` and to the vCPUs of `blue`"
    );
    assert_eq!(
        says(|p| p.slices[1].emulator = cpus("0,10")),
        "in the plan, CPUs 0 belong to the host and to the emulator and IOThreads of `blue`"
    );
    assert_eq!(
        says(|p| p.slices[0].iothreads.push(cpus("11"))),
        "in the plan, CPUs 11 belong to nobody and to the emulator and IOThreads of `red`"
    );
    assert_eq!(
        says(|p| p.slices[1].idle = cpus("2,9")),
        "in the plan, CPUs 2 belong to the vCPUs of `red` and to the idle siblings of `blue`"
    );
    assert_eq!(
        says(|p| p.slices[0].vcpus[1] = CpuId::from(2)),
        "in the plan, CPUs 2 belong to a vCPU of `red` and to another one of its vCPUs"
    );
    assert_eq!(
        says(|p| p.host.free = cpus("5-6")),
        "in the plan, CPUs 6 belong to the host and to nobody"
    );
}

#[test]
fn a_pool_on_the_hosts_cpus_is_shared_with_the_host_and_others() {
    let mut parts = parts();
    for slice in &mut parts.slices {
        slice.pool_is_host = true;
        slice.emulator = cpus("0,6");
        slice.iothreads = vec![cpus("0,6")];
    }
    let plan = Plan::new(parts).unwrap();
    assert_eq!(plan.slices()[0].owned(), cpus("2,8"));
    assert_eq!(plan.slices()[0].pool(), cpus("0,6"));
}

#[test]
fn a_pool_may_be_one_tenants_and_is_one_owner() {
    let share = |parts: &mut PlanParts| {
        for slice in &mut parts.slices {
            slice.tenant = "red".parse().unwrap();
            slice.pool_is_shared = true;
            slice.emulator = cpus("1,7");
            slice.iothreads = vec![cpus("1,7")];
        }
    };
    let mut shared = parts();
    share(&mut shared);
    let plan = Plan::new(shared.clone()).unwrap();
    let [a, b] = plan.slices() else { panic!("two") };
    assert!(a.shares_pool_with(b) && b.shares_pool_with(a));
    assert_eq!(a.owned(), cpus("2,8"));
    assert_eq!(a.held(), cpus("1-2,7-8"));
    assert_eq!(Plan::parse(&plan.to_json()).unwrap(), plan);

    shared.slices[1].tenant = "blue".parse().unwrap();
    assert_eq!(
        Plan::new(shared.clone()).unwrap_err().to_string(),
        "in the plan, CPUs 1,7 belong to the pool of tenant `red` and to the pool of tenant `blue`"
    );
    share(&mut shared);
    shared.slices[1].emulator = cpus("1");
    shared.slices[1].iothreads = vec![cpus("1")];
    assert!(matches!(
        Plan::new(shared),
        Err(PlanFileError::Shared { .. })
    ));
}

#[test]
fn names_functions_and_vcpu_numbers_are_unique() {
    let name = refused(|p| p.slices[1].name = p.slices[0].name.clone());
    assert!(matches!(name, PlanFileError::Duplicate(name) if name.as_str() == "red"));
    let twice = refused(|p| {
        let card = p.slices[0].nics[0].clone();
        p.slices[1].nics.push(card);
    });
    assert!(matches!(twice, PlanFileError::Device(address) if address == pci("0000:41:00.0")));
    let member = refused(|p| {
        let NicPlan::Vf { address, .. } = &mut p.slices[1].nics[0] else {
            panic!("a part")
        };
        *address = pci("0000:41:00.1");
    });
    assert!(matches!(member, PlanFileError::Device(address) if address == pci("0000:41:00.1")));
    for vcpus in ["", "0", "1-2", "0-2"] {
        let holes = refused(|p| p.slices[0].cells[0].vcpus = cpus(vcpus));
        assert!(matches!(holes, PlanFileError::Numbering(_)), "{vcpus}");
    }
    let nowhere = refused(|p| p.slices[0].cells.clear());
    assert!(matches!(nowhere, PlanFileError::Numbering(_)));
}

#[test]
fn other_formats_and_unknown_fields_are_refused() {
    let text = Plan::new(parts()).unwrap().to_json();
    let read = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        Plan::parse(&changed).unwrap_err().to_string()
    };
    assert_eq!(
        read("plan/v1", "plan/v2"),
        "the plan has format `bmslice/plan/v2`; this bmslice reads `bmslice/plan/v1`"
    );
    // A later format may have fields that this one does not know: its name is the news.
    let later = text.replacen(
        "\"format\": \"bmslice/plan/v1\"",
        "\"format\": \"bmslice/plan/v2\", \"more\": 1",
        1,
    );
    assert!(matches!(
        Plan::parse(&later).unwrap_err(),
        PlanFileError::Format { .. }
    ));
    assert!(read("\"follows\"", "\"folows\"").contains("unknown field `folows`"));
    assert_eq!(
        read("\"vlan\": 102", "\"vlna\": 102"),
        "the plan has a field `slices[0].nics[2].vlna`, which this bmslice does not know"
    );
    assert!(read("\"kind\": \"vf\"", "\"kind\": \"vfio\"").contains("unknown variant `vfio`"));
    assert!(read("\"index\": 0,", "").contains("missing field `index`"));
    assert!(matches!(
        Plan::parse("{").unwrap_err(),
        PlanFileError::Malformed(_)
    ));
}

#[test]
fn siblings_are_shared_by_two_of_a_tenant_that_say_so_of_each_other() {
    // `red` has CPUs 2 and 8; say that beside its vCPU 2 runs `blue`'s first.
    let theirs = CpuSet::from(parts().slices[1].vcpus[0]);
    let share = |parts: &mut PlanParts| {
        parts.slices[1].tenant = "red".parse().unwrap();
        parts.slices[0].shared_siblings = CpuSet::from(parts.slices[1].vcpus[0]);
        parts.slices[1].shared_siblings = cpus("2");
    };
    let mut shared = parts();
    share(&mut shared);
    let plan = Plan::new(shared).unwrap();
    let [a, b] = plan.slices() else { panic!("two") };
    assert!(a.shares_a_core_with(b) && b.shares_a_core_with(a));
    assert!(a.owned().is_disjoint(&theirs), "the other's all the same");
    assert_eq!(a.siblings(), a.idle.union(&theirs));
    assert!(plan.to_json().contains("\"sharedSiblings\""));
    assert_eq!(Plan::parse(&plan.to_json()).unwrap(), plan);
    let nobodys = Plan::new(parts()).unwrap().to_json();
    assert!(!nobodys.contains("sharedSiblings"), "as it was without");

    let says = |change: fn(&mut PlanParts)| {
        refused(|parts| {
            share(parts);
            change(parts);
        })
        .to_string()
    };
    assert!(
        says(|p| p.slices[1].tenant = "blue".parse().unwrap())
            .starts_with("in the plan, slice `red` has a vCPU beside CPU ")
    );
    assert!(says(|p| p.slices[1].shared_siblings = CpuSet::new()).contains("tenant `red`"));
    assert!(says(|p| p.slices[1].shared_siblings = cpus("8-9")).contains("slice `blue`"));
    assert!(
        says(|p| p.slices[1].shared_siblings = p.slices[1].idle.clone()).contains("says the same")
    );
}
