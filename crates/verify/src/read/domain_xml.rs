//! What of a libvirt domain's XML (formatdomain.html) is compared with the plan.

use std::collections::BTreeMap;

use bmslice_model::{CpuSet, MacAddress, PciAddress, VlanId};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use thiserror::Error;

/// Why an XML text is no domain.
#[derive(Debug, Error)]
pub(crate) enum DomainXmlError {
    /// Not well formed.
    #[error("the domain's XML is damaged: {0}")]
    Malformed(#[from] quick_xml::Error),
    /// Attributes that are not well formed.
    #[error("the domain's XML is damaged: {0}")]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    /// Something else.
    #[error("this is not the XML of a domain")]
    NoDomain,
}

/// A domain as its XML tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainXml {
    /// `kvm` or another type.
    pub kind: String,
    /// `vcpupin` by vCPU number.
    pub vcpus: BTreeMap<u32, CpuSet>,
    /// `emulatorpin`.
    pub emulator: Option<CpuSet>,
    /// `iothreadpin` by IOThread id.
    pub iothreads: BTreeMap<u32, CpuSet>,
    /// PCI functions that are given to the guest.
    pub hostdevs: Vec<Hostdev>,
}

/// A PCI function given to a guest, by `<hostdev>` or `<interface type='hostdev'>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostdev {
    /// Where it sits in the host.
    pub address: PciAddress,
    /// The MAC that libvirt sets on a virtual function.
    pub mac: Option<MacAddress>,
    /// The VLAN that libvirt sets on a virtual function.
    pub vlan: Option<VlanId>,
}

/// A device that is being read.
#[derive(Default)]
struct Device {
    address: Option<PciAddress>,
    mac: Option<MacAddress>,
    vlan: Option<VlanId>,
}

impl DomainXml {
    /// Reads it.
    ///
    /// # Errors
    /// [`DomainXmlError`], when it is no domain.
    pub(crate) fn parse(xml: &str) -> Result<Self, DomainXmlError> {
        let mut reader = Reader::from_str(xml);
        let mut path: Vec<String> = Vec::new();
        let mut domain = Self::default();
        let mut device: Option<Device> = None;
        loop {
            let event = reader.read_event()?;
            match event {
                Event::Start(element) => {
                    path.push(name(&element));
                    domain.element(&path, &attributes(&element)?, &mut device);
                }
                Event::Empty(element) => {
                    path.push(name(&element));
                    domain.element(&path, &attributes(&element)?, &mut device);
                    domain.close(&path, &mut device);
                    path.pop();
                }
                Event::End(_) => {
                    domain.close(&path, &mut device);
                    path.pop();
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if domain.kind.is_empty() {
            return Err(DomainXmlError::NoDomain);
        }
        Ok(domain)
    }

    fn element(
        &mut self,
        path: &[String],
        attributes: &BTreeMap<String, String>,
        device: &mut Option<Device>,
    ) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let get = |key: &str| attributes.get(key).map(String::as_str);
        let number = |key: &str| get(key).and_then(|value| value.parse::<u32>().ok());
        let cpus = || get("cpuset").and_then(|list| list.parse::<CpuSet>().ok());
        match path.as_slice() {
            ["domain"] => self.kind = get("type").unwrap_or_default().to_owned(),
            ["domain", "cputune", "vcpupin"] => {
                if let (Some(vcpu), Some(cpus)) = (number("vcpu"), cpus()) {
                    self.vcpus.insert(vcpu, cpus);
                }
            }
            ["domain", "cputune", "emulatorpin"] => self.emulator = cpus(),
            ["domain", "cputune", "iothreadpin"] => {
                if let (Some(id), Some(cpus)) = (number("iothread"), cpus()) {
                    self.iothreads.insert(id, cpus);
                }
            }
            ["domain", "devices", "hostdev"] if get("type") == Some("pci") => {
                *device = Some(Device::default());
            }
            ["domain", "devices", "interface"] if get("type") == Some("hostdev") => {
                *device = Some(Device::default());
            }
            ["domain", "devices", _, rest @ ..] => {
                let Some(device) = device else { return };
                match rest {
                    ["source", "address"] => device.address = address(get),
                    ["mac"] => device.mac = get("address").and_then(|mac| mac.parse().ok()),
                    ["vlan", "tag"] => {
                        device.vlan = get("id")
                            .and_then(|id| id.parse().ok())
                            .and_then(|id| VlanId::new(id).ok());
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, path: &[String], device: &mut Option<Device>) {
        if path.len() != 3 || path[1] != "devices" {
            return;
        }
        if let Some(Device {
            address: Some(address),
            mac,
            vlan,
        }) = device.take()
        {
            self.hostdevs.push(Hostdev { address, mac, vlan });
        }
    }
}

fn name(element: &BytesStart) -> String {
    String::from_utf8_lossy(element.name().as_ref()).into_owned()
}

fn attributes(element: &BytesStart) -> Result<BTreeMap<String, String>, DomainXmlError> {
    let mut all = BTreeMap::new();
    for attribute in element.attributes() {
        let attribute = attribute?;
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        // Numbers, names and addresses hold no entity: the raw value is the value.
        let value = String::from_utf8_lossy(&attribute.value).into_owned();
        all.insert(key, value);
    }
    Ok(all)
}

/// libvirt writes `0x01`; what a person wrote may be decimal.
fn address<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<PciAddress> {
    let part = |key: &str| {
        let text = get(key)?;
        match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    };
    PciAddress::new(
        part("domain").unwrap_or(0),
        u8::try_from(part("bus")?).ok()?,
        u8::try_from(part("slot")?).ok()?,
        u8::try_from(part("function")?).ok()?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const XML: &str = r"<domain type='kvm' id='3'>
  <name>red</name>
  <cputune>
    <vcpupin vcpu='0' cpuset='4'/>
    <vcpupin vcpu='1' cpuset='6'/>
    <emulatorpin cpuset='2,14'/>
    <iothreadpin iothread='1' cpuset='2,14'/>
  </cputune>
  <devices>
    <disk type='file' device='disk'>
      <source file='/x'/>
      <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>
    </disk>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <driver name='vfio'/>
      <source>
        <address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/>
      </source>
      <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
    </hostdev>
    <interface type='hostdev' managed='yes'>
      <mac address='52:54:00:6d:90:02'/>
      <driver name='vfio'/>
      <source>
        <address type='pci' domain='0x0000' bus='0x81' slot='0x10' function='0x2'/>
      </source>
      <vlan>
        <tag id='102'/>
      </vlan>
      <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/>
    </interface>
    <hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>
  </devices>
</domain>";

    #[test]
    fn reads_pins_and_the_hosts_side_of_devices() {
        let domain = DomainXml::parse(XML).unwrap();
        assert_eq!(domain.kind, "kvm");
        assert_eq!(domain.vcpus[&1].to_string(), "6");
        assert_eq!(domain.emulator.unwrap().to_string(), "2,14");
        assert_eq!(domain.iothreads[&1].to_string(), "2,14");
        let devices: Vec<String> = domain
            .hostdevs
            .iter()
            .map(|d| d.address.to_string())
            .collect();
        assert_eq!(devices, ["0000:41:00.0", "0000:81:10.2"]);
        let vf = &domain.hostdevs[1];
        assert_eq!(vf.mac.unwrap().to_string(), "52:54:00:6d:90:02");
        assert_eq!(vf.vlan.unwrap().number(), 102);
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        assert!(DomainXml::parse("").is_err());
        assert!(DomainXml::parse("<network/>").is_err());
        assert!(DomainXml::parse("<domain type='kvm'><devices></domain>").is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(cut in 0..XML.len(), byte in 0u8..128) {
            let mut bytes = XML.as_bytes().to_vec();
            bytes[cut] = byte;
            let _ = DomainXml::parse(&String::from_utf8_lossy(&bytes));
            let _ = DomainXml::parse(&String::from_utf8_lossy(&bytes[..cut]));
        }
    }
}
