//! A captured tree in memory: folders, files and links, with the kernel's way to follow links
//! inside a root.
//!
//! Takes paths and contents, from an archive ([`Tree::unpack`](crate::Tree::unpack)) or from a
//! server being recorded. Keeps true: nothing in it leads out of it (`..` at the top and absolute
//! links stay inside, as with openat2(2)'s `RESOLVE_IN_ROOT`), and following links always ends.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

/// As many links as the kernel follows in one path.
const LINKS: u32 = 40;

/// A thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder and its names, sorted.
    Folder(BTreeMap<String, usize>),
    /// A file's bytes.
    File(Vec<u8>),
    /// Where a link points, as written.
    Link(PathBuf),
}

/// A tree in memory.
#[derive(Debug, Clone)]
pub struct Tree {
    entries: Vec<Entry>,
    top: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            entries: vec![Entry::Folder(BTreeMap::new())],
            top: 0,
        }
    }
}

fn failed(errno: Errno) -> io::Error {
    errno.into()
}

impl Tree {
    /// Puts a file at a path without links in it; folders on its way are made.
    ///
    /// # Errors
    /// `ENOTDIR` when something on its way is no folder, `EISDIR` when a folder is there.
    pub fn put_file(&mut self, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        self.put(path, Entry::File(bytes))
    }

    /// Puts a link, as [`Tree::put_file`].
    ///
    /// # Errors
    /// As [`Tree::put_file`].
    pub fn put_link(&mut self, path: &Path, target: PathBuf) -> io::Result<()> {
        self.put(path, Entry::Link(target))
    }

    /// Puts a folder where there is none.
    ///
    /// # Errors
    /// `ENOTDIR` when it or something on its way is no folder.
    pub fn put_folder(&mut self, path: &Path) -> io::Result<()> {
        self.folder(path).map(drop)
    }

    fn put(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let name = path
            .file_name()
            .ok_or(failed(Errno::ISDIR))?
            .to_string_lossy();
        let folder = self.folder(path.parent().unwrap_or(Path::new("/")))?;
        let new = self.entries.len();
        let Entry::Folder(names) = &mut self.entries[folder] else {
            return Err(failed(Errno::NOTDIR));
        };
        match names.get(&*name).copied() {
            Some(old) => {
                if matches!(self.entries[old], Entry::Folder(_)) {
                    return Err(failed(Errno::ISDIR));
                }
                self.entries[old] = entry;
            }
            None => {
                names.insert(name.into_owned(), new);
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path) -> io::Result<usize> {
        let mut at = self.top;
        for part in path.components() {
            let Component::Normal(name) = part else {
                if matches!(part, Component::RootDir | Component::CurDir) {
                    continue;
                }
                return Err(failed(Errno::INVAL));
            };
            let name = name.to_string_lossy();
            let new = self.entries.len();
            let Entry::Folder(names) = &mut self.entries[at] else {
                return Err(failed(Errno::NOTDIR));
            };
            at = match names.get(&*name) {
                Some(next) => *next,
                None => {
                    names.insert(name.into_owned(), new);
                    self.entries.push(Entry::Folder(BTreeMap::new()));
                    new
                }
            };
        }
        match &self.entries[at] {
            Entry::Folder(_) => Ok(at),
            _ => Err(failed(Errno::NOTDIR)),
        }
    }

    /// What a path leads to, with links followed (the last one only when asked for), and its path
    /// in this tree without links.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, and `ELOOP` after 40 links.
    pub fn find(&self, path: &Path, follow_last: bool) -> io::Result<(&Entry, PathBuf)> {
        // What is still to be walked, the next part last.
        let mut parts: Vec<String> = Vec::new();
        let mut links = 0;
        let mut way: Vec<(String, usize)> = Vec::new();
        push(&mut parts, path);
        while let Some(part) = parts.pop() {
            let at = way.last().map_or(self.top, |(_, at)| *at);
            match part.as_str() {
                "/" => way.clear(),
                "." => {
                    if !matches!(self.entries[at], Entry::Folder(_)) {
                        return Err(failed(Errno::NOTDIR));
                    }
                }
                ".." => {
                    way.pop();
                }
                _ => {
                    let Entry::Folder(names) = &self.entries[at] else {
                        return Err(failed(Errno::NOTDIR));
                    };
                    let next = *names.get(&part).ok_or(failed(Errno::NOENT))?;
                    match &self.entries[next] {
                        Entry::Link(target) if follow_last || !parts.is_empty() => {
                            links += 1;
                            if links > LINKS {
                                return Err(failed(Errno::LOOP));
                            }
                            push(&mut parts, target);
                        }
                        _ => way.push((part, next)),
                    }
                }
            }
        }
        let mut whole = PathBuf::from("/");
        whole.extend(way.iter().map(|(name, _)| name));
        let at = way.last().map_or(self.top, |(_, at)| *at);
        Ok((&self.entries[at], whole))
    }

    /// Everything in it with its path, folders before what is in them, by name.
    #[must_use]
    pub fn walk(&self) -> Vec<(PathBuf, &Entry)> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/"), self.top)];
        while let Some((path, at)) = open.pop() {
            let entry = &self.entries[at];
            if let Entry::Folder(names) = entry {
                open.extend(names.iter().rev().map(|(name, at)| (path.join(name), *at)));
            }
            found.push((path, entry));
        }
        found
    }

    /// Takes as the root the topmost folder that has a `sys` or `proc`: archives have one folder
    /// around the tree, however it is called.
    ///
    /// # Errors
    /// The names of the candidates: none, or several side by side.
    pub fn enter_root(&mut self) -> Result<(), Vec<String>> {
        let mut level = vec![(String::new(), self.top)];
        // Nobody wraps a tree deeper; this ends a damaged one.
        for _ in 0..8 {
            let folders = |at: usize| match &self.entries[at] {
                Entry::Folder(names) => Some(names),
                _ => None,
            };
            let roots: Vec<&(String, usize)> = level
                .iter()
                .filter(|(_, at)| {
                    folders(*at).is_some_and(|names| {
                        ["sys", "proc"].iter().any(|name| {
                            names
                                .get(*name)
                                .is_some_and(|at| matches!(self.entries[*at], Entry::Folder(_)))
                        })
                    })
                })
                .collect();
            match roots.as_slice() {
                [] => {}
                [(_, root)] => {
                    self.top = *root;
                    return Ok(());
                }
                several => return Err(several.iter().map(|(name, _)| name.clone()).collect()),
            }
            level = level
                .iter()
                .filter_map(|(path, at)| Some((path, folders(*at)?)))
                .flat_map(|(path, names)| {
                    names
                        .iter()
                        .map(move |(name, at)| (format!("{path}/{name}"), *at))
                })
                .collect();
        }
        Err(Vec::new())
    }
}

/// Puts the parts of a path where the next one is taken from.
fn push(parts: &mut Vec<String>, path: &Path) {
    let text = path.to_string_lossy();
    if text.ends_with('/') {
        parts.push(".".into());
    }
    for part in path.components().rev() {
        parts.push(match part {
            Component::Normal(name) => name.to_string_lossy().into_owned(),
            Component::ParentDir => "..".into(),
            Component::CurDir => ".".into(),
            Component::RootDir | Component::Prefix(_) => "/".into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.put_file(Path::new("/etc/hostname"), b"inside".to_vec())
            .unwrap();
        for (at, target) in [
            ("absolute", "/etc/hostname"),
            ("climbing", "../../../etc/hostname"),
            ("etc/self", "."),
            ("a/folder", "../etc"),
            ("loop", "loop"),
        ] {
            tree.put_link(Path::new(at), target.into()).unwrap();
        }
        tree
    }

    #[test]
    fn links_are_followed_inside_as_the_kernel_does() {
        let tree = tree();
        let file = Entry::File(b"inside".to_vec());
        for path in [
            "/absolute",
            "climbing",
            "/a/folder/hostname",
            "/etc/self/self/hostname",
            "/../etc/./hostname",
        ] {
            let (entry, whole) = tree.find(Path::new(path), true).unwrap();
            assert_eq!(*entry, file, "{path}");
            assert_eq!(whole, Path::new("/etc/hostname"), "{path}");
        }
        let (entry, _) = tree.find(Path::new("/absolute"), false).unwrap();
        assert_eq!(*entry, Entry::Link("/etc/hostname".into()));
    }

    #[test]
    fn what_is_not_there_fails_as_in_the_kernel() {
        let tree = tree();
        let errno = |path: &str| {
            let error = tree.find(Path::new(path), true).unwrap_err();
            Errno::from_io_error(&error).unwrap()
        };
        assert_eq!(errno("/etc/none"), Errno::NOENT);
        assert_eq!(errno("/etc/hostname/x"), Errno::NOTDIR);
        assert_eq!(errno("/etc/hostname/"), Errno::NOTDIR);
        assert_eq!(errno("/loop"), Errno::LOOP);
    }

    #[test]
    fn the_root_is_the_topmost_folder_with_sys_or_proc() {
        let with = |paths: &[&str]| {
            let mut tree = Tree::default();
            for path in paths {
                tree.put_file(Path::new(path), Vec::new()).unwrap();
            }
            tree.enter_root()
                .map(|()| tree.find(Path::new("/sys/x"), true).is_ok())
        };
        assert_eq!(with(&["/sys/x", "/a/sys/y"]), Ok(true));
        assert_eq!(with(&["/any name/sys/x", "/README"]), Ok(true));
        assert_eq!(with(&["/a/b/proc/z", "/a/b/sys/x"]), Ok(true));
        assert_eq!(
            with(&["/a/sys/x", "/b/proc/x"]),
            Err(vec!["/a".into(), "/b".into()])
        );
        assert_eq!(with(&["/etc/x", "/sys"]), Err(vec![]));
    }
}
