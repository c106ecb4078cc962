//! Reading settings, whatever they mean: layers of a file, the environment and flags are put into one tree, sections
//! are read from it, and every violation is kept with its path and place. The rest of `config` says which settings
//! there are.

pub(super) mod environment;
pub(super) mod file;
pub(super) mod forms;
pub(super) mod secret;
pub(super) mod section;
pub(super) mod show;
pub(super) mod tree;
pub(super) mod violation;
