//! The configuration: one file, environment overrides, every violation at once.
