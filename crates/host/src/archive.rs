//! Captured trees as archives: tar, plain or packed with gzip, bzip2, xz or zstd.
//!
//! Archives come from strangers. Keeps true: nothing is written to disk; what would lead out of
//! the tree, or is neither file, folder nor symbolic link, is refused by name; the limits of
//! [`Limits`] hold for what is unpacked, whatever the archive says of itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::tree::{Entry, Tree};

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and links together.
    pub entries: u64,
    /// Bytes of one file.
    pub file: u64,
    /// Bytes after unpacking, headers included.
    pub bytes: u64,
}

impl Default for Limits {
    /// Sixteen times what the largest server that was seen has (14,000 files, 15 MB).
    fn default() -> Self {
        Self {
            entries: 250_000,
            file: 16 << 20,
            bytes: 256 << 20,
        }
    }
}

/// The memory that unpacking may take beside what is kept: the largest window of xz and zstd
/// (64 MiB, as much as their highest usual levels ask for).
const WINDOW: u32 = 64 << 20;

/// Why an archive is not taken.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// It cannot be read, or is damaged.
    #[error("the archive cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Neither tar nor a known packing.
    #[error("this is no tar archive, plain or packed with gzip, bzip2, xz or zstd")]
    Unknown,
    /// A path that is absolute or climbs.
    #[error("the archive holds `{path}`, which leads out of it")]
    Outside {
        /// As written.
        path: String,
    },
    /// A symbolic link whose target is above the archive's top.
    #[error("the archive holds the link `{path}` to `{target}`, which leads out of it")]
    LinkOutside {
        /// The link.
        path: String,
        /// As written.
        target: String,
    },
    /// An entry below something that is no folder: a link could lead it anywhere.
    #[error("the archive holds `{path}` below something that is no folder")]
    Below {
        /// As written.
        path: String,
    },
    /// A device, a pipe, a hard link.
    #[error(
        "the archive holds `{path}`, which is {what}; a captured tree has files, folders and symbolic links alone"
    )]
    Kind {
        /// As written.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// More entries than the limit.
    #[error("the archive holds more than {limit} entries")]
    Entries {
        /// The limit.
        limit: u64,
    },
    /// A file larger than the limit.
    #[error("`{path}` in the archive has {size} bytes; at most {limit} are taken")]
    File {
        /// As written.
        path: String,
        /// As its header says.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// More bytes than the limit.
    #[error("the archive unpacks to more than {limit} bytes")]
    Bytes {
        /// The limit.
        limit: u64,
    },
    /// No folder in it looks like `/`.
    #[error("no folder in the archive has a `sys` or `proc`")]
    NoRoot,
    /// Several folders look like `/`.
    #[error("the archive holds several trees: {}", .names.join(", "))]
    Several {
        /// Their paths.
        names: Vec<String>,
    },
}

/// Says when more was read than may be.
struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => {
                self.exceeded = true;
                Err(io::Error::other("the archive unpacks to too much"))
            }
        }
    }
}

/// Zstd frames one after another, skippable ones skipped.
struct Zstd<R: BufRead> {
    inner: R,
    decoder: ruzstd::decoding::FrameDecoder,
    open: bool,
}

impl<R: BufRead> Zstd<R> {
    fn next_frame(&mut self) -> io::Result<bool> {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        loop {
            if self.inner.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.inner).take(u64::from(length));
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy;
        loop {
            if !self.open {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.open = true;
            }
            while self.decoder.can_collect() < into.len() && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.inner, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let count = self.decoder.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            self.open = false;
        }
    }
}

/// How an archive is packed, by its first bytes.
fn unpacked<'a>(mut file: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    // A buffered reader over a file has its first block at once; a pipe may need asking.
    let head = file.fill_buf()?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(lzma_rust2::XzReader::new_mem_limit(
            file,
            true,
            WINDOW >> 10,
        )),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            decoder.set_max_window_size(u64::from(WINDOW));
            Box::new(Zstd {
                inner: file,
                decoder,
                open: false,
            })
        }
        // The checksum of a tar header comes later; an empty file is no archive.
        head if head.len() >= 512 => Box::new(file),
        _ => return Err(ArchiveError::Unknown),
    })
}

/// The path of an entry inside the archive, when it stays there.
fn inside(path: &Path) -> Result<PathBuf, ArchiveError> {
    let outside = || ArchiveError::Outside {
        path: path.display().to_string(),
    };
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    Ok(clean)
}

/// Whether a relative link climbs above the top of the archive.
fn climbs(link: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        // It stays inside the tree when it is followed.
        return false;
    }
    let mut depth = link.components().count().saturating_sub(2);
    for part in target.components() {
        match part {
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

impl Tree {
    /// Reads an archive into memory and finds the captured root in it.
    ///
    /// # Errors
    /// [`ArchiveError`]; nothing of the archive is then kept.
    pub fn unpack(file: impl Read, limits: Limits) -> Result<Self, ArchiveError> {
        let mut bounded = Bounded {
            inner: unpacked(BufReader::with_capacity(64 << 10, file))?,
            left: limits.bytes,
            exceeded: false,
        };
        let read = read_entries(&mut bounded, limits);
        if bounded.exceeded {
            return Err(ArchiveError::Bytes {
                limit: limits.bytes,
            });
        }
        let mut tree = read?;
        tree.enter_root().map_err(|names| match names.as_slice() {
            [] => ArchiveError::NoRoot,
            _ => ArchiveError::Several { names },
        })?;
        Ok(tree)
    }

    /// Writes the tree as a gzipped tar under one folder, in the order of [`Tree::walk`], with
    /// times and owners of nobody: the same tree gives the same bytes.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn pack(&self, top: &str, into: impl Write) -> io::Result<()> {
        let packed = flate2::GzBuilder::new().write(into, flate2::Compression::default());
        let mut archive = tar::Builder::new(packed);
        for (path, entry) in self.walk() {
            let path = Path::new(top).join(path.strip_prefix("/").unwrap_or(&path));
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            match entry {
                Entry::Folder(_) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    archive.append_data(&mut header, &path, io::empty())?;
                }
                Entry::File(bytes) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_mode(0o644);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, &path, bytes.as_slice())?;
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, &path, target)?;
                }
            }
        }
        archive.into_inner()?.finish()?.flush()
    }
}

fn read_entries(from: &mut impl Read, limits: Limits) -> Result<Tree, ArchiveError> {
    let mut tree = Tree::default();
    let mut archive = tar::Archive::new(from);
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = match entry {
            Ok(entry) => entry,
            // What does not even begin as a tar is none.
            Err(error) if count == 0 && error.get_ref().is_some() => {
                return Err(ArchiveError::Unknown);
            }
            Err(error) => return Err(error.into()),
        };
        count += 1;
        if count > limits.entries {
            return Err(ArchiveError::Entries {
                limit: limits.entries,
            });
        }
        let path = entry.path()?.into_owned();
        let shown = path.display().to_string();
        let at = inside(&path)?;
        let kind = entry.header().entry_type();
        let below = |error: io::Error| match error.raw_os_error() {
            Some(_) => ArchiveError::Below {
                path: shown.clone(),
            },
            None => error.into(),
        };
        if kind.is_dir() {
            tree.put_folder(&at).map_err(below)?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            let size = entry.size();
            let too_large = |size| ArchiveError::File {
                path: shown.clone(),
                size,
                limit: limits.file,
            };
            if size > limits.file {
                return Err(too_large(size));
            }
            let mut bytes = Vec::new();
            (&mut entry).take(limits.file + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limits.file {
                return Err(too_large(bytes.len() as u64));
            }
            tree.put_file(&at, bytes).map_err(below)?;
        } else if kind.is_symlink() {
            let target = entry.link_name()?.unwrap_or_default().into_owned();
            if climbs(&at, &target) {
                return Err(ArchiveError::LinkOutside {
                    path: shown,
                    target: target.display().to_string(),
                });
            }
            tree.put_link(&at, target).map_err(below)?;
        } else if kind.is_pax_global_extensions() {
            // A comment on the whole archive, as git writes it.
        } else {
            return Err(ArchiveError::Kind {
                path: shown,
                what: if kind.is_hard_link() {
                    "a hard link"
                } else if kind.is_character_special() || kind.is_block_special() {
                    "a device"
                } else if kind.is_fifo() {
                    "a pipe"
                } else {
                    "of a kind that is not known"
                },
            });
        }
    }
    if count == 0 {
        return Err(ArchiveError::Unknown);
    }
    Ok(tree)
}
