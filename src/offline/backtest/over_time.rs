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

/// Something that is counted along time.
pub(super) trait Counted: Copy + Default {
    /// Adds what happened besides.
    fn add_counts(&mut self, other: Self);
}

/// The receipts of one step, by their time in the receipt log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptCounts {
    /// How many.
    pub receipts: u64,
}

impl Counted for ReceiptCounts {
    fn add_counts(&mut self, other: Self) {
        self.receipts += other.receipts;
    }
}

/// The runs of one step, by their planned time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunCounts {
    /// Runs that completed.
    pub completed: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Outputs of both.
    pub outputs: u64,
}

impl Counted for RunCounts {
    fn add_counts(&mut self, other: Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.outputs += other.outputs;
    }
}

/// One step with its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimeStep<C> {
    /// Where it begins.
    pub from_ts_ms: TsMs,
    /// What happened in it.
    #[serde(flatten)]
    pub counts: C,
}

/// Equal steps along recorded time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Steps<C> {
    /// Width of a step.
    pub step_ms: i64,
    /// The steps from the first to the last one in which something happened, the empty ones between included.
    pub steps: Vec<TimeStep<C>>,
}

/// Counts along time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CountsOverTime<C> {
    width_ms: i64,
    /// By the number of the step since the epoch.
    steps: BTreeMap<i64, C>,
}

impl<C: Counted> CountsOverTime<C> {
    /// Steps of `width_ms` (at least 1) to begin with; later ones are multiples of it, so what happens once every
    /// `width_ms` is spread evenly.
    pub(super) fn new(width_ms: i64) -> Self {
        Self { width_ms: width_ms.max(1), steps: BTreeMap::new() }
    }

    /// Counts something at a moment.
    pub(super) fn add_at(&mut self, at: TsMs, counts: C) {
        self.steps.entry(at.0.div_euclid(self.width_ms)).or_default().add_counts(counts);
        while self.step_span() > STEPS_MAX && self.width_ms < i64::MAX / 4 {
            self.double_width();
        }
    }

    /// What was counted.
    pub(super) fn to_steps(&self) -> Steps<C> {
        let ends = self.steps.first_key_value().zip(self.steps.last_key_value());
        let steps = ends.map(|((first, _), (last, _))| *first..=*last).into_iter().flatten();
        let steps = steps.map(|step| TimeStep {
            from_ts_ms: TsMs(step.saturating_mul(self.width_ms)),
            counts: self.steps.get(&step).copied().unwrap_or_default(),
        });
        Steps { step_ms: self.width_ms, steps: steps.collect() }
    }

    fn step_span(&self) -> i64 {
        match (self.steps.first_key_value(), self.steps.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last.saturating_sub(*first).saturating_add(1),
            (None, _) | (_, None) => 0,
        }
    }

    fn double_width(&mut self) {
        let old = self.width_ms;
        // Only a multiple, so that a step never has to be divided.
        let wider = WIDTHS_MS.iter().copied().find(|width| old < *width && width % old == 0);
        self.width_ms = wider.unwrap_or(old * 2);
        let factor = self.width_ms / old;
        for (step, counts) in std::mem::take(&mut self.steps) {
            self.steps.entry(step.div_euclid(factor)).or_default().add_counts(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: ReceiptCounts = ReceiptCounts { receipts: 1 };

    #[test]
    fn a_short_span_has_steps_of_the_first_width_and_none_is_left_out() {
        let mut over_time = CountsOverTime::new(1_000);
        over_time.add_at(TsMs(1_000), ONE);
        over_time.add_at(TsMs(3_999), ONE);

        let steps = over_time.to_steps().steps;
        let steps: Vec<(i64, u64)> =
            steps.iter().map(|step| (step.from_ts_ms.0, step.counts.receipts)).collect();

        assert_eq!(steps, [(1_000, 1), (2_000, 0), (3_000, 1)]);
        assert_eq!(CountsOverTime::<RunCounts>::new(1).to_steps().steps, []);
    }

    #[test]
    fn a_day_of_seconds_has_steps_of_ten_minutes() {
        let mut over_time = CountsOverTime::new(1_000);
        (0..86_400).for_each(|second| over_time.add_at(TsMs(second * 1_000), ONE));

        let Steps { step_ms, steps } = over_time.to_steps();

        assert_eq!((step_ms, steps.len()), (600_000, 144));
        assert!(steps.iter().all(|step| step.counts.receipts == 600));
    }

    #[test]
    fn ticks_are_spread_evenly_however_many_there_are() {
        for interval_ms in [70, 15_000, 180_000, 7_000_000] {
            let mut over_time = CountsOverTime::new(interval_ms);
            (0..10_000).for_each(|tick| over_time.add_at(TsMs(tick * interval_ms + 50), ONE));

            let Steps { step_ms, steps } = over_time.to_steps();

            let expected = u64::try_from(step_ms / interval_ms).unwrap();
            let inner = &steps[1..steps.len() - 1];
            assert!(inner.iter().all(|step| step.counts.receipts == expected), "{interval_ms}: {steps:?}");
        }
    }

    proptest! {
        /// Method: whatever the moments, each is counted once, in the step that holds it, and the steps are few.
        #[test]
        fn every_moment_is_counted_in_its_step(moments in proptest::collection::vec(any::<i64>(), 1..50)) {
            let mut over_time = CountsOverTime::new(1_000);
            moments.iter().for_each(|at| over_time.add_at(TsMs(*at / 4), ONE));

            let Steps { step_ms, steps } = over_time.to_steps();

            prop_assert!(steps.len() <= usize::try_from(STEPS_MAX).unwrap());
            let number = |ts: i64| ts.div_euclid(step_ms);
            for step in steps {
                let held = moments.iter().filter(|at| number(**at / 4) == number(step.from_ts_ms.0));
                prop_assert_eq!(step.counts.receipts, held.count() as u64);
            }
        }
    }
}
