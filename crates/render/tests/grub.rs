//! GRUB itself runs what the script prints: `grub-emu` boots a small disk, as often as it is asked.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this test runs mke2fs, debugfs and GRUB on files of a temporary folder"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bmslice_model::KernelArg;
use bmslice_render::{GRUB_ENV, GRUB_VARIABLE, GrubEnv, GrubScript, args_digest};

fn args(text: &str) -> Vec<KernelArg> {
    text.split(' ').map(|arg| arg.parse().unwrap()).collect()
}

/// A disk with this block, and a `grub.cfg` that says what an entry would boot with.
fn disk(folder: &Path, script: &GrubScript, env: Option<&GrubEnv>) {
    let tree = folder.join("tree/boot/grub");
    fs::create_dir_all(&tree).unwrap();
    let config = format!("{}echo WITH {GRUB_VARIABLE} END\nexit\n", script.block());
    fs::write(tree.join("grub.cfg"), config).unwrap();
    let _ = fs::remove_file(tree.join(GRUB_ENV));
    if let Some(env) = env {
        fs::write(tree.join(GRUB_ENV), env.text()).unwrap();
    }
    let image = folder.join("disk");
    fs::write(&image, "").unwrap();
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.set_len(16 << 20).unwrap();
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(folder.join("tree"))
        .arg(&image)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let map = format!("(hd0) {}\n", image.display());
    fs::write(folder.join("device.map"), map).unwrap();
}

/// Boots; what an entry gets.
fn boot(folder: &Path) -> String {
    let output = Command::new("grub-emu")
        .arg("-m")
        .arg(folder.join("device.map"))
        .args(["-r", "hd0", "-d", "/boot/grub"])
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).replace(['\r', '\n'], "");
    let (_, rest) = said.split_once("WITH ").unwrap_or_else(|| panic!("{said}"));
    rest.split("END").next().unwrap().trim().to_owned()
}

/// The block after a boot.
fn block(folder: &Path) -> GrubEnv {
    let output = Command::new("debugfs")
        .args(["-R", &format!("cat /boot/grub/{GRUB_ENV}")])
        .arg(folder.join("disk"))
        .output()
        .unwrap();
    GrubEnv::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

#[test]
fn grub_tries_once_and_keeps_what_was_confirmed() {
    for (program, flag) in [
        ("grub-emu", "--version"),
        ("mke2fs", "-V"),
        ("debugfs", "-V"),
    ] {
        let ran = Command::new(program).arg(flag).output();
        if !ran.is_ok_and(|output| output.status.success()) {
            eprintln!("NOT TESTED: `{program}` is missing (apt-get install grub-emu e2fsprogs)");
            return;
        }
    }
    let new = args("isolcpus=domain,managed_irq,2-3");
    let old = args("nosmt quiet");
    let (try_new, kept_old) = (Some(args_digest(&new)), Some(args_digest(&old)));
    let script = GrubScript {
        args: new.clone(),
        before: Some(old),
        one_shot: true,
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let env = |tried: &Option<String>, confirmed: &Option<String>| GrubEnv {
        tried: tried.clone(),
        confirmed: confirmed.clone(),
    };
    let trial = format!("{} bmslice.trial=", new[0]);

    for (before, falls_to) in [(None, ""), (kept_old, "nosmt quiet")] {
        disk(folder, &script, Some(&env(&try_new, &before)));
        let first = boot(folder);
        assert!(first.starts_with(&trial), "{first}");
        assert!(first.contains(" panic=30 "), "{first}");
        assert_eq!(block(folder), env(&None, &before), "struck before a kernel");
        assert_eq!(boot(folder), falls_to, "once only");
    }
    disk(folder, &script, Some(&env(&None, &try_new)));
    assert_eq!(boot(folder), new[0].as_str(), "confirmed");
    assert_eq!(boot(folder), new[0].as_str(), "for good");
    let others = Some("0123456789abcdef".to_owned());
    disk(folder, &script, Some(&env(&others, &others)));
    assert_eq!(boot(folder), "", "other arguments than these");
    disk(folder, &script, None);
    assert_eq!(boot(folder), "", "without a block");
}
