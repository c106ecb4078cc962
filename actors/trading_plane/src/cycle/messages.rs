//! What the cycles can be told, and what they tell.

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::ids::{
    CommandId, CorrelationId, CycleId, PipelineName, ScheduleName, StrategyName,
};
use orchestrator_kernel::trading::journal::FireTrigger;
use orchestrator_kernel::trading::schedule::FireSkipReason;
use orchestrator_kernel::trading::strategy::CycleSymbolsExceeded;
use ractor::RpcReplyPort;

use crate::journal::messages::{JournalRefused, JournalWriter};

/// A fire whose cycle is to begin now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FireOrder {
    /// The schedule.
    pub schedule: ScheduleName,
    /// Number of the fire.
    pub fire: u64,
    /// When it was planned for.
    pub planned: TsMs,
    /// What made it fire.
    pub trigger: FireTrigger,
    /// Whether the fire is on record already, and only its cycle is missing.
    pub is_recorded: bool,
    /// What the cycle does.
    pub pipeline: PipelineName,
    /// The strategies that it works for, those of them that are active.
    pub strategies: Vec<StrategyName>,
    /// Decisions that it begins with: then it begins at RISK.
    pub decisions: Vec<TradeDecision>,
}

impl FireOrder {
    /// The cycle of this fire.
    #[must_use]
    pub fn cycle_id(&self) -> CycleId {
        CycleId::derive(None, &self.schedule, self.planned, &self.trigger.to_text())
    }
}

/// A cycle that a command asks for. The command is on record already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOrder {
    /// The command.
    pub command: CommandId,
    /// What ties it to its answer.
    pub correlation: CorrelationId,
    /// What the cycle does.
    pub pipeline: PipelineName,
    /// The strategies that it works for.
    pub strategies: Vec<StrategyName>,
    /// Symbols that it is limited to; none: all that they have.
    pub symbols: Vec<Symbol>,
    /// Decisions that the cycle begins with: then it begins at RISK.
    pub decisions: Vec<TradeDecision>,
}

/// Reason for which a cycle did not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginRefused {
    /// The fire is to be skipped for this reason.
    #[error("no cycle begins: {}", .0.as_str())]
    Skip(FireSkipReason),
    /// There is no such pipeline.
    #[error("there is no pipeline {0}")]
    UnknownPipeline(PipelineName),
    /// Its strategies have more symbols than one cycle decides about.
    #[error(transparent)]
    TooManySymbols(#[from] CycleSymbolsExceeded),
    /// The journal takes no records, so nothing begins.
    #[error(transparent)]
    Journal(#[from] JournalRefused),
}

/// A cycle that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningCycle {
    /// The cycle.
    pub cycle_id: CycleId,
    /// The schedule whose fire it is of.
    pub schedule: Option<ScheduleName>,
}

/// Requests to the cycles, and messages that they send to themselves.
pub enum CyclesMsg {
    /// Begin the cycle of a fire. Sent by the cadence, which waits for the reply. Its writer puts the beginning on
    /// record: where the journal has lost what the fire continues, nothing begins.
    BeginFire(Box<FireOrder>, JournalWriter, RpcReplyPort<Result<CycleId, BeginRefused>>),
    /// Begin the cycle of a command. Sent by the agent, which waits for the reply; its writer as above.
    BeginCommand(Box<CommandOrder>, JournalWriter, RpcReplyPort<Result<CycleId, BeginRefused>>),
    /// Cancel the oldest cycle of this schedule. Sent by the cadence.
    CancelOldest(ScheduleName, String),
    /// Cancel every cycle. Sent by whoever stops the plane.
    CancelAll(String),
    /// Report which cycles run. Asked by the cadence when it starts.
    Running(RpcReplyPort<Vec<RunningCycle>>),
    /// A cycle is over, one way or another. Sent by the task that ran it.
    Finished {
        /// The cycle.
        cycle: CycleId,
        /// Which of its runs: it may go on in another one already.
        began: u64,
        /// The outcome.
        outcome: CycleOutcome,
    },
    /// Report when none runs. Asked by whoever drives the clock, and by others on a driven one: time moves on only
    /// then.
    WaitIdle {
        /// Whether the agent has to have heard of every end too. Never asked for by the agent, which waits meanwhile.
        behind_agent: bool,
        /// The report.
        reply: RpcReplyPort<()>,
    },
    /// Begin nothing any more, and report when none runs.
    Drain(RpcReplyPort<()>),
}

/// Outcome of the task that ran a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CycleOutcome {
    /// Its end is durable.
    Ended {
        /// Whether its audit failed and fails closed.
        audit_failed: bool,
    },
    /// The journal did not take its records: it goes on from what is durable.
    Refused(JournalRefused),
    /// A defect: a panic, or a record that does not fit.
    Defect(String),
}
