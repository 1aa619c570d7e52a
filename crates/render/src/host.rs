//! The systemd units of the host.
//!
//! ADR 0005 says why two of them run `bmslice resume` after a boot: one before libvirt's daemon for
//! what a reboot takes away, one after it for the guests. ADR 0008 has the other two: a timer and
//! what it starts, for a boot that nobody confirmed.

use bmslice_spec::Isolation;

use crate::grub::TRIAL;
use crate::{RenderError, RenderOptions};

/// The unit before libvirt's daemon.
pub const HOST_UNIT: &str = "/etc/systemd/system/bmslice-host.service";
/// The unit after libvirt's daemon.
pub const SLICES_UNIT: &str = "/etc/systemd/system/bmslice-slices.service";
/// The unit that goes back to the kernel arguments before.
pub const FALL_BACK_UNIT: &str = "/etc/systemd/system/bmslice-fall-back.service";
/// The timer that starts it.
pub const FALL_BACK_TIMER: &str = "/etc/systemd/system/bmslice-fall-back.timer";

/// A path as the first word of `ExecStart=` (systemd.service(5), “Command lines”): in double quotes,
/// `%` doubled. `$` means nothing in the first word.
fn exec_path(path: &str) -> Result<String, RenderError> {
    let refused = |c: char| c.is_control() || "\"\\'".contains(c);
    if !path.starts_with('/') || path.contains(refused) {
        return Err(RenderError::Path { path: path.into() });
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if path.chars().all(plain) {
        return Ok(path.into());
    }
    Ok(format!("\"{}\"", path.replace('%', "%%")))
}

/// The unit that makes huge pages and virtual functions again, before a guest may start.
///
/// # Errors
/// [`RenderError::Path`] for a program that a unit cannot name.
pub fn host_unit(options: &RenderOptions, isolation: Isolation) -> Result<String, RenderError> {
    let binary = exec_path(&options.binary)?;
    let (groups, moves) = widened(isolation);
    // A NIC is `eth1` until udev has given it the name that the plan knows: wait for that, but do
    // not fail with it (udevadm(8), `settle`).
    Ok(format!(
        "# Written by bmslice; `bmslice release` removes it.\n\
         [Unit]\n\
         Description=bmslice: huge pages and virtual functions of the slices\n\
         ConditionPathExists=/var/lib/bmslice/plan.json\n\
         After=local-fs.target systemd-udevd.service systemd-modules-load.service\n\
         Before=libvirtd.service virtqemud.service libvirt-guests.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStartPre=-udevadm settle --timeout=60\n\
         ExecStart={binary} resume --host\n\
         TimeoutStartSec=5min\n\
         {HARDENING}\
         {HOST_HARDENING}\
         {groups}\n\
         CapabilityBoundingSet=CAP_NET_ADMIN{moves}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// The unit that goes on with the stored plan once libvirt's daemon is there, and writes images in
/// this folder.
///
/// # Errors
/// [`RenderError::Path`] for a program or folder that a unit cannot name.
pub fn slices_unit(
    options: &RenderOptions,
    images: &str,
    isolation: Isolation,
) -> Result<String, RenderError> {
    let binary = exec_path(&options.binary)?;
    // With the `-` a folder that is not there yet does not keep the unit from starting.
    let images = match exec_path(images)? {
        quoted if quoted.starts_with('"') => quoted.replacen('"', "\"-", 1),
        plain => format!("-{plain}"),
    };
    let (_, moves) = widened(isolation);
    // No time limit: images may have to be copied, and guests be waited for.
    Ok(format!(
        "# Written by bmslice; `bmslice release` removes it.\n\
         [Unit]\n\
         Description=bmslice: the slices of this server\n\
         ConditionPathExists=/var/lib/bmslice/plan.json\n\
         After=network.target libvirtd.service virtqemud.service bmslice-host.service\n\
         Wants=bmslice-host.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={binary} resume\n\
         TimeoutStartSec=infinity\n\
         {HARDENING}\
         {SLICES_HARDENING}\
         ProtectControlGroups=yes\n\
         CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_NET_ADMIN{moves}\n\
         ReadWritePaths=/etc /boot -/efi /var /run {images}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// The unit that reboots a server which tries new kernel arguments and was not confirmed.
///
/// It needs nothing of a server that came up badly: no network, no mounts but the root, not even
/// that `bmslice` works (systemd.unit(5), `FailureAction=`). An emergency mode leaves it alone.
///
/// # Errors
/// [`RenderError::Path`] for a program that a unit cannot name.
pub fn fall_back_unit(options: &RenderOptions) -> Result<String, RenderError> {
    let binary = exec_path(&options.binary)?;
    Ok(format!(
        "# Written by bmslice; `bmslice release` removes it.\n\
         [Unit]\n\
         Description=bmslice: back to the kernel arguments before, unless they were confirmed\n\
         ConditionKernelCommandLine={TRIAL}\n\
         DefaultDependencies=no\n\
         IgnoreOnIsolate=yes\n\
         FailureAction=reboot\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={binary} resume --fall-back\n\
         TimeoutStartSec=1min\n\
         {HARDENING}\
         {FALL_BACK_HARDENING}\
         ProtectControlGroups=yes\n"
    ))
}

/// The timer of [`fall_back_unit`], so many minutes after the boot.
#[must_use]
pub fn fall_back_timer(minutes: u32) -> String {
    format!(
        "# Written by bmslice; `bmslice release` removes it.\n\
         [Unit]\n\
         Description=bmslice: time to confirm the kernel arguments\n\
         ConditionKernelCommandLine={TRIAL}\n\
         DefaultDependencies=no\n\
         IgnoreOnIsolate=yes\n\
         Conflicts=shutdown.target\n\
         Before=shutdown.target\n\
         \n\
         [Timer]\n\
         OnBootSec={minutes}min\n\
         AccuracySec=1s\n\
         \n\
         [Install]\n\
         WantedBy=sysinit.target\n"
    )
}

/// What isolation without a reboot needs of a unit, and no other does: the partition is written to its
/// cgroup, which only the unit before libvirt does, and `taskset` moves threads of the kernel
/// (sched_setaffinity(2)), which start at any time.
fn widened(isolation: Isolation) -> (&'static str, &'static str) {
    match isolation {
        Isolation::Dynamic => ("ProtectControlGroups=no", " CAP_SYS_NICE"),
        Isolation::Boot | Isolation::None => ("ProtectControlGroups=yes", ""),
    }
}

/// What no unit of ours needs; each has an exposure of at most 3.0 by `systemd-analyze security`.
///
/// None of them can have `RestrictSUIDSGID`: it makes openat2(2) answer ENOSYS, and every read goes
/// through that call (systemd.exec(5); the kernel shows seccomp no flags of openat2). Nor
/// `ProtectKernelTunables` or `PrivateDevices` where sysfs is written or disks are read.
/// `ProtectSystem=strict` leaves `/sys` and `/proc` as they are.
const HARDENING: &str = "\
NoNewPrivileges=yes
UMask=0077
PrivateTmp=yes
PrivateMounts=yes
ProtectSystem=strict
ProtectHostname=yes
ProtectClock=yes
ProtectKernelLogs=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK
IPAddressDeny=any
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
KeyringMode=private
DevicePolicy=closed
";

/// What `resume --host` never needs beside: it reads the plan, writes sysfs, its journal and its
/// lock, sets up NICs, and takes our guests out of the list of libvirt-guests.
const HOST_HARDENING: &str = "\
ReadWritePaths=/var/lib/bmslice -/var/lib/libvirt /run
ProtectHome=yes
ProtectKernelModules=yes
MemoryDenyWriteExecute=yes
";

/// What going back never needs beside: it reads, notes why in the journal, and asks systemd to
/// reboot.
const FALL_BACK_HARDENING: &str = "\
ReadWritePaths=-/var/lib/bmslice
ProtectHome=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
MemoryDenyWriteExecute=yes
CapabilityBoundingSet=
";

/// What the second unit never needs beside, which does all that `apply` does. It has the disks to
/// read (`grub-probe`) and `/dev/kvm` (guestfs-tools), reads password files wherever they are, and
/// may write memory that it runs (QEMU's TCG, where guestfs-tools have no KVM). Modules have to be
/// seen, for the appliance that they make.
const SLICES_HARDENING: &str = "\
ProtectHome=read-only
ProtectProc=invisible
DeviceAllow=/dev/kvm rw
DeviceAllow=block-* r
";
