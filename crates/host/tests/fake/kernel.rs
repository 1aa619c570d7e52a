//! Attributes and what the kernel makes of them.

use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer};

use crate::{address, read, run, server, write};

const PF: &str = "/sys/bus/pci/devices/0000:42:00.0";
const NUMVFS: &str = "/sys/bus/pci/devices/0000:42:00.0/sriov_numvfs";
const VF: &str = "/sys/bus/pci/devices/0000:42:10.0";

fn refused(errno: &str) -> Result<(), String> {
    Err(errno.to_owned())
}

#[test]
fn numvfs_takes_a_number_up_to_the_total_and_changes_only_by_way_of_zero() {
    let fake = FakeMachine::new(server());
    for value in ["abc", "-1", " 2", "\n", ""] {
        assert_eq!(write(&fake, NUMVFS, value), refused("Invalid argument"));
    }
    let range = "Numerical result out of range";
    assert_eq!(write(&fake, NUMVFS, "8"), refused(range));
    assert_eq!(write(&fake, NUMVFS, "0"), Ok(()));
    assert_eq!(write(&fake, NUMVFS, "2\n"), Ok(()));
    let busy = "Device or resource busy";
    assert_eq!(write(&fake, NUMVFS, "3"), refused(busy));
    assert_eq!(write(&fake, NUMVFS, "2"), Ok(()));
    assert_eq!(read(&fake, NUMVFS), "2");
    assert_eq!(write(&fake, NUMVFS, "0"), Ok(()));
    assert_eq!(write(&fake, NUMVFS, "3"), Ok(()));
    let total = format!("{PF}/sriov_totalvfs");
    assert_eq!(write(&fake, &total, "9"), refused("Permission denied"));
}

#[test]
fn vfs_appear_with_links_groups_driver_and_interface_and_go_again() {
    let fake = FakeMachine::new(server());
    let root = fake.root();
    let groups = root.list("/sys/kernel/iommu_groups").unwrap();
    write(&fake, NUMVFS, "2").unwrap();
    assert_eq!(
        root.link(format!("{PF}/virtfn1")).unwrap().to_str(),
        Some("../0000:42:10.2")
    );
    assert_eq!(
        root.link_name(format!("{VF}/physfn")).as_deref(),
        Some("0000:42:00.0")
    );
    assert_eq!(
        root.resolve(VF).unwrap().to_str(),
        Some("/sys/devices/pci0000:40/0000:40:01.0/0000:42:10.0")
    );
    assert_eq!(
        root.link_name(format!("{VF}/driver")).as_deref(),
        Some("igbvf")
    );
    let group = root.link_name(format!("{VF}/iommu_group")).unwrap();
    assert!(!groups.contains(&group));
    let members = format!("/sys/kernel/iommu_groups/{group}/devices");
    assert_eq!(root.list(members).unwrap(), ["0000:42:10.0"]);
    assert!(root.exists("/sys/class/net/enp66s0v1/address"));

    write(&fake, NUMVFS, "0").unwrap();
    assert!(!root.exists(VF) && !root.exists("/sys/class/net/enp66s0v1"));
    assert!(!root.exists(format!("{PF}/virtfn0")));
    assert_eq!(root.list("/sys/kernel/iommu_groups").unwrap(), groups);
    // The kernel gives the lowest number that is free.
    write(&fake, NUMVFS, "1").unwrap();
    let again = root.link_name(format!("{VF}/iommu_group")).unwrap();
    assert_eq!(again, group);
}

#[test]
fn vf_addresses_follow_offset_and_stride_over_the_end_of_a_bus() {
    let fake = FakeMachine::new(FakeServer::seed());
    write(
        &fake,
        "/sys/bus/pci/devices/0000:01:00.1/sriov_numvfs",
        "63",
    )
    .unwrap();
    let root = fake.root();
    // 01:00.1 + 128 + 2i: function 1 throughout, and past ff to bus 2 it does not come.
    assert!(root.exists("/sys/bus/pci/devices/0000:01:10.1"));
    assert!(root.exists("/sys/bus/pci/devices/0000:01:1f.5"));
    assert_eq!(
        root.link_name("/sys/bus/pci/devices/0000:01:00.1/virtfn62")
            .as_deref(),
        Some("0000:01:1f.5")
    );
}

#[test]
fn a_driver_takes_what_it_matches_and_says_busy_or_no_such_device_as_the_kernel_does() {
    let fake = FakeMachine::new(server());
    write(&fake, NUMVFS, "2").unwrap();
    run(&fake, "modprobe", &["vfio-pci"]).unwrap();
    let vf = "0000:42:10.0";
    let to = |driver: &str, what: &str| format!("/sys/bus/pci/drivers/{driver}/{what}");
    let none = || refused("No such device");
    assert_eq!(write(&fake, &to("igb", "unbind"), vf), none());
    assert_eq!(write(&fake, &to("igbvf", "unbind"), "42:10.0"), none());
    let busy = || refused("Device or resource busy");
    assert_eq!(write(&fake, &to("igbvf", "bind"), vf), busy());
    assert_eq!(write(&fake, &to("igb", "bind"), vf), none());
    assert_eq!(write(&fake, &to("vfio-pci", "bind"), vf), none());

    let choice = format!("{VF}/driver_override");
    assert_eq!(read(&fake, &choice), "(null)");
    write(&fake, &choice, "vfio-pci\n").unwrap();
    assert_eq!(read(&fake, &choice), "vfio-pci");
    assert_eq!(write(&fake, &to("vfio-pci", "bind"), vf), busy());
    write(&fake, &to("igbvf", "unbind"), "0000:42:10.0\n").unwrap();
    assert_eq!(write(&fake, &to("igbvf", "bind"), vf), none());
    write(&fake, "/sys/bus/pci/drivers_probe", vf).unwrap();
    assert_eq!(fake.driver(address(vf)).as_deref(), Some("vfio-pci"));
    let group = fake.root().link_name(format!("{VF}/iommu_group")).unwrap();
    assert!(fake.root().exists(format!("/dev/vfio/{group}")));

    write(&fake, &to("vfio-pci", "unbind"), vf).unwrap();
    assert!(!fake.root().exists(format!("/dev/vfio/{group}")));
    write(&fake, &choice, "").unwrap();
    assert_eq!(read(&fake, &choice), "(null)");
    write(&fake, "/sys/bus/pci/drivers_probe", vf).unwrap();
    assert_eq!(fake.driver(address(vf)).as_deref(), Some("igbvf"));
    let probe = "/sys/bus/pci/drivers_probe";
    assert_eq!(write(&fake, probe, "0000:99:00.0"), none());
    assert_eq!(write(&fake, probe, "junk"), none());
}

#[test]
fn a_probe_reports_success_when_no_driver_took_the_device() {
    let fake = FakeMachine::new(FakeServer::lab());
    // Without an IOMMU vfio-pci takes nothing.
    run(&fake, "modprobe", &["vfio-pci"]).unwrap();
    write(&fake, &format!("{PF}/driver_override"), "vfio-pci").unwrap();
    write(&fake, "/sys/bus/pci/drivers/igb/unbind", "0000:42:00.0").unwrap();
    assert_eq!(
        write(&fake, "/sys/bus/pci/drivers_probe", "0000:42:00.0"),
        Ok(())
    );
    assert_eq!(fake.driver(address("42:00.0")), None);
}

#[test]
fn without_autoprobe_vfs_stay_alone_unless_a_driver_is_named() {
    let fake = FakeMachine::new(server());
    let autoprobe = format!("{PF}/sriov_drivers_autoprobe");
    assert_eq!(write(&fake, &autoprobe, "5"), refused("Invalid argument"));
    write(&fake, &autoprobe, "off").unwrap();
    assert_eq!(read(&fake, &autoprobe), "0");
    write(&fake, NUMVFS, "1").unwrap();
    let vf = address("42:10.0");
    assert_eq!(fake.driver(vf), None);
    write(&fake, "/sys/bus/pci/drivers_probe", "0000:42:10.0").unwrap();
    assert_eq!(fake.driver(vf), None);
    assert_eq!(
        write(&fake, "/sys/bus/pci/drivers/igbvf/bind", "0000:42:10.0"),
        refused("No such device")
    );
    write(&fake, &format!("{VF}/driver_override"), "igbvf").unwrap();
    write(&fake, "/sys/bus/pci/drivers_probe", "0000:42:10.0").unwrap();
    assert_eq!(fake.driver(vf).as_deref(), Some("igbvf"));
}

#[test]
fn a_physical_function_that_loses_its_driver_loses_its_vfs_and_interface() {
    let fake = FakeMachine::new(server());
    write(&fake, NUMVFS, "2").unwrap();
    write(&fake, "/sys/bus/pci/drivers/igb/unbind", "0000:42:00.0").unwrap();
    assert_eq!(read(&fake, NUMVFS), "0");
    assert!(!fake.root().exists(VF));
    assert!(!fake.root().exists("/sys/class/net/enp66s0"));
    let missing = || refused("No such file or directory");
    assert_eq!(write(&fake, NUMVFS, "1"), missing());
    fake.rebind(address("42:00.0"), Some("vfio-pci"));
    assert_eq!(write(&fake, NUMVFS, "1"), missing());
    assert_eq!(write(&fake, NUMVFS, "0"), Ok(()));
    fake.rebind(address("42:00.0"), None);
    assert!(fake.root().exists("/sys/class/net/enp66s0"));
    assert_eq!(write(&fake, NUMVFS, "1"), Ok(()));
}

#[test]
fn huge_pages_are_granted_in_part_without_an_error() {
    let fake = FakeMachine::new(FakeServer::lab());
    let node = "/sys/devices/system/node/node1/hugepages";
    let large = format!("{node}/hugepages-1048576kB");
    let small = format!("{node}/hugepages-2048kB");
    let count = format!("{large}/nr_hugepages");
    // 4 GiB less the host's 512 MiB.
    write(&fake, &count, "99").unwrap();
    assert_eq!(read(&fake, &count), "3");
    assert_eq!(read(&fake, &format!("{large}/free_hugepages")), "3");
    write(&fake, &format!("{small}/nr_hugepages"), "1000").unwrap();
    assert_eq!(read(&fake, &format!("{small}/nr_hugepages")), "256");
    write(&fake, &count, "1").unwrap();
    write(&fake, &format!("{small}/nr_hugepages"), "1000").unwrap();
    assert_eq!(read(&fake, &format!("{small}/nr_hugepages")), "1000");
    let all = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";
    assert_eq!(read(&fake, all), "1");
    for value in ["x", "-1"] {
        assert_eq!(write(&fake, &count, value), refused("Invalid argument"));
    }
}

#[test]
fn sysfs_and_procfs_take_no_new_files() {
    let fake = FakeMachine::new(FakeServer::lab());
    let install = |path: &str| {
        let error = fake.install(path.as_ref(), b"x", 0o644).unwrap_err();
        error.io_kind().unwrap()
    };
    assert_eq!(install("/sys/foo"), std::io::ErrorKind::PermissionDenied);
    assert_eq!(install("/proc/foo"), std::io::ErrorKind::NotFound);
    let missing = refused("No such file or directory");
    assert_eq!(write(&fake, "/sys/foo", "1"), missing);
    assert_eq!(write(&fake, PF, "1"), refused("Is a directory"));
}
