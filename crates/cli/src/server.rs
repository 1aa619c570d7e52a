//! The server that a command is about: this one, a captured tree, or an inventory file.

use std::path::PathBuf;

use bmslice_host::{ArchiveError, Limits, LiveMachine, Machine, Root};
use bmslice_inventory::{CapturedInventory, Inventory, LiveInventory, ReadError};
use clap::Args;

use crate::Context;
use crate::failure::Failure;
use crate::files;

/// Where to read the server from; this one when nothing is given.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// Read a captured tree instead of this server: a folder, or an archive (tar, .gz, .bz2, .xz,
    /// .zst)
    #[arg(long, value_name = "DIR|ARCHIVE", conflicts_with = "inventory")]
    pub root: Option<PathBuf>,
    /// Read an inventory (`bmslice inspect -o json`) instead of this server; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
}

impl Source {
    pub(crate) fn read(&self, context: &Context) -> Result<Inventory, Failure> {
        match (&self.root, &self.inventory) {
            (Some(root), _) => captured(root),
            (None, Some(file)) => from_file(file),
            (None, None) => {
                let machine = machine(context)?;
                Ok(live(&machine, context)?.into_inner())
            }
        }
    }

    /// Whether it is this server.
    pub(crate) fn is_live(&self) -> bool {
        self.root.is_none() && self.inventory.is_none()
    }
}

/// The door to this server.
pub(crate) fn machine(context: &Context) -> Result<LiveMachine, Failure> {
    let opened = match &context.environment.libvirt_uri {
        Some(uri) => LiveMachine::with_hypervisor(uri),
        None => LiveMachine::new(),
    };
    opened.map_err(|error| Failure::failed(format!("cannot open `/`: {}", files::plain(&error))))
}

/// Refuses before anything is read, planned or asked, when only root could go on.
pub(crate) fn need_root(machine: &LiveMachine) -> Result<(), Failure> {
    if machine.is_root() {
        return Ok(());
    }
    let text = "this process is not root, and may not change the server";
    Err(Failure::failed(text).hint("run it with `sudo`"))
}

/// This server as it is.
pub(crate) fn live(machine: &LiveMachine, context: &Context) -> Result<LiveInventory, Failure> {
    let peer = context.environment.session_peer.as_deref();
    LiveInventory::read(machine, peer)
        .map_err(|error| Failure::failed(format!("cannot read this server: {error}")))
}

fn captured(root: &std::path::Path) -> Result<Inventory, Failure> {
    CapturedInventory::read(&captured_root(root)?)
        .map(CapturedInventory::into_inner)
        .map_err(|error| Failure::refused(error.to_string()))
}

/// The root that a captured folder or archive holds.
pub(crate) fn captured_root(root: &std::path::Path) -> Result<Root, Failure> {
    let shown = root.display();
    Root::captured(root, Limits::default()).map_err(|error| match error {
        ArchiveError::Read(error) => {
            let text = format!(
                "cannot read the captured tree `{shown}`: {}",
                files::plain(&error)
            );
            match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                    Failure::refused(text)
                        .hint("`--root` wants a folder that stands for `/`, or an archive of one")
                }
                std::io::ErrorKind::PermissionDenied => Failure::failed(text),
                _ => Failure::refused(text),
            }
        }
        other => Failure::refused(format!("cannot read the captured tree `{shown}`: {other}")),
    })
}

/// An inventory file.
pub(crate) fn from_file(file: &std::path::Path) -> Result<Inventory, Failure> {
    let text = files::read_text(file, "an inventory")?;
    CapturedInventory::from_json(&text)
        .map(CapturedInventory::into_inner)
        .map_err(|error| {
            let shown = file.display();
            let failure = Failure::refused(format!("`{shown}`: {error}"));
            match error {
                ReadError::Malformed(_) if !text.trim_start().starts_with('{') => failure
                    .hint("an inventory is read as JSON: write it with `bmslice inspect -o json`"),
                ReadError::Malformed(_) => {
                    failure.hint("`bmslice inspect -o json` on the server writes one")
                }
                _ => failure,
            }
        })
}
