//! What the lab needs of its host, found out before anything is started.

use std::fs;
use std::path::Path;

use crate::run::{command, read};
use crate::topology::Mebibytes;

/// Packages by the program or file that shows they are there.
const PACKAGES: &[(&str, &[&str])] = &[
    (
        "debian-archive-keyring",
        &["/usr/share/keyrings/debian-archive-keyring.gpg"],
    ),
    ("e2fsprogs", &["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]),
    ("fdisk", &["/usr/sbin/sfdisk", "/sbin/sfdisk"]),
    (
        "iproute2",
        &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"],
    ),
    ("mmdebstrap", &["/usr/bin/mmdebstrap"]),
    ("mtools", &["/usr/bin/mcopy"]),
    ("openssh-client", &["/usr/bin/ssh"]),
    ("openvswitch-switch", &["/usr/sbin/ovs-vswitchd"]),
    ("ovmf", &[crate::qemu::EFI_CODE]),
    ("qemu-system-x86", &["/usr/bin/qemu-system-x86_64"]),
    ("qemu-utils", &["/usr/bin/qemu-img"]),
];

/// SR-IOV on an emulated NIC came with this one.
const LEAST_QEMU: u32 = 8;

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(
        "the lab makes network taps and file systems with owners, and so has to run as root; run `sudo {0}`"
    )]
    NotRoot(String),
    #[error("{} missing; install with `apt-get install {}`", .0.join(", "), .0.join(" "))]
    Packages(Vec<String>),
    #[error(
        "QEMU {0} is too old: the lab's SR-IOV NICs need {LEAST_QEMU}.0 or later; on Debian 12 \
         install it with `apt-get install -t bookworm-backports qemu-system-x86`"
    )]
    OldQemu(String),
    #[error(
        "/dev/net/tun is missing, and the NICs of the server need taps; load it with `modprobe tun`, \
         or in a container pass the device in"
    )]
    NoTun,
    #[error(
        "`{folder}` has {there} MiB free, but {needed} MiB are needed; free some, or take another folder with --state"
    )]
    Disk {
        folder: String,
        there: u64,
        needed: u64,
    },
    #[error(
        "{there} MiB of memory are available, but a server with {server} needs {needed} MiB; \
         end other programs, or ask for less with --memory-per-node"
    )]
    Memory {
        there: u64,
        needed: u64,
        server: Mebibytes,
    },
}

/// All that does not hold.
pub fn all(folder: &Path, image_there: bool, memory: Mebibytes) -> Vec<CheckError> {
    let mut errors = Vec::new();
    if let Err(error) = root() {
        errors.push(error);
    }
    let missing = missing();
    if !missing.is_empty() {
        errors.push(CheckError::Packages(missing));
    }
    if let Some(version) = qemu_version()
        && major(&version) < LEAST_QEMU
    {
        errors.push(CheckError::OldQemu(version));
    }
    if !Path::new("/dev/net/tun").exists() {
        errors.push(CheckError::NoTun);
    }
    errors.extend(disk(folder, image_there));
    errors.extend(fits(memory));
    errors
}

pub fn root() -> Result<(), CheckError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let line: Vec<String> = std::env::args().collect();
    Err(CheckError::NotRoot(line.join(" ")))
}

/// The packages the lab needs.
pub fn packages() -> Vec<String> {
    PACKAGES.iter().map(|(name, _)| for_apt(name)).collect()
}

/// Those of them that are not there, or too old.
pub fn missing() -> Vec<String> {
    let old = qemu_version().is_some_and(|version| major(&version) < LEAST_QEMU);
    PACKAGES
        .iter()
        .filter(|(name, files)| {
            !files.iter().any(|file| Path::new(file).exists()) || *name == "qemu-system-x86" && old
        })
        .map(|(name, _)| for_apt(name))
        .collect()
}

/// The name as apt takes it: Debian 12's own QEMU is too old, its backport is not.
fn for_apt(name: &str) -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if name.starts_with("qemu-") && release.contains("VERSION_CODENAME=bookworm") {
        format!("{name}/bookworm-backports")
    } else {
        name.to_owned()
    }
}

fn qemu_version() -> Option<String> {
    let said = read(&mut command("qemu-system-x86_64", ["--version"])).ok()?;
    let version = said
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)?;
    Some(version.to_owned())
}

fn major(version: &str) -> u32 {
    version
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn disk(folder: &Path, image_there: bool) -> Option<CheckError> {
    let needed = if image_there { 2 * 1024 } else { 6 * 1024 };
    let mut at = folder;
    let found = loop {
        match rustix::fs::statvfs(at) {
            Ok(found) => break found,
            Err(_) => at = at.parent()?,
        }
    };
    let there = (found.f_bavail * found.f_frsize) >> 20;
    (there < needed).then(|| CheckError::Disk {
        folder: at.display().to_string(),
        there,
        needed,
    })
}

/// The server's memory is only taken as it is used, and a lab's server never uses all of it; but
/// huge pages of running slices are used in full.
fn fits(memory: Mebibytes) -> Option<CheckError> {
    let needed = memory.0 * 3 / 5 + 512;
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let there = available(&info)?;
    (there < needed).then_some(CheckError::Memory {
        there,
        needed,
        server: memory,
    })
}

fn available(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_versions_are_read() {
        assert_eq!(
            available("MemTotal: 9 kB\nMemAvailable:   2097152 kB\n"),
            Some(2048)
        );
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        assert_eq!((major("10.0.2"), major("7.2.1"), major("")), (10, 7, 0));
    }

    #[test]
    fn a_message_says_what_to_do() {
        let error = CheckError::Packages(vec!["a".into(), "b".into()]).to_string();
        assert_eq!(error, "a, b missing; install with `apt-get install a b`");
    }
}
