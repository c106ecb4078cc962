//! Decisions about due fires: begin, hold, skip with a reason, or wait.
//!
//! The caller carries out one step, records it, applies it, and asks again. State is rebuilt by applying the recorded
//! steps, so a crash between two of them loses no fire and repeats none.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::calendar::CalendarError;
use super::{CycleSchedule, FireRange, MisfirePolicy, OverlapPolicy};
use crate::ids::TsMs;
use crate::mutant;

/// Reason why a fire became no cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleSkipReason {
    /// It lay outside of the schedule's hours.
    MarketClosed,
    /// It was late, and the misfire policy lets it go.
    Missed,
    /// It was later than any policy allows.
    TooLate,
    /// As many cycles ran as may, and the overlap policy lets it go.
    Overlap,
    /// The schedule began as many cycles as its rate allows.
    RateLimited,
}

/// Fires that became no cycle: consecutive ones with one reason are one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFires {
    /// Earliest planned time.
    pub first: TsMs,
    /// Latest one.
    pub last: TsMs,
    /// Number of them, at least 1.
    pub count: u64,
    /// Reason that all share.
    pub reason: ScheduleSkipReason,
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleStep {
    /// Begin a cycle.
    Fire {
        /// Planned time, which names the cycle.
        planned: TsMs,
        /// The oldest running cycle has to be cancelled for it.
        cancels_oldest: bool,
    },
    /// Keep this fire until a running cycle has ended.
    Hold {
        /// Planned time.
        planned: TsMs,
    },
    /// Record that these fires become no cycle.
    Skip(SkippedFires),
    /// Nothing is to be done until this time, or until a cycle ends.
    Wait {
        /// Next planned fire; none when time brings none.
        until: Option<TsMs>,
    },
}

/// Decisions of a schedule so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleState {
    /// Every fire up to this time is decided. It never moves back, so a clock that does fires nothing twice.
    decided_until: TsMs,
    held: Option<TsMs>,
    /// When the last fires began, oldest first; as many as the rate limit has to know.
    begun: VecDeque<TsMs>,
}

impl ScheduleState {
    /// The state of a schedule that is switched on at `at`: what was planned before is none of its business.
    #[must_use]
    pub const fn switched_on(at: TsMs) -> Self {
        Self { decided_until: at, held: None, begun: VecDeque::new() }
    }

    /// The state that the journal's records left: every fire up to `decided_until` is decided, `held` waits for a
    /// running cycle, and fires began at `begun`, oldest first.
    #[must_use]
    pub fn restored(decided_until: TsMs, held: Option<TsMs>, begun: impl IntoIterator<Item = TsMs>) -> Self {
        Self { decided_until, held, begun: begun.into_iter().collect() }
    }

    /// Time up to which every fire is decided.
    #[must_use]
    pub const fn decided_until(&self) -> TsMs {
        self.decided_until
    }

    /// Takes a recorded step. `at` is when it was taken.
    pub fn apply_step(&mut self, step: &ScheduleStep, at: TsMs, schedule: &CycleSchedule) {
        match *step {
            ScheduleStep::Fire { planned, .. } => {
                self.settle_fires(planned);
                self.begun.push_back(at);
                let known_max = schedule.rate_limit.map_or(0, |limit| limit.fires_max as usize);
                while known_max < self.begun.len() {
                    self.begun.pop_front();
                }
            }
            ScheduleStep::Hold { planned } => {
                self.settle_fires(planned);
                self.held = Some(planned);
            }
            ScheduleStep::Skip(skipped) => self.settle_fires(skipped.last),
            ScheduleStep::Wait { .. } => {}
        }
    }

    fn settle_fires(&mut self, planned: TsMs) {
        if self.held == Some(planned) {
            self.held = None;
        }
        if !mutant!(FiresTwice) {
            self.decided_until = self.decided_until.max(planned);
        }
    }

    /// Decides the next step at `now`, while `running` cycles of this schedule run.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] when the calendar's data end: nothing fires, and that is an alert, not a holiday.
    pub fn next_step(
        &self,
        schedule: &CycleSchedule,
        now: TsMs,
        running: u32,
    ) -> Result<ScheduleStep, CalendarError> {
        let is_free = running < schedule.concurrent_max || mutant!(OverlapIgnored);
        if let Some(planned) = self.held {
            // It was on time, and has waited since: behind a slow cycle, or for a service that was away.
            if planned < now.plus_ms(-schedule.lateness_max_ms) {
                return Ok(skip_fires(only_fire(planned), ScheduleSkipReason::TooLate));
            }
            if is_free {
                return Ok(self.begin_fire(schedule, planned, now, false));
            }
        }
        let next = schedule.next_fire(self.decided_until)?;
        let Some(planned) = next.filter(|planned| *planned <= now) else {
            return Ok(ScheduleStep::Wait { until: next });
        };
        if let Some(outside) = gather_fires(schedule, self.decided_until, planned)? {
            return Ok(skip_fires(outside, ScheduleSkipReason::MarketClosed));
        }
        if planned < now.plus_ms(-schedule.misfire_after_ms) {
            return self.decide_misfire(schedule, planned, now, is_free);
        }
        Ok(match schedule.overlap {
            _ if is_free => self.begin_fire(schedule, planned, now, false),
            OverlapPolicy::Cancel => self.begin_fire(schedule, planned, now, true),
            OverlapPolicy::QueueOne if self.held.is_none() => ScheduleStep::Hold { planned },
            OverlapPolicy::QueueOne | OverlapPolicy::Skip => {
                skip_fires(only_fire(planned), ScheduleSkipReason::Overlap)
            }
        })
    }

    /// Decides about a fire that no time brings, an event's or a person's, at `now`. It is on time by its nature.
    #[must_use]
    pub fn on_demand_step(&self, schedule: &CycleSchedule, now: TsMs, running: u32) -> ScheduleStep {
        match schedule.overlap {
            _ if running < schedule.concurrent_max && self.held.is_none() => {
                self.begin_fire(schedule, now, now, false)
            }
            OverlapPolicy::Cancel => self.begin_fire(schedule, now, now, true),
            OverlapPolicy::QueueOne if self.held.is_none() => ScheduleStep::Hold { planned: now },
            OverlapPolicy::QueueOne | OverlapPolicy::Skip => {
                skip_fires(only_fire(now), ScheduleSkipReason::Overlap)
            }
        }
    }

    /// Decides about a fire that is late. Late ones wait for a free place: they catch up and never burst.
    fn decide_misfire(
        &self,
        schedule: &CycleSchedule,
        planned: TsMs,
        now: TsMs,
        is_free: bool,
    ) -> Result<ScheduleStep, CalendarError> {
        let oldest = now.plus_ms(-schedule.lateness_max_ms);
        if planned < oldest
            && let Some(range) = gather_fires(schedule, self.decided_until, oldest)?
        {
            return Ok(skip_fires(range, ScheduleSkipReason::TooLate));
        }
        let on_time = now.plus_ms(-schedule.misfire_after_ms);
        let missed = match schedule.misfire {
            MisfirePolicy::Skip if mutant!(MisfireIgnored) => None,
            MisfirePolicy::Skip => gather_fires(schedule, self.decided_until, on_time)?,
            MisfirePolicy::Latest => match schedule.last_fire(planned, now)? {
                Some(latest) => gather_fires(schedule, self.decided_until, latest)?,
                None => None,
            },
            MisfirePolicy::All => None,
        };
        Ok(match missed {
            Some(range) => skip_fires(range, ScheduleSkipReason::Missed),
            None if is_free => self.begin_fire(schedule, planned, now, false),
            None => ScheduleStep::Wait { until: None },
        })
    }

    fn begin_fire(
        &self,
        schedule: &CycleSchedule,
        planned: TsMs,
        now: TsMs,
        cancels_oldest: bool,
    ) -> ScheduleStep {
        let is_over = schedule.rate_limit.is_some_and(|limit| {
            let recent = self.begun.iter().filter(|begun| now.plus_ms(-limit.period_ms) < **begun).count();
            limit.fires_max as usize <= recent
        });
        if is_over {
            skip_fires(only_fire(planned), ScheduleSkipReason::RateLimited)
        } else {
            ScheduleStep::Fire { planned, cancels_oldest }
        }
    }
}

fn gather_fires(
    schedule: &CycleSchedule,
    after: TsMs,
    until: TsMs,
) -> Result<Option<FireRange>, CalendarError> {
    schedule.trigger.gather_fires(after, until, schedule.calendar.as_deref())
}

const fn only_fire(planned: TsMs) -> FireRange {
    FireRange { first: planned, last: planned, count: 1 }
}

const fn skip_fires(range: FireRange, reason: ScheduleSkipReason) -> ScheduleStep {
    let FireRange { first, last, count } = range;
    ScheduleStep::Skip(SkippedFires { first, last, count, reason })
}
