//! The fake's libvirt.

use std::time::Duration;

use bmslice_host::Machine;
use bmslice_host::fake::FakeMachine;
use bmslice_model::ByteSize;

use crate::{address, read, run, server, write};

const DISK: &str = "/var/lib/libvirt/images/red.qcow2";

fn hostdev(at: &str, managed: &str) -> String {
    let at = address(at);
    format!(
        "<hostdev mode='subsystem' type='pci' managed='{managed}'><source><address \
         domain='0x0000' bus='0x{:02x}' slot='0x{:02x}' function='0x{:x}'/></source></hostdev>",
        at.bus(),
        at.device(),
        at.function()
    )
}

/// A guest with 4 vCPUs and 2 GiB of huge pages on node 1.
fn xml(name: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'>
  <name>{name}</name>
  <memory unit='GiB'>2</memory>
  <memoryBacking><hugepages><page size='1' unit='GiB' nodeset='0'/></hugepages></memoryBacking>
  <vcpu placement='static' cpuset='14-15'>4</vcpu>
  <iothreads>1</iothreads>
  <cputune>
    <vcpupin vcpu='0' cpuset='16'/><vcpupin vcpu='1' cpuset='17'/>
    <vcpupin vcpu='2' cpuset='18'/><vcpupin vcpu='3' cpuset='19'/>
    <emulatorpin cpuset='14-15'/><iothreadpin iothread='1' cpuset='15'/>
  </cputune>
  <numatune><memory mode='strict' nodeset='1'/><memnode cellid='0' mode='strict' nodeset='1'/></numatune>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <cpu mode='host-passthrough'><numa><cell id='0' cpus='0-3' memory='2' unit='GiB'/></numa></cpu>
  <devices>
    <disk type='file' device='disk'><source file='{DISK}'/><target dev='vda' bus='virtio'/></disk>
    {devices}
  </devices>
</domain>"
    )
}

fn with_disk() -> FakeMachine {
    let fake = FakeMachine::new(server());
    fake.add_image(DISK, ByteSize::from_gib(10), ByteSize::from_mib(200));
    fake
}

fn start(fake: &FakeMachine, name: &str, devices: &str) -> Result<(), String> {
    let libvirt = fake.hypervisor().unwrap();
    libvirt.define(&xml(name, devices)).unwrap();
    libvirt.start(name).map_err(|error| {
        let text = error.to_string();
        let (_, message) = text.split_once("`: ").unwrap();
        message.to_owned()
    })
}

fn free_pages(fake: &FakeMachine) -> String {
    let pool = "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB";
    read(fake, &format!("{pool}/free_hugepages"))
}

#[test]
fn a_start_binds_allocates_and_pins_and_a_stop_gives_all_back() {
    let fake = with_disk();
    start(&fake, "red", &hostdev("81:00.0", "yes")).unwrap();
    let pf = address("81:00.0");
    assert_eq!(fake.driver(pf).as_deref(), Some("vfio-pci"));
    assert!(!fake.root().exists("/sys/class/net/enp129s0"));
    assert_eq!(free_pages(&fake), "0");

    let libvirt = fake.hypervisor().unwrap();
    let pins = libvirt.pins("red").unwrap();
    let vcpus: Vec<_> = pins.vcpus.iter().map(ToString::to_string).collect();
    assert_eq!(vcpus, ["16", "17", "18", "19"]);
    assert_eq!(pins.emulator.to_string(), "14-15");
    assert_eq!(pins.iothreads[0].1.to_string(), "15");

    let pid = read(&fake, "/run/libvirt/qemu/red.pid");
    let tasks = fake.root().list(format!("/proc/{pid}/task")).unwrap();
    let threads: Vec<(String, String)> = tasks
        .iter()
        .map(|tid| {
            let at = format!("/proc/{pid}/task/{tid}");
            let status = read(&fake, &format!("{at}/status"));
            let cpus = status.rsplit('\t').next().unwrap().to_owned();
            (read(&fake, &format!("{at}/comm")), cpus)
        })
        .collect();
    let has = |name: &str, cpus: &str| threads.contains(&(name.into(), cpus.into()));
    assert!(has("CPU 3/KVM", "19") && has("IO iothread1", "15"));
    assert!(has("qemu-system-x86", "14-15"));
    assert!(read(&fake, &format!("/proc/{pid}/numa_maps")).contains("N1=2"));

    libvirt.destroy("red").unwrap();
    assert_eq!(fake.driver(pf).as_deref(), Some("igb"));
    assert!(fake.root().exists("/sys/class/net/enp129s0"));
    assert_eq!(free_pages(&fake), "2");
    assert!(!fake.root().exists(format!("/proc/{pid}")));
}

#[test]
fn a_definition_is_not_printed_as_it_was_given() {
    let fake = with_disk();
    let libvirt = fake.hypervisor().unwrap();
    libvirt.define(&xml("red", "")).unwrap();
    let printed = libvirt.xml("red", true).unwrap();
    for part in [
        "<uuid>",
        "<memory unit='KiB'>2097152</memory>",
        "<currentMemory unit='KiB'>2097152</currentMemory>",
        "machine='pc-q35-7.2'",
        "check='none'",
        "<on_crash>destroy</on_crash>",
        "<address type='pci'",
    ] {
        assert!(printed.contains(part), "{part} is missing: {printed}");
    }
    // What was printed defines the same domain.
    libvirt.define(&printed).unwrap();
    assert_eq!(libvirt.xml("red", true).unwrap(), printed);
    libvirt.start("red").unwrap();
    assert_eq!(libvirt.xml("red", true).unwrap(), printed);
    assert!(libvirt.xml("red", false).unwrap().contains("id='"));
}

#[test]
fn a_vf_interface_gets_its_mac_and_vlan_while_the_guest_runs() {
    let fake = with_disk();
    write(&fake, "/sys/bus/pci/devices/0000:81:00.0/sriov_numvfs", "2").unwrap();
    let interface = "<interface type='hostdev' managed='yes'><mac address='52:54:00:AA:00:01'/>
        <source><address type='pci' domain='0' bus='0x81' slot='0x10' function='0x2'/></source>
        <vlan><tag id='101'/></vlan></interface>";
    start(&fake, "blue", interface).unwrap();
    let vf = fake.vf("enp129s0", 1).unwrap();
    assert_eq!((vf.mac.as_str(), vf.vlan), ("52:54:00:aa:00:01", 101));
    fake.hypervisor().unwrap().destroy("blue").unwrap();
    assert_eq!(fake.vf("enp129s0", 1).unwrap().vlan, 0);
    let driver = fake.driver(address("81:10.2"));
    assert_eq!(driver.as_deref(), Some("igbvf"));
}

#[test]
fn a_start_that_cannot_be_says_why_and_leaves_nothing_taken() {
    let fake = with_disk();
    let before = fake.state();
    let refused = |devices: &str, words: &str| {
        let said = start(&fake, "red", devices).unwrap_err();
        assert!(said.contains(words), "{said}");
        let libvirt = fake.hypervisor().unwrap();
        libvirt.undefine("red").unwrap();
        assert_eq!(fake.state(), before);
    };
    refused(
        &hostdev("99:00.0", "yes"),
        "Device 0000:99:00.0 not found: could not access /sys/bus/pci/devices/0000:99:00.0/config",
    );
    refused(
        &hostdev("81:00.0", "no"),
        "Unmanaged PCI device 0000:81:00.0 must be manually detached from the host",
    );
    refused(
        &hostdev("80:00.0", "yes"),
        "Non-endpoint PCI devices cannot be assigned to guests",
    );
    refused(
        &hostdev("81:00.0", "yes")
            .replace(
                "<hostdev mode='subsystem' type='pci'",
                "<interface type='hostdev'",
            )
            .replace("</hostdev>", "</interface>"),
        "Interface type hostdev is currently supported on SR-IOV Virtual Functions only",
    );
    refused(
        "<disk type='file'><source file='/nowhere.qcow2'/></disk>",
        "Cannot access storage file '/nowhere.qcow2'",
    );
    // Too few pages on the node: the card must go back to the host.
    write(
        &fake,
        "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages",
        "1",
    )
    .unwrap();
    let said = start(&fake, "red", &hostdev("81:00.0", "yes")).unwrap_err();
    assert!(said.contains("preallocating memory failed"), "{said}");
    assert_eq!(fake.driver(address("81:00.0")).as_deref(), Some("igb"));
    assert_eq!(free_pages(&fake), "1");
}

#[test]
fn a_group_with_a_member_at_the_host_is_not_viable() {
    let mut server = server();
    server.nics[4].group_with = Some(server.nics[3].address);
    let fake = FakeMachine::new(server);
    fake.add_image(DISK, ByteSize::from_gib(10), ByteSize::from_mib(200));
    let said = start(&fake, "red", &hostdev("81:00.0", "yes")).unwrap_err();
    assert!(said.contains("is not viable"), "{said}");
    assert_eq!(fake.driver(address("81:00.0")).as_deref(), Some("igb"));
    let both = hostdev("81:00.0", "yes") + &hostdev("82:00.0", "yes");
    start(&fake, "red", &both).unwrap();
}

#[test]
fn without_an_iommu_nothing_is_passed_through() {
    let fake = FakeMachine::new(bmslice_host::fake::FakeServer::lab());
    fake.add_image(DISK, ByteSize::from_gib(10), ByteSize::from_mib(200));
    let said = start(&fake, "red", &hostdev("81:00.0", "yes")).unwrap_err();
    assert_eq!(
        said,
        "unsupported configuration: host doesn't support passthrough of host PCI devices"
    );
}

#[test]
fn a_device_has_one_guest_and_a_guest_loses_a_vf_that_is_taken_away() {
    let fake = with_disk();
    let numvfs = "/sys/bus/pci/devices/0000:41:00.0/sriov_numvfs";
    write(&fake, numvfs, "1").unwrap();
    start(&fake, "red", &hostdev("41:10.0", "yes")).unwrap();
    let said = start(&fake, "blue", &hostdev("41:10.0", "yes")).unwrap_err();
    assert!(
        said.ends_with("is in use by driver QEMU, domain red"),
        "{said}"
    );
    let libvirt = fake.hypervisor().unwrap();
    let error = libvirt.reattach("pci_0000_41_10_0").unwrap_err();
    assert!(error.to_string().ends_with("domain red"));
    write(&fake, numvfs, "0").unwrap();
    assert_eq!(fake.lost_devices("red"), [address("41:10.0")]);
}

#[test]
fn a_shutdown_takes_its_time_and_a_pull_of_the_plug_none() {
    let fake = with_disk();
    start(&fake, "red", "").unwrap();
    let libvirt = fake.hypervisor().unwrap();
    libvirt.shutdown("red").unwrap();
    assert!(libvirt.domains().unwrap()[0].running);
    fake.sleep(Duration::from_secs(6));
    assert!(!libvirt.domains().unwrap()[0].running);
    libvirt.start("red").unwrap();
    libvirt.destroy("red").unwrap();
    let said = libvirt.destroy("red").unwrap_err().to_string();
    assert!(said.ends_with("domain is not running"), "{said}");
}

#[test]
fn definitions_are_refused_as_libvirt_refuses_them() {
    let fake = with_disk();
    let libvirt = fake.hypervisor().unwrap();
    let said = |xml: &str| libvirt.define(xml).unwrap_err().to_string();
    assert!(said("<domain><x>").contains("(domain_definition):1:"));
    assert!(said("<foo/>").contains("expecting root element of 'domain', not 'foo'"));
    let twice = hostdev("81:00.0", "yes") + &hostdev("81:00.0", "yes");
    assert!(said(&xml("red", &twice)).contains("Hostdev already exists"));
    let pin = xml("red", "").replace("iothread='1'", "iothread='7'");
    assert!(said(&pin).contains("Cannot find 'iothread' : 7"));
    libvirt.define(&xml("red", "")).unwrap();
    let uuid = "<uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid></domain>";
    let other = xml("red", "").replace("</domain>", uuid);
    assert!(said(&other).contains("already exists with uuid"));
    assert!(
        libvirt
            .start("nobody")
            .unwrap_err()
            .to_string()
            .contains("no domain with matching name 'nobody'")
    );
}

#[test]
fn while_the_daemon_is_away_nothing_answers_and_guests_run_on() {
    let fake = with_disk();
    start(&fake, "red", "").unwrap();
    let libvirt = fake.hypervisor().unwrap();
    fake.stop_libvirtd();
    let error = libvirt.domains().unwrap_err().to_string();
    assert!(error.ends_with("client socket is closed"), "{error}");
    let Err(error) = fake.hypervisor() else {
        panic!("connected")
    };
    assert!(error.to_string().contains("Failed to connect socket"));
    run(&fake, "systemctl", &["start", "libvirtd"]).unwrap();
    let libvirt = fake.hypervisor().unwrap();
    assert!(libvirt.domains().unwrap()[0].running);
}
