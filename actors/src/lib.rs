//! The supervision tree: which actors there are, in which order they start and stop, and what joins them.

pub mod tree;

#[cfg(feature = "testkit")]
pub mod testkit;
