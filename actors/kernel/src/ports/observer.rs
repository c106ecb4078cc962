//! The port of telemetry: facts that happened, told once; the provider turns them into metrics.
//!
//! The conservation laws that the metrics obey (checked on every scrape in the tests):
//! received = appended + duplicate + quarantined + in flight; started = completed + failed + in flight;
//! outputs = published + skipped + held + backlog.

mod trading;

pub use trading::TradingObservation;

use crate::error::{ErrorKind, FailureDomain};
use crate::ids::{EventType, SourceId, Symbol, TsMs};
use crate::ports::log::LogName;

/// Reason for which a tick of the schedule made no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TickSkipReason {
    /// Publishing is blocked beyond its limits.
    PublishBlocked,
    /// The symbol still has its bound of runs before it.
    SymbolBusy,
    /// The service was down or paused for longer than the catch-up bound.
    Missed,
}

impl TickSkipReason {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublishBlocked => "publish_blocked",
            Self::SymbolBusy => "symbol_busy",
            Self::Missed => "missed",
        }
    }
}

/// One fact. Durations in seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation<'a> {
    /// A source handed over items.
    ItemsReceived {
        /// How many.
        count: u64,
    },
    /// A batch was refused or failed: its items are no longer in flight, upstream keeps them.
    ItemsRefused {
        /// How many.
        count: u64,
    },
    /// Producers that are remembered by name, after a change.
    ProducersKnown {
        /// How many.
        count: u64,
    },
    /// A batch of a new producer was turned away because too many are remembered.
    ProducerDenied,
    /// A producer that was silent for long was forgotten in favour of a new one.
    ProducerForgotten,
    /// Something was odd about what a source reads from, or is missing there.
    SourceOddity {
        /// The stable word, see [`SourceOddity::oddity_word`](super::source::SourceOddity::oddity_word).
        word: &'static str,
        /// How many items; at least one.
        count: u64,
    },
    /// Receipts became durable.
    ReceiptsAppended {
        /// The observing system, as the receipts name it.
        source_id: &'a SourceId,
        /// The type.
        event_type: &'a EventType,
        /// How many.
        count: u64,
    },
    /// Retransmissions were recognised.
    ItemsDuplicate {
        /// How many.
        count: u64,
    },
    /// Something that is no receipt became durable in the quarantine.
    ItemQuarantined {
        /// The stable reason.
        reason: &'a str,
    },
    /// One group commit of the receipt log.
    ReceiptsFlushed {
        /// How long the append took.
        seconds: f64,
        /// Records in it.
        records: u64,
    },
    /// State of the receipt log after a commit.
    BufferDepth {
        /// Records in the log.
        records: u64,
        /// Bytes on the medium.
        bytes: u64,
        /// `ingest_ts_ms` of the last record.
        last_ingest_ts: TsMs,
    },
    /// An append failed.
    AppendFailed {
        /// Which log: `receipts`, `runs` or `quarantine`.
        log: LogName,
    },
    /// Retention let the oldest records of a log go.
    LogTrimmed {
        /// Which log: `receipts`, `runs` or `quarantine`.
        log: LogName,
        /// How many.
        records: u64,
    },
    /// A check of the retention failed.
    RetentionFailed,
    /// A saved value was damaged; the service went on without it.
    CheckpointDamaged {
        /// Which: `receipts`, `runs` or `published`.
        name: &'static str,
    },
    /// The schedule fired.
    Tick {
        /// How long after its planned time, in seconds.
        lag_seconds: f64,
        /// Runs that it made.
        runs: u64,
    },
    /// A tick made no run.
    TickSkipped {
        /// Why.
        reason: TickSkipReason,
        /// For how many (symbol, time) pairs.
        count: u64,
    },
    /// `started` is durable.
    RunStarted,
    /// The terminal record is durable.
    RunEnded {
        /// `None` when it completed.
        error: Option<ErrorKind>,
        /// From start to durable end.
        seconds: f64,
        /// Outputs that it adds to the backlog.
        outputs: u64,
    },
    /// One engine call ended.
    EngineCalled {
        /// `None` when it answered.
        error: Option<ErrorKind>,
        /// How long it took.
        seconds: f64,
    },
    /// Outputs are confirmed.
    OutputsPublished {
        /// The type.
        event_type: &'static str,
        /// How many.
        count: u64,
    },
    /// Outputs that an operator let go were passed over.
    OutputsSkipped {
        /// How many.
        count: u64,
    },
    /// Outputs that wait because one of their symbol is refused for good.
    OutputsHeld {
        /// How many.
        outputs: u64,
        /// Of how many symbols.
        symbols: u64,
    },
    /// From the durable end of a run to the confirmation of its outputs.
    PublishLatency {
        /// How long.
        seconds: f64,
    },
    /// Outputs waiting for confirmation.
    PublishBacklog {
        /// How many.
        outputs: u64,
    },
    /// Publishing did not move for this long although there is work.
    PublishBlocked {
        /// Additional time.
        seconds: f64,
    },
    /// What is known of the kill switch. Told before each scrape, so that a dead reader shows as an ended lease.
    KillSwitch {
        /// `trading`, `halted` or `unknown`.
        state: &'static str,
        /// Time since the read was sent that was answered last.
        age_seconds: Option<f64>,
    },
    /// The kill switch changed.
    KillSwitchEntered {
        /// The state entered: `trading`, `halted` or `unknown`.
        state: &'static str,
    },
    /// A read of the kill switch brought no value.
    KillSwitchReadFailed,
    /// An effect was not permitted.
    EffectRefused {
        /// `halted`, `unknown` or `stale`.
        reason: &'static str,
    },
    /// Something happened in the trading plane.
    Trading(TradingObservation<'a>),
    /// How far the SQL history is behind the journal.
    HistoryLag {
        /// Records that are durable and not in the database.
        records: u64,
    },
    /// The SQL history could not go on.
    HistoryFailed,
    /// The rows of a record are left out of the SQL history, because the database cannot hold them.
    HistoryRecordSkipped,
    /// Events of the trading plane are confirmed by the bus.
    EventsPublished {
        /// How many.
        count: u64,
    },
    /// How far the published events are behind the journal.
    EventsLag {
        /// Records that are durable and whose events are not published.
        records: u64,
    },
    /// Events could not be published.
    EventsFailed,
    /// An event of somebody else was decided about.
    EventTaken {
        /// `taken`, `refused` or `dead_letter`.
        fate: &'static str,
    },
    /// An actor ended unexpectedly.
    ActorExited {
        /// Its name in the tree; a symbol's runner counts as `symbol_runner`.
        actor: &'a str,
        /// What the supervisor did: `restarted`, `halted` or `escalated`.
        verdict: &'static str,
    },
    /// A symbol was stopped for good because its runner kept failing.
    SymbolHalted {
        /// Which.
        symbol: &'a Symbol,
    },
    /// A failure was handled in a domain.
    Failure {
        /// Which domain.
        domain: FailureDomain,
    },
}

/// Takes observations. Must not block.
pub trait Observer: Send + Sync {
    /// Takes one.
    fn observe(&self, observation: &Observation<'_>);
}

/// Drops everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: &Observation<'_>) {}
}
