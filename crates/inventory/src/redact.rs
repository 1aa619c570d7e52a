//! Takes out of a captured tree what tells whose server it is: MAC addresses, serial numbers and
//! other unique identifiers, host names, IP addresses, passwords of the kernel command line.
//!
//! Keeps true: the same thing is replaced by the same thing everywhere in one capture (in file
//! contents, names of files and targets of links), and two things by two; networks stay networks,
//! so that a route still leads where it led. What was replaced cannot be told from the
//! replacement: the key of addresses is thrown away.

mod addresses;
mod patterns;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use bmslice_host::{Entry, Tree};
use regex_lite::{Captures, Regex};

use crate::read::{PROBES, Probes};
use addresses::Addresses;
use patterns::Patterns;

/// Attributes that are unique to a thing.
const SERIALS: [&str; 16] = [
    "serial",
    "serial_number",
    "product_serial",
    "board_serial",
    "chassis_serial",
    "product_uuid",
    "chassis_asset_tag",
    "board_asset_tag",
    "machine-id",
    "wwid",
    "nguid",
    "eui",
    "uuid",
    "unique_id",
    "hostid",
    "phys_switch_id",
];

/// Files with the server's own name.
const HOSTNAMES: [&str; 4] = [
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/etc/hostname",
    "/proc/hwloc-nofile-info",
];

/// Files whose dotted numbers are versions.
const VERSIONS: [&str; 5] = [
    "/proc/sys/kernel/osrelease",
    "/proc/version",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/sys/class/dmi/id/bios_version",
];

/// What has addresses in a capture's answers; each stands on a line of its own.
const WITH_ADDRESSES: [&str; 3] = ["\"sessionPeer\":", "\"libvirtError\":", "\"nicsError\":"];

/// What is replaced by what.
pub(crate) struct Redaction {
    /// Whole words, the longest first.
    words: Vec<(Regex, String)>,
    /// Files that hold nothing but a word that is too common to be replaced elsewhere.
    whole: BTreeMap<PathBuf, String>,
    patterns: Patterns,
    numbered: RefCell<BTreeMap<(&'static str, String), usize>>,
    addresses: Addresses,
}

fn text(tree: &Tree, path: &str) -> Option<String> {
    match tree.find(Path::new(path), true) {
        Ok((Entry::File(bytes), _)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

impl Redaction {
    /// Finds what is to be replaced in a tree.
    pub(crate) fn of(tree: &Tree) -> Self {
        let entries = tree.walk();
        // A word that is also the name of something in the tree means that thing there.
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (path, _) in &entries {
            if let Some(name) = path.file_name() {
                names.insert(name.to_string_lossy().to_lowercase());
            }
        }
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        let mut whole = BTreeMap::new();
        let common = |word: &str| {
            word.len() < 4
                || names.contains(&word.to_lowercase())
                || matches!(word, "localhost" | "(none)" | "none" | "linux" | "unknown")
        };
        let mut hosts = hosts(tree);
        hosts.sort_by_key(|host| std::cmp::Reverse(host.len()));
        hosts.dedup();
        for (i, host) in hosts.iter().enumerate() {
            if !common(host) {
                words
                    .entry(host.to_lowercase())
                    .or_insert(format!("host-{}", i + 1));
            }
        }
        for path in HOSTNAMES {
            if path != "/proc/hwloc-nofile-info"
                && let Ok((Entry::File(bytes), at)) = tree.find(Path::new(path), true)
            {
                let word = String::from_utf8_lossy(bytes).trim().to_owned();
                if !word.is_empty() && common(&word) && !word.starts_with('(') {
                    whole.insert(at, "host-0\n".to_owned());
                }
            }
        }
        let mut serials = 0;
        for (path, entry) in &entries {
            let Entry::File(bytes) = entry else { continue };
            let is_serial = path
                .file_name()
                .is_some_and(|name| SERIALS.iter().any(|serial| name == *serial));
            let value = String::from_utf8_lossy(bytes).trim().to_owned();
            if !is_serial || value.is_empty() {
                continue;
            }
            if !words.contains_key(&value.to_lowercase()) {
                serials += 1;
            }
            if common(&value) {
                whole.insert(path.clone(), format!("serial-{serials}\n"));
            } else {
                words
                    .entry(value.to_lowercase())
                    .or_insert(format!("serial-{serials}"));
            }
        }
        for value in devlink_serials(tree) {
            if !common(&value) && !words.contains_key(&value.to_lowercase()) {
                serials += 1;
                words.insert(value.to_lowercase(), format!("serial-{serials}"));
            }
        }
        let mut words: Vec<(String, String)> = words.into_iter().collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Self {
            words: words
                .into_iter()
                .filter_map(|(word, with)| {
                    Some((
                        Regex::new(&format!("(?i){}", regex_lite::escape(&word))).ok()?,
                        with,
                    ))
                })
                .collect(),
            whole,
            patterns: Patterns::new(),
            numbered: RefCell::default(),
            addresses: Addresses::default(),
        }
    }

    /// The tree with everything replaced.
    ///
    /// # Errors
    /// When two names become one, which they do not.
    pub(crate) fn apply(&self, tree: &Tree) -> io::Result<Tree> {
        let mut made = Tree::default();
        for (path, entry) in tree.walk() {
            let at = PathBuf::from(self.line(&path.to_string_lossy(), false));
            match entry {
                Entry::Folder(_) => made.put_folder(&at)?,
                Entry::Link(target) => {
                    made.put_link(&at, self.line(&target.to_string_lossy(), false).into())?;
                }
                Entry::File(bytes) => made.put_file(&at, self.file(&path, bytes))?,
            }
        }
        Ok(made)
    }

    fn file(&self, path: &Path, bytes: &[u8]) -> Vec<u8> {
        if let Some(with) = self.whole.get(path) {
            return with.clone().into_bytes();
        }
        if path.file_name().is_some_and(|name| name == "config") && path.starts_with("/sys") {
            return capabilities(bytes);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            // What is no text is a boot loader's variable: UTF-16, and no address in it.
            return bytes.to_vec();
        };
        let addresses = !VERSIONS.iter().any(|version| path == Path::new(version));
        // Beside the files are answers of libvirt and of drivers, most of them versions.
        let beside = path == Path::new(PROBES);
        let name = path.file_name().unwrap_or_default();
        let in_net = path.parent().is_some_and(|folder| folder.ends_with("net"))
            && path.starts_with("/proc");
        let mut out = String::with_capacity(text.len());
        let udev = path.starts_with("/run/udev");
        for line in text.split_inclusive('\n') {
            // udev keeps serial numbers under many names; of its database one kind of line is read.
            if udev && !line.starts_with("E:ID_NET_NAME_") {
                continue;
            }
            let line = if in_net && name == "route" {
                self.addresses.route4(line)
            } else if in_net && (name == "ipv6_route" || name == "if_inet6") {
                self.addresses.route6(line)
            } else {
                line.to_owned()
            };
            let has_address = |key: &str| line.trim_start().starts_with(key);
            let addresses =
                addresses && (!beside || WITH_ADDRESSES.iter().any(|key| has_address(key)));
            out.push_str(&self.line(&line, addresses));
        }
        out.into_bytes()
    }

    /// A number for a thing of a kind: the same for the same thing.
    fn number(&self, kind: &'static str, thing: &str) -> usize {
        let mut numbered = self.numbered.borrow_mut();
        let next = numbered.keys().filter(|(of, _)| *of == kind).count() + 1;
        *numbered.entry((kind, thing.to_lowercase())).or_insert(next)
    }

    /// `02:00:00:00:00:07`: locally administered, and so nobody's.
    fn mac(&self, hex: &str) -> String {
        let zero = hex.bytes().all(|b| b == b'0');
        let broadcast = hex.bytes().all(|b| b == b'f' || b == b'F');
        if zero || broadcast {
            return hex.to_lowercase();
        }
        // A group address stays one.
        let first = u8::from_str_radix(&hex[..2], 16).unwrap_or(0) & 1 | 2;
        let width = hex.len() - 2;
        format!("{first:02x}{:0width$x}", self.number("mac", hex))
    }

    fn line(&self, line: &str, addresses: bool) -> String {
        // Most files are a number or a mask: no pattern fits those.
        let signs = line.bytes().any(|b| matches!(b, b':' | b'-' | b'.' | b'='));
        if !signs && line.len() < 12 && self.words.iter().all(|(word, _)| !word.is_match(line)) {
            return line.to_owned();
        }
        let patterns = &self.patterns;
        let mut text = line.to_owned();
        if text.contains('=') {
            text = patterns
                .password
                .replace_all(&text, |found: &Captures| format!("{}redacted", &found[1]))
                .into_owned();
            text = patterns
                .partition
                .replace_all(&text, |found: &Captures| {
                    let disk = self.number("disk", &found[2]);
                    format!("{}{disk:08x}-{}", &found[1], &found[3])
                })
                .into_owned();
        }
        text = patterns
            .uuid
            .replace_all(&text, |found: &Captures| {
                format!(
                    "00000000-0000-4000-8000-{:012x}",
                    self.number("uuid", &found[0])
                )
            })
            .into_owned();
        text = patterns
            .mac
            .replace_all(&text, |found: &Captures| {
                let separator = found[0].as_bytes()[2];
                let hex: String = found[0].chars().filter(char::is_ascii_hexdigit).collect();
                let hex = self.mac(&hex);
                let pairs: Vec<&str> = (0..hex.len() / 2).map(|i| &hex[2 * i..2 * i + 2]).collect();
                pairs.join(if separator == b'-' { "-" } else { ":" })
            })
            .into_owned();
        text = patterns
            .named_mac
            .replace_all(&text, |found: &Captures| {
                format!("{}{}", &found[1], self.mac(&found[2]))
            })
            .into_owned();
        text = patterns
            .qualified
            .replace_all(&text, |found: &Captures| {
                let kind = &found[0][..3];
                format!(
                    "{kind}.2000-01.example:{}",
                    self.number("qualified", &found[0])
                )
            })
            .into_owned();
        text = patterns
            .wwn
            .replace_all(&text, |found: &Captures| {
                format!("0x5{:015x}", self.number("wwn", &found[0]))
            })
            .into_owned();
        text = patterns
            .bare
            .replace_all(&text, |found: &Captures| {
                let digits = &found[0];
                let known = self
                    .numbered
                    .borrow()
                    .contains_key(&("mac", digits.to_lowercase()));
                if known {
                    self.mac(digits)
                } else if digits.len() == 32 && !digits.starts_with("0000000000") {
                    // A machine's id, as in the names of boot entries.
                    format!("{:032x}", self.number("id", digits))
                } else {
                    digits.to_owned()
                }
            })
            .into_owned();
        for (word, with) in &self.words {
            text = replace_words(&text, word, |_| with.clone());
        }
        if addresses {
            text = self.turned(&text);
        }
        text
    }

    fn turned(&self, text: &str) -> String {
        let text = replace_words(text, &self.patterns.v6, |found| {
            // A full stop may end a sentence.
            let bare = found.trim_end_matches('.');
            match bare.parse() {
                Ok(address) => format!("{}{}", self.addresses.v6(address), &found[bare.len()..]),
                Err(_) => found.to_owned(),
            }
        });
        self.patterns
            .v4
            .replace_all(&text, |found: &Captures| match found[0].parse() {
                Ok(address) => self.addresses.v4(address).to_string(),
                Err(_) => found[0].to_owned(),
            })
            .into_owned()
    }
}

/// Of a PCI configuration space what is read of it: which capabilities it has. One of them is the
/// device's serial number, which often is its MAC address.
fn capabilities(bytes: &[u8]) -> Vec<u8> {
    let mut kept = vec![0; bytes.len()];
    let mut at = 0x100;
    for _ in 0..bytes.len() / 8 {
        let Some(header) = bytes.get(at..at + 4) else {
            break;
        };
        kept[at..at + 4].copy_from_slice(header);
        let header = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        at = usize::try_from(header >> 20 & 0xffc).unwrap_or(0);
        if at < 0x100 {
            break;
        }
    }
    kept
}

/// Replaces a word where no letter or digit stands beside it.
fn replace_words(text: &str, word: &Regex, with: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut from = 0;
    for found in word.find_iter(text) {
        let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let before = text[..found.start()].chars().next_back();
        let after = text[found.end()..].chars().next();
        if letter(before) || letter(after) {
            continue;
        }
        out.push_str(&text[from..found.start()]);
        out.push_str(&with(found.as_str()));
        from = found.end();
    }
    out.push_str(&text[from..]);
    out
}

/// The serial numbers that devlink told of cards and their boards.
fn devlink_serials(tree: &Tree) -> Vec<String> {
    let probes: Probes = text(tree, PROBES)
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let told = probes.devlink.into_values();
    told.flat_map(|device| [device.serial, device.board_serial])
        .flatten()
        .collect()
}

/// The names of this host and of the servers that it mounts from.
fn hosts(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |name: &str| {
        let name = name.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let numeric = name.parse::<Ipv4Addr>().is_ok();
        if !name.is_empty() && name.chars().all(plain) && !numeric {
            found.push(name.to_owned());
            if let Some((short, domain)) = name.split_once('.') {
                found.push(short.to_owned());
                // The domain says whose server it is, too.
                if domain.contains('.') || domain.len() > 3 {
                    found.push(domain.to_owned());
                }
            }
        }
    };
    for path in HOSTNAMES {
        let Some(text) = text(tree, path) else {
            continue;
        };
        if path == "/proc/hwloc-nofile-info" {
            text.lines()
                .filter_map(|line| line.strip_prefix("HostName: "))
                .for_each(&mut add);
        } else {
            add(&text);
        }
    }
    for path in [
        "/proc/1/mountinfo",
        "/proc/self/mountinfo",
        "/proc/mounts",
        "/proc/self/mounts",
    ] {
        for field in text(tree, path).unwrap_or_default().split_whitespace() {
            if let Some((host, _)) = field.split_once(":/") {
                add(host);
            } else if let Some(share) = field.strip_prefix("//") {
                add(share.split('/').next().unwrap_or_default());
            }
        }
    }
    for argument in text(tree, "/proc/cmdline")
        .unwrap_or_default()
        .split_whitespace()
    {
        match argument.split_once('=') {
            Some(("systemd.hostname" | "hostname", name)) => add(name),
            // ip=<client>:<server>:<gateway>:<mask>:<hostname>:<device>:<how>
            Some(("ip", value)) if !value.contains('[') => {
                if let Some(name) = value.split(':').nth(4) {
                    add(name);
                }
            }
            Some((_, value)) => {
                if let Some((_, rest)) = value.split_once("://") {
                    add(rest.split(['/', ':']).next().unwrap_or_default());
                }
            }
            None => {}
        }
    }
    found
}
