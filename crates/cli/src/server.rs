//! The server that a command is about: this one, a captured tree, or an inventory file.

use std::path::PathBuf;

use bmslice_host::{ArchiveError, Limits, LiveMachine, Machine, Root};
use bmslice_inventory::{CapturedInventory, Contradiction, Inventory, LiveInventory, ReadError};
use clap::Args;

use crate::Context;
use crate::failure::Failure;
use crate::files;
use crate::own::Own;

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

/// What writes an inventory file.
const ANEW: &str = "`bmslice inspect -o json` on the server writes one";

/// An inventory file.
pub(crate) fn from_file(file: &std::path::Path) -> Result<Inventory, Failure> {
    let text = files::read_text(file, "an inventory")?;
    let own = Own::read(&text);
    let shown = file.display();
    CapturedInventory::from_json(own.json())
        .map(CapturedInventory::into_inner)
        .map_err(|error| {
            let failure = || Failure::refused(format!("`{shown}`: {}", own.said(&error)));
            match &error {
                ReadError::Contradicts { found } => edited(&shown.to_string(), found),
                ReadError::Malformed(_) => failure().hint(ANEW),
                ReadError::NoCpus { .. } | ReadError::Format { .. } => failure(),
            }
        })
}

/// How many contradictions are told: the first ones are those that were made, the others follow.
const TOLD: usize = 6;

/// A file that bmslice did not write as it is.
fn edited(shown: &str, odd: &[Contradiction]) -> Failure {
    let mut text = format!(
        "`{shown}` was changed after bmslice wrote it: {} what the rest says",
        match odd {
            [_] => "one part of it contradicts",
            _ => "parts of it contradict",
        }
    );
    for part in odd.iter().take(TOLD) {
        text.push_str(&format!("\n  - {part}"));
    }
    if odd.len() > TOLD {
        text.push_str(&format!("\n  - and {} more", odd.len() - TOLD));
    }
    Failure::refused(text).hint(format!("{ANEW}; or change the other part, too"))
}
