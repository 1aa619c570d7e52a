//! The folder that stands for `/`: plain files and relative links, as sysfs and procfs show them.
//!
//! Takes absolute paths of the faked server. Keeps true: links never leave the folder, and the
//! mode of an attribute says whether the kernel would let root write it.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// What the kernel lets root only read.
pub const READ_ONLY: u32 = 0o444;
/// What the kernel lets root write.
pub const WRITABLE: u32 = 0o644;

/// The folder.
#[derive(Debug)]
pub struct Tree {
    at: PathBuf,
}

/// The fake's own folder is under its control: failing there is no behaviour to be tested.
#[track_caller]
fn must<T>(result: io::Result<T>) -> T {
    result.expect("the folder of the fake server can be written")
}

impl Tree {
    pub fn new(at: &Path) -> Self {
        Self { at: at.to_owned() }
    }

    /// Where a path of the server is.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let inside = path.as_ref().components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        self.at.join(inside.collect::<PathBuf>())
    }

    /// A file with these bytes, its folders made; a new file even when one was there.
    pub fn put(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>, mode: u32) {
        let at = self.at(path);
        let mut file = must(anew(&at, || {
            let mut new = std::fs::OpenOptions::new();
            new.write(true).create_new(true).mode(mode).open(&at)
        }));
        must(file.write_all(bytes.as_ref()));
        must(file.set_permissions(std::fs::Permissions::from_mode(mode)));
    }

    /// A read-only attribute: the value and a newline.
    pub fn show(&self, path: impl AsRef<Path>, value: impl Display) {
        self.put(path, format!("{value}\n"), READ_ONLY);
    }

    /// A writable attribute: the value and a newline.
    pub fn knob(&self, path: impl AsRef<Path>, value: impl Display) {
        self.put(path, format!("{value}\n"), WRITABLE);
    }

    /// A folder.
    pub fn dir(&self, path: impl AsRef<Path>) {
        must(std::fs::create_dir_all(self.at(path)));
    }

    /// A link to another path of the server, written relatively, as sysfs does.
    pub fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        let at = self.at(&path);
        let target = relative(path.as_ref(), target.as_ref());
        must(anew(&at, || std::os::unix::fs::symlink(&target, &at)));
    }

    /// Away with a file, a link or a folder and all in it.
    pub fn remove(&self, path: impl AsRef<Path>) {
        let at = self.at(path);
        match at.symlink_metadata() {
            Ok(found) if found.is_dir() => must(std::fs::remove_dir_all(at)),
            Ok(_) => must(std::fs::remove_file(at)),
            Err(_) => {}
        }
    }

    /// The text of a file.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        std::fs::read(self.at(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it is there.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// The names in a folder, sorted; none when it is not there.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.at(path))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// Makes what may need its folder, or take the place of something older. Most need neither, and
/// a server has some two thousand files.
fn anew<T>(at: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = at.parent() {
                std::fs::create_dir_all(dir)?;
            }
            make()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(at)?;
            make()
        }
        done => done,
    }
}

fn relative(link: &Path, target: &Path) -> PathBuf {
    let from: Vec<_> = link
        .parent()
        .unwrap_or(Path::new("/"))
        .components()
        .collect();
    let to: Vec<_> = target.components().collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(to[common..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_to_their_folder() {
        let link = Path::new("/sys/bus/pci/devices/0000:01:00.0");
        let target = Path::new("/sys/devices/pci0000:00/0000:01:00.0");
        assert_eq!(
            relative(link, target),
            Path::new("../../../devices/pci0000:00/0000:01:00.0")
        );
    }
}
