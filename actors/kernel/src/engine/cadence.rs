//! When runs happen: the schedule as arithmetic, without a clock.

use crate::ids::{CutKind, TsMs};
use crate::ports::clock::TimeGap;

/// Rhythm of the runs, with the timestamp that the engine gets.
///
/// Source: specification 000, "Scheduling modes"; CONTRACTS §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// On each multiple of `interval_ms`, `delay_ms` after it.
    Boundary {
        /// Distance of two boundaries in milliseconds, > 0.
        interval_ms: i64,
        /// How long after the boundary the cut is taken, in milliseconds, ≥ 0.
        delay_ms: i64,
    },
    /// Every `interval_ms` from the first tick on, never re-based on the clock.
    Timer {
        /// Distance of two ticks in milliseconds, > 0 and a multiple of `align_ms`.
        interval_ms: i64,
        /// The engine's timestamp is the tick's time rounded down to a multiple of this, > 0.
        ///
        /// A raw clock time can never equal the aligned timestamp of a SnapshotInputs.
        align_ms: i64,
    },
}

/// One moment of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick {
    /// When the cut is taken: the intended wall-clock time.
    pub planned_ts_ms: TsMs,
    /// The timestamp that the engine gets.
    pub engine_timestamp_ms: TsMs,
    /// What kind of cut it makes.
    pub cut_kind: CutKind,
}

/// Ticks whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// How many of the oldest are given up because there were too many.
    pub missed: u64,
    /// What is to be run now, in order.
    pub ticks: Vec<Tick>,
    /// The one after them, in the future.
    pub next: Tick,
}

/// Ticks of one gap of a recording that are all run: a month of 3-minute ticks, a week of minutes. In a gap there are
/// no receipts, so behind its first ticks there is nothing to run on.
pub const GAP_TICKS_MAX: i64 = 10_000;

/// Ticks in the middle of a gap of a recording that are not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapSkip {
    /// How many.
    pub skipped: u64,
    /// The tick after them.
    pub next: Tick,
}

impl Cadence {
    /// Distance of two ticks in milliseconds.
    #[must_use]
    pub const fn interval_ms(self) -> i64 {
        match self {
            Self::Boundary { interval_ms, .. } | Self::Timer { interval_ms, .. } => interval_ms,
        }
    }

    /// The first tick of a system that has never run, strictly after `now`.
    ///
    /// Exactly on a boundary means the next one. A timer's first tick is one interval after `now`.
    #[must_use]
    pub const fn first_tick(self, now: TsMs) -> Tick {
        match self {
            Self::Boundary { interval_ms, delay_ms } => {
                let index = (now.0 - delay_ms).div_euclid(interval_ms) + 1;
                self.planned_at(TsMs(index * interval_ms + delay_ms))
            }
            Self::Timer { interval_ms, .. } => self.planned_at(now.plus_ms(interval_ms)),
        }
    }

    /// The tick with this planned time, which must be one of the schedule.
    #[must_use]
    pub const fn planned_at(self, planned: TsMs) -> Tick {
        match self {
            Self::Boundary { delay_ms, .. } => Tick {
                planned_ts_ms: planned,
                engine_timestamp_ms: planned.plus_ms(-delay_ms),
                cut_kind: CutKind::Boundary,
            },
            Self::Timer { align_ms, .. } => Tick {
                planned_ts_ms: planned,
                engine_timestamp_ms: TsMs(planned.0.div_euclid(align_ms) * align_ms),
                cut_kind: CutKind::Timer,
            },
        }
    }

    /// Whether a tick of this schedule can be planned for `planned`. A run log may hold ticks of an earlier schedule.
    #[must_use]
    pub const fn has_tick_at(self, planned: TsMs) -> bool {
        match self {
            Self::Boundary { interval_ms, delay_ms } => (planned.0 - delay_ms).rem_euclid(interval_ms) == 0,
            Self::Timer { .. } => true,
        }
    }

    /// What may still be owed at a start: the ticks after the engine timestamp `floor` up to the one planned for
    /// `last`, oldest first. Only the newest `max` (≥ 1) of them; the last one always.
    #[must_use]
    pub fn owed_ticks(self, floor: Option<TsMs>, last: TsMs, max: u32) -> Vec<Tick> {
        let earlier = |back: u32| self.planned_at(last.plus_ms(-i64::from(back) * self.interval_ms()));
        let after_floor = |tick: &Tick| floor.is_some_and(|floor| floor < tick.engine_timestamp_ms);
        let mut ticks: Vec<Tick> = (1..max.max(1)).map(earlier).take_while(after_floor).collect();
        ticks.reverse();
        ticks.push(self.planned_at(last));
        ticks
    }

    /// The tick after one with the planned time `last`.
    ///
    /// `last` may come from a run log that was written under another schedule: the next tick is then the first of
    /// this schedule after `last`.
    #[must_use]
    pub const fn tick_after(self, last: TsMs) -> Tick {
        match self {
            Self::Boundary { .. } => self.first_tick(last),
            Self::Timer { interval_ms, .. } => self.planned_at(last.plus_ms(interval_ms)),
        }
    }

    /// The ticks to be skipped from `tick` on, when it lies in the middle of a `gap` between receipts that has more
    /// than [`GAP_TICKS_MAX`] ticks. The first and last `ends` (≥ 1) of such a gap are run.
    ///
    /// A function of the gap alone, not of where a crash interrupted it: so the runs are the same with and without one.
    #[must_use]
    pub const fn skip_gap(self, tick: Tick, gap: TimeGap, ends: u32) -> Option<GapSkip> {
        let (planned, interval) = (tick.planned_ts_ms, self.interval_ms());
        if planned.0 < gap.from.0 || gap.to.0 <= planned.0 {
            return None;
        }
        let index = planned.0.saturating_sub(gap.from.0) / interval;
        let left = (gap.to.0.saturating_sub(planned.0) - 1) / interval;
        let count = index.saturating_add(left).saturating_add(1);
        let ends = if ends == 0 { 1 } else { ends as i64 };
        let skipped = left.saturating_sub(ends) + 1;
        if count <= GAP_TICKS_MAX || index < ends || skipped <= 0 {
            return None;
        }
        let next = self.planned_at(TsMs(planned.0 + skipped * interval));
        Some(GapSkip { skipped: skipped.unsigned_abs(), next })
    }

    /// What to run at `now` when `next` is the next tick: each tick whose time has come, but never more than
    /// `catch_up_max` (≥ 1) of them, so that a long absence makes no burst; the oldest are given up and counted.
    ///
    /// A clock that went backwards makes nothing due: no tick ever comes twice.
    #[must_use]
    pub fn due_ticks(self, next: Tick, now: TsMs, catch_up_max: u32) -> Due {
        let late = now.0 - next.planned_ts_ms.0;
        if late < 0 {
            return Due { missed: 0, ticks: Vec::new(), next };
        }
        let interval = self.interval_ms();
        let count = late / interval + 1;
        let run = count.min(i64::from(catch_up_max.max(1)));
        let missed = count - run;
        let nth = |index: i64| self.planned_at(next.planned_ts_ms.plus_ms(index * interval));
        Due { missed: missed.unsigned_abs(), ticks: (missed..count).map(nth).collect(), next: nth(count) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDARY: Cadence = Cadence::Boundary { interval_ms: 180_000, delay_ms: 500 };

    #[test]
    fn exactly_on_a_boundary_means_the_next_one() {
        assert_eq!(BOUNDARY.first_tick(TsMs(180_499)).engine_timestamp_ms, TsMs(180_000));
        assert_eq!(BOUNDARY.first_tick(TsMs(180_500)).engine_timestamp_ms, TsMs(360_000));
        assert_eq!(BOUNDARY.first_tick(TsMs(180_500)).planned_ts_ms, TsMs(360_500));
    }

    #[test]
    fn owed_ticks_begin_after_the_slowest_symbol_and_are_bounded() {
        let engine_times = |floor, max| -> Vec<i64> {
            let ticks = BOUNDARY.owed_ticks(floor, TsMs(900_500), max);
            ticks.iter().map(|tick| tick.engine_timestamp_ms.0).collect()
        };

        assert_eq!(engine_times(Some(TsMs(360_000)), 20), [540_000, 720_000, 900_000]);
        assert_eq!(engine_times(Some(TsMs(0)), 2), [720_000, 900_000]);
        assert_eq!(engine_times(Some(TsMs(900_000)), 20), [900_000]);
        assert_eq!(engine_times(None, 20), [900_000]);
    }

    #[test]
    fn a_tick_of_another_schedule_is_recognised() {
        assert!(BOUNDARY.has_tick_at(TsMs(360_500)));
        assert!(!BOUNDARY.has_tick_at(TsMs(360_000)));
        assert!(!BOUNDARY.has_tick_at(TsMs(375_500)));
    }

    #[test]
    fn timer_ticks_are_never_rebased_and_their_engine_time_is_aligned() {
        let timer = Cadence::Timer { interval_ms: 360_000, align_ms: 180_000 };

        let first = timer.first_tick(TsMs(1_234_567));
        let second = timer.tick_after(first.planned_ts_ms);

        assert_eq!(second.planned_ts_ms.0 - first.planned_ts_ms.0, 360_000);
        assert_eq!(first.engine_timestamp_ms, TsMs(1_440_000));
        assert_eq!(second.engine_timestamp_ms, TsMs(1_800_000));
    }

    #[test]
    fn a_schedule_that_was_changed_goes_on_after_the_last_tick_of_the_old_one() {
        let next = BOUNDARY.tick_after(TsMs(190_000));

        assert_eq!((next.planned_ts_ms, next.engine_timestamp_ms), (TsMs(360_500), TsMs(360_000)));
        assert_eq!(BOUNDARY.tick_after(TsMs(180_499)).planned_ts_ms, TsMs(180_500));
        assert_eq!(BOUNDARY.tick_after(TsMs(-1)).planned_ts_ms, TsMs(500));
    }

    #[test]
    fn a_gap_is_run_whole_up_to_its_bound_and_by_its_ends_beyond() {
        let (from, interval) = (TsMs(180_600), 180_000);
        let first = BOUNDARY.first_tick(from);
        let gap = |ticks: i64| TimeGap { from, to: first.planned_ts_ms.plus_ms((ticks - 1) * interval + 1) };
        let nth = |index: i64| BOUNDARY.planned_at(first.planned_ts_ms.plus_ms(index * interval));

        assert_eq!(BOUNDARY.skip_gap(nth(5000), gap(GAP_TICKS_MAX), 20), None);
        let long = gap(GAP_TICKS_MAX + 1);
        assert_eq!(BOUNDARY.skip_gap(nth(19), long, 20), None);
        let skip = BOUNDARY.skip_gap(nth(20), long, 20).unwrap();
        assert_eq!((skip.skipped, skip.next), (9961, nth(9981)));
        assert_eq!(
            BOUNDARY.skip_gap(nth(9980), long, 20).unwrap().next,
            nth(9981),
            "after a crash in between"
        );
        assert_eq!(BOUNDARY.skip_gap(nth(9981), long, 20), None);
        assert_eq!(
            BOUNDARY
                .skip_gap(nth(0), TimeGap { from: TsMs(i64::MIN), to: TsMs(i64::MAX) }, 0)
                .map(|skip| skip.next.planned_ts_ms.0 > 0),
            Some(true)
        );
    }

    fn cadences() -> impl Strategy<Value = Cadence> {
        prop_oneof![
            (1..1_000_000i64, 0..10_000i64)
                .prop_map(|(interval_ms, delay_ms)| Cadence::Boundary { interval_ms, delay_ms }),
            (1..1000i64, 1..1000i64)
                .prop_map(|(align_ms, times)| Cadence::Timer { interval_ms: align_ms * times, align_ms }),
        ]
    }

    proptest! {
        #[test]
        fn ticks_are_strictly_increasing_and_due_ones_are_bounded(
            cadence in cadences(), start in 0..2_000_000_000_000i64,
            jumps in prop::collection::vec(-5_000_000..5_000_000i64, 1..20), catch_up in 1..30u32,
        ) {
            let mut next = cadence.first_tick(TsMs(start));
            prop_assert!(next.planned_ts_ms.0 > start);
            let mut now = start;
            let mut last: Option<Tick> = None;
            let mut seen = 0u64;
            for jump in jumps {
                now += jump;
                let due = cadence.due_ticks(next, TsMs(now), catch_up);
                prop_assert!(due.ticks.len() <= catch_up as usize);
                for tick in &due.ticks {
                    prop_assert!(tick.planned_ts_ms.0 <= now);
                    prop_assert!(tick.engine_timestamp_ms <= tick.planned_ts_ms);
                    if let Some(last) = last {
                        prop_assert!(last.planned_ts_ms < tick.planned_ts_ms);
                        prop_assert!(last.engine_timestamp_ms < tick.engine_timestamp_ms);
                    }
                    last = Some(*tick);
                }
                seen += due.missed + due.ticks.len() as u64;
                prop_assert!(due.next.planned_ts_ms.0 > now || due.next == next);
                next = due.next;
            }
            // Every tick between the first and the next one was run or counted as missed, once.
            let all = (next.planned_ts_ms.0 - cadence.first_tick(TsMs(start)).planned_ts_ms.0) / cadence.interval_ms();
            prop_assert_eq!(seen, all.unsigned_abs());
        }

        #[test]
        fn due_is_the_same_however_often_it_is_asked(cadence in cadences(), start in 0..1_000_000_000i64, ahead in 0..10_000_000i64) {
            let next = cadence.first_tick(TsMs(start));
            let at_once = cadence.due_ticks(next, TsMs(start + ahead), u32::MAX);
            let first_half = cadence.due_ticks(next, TsMs(start + ahead / 2), u32::MAX);
            let second_half = cadence.due_ticks(first_half.next, TsMs(start + ahead), u32::MAX);
            let in_two: Vec<Tick> = first_half.ticks.into_iter().chain(second_half.ticks).collect();
            prop_assert_eq!(at_once.ticks, in_two);
        }
    }
}
