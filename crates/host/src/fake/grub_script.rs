//! What GRUB does with `grub.cfg`: as much of its script language as the fake's own entries and
//! `bmslice` use.
//!
//! Takes a `grub.cfg`; gives the kernel's command line of the first entry, and writes what
//! `save_env` writes. Keeps true: a command that is not acted out is an error rather than silence,
//! and `save_env` fails where GRUB has no driver that writes.

use std::collections::BTreeMap;

use super::env_block;
use super::tree::Tree;

/// File systems that GRUB writes a block of (the others it only reads).
const WRITABLE: [&str; 4] = ["ext4", "ext2", "xfs", "vfat"];

/// GRUB, as it boots.
pub struct Grub<'a> {
    tree: &'a Tree,
    root_fs: &'a str,
    prefix: &'a str,
    variables: BTreeMap<String, String>,
    /// Whether the configuration takes entries from `loader/entries`.
    pub reads_entries: bool,
}

impl<'a> Grub<'a> {
    /// GRUB with its folder, `$prefix`.
    pub fn new(tree: &'a Tree, root_fs: &'a str, prefix: &'a str) -> Self {
        let folders = ["prefix", "config_directory"];
        let variables = folders.map(|name| (name.to_owned(), prefix.to_owned()));
        Self {
            tree,
            root_fs,
            prefix,
            variables: BTreeMap::from(variables),
            reads_entries: false,
        }
    }

    /// A variable; empty when it is not set.
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// Runs the configuration, and the first entry of its menu.
    ///
    /// # Errors
    /// The line that GRUB, or this reader of it, does not know.
    pub fn boot(mut self, config: &str) -> Result<String, String> {
        let (mut top, mut entries): (Vec<&str>, Vec<Vec<&str>>) = (Vec::new(), Vec::new());
        let mut inside = false;
        for line in config.lines() {
            match (inside, line) {
                (false, line) if line.starts_with("menuentry ") => {
                    inside = true;
                    entries.push(Vec::new());
                }
                (false, line) => top.push(line),
                (true, "}") => inside = false,
                (true, line) => entries.last_mut().ok_or("no entry")?.push(line),
            }
        }
        self.run(&top)?;
        let linux = entries
            .first()
            .ok_or("no entry")?
            .iter()
            .find_map(|line| line.trim_start().strip_prefix("linux\t"))
            .ok_or("the first entry has no linux line")?;
        let linux = self.expand(linux);
        let mut words = linux.split_whitespace();
        let image = words.next().ok_or("no image")?;
        let mut all = vec![format!("BOOT_IMAGE={image}")];
        all.extend(words.map(str::to_owned));
        Ok(all.join(" "))
    }

    /// Runs commands.
    ///
    /// # Errors
    /// The line that GRUB, or this reader of it, does not know.
    pub fn run(&mut self, lines: &[&str]) -> Result<(), String> {
        // Whether the lines at each depth of `if` are run, and whether a branch of it was.
        let mut depth: Vec<(bool, bool)> = Vec::new();
        for line in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let runs = depth.iter().all(|(runs, _)| *runs);
            if let Some(condition) = line
                .strip_prefix("if ")
                .and_then(|rest| rest.strip_suffix("; then"))
            {
                let runs = runs && self.holds(condition.trim_end())?;
                depth.push((runs, runs));
            } else if line == "else" || line.starts_with("elif ") {
                let (_, done) = depth.pop().ok_or("`else` without `if`")?;
                let outer = depth.iter().all(|(runs, _)| *runs);
                let condition = line
                    .strip_prefix("elif ")
                    .and_then(|rest| rest.strip_suffix("; then"));
                let holds = outer
                    && !done
                    && match condition {
                        Some(condition) => self.holds(condition.trim_end())?,
                        None => true,
                    };
                depth.push((holds, done || holds));
            } else if line == "fi" {
                depth.pop().ok_or("`fi` without `if`")?;
            } else if runs {
                self.command(line)?;
            }
        }
        if depth.is_empty() {
            Ok(())
        } else {
            Err("`if` without `fi`".into())
        }
    }

    fn holds(&mut self, condition: &str) -> Result<bool, String> {
        let Some(test) = condition
            .strip_prefix("[ ")
            .and_then(|rest| rest.strip_suffix(" ]"))
        else {
            return self.command(condition);
        };
        let test = self.expand(test);
        let words: Vec<&str> = test.split(' ').collect();
        match words.as_slice() {
            [word] => Ok(!word.trim_matches('"').is_empty()),
            ["-f", path] => Ok(self.tree.exists(path)),
            ["-s", path] => Ok(self.tree.read(path).is_ok_and(|text| !text.is_empty())),
            [a, "=", b] => Ok(a.trim_matches('"') == b.trim_matches('"')),
            _ => Err(format!("GRUB's test `{condition}` is not acted out")),
        }
    }

    /// Whether the command succeeded.
    fn command(&mut self, line: &str) -> Result<bool, String> {
        if let Some(assignment) = line.strip_prefix("set ") {
            let (name, value) = assignment.split_once('=').ok_or("set without =")?;
            let value = match value.strip_prefix('\'') {
                Some(literal) => literal.trim_end_matches('\'').to_owned(),
                None => self.expand(value).trim_matches('"').to_owned(),
            };
            self.variables.insert(name.to_owned(), value);
            return Ok(true);
        }
        let line = self.expand(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["export" | "search" | "insmod", ..] => Ok(true),
            ["source", path] => {
                let text = self.tree.read(path).map_err(|_| format!("no {path}"))?;
                self.run(&text.lines().collect::<Vec<_>>())?;
                Ok(true)
            }
            ["blscfg"] => {
                self.reads_entries = true;
                Ok(true)
            }
            ["load_env"] => {
                let path = format!("{}/grubenv", self.prefix);
                Ok(self.load(&path, None))
            }
            ["load_env", "-f", path] => Ok(self.load(path, None)),
            ["load_env", file, names @ ..] => {
                let path = file.strip_prefix("--file=").ok_or("load_env: no file")?;
                Ok(self.load(path, Some(names)))
            }
            ["save_env", names @ ..] if names.iter().all(|name| !name.starts_with('-')) => {
                Ok(self.save(&format!("{}/grubenv", self.prefix), names))
            }
            ["save_env", file, names @ ..] => {
                let path = file.strip_prefix("--file=").ok_or("save_env: no file")?;
                Ok(self.save(path, names))
            }
            _ => Err(format!("GRUB's `{line}` is not acted out")),
        }
    }

    /// Writes variables into a block that is there, in its place.
    fn save(&self, path: &str, names: &[&str]) -> bool {
        let Ok(text) = self.tree.read(path) else {
            return false;
        };
        if !WRITABLE.contains(&self.root_fs) {
            return false;
        }
        let mut text = Some(text);
        for name in names {
            let value = self.variables.get(*name).map(String::as_str);
            text = text.and_then(|text| env_block::change(&text, name, value));
        }
        let Some(text) = text else {
            return false;
        };
        self.tree.put(path, text, 0o600);
        true
    }

    /// Reads variables of a block: those named, or all.
    fn load(&mut self, path: &str, names: Option<&[&str]>) -> bool {
        let text = self.tree.read(path).unwrap_or_default();
        let Some(variables) = env_block::variables(&text) else {
            return false;
        };
        for (name, value) in variables {
            if names.is_none_or(|names| names.contains(&name.as_str())) {
                self.variables.insert(name, value);
            }
        }
        true
    }

    /// `$name` and `${name}`.
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let (name, left) = match after.strip_prefix('{') {
                Some(inside) => inside.split_once('}').unwrap_or((inside, "")),
                None => {
                    let end = after
                        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            out.push_str(self.variables.get(name).map_or("", String::as_str));
            rest = left;
        }
        out.push_str(rest);
        out
    }
}
