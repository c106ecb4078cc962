//! Ingest: one per source, takes items to the buffer and acknowledges them upstream. Failure domain: ingest.
//!
//! Nothing is acknowledged before it is durable (LOG-2). Credits bound what is in flight: when the buffer is at its
//! limits, ingest stops taking from its source, which is the backpressure that upstream feels.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use orchestrator_kernel::contracts::quarantine::{KEPT_BYTES_MAX, QuarantineRecord};
use orchestrator_kernel::contracts::raw_market_event::{Names, NotAReceipt, Receipt, decode};
use orchestrator_kernel::ids::{EventType, Origin, SourceId, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::ports::source::{
    ItemFate, RawItem, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::address::{Address, Down};
use crate::buffer::{AppendRefused, Appended, Arrival, Batch, BufferMsg, Credit};
use crate::status::{Condition, StatusBoard};

/// What ingest can be told.
pub enum IngestMsg {
    /// Take the next step. Sent by the actor to itself.
    Step,
}

/// Receipts and bytes that may be in flight, for all sources together.
#[derive(Clone, Debug)]
pub struct Credits {
    receipts: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    receipts_max: u32,
    bytes_max: u32,
}

impl Credits {
    /// Credits for this many receipts and bytes.
    #[must_use]
    pub fn new(receipts_max: u32, bytes_max: u32) -> Self {
        Self {
            receipts: Arc::new(Semaphore::new(receipts_max as usize)),
            bytes: Arc::new(Semaphore::new(bytes_max as usize)),
            receipts_max,
            bytes_max,
        }
    }

    /// Waits until there is room. A batch larger than the bound gets all of it.
    async fn acquire(&self, receipts: usize, bytes: usize) -> Option<Credit> {
        let receipts = u32::try_from(receipts).unwrap_or(u32::MAX).min(self.receipts_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        let receipts = Arc::clone(&self.receipts).acquire_many_owned(receipts).await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()?;
        Some(Credit { receipts, bytes })
    }
}

/// What ingest needs; cloned for each start.
#[derive(Clone)]
pub struct IngestArgs {
    /// Opens the source.
    pub factory: Arc<dyn SourceFactory>,
    /// Largest receipt in bytes; a larger item goes to the quarantine.
    pub receipt_bytes_max: usize,
    /// Batches of this source that may be in flight.
    pub window: usize,
    /// Room in flight, shared by all sources.
    pub credits: Credits,
    /// Where receipts go.
    pub buffer: Address<BufferMsg>,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
    /// Set when the service stops: take nothing more, settle what is in flight.
    pub stop: CancellationToken,
    /// What upstream is told to wait when there is no room, in milliseconds.
    pub retry_after_ms: u64,
    /// Counts sources.
    pub sources: Sources,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// How many sources there are, for those who wait for their end.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Sources that have not ended.
    open: Arc<watch::Sender<usize>>,
    /// Ingest actors that are up.
    active: Arc<watch::Sender<usize>>,
}

impl Sources {
    /// This many sources, none of them up yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { open: Arc::new(watch::Sender::new(count)), active: Arc::new(watch::Sender::new(0)) }
    }

    /// Waits until every source has ended by itself.
    pub async fn all_ended(&self) {
        none_left(&self.open).await;
    }

    /// Waits until no ingest actor is up.
    pub(crate) async fn all_down(&self) {
        none_left(&self.active).await;
    }
}

async fn none_left(count: &watch::Sender<usize>) {
    // The sender is ours: the channel cannot close.
    if count.subscribe().wait_for(|count| *count == 0).await.is_err() {
        tracing::debug!("nobody counts sources any more");
    }
}

/// Counts one ingest actor while it is up.
struct Active(Arc<watch::Sender<usize>>);

impl Active {
    fn begin(sources: &Sources) -> Self {
        sources.active.send_modify(|count| *count += 1);
        Self(Arc::clone(&sources.active))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A batch in flight: what will become of it.
type InFlight = BoxFuture<'static, (u64, usize, Settlement)>;

/// What ingest remembers between messages. Rebuilt by opening the source after the last durable position.
pub struct IngestState {
    args: IngestArgs,
    source: Box<dyn Source>,
    names: Names,
    in_flight: FuturesOrdered<InFlight>,
    /// Under a driven clock: the latest time seen, so that a late receipt does not turn it back.
    latest: Option<TsMs>,
    ended: bool,
    _active: Active,
}

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
        let down = Condition::SourceDown(args.factory.name().to_owned());
        let source = args.factory.open(resume).await.inspect_err(|error| {
            args.board.raise(down.clone(), error.to_string());
        })?;
        if args.board.clear(&down) {
            tracing::info!(source = args.factory.name(), domain = "ingest", "source is open again");
        }
        me.cast(IngestMsg::Step)?;
        Ok(IngestState {
            _active: Active::begin(&args.sources),
            latest: resume.ingest_ts_ms,
            args,
            source,
            names: Names::default(),
            in_flight: FuturesOrdered::new(),
            ended: false,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<IngestMsg>,
        message: IngestMsg,
        state: &mut IngestState,
    ) -> Result<(), ActorProcessingErr> {
        let IngestMsg::Step = message;
        let stepped = state.step().await.inspect_err(|error| state.note_failure(error.as_ref()))?;
        match stepped {
            Stepped::On => me.cast(IngestMsg::Step)?,
            Stepped::Done => me.stop(Some("source ended".to_owned())),
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
    Settled(u64, usize, Settlement),
    Batch(Result<Option<SourceBatch>, SourceError>),
}

impl IngestState {
    /// Settles a batch that has landed, or takes the next one.
    async fn step(&mut self) -> Result<Stepped, ActorProcessingErr> {
        let stopping = self.args.stop.is_cancelled();
        if self.in_flight.is_empty() && (self.ended || stopping) {
            if self.ended {
                self.args.sources.open.send_modify(|count| *count = count.saturating_sub(1));
            }
            return Ok(Stepped::Done);
        }
        let may_take = !self.ended && !stopping && self.in_flight.len() < self.args.window;
        let next = tokio::select! {
            biased;
            Some((id, items, settlement)) = self.in_flight.next() => Next::Settled(id, items, settlement),
            () = self.args.stop.cancelled(), if !stopping => Next::Stop,
            batch = self.source.next(), if may_take => Next::Batch(batch),
        };
        match next {
            Next::Stop => {}
            Next::Settled(id, items, settlement) => self.settle(id, items, settlement).await?,
            Next::Batch(batch) => match batch? {
                None => self.ended = true,
                Some(batch) => self.take(batch).await?,
            },
        }
        Ok(Stepped::On)
    }

    async fn settle(&mut self, id: u64, items: usize, settlement: Settlement) -> Result<(), SourceError> {
        match &settlement {
            Settlement::Durable(_) => {}
            Settlement::Gap { .. } | Settlement::Refused { .. } => {
                self.args.observer.observe(&Observation::ItemsRefused { count: items as u64 });
            }
        }
        self.source.settle(id, settlement).await
    }

    async fn take(&mut self, batch: SourceBatch) -> Result<(), ActorProcessingErr> {
        let items = batch.items.len();
        self.args.observer.observe(&Observation::ItemsReceived { count: items as u64 });
        let sorted = self.sort(batch);
        if self.args.clock.is_driven() {
            let (id, settlement) = self.append_in_lockstep(sorted).await?;
            return Ok(self.settle(id, items, settlement).await?);
        }
        let at = self.args.clock.now().unwrap_or_default();
        let bytes = sorted.receipts.iter().map(|(_, receipt)| receipt.bytes.len()).sum();
        let stop = self.args.stop.clone();
        let credit = tokio::select! {
            biased;
            credit = self.args.credits.acquire(sorted.receipts.len(), bytes) => credit,
            () = stop.cancelled() => None,
        };
        let (id, link) = (sorted.id, self.link());
        self.in_flight.push_back(match credit {
            None => std::future::ready((id, items, stopping())).boxed(),
            Some(credit) => async move { (id, items, link.store(sorted, |_| at, credit).await) }.boxed(),
        });
        Ok(())
    }

    fn link(&self) -> Link {
        Link {
            buffer: self.args.buffer.clone(),
            observer: Arc::clone(&self.args.observer),
            retry_after_ms: self.args.retry_after_ms,
        }
    }

    /// Decodes each item: what is no receipt goes to the quarantine with the reason.
    fn sort(&mut self, batch: SourceBatch) -> Sorted {
        let SourceBatch { id, origin, items } = batch;
        let span = match (items.first(), items.last()) {
            (Some(RawItem { position: Some(first), .. }), Some(RawItem { position: Some(last), .. })) => {
                Some((*first, *last))
            }
            _ => None,
        };
        let mut sorted =
            Sorted { id, origin, span, receipts: Vec::with_capacity(items.len()), refused: Vec::new() };
        for (index, item) in items.into_iter().enumerate() {
            let position = item.position.unwrap_or(0);
            match self.decode(&item) {
                Ok(receipt) => sorted.receipts.push((position, receipt)),
                Err(why) => sorted.refused.push((index, position, why, item)),
            }
        }
        sorted
    }

    fn decode(&mut self, item: &RawItem) -> Result<Receipt, NotAReceipt> {
        let max = self.args.receipt_bytes_max;
        let bytes = item.oversized.unwrap_or(item.bytes.len() as u64);
        if item.oversized.is_some() || max < item.bytes.len() {
            return Err(NotAReceipt::TooLarge { bytes, max: max as u64 });
        }
        decode(item.bytes.clone(), &mut self.names)
    }

    /// Appends a batch piece by piece, each up to the clock's next deadline, and lets the clock pass the deadline only
    /// when the piece is durable: so a cut holds exactly the receipts up to its planned time.
    async fn append_in_lockstep(&mut self, sorted: Sorted) -> Result<(u64, Settlement), ActorProcessingErr> {
        let (id, link, stop) = (sorted.id, self.link(), self.args.stop.clone());
        let credits = self.args.credits.clone();
        if let Err(refused) = link.set_aside(&sorted, self.latest.unwrap_or_default()).await {
            return Ok((id, refused));
        }
        let mut fates = Fates::new(&sorted);
        let Sorted { origin, span, receipts, .. } = sorted;
        let last = span.map(|(_, last)| last);
        let mut first = span.map(|(first, _)| first);
        let mut rest = receipts.into_iter().peekable();
        loop {
            let Some((_, next)) = rest.peek() else {
                // Quarantined items at the end have their positions too.
                if let (Some(first), Some(last)) = (first.filter(|first| Some(*first) <= last), last) {
                    let piece = Piece { origin, span: Some((first, last)), arrivals: Vec::new() };
                    if let Err(refused) = link.append(piece, credit(&credits, 0, 0).await?, &mut fates).await
                    {
                        return Ok((id, refused));
                    }
                }
                return Ok((id, Settlement::Durable(fates.into_items())));
            };
            let at = self.latest.map_or(next.recv_ts_ms, |latest| latest.max(next.recv_ts_ms));
            let passed = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                () = self.args.clock.advance(at) => true,
            };
            if !passed {
                return Ok((id, stopping()));
            }
            let barrier = self.args.clock.barrier();
            let (mut arrivals, mut bytes) = (Vec::new(), 0);
            while let Some((position, receipt)) =
                rest.next_if(|(_, receipt)| barrier.is_none_or(|end| receipt.recv_ts_ms <= end))
            {
                let at = self.latest.map_or(receipt.recv_ts_ms, |latest| latest.max(receipt.recv_ts_ms));
                self.latest = Some(at);
                bytes += receipt.bytes.len();
                arrivals.push(Arrival { at, position, receipt });
            }
            let upto = match rest.peek() {
                Some(_) => arrivals.last().map(|arrival| arrival.position).filter(|position| *position != 0),
                None => last,
            };
            let piece_span = first.zip(upto);
            first = upto.map(|upto| upto + 1).or(first);
            let credit = credit(&credits, arrivals.len(), bytes).await?;
            let piece = Piece { origin: origin.clone(), span: piece_span, arrivals };
            if let Err(refused) = link.append(piece, credit, &mut fates).await {
                return Ok((id, refused));
            }
        }
    }

    fn note_failure(&self, error: &(dyn std::error::Error + 'static)) {
        let name = self.args.factory.name();
        self.args.board.raise(Condition::SourceDown(name.to_owned()), error.to_string());
        tracing::warn!(source = name, domain = "ingest", error_kind = "source_down", error_detail = %error, "source failed");
        self.args
            .observer
            .observe(&Observation::Failure { domain: orchestrator_kernel::error::FailureDomain::Ingest });
    }
}

async fn credit(credits: &Credits, receipts: usize, bytes: usize) -> Result<Credit, ActorProcessingErr> {
    credits.acquire(receipts, bytes).await.ok_or_else(|| "no credits are given any more".into())
}

fn stopping() -> Settlement {
    Settlement::Refused { reason: "the service is stopping".to_owned(), retry_after_ms: 1000 }
}

/// A batch after decoding.
struct Sorted {
    id: u64,
    origin: Origin,
    span: Option<(u64, u64)>,
    receipts: Vec<(u64, Receipt)>,
    /// Index in the batch, position, reason, item.
    refused: Vec<(usize, u64, NotAReceipt, RawItem)>,
}

struct Piece {
    origin: Origin,
    span: Option<(u64, u64)>,
    arrivals: Vec<Arrival>,
}

/// What became of each item, in the order of the batch.
struct Fates {
    items: Vec<Option<ItemFate>>,
    at: usize,
}

impl Fates {
    fn new(sorted: &Sorted) -> Self {
        let mut items = vec![None; sorted.receipts.len() + sorted.refused.len()];
        for (index, _, why, _) in &sorted.refused {
            if let Some(item) = items.get_mut(*index) {
                *item = Some(ItemFate::Quarantined(why.to_string()));
            }
        }
        Self { items, at: 0 }
    }

    fn next(&mut self, fate: ItemFate) {
        while self.items.get(self.at).is_some_and(Option::is_some) {
            self.at += 1;
        }
        if let Some(item) = self.items.get_mut(self.at) {
            *item = Some(fate);
        }
    }

    fn into_items(self) -> Vec<ItemFate> {
        self.items.into_iter().flatten().collect()
    }
}

/// The way to the buffer.
struct Link {
    buffer: Address<BufferMsg>,
    observer: Arc<dyn Observer>,
    retry_after_ms: u64,
}

impl Link {
    /// Quarantined items first, then the receipts: see [`Positions`](orchestrator_kernel::positions::Positions).
    async fn store(self, sorted: Sorted, at: impl Fn(&Receipt) -> TsMs, credit: Credit) -> Settlement {
        let now = sorted.receipts.first().map_or(TsMs::default(), |(_, receipt)| at(receipt));
        if let Err(refused) = self.set_aside(&sorted, now).await {
            return refused;
        }
        let mut fates = Fates::new(&sorted);
        let arrivals = sorted.receipts.into_iter();
        let arrivals =
            arrivals.map(|(position, receipt)| Arrival { at: at(&receipt), position, receipt }).collect();
        let piece = Piece { origin: sorted.origin, span: sorted.span, arrivals };
        match self.append(piece, credit, &mut fates).await {
            Ok(()) => Settlement::Durable(fates.into_items()),
            Err(refused) => refused,
        }
    }

    async fn set_aside(&self, sorted: &Sorted, now: TsMs) -> Result<(), Settlement> {
        if sorted.refused.is_empty() {
            return Ok(());
        }
        let records = sorted
            .refused
            .iter()
            .map(|(_, position, why, item)| quarantined(sorted, *position, why, item, now));
        let records = records.collect();
        match self.buffer.call(|reply| BufferMsg::Quarantine(records, reply)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(self.refused(refused)),
            Err(down) => Err(self.down(down)),
        }
    }

    async fn append(&self, piece: Piece, credit: Credit, fates: &mut Fates) -> Result<(), Settlement> {
        let Piece { origin, span, arrivals } = piece;
        let counted: Vec<(SourceId, EventType)> = arrivals
            .iter()
            .map(|arrival| (arrival.receipt.source_id.clone(), arrival.receipt.event_type.clone()))
            .collect();
        let batch = Batch { origin, span, arrivals, credit };
        match self.buffer.call(|reply| BufferMsg::Append(batch, reply)).await {
            Ok(Ok(appended)) => {
                self.appended(&counted, appended, fates);
                Ok(())
            }
            Ok(Err(refused)) => Err(self.refused(refused)),
            Err(down) => Err(self.down(down)),
        }
    }

    fn appended(&self, counted: &[(SourceId, EventType)], appended: Appended, fates: &mut Fates) {
        let (duplicates, fresh) = counted.split_at(appended.duplicates.min(counted.len()));
        if !duplicates.is_empty() {
            self.observer.observe(&Observation::ItemsDuplicate { count: duplicates.len() as u64 });
        }
        duplicates.iter().for_each(|_| fates.next(ItemFate::Duplicate));
        fresh.iter().for_each(|_| fates.next(ItemFate::Appended));
        let mut counts: BTreeMap<&(SourceId, EventType), u64> = BTreeMap::new();
        for key in fresh {
            *counts.entry(key).or_default() += 1;
        }
        for ((source_id, event_type), count) in counts {
            self.observer.observe(&Observation::ReceiptsAppended { source_id, event_type, count });
        }
    }

    fn refused(&self, refused: AppendRefused) -> Settlement {
        match refused {
            AppendRefused::Gap { expected } => Settlement::Gap { expected },
            AppendRefused::NoRoom(_) | AppendRefused::TooManyOrigins => {
                Settlement::Refused { reason: refused.to_string(), retry_after_ms: self.retry_after_ms }
            }
        }
    }

    fn down(&self, down: Down) -> Settlement {
        Settlement::Refused { reason: down.to_string(), retry_after_ms: self.retry_after_ms }
    }
}

fn quarantined(
    sorted: &Sorted,
    position: u64,
    why: &NotAReceipt,
    item: &RawItem,
    now: TsMs,
) -> QuarantineRecord {
    let size = item.oversized.unwrap_or(item.bytes.len() as u64);
    let bytes = item.bytes.get(..KEPT_BYTES_MAX).unwrap_or(&item.bytes).to_vec();
    tracing::warn!(
        origin = %sorted.origin, position, error_kind = why.reason(), error_detail = %why, domain = "ingest",
        "not a receipt, kept in the quarantine"
    );
    QuarantineRecord {
        at_ms: now,
        origin: sorted.origin.to_string(),
        position,
        reason: why.reason().to_owned(),
        detail: why.to_string(),
        size,
        bytes,
    }
}
