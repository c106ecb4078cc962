//! How long the engine's calls took: counts by size, in bounded memory.

use std::sync::{Mutex, PoisonError};

use orchestrator_kernel::ports::observer::{Observation, Observer};
use serde::Serialize;

/// Classes of one doubling: a quantile is at most a sixteenth of a doubling (4.5 %) above the true one.
const PER_DOUBLING: usize = 16;
/// From one microsecond on: 30 doublings are 18 minutes.
const DOUBLINGS: usize = 30;

/// Counts of calls by how long they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    counts: Vec<u64>,
    calls: u64,
    failed: u64,
    max_seconds: f64,
}

/// Calls that took up to this long, and more than the class before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The upper bound in milliseconds.
    pub up_to_ms: f64,
    /// How many.
    pub calls: u64,
}

impl Latency {
    /// Counts a call.
    pub fn add_call(&mut self, seconds: f64, failed: bool) {
        if self.counts.is_empty() {
            self.counts = vec![0; PER_DOUBLING * DOUBLINGS];
        }
        if let Some(count) = self.counts.get_mut(class_of_call(seconds)) {
            *count += 1;
        }
        self.calls += 1;
        self.failed += u64::from(failed);
        self.max_seconds = self.max_seconds.max(seconds);
    }

    /// How many calls were made.
    #[must_use]
    pub const fn calls_total(&self) -> u64 {
        self.calls
    }

    /// How many of them gave no answer.
    #[must_use]
    pub const fn failed_total(&self) -> u64 {
        self.failed
    }

    /// The longest, in milliseconds.
    #[must_use]
    pub const fn max_ms(&self) -> f64 {
        self.max_seconds * 1e3
    }

    /// The time in milliseconds that `per_mille` of the calls did not exceed; 0 without calls.
    #[must_use]
    pub fn quantile_ms(&self, per_mille: u64) -> f64 {
        let rank = (self.calls * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if rank <= seen {
                return upper_ms(class + 1).min(self.max_ms());
            }
        }
        0.0
    }

    /// The counts by doublings, from the first to the last one that is not empty.
    #[must_use]
    pub fn to_histogram(&self) -> Vec<Class> {
        let doublings = self.counts.chunks(PER_DOUBLING).zip(1..);
        let all: Vec<Class> = doublings
            .map(|(counts, number)| Class {
                up_to_ms: upper_ms(number * PER_DOUBLING),
                calls: counts.iter().sum(),
            })
            .collect();
        let first = all.iter().position(|class| class.calls > 0).unwrap_or(all.len());
        let last = all.iter().rposition(|class| class.calls > 0).map_or(first, |last| last + 1);
        all.get(first..last).map(<[Class]>::to_vec).unwrap_or_default()
    }
}

fn class_of_call(seconds: f64) -> usize {
    let position = (seconds * 1e6).max(1.0).log2() * PER_DOUBLING as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
    let class = position.floor() as usize;
    class.min(PER_DOUBLING * DOUBLINGS - 1)
}

fn upper_ms(class: usize) -> f64 {
    (class as f64 / PER_DOUBLING as f64).exp2() / 1e3
}

/// Listens to the tree and counts the engine's calls; everything else is dropped.
#[derive(Debug, Default)]
pub struct Calls(Mutex<Latency>);

impl Calls {
    /// What was counted so far.
    #[must_use]
    pub fn current_latency(&self) -> Latency {
        // Each change is complete before it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Calls {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::EngineCalled { error, seconds } = observation {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).add_call(*seconds, error.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_called_is_nothing_shown() {
        let none = Latency::default();

        assert_eq!((none.quantile_ms(500), none.max_ms(), none.calls_total()), (0.0, 0.0, 0));
        assert_eq!(none.to_histogram(), []);
    }

    #[test]
    fn absurd_times_are_counted_at_the_ends() {
        let mut latency = Latency::default();
        for seconds in [0.0, -1.0, 1e9] {
            latency.add_call(seconds, false);
        }

        assert_eq!(latency.to_histogram().iter().map(|class| class.calls).sum::<u64>(), 3);
        assert_eq!(latency.max_ms(), 1e12);
    }

    proptest! {
        /// Method: the reference sorts the times.
        #[test]
        fn a_quantile_is_the_true_one_or_little_above(
            times in proptest::collection::vec(2e-6_f64..1000.0, 1..200),
            per_mille in 1_u64..=1000,
        ) {
            let mut latency = Latency::default();
            times.iter().for_each(|seconds| latency.add_call(*seconds, *seconds > 1.0));
            let mut sorted = times.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = (sorted.len() as u64 * per_mille).div_ceil(1000);
            let truth = sorted[usize::try_from(rank).unwrap() - 1] * 1e3;

            let found = latency.quantile_ms(per_mille);

            prop_assert!(truth * 0.999_999 <= found && found <= truth * 1.045, "{found} for {truth}");
            prop_assert_eq!(latency.failed_total(), times.iter().filter(|seconds| **seconds > 1.0).count() as u64);
            prop_assert_eq!(latency.to_histogram().iter().map(|class| class.calls).sum::<u64>(), times.len() as u64);
        }
    }
}
