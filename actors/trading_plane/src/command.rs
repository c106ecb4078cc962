//! Commands: everything that somebody can ask of the trading plane, in one enum with one execution path.
//!
//! Each is on record before anything follows from it, and its result before it is answered. A face (HTTP, a queue, the
//! command line) makes a [`TradingCommand`], names where it came from by a [`CommandOrigin`], and translates a
//! [`CommandAnswer`] or a [`CommandRefused`]; it decides nothing.

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_kernel::trading::backtest::BacktestRequest;
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::ids::{CommandId, CycleId, PipelineName, StrategyName};
use orchestrator_kernel::trading::strategy::StrategyCommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TradingCommand {
    /// Start, stop, pause or resume the agent.
    Agent(AgentCommand),
    /// Activate, deactivate or pause a strategy.
    Strategy(StrategyName, StrategyCommand),
    /// Begin a cycle of a strategy now.
    AnalyzeStrategy {
        /// The strategy.
        strategy: StrategyName,
        /// Those of its symbols that the cycle is limited to; none: all of them.
        symbols: Vec<Symbol>,
    },
    /// Begin a cycle of a pipeline now.
    RunCycle {
        /// What it does.
        pipeline: PipelineName,
        /// The strategies that it works for; those of them that are active.
        strategies: Vec<StrategyName>,
        /// What it is run for, as JSON text, for the record.
        trigger_event: Option<String>,
    },
    /// Latch trading as stopped, whatever the kill switch's store says.
    LatchKill {
        /// Why.
        reason: String,
    },
    /// Release the latch. An operator's: no event may ask for it (KILL-2).
    ReleaseLatch {
        /// Why.
        reason: String,
    },
    /// An event asks to release the latch: it is recorded and refused (KILL-2).
    RequestRelease {
        /// Why.
        reason: String,
    },
    /// An event announces a market's session: it can only make the calendar stricter.
    AnnounceSession(SessionAnnouncement),
    /// An event tells another service's error.
    ReportError {
        /// What happened, as one line.
        detail: String,
        /// Whether a running agent pauses because of it.
        pauses: bool,
    },
    /// An event brings a decision: it begins a cycle of its strategy at RISK.
    ExecuteDecision {
        /// The decision.
        decision: TradeDecision,
        /// When it was made, as its event says.
        made_at: TsMs,
    },
    /// Run a backtest, in its turn.
    RunBacktest(BacktestRequest),
    /// An event that nothing follows from but its record.
    NoteEvent {
        /// Its name.
        name: String,
        /// What it says, as one line.
        detail: String,
    },
}

/// Announcement of a market's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAnnouncement {
    /// The market.
    pub market: String,
    /// Whether it is one to trade in.
    pub is_open: bool,
    /// When that was so, as its event says: an older announcement changes nothing.
    pub at: TsMs,
}

/// Age from which on a decision that came by event begins nothing: what was decided on is another market by then.
pub const DECISION_AGE_MAX_MS: i64 = 15 * 60 * 1000;

/// Name of the command that announces a session: what was announced is read back from the record by it.
pub(crate) const SESSION_ANNOUNCE: &str = "session/announce";

impl TradingCommand {
    /// Its name in records and metrics.
    #[must_use]
    pub const fn command_name(&self) -> &'static str {
        match self {
            Self::Agent(AgentCommand::Start { .. }) => "agent/start",
            Self::Agent(AgentCommand::Stop { .. }) => "agent/stop",
            Self::Agent(AgentCommand::Pause { .. }) => "agent/pause",
            Self::Agent(AgentCommand::Resume) => "agent/resume",
            Self::Strategy(_, StrategyCommand::Activate) => "strategy/activate",
            Self::Strategy(_, StrategyCommand::Deactivate { .. }) => "strategy/deactivate",
            Self::Strategy(_, StrategyCommand::Pause) => "strategy/pause",
            Self::AnalyzeStrategy { .. } => "strategy/analyze",
            Self::RunCycle { .. } => "cycle/run",
            Self::LatchKill { .. } => "kill/latch",
            Self::ReleaseLatch { .. } => "kill/release",
            Self::RequestRelease { .. } => "kill/request_release",
            Self::AnnounceSession(_) => SESSION_ANNOUNCE,
            Self::ReportError { .. } => "error/report",
            Self::ExecuteDecision { .. } => "decision/execute",
            Self::RunBacktest(_) => "backtest/run",
            Self::NoteEvent { .. } => "event/note",
        }
    }

    /// Its recorded body: equal for equal commands.
    #[must_use]
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Origin of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOrigin {
    /// Its identifier: derived from the idempotency key, or random where there is none.
    pub id: CommandId,
    /// The person or program that asks.
    pub operator: String,
    /// Where it came from: an address, a queue.
    pub from: String,
}

/// A command's answer, once everything that it says is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandAnswer {
    /// The agent runs.
    AgentStarted {
        /// Since when.
        at: TsMs,
        /// Strategies that are active, and that it was started for.
        active_strategies: Vec<StrategyName>,
    },
    /// The agent stopped.
    AgentStopped {
        /// When.
        at: TsMs,
    },
    /// The agent pauses.
    AgentPaused {
        /// When it goes on by itself.
        resume_at: Option<TsMs>,
    },
    /// The agent goes on.
    AgentResumed {
        /// When.
        at: TsMs,
    },
    /// A strategy has another status.
    StrategyMoved {
        /// The status, as specification 002 names it.
        status: String,
        /// When.
        at: TsMs,
    },
    /// A cycle began.
    CycleBegun {
        /// The cycle.
        cycle_id: CycleId,
    },
    /// A backtest waits for its turn, or runs.
    BacktestQueued {
        /// Its job.
        job: CommandId,
    },
    /// Trading is latched as stopped, or is no longer.
    LatchChanged {
        /// Whether it is.
        latched: bool,
    },
    /// It is on record; what follows from it, if anything, was done with it.
    Noted,
}

/// Identifier of the one agent that there is.
pub const AGENT_ID: &str = "agent";

impl CommandAnswer {
    /// The body of the answer.
    ///
    /// Source: specification 002, "REST Endpoints".
    #[must_use]
    pub fn to_wire(&self) -> Value {
        match self {
            Self::AgentStarted { at, active_strategies } => json!({
                "status": "started",
                "agentId": AGENT_ID,
                "startedAt": to_rfc3339(*at),
                "activeStrategies": active_strategies,
            }),
            // Positions and orders are the second half's; there are none before it.
            Self::AgentStopped { at } => json!({
                "status": "stopped",
                "stoppedAt": to_rfc3339(*at),
                "openPositions": 0,
                "pendingOrders": 0,
            }),
            Self::AgentPaused { resume_at: Some(at) } => {
                json!({ "status": "paused", "resumeAt": to_rfc3339(*at) })
            }
            Self::AgentPaused { resume_at: None } => json!({ "status": "paused" }),
            Self::AgentResumed { at } => json!({ "status": "running", "resumedAt": to_rfc3339(*at) }),
            Self::StrategyMoved { status, at } => {
                let key = if status == "active" { "activatedAt" } else { "deactivatedAt" };
                json!({ "status": status, key: to_rfc3339(*at) })
            }
            Self::CycleBegun { cycle_id } => json!({ "cycleId": cycle_id.to_string(), "status": "started" }),
            Self::BacktestQueued { job } => json!({ "jobId": job.to_string(), "status": "queued" }),
            Self::LatchChanged { latched } => json!({ "latched": latched }),
            Self::Noted => json!({ "status": "noted" }),
        }
    }
}

/// A command that was not carried out. Only what is [`CommandRefused::Unavailable`] makes sense to send again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefused {
    /// A value that cannot be: 400.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing: 404.
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense now, or its key stands for another command: 409.
    #[error("{0}")]
    Conflict(String),
    /// The journal or the plane does not take it now: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// Begins the reason of a command that was not decided, so that the same command may be sent again.
const UNDECIDED: &str = "not on record: ";
/// Stands behind it where something of the command may have been done.
const IN_DOUBT: &str = "it is not known whether this was done: ";

impl CommandRefused {
    /// A command that is not on record, or not known to be. Its identifier is still good: what it did, if anything, is
    /// found under it.
    #[must_use]
    pub fn undecided(why: &str) -> Self {
        Self::Unavailable(format!("{UNDECIDED}{why}"))
    }

    /// A command of which something may be done that is not on record.
    #[must_use]
    pub fn in_doubt(why: &str) -> Self {
        Self::undecided(&format!("{IN_DOUBT}{why}"))
    }

    /// Whether something of the command may be done.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        let reason = match self {
            Self::Unavailable(why) => why.strip_prefix(UNDECIDED),
            Self::Invalid(_) | Self::NotFound(_) | Self::Conflict(_) => None,
        };
        reason.is_some_and(|reason| reason.starts_with(IN_DOUBT))
    }

    /// Whether nothing is decided about the command. Any other refusal is on record, and stays what it is.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Unavailable(why) if why.starts_with(UNDECIDED))
    }

    /// The status of an HTTP answer.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 400,
            Self::NotFound(_) => 404,
            Self::Conflict(_) => 409,
            Self::Unavailable(_) => 503,
        }
    }

    /// The refusal that was recorded with this status.
    #[must_use]
    pub fn of_status(status: u16, detail: String) -> Self {
        match status {
            400 => Self::Invalid(detail),
            404 => Self::NotFound(detail),
            409 => Self::Conflict(detail),
            _ => Self::Unavailable(detail),
        }
    }
}
