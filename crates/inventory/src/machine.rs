//! What the machine is: names, versions, and the one reading of `/proc/cpuinfo`.
//!
//! Source: proc(5); `Documentation/ABI/testing/sysfs-firmware-dmi-tables`; os-release(5).

use bmslice_model::{CpuId, CpuSet};

use crate::facts::MachineFacts;
use crate::scan::Scan;

/// What `/proc/cpuinfo` told.
#[derive(Debug, Default)]
pub(crate) struct CpuInfo {
    pub(crate) vendor: Option<String>,
    pub(crate) model: Option<String>,
    architecture: Option<&'static str>,
    guest: Option<bool>,
    /// The CPUs that have an entry: those online.
    pub(crate) processors: CpuSet,
}

/// Reads `/proc/cpuinfo`, once.
pub(crate) fn read_cpuinfo(scan: &Scan) -> CpuInfo {
    let text = scan.file("/proc/cpuinfo");
    let mut info = CpuInfo::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "processor" => {
                if let Some(cpu) = value.parse().ok().and_then(|n| CpuId::new(n).ok()) {
                    info.processors.insert(cpu);
                }
            }
            "vendor_id" if info.vendor.is_none() => info.vendor = Some(value.into()),
            "model name" | "cpu" if info.model.is_none() => info.model = Some(value.into()),
            "CPU implementer" => {
                info.architecture.get_or_insert("aarch64");
            }
            "flags" if info.guest.is_none() => {
                let has = |flag| value.split(' ').any(|f| f == flag);
                info.guest = Some(has("hypervisor"));
                // `lm` is long mode: a 64-bit kernel and a 32-bit one both show it.
                info.architecture
                    .get_or_insert(if has("lm") { "x86_64" } else { "i686" });
            }
            _ => {}
        }
    }
    info
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
    MachineFacts {
        hostname: scan
            .text("/proc/sys/kernel/hostname")
            .or_else(|| scan.text("/etc/hostname"))
            .unwrap_or_default(),
        // `/proc/sys/kernel/arch` is there since Linux 6.1.
        architecture: scan
            .text("/proc/sys/kernel/arch")
            .or_else(|| cpuinfo.architecture.map(Into::into))
            .unwrap_or_default(),
        kernel: scan.text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        os: os_release(scan, "PRETTY_NAME"),
        cpu_vendor: cpuinfo.vendor.clone(),
        cpu_model: cpuinfo.model.clone(),
        product: Some(product).filter(|text| !text.is_empty()),
        guest: cpuinfo.guest,
    }
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
