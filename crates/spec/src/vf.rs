//! What a NIC holds a virtual function to.

use serde::{Deserialize, Serialize};

/// What a NIC holds a virtual function to, beside its MAC and VLAN (ip-link(8), `vf`). What the driver
/// does by itself is left out of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VfRules {
    /// Whether the guest may change its MAC and go promiscuous.
    pub trust: bool,
    /// Whether frames with another sender's MAC are dropped.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub spoof_check: bool,
    /// The most that it sends, in Mbit/s; `None` is as fast as the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u32>,
    /// The link that the guest sees.
    #[serde(default, skip_serializing_if = "VfLink::is_auto")]
    pub link: VfLink,
}

impl Default for VfRules {
    fn default() -> Self {
        Self {
            trust: false,
            spoof_check: true,
            max_rate: None,
            link: VfLink::Auto,
        }
    }
}

impl VfRules {
    /// What is not as a driver does it by itself, for people: `trusted`, `at most 1000 Mbit/s`.
    #[must_use]
    pub fn described(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.trust {
            words.push("trusted".to_owned());
        }
        if !self.spoof_check {
            words.push("no spoof check".to_owned());
        }
        words.extend(self.max_rate.map(|rate| format!("at most {rate} Mbit/s")));
        match self.link {
            VfLink::Auto => {}
            VfLink::Up => words.push("link always up".into()),
            VfLink::Down => words.push("link always down".into()),
        }
        words
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_yes(flag: &bool) -> bool {
    *flag
}

fn yes() -> bool {
    true
}

/// The link that a virtual function sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VfLink {
    /// The NIC's own.
    #[default]
    Auto,
    /// Up, so that VFs of one NIC reach each other without a cable.
    Up,
    /// Down.
    Down,
}

impl VfLink {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    /// The word that `ip link set … vf N state` takes and shows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Up => "enable",
            Self::Down => "disable",
        }
    }

    /// Reads that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Auto, Self::Up, Self::Down]
            .into_iter()
            .find(|link| link.word() == word)
    }
}
