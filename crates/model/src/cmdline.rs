//! The kernel's command line as a list of arguments: order, repeats and quotes kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not one kernel argument, or not a command line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CmdlineError {
    /// A quote that is never closed; the kernel would swallow all that follows.
    #[error("a double quote is opened and not closed in the kernel arguments `{0}`")]
    OpenQuote(String),
    /// White space outside quotes, or no key.
    #[error("`{0}` is not one kernel argument")]
    NotOne(String),
}

/// One argument, exactly as written: `quiet`, `isolcpus=domain,managed_irq,2-11`, `dyndbg="file x +p"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelArg(String);

impl KernelArg {
    /// `key=value`; quotes are put round a value with white space.
    ///
    /// # Errors
    /// [`CmdlineError::NotOne`] when the key is empty or holds white space, `=` or a quote, or the
    /// value a quote: the kernel has no way to escape one (lib/cmdline.c, `next_arg`).
    pub fn new(key: &str, value: &str) -> Result<Self, CmdlineError> {
        let text = if value.contains(char::is_whitespace) {
            format!("{key}=\"{value}\"")
        } else {
            format!("{key}={value}")
        };
        let key_ok =
            !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || c == '=' || c == '"');
        if key_ok && !value.contains('"') {
            Ok(Self(text))
        } else {
            Err(CmdlineError::NotOne(text))
        }
    }

    /// What stands before the first `=`, without quotes. Dashes and underscores are alike to the
    /// kernel; compare keys with [`KernelArg::is`].
    #[must_use]
    pub fn key(&self) -> &str {
        let text = self.0.trim_start_matches('"');
        text.split_once('=')
            .map_or(text, |(key, _)| key)
            .trim_end_matches('"')
    }

    /// What stands after the first `=`, without the quotes; `None` without one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        let (_, value) = self.0.split_once('=')?;
        Some(value.trim_start_matches('"').trim_end_matches('"'))
    }

    /// Whether this is the argument of that name, `-` and `_` taken as one.
    #[must_use]
    pub fn is(&self, key: &str) -> bool {
        let same = |a: u8, b: u8| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
        let (a, b) = (self.key().as_bytes(), key.as_bytes());
        a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same(a, b))
    }

    /// Whether a second one of that name adds to the first, instead of replacing it or being
    /// ignored (Documentation/admin-guide/kernel-parameters.txt; those with a dot are a module's or
    /// a program's, and only the listed ones add up).
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        const REPEATABLE: [&str; 14] = [
            "console",
            "earlycon",
            "earlyprintk",
            "hugepages",
            "hugepagesz",
            "initcall_blacklist",
            "intel_iommu",
            "iommu",
            "ip",
            "memmap",
            "modprobe.blacklist",
            "module_blacklist",
            "pci",
            "video",
        ];
        let key = self.key();
        REPEATABLE.iter().any(|repeatable| self.is(repeatable))
            || key.ends_with("dyndbg")
            || key.starts_with("rd.")
            || key.starts_with("systemd.")
    }

    /// The text as the kernel gets it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KernelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KernelArg {
    type Err = CmdlineError;
    fn from_str(text: &str) -> Result<Self, CmdlineError> {
        let mut line: KernelCmdline = text.parse()?;
        match (line.args.pop(), line.args.is_empty()) {
            (Some(arg), true) => Ok(arg),
            _ => Err(CmdlineError::NotOne(text.into())),
        }
    }
}

impl TryFrom<String> for KernelArg {
    type Error = CmdlineError;
    fn try_from(text: String) -> Result<Self, CmdlineError> {
        text.parse()
    }
}

impl From<KernelArg> for String {
    fn from(arg: KernelArg) -> Self {
        arg.0
    }
}

/// A whole command line, as `/proc/cmdline` shows it. What follows a bare `--` is init's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelCmdline {
    args: Vec<KernelArg>,
}

impl KernelCmdline {
    /// The arguments in their order, init's too.
    pub fn iter(&self) -> impl Iterator<Item = &KernelArg> {
        self.args.iter()
    }

    /// The arguments before a bare `--`: those that the kernel reads.
    pub fn kernel_args(&self) -> impl Iterator<Item = &KernelArg> {
        self.args.iter().take_while(|arg| arg.as_str() != "--")
    }

    /// The last argument of that name, which wins for most of the kernel's own.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<&KernelArg> {
        self.kernel_args().filter(|arg| arg.is(key)).last()
    }

    /// Whether exactly this argument is there (the key by [`KernelArg::is`], the value to the
    /// letter).
    #[must_use]
    pub fn contains(&self, wanted: &KernelArg) -> bool {
        self.kernel_args()
            .any(|arg| arg.is(wanted.key()) && arg.value() == wanted.value())
    }
}

impl FromIterator<KernelArg> for KernelCmdline {
    fn from_iter<I: IntoIterator<Item = KernelArg>>(args: I) -> Self {
        Self {
            args: args.into_iter().collect(),
        }
    }
}

impl fmt::Display for KernelCmdline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl FromStr for KernelCmdline {
    type Err = CmdlineError;

    fn from_str(text: &str) -> Result<Self, CmdlineError> {
        // As `next_arg` of lib/cmdline.c: white space separates unless inside double quotes, and
        // there is no escape.
        let mut args = Vec::new();
        let mut arg = String::new();
        let mut quoted = false;
        // The kernel's text ends at its first NUL.
        for c in text.chars().take_while(|c| *c != '\0') {
            if c == '"' {
                quoted = !quoted;
            }
            if c.is_whitespace() && !quoted {
                if !arg.is_empty() {
                    args.push(KernelArg(std::mem::take(&mut arg)));
                }
            } else {
                arg.push(c);
            }
        }
        if quoted {
            return Err(CmdlineError::OpenQuote(text.into()));
        }
        if !arg.is_empty() {
            args.push(KernelArg(arg));
        }
        Ok(Self { args })
    }
}

impl TryFrom<String> for KernelCmdline {
    type Error = CmdlineError;
    fn try_from(text: String) -> Result<Self, CmdlineError> {
        text.parse()
    }
}

impl From<KernelCmdline> for String {
    fn from(line: KernelCmdline) -> Self {
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_repeats_and_quotes() {
        let text = r#"BOOT_IMAGE=/vmlinuz root=/dev/vda1 dyndbg="file a.c +p" console=tty0 console=ttyS0 -- quiet"#;
        let line: KernelCmdline = format!("{text}\n").parse().unwrap();
        assert_eq!(line.to_string(), text);
        assert_eq!(line.last("console").unwrap().value(), Some("ttyS0"));
        assert_eq!(line.last("dyndbg").unwrap().value(), Some("file a.c +p"));
        assert!(
            line.last("quiet").is_none(),
            "init's arguments are not the kernel's"
        );
    }

    #[test]
    fn dashes_are_underscores() {
        let line: KernelCmdline = "transparent-hugepage=never".parse().unwrap();
        assert!(line.last("transparent_hugepage").is_some());
        assert!(line.contains(&"transparent_hugepage=never".parse().unwrap()));
        assert!(!line.contains(&"transparent_hugepage=always".parse().unwrap()));
    }

    #[test]
    fn refuses_what_cannot_be_written() {
        assert!(matches!(
            "a=\"b".parse::<KernelCmdline>(),
            Err(CmdlineError::OpenQuote(_))
        ));
        assert!("a b".parse::<KernelArg>().is_err() && "".parse::<KernelArg>().is_err());
        assert!(KernelArg::new("a", "b\"c").is_err() && KernelArg::new("", "b").is_err());
        assert_eq!(
            KernelArg::new("dyndbg", "file x +p").unwrap().as_str(),
            "dyndbg=\"file x +p\""
        );
    }
}
