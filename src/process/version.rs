//! The version of the binary, and the commit that it was built from.

/// As in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, as the build was told by the environment variable `ORCHESTRATOR_REVISION`; "unknown" without it.
pub const REVISION: &str = match option_env!("ORCHESTRATOR_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Version and commit as one word, for records.
#[must_use]
pub fn code_identity() -> String {
    format!("{VERSION}+{REVISION}")
}
