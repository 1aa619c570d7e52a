//! `qemu-img`, on images that are a header.
//!
//! Takes argv; gives files and the tools' messages (QEMU 7.2). A fake qcow2 image is a real qcow2
//! header (magic, sizes, backing file) whose file length stands for what it holds. Keeps true: what
//! runs out of space leaves what it had written, as the tool does, and an image that a guest has open
//! is locked.

use serde_json::json;

use super::commands::{Answer, fail};
use super::tree::Tree;
use super::world::World;

const MAGIC: &[u8; 4] = b"QFI\xfb";
const HEADER: usize = 1024;

/// What a header tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub format: &'static str,
    /// Bytes.
    pub size: u64,
    /// As written in the header.
    pub backing: Option<String>,
}

/// Reads a header; what has no qcow2 magic is raw.
pub fn open(tree: &Tree, path: &str) -> std::io::Result<Image> {
    let bytes = std::fs::read(tree.at(path))?;
    if !bytes.starts_with(MAGIC) || bytes.len() < HEADER {
        return Ok(Image {
            format: "raw",
            size: bytes.len() as u64,
            backing: None,
        });
    }
    let number = |at: usize, width: usize| {
        bytes[at..at + width]
            .iter()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let length = usize::try_from(number(16, 4)).unwrap_or(0).min(512);
    let backing = String::from_utf8_lossy(&bytes[512..512 + length]).into_owned();
    Ok(Image {
        format: "qcow2",
        size: number(24, 8),
        backing: (length > 0).then_some(backing),
    })
}

/// Where the backing file of an image is, absolute.
pub fn backing(tree: &Tree, path: &str) -> Option<String> {
    let base = open(tree, path).ok()?.backing?;
    if base.starts_with('/') {
        return Some(base);
    }
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    Some(format!("{dir}/{base}"))
}

/// Writes a qcow2 image whose file is `length` bytes long, at least its header.
pub fn write(tree: &Tree, path: &str, size: u64, backing: Option<&str>, length: u64) {
    let mut header = vec![0u8; HEADER];
    header[..4].copy_from_slice(MAGIC);
    header[4..8].copy_from_slice(&3u32.to_be_bytes());
    let name = backing.unwrap_or("");
    if !name.is_empty() {
        header[8..16].copy_from_slice(&512u64.to_be_bytes());
    }
    let name = &name.as_bytes()[..name.len().min(511)];
    header[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
    header[20..24].copy_from_slice(&16u32.to_be_bytes());
    header[24..32].copy_from_slice(&size.to_be_bytes());
    header[512..512 + name.len()].copy_from_slice(name);
    put(tree, path, &header);
    let file = std::fs::OpenOptions::new().write(true).open(tree.at(path));
    // Sparse: costs nothing.
    let _ = file.and_then(|file| file.set_len(length.max(HEADER as u64)));
}

/// Writes into an existing file, or makes one as the tools do, with mode 0644.
pub fn put(tree: &Tree, path: &str, bytes: &[u8]) {
    if tree.exists(path) {
        // The mode of the file that was there stays.
        let _ = std::fs::write(tree.at(path), bytes);
    } else {
        tree.put(path, bytes, 0o644);
    }
}

/// Options with values of each tool, so that what is left are operands.
pub struct Arguments<'a> {
    pub options: Vec<(&'a str, Option<&'a str>)>,
    pub operands: Vec<&'a str>,
}

pub fn arguments<'a>(args: &'a [String], valued: &[&str]) -> Arguments<'a> {
    let (mut options, mut operands) = (Vec::new(), Vec::new());
    let mut rest = args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        if let Some((key, value)) = arg.split_once('=').filter(|_| arg.starts_with("--")) {
            options.push((key, Some(value)));
        } else if valued.contains(&arg) {
            options.push((arg, rest.next()));
        } else if arg.starts_with('-') && arg.len() > 1 {
            options.push((arg, None));
        } else {
            operands.push(arg);
        }
    }
    Arguments { options, operands }
}

impl<'a> Arguments<'a> {
    pub fn value(&self, names: &[&str]) -> Option<&'a str> {
        let found = self
            .options
            .iter()
            .rev()
            .find(|(key, _)| names.contains(key));
        found.and_then(|(_, value)| *value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(key, _)| *key == name)
    }
}

/// `100G`, `8589934592`.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'M') => (&text[..at], 20),
        (at, 'G') => (&text[..at], 30),
        (at, 'T') => (&text[..at], 40),
        (at, 'b') => (&text[..at], 0),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl World {
    pub fn qemu_img(&mut self, args: &[String], half: bool) -> Answer {
        let Some((verb, rest)) = args.split_first() else {
            return fail(1, "qemu-img: Not enough arguments");
        };
        let valued = [
            "-f", "-F", "-b", "-O", "-o", "-t", "-T", "-m", "-S", "--output", "--object",
        ];
        let given = arguments(rest, &valued);
        match verb.as_str() {
            "create" => self.image_create(&given, half),
            "info" => self.image_info(&given),
            "convert" => self.image_convert(&given, half),
            "resize" => self.image_resize(&given),
            "check" => match given.operands.first() {
                Some(path) if self.tree.exists(path) => {
                    Ok("No errors were found on the image.\n".into())
                }
                path => fail(
                    1,
                    format!(
                        "qemu-img: Could not open '{0}': Could not open '{0}': No such file or directory",
                        path.unwrap_or(&"")
                    ),
                ),
            },
            "--version" => Ok("qemu-img version 7.2.17\n".into()),
            other => fail(1, format!("qemu-img: Command not found: {other}")),
        }
    }

    /// Opens as a tool does: the file must be there, and be of the format that is claimed.
    pub fn image(&self, path: &str, format: Option<&str>) -> Result<Image, String> {
        let image = open(&self.tree, path)
            .map_err(|_| format!("Could not open '{path}': No such file or directory"))?;
        match format {
            Some(format @ "qcow2") if image.format != "qcow2" => {
                Err(format!("Image is not in {format} format"))
            }
            Some("raw") => Ok(Image {
                format: "raw",
                ..image
            }),
            _ => Ok(image),
        }
    }

    fn no_space(&mut self, path: &str) -> Answer {
        put(&self.tree, path, &[0; 512]);
        fail(
            1,
            format!("qemu-img: {path}: error while writing at byte 0: No space left on device"),
        )
    }

    /// A parent that is there, and nobody who has the image open.
    fn writable(&self, path: &str) -> Result<(), String> {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        if !self.tree.at(dir).is_dir() {
            return Err(format!(
                "{path}: Could not create '{path}': No such file or directory"
            ));
        }
        if self.in_use(path) {
            return Err(format!(
                "{path}: Failed to get \"write\" lock\nIs another process using the image [{path}]?"
            ));
        }
        Ok(())
    }

    pub fn in_use(&self, path: &str) -> bool {
        self.domains
            .values()
            .filter_map(|domain| domain.live.as_ref())
            .any(|live| live.disks.iter().any(|disk| disk == path))
    }

    fn image_create(&mut self, given: &Arguments<'_>, half: bool) -> Answer {
        let Some(path) = given.operands.first().copied() else {
            return fail(1, "qemu-img: Expecting image file name");
        };
        let base = given.value(&["-b"]);
        let mut wanted = match given.operands.get(1).map(|text| (text, size(text))) {
            Some((text, None)) => {
                return fail(
                    1,
                    format!("qemu-img: Invalid image size specified: '{text}'"),
                );
            }
            Some((_, size)) => size,
            None => None,
        };
        if let Some(base) = base {
            let Some(format) = given.value(&["-F"]) else {
                return fail(
                    1,
                    format!("qemu-img: {path}: Backing file specified without backing format"),
                );
            };
            let at = if base.starts_with('/') {
                base.to_owned()
            } else {
                format!(
                    "{}/{base}",
                    path.rsplit_once('/').map_or("", |(dir, _)| dir)
                )
            };
            match self.image(&at, Some(format)) {
                Ok(image) => wanted = wanted.or(Some(image.size)),
                Err(what) => {
                    return fail(
                        1,
                        format!("qemu-img: {path}: {what}\nCould not open backing image."),
                    );
                }
            }
        }
        let Some(wanted) = wanted else {
            return fail(1, "qemu-img: Image creation needs a size parameter");
        };
        if let Err(what) = self.writable(path) {
            return fail(1, format!("qemu-img: {what}"));
        }
        if self.disk_full {
            return self.no_space(path);
        }
        if half {
            put(&self.tree, path, &[0; 512]);
            return Ok(String::new());
        }
        match given.value(&["-f"]) {
            Some("qcow2") => write(&self.tree, path, wanted, base, 196_608),
            None | Some("raw") => put(&self.tree, path, &[]),
            Some(other) => return fail(1, format!("qemu-img: Unknown file format '{other}'")),
        }
        Ok(format!("Formatting '{path}', fmt=qcow2 size={wanted}\n"))
    }

    fn image_info(&self, given: &Arguments<'_>) -> Answer {
        let Some(path) = given.operands.first().copied() else {
            return fail(1, "qemu-img: Expecting one image file name");
        };
        let shared = given.has("-U") || given.has("--force-share");
        if self.in_use(path) && !shared {
            return fail(
                1,
                format!(
                    "qemu-img: Could not open '{path}': Failed to get shared \"write\" lock\n\
                     Is another process using the image [{path}]?"
                ),
            );
        }
        let image = match self.image(path, given.value(&["-f"])) {
            Ok(image) => image,
            Err(what) => return fail(1, format!("qemu-img: Could not open '{path}': {what}")),
        };
        let actual = std::fs::metadata(self.tree.at(path)).map_or(0, |found| found.len());
        if given.value(&["--output"]) != Some("json") {
            return Ok(format!(
                "image: {path}\nfile format: {}\nvirtual size: {1} bytes ({1} bytes)\n\
                 disk size: {actual}\n",
                image.format, image.size
            ));
        }
        let mut info = json!({
            "virtual-size": image.size,
            "filename": path,
            "format": image.format,
            "actual-size": actual,
            "dirty-flag": false,
        });
        if image.format == "qcow2" {
            info["cluster-size"] = json!(65536);
        }
        if let Some(base) = &image.backing {
            info["backing-filename"] = json!(base);
            info["full-backing-filename"] = json!(backing(&self.tree, path));
            info["backing-filename-format"] = json!("qcow2");
        }
        Ok(format!("{info:#}\n"))
    }

    fn image_convert(&mut self, given: &Arguments<'_>, half: bool) -> Answer {
        let [from, to] = given.operands[..] else {
            return fail(1, "qemu-img: Must specify image file name");
        };
        let image = match self.image(from, given.value(&["-f"])) {
            Ok(image) => image,
            Err(what) => return fail(1, format!("qemu-img: Could not open '{from}': {what}")),
        };
        if let Err(what) = self.writable(to) {
            return fail(1, format!("qemu-img: {what}"));
        }
        let length = std::fs::metadata(self.tree.at(from)).map_or(0, |found| found.len());
        if self.disk_full || length > self.server.disk_free.bytes() {
            return self.no_space(to);
        }
        if half {
            put(&self.tree, to, &[0; 512]);
            return Ok(String::new());
        }
        match given.value(&["-O"]) {
            Some("qcow2") => write(&self.tree, to, image.size, None, length),
            None | Some("raw") => put(&self.tree, to, &vec![0; 512]),
            Some(other) => return fail(1, format!("qemu-img: Unknown file format '{other}'")),
        }
        Ok(String::new())
    }

    fn image_resize(&mut self, given: &Arguments<'_>) -> Answer {
        let [path, wanted] = given.operands[..] else {
            return fail(1, "qemu-img: Expecting image file name and size");
        };
        let image = match self.image(path, given.value(&["-f"])) {
            Ok(image) => image,
            Err(what) => return fail(1, format!("qemu-img: Could not open '{path}': {what}")),
        };
        if let Err(what) = self.writable(path) {
            return fail(1, format!("qemu-img: {what}"));
        }
        let wanted = match (
            wanted.strip_prefix('+'),
            size(wanted.trim_start_matches('+')),
        ) {
            (Some(_), Some(more)) => image.size + more,
            (None, Some(size)) => size,
            (_, None) => return fail(1, format!("qemu-img: Invalid image size '{wanted}'")),
        };
        if wanted < image.size && !given.has("--shrink") {
            return fail(
                1,
                "qemu-img: Use the --shrink option to perform a shrink operation.",
            );
        }
        if self.disk_full {
            return fail(
                1,
                "qemu-img: Failed to resize the image: No space left on device",
            );
        }
        let length = std::fs::metadata(self.tree.at(path)).map_or(0, |found| found.len());
        write(&self.tree, path, wanted, image.backing.as_deref(), length);
        Ok("Image resized.\n".into())
    }
}
