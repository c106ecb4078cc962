//! What the buffer can be told, and what it answers.

use orchestrator_kernel::engine::cadence::Tick;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::raw_market_event::Receipt;
use orchestrator_kernel::engine::cut::{CutRequest, SymbolCut};
use orchestrator_kernel::ids::{Epoch, IngestSeq, Origin, Seq, Symbol, TsMs};
use orchestrator_kernel::ports::source::{PositionSpan, ResumeAt};
use ractor::RpcReplyPort;
use tokio::sync::OwnedSemaphorePermit;

use super::AppendWaiter;
pub use super::quarantine::{ItemNovelty, QuarantineReply, QuarantineWaiter};
use orchestrator_runtime::group_commit::Landed;

/// A receipt on its way to the log.
#[derive(Debug)]
pub struct Arrival {
    /// When it arrived, by the process's clock.
    pub at: TsMs,
    /// Its position in its origin; 0 when it has none.
    pub position: u64,
    /// The receipt.
    pub receipt: Receipt,
}

/// The right to have receipts in flight. Held until they are durable or refused: that bounds the memory (MEM-1).
#[derive(Debug)]
pub struct Credit {
    /// For the number of receipts.
    pub receipts: OwnedSemaphorePermit,
    /// For their bytes.
    pub bytes: OwnedSemaphorePermit,
}

/// Receipts of one origin that are appended together, in order.
#[derive(Debug)]
pub struct ArrivalBatch {
    /// The ordered channel that they came through.
    pub origin: Origin,
    /// The positions that it stands for; `None` without numbers.
    pub span: Option<PositionSpan>,
    /// The receipts.
    pub arrivals: Vec<Arrival>,
}

/// A batch that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Arrivals, from the first on, that were there already.
    pub duplicates: usize,
}

/// Reason for which a batch was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// Positions are missing before it.
    #[error("positions are missing: the next one is {expected}")]
    Gap {
        /// The next position that is taken from this origin.
        expected: u64,
    },
    /// There is no room now, or what went before it could not be stored.
    #[error("{0}")]
    NoRoom(String),
    /// Too many producers are remembered.
    #[error(
        "{known_max} producers are remembered (ingest.producers_max), so no new one is taken: send under a name that is \
         known, or without numbers"
    )]
    TooManyProducers {
        /// How many are remembered.
        known_max: usize,
    },
}

/// The cuts of one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutsTaken {
    /// The cut end.
    pub end: IngestSeq,
    /// The cuts.
    pub cuts: Vec<SymbolCut>,
}

/// Requests to the buffer, and messages that it sends to itself.
pub enum BufferMsg {
    /// Make these receipts durable. Sent by ingest, which keeps a bounded number of them in flight.
    Append {
        /// The receipts.
        batch: ArrivalBatch,
        /// Held while they are in flight.
        credit: Credit,
        /// What became of them.
        reply: RpcReplyPort<Result<Appended, AppendRefused>>,
    },
    /// Make these refused items durable. Sent by ingest *before* the receipts of the same batch.
    Quarantine {
        /// The ordered channel that they came through.
        origin: Origin,
        /// The positions of the batch that they are part of; `None` without numbers.
        span: Option<PositionSpan>,
        /// The items.
        records: Vec<QuarantineRecord>,
        /// Which of them were known, once all are durable.
        reply: QuarantineReply,
    },
    /// Report where an origin goes on. Asked by ingest when it opens its source.
    Resume(Origin, RpcReplyPort<ResumeAt>),
    /// The next tick is planned for this time. Sent by the scheduler when it starts.
    Arm(TsMs),
    /// Seal the log at a tick's planned time and take its cuts. Sent by the scheduler.
    Seal {
        /// The tick.
        tick: Tick,
        /// The cuts to take.
        requests: Vec<CutRequest>,
        /// Planned time of the next tick.
        next: TsMs,
        /// The cuts, once everything in them is durable.
        reply: RpcReplyPort<CutsTaken>,
    },
    /// Report the first and last `ingest_ts_ms` and all known symbols. Asked by the scheduler when it starts.
    Extent(RpcReplyPort<ReceiptLogExtent>),
    /// Report what is durable. Asked by the retention, which trims nothing that is not known to be.
    Durable(RpcReplyPort<Durable>),
    /// Append what has been collected. Sent by the actor to itself, behind everything that is in the mailbox already.
    Flush,
    /// A batch of receipts has landed.
    Flushed(Landed<AppendWaiter>),
    /// A batch of quarantined items has landed.
    QuarantineFlushed(Landed<QuarantineWaiter>),
    /// Ask idle logs whether they are still there and ours, and whether one that had no room has some. Sent by itself.
    Probe,
    /// Finish what is in flight, save a checkpoint, report.
    Drain(RpcReplyPort<()>),
}

/// Ends of the logs that are known to be durable: each log's epoch, and its last record of which that is known. Behind
/// it can be records whose append was not answered; they are sent again, so they have to be there.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// Of the receipt log.
    pub receipts: (Epoch, Seq),
    /// Of the quarantine.
    pub quarantine: (Epoch, Seq),
}

/// Span of the receipt log in time, and its symbols.
#[derive(Clone, Debug, Default)]
pub struct ReceiptLogExtent {
    /// `ingest_ts_ms` of the first receipt ever.
    pub first_ts: Option<TsMs>,
    /// `ingest_ts_ms` of the last receipt.
    pub last_ts: Option<TsMs>,
    /// `ingest_ts_ms` of the last receipt that retention had trimmed at this start: no cut may end before it.
    pub gone_ts: Option<TsMs>,
    /// Every symbol seen.
    pub symbols: Vec<Symbol>,
}
