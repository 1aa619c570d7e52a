//! A slice as a libvirt domain.
//!
//! Takes a [`SlicePlan`], gives the XML that `virDomainDefineXML` takes. Mechanical: every number in
//! it stands in the plan. Element names and meanings: libvirt's formatdomain page; what differs from
//! the usual domain is said where it is made.

mod devices;

pub use devices::console_log;

use std::fmt::Write as _;

use bmslice_model::{CpuSet, NumaNodeId};
use bmslice_plan::SlicePlan;
use bmslice_spec::{GuestMachine, Smt};
use sha2::{Digest, Sha256};

use crate::RenderError;
use crate::element::{Element, Unwritable};

/// The XML namespace of the domain's metadata, by which `bmslice` knows its own domains.
pub const METADATA_NAMESPACE: &str = "urn:bmslice:domain:v1";

/// The domain of a slice, as XML.
///
/// Its metadata hold one element, `bmslice:slice`, with the slice's `tenant` and the
/// [`definition_digest`].
///
/// # Errors
/// [`RenderError::Text`] when a path or name of the plan has a control character.
pub fn domain_xml(slice: &SlicePlan) -> Result<String, RenderError> {
    let digest = definition_digest(slice)?;
    document(slice, Some(&digest))
}

/// `sha256:…` of the domain's XML without this digest in it. It stands in the domain's metadata, so
/// that a domain defined from this plan can be told from one defined from an older plan without
/// comparing XML that libvirt has rewritten. It says nothing of what was changed by hand since.
///
/// # Errors
/// As [`domain_xml`].
pub fn definition_digest(slice: &SlicePlan) -> Result<String, RenderError> {
    let xml = document(slice, None)?;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(xml.as_bytes()) {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn document(slice: &SlicePlan, digest: Option<&str>) -> Result<String, RenderError> {
    domain(slice, digest)
        .document()
        .map_err(|Unwritable { place, value }| RenderError::Text {
            slice: slice.name.clone(),
            place,
            value,
        })
}

fn domain(slice: &SlicePlan, digest: Option<&str>) -> Element {
    Element::new("domain")
        .attribute("type", "kvm")
        .child(Element::text("name", &slice.name))
        .child(Element::text("uuid", &slice.uuid))
        .child(metadata(slice, digest))
        .child(Element::text("memory", slice.memory.kib()).attribute("unit", "KiB"))
        .child(Element::text("currentMemory", slice.memory.kib()).attribute("unit", "KiB"))
        .children(memory_backing(slice))
        .children(resource(slice))
        .child(vcpu(slice))
        .children(iothreads(slice))
        .child(cputune(slice))
        .child(numatune(slice))
        .child(os(slice))
        .child(features())
        .child(cpu(slice))
        .child(clock())
        .child(Element::text("on_poweroff", "destroy"))
        .child(Element::text("on_reboot", "restart"))
        .child(Element::text("on_crash", "destroy"))
        .child(pm())
        .child(devices::devices(slice))
}

fn metadata(slice: &SlicePlan, digest: Option<&str>) -> Element {
    let smt = match slice.smt {
        Smt::Pack => "pack",
        Smt::Isolate => "isolate",
        Smt::Any => "any",
    };
    let mut facts = Element::new("bmslice:slice")
        .attribute("xmlns:bmslice", METADATA_NAMESPACE)
        .attribute("tenant", &slice.tenant)
        .attribute("smt", smt);
    if let Some(digest) = digest {
        facts = facts.attribute("definition", digest);
    }
    Element::new("metadata").child(facts)
}

/// Huge pages come from a memfd: no hugetlbfs mount of that page size has to be there, and libvirtd
/// need not have seen one when it started. `<page nodeset>` counts *guest* cells.
fn memory_backing(slice: &SlicePlan) -> Option<Element> {
    let page = slice.huge_pages?;
    let cells: CpuSet = (0..slice.cells.len())
        .filter_map(|cell| bmslice_model::CpuId::new(u32::try_from(cell).ok()?).ok())
        .collect();
    let page = Element::new("page")
        .attribute("size", page.kib())
        .attribute("unit", "KiB")
        .attribute("nodeset", cells);
    Some(
        Element::new("memoryBacking")
            .child(Element::new("hugepages").child(page))
            // KSM would share pages between tenants.
            .child(Element::new("nosharepages"))
            .child(Element::new("source").attribute("type", "memfd"))
            // QEMU's default for a memfd, said aloud: a private mapping would copy on write and
            // need every huge page twice.
            .child(Element::new("access").attribute("mode", "shared"))
            .child(Element::new("allocation").attribute("mode", "immediate")),
    )
}

/// `cpuset` bounds where QEMU's threads are born: the pins below are set only after they run.
fn vcpu(slice: &SlicePlan) -> Element {
    let cpus = slice.vcpu_cpus().union(&slice.pool());
    Element::text("vcpu", slice.vcpus.len())
        .attribute("placement", "static")
        .attribute("cpuset", cpus)
}

/// The guest's cgroup goes where the isolated CPUs are, apart from guests of others.
fn resource(slice: &SlicePlan) -> Option<Element> {
    let partition = slice.partition.as_ref()?;
    Some(Element::new("resource").child(Element::text("partition", partition)))
}

fn iothreads(slice: &SlicePlan) -> Option<Element> {
    (!slice.iothreads.is_empty()).then(|| Element::text("iothreads", slice.iothreads.len()))
}

fn cputune(slice: &SlicePlan) -> Element {
    let vcpus = slice.vcpus.iter().enumerate().map(|(vcpu, cpu)| {
        Element::new("vcpupin")
            .attribute("vcpu", vcpu)
            .attribute("cpuset", cpu)
    });
    let emulator = Element::new("emulatorpin").attribute("cpuset", &slice.emulator);
    let iothreads = slice.iothreads.iter().enumerate().map(|(index, cpus)| {
        Element::new("iothreadpin")
            .attribute("iothread", index + 1)
            .attribute("cpuset", cpus)
    });
    Element::new("cputune")
        .children(vcpus)
        .child(emulator)
        .children(iothreads)
}

/// Strict, never preferred: memory from another node would be a slow guest that nobody notices.
fn numatune(slice: &SlicePlan) -> Element {
    let cells = slice.cells.iter().enumerate().map(|(id, cell)| {
        Element::new("memnode")
            .attribute("cellid", id)
            .attribute("mode", "strict")
            .attribute("nodeset", cell.node)
    });
    Element::new("numatune")
        .child(
            Element::new("memory")
                .attribute("mode", "strict")
                .attribute("nodeset", nodeset(slice)),
        )
        .children(cells)
}

/// `0,2`: the host nodes of the slice, each once, in order.
fn nodeset(slice: &SlicePlan) -> String {
    let mut nodes: Vec<NumaNodeId> = slice.cells.iter().map(|cell| cell.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    nodes.join(",")
}

fn os(slice: &SlicePlan) -> Element {
    let machine = match slice.machine {
        GuestMachine::Q35 => "q35",
        GuestMachine::Pc => "pc",
    };
    Element::new("os")
        .child(
            Element::text("type", "hvm")
                .attribute("arch", "x86_64")
                .attribute("machine", machine),
        )
        .child(Element::new("boot").attribute("dev", "hd"))
}

fn features() -> Element {
    Element::new("features")
        .child(Element::new("acpi"))
        .child(Element::new("apic"))
        // A virtual PMU costs exits and jitter.
        .child(Element::new("pmu").attribute("state", "off"))
        .child(Element::new("vmport").attribute("state", "off"))
}

fn cpu(slice: &SlicePlan) -> Element {
    let topology = Element::new("topology")
        .attribute("sockets", slice.topology.sockets)
        .attribute("dies", 1)
        .attribute("cores", slice.topology.cores)
        .attribute("threads", slice.topology.threads);
    let features = slice.cpu_features.iter().map(|name| {
        Element::new("feature")
            .attribute("policy", "require")
            .attribute("name", name)
    });
    let cells = slice.cells.iter().enumerate().map(|(id, cell)| {
        Element::new("cell")
            .attribute("id", id)
            .attribute("cpus", &cell.vcpus)
            .attribute("memory", cell.memory.kib())
            .attribute("unit", "KiB")
    });
    Element::new("cpu")
        .attribute("mode", "host-passthrough")
        .attribute("check", "none")
        // A guest with passed-through devices cannot migrate; `on` would mask invariant TSC.
        .attribute("migratable", "off")
        .child(topology)
        .children(features)
        .child(Element::new("numa").children(cells))
}

fn clock() -> Element {
    Element::new("clock")
        .attribute("offset", "utc")
        .child(
            Element::new("timer")
                .attribute("name", "rtc")
                .attribute("tickpolicy", "catchup"),
        )
        .child(
            Element::new("timer")
                .attribute("name", "pit")
                .attribute("tickpolicy", "delay"),
        )
        .child(
            Element::new("timer")
                .attribute("name", "hpet")
                .attribute("present", "no"),
        )
}

/// A suspended guest keeps its cores and gives nothing back.
fn pm() -> Element {
    Element::new("pm")
        .child(Element::new("suspend-to-mem").attribute("enabled", "no"))
        .child(Element::new("suspend-to-disk").attribute("enabled", "no"))
}
