//! What the run log can be told, and what it tells.

use std::collections::BTreeSet;
use std::sync::Arc;

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::run::{RunViolation, SymbolHistory};
use orchestrator_kernel::ids::{Epoch, IngestSeq, RunSeq, Symbol, TsMs};
use orchestrator_kernel::ports::log::RecordBatch;
use orchestrator_runtime::group_commit::Landed;
use ractor::RpcReplyPort;

/// Reason for which a record was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefused {
    /// It would break the order of runs.
    #[error(transparent)]
    Violation(#[from] RunViolation),
    /// There is no room now. The same record may be sent again.
    #[error("run log has no room: {0}")]
    Full(String),
}

/// Requests to the run log, and messages that it sends to itself.
pub enum RunLogMsg {
    /// Make this record durable. Sent by a runner, which waits for the reply before it goes on.
    Record {
        /// The record.
        record: Arc<RunRecord>,
        /// Its position, once it is durable.
        reply: RpcReplyPort<Result<RunSeq, RecordRefused>>,
    },
    /// From now on append the records of these symbols in canonical order. Sent by the scheduler under a driven clock.
    OpenRound(BTreeSet<Symbol>),
    /// A symbol was stopped for good: nobody waits for it. Sent by the supervisor of the runners.
    Withdraw(Symbol),
    /// Report what is known of a symbol, once nothing of it is on its way to the log. Asked by its runner when it
    /// starts: what an earlier incarnation had recorded is then known, and is not recorded again (RUN-2).
    Symbol(Symbol, RpcReplyPort<SymbolHistory>),
    /// Report where all symbols stand. Asked by the buffer and the scheduler when they start.
    Overview(RpcReplyPort<Overview>),
    /// Append what has been collected. Sent by the actor to itself, behind everything that is in the mailbox already.
    Flush,
    /// A batch has landed.
    Flushed(Landed<RecordWaiter>),
    /// Ask an idle log whether it is still there and ours, or one that had no room whether it has some. Sent by itself.
    Probe,
    /// Finish what is in flight, save a checkpoint, report.
    Drain(RpcReplyPort<()>),
}

/// Overview of all symbols: their last cuts and their open runs.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Symbol, end of its last cut, its last engine timestamp.
    pub symbols: Vec<(Symbol, IngestSeq, TsMs)>,
    /// The largest planned time of any run.
    pub last_planned_ts: Option<TsMs>,
    /// Symbols whose last run has no terminal record.
    pub open: Vec<Symbol>,
}

/// A record in a batch, and who waits for it.
pub struct RecordWaiter {
    pub(super) record: Arc<RunRecord>,
    pub(super) reply: RpcReplyPort<Result<RunSeq, RecordRefused>>,
}

/// The last batch that became durable, for readers at the tail: they need not read it back.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The last durable record.
    pub tail: RunSeq,
    /// The epoch of the log's writer.
    pub epoch: Epoch,
    /// The records of the last batch.
    pub batch: Arc<RecordBatch>,
}
