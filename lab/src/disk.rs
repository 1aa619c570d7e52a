//! A bootable disk out of a tree, without a loop device: an MBR written by hand, GRUB's core image
//! in the gap after it, and an ext4 file system that `mkfs.ext4 -d` fills at 1 MiB.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::run::{RunError, command, run};

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("the disk `{path}` could not be written")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the tree has no boot loader: `{path}` is missing")]
    NoBootLoader {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("GRUB's core image has {0} bytes and does not fit before the partition")]
    CoreTooLarge(usize),
    #[error(transparent)]
    Run(#[from] RunError),
}

const SECTOR: u64 = 512;
const PARTITION: u64 = 1024 * 1024;
const BOOT_CODE: usize = 440;
const MKE2FS_CONF: &str = include_str!("../recipe/mke2fs.conf");

/// Makes `disk` of `size` bytes out of `tree`.
pub fn make(tree: &Path, disk: &Path, size: u64, uuid: &str) -> Result<(), DiskError> {
    let bad = |source| DiskError::Write {
        path: disk.to_owned(),
        source,
    };
    File::create(disk)
        .and_then(|file| file.set_len(size))
        .map_err(bad)?;
    let configuration = disk.with_extension("mke2fs.conf");
    fs::write(&configuration, MKE2FS_CONF).map_err(bad)?;
    let made = run(command(
        "mkfs.ext4",
        ["-q", "-F", "-t", "ext4", "-m", "1", "-J", "size=64"],
    )
    .args(["-U", uuid, "-d"])
    .arg(tree)
    .args([
        "-E",
        &format!("offset={PARTITION},lazy_itable_init=0,lazy_journal_init=0"),
    ])
    .arg(disk)
    .arg(format!("{}k", (size - PARTITION) / 1024))
    .env("MKE2FS_CONFIG", &configuration));
    fs::remove_file(&configuration).map_err(bad)?;
    made?;

    let loader = |name: &str| {
        let path = tree.join("boot/grub/i386-pc").join(name);
        fs::read(&path).map_err(|source| DiskError::NoBootLoader { path, source })
    };
    let core = loader("core.img")?;
    if core.len() as u64 > PARTITION - SECTOR {
        return Err(DiskError::CoreTooLarge(core.len()));
    }
    let first = boot_sector(&loader("boot.img")?, size);
    let file = OpenOptions::new().write(true).open(disk).map_err(bad)?;
    file.write_all_at(&first, 0).map_err(bad)?;
    // boot.img looks for the core image at sector 1 unless told otherwise.
    file.write_all_at(&core, SECTOR).map_err(bad)
}

/// GRUB's boot code and a table with the one, active, Linux partition.
fn boot_sector(boot: &[u8], size: u64) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let code = boot.len().min(BOOT_CODE);
    sector[..code].copy_from_slice(&boot[..code]);
    let start = (PARTITION / SECTOR) as u32;
    let length = u32::try_from((size - PARTITION) / SECTOR).unwrap_or(u32::MAX);
    let entry = &mut sector[446..462];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = 0x83;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&length.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_names_one_partition_at_1_mib() {
        let sector = boot_sector(&[0xab; 512], 3 << 30);
        assert_eq!(sector[439], 0xab);
        assert_eq!(sector[440..446], [0; 6]);
        assert_eq!(sector[446], 0x80);
        assert_eq!(sector[450], 0x83);
        assert_eq!(sector[454..458], 2048u32.to_le_bytes());
        assert_eq!(sector[458..462], ((3 << 21) - 2048u32).to_le_bytes());
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }
}
