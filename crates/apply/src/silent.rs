//! A machine whose hypervisor is not to be asked.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bmslice_host::{Command, HostError, Hypervisor, Lock, Machine, NetAnswers, Output, Root};
use bmslice_model::ByteSize;

/// Before libvirtd has started, a mere connection would activate it by its socket and wait for a
/// unit that waits for us: the boot would hang.
pub struct Silent<'m>(pub &'m dyn Machine);

impl Machine for Silent<'_> {
    fn hypervisor(&self) -> Result<Box<dyn Hypervisor + '_>, HostError> {
        Err(HostError::Hypervisor {
            action: "be asked".into(),
            message: "it starts only after this".into(),
        })
    }

    fn root(&self) -> &Root {
        self.0.root()
    }
    fn nics(&self, names: &[String]) -> Result<NetAnswers, HostError> {
        self.0.nics(names)
    }
    fn write_attribute(&self, path: &Path, value: &str) -> Result<(), HostError> {
        self.0.write_attribute(path, value)
    }
    fn install(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), HostError> {
        self.0.install(path, bytes, mode)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
        self.0.append(path, bytes)
    }
    fn remove(&self, path: &Path) -> Result<(), HostError> {
        self.0.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), HostError> {
        self.0.rename(from, to)
    }
    fn create_dir(&self, path: &Path, mode: u32) -> Result<(), HostError> {
        self.0.create_dir(path, mode)
    }
    fn sync(&self, path: &Path) -> Result<(), HostError> {
        self.0.sync(path)
    }
    fn free_space(&self, path: &Path) -> Result<ByteSize, HostError> {
        self.0.free_space(path)
    }
    fn has_program(&self, program: &str) -> bool {
        self.0.has_program(program)
    }
    fn run(&self, command: &Command) -> Result<Output, HostError> {
        self.0.run(command)
    }
    fn lock(&self, path: &Path, patience: Duration) -> Result<Box<dyn Lock>, HostError> {
        self.0.lock(path, patience)
    }
    fn now(&self) -> SystemTime {
        self.0.now()
    }
    fn sleep(&self, time: Duration) {
        self.0.sleep(time);
    }
    fn is_root(&self) -> bool {
        self.0.is_root()
    }
}
