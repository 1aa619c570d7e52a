//! The disk that systemd-boot starts from, and the firmware's memory: made without a loop device,
//! by `sfdisk` and the `mtools`.
//!
//! One partition, the EFI system partition, with systemd-boot, a kernel and its entry, as
//! `kernel-install` would have left them. The server's own disk stays as it is.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::image::Image;
use crate::qemu::{EFI_VARIABLES, EFI_VARIABLES_TEMPLATE, ESP};
use crate::run::{RunError, command, display, run};
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub enum EspError {
    #[error("`{path}` could not be used")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Run(#[from] RunError),
}

const SIZE: u64 = 256 << 20;
const PARTITION: u64 = 1 << 20;
/// The type of an EFI system partition (UEFI specification, table of GPT partition types).
const TABLE: &str = "label: gpt\nstart=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=ESP\n";

/// Makes disk and variables, unless they are there.
pub fn ensure(state: &State, image: &Image) -> Result<(), EspError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| EspError::File { path, source }
    };
    let variables = state.path(EFI_VARIABLES);
    if !variables.exists() {
        let template = Path::new(EFI_VARIABLES_TEMPLATE);
        fs::copy(template, &variables).map_err(at(template))?;
    }
    let disk = state.path(ESP);
    if disk.exists() {
        return Ok(());
    }
    let cmdline = fs::read_to_string(image.cmdline()).map_err(at(&image.cmdline()))?;
    // On the few CPUs of a server that boots this way the kernel soon knows its delays by itself; and
    // one that panics waits by them before it boots again: with too long ones minutes, not 30 s.
    let cmdline: Vec<&str> = cmdline
        .split_whitespace()
        .filter(|word| !word.starts_with("lpj="))
        .collect();
    let new = state.path("esp.raw.new");
    let file = File::create(&new).map_err(at(&new))?;
    file.set_len(SIZE).map_err(at(&new))?;
    drop(file);
    partition(&new)?;

    let inside = format!("{}@@{PARTITION}", new.display());
    let sectors = (SIZE - 2 * PARTITION) / 512;
    run(&mut command(
        "mformat",
        [
            "-i",
            &inside,
            "-F",
            "-v",
            "ESP",
            "-T",
            &sectors.to_string(),
            "-h",
            "64",
            "-s",
            "32",
            "::",
        ],
    ))?;
    let folders = [
        "::/EFI",
        "::/EFI/BOOT",
        "::/EFI/systemd",
        "::/loader",
        "::/loader/entries",
        "::/bmserver",
    ];
    run(command("mmd", ["-i", &inside]).args(folders))?;
    let texts = tempfile::tempdir_in(&state.folder).map_err(at(&state.folder))?;
    let text = |name: &str, content: String| {
        let path = texts.path().join(name);
        fs::write(&path, content).map_err(at(&path))?;
        Ok::<_, EspError>(path)
    };
    let entry = format!(
        "title      Debian GNU/Linux 12 (bookworm)\nsort-key   debian\n\
         options    {}\nlinux      /bmserver/linux\ninitrd     /bmserver/initrd.img\n",
        cmdline.join(" "),
    );
    for (from, to) in [
        (image.loader(), "::/EFI/BOOT/BOOTX64.EFI"),
        (image.loader(), "::/EFI/systemd/systemd-bootx64.efi"),
        (image.kernel(), "::/bmserver/linux"),
        (image.initrd(), "::/bmserver/initrd.img"),
        (
            text("loader.conf", "timeout 0\n".into())?,
            "::/loader/loader.conf",
        ),
        (
            text("entry.conf", entry)?,
            "::/loader/entries/bmserver-lab.conf",
        ),
    ] {
        run(command("mcopy", ["-i", &inside]).arg(from).arg(to))?;
    }
    fs::rename(&new, &disk).map_err(at(&disk))
}

/// Back to the first boot: both are made anew.
pub fn remove(state: &State) -> Result<(), EspError> {
    for name in [ESP, EFI_VARIABLES] {
        let path = state.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(EspError::File { path, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn partition(disk: &Path) -> Result<(), EspError> {
    let mut sfdisk = command("sfdisk", ["--quiet"]);
    sfdisk
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let started = |source| RunError::Start {
        program: "sfdisk".to_owned(),
        source,
    };
    let mut child = sfdisk.spawn().map_err(started)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(TABLE.as_bytes()).map_err(started)?;
    }
    let output = child.wait_with_output().map_err(started)?;
    if output.status.success() {
        return Ok(());
    }
    Err(EspError::Run(RunError::Failed {
        command: display(&sfdisk),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }))
}
