//! A symbol's way through the schedule: which of its runs the runner has, and which still wait here.
//!
//! ```text
//!  held: made-up ticks, ≤ catch_up_max ──▶ outstanding: the runner's, ≤ runs_queued_max ──▶ ended
//! ```

use std::collections::VecDeque;

use orchestrator_kernel::engine::cadence::Tick;
use orchestrator_kernel::engine::cut::SymbolCut;
use orchestrator_kernel::ids::{IngestSeq, TsMs};
use ractor::ActorId;

use crate::runners::messages::Run;

/// Bounds of a symbol's runs that have not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct SymbolScheduleLimits {
    /// Runs at the runner.
    pub(super) queued: usize,
    /// Further runs of made-up ticks that wait in the scheduler until the runner has room.
    pub(super) held: usize,
}

/// One symbol's way through the schedule.
#[derive(Debug, Default)]
pub(super) struct SymbolSchedule {
    /// The runner that has reported last; none yet when there is none.
    runner: Option<ActorId>,
    pub(super) next_start: Option<IngestSeq>,
    pub(super) floor: Option<TsMs>,
    /// Ticks handed to the runner that have not ended, oldest first.
    outstanding: VecDeque<Tick>,
    /// Runs that wait for room at the runner, oldest first, all behind `outstanding`.
    held: VecDeque<(Tick, SymbolCut)>,
}

impl SymbolSchedule {
    pub(super) const fn is_up(&self) -> bool {
        self.runner.is_some()
    }

    /// Nothing of it is to be done.
    pub(super) fn is_settled(&self) -> bool {
        self.is_up() && self.outstanding.is_empty() && self.held.is_empty()
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether `tick` is one that the symbol has not had.
    pub(super) fn is_behind(&self, tick: &Tick) -> bool {
        self.floor.is_none_or(|floor| floor < tick.engine_timestamp_ms)
    }

    /// A live tick needs room at the runner, so that a slow symbol is bounded; a made-up one may also wait here.
    pub(super) fn has_room(&self, limits: SymbolScheduleLimits, is_made_up: bool) -> bool {
        let made_up = if is_made_up { limits.held } else { 0 };
        self.outstanding.len() + self.held.len() < limits.queued.saturating_add(made_up)
    }

    /// Notes a tick that the runner gets when it reports.
    pub(super) fn promise_tick(&mut self, tick: Tick) {
        self.outstanding.push_back(tick);
    }

    /// Takes the cut of a tick, behind those it has.
    pub(super) fn queue_run(&mut self, tick: Tick, mut cut: SymbolCut) {
        self.next_start = Some(cut.end.next());
        self.floor = Some(tick.engine_timestamp_ms);
        // Read back from the log when it has to wait: what waits costs no memory for its snapshot.
        if self.has_held()
            && let Some(snapshot) = &mut cut.snapshot
        {
            snapshot.event = None;
        }
        self.held.push_back((tick, cut));
    }

    /// The next run for which the runner has room.
    ///
    /// A runner that is down reports when it is up again, and gets what is outstanding then.
    pub(super) fn next_run(&mut self, limits: SymbolScheduleLimits) -> Option<Run> {
        let runner = self.runner?;
        let (tick, cut) = self.held.pop_front_if(|_| self.outstanding.len() < limits.queued)?;
        self.outstanding.push_back(tick);
        Some(Run { runner, tick, cut })
    }

    pub(super) fn end_run(&mut self, planned: TsMs) {
        self.outstanding.retain(|tick| tick.planned_ts_ms != planned);
    }

    /// A runner reported, for the first time or again. Returns the ticks whose runs it does not have: their cuts are to
    /// be taken once more.
    pub(super) fn reset_for_runner(
        &mut self,
        runner: ActorId,
        next_start: Option<IngestSeq>,
        floor: Option<TsMs>,
    ) -> Vec<Tick> {
        let had =
            std::mem::replace(self, Self { runner: Some(runner), next_start, floor, ..Self::default() });
        let ticks = had.outstanding.into_iter().chain(had.held.into_iter().map(|(tick, _)| tick));
        ticks.filter(|tick| self.is_behind(tick)).collect()
    }
}
