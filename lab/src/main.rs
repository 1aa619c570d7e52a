//! `bmslice-lab`: an emulated bare-metal server to try `bmslice` on, without hardware.
//!
//! One state folder holds everything; the commands are the life of the server in it.

#![allow(
    clippy::disallowed_methods,
    reason = "the lab builds disks and runs QEMU on the user's own machine; it is not a part of bmslice, and nothing of it runs on a server"
)]

mod accel;
mod apt;
mod check;
mod disk;
mod esp;
mod fabric;
mod image;
mod network;
mod progress;
mod qemu;
mod remove;
mod run;
mod server;
mod slicing;
mod ssh;
mod state;
mod topology;

/// Prints data. A reader that has seen enough and closed the pipe (`head`, `grep -q`) is no error.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = write!(std::io::stdout().lock(), $($text)*);
    }};
}

/// The same, and ends the line.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::image::Image;
use crate::network::Network;
use crate::qemu::{Accel, Loader};
use crate::state::State;
use crate::topology::{Mebibytes, Shape, Topology};

/// An emulated bare-metal server to try bmslice on, without hardware
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The folder that holds all of the lab [default: $BMSLICE_LAB_STATE, or `.lab` in the
    /// repository]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the server's disk and the guest image on it, unless they are there
    Image,
    /// Boot the server and wait until ssh answers; builds the image first if it is missing
    Start(StartArguments),
    /// Power the server off
    Stop {
        /// Pull the plug instead of asking its system
        #[arg(long)]
        now: bool,
    },
    /// Show what runs
    Status {
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Show the server's serial console
    Console {
        /// Go on showing what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Log in, or run a command in the server
    Ssh {
        /// The command; joined by spaces and read by the server's shell, as ssh does
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Copy a file or folder into the server
    Push { from: String, to: String },
    /// Show the switch: its ports and the MAC addresses it has learned
    Fabric {
        #[command(subcommand)]
        action: Option<FabricAction>,
    },
    /// Print a slicing spec that fits the server
    Spec,
    /// Throw the server's disk away; the next start boots a pristine one
    Reset,
    /// End everything that was started and take the switch away; keep disk and image
    Down {
        /// Pull the plug instead of asking the server's system
        #[arg(long)]
        now: bool,
    },
    /// `down`, and delete disk, images and keys: all that the lab made in its state folder
    Purge,
    /// List the Debian packages that the lab needs on this machine
    Packages {
        /// Only those that are not there
        #[arg(long)]
        missing: bool,
    },
    /// Say what this machine lacks to run the lab
    Check(Shapes),
}

#[derive(Subcommand)]
enum FabricAction {
    /// Move a port into another VLAN, as somebody's mistake would
    SetVlan {
        port: String,
        #[arg(value_parser = clap::value_parser!(u16).range(1..=4094))]
        vlan: u16,
    },
    /// Put a port back into its own VLAN
    Restore { port: String },
    /// List the ports with their NICs and VLANs
    Ports,
}

#[derive(Args)]
struct StartArguments {
    #[command(flatten)]
    shapes: Shapes,
    /// What runs the server's CPUs [default: KVM if a probe shows that it works, else TCG]
    #[arg(long, value_enum)]
    accel: Option<Accel>,
    /// What boots it [default: grub]
    #[arg(long, value_enum)]
    loader: Option<Loader>,
}

/// The server's shape; what is not said is as at the last start, or 2x6x2
#[derive(Args)]
struct Shapes {
    /// SOCKETSxCORESxTHREADS, the short form of the three below
    #[arg(long, value_name = "SxCxT", conflicts_with_all = ["sockets", "cores", "threads"])]
    topology: Option<Shape>,
    #[arg(long)]
    sockets: Option<u32>,
    /// Cores of a socket
    #[arg(long)]
    cores: Option<u32>,
    /// Threads of a core
    #[arg(long)]
    threads: Option<u32>,
    /// NUMA nodes [default: as many as sockets]
    #[arg(long)]
    nodes: Option<u32>,
    #[arg(long)]
    nics_per_node: Option<u32>,
    #[arg(long, value_name = "SIZE")]
    memory_per_node: Option<Mebibytes>,
}

impl Shapes {
    /// A shape that is said brings its own defaults; otherwise the last one is kept.
    fn topology(&self, last: Option<Topology>) -> Result<Topology, topology::TopologyError> {
        let base = last.map_or(
            Shape {
                sockets: 2,
                cores: 6,
                threads: 2,
            },
            |last| Shape {
                sockets: last.sockets,
                cores: last.cores,
                threads: last.threads,
            },
        );
        let shape = self.topology.unwrap_or(Shape {
            sockets: self.sockets.unwrap_or(base.sockets),
            cores: self.cores.unwrap_or(base.cores),
            threads: self.threads.unwrap_or(base.threads),
        });
        let last = last.filter(|_| shape == base);
        Topology::new(
            shape,
            self.nodes.or(last.map(|last| last.nodes)),
            self.nics_per_node.or(last.map(|last| last.nics_per_node)),
            self.memory_per_node
                .or(last.map(|last| last.memory_per_node)),
        )
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn act(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = arguments.state.unwrap_or_else(default_state);
    match arguments.command {
        Action::Packages { missing } => {
            let list = if missing {
                check::missing()
            } else {
                check::packages()
            };
            list.iter().for_each(|name| outln!("{name}"));
        }
        Action::Check(shapes) => {
            let state = State::look(&folder)?;
            let topology = shapes.topology(state.record.topology)?;
            let errors = find_errors(&state, topology);
            errors.iter().for_each(|error| eprintln!("error: {error}"));
            if !errors.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            outln!("this machine can run a {topology} server");
        }
        Action::Image => {
            check::root()?;
            let state = State::open(&folder)?;
            refuse(&state, None)?;
            image::ensure(&state)?;
        }
        Action::Start(start) => {
            check::root()?;
            let mut state = State::open(&folder)?;
            let topology = start.shapes.topology(state.record.topology)?;
            if state.qemu().is_none() {
                refuse(&state, Some(topology))?;
            }
            server::start(&mut state, topology, start.accel, start.loader)?;
        }
        Action::Stop { now } => server::stop(&mut State::open(&folder)?, now)?,
        Action::Reset => {
            check::root()?;
            server::reset(&mut State::open(&folder)?)?;
        }
        Action::Down { now } => {
            check::root()?;
            server::down(&mut State::open(&folder)?, now)?;
        }
        Action::Purge => {
            check::root()?;
            if folder.exists() {
                let mut state = State::open(&folder)?;
                server::down(&mut state, true)?;
                state.remove()?;
            }
        }
        Action::Status { output } => status(&State::look(&folder)?, output)?,
        Action::Console { follow } => console(&State::look(&folder)?, follow)?,
        Action::Ssh { command } => {
            let mut ssh = ssh::ssh(&State::look(&folder)?)?;
            ssh.args(command);
            return become_it(ssh);
        }
        Action::Push { from, to } => {
            return become_it(ssh::push(&State::look(&folder)?, &from, &to)?);
        }
        Action::Fabric { action } => return on_fabric(&State::look(&folder)?, action),
        Action::Spec => {
            let state = State::look(&folder)?;
            let topology = Shapes::none().topology(state.record.topology)?;
            out!("{}", slicing::spec(&topology)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Shapes {
    fn none() -> Self {
        Self {
            topology: None,
            sockets: None,
            cores: None,
            threads: None,
            nodes: None,
            nics_per_node: None,
            memory_per_node: None,
        }
    }
}

/// As the environment says; else `.lab` in the repository, from anywhere inside it; else here.
fn default_state() -> PathBuf {
    if let Some(folder) = std::env::var_os("BMSLICE_LAB_STATE") {
        return folder.into();
    }
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let root = here
        .ancestors()
        .find(|folder| folder.join("lab/recipe").is_dir());
    root.unwrap_or(&here).join(".lab")
}

fn find_errors(state: &State, topology: Topology) -> Vec<check::CheckError> {
    let there = Image::find(state, &image::digest()).is_some();
    check::all(&state.folder, there, topology.memory())
}

/// Fails with all that is missing at once.
fn refuse(state: &State, topology: Option<Topology>) -> anyhow::Result<()> {
    let errors: Vec<String> = match topology {
        Some(topology) => find_errors(state, topology),
        None => {
            let there = Image::find(state, &image::digest()).is_some();
            check::all(&state.folder, there, Mebibytes(0))
        }
    }
    .iter()
    .map(ToString::to_string)
    .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(errors.join("\nerror: ")))
    }
}

/// Runs a program in the place of this one.
fn become_it(mut program: Command) -> anyhow::Result<ExitCode> {
    let error = std::os::unix::process::CommandExt::exec(&mut program);
    Err(error).with_context(|| format!("`{}` could not be started", run::display(&program)))
}

fn on_fabric(state: &State, action: Option<FabricAction>) -> anyhow::Result<ExitCode> {
    let topology = state.record.topology.ok_or(fabric::FabricError::Down)?;
    match action {
        None => out!("{}", fabric::show(state)?),
        Some(FabricAction::Ports) => {
            fabric::ports(&topology)
                .iter()
                .for_each(|line| outln!("{line}"));
        }
        Some(FabricAction::SetVlan { port, vlan }) => {
            fabric::set_vlan(state, &topology, &port, Some(vlan))?;
            outln!("{port} is in VLAN {vlan}");
        }
        Some(FabricAction::Restore { port }) => {
            let vlan = fabric::set_vlan(state, &topology, &port, None)?;
            outln!("{port} is in VLAN {vlan}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(state: &State, output: Output) -> anyhow::Result<()> {
    let record = &state.record;
    let qemu = state.qemu();
    let image = Image::find(state, &image::digest());
    if let Output::Json = output {
        let value = serde_json::json!({
            "state": state.folder,
            "running": qemu.is_some(),
            "qemuPid": qemu.map(|process| process.pid),
            "topology": record.topology,
            "accel": record.accel,
            "accelWhy": record.probed.as_ref().map(|probed| probed.why.as_str()),
            "networkNamespace": Network::of(state).name(),
            "ssh": qemu.map(|_| serde_json::json!({
                "host": "127.0.0.1",
                "port": qemu::SSH_PORT,
                "user": "root",
                "key": state.path("keys/client"),
                "knownHosts": state.path("keys/known_hosts"),
                "hostKeyAlias": "bmserver",
            })),
            "fabric": fabric::is_up(state),
            "image": { "digest": image::digest(), "built": image.is_some() },
            "diskImage": record.disk_image,
            "guestImage": image::GUEST_IMAGE,
        });
        outln!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    let image = if image.is_some() {
        "built"
    } else {
        "not built"
    };
    outln!("image    {} ({image})", image::digest());
    match (qemu, record.topology) {
        (Some(process), Some(topology)) => {
            let accel = record.accel.map_or("", Accel::name);
            outln!(
                "server   {topology}, {} nodes, {accel}, pid {}",
                topology.nodes,
                process.pid
            );
            outln!("network  namespace {}", Network::of(state).name());
        }
        _ => outln!("server   off"),
    }
    outln!(
        "fabric   {}",
        if fabric::is_up(state) { "up" } else { "down" }
    );
    if let (true, Some(topology)) = (fabric::is_up(state), record.topology) {
        fabric::ports(&topology)
            .iter()
            .for_each(|line| outln!("         {line}"));
    }
    Ok(())
}

fn console(state: &State, follow: bool) -> anyhow::Result<()> {
    let path = state.path(qemu::CONSOLE_LOG);
    let open = |path: &Path| std::fs::File::open(path);
    let mut file = open(&path)
        .with_context(|| format!("the server has no console yet: `{}`", path.display()))?;
    let mut out = std::io::stdout().lock();
    let mut position = 0;
    loop {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        position += text.len() as u64;
        out.write_all(&text)?;
        out.flush()?;
        if !follow || state.qemu().is_none() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(300));
        if file.metadata()?.len() < position {
            position = file.seek(SeekFrom::Start(0))?;
        }
    }
}
