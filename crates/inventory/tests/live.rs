//! A machine with a hypervisor, read live.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its machine cannot be read"
)]

mod tree;

use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_inventory::{HostNeed, LiveInventory};
use tree::{function, notes};

#[test]
fn nothing_is_odd_about_the_lab_and_the_documents_server() {
    for server in [FakeServer::lab(), FakeServer::seed()] {
        let fake = FakeMachine::new(server);
        let inventory = LiveInventory::read(&fake, None).unwrap();
        assert!(inventory.notes.is_empty(), "{}", notes(&inventory));
        let route = inventory
            .pci
            .iter()
            .flat_map(|f| &f.host_needs)
            .any(|need| matches!(need, HostNeed::DefaultRoute { .. }));
        assert!(route);
        assert!(inventory.hypervisor.libvirt.as_ref().unwrap().kvm);
    }
}

#[test]
fn a_libvirt_that_is_down_is_told_and_the_rest_is_read() {
    let fake = FakeMachine::new(FakeServer::lab());
    fake.stop_libvirtd();
    let inventory = LiveInventory::read(&fake, None).unwrap();
    assert_eq!(inventory.hypervisor.libvirt, None);
    let error = inventory.hypervisor.libvirt_error.as_deref().unwrap();
    assert!(error.contains("No such file or directory"), "{error}");
    assert_eq!(inventory.cpus.len(), 24);
}

#[test]
fn virtual_functions_appear_with_their_write() {
    let fake = FakeMachine::new(FakeServer::lab());
    let before = LiveInventory::read(&fake, None).unwrap();
    let numvfs = "/sys/bus/pci/devices/0000:81:00.0/sriov_numvfs";
    fake.write_attribute(numvfs.as_ref(), "2").unwrap();
    let after = LiveInventory::read(&fake, None).unwrap();
    assert_eq!(after.pci.len(), before.pci.len() + 2);
    let sriov = function(&after, "0000:81:00.0").sriov.clone().unwrap();
    assert_eq!((sriov.current, sriov.vfs.len()), (2, 2));
    for vf in &sriov.vfs {
        let vf = function(&after, &vf.to_string());
        assert_eq!(vf.physfn, Some("0000:81:00.0".parse().unwrap()));
    }
}

#[test]
fn domains_are_told_with_their_pins_and_devices() {
    let fake = FakeMachine::new(FakeServer::lab());
    let xml = "<domain type='kvm'><name>red</name>\
        <uuid>6f9f1b9e-6b0f-4b7e-8d57-0d5f3c1b2a10</uuid><memory unit='MiB'>64</memory>\
        <vcpu placement='static' cpuset='4-6'>1</vcpu>\
        <cputune><vcpupin vcpu='0' cpuset='8'/><emulatorpin cpuset='4-5'/></cputune>\
        <os><type arch='x86_64' machine='q35'>hvm</type></os>\
        <devices><hostdev mode='subsystem' type='pci' managed='yes'><source>\
        <address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/>\
        </source></hostdev></devices></domain>";
    fake.hypervisor().unwrap().define(xml).unwrap();
    let inventory = LiveInventory::read(&fake, None).unwrap();
    let libvirt = inventory.hypervisor.libvirt.as_ref().unwrap();
    assert_eq!(libvirt.domains.len(), 1);
    let red = &libvirt.domains[0];
    assert_eq!((red.name.as_str(), red.running), ("red", false));
    assert_eq!(red.cpus.to_string(), "4-6,8");
    assert_eq!(red.devices, ["0000:41:00.0".parse().unwrap()]);
    let sizes: Vec<u64> = red.memory.iter().map(|part| part.size.mib()).collect();
    assert_eq!((sizes, red.memory[0].huge), (vec![64], false));
}
