//! Kernel arguments in boot loader entries (Type #1) and in kernel-install's command line.
//!
//! Takes the texts that are there; gives them with our arguments, or without. Source: the Boot
//! Loader Specification of the UAPI group (`options` may be there more than once, and all of them
//! count), kernel-install(8) (`/etc/kernel/cmdline`: all its white space is one blank). Keeps true:
//! * our arguments are a *block*: a word of ours that names their digest, then they themselves, in
//!   one piece. So a text tells by itself which words are ours, also when kernel-install or ostree has
//!   copied them into an entry of its own;
//! * put in and taken out again, a text is what it was to the byte;
//! * what GRUB and `grubby` read as one line stays one line;
//! * a word of the user's that reads as one of ours stays where it is.

use std::ops::Range;

use bmslice_model::{KernelArg, KernelCmdline};

use crate::grub::{ON_TRIAL, TRIAL, args_digest, line};

/// Where kernel-install takes the arguments of kernels to come from.
pub const KERNEL_CMDLINE: &str = "/etc/kernel/cmdline";
/// Where it takes them from when that is not there; the running kernel's without either.
pub const VENDOR_CMDLINE: &str = "/usr/lib/kernel/cmdline";
/// Begins a block of ours, with the digest of what follows. The kernel leaves alone what has a dot
/// and belongs to no module.
pub const ARGS_MARK: &str = "bmslice.args";
/// Begins the name of an entry on trial. It has no sort key, which puts it behind all that have
/// one, and of those without it the name that sorts lowest is the last: letters before digits, and
/// a single `a` before all that goes on with letters (systemd's `strverscmp_improved`).
const TRIAL_ENTRY: &str = "a-bmslice-";
/// The same for GRUB, which sorts as rpm does, and for `grubby`, which sorts as rpm or as `sort -V`
/// does: to each of them `~` comes before all, and the first is the newest, which is the last.
const GRUB_TRIAL_ENTRY: &str = "~bmslice-";

/// Where a text has kernel arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A boot loader entry that systemd-boot reads: in its `options` lines.
    Entry,
    /// `/etc/kernel/cmdline`: all of it.
    Cmdline,
    /// A boot loader entry that GRUB's `blscfg` reads: in its first `options` line, since GRUB takes
    /// no other and `grubby` writes one over all of them.
    GrubEntry,
    /// `/etc/kernel/cmdline` where `grubby` keeps it too: in its first line, the only one that
    /// `grubby` keeps.
    GrubbyCmdline,
}

impl Form {
    /// Which bytes of a line are arguments; the line comes with its end.
    fn words(self, text: &str) -> Option<Range<usize>> {
        let end = text.trim_end_matches(['\n', '\r']).len();
        match self {
            Self::Cmdline | Self::GrubbyCmdline => Some(0..end),
            Self::Entry | Self::GrubEntry => {
                let (key, begin) = key(text)?;
                (key == "options").then_some(begin.min(end)..end)
            }
        }
    }

    /// Behind the last word of the first line that has arguments, where ours have to follow them on
    /// that line.
    fn place(self, text: &str) -> Option<usize> {
        match self {
            Self::Entry | Self::Cmdline => return None,
            Self::GrubEntry | Self::GrubbyCmdline => {}
        }
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some(range) = self.words(line) {
                let last = words(&line[range.clone()]).pop()?;
                return Some(at + range.start + last.end);
            }
            at += line.len();
        }
        None
    }
}

/// The key of an entry's line, and where its value begins; `None` for comments and blank lines.
fn key(text: &str) -> Option<(&str, usize)> {
    let indent = text.len() - text.trim_start().len();
    let rest = &text[indent..];
    let key = rest.split_whitespace().next()?;
    if key.starts_with('#') {
        return None;
    }
    let after = indent + key.len();
    let value = &text[after..];
    Some((key, after + value.len() - value.trim_start().len()))
}

/// Where the words of a text are. White space separates unless inside double quotes, as for the
/// kernel.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut begin, mut quoted) = (None, false);
    for (at, c) in text.char_indices() {
        quoted ^= c == '"';
        if c.is_whitespace() && !quoted {
            found.extend(begin.take().map(|begin| begin..at));
        } else {
            begin.get_or_insert(at);
        }
    }
    found.extend(begin.map(|begin| begin..text.len()));
    found
}

/// A block of ours in a line.
struct Block {
    /// Its first and last word, by number.
    words: Range<usize>,
    /// What it says that it holds, if it does hold it.
    digest: Option<String>,
}

/// The first block of ours among these words.
fn block(words: &[&str]) -> Option<Block> {
    let digest_of = |word: &str| Some(word.strip_prefix(ARGS_MARK)?.strip_prefix('=')?.to_owned());
    let (first, digest) = words
        .iter()
        .enumerate()
        .find_map(|(at, word)| Some((at, digest_of(word)?)))?;
    let parsed: Vec<KernelArg> = words[first + 1..]
        .iter()
        .map_while(|word| word.parse().ok())
        .collect();
    let length = (1..=parsed.len()).find(|&length| args_digest(&parsed[..length]) == digest);
    Some(match length {
        Some(length) => Block {
            words: first..first + 1 + length,
            digest: Some(digest),
        },
        // Somebody edited it: only the mark is ours for sure.
        None => Block {
            words: first..first + 1,
            digest: None,
        },
    })
}

/// A line without our blocks, and their digests; an empty one when nothing but ours was in it.
fn without(form: Form, text: &str) -> (String, Vec<Option<String>>) {
    let mut text = text.to_owned();
    let mut digests = Vec::new();
    while let Some(range) = form.words(&text) {
        let part = &text[range.clone()];
        let places = words(part);
        let found: Vec<&str> = places.iter().map(|place| &part[place.clone()]).collect();
        let Some(block) = block(&found) else { break };
        digests.push(block.digest);
        if block.words.len() == found.len() {
            text.clear();
            break;
        }
        // With the blanks before it, or after it where it is the first.
        let begin = match block.words.start {
            0 => places[0].start,
            first => places[first - 1].end,
        };
        let end = match block.words.start {
            0 => places[block.words.end].start,
            _ => places[block.words.end - 1].end,
        };
        text.replace_range(range.start + begin..range.start + end, "");
    }
    (text, digests)
}

/// A text without any argument of ours, and the digests of what was in it; `None` for a block that
/// somebody edited, of which only our mark is taken out.
fn strip(form: Form, text: &str) -> (String, Vec<Option<String>>) {
    let mut kept = String::with_capacity(text.len());
    let mut digests = Vec::new();
    for line in text.split_inclusive('\n') {
        let (rest, found) = without(form, line);
        if rest.is_empty() && !found.is_empty() && !line.ends_with('\n') {
            // What we put behind a text that did not end its last line.
            kept.truncate(kept.strip_suffix('\n').map_or(kept.len(), str::len));
        }
        kept.push_str(&rest);
        digests.extend(found);
    }
    (kept, digests)
}

/// A text without any argument of ours.
#[must_use]
pub fn without_args(form: Form, text: &str) -> String {
    strip(form, text).0
}

/// A text with these arguments of ours, and none else of ours: a line of our own at its end, or
/// behind the user's where only one line counts.
#[must_use]
pub fn with_args(form: Form, text: &str, args: &[KernelArg]) -> String {
    let (mut text, _) = strip(form, text);
    let block = format!("{ARGS_MARK}={} {}", args_digest(args), line(args));
    if let Some(at) = form.place(&text) {
        text.insert_str(at, &format!(" {block}"));
        return text;
    }
    let own = match form {
        Form::Entry | Form::GrubEntry => format!("options {block}"),
        Form::Cmdline | Form::GrubbyCmdline => block,
    };
    if text.is_empty() || text.ends_with('\n') {
        text.push_str(&own);
        text.push('\n');
    } else {
        text.push('\n');
        text.push_str(&own);
    }
    text
}

/// The digest of the arguments of ours that a text has; `None` when it has none, an edited block or
/// more than one.
#[must_use]
pub fn args_in(form: Form, text: &str) -> Option<String> {
    match strip(form, text).1.as_slice() {
        [Some(digest)] => Some(digest.clone()),
        _ => None,
    }
}

/// What is not ours of the arguments in a text, with the number of each line, from 1.
#[must_use]
pub fn own_args(form: Form, text: &str) -> Vec<(usize, KernelCmdline)> {
    let mut found = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let (rest, _) = without(form, line);
        let Some(range) = form.words(&rest) else {
            continue;
        };
        let part = &rest[range];
        let args = words(part)
            .into_iter()
            .filter_map(|place| part[place].parse().ok())
            .collect();
        found.push((number + 1, args));
    }
    found
}

/// The value of an entry's key, `linux` or `machine-id`.
#[must_use]
pub fn entry_value<'t>(text: &'t str, wanted: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = key(line)?;
        (key == wanted).then(|| line[value..].trim_end())
    })
}

/// The name of the entry that tries the arguments of this digest.
#[must_use]
pub fn trial_entry_name(form: Form, digest: &str) -> String {
    let begin = match form {
        Form::Entry | Form::Cmdline => TRIAL_ENTRY,
        Form::GrubEntry | Form::GrubbyCmdline => GRUB_TRIAL_ENTRY,
    };
    format!("{begin}{digest}.conf")
}

/// The digest of what an entry of that name tries; `None` when it is none of ours.
#[must_use]
pub fn trial_entry_digest(name: &str) -> Option<&str> {
    let begun = [TRIAL_ENTRY, GRUB_TRIAL_ENTRY];
    let rest = begun.iter().find_map(|begin| name.strip_prefix(begin))?;
    rest.strip_suffix(".conf")
}

/// How the last line of an entry that tries these arguments ends.
#[must_use]
pub fn trial_options(args: &[KernelArg]) -> String {
    let digest = args_digest(args);
    format!(" {} {TRIAL}={digest} {ON_TRIAL}\n", line(args))
}

/// An entry that boots as this one does, with these arguments on trial.
#[must_use]
pub fn trial_entry(form: Form, base: &str, args: &[KernelArg]) -> String {
    let mut text = String::from(
        "# Written by bmslice: boots once, and goes when its arguments are confirmed.\n\
         title bmslice: kernel arguments on trial\n",
    );
    let mut options = None;
    for line in strip(form, base).0.lines() {
        match key(line) {
            // It is another entry, and the last one.
            None | Some(("title" | "version" | "sort-key" | "machine-id", _)) => {}
            Some(("options", at)) if form == Form::GrubEntry => {
                options.get_or_insert(line[at..].trim_end().to_owned());
            }
            Some(_) => {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text.push_str("options");
    if let Some(own) = options.filter(|own| !own.is_empty()) {
        text.push(' ');
        text.push_str(&own);
    }
    text.push_str(&trial_options(args));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<KernelArg> {
        text.split(' ').map(|arg| arg.parse().unwrap()).collect()
    }

    const ENTRY: &str = "title      Debian GNU/Linux 12 (bookworm)\n\
        version    6.1.0-26-amd64\n\
        sort-key   debian\n\
        options    root=UUID=1 ro iommu=pt  quiet\n\
        linux      /debian/6.1.0-26-amd64/linux\n";

    #[test]
    fn what_is_put_in_comes_out_to_the_byte() {
        let ours = args("isolcpus=domain,managed_irq,2-11 iommu=pt");
        for (form, text) in [
            (Form::Entry, ENTRY),
            (Form::Entry, ENTRY.trim_end()),
            (Form::Entry, "linux /vmlinuz\r\noptions a b \r\n"),
            (Form::Entry, "linux /vmlinuz\n"),
            (Form::Entry, "linux /vmlinuz\n\n# end"),
            (Form::Cmdline, "root=UUID=1 ro quiet\n"),
            (Form::Cmdline, "root=UUID=1 ro\tiommu=pt dyndbg=\"a  b\""),
            (Form::Cmdline, ""),
            (Form::Cmdline, "\n"),
        ] {
            let put = with_args(form, text, &ours);
            assert_eq!(args_in(form, &put), Some(args_digest(&ours)), "{put}");
            assert_eq!(args_in(form, text), None);
            assert_eq!(without_args(form, &put), text);
            assert_eq!(with_args(form, &put, &ours), put, "again is the same");
            let other = args("isolcpus=1");
            let changed = with_args(form, &put, &other);
            assert!(!changed.contains("2-11"), "{changed}");
            assert_eq!(without_args(form, &changed), text);
        }
    }

    const FEDORA: &str = "title Fedora Linux (6.8.5-301.fc40.x86_64) 40 (Forty)\n\
        version 6.8.5-301.fc40.x86_64\n\
        linux /vmlinuz-6.8.5-301.fc40.x86_64\n\
        options root=UUID=1 ro  iommu=pt dyndbg=\"file a.c +p\" $tuned_params \n\
        grub_users $grub_users\n\
        grub_arg --unrestricted\n";

    #[test]
    fn where_one_line_counts_ours_follow_the_users_on_it() {
        let ours = args("isolcpus=domain,managed_irq,2-11 iommu=pt");
        let block = format!("bmslice.args={} {}", args_digest(&ours), line(&ours));
        for (form, text) in [
            (Form::GrubEntry, FEDORA),
            (
                Form::GrubEntry,
                "linux /vmlinuz\noptions a\tb\r\noptions c\n",
            ),
            (Form::GrubEntry, "options a b"),
            (Form::GrubbyCmdline, "root=UUID=1 ro  quiet \n\nmore\n"),
            (Form::GrubbyCmdline, "root=UUID=1"),
        ] {
            let put = with_args(form, text, &ours);
            let first = put.lines().find(|line| form.words(line).is_some());
            assert!(first.unwrap().contains(&format!(" {block}")), "{put}");
            assert_eq!(put.lines().count(), text.lines().count(), "{put}");
            assert_eq!(args_in(form, &put), Some(args_digest(&ours)), "{put}");
            assert_eq!(without_args(form, &put), text);
            assert_eq!(with_args(form, &put, &ours), put, "again is the same");
            // What grubby adds follows ours.
            let theirs = put.replacen(&block, &format!("{block} nosmt"), 1);
            let left = without_args(form, &theirs);
            assert!(left.contains(" nosmt") && !left.contains("2-11"), "{left}");
        }
        for text in ["", "\n", " \n"] {
            let put = with_args(Form::GrubbyCmdline, text, &ours);
            assert_eq!(without_args(Form::GrubbyCmdline, &put), text);
        }
    }

    #[test]
    fn an_entry_on_trial_for_grub_has_all_its_arguments_on_one_line() {
        let ours = args("isolcpus=2-11");
        let text = trial_entry(Form::GrubEntry, FEDORA, &ours);
        assert_eq!(
            text.lines().skip(2).collect::<Vec<_>>(),
            [
                "linux /vmlinuz-6.8.5-301.fc40.x86_64",
                "grub_users $grub_users",
                "grub_arg --unrestricted",
                &format!(
                    "options root=UUID=1 ro  iommu=pt dyndbg=\"file a.c +p\" $tuned_params \
                     isolcpus=2-11 bmslice.trial={} panic=30 systemd.watchdog_sec=60",
                    args_digest(&ours)
                ),
            ]
        );
    }

    #[test]
    fn what_kernel_install_copied_is_known_and_taken_out() {
        let ours = args("isolcpus=2-11 iommu=pt");
        let file = with_args(Form::Cmdline, "root=UUID=1 ro iommu=pt\n", &ours);
        // `tr -s "$IFS" ' '`, and what it adds itself.
        let words: Vec<&str> = file.split_whitespace().collect();
        let entry = |options: &str| format!("title x\noptions    {options}\nlinux /x\n");
        let made = entry(&format!("{} systemd.machine_id=8a", words.join(" ")));
        assert_eq!(args_in(Form::Entry, &made), Some(args_digest(&ours)));
        assert_eq!(
            without_args(Form::Entry, &made),
            entry("root=UUID=1 ro iommu=pt systemd.machine_id=8a")
        );
    }

    #[test]
    fn of_an_edited_block_only_the_mark_is_ours() {
        let ours = args("isolcpus=2-11 iommu=pt");
        let edited = with_args(Form::Entry, ENTRY, &ours).replace("2-11", "2-7");
        assert_eq!(args_in(Form::Entry, &edited), None);
        let left = without_args(Form::Entry, &edited);
        assert_eq!(left, format!("{ENTRY}options isolcpus=2-7 iommu=pt\n"));
        let theirs = own_args(Form::Entry, &edited);
        assert_eq!(theirs[1].0, 6);
        assert_eq!(theirs[1].1.to_string(), "isolcpus=2-7 iommu=pt");
    }

    #[test]
    fn an_entry_on_trial_boots_as_its_base_and_has_no_sort_key() {
        let (old, new) = (args("isolcpus=1"), args("isolcpus=2-11"));
        let text = trial_entry(Form::Entry, &with_args(Form::Entry, ENTRY, &old), &new);
        assert_eq!(
            text.lines().skip(2).collect::<Vec<_>>(),
            [
                "options    root=UUID=1 ro iommu=pt  quiet",
                "linux      /debian/6.1.0-26-amd64/linux",
                &format!(
                    "options isolcpus=2-11 bmslice.trial={} panic=30 systemd.watchdog_sec=60",
                    args_digest(&new)
                ),
            ]
        );
        assert!(text.ends_with(&trial_options(&new)));
        for form in [Form::Entry, Form::GrubEntry] {
            let name = trial_entry_name(form, &args_digest(&new));
            assert_eq!(trial_entry_digest(&name), Some(&*args_digest(&new)));
        }
        assert_eq!(trial_entry_digest("arch.conf"), None);
        assert_eq!(
            entry_value(ENTRY, "linux"),
            Some("/debian/6.1.0-26-amd64/linux")
        );
    }
}
