//! What GRUB can and cannot do with what it keeps: its environment block, and boot loader entries.
//!
//! Takes the mounts and devices of a root, `/boot/loader/entries` and `grubenv`; gives why GRUB cannot
//! write a file, and a [`BootLoader::Bls`]. Source: proc_pid_mountinfo(5), the GRUB manual
//! ("Environment block"), Fedora's GRUB (`blscfg`).

use bmslice_host::Root;

use crate::facts::{BlsObstacle, BootLoader};
use crate::scan::Scan;

/// Where Fedora, RHEL and what is made of them keep entries.
pub(crate) const ENTRIES: &str = "/boot/loader/entries";
/// Where their GRUB keeps its environment block. A link leads to the EFI system partition on RHEL 8.
const BLOCKS: [&str; 2] = ["/boot/grub2/grubenv", "/boot/grub/grubenv"];

/// GRUB that reads entries, with what keeps it from trying one once.
pub(crate) fn bls(scan: &Scan) -> BootLoader {
    let block = BLOCKS.iter().find(|path| scan.root.exists(path));
    let env = block.and_then(|path| {
        let path = scan.root.resolve(path).ok()?;
        Some(path.to_string_lossy().into_owned())
    });
    let obstacle = match &env {
        None => Some(BlsObstacle::NoBlock),
        Some(env) => match grub_cannot_write(scan.root, env) {
            Some(why) => Some(BlsObstacle::ReadOnly { why }),
            None => variables(scan).map(|entry| BlsObstacle::Variable { entry }),
        },
    };
    BootLoader::Bls {
        entries: Some(ENTRIES.into()),
        env,
        obstacle,
    }
}

/// The first entry whose arguments are a variable of GRUB's (RHEL 8).
fn variables(scan: &Scan) -> Option<String> {
    scan.list(ENTRIES).into_iter().find_map(|name| {
        let path = format!("{ENTRIES}/{name}");
        let is_one = name.ends_with(".conf")
            && scan.file(&path).lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("options") && words.any(|word| word == "$kernelopts")
            });
        is_one.then_some(path)
    })
}

/// Why GRUB cannot write the file at `path`; `None` when it can.
///
/// Takes what the kernel says of its mount and of the device under it. GRUB writes plain blocks of a
/// partition and nothing else: not through LVM, LUKS or RAID, and not on file systems that check or
/// move what they hold.
#[must_use]
pub fn grub_cannot_write(root: &Root, path: &str) -> Option<String> {
    let text = root.read_text("/proc/self/mountinfo").unwrap_or_default();
    let mount = text
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let (device, at) = (*left.get(2)?, *left.get(4)?);
            let inside = at == "/" || path.starts_with(&format!("{at}/"));
            inside.then(|| {
                (
                    at.len(),
                    device.to_owned(),
                    right.split(' ').next().map(str::to_owned),
                )
            })
        })
        // The last one of a place covers those before it.
        .max_by_key(|(length, ..)| *length);
    let Some((_, device, Some(kind))) = mount else {
        return Some("its file system is not known".into());
    };
    if !matches!(&*kind, "ext2" | "ext3" | "ext4" | "xfs" | "vfat") {
        return Some(format!("it is on {kind}"));
    }
    let at = format!("/sys/dev/block/{device}");
    if root.exists(format!("{at}/dm")) {
        return Some("it is on a device-mapper volume (LVM, LUKS or multipath)".into());
    }
    if root.exists(format!("{at}/md")) || root.exists(format!("{at}/../md")) {
        return Some("it is on a RAID of the kernel's".into());
    }
    None
}
