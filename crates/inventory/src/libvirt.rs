//! What libvirt says, and what its domains hold.
//!
//! Source: libvirt's `formatdomain` (cputune, hostdev, interface type='hostdev') and `formatcaps`.

mod memory;

use bmslice_host::{HostError, Hypervisor};
use bmslice_model::{CpuId, CpuSet, PciAddress};
use quick_xml::events::{BytesStart, Event};

use crate::facts::{DomainFacts, DomainMemory, LibvirtFacts};

/// Asks libvirt for its versions, whether it has KVM, and its domains.
///
/// # Errors
/// What libvirt answered, and `HostError::Hypervisor` when its XML cannot be read. A domain that
/// goes while it is asked is left out.
pub fn libvirt_facts(hypervisor: &dyn Hypervisor) -> Result<LibvirtFacts, HostError> {
    let (version, qemu) = hypervisor.versions()?;
    let dotted = |(major, minor, release): (u32, u32, u32)| format!("{major}.{minor}.{release}");
    let kvm = has_kvm(&hypervisor.capabilities()?).map_err(|error| HostError::Hypervisor {
        action: "tell its capabilities".into(),
        message: error.to_string(),
    })?;
    let mut domains = Vec::new();
    for state in hypervisor.domains()? {
        let xml = match hypervisor.xml(&state.name, !state.running) {
            Ok(xml) => xml,
            Err(error) => {
                // Transient domains go when they stop.
                if hypervisor.domains()?.iter().all(|d| d.uuid != state.uuid) {
                    continue;
                }
                return Err(error);
            }
        };
        let held = holdings(&xml).map_err(|error| HostError::Hypervisor {
            action: format!("describe the domain `{}`", state.name),
            message: error.to_string(),
        })?;
        domains.push(DomainFacts {
            name: state.name,
            uuid: state.uuid,
            running: state.running,
            autostart: state.autostart,
            cpus: held.cpus,
            devices: held.devices,
            memory: held.memory,
        });
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(LibvirtFacts {
        version: dotted(version),
        qemu: qemu.map(dotted),
        kvm,
        domains,
    })
}

/// Whether the capabilities have a guest of the host's architecture and domain type `kvm`.
fn has_kvm(xml: &str) -> Result<bool, quick_xml::Error> {
    let mut host = None;
    let mut guest = None;
    let mut with_kvm = Vec::new();
    walk(xml, |path, event| match event {
        Event::Text(text) if path == ["capabilities", "host", "cpu", "arch"] => {
            host = Some(String::from_utf8_lossy(text).trim().to_owned());
        }
        Event::Start(tag) | Event::Empty(tag) if path == ["capabilities", "guest", "arch"] => {
            guest = attribute(tag, "name");
        }
        Event::Start(tag) | Event::Empty(tag)
            if path == ["capabilities", "guest", "arch", "domain"]
                && attribute(tag, "type").as_deref() == Some("kvm") =>
        {
            with_kvm.extend(guest.clone());
        }
        _ => {}
    })?;
    Ok(match host {
        Some(host) => with_kvm.contains(&host),
        None => !with_kvm.is_empty(),
    })
}

/// What a domain holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Holdings {
    cpus: CpuSet,
    devices: Vec<PciAddress>,
    memory: Vec<DomainMemory>,
}

fn holdings(xml: &str) -> Result<Holdings, quick_xml::Error> {
    let mut held = Holdings::default();
    let mut memory = memory::Reader::default();
    walk(xml, |path, event| {
        memory.visit(path, event);
        let (Event::Start(tag) | Event::Empty(tag)) = event else {
            return;
        };
        match path {
            ["domain", "vcpu"]
            | [
                "domain",
                "cputune",
                "vcpupin" | "emulatorpin" | "iothreadpin",
            ] => {
                if let Some(set) = attribute(tag, "cpuset").and_then(|text| cpuset(&text)) {
                    held.cpus.extend_from(&set);
                }
            }
            // Under `<source>` the address is the host's; beside it, the guest's. Node devices,
            // NICs and NVMe disks all write it so.
            [
                "domain",
                "devices",
                "hostdev" | "interface" | "disk",
                "source",
                "address",
            ] => {
                if let Some(address) = pci_address(tag)
                    && !held.devices.contains(&address)
                {
                    held.devices.push(address);
                }
            }
            _ => {}
        }
    })?;
    held.devices.sort_unstable();
    held.memory = memory.finish();
    Ok(held)
}

/// Calls back for each event with the names of the elements that it is in, itself included.
fn walk(xml: &str, mut visit: impl FnMut(&[&str], &Event)) -> Result<(), quick_xml::Error> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut names: Vec<String> = Vec::new();
    loop {
        let event = reader.read_event()?;
        let opened = match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                names.push(String::from_utf8_lossy(tag.name().as_ref()).into_owned());
                true
            }
            Event::Eof => return Ok(()),
            _ => false,
        };
        let path: Vec<&str> = names.iter().map(String::as_str).collect();
        visit(&path, &event);
        match event {
            Event::Empty(_) if opened => {
                names.pop();
            }
            Event::End(_) => {
                names.pop();
            }
            _ => {}
        }
    }
}

fn attribute(tag: &BytesStart, name: &str) -> Option<String> {
    let attribute = tag.try_get_attribute(name).ok()??;
    Some(String::from_utf8_lossy(&attribute.value).into_owned())
}

/// libvirt's own list: as the kernel's, and `^3` takes a CPU out of what stands before it.
fn cpuset(text: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for part in text.split(',') {
        match part.trim().strip_prefix('^') {
            Some(cpu) => {
                set.remove(CpuId::new(cpu.trim().parse().ok()?).ok()?);
            }
            None => set.extend_from(&part.trim().parse().ok()?),
        }
    }
    Some(set)
}

/// `domain='0x0000' bus='0x01' slot='0x00' function='0x0'`, in hexadecimal, octal or decimal as
/// `strtoul` takes them. Addresses of other kinds (USB, SCSI) have no slot.
fn pci_address(tag: &BytesStart) -> Option<PciAddress> {
    let number = |name: &str| {
        let text = attribute(tag, name)?;
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(&text, 8).ok(),
            None => text.parse().ok(),
        }
    };
    PciAddress::new(
        number("domain").unwrap_or(0),
        u8::try_from(number("bus")?).ok()?,
        u8::try_from(number("slot")?).ok()?,
        u8::try_from(number("function").unwrap_or(0)).ok()?,
    )
}

/// What a domain's or a host's XML tells, for fuzzers.
#[cfg(feature = "fuzzing")]
pub(crate) fn parse(xml: &str) {
    let _ = has_kvm(xml);
    let _ = holdings(xml);
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: &str = r"<domain type='kvm'>
  <name>red</name>
  <vcpu placement='static' cpuset='2,4-6,^5,14'>4</vcpu>
  <cputune>
    <vcpupin vcpu='0' cpuset='4'/>
    <vcpupin vcpu='1' cpuset='16'/>
    <emulatorpin cpuset='2,14'/>
    <iothreadpin iothread='1' cpuset='3'/>
  </cputune>
  <cpu><numa><cell id='0' cpus='0-1' memory='1'/></numa></cpu>
  <devices>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <driver name='vfio'/>
      <source><address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/></source>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb'>
      <source><address bus='1' device='2'/></source>
    </hostdev>
    <interface type='hostdev' managed='yes'>
      <mac address='52:54:00:00:00:01'/>
      <source><address type='pci' domain='0' bus='129' slot='16' function='2'></address></source>
    </interface>
    <interface type='network'><address type='pci' bus='0x00' slot='0x07' function='0x0'/></interface>
    <disk type='nvme' device='disk'>
      <source type='pci' managed='yes' namespace='1'>
        <address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
      </source>
    </disk>
  </devices>
</domain>";

    #[test]
    fn a_domain_holds_its_pins_and_the_hosts_devices() {
        let held = holdings(RED).unwrap();
        assert_eq!(held.cpus.to_string(), "2-4,6,14,16");
        let devices: Vec<String> = held.devices.iter().map(ToString::to_string).collect();
        assert_eq!(devices, ["0000:01:00.1", "0000:03:00.0", "0000:81:10.2"]);
    }

    #[test]
    fn a_domain_without_pins_holds_nothing() {
        let held = holdings("<domain><vcpu>2</vcpu><devices/></domain>").unwrap();
        assert_eq!(held, Holdings::default());
        assert!(holdings("<domain><vcpu></domain>").is_err());
    }

    fn capabilities(host: &str, guests: &[(&str, &[&str])]) -> String {
        let guests: String = guests
            .iter()
            .map(|(arch, kinds)| {
                let domains: String = kinds
                    .iter()
                    .map(|kind| format!("<domain type='{kind}'/>"))
                    .collect();
                format!("<guest><os_type>hvm</os_type><arch name='{arch}'><wordsize>64</wordsize>{domains}</arch></guest>")
            })
            .collect();
        format!("<capabilities><host><cpu><arch>{host}</arch></cpu></host>{guests}</capabilities>")
    }

    #[test]
    fn kvm_counts_for_the_hosts_architecture_alone() {
        let has = |guests| has_kvm(&capabilities("x86_64", guests)).unwrap();
        assert!(has(&[("i686", &["qemu"]), ("x86_64", &["qemu", "kvm"])]));
        assert!(!has(&[("x86_64", &["qemu"])]));
        assert!(!has(&[("i686", &["qemu", "kvm"]), ("x86_64", &["qemu"])]));
        assert!(!has(&[]));
    }

    #[test]
    fn a_list_with_exclusions_is_libvirts_own() {
        let list = |text| cpuset(text).map(|set| set.to_string());
        assert_eq!(list("0-5,^3").as_deref(), Some("0-2,4-5"));
        assert_eq!(list("^3,3").as_deref(), Some("3"), "in the order written");
        assert_eq!(list("0-x"), None);
    }
}
