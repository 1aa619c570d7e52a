//! What a domain's XML means, so that what was defined can be held against what libvirt keeps.
//!
//! libvirt rewrites a definition: it adds addresses, aliases, controllers and defaults, and writes
//! `q35` as `pc-q35-7.2`. So texts are not compared. Of both, the same facts are read, each by a
//! name for people, with every CPU set, size and address in one form; the facts are compared.

use std::collections::BTreeMap;
use std::fmt::Display;

use bmslice_model::{CpuSet, PciAddress};
use bmslice_render::METADATA_NAMESPACE;

use crate::xml::{self, Node};

/// The digest of what was rendered: tells apart what the facts below do not cover.
const DEFINITION: &str = "the definition";

/// The facts of a domain, by what they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning(BTreeMap<String, String>);

impl Meaning {
    /// Reads a domain's XML.
    ///
    /// # Errors
    /// What is wrong with the XML.
    pub fn read(text: &str) -> Result<Self, String> {
        let root = xml::parse(text)?;
        if root.name() != "domain" {
            return Err(format!("it is `{}`, not a domain", root.name()));
        }
        let mut facts = Facts(BTreeMap::new());
        facts.identity(&root);
        facts.cpus(&root);
        facts.memory(&root);
        facts.devices(&root);
        Ok(Self(facts.0))
    }

    /// How another domain differs from this one, each as a clause: `the pin of vCPU 0 is 5, not 4`.
    pub fn differences(&self, got: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (what, want) in self.0.iter().filter(|(what, _)| *what != DEFINITION) {
            match got.0.get(what) {
                Some(got) if got == want => {}
                Some(got) => differences.push(format!("{what} is {got}, not {want}")),
                None => differences.push(format!("{what} is missing")),
            }
        }
        for (what, got) in &got.0 {
            // libvirt gives a MAC to a card for which none was asked.
            if !self.0.contains_key(what) && !what.starts_with("the MAC of") {
                differences.push(format!("{what} is {got}, and none is wanted"));
            }
        }
        if differences.is_empty() && self.0.get(DEFINITION) != got.0.get(DEFINITION) {
            differences.push("it was rendered from another plan, or by another bmslice".into());
        }
        differences
    }
}

/// Whether a domain's XML carries `bmslice`'s metadata.
pub fn is_ours(text: &str) -> bool {
    xml::parse(text).is_ok_and(|root| metadata(&root).is_some())
}

fn metadata(root: &Node) -> Option<&Node> {
    root.find("metadata")?
        .children()
        .find(|child| child.namespace() == Some(METADATA_NAMESPACE))
}

struct Facts(BTreeMap<String, String>);

impl Facts {
    fn put(&mut self, what: impl Display, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0.insert(what.to_string(), value.to_string());
        }
    }

    fn identity(&mut self, root: &Node) {
        let text = |name: &str| root.find(name).map(|node| node.text().to_owned());
        self.put("the type", root.attribute("type"));
        self.put("the name", text("name"));
        self.put("the UUID", text("uuid").map(|uuid| uuid.to_lowercase()));
        let machine = root.find("os/type").and_then(|os| os.attribute("machine"));
        self.put("the machine type", machine.map(machine_family));
        let ours = metadata(root);
        self.put("the tenant", ours.and_then(|node| node.attribute("tenant")));
        self.put(
            DEFINITION,
            ours.and_then(|node| node.attribute("definition")),
        );
    }

    fn cpus(&mut self, root: &Node) {
        let vcpu = root.find("vcpu");
        self.put("the number of vCPUs", vcpu.map(Node::text));
        self.put(
            "the vCPU placement",
            vcpu.map(|vcpu| vcpu.attribute("placement").unwrap_or("static")),
        );
        self.put(
            "the CPU set of all threads",
            vcpu.and_then(|vcpu| vcpu.attribute("cpuset")).map(cpus),
        );
        let iothreads = root.find("iothreads").map(Node::text).filter(|n| *n != "0");
        self.put("the number of IOThreads", iothreads);
        for pin in root.find("cputune").into_iter().flat_map(Node::children) {
            let set = pin.attribute("cpuset").map(cpus);
            match pin.name() {
                "vcpupin" => self.put(
                    format!("the pin of vCPU {}", pin.attribute("vcpu").unwrap_or("?")),
                    set,
                ),
                "emulatorpin" => self.put("the pin of the emulator", set),
                "iothreadpin" => self.put(
                    format!(
                        "the pin of IOThread {}",
                        pin.attribute("iothread").unwrap_or("?")
                    ),
                    set,
                ),
                // Whatever else is tuned was tuned by hand, and is not a pin.
                other => self.put(format!("the tuning `{other}`"), Some("set")),
            }
        }
        self.put(
            "the CPU mode",
            root.find("cpu").and_then(|cpu| cpu.attribute("mode")),
        );
        let topology = root.find("cpu/topology").map(|topology| {
            let part = |name: &str| topology.attribute(name).unwrap_or("1").to_owned();
            format!(
                "{} sockets, {} cores, {} threads",
                part("sockets"),
                part("cores"),
                part("threads")
            )
        });
        self.put("the guest's topology", topology);
        for feature in root
            .find("cpu")
            .into_iter()
            .flat_map(|cpu| cpu.all("feature"))
        {
            self.put(
                format!(
                    "the CPU feature {}",
                    feature.attribute("name").unwrap_or("?")
                ),
                feature.attribute("policy"),
            );
        }
        let pmu = root
            .find("features/pmu")
            .and_then(|pmu| pmu.attribute("state"));
        self.put("the PMU", pmu);
    }

    fn memory(&mut self, root: &Node) {
        self.put("the memory", root.find("memory").map(size));
        let backing = root.find("memoryBacking");
        for page in backing
            .and_then(|node| node.find("hugepages"))
            .into_iter()
            .flat_map(|node| node.all("page"))
        {
            let cells = page.attribute("nodeset").map_or("all".into(), cpus);
            self.put(
                format!("the page size of cells {cells}"),
                page.attribute("size")
                    .map(|number| kib(number, page.attribute("unit"))),
            );
        }
        let source = backing.and_then(|node| node.find("source"));
        self.put(
            "the memory's source",
            source.and_then(|source| source.attribute("type")),
        );
        if let Some(strict) = root.find("numatune/memory") {
            self.put(
                "the memory's nodes",
                Some(format!(
                    "{} ({})",
                    strict.attribute("nodeset").map(cpus).unwrap_or_default(),
                    strict.attribute("mode").unwrap_or("strict")
                )),
            );
        }
        for node in root
            .find("numatune")
            .into_iter()
            .flat_map(|tune| tune.all("memnode"))
        {
            self.put(
                format!(
                    "the node of cell {}",
                    node.attribute("cellid").unwrap_or("?")
                ),
                Some(format!(
                    "{} ({})",
                    node.attribute("nodeset").map(cpus).unwrap_or_default(),
                    node.attribute("mode").unwrap_or("strict")
                )),
            );
        }
        for cell in root
            .find("cpu/numa")
            .into_iter()
            .flat_map(|numa| numa.all("cell"))
        {
            let memory = cell
                .attribute("memory")
                .map(|number| kib(number, cell.attribute("unit")));
            self.put(
                format!("cell {}", cell.attribute("id").unwrap_or("?")),
                Some(format!(
                    "vCPUs {} with {}",
                    cell.attribute("cpus").map(cpus).unwrap_or_default(),
                    memory.unwrap_or_default()
                )),
            );
        }
    }

    fn devices(&mut self, root: &Node) {
        for device in root.find("devices").into_iter().flat_map(Node::children) {
            match device.name() {
                "disk" => self.disk(device),
                "hostdev" => self.hostdev(device),
                "interface" => self.interface(device),
                "memballoon" => self.put("the balloon", device.attribute("model")),
                "channel" => {
                    let name = device
                        .find("target")
                        .and_then(|target| target.attribute("name"));
                    if let Some(name) = name {
                        self.put(format!("the channel `{name}`"), Some("there"));
                    }
                }
                "graphics" => self.put("the display", device.attribute("type")),
                // Controllers, consoles, inputs and the like are libvirt's to complete.
                _ => {}
            }
        }
    }

    fn disk(&mut self, disk: &Node) {
        let target = disk
            .find("target")
            .and_then(|target| target.attribute("dev"))
            .unwrap_or("?");
        let source = disk.find("source");
        let file = source.and_then(|s| s.attribute("file").or_else(|| s.attribute("dev")));
        self.put(format!("disk {target}"), Some(file.unwrap_or("empty")));
        let driver = disk.find("driver");
        for name in ["type", "cache", "io", "iothread"] {
            self.put(
                format!("`{name}` of disk {target}"),
                driver.and_then(|driver| driver.attribute(name)),
            );
        }
    }

    fn hostdev(&mut self, device: &Node) {
        if device.attribute("type") == Some("pci")
            && let Some(address) = device.find("source/address").and_then(pci)
        {
            self.put(format!("PCI function {address}"), Some(managed(device)));
        } else {
            self.put("a host device of another kind", device.attribute("type"));
        }
    }

    fn interface(&mut self, card: &Node) {
        let kind = card.attribute("type").unwrap_or("?");
        let host = card.find("source/address").and_then(pci);
        let what = match (host, card.find("source")) {
            (Some(address), _) => format!("card {address}"),
            (None, source) => {
                let network = source.and_then(|source| {
                    source
                        .attribute("network")
                        .or_else(|| source.attribute("bridge"))
                });
                format!("card on {}", network.unwrap_or(kind))
            }
        };
        let managed = if host.is_some() { managed(card) } else { "" };
        self.put(&what, Some(format!("{kind} {managed}").trim()));
        let mac = card.find("mac").and_then(|mac| mac.attribute("address"));
        self.put(format!("the MAC of {what}"), mac.map(str::to_lowercase));
        let vlan = card.find("vlan/tag").and_then(|tag| tag.attribute("id"));
        self.put(format!("the VLAN of {what}"), vlan);
    }
}

fn managed(device: &Node) -> &'static str {
    match device.attribute("managed") {
        Some("yes") => "managed",
        Some(_) | None => "not managed",
    }
}

/// `pc-q35-7.2` is a `q35`, `pc-i440fx-7.2` a `pc`.
fn machine_family(machine: &str) -> &str {
    if machine == "q35" || machine.starts_with("pc-q35") {
        "q35"
    } else if machine == "pc" || machine.starts_with("pc-i440fx") {
        "pc"
    } else {
        machine
    }
}

/// A CPU or node set in one form.
fn cpus(text: &str) -> String {
    text.parse::<CpuSet>()
        .map_or_else(|_| text.to_owned(), |set| set.to_string())
}

fn size(node: &Node) -> String {
    kib(node.text(), node.attribute("unit"))
}

/// A size in KiB, as libvirt scales it (formatdomain, `memory`).
fn kib(number: &str, unit: Option<&str>) -> String {
    let bytes: Option<u64> = match unit.unwrap_or("KiB") {
        "b" | "bytes" => Some(1),
        "KB" => Some(1_000),
        "k" | "KiB" => Some(1 << 10),
        "MB" => Some(1_000_000),
        "M" | "MiB" => Some(1 << 20),
        "GB" => Some(1_000_000_000),
        "G" | "GiB" => Some(1 << 30),
        "T" | "TiB" => Some(1 << 40),
        _ => None,
    };
    match (number.parse::<u64>(), bytes) {
        (Ok(number), Some(bytes)) => {
            format!("{} KiB", (u128::from(number) * u128::from(bytes)) >> 10)
        }
        _ => format!("{number} {}", unit.unwrap_or_default()),
    }
}

fn pci(address: &Node) -> Option<PciAddress> {
    let hex = |name: &str| {
        let text = address.attribute(name)?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    PciAddress::new(
        hex("domain").unwrap_or(0),
        u8::try_from(hex("bus")?).ok()?,
        u8::try_from(hex("slot")?).ok()?,
        u8::try_from(hex("function")?).ok()?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = "<domain type='kvm'><name>red</name><uuid>AB</uuid>
      <metadata><bmslice:slice xmlns:bmslice='urn:bmslice:domain:v1' tenant='t'/></metadata>
      <memory unit='GiB'>8</memory><vcpu placement='static' cpuset='2,4,14'>1</vcpu>
      <cputune><vcpupin vcpu='0' cpuset='4'/><emulatorpin cpuset='2,14'/></cputune>
      <os><type arch='x86_64' machine='q35'>hvm</type></os>
      <devices><disk type='file' device='disk'><source file='/d'/><target dev='vda' bus='virtio'/></disk>
      <interface type='hostdev' managed='yes'><source><address type='pci' domain='0x0000' bus='0x81' slot='0x10' function='0x0'/></source></interface>
      </devices></domain>";

    /// What libvirt makes of it.
    fn kept() -> String {
        WANTED
            .replace("<memory unit='GiB'>8</memory>", "<memory unit='KiB'>8388608</memory><currentMemory unit='KiB'>8388608</currentMemory>")
            .replace("machine='q35'", "machine='pc-q35-7.2'")
            .replace("<uuid>AB", "<uuid>ab")
            .replace("<devices>", "<devices><emulator>/usr/bin/qemu</emulator><controller type='pci' index='0' model='pcie-root'/>")
            .replace("<interface type='hostdev' managed='yes'>", "<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:01'/><alias name='x'/>")
    }

    #[test]
    fn what_libvirt_adds_is_no_difference() {
        let wanted = Meaning::read(WANTED).unwrap();
        assert_eq!(
            wanted.differences(&Meaning::read(&kept()).unwrap()),
            [""; 0]
        );
    }

    #[test]
    fn a_changed_pin_and_an_added_device_are_differences() {
        let got = kept()
            .replace("vcpu='0' cpuset='4'", "vcpu='0' cpuset='5'")
            .replace("</devices>", "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev></devices>");
        let differences = Meaning::read(WANTED)
            .unwrap()
            .differences(&Meaning::read(&got).unwrap());
        assert_eq!(
            differences,
            [
                "the pin of vCPU 0 is 5, not 4",
                "PCI function 0000:01:00.0 is not managed, and none is wanted",
            ]
        );
    }

    /// What libvirt 9.0 kept of two rendered definitions, and what it said of a running guest.
    #[test]
    fn what_a_real_libvirt_keeps_is_what_was_rendered() {
        let pairs = [
            (
                include_str!("../tests/libvirt/passthrough.rendered.xml"),
                include_str!("../tests/libvirt/passthrough.kept.xml"),
            ),
            (
                include_str!("../tests/libvirt/vf.rendered.xml"),
                include_str!("../tests/libvirt/vf.kept.xml"),
            ),
            (
                include_str!("../tests/libvirt/running.kept.xml"),
                include_str!("../tests/libvirt/running.now.xml"),
            ),
        ];
        for (rendered, kept) in pairs {
            let wanted = Meaning::read(rendered).unwrap();
            assert!(wanted.0.len() > 20, "{wanted:?}");
            assert_eq!(wanted.differences(&Meaning::read(kept).unwrap()), [""; 0]);
        }
        assert!(is_ours(pairs[0].1) && is_ours(pairs[1].1));
    }

    #[test]
    fn only_our_metadata_make_a_domain_ours() {
        assert!(is_ours(WANTED) && is_ours(&kept()));
        assert!(!is_ours(
            &WANTED.replace("urn:bmslice:domain:v1", "urn:other")
        ));
        assert!(!is_ours("<domain/>") && !is_ours("nonsense"));
    }
}
