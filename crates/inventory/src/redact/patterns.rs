//! What tells whose server it is, by its form.

use regex_lite::Regex;

/// Each form, compiled once.
pub(super) struct Patterns {
    pub(super) mac: Regex,
    pub(super) named_mac: Regex,
    pub(super) bare: Regex,
    pub(super) uuid: Regex,
    pub(super) wwn: Regex,
    pub(super) qualified: Regex,
    pub(super) v4: Regex,
    pub(super) v6: Regex,
    pub(super) password: Regex,
    /// A disk's signature, which its partitions are named by where it has no GPT.
    pub(super) partition: Regex,
}

impl Patterns {
    #[allow(
        clippy::unwrap_used,
        reason = "the patterns are written here, and each is compiled by every test"
    )]
    pub(super) fn new() -> Self {
        let regex = |pattern: &str| Regex::new(pattern).unwrap();
        Self {
            mac: regex(r"(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5,19}\b"),
            named_mac: regex(r"\b(enx|wlx|wwx|ibx)([0-9a-f]{12})\b"),
            bare: regex(r"(?i)\b(?:[0-9a-f]{32}|[0-9a-f]{12})\b"),
            uuid: regex(r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
            wwn: regex(
                r"(?i)\b(?:0x5[0-9a-f]{15}|naa\.[0-9a-f]{16,32}|eui\.[0-9a-f]{16,32}|t10\.\S+)\b",
            ),
            qualified: regex(r"(?i)\b(?:iqn|nqn)\.[0-9]{4}-[0-9]{2}\.[^\s,;]+"),
            v4: regex(r"\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b"),
            v6: regex(r"(?i)[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*"),
            password: regex(
                r"(?i)([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|apikey)[\w.-]*=)(\S+)",
            ),
            partition: regex(r"(?i)(PARTUUID=)([0-9a-f]{8})-([0-9a-f]{2})\b"),
        }
    }
}
