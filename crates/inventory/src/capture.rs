//! A capture: all that an inventory is read from, as a tree that can be carried away.
//!
//! Takes a recording root; gives a [`Capture`] whose archive was read again and gave the same
//! inventory. Keeps true: what is read of a server is what is captured, since both are one
//! reading; a capture that does not read back alike is an error, never a file.

use std::path::Path;

use bmslice_host::{ArchiveError, Entry, Limits, Root, Tree};
use thiserror::Error;

use crate::facts::Inventory;
use crate::read::{CapturedInventory, PROBES, Probes, ReadError, read};
use crate::redact::Redaction;

/// Why there is no capture.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The server cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The archive cannot be made.
    #[error("the archive cannot be made: {0}")]
    Pack(#[from] std::io::Error),
    /// The archive cannot be read again.
    #[error("the archive that was made cannot be read again: {0}")]
    Unpack(#[from] ArchiveError),
    /// The archive tells another server.
    #[error("the archive that was made tells another server: {what} differs")]
    Differs {
        /// Which part of the inventory.
        what: String,
    },
}

/// A captured server.
#[derive(Debug)]
pub struct Capture {
    tree: Tree,
    inventory: Inventory,
}

impl Capture {
    /// Reads a server through a root (made recording here) and keeps what was read; with `redact`,
    /// without what tells whose server it is.
    ///
    /// # Errors
    /// [`CaptureError::Read`], [`CaptureError::Pack`].
    pub fn of(root: Root, probes: &Probes, redact: bool) -> Result<Self, CaptureError> {
        let root = root.recording();
        let read_now = read(&root, probes)?;
        let mut tree = root.recorded();
        // Without answers too: it tells a capture of ours from other archives.
        let text = serde_json::to_string_pretty(probes).map_err(std::io::Error::other)?;
        tree.put_file(Path::new(PROBES), text.into_bytes())?;
        if !redact {
            return Ok(Self {
                tree,
                inventory: read_now,
            });
        }
        let tree = Redaction::of(&tree).apply(&tree)?;
        // What is compared is then the redacted server; that it is still the same server shows in
        // its shape.
        let redacted = Root::tree(tree.clone(), root.path());
        let inventory = CapturedInventory::read(&redacted)?.into_inner();
        same_shape(&read_now, &inventory)?;
        Ok(Self { tree, inventory })
    }

    /// Whether an archive is one that [`Capture::pack`] made, and not another program's.
    #[must_use]
    pub fn is_one(archive: &[u8]) -> bool {
        let tree = Tree::unpack(archive, Limits::default());
        tree.is_ok_and(|tree| {
            matches!(tree.find(Path::new(PROBES), false), Ok((Entry::File(_), _)))
        })
    }

    /// What was read, as the archive tells it.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// How many files, folders and links it has.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.tree.walk().len()
    }

    /// The bytes of a gzipped tar with one folder of that name.
    ///
    /// # Errors
    /// [`CaptureError::Pack`].
    pub fn pack(&self, top: &str) -> Result<Vec<u8>, CaptureError> {
        let mut bytes = Vec::new();
        self.tree.pack(top, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads an archive, as it lies on the disk now, and compares it with what was captured.
    ///
    /// # Errors
    /// [`CaptureError::Unpack`], [`CaptureError::Read`], and [`CaptureError::Differs`] with the
    /// part that does.
    pub fn compare(&self, archive: impl std::io::Read) -> Result<(), CaptureError> {
        let tree = Tree::unpack(archive, Limits::default())?;
        let root = Root::tree(tree, Path::new("capture"));
        let again = CapturedInventory::read(&root)?.into_inner();
        same(&self.inventory, &again)
    }
}

/// Names the first part that differs.
fn same(ours: &Inventory, theirs: &Inventory) -> Result<(), CaptureError> {
    // Every field by name: a new one is compared by the last line until it is named.
    let parts = [
        ("machine", ours.machine == theirs.machine),
        ("cpus", ours.cpus == theirs.cpus),
        ("caches", ours.caches == theirs.caches),
        ("nodes", ours.nodes == theirs.nodes),
        ("memory", ours.memory == theirs.memory),
        ("power", ours.power == theirs.power),
        ("pci", ours.pci == theirs.pci),
        ("IOMMU groups", ours.iommu_groups == theirs.iommu_groups),
        ("host", ours.host == theirs.host),
        ("interfaces", ours.interfaces == theirs.interfaces),
        ("boot", ours.boot == theirs.boot),
        ("hypervisor", ours.hypervisor == theirs.hypervisor),
        ("notes", ours.notes == theirs.notes),
        ("the inventory", ours == theirs),
    ];
    match parts.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => Err(CaptureError::Differs {
            what: (*what).into(),
        }),
    }
}

/// Redaction replaces names and numbers of things; the things and their places stay.
fn same_shape(before: &Inventory, after: &Inventory) -> Result<(), CaptureError> {
    let needs = |inventory: &Inventory| -> Vec<usize> {
        inventory.pci.iter().map(|f| f.host_needs.len()).collect()
    };
    let places = |inventory: &Inventory| -> Vec<_> {
        inventory
            .pci
            .iter()
            .map(|f| (f.address, f.node, f.iommu_group, f.mac.is_some()))
            .collect()
    };
    let parts = [
        ("cpus", before.cpus == after.cpus),
        ("caches", before.caches == after.caches),
        ("nodes", before.nodes == after.nodes),
        ("memory", before.memory == after.memory),
        ("power", before.power == after.power),
        ("pci", places(before) == places(after)),
        ("what the host needs", needs(before) == needs(after)),
        (
            "interfaces",
            before.interfaces.len() == after.interfaces.len(),
        ),
        ("boot loader", before.boot.loader == after.boot.loader),
        ("notes", before.notes.len() == after.notes.len()),
    ];
    match parts.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => Err(CaptureError::Differs {
            what: format!("{what} (after redaction)"),
        }),
    }
}
