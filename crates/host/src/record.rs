//! What was read of a root, as a tree that reads alike.
//!
//! Keeps true: a path that was asked for and was there is there, through the same links; a folder
//! that was listed has the same names; what was not there is not there. Names that were listed and
//! never read are empty files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use crate::root::Root;
use crate::tree::{Entry, Tree};

/// As many links as the kernel follows in one path.
const LINKS: u32 = 40;

/// A record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    tree: Tree,
    /// Files that have their bytes, by their paths without links.
    read: BTreeSet<PathBuf>,
}

impl Record {
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The bytes of a file that was read before.
    pub(crate) fn file(&self, path: &Path) -> Option<Vec<u8>> {
        let (entry, whole) = self.tree.find(path, true).ok()?;
        match entry {
            Entry::File(bytes) if self.read.contains(&whole) => Some(bytes.clone()),
            _ => None,
        }
    }

    pub(crate) fn keep_file(&mut self, root: &Root, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let whole = self.way(root, path, true)?;
        self.tree.put_file(&whole, bytes.to_vec())?;
        self.read.insert(whole);
        Ok(())
    }

    pub(crate) fn keep_folder(
        &mut self,
        root: &Root,
        path: &Path,
        names: &[String],
    ) -> io::Result<()> {
        let whole = self.way(root, path, true)?;
        self.tree.put_folder(&whole)?;
        for name in names {
            self.keep_thing(root, &whole.join(name))?;
        }
        Ok(())
    }

    /// Keeps the links of a path and what they lead to; with `follow_last` false, no more than the
    /// last link itself.
    pub(crate) fn keep_way(
        &mut self,
        root: &Root,
        path: &Path,
        follow_last: bool,
    ) -> io::Result<()> {
        let whole = self.way(root, path, follow_last)?;
        if follow_last {
            self.keep_thing(root, &whole)?;
        }
        Ok(())
    }

    /// Keeps that something is there, and what it is.
    fn keep_thing(&mut self, root: &Root, whole: &Path) -> io::Result<()> {
        if self.tree.find(whole, false).is_ok() {
            return Ok(());
        }
        match root.plain_link(whole) {
            Ok(target) => self.tree.put_link(whole, target),
            Err(_) if root.is_folder(whole) => self.tree.put_folder(whole),
            Err(_) => self.tree.put_file(whole, Vec::new()),
        }
    }

    /// Walks a path link by link, keeps each, and gives where it ends.
    fn way(&mut self, root: &Root, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let mut parts: Vec<PathBuf> = Vec::new();
        let push = |parts: &mut Vec<PathBuf>, path: &Path| {
            parts.extend(
                path.components()
                    .rev()
                    .map(|part| PathBuf::from(part.as_os_str())),
            );
        };
        push(&mut parts, path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = parts.pop() {
            match part.components().next() {
                Some(Component::RootDir) => at = PathBuf::from("/"),
                Some(Component::ParentDir) => {
                    at.pop();
                }
                Some(Component::Normal(name)) => {
                    let next = at.join(name);
                    match root.plain_link(&next) {
                        Ok(target) => {
                            if self.tree.find(&next, false).is_err() {
                                self.tree.put_link(&next, target.clone())?;
                            }
                            if !follow_last && parts.is_empty() {
                                return Ok(next);
                            }
                            links += 1;
                            if links > LINKS {
                                return Err(Errno::LOOP.into());
                            }
                            push(&mut parts, &target);
                        }
                        Err(_) => at = next,
                    }
                }
                _ => {}
            }
        }
        Ok(at)
    }
}
