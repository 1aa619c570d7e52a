//! Floor plans of a server: packages › NUMA nodes › last-level caches › cores › threads, with PCI
//! devices at their root complex, each thread and device marked with who has it.
//!
//! Takes an inventory, and a plan if there is one; gives an SVG file or lines for a terminal. Both
//! are drawn from the same [`Floor`]. Every owner has a label as well as a colour, so that a print
//! in black and white says the same. Pure: touches no system.

mod floor;
mod map;
mod owner;
mod paint;
mod svg;

pub use floor::{Core, Device, Domain, Floor, Node, Package, RootComplex, Thread};
pub use owner::{Owner, Owners};
