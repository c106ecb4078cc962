//! How often and when something is tried again: bounded, and the same in every replay.

use std::time::Duration;

/// Retry delays: `min`, doubled up to `max`; at most `max_attempts` attempts, and none that would start after
/// `max_elapsed` of waiting. No jitter: the deterministic path must not depend on chance.
///
/// Source: specification 000, "Retry rules"; CONTRACTS §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySchedule {
    /// Delay before the second attempt.
    pub min: Duration,
    /// Longest delay, ≥ `min`.
    pub max: Duration,
    /// Attempts in all, the first included, ≥ 1.
    pub max_attempts: u32,
    /// Bound on the sum of the delays.
    pub max_elapsed: Duration,
}

impl RetrySchedule {
    /// The delay before the next attempt when `attempts` (≥ 1) were made; `None` when there is to be none.
    #[must_use]
    pub fn delay_after(&self, attempts: u32) -> Option<Duration> {
        if attempts >= self.max_attempts {
            return None;
        }
        let mut waited = Duration::ZERO;
        let mut delay = self.min;
        for _ in 1..attempts {
            waited = waited.saturating_add(delay);
            if waited > self.max_elapsed {
                return None;
            }
            delay = self.capped_double(delay);
        }
        (waited.saturating_add(delay) <= self.max_elapsed).then_some(delay)
    }

    /// The delay before attempt `attempts + 1` of something that is tried for ever: [`delay_after`](Self::delay_after)
    /// without its bounds. Used where giving up would lose something, so the caller degrades instead and keeps asking.
    #[must_use]
    pub fn unbounded_delay_after(&self, attempts: u32) -> Duration {
        // 2^32 doublings of a nanosecond exceed any `max`; the loop ends as soon as the cap is met.
        let mut delay = self.min.min(self.max);
        for _ in 1..attempts {
            if delay == self.max || delay.is_zero() {
                break;
            }
            delay = self.capped_double(delay);
        }
        delay
    }

    fn capped_double(&self, delay: Duration) -> Duration {
        delay.saturating_mul(2).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let schedule = RetrySchedule { min: ms(100), max: ms(350), max_attempts: 5, max_elapsed: ms(10_000) };

        let delays: Vec<_> = (1..=5).map(|attempts| schedule.delay_after(attempts)).collect();

        assert_eq!(delays, [Some(ms(100)), Some(ms(200)), Some(ms(350)), Some(ms(350)), None]);
    }

    #[test]
    fn no_attempt_starts_after_the_elapsed_bound() {
        let schedule = RetrySchedule { min: ms(100), max: ms(1000), max_attempts: 100, max_elapsed: ms(300) };

        assert_eq!(schedule.delay_after(2), Some(ms(200)));
        assert_eq!(schedule.delay_after(3), None);
    }

    proptest! {
        #[test]
        fn delays_never_shrink_and_keep_every_bound(
            min in 0..2000u64, over in 0..5000u64, max_attempts in 1..40u32, max_elapsed in 0..60_000u64,
        ) {
            let schedule = RetrySchedule { min: ms(min), max: ms(min + over), max_attempts, max_elapsed: ms(max_elapsed) };
            let mut attempts = 1;
            let mut sum = Duration::ZERO;
            let mut last = Duration::ZERO;
            while let Some(delay) = schedule.delay_after(attempts) {
                prop_assert!(last <= delay && delay <= schedule.max);
                prop_assert_eq!(delay, schedule.unbounded_delay_after(attempts));
                sum += delay;
                last = delay;
                attempts += 1;
                prop_assert!(attempts <= max_attempts && sum <= schedule.max_elapsed);
            }
        }
    }
}
