//! What the tests of this folder stand on: a file system that fails, and recorded formats.

pub(super) mod fault_fs;
pub(super) mod golden;
