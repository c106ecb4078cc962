//! Time travel: what was known, what was decided, what came out. From the logs alone.

mod cycle;
mod look;
mod text;

use std::collections::BTreeMap;

use orchestrator_kernel::engine::contracts::orchestrator_event::BadAnswer;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::engine::EngineIdentity;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::offline::recorded::LogError;
use crate::process::exit::ProcessExit;

pub use cycle::RecordedCycle;
pub use look::answer_question;
pub use text::render_answer;

/// Question to the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A run, by the first digits of its id.
    Run(String),
    /// A receipt, by its position.
    Seq(u64),
    /// A symbol at a time.
    Symbol {
        /// The symbol.
        symbol: String,
        /// When.
        at: TsMs,
    },
    /// A cycle of the trading plane, by the first digits of its id.
    Cycle(String),
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InspectAnswer {
    /// To [`Question::Run`].
    Run(Box<RunView>),
    /// To [`Question::Seq`].
    Receipt(Box<ReceiptView>),
    /// To [`Question::Symbol`].
    Symbol(Box<SymbolView>),
    /// To [`Question::Cycle`].
    Cycle(Box<RecordedCycle>),
}

/// A run and everything around it.
#[derive(Debug, Serialize)]
pub struct RunView {
    /// The run.
    pub run: RunLine,
    /// Which engine entry point.
    pub engine_mode: &'static str,
    /// What triggered it.
    pub cut_kind: &'static str,
    /// When it was planned.
    pub planned_ts_ms: TsMs,
    /// When it was started.
    pub started_ts_ms: TsMs,
    /// When it ended.
    pub completed_ts_ms: Option<TsMs>,
    /// Attempts made, those that a crash interrupted included.
    pub attempts: u32,
    /// Attempts that were answered.
    pub answered: Option<u32>,
    /// What was known.
    pub known: KnownInputs,
    /// What was decided.
    pub decided: Decided,
    /// What came out, without the time of publishing.
    pub outputs: Vec<Box<RawValue>>,
    /// The symbol's run before it.
    pub previous: Option<RunLine>,
    /// The symbol's run after it.
    pub next: Option<RunLine>,
}

/// One run in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunLine {
    /// Its id.
    pub run_id: String,
    /// Position of its last record in the run log.
    pub run_seq: u64,
    /// Its symbol.
    pub symbol: String,
    /// The timestamp that the engine got.
    pub engine_timestamp_ms: TsMs,
    /// First receipt of its cut.
    pub cut_start_ingest_seq: u64,
    /// Last receipt of its cut.
    pub cut_end_ingest_seq: u64,
    /// `started`, `completed` or `failed`.
    pub status: &'static str,
    /// The regime, where the output has one.
    pub regime: Option<String>,
    /// The category of a failure.
    pub error_kind: Option<&'static str>,
}

/// The receipts of a cut.
#[derive(Debug, Default, Serialize)]
pub struct KnownInputs {
    /// How many, as far as they are still in the log.
    pub receipts: u64,
    /// By type.
    pub by_event_type: BTreeMap<String, u64>,
    /// By type, as the run recorded it.
    pub recorded_by_event_type: BTreeMap<String, u64>,
    /// The first one.
    pub first: Option<ReceiptLine>,
    /// The last one.
    pub last: Option<ReceiptLine>,
    /// Whether the log no longer holds the whole cut.
    pub is_trimmed: bool,
    /// The snapshot that was chosen.
    pub snapshot: Option<SnapshotView>,
}

/// One receipt in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptLine {
    /// Its position.
    pub ingest_seq: u64,
    /// When it was taken in.
    pub ingest_ts_ms: TsMs,
    /// Its type.
    pub event_type: String,
}

/// A chosen snapshot.
#[derive(Debug, Serialize)]
pub struct SnapshotView {
    /// Its receipt.
    pub ingest_seq: u64,
    /// What the engine got, byte for byte; nothing when the receipt was trimmed.
    pub inputs: Option<Box<RawValue>>,
}

/// Answer of the engine, or the reason why there is none.
#[derive(Debug, Default, Serialize)]
pub struct Decided {
    /// The regime output, in hysteresis mode the decision.
    pub answer: Option<Box<RawValue>>,
    /// Who answered.
    pub engine: Option<EngineIdentity>,
    /// In hysteresis mode: the state that the engine got. Nothing before the first.
    pub state_before: Option<Box<RawValue>>,
    /// In hysteresis mode: the state that it left.
    pub state_after: Option<Box<RawValue>>,
    /// The category of a failure.
    pub error_kind: Option<&'static str>,
    /// More about it.
    pub error_detail: Option<String>,
}

/// A receipt and what became of it.
#[derive(Debug, Serialize)]
pub struct ReceiptView {
    /// Its position.
    pub ingest_seq: u64,
    /// When it was taken in.
    pub ingest_ts_ms: TsMs,
    /// Through which channel.
    pub origin: String,
    /// Its position there; 0 when the channel has none.
    pub position: u64,
    /// Its symbol.
    pub symbol: String,
    /// Its type.
    pub event_type: String,
    /// The event, byte for byte.
    pub event: Box<RawValue>,
    /// The run whose cut took it; nothing when none has yet.
    pub taken_by: Option<RunLine>,
    /// Whether that run ran on this receipt.
    pub is_snapshot_of_run: bool,
}

/// A symbol at a time.
#[derive(Debug, Serialize)]
pub struct SymbolView {
    /// The symbol.
    pub symbol: String,
    /// The time.
    pub at_ms: TsMs,
    /// The last receipt of any symbol that had been taken in; 0 when there was none.
    pub last_ingest_seq: u64,
    /// The symbol's receipts that no run had taken yet.
    pub waiting: KnownInputs,
    /// A run that was planned or under way.
    pub under_way: Option<RunLine>,
    /// The last run that had ended.
    pub last_run: Option<Box<RunView>>,
}

/// Reason for which there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An answer in the run log is no JSON.
    #[error(transparent)]
    Answer(#[from] BadAnswer),
    /// An event or answer is no JSON.
    #[error("{what} is no JSON")]
    Json {
        /// Which.
        what: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// There is none.
    #[error("{0}")]
    NotFound(String),
    /// Several runs begin so.
    #[error("{prefix} is the beginning of several runs, among them {}; give more digits", examples.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// Some of them.
        examples: Vec<String>,
    },
    /// Several cycles begin so.
    #[error("{prefix} is the beginning of several cycles, among them {}; give more digits", examples.join(", "))]
    AmbiguousCycle {
        /// What was given.
        prefix: String,
        /// Some of them.
        examples: Vec<String>,
    },
}

impl InspectError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Log(error) => error.to_exit(),
            Self::Answer(_) | Self::Json { .. } => ProcessExit::Data,
            Self::NotFound(_) | Self::Ambiguous { .. } | Self::AmbiguousCycle { .. } => {
                ProcessExit::Different
            }
        }
    }
}
