//! GRUB, reboots, and that the fake is read as a live server is.

use std::path::Path;

use bmslice_host::Machine;
use bmslice_host::fake::{FakeDisk, FakeIommu, FakeMachine, FakeServer, Numbering};
use bmslice_inventory::{BootLoader, HostNeed, Inventory, Probes};

use crate::{address, read, run, server, write};

const DROP_IN: &str = "/etc/default/grub.d/90-bmslice.cfg";

fn inventory(fake: &FakeMachine) -> Inventory {
    bmslice_inventory::read(fake.root(), &Probes::default()).unwrap()
}

#[test]
fn the_seeds_server_reads_as_the_seed_describes_it() {
    let inventory = inventory(&FakeMachine::new(FakeServer::seed()));
    assert_eq!(inventory.cpus.len(), 24);
    assert_eq!(inventory.cpus[5].siblings.to_string(), "5,17");
    let nodes: Vec<_> = inventory.nodes.iter().map(|n| n.cpus.to_string()).collect();
    assert_eq!(nodes[0], "0,2,4,6,8,10,12,14,16,18,20,22");
    assert_eq!(nodes[1], "1,3,5,7,9,11,13,15,17,19,21,23");
    assert_eq!(inventory.nodes[0].distances, [10, 21]);
    let eno1 = inventory
        .pci
        .iter()
        .find(|f| f.address == address("01:00.0"))
        .unwrap();
    assert_eq!(eno1.id.to_string(), "8086:1528");
    assert_eq!(eno1.interfaces, ["eno1"]);
    assert_eq!(eno1.sriov.as_ref().unwrap().total, 63);
    assert_eq!(eno1.mac.unwrap().to_string(), "bc:30:5b:f2:87:50");
    let managed: Vec<_> = inventory
        .pci
        .iter()
        .filter(|f| !f.host_needs.is_empty())
        .map(|f| (f.address, f.host_needs[0].clone()))
        .collect();
    assert_eq!(
        managed,
        [
            (address("00:1f.2"), HostNeed::Mount { at: "/".into() }),
            (
                address("08:00.0"),
                HostNeed::DefaultRoute {
                    interface: "eno3".into()
                }
            ),
        ]
    );
    assert!(matches!(
        &inventory.boot.loader,
        BootLoader::Grub { config, drop_ins: Some(dir) }
            if config == "/boot/grub/grub.cfg" && dir == "/etc/default/grub.d"
    ));
    assert!(inventory.hypervisor.kvm_device);
    assert_eq!(
        inventory.hypervisor.kvm_module.as_deref(),
        Some("kvm_intel")
    );
    assert_eq!(inventory.notes, []);
}

#[test]
fn every_topology_reads_without_a_note() {
    for (sockets, cores, threads, nodes) in [(1, 4, 1, 1), (1, 8, 2, 2), (2, 4, 2, 4), (4, 2, 2, 2)]
    {
        let virtio = FakeDisk::Virtio(address("00:03.0"));
        let sata = FakeDisk::Sata(address("00:1f.2"));
        for (numbering, disk) in [
            (Numbering::Linear, virtio),
            (Numbering::ThreadsLast, sata),
            (Numbering::Alternating, virtio),
        ] {
            let inventory = inventory(&FakeMachine::new(FakeServer {
                sockets,
                cores,
                threads,
                nodes,
                numbering,
                disk,
                ..server()
            }));
            assert_eq!(inventory.notes, []);
            let all = (sockets * cores * threads) as usize;
            assert_eq!(inventory.cpus.len(), all);
            assert_eq!(inventory.nodes.len(), nodes as usize);
            for node in &inventory.nodes {
                assert_eq!(node.cpus.len(), all / nodes as usize);
            }
            for cpu in &inventory.cpus {
                assert_eq!(cpu.siblings.len(), threads as usize);
                assert!(cpu.siblings.contains(cpu.id));
                let node = &inventory.nodes[cpu.node.unwrap().0 as usize];
                assert!(cpu.siblings.is_subset(&node.cpus));
            }
        }
    }
}

#[test]
fn a_drop_in_takes_effect_with_update_grub_and_the_next_boot() {
    let fake = FakeMachine::new(FakeServer::lab());
    assert!(!inventory(&fake).boot.iommu);
    assert!(
        !fake
            .root()
            .exists("/sys/bus/pci/devices/0000:41:00.0/iommu_group")
    );
    let arguments = "intel_iommu=on iommu=pt isolcpus=domain,managed_irq,2-11,14-23 \
                     irqaffinity=0,1,12,13 hugepagesz=1G hugepages=0:2,1:1";
    let text = format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {arguments}\"\n");
    fake.install(Path::new(DROP_IN), text.as_bytes(), 0o644)
        .unwrap();
    assert!(!read(&fake, "/boot/grub/grub.cfg").contains("isolcpus"));
    run(&fake, "update-grub", &[]).unwrap();
    assert!(read(&fake, "/boot/grub/grub.cfg").contains("console=ttyS0,115200 intel_iommu=on"));
    assert!(!read(&fake, "/proc/cmdline").contains("isolcpus"));

    let boot_id = read(&fake, "/proc/sys/kernel/random/boot_id");
    run(&fake, "systemctl", &["reboot"]).unwrap();
    assert!(fake.reboot_requested());
    fake.reboot();
    assert!(!fake.reboot_requested());
    assert_ne!(read(&fake, "/proc/sys/kernel/random/boot_id"), boot_id);
    let inventory = inventory(&fake);
    assert_eq!(inventory.boot.isolated.to_string(), "2-11,14-23");
    assert!(inventory.boot.iommu);
    let pages: Vec<u64> = inventory
        .nodes
        .iter()
        .map(|node| node.huge_pages[1].total)
        .collect();
    assert_eq!(pages, [2, 1]);

    fake.remove(Path::new(DROP_IN)).unwrap();
    run(&fake, "grub-mkconfig", &["-o", "/boot/grub/grub.cfg"]).unwrap();
    fake.reboot();
    assert_eq!(read(&fake, "/sys/devices/system/cpu/isolated"), "");
}

#[test]
fn managed_irq_alone_isolates_nothing() {
    let fake = FakeMachine::new(FakeServer {
        cmdline: "isolcpus=managed_irq,2-11".into(),
        ..FakeServer::lab()
    });
    assert_eq!(read(&fake, "/sys/devices/system/cpu/isolated"), "");
    let fake = FakeMachine::new(FakeServer {
        cmdline: "isolcpus=2-11".into(),
        ..FakeServer::lab()
    });
    assert_eq!(read(&fake, "/sys/devices/system/cpu/isolated"), "2-11");
}

#[test]
fn a_broken_drop_in_leaves_the_old_configuration() {
    let fake = FakeMachine::new(FakeServer::lab());
    let before = read(&fake, "/boot/grub/grub.cfg");
    fake.put(DROP_IN, "GRUB_CMDLINE_LINUX=\"open\nX=1\n");
    let error = run(&fake, "update-grub", &[]).unwrap_err().to_string();
    assert!(
        error.contains("90-bmslice.cfg: 1: Syntax error: Unterminated quoted string"),
        "{error}"
    );
    assert_eq!(read(&fake, "/boot/grub/grub.cfg"), before);
}

#[test]
fn an_iommu_that_the_kernel_turns_on_by_itself_can_be_turned_off() {
    let with = |cmdline: &str| {
        let fake = FakeMachine::new(FakeServer {
            iommu: FakeIommu::IntelByDefault,
            cmdline: cmdline.into(),
            ..FakeServer::lab()
        });
        inventory(&fake).boot.iommu
    };
    assert!(with("") && !with("intel_iommu=off"));
}

#[test]
fn a_reboot_takes_vfs_pages_and_guests_and_starts_what_is_marked() {
    let fake = FakeMachine::new(server());
    fake.add_image(
        "/var/lib/libvirt/images/blue.qcow2",
        bmslice_model::ByteSize::from_gib(10),
        bmslice_model::ByteSize::from_mib(1),
    );
    let numvfs = "/sys/bus/pci/devices/0000:81:00.0/sriov_numvfs";
    write(&fake, numvfs, "1").unwrap();
    let small = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    write(&fake, small, "64").unwrap();
    let xml = "<domain type='kvm'><name>blue</name><memory unit='MiB'>512</memory>
        <os><type>hvm</type></os><devices>
        <disk type='file'><source file='/var/lib/libvirt/images/blue.qcow2'/></disk>
        <hostdev type='pci' managed='yes'><source><address domain='0' bus='0x81' slot='0x10'
        function='0x0'/></source></hostdev></devices></domain>";
    let libvirt = fake.hypervisor().unwrap();
    libvirt.define(xml).unwrap();
    libvirt.set_autostart("blue", true).unwrap();
    libvirt.start("blue").unwrap();

    // Nobody makes the VF before libvirt starts.
    let failed = fake.reboot();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.contains("Device 0000:81:10.0 not found"));
    assert_eq!(
        (read(&fake, numvfs), read(&fake, small)),
        ("0".into(), "0".into())
    );
    assert_eq!(fake.driver(address("81:00.0")).as_deref(), Some("igb"));

    let failed = fake.reboot_with(|fake| write(fake, numvfs, "1").unwrap());
    assert_eq!(failed, []);
    assert!(fake.hypervisor().unwrap().domains().unwrap()[0].running);
}

#[test]
fn grub_runs_what_scripts_print_and_writes_its_block() {
    let fake = FakeMachine::new(FakeServer::lab());
    let script = "#!/bin/sh\ncat << 'BMSLICE'\n\
                  set extra=\n\
                  if [ -s $prefix/some.env ]; then\n  load_env --file=$prefix/some.env once\nfi\n\
                  if [ \"$once\" = \"yes\" ]; then\n  set once=\n  \
                  if save_env --file=$prefix/some.env once; then\n    set extra='nosmt a=b'\n  fi\nfi\n\
                  export extra\nBMSLICE\n";
    fake.put_with_mode("/etc/grub.d/09_some", script, 0o755);
    fake.put(
        DROP_IN,
        "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX \"'${extra}'\n",
    );
    run(&fake, "update-grub", &[]).unwrap();
    let block = |value: &str| {
        let text = format!("# GRUB Environment Block\nonce={value}\n");
        format!("{text:#<1024}")
    };
    let extra = |fake: &FakeMachine| read(fake, "/proc/cmdline").contains(" nosmt a=b");
    fake.reboot();
    assert!(!extra(&fake), "there is no block");
    fake.put("/boot/grub/some.env", block("yes"));
    fake.reboot();
    assert!(extra(&fake));
    assert_eq!(read(&fake, "/boot/grub/some.env"), block(""));
    fake.reboot();
    assert!(!extra(&fake), "once only");

    // A command that GRUB may know and the fake does not is no silence.
    let odd = script.replace("export extra", "chainloader +1");
    fake.put_with_mode("/etc/grub.d/09_some", odd, 0o755);
    run(&fake, "update-grub", &[]).unwrap();
    let boot = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fake.reboot()));
    assert!(boot.is_err());
}

#[test]
fn a_kernel_that_panics_reboots_after_its_seconds_or_waits_for_somebody() {
    for (arguments, came) in [
        ("rdinit=/nonexistent", 1),
        ("rdinit=/nonexistent panic=5", 0),
    ] {
        let fake = FakeMachine::new(FakeServer::lab());
        let script = format!(
            "#!/bin/sh\ncat << 'BMSLICE'\n\
             load_env --file=$prefix/some.env once\nset extra=\n\
             if [ \"$once\" = \"yes\" ]; then\n  set once=\n  \
             save_env --file=$prefix/some.env once\n  set extra='{arguments}'\nfi\nBMSLICE\n"
        );
        fake.put_with_mode("/etc/grub.d/09_some", script, 0o755);
        let text = "# GRUB Environment Block\nonce=yes\n";
        fake.put("/boot/grub/some.env", format!("{text:#<1024}"));
        fake.put(DROP_IN, "GRUB_CMDLINE_LINUX='${extra}'\n");
        run(&fake, "update-grub", &[]).unwrap();
        fake.reboot();
        assert_eq!(fake.power_cycles(), came, "{arguments}");
        assert!(!read(&fake, "/proc/cmdline").contains("rdinit"));
    }
}

#[test]
fn a_driver_that_the_kernel_refuses_leaves_its_card_without_an_interface() {
    let fake = FakeMachine::new(FakeServer {
        cmdline: "module_blacklist=nouveau,virtio_net".into(),
        ..FakeServer::lab()
    });
    assert!(!fake.root().exists("/sys/class/net/enp0s2"));
    assert!(fake.root().exists("/sys/class/net/enp65s0"));
    assert!(!read(&fake, "/proc/net/route").contains("enp0s2"));
}
