//! The machine that this process runs on.
//!
//! Takes paths of the live system and a libvirt URI; gives [`Machine`] over the kernel, `PATH` and
//! libvirtd. Keeps true: a file is whole or untouched, an error carries what the kernel or the
//! program said, and the lock dies with its holder.

mod commands;
mod files;
mod lock;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bmslice_model::ByteSize;

use crate::ethtool::{self, NetAnswers};
use crate::libvirt::LibvirtConnection;
use crate::machine::{Command, HostError, Hypervisor, Lock, Machine, Output};
use crate::root::Root;

/// The machine that this process runs on.
#[derive(Debug)]
pub struct LiveMachine {
    root: Root,
    uri: String,
}

impl LiveMachine {
    /// This machine and its system-wide QEMU driver (`qemu:///system`).
    ///
    /// # Errors
    /// When `/` cannot be opened.
    pub fn new() -> io::Result<Self> {
        Self::with_hypervisor("qemu:///system")
    }

    /// This machine, with another libvirt connection URI.
    ///
    /// # Errors
    /// When `/` cannot be opened.
    pub fn with_hypervisor(uri: &str) -> io::Result<Self> {
        Ok(Self {
            root: Root::live()?,
            uri: uri.to_owned(),
        })
    }
}

impl LiveMachine {
    /// Opens `/dev/kvm` and makes a VM, which goes again at once: that the device is there does not
    /// say that it works (another hypervisor may hold the CPU, or the firmware forbid it).
    ///
    /// # Errors
    /// Those of open(2) and of `KVM_CREATE_VM`.
    pub fn make_vm(&self) -> io::Result<()> {
        let failed = |error: kvm_ioctls::Error| io::Error::from_raw_os_error(error.errno());
        let kvm = kvm_ioctls::Kvm::new().map_err(failed)?;
        kvm.create_vm().map(drop).map_err(failed)
    }
}

impl Machine for LiveMachine {
    fn root(&self) -> &Root {
        &self.root
    }

    fn write_attribute(&self, path: &Path, value: &str) -> Result<(), HostError> {
        files::write_attribute(path, value).map_err(|source| HostError::file("write", path, source))
    }

    fn install(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), HostError> {
        files::install(path, bytes, mode).map_err(|source| HostError::file("write", path, source))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
        files::append(path, bytes).map_err(|source| HostError::file("append to", path, source))
    }

    fn remove(&self, path: &Path) -> Result<(), HostError> {
        files::remove(path).map_err(|source| HostError::file("remove", path, source))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), HostError> {
        files::rename(from, to).map_err(|source| HostError::file("rename", from, source))
    }

    fn create_dir(&self, path: &Path, mode: u32) -> Result<(), HostError> {
        files::create_dir(path, mode)
            .map_err(|source| HostError::file("make the folder", path, source))
    }

    fn sync(&self, path: &Path) -> Result<(), HostError> {
        files::sync(path).map_err(|source| HostError::file("sync", path, source))
    }

    fn free_space(&self, path: &Path) -> Result<ByteSize, HostError> {
        files::free_space(path)
            .map(ByteSize::from_bytes)
            .map_err(|source| HostError::file("ask the free space of", path, source))
    }

    fn has_program(&self, program: &str) -> bool {
        commands::find(program).is_some()
    }

    fn run(&self, command: &Command) -> Result<Output, HostError> {
        commands::run(command)
    }

    fn lock(&self, path: &Path, patience: Duration) -> Result<Box<dyn Lock>, HostError> {
        Ok(Box::new(lock::FileLock::take(path, patience)?))
    }

    fn hypervisor(&self) -> Result<Box<dyn Hypervisor + '_>, HostError> {
        Ok(Box::new(LibvirtConnection::open(&self.uri)?))
    }

    fn nics(&self, names: &[String]) -> Result<NetAnswers, HostError> {
        ethtool::ask(names).map_err(|source| HostError::Nics { source })
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }
}
