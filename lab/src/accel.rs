//! Whether ordinary guests run under this machine's KVM. The presence of `/dev/kvm` says little:
//! some clouds' kernels run only para-virtualised guests. So a kernel is booted under it, with a
//! time limit, and has to come as far as looking for its root file system.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::image::Image;
use crate::qemu::Accel;
use crate::run::command;
use crate::state::Probed;

const LIMIT: Duration = Duration::from_secs(20);
/// The kernel's last words without a root file system.
const WORD: &str = "VFS: Unable to mount root fs";

pub fn probe(image: &Image) -> Probed {
    let tcg = |why: &str| Probed {
        accel: Accel::Tcg,
        why: why.to_owned(),
    };
    if !Path::new("/dev/kvm").exists() {
        return tcg("there is no /dev/kvm");
    }
    let nested = ["kvm_intel", "kvm_amd"].iter().any(|module| {
        fs::read_to_string(format!("/sys/module/{module}/parameters/nested"))
            .is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
    });
    if !nested {
        return tcg("this machine's KVM does not offer nested virtualisation");
    }
    match boots(image) {
        Ok(true) => Probed {
            accel: Accel::Kvm,
            why: "a kernel booted under KVM".to_owned(),
        },
        Ok(false) => tcg("a kernel did not boot under KVM within 20 s"),
        Err(error) => tcg(&format!("QEMU could not be started under KVM: {error}")),
    }
}

fn boots(image: &Image) -> std::io::Result<bool> {
    let mut qemu = command(
        "qemu-system-x86_64",
        [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-machine",
            "q35",
            "-accel",
            "kvm",
        ],
    );
    qemu.args([
        "-cpu", "host", "-m", "512M", "-display", "none", "-serial", "stdio",
    ]);
    qemu.args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(image.kernel());
    qemu.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = qemu.spawn()?;
    let reader = child.stdout.take().map(|mut stdout| {
        std::thread::spawn(move || {
            let mut said = Vec::new();
            // A reading cut short is judged by what came.
            let _cut = stdout.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        })
    });
    let start = Instant::now();
    while child.try_wait()?.is_none() && start.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(200));
    }
    if child.try_wait()?.is_none() {
        child.kill()?;
    }
    child.wait()?;
    let said = reader
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default();
    Ok(said.contains(WORD))
}
