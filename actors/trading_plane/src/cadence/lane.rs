//! One schedule: what is decided of it, what waits, what runs.

use std::collections::BTreeSet;

use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::trading::ids::CycleId;
use orchestrator_kernel::trading::journal::{
    FireDisposition, FireTrigger, JournalFact, ScheduleAccount, ScheduleFired, ScheduleSkipped,
};
use orchestrator_kernel::trading::schedule::{
    FireSkipReason, ScheduleSkipReason, ScheduleState, ScheduleStep, ScheduleTrigger, SkippedFires,
};

use crate::cycle::messages::FireOrder;
use crate::settings::ScheduleSettings;

/// A schedule in progress.
pub(super) struct Lane {
    pub(super) settings: ScheduleSettings,
    pub(super) state: ScheduleState,
    /// Number of the last fire.
    last_fire: u64,
    /// The fire that waits for a running cycle to end.
    waiting: Option<ScheduleFired>,
    /// Fires on record whose cycle a crash kept from beginning, oldest first.
    pub(super) unbegun: Vec<ScheduleFired>,
    /// The last output that was decided.
    pub(super) last_output: Option<RunSeq>,
    pub(super) running: BTreeSet<CycleId>,
    /// The next fire that time brings.
    pub(super) next: Option<TsMs>,
}

impl Lane {
    /// The schedule as the journal knows it; `since` is when the configuration came into force that has it.
    pub(super) fn restored(
        settings: ScheduleSettings,
        account: Option<&ScheduleAccount>,
        since: TsMs,
        running: BTreeSet<CycleId>,
    ) -> Self {
        let none = ScheduleAccount::default();
        let account = account.unwrap_or(&none);
        let waiting = account.waiting_fire().cloned();
        let unbegun = account
            .open
            .values()
            .filter(|fired| fired.disposition == FireDisposition::Start)
            .cloned()
            .collect();
        let state = ScheduleState::restored(
            account.decided_until.unwrap_or(since),
            waiting.as_ref().map(|fired| fired.planned_ts_ms),
            account.begun.iter().copied(),
        );
        let (last_fire, last_output) = (account.last_fire, account.last_output);
        Self { settings, state, last_fire, waiting, unbegun, last_output, running, next: None }
    }

    pub(super) fn running_count(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    /// What makes this schedule fire by time.
    pub(super) const fn time_trigger(&self) -> FireTrigger {
        match self.settings.schedule.trigger {
            ScheduleTrigger::Interval { .. } => FireTrigger::Interval,
            ScheduleTrigger::Cron(_) | ScheduleTrigger::OnDemand => FireTrigger::Cron,
            ScheduleTrigger::Session { .. } => FireTrigger::Calendar,
        }
    }

    /// The order for a fire that begins now: the one that waited, or a new one.
    pub(super) fn order_fire(&self, planned: TsMs, trigger: FireTrigger) -> FireOrder {
        match self.waiting.as_ref().filter(|fired| fired.planned_ts_ms == planned) {
            Some(fired) => self.order_recorded(fired),
            None => FireOrder {
                fire: self.last_fire.saturating_add(1),
                planned,
                trigger,
                is_recorded: false,
                schedule: self.settings.name.clone(),
                pipeline: self.settings.pipeline.clone(),
                strategies: self.settings.strategies.clone(),
                decisions: Vec::new(),
            },
        }
    }

    /// The order for a fire that is on record.
    pub(super) fn order_recorded(&self, fired: &ScheduleFired) -> FireOrder {
        FireOrder {
            fire: fired.fire,
            planned: fired.planned_ts_ms,
            trigger: fired.trigger.clone(),
            is_recorded: true,
            schedule: self.settings.name.clone(),
            pipeline: self.settings.pipeline.clone(),
            strategies: self.settings.strategies.clone(),
            decisions: Vec::new(),
        }
    }

    /// The cycle of this order began.
    pub(super) fn note_begun(&mut self, order: &FireOrder, cycle: CycleId, now: TsMs) {
        self.unbegun.retain(|fired| fired.fire != order.fire);
        self.waiting = self.waiting.take().filter(|fired| fired.fire != order.fire);
        self.last_fire = self.last_fire.max(order.fire);
        let fired = ScheduleStep::Fire { planned: order.planned, cancels_oldest: false };
        self.state.apply_step(&fired, now, &self.settings.schedule);
        self.running.insert(cycle);
    }

    /// The record of a fire that waits from now on.
    pub(super) fn hold_fire(&mut self, planned: TsMs, trigger: FireTrigger, now: TsMs) -> JournalFact {
        self.last_fire = self.last_fire.saturating_add(1);
        let order = FireOrder { fire: self.last_fire, ..self.order_fire(planned, trigger) };
        let fired = ScheduleFired {
            schedule: order.schedule.clone(),
            fire: order.fire,
            planned_ts_ms: planned,
            cycle_id: order.cycle_id(),
            trigger: order.trigger,
            disposition: FireDisposition::Queue,
        };
        self.waiting = Some(fired.clone());
        self.state.apply_step(&ScheduleStep::Hold { planned }, now, &self.settings.schedule);
        JournalFact::ScheduleFired(fired)
    }

    /// The record of an ordered fire that begins no cycle after all.
    pub(super) fn skip_order(&mut self, order: &FireOrder, reason: FireSkipReason, now: TsMs) -> JournalFact {
        self.unbegun.retain(|fired| fired.fire != order.fire);
        let only = SkippedFires {
            first: order.planned,
            last: order.planned,
            count: 1,
            reason: ScheduleSkipReason::Overlap,
        };
        if !order.is_recorded {
            return self.skip_fires(only, reason, order.trigger.clone(), now);
        }
        // It has its number already, and nothing else may come before that is accounted for.
        self.waiting = self.waiting.take().filter(|fired| fired.fire != order.fire);
        self.state.apply_step(&ScheduleStep::Skip(only), now, &self.settings.schedule);
        JournalFact::ScheduleSkipped(ScheduleSkipped {
            schedule: self.settings.name.clone(),
            first_fire: order.fire,
            fires: 1,
            first_planned_ts_ms: order.planned,
            last_planned_ts_ms: order.planned,
            trigger: order.trigger.clone(),
            reason,
        })
    }

    /// The record of fires that begin no cycle.
    pub(super) fn skip_fires(
        &mut self,
        skipped: SkippedFires,
        reason: FireSkipReason,
        trigger: FireTrigger,
        now: TsMs,
    ) -> JournalFact {
        // An event or an output of the same millisecond is another fire than the one that waits, which stays.
        let is_other = |fired: &ScheduleFired| !trigger.is_planned() && fired.trigger != trigger;
        let stays = self.waiting.as_ref().is_some_and(&is_other);
        let waited = self
            .waiting
            .take_if(|fired| !stays && skipped.count == 1 && fired.planned_ts_ms == skipped.first);
        let (first_fire, trigger) = match waited {
            // It has its number already.
            Some(fired) => (fired.fire, fired.trigger),
            None => {
                let first = self.last_fire.saturating_add(1);
                self.last_fire = self.last_fire.saturating_add(skipped.count);
                (first, trigger)
            }
        };
        if !stays {
            self.state.apply_step(&ScheduleStep::Skip(skipped), now, &self.settings.schedule);
        }
        JournalFact::ScheduleSkipped(ScheduleSkipped {
            schedule: self.settings.name.clone(),
            first_fire,
            fires: skipped.count,
            first_planned_ts_ms: skipped.first,
            last_planned_ts_ms: skipped.last,
            trigger,
            reason,
        })
    }
}
