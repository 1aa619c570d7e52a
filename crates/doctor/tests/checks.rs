//! Each check, on the document's server and on what may be wrong with one.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where the example cannot be read"
)]

use bmslice_doctor::{Finding, Level, Outcome, examine, is_fit};
use bmslice_inventory::{
    BlsObstacle, BootLoader, CapturedInventory, GrubEntries, HostNeed, Inventory, LibvirtFacts,
};
use bmslice_model::{ByteSize, CpuSet, IommuGroupId};

/// The document's server, with libvirt asked, a VM made and nothing noted.
fn server() -> Inventory {
    let text = include_str!("../../../examples/seed/inventory.json");
    let mut inventory = CapturedInventory::from_json(text).unwrap().into_inner();
    inventory.notes.clear();
    inventory.hypervisor.kvm_works = true;
    inventory.hypervisor.libvirt = Some(LibvirtFacts {
        version: "9.0.0".into(),
        qemu: Some("7.2.0".into()),
        kvm: true,
        domains: Vec::new(),
    });
    inventory
}

fn finding(inventory: &Inventory, name: &str) -> Finding {
    let mut findings = examine(inventory);
    let at = findings.iter().position(|f| f.name == name).unwrap();
    findings.swap_remove(at)
}

/// What the check says after a change: `(result, text)`.
fn says(name: &str, change: impl FnOnce(&mut Inventory)) -> (&'static str, String) {
    let mut inventory = server();
    change(&mut inventory);
    match finding(&inventory, name).outcome {
        Outcome::Holds { found } => ("holds", found),
        Outcome::DoesNotHold {
            found,
            wanted,
            mend,
        } => {
            assert!(!wanted.is_empty() && !mend.is_empty(), "{name}");
            ("fails", found)
        }
        Outcome::CouldNotCheck { why } => ("unchecked", why),
    }
}

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

#[test]
fn the_documents_server_is_fit() {
    let findings = examine(&server());
    let failing: Vec<&str> = findings
        .iter()
        .filter(|f| matches!(f.outcome, Outcome::DoesNotHold { .. }))
        .map(|f| f.name)
        .collect();
    assert_eq!(failing, ["cgroup"], "Ubuntu 18.04 has version 1");
    // The document tells nothing of what disturbs quiet cores.
    let unchecked: Vec<&str> = findings
        .iter()
        .filter(|f| matches!(f.outcome, Outcome::CouldNotCheck { .. }))
        .map(|f| f.name)
        .collect();
    assert_eq!(
        unchecked,
        [
            "libvirt-guests",
            "interrupt-remapping",
            "smt",
            "governor",
            "idle-states",
            "clock-source",
            "irqbalance",
            "huge-page-room",
            "transparent-huge-pages",
            "ksm",
            "swap",
            "numa-balancing"
        ]
    );
    assert!(is_fit(&findings));
}

#[test]
fn names_are_unique_and_in_kebab_case() {
    let findings = examine(&server());
    let mut names: Vec<&str> = findings.iter().map(|f| f.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(names.iter().all(|name| {
        name.chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    }));
}

#[test]
fn a_missing_fact_is_never_good() {
    let mut inventory = server();
    inventory.hypervisor.libvirt = None;
    let findings = examine(&inventory);
    assert!(!is_fit(&findings));
    for name in ["libvirt", "libvirt-kvm", "qemu-version"] {
        let (result, why) = says(name, |i| i.hypervisor.libvirt = None);
        assert_eq!(result, "unchecked", "{name}");
        assert!(why.contains("was not asked"), "{why}");
    }
}

#[test]
fn a_libvirt_that_does_not_answer_is_wrong_and_not_unknown() {
    let (result, found) = says("libvirt", |i| {
        i.hypervisor.libvirt = None;
        i.hypervisor.libvirt_error = Some("libvirt could not connect: no such file".into());
    });
    assert_eq!((result, found.contains("no such file")), ("fails", true));
}

#[test]
fn kvm() {
    assert_eq!(
        says("kvm-device", |i| i.hypervisor.kvm_device = false).0,
        "fails"
    );
    assert_eq!(
        says("kvm-module", |i| i.hypervisor.kvm_module = None),
        ("holds", "KVM is built into the kernel".into())
    );
    assert_eq!(
        says("kvm-module", |i| {
            i.hypervisor.kvm_module = None;
            i.hypervisor.kvm_device = false;
        })
        .0,
        "fails"
    );
    let without = |i: &mut Inventory| i.hypervisor.libvirt.as_mut().unwrap().kvm = false;
    let (result, found) = says("libvirt-kvm", without);
    assert_eq!(result, "fails");
    assert!(found.contains("although /dev/kvm is there"), "{found}");
}

#[test]
fn qemu_is_compared_as_a_version_and_not_as_text() {
    let with = |version: &str| {
        says("qemu-version", |i| {
            i.hypervisor.libvirt.as_mut().unwrap().qemu = Some(version.into());
        })
        .0
    };
    assert_eq!(with("10.0.2"), "holds");
    assert_eq!(with("6.0.0"), "holds");
    assert_eq!(with("5.2.0"), "fails");
    assert_eq!(with("2.11.1"), "fails");
    assert_eq!(with("new"), "unchecked");
}

#[test]
fn an_iommu_that_is_off_can_be_turned_on_or_not() {
    let off = |i: &mut Inventory| {
        i.boot.iommu = false;
        i.boot.cmdline = "quiet".parse().unwrap();
    };
    let (result, found) = says("iommu", off);
    assert_eq!(result, "holds");
    assert!(found.contains("DMAR"), "{found}");
    assert_eq!(
        says("iommu", |i| {
            off(i);
            i.boot.iommu_tables = Some(Vec::new());
        })
        .0,
        "fails"
    );
    assert_eq!(
        says("iommu", |i| {
            off(i);
            i.boot.iommu_tables = None;
        })
        .0,
        "unchecked"
    );
    assert_eq!(
        says("iommu", |i| {
            off(i);
            i.boot.cmdline = "amd_iommu=off".parse().unwrap();
        }),
        (
            "fails",
            "the kernel argument `amd_iommu=off` keeps it off".into()
        )
    );
    assert_eq!(says("iommu-groups", off).0, "unchecked");
    assert_eq!(says("rmrr", off).0, "unchecked");
}

#[test]
fn only_grub_with_drop_ins_or_entries_and_systemd_boot_with_entries_are_written() {
    for loader in [
        BootLoader::Bls(GrubEntries {
            entries: Some("/boot/loader/entries".into()),
            env: Some("/boot/grub2/grubenv".into()),
            obstacle: Some(BlsObstacle::ReadOnly {
                why: "it is on btrfs".into(),
            }),
        }),
        BootLoader::Bls(GrubEntries {
            entries: None,
            env: None,
            obstacle: None,
        }),
        BootLoader::Ostree(GrubEntries {
            entries: None,
            env: None,
            obstacle: None,
        }),
        BootLoader::Ostree(GrubEntries {
            entries: Some("/boot/loader/entries".into()),
            env: Some("/boot/grub2/grubenv".into()),
            obstacle: Some(BlsObstacle::MountedReadOnly { at: "/boot".into() }),
        }),
        BootLoader::SystemdBoot { entries: None },
        BootLoader::Unknown,
        BootLoader::Grub {
            config: "/boot/grub2/grub.cfg".into(),
            drop_ins: None,
        },
    ] {
        assert_eq!(says("boot-loader", |i| i.boot.loader = loader).0, "fails");
    }
    assert_eq!(
        says("boot-loader", |i| i.boot.loader =
            BootLoader::Bls(GrubEntries {
                entries: Some("/boot/loader/entries".into()),
                env: Some("/boot/grub2/grubenv".into()),
                obstacle: None,
            })),
        (
            "holds",
            "GRUB, with entries in /boot/loader/entries and its block in /boot/grub2/grubenv"
                .into()
        )
    );
    assert_eq!(
        says("boot-loader", |i| i.boot.loader =
            BootLoader::Ostree(GrubEntries {
                entries: Some("/boot/loader/entries".into()),
                env: Some("/boot/grub2/grubenv".into()),
                obstacle: None,
            }))
        .0,
        "holds"
    );
    let entries = Some("/boot/efi/loader/entries".to_owned());
    assert_eq!(
        says("boot-loader", |i| i.boot.loader =
            BootLoader::SystemdBoot { entries }),
        (
            "holds",
            "systemd-boot, with entries in /boot/efi/loader/entries".into()
        )
    );
}

#[test]
fn the_management_path_must_be_known() {
    let forget = |i: &mut Inventory| {
        for function in &mut i.pci {
            function.host_needs.clear();
        }
    };
    let (result, found) = says("management-path", forget);
    assert_eq!(result, "fails");
    assert!(found.contains("eno3"), "{found}");
    assert_eq!(
        says("management-path", |i| {
            forget(i);
            i.interfaces.clear();
        })
        .0,
        "unchecked"
    );
    assert_eq!(says("root-disk", forget).0, "fails");
    assert_eq!(
        says("management-path", |_| ()).1,
        "0000:08:00.0 (eno3)".to_owned()
    );
}

#[test]
fn three_whole_cores_on_one_node_are_the_least() {
    assert_eq!(
        says("whole-cores", |_| ()),
        (
            "holds",
            "node 0: 6 whole cores, node 1: 6 whole cores".into()
        )
    );
    let keep = |cores: u32| {
        says("whole-cores", |i| {
            for cpu in &mut i.cpus {
                cpu.allowed = cpu.id.number() % 12 < cores;
            }
        })
    };
    assert_eq!(keep(6).0, "holds");
    assert_eq!(
        keep(5),
        (
            "holds",
            "node 0: 3 whole cores, node 1: 2 whole cores".into()
        )
    );
    assert_eq!(
        keep(4),
        (
            "fails",
            "node 0: 2 whole cores, node 1: 2 whole cores".into()
        )
    );
}

#[test]
fn a_core_that_lost_a_thread_is_not_whole() {
    let lose = |i: &mut Inventory| {
        for id in [12, 14] {
            i.cpus[id].online = false;
            i.cpus[id].siblings = CpuSet::from(i.cpus[id].id);
            let lone = &mut i.cpus[id - 12];
            lone.siblings = CpuSet::from(lone.id);
        }
    };
    assert_eq!(
        says("whole-cores", lose).1,
        "node 0: 4 whole cores, node 1: 6 whole cores"
    );
    let (result, found) = says("smt-siblings", lose);
    assert_eq!(result, "fails");
    assert!(found.contains("12,14"), "{found}");
}

#[test]
fn cores_may_differ_where_nothing_is_offline() {
    let hybrid = |i: &mut Inventory| {
        for id in [10, 22] {
            i.cpus[id].siblings = CpuSet::from(i.cpus[id].id);
        }
    };
    assert_eq!(says("smt-siblings", hybrid).0, "holds");
    assert_eq!(
        says("whole-cores", hybrid).1,
        "node 0: 7 whole cores, node 1: 6 whole cores"
    );
}

#[test]
fn siblings_on_two_nodes_are_wrong() {
    let (result, found) = says("smt-siblings", |i| {
        i.cpus[12].node = Some(bmslice_model::NumaNodeId(1));
    });
    assert_eq!(result, "fails");
    assert_eq!(found, "CPUs 0 and 12 are one core on two NUMA nodes");
    assert_eq!(
        says("smt-siblings", |i| i.cpus[12].siblings = set("12")).0,
        "fails"
    );
}

#[test]
fn groups_that_hold_what_the_host_needs() {
    let (result, found) = says("iommu-groups", |i| {
        for function in &mut i.pci {
            if function.address.bus() == 8 {
                function.iommu_group = Some(IommuGroupId(27));
            }
        }
    });
    assert_eq!(result, "fails");
    assert_eq!(
        found,
        "0000:08:00.1 (eno4) shares group 27 with 0000:08:00.0 (eno3), which the host needs"
    );
    assert_eq!(
        says("iommu-groups", |i| {
            // A bridge in the group changes nothing: it stays with the host.
            i.pci[0].iommu_group = Some(IommuGroupId(25));
            assert!(i.pci[0].is_bridge());
        })
        .0,
        "holds"
    );
}

#[test]
fn nics() {
    let all_needed = |i: &mut Inventory| {
        for function in i.pci.iter_mut().filter(|f| f.is_network()) {
            function
                .host_needs
                .push(HostNeed::Member { of: "br0".into() });
        }
    };
    assert_eq!(says("nics-to-give", all_needed).0, "fails");
    assert_eq!(says("nics-to-give", |i| i.pci.clear()).1, "no NIC");
    let without_sriov = |i: &mut Inventory| {
        for function in &mut i.pci {
            function.sriov = None;
        }
    };
    assert_eq!(says("sriov", without_sriov).0, "fails");
    let (result, found) = says("rmrr", |i| {
        i.pci.iter_mut().find(|f| f.is_network()).unwrap().rmrr = true;
    });
    assert_eq!(
        (result, found.contains("0000:01:00.0 (eno1)")),
        ("fails", true)
    );
}

#[test]
fn memory() {
    assert_eq!(
        says("node-memory", |_| ()).1,
        "node 0: 64 GiB, node 1: 64 GiB"
    );
    assert_eq!(
        says("node-memory", |i| i.nodes[1].memory_total = ByteSize::ZERO).0,
        "fails"
    );
    assert_eq!(
        says("huge-pages", |i| i.nodes[1].huge_pages.clear()),
        ("fails", "node 1 can have no huge pages".into())
    );
    let no_gigantic = |i: &mut Inventory| {
        for node in &mut i.nodes {
            node.huge_pages.truncate(1);
        }
    };
    assert_eq!(says("huge-pages", no_gigantic).0, "holds");
    assert_eq!(
        says("huge-pages-1gib", no_gigantic),
        ("fails", "nodes 0, 1 without pages of 1 GiB".into())
    );
}

#[test]
fn isolation_in_force_is_what_was_asked() {
    let with = |cmdline: &str, isolated: &str| {
        says("isolation", |i| {
            i.boot.cmdline = cmdline.parse().unwrap();
            i.boot.isolated = set(isolated);
        })
        .0
    };
    assert_eq!(with("isolcpus=2-11,14-23", "2-11,14-23"), "holds");
    assert_eq!(with("isolcpus=domain,managed_irq,2-3", "2-3"), "holds");
    assert_eq!(
        with("isolcpus=managed_irq,2-3", ""),
        "holds",
        "no domain, no isolation"
    );
    assert_eq!(with("isolcpus=2-3", ""), "fails", "silently absent");
    assert_eq!(with("quiet", "2-3"), "fails");
    assert_eq!(
        with("isolcpus=20-31", "20-23"),
        "fails",
        "CPUs that are not there"
    );
    assert_eq!(with("isolcpus=domain,x", ""), "unchecked");
}

#[test]
fn the_architecture_is_x86() {
    let with = |name: &str| says("architecture", |i| i.machine.architecture = name.into()).0;
    assert_eq!((with("aarch64"), with("")), ("fails", "unchecked"));
    assert_eq!(
        says("bare-metal", |i| i.machine.guest = Some(true)).0,
        "fails"
    );
    assert_eq!(
        says("bare-metal", |i| i.machine.guest = None).0,
        "unchecked"
    );
}

#[test]
fn an_information_that_fails_leaves_the_server_fit() {
    let mut inventory = server();
    inventory.machine.guest = Some(true);
    let findings = examine(&inventory);
    let bare = findings.iter().find(|f| f.name == "bare-metal").unwrap();
    assert_eq!(bare.level, Level::Info);
    assert!(is_fit(&findings));
}

#[test]
fn findings_are_written_in_camel_case() {
    let mut inventory = server();
    inventory.hypervisor.kvm_device = false;
    let value = serde_json::to_value(finding(&inventory, "kvm-device")).unwrap();
    assert_eq!(value["level"], "error");
    assert_eq!(value["outcome"]["result"], "doesNotHold");
    assert_eq!(value["outcome"]["found"], "/dev/kvm is not there");
    let value = serde_json::to_value(finding(&inventory, "architecture")).unwrap();
    assert_eq!(
        value["outcome"],
        serde_json::json!({"result": "holds", "found": "x86_64"})
    );
}

/// A server that tells all that disturbs quiet cores, and is quiet.
fn quiet(inventory: &mut Inventory) {
    let cpus: CpuSet = inventory.cpus.iter().map(|cpu| cpu.id).collect();
    inventory.power.frequencies = vec![bmslice_inventory::Frequencies {
        cpus,
        driver: Some("intel_pstate".into()),
        governor: Some("performance".into()),
        preference: None,
        min: None,
        max: None,
        base: None,
    }];
    let state = |name: &str, latency| bmslice_inventory::IdleState {
        name: name.into(),
        latency,
        disabled: false,
    };
    inventory.power.idle = Some(bmslice_inventory::IdleFacts {
        driver: Some("intel_idle".into()),
        governor: None,
        states: vec![state("C1", 2)],
    });
    inventory.host.irqbalance = Some(true);
    inventory.host.interrupt_remapping = Some(true);
    let memory = &mut inventory.memory;
    (memory.ksm, memory.numa_balancing) = (Some(false), Some(false));
    memory.swap = Some(ByteSize::ZERO);
    memory.transparent_huge_pages = Some(bmslice_inventory::TransparentHugePages {
        enabled: "madvise".into(),
        defrag: None,
    });
    inventory.machine.smt = Some("on".into());
    inventory.machine.clock_source = Some("tsc".into());
    for node in &mut inventory.nodes {
        node.unfragmented = Some(node.memory_free);
    }
}

#[test]
fn a_quiet_server_holds_and_each_disturbance_is_told_by_its_own_check() {
    const QUIET: [&str; 12] = [
        "interrupt-remapping",
        "x2apic",
        "smt",
        "governor",
        "idle-states",
        "clock-source",
        "irqbalance",
        "huge-page-room",
        "transparent-huge-pages",
        "ksm",
        "swap",
        "numa-balancing",
    ];
    for name in QUIET {
        assert_eq!(says(name, quiet).0, "holds", "{name}");
    }
    type Change = fn(&mut Inventory);
    let disturbances: [(&str, Change, &str); 13] = [
        (
            "interrupt-remapping",
            |i| i.host.interrupt_remapping = Some(false),
            "not remapped",
        ),
        ("x2apic", |i| i.host.x2apic = Some(false), "do not show it"),
        (
            "smt",
            |i| {
                let text =
                    "Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable";
                i.machine.vulnerabilities.insert("l1tf".into(), text.into());
            },
            "l1tf open between siblings",
        ),
        (
            "governor",
            |i| i.power.frequencies[0].governor = Some("powersave".into()),
            "powersave on CPUs 0-23",
        ),
        (
            "idle-states",
            |i| i.power.idle.as_mut().unwrap().states[0].latency = 133,
            "waking takes 133 µs",
        ),
        (
            "clock-source",
            |i| i.machine.clock_source = Some("hpet".into()),
            "hpet",
        ),
        (
            "clock-source",
            |i| i.machine.clock_source = Some("kvm-clock".into()),
            "kvm-clock",
        ),
        (
            "irqbalance",
            |i| i.host.irqbalance_banned = Some("2-5".into()),
            "leave CPUs 2-5 alone",
        ),
        (
            "huge-page-room",
            |i| i.nodes[1].unfragmented = Some(ByteSize::from_gib(1)),
            "node 1: 1024 MiB of",
        ),
        (
            "transparent-huge-pages",
            |i| i.memory.transparent_huge_pages.as_mut().unwrap().enabled = "always".into(),
            "always",
        ),
        ("ksm", |i| i.memory.ksm = Some(true), "on"),
        (
            "swap",
            |i| i.memory.swap = Some(ByteSize::from_gib(2)),
            "2GiB",
        ),
        (
            "numa-balancing",
            |i| i.memory.numa_balancing = Some(true),
            "on",
        ),
    ];
    for (name, disturb, text) in disturbances {
        let (result, found) = says(name, |inventory| {
            quiet(inventory);
            disturb(inventory);
        });
        assert_eq!(result, "fails", "{name}");
        assert!(found.contains(text), "{name}: {found}");
    }
}

#[test]
fn a_kvm_device_that_makes_no_vm_is_an_error() {
    let (result, why) = says("kvm-device", |i| i.hypervisor.kvm_works = false);
    assert_eq!(result, "unchecked", "a file alone makes no VM");
    assert!(why.contains("was not tried"), "{why}");
    assert_eq!(
        says("kvm-device", |i| i.hypervisor.kvm_works = true).1,
        "/dev/kvm makes a VM"
    );
    let (result, found) = says("kvm-device", |i| {
        i.hypervisor.kvm_works = false;
        i.hypervisor.kvm_error = Some("device or resource busy".into());
    });
    assert_eq!(result, "fails");
    assert!(found.contains("busy"), "{found}");
}
