//! The devices of a slice's domain: disk, cards, console, and nothing that was not asked for.

use bmslice_model::{MacAddress, PciAddress, SliceName};
use bmslice_plan::{NicPlan, SlicePlan};
use bmslice_spec::GuestMachine;

use crate::element::Element;

pub(super) fn devices(slice: &SlicePlan) -> Element {
    let mut slots = Slots::new(slice);
    let cards: Vec<Element> = slice
        .nics
        .iter()
        .flat_map(|nic| card(nic, &mut slots))
        .collect();
    // No emulator path: libvirt takes the distribution's own.
    Element::new("devices")
        .child(disk(slice))
        .children(seed(slice))
        .child(
            Element::new("controller")
                .attribute("type", "usb")
                .attribute("index", 0)
                .attribute("model", "none"),
        )
        .children(slots.controllers())
        .children(cards)
        .child(serial(slice))
        .child(console())
        .child(agent())
        .child(Element::new("memballoon").attribute("model", "none"))
        .child(rng())
}

/// On the first IOThread, past the host's page cache (`none`), with native AIO, which needs that.
fn disk(slice: &SlicePlan) -> Element {
    let mut driver = Element::new("driver")
        .attribute("name", "qemu")
        .attribute("type", "qcow2")
        .attribute("cache", "none")
        .attribute("io", "native")
        .attribute("discard", "unmap");
    if !slice.iothreads.is_empty() {
        driver = driver.attribute("iothread", 1);
    }
    Element::new("disk")
        .attribute("type", "file")
        .attribute("device", "disk")
        .child(driver)
        .child(Element::new("source").attribute("file", &slice.disk.path))
        .child(
            Element::new("target")
                .attribute("dev", "vda")
                .attribute("bus", "virtio"),
        )
}

/// cloud-init's NoCloud seed, which is found by its label on any disk. On virtio as the guest's own
/// disk, not as a CD-ROM: images made for the cloud have no driver for SATA or IDE.
fn seed(slice: &SlicePlan) -> Option<Element> {
    let path = slice.disk.seed.as_ref()?;
    Some(
        Element::new("disk")
            .attribute("type", "file")
            .attribute("device", "disk")
            .child(
                Element::new("driver")
                    .attribute("name", "qemu")
                    .attribute("type", "raw"),
            )
            .child(Element::new("source").attribute("file", path))
            .child(
                Element::new("target")
                    .attribute("dev", "vdb")
                    .attribute("bus", "virtio"),
            )
            .child(Element::new("readonly")),
    )
}

/// Where in the guest the cards sit, so that the guest finds them in the plan's order: left alone,
/// libvirt places every `<interface>` before every `<hostdev>`.
struct Slots {
    machine: GuestMachine,
    total: usize,
    next: usize,
}

/// i440FX has one bus; libvirt's own devices take slots from 1 up, so cards come behind them.
const PC_FIRST_SLOT: usize = 0x10;
const PC_LAST_SLOT: usize = 0x1f;

impl Slots {
    fn new(slice: &SlicePlan) -> Self {
        let total = slice
            .nics
            .iter()
            .map(|nic| nic.functions().len().max(1))
            .sum();
        Self {
            machine: slice.machine,
            total,
            next: 0,
        }
    }

    /// A root port for each function on q35; `pc` has its one bus without being told.
    fn controllers(&self) -> Vec<Element> {
        let port = |index: usize, model: &str| {
            Element::new("controller")
                .attribute("type", "pci")
                .attribute("index", index)
                .attribute("model", model)
        };
        match self.machine {
            GuestMachine::Q35 if self.total > 0 => std::iter::once(port(0, "pcie-root"))
                .chain((1..=self.total).map(|index| port(index, "pcie-root-port")))
                .collect(),
            GuestMachine::Q35 | GuestMachine::Pc => Vec::new(),
        }
    }

    /// The guest's address of the next function; `None` past the last slot of `pc`, where libvirt
    /// finds a place (or says that there is none).
    fn next(&mut self) -> Option<Element> {
        let index = self.next;
        self.next += 1;
        let (bus, slot) = match self.machine {
            GuestMachine::Q35 => (index + 1, 0),
            GuestMachine::Pc => (0, PC_FIRST_SLOT + index),
        };
        (slot <= PC_LAST_SLOT && bus <= 0xff).then(|| {
            Element::new("address")
                .attribute("type", "pci")
                .attribute("domain", "0x0000")
                .attribute("bus", format!("0x{bus:02x}"))
                .attribute("slot", format!("0x{slot:02x}"))
                .attribute("function", "0x0")
        })
    }
}

fn card(nic: &NicPlan, slots: &mut Slots) -> Vec<Element> {
    let mac =
        |mac: Option<MacAddress>| mac.map(|mac| Element::new("mac").attribute("address", mac));
    match nic {
        NicPlan::Passthrough { .. } => nic
            .functions()
            .into_iter()
            .map(|function| {
                managed("hostdev")
                    .attribute("mode", "subsystem")
                    .attribute("type", "pci")
                    .child(vfio())
                    .child(Element::new("source").child(host_address(function)))
                    .children(slots.next())
            })
            .collect(),
        // Not a plain hostdev: only as an interface does libvirt set MAC and VLAN through the
        // physical function before the guest sees the card.
        NicPlan::Vf {
            address,
            vlan,
            nic: common,
            ..
        } => {
            let vlan =
                vlan.map(|id| Element::new("vlan").child(Element::new("tag").attribute("id", id)));
            vec![
                managed("interface")
                    .attribute("type", "hostdev")
                    .child(vfio())
                    .children(mac(common.mac))
                    .child(
                        Element::new("source")
                            .child(host_address(*address).attribute("type", "pci")),
                    )
                    .children(vlan)
                    .children(slots.next()),
            ]
        }
        NicPlan::Virtio {
            network,
            nic: common,
        } => vec![
            Element::new("interface")
                .attribute("type", "network")
                .children(mac(common.mac))
                .child(Element::new("source").attribute("network", network))
                .child(Element::new("model").attribute("type", "virtio"))
                .children(slots.next()),
        ],
    }
}

/// `managed`: libvirt takes the function from its driver at start and gives it back at stop.
fn managed(name: &'static str) -> Element {
    Element::new(name).attribute("managed", "yes")
}

/// Said aloud: left out, libvirt settles it only when the domain starts.
fn vfio() -> Element {
    Element::new("driver").attribute("name", "vfio")
}

fn host_address(function: PciAddress) -> Element {
    Element::new("address")
        .attribute("domain", format!("0x{:04x}", function.domain()))
        .attribute("bus", format!("0x{:02x}", function.bus()))
        .attribute("slot", format!("0x{:02x}", function.device()))
        .attribute("function", format!("0x{:x}", function.function()))
}

/// Where a slice's serial console is logged on the host.
#[must_use]
pub fn console_log(slice: &SliceName) -> String {
    format!("/var/log/libvirt/qemu/{slice}-console.log")
}

fn serial(slice: &SlicePlan) -> Element {
    Element::new("serial")
        .attribute("type", "pty")
        .child(
            Element::new("log")
                .attribute("file", console_log(&slice.name))
                .attribute("append", "off"),
        )
        .child(
            Element::new("target")
                .attribute("type", "isa-serial")
                .attribute("port", 0),
        )
}

fn console() -> Element {
    Element::new("console").attribute("type", "pty").child(
        Element::new("target")
            .attribute("type", "serial")
            .attribute("port", 0),
    )
}

/// QEMU's guest agent, for a graceful shutdown and for asking the guest what it sees.
fn agent() -> Element {
    Element::new("channel").attribute("type", "unix").child(
        Element::new("target")
            .attribute("type", "virtio")
            .attribute("name", "org.qemu.guest_agent.0"),
    )
}

fn rng() -> Element {
    Element::new("rng")
        .attribute("model", "virtio")
        .child(Element::text("backend", "/dev/urandom").attribute("model", "random"))
}
