//! Buffer: the only writer of the receipt log and of the quarantine. Failure domain: buffer; its death is the tree's.
//!
//! It numbers and stamps receipts, makes them durable in batches, and takes the cuts of each tick. It never starts
//! again by itself: a process that cannot append is not ready, never silently missing receipts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::cut::CutBook;
use orchestrator_kernel::ids::{IngestSeq, Origin, Seq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{Log, LogName, RecordBatch};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::ports::source::{PositionSpan, ResumeAt};
use orchestrator_runtime::address::{Address, send_reply};
use orchestrator_runtime::checkpoint::{self, CheckpointSaver};
use orchestrator_runtime::clock_watch::ClockWatch;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use orchestrator_runtime::group_commit::Landed;
use orchestrator_runtime::log_health::LogHealth;
use orchestrator_runtime::log_writer::{Landing, LogWriter, LogWriterSettings, Waited};
use orchestrator_runtime::patient_log::PatientLog;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use self::cuts::WaitingSeal;
use self::producers::{ProducerAdmission, ProducerBook};
use crate::recovery::{self, BufferCheckpoint};
use crate::run_log::messages::RunLogMsg;
use crate::scheduler::messages::SchedulerMsg;

mod cuts;
pub mod messages;
mod producers;
mod quarantine;

use self::messages::{
    AppendRefused, Appended, Arrival, ArrivalBatch, BufferMsg, Credit, Durable, ReceiptLogExtent,
};
pub use self::producers::ProducerLimits;
use self::quarantine::QuarantineWaiter;

/// Somebody who waits for receipts to be durable.
pub struct AppendWaiter {
    duplicates: usize,
    reply: RpcReplyPort<Result<Appended, AppendRefused>>,
    credit: Credit,
}

/// Settings of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSettings {
    /// Receipts between two checkpoints.
    pub checkpoint_every: u64,
    /// How many producers are remembered.
    pub producers: ProducerLimits,
}

/// Settings and ports of the buffer; cloned for each start.
#[derive(Clone)]
pub struct BufferArgs {
    /// How it is done.
    pub settings: BufferSettings,
    /// How its two logs are written.
    pub writer: LogWriterSettings,
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The quarantine.
    pub quarantine: Arc<dyn Log>,
    /// Where the book is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Asked for the last cuts.
    pub run_log: Address<RunLogMsg>,
    /// Told of new symbols.
    pub scheduler: Address<SchedulerMsg>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
    /// Told of every time that comes into the logs.
    pub watch: ClockWatch,
}

/// Buffer state between two messages, rebuilt from the logs by `pre_start`.
pub struct BufferState {
    args: BufferArgs,
    book: CutBook,
    receipts: LogWriter<AppendWaiter>,
    readable: PatientLog,
    quarantine: LogWriter<QuarantineWaiter>,
    checkpoints: CheckpointSaver,
    quarantine_tail: Seq,
    /// Positions given to the log but not yet durable.
    assigned: BTreeMap<Origin, u64>,
    producers: ProducerBook,
    /// The log is sealed up to here: later receipts get a larger timestamp.
    sealed: Option<TsMs>,
    /// `ingest_ts_ms` of the last receipt that was trimmed before the start.
    gone_ts: Option<TsMs>,
    last_stamp: Option<TsMs>,
    seals: VecDeque<WaitingSeal>,
    flush_queued: bool,
    probe_queued: bool,
    drain: Option<RpcReplyPort<()>>,
}

/// The actor.
pub struct Buffer;

impl Actor for Buffer {
    type Msg = BufferMsg;
    type State = BufferState;
    type Arguments = BufferArgs;

    async fn pre_start(
        &self,
        me: ActorRef<BufferMsg>,
        args: BufferArgs,
    ) -> Result<BufferState, ActorProcessingErr> {
        let mut state = BufferState::recover(args).await?;
        state.probe_later(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<BufferMsg>,
        message: BufferMsg,
        state: &mut BufferState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            BufferMsg::Append { batch, credit, reply } => state.append_batch(&me, batch, credit, reply),
            BufferMsg::Quarantine { origin, span, records, reply } => {
                match state.admit_batch(&origin, span, records.first().map(|record| record.at_ms)) {
                    Ok(_) => state.append_quarantined(&me, records, reply),
                    Err(refused) => send_reply(reply, Err(refused)),
                }
            }
            BufferMsg::Resume(origin, reply) => send_reply(reply, state.resume_point(&origin)),
            BufferMsg::Arm(planned) => state.book.arm_seal(planned),
            BufferMsg::Seal { tick, requests, next, reply } => {
                state.queue_seal(tick, requests, next, reply);
                state.take_cuts().await?;
            }
            BufferMsg::Extent(reply) => send_reply(reply, state.log_extent()),
            BufferMsg::Durable(reply) => send_reply(reply, state.durable_tails()),
            BufferMsg::Flush => {
                state.flush_queued = false;
                state.begin_appends(&me);
            }
            BufferMsg::Flushed(landed) => {
                state.settle_landed_receipts(&me, landed)?;
                state.take_cuts().await?;
            }
            BufferMsg::QuarantineFlushed(landed) => state.settle_landed_quarantine(&me, landed)?,
            BufferMsg::Probe => state.probe_logs(&me),
            BufferMsg::Drain(reply) => state.drain = Some(reply),
        }
        if state.receipts.is_idle() && state.quarantine.is_idle() {
            state.finish_drain().await;
        }
        Ok(())
    }
}

impl BufferState {
    async fn recover(args: BufferArgs) -> Result<Self, Fatal> {
        let acquired =
            args.receipts.acquire().await.map_err(|error| Fatal::on_acquire(LogName::Receipts, error))?;
        let aside =
            args.quarantine.acquire().await.map_err(|error| Fatal::on_acquire(LogName::Quarantine, error))?;
        let runs = args
            .run_log
            .call(RunLogMsg::Overview)
            .await
            .map_err(|error| Fatal::new(FatalKind::Internal, error.to_string()))?;
        let tails = recovery::BufferTails { receipts: acquired.tail, quarantine: aside.tail };
        let readable =
            PatientLog::new(Arc::clone(&args.receipts), LogName::Receipts, args.writer.probe_every);
        let (mut book, gone_ts) = recovery::cut_book(
            &readable,
            &PatientLog::new(Arc::clone(&args.quarantine), LogName::Quarantine, args.writer.probe_every),
            checkpoint::CheckpointReader {
                store: args.checkpoints.as_ref(),
                observer: args.observer.as_ref(),
            },
            tails,
            &runs,
        )
        .await?;
        book.take_discovered();
        args.watch.note_time(book.last_ts().max(runs.last_planned_ts));
        let (board, observer) = (args.board.clone(), Arc::clone(&args.observer));
        let health = LogHealth::new(Condition::BufferFailing, board, observer);
        let receipts = LogWriter::new(
            LogName::Receipts,
            Arc::clone(&args.receipts),
            acquired,
            args.writer,
            health.clone(),
        );
        let quarantine =
            LogWriter::new(LogName::Quarantine, Arc::clone(&args.quarantine), aside, args.writer, health);
        let store = Arc::clone(&args.checkpoints);
        let checkpoints = CheckpointSaver::new(
            recovery::RECEIPTS_CHECKPOINT,
            store,
            args.settings.checkpoint_every,
            book.tail().into(),
        );
        Ok(Self {
            receipts,
            readable,
            quarantine,
            checkpoints,
            quarantine_tail: aside.tail,
            assigned: BTreeMap::new(),
            producers: ProducerBook::new(args.settings.producers, book.last_ts().unwrap_or_default()),
            sealed: runs.last_planned_ts,
            gone_ts,
            last_stamp: book.last_ts(),
            seals: VecDeque::new(),
            flush_queued: false,
            probe_queued: false,
            drain: None,
            book,
            args,
        })
    }

    fn resume_point(&self, origin: &Origin) -> ResumeAt {
        ResumeAt {
            position: self.book.positions().settled_up_to(origin.as_str()),
            ingest_ts_ms: self.book.last_ts(),
        }
    }

    fn durable_tails(&self) -> Durable {
        Durable {
            receipts: (self.receipts.epoch(), self.book.tail().into()),
            quarantine: (self.quarantine.epoch(), self.quarantine_tail),
        }
    }

    fn log_extent(&self) -> ReceiptLogExtent {
        let symbols = self.book.symbols().cloned().collect();
        let (first_ts, last_ts) = (self.book.first_ts(), self.book.last_ts());
        ReceiptLogExtent { first_ts, last_ts, gone_ts: self.gone_ts, symbols }
    }

    /// The last position of `origin` that is durable or on its way.
    fn last_position(&self, origin: &Origin) -> u64 {
        let durable = self.book.positions().settled_up_to(origin.as_str());
        let durable = if mutant!(PositionsForgotten) { 0 } else { durable };
        self.assigned.get(origin).copied().unwrap_or(0).max(durable)
    }

    /// Whether a batch of these positions may follow what its origin has sent; returns the last known position.
    fn admit_batch(
        &mut self,
        origin: &Origin,
        span: Option<PositionSpan>,
        now: Option<TsMs>,
    ) -> Result<u64, AppendRefused> {
        let Some(PositionSpan { first, .. }) = span else { return Ok(0) };
        let known = self.last_position(origin);
        if known + 1 < first {
            return Err(AppendRefused::Gap { expected: known + 1 });
        }
        let now = now.max(self.last_stamp).unwrap_or_default();
        match self.producers.admit_batch(origin, self.book.positions(), &self.assigned, now) {
            ProducerAdmission::Admitted => {}
            ProducerAdmission::InPlaceOf(silent) => self.forget_producer(&silent),
            ProducerAdmission::Full => return Err(self.turn_away(origin)),
        }
        Ok(known)
    }

    /// Forgets a producer that was silent for long, for a new one.
    fn forget_producer(&mut self, silent: &Origin) {
        self.book.forget_origin(silent);
        self.args.observer.observe(&Observation::ProducerForgotten);
        tracing::info!(producer = %silent, domain = "ingest", "silent producer is forgotten for a new one");
        if self.args.board.clear_condition(&Condition::ProducerLimit) {
            tracing::info!(domain = "ingest", "new producers are taken again");
        }
    }

    /// No new producer is taken. One line a change.
    fn turn_away(&self, origin: &Origin) -> AppendRefused {
        let refused = AppendRefused::TooManyProducers { known_max: self.producers.known_max() };
        self.args.observer.observe(&Observation::ProducerDenied);
        let detail = format!("{refused}; turned away last: {origin}");
        if self.args.board.raise_condition(Condition::ProducerLimit, detail) {
            tracing::warn!(producer = %origin, error_detail = %refused, domain = "ingest", "new producer is turned away");
        }
        refused
    }

    fn append_batch(
        &mut self,
        me: &ActorRef<BufferMsg>,
        batch: ArrivalBatch,
        credit: Credit,
        reply: RpcReplyPort<Result<Appended, AppendRefused>>,
    ) {
        let ArrivalBatch { origin, span, arrivals } = batch;
        let known = match self.admit_batch(&origin, span, arrivals.first().map(|arrival| arrival.at)) {
            Ok(known) => known,
            Err(refused) => return send_reply(reply, Err(refused)),
        };
        if let Some(span) = span.filter(|span| known < span.last) {
            self.assigned.insert(origin.clone(), span.last);
        }
        let duplicates =
            arrivals.iter().take_while(|arrival| arrival.position != 0 && arrival.position <= known).count();
        for arrival in arrivals.iter().skip(duplicates) {
            self.number_receipt(&origin, arrival);
        }
        self.args.watch.note_time(self.last_stamp);
        let pending = AppendWaiter { duplicates, reply, credit };
        match self.receipts.wait_for_pushed(pending) {
            Waited::Queued => self.queue_flush(me),
            // Nothing is in the way any more: all of it was durable before.
            Waited::Durable(AppendWaiter { duplicates, reply, credit }) => {
                drop(credit);
                send_reply(reply, Ok(Appended { duplicates }));
            }
        }
    }

    /// Numbers and stamps a receipt (LOG-1, LOG-5) and adds it to the batch.
    fn number_receipt(&mut self, origin: &Origin, arrival: &Arrival) {
        let floor = self.last_stamp.max(self.sealed.map(|sealed| sealed.plus_ms(1)));
        let floor = floor.filter(|_| !mutant!(StampsWithoutFloor));
        let stamp = floor.map_or(arrival.at, |floor| arrival.at.max(floor));
        self.last_stamp = Some(stamp);
        let receipt = &arrival.receipt;
        let record = ReceiptRecord {
            ingest_seq: IngestSeq::from(self.receipts.next_seq()),
            ingest_ts_ms: stamp,
            origin: origin.as_str(),
            position: arrival.position,
            symbol: receipt.symbol.as_str(),
            event_type: receipt.event_type.as_str(),
            snapshot_ts_ms: receipt.snapshot_ts_ms,
            event: &receipt.bytes,
        };
        tracing::debug!(
            source_id = %receipt.source_id,
            symbol = %receipt.symbol,
            ingest_seq = record.ingest_seq.0,
            recv_ts_ms = receipt.recv_ts_ms.0,
            exchange_ts_ms = receipt.exchange_ts_ms.map(|ts| ts.0),
            "receipt"
        );
        self.receipts.push_record(|bytes| record.encode_to(bytes));
    }

    fn queue_flush(&mut self, me: &ActorRef<BufferMsg>) {
        if !self.flush_queued {
            self.flush_queued = me.cast(BufferMsg::Flush).is_ok();
        }
    }

    fn begin_appends(&mut self, me: &ActorRef<BufferMsg>) {
        if let Some(append) = self.receipts.begin_append() {
            let me = me.clone();
            tokio::spawn(async move { send_to_self(&me, BufferMsg::Flushed(append.await)) });
        }
        if let Some(append) = self.quarantine.begin_append() {
            let me = me.clone();
            tokio::spawn(async move { send_to_self(&me, BufferMsg::QuarantineFlushed(append.await)) });
        }
    }

    fn settle_landed_receipts(
        &mut self,
        me: &ActorRef<BufferMsg>,
        landed: Landed<AppendWaiter>,
    ) -> Result<(), Fatal> {
        match self.receipts.land_batch(landed, self.book.tail().into())? {
            Landing::Durable { batch, waiters, took } => {
                // The next batch is on its way while this one goes into the book: the disk need not wait for that.
                self.begin_appends(me);
                self.add_to_book(&batch, took)?;
                for AppendWaiter { duplicates, reply, credit } in waiters {
                    drop(credit);
                    send_reply(reply, Ok(Appended { duplicates }));
                }
                self.save_when_due();
            }
            Landing::Refused { waiters, detail } => {
                self.assigned.clear();
                for pending in waiters {
                    send_reply(pending.reply, Err(AppendRefused::NoRoom(detail.clone())));
                }
                self.probe_later(me);
            }
            Landing::StillFull => {
                self.probe_later(me);
                self.begin_appends(me);
            }
        }
        Ok(())
    }

    /// Takes a durable batch into the book, and tells of it.
    fn add_to_book(&mut self, batch: &RecordBatch, took: Duration) -> Result<(), Fatal> {
        for (seq, payload) in batch.iter() {
            let record = ReceiptRecord::decode(payload)
                .map_err(|error| Fatal::undecodable_record(LogName::Receipts, seq.0, error))?;
            self.book.observe_receipt(&record);
        }
        let positions = self.book.positions();
        self.assigned.retain(|origin, position| positions.settled_up_to(origin.as_str()) < *position);
        let count = positions.origins().len() as u64;
        let discovered = self.book.take_discovered();
        if !discovered.is_empty() && self.args.scheduler.cast(SchedulerMsg::Discovered(discovered)).is_err() {
            tracing::debug!("the scheduler is down; it asks for all symbols when it starts");
        }
        let observer = &self.args.observer;
        observer.observe(&Observation::ProducersKnown { count });
        observer.observe(&Observation::ReceiptsFlushed {
            seconds: took.as_secs_f64(),
            records: batch.len() as u64,
        });
        let stat = self.args.receipts.stat();
        observer.observe(&Observation::BufferDepth {
            records: (stat.tail.0 + 1).saturating_sub(stat.start.0),
            bytes: stat.bytes,
            last_ingest_ts: self.book.last_ts().unwrap_or_default(),
        });
        Ok(())
    }

    /// Sees to it that a probe comes; one is on its way at a time.
    fn probe_later(&mut self, me: &ActorRef<BufferMsg>) {
        if let Some(after) = self.receipts.probe_after().or(self.quarantine.probe_after())
            && !self.probe_queued
        {
            self.probe_queued = true;
            me.send_after(after, || BufferMsg::Probe);
        }
    }

    fn probe_logs(&mut self, me: &ActorRef<BufferMsg>) {
        self.probe_queued = false;
        self.receipts.queue_probe();
        self.quarantine.queue_probe();
        self.begin_appends(me);
        self.probe_later(me);
    }

    fn save_when_due(&mut self) {
        let (book, quarantine_tail) = (&self.book, self.quarantine_tail);
        let encode = || stored_form(book, quarantine_tail);
        self.checkpoints.save_when_due(book.tail().into(), self.receipts.epoch(), encode);
    }

    async fn finish_drain(&mut self) {
        let Some(reply) = self.drain.take() else { return };
        let value = stored_form(&self.book, self.quarantine_tail);
        self.checkpoints.save_now(self.receipts.epoch(), value).await;
        send_reply(reply, ());
    }
}

/// The checkpoint of the buffer.
fn stored_form(book: &CutBook, quarantine_tail: Seq) -> Bytes {
    checkpoint::encode_checkpoint(&BufferCheckpoint { book: book.to_checkpoint(), quarantine_tail })
}

fn send_to_self(me: &ActorRef<BufferMsg>, message: BufferMsg) {
    if me.cast(message).is_err() {
        tracing::debug!("buffer ended before its last batch landed");
    }
}
