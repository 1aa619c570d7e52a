//! [`Machine`] and [`Hypervisor`] of the fake: every effect is counted, may fail by order, and
//! then happens in the [`World`].

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bmslice_model::ByteSize;
use rustix::io::Errno;

use super::faults::{Failure, Moment, Verdict};
use super::tree::Tree;
use super::world::World;
use super::{FakeMachine, gone, hold};
use crate::ethtool::{EthtoolRequest, NetAnswers, NicAnswers};
use crate::machine::{
    Command, DomainPins, DomainState, HostError, Hypervisor, Lock, Machine, Output, Version,
};
use crate::netlink::attribute;
use crate::root::Root;

/// 2026-01-01: the fake's clock starts here.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// Left by an install that was cut short; the process id is above any that Linux gives.
const UNFINISHED: &str = ".5000000-0.bmslice-new";

/// How much of an effect takes place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Half,
}

impl FakeMachine {
    /// An effect: counted, and cut short or refused as ordered.
    fn effect<T>(
        &self,
        line: String,
        refuse: impl Fn(Failure) -> HostError,
        act: impl FnOnce(&mut World, Extent) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let verdict = self.faults().effect(line.clone());
        let (moment, error) = match verdict {
            Verdict::Normal => return act(&mut self.world(), Extent::Whole),
            Verdict::Fail(moment, failure) => (moment, refuse(failure)),
            Verdict::Crash(moment) => {
                // The kernel drops the lock of a process that ends.
                hold(&self.holder).1 = None;
                (moment, gone(line))
            }
        };
        match moment {
            Moment::Before => {}
            Moment::Half => drop(act(&mut self.world(), Extent::Half)),
            Moment::After => drop(act(&mut self.world(), Extent::Whole)),
        }
        Err(error)
    }

    fn file(
        &self,
        action: &'static str,
        path: &Path,
        line: String,
        act: impl FnOnce(&mut World, Extent) -> Result<(), Errno>,
    ) -> Result<(), HostError> {
        let error = |source| HostError::file(action, path, source);
        self.effect(
            line,
            |failure| {
                error(match failure {
                    Failure::Errno(errno) => errno.into(),
                    Failure::Says(text) => io::Error::other(text),
                })
            },
            |world, extent| {
                if !world.is_root {
                    return Err(error(Errno::ACCESS.into()));
                }
                act(world, extent).map_err(|errno| error(errno.into()))
            },
        )
    }

    /// A request to libvirt.
    fn ask<T>(
        &self,
        action: String,
        line: String,
        act: impl FnOnce(&mut World) -> Result<T, String>,
    ) -> Result<T, HostError> {
        let error = |message| HostError::Hypervisor {
            action: action.clone(),
            message,
        };
        self.effect(
            format!("libvirt {line}"),
            |failure| error(said(failure)),
            |world, extent| match extent {
                Extent::Half => Err(error(String::new())),
                Extent::Whole if !world.libvirtd => {
                    Err(error("internal error: client socket is closed".into()))
                }
                Extent::Whole => act(world).map_err(error),
            },
        )
    }

    /// A question to libvirt: not counted, but a crashed process has no answer.
    fn question<T>(
        &self,
        action: String,
        act: impl FnOnce(&World) -> Result<T, String>,
    ) -> Result<T, HostError> {
        if self.crashed() {
            return Err(gone(action));
        }
        let world = self.world();
        if !world.libvirtd {
            return Err(HostError::Hypervisor {
                action,
                message: "internal error: client socket is closed".into(),
            });
        }
        act(&world).map_err(|message| HostError::Hypervisor { action, message })
    }
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Errno(errno) => {
            let text = io::Error::from(errno).to_string();
            text.split(" (os error").next().unwrap_or_default().into()
        }
        Failure::Says(text) => text,
    }
}

/// `/sys` and `/proc` take no new files; only their attributes are written.
fn on_disk(path: &Path) -> Result<(), Errno> {
    if path.starts_with("/sys") {
        Err(Errno::ACCESS)
    } else if path.starts_with("/proc") {
        Err(Errno::NOENT)
    } else {
        Ok(())
    }
}

fn room(world: &World, bytes: &[u8]) -> Result<(), Errno> {
    if world.disk_full || bytes.len() as u64 > world.server.disk_free.bytes() {
        Err(Errno::NOSPC)
    } else {
        Ok(())
    }
}

/// Clears what an install that was cut short left, as the live one does.
fn clear_unfinished(tree: &Tree, path: &Path) {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(UNFINISHED);
    tree.remove(path.with_file_name(name));
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Released when it is dropped, unless the process has crashed since and another took it.
struct FakeLock {
    holder: std::sync::Arc<std::sync::Mutex<(u64, Option<String>)>>,
    number: u64,
}

impl Lock for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut holder = hold(&self.holder);
        if holder.0 == self.number {
            holder.1 = None;
        }
    }
}

impl Machine for FakeMachine {
    fn root(&self) -> &Root {
        &self.root
    }

    fn write_attribute(&self, path: &Path, value: &str) -> Result<(), HostError> {
        let line = format!("write {} {}", path.display(), value.trim_end());
        self.file("write", path, line, |world, extent| match extent {
            Extent::Half => Ok(()),
            Extent::Whole => world.write_attribute(path, value),
        })
    }

    fn install(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), HostError> {
        let line = format!("install {}", path.display());
        self.file("write", path, line, |world, extent| {
            on_disk(path)?;
            clear_unfinished(&world.tree, path);
            if extent == Extent::Half {
                let mut name = std::ffi::OsString::from(".");
                name.push(path.file_name().unwrap_or_default());
                name.push(UNFINISHED);
                let half = &bytes[..bytes.len() / 2];
                world.tree.put(path.with_file_name(name), half, mode);
                return Ok(());
            }
            if world.tree.at(path).is_dir() {
                return Err(Errno::ISDIR);
            }
            room(world, bytes)?;
            world.tree.put(path, bytes, mode);
            Ok(())
        })
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), HostError> {
        let line = format!("append {}", path.display());
        self.file("append to", path, line, |world, extent| {
            on_disk(path)?;
            room(world, bytes)?;
            let bytes = match extent {
                Extent::Half => &bytes[..bytes.len() / 2],
                Extent::Whole => bytes,
            };
            if !world.tree.exists(path) {
                world.tree.put(path, bytes, 0o600);
                return Ok(());
            }
            std::fs::OpenOptions::new()
                .append(true)
                .open(world.tree.at(path))
                .and_then(|mut file| io::Write::write_all(&mut file, bytes))
                .map_err(errno)
        })
    }

    fn remove(&self, path: &Path) -> Result<(), HostError> {
        let line = format!("remove {}", path.display());
        self.file("remove", path, line, |world, extent| {
            if extent == Extent::Half {
                return Ok(());
            }
            clear_unfinished(&world.tree, path);
            if world.tree.at(path).symlink_metadata().is_err() {
                return Ok(());
            }
            on_disk(path)?;
            if world.tree.at(path).is_dir() {
                return Err(Errno::ISDIR);
            }
            world.tree.remove(path);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), HostError> {
        let line = format!("rename {} {}", from.display(), to.display());
        self.file("rename", from, line, |world, extent| {
            on_disk(from).and(on_disk(to))?;
            if extent == Extent::Half {
                return Ok(());
            }
            std::fs::rename(world.tree.at(from), world.tree.at(to)).map_err(errno)
        })
    }

    fn create_dir(&self, path: &Path, mode: u32) -> Result<(), HostError> {
        let line = format!("create_dir {}", path.display());
        self.file("make the folder", path, line, |world, extent| {
            if path.starts_with("/sys") && !world.tree.exists(path) {
                return Err(Errno::PERM);
            }
            on_disk(path)?;
            if extent == Extent::Half || world.tree.at(path).is_dir() {
                return Ok(());
            }
            room(world, &[])?;
            if world.tree.exists(path) {
                return Err(Errno::EXIST);
            }
            world.tree.dir(path);
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(world.tree.at(path), mode).map_err(errno)
        })
    }

    fn sync(&self, path: &Path) -> Result<(), HostError> {
        let line = format!("sync {}", path.display());
        self.file("sync", path, line, |world, _| {
            if world.tree.exists(path) {
                Ok(())
            } else {
                Err(Errno::NOENT)
            }
        })
    }

    fn free_space(&self, path: &Path) -> Result<ByteSize, HostError> {
        if self.crashed() {
            return Err(gone(format!("ask the free space of {}", path.display())));
        }
        let world = self.world();
        Ok(if world.disk_full {
            ByteSize::ZERO
        } else {
            world.server.disk_free
        })
    }

    fn has_program(&self, program: &str) -> bool {
        hold(&self.scripts).contains_key(program)
            || self
                .world()
                .server
                .programs
                .iter()
                .any(|name| name == program)
    }

    fn run(&self, command: &Command) -> Result<Output, HostError> {
        let program = command.program.to_string_lossy().into_owned();
        let failed = |(status, stderr): (i32, String)| HostError::Failed {
            command: command.to_string(),
            status: format!("exit status {status}"),
            stderr,
        };
        let known = self.has_program(&program);
        let scripts = hold(&self.scripts);
        self.effect(
            format!("run {command}"),
            |failure| failed((1, said(failure))),
            |world, extent| {
                if !known {
                    return Err(HostError::NotStarted {
                        program: program.clone(),
                        source: Errno::NOENT.into(),
                    });
                }
                let answer = match scripts.get(&program) {
                    Some(script) if extent == Extent::Whole => script(command),
                    Some(_) => Ok(String::new()),
                    None => {
                        let args: Vec<String> = command
                            .args
                            .iter()
                            .map(|arg| arg.to_string_lossy().into_owned())
                            .collect();
                        world.command(&program, &args, extent == Extent::Half)
                    }
                };
                let stdout = answer.map_err(failed)?;
                Ok(Output {
                    stdout,
                    stderr: String::new(),
                })
            },
        )
    }

    fn lock(&self, path: &Path, patience: Duration) -> Result<Box<dyn Lock>, HostError> {
        if self.crashed() {
            return Err(gone(format!("lock {}", path.display())));
        }
        let mut world = self.world();
        if !world.is_root {
            return Err(HostError::file("lock", path, Errno::ACCESS.into()));
        }
        let mut holder = hold(&self.holder);
        if let Some(holder) = &holder.1 {
            world.clock += patience;
            return Err(HostError::Locked {
                holder: holder.clone(),
            });
        }
        holder.0 += 1;
        holder.1 = Some(std::process::id().to_string());
        world.tree.put(path, "", 0o644);
        Ok(Box::new(FakeLock {
            holder: self.holder.clone(),
            number: holder.0,
        }))
    }

    /// Tells the queues of each: `ETHTOOL_A_CHANNELS_COMBINED_MAX` (5) and `…_COUNT` (9).
    fn nics(&self, names: &[String]) -> Result<NetAnswers, HostError> {
        let world = self.world();
        let told = names.iter().map(|name| {
            let function = world.interface(name);
            let queues =
                function.and_then(|f| Some((world.most_queues(f), f.net.as_ref()?.queues)));
            let channels = queues.map(|(most, now)| {
                let number = |kind, value: u32| attribute(kind, &value.to_ne_bytes());
                (
                    EthtoolRequest::Channels,
                    [number(5, most), number(9, now)].concat(),
                )
            });
            NicAnswers {
                name: name.clone(),
                ethtool: channels.into_iter().collect(),
                driver: None,
                permanent: None,
            }
        });
        Ok(NetAnswers {
            nics: told.collect(),
            devlink: Vec::new(),
        })
    }

    fn hypervisor(&self) -> Result<Box<dyn Hypervisor + '_>, HostError> {
        let action = "connect to `qemu:///system`".to_owned();
        if self.crashed() {
            return Err(gone(action));
        }
        let world = self.world();
        let socket = "Failed to connect socket to '/var/run/libvirt/libvirt-sock'";
        let message = match (world.libvirtd, world.is_root) {
            (true, true) => return Ok(Box::new(FakeLibvirt { machine: self })),
            (true, false) => format!("{socket}: Permission denied"),
            (false, _) => format!("{socket}: No such file or directory"),
        };
        Err(HostError::Hypervisor { action, message })
    }

    fn now(&self) -> SystemTime {
        let mut world = self.world();
        // A loop that looks at the clock without sleeping must still see its deadline.
        world.clock += Duration::from_millis(1);
        SystemTime::UNIX_EPOCH + EPOCH + world.clock
    }

    fn sleep(&self, time: Duration) {
        let mut world = self.world();
        world.clock += time;
        world.settle_links();
    }

    fn is_root(&self) -> bool {
        self.world().is_root
    }
}

/// A connection to the fake's libvirt.
struct FakeLibvirt<'a> {
    machine: &'a FakeMachine,
}

impl Hypervisor for FakeLibvirt<'_> {
    fn versions(&self) -> Result<(Version, Option<Version>), HostError> {
        let action = "tell its version".into();
        self.machine
            .question(action, |_| Ok(((9, 0, 0), Some((7, 2, 17)))))
    }

    fn capabilities(&self) -> Result<String, HostError> {
        let action = "tell its capabilities".into();
        self.machine
            .question(action, |world| Ok(world.capabilities()))
    }

    fn domains(&self) -> Result<Vec<DomainState>, HostError> {
        let action = "list the domains".into();
        self.machine.question(action, |world| Ok(world.list()))
    }

    fn xml(&self, name: &str, inactive: bool) -> Result<String, HostError> {
        let action = format!("describe the domain `{name}`");
        self.machine
            .question(action, |world| world.describe(name, inactive))
    }

    fn pins(&self, name: &str) -> Result<DomainPins, HostError> {
        let action = format!("tell the pins of the domain `{name}`");
        self.machine.question(action, |world| world.pins(name))
    }

    fn define(&self, xml: &str) -> Result<(), HostError> {
        let name = super::domain::name(xml);
        self.machine.ask(
            "define the domain".into(),
            format!("define {name}"),
            |world| world.define(xml),
        )
    }

    fn undefine(&self, name: &str) -> Result<(), HostError> {
        self.machine.ask(
            format!("undefine the domain `{name}`"),
            format!("undefine {name}"),
            |world| world.undefine(name),
        )
    }

    fn start(&self, name: &str) -> Result<(), HostError> {
        self.machine.ask(
            format!("start the domain `{name}`"),
            format!("start {name}"),
            |world| world.start(name),
        )
    }

    fn shutdown(&self, name: &str) -> Result<(), HostError> {
        self.machine.ask(
            format!("shut the domain `{name}` down"),
            format!("shutdown {name}"),
            |world| world.shutdown(name),
        )
    }

    fn destroy(&self, name: &str) -> Result<(), HostError> {
        self.machine.ask(
            format!("stop the domain `{name}`"),
            format!("destroy {name}"),
            |world| world.destroy(name),
        )
    }

    fn set_autostart(&self, name: &str, on: bool) -> Result<(), HostError> {
        self.machine.ask(
            format!("set the autostart of the domain `{name}`"),
            format!("autostart {name} {}", if on { "on" } else { "off" }),
            |world| world.set_autostart(name, on),
        )
    }

    fn reattach(&self, nodedev: &str) -> Result<(), HostError> {
        self.machine.ask(
            format!("give the device `{nodedev}` back to the host"),
            format!("reattach {nodedev}"),
            |world| world.reattach(nodedev),
        )
    }
}
