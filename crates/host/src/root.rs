//! A root directory as a capability: every read goes through it, live or captured.
//!
//! Paths are resolved by the kernel with `RESOLVE_IN_ROOT` (openat2(2)), or in a [`Tree`] in the
//! same way: absolute links and `..` stay inside, so a captured tree cannot point a reader at the
//! machine that reads it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::archive::{ArchiveError, Limits};
use crate::record::Record;
use crate::tree::{Entry, Tree};

/// No attribute or configuration file that `bmslice` reads is larger (16 MiB).
const LIMIT: u64 = 16 << 20;

/// A rename lasts microseconds: so many in a row are no accident.
const RETRIES: u32 = 10_000;

/// A directory that stands for `/`.
#[derive(Debug)]
pub struct Root {
    source: Source,
    path: PathBuf,
    record: Option<Mutex<Record>>,
}

/// Where the reads go.
#[derive(Debug)]
enum Source {
    /// A folder, open.
    Folder(OwnedFd),
    /// A tree in memory.
    Tree(Tree),
}

impl Root {
    /// The machine's own `/`.
    ///
    /// # Errors
    /// When `/` cannot be opened.
    pub fn live() -> io::Result<Self> {
        Self::open(Path::new("/"))
    }

    /// A folder that holds a captured tree.
    ///
    /// # Errors
    /// When it is no folder or cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            source: Source::Folder(dir),
            path: path.canonicalize()?,
            record: None,
        })
    }

    /// What somebody captured: an archive, a folder that stands for `/`, or a folder around one.
    ///
    /// # Errors
    /// [`ArchiveError`]; for a folder, those of [`Root::open`].
    pub fn captured(path: &Path, limits: Limits) -> Result<Self, ArchiveError> {
        if !std::fs::metadata(path)?.is_dir() {
            let tree = Tree::unpack(File::open(path)?, limits)?;
            return Ok(Self::tree(tree, path));
        }
        let root = Self::open(path)?;
        let is_root = |root: &Self| root.exists("/sys") || root.exists("/proc");
        if is_root(&root) {
            return Ok(root);
        }
        // An archive that was unpacked by hand has its own folder around the tree.
        let names = root.list("/")?;
        let mut inner: Vec<Self> = names
            .iter()
            .filter_map(|name| Self::open(&path.join(name)).ok())
            .filter(is_root)
            .collect();
        Ok(match (inner.pop(), inner.is_empty()) {
            (Some(only), true) => only,
            _ => root,
        })
    }

    /// A tree in memory; `path` is where it came from, for messages.
    #[must_use]
    pub fn tree(tree: Tree, path: &Path) -> Self {
        Self {
            source: Source::Tree(tree),
            path: path.to_owned(),
            record: None,
        }
    }

    /// The same root, and from now on all that is read is kept, to be read again elsewhere. What
    /// is read twice reads alike.
    #[must_use]
    pub fn recording(self) -> Self {
        Self {
            record: Some(Mutex::default()),
            ..self
        }
    }

    /// What was read since [`Root::recording`]; empty without it.
    #[must_use]
    pub fn recorded(&self) -> Tree {
        match &self.record {
            Some(record) => {
                let record = record.lock().unwrap_or_else(PoisonError::into_inner);
                record.tree().clone()
            }
            None => Tree::default(),
        }
    }

    /// Where the root lies, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the live machine's `/`.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.path == Path::new("/")
    }

    /// The bytes of a file, at most 16 MiB.
    ///
    /// # Errors
    /// Those of open(2) and read(2), and `InvalidData` for a larger file.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let path = path.as_ref();
        let Some(record) = &self.record else {
            return self.source.read(path);
        };
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = record.file(path) {
            return Ok(bytes);
        }
        let bytes = self.source.read(path)?;
        record.keep_file(self, path, &bytes)?;
        Ok(bytes)
    }

    /// The first bytes of a file of any size, at most `limit` of them: what tells a disk image from
    /// a text.
    ///
    /// # Errors
    /// Those of open(2) and read(2).
    pub fn read_head(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        match &self.source {
            Source::Folder(dir) => {
                let fd = open_at(dir, path.as_ref(), OFlags::RDONLY | OFlags::NONBLOCK)?;
                let mut bytes = Vec::new();
                File::from(fd).take(limit).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Source::Tree(_) => {
                let mut bytes = self.source.read(path.as_ref())?;
                bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(bytes)
            }
        }
    }

    /// Some bytes at a place of a file: of a device's configuration space no more than what is asked
    /// for is read. While recording, the whole file is.
    ///
    /// # Errors
    /// Those of open(2) and pread(2); fewer bytes at the end of the file are no error.
    pub fn read_range(
        &self,
        path: impl AsRef<Path>,
        at: u64,
        length: usize,
    ) -> io::Result<Vec<u8>> {
        let path = path.as_ref();
        match (&self.source, &self.record) {
            (Source::Folder(dir), None) => {
                let fd = open_at(dir, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
                let mut bytes = vec![0; length];
                let count = rustix::io::pread(&fd, &mut bytes, at)?;
                bytes.truncate(count);
                Ok(bytes)
            }
            _ => {
                let bytes = self.read(path)?;
                let from = usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
                let to = from.saturating_add(length).min(bytes.len());
                Ok(bytes[from..to].to_vec())
            }
        }
    }

    /// The permission bits of a file: `0o644`. A tree in memory keeps none: `0o444`.
    ///
    /// # Errors
    /// Those of open(2) and fstat(2).
    pub fn mode(&self, path: impl AsRef<Path>) -> io::Result<u32> {
        match &self.source {
            Source::Folder(dir) => {
                let fd = open_at(dir, path.as_ref(), OFlags::PATH)?;
                Ok(rustix::fs::fstat(&fd)?.st_mode & 0o7777)
            }
            Source::Tree(tree) => tree.find(path.as_ref(), true).map(|_| 0o444),
        }
    }

    /// The text of a file; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`Root::read`].
    pub fn read_text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        Ok(match String::from_utf8(self.read(path)?) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The text of an attribute without white space at its ends; `None` when it is not there or
    /// cannot be read (sysfs answers EINVAL for `speed` of a link that is down).
    #[must_use]
    pub fn attribute(&self, path: impl AsRef<Path>) -> Option<String> {
        self.read_text(path)
            .ok()
            .map(|text| text.trim_matches(['\0', ' ', '\n', '\t']).to_owned())
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// Those of open(2) and getdents(2).
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let path = path.as_ref();
        let names = self.source.list(path)?;
        if let Some(record) = &self.record {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.keep_folder(self, path, &names)?;
        }
        Ok(names)
    }

    /// Where a link points, as written.
    ///
    /// # Errors
    /// Those of readlink(2); `EINVAL` when it is no link.
    pub fn link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let path = path.as_ref();
        let target = self.source.link(path)?;
        if let Some(record) = &self.record {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.keep_way(self, path, false)?;
        }
        Ok(target)
    }

    /// The last component of what a link points to: a driver's, group's or subsystem's name.
    #[must_use]
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(
            self.link(path)
                .ok()?
                .file_name()?
                .to_string_lossy()
                .into_owned(),
        )
    }

    /// The path inside this root after every link was followed, with a leading `/`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        use std::os::fd::AsRawFd;
        let path = path.as_ref();
        let found = match &self.source {
            Source::Folder(dir) => {
                let fd = open_at(dir, path, OFlags::PATH)?;
                let real = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                let inside = real.strip_prefix(&self.path).unwrap_or(&real);
                Path::new("/").join(inside)
            }
            Source::Tree(tree) => tree.find(path, true)?.1,
        };
        self.keep(path)?;
        Ok(found)
    }

    /// Whether something is there, links followed.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let there = match &self.source {
            Source::Folder(dir) => open_at(dir, path, OFlags::PATH).is_ok(),
            Source::Tree(tree) => tree.find(path, true).is_ok(),
        };
        there && self.keep(path).is_ok()
    }

    fn keep(&self, path: &Path) -> io::Result<()> {
        if let Some(record) = &self.record {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            record.keep_way(self, path, true)?;
        }
        Ok(())
    }

    /// Where a link points, without a record of it.
    pub(crate) fn plain_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.source.link(path)
    }

    /// Whether a folder is there, without a record of it.
    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        match &self.source {
            Source::Folder(dir) => open_at(dir, path, OFlags::PATH | OFlags::DIRECTORY).is_ok(),
            Source::Tree(tree) => {
                matches!(tree.find(path, true), Ok((Entry::Folder(_), _)))
            }
        }
    }
}

impl Source {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self {
            Self::Folder(dir) => {
                let fd = open_at(dir, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
                let mut first = [0u8; 4096];
                let count = retry(|| rustix::io::read(&fd, &mut first))?;
                let mut bytes = first[..count].to_vec();
                // An attribute is read at once, as is a small file. What is written line by line
                // while it is read (proc) may come in pieces.
                if count < first.len() && !path.starts_with("/proc") {
                    return Ok(bytes);
                }
                File::from(fd).take(LIMIT + 1).read_to_end(&mut bytes)?;
                if bytes.len() as u64 > LIMIT {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the file is larger than 16 MiB",
                    ));
                }
                Ok(bytes)
            }
            Self::Tree(tree) => match tree.find(path, true)?.0 {
                Entry::File(bytes) => Ok(bytes.clone()),
                _ => Err(Errno::ISDIR.into()),
            },
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        match self {
            Self::Folder(dir) => {
                let fd = open_at(dir, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::new(fd)? {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if name != "." && name != ".." {
                        names.push(name);
                    }
                }
                names.sort();
                Ok(names)
            }
            Self::Tree(tree) => match tree.find(path, true)?.0 {
                Entry::Folder(names) => Ok(names.keys().cloned().collect()),
                _ => Err(Errno::NOTDIR.into()),
            },
        }
    }

    fn link(&self, path: &Path) -> io::Result<PathBuf> {
        match self {
            Self::Folder(dir) => {
                let fd = open_at(dir, path, OFlags::PATH | OFlags::NOFOLLOW)?;
                // An empty path is the link itself; for what is no link it is ENOENT.
                let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|errno| {
                    if errno == Errno::NOENT {
                        Errno::INVAL
                    } else {
                        errno
                    }
                })?;
                Ok(PathBuf::from(target.to_string_lossy().into_owned()))
            }
            Self::Tree(tree) => match tree.find(path, false)?.0 {
                Entry::Link(target) => Ok(target.clone()),
                _ => Err(Errno::INVAL.into()),
            },
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn open_at(dir: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let flags = flags | OFlags::CLOEXEC;
    // While something anywhere on the machine is renamed or mounted, the kernel cannot be sure
    // that a `..` stays inside and answers EAGAIN (openat2(2)): that is a matter of moments.
    let mut patience = 0u32;
    loop {
        let opened =
            rustix::fs::openat2(dir, relative, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        match opened {
            Err(Errno::AGAIN | Errno::INTR) if patience < RETRIES => {
                patience += 1;
                std::thread::yield_now();
            }
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "inside\n").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/hostname", dir.path().join("climbing"))
            .unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.attribute("/absolute").as_deref(), Some("inside"));
        assert_eq!(root.attribute("climbing").as_deref(), Some("inside"));
        assert_eq!(
            root.resolve("/absolute").unwrap(),
            Path::new("/etc/hostname")
        );
        assert_eq!(root.link_name("/climbing").as_deref(), Some("hostname"));
        assert_eq!(root.list("/").unwrap(), ["absolute", "climbing", "etc"]);
        assert!(root.exists("/etc") && !root.exists("/proc"));
    }

    #[test]
    fn a_rename_elsewhere_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sys/bus")).unwrap();
        std::fs::write(dir.path().join("sys/value"), "here\n").unwrap();
        std::os::unix::fs::symlink("../value", dir.path().join("sys/bus/link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let busy = tempfile::tempdir().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let missed = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (busy.path().join("a"), busy.path().join("b"));
                std::fs::write(&a, "").unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::rename(&a, &b).unwrap();
                    std::fs::rename(&b, &a).unwrap();
                }
            });
            let missed = (0..20_000)
                .filter(|_| root.attribute("/sys/bus/link").is_none())
                .count();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            missed
        });
        assert_eq!(missed, 0);
    }
}
