//! systemd-boot: which entry it boots, and `bootctl`.
//!
//! Takes `$BOOT/loader` and the EFI variables; gives the arguments of the entry that boots. Keeps
//! true, as systemd-boot 252 does it: a one-shot is taken away before anything is started; the
//! default is that of the variable, then the pattern of `loader.conf`, then the first by sort key
//! (entries without one come last), version and name; `options` may be there more than once. The
//! order was compared with what `bootctl list` of that version prints for the same files.

use std::cmp::Ordering;

use super::commands::{Answer, fail};
use super::server::FakeLoader;
use super::tree::Tree;
use super::world::World;

/// Where the EFI system partition is mounted.
const ESP: &str = "/boot/efi";
const GUID: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const ONE_SHOT: &str = "LoaderEntryOneShot";

/// An entry of `$BOOT/loader/entries`.
struct Entry {
    id: String,
    text: String,
}

impl Entry {
    fn values(&self, wanted: &'static str) -> impl Iterator<Item = &str> {
        self.text.lines().filter_map(move |line| {
            let (key, value) = line.trim_start().split_once([' ', '\t'])?;
            (key == wanted).then(|| value.trim())
        })
    }

    fn value(&self, wanted: &'static str) -> Option<&str> {
        self.values(wanted).next()
    }

    fn options(&self) -> String {
        self.values("options").collect::<Vec<_>>().join(" ")
    }

    /// The first is booted.
    fn order(&self, other: &Self) -> Ordering {
        let keys = (self.value("sort-key"), other.value("sort-key"));
        let by_key = match keys {
            (Some(a), Some(b)) => a.cmp(b).then_with(|| {
                let version = |entry: &Self| entry.value("version").unwrap_or("").to_owned();
                newer(&version(other), &version(self))
            }),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        by_key.then_with(|| newer(&other.id, &self.id))
    }
}

/// Compares versions and ids: in runs of digits and of letters, digits after letters.
fn newer(a: &str, b: &str) -> Ordering {
    let (a, b) = (runs(a), runs(b));
    for (a, b) in a.iter().zip(&b) {
        let digits = |run: &str| run.starts_with(|c: char| c.is_ascii_digit());
        let order = match (digits(a), digits(b)) {
            (true, true) => {
                let number = |run: &str| run.parse::<u64>().unwrap_or(u64::MAX);
                number(a).cmp(&number(b))
            }
            (false, false) => a.cmp(b),
            (a, b) => a.cmp(&b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn runs(text: &str) -> Vec<&str> {
    let kind = |c: char| {
        if c.is_ascii_digit() {
            2
        } else if c.is_ascii_alphabetic() {
            1
        } else {
            0
        }
    };
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        runs.push(&rest[..end]);
        rest = &rest[end..];
    }
    runs
}

/// A pattern with `*` at its end or in its midst, as `loader.conf` has it.
fn matches(pattern: &str, id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    match pattern.split_once('*') {
        None => id == pattern,
        Some((begin, end)) => {
            id.len() >= begin.len() + end.len() && id.starts_with(begin) && id.ends_with(end)
        }
    }
}

fn entries(tree: &Tree) -> Vec<Entry> {
    let folder = format!("{ESP}/loader/entries");
    let mut entries: Vec<Entry> = tree
        .list(&folder)
        .into_iter()
        .filter(|name| name.ends_with(".conf") && !name.starts_with('.'))
        .filter_map(|id| {
            let text = tree.read(format!("{folder}/{id}")).ok()?;
            Some(Entry { id, text })
        })
        .collect();
    entries.sort_by(Entry::order);
    entries
}

impl World {
    /// What the installer left on the disk: two kernels, as kernel-install makes them.
    pub fn install_sd_boot(&self) {
        let (tree, server) = (&self.tree, &self.server);
        tree.put(
            format!("{ESP}/EFI/systemd/systemd-bootx64.efi"),
            "MZ",
            0o700,
        );
        tree.put(format!("{ESP}/loader/loader.conf"), "timeout 3\n", 0o700);
        for kernel in ["5.10.0-9-amd64", &server.kernel] {
            let folder = format!("/debian/{kernel}");
            tree.put(format!("{ESP}{folder}/linux"), "kernel", 0o700);
            tree.put(format!("{ESP}{folder}/initrd.img"), "initrd", 0o700);
            let entry = format!(
                "title      Debian GNU/Linux 12 (bookworm)\nversion    {kernel}\n\
                 sort-key   debian\n\
                 options    root=UUID=5f2a0000-0000-4000-8000-000000000001 ro {}\n\
                 linux      {folder}/linux\ninitrd     {folder}/initrd.img\n",
                server.cmdline
            );
            tree.put(
                format!("{ESP}/loader/entries/debian-{kernel}.conf"),
                entry,
                0o700,
            );
        }
        tree.put("/etc/kernel/entry-token", "debian\n", 0o644);
    }

    /// Boots an entry, and gives its arguments.
    pub fn next_entry(&mut self) -> Result<String, String> {
        let entries = entries(&self.tree);
        let chosen = self.choose(&entries).ok_or("no entry")?;
        self.nvram.remove(ONE_SHOT);
        let kernel = chosen.value("linux").ok_or("no kernel in the entry")?;
        if !self.tree.exists(format!("{ESP}{kernel}")) {
            return Err(format!("{}: {kernel} not found", chosen.id));
        }
        let (id, options) = (chosen.id.clone(), chosen.options());
        self.nvram.insert("LoaderEntrySelected".into(), id);
        self.nvram
            .insert("LoaderInfo".into(), "systemd-boot 252.39-1~deb12u2".into());
        Ok(options)
    }

    fn choose<'e>(&self, entries: &'e [Entry]) -> Option<&'e Entry> {
        let conf = self.tree.read(format!("{ESP}/loader/loader.conf"));
        let conf = conf.unwrap_or_default();
        let pattern = conf.lines().find_map(|line| line.strip_prefix("default "));
        let asked = [
            self.nvram.get(ONE_SHOT).map(String::as_str),
            self.nvram.get("LoaderEntryDefault").map(String::as_str),
            pattern.map(str::trim),
        ];
        asked
            .into_iter()
            .flatten()
            .find_map(|wanted| entries.iter().find(|entry| matches(wanted, &entry.id)))
            .or_else(|| entries.first())
    }

    /// The variables, where the kernel shows them.
    pub fn show_nvram(&self) {
        if self.server.loader != FakeLoader::SystemdBoot {
            return;
        }
        let folder = "/sys/firmware/efi/efivars";
        self.tree.dir(folder);
        for name in self.tree.list(folder) {
            self.tree.remove(format!("{folder}/{name}"));
        }
        for (name, value) in &self.nvram {
            let units = value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
            let bytes: Vec<u8> = [7, 0, 0, 0].into_iter().chain(units).collect();
            self.tree
                .put(format!("{folder}/{name}-{GUID}"), bytes, 0o644);
        }
    }

    /// bootctl(1), as far as it is called.
    pub fn bootctl(&mut self, words: &[&str]) -> Answer {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .filter(|word| *word != "--no-pager")
            .collect();
        if self.server.loader != FakeLoader::SystemdBoot {
            return fail(1, "Not booted with a supported boot loader.");
        }
        match words.as_slice() {
            ["list"] => Ok(self.list_entries()),
            ["set-oneshot", ""] => {
                self.nvram.remove(ONE_SHOT);
                self.show_nvram();
                Ok(String::new())
            }
            ["set-oneshot", id] => {
                let valid = |c: char| c.is_ascii_alphanumeric() || "+-_.@".contains(c);
                if !id.chars().all(valid) {
                    return fail(1, format!("Invalid loader entry name: {id}"));
                }
                self.nvram.insert(ONE_SHOT.into(), (*id).into());
                self.show_nvram();
                Ok(String::new())
            }
            other => fail(1, format!("Unknown command verb {}.", other.join(" "))),
        }
    }

    fn list_entries(&self) -> String {
        let entries = entries(&self.tree);
        let default = self.choose(&entries).map(|entry| entry.id.clone());
        let selected = self.nvram.get("LoaderEntrySelected");
        let mut text = String::new();
        for entry in &entries {
            let mut title = entry.value("title").unwrap_or(&entry.id).to_owned();
            for (mark, is_it) in [
                ("default", default.as_ref() == Some(&entry.id)),
                ("selected", selected == Some(&entry.id)),
            ] {
                if is_it {
                    title.push_str(&format!(" ({mark})"));
                }
            }
            text.push_str(&format!(
                "         type: Boot Loader Specification Type #1 (.conf)\n        \
                 title: {title}\n           id: {}\n       \
                 source: {ESP}/loader/entries/{}\n      options: {}\n\n",
                entry.id,
                entry.id,
                entry.options()
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `bootctl list` of systemd 252 has them.
    #[test]
    fn entries_come_in_the_loaders_order() {
        let entry = |id: &str, more: &str| Entry {
            id: format!("{id}.conf"),
            text: format!("linux /k/vmlinuz\n{more}"),
        };
        let debian = "sort-key debian\n";
        let mut entries = [
            entry("a", ""),
            entry("a-bmslice-0011223344556677", ""),
            entry("8a1f-6.1", ""),
            entry("deb-6.1", debian),
            entry("aardvark", ""),
            entry("deb-6.12", debian),
            entry("arch", ""),
        ];
        entries.sort_by(Entry::order);
        let ids: Vec<&str> = entries
            .iter()
            .map(|e| e.id.trim_end_matches(".conf"))
            .collect();
        assert_eq!(
            ids,
            [
                "deb-6.12",
                "deb-6.1",
                "8a1f-6.1",
                "arch",
                "aardvark",
                "a",
                "a-bmslice-0011223344556677"
            ]
        );
    }
}
