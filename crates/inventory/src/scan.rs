//! What every phase reads with: the root, and the notes on what is odd.
//!
//! Keeps true: a file that is missing or damaged is `None`, never an error; what is odd enough to
//! matter becomes a [`Note`].

use std::str::FromStr;

use bmslice_host::Root;
use bmslice_model::{CpuId, CpuSet};

use crate::facts::Note;

/// A root being read, and what was odd so far.
pub(crate) struct Scan<'a> {
    pub(crate) root: &'a Root,
    pub(crate) notes: Vec<Note>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Self {
            root,
            notes: Vec::new(),
        }
    }

    pub(crate) fn note(&mut self, about: impl Into<String>, text: impl Into<String>) {
        let note = Note {
            about: about.into(),
            text: text.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// An attribute that is there and not empty.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.root.attribute(path).filter(|text| !text.is_empty())
    }

    /// A whole file, empty when it cannot be read.
    pub(crate) fn file(&self, path: &str) -> String {
        self.root.read_text(path).unwrap_or_default()
    }

    /// A number as the kernel prints it; `None` for `-1` where the type has no sign.
    pub(crate) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.root.attribute(path)?.parse().ok()
    }

    /// `1`/`0`, `Y`/`N`.
    pub(crate) fn flag(&self, path: &str) -> Option<bool> {
        parse_flag(&self.root.attribute(path)?)
    }

    /// Names in a folder, sorted; none when it is not there.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        self.root.list(path).unwrap_or_default()
    }

    /// A CPU list attribute; a damaged one is noted.
    pub(crate) fn cpu_list(&mut self, path: &str) -> Option<CpuSet> {
        let text = self.root.attribute(path)?;
        match text.parse() {
            Ok(set) => Some(set),
            Err(error) => {
                self.note(path, error.to_string());
                None
            }
        }
    }

    /// CPUs from the mask attribute, or where there is none from the list attribute. A mask always
    /// fits the page that an attribute has; of a list with many holes, kernels before 5.16 show
    /// what fits.
    pub(crate) fn cpus(&mut self, folder: &str, list: &str, mask: &str) -> Option<CpuSet> {
        let path = format!("{folder}/{mask}");
        if let Some(text) = self.root.attribute(&path) {
            let set = parse_mask(&text);
            if set.is_some() {
                return set;
            }
            self.note(path, format!("`{text}` is not a CPU mask"));
        }
        self.cpu_list(&format!("{folder}/{list}"))
    }
}

pub(crate) fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "Y" | "y" => Some(true),
        "0" | "N" | "n" => Some(false),
        _ => None,
    }
}

/// A bitmap as `%*pb` prints it: hexadecimal words of 32 bits, the highest first, with commas.
pub(crate) fn parse_mask(text: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    if text.is_empty() {
        return None;
    }
    // Kernels have at most 8192 CPUs: 256 words, and 65536 is where `CpuId` ends.
    for (i, word) in text.rsplit(',').enumerate() {
        // Constructed trees write masks as C does.
        let word = word.trim().trim_start_matches("0x");
        let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits {
            return None;
        }
        let mut bits = u32::from_str_radix(word, 16).ok()?;
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            let number = u32::try_from(i).ok()?.checked_mul(32)?.checked_add(bit)?;
            set.insert(CpuId::new(number).ok()?);
        }
    }
    Some(set)
}

/// The number behind a prefix: 12 of `node12`. The kernel writes no zeroes before it, so that no two
/// names have one number.
pub(crate) fn numbered(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let plain = plain && (digits.len() == 1 || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

/// The octal escapes of mountinfo(5) and `/proc/swaps`: `\040` is a space.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes.get(i + 1..i + 4).filter(|digits| {
            bytes[i] == b'\\'
                && digits.iter().all(|d| (b'0'..=b'7').contains(d))
                && digits[0] < b'4'
        });
        if let Some(digits) = octal {
            out.push(digits.iter().fold(0u8, |n, d| n * 8 + (d - b'0')));
            i += 4;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_words_of_32_bits_highest_first() {
        let mask = |text| parse_mask(text).map(|set| set.to_string());
        assert_eq!(mask("ff").as_deref(), Some("0-7"));
        assert_eq!(mask("00000001,00000003").as_deref(), Some("0-1,32"));
        assert_eq!(mask("0").as_deref(), Some(""));
        assert_eq!(mask("0x00000003").as_deref(), Some("0-1"));
        for bad in ["", "x", "1,,2", "100000000", "+1", "0x"] {
            assert_eq!(mask(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_follow_their_prefix_alone() {
        assert_eq!(numbered("node12", "node"), Some(12));
        assert_eq!(numbered("node0", "node"), Some(0));
        for other in [
            "node",
            "nodes1",
            "node1x",
            "node99999999999",
            "node+1",
            "node01",
        ] {
            assert_eq!(numbered(other, "node"), None, "{other}");
        }
    }

    #[test]
    fn escapes_are_octal() {
        assert_eq!(unescape(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescape(r"/mnt/\9\04"), r"/mnt/\9\04");
    }
}
