//! Planted faults, with the feature `mutants`: a live test names one in the environment, and other tests must see it.
//! Nothing of it is in a binary without the feature.

use std::sync::LazyLock;

static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("ORCHESTRATOR_MUTANT").ok());

/// Whether outputs are published as mandatory; not with `fan_out_without_mandatory`.
pub(super) fn is_mandatory() -> bool {
    PLANTED.as_deref() != Some("fan_out_without_mandatory")
}
