//! The journal: one hash-chained log of what the trading plane was told, decided and did.
//!
//! ```text
//! stored record  ┃ version │ who │ planned, actual │ correlation │ fact ┃ hash ┃      postcard, then 32 bytes
//! hash           = SHA-256(hash of the record before ‖ stored bytes without the hash); 32 zero bytes before the first
//! ```
//!
//! **One record is one decision, whole:** a crash may cut between any two, so nothing that must be true together is
//! spread over two. Values that decided stand *in* the record, because receipts may be gone by retention later (JRN-1).

pub mod audit;
mod chain;
mod cycle_facts;
mod facts;
mod index;
mod recent_ids;
pub mod retention;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ids::{CorrelationId, CycleId, JournalSeq, ScheduleName};
use crate::engine::contracts::{self, DecodeError};
use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;

pub use chain::{CHAIN_HASH_BYTES, ChainBreak, ChainHash, SealedEntry, seal_entry};
pub use cycle_facts::{
    BUILT_IN_DATA_BYTES_MAX, CycleCause, CycleCounts, CycleEnded, CycleError, CycleStarted, IntentEnd,
    IntentSide, OrderIntended, STAGE_DATA_BYTES_MAX, StageEnded, StageError, StageErrorKind, StageOutcome,
    StageOutput, StrategyFailure, TradingMode,
};
pub use facts::{
    AlertCleared, AlertRaised, CommandEnded, CommandOutcome, CommandReceived, ConfigHash,
    ConfigurationSnapshot, FireDisposition, FireTrigger, KillLatched, ScheduleFired, ScheduleSkipped,
};

pub use index::{
    COMMANDS_REMEMBERED_MAX, EndedCommand, FIRES_BEGUN_MAX, JournalIndex, KnownStrategy, LastCycle,
    OpenCommand, OpenCycle, ScheduleAccount, TradingTally,
};
pub use recent_ids::AUDIT_REMEMBERED_MAX;

use super::agent::AgentChanged;
use super::gate::{GateDecided, KillReading};
use super::strategy::StrategyChanged;

const VERSION: u8 = 1;

/// Author of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalAuthor {
    /// A part of this service, by its name.
    Actor(String),
    /// A person, or a program that commands in its name.
    Operator(String),
    /// A schedule.
    Schedule(ScheduleName),
}

impl JournalAuthor {
    /// The word of its kind, in exports.
    #[must_use]
    pub const fn kind_word(&self) -> &'static str {
        match self {
            Self::Actor(_) => "actor",
            Self::Operator(_) => "operator",
            Self::Schedule(_) => "schedule",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Actor(name) | Self::Operator(name) => name,
            Self::Schedule(name) => name.as_str(),
        }
    }
}

/// Fact that one record states. The order of the variants is the log's format: never reorder, only add at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalFact {
    /// A command came in.
    CommandReceived(CommandReceived),
    /// A command has its result.
    CommandEnded(CommandEnded),
    /// The agent changed.
    AgentChanged(AgentChanged),
    /// A strategy changed.
    StrategyChanged(StrategyChanged),
    /// A schedule fired.
    ScheduleFired(ScheduleFired),
    /// Fires of a schedule lead to nothing.
    ScheduleSkipped(ScheduleSkipped),
    /// A cycle began.
    CycleStarted(Box<CycleStarted>),
    /// Gates decided at one place of a cycle.
    GateDecided(Box<GateDecided>),
    /// A stage has its result.
    StageEnded(Box<StageEnded>),
    /// A decision became an order intent.
    OrderIntended(Box<OrderIntended>),
    /// A cycle ended.
    CycleEnded(Box<CycleEnded>),
    /// A condition needs somebody's attention.
    AlertRaised(AlertRaised),
    /// It does no longer.
    AlertCleared(AlertCleared),
    /// The configuration that holds from here on.
    ConfigurationSnapshot(ConfigurationSnapshot),
    /// Trading is latched as stopped, or is no longer.
    KillLatched(KillLatched),
}

impl JournalFact {
    /// The word of its kind, in exports and metrics.
    #[must_use]
    pub const fn kind_word(&self) -> &'static str {
        match self {
            Self::CommandReceived(_) => "command_received",
            Self::CommandEnded(_) => "command_ended",
            Self::AgentChanged(_) => "agent_changed",
            Self::StrategyChanged(_) => "strategy_changed",
            Self::ScheduleFired(_) => "schedule_fired",
            Self::ScheduleSkipped(_) => "schedule_skipped",
            Self::CycleStarted(_) => "cycle_started",
            Self::GateDecided(_) => "gate_decided",
            Self::StageEnded(_) => "stage_ended",
            Self::OrderIntended(_) => "order_intended",
            Self::CycleEnded(_) => "cycle_ended",
            Self::AlertRaised(_) => "alert_raised",
            Self::AlertCleared(_) => "alert_cleared",
            Self::ConfigurationSnapshot(_) => "configuration_snapshot",
            Self::KillLatched(_) => "kill_latched",
        }
    }

    /// What it says, without its kind.
    #[must_use]
    pub fn to_body(&self) -> Value {
        // The fact's own tag is its kind already.
        let tagged = serde_json::to_value(self).ok();
        let body =
            tagged.and_then(|tagged| tagged.as_object().and_then(|tagged| tagged.values().next().cloned()));
        body.unwrap_or_default()
    }

    /// The cycle that it belongs to, or starts.
    #[must_use]
    pub const fn cycle_id(&self) -> Option<CycleId> {
        match self {
            Self::CycleStarted(started) => Some(started.cycle_id),
            Self::GateDecided(decided) => Some(decided.cycle_id),
            Self::StageEnded(ended) => Some(ended.cycle_id),
            Self::OrderIntended(intent) => Some(intent.cycle_id),
            Self::CycleEnded(ended) => Some(ended.cycle_id),
            Self::CommandReceived(_)
            | Self::CommandEnded(_)
            | Self::AgentChanged(_)
            | Self::StrategyChanged(_)
            | Self::ScheduleFired(_)
            | Self::ScheduleSkipped(_)
            | Self::AlertRaised(_)
            | Self::AlertCleared(_)
            | Self::ConfigurationSnapshot(_)
            | Self::KillLatched(_) => None,
        }
    }

    /// The record without what was measured by monotonic time. A cycle on a recorded clock takes none of that clock's
    /// time, and what the machine took differs from run to run (REP-2).
    #[must_use]
    pub fn without_measured_time(mut self) -> Self {
        match &mut self {
            Self::StageEnded(ended) => ended.took_ms = 0,
            Self::CycleEnded(ended) => ended.spent_ms = 0,
            Self::GateDecided(decided) => {
                if let Some(readings) = &mut decided.readings
                    && let KillReading::Permit { age_ms, left_ms } = &mut readings.kill
                {
                    // Still a permit: whether there was time left is what decided.
                    (*age_ms, *left_ms) = (0, (*left_ms).min(1));
                }
            }
            Self::CommandReceived(_)
            | Self::CommandEnded(_)
            | Self::AgentChanged(_)
            | Self::StrategyChanged(_)
            | Self::ScheduleFired(_)
            | Self::ScheduleSkipped(_)
            | Self::CycleStarted(_)
            | Self::OrderIntended(_)
            | Self::AlertRaised(_)
            | Self::AlertCleared(_)
            | Self::ConfigurationSnapshot(_)
            | Self::KillLatched(_) => {}
        }
        self
    }

    /// Whether something outside follows from the record, so that it waits until the record is durable: an answer, an
    /// order, a cycle's result. What happens inside a cycle waits for its end.
    #[must_use]
    pub fn has_effect(&self) -> bool {
        match self {
            Self::CommandEnded(_)
            | Self::AgentChanged(_)
            | Self::StrategyChanged(_)
            | Self::CycleEnded(_)
            | Self::KillLatched(_) => true,
            Self::OrderIntended(intent) => intent.end == IntentEnd::HandedOn,
            Self::CommandReceived(_)
            | Self::ScheduleFired(_)
            | Self::ScheduleSkipped(_)
            | Self::CycleStarted(_)
            | Self::GateDecided(_)
            | Self::StageEnded(_)
            | Self::AlertRaised(_)
            | Self::AlertCleared(_)
            | Self::ConfigurationSnapshot(_) => false,
        }
    }
}

/// One record of the journal, without its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Who made it happen.
    pub who: JournalAuthor,
    /// When it was meant to happen, where something had planned it.
    pub planned_ts_ms: Option<TsMs>,
    /// When it happened, by the wall clock.
    pub at_ms: TsMs,
    /// What ties it to requests, events and other records.
    pub correlation: CorrelationId,
    /// What it says.
    pub fact: JournalFact,
}

impl JournalEntry {
    /// Appends the stored form without the hash to `out`.
    fn encode_to(&self, out: &mut Vec<u8>) {
        contracts::encode_to(VERSION, self, out);
    }

    /// Reads the stored form without the hash.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        contracts::decode_versioned(VERSION, bytes)
    }

    /// The export form: one line of compact JSON, keys sorted.
    #[must_use]
    pub fn to_wire(&self, seq: JournalSeq, hash: ChainHash) -> String {
        json!({
            "at": to_rfc3339(self.at_ms),
            "correlation_id": self.correlation,
            "fact": self.fact.to_body(),
            "hash": hash.to_string(),
            "kind": self.fact.kind_word(),
            "planned": self.planned_ts_ms.map(to_rfc3339),
            "seq": seq,
            "who": { "kind": self.who.kind_word(), "name": self.who.name() },
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests;
