//! The wall clock of this machine, for people and never for a decision.

use std::time::{SystemTime, UNIX_EPOCH};

use orchestrator_kernel::ids::TsMs;

/// What the clock of this machine says: for people, never for a decision.
#[must_use]
pub fn wall_now() -> TsMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TsMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
