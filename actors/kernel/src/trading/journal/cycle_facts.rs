//! Facts of a cycle, from its start to its end.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::facts::ConfigHash;
use crate::error::bounded_detail;
use crate::ids::{Symbol, TsMs};
use crate::trading::cycle::{CycleEndReason, CycleErrorCode, CycleStatus};
use crate::trading::decision::TradeDecision;
use crate::trading::gate::GateKind;
use crate::trading::ids::{CommandId, CycleId, DecisionId, IntentId, ScheduleName, StageName, StrategyName};
use crate::trading::pipeline::Pipeline;
use crate::trading::risk::RiskVerdict;

/// Bytes of data that the provider of a stage may answer, all strategies together.
pub const STAGE_DATA_BYTES_MAX: usize = 64 << 10;
/// Bytes of data of a stage that is built in: room for what it says about as many symbols as the strategies of a cycle
/// may have, in the longest names.
pub const BUILT_IN_DATA_BYTES_MAX: usize = 1 << 20;

/// Mode of trading: the money and the market that a cycle works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TradingMode {
    /// Real orders, unless `dry_run`.
    Live,
    /// A paper broker.
    Paper,
    /// Recorded inputs.
    Backtest,
}

/// Cause of a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CycleCause {
    /// A fire of a schedule.
    Fire {
        /// The schedule.
        schedule: ScheduleName,
        /// Number of the fire.
        fire: u64,
    },
    /// A command.
    Command(CommandId),
}

/// A cycle, with everything that its decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleStarted {
    /// The cycle.
    pub cycle_id: CycleId,
    /// What it began for.
    pub cause: CycleCause,
    /// When it began, by the wall clock.
    pub started_at: TsMs,
    /// What it does.
    pub pipeline: Pipeline,
    /// Index of the stage that it begins with: a decision that came by event begins at RISK.
    pub begin_at: u16,
    /// The strategies that it works for.
    pub strategies: Vec<StrategyName>,
    /// Symbols that it is limited to; none: all that its strategies have.
    pub symbols: Vec<Symbol>,
    /// Decisions that it began with.
    pub decisions: Vec<TradeDecision>,
    /// What it works with.
    pub mode: TradingMode,
    /// Whether its intents end as `dry_run`.
    pub dry_run: bool,
    /// The exchange's date that it works for, `YYYY-MM-DD`; not UTC's.
    pub as_of_date: String,
    /// The configuration that it works with, for as long as it lasts.
    pub config: ConfigHash,
    /// Gates that denied already when it began. Before SIG only a flip blocks, so these do not.
    pub denied_at_start: Vec<GateKind>,
}

impl CycleStarted {
    /// Whether decisions about this symbol count in the cycle.
    #[must_use]
    pub fn covers_symbol(&self, symbol: &Symbol) -> bool {
        self.symbols.is_empty() || self.symbols.contains(symbol)
    }
}

/// Kind of a stage's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageErrorKind {
    /// Its provider said so.
    Provider,
    /// Its provider could not be reached, or died.
    Unavailable,
    /// What came is no answer.
    Garbage,
    /// What came is larger than an answer may be.
    TooLarge,
    /// Nothing came within its budget.
    Timeout,
    /// A crash interrupted it, and calling it again may do it twice.
    Interrupted,
}

/// Failure of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", self.error_code().as_str())]
pub struct StageError {
    /// How it failed.
    pub kind: StageErrorKind,
    /// One line without secrets.
    pub detail: String,
}

impl StageError {
    /// An error with a bounded detail.
    #[must_use]
    pub fn new(kind: StageErrorKind, detail: &str) -> Self {
        Self { kind, detail: bounded_detail(detail) }
    }

    /// The published code.
    #[must_use]
    pub const fn error_code(&self) -> CycleErrorCode {
        match self.kind {
            StageErrorKind::Timeout => CycleErrorCode::Timeout,
            StageErrorKind::Provider
            | StageErrorKind::Unavailable
            | StageErrorKind::Garbage
            | StageErrorKind::TooLarge
            | StageErrorKind::Interrupted => CycleErrorCode::StageFailed,
        }
    }
}

/// One strategy's failure inside a stage that went on with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyFailure {
    /// The strategy.
    pub strategy: StrategyName,
    /// Why.
    pub error: StageError,
}

/// Output of a stage, also its provider's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageOutput {
    /// Its result as JSON text, at most
    /// [`StageProvider::data_bytes_max`](crate::trading::stage::StageProvider::data_bytes_max) bytes; may be empty.
    pub data: String,
    /// Decisions that it made.
    pub decisions: Vec<TradeDecision>,
    /// Verdicts, of RISK only.
    pub verdicts: Vec<RiskVerdict>,
    /// Strategies for which it failed; it stops no other.
    pub failures: Vec<StrategyFailure>,
}

/// Outcome of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageOutcome {
    /// It did its work.
    Done(StageOutput),
    /// It did not.
    Failed(StageError),
}

/// The end of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageEnded {
    /// The cycle.
    pub cycle_id: CycleId,
    /// Index of the stage in the pipeline.
    pub stage: u16,
    /// Its name.
    pub name: StageName,
    /// Attempts made; 0 when it was not called.
    pub attempts: u32,
    /// Milliseconds from its beginning, by monotonic time.
    pub took_ms: u64,
    /// How it ended.
    pub outcome: StageOutcome,
}

/// Side of an intended order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentSide {
    /// More of the symbol.
    Buy,
    /// Less of the symbol.
    Sell,
}

/// End of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentEnd {
    /// Nothing: it ends here as `dry_run`.
    DryRun,
    /// It is handed on to be sent, once this record is durable.
    HandedOn,
}

/// An order that is meant to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderIntended {
    /// The intent: one for each decision of a cycle.
    pub intent_id: IntentId,
    /// The cycle.
    pub cycle_id: CycleId,
    /// The decision.
    pub decision_id: DecisionId,
    /// Its strategy.
    pub strategy: StrategyName,
    /// The instrument.
    pub symbol: Symbol,
    /// Which way.
    pub side: IntentSide,
    /// Whole shares, ≥ 1 and at most what RISK allowed.
    #[serde(with = "rust_decimal::serde::str")]
    pub quantity: Decimal,
    /// The price that RISK judged at.
    #[serde(with = "rust_decimal::serde::str")]
    pub price: Decimal,
    /// What becomes of it.
    pub end: IntentEnd,
}

/// One line of a cycle's errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleError {
    /// The stage, if it was one.
    pub stage: Option<StageName>,
    /// The strategy, if it was one of several.
    pub strategy: Option<StrategyName>,
    /// The published code.
    pub code: CycleErrorCode,
    /// One line without secrets.
    pub detail: String,
}

/// Counts of a cycle's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleCounts {
    /// Strategies for which no stage failed.
    pub strategies_processed: u32,
    /// Decisions made.
    pub decisions: u32,
    /// Order intents recorded.
    pub intents: u32,
}

/// The end of a cycle. There is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleEnded {
    /// The cycle.
    pub cycle_id: CycleId,
    /// How it ended.
    pub status: CycleStatus,
    /// What decided that.
    pub reason: CycleEndReason,
    /// When, by the wall clock.
    pub finished_at: TsMs,
    /// Milliseconds that it took, by monotonic time; up to a restart that it went on behind, by the wall clock.
    pub spent_ms: u64,
    /// What it did.
    pub counts: CycleCounts,
    /// Everything that went wrong, in order.
    pub errors: Vec<CycleError>,
    /// Whether its audit failed and fails closed: the agent goes to `error`.
    pub audit_failed: bool,
}
