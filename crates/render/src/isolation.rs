//! Isolation without a reboot, as systemd is told it: the slice that is the partition, and how far
//! everybody else's units may spread.
//!
//! systemd writes `AllowedCPUs=` to `cpuset.cpus` and repeats that at every `daemon-reload`
//! (systemd.resource-control(5)). That the slice's group is an isolated partition systemd does not
//! know; it is written to the group, and nothing of systemd's takes it back. ADR 0010.

use bmslice_model::CpuSet;

/// libvirt's `<resource><partition>` of slices that are isolated without a reboot.
pub const PARTITION: &str = "/bmslice";
/// The systemd slice that libvirt makes of it (virSystemdMakeSliceName).
pub const PARTITION_SLICE: &str = "bmslice.slice";
/// Its unit file.
pub const PARTITION_UNIT: &str = "/etc/systemd/system/bmslice.slice";
/// What tells irqbalance to leave CPUs alone.
pub const IRQBALANCE_DROP_IN: &str = "/etc/systemd/system/irqbalance.service.d/90-bmslice.conf";

/// The units whose processes are confined to the host's CPUs, with their drop-ins: everything that
/// systemd starts is in one of them.
pub const CONFINED: [(&str, &str); 4] = [
    (
        "init.scope",
        "/etc/systemd/system/init.scope.d/90-bmslice.conf",
    ),
    (
        "system.slice",
        "/etc/systemd/system/system.slice.d/90-bmslice.conf",
    ),
    (
        "user.slice",
        "/etc/systemd/system/user.slice.d/90-bmslice.conf",
    ),
    (
        "machine.slice",
        "/etc/systemd/system/machine.slice.d/90-bmslice.conf",
    ),
];

const BY: &str = "# Written by bmslice; `bmslice release` removes it.\n";

/// The unit of the partition's slice.
#[must_use]
pub fn partition_slice(isolated: &CpuSet) -> String {
    format!(
        "{BY}\
         [Unit]\n\
         Description=bmslice: the guests, on CPUs that are nobody else's\n\
         Before=slices.target\n\
         \n\
         [Slice]\n\
         AllowedCPUs={isolated}\n"
    )
}

/// The drop-in of a confined unit.
#[must_use]
pub fn confinement(unit: &str, host: &CpuSet) -> String {
    let section = if unit.ends_with(".scope") {
        "Scope"
    } else {
        "Slice"
    };
    format!("{BY}[{section}]\nAllowedCPUs={host}\n")
}

/// irqbalance's drop-in: CPUs as a list for 1.9 and later, as a mask for those before. Its own
/// guess, `/sys/devices/system/cpu/isolated`, knows of no partition.
#[must_use]
pub fn irqbalance_drop_in(isolated: &CpuSet) -> String {
    format!(
        "{BY}\
         [Service]\n\
         Environment=IRQBALANCE_BANNED_CPULIST={isolated}\n\
         Environment=IRQBALANCE_BANNED_CPUS={}\n",
        isolated.to_mask()
    )
}
