//! What can be done to a machine, as traits: the live one and the fake that reacts as the kernel does.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bmslice_model::{ByteSize, CpuSet};
use thiserror::Error;

use crate::ethtool::NetAnswers;
use crate::root::Root;

/// Why the machine did not do as asked.
#[derive(Debug, Error)]
pub enum HostError {
    /// A file or attribute could not be read, written or removed.
    #[error("cannot {action} `{path}`: {source}")]
    File {
        /// `read`, `write`, `remove`, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command could not be started.
    #[error("cannot run `{program}`: {source}")]
    NotStarted {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command ended with an error.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command as typed; it never holds a secret.
        command: String,
        /// `exit status 1`, `killed by signal 9`.
        status: String,
        /// The last 20 lines of its standard error; of its standard output when that is empty.
        stderr: String,
    },
    /// The kernel does not tell of the NICs.
    #[error("cannot ask the kernel about the NICs: {source}")]
    Nics {
        /// What the kernel said.
        source: io::Error,
    },
    /// libvirt refused or is not there.
    #[error("libvirt could not {action}: {message}")]
    Hypervisor {
        /// What was asked: ``start the domain `red` ``.
        action: String,
        /// What libvirt said.
        message: String,
    },
    /// Another `bmslice` holds the lock.
    #[error("another bmslice (process {holder}) is at work on this host")]
    Locked {
        /// Its process id, or `?`.
        holder: String,
    },
    /// The machine, or this process's hold on it, is lost: nothing more can be done or undone from
    /// here. A fake says it after a simulated crash.
    #[error("cannot {action}: the machine is gone")]
    Gone {
        /// What was asked.
        action: String,
    },
}

impl HostError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The kernel's error kind, of a file that could not be written and the like.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::File { source, .. } | Self::NotStarted { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// A command as argv. Secrets go through `stdin` or a file, never through `args`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// Found on `PATH`.
    pub program: OsString,
    /// Arguments.
    pub args: Vec<OsString>,
    /// Environment added to the caller's.
    pub env: Vec<(OsString, OsString)>,
    /// Standard input.
    pub stdin: Option<Vec<u8>>,
}

impl Command {
    /// A command without input.
    pub fn new<A: Into<OsString>>(program: &str, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            if arg.is_empty() || arg.contains(|c: char| c.is_whitespace() || "'\"$\\`".contains(c))
            {
                write!(f, " '{}'", arg.replace('\'', "'\\''"))?;
            } else {
                write!(f, " {arg}")?;
            }
        }
        Ok(())
    }
}

/// What a command that ended well wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Held while one process acts on the host; released with it, however it ends.
pub trait Lock {}

/// A machine to act on. Everything that changes a server goes through here.
pub trait Machine {
    /// To read it.
    fn root(&self) -> &Root;

    /// Writes a sysfs or procfs attribute in one write(2); an empty value as a newline, since the
    /// kernel sees no write of nothing. The attribute is never made. A file on a disk is written
    /// over in place, from its start: no block of it moves, which a boot loader relies on.
    ///
    /// # Errors
    /// What the kernel answered (EBUSY, EINVAL, …), in [`HostError::File`].
    fn write_attribute(&self, path: &Path, value: &str) -> Result<(), HostError>;

    /// Puts a file in place whole or not at all: a new file with this mode from the start, synced,
    /// renamed over the old one; its folder is made when missing, and synced.
    ///
    /// # Errors
    /// [`HostError::File`]; the old file is then as it was.
    fn install(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), HostError>;

    /// Appends to a file and syncs it; made with mode 0600 when missing.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), HostError>;

    /// Removes a file, and what an [`install`](Machine::install) of it that was cut short left
    /// beside it; one that is not there is no error.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn remove(&self, path: &Path) -> Result<(), HostError>;

    /// Renames a file on one file system, over an old one, and syncs the folders.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn rename(&self, from: &Path, to: &Path) -> Result<(), HostError>;

    /// Makes a folder with this mode, and the missing ones above it with mode 0755; one that is
    /// there is left as it is.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn create_dir(&self, path: &Path, mode: u32) -> Result<(), HostError>;

    /// Puts a file that a command wrote, and its name, on stable storage (fsync(2)), so that a
    /// journal may say that it is there.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn sync(&self, path: &Path) -> Result<(), HostError>;

    /// What an unprivileged process may still write to the file system of a path (bytes); of the
    /// nearest folder above it that is there.
    ///
    /// # Errors
    /// [`HostError::File`].
    fn free_space(&self, path: &Path) -> Result<ByteSize, HostError>;

    /// Whether a program is to be found, where [`Machine::run`] looks.
    fn has_program(&self, program: &str) -> bool;

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`HostError::NotStarted`], or [`HostError::Failed`] when it did not exit with 0.
    fn run(&self, command: &Command) -> Result<Output, HostError>;

    /// The lock that makes one writer a host: waits up to `patience`.
    ///
    /// # Errors
    /// [`HostError::Locked`] when another holds it all that time.
    fn lock(&self, path: &Path, patience: Duration) -> Result<Box<dyn Lock>, HostError>;

    /// Connects to the hypervisor.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`] when it does not answer.
    fn hypervisor(&self) -> Result<Box<dyn Hypervisor + '_>, HostError>;

    /// What the drivers of some interfaces tell, as the kernel answered. A machine whose kernel
    /// cannot be asked answers nothing.
    ///
    /// # Errors
    /// [`HostError::Nics`].
    fn nics(&self, _names: &[String]) -> Result<NetAnswers, HostError> {
        Ok(NetAnswers::default())
    }

    /// The time, for journals and deadlines.
    fn now(&self) -> SystemTime;

    /// Waits.
    fn sleep(&self, time: Duration);

    /// Whether this process may do as root does.
    fn is_root(&self) -> bool;
}

/// A domain as the hypervisor lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainState {
    /// Its name.
    pub name: String,
    /// Its UUID, lower case with dashes.
    pub uuid: String,
    /// Running or paused.
    pub running: bool,
    /// Whether a definition outlives a shutdown.
    pub persistent: bool,
    /// Starts with the host.
    pub autostart: bool,
}

/// Major, minor and release, as libvirt counts them.
pub type Version = (u32, u32, u32);

/// The threads of a domain as the hypervisor pins them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPins {
    /// By vCPU number.
    pub vcpus: Vec<CpuSet>,
    /// The emulator's.
    pub emulator: CpuSet,
    /// By IOThread id.
    pub iothreads: Vec<(u32, CpuSet)>,
}

/// libvirt's QEMU driver.
pub trait Hypervisor {
    /// Library and QEMU version, as `(9, 0, 0)`.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn versions(&self) -> Result<(Version, Option<Version>), HostError>;
    /// `virConnectGetCapabilities`.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn capabilities(&self) -> Result<String, HostError>;
    /// All domains, by name.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn domains(&self) -> Result<Vec<DomainState>, HostError>;
    /// A domain's XML: what runs, or with `inactive` what the next start takes.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn xml(&self, name: &str, inactive: bool) -> Result<String, HostError>;
    /// The pins in force of a running domain.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn pins(&self, name: &str) -> Result<DomainPins, HostError>;
    /// Defines or redefines a domain, its XML validated against the schema.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn define(&self, xml: &str) -> Result<(), HostError>;
    /// Removes a definition (its NVRAM and managed save too).
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn undefine(&self, name: &str) -> Result<(), HostError>;
    /// Starts a defined domain.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn start(&self, name: &str) -> Result<(), HostError>;
    /// Asks a guest to shut down (agent, then ACPI); does not wait.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn shutdown(&self, name: &str) -> Result<(), HostError>;
    /// Ends a guest at once, as pulling the plug does.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn destroy(&self, name: &str) -> Result<(), HostError>;
    /// Whether the domain starts with the host.
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn set_autostart(&self, name: &str, on: bool) -> Result<(), HostError>;
    /// Gives a PCI function back to its host driver (`virNodeDeviceReAttach`).
    ///
    /// # Errors
    /// [`HostError::Hypervisor`].
    fn reattach(&self, nodedev: &str) -> Result<(), HostError>;
}
