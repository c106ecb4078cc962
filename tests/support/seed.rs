//! Chance for the tests that choose moments: repeatable from a printed seed.

/// `SEED`, or another one each time; printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::process::id().into(),
    }
}
