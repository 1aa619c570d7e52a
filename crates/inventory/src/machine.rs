//! What the machine is: names, versions, and the one reading of `/proc/cpuinfo`.
//!
//! Source: proc(5); `Documentation/ABI/testing/sysfs-firmware-dmi-tables`; os-release(5).

use std::collections::BTreeMap;

use bmslice_model::{CpuId, CpuSet};

use crate::facts::MachineFacts;
use crate::scan::Scan;

/// What `/proc/cpuinfo` told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuInfo {
    pub(crate) vendor: Option<String>,
    pub(crate) model: Option<String>,
    microcode: Option<String>,
    architecture: Option<&'static str>,
    guest: Option<bool>,
    pub(crate) x2apic: Option<bool>,
    /// The CPUs that have an entry: those online.
    pub(crate) processors: CpuSet,
    /// `physical id` and `core id` of those that tell both.
    pub(crate) places: BTreeMap<CpuId, (u32, u32)>,
    /// `CPU part` of those that tell it: which of Arm's designs each core is.
    pub(crate) parts: BTreeMap<CpuId, String>,
}

/// Reads `/proc/cpuinfo`, once.
pub(crate) fn read_cpuinfo(scan: &Scan) -> CpuInfo {
    parse_cpuinfo(&scan.file("/proc/cpuinfo"))
}

/// Each architecture has its own names for the same things, and some have no block for each CPU.
pub(crate) fn parse_cpuinfo(text: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    let mut cpu = None;
    let mut package = None;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let first = |field: &mut Option<String>| {
            if field.is_none() && !value.is_empty() {
                *field = Some(value.into());
            }
        };
        match key {
            "processor" => {
                cpu = value.parse().ok().and_then(|n| CpuId::new(n).ok());
                package = None;
                match cpu {
                    Some(cpu) => {
                        info.processors.insert(cpu);
                    }
                    // 32-bit ARM once wrote its model there.
                    None => first(&mut info.model),
                }
            }
            "physical id" => package = value.parse().ok(),
            "core id" => {
                if let (Some(cpu), Some(package), Ok(core)) = (cpu, package, value.parse()) {
                    info.places.insert(cpu, (package, core));
                }
            }
            "vendor_id" | "vendor" => first(&mut info.vendor),
            "model name" | "cpu" | "Processor" | "cpu model" | "Model Name" => {
                first(&mut info.model);
            }
            "microcode" => first(&mut info.microcode),
            "CPU part" => {
                if let Some(cpu) = cpu {
                    info.parts.insert(cpu, value.to_owned());
                }
            }
            "CPU implementer" => {
                info.architecture.get_or_insert("aarch64");
                if let Some(name) = arm_implementer(value) {
                    info.vendor.get_or_insert_with(|| name.to_owned());
                }
            }
            "flags" if info.guest.is_none() => {
                let has = |flag| value.split(' ').any(|f| f == flag);
                info.guest = Some(has("hypervisor"));
                info.x2apic = Some(has("x2apic"));
                // `lm` is long mode: a 64-bit kernel and a 32-bit one both show it.
                info.architecture
                    .get_or_insert(if has("lm") { "x86_64" } else { "i686" });
            }
            _ => {
                // s390: `processor 0: version = FF, …`; SPARC: `CPU0 : online`.
                let digits = key
                    .strip_prefix("processor ")
                    .or_else(|| key.strip_prefix("CPU").filter(|_| value == "online"));
                if let Some(cpu) = digits
                    .and_then(|digits| digits.parse().ok())
                    .and_then(|n| CpuId::new(n).ok())
                {
                    info.processors.insert(cpu);
                    if key.starts_with("processor ") {
                        info.architecture.get_or_insert("s390x");
                    }
                }
            }
        }
    }
    info
}

/// Who made an Arm core, by the implementer's number (Arm's architecture reference manual,
/// `MIDR_EL1`).
fn arm_implementer(text: &str) -> Option<&'static str> {
    Some(match text {
        "0x41" => "ARM",
        "0x42" => "Broadcom",
        "0x43" => "Cavium",
        "0x46" => "Fujitsu",
        "0x48" => "HiSilicon",
        "0x4e" => "NVIDIA",
        "0x50" => "APM",
        "0x51" => "Qualcomm",
        "0x61" => "Apple",
        "0x6d" => "Microsoft",
        "0x70" => "Phytium",
        "0xc0" => "Ampere",
        _ => return None,
    })
}

/// Reads names and versions.
pub(crate) fn read(scan: &Scan, cpuinfo: &CpuInfo) -> MachineFacts {
    let dmi = |name: &str| {
        scan.text(&format!("/sys/class/dmi/id/{name}"))
            .or_else(|| scan.text(&format!("/sys/devices/virtual/dmi/id/{name}")))
    };
    let product = [dmi("sys_vendor"), dmi("product_name")]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ");
    let hypervisor = guest_of(scan, &product);
    MachineFacts {
        hostname: scan
            .text("/proc/sys/kernel/hostname")
            .or_else(|| scan.text("/etc/hostname"))
            .or_else(|| gathered(scan, "HostName"))
            .unwrap_or_default(),
        // `/proc/sys/kernel/arch` is there since Linux 6.1.
        architecture: scan
            .text("/proc/sys/kernel/arch")
            .or_else(|| gathered(scan, "Architecture"))
            .or_else(|| cpuinfo.architecture.map(Into::into))
            .unwrap_or_default(),
        kernel: scan
            .text("/proc/sys/kernel/osrelease")
            .or_else(|| gathered(scan, "OSRelease"))
            .unwrap_or_default(),
        os: os_release(scan, "PRETTY_NAME"),
        cpu_vendor: cpuinfo.vendor.clone(),
        cpu_model: cpuinfo.model.clone(),
        product: Some(product).filter(|text| !text.is_empty()),
        guest: cpuinfo.guest.or(hypervisor.is_some().then_some(true)),
        guest_of: hypervisor,
        microcode: scan
            .text("/sys/devices/system/cpu/cpu0/microcode/version")
            .or_else(|| cpuinfo.microcode.clone()),
        smt: scan.text("/sys/devices/system/cpu/smt/control"),
        vulnerabilities: vulnerabilities(scan),
        clock_source: scan.text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }
}

/// Whose guest the server is: what a hypervisor says of itself, then what it calls its machine.
fn guest_of(scan: &Scan, product: &str) -> Option<String> {
    if let Some(kind) = scan.text("/sys/hypervisor/type") {
        return Some(kind);
    }
    let known = [
        ("KVM", "kvm"),
        ("QEMU", "kvm"),
        ("OpenStack", "kvm"),
        ("VMware", "vmware"),
        ("VirtualBox", "virtualbox"),
        ("innotek", "virtualbox"),
        ("Microsoft Corporation Virtual Machine", "hyperv"),
        ("Xen", "xen"),
        ("Bochs", "bochs"),
        ("Parallels", "parallels"),
        ("Amazon EC2", "kvm"),
        ("Google Compute Engine", "kvm"),
    ];
    known
        .iter()
        .find(|(text, _)| product.contains(text))
        // A metal instance says Amazon, too.
        .filter(|_| !product.contains(".metal"))
        .map(|(_, kind)| (*kind).to_owned())
}

fn vulnerabilities(scan: &Scan) -> BTreeMap<String, String> {
    const FOLDER: &str = "/sys/devices/system/cpu/vulnerabilities";
    scan.list(FOLDER)
        .into_iter()
        .filter_map(|name| {
            let text = scan.text(&format!("{FOLDER}/{name}"))?;
            Some((name, text))
        })
        .collect()
}

/// What uname(2) said, in a tree that `hwloc-gather-topology` captured.
fn gathered(scan: &Scan, field: &str) -> Option<String> {
    let text = scan.file("/proc/hwloc-nofile-info");
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        (key == field && !value.is_empty()).then(|| value.to_owned())
    })
}

/// A field of os-release, without its quotes.
fn os_release(scan: &Scan, field: &str) -> Option<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| scan.root.read_text(path).ok())?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == field).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}
