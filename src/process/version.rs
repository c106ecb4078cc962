//! The version of the binary.

/// As in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
