//! Gates: what has to allow before a cycle goes on. One pure decision a gate, on values that stand in the record.
//!
//! ```text
//! readings ──▶ kill switch · agent · strategy · session · staleness ──▶ allow │ deny(reason)
//! HOOK/GOV answers ──▶ allow │ deny(reason) │ narrow
//! ```

mod hook;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::agent::AgentStatus;
use super::ids::{CycleId, DecisionId, StageName, StrategyName};
use super::strategy::StrategyStatus;
use crate::error::bounded_detail;
use crate::ids::TsMs;
use crate::kill_switch::{Permit, PermitRefused};
use crate::mutant;

pub use hook::{HookAnswer, HookError, HookRuling, HookVote, Narrowing, judge_hook};

/// Place in a cycle at which gates are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GatePlace {
    /// Before the stage at this index.
    Before(u16),
    /// After the stage at this index has done its work.
    After(u16),
    /// Before the order intent of this decision.
    BeforeIntent(DecisionId),
}

/// Kind of a gate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GateKind {
    /// The pipeline executes orders and judges no risk.
    RiskMissing,
    /// The kill switch.
    KillSwitch,
    /// The agent's state.
    Agent,
    /// The strategies' states.
    Strategy,
    /// The market's session.
    Session,
    /// The age of the newest input.
    Staleness,
    /// Analytics failed and trading is not to go on then.
    Degraded,
    /// A gate of others.
    Hook(StageName),
}

impl GateKind {
    /// The word in reasons and metrics. Hooks have one word together: their names are not bounded by us.
    #[must_use]
    pub const fn gate_word(&self) -> &'static str {
        match self {
            Self::RiskMissing => "risk_missing",
            Self::KillSwitch => "kill_switch",
            Self::Agent => "agent",
            Self::Strategy => "strategy",
            Self::Session => "session",
            Self::Staleness => "staleness",
            Self::Degraded => "degraded",
            Self::Hook(_) => "hook",
        }
    }
}

/// Verdict of one gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateVerdict {
    /// Go on.
    Allow,
    /// Stop, with the reason.
    Deny(String),
    /// It would deny, and does not count here: a SOFT hook, or before SIG a gate that has not flipped.
    Noted(String),
}

impl GateVerdict {
    fn deny_if(denies: bool, reason: impl FnOnce() -> String) -> Self {
        if denies { Self::Deny(bounded_detail(&reason())) } else { Self::Allow }
    }
}

/// One gate's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateCheck {
    /// The gate.
    pub gate: GateKind,
    /// What it says.
    pub verdict: GateVerdict,
}

/// Reading of the kill switch, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillReading {
    /// Trading, by a reading of this age.
    Permit {
        /// Age of the reading in milliseconds.
        age_ms: u64,
        /// Milliseconds for which it still counts, > 0.
        left_ms: u64,
    },
    /// Halted or unknown, with who and why.
    Refused(String),
    /// Stopped by a request that was latched in the journal, whatever the store says.
    Latched(String),
}

impl KillReading {
    /// Takes a fresh reading. `latched` is why trading is latched, if it is.
    #[must_use]
    pub fn from_permit(permit: &Result<Permit, PermitRefused>, latched: Option<&str>) -> Self {
        match (permit, latched) {
            (_, Some(why)) => Self::Latched(bounded_detail(why)),
            (Ok(permit), None) => {
                Self::Permit { age_ms: whole_ms(permit.reading_age()), left_ms: whole_ms(permit.time_left()) }
            }
            (Err(refused), None) => Self::Refused(bounded_detail(&refused.to_string())),
        }
    }

    /// Whether it allows an effect now.
    #[must_use]
    pub const fn permits_effect(&self) -> bool {
        match self {
            Self::Permit { left_ms, .. } => 0 < *left_ms,
            Self::Refused(_) | Self::Latched(_) => false,
        }
    }
}

/// Milliseconds as records hold them; what is too long for them is as long as they can hold.
pub(super) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reading of the market: whether it is one to trade in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReading {
    /// By the calendar and the configured hours.
    pub calendar_allows: bool,
    /// By the last `market.session.changed`, if there was one. It can only forbid.
    pub announcement_allows: Option<bool>,
}

/// The agent, as far as gates ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReading {
    /// Its status.
    pub status: AgentStatus,
    /// Open work of before the start is not known again yet.
    pub catching_up: bool,
}

/// Everything that the gates look at, read right before they are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReadings {
    /// The wall clock.
    pub now: TsMs,
    /// The kill switch.
    pub kill: KillReading,
    /// Time of the newest input of the cycle's symbols.
    pub newest_input: Option<TsMs>,
    /// The market.
    pub session: SessionReading,
    /// The agent.
    pub agent: AgentReading,
    /// The cycle's strategies.
    pub strategies: Vec<(StrategyName, StrategyStatus)>,
    /// Whether the last cycle of these strategies ended degraded.
    pub last_cycle_degraded: bool,
}

/// Trading, and nothing else, allows.
///
/// Source: CONTRACTS §4; KILL-1.
#[must_use]
pub fn judge_kill_switch(reading: &KillReading) -> GateVerdict {
    GateVerdict::deny_if(!reading.permits_effect(), || match reading {
        KillReading::Permit { age_ms, .. } => format!("the reading of {age_ms} ms ago counts no longer"),
        KillReading::Refused(why) => why.clone(),
        KillReading::Latched(why) => format!("latched: {why}"),
    })
}

/// Only a running agent that has caught up allows.
#[must_use]
pub fn judge_agent(reading: AgentReading) -> GateVerdict {
    match reading.status {
        _ if mutant!(AgentNotAsked) => GateVerdict::Allow,
        AgentStatus::Running => {
            GateVerdict::deny_if(reading.catching_up, || "the agent is catching up".to_owned())
        }
        AgentStatus::Stopped | AgentStatus::Paused | AgentStatus::Error => {
            GateVerdict::Deny(format!("the agent is {}", reading.status.as_str()))
        }
    }
}

/// At least one strategy has to be active; before an intent, the decision's own one.
#[must_use]
pub fn judge_strategies(
    strategies: &[(StrategyName, StrategyStatus)],
    only: Option<&StrategyName>,
) -> GateVerdict {
    let mut concerned = strategies.iter().filter(|(name, _)| only.is_none_or(|only| only == name));
    let any_active = concerned.any(|(_, status)| *status == StrategyStatus::Active);
    GateVerdict::deny_if(!any_active, || match only {
        Some(name) => format!("strategy {name} is not active"),
        None => "no strategy of the cycle is active".to_owned(),
    })
}

/// The calendar allows, and nobody has announced otherwise: an announcement can only make it stricter.
#[must_use]
pub fn judge_session(reading: SessionReading) -> GateVerdict {
    match reading {
        SessionReading { calendar_allows: false, .. } => {
            GateVerdict::Deny("outside of the market's hours by the calendar".to_owned())
        }
        SessionReading { announcement_allows: Some(false), .. } => {
            GateVerdict::Deny("outside of the market's hours by announcement".to_owned())
        }
        SessionReading { calendar_allows: true, announcement_allows: Some(true) | None } => {
            GateVerdict::Allow
        }
    }
}

/// The newest input is at most `stale_after` old. One of the future is fresh: clocks of sources run ahead.
#[must_use]
pub fn judge_staleness(newest: Option<TsMs>, now: TsMs, stale_after: Option<Duration>) -> GateVerdict {
    let Some(limit) = stale_after else { return GateVerdict::Allow };
    match newest {
        None => GateVerdict::Deny("there is no input".to_owned()),
        Some(newest) => {
            let age_ms = i128::from(now.0) - i128::from(newest.0);
            let is_stale = i128::from(whole_ms(limit)) < age_ms;
            GateVerdict::deny_if(is_stale, || {
                format!("the newest input is {age_ms} ms old, {} ms are allowed", limit.as_millis())
            })
        }
    }
}

/// Decision of the gates at one place of a cycle, with what they looked at. One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateDecided {
    /// The cycle.
    pub cycle_id: CycleId,
    /// Where.
    pub place: GatePlace,
    /// What they looked at; nothing where only hooks were asked.
    pub readings: Option<GateReadings>,
    /// Each gate's verdict, in the order in which they count.
    pub checks: Vec<GateCheck>,
    /// What hooks narrowed.
    pub narrowed: Vec<Narrowing>,
}

impl GateDecided {
    /// The first gate that denies, with its reason. Nothing: the cycle may go on.
    #[must_use]
    pub fn first_denial(&self) -> Option<(&GateKind, &str)> {
        self.checks.iter().find_map(|check| match &check.verdict {
            GateVerdict::Deny(reason) => Some((&check.gate, reason.as_str())),
            GateVerdict::Allow | GateVerdict::Noted(_) => None,
        })
    }
}

#[cfg(test)]
mod tests;
