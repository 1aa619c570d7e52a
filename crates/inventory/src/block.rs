//! The devices behind what the host has mounted or swaps to.
//!
//! Source: proc_pid_mountinfo(5), proc(5) on `swaps`, `Documentation/ABI/stable/sysfs-block`.
//! Keeps true: a mount whose device cannot be found becomes a note, never silence; what is found
//! through several layers (LVM, RAID, multipath, LUKS) is found down to every disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bmslice_model::PciAddress;

use crate::pci::pci_path;
use crate::scan::{Scan, unescape};

/// What the host keeps its files on.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    /// PCI functions and what is mounted there (`swap` for swap space), in mount order.
    pub(crate) functions: Vec<(PciAddress, String)>,
    /// Servers of network file systems and remote disks, and what is mounted from there.
    pub(crate) servers: Vec<(String, String)>,
    /// Mounts whose disks the kernel does not tell: any storage controller may be theirs.
    pub(crate) anywhere: Vec<String>,
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    major: u32,
    minor: u32,
    at: String,
    kind: String,
    source: String,
    options: String,
}

/// Reads mounts and swap.
pub(crate) fn read(scan: &mut Scan) -> Storage {
    let mut storage = Storage::default();
    // Process 1 sees the host's mounts where this one may have a namespace of its own.
    let mountinfo = ["/proc/1/mountinfo", "/proc/self/mountinfo"]
        .iter()
        .find_map(|path| scan.root.read_text(path).ok());
    let mounts: Vec<Mount> = match &mountinfo {
        Some(text) => text.lines().filter_map(mountinfo_line).collect(),
        None => scan
            .file("/proc/mounts")
            .lines()
            .filter_map(mounts_line)
            .collect(),
    };
    let mut seen = BTreeSet::new();
    for mount in &mounts {
        // Bind mounts repeat a device; the first mount point says enough.
        if seen.insert((mount.major, mount.minor, mount.source.as_str())) {
            place(scan, &mut storage, mount);
        }
    }
    for line in scan.file("/proc/swaps").lines().skip(1) {
        let mut fields = line.split_whitespace();
        // A swap file lies on a file system that is mounted.
        if let (Some(device), Some("partition")) = (fields.next(), fields.next())
            && let Some(path) = by_name(scan, &unescape(device))
        {
            behind(scan, &mut storage, &path, "swap");
        }
    }
    storage
}

fn place(scan: &mut Scan, storage: &mut Storage, mount: &Mount) {
    match mount.kind.as_str() {
        "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" => {
            let server = mount
                .options
                .split(',')
                .find_map(|option| option.strip_prefix("addr="))
                .or_else(|| mount.source.split_once(":/").map(|(server, _)| server));
            match server {
                Some(server) => storage.servers.push((server.to_owned(), mount.at.clone())),
                None => scan.note(
                    mount.at.clone(),
                    format!("the server of `{}` is not told", mount.source),
                ),
            }
        }
        "zfs" => {
            scan.note(
                mount.at.clone(),
                format!(
                    "the kernel does not tell the disks of the ZFS pool `{}`; every storage controller was taken as needed",
                    mount.source
                ),
            );
            storage.anywhere.push(mount.at.clone());
        }
        "btrfs" => {
            let disks = btrfs_devices(scan, &mount.source);
            for disk in &disks {
                behind(scan, storage, disk, &mount.at);
            }
            if disks.is_empty() {
                lost(scan, mount);
            }
        }
        _ => {
            // Major 0 is a file system without a device: proc, tmpfs, overlay.
            let path = if mount.major == 0 {
                if !mount.source.starts_with("/dev/") {
                    return;
                }
                by_name(scan, &mount.source)
            } else {
                by_number(scan, mount.major, mount.minor).or_else(|| by_name(scan, &mount.source))
            };
            match path {
                Some(path) => behind(scan, storage, &path, &mount.at),
                None => lost(scan, mount),
            }
        }
    }
}

fn lost(scan: &mut Scan, mount: &Mount) {
    scan.note(
        mount.at.clone(),
        format!("the device `{}` behind it was not found", mount.source),
    );
}

/// `36 35 98:0 /root /at rw,noatime master:1 - ext4 /dev/sda1 rw`.
fn mountinfo_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let (major, minor) = left.get(2)?.split_once(':')?;
    let mut right = right.split(' ');
    Some(Mount {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        at: unescape(left.get(4)?),
        kind: right.next()?.to_owned(),
        source: unescape(right.next()?),
        options: right.next().unwrap_or_default().to_owned(),
    })
}

/// `/dev/sda1 / ext4 rw 0 0`: an older capture; no device numbers.
fn mounts_line(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    Some(Mount {
        major: 0,
        minor: 0,
        source: unescape(fields.next()?),
        at: unescape(fields.next()?),
        kind: fields.next()?.to_owned(),
        options: fields.next().unwrap_or_default().to_owned(),
    })
}

/// The sysfs folder of a block device by its number.
fn by_number(scan: &Scan, major: u32, minor: u32) -> Option<PathBuf> {
    scan.root
        .resolve(format!("/sys/dev/block/{major}:{minor}"))
        .ok()
}

/// The sysfs folder of `/dev/sda1`, `/dev/mapper/vg-root` or another link under `/dev`.
fn by_name(scan: &Scan, device: &str) -> Option<PathBuf> {
    let mut node = PathBuf::from(device);
    // A handful of links at most: `/dev/disk/by-uuid/…` → `../../dm-0`.
    for _ in 0..8 {
        let Ok(target) = scan.root.link(&node) else {
            break;
        };
        node = node.parent().unwrap_or(Path::new("/dev")).join(target);
    }
    let name = node.file_name()?.to_str()?;
    // A slash in a device's name is `!` in sysfs (cciss/c0d0).
    let name = match Path::new(device).strip_prefix("/dev").ok() {
        Some(rest) if node == Path::new(device) => rest.to_str()?.replace('/', "!"),
        _ => name.to_owned(),
    };
    scan.root
        .resolve(format!("/sys/class/block/{name}"))
        .ok()
        .or_else(|| mapped(scan, device))
}

/// `/dev/mapper/NAME` where no such link was captured: by the names that sysfs shows.
fn mapped(scan: &Scan, device: &str) -> Option<PathBuf> {
    let wanted = device.strip_prefix("/dev/mapper/")?;
    scan.list("/sys/class/block").iter().find_map(|name| {
        let folder = format!("/sys/class/block/{name}");
        (name.starts_with("dm-") && scan.text(&format!("{folder}/dm/name"))? == wanted)
            .then(|| scan.root.resolve(folder).ok())
            .flatten()
    })
}

/// All disks of the btrfs that one of them names.
fn btrfs_devices(scan: &Scan, source: &str) -> Vec<PathBuf> {
    let Some(first) = by_name(scan, source) else {
        return Vec::new();
    };
    const BTRFS: &str = "/sys/fs/btrfs";
    for fs in scan.list(BTRFS) {
        let folder = format!("{BTRFS}/{fs}/devices");
        let disks: Vec<PathBuf> = scan
            .list(&folder)
            .iter()
            .filter_map(|name| scan.root.resolve(format!("{folder}/{name}")).ok())
            .collect();
        if disks.contains(&first) {
            return disks;
        }
    }
    vec![first]
}

/// Finds what a block device stands on, down to PCI functions or a server.
fn behind(scan: &mut Scan, storage: &mut Storage, device: &Path, at: &str) {
    let mut open = vec![device.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let functions = pci_path(&path);
        if !functions.is_empty() {
            for function in functions {
                let entry = (function, at.to_owned());
                if !storage.functions.contains(&entry) {
                    storage.functions.push(entry);
                }
            }
            continue;
        }
        let below = below(scan, &path);
        if !below.is_empty() {
            open.extend(below);
        } else if let Some(server) = remote(scan, &path) {
            storage.servers.push((server, at.to_owned()));
        } else if !in_memory(&path) {
            scan.note(
                at,
                format!("what `{}` stands on was not found", path.display()),
            );
        }
    }
}

/// Loop devices stand on a file system that is mounted itself; the others on memory.
fn in_memory(path: &Path) -> bool {
    let virtual_block = Path::new("/sys/devices/virtual/block");
    path.strip_prefix(virtual_block).is_ok_and(|rest| {
        let name = rest.to_string_lossy();
        ["loop", "zram", "ram", "pmem"]
            .iter()
            .any(|kind| name.starts_with(kind))
    })
}

/// The devices under a mapped, RAID or multipath one, or under the disk of its partition.
fn below(scan: &Scan, path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [Some(path), path.parent()].into_iter().flatten() {
        let slaves = folder.join("slaves");
        for name in scan.root.list(&slaves).unwrap_or_default() {
            found.extend(scan.root.resolve(slaves.join(name)));
        }
        if !found.is_empty() {
            return found;
        }
    }
    // Native NVMe multipath: the namespace hangs under its subsystem, whose controllers have the
    // functions.
    let subsystem = path
        .ancestors()
        .find(|p| p.parent().is_some_and(|p| p.ends_with("nvme-subsystem")));
    if let Some(subsystem) = subsystem {
        for name in scan.root.list(subsystem).unwrap_or_default() {
            let controller = crate::scan::numbered(&name, "nvme").is_some();
            if controller {
                found.extend(scan.root.resolve(subsystem.join(name)));
            }
        }
    }
    found
}

/// The server of a disk over the network: iSCSI by its session, NVMe over TCP by its controller.
fn remote(scan: &Scan, path: &Path) -> Option<String> {
    for part in path.ancestors() {
        let name = part.file_name()?.to_str()?;
        if crate::scan::numbered(name, "session").is_some() {
            return scan
                .list("/sys/class/iscsi_connection")
                .iter()
                .filter(|connection| {
                    connection
                        .strip_prefix("connection")
                        .and_then(|c| c.split_once(':'))
                        .is_some_and(|(session, _)| name == format!("session{session}"))
                })
                .find_map(|connection| {
                    scan.text(&format!(
                        "/sys/class/iscsi_connection/{connection}/persistent_address"
                    ))
                });
        }
        if crate::scan::numbered(name, "nvme").is_some() {
            let address = scan.text(part.join("address").to_str()?)?;
            return address
                .split(',')
                .find_map(|field| field.strip_prefix("traddr="))
                .map(Into::into);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_has_optional_fields_before_the_dash() {
        let mount = mountinfo_line(
            r"36 35 98:0 /mnt1 /mnt/a\040b rw,noatime master:1 shared:2 - ext4 /dev/root rw,errors=continue",
        )
        .unwrap();
        assert_eq!((mount.major, mount.minor), (98, 0));
        assert_eq!(mount.at, "/mnt/a b");
        assert_eq!(
            (mount.kind.as_str(), mount.source.as_str()),
            ("ext4", "/dev/root")
        );
        assert_eq!(mountinfo_line("36 35 98 / / rw - ext4 /dev/root rw"), None);
        assert_eq!(mountinfo_line(""), None);
    }
}
