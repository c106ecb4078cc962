//! Counts along recorded time, in equal steps whose width grows with the span.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::TsMs;
use serde::Serialize;

/// Steps at most; then they are made wider.
const STEPS_MAX: i64 = 180;
/// Widths that people read easily, in milliseconds; beyond the last one it doubles.
const WIDTHS_MS: [i64; 17] = [
    1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000,
    3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000,
];

/// What happened in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Receipts, by their time in the receipt log.
    pub receipts: u64,
    /// Runs that completed, by their planned time.
    pub runs_completed: u64,
    /// Runs that failed, by their planned time.
    pub runs_failed: u64,
    /// Outputs of those runs.
    pub outputs: u64,
}

impl Counts {
    const fn add(&mut self, other: Self) {
        self.receipts += other.receipts;
        self.runs_completed += other.runs_completed;
        self.runs_failed += other.runs_failed;
        self.outputs += other.outputs;
    }
}

/// One step with its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where it begins.
    pub from_ts_ms: TsMs,
    /// What happened in it.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts along time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OverTime {
    width_ms: i64,
    /// By the number of the step since the epoch.
    steps: BTreeMap<i64, Counts>,
}

impl Default for OverTime {
    fn default() -> Self {
        Self { width_ms: 1_000, steps: BTreeMap::new() }
    }
}

impl OverTime {
    /// Counts something at a moment.
    pub(super) fn add(&mut self, at: TsMs, counts: Counts) {
        self.steps.entry(at.0.div_euclid(self.width_ms)).or_default().add(counts);
        while self.span() > STEPS_MAX && self.width_ms < i64::MAX / 4 {
            self.widen();
        }
    }

    /// The width of a step in milliseconds.
    #[must_use]
    pub(super) const fn width_ms(&self) -> i64 {
        self.width_ms
    }

    /// Every step from the first to the last one in which something happened, the empty ones between included.
    #[must_use]
    pub(super) fn steps(&self) -> Vec<Step> {
        let (Some((first, _)), Some((last, _))) = (self.steps.first_key_value(), self.steps.last_key_value())
        else {
            return Vec::new();
        };
        (*first..=*last)
            .map(|step| Step {
                from_ts_ms: TsMs(step.saturating_mul(self.width_ms)),
                counts: self.steps.get(&step).copied().unwrap_or_default(),
            })
            .collect()
    }

    fn span(&self) -> i64 {
        match (self.steps.first_key_value(), self.steps.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last.saturating_sub(*first).saturating_add(1),
            (None, _) | (_, None) => 0,
        }
    }

    fn widen(&mut self) {
        let old = self.width_ms;
        // Only a multiple, so that a step never has to be divided.
        let wider = WIDTHS_MS.iter().copied().find(|width| old < *width && width % old == 0);
        self.width_ms = wider.unwrap_or(old * 2);
        let factor = self.width_ms / old;
        for (step, counts) in std::mem::take(&mut self.steps) {
            self.steps.entry(step.div_euclid(factor)).or_default().add(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Counts = Counts { receipts: 1, runs_completed: 0, runs_failed: 0, outputs: 0 };

    #[test]
    fn a_short_span_has_steps_of_a_second_and_none_is_left_out() {
        let mut over_time = OverTime::default();
        over_time.add(TsMs(1_000), ONE);
        over_time.add(TsMs(3_999), ONE);

        let steps: Vec<(i64, u64)> =
            over_time.steps().iter().map(|step| (step.from_ts_ms.0, step.counts.receipts)).collect();

        assert_eq!(steps, [(1_000, 1), (2_000, 0), (3_000, 1)]);
    }

    #[test]
    fn a_day_has_steps_of_ten_minutes() {
        let mut over_time = OverTime::default();
        (0..86_400).for_each(|second| over_time.add(TsMs(second * 1_000), ONE));

        assert_eq!(over_time.width_ms(), 600_000);
        assert_eq!(over_time.steps().len(), 144);
        assert!(over_time.steps().iter().all(|step| step.counts.receipts == 600));
    }

    proptest! {
        /// Method: whatever the moments, each is counted once, in the step that holds it, and the steps are few.
        #[test]
        fn every_moment_is_counted_in_its_step(moments in proptest::collection::vec(any::<i64>(), 1..50)) {
            let mut over_time = OverTime::default();
            moments.iter().for_each(|at| over_time.add(TsMs(*at / 4), ONE));

            let steps = over_time.steps();

            prop_assert!(steps.len() <= usize::try_from(STEPS_MAX).unwrap());
            for step in steps {
                let (from, width) = (step.from_ts_ms.0, over_time.width_ms());
                let held = moments.iter().filter(|at| (**at / 4).div_euclid(width) == from.div_euclid(width));
                prop_assert_eq!(step.counts.receipts, held.count() as u64);
            }
        }
    }
}
