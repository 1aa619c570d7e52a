//! What GRUB does with `grub.cfg`: as much of its script language as the fake's own entries and
//! `bmslice` use.
//!
//! Takes a `grub.cfg`; gives the kernel's command line of the first entry, and writes what
//! `save_env` writes. Keeps true: a command that is not acted out is an error rather than silence,
//! and `save_env` fails where GRUB has no driver that writes.

use std::collections::BTreeMap;

use super::tree::Tree;

/// What `$prefix` is.
const PREFIX: &str = "/boot/grub";

/// File systems that GRUB writes a block of (the others it only reads).
const WRITABLE: [&str; 4] = ["ext4", "ext2", "xfs", "vfat"];

/// GRUB, as it boots.
pub struct Grub<'a> {
    tree: &'a Tree,
    root_fs: &'a str,
    variables: BTreeMap<String, String>,
}

impl<'a> Grub<'a> {
    pub fn new(tree: &'a Tree, root_fs: &'a str) -> Self {
        let variables = BTreeMap::from([("prefix".to_owned(), PREFIX.to_owned())]);
        Self {
            tree,
            root_fs,
            variables,
        }
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

    fn run(&mut self, lines: &[&str]) -> Result<(), String> {
        // Whether the lines at each depth of `if` are run.
        let mut depth: Vec<bool> = Vec::new();
        for line in lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let runs = depth.iter().all(|runs| *runs);
            if let Some(condition) = line
                .strip_prefix("if ")
                .and_then(|rest| rest.strip_suffix("; then"))
            {
                let runs = runs && self.holds(condition)?;
                depth.push(runs);
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
            ["export" | "search", ..] => Ok(true),
            ["load_env", file, names @ ..] => {
                let path = file.strip_prefix("--file=").ok_or("load_env: no file")?;
                let Ok(text) = self.tree.read(path) else {
                    return Ok(false);
                };
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    if let Some((name, value)) = line.split_once('=')
                        && names.contains(&name)
                    {
                        self.variables.insert(name.to_owned(), value.to_owned());
                    }
                }
                Ok(true)
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
        if !WRITABLE.contains(&self.root_fs) || !text.starts_with("# GRUB Environment Block\n") {
            return false;
        }
        let mut lines: Vec<String> = text
            .trim_end_matches('#')
            .lines()
            .map(str::to_owned)
            .collect();
        for name in names {
            let value = self.variables.get(*name).map_or("", String::as_str);
            let new = format!("{name}={value}");
            let old = lines
                .iter_mut()
                .find(|line| line.starts_with(&format!("{name}=")));
            match old {
                Some(old) => *old = new,
                None => lines.push(new),
            }
        }
        let mut written = lines.join("\n") + "\n";
        if written.len() > text.len() {
            return false;
        }
        written.extend(std::iter::repeat_n('#', text.len() - written.len()));
        self.tree.put(path, written, 0o600);
        true
    }

    /// `$name` and `${name}`.
    fn expand(&self, text: &str) -> String {
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
