//! Delays between the attempts of a stage: exponential, with a jitter that a replay repeats.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::retry::RetrySchedule;
use crate::trading::ids::CycleId;
use crate::trading::stage::StageBackoff;

/// The delay after `attempts` (≥ 1) attempts: from half of the doubled delay up to all of it, by a digest of the cycle,
/// the stage and the attempt. Cycles that failed together do not come back together, and a replay waits as long.
pub(super) fn retry_delay(backoff: StageBackoff, cycle: CycleId, stage: u16, attempts: u32) -> Duration {
    let StageBackoff { min, max } = backoff;
    let schedule = RetrySchedule { min, max, max_attempts: u32::MAX, max_elapsed: Duration::MAX };
    let whole = schedule.unbounded_delay_after(attempts);
    let digest = Sha256::new()
        .chain_update(cycle.as_bytes())
        .chain_update(stage.to_be_bytes())
        .chain_update(attempts.to_be_bytes())
        .finalize();
    let seed = digest.iter().take(4).fold(0, |seed, byte| (seed << 8) | u32::from(*byte));
    let half = whole / 2;
    half + half.mul_f64(f64::from(seed) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::trading::testkit::cycle_id;

    const BACKOFF: StageBackoff =
        StageBackoff { min: Duration::from_millis(20), max: Duration::from_millis(200) };

    #[test]
    fn a_delay_is_between_half_and_all_of_the_doubled_one_and_the_same_each_time() {
        let mut delays = BTreeSet::new();
        for seed in 0..100 {
            for (attempts, whole_ms) in [(1, 20), (2, 40), (3, 80), (4, 160), (5, 200), (6, 200), (9000, 200)]
            {
                let delay = retry_delay(BACKOFF, cycle_id(seed), 2, attempts);
                let whole = Duration::from_millis(whole_ms);
                assert!(whole / 2 <= delay && delay <= whole, "{attempts}: {delay:?}");
                assert_eq!(delay, retry_delay(BACKOFF, cycle_id(seed), 2, attempts));
                delays.insert(delay);
            }
        }
        assert!(500 < delays.len(), "jitter: {} delays", delays.len());
    }
}
