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
use crate::buffer::{AppendRefused, Appended, Arrival, Batch, BufferMsg, Credit, Known};
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

impl IngestArgs {
    fn down(&self) -> Condition {
        Condition::SourceDown(self.factory.name().to_owned())
    }
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

/// Counts one ingest actor while it is up, and shows its source as down when it goes, however it goes.
struct Active {
    count: Arc<watch::Sender<usize>>,
    board: StatusBoard,
    source: Condition,
    /// Why it goes; `None` when that is in order.
    why: Option<String>,
}

impl Active {
    fn begin(args: &IngestArgs) -> Self {
        args.sources.active.send_modify(|count| *count += 1);
        Self {
            count: Arc::clone(&args.sources.active),
            board: args.board.clone(),
            source: args.down(),
            why: Some("its actor ended unexpectedly".to_owned()),
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(why) = self.why.take() {
            self.board.raise(self.source.clone(), why);
        }
        self.count.send_modify(|count| *count -= 1);
    }
}

/// Received items whose fate is open. What is open still when it is dropped was not stored, or not known to be: then
/// upstream keeps it, and it counts as refused.
struct OpenItems {
    observer: Arc<dyn Observer>,
    left: u64,
}

impl OpenItems {
    fn received(observer: &Arc<dyn Observer>, count: usize) -> Self {
        let count = count as u64;
        observer.observe(&Observation::ItemsReceived { count });
        Self { observer: Arc::clone(observer), left: count }
    }

    /// Tells what became of `count` of them.
    fn settled(&mut self, count: u64, fate: &Observation<'_>) {
        self.left = self.left.saturating_sub(count);
        self.observer.observe(fate);
    }

    fn duplicate(&mut self, count: usize) {
        let count = count as u64;
        if count > 0 {
            self.settled(count, &Observation::ItemsDuplicate { count });
        }
    }
}

impl Drop for OpenItems {
    fn drop(&mut self) {
        if self.left > 0 {
            self.observer.observe(&Observation::ItemsRefused { count: self.left });
        }
    }
}

/// A batch in flight: what will become of it.
type InFlight = BoxFuture<'static, (u64, Settlement)>;

/// What ingest remembers between messages. Rebuilt by opening the source after the last durable position.
pub struct IngestState {
    args: IngestArgs,
    source: Box<dyn Source>,
    names: Names,
    in_flight: FuturesOrdered<InFlight>,
    /// Under a driven clock: the latest time seen, so that a late receipt does not turn it back.
    latest: Option<TsMs>,
    ended: bool,
    active: Active,
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
        let down = args.down();
        let source = args.factory.open(resume).await.inspect_err(|error| {
            args.board.raise(down.clone(), error.to_string());
        })?;
        if args.board.clear(&down) {
            tracing::info!(source = args.factory.name(), domain = "ingest", "source is open again");
        }
        me.cast(IngestMsg::Step)?;
        Ok(IngestState {
            active: Active::begin(&args),
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
            Some((id, settlement)) = self.in_flight.next() => Next::Settled(id, settlement),
            () = self.args.stop.cancelled(), if !stopping => Next::Stop,
            batch = self.source.next(), if may_take => Next::Batch(batch),
        };
        match next {
            Next::Stop => {}
            Next::Settled(id, settlement) => self.source.settle(id, settlement).await?,
            Next::Batch(batch) => match batch? {
                None => {
                    self.ended = true;
                    self.work_off().await;
                }
                Some(batch) => self.take(batch).await?,
            },
        }
        Ok(Stepped::On)
    }

    /// The end of a recording is the end of its runs: waits under a driven clock until those that are due are done.
    async fn work_off(&mut self) {
        let Some(latest) = self.latest.filter(|_| self.args.clock.is_driven()) else { return };
        tokio::select! {
            biased;
            () = self.args.stop.cancelled() => {}
            () = self.args.clock.advance(latest) => {}
        }
    }

    async fn take(&mut self, batch: SourceBatch) -> Result<(), ActorProcessingErr> {
        let mut open = OpenItems::received(&self.args.observer, batch.items.len());
        let sorted = self.sort(batch);
        if self.args.clock.is_driven() {
            let (id, settlement) = self.append_in_lockstep(sorted, open).await?;
            return Ok(self.source.settle(id, settlement).await?);
        }
        let (id, link, at) = (sorted.id, self.link(), self.args.clock.now().unwrap_or_default());
        // Not in flight beside the next batch: that one must not overtake these receipts on the way to the buffer.
        let stored = match link.set_aside(&sorted, at, &mut open).await {
            Ok(()) => credit_for(&sorted, self.args.credits.clone(), self.args.stop.clone()).await,
            Err(refused) => Err(refused),
        };
        self.in_flight.push_back(match stored {
            Err(refused) => std::future::ready((id, refused)).boxed(),
            Ok(credit) => async move { (id, link.store(sorted, at, credit, open).await) }.boxed(),
        });
        Ok(())
    }

    fn link(&self) -> Link {
        Link { buffer: self.args.buffer.clone(), retry_after_ms: self.args.retry_after_ms }
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
    async fn append_in_lockstep(
        &mut self,
        sorted: Sorted,
        mut open: OpenItems,
    ) -> Result<(u64, Settlement), ActorProcessingErr> {
        let (id, link, stop) = (sorted.id, self.link(), self.args.stop.clone());
        let credits = self.args.credits.clone();
        if let Err(refused) = link.set_aside(&sorted, self.latest.unwrap_or_default(), &mut open).await {
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
                    let credit = credit(&credits, 0, 0).await?;
                    if let Err(refused) = link.append(piece, credit, &mut fates, &mut open).await {
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
            if let Err(refused) = link.append(piece, credit, &mut fates, &mut open).await {
                return Ok((id, refused));
            }
        }
    }

    fn note_failure(&mut self, error: &(dyn std::error::Error + 'static)) {
        let name = self.args.factory.name();
        self.active.why = Some(error.to_string());
        tracing::warn!(source = name, domain = "ingest", error_kind = "source_down", error_detail = %error, "source failed");
        self.args
            .observer
            .observe(&Observation::Failure { domain: orchestrator_kernel::error::FailureDomain::Ingest });
    }
}

/// Waits for room in flight, unless the service stops.
async fn credit_for(
    sorted: &Sorted,
    credits: Credits,
    stop: CancellationToken,
) -> Result<Credit, Settlement> {
    let bytes = sorted.receipts.iter().map(|(_, receipt)| receipt.bytes.len()).sum();
    let credit = tokio::select! {
        biased;
        credit = credits.acquire(sorted.receipts.len(), bytes) => credit,
        () = stop.cancelled() => None,
    };
    credit.ok_or_else(stopping)
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
    retry_after_ms: u64,
}

impl Link {
    /// The receipts; what was refused is set aside before, see [`Positions`](orchestrator_kernel::positions::Positions).
    async fn store(self, sorted: Sorted, at: TsMs, credit: Credit, mut open: OpenItems) -> Settlement {
        let mut fates = Fates::new(&sorted);
        let arrivals = sorted.receipts.into_iter();
        let arrivals = arrivals.map(|(position, receipt)| Arrival { at, position, receipt }).collect();
        let piece = Piece { origin: sorted.origin, span: sorted.span, arrivals };
        match self.append(piece, credit, &mut fates, &mut open).await {
            Ok(()) => Settlement::Durable(fates.into_items()),
            Err(refused) => refused,
        }
    }

    async fn set_aside(&self, sorted: &Sorted, now: TsMs, open: &mut OpenItems) -> Result<(), Settlement> {
        if sorted.refused.is_empty() {
            return Ok(());
        }
        let records = sorted
            .refused
            .iter()
            .map(|(_, position, why, item)| quarantined(sorted, *position, why, item, now));
        let records = records.collect();
        let known = match self.buffer.call(|reply| BufferMsg::Quarantine(records, reply)).await {
            Ok(Ok(known)) => known,
            Ok(Err(refused)) => return Err(self.refused(refused)),
            Err(down) => return Err(self.down(down)),
        };
        for ((_, _, why, _), known) in sorted.refused.iter().zip(known) {
            match known {
                Known::Before => open.duplicate(1),
                Known::New => open.settled(1, &Observation::ItemQuarantined { reason: why.reason() }),
            }
        }
        Ok(())
    }

    async fn append(
        &self,
        piece: Piece,
        credit: Credit,
        fates: &mut Fates,
        open: &mut OpenItems,
    ) -> Result<(), Settlement> {
        let Piece { origin, span, arrivals } = piece;
        let counted: Vec<(SourceId, EventType)> = arrivals
            .iter()
            .map(|arrival| (arrival.receipt.source_id.clone(), arrival.receipt.event_type.clone()))
            .collect();
        let batch = Batch { origin, span, arrivals, credit };
        match self.buffer.call(|reply| BufferMsg::Append(batch, reply)).await {
            Ok(Ok(appended)) => {
                note_appended(&counted, appended, fates, open);
                Ok(())
            }
            Ok(Err(refused)) => Err(self.refused(refused)),
            Err(down) => Err(self.down(down)),
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

fn note_appended(
    counted: &[(SourceId, EventType)],
    appended: Appended,
    fates: &mut Fates,
    open: &mut OpenItems,
) {
    let (duplicates, fresh) = counted.split_at(appended.duplicates.min(counted.len()));
    open.duplicate(duplicates.len());
    duplicates.iter().for_each(|_| fates.next(ItemFate::Duplicate));
    fresh.iter().for_each(|_| fates.next(ItemFate::Appended));
    let mut counts: BTreeMap<&(SourceId, EventType), u64> = BTreeMap::new();
    for key in fresh {
        *counts.entry(key).or_default() += 1;
    }
    for ((source_id, event_type), count) in counts {
        open.settled(count, &Observation::ReceiptsAppended { source_id, event_type, count });
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
