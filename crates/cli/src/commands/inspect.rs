//! `bmslice inspect`: a server as it is.

mod domains;
mod drivers;
mod quiet;

use std::collections::BTreeMap;

use bmslice_inventory::{
    BootLoader, CacheKind, Cpu, HostNeed, Inventory, NetInterface, PciFunction,
};
use bmslice_model::{ByteSize, CpuSet, NumaNodeId};
use clap::Args;
use comfy_table::Table;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::picture::Pictures;
use crate::server::Source;
use crate::tables::{Page, count, or_dash, table};

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Show a server: CPUs with siblings and caches, NUMA nodes with memory and huge \
pages, NICs with their SR-IOV and IOMMU groups, firmware, queues and clocks, kernel arguments, boot loader, KVM, libvirt.

`-o json` is an inventory file: `bmslice plan --inventory FILE` plans with it anywhere. Run as root \
to see everything (IOMMU groups' memory, libvirt).";

/// Which server.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Show every PCI function, bridges and virtual functions too
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    arguments.pictures.check(context)?;
    let inventory = arguments.source.read(context)?;
    if !arguments.pictures.draw(&inventory, None, context)? {
        return Ok(Exit::Done);
    }
    context.output.data(&inventory, || {
        page(&inventory, &context.output, arguments.all)
    })?;
    Ok(Exit::Done)
}

fn page(inventory: &Inventory, output: &Output, all: bool) -> String {
    let mut page = Page::new(output);
    page.facts(&facts(inventory));
    page.heading("Cores (a core's sibling threads together)")
        .table(&cores(inventory, output));
    page.heading("NUMA nodes").table(&nodes(inventory, output));
    page.heading("NICs").table(&nics(inventory, output));
    if let Some(table) = drivers::drivers(inventory, output) {
        page.heading("NICs' drivers").table(&table);
    }
    let others: Vec<&PciFunction> = inventory
        .pci
        .iter()
        .filter(|function| {
            let listed_above = function.is_network() && !function.is_vf();
            !listed_above && (all || is_of_interest(function))
        })
        .collect();
    if !others.is_empty() {
        page.heading("Other PCI functions")
            .table(&functions(&others, output));
    }
    let shared: Vec<(&str, String)> = inventory
        .iommu_groups
        .iter()
        .filter(|_| all)
        .filter_map(|group| {
            let members: Vec<String> = group.members.iter().map(ToString::to_string).collect();
            let why = group.why.as_ref()?;
            Some((
                "-",
                format!("group {}: {}: {why}", group.id, members.join(" ")),
            ))
        })
        .collect();
    if !shared.is_empty() {
        page.heading("IOMMU groups of several members");
        page.facts(&shared);
    }
    let libvirt = inventory.hypervisor.libvirt.as_ref();
    if let Some(libvirt) = libvirt.filter(|libvirt| !libvirt.domains.is_empty()) {
        page.heading("Domains")
            .table(&domains::domains(libvirt, output));
    }
    if !inventory.notes.is_empty() {
        page.heading("Odd");
        for note in &inventory.notes {
            page.facts(&[("-", format!("{}: {}", note.about, note.text))]);
        }
    }
    page.finish()
}

fn facts(inventory: &Inventory) -> Vec<(&'static str, String)> {
    let machine = &inventory.machine;
    let mut server = vec![machine.hostname.clone()];
    server.extend(machine.product.clone());
    server.extend(machine.os.clone());
    server.push(format!("Linux {} {}", machine.kernel, machine.architecture));
    if machine.guest == Some(true) {
        server.push("itself a guest".into());
    }
    let boot = &inventory.boot;
    let set = |cpus: &CpuSet| {
        if cpus.is_empty() {
            "none".to_owned()
        } else {
            cpus.to_string()
        }
    };
    let mut facts = vec![
        ("server", server.join(", ")),
        ("CPUs", cpus(inventory)),
        ("kernel args", boot.cmdline.to_string()),
        ("boot loader", loader(&boot.loader)),
        ("isolated", set(&boot.isolated)),
    ];
    if !boot.nohz_full.is_empty() {
        facts.push(("nohz_full", set(&boot.nohz_full)));
    }
    let tables = boot.iommu_tables.as_deref();
    facts.push((
        "IOMMU",
        match (boot.iommu, tables) {
            (true, _) => {
                let groups: std::collections::BTreeSet<_> =
                    inventory.pci.iter().filter_map(|f| f.iommu_group).collect();
                let kind = inventory.host.iommu.as_ref();
                let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
                let shared = inventory.iommu_groups.iter().filter(|g| g.why.is_some());
                let shared = match shared.count() {
                    0 => String::new(),
                    several => format!(", {several} of several members"),
                };
                format!("on{kind}, {}{shared}", count(groups.len(), "group"))
            }
            (false, Some([])) => "off; firmware describes none".into(),
            (false, Some(tables)) => format!("off; firmware describes one ({})", tables.join(", ")),
            (false, None) => "off".into(),
        },
    ));
    facts.extend(quiet::facts(inventory));
    facts.push(("KVM", kvm(inventory)));
    facts.push(("libvirt", libvirt(inventory)));
    facts
}

/// `Intel Xeon, 2 sockets × 6 cores × 2 threads = 24 CPUs`, or the plain numbers when cores differ.
fn cpus(inventory: &Inventory) -> String {
    let online: Vec<&Cpu> = inventory.cpus.iter().filter(|cpu| cpu.online).collect();
    let cores = cores_of(&online);
    let sockets: std::collections::BTreeSet<_> = online.iter().map(|cpu| cpu.package).collect();
    let threads: std::collections::BTreeSet<usize> = cores.iter().map(|c| c.0.len()).collect();
    let even = threads.len() == 1 && cores.len().is_multiple_of(sockets.len().max(1));
    let shape = match threads.first() {
        Some(threads) if even => format!(
            "{} × {} × {} = {} CPUs",
            count(sockets.len(), "socket"),
            count(cores.len() / sockets.len().max(1), "core"),
            count(*threads, "thread"),
            online.len()
        ),
        _ => format!(
            "{}, {}, {} CPUs",
            count(sockets.len(), "socket"),
            count(cores.len(), "core"),
            online.len()
        ),
    };
    let mut parts = vec![shape];
    let offline: CpuSet = inventory
        .cpus
        .iter()
        .filter(|c| !c.online)
        .map(|c| c.id)
        .collect();
    if !offline.is_empty() {
        parts.push(format!("offline {offline}"));
    }
    let barred: CpuSet = online.iter().filter(|c| !c.allowed).map(|c| c.id).collect();
    if !barred.is_empty() {
        parts.push(format!("not allowed here {barred}"));
    }
    let model = inventory.machine.cpu_model.clone();
    parts.extend(model.or_else(|| inventory.machine.cpu_vendor.clone()));
    parts.join(", ")
}

/// Cores by their sibling sets, lowest CPU first, with the first of their CPUs.
fn cores_of<'a>(online: &[&'a Cpu]) -> Vec<(CpuSet, &'a Cpu)> {
    let mut seen = CpuSet::new();
    let mut cores = Vec::new();
    for cpu in online {
        if seen.insert(cpu.id) {
            seen.extend_from(&cpu.siblings);
            cores.push((cpu.siblings.clone(), *cpu));
        }
    }
    cores
}

fn loader(loader: &BootLoader) -> String {
    match loader {
        BootLoader::Grub { config, drop_ins } => match drop_ins {
            Some(folder) => format!("GRUB, writes {config}, reads {folder}"),
            None => format!("GRUB, writes {config}, reads no drop-ins"),
        },
        BootLoader::Bls => "GRUB with boot loader specification entries (grubby)".into(),
        BootLoader::Ostree => "rpm-ostree".into(),
        BootLoader::SystemdBoot { entries } => match entries {
            Some(folder) => format!("systemd-boot, reads {folder}"),
            None => "systemd-boot".into(),
        },
        BootLoader::Unknown => "unknown".into(),
    }
}

fn kvm(inventory: &Inventory) -> String {
    let facts = &inventory.hypervisor;
    let mut parts = vec![if facts.kvm_device {
        "/dev/kvm".to_owned()
    } else {
        "no /dev/kvm".to_owned()
    }];
    parts.extend(facts.kvm_module.clone());
    if facts.nested == Some(true) {
        parts.push("nested".into());
    }
    parts.join(", ")
}

fn libvirt(inventory: &Inventory) -> String {
    let facts = &inventory.hypervisor;
    match (&facts.libvirt, &facts.libvirt_error) {
        (Some(libvirt), _) => {
            let mut parts = vec![libvirt.version.clone()];
            parts.extend(libvirt.qemu.as_ref().map(|qemu| format!("QEMU {qemu}")));
            parts.push(if libvirt.kvm {
                "guests by KVM".into()
            } else {
                "no guests by KVM".into()
            });
            parts.push(count(libvirt.domains.len(), "domain"));
            parts.join(", ")
        }
        (None, Some(error)) => format!("does not answer: {error}"),
        (None, None) => "not asked".into(),
    }
}

/// A row for each group of cores that share node, socket, die and last-level cache.
fn cores(inventory: &Inventory, output: &Output) -> Table {
    type Group = (Option<NumaNodeId>, Option<u32>, Option<u32>, Option<usize>);
    let last = |cpu: &Cpu| {
        let of = |i: &usize| {
            let cache = &inventory.caches[*i];
            cache.kind != CacheKind::Instruction && cache.cpus.contains(cpu.id)
        };
        let all = 0..inventory.caches.len();
        all.filter(of).max_by_key(|i| inventory.caches[*i].level)
    };
    let online: Vec<&Cpu> = inventory.cpus.iter().filter(|cpu| cpu.online).collect();
    let mut groups: BTreeMap<Group, Vec<CpuSet>> = BTreeMap::new();
    for (core, cpu) in cores_of(&online) {
        let group = (cpu.node, cpu.package, cpu.die, last(cpu));
        groups.entry(group).or_default().push(core);
    }
    // A die is worth a column where a socket has several.
    let dies: std::collections::BTreeSet<_> = groups
        .keys()
        .map(|(_, socket, die, _)| (socket, die))
        .collect();
    let sockets: std::collections::BTreeSet<_> = dies.iter().map(|(socket, _)| socket).collect();
    let dies = dies.len() > sockets.len();
    let mut heading = vec!["node", "socket"];
    if dies {
        heading.push("die");
    }
    heading.extend(["last cache", "cores…"]);
    let mut table = table(output, &heading);
    for ((node, package, die, cache), cores) in groups {
        let mut row = vec![or_dash(node), or_dash(package)];
        if dies {
            row.push(or_dash(die));
        }
        row.push(cache.map_or_else(
            || "-".into(),
            |i| {
                let cache = &inventory.caches[i];
                format!("L{} {}", cache.level, or_dash(cache.size))
            },
        ));
        let cores: Vec<String> = cores.iter().map(ToString::to_string).collect();
        row.push(cores.join("  "));
        table.add_row(row);
    }
    table
}

fn nodes(inventory: &Inventory, output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "node",
            "CPUs…",
            "memory",
            "free",
            "huge pages (free of all)",
            "distances",
        ],
    );
    for node in &inventory.nodes {
        let pages: Vec<String> = node
            .huge_pages
            .iter()
            .map(|pool| format!("{} of {} × {}", pool.free, pool.total, pool.size))
            .collect();
        let distances: Vec<String> = node.distances.iter().map(ToString::to_string).collect();
        table.add_row(vec![
            node.id.to_string(),
            node.cpus.to_string(),
            rounded(node.memory_total),
            rounded(node.memory_free),
            pages.join("\n"),
            distances.join(" "),
        ]);
    }
    table
}

/// A size in MiB or GiB with one decimal: memory totals are never whole.
fn rounded(size: ByteSize) -> String {
    let mib = size.mib();
    if mib < 1024 {
        format!("{mib} MiB")
    } else {
        format!("{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024)
    }
}

fn nics(inventory: &Inventory, output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "NIC",
            "address",
            "driver",
            "MAC",
            "node",
            "group",
            "VFs",
            "link",
            "kept for…",
        ],
    );
    let ports = inventory
        .pci
        .iter()
        .filter(|f| f.is_network() && !f.is_vf());
    for function in ports {
        let interface = inventory
            .interfaces
            .iter()
            .find(|interface| interface.pci == Some(function.address));
        let mac = function.mac.or_else(|| interface.and_then(|i| i.mac));
        table.add_row(vec![
            or_dash(function.interfaces.first()),
            function.address.to_string(),
            or_dash(function.driver.as_ref()),
            or_dash(mac),
            or_dash(function.node),
            or_dash(function.iommu_group),
            function.sriov.as_ref().map_or_else(
                || "-".into(),
                |sriov| format!("{} of {}", sriov.current, sriov.total),
            ),
            interface.map_or_else(|| "-".into(), link),
            needs(function),
        ]);
    }
    table
}

fn link(interface: &NetInterface) -> String {
    match (interface.carrier, interface.speed) {
        (Some(true), Some(speed)) if speed >= 1000 && speed.is_multiple_of(1000) => {
            format!("{}G", speed / 1000)
        }
        (Some(true), Some(speed)) => format!("{speed}M"),
        (Some(true), None) => "up".into(),
        (Some(false), _) => "no link".into(),
        (None, _) => interface.state.clone().unwrap_or_else(|| "-".into()),
    }
}

fn needs(function: &PciFunction) -> String {
    let mut needs: Vec<String> = function.host_needs.iter().map(need).collect();
    if function.rmrr {
        needs.push("firmware (RMRR)".into());
    }
    needs.join(", ")
}

/// Why the host needs it, in a few words.
pub(crate) fn need(need: &HostNeed) -> String {
    match need {
        HostNeed::DefaultRoute { interface } => format!("default route ({interface})"),
        HostNeed::Session { interface } => format!("this session ({interface})"),
        HostNeed::Member { of } => of.clone(),
        HostNeed::Address { interface } => format!("address ({interface})"),
        HostNeed::Mount { at } => format!("file system {at}"),
    }
}

/// What may be passed through beside NICs: storage, displays, accelerators, processors.
fn is_of_interest(function: &PciFunction) -> bool {
    let class = function.class.trim_start_matches("0x");
    ["01", "03", "0b40", "10", "12"]
        .iter()
        .any(|of| class.starts_with(of))
}

fn class(function: &PciFunction) -> &'static str {
    let class = function.class.trim_start_matches("0x");
    match class.get(..2).unwrap_or_default() {
        "01" => "storage",
        "02" => "network",
        "03" => "display",
        "04" => "multimedia",
        "05" => "memory",
        "06" => "bridge",
        "07" => "communication",
        "08" => "system",
        "0b" => "processor",
        "0c" => "serial bus",
        "10" => "encryption",
        "11" => "signal processing",
        "12" => "accelerator",
        _ => "other",
    }
}

fn functions(functions: &[&PciFunction], output: &Output) -> Table {
    let mut table = table(
        output,
        &[
            "address",
            "class",
            "id…",
            "driver",
            "node",
            "group",
            "kept for…",
        ],
    );
    for function in functions {
        let class = match function.physfn {
            Some(physfn) => format!("VF of {physfn}"),
            None => class(function).into(),
        };
        table.add_row(vec![
            function.address.to_string(),
            class,
            function
                .name
                .clone()
                .unwrap_or_else(|| function.id.to_string()),
            or_dash(function.driver.as_ref()),
            or_dash(function.node),
            or_dash(function.iommu_group),
            needs(function),
        ]);
    }
    table
}
