//! A slice's disk, from its base image (qemu-img(1), virt-resize(1), virt-customize(1)).
//!
//! Made under a temporary name beside its place, customised there, synced, and renamed: a disk that
//! is in its place is whole, whatever happened. One that is in its place is never touched again.

use std::path::Path;

use bmslice_host::{Command, HostError};
use bmslice_model::{ByteSize, SliceName};
use bmslice_spec::ImageFrom;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, StepError};
use crate::guest::HashFile;
use crate::site::{Licence, Look, Site};
use crate::step::Observation;

/// Makes a slice's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildDisk {
    /// Whose.
    pub slice: SliceName,
    /// Where.
    pub path: String,
    /// The base image.
    pub base: String,
    /// The disk's size.
    pub size: ByteSize,
    /// How it comes from the base.
    pub from: ImageFrom,
    /// The `virt-resize` command that fills it, when it comes so from the base.
    pub resize: Option<Vec<String>>,
    /// The `virt-customize` command that sets the guest up, when it is set up so.
    pub customize: Option<Vec<String>>,
    /// The file with a password's hash that is put into it.
    pub hash: Option<HashFile>,
}

/// What `qemu-img info --output=json` tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    format: String,
    virtual_size: u64,
    #[serde(default)]
    actual_size: u64,
}

/// The folder of a path.
fn folder(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".into(),
        Some((folder, _)) => folder.into(),
    }
}

/// Where a disk is while it is made.
pub fn unfinished(path: &str) -> String {
    format!("{path}.part")
}

/// libguestfs without libvirt: as root it can read the image itself.
fn guestfs(argv: &[String]) -> Command {
    let (program, args) = argv.split_first().map_or(("", argv), |(p, rest)| (p, rest));
    Command {
        env: vec![("LIBGUESTFS_BACKEND".into(), "direct".into())],
        ..Command::new(program, args)
    }
}

impl BuildDisk {
    pub fn folder(&self) -> String {
        folder(&self.path)
    }

    fn part(&self) -> String {
        unfinished(&self.path)
    }

    pub fn describe(&self) -> String {
        let how = match &self.from {
            ImageFrom::Overlay => format!("as an overlay of `{}`", self.base),
            ImageFrom::Copy => format!("as a copy of `{}`", self.base),
            ImageFrom::Resize { expand } => {
                format!("as a copy of `{}` with {expand} grown", self.base)
            }
        };
        let set_up = if self.customize.is_some() {
            ", set up with `virt-customize`"
        } else {
            ""
        };
        format!(
            "make the disk `{}` of {} {how}{set_up}",
            self.path, self.size
        )
    }

    pub fn describe_undo(&self, licence: Licence) -> String {
        if licence.delete_images {
            format!("delete the disk `{}`", self.path)
        } else {
            format!("leave the disk `{}`", self.path)
        }
    }

    fn info(&self, look: &Look<'_>) -> Result<Info, HostError> {
        // `-U`: a base may be in use by a guest that reads it.
        let command = Command::new("qemu-img", ["info", "-U", "--output=json", &self.base]);
        let output = look.machine.run(&command)?;
        serde_json::from_str(&output.stdout).map_err(|error| HostError::Failed {
            command: command.to_string(),
            status: "its output is not as expected".into(),
            stderr: error.to_string(),
        })
    }

    /// Bytes that making it writes at most; `None` when that cannot be told.
    pub fn space(&self, look: &Look<'_>) -> Option<u64> {
        match self.from {
            // The header and its tables.
            ImageFrom::Overlay => Some(1 << 20),
            ImageFrom::Copy | ImageFrom::Resize { .. } => {
                self.info(look).ok().map(|info| info.actual_size)
            }
        }
    }

    pub fn precondition(&self, look: &Look<'_>) -> Result<Vec<Problem>, HostError> {
        let mut problems = Vec::new();
        for (program, package, wanted) in [
            ("qemu-img", "qemu-utils", true),
            (
                "virt-resize",
                "guestfs-tools libguestfs-xfs",
                self.resize.is_some(),
            ),
            (
                "virt-customize",
                "guestfs-tools libguestfs-xfs",
                self.customize.is_some(),
            ),
        ] {
            if wanted && !look.machine.has_program(program) {
                problems.push(
                    Problem::server_lacks(format!(
                        "the disk of `{}` is made with `{program}`, which is not here",
                        self.slice
                    ))
                    .hint(format!("`apt install {package}`")),
                );
            }
        }
        if let Some(hash) = &self.hash {
            problems.extend(hash.problem(look, &self.slice));
        }
        if !problems.is_empty() {
            return Ok(problems);
        }
        Ok(self.base_problem(look)?.into_iter().collect())
    }

    fn base_problem(&self, look: &Look<'_>) -> Result<Option<Problem>, HostError> {
        let whose = format!("the base image of `{}`, `{}`,", self.slice, self.base);
        if !look.machine.root().exists(&self.base) {
            return Ok(Some(Problem::new(format!("{whose} is not there")).hint(
                format!(
                    "put the image into `{}`, or correct `image.base` in the spec",
                    folder(&self.base)
                ),
            )));
        }
        let not_an_image = |why: &str| {
            Some(
                Problem::new(format!("{whose} is not a disk image: {why}"))
                    .hint("download it again, and see what it is with `qemu-img info`"),
            )
        };
        let info = match self.info(look) {
            Ok(info) => info,
            Err(HostError::Failed { stderr, .. }) => return Ok(not_an_image(stderr.trim())),
            Err(error) => return Err(error),
        };
        // QEMU takes any file whatever for a raw image.
        if info.format == "raw" && !looks_like_a_disk(look, &self.base) {
            return Ok(not_an_image(
                "it has neither a partition table nor a file system",
            ));
        }
        if info.virtual_size > self.size.bytes() {
            return Ok(Some(
                Problem::new(format!(
                    "{whose} has {}, which does not fit into a disk of {}",
                    ByteSize::from_bytes(info.virtual_size),
                    self.size
                ))
                .hint("make `image.size` in the spec at least as large"),
            ));
        }
        Ok(None)
    }

    pub fn observe(&self, look: &Look<'_>) -> Observation {
        if look.machine.root().exists(&self.path) {
            Observation::Held
        } else {
            Observation::NotHeld
        }
    }

    /// What a changed plan wants of a disk that is there, and does not get.
    pub fn what_stays(&self, look: &Look<'_>) -> Option<String> {
        let there = look.machine.root().exists(&self.path);
        let made = look.ledger.done(&format!("disk {}", self.path));
        match (there, made.map(|entry| &entry.step)) {
            (true, Some(crate::step::Step::BuildDisk(made))) if made != self => Some(format!(
                "the disk `{}` stays as it was made ({} from `{}`), and not as the plan has it now ({} from `{}`): a disk is never overwritten",
                self.path, made.size, made.base, self.size, self.base
            )),
            (true, None) => Some(format!(
                "the disk `{}` was there already, and is used as it is",
                self.path
            )),
            (false, Some(_)) => Some(format!(
                "the disk `{}` was made here before and is gone; it is made anew",
                self.path
            )),
            (true, Some(_)) | (false, None) => None,
        }
    }

    pub fn act(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        let part = self.part();
        let made = self.make(&part, site);
        if let Err(error) = made {
            if !error.is_gone()
                && let Err(also) = site.machine.remove(Path::new(&part))
            {
                site.note(format!("`{part}` could not be removed: {also}"));
            }
            return Err(error);
        }
        site.machine.sync(Path::new(&part))?;
        site.machine
            .rename(Path::new(&part), Path::new(&self.path))?;
        Ok(())
    }

    fn make(&self, part: &str, site: &mut Site<'_>) -> Result<(), StepError> {
        let look = site.look();
        if let Some(problem) = self.base_problem(&look)? {
            return Err(StepError::Cannot {
                what: problem.text,
                hint: problem.hint,
            });
        }
        let info = self.info(&look)?;
        let size = self.size.bytes().to_string();
        site.machine.create_dir(Path::new(&self.folder()), 0o711)?;
        // Also takes an unfinished one's place. The tools keep the mode of a file that is there:
        // what is in a guest's disk is not for every user of the host.
        site.machine.install(Path::new(part), b"", 0o600)?;
        let full = |error: HostError| match error {
            HostError::Failed { ref stderr, .. } if stderr.contains("No space left") => {
                StepError::cannot(
                    format!(
                        "the disk `{}` could not be made: no space left in `{}`",
                        self.path,
                        self.folder()
                    ),
                    "free some space there and apply again: what was half made is removed",
                )
            }
            error => error.into(),
        };
        let run = |command: Command| site.machine.run(&command).map(drop).map_err(full);
        match &self.from {
            ImageFrom::Overlay => run(Command::new(
                "qemu-img",
                [
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-F",
                    &info.format,
                    "-b",
                    &self.base,
                    part,
                    &size,
                ],
            ))?,
            ImageFrom::Copy => {
                run(Command::new(
                    "qemu-img",
                    [
                        "convert",
                        "-q",
                        "-f",
                        &info.format,
                        "-O",
                        "qcow2",
                        &self.base,
                        part,
                    ],
                ))?;
                run(Command::new(
                    "qemu-img",
                    ["resize", "-q", "-f", "qcow2", part, &size],
                ))?;
            }
            ImageFrom::Resize { .. } => run(Command::new(
                "qemu-img",
                ["create", "-q", "-f", "qcow2", part, &size],
            ))?,
        }
        if let Some(argv) = &self.resize {
            let mut argv = argv.clone();
            // Told, not guessed: a raw image could say of itself what it likes.
            argv.insert(1, format!("--format={}", info.format));
            run(guestfs(&argv))?;
        }
        if let Some(argv) = &self.customize {
            run(guestfs(argv))?;
        }
        Ok(())
    }

    pub fn undo(&self, site: &mut Site<'_>) -> Result<(), StepError> {
        site.machine.remove(Path::new(&self.part()))?;
        if site.licence.delete_images {
            site.machine.remove(Path::new(&self.path))?;
        }
        Ok(())
    }
}

/// Whether a raw file begins as a disk does: a boot sector's signature, or an ext or XFS superblock.
fn looks_like_a_disk(look: &Look<'_>, path: &str) -> bool {
    let Ok(head) = look.machine.root().read_head(path, 2048) else {
        return false;
    };
    head.get(510..512) == Some(&[0x55, 0xaa])
        || head.get(1080..1082) == Some(&[0x53, 0xef])
        || head.starts_with(b"XFSB")
}
