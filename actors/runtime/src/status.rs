//! What the service says about itself: lifecycle, and what stands in the way of being ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stage of the service's life.
///
/// Source: CONTRACTS §2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifecycle {
    /// Reading logs, starting actors.
    #[default]
    Init,
    /// Everything is up.
    Running,
    /// No new work is taken; what is in flight is being finished.
    Drained,
    /// Up, but something does not work.
    Degraded,
    /// Ended.
    Stopped,
}

impl Lifecycle {
    /// The word in `/health`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Running => "running",
            Self::Drained => "drained",
            Self::Degraded => "degraded",
            Self::Stopped => "stopped",
        }
    }
}

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The receipt log cannot be appended to: ingestion is paused.
    BufferFailing,
    /// The run log cannot be appended to: scheduling is paused.
    RunLogFailing,
    /// A source is down: what it brings is not ingested.
    SourceDown(String),
    /// What a source handed over is not settled for long: nobody upstream is answered meanwhile.
    SourceUnsettled(String),
    /// Outputs wait beyond the limits: scheduling is paused.
    PublishBlocked,
    /// Publishing was tried as often as configured and goes on more slowly. No output is lost.
    PublishDegraded,
    /// A fan-out refuses an output of this symbol for good: the symbol's outputs wait there, the others go on.
    OutputHeld(String),
    /// A fan-out is reached but takes nothing: publishing waits, and scheduling pauses once too much waits.
    FanOutBlocked,
    /// A symbol's runner failed too often; the symbol is stopped, the others run.
    SymbolHalted(String),
    /// More symbols came than `symbols.limit` allows; the further ones are stored but not run.
    SymbolLimit,
    /// The wall clock is behind what stands in the logs: no run happens until it has caught up.
    ClockBehind,
    /// Retention fails again and again: the logs grow.
    RetentionFailing,
    /// The second mark of logs on a server lags behind what is acknowledged.
    MarkStale,
    /// Too many producers are remembered: further ones are turned away.
    ProducerLimit,
    /// An operator stopped all effects. The engine plane goes on.
    KillSwitchEngaged,
    /// Nobody knows whether effects are allowed, so none is. The engine plane goes on.
    KillSwitchUnknown,
    /// The journal cannot be appended to: cycles stop. The engine plane goes on.
    JournalFailing,
    /// The trading plane stopped for good. The engine plane goes on.
    TradingStopped,
    /// The trading plane reads what was open before its start: nothing trades before that is known.
    TradingCatchingUp,
    /// Cycle after cycle fails. One that does not clears it.
    CyclesFailing,
    /// The agent is in error: nothing passes SIG until an operator starts it.
    AgentError,
    /// Retention of the journal fails again and again: it grows.
    JournalRetentionFailing,
    /// The SQL history does not follow the journal. Nothing of it is lost, and cycles go on unless it is required.
    HistoryBehind,
    /// Events of the trading plane are not published. None is lost, and no cycle waits.
    EventsBehind,
    /// Events of others are not taken from the bus: what they ask for does not happen.
    EventIntakeDown,
    /// Another service that had sent heartbeats is silent, or says that it is not well.
    ServiceUnhealthy(String),
    /// This calendar's data end soon, or have ended: its schedules fire no more then.
    CalendarEnding(String),
}

impl Condition {
    /// The stable word in `/readyz`; the runbook has this name too.
    #[must_use]
    pub const fn runbook_word(&self) -> &'static str {
        match self {
            Self::BufferFailing => "buffer_append_failing",
            Self::RunLogFailing => "run_log_append_failing",
            Self::SourceDown(_) => "source_down",
            Self::SourceUnsettled(_) => "source_unsettled",
            Self::PublishBlocked => "publish_blocked",
            Self::PublishDegraded => "publish_degraded",
            Self::OutputHeld(_) => "output_held",
            Self::FanOutBlocked => "fan_out_blocked",
            Self::SymbolHalted(_) => "symbol_halted",
            Self::SymbolLimit => "symbol_limit",
            Self::ClockBehind => "clock_behind",
            Self::RetentionFailing => "retention_failing",
            Self::MarkStale => "mark_stale",
            Self::ProducerLimit => "producer_limit",
            Self::KillSwitchEngaged => "kill_switch_engaged",
            Self::KillSwitchUnknown => "kill_switch_unknown",
            Self::JournalFailing => "journal_append_failing",
            Self::TradingStopped => "trading_stopped",
            Self::TradingCatchingUp => "catching_up",
            Self::CyclesFailing => "cycles_failing",
            Self::AgentError => "agent_error",
            Self::JournalRetentionFailing => "journal_retention_failing",
            Self::HistoryBehind => "history_behind",
            Self::EventsBehind => "trading_events_behind",
            Self::EventIntakeDown => "trading_intake_down",
            Self::ServiceUnhealthy(_) => "service_unhealthy",
            Self::CalendarEnding(_) => "calendar_ending",
        }
    }

    /// Whether ingestion, scheduling or the journal is paused by it, or soon will be: then the service is not ready.
    #[must_use]
    pub const fn blocks_readiness(&self) -> bool {
        match self {
            Self::BufferFailing
            | Self::RunLogFailing
            | Self::SourceDown(_)
            | Self::SourceUnsettled(_)
            | Self::PublishBlocked
            | Self::FanOutBlocked
            | Self::ClockBehind
            | Self::JournalFailing => true,
            Self::PublishDegraded
            | Self::OutputHeld(_)
            | Self::SymbolHalted(_)
            | Self::SymbolLimit
            | Self::RetentionFailing
            | Self::MarkStale
            | Self::ProducerLimit
            | Self::KillSwitchEngaged
            | Self::KillSwitchUnknown
            | Self::TradingStopped
            | Self::TradingCatchingUp
            | Self::CyclesFailing
            | Self::AgentError
            | Self::JournalRetentionFailing
            | Self::HistoryBehind
            | Self::EventsBehind
            | Self::EventIntakeDown
            | Self::ServiceUnhealthy(_)
            | Self::CalendarEnding(_) => false,
        }
    }

    /// Whether something does not work because of it: then a running service is degraded. A kill switch that blocks is
    /// doing its work, and so is a plane that catches up.
    #[must_use]
    pub const fn degrades_service(&self) -> bool {
        match self {
            Self::BufferFailing
            | Self::RunLogFailing
            | Self::SourceDown(_)
            | Self::SourceUnsettled(_)
            | Self::PublishBlocked
            | Self::FanOutBlocked
            | Self::PublishDegraded
            | Self::OutputHeld(_)
            | Self::SymbolHalted(_)
            | Self::SymbolLimit
            | Self::ClockBehind
            | Self::RetentionFailing
            | Self::MarkStale
            | Self::ProducerLimit
            | Self::JournalFailing
            | Self::TradingStopped
            | Self::CyclesFailing
            | Self::AgentError
            | Self::JournalRetentionFailing
            | Self::HistoryBehind
            | Self::EventsBehind
            | Self::EventIntakeDown
            | Self::ServiceUnhealthy(_)
            | Self::CalendarEnding(_) => true,
            Self::KillSwitchEngaged | Self::KillSwitchUnknown | Self::TradingCatchingUp => false,
        }
    }
}

/// A copy of what the board says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Where the service is in its life; `Degraded` when it is running and something does not work.
    pub lifecycle: Lifecycle,
    /// Whether it takes and schedules work.
    pub ready: bool,
    /// What is wrong, each with its details.
    pub conditions: BTreeMap<Condition, String>,
}

#[derive(Debug, Default)]
struct Inner {
    lifecycle: Lifecycle,
    conditions: BTreeMap<Condition, String>,
}

/// The one place where actors say how they are. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard(Arc<Mutex<Inner>>);

impl StatusBoard {
    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on in life.
    pub fn enter_lifecycle(&self, lifecycle: Lifecycle) {
        self.lock_inner().lifecycle = lifecycle;
    }

    /// Says that `condition` holds; returns whether that is new.
    pub fn raise_condition(&self, condition: Condition, detail: impl Into<String>) -> bool {
        self.lock_inner().conditions.insert(condition, detail.into()).is_none()
    }

    /// Says that `condition` no longer holds; returns whether it did.
    pub fn clear_condition(&self, condition: &Condition) -> bool {
        self.lock_inner().conditions.remove(condition).is_some()
    }

    /// Whether `condition` holds.
    #[must_use]
    pub fn holds_condition(&self, condition: &Condition) -> bool {
        self.lock_inner().conditions.contains_key(condition)
    }

    /// What holds now.
    #[must_use]
    pub fn current_status(&self) -> Status {
        let inner = self.lock_inner();
        let running = inner.lifecycle == Lifecycle::Running;
        let degraded = running && inner.conditions.keys().any(Condition::degrades_service);
        let lifecycle = if degraded { Lifecycle::Degraded } else { inner.lifecycle };
        let ready = running && !inner.conditions.keys().any(Condition::blocks_readiness);
        Status { lifecycle, ready, conditions: inner.conditions.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_running_with_nothing_paused() {
        let board = StatusBoard::default();
        assert!(!board.current_status().ready);

        board.enter_lifecycle(Lifecycle::Running);
        assert!(board.current_status().ready);

        board.raise_condition(Condition::KillSwitchEngaged, "halted by ops");
        assert_eq!(
            (board.current_status().lifecycle, board.current_status().ready),
            (Lifecycle::Running, true)
        );

        board.raise_condition(Condition::SymbolHalted("A".to_owned()), "5 restarts in 60 s");
        assert_eq!(
            (board.current_status().lifecycle, board.current_status().ready),
            (Lifecycle::Degraded, true)
        );

        board.raise_condition(Condition::BufferFailing, "disk full");
        assert!(!board.current_status().ready);

        assert!(board.clear_condition(&Condition::BufferFailing));
        board.enter_lifecycle(Lifecycle::Drained);
        assert!(!board.current_status().ready);
    }
}
