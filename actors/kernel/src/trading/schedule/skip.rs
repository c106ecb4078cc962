//! The reasons for which a fire leads to no cycle.

use serde::{Deserialize, Serialize};

use super::ScheduleSkipReason;

/// Reason for which a fire leads to no cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FireSkipReason {
    /// The agent does not run.
    AgentNotRunning,
    /// Its strategy is not active.
    StrategyNotActive,
    /// The cycle before still runs.
    Overlap,
    /// One already waits.
    QueueFull,
    /// The misfire policy: the service was away, or the clock jumped.
    Misfire,
    /// Later than the maximum lateness.
    TooLate,
    /// The schedule's rate limit.
    RateLimited,
    /// As many cycles run as may.
    MaxConcurrent,
    /// The market's session.
    SessionClosed,
    /// The schedule is switched off.
    Disabled,
    /// An event that fired already.
    AlreadyFired,
    /// An event of a strategy that does not exist.
    UnknownStrategy,
    /// An event of a symbol that its strategy does not trade.
    UnknownSymbol,
    /// The journal takes no records.
    JournalFailing,
    /// The service is stopping.
    Shutdown,
    /// The history that cycles need is behind.
    HistoryBehind,
    /// Its strategies have more symbols together than one cycle decides about.
    TooManySymbols,
}

impl FireSkipReason {
    /// The word in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentNotRunning => "agent_not_running",
            Self::StrategyNotActive => "strategy_not_active",
            Self::Overlap => "overlap",
            Self::QueueFull => "queue_full",
            Self::Misfire => "misfire",
            Self::TooLate => "too_late",
            Self::RateLimited => "rate_limited",
            Self::MaxConcurrent => "max_concurrent",
            Self::SessionClosed => "session_closed",
            Self::Disabled => "disabled",
            Self::AlreadyFired => "already_fired",
            Self::UnknownStrategy => "unknown_strategy",
            Self::UnknownSymbol => "unknown_symbol",
            Self::JournalFailing => "journal_failing",
            Self::Shutdown => "shutdown",
            Self::HistoryBehind => "history_behind",
            Self::TooManySymbols => "too_many_symbols",
        }
    }
}

impl From<ScheduleSkipReason> for FireSkipReason {
    fn from(reason: ScheduleSkipReason) -> Self {
        match reason {
            ScheduleSkipReason::MarketClosed => Self::SessionClosed,
            ScheduleSkipReason::Missed => Self::Misfire,
            ScheduleSkipReason::TooLate => Self::TooLate,
            ScheduleSkipReason::Overlap => Self::Overlap,
            ScheduleSkipReason::RateLimited => Self::RateLimited,
        }
    }
}
