//! What runs on the host: systemd, TuneD, irqbalance, cpuset partitions, the IOMMU, KVM's options.
//!
//! Source: `Documentation/admin-guide/cgroup-v2.rst` (cpuset.cpus.partition),
//! `Documentation/ABI/testing/sysfs-class-iommu`, `sysfs-kernel-irq` (chip_name).

mod libvirt_guests;

use std::collections::BTreeMap;

use bmslice_model::CpuSet;

use crate::facts::{BootFacts, HostFacts, Partition};
use crate::machine::CpuInfo;
use crate::scan::{Scan, numbered};

const CGROUP: &str = "/sys/fs/cgroup";

/// Reads services and settings; `present` are the server's CPUs.
pub(crate) fn read(
    scan: &mut Scan,
    cpuinfo: &CpuInfo,
    boot: &BootFacts,
    present: &CpuSet,
) -> HostFacts {
    HostFacts {
        systemd: systemd(scan),
        tuned: scan.text("/etc/tuned/active_profile"),
        irqbalance: irqbalance(scan),
        irqbalance_banned: ["/etc/default/irqbalance", "/etc/sysconfig/irqbalance"]
            .iter()
            .find_map(|path| banned(&scan.file(path))),
        libvirt_guests: libvirt_guests::read(scan),
        partitions: partitions(scan),
        rcu_nocbs: rcu_nocbs(scan, boot, present),
        iommu: iommu(scan),
        interrupt_remapping: remapping(scan),
        x2apic: cpuinfo.x2apic,
        kvm_options: options(scan),
    }
}

/// systemd names its shared library after its version.
fn systemd(scan: &Scan) -> Option<u32> {
    [
        "/usr/lib/systemd",
        "/lib/systemd",
        "/usr/lib/x86_64-linux-gnu/systemd",
        "/usr/lib/aarch64-linux-gnu/systemd",
        "/usr/lib64/systemd",
    ]
    .iter()
    .flat_map(|folder| scan.list(folder))
    .find_map(|name| {
        let rest = name.strip_prefix("libsystemd-shared-")?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

/// A service that runs has a cgroup.
fn irqbalance(scan: &Scan) -> Option<bool> {
    [
        format!("{CGROUP}/system.slice"),
        format!("{CGROUP}/systemd/system.slice"),
    ]
    .into_iter()
    .find(|slice| scan.root.exists(slice))
    .map(|slice| scan.root.exists(format!("{slice}/irqbalance.service")))
}

/// `IRQBALANCE_BANNED_CPULIST=2-11`, or the older mask.
fn banned(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        let known = matches!(key, "IRQBALANCE_BANNED_CPULIST" | "IRQBALANCE_BANNED_CPUS");
        let value = value.trim_matches(['"', '\'', ' ']);
        (known && !value.is_empty()).then(|| value.to_owned())
    })
}

/// The cgroups of the first two levels that are no plain members of their parent's CPUs.
fn partitions(scan: &mut Scan) -> Vec<Partition> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), 0)];
    while let Some((group, depth)) = open.pop() {
        let folder = format!("{CGROUP}{group}");
        if depth > 0
            && let Some(state) = scan.text(&format!("{folder}/cpuset.cpus.partition"))
            && state != "member"
        {
            found.push(Partition {
                cgroup: group.clone(),
                state,
                cpus: scan
                    .cpu_list(&format!("{folder}/cpuset.cpus.effective"))
                    .unwrap_or_default(),
            });
        }
        // Groups below one that hands no cpuset down have none.
        let hands_down = scan
            .text(&format!("{folder}/cgroup.subtree_control"))
            .is_some_and(|text| text.split(' ').any(|name| name == "cpuset"));
        if depth < 2 && hands_down {
            for name in scan.list(&folder) {
                if scan
                    .root
                    .exists(format!("{folder}/{name}/cpuset.cpus.partition"))
                {
                    open.push((format!("{group}/{name}"), depth + 1));
                }
            }
        }
    }
    found.sort_by(|a, b| a.cgroup.cmp(&b.cgroup));
    found
}

/// Those that the argument names, and those that are free of ticks, which brings it along
/// (kernel/rcu/tree_nocb.h, `rcu_init_nohz`).
fn rcu_nocbs(scan: &mut Scan, boot: &BootFacts, present: &CpuSet) -> CpuSet {
    let mut cpus = boot.nohz_full.clone();
    let argument = boot.cmdline.last("rcu_nocbs");
    if let Some(value) = argument.and_then(|argument| argument.value()) {
        match kernel_list(value, present) {
            Some(set) => cpus.extend_from(&set),
            None => scan.note(
                "/proc/cmdline",
                format!("rcu_nocbs={value} was not understood"),
            ),
        }
    }
    cpus
}

/// A list of CPUs as kernel arguments have it: `all`, and `N` for the last one.
fn kernel_list(text: &str, present: &CpuSet) -> Option<CpuSet> {
    let last = present.iter().last()?.to_string();
    let mut cpus = CpuSet::new();
    for part in text.split(',') {
        if part.eq_ignore_ascii_case("all") {
            cpus.extend_from(present);
        } else {
            let set: CpuSet = part.replace('N', &last).parse().ok()?;
            cpus.extend_from(&set);
        }
    }
    Some(cpus)
}

fn iommu(scan: &Scan) -> Option<String> {
    let names = scan.list("/sys/class/iommu");
    let first = names.first()?;
    Some(
        [
            ("dmar", "intel"),
            ("ivhd", "amd"),
            ("smmu", "arm-smmu"),
            ("arm-smmu", "arm-smmu"),
            ("virtio", "virtio"),
        ]
        .iter()
        .find(|(prefix, _)| first.starts_with(prefix))
        .map_or_else(|| first.clone(), |(_, kind)| (*kind).to_owned()),
    )
}

/// Interrupts of devices that are remapped have `IR-` before their chip's name.
fn remapping(scan: &Scan) -> Option<bool> {
    const IRQ: &str = "/sys/kernel/irq";
    let mut seen = None;
    for name in scan.list(IRQ) {
        if numbered(&name, "").is_none() {
            continue;
        }
        match scan.text(&format!("{IRQ}/{name}/chip_name")) {
            Some(chip) if chip.starts_with("IR-") => return Some(true),
            Some(chip) if chip.contains("MSI") => seen = Some(false),
            _ => {}
        }
    }
    seen
}

fn options(scan: &Scan) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for module in ["kvm", "kvm_intel", "kvm_amd"] {
        let folder = format!("/sys/module/{module}/parameters");
        for name in scan.list(&folder) {
            if let Some(value) = scan.text(&format!("{folder}/{name}")) {
                options.insert(format!("{module}.{name}"), value);
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_the_last_cpu_mean_what_the_kernel_means() {
        let present: CpuSet = "0-7,16".parse().unwrap();
        let list = |text| kernel_list(text, &present).map(|set| set.to_string());
        assert_eq!(list("all").as_deref(), Some("0-7,16"));
        assert_eq!(list("2,6-N").as_deref(), Some("2,6-16"));
        assert_eq!(list("0-6:2/4").as_deref(), Some("0-1,4-5"));
        assert_eq!(list("most"), None);
    }

    #[test]
    fn irqbalance_is_told_by_list_or_mask() {
        assert_eq!(
            banned("# IRQBALANCE_BANNED_CPUS=\nIRQBALANCE_BANNED_CPULIST=\"2-11\"").as_deref(),
            Some("2-11")
        );
        assert_eq!(banned("IRQBALANCE_BANNED_CPUS=").as_deref(), None);
    }
}
