//! Makes a plan so on a server, and gives it back as it was.
//!
//! Takes a [`Machine`](bmslice_host::Machine), what it is
//! ([`LiveInventory`](bmslice_inventory::LiveInventory): a captured one is another type and never
//! becomes steps) and a [`Plan`](bmslice_plan::Plan); gives an [`Outcome`]. Decides nothing: a plan
//! becomes [`Step`]s mechanically, and each step is observed before and after it is done.
//!
//! Keeps true:
//! * every refusal comes before the first effect, all of them at once;
//! * the journal is written ahead and synced, so a killed `apply` is resumed by any later start;
//! * the state before the *first* apply is kept until [`release`] has put it back;
//! * a disk of a slice is never overwritten, a guest is never killed unasked, a domain, file or
//!   device that is not ours is never touched;
//! * no secret reaches the journal, the stored plan, an argument or a message.

mod apply;
mod console;
mod domain_xml;
mod error;
mod event;
mod execute;
mod guest;
mod journal;
mod libvirt_guests;
mod paths;
mod preflight;
mod release;
mod sequence;
mod silent;
mod site;
mod status;
mod step;
mod steps;
mod up;
mod waiting;
mod xml;

pub use apply::{ApplyOptions, Outcome, Phase, apply, fall_back, resume};
pub use error::{ApplyError, Problem, StepError};
pub use event::{Event, State};
pub use journal::{Entry, JournalError, Ledger, Run};
pub use paths::{JOURNAL, LOCK, PLAN, STATE};
pub use release::{ReleaseOptions, Released, Which, release};
pub use sequence::steps;
pub use status::{GuestState, SliceStatus, Status, status};
pub use step::{Before, Observation, Step};
pub use up::NotUp;
