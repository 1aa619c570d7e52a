//! Guests of images without cloud-init, set up as the manual procedure does it: `virt-resize` and
//! `virt-customize`, for real, on disk images that are built from Debian packages, with ext4 and
//! with XFS.
//!
//! The server is the fake one; `apply` runs whole on it, and its `qemu-img`, `virt-resize` and
//! `virt-customize` are the machine's own, let loose in the fake's folder. What came of it is read
//! out of the disks with guestfish.
//!
//! Takes some minutes, since libguestfs emulates its appliance, and is left out unless asked for:
//! `cargo test -p bmslice-apply --test guest_images -- --ignored --nocapture`. Needs the packages
//! `guestfs-tools libguestfs-xfs mmdebstrap qemu-utils dpkg-dev` and network access to a Debian
//! mirror for the first run; the images are kept in the target folder for the next.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this test builds images and looks into them with the machine's own tools, and may fail where it stands"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bmslice_apply::{ApplyOptions, Event, Outcome, apply};
use bmslice_host::Machine;
use bmslice_host::fake::{FakeMachine, FakeServer};
use bmslice_inventory::LiveInventory;
use bmslice_plan::Plan;
use bmslice_spec::Slicing;

const IMAGES: &str = "/var/lib/libvirt/images";
const HASH_FILE: &str = "/etc/bmslice/someuser.hash";
const HASH: &str = "$6$bmslicetest$0vQeOqk1pYcVbG9mJk0qzWvV3p0oH3nQmQ1bGzjYwq7d5q0yqk6Jv0yZsXo0r5m1T2u3v4w5x6y7z8A9B0C1D/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0n0qk3Wn3m8m0y1v5m6mJm3m9m2m4m7m8m1m3m5m6m someuser@desk";

fn spec() -> String {
    let slice = |name: &str, tenant: &str, filesystem: &str| {
        format!(
            "  - name: {name}
    tenant: {tenant}
    vcpus: 2
    emulator: {{ cores: 1 }}
    memory: {{ size: 1GiB }}
    image:
      base: base-{filesystem}.qcow2
      size: 4GiB
      from: {{ resize: {{ expand: /dev/sda1 }} }}
      setup: virt-customize
    user:
      name: someuser
      sshKeys: [ {KEY} ]
      passwordHashFile: {HASH_FILE}
      sudo: true
    firstCommands: [ \"touch /var/lib/was-here\" ]
"
        )
    };
    format!(
        "apiVersion: bmslice/v1
kind: Slicing
host:
  reserve: {{ cores: 1, perNuma: true }}
  isolation: none
slices:
{}{}",
        slice("Red_k8s_cluster_worker1", "red", "ext4"),
        slice("Blue_k8s_cluster_worker1", "blue", "xfs")
    )
}

/// Says where the minutes go.
fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = act();
    println!("{what}: {:.0} s", start.elapsed().as_secs_f32());
    done
}

fn must(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    assert!(
        output.status.success(),
        "{shown}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// libguestfs without libvirt and without KVM, which emulates everywhere, with a kernel of ours
/// where the machine has none (a container).
struct Guestfs {
    env: BTreeMap<String, String>,
    /// The folder that supermin insists on, when it was made here.
    modules: Option<PathBuf>,
}

impl Guestfs {
    fn new(cache: &Path) -> Self {
        for program in [
            "virt-resize",
            "virt-customize",
            "virt-make-fs",
            "guestfish",
            "mmdebstrap",
        ] {
            assert!(
                Command::new(program).arg("--version").output().is_ok(),
                "`{program}` is missing: apt install guestfs-tools libguestfs-xfs mmdebstrap"
            );
        }
        let mut env: BTreeMap<String, String> = [
            ("LIBGUESTFS_BACKEND", "direct"),
            ("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        // The appliance is as large as a small system: built once.
        fs::create_dir_all(cache).unwrap();
        env.insert("LIBGUESTFS_CACHEDIR".into(), cache.display().to_string());
        let mut modules = None;
        if !has_kernel() {
            let (kernel, folder) = timed("a kernel for libguestfs", || fetch_kernel(cache));
            env.insert("SUPERMIN_KERNEL".into(), kernel.display().to_string());
            env.insert("SUPERMIN_MODULES".into(), folder.display().to_string());
            let needed = PathBuf::from("/lib/modules");
            if !needed.exists() {
                fs::create_dir(&needed).unwrap();
                modules = Some(needed);
            }
        }
        Self { env, modules }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(&self.env);
        command
    }
}

impl Drop for Guestfs {
    fn drop(&mut self) {
        if let Some(folder) = &self.modules {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Whether supermin finds a kernel and its modules by itself.
fn has_kernel() -> bool {
    let Ok(entries) = fs::read_dir("/boot") else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_prefix("vmlinuz-").is_some_and(|version| {
            Path::new("/lib/modules")
                .join(version)
                .join("modules.dep")
                .exists()
                && fs::File::open(entry.path()).is_ok()
        })
    })
}

/// Unpacks Debian's kernel for virtual machines without installing it.
fn fetch_kernel(cache: &Path) -> (PathBuf, PathBuf) {
    let tree = cache.join("kernel");
    let found = |tree: &Path| {
        let entry = fs::read_dir(tree.join("lib/modules"))
            .ok()?
            .flatten()
            .next()?;
        let version = entry.file_name().into_string().ok()?;
        let kernel = tree.join(format!("boot/vmlinuz-{version}"));
        entry
            .path()
            .join("modules.dep")
            .exists()
            .then(|| (kernel, entry.path()))
    };
    if let Some(found) = found(&tree) {
        return found;
    }
    let depends = must(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]));
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| package.starts_with("linux-image-"))
        .expect("`linux-image-cloud-amd64` depends on a kernel");
    let packages = cache.join("packages");
    fs::create_dir_all(&packages).unwrap();
    must(
        Command::new("apt-get")
            .args(["download", package])
            .current_dir(&packages),
    );
    let file = fs::read_dir(&packages)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .expect("apt-get left the package");
    must(Command::new("dpkg-deb").arg("-x").args([&file, &tree]));
    let version = package.trim_start_matches("linux-image-");
    must(Command::new("depmod").arg("-b").arg(&tree).arg(version));
    fs::remove_file(file).unwrap();
    found(&tree).expect("the package holds a kernel and its modules")
}

/// A Debian system without cloud-init, on one partition of a disk that is a little too small.
fn base_image(cache: &Path, guestfs: &Guestfs, filesystem: &str) -> PathBuf {
    let image = cache.join(format!("base-{filesystem}.qcow2"));
    if image.exists() {
        return image;
    }
    let tar = cache.join("base.tar");
    if !tar.exists() {
        let part = cache.join("base.part.tar");
        timed("a system from Debian packages", || {
            must(
                Command::new("mmdebstrap")
                    .args(["--quiet", "--variant=minbase"])
                    .arg("--aptopt=Apt::Install-Recommends \"false\"")
                    .arg("--dpkgopt=force-unsafe-io")
                    .args(
                        ["man", "doc", "locale"]
                            .map(|kind| format!("--dpkgopt=path-exclude=/usr/share/{kind}/*")),
                    )
                    .arg("--include=systemd-sysv,openssh-server,sudo,xfsprogs")
                    .arg("--customize-hook=echo '/dev/sda1 / auto defaults 0 1' > \"$1/etc/fstab\"")
                    // As images do that are made for keys alone.
                    .arg("--customize-hook=echo 'PasswordAuthentication no' >> \"$1/etc/ssh/sshd_config\"")
                    .arg("--customize-hook=echo 0123456789abcdef0123456789abcdef > \"$1/etc/machine-id\"")
                    .arg("bookworm")
                    .arg(&part),
            )
        });
        fs::rename(part, &tar).unwrap();
    }
    let part = cache.join(format!("base-{filesystem}.part"));
    timed(&format!("an image with {filesystem}"), || {
        must(
            guestfs
                .command("virt-make-fs")
                .args(["--partition=mbr", "--format=qcow2", "--size=+300M"])
                .arg(format!("--type={filesystem}"))
                .args([&tar, &part]),
        )
    });
    fs::rename(part, &image).unwrap();
    image
}

/// Lets `apply` call the machine's own program where it calls the fake's. Paths of the server that
/// `apply` gives are paths below the fake's folder.
fn let_loose(fake: &FakeMachine, guestfs: &Guestfs, program: &'static str, log: &Log) {
    let root = fake.root().path().to_owned();
    let (env, log) = (guestfs.env.clone(), log.clone());
    fake.act_out(program, move |asked| {
        let start = Instant::now();
        let args: Vec<String> = asked
            .args
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        log.lock()
            .unwrap()
            .push(format!("{program} {}", args.join(" ")));
        let below = args.iter().map(|arg| {
            [IMAGES, "/var/lib/bmslice", "/etc/bmslice", "/run/bmslice"]
                .iter()
                .fold(arg.clone(), |arg, place| {
                    arg.replace(place, &format!("{}{place}", root.display()))
                })
        });
        let output = Command::new(program)
            .args(below)
            .envs(asked.env.iter().cloned())
            .envs(&env)
            .output()
            .map_err(|error| (127, error.to_string()))?;
        println!("{program}: {:.0} s", start.elapsed().as_secs_f32());
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err((output.status.code().unwrap_or(1), said))
        }
    });
}

type Log = Arc<Mutex<Vec<String>>>;

/// What guestfish says of a disk's first partition, command by command.
fn look(guestfs: &Guestfs, disk: &Path, commands: &[&str]) -> Vec<String> {
    use std::io::Write;
    let mut child = guestfs
        .command("guestfish")
        .args(["--ro", "--format=qcow2", "-a"])
        .arg(disk)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut script = String::from("run\nmount-ro /dev/sda1 /\n");
    for command in commands {
        // A command that fails is part of the answer.
        script.push_str(&format!("echo ==NEXT==\n-{command}\n"));
    }
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "guestfish on {}", disk.display());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers: Vec<String> = text
        .split("==NEXT==\n")
        .skip(1)
        .map(|answer| answer.trim_end().to_owned())
        .collect();
    assert_eq!(answers.len(), commands.len(), "{text}");
    answers
}

fn apply_once(fake: &FakeMachine, plan: &Plan) -> Outcome {
    let inventory = LiveInventory::read(fake, None).unwrap();
    let mut told = |event: Event| {
        if let Event::Note(note) = event {
            println!("note: {note}");
        }
    };
    apply(fake, &inventory, plan, &ApplyOptions::default(), &mut told)
        .unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
#[ignore = "takes minutes: -- --ignored"]
fn guests_without_cloud_init_are_resized_and_customised_as_planned() {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-images");
    let guestfs = Guestfs::new(&cache);
    let fake = FakeMachine::new(FakeServer::lab());
    let images = fake.root().path().join(IMAGES.trim_start_matches('/'));
    fs::create_dir_all(&images).unwrap();
    let mut digests = BTreeMap::new();
    for filesystem in ["ext4", "xfs"] {
        let base = base_image(&cache, &guestfs, filesystem);
        let inside = images.join(format!("base-{filesystem}.qcow2"));
        fs::copy(&base, &inside).unwrap();
        let digest = must(Command::new("sha256sum").arg(&inside));
        digests.insert(inside, digest);
    }
    fake.put_with_mode(HASH_FILE, format!("{HASH}\n"), 0o600);
    let log = Log::default();
    for program in ["qemu-img", "virt-resize", "virt-customize"] {
        let_loose(&fake, &guestfs, program, &log);
    }

    let slicing = Slicing::parse("slices.yaml", &spec()).unwrap_or_else(|e| panic!("{e:?}"));
    let inventory = LiveInventory::read(&fake, None).unwrap();
    let plan = bmslice_planner::plan(&slicing, &inventory).unwrap_or_else(|e| panic!("{e:?}"));
    let outcome = timed("apply", || apply_once(&fake, &plan));
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");

    let commands = log.lock().unwrap().join("\n");
    assert!(
        !commands.contains(HASH),
        "a hash was an argument:\n{commands}"
    );
    for (base, digest) in &digests {
        assert_eq!(
            must(Command::new("sha256sum").arg(base)),
            *digest,
            "the base image was written to"
        );
    }
    let state = fake.root().path().join("var/lib/bmslice");
    for entry in fs::read_dir(state).unwrap().flatten() {
        let bytes = fs::read(entry.path()).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&bytes).contains(HASH),
            "{} holds the hash",
            entry.path().display()
        );
    }
    for slice in plan.slices() {
        let disk = fake
            .root()
            .path()
            .join(slice.disk.path.trim_start_matches('/'));
        timed(&format!("looking into {}", slice.name), || {
            look_into(&guestfs, &disk, slice.name.hostname().as_str());
        });
    }

    log.lock().unwrap().clear();
    assert_eq!(apply_once(&fake, &plan), Outcome::Nothing);
    let again = log.lock().unwrap().join("\n");
    assert!(
        !again.contains("virt-"),
        "a disk in its place was touched again:\n{again}"
    );
}

fn look_into(guestfs: &Guestfs, disk: &Path, hostname: &str) {
    assert_eq!(
        fs::metadata(disk).unwrap().permissions().mode() & 0o777,
        0o600,
        "what is in a guest's disk is not for every user of the host"
    );
    let info = must(
        Command::new("qemu-img")
            .args(["info", "--output=json"])
            .arg(disk),
    );
    assert!(info.contains("\"virtual-size\": 4294967296"), "{info}");
    assert!(info.contains("\"format\": \"qcow2\""), "{info}");

    let answers = look(
        guestfs,
        disk,
        &[
            "blockdev-getsize64 /dev/sda1",
            "statvfs /",
            "cat /etc/hostname",
            "filesize /etc/machine-id",
            "grep someuser: /etc/shadow",
            "cat /home/someuser/.ssh/authorized_keys",
            "stat /home/someuser/.ssh",
            "grep someuser: /etc/passwd",
            "glob cat /etc/sudoers.d/90-bmslice",
            "stat /etc/sudoers.d/90-bmslice",
            "grep ^PasswordAuthentication /etc/ssh/sshd_config",
            "glob-expand /root/*hash*",
            "glob-expand /root/.*hash*",
            "glob cat /usr/lib/virt-sysprep/scripts/*",
            "glob-expand /etc/systemd/system/*.wants/guestfs-firstboot.service",
        ],
    );
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap();
    let gib4 = 4u64 << 30;
    let partition: u64 = next().parse().unwrap();
    assert!(
        partition > gib4 - (16 << 20) && partition < gib4,
        "the partition has {partition} bytes"
    );
    let statvfs = next();
    let field = |name: &str| -> u64 {
        let line = statvfs.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .trim_start_matches(':')
            .trim()
            .parse()
            .unwrap()
    };
    let filesystem = field("frsize") * field("blocks");
    assert!(
        filesystem > gib4 * 9 / 10,
        "the file system was not grown with its partition: {filesystem} of {partition} bytes"
    );
    assert_eq!(next(), hostname);
    assert_eq!(next(), "0", "guests of one image would share a machine id");
    assert!(
        next().starts_with(&format!("someuser:{HASH}:")),
        "the password is the hash of the file"
    );
    assert!(next().lines().any(|line| line == KEY));
    let ssh = next();
    assert!(ssh.contains("uid: 1000"), "the key is the user's: {ssh}");
    assert!(next().starts_with("someuser:x:1000:"));
    assert_eq!(next(), "someuser ALL=(ALL) NOPASSWD:ALL");
    let sudoers = next();
    // S_IFREG | 0440
    assert!(
        sudoers.contains("mode: 33056") && sudoers.contains("uid: 0"),
        "{sudoers}"
    );
    let passwords = next();
    assert!(
        passwords
            .lines()
            .all(|line| line == "PasswordAuthentication yes")
            && !passwords.is_empty(),
        "passwords are asked for, and not taken: {passwords}"
    );
    assert_eq!(next(), "", "the hash stayed in the guest");
    assert_eq!(next(), "", "the hash stayed in the guest");
    let first_boot = next();
    assert!(
        first_boot.contains("touch /var/lib/was-here"),
        "the first boot's command: {first_boot}"
    );
    assert_ne!(next(), "", "nothing runs the first boot's commands");
}
