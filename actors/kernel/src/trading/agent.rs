//! The agent: stopped, running, paused, or in error. What a command makes of it, and what makes no sense.

use serde::{Deserialize, Serialize};

use super::ids::{CycleId, StrategyName};
use super::risk::RiskMode;
use crate::error::bounded_detail;
use crate::ids::TsMs;

/// Minutes that a pause may last: a year.
pub const PAUSE_MINUTES_MAX: u32 = 366 * 24 * 60;
const MINUTE_MS: i64 = 60_000;

/// The agent's status, in the words of specification 002.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// Nothing trades. So it begins, and so a crash leaves it.
    #[default]
    Stopped,
    /// Cycles may trade.
    Running,
    /// Nothing trades until it is resumed, or until its time has come.
    Paused,
    /// Nothing trades until an operator starts it.
    Error,
}

impl AgentStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Error => "error",
        }
    }
}

/// Command of an operator to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentCommand {
    /// Run.
    Start {
        /// Only these strategies; all active ones when not given.
        strategies: Option<Vec<StrategyName>>,
        /// Normal when not given.
        mode: Option<RiskMode>,
    },
    /// Stop.
    Stop {
        /// Why.
        reason: Option<String>,
        /// Whether open orders are to be cancelled.
        cancel_open_orders: bool,
    },
    /// Do nothing for a while.
    Pause {
        /// Minutes, 1 to [`PAUSE_MINUTES_MAX`]; until it is resumed when not given.
        minutes: Option<u32>,
    },
    /// Go on.
    Resume,
}

/// Cause of the agent's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentCause {
    /// An operator's command.
    Command(AgentCommand),
    /// The time of its pause has come.
    PauseEnded,
    /// The audit of this cycle failed, and fails closed.
    AuditFailed(CycleId),
    /// A `system.error.occurred` that by policy pauses.
    ErrorOccurred(String),
}

/// The agent, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// Its status.
    pub status: AgentStatus,
    /// How careful it is.
    pub mode: RiskMode,
    /// The strategies it was started for; all active ones when nothing.
    pub strategies: Option<Vec<StrategyName>>,
    /// When it was last started.
    pub started_at: Option<TsMs>,
    /// When it was last stopped.
    pub stopped_at: Option<TsMs>,
    /// Since when it is paused.
    pub paused_at: Option<TsMs>,
    /// When its pause ends by itself.
    pub resume_at: Option<TsMs>,
    /// Its last error.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<TsMs>,
}

/// A change of the agent, as it is recorded: the whole state that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChanged {
    /// The status before.
    pub from: AgentStatus,
    /// Why.
    pub cause: AgentCause,
    /// The agent since.
    pub state: AgentState,
}

/// Reason for which a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentRefusal {
    /// It makes no sense now: 409.
    #[error("the agent is {}", .0.as_str())]
    Conflict(AgentStatus),
    /// No pause can be this long: 400.
    #[error("duration: 1 to {PAUSE_MINUTES_MAX} minutes")]
    Duration,
}

impl AgentState {
    /// What `cause` makes of the agent at `now`. Nothing: it stays as it is.
    ///
    /// | from | start | stop | pause | resume | pause ended | audit failed | error occurred |
    /// |---|---|---|---|---|---|---|---|
    /// | stopped | running | 409 | 409 | 409 | – | error | – |
    /// | running | 409 | stopped | paused | 409 | – | error | paused |
    /// | paused | 409 | stopped | 409 | running | running | error | – |
    /// | error | running | stopped | 409 | 409 | – | – | – |
    ///
    /// # Errors
    ///
    /// [`AgentRefusal`]; the agent is then unchanged.
    ///
    /// Source: specification 002, "Agent Control".
    pub fn decide_change(&self, cause: AgentCause, now: TsMs) -> Result<Option<AgentChanged>, AgentRefusal> {
        let state = match &cause {
            AgentCause::Command(command) => Some(self.after_command(command, now)?),
            AgentCause::PauseEnded => self.pause_ended(now),
            AgentCause::AuditFailed(cycle) => self.after_failed_audit(*cycle, now),
            AgentCause::ErrorOccurred(detail) => self.paused_by_error(detail, now),
        };
        Ok(state.map(|state| AgentChanged { from: self.status, cause, state }))
    }

    fn after_command(&self, command: &AgentCommand, now: TsMs) -> Result<Self, AgentRefusal> {
        use AgentStatus::{Error, Paused, Running, Stopped};
        match (command, self.status) {
            (AgentCommand::Start { strategies, mode }, Stopped | Error) => Ok(Self {
                status: Running,
                mode: mode.unwrap_or_default(),
                strategies: strategies.clone(),
                started_at: Some(now),
                ..self.without_pause()
            }),
            (AgentCommand::Stop { .. }, Running | Paused | Error) => {
                Ok(Self { status: Stopped, stopped_at: Some(now), ..self.without_pause() })
            }
            (AgentCommand::Pause { minutes }, Running) => {
                let is_possible = minutes.is_none_or(|minutes| (1..=PAUSE_MINUTES_MAX).contains(&minutes));
                let resume_at = minutes.map(|minutes| now.plus_ms(i64::from(minutes) * MINUTE_MS));
                let paused = Self { status: Paused, paused_at: Some(now), resume_at, ..self.clone() };
                is_possible.then_some(paused).ok_or(AgentRefusal::Duration)
            }
            (AgentCommand::Resume, Paused) => Ok(Self { status: Running, ..self.without_pause() }),
            (AgentCommand::Start { .. }, Running | Paused)
            | (AgentCommand::Stop { .. }, Stopped)
            | (AgentCommand::Pause { .. }, Stopped | Paused | Error)
            | (AgentCommand::Resume, Stopped | Running | Error) => Err(AgentRefusal::Conflict(self.status)),
        }
    }

    fn pause_ended(&self, now: TsMs) -> Option<Self> {
        let has_ended = self.resume_at.is_some_and(|resume_at| resume_at <= now);
        let is_over = self.status == AgentStatus::Paused && has_ended;
        is_over.then(|| Self { status: AgentStatus::Running, ..self.without_pause() })
    }

    /// A stopped agent too: nothing is to pass SIG until somebody has looked.
    fn after_failed_audit(&self, cycle: CycleId, now: TsMs) -> Option<Self> {
        let changes = self.status != AgentStatus::Error;
        changes.then(|| Self {
            status: AgentStatus::Error,
            last_error: Some(format!("the audit of cycle {cycle} failed")),
            last_error_at: Some(now),
            ..self.without_pause()
        })
    }

    fn paused_by_error(&self, detail: &str, now: TsMs) -> Option<Self> {
        (self.status == AgentStatus::Running).then(|| Self {
            status: AgentStatus::Paused,
            paused_at: Some(now),
            resume_at: None,
            last_error: Some(bounded_detail(detail)),
            last_error_at: Some(now),
            ..self.clone()
        })
    }

    fn without_pause(&self) -> Self {
        Self { paused_at: None, resume_at: None, ..self.clone() }
    }

    /// Milliseconds since the start while it runs or is paused, else 0. A clock that jumped back gives 0 too.
    #[must_use]
    pub fn uptime_ms(&self, now: TsMs) -> u64 {
        match (self.status, self.started_at) {
            (AgentStatus::Running | AgentStatus::Paused, Some(started_at)) => {
                u64::try_from(now.0.saturating_sub(started_at.0)).unwrap_or(0)
            }
            (AgentStatus::Running | AgentStatus::Paused | AgentStatus::Stopped | AgentStatus::Error, _) => 0,
        }
    }

    /// Whether the agent was started for this strategy.
    #[must_use]
    pub fn covers_strategy(&self, strategy: &StrategyName) -> bool {
        self.strategies.as_ref().is_none_or(|strategies| strategies.contains(strategy))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::AgentStatus::{Error, Paused, Running, Stopped};
    use super::*;
    use crate::trading::testkit::{cycle_id, strategy_name};

    const NOW: TsMs = TsMs(1_000_000);

    fn agent(status: AgentStatus) -> AgentState {
        let resume_at = (status == Paused).then_some(TsMs(NOW.0 - 1));
        AgentState { status, started_at: Some(TsMs(1)), resume_at, ..AgentState::default() }
    }

    fn causes() -> [AgentCause; 7] {
        [
            AgentCause::Command(AgentCommand::Start { strategies: None, mode: None }),
            AgentCause::Command(AgentCommand::Stop { reason: None, cancel_open_orders: false }),
            AgentCause::Command(AgentCommand::Pause { minutes: Some(5) }),
            AgentCause::Command(AgentCommand::Resume),
            AgentCause::PauseEnded,
            AgentCause::AuditFailed(cycle_id(1)),
            AgentCause::ErrorOccurred("odd".to_owned()),
        ]
    }

    /// The table of [`AgentState::decide`], cell by cell: `None` stays, `Some(Err)` is 409.
    #[test]
    fn every_cause_in_every_status_does_what_the_table_says() {
        const NO: Option<Result<AgentStatus, ()>> = Some(Err(()));
        const fn to(status: AgentStatus) -> Option<Result<AgentStatus, ()>> {
            Some(Ok(status))
        }
        for (from, row) in [
            (Stopped, [to(Running), NO, NO, NO, None, to(Error), None]),
            (Running, [NO, to(Stopped), to(Paused), NO, None, to(Error), to(Paused)]),
            (Paused, [NO, to(Stopped), NO, to(Running), to(Running), to(Error), None]),
            (Error, [to(Running), to(Stopped), NO, NO, None, None, None]),
        ] {
            for (cause, expected) in causes().into_iter().zip(row) {
                let decided = agent(from).decide_change(cause.clone(), NOW);
                if let Ok(Some(changed)) = &decided {
                    assert_eq!((changed.from, &changed.cause), (from, &cause));
                }
                let got = match decided {
                    Ok(changed) => changed.map(|changed| Ok(changed.state.status)),
                    Err(AgentRefusal::Conflict(status)) if status == from => NO,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(got, expected, "{from:?} {cause:?}");
            }
        }
    }

    #[test]
    fn a_pause_ends_at_its_time_also_while_the_service_was_down_and_never_earlier() {
        let pause = AgentCause::Command(AgentCommand::Pause { minutes: Some(5) });
        let paused = agent(Running).decide_change(pause, NOW).unwrap().unwrap().state;
        let ends = TsMs(NOW.0 + 300_000);

        assert_eq!(paused.resume_at, Some(ends));
        for (now, over) in [(ends.0 - 1, false), (ends.0, true), (ends.0 + 3_600_000, true)] {
            let changed = paused.decide_change(AgentCause::PauseEnded, TsMs(now)).unwrap();
            assert_eq!(changed.map(|changed| changed.state.status), over.then_some(Running));
        }
        let forever = AgentState { resume_at: None, ..paused };
        assert_eq!(forever.decide_change(AgentCause::PauseEnded, TsMs(i64::MAX)), Ok(None));
    }

    #[test]
    fn a_pause_of_no_or_of_endless_minutes_is_refused() {
        for minutes in [0, PAUSE_MINUTES_MAX + 1, u32::MAX] {
            let pause = AgentCause::Command(AgentCommand::Pause { minutes: Some(minutes) });
            assert_eq!(agent(Running).decide_change(pause, NOW), Err(AgentRefusal::Duration));
        }
    }

    #[test]
    fn a_start_takes_its_mode_and_strategies_and_no_word_gives_normal_and_all() {
        let a = strategy_name("a");
        let only = Some(vec![a.clone()]);
        let start = AgentCommand::Start { strategies: only, mode: Some(RiskMode::Conservative) };
        let started = agent(Error).decide_change(AgentCause::Command(start), NOW).unwrap().unwrap().state;

        assert_eq!((started.mode, started.started_at), (RiskMode::Conservative, Some(NOW)));
        assert!(started.covers_strategy(&a) && !started.covers_strategy(&strategy_name("b")));
        assert_eq!(started.uptime_ms(TsMs(NOW.0 + 7)), 7);
        assert_eq!(started.uptime_ms(TsMs(0)), 0, "the clock jumped back");

        let start = AgentCommand::Start { strategies: None, mode: None };
        let started = agent(Stopped).decide_change(AgentCause::Command(start), NOW).unwrap().unwrap().state;
        assert_eq!((started.mode, started.strategies), (RiskMode::Normal, None));
    }

    proptest! {
        /// Only a start or the end of a pause makes it run, and only a pause has an end.
        #[test]
        fn any_sequence_keeps_the_agent_consistent(script in prop::collection::vec((0..7usize, 0..400_000i64), 0..60)) {
            let mut state = AgentState::default();
            let mut now = NOW;
            for (at, passes) in script {
                now = now.plus_ms(passes);
                let cause = causes()[at].clone();
                let Ok(Some(changed)) = state.decide_change(cause.clone(), now) else { continue };
                prop_assert_eq!(changed.from, state.status);
                prop_assert_ne!(changed.from, changed.state.status);
                let may_run = matches!(
                    cause,
                    AgentCause::PauseEnded | AgentCause::Command(AgentCommand::Start { .. } | AgentCommand::Resume)
                );
                prop_assert_eq!(changed.state.status == Running, may_run);
                prop_assert_eq!(changed.state.paused_at.is_some(), changed.state.status == Paused);
                state = changed.state;
            }
        }
    }
}
