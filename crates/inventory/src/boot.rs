//! How the host boots, with which arguments, and what isolation is in force.
//!
//! Source: `Documentation/admin-guide/kernel-parameters.rst`, `Documentation/ABI/testing/sysfs-devices-system-cpu`
//! (isolated, nohz_full), grub-mkconfig(8), the Boot Loader Specification and Interface (UAPI group).

use bmslice_host::Root;
use bmslice_model::{CpuSet, KernelCmdline};

use crate::facts::{BootFacts, BootLoader, PciFunction};
use crate::grub;
use crate::scan::Scan;

/// Reads arguments, loader and isolation.
pub(crate) fn read(scan: &mut Scan, functions: &[PciFunction]) -> BootFacts {
    let cmdline = match scan.file("/proc/cmdline").parse() {
        Ok(line) => line,
        Err(error) => {
            let error: bmslice_model::CmdlineError = error;
            scan.note("/proc/cmdline", error.to_string());
            KernelCmdline::default()
        }
    };
    let iommu_tables = scan
        .root
        .list("/sys/firmware/acpi/tables")
        .ok()
        .map(|names| {
            let known = |name: &String| matches!(&**name, "DMAR" | "IVRS" | "IORT" | "VIOT");
            names.into_iter().filter(known).collect()
        });
    BootFacts {
        cmdline,
        loader: loader(scan),
        isolated: cpus(scan, "/sys/devices/system/cpu/isolated"),
        nohz_full: cpus(scan, "/sys/devices/system/cpu/nohz_full"),
        iommu: functions.iter().any(|f| f.iommu_group.is_some())
            || !scan.list("/sys/kernel/iommu_groups").is_empty(),
        iommu_tables,
        cgroup: cgroup(scan),
    }
}

/// Kernels before 6.1 print `(null)` for no CPUs.
fn cpus(scan: &mut Scan, path: &str) -> CpuSet {
    match scan.text(path).as_deref() {
        None | Some("(null)") => CpuSet::new(),
        Some(_) => scan.cpu_list(path).unwrap_or_default(),
    }
}

fn cgroup(scan: &Scan) -> Option<u32> {
    const CGROUP: &str = "/sys/fs/cgroup";
    if scan.root.exists(format!("{CGROUP}/cgroup.controllers")) {
        return Some(2);
    }
    // The hybrid layout has its controllers in version 1.
    ["cpuset", "cpu", "memory", "systemd", "unified"]
        .iter()
        .any(|name| scan.root.exists(format!("{CGROUP}/{name}")))
        .then_some(1)
}

fn loader(scan: &mut Scan) -> BootLoader {
    // What firmware started says more than what is installed.
    let is_systemd_boot = loader_variable(scan.root, "LoaderInfo")
        .is_some_and(|info| info.starts_with("systemd-boot"));
    if scan.root.exists("/run/ostree-booted") {
        return grub::ostree(scan, is_systemd_boot);
    }
    if is_systemd_boot {
        return systemd_boot(scan);
    }
    let entries = scan
        .list(grub::ENTRIES)
        .iter()
        .any(|name| name.ends_with(".conf"));
    let program = |name: &str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .map(|folder| format!("{folder}/{name}"))
            .find(|path| scan.root.exists(path))
    };
    if entries && program("grubby").is_some() {
        return grub::bls(scan);
    }
    let config = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"]
        .into_iter()
        .find(|path| scan.root.exists(path));
    if let Some(config) = config {
        let mkconfig = program("grub-mkconfig").or_else(|| program("grub2-mkconfig"));
        if program("update-grub").is_some() || mkconfig.is_some() {
            return BootLoader::Grub {
                config: config.into(),
                drop_ins: drop_ins(scan, mkconfig.as_deref()),
            };
        }
        scan.note(
            config,
            "GRUB's configuration is there, and neither update-grub nor grub-mkconfig",
        );
        return BootLoader::Unknown;
    }
    let is_systemd_boot = entries
        || BOOT
            .iter()
            .any(|esp| scan.root.exists(format!("{esp}/loader/loader.conf")));
    if is_systemd_boot {
        systemd_boot(scan)
    } else {
        BootLoader::Unknown
    }
}

/// The folder that grub-mkconfig reads drop-ins from. Reading it is Debian's addition to the
/// script, not upstream's, so the script itself is asked.
fn drop_ins(scan: &mut Scan, mkconfig: Option<&str>) -> Option<String> {
    const FOLDER: &str = "/etc/default/grub.d";
    match mkconfig.and_then(|path| scan.root.read_text(path).ok()) {
        Some(script) => script.contains("default/grub.d").then(|| FOLDER.to_owned()),
        // `update-grub` alone is Debian's too; the folder then says the rest.
        None => scan.root.exists(FOLDER).then(|| FOLDER.to_owned()),
    }
}

/// Where an extended boot loader partition or the EFI system partition is mounted.
const BOOT: [&str; 3] = ["/boot", "/efi", "/boot/efi"];

/// The loader reads entries from both partitions: those beside the one that it booted are meant.
fn systemd_boot(scan: &mut Scan) -> BootLoader {
    let selected = loader_variable(scan.root, "LoaderEntrySelected").unwrap_or_default();
    let mut found: Vec<(bool, String)> = Vec::new();
    for mount in BOOT {
        let folder = format!("{mount}/loader/entries");
        let names = scan.list(&folder);
        if names.iter().any(|name| name.ends_with(".conf")) {
            let is_booted = names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&selected));
            found.push((!is_booted, folder));
        }
    }
    found.sort_by_key(|(other, _)| *other);
    BootLoader::SystemdBoot {
        entries: found.into_iter().next().map(|(_, folder)| folder),
    }
}

/// What the loader left for the system in an EFI variable of the Boot Loader Interface (`LoaderInfo`,
/// what it calls itself): four bytes of attributes, then UTF-16. `None` when it is not there, or empty.
#[must_use]
pub fn loader_variable(root: &Root, name: &str) -> Option<String> {
    let bytes = root
        .read(format!(
            "/sys/firmware/efi/efivars/{name}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
        ))
        .ok()?;
    let units = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0);
    let text: String = char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    (!text.is_empty()).then_some(text)
}
