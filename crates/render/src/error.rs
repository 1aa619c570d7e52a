//! Why a plan cannot be written out.

use bmslice_model::SliceName;
use thiserror::Error;

/// Why a plan cannot be written out. A plan from the planner never meets one of these; a plan file
/// edited by hand can.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// A text with a control character, which the domain's XML cannot carry.
    #[error(
        "slice `{slice}`: {value:?} has a control character and cannot be written as `{place}` of the domain"
    )]
    Text {
        /// Whose.
        slice: SliceName,
        /// Element and attribute.
        place: String,
        /// The text.
        value: String,
    },
    /// A network configuration for a card that cannot be told from the others.
    #[error(
        "slice `{slice}`: card {index} is to be configured inside the guest, but its MAC address is not known"
    )]
    UnknownMac {
        /// Whose.
        slice: SliceName,
        /// Which card, from 0.
        index: usize,
    },
    /// A path that a unit file or command cannot carry.
    #[error("`{path}` is not an absolute path that a systemd unit can name")]
    Path {
        /// The path.
        path: String,
    },
}

impl RenderError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Text { .. } => "take the control character out of the spec and plan again",
            Self::UnknownMac { .. } => {
                "give the card to the host's driver once so that its MAC shows, and plan again; or leave out `network` of that card"
            }
            Self::Path { .. } => {
                "install the program under a path such as `/usr/local/bin/bmslice`, and keep images in one such as `/var/lib/libvirt/images`"
            }
        }
    }
}
