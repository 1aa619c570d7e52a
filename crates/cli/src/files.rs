//! The user's own files: those named on the command line.
//!
//! Reads them whole and bounded, `-` being standard input; writes whole or not at all, through the
//! door to the machine.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bmslice_host::{HostError, LiveMachine, Machine};

use crate::exit::Exit;
use crate::failure::Failure;

/// No spec, plan, inventory or MAC table is larger (64 MiB).
const LIMIT: u64 = 64 << 20;

/// Reads a file; `what` it is supposed to be (`a spec`) is for the message.
pub(crate) fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let taken = if path == Path::new("-") {
        io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes)
    } else {
        open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes))
    };
    let shown = path.display();
    match taken {
        Ok(_) if bytes.len() as u64 > LIMIT => Err(Failure::refused(format!(
            "`{shown}` is larger than {} MiB; {what} is not",
            LIMIT >> 20
        ))),
        Ok(_) => Ok(bytes),
        Err(error) => {
            let text = format!("cannot read `{shown}` as {what}: {}", plain(&error));
            Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::refused(text),
                io::ErrorKind::IsADirectory => {
                    Failure::refused(text).hint("name a file in that folder")
                }
                _ => Failure::failed(text),
            })
        }
    }
}

/// As [`read`], as text.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, Failure> {
    String::from_utf8(read(path, what)?).map_err(|_| {
        let text = format!("`{}` is not UTF-8 text, and so not {what}", path.display());
        Failure::refused(text)
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file of the user's, not of the server that is sliced"
)]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Refuses a path whose folder is not there: a mistyped one makes no tree of folders.
pub(crate) fn need_folder(path: &Path) -> Result<(), Failure> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let Some(folder) = folder else { return Ok(()) };
    match list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (path, folder) = (path.display(), folder.display());
            let text = format!("cannot write `{path}`: there is no folder `{folder}`");
            Err(Failure::refused(text).hint("make the folder, or correct the path"))
        }
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all (mode 0644).
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let machine = LiveMachine::new()
        .map_err(|error| Failure::failed(format!("cannot open `/`: {}", plain(&error))))?;
    write_with(&machine, path, bytes, 0o644)
}

/// Writes a file whole or not at all, through a door that is open already.
pub(crate) fn write_with(
    machine: &dyn Machine,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), Failure> {
    let failed =
        |text: String| Failure::failed(format!("cannot write `{}`: {text}", path.display()));
    let whole = std::path::absolute(path).map_err(|error| failed(plain(&error)))?;
    machine
        .install(&whole, bytes, mode)
        .map_err(|error| match error {
            HostError::File { source, .. } => failed(plain(&source)),
            other => failed(other.to_string()),
        })
}

/// What is at a path of the user's, if anything.
pub(crate) enum There {
    /// Nothing.
    Nothing,
    /// A folder without entries.
    EmptyFolder,
    /// A folder.
    Folder,
    /// A file's bytes.
    File(Vec<u8>),
    /// A pipe, a device, a socket: neither read nor replaced.
    Special,
}

/// Looks what is there before something is written.
pub(crate) fn look(path: &Path) -> Result<There, Failure> {
    match read_folder(path) {
        Ok(true) => return Ok(There::EmptyFolder),
        Ok(false) => return Ok(There::Folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        Err(_) => {}
    }
    if is_special(path) {
        return Ok(There::Special);
    }
    read(path, "what is there").map(There::File)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file of the user's, not of the server that is sliced"
)]
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// A file that an option names, to be written.
pub(crate) struct Target<'a> {
    /// Where.
    pub path: &'a Path,
    /// The option: `--out`.
    pub option: &'a str,
    /// A usual name: `plan.json`.
    pub usual: &'a str,
    /// What it is to hold: `plan`.
    pub what: &'a str,
    /// What to do instead of naming `-`.
    pub instead: &'a str,
}

impl Target<'_> {
    /// What would be replaced; refuses everything that is not a file of ours, so that nothing of
    /// the user's is lost.
    pub(crate) fn replaces(
        &self,
        is_ours: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let (option, shown) = (self.option, self.path.display());
        if self.path == Path::new("-") {
            let text = format!("`{option}` writes a file, and `-` is none");
            return Err(Failure::message(Exit::Usage, text).hint(self.instead));
        }
        need_folder(self.path)?;
        match look(self.path)? {
            There::Nothing => Ok(None),
            There::Folder | There::EmptyFolder => {
                let file = self.path.join(self.usual);
                Err(Failure::refused(format!("`{shown}` is a folder"))
                    .hint(format!("name a file in it: `{option} {}`", file.display())))
            }
            There::Special => Err(Failure::refused(format!(
                "`{shown}` is no ordinary file, and is not written to"
            ))
            .hint("name a file; `-o json` writes to standard output")),
            There::File(bytes) if is_ours(&bytes) => Ok(Some(bytes)),
            There::File(_) => Err(Failure::refused(format!(
                "`{shown}` is there and is no {}; it is not overwritten",
                self.what
            ))
            .hint("name another file, or take that one away")),
        }
    }
}

fn read_folder(path: &Path) -> io::Result<bool> {
    Ok(list(path)?.is_empty())
}

/// The names in a folder of the user's, sorted.
pub(crate) fn entries(path: &Path) -> Result<Vec<String>, Failure> {
    list(path).map_err(|error| {
        Failure::failed(format!(
            "cannot list `{}`: {}",
            path.display(),
            plain(&error)
        ))
    })
}

/// Every file below a folder of the user's, by its path from there, sorted.
pub(crate) fn tree(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut below = vec![String::new()];
    while let Some(relative) = below.pop() {
        for name in entries(&folder.join(&relative))? {
            let path = if relative.is_empty() {
                name
            } else {
                format!("{relative}/{name}")
            };
            // A link to a folder is a file here: nothing outside is looked at.
            let whole = folder.join(&path);
            if whole.is_dir() && !whole.is_symlink() {
                below.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a folder of the user's, not of the server that is sliced"
)]
fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// An io error without Rust's number behind it.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(characters).collect()
}

/// A path below a folder that stays below it.
pub(crate) fn below(folder: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative);
    relative
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
        .then(|| folder.join(relative))
}
