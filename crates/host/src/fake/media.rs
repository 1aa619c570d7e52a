//! The makers of ISO images, and libguestfs' tools.
//!
//! Takes argv; gives files and the tools' messages. A fake ISO is a volume descriptor and the files
//! as they are. Keeps true: an output that was there keeps its mode, and what is in use by a guest is
//! not touched.

use super::commands::{Answer, fail};
use super::images::{arguments, open, put, write};
use super::tree::Tree;
use super::world::World;

impl World {
    /// genisoimage, mkisofs, `xorriso -as mkisofs`.
    pub fn make_iso(&mut self, program: &str, args: &[String], half: bool) -> Answer {
        let args = match args {
            [as_, _, rest @ ..] if as_ == "-as" => rest,
            _ if program == "xorriso" => {
                return fail(1, "xorriso : FAILURE : only -as mkisofs is acted out");
            }
            all => all,
        };
        let given = arguments(
            args,
            &[
                "-o",
                "-output",
                "-V",
                "-volid",
                "-input-charset",
                "-volset",
                "-A",
                "-P",
                "-p",
            ],
        );
        let Some(path) = given.value(&["-o", "-output"]) else {
            return fail(1, format!("{program}: Missing output file"));
        };
        let mut files = Vec::new();
        for operand in &given.operands {
            let (name, from) = match operand.split_once('=') {
                Some((name, from)) if given.has("-graft-points") => {
                    (name.trim_start_matches('/').to_owned(), from)
                }
                _ => (
                    operand.rsplit('/').next().unwrap_or(operand).to_owned(),
                    *operand,
                ),
            };
            let at = self.tree.at(from);
            if at.is_dir() {
                for inside in self.tree.list(from) {
                    let bytes = std::fs::read(at.join(&inside)).unwrap_or_default();
                    files.push((inside, bytes));
                }
            } else if let Ok(bytes) = std::fs::read(&at) {
                files.push((name, bytes));
            } else {
                return fail(
                    2,
                    format!("{program}: No such file or directory. Invalid node - '{operand}'."),
                );
            }
        }
        if self.disk_full || half {
            put(&self.tree, path, &[0; 2048]);
            if half {
                return Ok(String::new());
            }
            return fail(
                2,
                format!("{program}: No space left on device. Cannot fwrite 2048*16"),
            );
        }
        let mut bytes = vec![0u8; 17 * 2048];
        bytes[32_768..32_774].copy_from_slice(b"\x01CD001");
        let volume = format!("{:<32}", given.value(&["-V", "-volid"]).unwrap_or("CDROM"));
        bytes[32_808..32_840].copy_from_slice(&volume.as_bytes()[..32]);
        for (name, content) in files {
            bytes.extend(format!("{name}\0{}\0", content.len()).bytes());
            bytes.extend(content);
        }
        put(&self.tree, path, &bytes);
        Ok(String::new())
    }

    /// libguestfs' virt-customize and virt-resize.
    pub fn guestfs(&mut self, program: &str, args: &[String], half: bool) -> Answer {
        let error = |what: String| fail(1, format!("{program}: error: {what}"));
        let valued = [
            "-a",
            "--add",
            "--expand",
            "--resize",
            "--format",
            "--output-format",
        ];
        let given = arguments(args, &valued);
        let disks: Vec<&str> = match program {
            "virt-resize" => given.operands.clone(),
            _ => given.value(&["-a", "--add"]).into_iter().collect(),
        };
        if disks.len() != if program == "virt-resize" { 2 } else { 1 } {
            return error("usage: a disk must be given".into());
        }
        for disk in &disks {
            match self.image(disk, None) {
                Err(_) => return error(format!("{disk}: No such file or directory")),
                Ok(image) if image.format == "raw" && image.size < 512 => {
                    return error("no operating systems were found in the guest image".into());
                }
                Ok(_) => {}
            }
            if self.in_use(disk) && disk == disks.last().unwrap_or(&"") {
                return error(format!("{disk}: the disk is in use by a running guest"));
            }
        }
        // Secrets come by file: `--root-password file:PATH`, `--ssh-inject root:file:PATH`.
        for arg in args {
            if let Some((_, path)) = arg.split_once("file:")
                && !self.tree.exists(path)
            {
                return error(format!("{path}: No such file or directory"));
            }
        }
        if let ("virt-resize", [from, to]) = (program, &disks[..]) {
            let of = |path: &str| open(&self.tree, path).map_or(0, |image| image.size);
            if of(to) < of(from) {
                return error("there is not enough space in the output disk".into());
            }
            if self.disk_full {
                return error("No space left on device".into());
            }
            let length = std::fs::metadata(self.tree.at(from)).map_or(0, |found| found.len());
            let size = of(to);
            if !half {
                write(&self.tree, to, size, None, length);
            }
        }
        Ok(String::new())
    }
}

/// The volume name of an ISO, and its files by name.
pub type Iso = (String, Vec<(String, Vec<u8>)>);

/// The volume name and the files of an ISO that the fake made.
pub fn iso(tree: &Tree, path: &str) -> Option<Iso> {
    let bytes = std::fs::read(tree.at(path)).ok()?;
    if bytes.get(32_769..32_774)? != b"CD001" {
        return None;
    }
    let volume = String::from_utf8_lossy(bytes.get(32_808..32_840)?);
    let mut files = Vec::new();
    let mut rest = bytes.get(17 * 2048..)?;
    while !rest.is_empty() {
        let mut parts = rest.splitn(3, |byte| *byte == 0);
        let name = String::from_utf8_lossy(parts.next()?).into_owned();
        let length: usize = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let after = parts.next()?;
        files.push((name, after.get(..length)?.to_vec()));
        rest = &after[length..];
    }
    Some((volume.trim_end().to_owned(), files))
}
