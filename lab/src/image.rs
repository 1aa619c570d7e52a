//! The server's disk and the guest image that lies on it, built from Debian packages.
//!
//! An image is named by the digest of all that it is made of (package lists, scripts, layout), so a
//! changed recipe gives a new one and an unchanged one is found. Each build happens in a folder of
//! its own and is renamed at the end: what has the final name is complete.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::apt;
use crate::disk::{self, DiskError};
use crate::progress::say;
use crate::run::{RunError, command, display, run};
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the image folder `{path}` could not be used")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the {name} tree could not be built; the last lines of `{log}`:\n  {tail}")]
    Tree {
        name: &'static str,
        log: PathBuf,
        tail: String,
    },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// One tree of the two.
struct Recipe {
    name: &'static str,
    packages: &'static str,
    excludes: &'static [&'static str],
    script: &'static str,
    uuid: &'static str,
    size: u64,
}

const SERVER: Recipe = Recipe {
    name: "server",
    packages: include_str!("../recipe/server.packages"),
    excludes: &[include_str!("../recipe/excludes")],
    script: concat!(
        include_str!("../recipe/both.sh"),
        include_str!("../recipe/server.sh")
    ),
    uuid: "5d0f7f0e-6c61-4b62-8000-000000000001",
    size: 40 << 30,
};

const GUEST: Recipe = Recipe {
    name: "guest",
    packages: include_str!("../recipe/guest.packages"),
    excludes: &[
        include_str!("../recipe/excludes"),
        include_str!("../recipe/guest.excludes"),
    ],
    script: concat!(
        include_str!("../recipe/both.sh"),
        include_str!("../recipe/guest.sh")
    ),
    uuid: "5d0f7f0e-6c61-4b62-8000-000000000002",
    size: 2 << 30,
};

/// Where the server keeps the guest's base image.
pub const GUEST_IMAGE: &str = "/var/lib/libvirt/images/debian-12-guest.qcow2";
/// Raised when this file builds something else out of the same recipe.
const LAYOUT: &str = "3";

/// The digest that names the images of this recipe.
pub fn digest() -> String {
    let mut hash = Sha256::new();
    hash.update(LAYOUT);
    for recipe in [&SERVER, &GUEST] {
        for part in [recipe.packages, recipe.script, recipe.uuid] {
            hash.update(part);
            hash.update([0]);
        }
        recipe.excludes.iter().for_each(|part| hash.update(part));
        hash.update(recipe.size.to_le_bytes());
    }
    hash.update(include_str!("../recipe/mke2fs.conf"));
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Files of a finished image.
pub struct Image {
    pub digest: String,
    pub folder: PathBuf,
}

impl Image {
    /// The image of a digest, if it is complete.
    pub fn find(state: &State, digest: &str) -> Option<Self> {
        let folder = state.path("images").join(digest);
        folder.join("server.raw").is_file().then(|| Self {
            digest: digest.to_owned(),
            folder,
        })
    }

    /// The kernel alone, for the probe of KVM.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Its initramfs, beside it for systemd-boot.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd.img")
    }

    /// systemd-boot.
    pub fn loader(&self) -> PathBuf {
        self.folder.join("systemd-bootx64.efi")
    }

    /// What GRUB gives the kernel, for systemd-boot to do the same.
    pub fn cmdline(&self) -> PathBuf {
        self.folder.join("cmdline")
    }
}

/// Finds the image of this recipe or builds it.
pub fn ensure(state: &State) -> Result<Image, ImageError> {
    let digest = digest();
    if let Some(image) = Image::find(state, &digest) {
        say(&format!("image {digest} is there"));
        return Ok(image);
    }
    let images = state.path("images");
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Folder { path, source }
    };
    fs::create_dir_all(&images).map_err(at(&images))?;
    clear_remains(&images);
    let work = tempfile::Builder::new()
        .prefix("building-")
        .tempdir_in(&images)
        .map_err(at(&images))?;
    let start = Instant::now();
    say(&format!(
        "building image {digest}: a server and a guest from Debian packages, about 3 minutes"
    ));

    let result = work.path().join("result");
    fs::create_dir(&result).map_err(at(&result))?;
    let guest_image = work.path().join("guest.qcow2");
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| -> Result<(), ImageError> {
            let tree = build_tree(&GUEST, work.path())?;
            say("guest: making the disk image");
            let raw = work.path().join("guest.raw");
            disk::make(&tree, &raw, GUEST.size, GUEST.uuid)?;
            run(command("qemu-img", ["convert", "-c", "-O", "qcow2"])
                .args(["-o", "compression_type=zstd"])
                .args([&raw, &guest_image]))?;
            fs::remove_file(&raw).map_err(at(&raw))
        });
        let server = build_tree(&SERVER, work.path());
        let guest = guest.join().unwrap_or_else(|_| {
            Err(ImageError::Tree {
                name: "guest",
                log: PathBuf::new(),
                tail: "its thread ended".to_owned(),
            })
        });
        let tree = server?;
        guest?;
        let inside = tree.join(GUEST_IMAGE.trim_start_matches('/'));
        fs::rename(&guest_image, &inside).map_err(at(&inside))?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o644)).map_err(at(&inside))?;
        say("server: making the disk");
        disk::make(&tree, &result.join("server.raw"), SERVER.size, SERVER.uuid)?;
        copy_boot(&tree, &result)
    })?;
    let folder = images.join(&digest);
    fs::rename(&result, &folder).map_err(at(&folder))?;
    say(&format!(
        "image {digest} built in {} s",
        start.elapsed().as_secs()
    ));
    Ok(Image { digest, folder })
}

/// Takes away what an interrupted build left; its lock is ours.
fn clear_remains(images: &Path) {
    let Ok(entries) = fs::read_dir(images) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("building-") {
            // What cannot be removed only takes space; why is said, since it may be a mount.
            if let Err(error) = crate::remove::remove_tree(&entry.path()) {
                say(&format!("{} stays: {error}", entry.path().display()));
            }
        }
    }
}

/// What boots the server in other ways than by its own GRUB.
fn copy_boot(tree: &Path, result: &Path) -> Result<(), ImageError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Folder { path, source }
    };
    let copy = |from: &Path, name: &str| {
        fs::copy(from, result.join(name))
            .map(drop)
            .map_err(at(from))
    };
    let boot = tree.join("boot");
    for entry in fs::read_dir(&boot).map_err(at(&boot))? {
        let entry = entry.map_err(at(&boot))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        for (prefix, copied) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
            if name.starts_with(prefix) {
                copy(&entry.path(), copied)?;
            }
        }
    }
    let loader = tree.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi");
    copy(&loader, "systemd-bootx64.efi")?;
    let config = boot.join("grub/grub.cfg");
    let text = fs::read_to_string(&config).map_err(at(&config))?;
    // `    linux /boot/vmlinuz-6.12 root=… ro …`
    let words = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("linux "));
    let (_, arguments) = words
        .and_then(|line| line.split_once(' '))
        .unwrap_or_default();
    let cmdline = result.join("cmdline");
    fs::write(&cmdline, format!("{arguments}\n")).map_err(at(&cmdline))
}

/// Runs mmdebstrap; its own lines are the progress, and a line of ours when it is long silent.
fn build_tree(recipe: &Recipe, work: &Path) -> Result<PathBuf, ImageError> {
    let bad = |source| ImageError::Folder {
        path: work.to_owned(),
        source,
    };
    let script = work.join(format!("{}.sh", recipe.name));
    fs::write(&script, recipe.script.replace("@ROOT_UUID@", recipe.uuid)).map_err(bad)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(bad)?;
    let sources = work.join(format!("{}.sources.list", recipe.name));
    fs::write(&sources, apt::sources()).map_err(bad)?;
    let tree = work.join(recipe.name);
    let log = work
        .parent()
        .unwrap_or(work)
        .join(format!("{}.log", recipe.name));

    // In a mount namespace of its own: what mmdebstrap mounts in the tree (the machine's /dev/shm,
    // /proc, /sys) is gone with its last process, however that ends, and nobody else sees it.
    let mut build = command(
        "unshare",
        [
            "--mount",
            "--propagation=private",
            "mmdebstrap",
            "--variant=minbase",
            "--mode=root",
            "--format=directory",
            "--architectures=amd64",
        ],
    );
    build.args(
        apt::options()
            .iter()
            .map(|option| format!("--aptopt={option}")),
    );
    build.arg("--dpkgopt=force-unsafe-io");
    for list in recipe.excludes {
        build.args(lines(list).map(|glob| format!("--dpkgopt=path-exclude={glob}")));
    }
    build.arg(format!(
        "--include={}",
        lines(recipe.packages).collect::<Vec<_>>().join(",")
    ));
    build.arg(format!("--customize-hook={}", script.display()));
    build.arg("bookworm").arg(&tree).arg(&sources);
    build
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    build
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");

    let mut child = build.spawn().map_err(|source| RunError::Start {
        program: display(&build).chars().take(60).collect(),
        source,
    })?;
    let mut kept = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        std::thread::scope(|scope| {
            let (done, waiting) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let start = Instant::now();
                while waiting.recv_timeout(Duration::from_secs(20))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    say(&format!(
                        "{}: at work for {} s",
                        recipe.name,
                        start.elapsed().as_secs()
                    ));
                }
            });
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(step) = line.strip_prefix("I: ")
                    && !step.starts_with("running --customize-hook directly")
                {
                    say(&format!("{}: {step}", recipe.name));
                }
                kept.push(line);
            }
            drop(done);
        });
    }
    let status = child.wait().map_err(|source| RunError::Start {
        program: "mmdebstrap".to_owned(),
        source,
    })?;
    fs::write(&log, kept.join("\n")).map_err(bad)?;
    if status.success() {
        return Ok(tree);
    }
    let tail = kept[kept.len().saturating_sub(8)..].join("\n  ");
    Err(ImageError::Tree {
        name: recipe.name,
        log,
        tail,
    })
}

/// The entries of a list with comments.
fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_stable_and_short() {
        assert_eq!(digest(), digest());
        assert_eq!(digest().len(), 16);
    }

    #[test]
    fn lists_have_comments() {
        assert_eq!(lines("# a\nb\n\n c \n").collect::<Vec<_>>(), ["b", "c"]);
        assert!(lines(SERVER.packages).any(|name| name == "linux-image-amd64/bookworm-backports"));
    }
}
