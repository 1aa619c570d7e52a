//! Removing a folder, never across a mount.
//!
//! A build that is killed can leave the machine's own `/dev/shm`, `/proc` or `/sys` mounted in its
//! tree. Deleting through such a mount would delete the machine's files, so a folder with a mount
//! below it is refused, whole.

use std::fs;
use std::io::{self, Error, ErrorKind};
use std::path::{Path, PathBuf};

/// Deletes a folder and all that is in it.
///
/// Refused with `ResourceBusy` while anything is mounted at or below it; nothing is deleted then.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    let real = fs::canonicalize(folder)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(mount) = mounted_below(&table, &real) {
        let text = format!(
            "`{}` is mounted in it, left by a build that was killed; `umount` that, then try again",
            mount.display()
        );
        return Err(Error::new(ErrorKind::ResourceBusy, text));
    }
    fs::remove_dir_all(folder)
}

/// The first mount point at or below a folder (proc_pid_mountinfo(5): the fifth field, with blanks
/// and backslashes in octal).
fn mounted_below(table: &str, folder: &Path) -> Option<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points = points.map(|point| {
        let point = point
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n");
        PathBuf::from(point.replace("\\134", "\\"))
    });
    points.find(|point| point.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
40 22 0:25 / /lab\\040one/images/building-x/server/dev/shm rw - tmpfs tmpfs rw
41 22 0:26 / /lab-two rw - tmpfs tmpfs rw";

    #[test]
    fn a_mount_below_is_found_and_a_name_alike_is_not() {
        let found = mounted_below(TABLE, Path::new("/lab one/images/building-x"));
        assert_eq!(
            found,
            Some("/lab one/images/building-x/server/dev/shm".into())
        );
        assert_eq!(
            mounted_below(TABLE, Path::new("/lab one/images/building-y")),
            None
        );
        assert_eq!(mounted_below(TABLE, Path::new("/lab")), None);
        assert_eq!(
            mounted_below(TABLE, Path::new("/lab-two")),
            Some("/lab-two".into())
        );
    }

    #[test]
    fn a_folder_without_mounts_goes_and_one_with_a_mount_stays() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir_all(inner.join("deep")).unwrap();
        remove_tree(&inner).unwrap();
        assert!(!inner.exists());
        // `/proc` is mounted everywhere; it is refused before anything is tried.
        let refused = remove_tree(Path::new("/proc")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceBusy, "{refused}");
    }
}
