//! The state folder: one lock, one JSON file, and everything else that the lab makes.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::qemu::{Accel, Loader};
use crate::remove::remove_tree;
use crate::run::Process;
use crate::topology::Topology;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the state folder `{path}` could not be used")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "another `bmslice-lab` command is at work on `{0}`; wait for it, or take another folder with --state"
    )]
    Busy(PathBuf),
    #[error("`{path}` is not the lab's state; `bmslice-lab purge` starts anew")]
    Content {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// What a later command has to know of an earlier one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    pub topology: Option<Topology>,
    pub accel: Option<Accel>,
    /// What boots the server that runs.
    #[serde(default)]
    pub loader: Loader,
    /// The result of the probe, so that it is made once.
    pub probed: Option<Probed>,
    /// The digest of the image under the server's overlay.
    pub disk_image: Option<String>,
    pub qemu: Option<Process>,
    pub fabric: Option<FabricRecord>,
}

/// Whether ordinary guests, and guests of guests, run under this machine's KVM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probed {
    pub accel: Accel,
    pub why: String,
}

/// What of the fabric has to be taken away at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FabricRecord {
    pub database: Process,
    pub switch: Process,
    pub taps: Vec<String>,
}

/// The folder, held: the lock lives as long as this value.
pub struct State {
    pub folder: PathBuf,
    pub record: Record,
    _lock: Option<Lock>,
}

/// Let go in words: a program that another thread starts has a copy of the file until it is
/// executed, and closing ours alone would leave the folder held for that long (flock(2)).
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // On an error the close that follows lets go.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

const RECORD: &str = "lab.json";
/// All that the lab makes in its folder; the lock is the last to go.
const OWN: [&str; 13] = [
    "images",
    "keys",
    "fabric",
    crate::qemu::DISK,
    crate::qemu::ESP,
    crate::qemu::EFI_VARIABLES,
    "esp.raw.new",
    crate::qemu::CONSOLE_LOG,
    crate::qemu::QMP_SOCKET,
    "qemu.log",
    "lab.json.next",
    RECORD,
    "lock",
];

impl State {
    /// Opens the folder for a command that changes something.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let bad = |source| StateError::Folder {
            path: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(bad)?;
        let folder = folder.canonicalize().map_err(bad)?;
        let lock = File::create(folder.join("lock")).map_err(|source| StateError::Folder {
            path: folder.clone(),
            source,
        })?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StateError::Busy(folder.clone()))?;
        let record = read(&folder)?;
        Ok(Self {
            folder,
            record,
            _lock: Some(Lock(lock)),
        })
    }

    /// Opens it for a command that only looks, which may run beside a long `start`.
    pub fn look(folder: &Path) -> Result<Self, StateError> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let record = read(&folder)?;
        Ok(Self {
            folder,
            record,
            _lock: None,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Saves the record, whole or not at all.
    pub fn save(&self) -> Result<(), StateError> {
        let path = self.path(RECORD);
        let bad = |source| StateError::Folder {
            path: path.clone(),
            source,
        };
        let text =
            serde_json::to_string_pretty(&self.record).map_err(|source| StateError::Content {
                path: path.clone(),
                source,
            })?;
        let next = self.path("lab.json.next");
        fs::write(&next, text).map_err(bad)?;
        fs::rename(&next, &path).map_err(bad)
    }

    /// Deletes what the lab made, by name, so that a mistaken `--state` costs nobody a folder; the
    /// folder itself goes when nothing else is in it.
    pub fn remove(self) -> Result<(), StateError> {
        for name in OWN {
            let path = self.path(name);
            let removed = if path.is_dir() {
                remove_tree(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(StateError::Folder {
                        path,
                        source: error,
                    });
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(StateError::Folder {
                path: self.folder,
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// The running server, if it runs.
    pub fn qemu(&self) -> Option<Process> {
        self.record.qemu.filter(Process::alive)
    }
}

fn read(folder: &Path) -> Result<Record, StateError> {
    let path = folder.join(RECORD);
    match fs::read_to_string(&path) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|source| StateError::Content { path, source })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Record::default()),
        Err(source) => Err(StateError::Folder { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_commands_do_not_collide_and_a_record_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        assert!(matches!(
            State::open(folder.path()),
            Err(StateError::Busy(_))
        ));
        state.record.disk_image = Some("0123".to_owned());
        state.save().unwrap();
        assert_eq!(
            State::look(folder.path()).unwrap().record.disk_image,
            Some("0123".to_owned())
        );
        // As a program has it that is being started.
        let copy = state._lock.as_ref().unwrap().0.try_clone().unwrap();
        drop(state);
        State::open(folder.path()).unwrap();
        drop(copy);
    }

    #[test]
    fn only_the_labs_own_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        std::fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        let state = State::open(folder.path()).unwrap();
        state.save().unwrap();
        state.remove().unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn a_foreign_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lab.json"), "hello").unwrap();
        let error = State::look(folder.path()).err().unwrap().to_string();
        assert!(
            error.contains("lab.json` is not the lab's state"),
            "{error}"
        );
    }
}
