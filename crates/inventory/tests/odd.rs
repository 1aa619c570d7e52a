//! Servers that are odd or damaged: what each becomes, and what is said of it.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its tree cannot be read"
)]

mod tree;

use bmslice_inventory::{
    BlsObstacle, BootLoader, CapturedInventory, GrubEntries, Probes, ReadError,
};
use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use tree::{AHCI, I350, Tree, X540, function, notes, seed_server};

fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

#[test]
fn a_folder_that_is_no_server_is_refused_with_its_path() {
    let tree = Tree::new();
    let error = tree.try_read(&Probes::default()).unwrap_err();
    assert!(matches!(error, ReadError::NoCpus { .. }));
    assert!(
        error
            .to_string()
            .contains(tree.at("").to_str().unwrap().trim_end_matches('/')),
        "{error}"
    );
}

#[test]
fn without_topology_each_cpu_is_a_core_and_it_is_said() {
    let tree = Tree::new();
    tree.file("/sys/devices/system/cpu/present", "0-3")
        .file("/sys/devices/system/cpu/online", "0-3");
    let inventory = tree.read();
    assert_eq!(inventory.cpus.len(), 4);
    for cpu in &inventory.cpus {
        assert_eq!(cpu.siblings, CpuSet::from(cpu.id));
        assert_eq!((cpu.package, cpu.core), (None, None));
        assert_eq!(cpu.node, Some(NumaNodeId(0)));
    }
    assert_eq!(inventory.nodes.len(), 1);
    assert_eq!(inventory.nodes[0].cpus, set("0-3"));
    let notes = notes(&inventory);
    assert!(
        notes.contains("the core of CPUs 0-3 is not told"),
        "{notes}"
    );
    assert!(notes.contains("this kernel shows no NUMA nodes"), "{notes}");
}

#[test]
fn cpuinfo_alone_is_better_than_nothing() {
    let tree = Tree::new();
    tree.file(
        "/proc/cpuinfo",
        "processor : 0\nprocessor : 2\nprocessor : x",
    );
    let inventory = tree.read();
    let ids: Vec<u32> = inventory.cpus.iter().map(|c| c.id.number()).collect();
    assert_eq!(ids, [0, 2]);
    assert!(notes(&inventory).contains("/proc/cpuinfo was taken"));
}

#[test]
fn offline_cpus_are_kept_and_are_nobodys_siblings() {
    let tree = seed_server();
    tree.file("/sys/devices/system/cpu/online", "0-13,16-23")
        .remove("/sys/devices/system/cpu/cpu14/topology")
        .remove("/sys/devices/system/cpu/cpu14/cache");
    // 15 still tells a topology, as some kernels leave it, and 3 still names 15.
    let inventory = tree.read();
    let cpu = |id: usize| &inventory.cpus[id];
    assert_eq!(inventory.cpus.len(), 24);
    assert!(!cpu(14).online && !cpu(15).online);
    assert_eq!(cpu(14).siblings, set("14"));
    assert_eq!(cpu(15).siblings, set("15"));
    assert_eq!(cpu(3).siblings, set("3"), "an offline thread is no sibling");
    assert_eq!(cpu(4).siblings, set("4,16"));
    assert!(!inventory.nodes[0].cpus.contains(cpu(14).id));
    assert_eq!(cpu(14).node, None);
}

#[test]
fn numbers_may_have_holes() {
    let tree = Tree::new();
    tree.file("/sys/devices/system/cpu/present", "0,8,88")
        .file("/sys/devices/system/cpu/online", "0,8,88")
        .node(3, "0,8", 1 << 20, 0, "10 40")
        .node(250, "", 1 << 20, 0, "40 10");
    for id in [0, 8, 88] {
        tree.cpu(id, 2056, 8, &id.to_string(), &id.to_string());
    }
    let inventory = tree.read();
    let ids: Vec<u32> = inventory.nodes.iter().map(|n| n.id.0).collect();
    assert_eq!(ids, [3, 250]);
    assert!(inventory.nodes[1].cpus.is_empty(), "a node of memory alone");
    assert_eq!(inventory.cpus[2].node, None);
    assert_eq!(inventory.cpus[0].package, Some(2056));
    assert!(notes(&inventory).contains("CPUs 88 are on no node"));
}

#[test]
fn nodes_with_the_same_cpus_are_one() {
    let tree = seed_server();
    tree.node(0, "0-23", 1 << 20, 0, "10 10")
        .node(1, "0-23", 1 << 20, 0, "10 10");
    let inventory = tree.read();
    assert_eq!(inventory.nodes.len(), 1);
    assert_eq!(inventory.nodes[0].distances, [10]);
    assert!(inventory.cpus.iter().all(|c| c.node == Some(NumaNodeId(0))));
    assert!(notes(&inventory).contains("it has the same CPUs 0-23 as node 0"));
}

#[test]
fn siblings_that_contradict_become_one_core() {
    let tree = seed_server();
    tree.file(
        "/sys/devices/system/cpu/cpu14/topology/thread_siblings_list",
        "14",
    );
    let inventory = tree.read();
    assert_eq!(inventory.cpus[2].siblings, set("2,14"));
    assert_eq!(inventory.cpus[14].siblings, set("2,14"));
    assert!(notes(&inventory).contains("CPUs 14 were taken as of the wider core"));
}

#[test]
fn the_newer_names_of_siblings_win_and_masks_do_too() {
    let tree = seed_server();
    // A kernel that has the newer names has them for all CPUs.
    for cpu in 0..24 {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        if cpu == 14 {
            tree.file(&format!("{folder}/core_cpus"), "00004000");
        } else {
            tree.file(&format!("{folder}/core_cpus_list"), cpu.to_string());
        }
    }
    let inventory = tree.read();
    assert_eq!(inventory.cpus[2].siblings, set("2"));
    assert_eq!(inventory.cpus[14].siblings, set("14"));
}

#[test]
fn damaged_files_are_notes_and_never_an_end() {
    let tree = seed_server();
    let cpu = "/sys/devices/system/cpu";
    tree.file(&format!("{cpu}/online"), "0-x")
        .file(&format!("{cpu}/isolated"), "7-2")
        .file(
            &format!("{cpu}/cpu0/topology/thread_siblings_list"),
            "0,99999999",
        )
        .file(&format!("{cpu}/cpu0/cache/index3/size"), "many")
        .file(&format!("{cpu}/cpu1/cache/index3/shared_cpu_list"), "2-")
        .file(&format!("{cpu}/cpu1/cache/index3/shared_cpu_map"), "zz")
        .file(
            "/sys/devices/system/node/node0/meminfo",
            "Node 0 MemTotal: lots kB",
        )
        .file("/sys/devices/system/node/node1/distance", "20")
        .file("/proc/cmdline", "dyndbg=\"never closed")
        .file("/proc/net/route", "Iface\nx y z")
        .file("/proc/self/mountinfo", "what - is - this\n - \n1 2 3:4")
        .file("/sys/class/net/bonding_masters", "")
        .folder("/sys/class/net/eno9")
        .folder("/sys/bus/pci/devices/not-an-address")
        .folder("/sys/bus/pci/devices/0000:99:00.0")
        .file(&format!("/sys/devices/{}/sriov_numvfs", X540[0]), "3");
    let inventory = tree.read();
    assert_eq!(inventory.cpus.len(), 24);
    assert!(inventory.cpus.iter().all(|c| c.online));
    assert_eq!(
        inventory.cpus[0].siblings,
        set("0,12"),
        "its sibling still tells"
    );
    assert_eq!(inventory.nodes[0].memory_total, ByteSize::ZERO);
    assert!(inventory.nodes[1].distances.is_empty());
    let notes = notes(&inventory);
    for text in [
        "cpu/online: `0-x`",
        "cpu/isolated: the range `7-2`",
        "thread_siblings_list: in the cpu list `0,99999999`",
        "shared_cpu_map: `zz` is not a CPU mask",
        "node1/distance: 1 distances for 2 nodes",
        "/proc/cmdline: a double quote is opened and not closed",
        "`not-an-address` is not a PCI address",
        "0000:99:00.0: it does not tell what it is",
        "sriov_numvfs says 3, and 0 VFs are there",
    ] {
        assert!(notes.contains(text), "{text} is not in\n{notes}");
    }
    assert_eq!(
        CapturedInventory::from_json(&serde_json::to_string(&inventory).unwrap())
            .unwrap()
            .into_inner(),
        inventory
    );
}

#[test]
fn without_an_iommu_there_are_no_groups() {
    let tree = seed_server();
    tree.remove("/sys/kernel/iommu_groups");
    for path in [X540[0], X540[1], I350[0], I350[1], AHCI] {
        tree.remove(&format!("/sys/devices/{path}/iommu_group"));
    }
    for bridge in ["0000:00:01.0", "0000:00:1c.0"] {
        tree.remove(&format!("/sys/devices/pci0000:00/{bridge}/iommu_group"));
    }
    let inventory = tree.read();
    assert!(!inventory.boot.iommu);
    assert!(inventory.pci.iter().all(|f| f.iommu_group.is_none()));
    assert!(inventory.notes.is_empty(), "{}", notes(&inventory));
}

#[test]
fn only_a_direct_region_forbids_passthrough() {
    let tree = seed_server();
    tree.file(
        "/sys/kernel/iommu_groups/25/reserved_regions",
        "0x00000000000e8000 0x00000000000e8fff direct\n0x00000000fee00000 0x00000000feefffff msi",
    )
    .file(
        "/sys/kernel/iommu_groups/26/reserved_regions",
        "0x00000000000e8000 0x00000000000e8fff direct-relaxable",
    );
    let inventory = tree.read();
    assert!(function(&inventory, "0000:01:00.0").rmrr);
    assert!(!function(&inventory, "0000:01:00.1").rmrr);
}

#[test]
fn vfs_know_their_index_and_their_physical_function() {
    let tree = seed_server();
    let pf = format!("/sys/devices/{}", X540[0]);
    // Index 10 sorts before 2 as text; routing ids do not.
    for (index, name) in [
        (0, "0000:01:10.0"),
        (2, "0000:01:10.4"),
        (10, "0000:01:11.4"),
    ] {
        let path = format!("pci0000:00/0000:00:01.0/{name}");
        tree.pci(&path, "8086:1515", "0x020000", -1)
            .link(&format!("/sys/devices/{path}/physfn"), "../0000:01:00.0")
            .link(&format!("{pf}/virtfn{index}"), &format!("../{name}"));
    }
    tree.file(&format!("{pf}/sriov_numvfs"), "3");
    let inventory = tree.read();
    let sriov = function(&inventory, "0000:01:00.0").sriov.clone().unwrap();
    let vfs: Vec<String> = sriov.vfs.iter().map(ToString::to_string).collect();
    assert_eq!(vfs, ["0000:01:10.0", "0000:01:10.4", "0000:01:11.4"]);
    let vf = function(&inventory, "0000:01:10.4");
    assert_eq!(vf.physfn, Some("0000:01:00.0".parse().unwrap()));
    assert!(vf.is_vf() && vf.sriov.is_none());
    assert_eq!(vf.node, None, "-1 is no node");
}

#[test]
fn a_bonds_members_keep_their_permanent_addresses() {
    let tree = seed_server();
    for path in X540 {
        let name = if path == X540[0] { "eno1" } else { "eno2" };
        tree.file(
            &format!("/sys/devices/{path}/net/{name}/address"),
            "bc:30:5b:f2:87:50",
        )
        .file(
            &format!("/sys/devices/{path}/net/{name}/addr_assign_type"),
            "3",
        );
    }
    let inventory = tree.read();
    assert_eq!(
        function(&inventory, "0000:01:00.0").mac,
        None,
        "a set address is not permanent"
    );
    tree.file(
        "/proc/net/bonding/bond0",
        "Ethernet Channel Bonding Driver: v5.15\n\nSlave Interface: eno1\nMII Status: up\nPermanent HW addr: bc:30:5b:f2:87:52\n\nSlave Interface: eno2\nPermanent HW addr: bc:30:5b:f2:87:50",
    );
    let inventory = tree.read();
    let mac = |address: &str| function(&inventory, address).mac.unwrap().to_string();
    assert_eq!(mac("0000:01:00.0"), "bc:30:5b:f2:87:52");
    assert_eq!(mac("0000:01:00.1"), "bc:30:5b:f2:87:50");
}

#[test]
fn a_function_at_vfio_has_no_interface_and_no_mac() {
    let tree = seed_server();
    let sys = format!("/sys/devices/{}", X540[0]);
    tree.remove(&format!("{sys}/net"))
        .remove("/sys/class/net/eno1")
        .remove(&format!("{sys}/driver"))
        .driver(X540[0], "vfio-pci");
    let inventory = tree.read();
    let function = function(&inventory, "0000:01:00.0");
    assert_eq!(function.driver.as_deref(), Some("vfio-pci"));
    assert_eq!((function.mac, function.interfaces.len()), (None, 0));
}

#[test]
fn a_link_that_is_down_has_no_speed() {
    let tree = seed_server();
    tree.file(&format!("/sys/devices/{}/net/eno1/speed", X540[0]), "10000")
        .file(&format!("/sys/devices/{}/net/eno2/speed", X540[1]), "-1")
        .file(
            &format!("/sys/devices/{}/net/eno3/speed", I350[0]),
            "4294967295",
        )
        .file(&format!("/sys/devices/{}/net/eno4/speed", I350[1]), "1000");
    let inventory = tree.read();
    let speed = |name: &str| {
        let interface = inventory.interfaces.iter().find(|i| i.name == name);
        interface.unwrap().speed
    };
    assert_eq!(speed("eno1"), Some(10_000));
    assert_eq!(
        (speed("eno2"), speed("eno3"), speed("eno4")),
        (None, None, None)
    );
}

#[test]
fn a_cgroup_limits_the_cpus_that_may_be_had() {
    let tree = seed_server();
    tree.file("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0")
        .file("/proc/self/cgroup", "0::/user.slice/session-1.scope")
        .file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu")
        .file(
            "/sys/fs/cgroup/user.slice/cpuset.cpus.effective",
            "0-1,12-13",
        )
        .file("/sys/fs/cgroup/cpuset.cpus.effective", "0-23");
    let inventory = tree.read();
    let allowed: CpuSet = inventory
        .cpus
        .iter()
        .filter(|c| c.allowed)
        .map(|c| c.id)
        .collect();
    assert_eq!(allowed, set("0-1,12-13"));
    assert_eq!(inventory.boot.cgroup, Some(2));
}

#[test]
fn boot_loaders_are_told_apart() {
    let loader = |change: &dyn Fn(&Tree)| {
        let tree = seed_server();
        change(&tree);
        tree.read().boot.loader
    };
    let bls = |env: Option<&str>, obstacle| {
        BootLoader::Bls(GrubEntries {
            entries: Some("/boot/loader/entries".into()),
            env: env.map(str::to_owned),
            obstacle,
        })
    };
    let grub = |drop_ins: Option<&str>| BootLoader::Grub {
        config: "/boot/grub/grub.cfg".into(),
        drop_ins: drop_ins.map(Into::into),
    };
    assert_eq!(
        loader(&|t| {
            t.file("/usr/sbin/grub-mkconfig", ". ${sysconfdir}/default/grub");
        }),
        grub(None),
        "upstream's grub-mkconfig reads no drop-ins"
    );
    assert_eq!(
        loader(&|t| {
            t.remove("/usr/sbin/grub-mkconfig")
                .folder("/etc/default/grub.d");
        }),
        grub(Some("/etc/default/grub.d"))
    );
    assert_eq!(
        loader(&|t| {
            t.remove("/usr/sbin/grub-mkconfig")
                .remove("/usr/sbin/update-grub");
        }),
        BootLoader::Unknown
    );
    assert_eq!(
        loader(&|t| {
            t.file("/boot/loader/entries/fedora.conf", "title Fedora")
                .file("/usr/sbin/grubby", "");
        }),
        bls(None, Some(BlsObstacle::NoBlock))
    );
    // As Fedora is installed, with a partition of ext4 for `/boot`.
    let fedora = |t: &Tree, fs: &str, options: &str| {
        t.file(
            "/boot/loader/entries/8a1f-6.8.5-301.fc40.x86_64.conf",
            format!("title Fedora Linux\nlinux /vmlinuz\noptions {options}"),
        )
        .file("/boot/grub2/grubenv", "# GRUB Environment Block")
        .file(
            "/proc/self/mountinfo",
            format!(
                "22 1 8:1 / / rw - btrfs /dev/sda1 rw\n23 22 8:2 / /boot rw - {fs} /dev/sda2 rw"
            ),
        )
        .file("/usr/sbin/grubby", "");
    };
    let env = "/boot/grub2/grubenv";
    let entry = "/boot/loader/entries/8a1f-6.8.5-301.fc40.x86_64.conf";
    assert_eq!(
        loader(&|t| fedora(t, "ext4", "root=UUID=1 ro $tuned_params")),
        bls(Some(env), None)
    );
    let why = "it is on btrfs".to_owned();
    assert_eq!(
        loader(&|t| fedora(t, "btrfs", "root=UUID=1 ro")),
        bls(Some(env), Some(BlsObstacle::ReadOnly { why }))
    );
    assert_eq!(
        loader(&|t| fedora(t, "xfs", "$kernelopts $tuned_params")),
        bls(
            Some(env),
            Some(BlsObstacle::Variable {
                entry: entry.into()
            })
        ),
        "RHEL 8"
    );
    // RHEL 8 on EFI keeps its block where its GRUB is.
    assert_eq!(
        loader(&|t| {
            fedora(t, "ext4", "root=UUID=1");
            t.remove(env)
                .file("/boot/efi/EFI/redhat/grubenv", "# GRUB Environment Block")
                .link(env, "../efi/EFI/redhat/grubenv");
        }),
        bls(Some("/boot/efi/EFI/redhat/grubenv"), None)
    );
    assert_eq!(
        loader(&|t| {
            t.file("/run/ostree-booted", "");
        }),
        BootLoader::Ostree(GrubEntries {
            entries: None,
            env: None,
            obstacle: None
        })
    );
    let older: BootLoader = serde_json::from_str("{\"kind\":\"ostree\"}").unwrap();
    assert!(matches!(
        older,
        BootLoader::Ostree(GrubEntries { entries: None, .. })
    ));
    let unknown = "{\"kind\":\"bls\",\"entries\":\"/boot/loader/entries\",\"folder\":\"x\"}";
    assert!(serde_json::from_str::<BootLoader>(unknown).is_err());
    // As Fedora CoreOS is installed: the folder is behind a link, and `/boot` is mounted read-only.
    let coreos = |t: &Tree, options: (&str, &str)| {
        let (mount, fs) = options;
        t.file("/run/ostree-booted", "")
            .file(
                "/boot/loader.1/entries/ostree-1.conf",
                "title Fedora\nlinux /ostree/x/vmlinuz\noptions root=UUID=1 ostree=/ostree/boot.1/x",
            )
            .link("/boot/loader", "loader.1")
            .file("/boot/grub2/grubenv", "# GRUB Environment Block")
            .file(
                "/proc/1/mountinfo",
                format!("23 22 8:2 / /boot {mount} - ext4 /dev/sda2 {fs}"),
            );
    };
    let deployments = |obstacle| {
        BootLoader::Ostree(GrubEntries {
            entries: Some("/boot/loader/entries".into()),
            env: Some(env.into()),
            obstacle,
        })
    };
    let read_only = || deployments(Some(BlsObstacle::MountedReadOnly { at: "/boot".into() }));
    assert_eq!(
        loader(&|t| coreos(t, ("rw,nosuid", "rw,seclabel"))),
        deployments(None)
    );
    assert_eq!(
        loader(&|t| coreos(t, ("ro,nosuid", "ro,seclabel"))),
        read_only()
    );
    assert_eq!(
        loader(&|t| coreos(t, ("ro,nosuid", "rw,seclabel"))),
        read_only(),
        "rpm-ostree writes it in a place of its own"
    );
    assert_eq!(
        loader(&|t| {
            t.remove("/boot/grub")
                .file("/boot/efi/loader/loader.conf", "timeout 3");
        }),
        BootLoader::SystemdBoot { entries: None }
    );
    assert_eq!(
        loader(&|t| {
            t.remove("/boot/grub");
        }),
        BootLoader::Unknown
    );
    assert_eq!(
        loader(&|t| {
            let info: String = "\0\0\0\0"
                .chars()
                .chain("systemd-boot 252".chars().flat_map(|c| [c, '\0']))
                .collect();
            t.file(
                "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
                info,
            )
            .file("/efi/loader/entries/debian-6.12.conf", "linux /vmlinuz");
        }),
        BootLoader::SystemdBoot {
            entries: Some("/efi/loader/entries".into())
        },
        "what firmware started wins over what is installed"
    );
}

#[test]
fn an_inventory_file_of_another_version_is_refused_by_its_version() {
    let text = r#"{"format":"bmslice/inventory/v9","wonders":[]}"#;
    let error = CapturedInventory::from_json(text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the inventory has format `bmslice/inventory/v9`; this bmslice reads `bmslice/inventory/v1`"
    );
    let error = CapturedInventory::from_json("{\n  \"format\": 1\n}").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn an_inventory_that_somebody_edited_into_no_server_is_refused_with_what_is_wrong() {
    let text = serde_json::to_string(&seed_server().read()).unwrap();
    let edits: [(&str, &str, &str); 8] = [
        (
            r#""id":2,"online":true,"allowed":true,"package":0,"core":1,"node":0,"siblings":"2,14""#,
            r#""id":2,"online":true,"allowed":true,"package":0,"core":1,"node":0,"siblings":"2,15""#,
            "CPU 2 has the siblings 2,15, among them CPU 15, whose own siblings are 3,15",
        ),
        (
            r#""id":2,"online":true,"allowed":true,"package":0,"core":1,"node":0"#,
            r#""id":2,"online":true,"allowed":true,"package":0,"core":1,"node":1"#,
            "CPU 2 is on node 1, whose CPUs are 1,3,5",
        ),
        (
            r#""id":2,"online":true,"allowed":true,"package":0,"core":1,"node":0"#,
            r#""id":2,"online":true,"allowed":true,"package":0,"core":1,"node":7"#,
            "CPU 2 is on node 7, which is not there",
        ),
        (
            r#""id":2,"online":true"#,
            r#""id":2,"online":false"#,
            "CPU 2 has the siblings 2,14, among them CPU 14, one of which is offline",
        ),
        (
            r#""id":23,"online":true"#,
            r#""id":22,"online":true"#,
            "CPU 22 is there already",
        ),
        (
            r#""distances":[10,20]"#,
            r#""distances":[10]"#,
            "node 0 has 1 distance, for 2 nodes",
        ),
        (
            r#""address":"0000:01:00.1""#,
            r#""address":"0000:01:00.0""#,
            "the function 0000:01:00.0 is there already",
        ),
        (
            r#""iommuGroup":25"#,
            r#""iommuGroup":26"#,
            "of IOMMU group 25, 0000:01:00.0 is listed, and says another group of itself",
        ),
    ];
    for (from, to, wrong) in edits {
        assert!(text.contains(from), "{from}\n{text}");
        let edited = text.replacen(from, to, 1);
        let error = CapturedInventory::from_json(&edited).unwrap_err();
        assert!(matches!(error, ReadError::Contradicts { .. }), "{error}");
        assert!(error.to_string().contains(wrong), "{wrong}: {error}");
    }
}
