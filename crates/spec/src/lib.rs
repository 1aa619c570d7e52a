//! The user's file: what is wanted.
//!
//! Takes YAML (or JSON) text, gives a sealed [`Slicing`], or every mistake in it with line, column
//! and what would be right. Knows nothing of any server.

mod sealed;

pub use sealed::*;
