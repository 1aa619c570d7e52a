//! A server that is not there: a folder that *reacts* as Linux, GRUB, systemd, QEMU's tools and
//! libvirt do, with faults to order.
//!
//! ```
//! use std::path::Path;
//! use bmslice_host::{Machine, fake::{FakeMachine, FakeServer, Moment, On}};
//!
//! let fake = FakeMachine::new(FakeServer::lab());
//! let numvfs = Path::new("/sys/bus/pci/devices/0000:81:00.0/sriov_numvfs");
//! fake.write_attribute(numvfs, "2").unwrap();
//! assert!(fake.root().exists("/sys/bus/pci/devices/0000:81:10.2"));
//! // As the kernel has it: from 2 to 3 only by way of 0.
//! let error = fake.write_attribute(numvfs, "3").unwrap_err();
//! assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ResourceBusy));
//!
//! // kill -9 right after the next effect:
//! fake.crash(On::Nth(1), Moment::After);
//! assert!(fake.write_attribute(numvfs, "0").is_err());
//! assert!(fake.crashed());
//! fake.revive();
//! assert_eq!(fake.root().attribute(numvfs).as_deref(), Some("0"));
//! ```
//!
//! * **Reading** goes through [`Machine::root`] and meets plain files, as in a captured tree.
//! * **Effects** ([`Machine`]'s writing methods, commands, requests to libvirt) are counted from 1
//!   and logged as text ([`FakeMachine::effects`]): `write /sys/… 2`, `install /etc/…`,
//!   `append /var/…`, `run update-grub`, `libvirt start blue`.
//! * **Faults** name an effect by number or by a part of its text, and a [`Moment`]: before it, half
//!   of it, after it. [`FakeMachine::fail`] makes it answer with an error; [`FakeMachine::crash`]
//!   ends the process: everything answers [`HostError::Gone`] and the lock is free, until
//!   [`FakeMachine::revive`]. `for n in 1.. { crash(On::Nth(n), …); apply; revive(); apply }` is
//!   every boundary.
//! * **Bad days**: [`FakeMachine::stop_libvirtd`], [`FakeMachine::fill_disk`],
//!   [`FakeMachine::become_user`], [`FakeMachine::uninstall`], [`FakeMachine::hold_lock`].
//! * **Reboot**: [`FakeMachine::reboot`] boots what `grub.cfg` or systemd-boot's entries say; VFs, huge pages made at run
//!   time and guests are gone, autostarted domains start again, after a closure that stands for the
//!   units that run before libvirtd. A kernel with `rdinit=/nonexistent` panics, and one with
//!   `module_blacklist=` lacks the NICs of those drivers.
//! * **The administrator's hand**: [`FakeMachine::put`], [`FakeMachine::vcpupin`],
//!   [`FakeMachine::rebind`], [`FakeMachine::act_out`] for a program that the fake does not know.
//!
//! Its clock moves by [`Machine::sleep`] (and a little at each look), so no test waits.

mod attributes;
mod blscfg;
mod cgroup;
mod commands;
mod domain;
mod drivers;
mod env_block;
mod faults;
mod grub;
mod grub_script;
mod images;
mod libvirt;
mod link;
mod machine;
mod media;
mod memory;
mod ostree;
mod pci;
mod quiet;
mod sd_boot;
mod server;
mod threads;
mod tree;
mod world;
mod xml;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bmslice_model::{ByteSize, CpuSet, PciAddress};
use tempfile::TempDir;

pub use faults::{Failure, Moment, On};
pub use media::Iso;
pub use pci::VfSettings;
pub use rustix::io::Errno;
pub use server::{
    FakeDisk, FakeIommu, FakeLoader, FakeNic, FakeServer, FakeSriov, Numbering, PROGRAMS,
};

use faults::Faults;
use world::World;

use crate::machine::{Command, HostError, Machine};
use crate::root::Root;

/// A program of the test's own: standard output, or exit status and standard error.
pub type Script = Box<dyn Fn(&Command) -> Result<String, (i32, String)> + Send>;

/// A fake server. See the [module](self).
pub struct FakeMachine {
    root: Root,
    world: Mutex<World>,
    faults: Mutex<Faults>,
    scripts: Mutex<BTreeMap<String, Script>>,
    /// Who holds the lock: a text for the message, and a number that tells one holding from the
    /// next.
    holder: Arc<Mutex<(u64, Option<String>)>>,
    _dir: TempDir,
}

impl std::fmt::Debug for FakeMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeMachine")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere has its own report.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeMachine {
    /// A server of this description, installed and booted once.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new(server: FakeServer) -> Self {
        // Two thousand small files: in memory where there is such a place.
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a temporary folder can be made");
        let world = World::new(dir.path(), server);
        Self {
            root: Root::open(dir.path()).expect("the folder was just made"),
            world: Mutex::new(world),
            faults: Mutex::default(),
            scripts: Mutex::default(),
            holder: Arc::default(),
            _dir: dir,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = hold(&self.world);
        world.settle_guests();
        world
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        hold(&self.faults)
    }

    /// Every effect so far, in order, those that failed too.
    #[must_use]
    pub fn effects(&self) -> Vec<String> {
        self.faults().log().to_vec()
    }

    /// Makes an effect answer with an error.
    pub fn fail(&self, on: On, moment: Moment, failure: Failure) {
        self.faults().fail(on, moment, failure);
    }

    /// Ends the process at an effect, as `kill -9` or a power cut would.
    pub fn crash(&self, on: On, moment: Moment) {
        self.faults().crash(on, moment);
    }

    /// Has two cards of one kind change places while the server is off: from the next boot on, each
    /// has the other's address and name.
    ///
    /// # Panics
    /// When there is no such card.
    pub fn swap_cards(&self, one: &str, other: &str) {
        let mut world = self.world();
        let nics = &mut world.server.nics;
        let at = |name: &str| nics.iter().position(|nic| nic.name == name);
        let (one, other) = (at(one).expect("a card"), at(other).expect("a card"));
        let mac = std::mem::take(&mut nics[one].mac);
        nics[one].mac = std::mem::replace(&mut nics[other].mac, mac);
    }

    /// Whether a crash has come.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.faults().crashed
    }

    /// Starts the process anew; faults that have not come yet stay.
    pub fn revive(&self) {
        self.faults().crashed = false;
        hold(&self.holder).1 = None;
    }

    /// Takes back every fault that has not come, and frees the disk.
    pub fn heal(&self) {
        self.faults().heal();
        self.world().disk_full = false;
    }

    /// Fills the root file system: no byte more can be written to it.
    pub fn fill_disk(&self) {
        self.world().disk_full = true;
    }

    /// What the root file system has left.
    pub fn set_free_space(&self, size: ByteSize) {
        self.world().server.disk_free = size;
    }

    /// libvirtd goes away; its guests run on.
    pub fn stop_libvirtd(&self) {
        self.world().libvirtd = false;
    }

    /// libvirtd comes back.
    pub fn start_libvirtd(&self) {
        self.world().libvirtd = true;
    }

    /// The process runs without root's rights from here on.
    pub fn become_user(&self) {
        self.world().is_root = false;
    }

    /// Takes a program away.
    pub fn uninstall(&self, program: &str) {
        let mut world = self.world();
        world.server.programs.retain(|name| name != program);
        world.tree.remove(format!("/usr/sbin/{program}"));
    }

    /// A program of the test's own, instead of the fake's.
    pub fn act_out(
        &self,
        program: &str,
        script: impl Fn(&Command) -> Result<String, (i32, String)> + Send + 'static,
    ) {
        hold(&self.scripts).insert(program.to_owned(), Box::new(script));
    }

    /// Another process takes the lock, until [`FakeMachine::revive`].
    pub fn hold_lock(&self, holder: &str) {
        let mut lock = hold(&self.holder);
        lock.0 += 1;
        lock.1 = Some(holder.to_owned());
    }

    /// A file of the administrator's, mode 0644.
    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) {
        self.put_with_mode(path, bytes, 0o644);
    }

    /// A file of the administrator's with a mode.
    pub fn put_with_mode(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) {
        self.world().tree.put(path, bytes, mode);
    }

    /// The administrator removes a file or folder.
    pub fn delete(&self, path: &str) {
        self.world().tree.remove(path);
    }

    /// A qcow2 image of this virtual size that holds `content` bytes.
    pub fn add_image(&self, path: &str, size: ByteSize, content: ByteSize) {
        let world = self.world();
        world.tree.put(path, [], 0o644);
        images::write(&world.tree, path, size.bytes(), None, content.bytes());
    }

    /// Volume name and files of an ISO that was made here.
    #[must_use]
    pub fn iso(&self, path: &str) -> Option<Iso> {
        media::iso(&self.world().tree, path)
    }

    /// From its next start on, no agent answers in this guest, and this is all that it writes to
    /// its console.
    pub fn without_agent(&self, domain: &str, console: &str) {
        let mut world = self.world();
        world.without_agent.insert(domain.into(), console.into());
    }

    /// How long a link takes from now on until both ends have agreed, once its interface is set up.
    pub fn link_takes(&self, time: std::time::Duration) {
        self.world().link_takes = time;
    }

    /// What is set of a VF, by the name of its physical function's interface.
    #[must_use]
    pub fn vf(&self, interface: &str, index: u16) -> Option<VfSettings> {
        let mut world = self.world();
        let pf = world.interface(interface)?.address;
        world.vf_settings(pf, index).cloned()
    }

    /// The driver of a PCI function.
    #[must_use]
    pub fn driver(&self, address: PciAddress) -> Option<String> {
        self.world().functions.get(&address)?.driver.clone()
    }

    /// Another administrator gives a function to another driver (`vfio-pci`), or back with `None`.
    pub fn rebind(&self, address: PciAddress, driver: Option<&str>) {
        let mut world = self.world();
        if let Some(driver) = driver {
            world.add_driver(driver);
        }
        let _ = world.write_override(address, driver.unwrap_or("\n"));
        world.let_go(address);
        let _ = world.probe(address);
    }

    /// Devices that a running guest lost because somebody took them away.
    #[must_use]
    pub fn lost_devices(&self, domain: &str) -> Vec<PciAddress> {
        let world = self.world();
        let live = world.domains.get(domain).and_then(|d| d.live.as_ref());
        live.map(|live| live.lost.clone()).unwrap_or_default()
    }

    /// `virsh vcpupin DOMAIN VCPU CPUS --live` by somebody's hand.
    pub fn vcpupin(&self, domain: &str, vcpu: usize, cpus: &CpuSet) {
        let mut world = self.world();
        let World { tree, domains, .. } = &mut *world;
        if let Some(domain) = domains.get_mut(domain) {
            if let Some(live) = &mut domain.live
                && let Some(pin) = live.pins.vcpus.get_mut(vcpu)
            {
                pin.clone_from(cpus);
            }
            if let Some(live) = &domain.live {
                threads::show(tree, domain, live);
            }
        }
    }

    /// Whether `systemctl reboot` was asked for and has not come yet.
    #[must_use]
    pub fn reboot_requested(&self) -> bool {
        self.world().reboot_requested
    }

    /// How often the server hung on its way up, so that somebody had to cycle its power.
    #[must_use]
    pub fn power_cycles(&self) -> u32 {
        self.world().power_cycles
    }

    /// Names of the units that are enabled.
    #[must_use]
    pub fn enabled_units(&self) -> Vec<String> {
        self.world().enabled_units()
    }

    /// Reboots; what was asked of libvirt to start with the host does, and what could not is
    /// returned with libvirt's words.
    pub fn reboot(&self) -> Vec<(String, String)> {
        self.reboot_with(|_| {})
    }

    /// Reboots, with what the units do that come before libvirtd.
    pub fn reboot_with(&self, before_libvirtd: impl FnOnce(&Self)) -> Vec<(String, String)> {
        {
            // What ends with a crash of ours may be a power cut: nobody shuts down then.
            let shuts_down = !self.crashed();
            let mut world = self.world();
            if shuts_down {
                world.finalize_staged();
            }
            for domain in world.domains.values_mut() {
                domain.live = None;
            }
            world
                .domains
                .retain(|_, domain| domain.definition.is_some());
            world.libvirtd = false;
            world.boot();
        }
        self.revive();
        before_libvirtd(self);
        let mut world = self.world();
        world.libvirtd = true;
        world.autostart()
    }

    /// A command as the administrator would type it: neither counted nor failing by order.
    ///
    /// # Errors
    /// Exit status and standard error.
    pub fn type_in(&self, program: &str, args: &[&str]) -> Result<String, (i32, String)> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        self.world().command(program, &args, false)
    }

    /// Everything of the server that an administrator would call his: every file below `/etc` and
    /// `/boot`, the drivers, VFs and huge pages, and the domains. Two of these are equal when what
    /// was done between them has been put back.
    #[must_use]
    pub fn state(&self) -> BTreeMap<String, String> {
        self.world().state()
    }

    /// The time since the fake was made, by its own clock.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.world().clock
    }
}

/// The error of a process that has crashed.
fn gone(action: impl Into<String>) -> HostError {
    HostError::Gone {
        action: action.into(),
    }
}

const _: fn() = || {
    fn is_machine<T: Machine + Send + Sync>() {}
    is_machine::<FakeMachine>();
};
