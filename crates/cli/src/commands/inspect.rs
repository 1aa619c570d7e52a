//! `bmslice inspect`: a server as it is.

mod devices;
mod domains;
mod drivers;
mod places;
mod quiet;
mod shape;

use bmslice_inventory::{BootLoader, Cpu, GrubEntries, Inventory, PciFunction};
use bmslice_model::CpuSet;
use clap::Args;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::picture::Pictures;
use crate::server::Source;
use crate::tables::{Page, count};

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
    /// Show every PCI function, bridges and virtual functions too, where each is (root complex and
    /// ports, slot), its BARs, ACS and how it can be reset, and why IOMMU groups hang together
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
        .table(&shape::cores(inventory, output));
    page.heading("NUMA nodes")
        .table(&shape::nodes(inventory, output));
    page.heading("NICs")
        .table(&devices::nics(inventory, output));
    if let Some(table) = drivers::drivers(inventory, output) {
        page.heading("NICs' drivers").table(&table);
    }
    let others: Vec<&PciFunction> = inventory
        .pci
        .iter()
        .filter(|function| {
            let listed_above = function.is_network() && !function.is_vf();
            !listed_above && (all || devices::is_of_interest(function))
        })
        .collect();
    if !others.is_empty() {
        page.heading("Other PCI functions")
            .table(&devices::functions(&others, output));
    }
    if all && !inventory.pci.is_empty() {
        page.heading("Where PCI functions are")
            .table(&places::places(&inventory.pci, output));
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
    let system = ["Linux", &machine.kernel, &machine.architecture];
    server.push(
        system
            .join(" ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    );
    server.retain(|part| !part.is_empty());
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
            (false, None) => "no groups; what firmware describes is not told".into(),
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
    let cores = shape::cores_of(&online);
    let sockets: std::collections::BTreeSet<_> = online.iter().map(|cpu| cpu.package).collect();
    let threads: std::collections::BTreeSet<usize> = cores.iter().map(|c| c.0.len()).collect();
    let even = threads.len() == 1 && cores.len().is_multiple_of(sockets.len().max(1));
    let shape = match threads.first() {
        Some(threads) if even => format!(
            "{} × {} × {} = {}",
            count(sockets.len(), "socket"),
            count(cores.len() / sockets.len().max(1), "core"),
            count(*threads, "thread"),
            count(online.len(), "CPU")
        ),
        _ => format!(
            "{}, {}, {}",
            count(sockets.len(), "socket"),
            count(cores.len(), "core"),
            count(online.len(), "CPU")
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

fn loader(loader: &BootLoader) -> String {
    match loader {
        BootLoader::Grub { config, drop_ins } => match drop_ins {
            Some(folder) => format!("GRUB, writes {config}, reads {folder}"),
            None => format!("GRUB, writes {config}, reads no drop-ins"),
        },
        BootLoader::Bls(GrubEntries { obstacle, .. }) => match obstacle {
            Some(obstacle) => format!("GRUB with boot loader entries (grubby); {obstacle}"),
            None => "GRUB with boot loader entries (grubby)".into(),
        },
        BootLoader::Ostree(GrubEntries {
            obstacle: Some(obstacle),
            ..
        }) => format!("GRUB with the entries of ostree's deployments; {obstacle}"),
        BootLoader::Ostree(GrubEntries {
            entries: Some(_), ..
        }) => "GRUB with the entries of ostree's deployments".into(),
        BootLoader::Ostree(_) => "ostree, whose entries GRUB does not read".into(),
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
