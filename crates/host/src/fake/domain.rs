//! A domain: its definition as libvirt keeps and prints it, and what a start of it takes.
//!
//! Takes domain XML; gives the refusals of libvirt's parser, the printed form (which is *not* the
//! text that was given: units become KiB, addresses, aliases and defaults appear), and the pins,
//! pages, devices and files that it needs.

use bmslice_model::{ByteSize, CpuSet, PciAddress};

use super::pci::VfSettings;
use super::xml::Element;
use crate::machine::DomainPins;

/// A domain that libvirt knows.
#[derive(Debug, Clone)]
pub struct FakeDomain {
    pub name: String,
    pub uuid: String,
    /// What the next start takes; `None` for a domain that ends with its guest.
    pub definition: Option<Element>,
    pub live: Option<Live>,
    pub autostart: bool,
}

/// A guest that runs.
#[derive(Debug, Clone)]
pub struct Live {
    pub element: Element,
    pub pid: u32,
    pub pins: DomainPins,
    /// Huge pages: node, page size in KiB, count.
    pub pages: Vec<(u32, u64, u64)>,
    /// Plain memory: node, KiB.
    pub plain: Vec<(u32, u64)>,
    pub devices: Vec<Held>,
    /// PF, VF index, and the settings that a stop puts back.
    pub vfs: Vec<(PciAddress, u16, VfSettings)>,
    /// Devices that were taken away while it ran.
    pub lost: Vec<PciAddress>,
    pub disks: Vec<String>,
    /// Its cgroup, below the mount.
    pub scope: String,
    /// Seconds of the fake's clock at which its agent answers; never, when it has none or hangs.
    pub up_at: Option<std::time::Duration>,
    /// Seconds of the fake's clock at which an asked shutdown is over.
    pub stops_at: Option<std::time::Duration>,
}

/// A device that a guest holds.
#[derive(Debug, Clone)]
pub struct Held {
    pub address: PciAddress,
    pub managed: bool,
}

impl FakeDomain {
    pub fn plain_kib(&self, node: u32) -> u64 {
        let live = self.live.iter().flat_map(|live| &live.plain);
        live.filter(|(of, _)| *of == node).map(|(_, kib)| kib).sum()
    }

    pub fn lose(&mut self, address: PciAddress) {
        if let Some(live) = &mut self.live
            && live.devices.iter().any(|held| held.address == address)
        {
            live.devices.retain(|held| held.address != address);
            live.vfs.clear();
            live.lost.push(address);
        }
    }
}

/// What a start takes.
#[derive(Debug, Clone)]
pub struct Wants {
    pub pins: DomainPins,
    pub pages: Vec<(u32, u64, u64)>,
    pub plain: Vec<(u32, u64)>,
    pub devices: Vec<WantedDevice>,
    pub disks: Vec<String>,
    /// The slice of its `<resource><partition>`: `/bmslice` is `bmslice.slice`.
    pub slice: String,
}

/// A PCI function that a start takes.
#[derive(Debug, Clone)]
pub struct WantedDevice {
    pub address: PciAddress,
    pub managed: bool,
    /// `<interface type='hostdev'>`: what is set on the VF.
    pub interface: Option<(Option<String>, u16)>,
}

/// Reads a definition as `virDomainDefineXML` does.
///
/// # Errors
/// libvirt's message.
pub fn read(xml: &str) -> Result<Element, String> {
    let element = Element::parse(xml).map_err(|error| format!("(domain_definition):1: {error}"))?;
    if element.name != "domain" {
        return Err(format!(
            "XML error: expecting root element of 'domain', not '{}'",
            element.name
        ));
    }
    let name = element.child("name").map_or("", |name| name.text.as_str());
    if name.is_empty() {
        return Err("missing domain name information".into());
    }
    if name.contains('/') {
        return Err(format!("XML error: name {name} cannot contain '/'"));
    }
    if element.child("os/type").is_none() {
        return Err("XML error: an os <type> must be specified".into());
    }
    wants(&element, &CpuSet::new(), 1)?;
    Ok(element)
}

/// systemd's slice for a `<resource><partition>`: `/bmslice` is `bmslice.slice`.
fn slice_of(element: &Element) -> String {
    let partition = element.child("resource/partition");
    let path = partition.map_or("/machine", |partition| partition.text.as_str());
    format!("{}.slice", path.trim_matches('/').replace('/', "-"))
}

/// What a start of this definition takes on a host with these CPUs and nodes.
///
/// # Errors
/// libvirt's message.
pub fn wants(element: &Element, all: &CpuSet, nodes: u32) -> Result<Wants, String> {
    let vcpu = element.child("vcpu");
    let count: usize = vcpu
        .map_or("1", |vcpu| vcpu.text.as_str())
        .parse()
        .map_err(|_| "XML error: Invalid value for element 'vcpu'".to_owned())?;
    let bound = match vcpu.and_then(|vcpu| vcpu.attr("cpuset")) {
        Some(text) => cpus(text)?,
        None => all.clone(),
    };
    let mut pins = DomainPins {
        vcpus: vec![bound.clone(); count],
        emulator: bound.clone(),
        iothreads: Vec::new(),
    };
    let iothreads: u32 = match element.child("iothreads") {
        Some(iothreads) => iothreads
            .text
            .parse()
            .map_err(|_| format!("XML error: invalid iothreads count '{}'", iothreads.text))?,
        None => 0,
    };
    pins.iothreads = (1..=iothreads).map(|id| (id, bound.clone())).collect();
    for pin in element
        .child("cputune")
        .iter()
        .flat_map(|tune| &tune.children)
    {
        let Some(set) = pin.attr("cpuset") else {
            continue;
        };
        let set = cpus(set)?;
        match pin.name.as_str() {
            // As libvirt, a pin of a vCPU beyond the maximum is kept for later and ignored.
            "vcpupin" => {
                if let Some(vcpu) = number(pin, "vcpu").and_then(|n| pins.vcpus.get_mut(n)) {
                    *vcpu = set;
                }
            }
            "emulatorpin" => pins.emulator = set,
            "iothreadpin" => {
                let id = number(pin, "iothread").unwrap_or(0);
                let found = pins.iothreads.iter_mut().find(|(of, _)| *of as usize == id);
                let (_, thread) = found.ok_or(format!(
                    "unsupported configuration: Cannot find 'iothread' : {id}"
                ))?;
                *thread = set;
            }
            _ => {}
        }
    }
    let (pages, plain) = memory(element, nodes)?;
    let mut devices: Vec<WantedDevice> = Vec::new();
    let mut disks = Vec::new();
    for device in element
        .child("devices")
        .iter()
        .flat_map(|devices| &devices.children)
    {
        let managed = device.attr("managed") == Some("yes");
        match (device.name.as_str(), device.attr("type")) {
            ("disk", _) => {
                disks.extend(
                    device
                        .child("source")
                        .and_then(|s| s.attr("file"))
                        .map(str::to_owned),
                );
            }
            ("hostdev", Some("pci")) => devices.push(WantedDevice {
                address: source(device)?,
                managed,
                interface: None,
            }),
            ("interface", Some("hostdev")) => {
                let mac = device.child("mac").and_then(|mac| mac.attr("address"));
                let vlan = device.child("vlan/tag").and_then(|tag| number(tag, "id"));
                devices.push(WantedDevice {
                    address: source(device)?,
                    managed,
                    interface: Some((
                        mac.map(str::to_lowercase),
                        u16::try_from(vlan.unwrap_or(0)).unwrap_or(0),
                    )),
                });
            }
            _ => {}
        }
    }
    for (i, device) in devices.iter().enumerate() {
        if devices[..i]
            .iter()
            .any(|other| other.address == device.address)
        {
            return Err("XML error: Hostdev already exists in the domain configuration".into());
        }
    }
    Ok(Wants {
        pins,
        pages,
        plain,
        devices,
        disks,
        slice: slice_of(element),
    })
}

fn cpus(text: &str) -> Result<CpuSet, String> {
    text.parse()
        .map_err(|_| format!("invalid argument: Failed to parse bitmap '{text}'"))
}

fn number(element: &Element, name: &str) -> Option<usize> {
    element.attr(name)?.parse().ok()
}

fn source(device: &Element) -> Result<PciAddress, String> {
    let address = device
        .child("source/address")
        .ok_or("XML error: missing source address for hostdev device")?;
    let part = |name: &str| {
        let text = address.attr(name).unwrap_or("0");
        u32::from_str_radix(text.trim_start_matches("0x"), 16)
            .map_err(|_| format!("internal error: Cannot parse <address> '{name}' attribute"))
    };
    let byte = |name| part(name).map(|value| u8::try_from(value).unwrap_or(u8::MAX));
    PciAddress::new(
        part("domain")?,
        byte("bus")?,
        byte("slot")?,
        byte("function")?,
    )
    .ok_or("XML error: Invalid PCI address".into())
}

/// KiB of an element with a `unit`, which is KiB when it is not given.
fn kib(element: &Element) -> Result<u64, String> {
    scaled(&element.text, element.attr("unit"))
}

fn scaled(text: &str, unit: Option<&str>) -> Result<u64, String> {
    let value: u64 = text
        .parse()
        .map_err(|_| format!("XML error: could not parse element memory: {text}"))?;
    let bytes = match unit.unwrap_or("KiB") {
        "b" | "bytes" | "B" => value,
        "k" | "KiB" | "K" => value << 10,
        "M" | "MiB" => value << 20,
        "G" | "GiB" => value << 30,
        "T" | "TiB" => value << 40,
        other => return Err(format!("invalid argument: unknown suffix '{other}'")),
    };
    Ok(ByteSize::from_bytes(bytes).kib())
}

type Pages = (Vec<(u32, u64, u64)>, Vec<(u32, u64)>);

/// Which node gives how many pages, or how much plain memory: by cell, `<memnode>`, `<memory
/// nodeset>`, else node 0.
fn memory(element: &Element, nodes: u32) -> Result<Pages, String> {
    let whole = element.child("memory").map(kib).transpose()?.unwrap_or(0);
    let cells: Vec<(u32, u64)> = element
        .child("cpu/numa")
        .into_iter()
        .flat_map(|numa| numa.all("cell"))
        .enumerate()
        .map(|(i, cell)| {
            let id = number(cell, "id").unwrap_or(i);
            let size = scaled(cell.attr("memory").unwrap_or("0"), cell.attr("unit"))?;
            Ok((u32::try_from(id).unwrap_or(0), size))
        })
        .collect::<Result<_, String>>()?;
    let cells = if cells.is_empty() {
        vec![(0, whole)]
    } else {
        cells
    };
    let tune = element.child("numatune");
    let first = |text: &str| -> Result<u32, String> {
        Ok(cpus(text)?.first().map_or(0, bmslice_model::CpuId::number))
    };
    let backing = element.child("memoryBacking/hugepages");
    let (mut pages, mut plain) = (Vec::new(), Vec::new());
    for (cell, size) in cells {
        let node = tune
            .and_then(|tune| {
                tune.all("memnode")
                    .find(|memnode| number(memnode, "cellid") == Some(cell as usize))
                    .or_else(|| tune.child("memory"))
            })
            .and_then(|memory| memory.attr("nodeset"))
            .map(first)
            .transpose()?
            .unwrap_or(0);
        if element.name == "domain" && node >= nodes && nodes > 1 {
            return Err(format!(
                "unsupported configuration: NUMA node {node} is unavailable"
            ));
        }
        let Some(backing) = backing else {
            plain.push((node, size));
            continue;
        };
        let mut page = 2048;
        for choice in backing.all("page") {
            let here = match choice.attr("nodeset") {
                Some(set) => cpus(set)?.iter().any(|guest| guest.number() == cell),
                None => true,
            };
            if here {
                page = scaled(choice.attr("size").unwrap_or("0"), choice.attr("unit"))?;
            }
        }
        if page == 0 || size % page != 0 {
            return Err(format!(
                "unsupported configuration: memory size {size} KiB is not made of pages of {page} KiB"
            ));
        }
        pages.push((node, page, size / page));
    }
    Ok((pages, plain))
}

/// The definition as libvirt keeps it: units in KiB, defaults and addresses filled in.
pub fn normalise(mut element: Element, uuid: &str) -> Element {
    let memory = element.child("memory").and_then(|memory| kib(memory).ok());
    for name in ["memory", "currentMemory"] {
        if let Some(child) = element.child_mut(name) {
            if let Ok(size) = kib(child) {
                child.text = size.to_string();
            }
            child.set("unit", "KiB");
        }
    }
    after(&mut element, "name", "uuid", || {
        Element::with_text("uuid", uuid)
    });
    if let Some(uuid_now) = element.child_mut("uuid") {
        uuid_now.text = uuid.into();
    }
    if let Some(memory) = memory {
        after(&mut element, "memory", "currentMemory", || Element {
            attributes: vec![("unit".into(), "KiB".into())],
            ..Element::with_text("currentMemory", memory.to_string())
        });
    }
    if let Some(vcpu) = element.child_mut("vcpu")
        && vcpu.attr("placement").is_none()
    {
        vcpu.set("placement", "static");
    }
    for cell in element
        .child_mut("cpu")
        .and_then(|cpu| cpu.child_mut("numa"))
        .into_iter()
        .flat_map(|numa| &mut numa.children)
    {
        if let Ok(size) = scaled(cell.attr("memory").unwrap_or("0"), cell.attr("unit")) {
            cell.set("memory", size.to_string());
            cell.set("unit", "KiB");
        }
    }
    if let Some(os) = element.child_mut("os").and_then(|os| os.child_mut("type")) {
        // An alias becomes the machine type that it stands for today.
        match os.attr("machine") {
            Some("q35") => os.set("machine", "pc-q35-7.2"),
            None | Some("pc") => os.set("machine", "pc-i440fx-7.2"),
            Some(_) => {}
        }
    }
    if let Some(cpu) = element.child_mut("cpu")
        && cpu.attr("mode") == Some("host-passthrough")
    {
        for (name, value) in [("check", "none"), ("migratable", "on")] {
            if cpu.attr(name).is_none() {
                cpu.set(name, value);
            }
        }
    }
    for (name, value) in [
        ("on_poweroff", "destroy"),
        ("on_reboot", "restart"),
        ("on_crash", "destroy"),
    ] {
        if element.child(name).is_none() {
            let at = element
                .children
                .iter()
                .position(|child| child.name == "devices");
            let at = at.unwrap_or(element.children.len());
            element.children.insert(at, Element::with_text(name, value));
        }
    }
    let mut slot = 0;
    for device in element
        .child_mut("devices")
        .into_iter()
        .flat_map(|devices| &mut devices.children)
    {
        let on_bus = matches!(device.name.as_str(), "disk" | "hostdev" | "interface");
        if on_bus && !device.children.iter().any(|child| child.name == "address") {
            slot += 1;
            device.children.push(Element::new(
                "address",
                [
                    ("type", "pci".into()),
                    ("domain", "0x0000".into()),
                    ("bus", format!("0x{slot:02x}")),
                    ("slot", "0x00".into()),
                    ("function", "0x0".into()),
                ],
            ));
        }
    }
    element
}

/// Shows in a running domain whether the guest has opened the port of its agent.
pub fn show_agent(element: &mut Element, answers: bool) {
    let devices = element.child_mut("devices");
    for channel in devices
        .into_iter()
        .flat_map(|devices| &mut devices.children)
    {
        if channel.name == "channel"
            && let Some(target) = channel.child_mut("target")
            && target.attr("name") == Some("org.qemu.guest_agent.0")
        {
            let state = if answers { "connected" } else { "disconnected" };
            target.set("state", state);
        }
    }
}

/// Where the serial console of a definition is logged.
pub fn console_log(definition: &Element) -> Option<&str> {
    definition.child("devices/serial/log")?.attr("file")
}

fn after(element: &mut Element, anchor: &str, name: &str, make: impl FnOnce() -> Element) {
    if element.child(name).is_none() {
        let at = element
            .children
            .iter()
            .position(|child| child.name == anchor);
        element.children.insert(at.map_or(0, |at| at + 1), make());
    }
}

/// The definition as a running domain prints it: its id, aliases, a partition.
pub fn running(definition: &Element, id: u32) -> Element {
    let mut element = definition.clone();
    element.set("id", id.to_string());
    element.children.push(Element {
        children: vec![Element::with_text("partition", "/machine")],
        ..Element::new("resource", [])
    });
    for (i, device) in element
        .child_mut("devices")
        .into_iter()
        .flat_map(|devices| &mut devices.children)
        .enumerate()
    {
        if device.name != "emulator" {
            let name = format!("{}{i}", device.name);
            device
                .children
                .push(Element::new("alias", [("name", name)]));
        }
    }
    element
}

/// The name in a definition, for the log; `?` when there is none.
pub fn name(xml: &str) -> String {
    Element::parse(xml)
        .ok()
        .and_then(|element| Some(element.child("name")?.text.clone()))
        .unwrap_or_else(|| "?".into())
}
