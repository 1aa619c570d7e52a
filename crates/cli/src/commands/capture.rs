//! `bmslice capture`: an archive of what `inspect` reads.

use std::path::PathBuf;

use bmslice_host::{Machine, Root};
use bmslice_inventory::{Capture, CaptureError, CapturedInventory, Inventory, Probes};
use clap::Args;
use serde::Serialize;

use crate::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::server;
use crate::tables::count;

/// What `--help` says.
pub(crate) const ABOUT: &str = "\
Write an archive of what `inspect` reads, with what libvirt and the drivers of NICs say beside it: `--root ARCHIVE` of \
`inspect`, `doctor` and `plan` then sees this server anywhere. The archive is read back and \
compared before it counts.

`--redact` replaces MAC and IP addresses, serial numbers, UUIDs, host names and passwords of the \
kernel command line, the same by the same everywhere. Names of libvirt's domains and of network \
interfaces stay (but for MACs in them).";

/// Which server, and where to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Write the archive there (a gzipped tar, mode 0600)
    #[arg(long, value_name = "FILE.tar.gz")]
    pub out: PathBuf,
    /// Take out what tells whose server it is
    #[arg(long)]
    pub redact: bool,
    /// Capture a captured tree again (to redact it) instead of this server: a folder or an archive
    #[arg(long, value_name = "DIR|ARCHIVE")]
    pub root: Option<PathBuf>,
}

/// What was written, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    file: PathBuf,
    bytes: usize,
    entries: usize,
    redacted: bool,
    notes: usize,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<Exit, Failure> {
    let target = files::Target {
        path: &arguments.out,
        option: "--out",
        usual: "server.tar.gz",
        what: "capture that bmslice wrote",
        instead: "name a file: `--out server.tar.gz`",
    };
    // Another archive of the user's is not ours to replace; what we captured before is.
    target.replaces(Capture::is_one)?;
    let top = top(&arguments.out)?;
    let (root, probes) = match &arguments.root {
        Some(path) => {
            let root = server::captured_root(path)?;
            let probes = CapturedInventory::probes(&root);
            (root, probes)
        }
        None => {
            let machine = server::machine(context)?;
            let peer = context.environment.session_peer.as_deref();
            let mut probes = Probes::of(&machine, peer);
            // So that `doctor` can tell it elsewhere.
            if machine.root().exists("/dev/kvm") {
                match machine.make_vm() {
                    Ok(()) => probes.kvm_works = true,
                    Err(error) => probes.kvm_error = Some(files::plain(&error)),
                }
            }
            let root = Root::live().map_err(|error| {
                Failure::failed(format!("cannot open `/`: {}", files::plain(&error)))
            })?;
            (root, probes)
        }
    };
    let capture = Capture::of(root, &probes, arguments.redact).map_err(failure)?;
    let bytes = capture.pack(&top).map_err(failure)?;
    let machine = server::machine(context)?;
    files::write_with(&machine, &arguments.out, &bytes, 0o600)?;
    // What counts is what lies on the disk now.
    let written = files::read(&arguments.out, "a capture")?;
    capture.compare(written.as_slice()).map_err(failure)?;
    let written = Written {
        file: arguments.out.clone(),
        bytes: bytes.len(),
        entries: capture.entries(),
        redacted: arguments.redact,
        notes: capture.inventory().notes.len(),
    };
    context
        .output
        .data(&written, || page(&written, capture.inventory()))?;
    Ok(Exit::Done)
}

fn page(written: &Written, inventory: &Inventory) -> String {
    format!(
        "{}: {} of {}, {} in {}; read back and compared{}\n",
        written.file.display(),
        count(inventory.cpus.len(), "CPU"),
        count(inventory.nodes.len(), "node"),
        count(written.entries, "entry").replace("entrys", "entries"),
        count(written.bytes, "byte"),
        if written.redacted { ", redacted" } else { "" }
    )
}

/// The folder inside the archive: the file's name without its extensions.
fn top(out: &std::path::Path) -> Result<String, Failure> {
    let name = out.file_name().map(|name| name.to_string_lossy());
    let stem = name.as_deref().and_then(|name| {
        name.strip_suffix(".tar.gz")
            .or_else(|| name.strip_suffix(".tgz"))
    });
    match stem {
        Some(stem) if !stem.is_empty() => Ok(stem.to_owned()),
        _ => Err(
            Failure::refused(format!("`{}` is no name for a gzipped tar", out.display()))
                .hint("end it in `.tar.gz`"),
        ),
    }
}

fn failure(error: CaptureError) -> Failure {
    Failure::failed(error.to_string())
}
