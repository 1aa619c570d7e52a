//! Files that are whole or untouched, and attributes in one write(2).
//!
//! Takes absolute paths; gives the kernel's own errors. Keeps true: nothing half-written is ever
//! seen under a file's name, a file never has a wider mode than asked (not even for a moment), and
//! what a failed or killed write left beside it is cleared away.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

/// Ends the name of a file that is being written.
const UNFINISHED: &str = ".bmslice-new";

/// One write(2) to an attribute that is there.
pub fn write_attribute(path: &Path, value: &str) -> io::Result<()> {
    let value = if value.is_empty() { "\n" } else { value };
    let fd = rustix::fs::open(
        path,
        OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )?;
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes()))?;
    if written == value.len() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!(
                "the kernel took {written} of the {} bytes `{}`",
                value.len(),
                value.trim_end()
            ),
        ))
    }
}

/// A new file beside the old one, synced, renamed over it.
pub fn install(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = parent(path)?;
    create_dir(dir, 0o755)?;
    clear_unfinished(path);
    let new = unfinished(path)?;
    let written = write_new(&new, bytes, mode).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // The first error is the one to tell: what is left is cleared by the next attempt.
        let _ = std::fs::remove_file(&new);
    }
    written?;
    sync_dir(dir)
}

fn write_new(new: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(new)?;
    // The umask took bits away at creation; this only gives back what was asked for.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Appends whole or not at all, on stable storage.
pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = parent(path)?;
    create_dir(dir, 0o755)?;
    let new = !path.exists();
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_data()) {
        // Half a line would be read as damage later on.
        let _ = file.set_len(before);
        return Err(error);
    }
    if new { sync_dir(dir) } else { Ok(()) }
}

/// Unlinks; what is not there needs no removing.
pub fn remove(path: &Path) -> io::Result<()> {
    clear_unfinished(path);
    match std::fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames and syncs both folders.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_dir(parent(to)?)?;
    if parent(from)? != parent(to)? {
        sync_dir(parent(from)?)?;
    }
    Ok(())
}

/// A folder with this mode, those above it with 0755.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path)?;
    create_dir(above, 0o755)?;
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
            sync_dir(above)
        }
        // Somebody else made it in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts a file and its name on stable storage.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_dir(parent(path)?)
}

/// Bytes that an unprivileged process may still write.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let mut at = path;
    loop {
        match rustix::fs::statvfs(at) {
            Ok(stat) => return Ok(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(rustix::io::Errno::NOENT) => at = parent(at)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> io::Result<&Path> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(dir) => Ok(dir),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path names no file",
        )),
    }
}

/// `.NAME.PID-N.bmslice-new`: hidden, so that no `*.cfg` or `*.conf` folder reads it.
fn unfinished(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = unfinished_prefix(path)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    name.push(format!("{}-{count}{UNFINISHED}", std::process::id()));
    Ok(path.with_file_name(name))
}

fn unfinished_prefix(path: &Path) -> Option<OsString> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(".");
    Some(name)
}

/// Clears what a killed process left of an earlier attempt at this file; what a living one writes
/// stays.
fn clear_unfinished(path: &Path) {
    let (Some(prefix), Ok(dir)) = (unfinished_prefix(path), parent(path)) else {
        return;
    };
    let prefix = prefix.to_string_lossy();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer = name
            .to_str()
            .and_then(|name| name.strip_prefix(&*prefix)?.strip_suffix(UNFINISHED))
            .and_then(|id| id.split_once('-')?.0.parse::<u32>().ok());
        if writer.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Left alone it only costs space.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_installed_file_has_its_mode_and_its_folders_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/seed.iso");
        install(&path, b"secret", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("a/b")), 0o755);
        install(&path, b"wider than the umask", 0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
        assert_eq!(names(&dir.path().join("a/b")), ["seed.iso"]);
    }

    #[test]
    fn a_failed_install_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        // A folder in the way makes the rename fail, after the new file was written.
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "old").unwrap();
        let error = install(&path, b"new", 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(names(dir.path()), ["taken"]);
        assert_eq!(std::fs::read(path.join("inside")).unwrap(), b"old");
    }

    #[test]
    fn what_a_killed_install_left_is_cleared_and_what_a_living_one_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        // Above the largest process id that Linux gives out (2^22).
        let dead = dir.path().join(format!(".f.5000000-0{UNFINISHED}"));
        let living = dir.path().join(format!(".f.1-0{UNFINISHED}"));
        let other = dir.path().join(format!(".g.5000000-0{UNFINISHED}"));
        for path in [&dead, &living, &other] {
            std::fs::write(path, "half").unwrap();
        }
        install(&dir.path().join("f"), b"whole", 0o644).unwrap();
        assert!(!dead.exists() && living.exists() && other.exists());
        std::fs::write(&dead, "half").unwrap();
        remove(&dir.path().join("f")).unwrap();
        assert!(!dead.exists() && living.exists() && other.exists());
    }

    #[test]
    fn an_attribute_is_never_made_and_keeps_the_kernels_errno() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("sriov_numvfs");
        let error = write_attribute(&missing, "2").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!missing.exists());
        // The kernel's own refusals: a full device, and a directory.
        let full = write_attribute(Path::new("/dev/full"), "1").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let error = write_attribute(dir.path(), "1").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        write_attribute(Path::new("/dev/null"), "").unwrap();
    }

    #[test]
    fn appends_go_to_the_end_of_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/journal");
        append(&path, b"one\n").unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        remove(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        rename(&path, &dir.path().join("g")).unwrap();
        remove(&path).unwrap();
        assert_eq!(names(dir.path()), ["g"]);
        remove(&dir.path().join("g")).unwrap();
        assert!(names(dir.path()).is_empty());
        assert!(remove(dir.path()).is_err());
    }

    #[test]
    fn free_space_is_that_of_the_nearest_folder_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let there = free_space(dir.path()).unwrap();
        let below = free_space(&dir.path().join("not/yet/made.qcow2")).unwrap();
        assert!(there > 0);
        // Others write to the same disk while this test runs.
        assert!(there.abs_diff(below) < 1 << 30, "{there} {below}");
    }
}
