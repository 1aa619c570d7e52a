//! What PCI functions and the host tell beside what placement needs.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests build the trees that are then read through a root"
)]

mod tree;

use bmslice_inventory::{Inventory, Role};
use bmslice_model::{ByteSize, CpuSet};
use tree::{AHCI, Tree, X540, function, seed_server};

/// A configuration space with the given extended capabilities, in a row from 0x100.
fn config(tree: &Tree, path: &str, capabilities: &[u16]) {
    let mut bytes = vec![0u8; 4096];
    for (i, id) in capabilities.iter().enumerate() {
        let at = 0x100 + i * 16;
        let next = if i + 1 < capabilities.len() {
            at + 16
        } else {
            0
        };
        let header = u32::from(*id) | 1 << 16 | u32::try_from(next).unwrap() << 20;
        bytes[at..at + 4].copy_from_slice(&header.to_le_bytes());
    }
    std::fs::write(tree.at(&format!("/sys/devices/{path}/config")), bytes).unwrap();
}

fn why(inventory: &Inventory, group: u32) -> Option<&str> {
    let group = inventory.iommu_groups.iter().find(|g| g.id.0 == group);
    group.unwrap().why.as_deref()
}

const BRIDGE: &str = "pci0000:00/0000:00:01.0";

/// Moves a function of the seed's server into another group.
fn regroup(tree: &Tree, path: &str, group: u32) {
    tree.remove(&format!("/sys/devices/{path}/iommu_group"))
        .group(path, group);
}

#[test]
fn a_group_says_why_its_members_are_together() {
    let tree = seed_server();
    assert_eq!(why(&tree.read(), 25), None, "alone");
    // Both ports in one group, with ACS on neither.
    regroup(&tree, X540[1], 25);
    config(&tree, X540[0], &[0x0001, 0x000e]);
    config(&tree, X540[1], &[0x0001]);
    config(&tree, BRIDGE, &[0x0001, 0x000d]);
    let inventory = tree.read();
    assert_eq!(
        why(&inventory, 25),
        Some("they are functions of one device that has no ACS")
    );
    assert_eq!(function(&inventory, "0000:00:01.0").details.acs, Some(true));
    assert_eq!(
        function(&inventory, "0000:01:00.0").details.acs,
        Some(false)
    );
    let members = &inventory
        .iommu_groups
        .iter()
        .find(|g| g.id.0 == 25)
        .unwrap()
        .members;
    assert_eq!(members.len(), 2);
    // And the port above them, whose ACS cannot be read.
    regroup(&tree, BRIDGE, 25);
    tree.remove(&format!("/sys/devices/{BRIDGE}/config"));
    assert_eq!(
        why(&tree.read(), 25),
        Some("they are behind 0000:00:01.0, which shows no ACS")
    );
}

#[test]
fn a_damaged_list_of_capabilities_ends() {
    let tree = seed_server();
    let mut bytes = vec![0u8; 4096];
    // Capability 0x0001 whose next one is itself.
    bytes[0x100..0x104].copy_from_slice(&(1u32 | 0x100 << 20).to_le_bytes());
    std::fs::write(tree.at(&format!("/sys/devices/{BRIDGE}/config")), bytes).unwrap();
    assert_eq!(
        function(&tree.read(), "0000:00:01.0").details.acs,
        Some(false)
    );
}

#[test]
fn a_function_tells_its_place_its_windows_and_how_it_is_reset() {
    let tree = seed_server();
    let sys = format!("/sys/devices/{}", X540[0]);
    tree.file(&format!("{sys}/reset_method"), "flr pm bus")
        .file(&format!("{sys}/subsystem_vendor"), "0x1028")
        .file(&format!("{sys}/subsystem_device"), "0x1f61")
        .file(&format!("{sys}/label"), "NIC1")
        .folder(&format!("{sys}/ptp/ptp0"))
        .file("/sys/bus/pci/slots/3/address", "0000:01:00")
        .file(
            &format!("{sys}/resource"),
            "0x00000000d9400000 0x00000000d95fffff 0x000000000014220c\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x000000000000e000 0x000000000000e01f 0x0000000000040101\n\
             damaged\n",
        );
    let inventory = tree.read();
    let facts = &function(&inventory, "0000:01:00.0").details;
    assert_eq!(facts.root_complex.as_deref(), Some("pci0000:00"));
    assert_eq!(facts.slot.as_deref(), Some("3"));
    assert_eq!(facts.label.as_deref(), Some("NIC1"));
    assert_eq!(facts.ptp.as_deref(), Some("ptp0"));
    assert_eq!(facts.subsystem.unwrap().to_string(), "1028:1f61");
    assert_eq!(facts.reset_methods.as_ref().unwrap(), &["flr", "pm", "bus"]);
    let bars: Vec<(u32, ByteSize, bool, bool)> = facts
        .bars
        .iter()
        .map(|bar| (bar.index, bar.size, bar.memory, bar.wide))
        .collect();
    assert_eq!(
        bars,
        [
            (0, ByteSize::from_mib(2), true, true),
            (2, ByteSize::from_bytes(32), false, false)
        ]
    );
    assert!(facts.bars[0].prefetchable);
}

#[test]
fn a_drive_is_known_by_its_serial_number() {
    let tree = seed_server();
    let path = "pci0000:00/0000:00:03.0/0000:05:00.0";
    tree.pci(path, "144d:a808", "0x010802", 0);
    for (file, text) in [
        ("serial", "S4EWNX0R123456      "),
        ("model", "SAMSUNG MZVLB1T0"),
        ("firmware_rev", "EXD7101Q"),
    ] {
        tree.file(&format!("/sys/devices/{path}/nvme/nvme0/{file}"), text);
    }
    tree.link(
        "/sys/class/nvme/nvme0",
        &format!("../../devices/{path}/nvme/nvme0"),
    );
    let inventory = tree.read();
    let drive = function(&inventory, "0000:05:00.0");
    assert_eq!(drive.details.serial.as_deref(), Some("S4EWNX0R123456"));
    assert_eq!(drive.details.firmware.as_deref(), Some("EXD7101Q"));
    assert_eq!(drive.role(), Role::Nvme);
}

#[test]
fn accelerators_are_told_from_other_processors() {
    let tree = seed_server();
    let roles = [
        ("0000:06:00.0", "8086:0d5c", "0x120001", Role::Fec),
        ("0000:07:00.0", "8086:37c8", "0x0b4000", Role::Qat),
        ("0000:0a:00.0", "10de:20b5", "0x030200", Role::Display),
        ("0000:0b:00.0", "10ee:5000", "0x120000", Role::Accelerator),
    ];
    for (address, id, class, _) in roles {
        tree.pci(&format!("pci0000:00/{address}"), id, class, 0);
    }
    let inventory = tree.read();
    for (address, _, _, role) in roles {
        assert_eq!(function(&inventory, address).role(), role, "{address}");
    }
    assert_eq!(function(&inventory, "0000:01:00.0").role(), Role::Network);
    assert_eq!(function(&inventory, "0000:00:1f.2").role(), Role::Storage);
    assert!(!AHCI.is_empty());
}

#[test]
fn an_interface_tells_queues_kind_vlan_and_other_names() {
    let tree = seed_server();
    let sys = format!("/sys/devices/{}/net/eno1", X540[0]);
    for queue in ["rx-0", "rx-1", "rx-2", "tx-0"] {
        tree.folder(&format!("{sys}/queues/{queue}"));
    }
    tree.file(&format!("{sys}/ifindex"), "7")
        .file(&format!("{sys}/phys_port_name"), "p0")
        .file(
            "/run/udev/data/n7",
            "I:1\nE:ID_NET_NAME_PATH=enp1s0f0\nE:ID_NET_NAME_ONBOARD=eno1\nE:ID_NET_NAME_MAC=enxbc305bf28752",
        )
        .interface("virtual", "eno1.101", None)
        .file("/sys/devices/virtual/net/eno1.101/uevent", "DEVTYPE=vlan\nINTERFACE=eno1.101")
        .file("/proc/net/vlan/eno1.101", "eno1.101  VID: 101\t REORDER_HDR: 1  dev->priv_flags: 1021");
    let inventory = tree.read();
    let interface = |name: &str| {
        inventory
            .interfaces
            .iter()
            .find(|i| i.name == name)
            .unwrap()
    };
    let port = interface("eno1");
    assert_eq!((port.rx_queues, port.tx_queues), (Some(3), Some(1)));
    assert_eq!(port.altnames, ["enp1s0f0", "enxbc305bf28752"]);
    assert_eq!(port.port.as_deref(), Some("p0"));
    assert_eq!(port.permanent_mac, port.mac);
    let vlan = interface("eno1.101");
    assert_eq!((vlan.kind.as_deref(), vlan.vlan), (Some("vlan"), Some(101)));
}

#[test]
fn what_runs_on_the_host_is_told() {
    let tree = seed_server();
    tree.remove("/sys/fs/cgroup/cpuset");
    let slice = "/sys/fs/cgroup/bmslice.slice";
    tree.file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory")
        .file("/sys/fs/cgroup/cgroup.subtree_control", "cpuset cpu")
        .file(
            &format!("{slice}/cpuset.cpus.partition"),
            "isolated invalid (Cpu list in cpuset.cpus not exclusive)",
        )
        .file(&format!("{slice}/cpuset.cpus.effective"), "2-11")
        .file(
            "/sys/fs/cgroup/system.slice/cpuset.cpus.partition",
            "member",
        )
        .folder("/sys/fs/cgroup/system.slice/irqbalance.service")
        .file(
            "/etc/default/irqbalance",
            "#IRQBALANCE_ONESHOT=\nIRQBALANCE_BANNED_CPULIST=2-11",
        )
        .file(
            "/usr/libexec/libvirt-guests.sh",
            "URIS=default\nON_BOOT=start\nON_SHUTDOWN=suspend\n",
        )
        .file("/etc/sysconfig/libvirt-guests", "ON_SHUTDOWN=shutdown\n")
        .file(
            "/etc/systemd/system/multi-user.target.wants/libvirt-guests.service",
            "",
        )
        .file("/etc/tuned/active_profile", "cpu-partitioning")
        .file("/usr/lib/systemd/libsystemd-shared-252.so", "")
        .folder("/sys/class/iommu/dmar0")
        .file("/sys/kernel/irq/0/chip_name", "IR-IO-APIC")
        .file("/sys/kernel/iommu_groups/25/type", "DMA-FQ")
        .file("/sys/module/kvm/parameters/nx_huge_pages", "auto")
        .file(
            "/proc/cmdline",
            "ro rcu_nocbs=2-11 dyndbg=\"file drivers/pci +p\" isolcpus=2-11",
        );
    let inventory = tree.read();
    let host = &inventory.host;
    assert_eq!(host.systemd, Some(252));
    assert_eq!(host.tuned.as_deref(), Some("cpu-partitioning"));
    assert_eq!(host.irqbalance, Some(true));
    assert_eq!(host.irqbalance_banned.as_deref(), Some("2-11"));
    let guests = host.libvirt_guests.as_ref().unwrap();
    assert!(guests.enabled);
    assert_eq!(guests.on_boot.as_deref(), Some("start"), "the script's own");
    assert_eq!(guests.on_shutdown.as_deref(), Some("shutdown"));
    tree.link("/etc/systemd/system/libvirt-guests.service", "/dev/null");
    let masked = tree.read().host.libvirt_guests.unwrap();
    assert!(!masked.enabled, "a masked unit does not start");
    assert_eq!(host.iommu.as_deref(), Some("intel"));
    assert_eq!(host.interrupt_remapping, Some(true));
    assert_eq!(host.kvm_options["kvm.nx_huge_pages"], "auto");
    assert_eq!(host.kvm_options["kvm_intel.nested"], "N");
    let cpus: CpuSet = "2-11".parse().unwrap();
    assert_eq!(host.rcu_nocbs, cpus);
    assert_eq!(host.partitions.len(), 1, "members are no partitions");
    assert_eq!(host.partitions[0].cgroup, "/bmslice.slice");
    assert!(host.partitions[0].state.starts_with("isolated invalid"));
    assert_eq!(host.partitions[0].cpus, cpus);
    let group = inventory
        .iommu_groups
        .iter()
        .find(|g| g.id.0 == 25)
        .unwrap();
    assert_eq!(group.domain.as_deref(), Some("DMA-FQ"));
}

#[test]
fn an_address_that_was_set_does_not_hide_the_permanent_one_that_the_driver_tells() {
    let server = tree::seed_server();
    server.file(
        &format!("/sys/devices/{}/net/eno1/addr_assign_type", tree::X540[0]),
        "3",
    );
    assert_eq!(function(&server.read(), "0000:01:00.0").mac, None);
    let permanent = "bc:30:5b:f2:87:77".parse().unwrap();
    let probes = bmslice_inventory::Probes {
        nics: [(
            "eno1".to_owned(),
            bmslice_inventory::EthtoolFacts {
                permanent_mac: Some(permanent),
                ..Default::default()
            },
        )]
        .into(),
        ..Default::default()
    };
    let told = server.try_read(&probes).unwrap();
    assert_eq!(function(&told, "0000:01:00.0").mac, Some(permanent));
}

#[test]
fn a_kernel_that_tells_nothing_of_nics_is_noted() {
    let server = tree::seed_server();
    let probes = bmslice_inventory::Probes {
        nics_error: Some("cannot ask the kernel about the NICs: no".into()),
        ..Default::default()
    };
    let notes = server.try_read(&probes).unwrap().notes;
    assert!(notes.iter().any(|note| note.text.contains("the NICs: no")));
}
