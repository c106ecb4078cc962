//! The version of the binary, and the commit that it was built from.

use std::sync::LazyLock;

/// As in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, as the build was told by the environment variable `ORCHESTRATOR_REVISION`; "unknown" without it.
pub const REVISION: &str = match option_env!("ORCHESTRATOR_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What the program says of itself: version and commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildIdentity {
    /// The version.
    pub version: &'static str,
    /// The commit.
    pub revision: &'static str,
}

/// This binary.
pub const BUILD: BuildIdentity = BuildIdentity { version: VERSION, revision: REVISION };

/// Version and commit for a person, as `--version` prints them.
pub static VERSION_LINE: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (revision {REVISION})"));

/// Version and commit as one word, for records.
#[must_use]
pub fn code_identity() -> String {
    format!("{VERSION}+{REVISION}")
}
