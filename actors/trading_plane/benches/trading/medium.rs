//! What the experiments run on.

/// What the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// One file.
    File,
}
