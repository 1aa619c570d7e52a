//! The user's file: what is wanted.
//!
//! Takes YAML (or JSON) text, gives a sealed [`Slicing`], or every mistake in it with line, column
//! and what would be right. Knows nothing of any server.
//!
//! ```text
//! text ─ yaml ─► tree with places ─ decode ─► wire types ─ seal ─► sealed types ─ rules ─► Slicing
//!          └──────────────┴──────────────────────┴───────────────────────┴─► SpecErrors
//! ```

mod choices;
mod decode;
mod diagnostic;
mod digest;
mod fleet;
mod guest;
mod host;
mod nearest;
mod parse;
mod replicas;
mod rules;
mod schema;
mod seal;
mod seal_fleet;
mod seal_host;
mod seal_nic;
mod sealed;
mod slip;
mod vf;
mod wire;
mod wire_fleet;
mod yaml;

pub use choices::{IdleStates, Mitigations};
pub use diagnostic::{SpecError, SpecErrors};
pub use fleet::{FleetSpec, LabelledServer, Place, Selector};
pub use replicas::Replica;
pub use rules::{InvalidSlicing, Path, Step, Violation};
pub use schema::schema;
pub use sealed::*;
pub use vf::{VfLink, VfRules};
