//! ostree's deployments and their boot loader entries, and `rpm-ostree` as far as it is called.
//!
//! Takes `/boot/loader/entries`, which is all that ostree keeps of kernel arguments; gives other ones.
//! Keeps true, as `ostree` 2022.7 does it in a sysroot of its own: whatever changes the list of
//! deployments writes all entries anew into the folder that is not in use, and then has
//! `/boot/loader` lead there, so that nothing else is left in it; entries are numbered, the highest is
//! the default; `ostree=` is replaced where it stands and the other words are joined by single blanks;
//! a deployment takes its arguments from the entry of the one before. And as the source of rpm-ostree
//! has it, which was not run: what it makes is staged in `/run`, and is made at shutdown unless the
//! power goes; an argument that is deleted is the first of that text.

use super::blscfg;
use super::commands::{Answer, fail};
use super::tree::Tree;
use super::world::World;

const LOADER: &str = "/boot/loader";
const STAGED: &str = "/run/ostree/staged-deployment";
const OS: &str = "fedora";
/// The kernel of the next update.
const NEWER: &str = "6.8.11-300.fc40.x86_64";

/// A deployment, by its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Deployment {
    kernel: String,
    options: Vec<String>,
}

/// As ostree names it by what is in a kernel and its initramfs.
fn checksum(kernel: &str) -> String {
    let begin = 0xcbf2_9ce4_8422_2325_u64;
    let sum = kernel.bytes().fold(begin, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{sum:016x}").repeat(4)
}

fn folder(kernel: &str) -> String {
    format!("/ostree/{OS}-{}", checksum(kernel))
}

/// The value of `ostree=`.
fn path(words: &[String]) -> Option<&str> {
    words.iter().find_map(|word| word.strip_prefix("ostree="))
}

/// Which of the two folders `/boot/loader` leads to.
fn version(tree: &Tree) -> u32 {
    let target = std::fs::read_link(tree.at(LOADER)).unwrap_or_default();
    u32::from(target.ends_with("loader.1"))
}

/// All of them, the default first.
fn deployments(tree: &Tree) -> Vec<Deployment> {
    let names = tree.list(format!("{LOADER}/entries")).into_iter();
    let names = names.filter(|name| name.starts_with("ostree-"));
    let mut found: Vec<(u32, Deployment)> = names
        .map(|name| {
            let text = tree.read(format!("{LOADER}/entries/{name}"));
            let text = text.unwrap_or_default();
            let value = |wanted: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(' '));
                lines
                    .find(|(key, _)| *key == wanted)
                    .map_or("", |(_, value)| value)
            };
            let kernel = value("linux")
                .rsplit_once("/vmlinuz-")
                .unwrap_or_default()
                .1;
            let deployment = Deployment {
                kernel: kernel.to_owned(),
                options: value("options")
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
            };
            (value("version").parse().unwrap_or(0), deployment)
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found
        .into_iter()
        .map(|(_, deployment)| deployment)
        .collect()
}

/// Writes all entries anew.
fn write(tree: &Tree, list: &[Deployment]) {
    let old = version(tree);
    let new = 1 - old;
    let entries = format!("{LOADER}.{new}/entries");
    tree.remove(&entries);
    tree.remove(format!("/ostree/boot.{new}"));
    for (index, deployment) in list.iter().enumerate() {
        let Deployment { kernel, options } = deployment;
        let same = |other: &&Deployment| other.kernel == *kernel;
        let serial = list[..index].iter().filter(same).count();
        let boots = format!("/ostree/boot.{new}/{OS}/{}/{serial}", checksum(kernel));
        tree.put(&boots, "deployment", 0o644);
        let at = folder(kernel);
        tree.put(format!("/boot{at}/vmlinuz-{kernel}"), "kernel", 0o755);
        tree.put(format!("/boot{at}/initramfs-{kernel}.img"), "initrd", 0o644);
        let mut options = options.clone();
        let word = format!("ostree={boots}");
        match options.iter_mut().find(|word| word.starts_with("ostree=")) {
            Some(old) => *old = word,
            None => options.push(word),
        }
        let number = list.len() - index;
        let text = format!(
            "title Fedora Linux 40 (IoT) (ostree:{index})\nversion {number}\noptions {}\n\
             linux {at}/vmlinuz-{kernel}\ninitrd {at}/initramfs-{kernel}.img\n",
            options.join(" ")
        );
        tree.put(format!("{entries}/ostree-{number}.conf"), text, 0o644);
    }
    tree.remove(LOADER);
    tree.link(LOADER, format!("{LOADER}.{new}"));
    // What belongs to no deployment any more.
    tree.remove(format!("{LOADER}.{old}"));
    tree.remove(format!("/ostree/boot.{old}"));
    let kept: Vec<String> = list.iter().map(|d| folder(&d.kernel)).collect();
    for name in tree.list("/boot/ostree") {
        if !kept.contains(&format!("/ostree/{name}")) {
            tree.remove(format!("/boot/ostree/{name}"));
        }
    }
}

/// The arguments of the entry that boots next. A deployment that is not there does not boot.
pub fn next_boot(tree: &Tree, boot_fs: &str) -> Result<String, String> {
    let line = blscfg::next_boot(tree, boot_fs)?;
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    match path(&words) {
        Some(path) if tree.exists(path) => Ok(line),
        found => Err(format!("ostree-prepare-root: no deployment {found:?}")),
    }
}

/// The words of a staged deployment's file, as they stand in the GVariant: each ends with a zero.
fn staged(tree: &Tree) -> Option<Deployment> {
    let text = tree.read(STAGED).ok()?;
    let mut words = text.split_terminator('\0').map(str::to_owned);
    Some(Deployment {
        kernel: words.next()?,
        options: words.collect(),
    })
}

impl World {
    /// What the installer left on the disk, and one update since.
    pub fn install_ostree(&self) {
        let (tree, server) = (&self.tree, &self.server);
        blscfg::install_config(tree);
        tree.link(LOADER, format!("{LOADER}.0"));
        let deployment = |kernel: &str| Deployment {
            kernel: kernel.to_owned(),
            options: format!("rw $ignition_firstboot {} {}", server.cmdline, blscfg::ROOT)
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        };
        let older = "6.7.9-200.fc39.x86_64";
        write(tree, &[deployment(&server.kernel), deployment(older)]);
    }

    /// Where it runs: by its path behind the folder of all, which changes.
    fn booted(&self) -> Option<Deployment> {
        let behind = |path: &str| path.splitn(4, '/').last().map(str::to_owned);
        let running = behind(self.cmdline.last("ostree")?.value()?);
        let mut all = deployments(&self.tree).into_iter();
        all.find(|d| path(&d.options).and_then(behind) == running)
    }

    /// What ostree does at shutdown: makes what is staged, beside the one that runs.
    pub fn finalize_staged(&self) {
        let Some(staged) = staged(&self.tree) else {
            return;
        };
        self.tree.remove(STAGED);
        let list: Vec<Deployment> = std::iter::once(staged).chain(self.booted()).collect();
        write(&self.tree, &list);
    }

    fn stage(&self, deployment: &Deployment) -> Answer {
        let words = std::iter::once(&deployment.kernel).chain(&deployment.options);
        let text: String = words.map(|word| format!("{word}\0")).collect();
        self.tree.put(STAGED, text, 0o600);
        Ok("Staging deployment... done\nKernel arguments updated.\nRun \"systemctl reboot\" to start a reboot\n".into())
    }

    /// rpm-ostree(1), as far as it is called.
    pub fn rpm_ostree(&mut self, words: &[&str]) -> Answer {
        let tree = &self.tree;
        let all = deployments(tree);
        let Some(origin) = staged(tree).or_else(|| all.first().cloned()) else {
            return fail(1, "error: No deployments found for os fedora");
        };
        match words {
            ["kargs"] => Ok(format!("{}\n", origin.options.join(" "))),
            ["kargs", options @ ..] => match changed(&origin.options, options)? {
                changed if changed == origin.options => Ok("No changes.\n".into()),
                options => self.stage(&Deployment { options, ..origin }),
            },
            ["upgrade"] => self.stage(&Deployment {
                kernel: NEWER.into(),
                ..origin
            }),
            ["cleanup", "-p" | "--pending"] => {
                tree.remove(STAGED);
                Ok(String::new())
            }
            ["rollback"] => {
                let list: Vec<Deployment> = all.into_iter().rev().collect();
                write(tree, &list);
                Ok(String::new())
            }
            _ => fail(1, format!("error: the fake does not act {words:?} out")),
        }
    }
}

/// What `rpm-ostree kargs` makes of arguments: each kind of option in its turn.
fn changed(old: &[String], options: &[&str]) -> Result<Vec<String>, (i32, String)> {
    let known = [
        "--delete",
        "--append",
        "--append-if-missing",
        "--delete-if-present",
    ];
    let pairs: Vec<(&str, &str)> = options
        .iter()
        .filter_map(|option| option.split_once('='))
        .filter(|(name, _)| known.contains(name))
        .collect();
    if pairs.len() != options.len() {
        return Err((1, format!("error: Unknown option in {options:?}")));
    }
    let mut new = old.to_vec();
    for kind in known {
        for (_, arg) in pairs.iter().filter(|(name, _)| *name == kind) {
            let at = new.iter().position(|word| word == arg);
            match (kind, at) {
                ("--append", _) | ("--append-if-missing", None) => new.push((*arg).to_owned()),
                ("--delete" | "--delete-if-present", Some(at)) => drop(new.remove(at)),
                ("--delete", None) => return Err((1, format!("error: No karg '{arg}' found"))),
                _ => {}
            }
        }
    }
    Ok(new)
}
