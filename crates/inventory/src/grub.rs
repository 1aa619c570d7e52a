//! What GRUB can and cannot do with what it keeps: its environment block, and boot loader entries.
//!
//! Takes the mounts and devices of a root, `/boot/loader/entries` and `grubenv`; gives why GRUB cannot
//! write a file, and a [`BootLoader::Bls`] or [`BootLoader::Ostree`]. Source: proc_pid_mountinfo(5), the GRUB manual
//! ("Environment block"), Fedora's GRUB (`blscfg`).

use bmslice_host::Root;

use crate::facts::{BlsObstacle, BootLoader, GrubEntries};
use crate::scan::Scan;

/// Where Fedora, RHEL and what is made of them keep entries.
pub(crate) const ENTRIES: &str = "/boot/loader/entries";
/// Where their GRUB keeps its environment block. A link leads to the EFI system partition on RHEL 8.
const BLOCKS: [&str; 2] = ["/boot/grub2/grubenv", "/boot/grub/grubenv"];

/// GRUB that reads entries, with what keeps it from trying one once.
pub(crate) fn bls(scan: &Scan) -> BootLoader {
    BootLoader::Bls(entries(scan))
}

/// The same where the entries are those of ostree's deployments. What else starts them is not known
/// here to try one once.
pub(crate) fn ostree(scan: &Scan, by_systemd_boot: bool) -> BootLoader {
    let is_one = |name: &String| name.starts_with("ostree-") && name.ends_with(".conf");
    if by_systemd_boot || !scan.list(ENTRIES).iter().any(is_one) {
        return BootLoader::Ostree(GrubEntries::default());
    }
    BootLoader::Ostree(entries(scan))
}

fn entries(scan: &Scan) -> GrubEntries {
    let env = block(scan);
    GrubEntries {
        entries: Some(ENTRIES.into()),
        obstacle: obstacle(scan, env.as_deref()),
        env,
    }
}

/// GRUB's environment block, links followed.
fn block(scan: &Scan) -> Option<String> {
    let path = BLOCKS.iter().find(|path| scan.root.exists(path))?;
    let path = scan.root.resolve(path).ok()?;
    Some(path.to_string_lossy().into_owned())
}

/// What keeps GRUB from trying an entry once, or us from writing one.
fn obstacle(scan: &Scan, env: Option<&str>) -> Option<BlsObstacle> {
    let Some(env) = env else {
        return Some(BlsObstacle::NoBlock);
    };
    if let Some(why) = grub_cannot_write(scan.root, env) {
        return Some(BlsObstacle::ReadOnly { why });
    }
    if let Some(entry) = variables(scan) {
        return Some(BlsObstacle::Variable { entry });
    }
    let mount = Mount::of(scan.root, ENTRIES).filter(|mount| mount.read_only)?;
    Some(BlsObstacle::MountedReadOnly { at: mount.at })
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

/// What is mounted, and where.
struct Mount {
    at: String,
    /// Its number: `254:2`.
    device: String,
    /// `ext4`.
    kind: String,
    /// Whether the administrator's side of it cannot be written.
    read_only: bool,
}

impl Mount {
    /// The one that has the file at `path`.
    fn of(root: &Root, path: &str) -> Option<Self> {
        // A unit of ours sees mounts read-only that it does not write: init's are asked, and where
        // only root may, only what holds for all of a file system is believed.
        let inits = root.read_text("/proc/1/mountinfo");
        let is_inits = inits.is_ok();
        let text = inits.or_else(|_| root.read_text("/proc/self/mountinfo"));
        let text = text.unwrap_or_default();
        let is_ro = |options: Option<&str>| {
            options.is_some_and(|options| options.split(',').any(|option| option == "ro"))
        };
        let mounts = text.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let (device, at) = (*left.get(2)?, *left.get(4)?);
            let inside = at == "/" || path.starts_with(&format!("{at}/"));
            let right: Vec<&str> = right.split(' ').collect();
            let read_only = is_ro(right.get(2).copied());
            inside.then(|| Self {
                at: at.to_owned(),
                device: device.to_owned(),
                kind: right[0].to_owned(),
                read_only: read_only || is_inits && is_ro(left.get(5).copied()),
            })
        });
        // The last one of a place covers those before it.
        mounts.max_by_key(|mount| mount.at.len())
    }
}

/// Why GRUB cannot write the file at `path`; `None` when it can.
///
/// Takes what the kernel says of its mount and of the device under it. GRUB writes plain blocks of a
/// partition and nothing else: not through LVM, LUKS or RAID, and not on file systems that check or
/// move what they hold.
#[must_use]
pub fn grub_cannot_write(root: &Root, path: &str) -> Option<String> {
    let Some(Mount { device, kind, .. }) = Mount::of(root, path) else {
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
