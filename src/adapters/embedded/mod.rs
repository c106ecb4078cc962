//! The embedded default: logs in segment files, checkpoints and outputs in plain files.
