//! Ingest: one per source, takes items to the buffer and acknowledges them upstream. Failure domain: ingest.
//!
//! Nothing is acknowledged before it is durable (LOG-2). Credits bound what is in flight: when the buffer is at its
//! limits, ingest stops taking from its source, which is the backpressure that upstream feels.
//!
//! ```text
//!  Source ─▶ SourceBatch of RawItems ─decode─▶ DecodedBatch ─┬─ refused ─QuarantineRecord─▶ Buffer ─▶ quarantine
//!    ▲                                                       └─ Arrivals: a Receipt, its position, when it came
//!    │                                                              │ all of them, or up to a driven clock's tick
//!    │                                                              ▼
//!    │                                           ArrivalBatch + Credit ─Append─▶ Buffer ─ReceiptRecord─▶ receipt log
//!    └─ Settlement, an ItemFate an item ◀──────────────── Appended │ AppendRefused ─┘
//! ```
//!
//! After a refusal nothing is taken from the source for as long as the refusal says. That wait is here and not in the
//! sources, because one that forgot it would offer the refused items again at once, as fast as they can be refused.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use orchestrator_kernel::engine::contracts::raw_market_event::{Names, NotAReceipt, Receipt, decode};
use orchestrator_kernel::error::FailureDomain;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::input_time::InputTimes;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::log::BatchSize;
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::ports::source::{
    PositionSpan, RawItem, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_kernel::restart::RestartPolicy;
use orchestrator_runtime::address::Address;
use orchestrator_runtime::fatal::NotRestartable;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::batch::{DecodedBatch, OpenItems};
use self::link::BufferLink;
use self::messages::IngestMsg;
use self::sources::ActiveSource;
use self::unsettled::UnsettledWatch;
use crate::buffer::messages::{Arrival, BufferMsg, Credit};
use crate::recorded_times::RecordedTimes;

mod batch;
mod credits;
mod link;
mod lockstep;
pub mod messages;
mod sources;
mod unsettled;

pub use self::credits::Credits;
pub use self::sources::Sources;

/// Settings of ingest, the same for every source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestSettings {
    /// Receipts in flight, for all sources together.
    pub in_flight_receipts_max: u32,
    /// Bytes in flight, for all sources together.
    pub in_flight_bytes_max: u32,
    /// Batches of one source that may be in flight.
    pub batches_in_flight_max: usize,
    /// Largest receipt in bytes; a larger item goes to the quarantine.
    pub receipt_bytes_max: usize,
    /// Under a driven clock: the times that it takes from receipts.
    pub input_times: InputTimes,
    /// How a source is opened again.
    pub source_restart: RestartPolicy,
}

/// Settings and ports of ingest; cloned for each start.
#[derive(Clone)]
pub struct IngestArgs {
    /// How it is done.
    pub settings: IngestSettings,
    /// Under a driven clock: the distance of two ticks, in milliseconds.
    pub interval_ms: i64,
    /// What upstream is told to wait when there is no room, in milliseconds.
    pub retry_after_ms: u64,
    /// Opens the source.
    pub factory: Arc<dyn SourceFactory>,
    /// What is odd about a recording's times.
    pub times: RecordedTimes,
    /// Room in flight, shared by all sources.
    pub credits: Credits,
    /// Where receipts go.
    pub buffer: Address<BufferMsg>,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
    /// Set when the service stops: take nothing more, settle what is in flight.
    pub stop: CancellationToken,
    /// Counts sources.
    pub sources: Sources,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

impl IngestArgs {
    fn down_condition(&self) -> Condition {
        Condition::SourceDown(self.factory.name().to_owned())
    }
}

/// A batch in flight: what will become of it.
type InFlight = BoxFuture<'static, (u64, Settlement)>;

/// Ingest state between two messages, rebuilt by opening the source after the last durable position.
pub struct IngestState {
    args: IngestArgs,
    source: Box<dyn Source>,
    names: Names,
    in_flight: FuturesOrdered<InFlight>,
    /// Under a driven clock: the latest time seen, so that a late receipt does not turn it back.
    latest: Option<TsMs>,
    /// A refusal asked for time until then.
    not_before: Option<Instant>,
    ended: bool,
    unsettled: UnsettledWatch,
    active: ActiveSource,
}

/// What a batch may wait for under a driven clock.
const FOR_RUNS: &str = "the recording's time waits for the runs that are due before its next receipt";
/// What a batch may wait for under the wall clock.
const FOR_LOGS: &str = "the logs have not made it durable";

/// The actor.
pub struct Ingest;

impl Actor for Ingest {
    type Msg = IngestMsg;
    type State = IngestState;
    type Arguments = IngestArgs;

    async fn pre_start(
        &self,
        me: ActorRef<IngestMsg>,
        args: IngestArgs,
    ) -> Result<IngestState, ActorProcessingErr> {
        let origin = Origin::from(args.factory.name());
        let resume = args.buffer.call(|reply| BufferMsg::Resume(origin, reply)).await?;
        let down = args.down_condition();
        let source = args.factory.open_source(resume).await.map_err(|error| {
            args.board.raise_condition(down.clone(), error.to_string());
            source_failure(error)
        })?;
        if args.board.clear_condition(&down) {
            tracing::info!(source = args.factory.name(), domain = "ingest", "source is open again");
        }
        me.cast(IngestMsg::Step)?;
        let mut state = IngestState {
            unsettled: UnsettledWatch::new(args.board.clone(), args.factory.name()),
            active: ActiveSource::count_in(&args),
            latest: resume.ingest_ts_ms,
            args,
            source,
            names: Names::default(),
            in_flight: FuturesOrdered::new(),
            not_before: None,
            ended: false,
        };
        state.report_oddities(());
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<IngestMsg>,
        message: IngestMsg,
        state: &mut IngestState,
    ) -> Result<(), ActorProcessingErr> {
        let IngestMsg::Step = message;
        let stepped =
            state.settle_or_take_next().await.inspect_err(|error| state.note_failure(error.as_ref()))?;
        match stepped {
            Stepped::On => me.cast(IngestMsg::Step)?,
            Stepped::Done => {
                state.active.why = None;
                me.stop(Some("source ended".to_owned()));
            }
        }
        Ok(())
    }
}

enum Stepped {
    On,
    Done,
}

enum Next {
    Stop,
    Settled(u64, Settlement),
    MayTakeAgain,
    Batch(Result<Option<SourceBatch>, SourceError>),
}

impl IngestState {
    /// Settles a batch that has landed, or takes the next one.
    async fn settle_or_take_next(&mut self) -> Result<Stepped, ActorProcessingErr> {
        let stopping = self.args.stop.is_cancelled();
        if self.in_flight.is_empty() && (self.ended || stopping) {
            if self.ended {
                self.args.sources.one_ended();
            }
            return Ok(Stepped::Done);
        }
        let may_take =
            !self.ended && !stopping && self.in_flight.len() < self.args.settings.batches_in_flight_max;
        let not_before = self.not_before;
        let next = tokio::select! {
            biased;
            Some((id, settlement)) = self.in_flight.next() => Next::Settled(id, settlement),
            () = self.args.stop.cancelled(), if !stopping => Next::Stop,
            () = sleep_until(not_before.unwrap_or_else(Instant::now)), if not_before.is_some() => Next::MayTakeAgain,
            batch = self.source.next_batch(), if may_take && not_before.is_none() => Next::Batch(batch),
        };
        match next {
            Next::Stop => {}
            Next::MayTakeAgain => self.not_before = None,
            Next::Settled(id, settlement) => self.settle_batch(id, settlement).await?,
            Next::Batch(batch) => match self.report_oddities(batch).map_err(source_failure)? {
                None => {
                    self.ended = true;
                    self.work_off().await;
                }
                Some(batch) => self.take_batch(batch).await?,
            },
        }
        Ok(Stepped::On)
    }

    async fn take_batch(&mut self, batch: SourceBatch) -> Result<(), ActorProcessingErr> {
        let mut open = OpenItems::note_received(&self.args.observer, batch.items.len());
        let now = self.args.clock.now().unwrap_or_default();
        let sorted = self.decode_batch(batch, now);
        if self.args.clock.is_driven() {
            let id = sorted.id;
            let watch = self.unsettled.clone();
            let settlement = watch.watch_settling(FOR_RUNS, self.append_in_lockstep(sorted, open)).await;
            return self.settle_batch(id, settlement).await;
        }
        let (id, link) = (sorted.id, self.buffer_link());
        // Not in flight beside the next batch: that one must not overtake these receipts on the way to the buffer.
        let watch = self.unsettled.clone();
        let room = self.wait_for_room(arrivals_size(&sorted.arrivals));
        let make_room = async {
            link.quarantine_refused(&sorted, now, &mut open).await?;
            room.await
        };
        let stored = watch.watch_settling(FOR_LOGS, make_room).await;
        self.in_flight.push_back(match stored {
            Err(refused) => std::future::ready((id, refused)).boxed(),
            Ok(credit) => {
                let store = async move { (id, link.store_batch(sorted, credit, open).await) };
                async move { watch.watch_settling(FOR_LOGS, store).await }.boxed()
            }
        });
        Ok(())
    }

    /// Tells people what the source found missing or odd on the way to `batch`.
    fn report_oddities<T>(&mut self, batch: T) -> T {
        for oddity in self.source.take_oddities() {
            let (word, count) = (oddity.oddity_word(), oddity.item_count());
            tracing::warn!(
                source = self.args.factory.name(),
                domain = "ingest",
                kind = word,
                count,
                error_detail = oddity.detail(),
                "something is missing or odd in what a source reads from"
            );
            self.args.observer.observe(&Observation::SourceOddity { word, count });
        }
        batch
    }

    /// Tells the source what became of a batch. Its next one waits as long as a refusal asks for.
    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), ActorProcessingErr> {
        if let Settlement::Refused { retry_after_ms, .. } = &settlement {
            let until = Instant::now() + Duration::from_millis(*retry_after_ms);
            self.not_before = self.not_before.max(Some(until));
        }
        self.source.settle_batch(id, settlement).await.map_err(source_failure)
    }

    /// Waits for room in flight for this many receipts and bytes, unless the service stops.
    fn wait_for_room(
        &self,
        size: BatchSize,
    ) -> impl Future<Output = Result<Credit, Settlement>> + Send + use<> {
        let (credits, stop) = (self.args.credits.clone(), self.args.stop.clone());
        async move {
            let credit = tokio::select! {
                biased;
                credit = credits.acquire(size) => credit,
                () = stop.cancelled() => None,
            };
            credit.ok_or_else(stopping_settlement)
        }
    }

    fn buffer_link(&self) -> BufferLink {
        let own = Origin::from(self.args.factory.name());
        BufferLink { own, buffer: self.args.buffer.clone(), retry_after_ms: self.args.retry_after_ms }
    }

    /// Decodes each item: what is no receipt goes to the quarantine with the reason.
    fn decode_batch(&mut self, batch: SourceBatch, now: TsMs) -> DecodedBatch {
        let SourceBatch { id, origin, items } = batch;
        let mut sorted = DecodedBatch {
            id,
            origin,
            span: PositionSpan::of_items(&items),
            arrivals: Vec::with_capacity(items.len()),
            refused: Vec::new(),
        };
        let mut latest = self.latest;
        for (index, item) in items.into_iter().enumerate() {
            let position = item.position.unwrap_or(0);
            match self
                .decode_item(&item)
                .and_then(|receipt| self.note_arrival(receipt, position, latest, now))
            {
                Ok(arrival) => {
                    latest = latest.max(Some(arrival.at));
                    sorted.arrivals.push(arrival);
                }
                Err(why) => sorted.refused.push((index, position, why, item)),
            }
        }
        sorted
    }

    fn decode_item(&mut self, item: &RawItem) -> Result<Receipt, NotAReceipt> {
        let max = self.args.settings.receipt_bytes_max;
        let bytes = item.oversized.unwrap_or(item.bytes.len() as u64);
        if item.oversized.is_some() || max < item.bytes.len() {
            return Err(NotAReceipt::TooLarge { bytes, max: max as u64 });
        }
        decode(item.bytes.clone(), &mut self.names)
    }

    /// A receipt with when it arrives: now, or when a driven clock takes it. What a log recorded is believed then; what
    /// a receipt says of itself is checked.
    fn note_arrival(
        &self,
        receipt: Receipt,
        position: u64,
        latest: Option<TsMs>,
        now: TsMs,
    ) -> Result<Arrival, NotAReceipt> {
        let at = match (self.args.clock.is_driven(), self.source.taken_at(position)) {
            (false, _) => now,
            (true, Some(recorded)) => recorded,
            (true, None) => {
                self.args.settings.input_times.check_time(receipt.recv_ts_ms, latest)?;
                receipt.recv_ts_ms
            }
        };
        Ok(Arrival { at, position, receipt })
    }

    fn note_failure(&mut self, error: &(dyn std::error::Error + 'static)) {
        let name = self.args.factory.name();
        self.active.why = Some(error.to_string());
        tracing::warn!(source = name, domain = "ingest", error_kind = "source_down", error_detail = %error, "source failed");
        self.args.observer.observe(&Observation::Failure { domain: FailureDomain::Ingest });
    }
}

/// A source that is lost is opened again; one that cannot be read is not.
fn source_failure(error: SourceError) -> ActorProcessingErr {
    match &error {
        SourceError::Lost { .. } => Box::new(error),
        SourceError::Fatal { .. } => Box::new(NotRestartable(error.to_string())),
    }
}

/// Number and bytes of receipts.
fn arrivals_size(arrivals: &[Arrival]) -> BatchSize {
    let bytes = arrivals.iter().map(|arrival| arrival.receipt.bytes.len()).sum();
    BatchSize { records: arrivals.len(), bytes }
}

fn stopping_settlement() -> Settlement {
    Settlement::Refused { reason: "the service is stopping".to_owned(), retry_after_ms: 1000 }
}
