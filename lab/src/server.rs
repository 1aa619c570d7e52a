//! The server itself: power on, wait, power off, back to pristine.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::accel;
use crate::esp::{self, EspError};
use crate::fabric::{self, FabricError};
use crate::image::{self, Image, ImageError};
use crate::network::Network;
use crate::progress::say;
use crate::qemu::{Accel, CONSOLE_LOG, DISK, Loader, Machine, QMP_SOCKET};
use crate::run::{Process, RunError, command, run};
use crate::ssh::{self, SshError};
use crate::state::{State, StateError};
use crate::topology::Topology;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "the server runs as {running} ({running_nodes} nodes), not as {asked} ({asked_nodes} nodes); \
         `bmslice-lab stop` it first"
    )]
    OtherTopology {
        running: Topology,
        running_nodes: u32,
        asked: Topology,
        asked_nodes: u32,
    },
    #[error(
        "the server that runs is booted by {running}, not by {asked}; `bmslice-lab stop` it first"
    )]
    OtherLoader {
        running: &'static str,
        asked: &'static str,
    },
    #[error("QEMU ended at once: {0}")]
    Qemu(String),
    #[error("a file of the server, `{path}`, could not be used")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Esp(#[from] EspError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Fabric(#[from] FabricError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// A boot under emulation on a busy machine; far above what was measured.
const BOOT_LIMIT: Duration = Duration::from_secs(420);

/// Brings everything up and returns when ssh answers. What is already there is left as it is.
pub fn start(
    state: &mut State,
    topology: Topology,
    accel: Option<Accel>,
    loader: Option<Loader>,
) -> Result<(), ServerError> {
    if let (Some(qemu), Some(running)) = (state.qemu(), state.record.topology) {
        if running != topology {
            return Err(ServerError::OtherTopology {
                running,
                running_nodes: running.nodes,
                asked: topology,
                asked_nodes: topology.nodes,
            });
        }
        if let Some(asked) = loader.filter(|asked| *asked != state.record.loader) {
            return Err(ServerError::OtherLoader {
                running: state.record.loader.name(),
                asked: asked.name(),
            });
        }
        say(&format!("the server ({running}) is running"));
        return wait(state, &qemu);
    }
    state.record.qemu = None;
    let image = overlay_image(state)?;
    ssh::ensure_keys(state)?;
    let accel = choose(state, &image, accel);
    make_overlay(state, &image)?;
    let loader = loader.unwrap_or_default();
    if loader == Loader::SystemdBoot {
        esp::ensure(state, &image)?;
    }
    state.record.loader = loader;
    state.record.topology = Some(topology);
    state.record.accel = Some(accel);
    state.save()?;

    say(&format!("fabric: {} ports", topology.nics().len()));
    let up = fabric::up(state, &topology);
    state.save()?;
    up?;

    let qemu = boot(state, topology, accel)?;
    match wait(state, &qemu) {
        Err(ServerError::Ssh(SshError::Ended(_))) if said_assertion(state) => {
            say(
                "QEMU ended by an assertion of its own, which it does once in a while; starting again",
            );
            let qemu = boot(state, topology, accel)?;
            wait(state, &qemu)
        }
        done => done,
    }
}

/// The image under the overlay: the recipe's, unless an overlay on an older one exists.
fn overlay_image(state: &State) -> Result<Image, ServerError> {
    if state.path(DISK).exists()
        && let Some(old) = &state.record.disk_image
        && *old != image::digest()
        && let Some(image) = Image::find(state, old)
    {
        say("the server's disk is of an older recipe; `bmslice-lab reset` takes the new one");
        return Ok(image);
    }
    Ok(image::ensure(state)?)
}

fn make_overlay(state: &mut State, image: &Image) -> Result<(), ServerError> {
    let disk = state.path(DISK);
    if disk.exists() && state.record.disk_image.as_deref() == Some(&image.digest) {
        return Ok(());
    }
    // A path from the overlay's own folder: the state folder can be moved.
    let backing = format!("images/{}/server.raw", image.digest);
    run(command(
        "qemu-img",
        [
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &backing, DISK,
        ],
    )
    .current_dir(&state.folder))?;
    state.record.disk_image = Some(image.digest.clone());
    Ok(())
}

fn choose(state: &mut State, image: &Image, asked: Option<Accel>) -> Accel {
    if let Some(accel) = asked {
        return accel;
    }
    let probed = state
        .record
        .probed
        .clone()
        .unwrap_or_else(|| accel::probe(image));
    say(&format!(
        "accelerator {}: {}",
        probed.accel.name(),
        probed.why
    ));
    state.record.probed = Some(probed.clone());
    probed.accel
}

fn boot(state: &mut State, topology: Topology, accel: Accel) -> Result<Process, ServerError> {
    let file = |name: &str| {
        let path = state.path(name);
        File::create(&path).map_err(|source| ServerError::File { path, source })
    };
    let log = file("qemu.log")?;
    let both = log.try_clone().map_err(|source| ServerError::File {
        path: state.path("qemu.log"),
        source,
    })?;
    file(CONSOLE_LOG)?;
    let mut qemu = Network::of(state).command("qemu-system-x86_64");
    let machine = Machine {
        topology,
        accel,
        loader: state.record.loader,
    };
    qemu.args(machine.arguments());
    qemu.current_dir(&state.folder);
    // A group of its own: the terminal's interrupt key is for this command, not for the server.
    qemu.process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(both);
    say(&format!(
        "power on: {topology}, {} nodes, {} threads, {} of memory, {}",
        topology.nodes,
        topology.cpus(),
        topology.memory(),
        accel.name()
    ));
    let mut child = qemu.spawn().map_err(|source| RunError::Start {
        program: "nsenter".to_owned(),
        source,
    })?;
    let process = Process::find(child.id().cast_signed());
    state.record.qemu = process;
    state.save()?;
    // What is wrong with its arguments or files, QEMU says at once.
    std::thread::sleep(Duration::from_millis(500));
    match (process, child.try_wait()) {
        (Some(process), Ok(None)) => Ok(process),
        _ => Err(ServerError::Qemu(qemu_said(state))),
    }
}

/// QEMU's own words, without the warning that every start has.
fn qemu_said(state: &State) -> String {
    let text = fs::read_to_string(state.path("qemu.log")).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("doesn't support hyperthreading"))
        .collect();
    lines.join("; ")
}

fn said_assertion(state: &State) -> bool {
    qemu_said(state).contains("Assertion")
}

fn wait(state: &State, qemu: &Process) -> Result<(), ServerError> {
    let start = Instant::now();
    ssh::wait(state, qemu, BOOT_LIMIT, |seconds| {
        let line = last_console_line(state).unwrap_or_default();
        say(&format!("booting for {seconds} s: {line}"));
    })?;
    say(&format!(
        "ssh answers after {} s",
        start.elapsed().as_secs()
    ));
    Ok(())
}

/// The last thing on the console, without its colours.
pub fn last_console_line(state: &State) -> Option<String> {
    let text = fs::read(state.path(CONSOLE_LOG)).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .rev()
        .map(plain)
        .find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(100).collect())
}

/// Text without escape sequences.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            if characters.next_if_eq(&'[').is_some() {
                for next in characters.by_ref() {
                    if next.is_ascii_alphabetic() {
                        break;
                    }
                }
            }
        } else if !character.is_control() {
            out.push(character);
        }
    }
    out
}

/// Powers the server off: asks its system, and pulls the plug when that takes too long, or `now`.
pub fn stop(state: &mut State, now: bool) -> Result<(), ServerError> {
    let Some(qemu) = state.qemu() else {
        say("the server is down");
        return Ok(());
    };
    if !now {
        say("asking the server to power off");
        let mut poweroff = ssh::ssh(state)?;
        poweroff.args(["-o", "ConnectTimeout=5", "systemctl", "poweroff"]);
        let asked = run(&mut poweroff);
        let limit = if asked.is_ok() { 60 } else { 5 };
        if !qemu.wait(Duration::from_secs(limit)) {
            say("it takes too long; pulling the plug");
        }
    }
    if qemu.alive() {
        // A QEMU that does not listen is ended by signal.
        let _deaf = quit(state);
        qemu.wait(Duration::from_secs(5));
        qemu.end();
    }
    state.record.qemu = None;
    state.save()?;
    say("the server is off");
    Ok(())
}

/// Tells QEMU to end, which flushes what it holds of the disk.
fn quit(state: &State) -> std::io::Result<()> {
    // By the folder's descriptor: a socket's path has room for 108 bytes only.
    let folder = File::open(&state.folder)?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&folder);
    let stream = UnixStream::connect(format!("/proc/self/fd/{descriptor}/{QMP_SOCKET}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    lines.next().transpose()?;
    for request in ["qmp_capabilities", "quit"] {
        writeln!(stream, "{{\"execute\":\"{request}\"}}")?;
        lines.next().transpose()?;
    }
    Ok(())
}

/// Back to the first boot: a new overlay; images, keys and the fabric stay.
pub fn reset(state: &mut State) -> Result<(), ServerError> {
    stop(state, true)?;
    let disk = state.path(DISK);
    if disk.exists() {
        fs::remove_file(&disk).map_err(|source| ServerError::File { path: disk, source })?;
    }
    esp::remove(state)?;
    state.record.disk_image = None;
    match state.record.topology {
        Some(topology) if fabric::is_up(state) => {
            for nic in topology.nics() {
                fabric::set_vlan(state, &topology, &nic.port(), None)?;
            }
        }
        // Nothing is left that has this shape: who starts next gets the usual one.
        _ => state.record.topology = None,
    }
    state.save()?;
    say("the next start boots a pristine server");
    Ok(())
}

/// Ends everything that the lab started.
pub fn down(state: &mut State, now: bool) -> Result<(), ServerError> {
    stop(state, now)?;
    fabric::down(state)?;
    state.save()?;
    say("the switch and the lab's network are gone; the disk and the image are kept");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_that_is_down_and_reset_has_no_shape_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        state.record.topology =
            Some(Topology::new("1x4x1".parse().unwrap(), None, None, None).unwrap());
        state.save().unwrap();
        reset(&mut state).unwrap();
        drop(state);
        assert_eq!(
            State::open(folder.path()).unwrap().record.topology,
            None,
            "the next start makes the usual server"
        );
    }

    #[test]
    fn a_console_line_is_plain() {
        assert_eq!(plain("\u{1b}[0;31m*\u{1b}[0m Job\r"), "* Job");
    }
}
