//! Journal: the only writer of the journal. Failure domain: the trading plane; its death is the plane's, never the
//! process's, unless another writer took over.
//!
//! ```text
//! entries ─▶ rules hold? latch? ─▶ chained ─▶ batch ─▶ log ─▶ durable: audited, folded, shown, answered
//!                                     ▲                 └─▶ no room: the chain goes on behind the last durable record,
//!                                     └── head            and whoever had continued what is lost begins again
//! ```
//!
//! A record that breaks a rule is a defect of whoever made it: it is kept out, trading is latched as stopped, and once
//! that is durable the plane ends. Only an operator lets it trade again.
//!
//! Records that nobody waits for are appended with the next ones that somebody waits for, or a little later: a cycle
//! without effects costs one wait for the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{Log, LogName, RecordBatch};
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::trading::event::EventCursor;
use orchestrator_kernel::trading::ids::{CorrelationId, JournalSeq};
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{
    JournalAuthor, JournalEntry, JournalFact, KillLatched, seal_entry,
};
use orchestrator_runtime::address::{Down, send_reply};
use orchestrator_runtime::checkpoint::{CheckpointSaver, encode_checkpoint};
use orchestrator_runtime::fatal::{Chain, Fatal, FatalKind};
use orchestrator_runtime::group_commit::Landed;
use orchestrator_runtime::log_health::{LogHealth, LogTrouble};
use orchestrator_runtime::log_writer::{Landing, LogWriter, LogWriterSettings};
use orchestrator_runtime::patient_log::PatientLog;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::saved::{JOURNAL_CHECKPOINT, JournalFold};
use crate::view::TradingView;

pub mod messages;
mod observe;
mod recovery;
mod stops;

use messages::{
    AnsweredWhen, JournalAppend, JournalCommitted, JournalDoor, JournalMsg, JournalRefused, JournalSnapshot,
    JournalWaiter,
};
use observe::JournalWatch;
use recovery::{SavedFolds, fold_journal, take_shown_record};
use stops::AcceptedStops;

/// The log's name in errors and metrics.
const LOG: LogName = LogName::Journal;

/// Settings of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// As every log.
    pub writer: LogWriterSettings,
    /// How long records that nobody waits for may wait for company.
    pub linger: Duration,
    /// From this time on an append counts as one that is not answered.
    pub slow_after: Duration,
    /// Records between two checkpoints.
    pub checkpoint_every: u64,
}

/// Settings and ports of the journal; cloned for each start.
#[derive(Clone)]
pub struct JournalArgs {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where what the records add up to is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// How it is written.
    pub settings: JournalSettings,
    /// Through which records come in.
    pub door: JournalDoor,
    /// Where readers look.
    pub view: TradingView,
    /// Where commits are announced.
    pub committed: Arc<watch::Sender<JournalCommitted>>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// Journal state between two messages, rebuilt from the log by `pre_start`.
///
/// ```text
/// ── durable ──┃── in flight ──┃── collected ──┃
///              fold.tail        wanted_until?   chain.tail
/// ```
pub struct JournalState {
    args: JournalArgs,
    watch: JournalWatch,
    /// Everything durable.
    fold: JournalFold,
    /// Everything accepted: the head of the chain, and the rules that the next record has to keep.
    chain: JournalAudit,
    /// What stops trading, by what was accepted.
    stops: AcceptedStops,
    writer: LogWriter<JournalWaiter>,
    health: LogHealth,
    checkpoints: CheckpointSaver,
    /// Everything below this position is to be appended now: somebody waits for it, or it has waited long enough.
    wanted_until: Seq,
    /// A batch found no room, and none has been proved since.
    is_full: bool,
    in_flight_since: Option<Instant>,
    asked: Vec<RpcReplyPort<JournalSnapshot>>,
    /// Who waits for what was accepted before, and brought nothing.
    awaiting: Vec<JournalWaiter>,
    flush_queued: bool,
    linger_queued: bool,
    slow_queued: bool,
    probe_queued: bool,
    drain: Option<RpcReplyPort<()>>,
    /// What the plane ends with, once the latch that comes with it is durable.
    ending: Option<Fatal>,
}

/// The actor.
pub struct Journal;

impl Actor for Journal {
    type Msg = JournalMsg;
    type State = JournalState;
    type Arguments = JournalArgs;

    async fn pre_start(
        &self,
        me: ActorRef<JournalMsg>,
        args: JournalArgs,
    ) -> Result<JournalState, ActorProcessingErr> {
        let acquired = args.log.acquire().await.map_err(|error| Fatal::on_acquire(LOG, error))?;
        let settings = args.settings;
        let readable = PatientLog::new(Arc::clone(&args.log), LOG, settings.writer.probe_every);
        let saved = SavedFolds { store: args.checkpoints.as_ref(), observer: args.observer.as_ref() };
        let fold = fold_journal(&readable, saved, acquired.tail, &args.view).await?;
        let health =
            LogHealth::new(Condition::JournalFailing, args.board.clone(), Arc::clone(&args.observer));
        let writer = LogWriter::new(LOG, Arc::clone(&args.log), acquired, settings.writer, health.clone());
        let store = Arc::clone(&args.checkpoints);
        let checkpoints =
            CheckpointSaver::new(JOURNAL_CHECKPOINT, store, settings.checkpoint_every, acquired.tail);
        args.committed.send_replace(JournalCommitted {
            tail: fold.tail(),
            epoch: acquired.epoch,
            batch: Arc::default(),
            opened: Arc::new(EventCursor::behind_index(&fold.index, fold.audit.head_hash())),
        });
        let watch = JournalWatch {
            observer: Arc::clone(&args.observer),
            board: args.board.clone(),
            view: args.view.clone(),
        };
        watch.tell_start(&fold.index);
        tracing::info!(records = fold.tail().0, "the journal is read and its chain is whole");
        let mut state = JournalState {
            chain: fold.audit.clone(),
            stops: AcceptedStops::of_index(&fold.index),
            fold,
            writer,
            health,
            checkpoints,
            wanted_until: acquired.tail.next(),
            is_full: false,
            in_flight_since: None,
            asked: Vec::new(),
            awaiting: Vec::new(),
            flush_queued: false,
            linger_queued: false,
            slow_queued: false,
            probe_queued: false,
            drain: None,
            ending: None,
            watch,
            args,
        };
        state.probe_later(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<JournalMsg>,
        message: JournalMsg,
        state: &mut JournalState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            JournalMsg::Append(append) => state.take_append(&me, append)?,
            JournalMsg::Snapshot(reply) => {
                state.asked.push(reply);
                state.want_everything(&me);
            }
            JournalMsg::Flush => {
                state.flush_queued = false;
                state.begin_append(&me);
            }
            JournalMsg::Linger => {
                state.linger_queued = false;
                state.want_everything(&me);
            }
            JournalMsg::Flushed(landed) => state.settle_landed_batch(&me, landed)?,
            JournalMsg::CheckSlow => state.check_slow_append(&me),
            JournalMsg::Probe => state.probe_log(&me),
            JournalMsg::Drain(reply) => {
                state.drain = Some(reply);
                state.want_everything(&me);
            }
        }
        if state.writer.is_idle() {
            state.answer_asked();
            state.finish_drain().await;
        }
        Ok(())
    }
}

impl JournalState {
    fn take_append(&mut self, me: &ActorRef<JournalMsg>, append: JournalAppend) -> Result<(), Fatal> {
        let JournalAppend { entries, term, answered_when, reply, room } = append;
        if let Some(refused) = self.find_refusal(&entries, term) {
            send_reply(reply, Err(refused));
            return Ok(());
        }
        for entry in &entries {
            if let Err(fatal) = self.chain_entry(entry) {
                return self.latch_before_end(me, entry.at_ms, fatal);
            }
        }
        let last = self.chain.tail();
        let waiting = match answered_when {
            AnsweredWhen::Durable => Some(reply),
            AnsweredWhen::Accepted => {
                send_reply(reply, Ok(last));
                None
            }
        };
        let is_awaited = waiting.is_some();
        let waiter = JournalWaiter { last, reply: waiting, _room: room };
        if entries.is_empty() {
            self.awaiting.push(waiter);
            self.answer_awaiting();
        } else {
            self.writer.wait_for_pushed(waiter);
        }
        if is_awaited {
            self.wanted_until = self.writer.next_seq();
            self.flush_later(me);
        } else {
            self.linger_later(me);
        }
        Ok(())
    }

    fn find_refusal(&self, entries: &[JournalEntry], term: u64) -> Option<JournalRefused> {
        if self.ending.is_some() {
            return Some(Down("journal").into());
        }
        if term != self.args.door.term.load(Ordering::Acquire) && !mutant!(LostTermAccepted) {
            return Some(JournalRefused::Lost);
        }
        if self.is_full {
            return Some(JournalRefused::Full("it is being asked for room".to_owned()));
        }
        // The gates looked before the stop was on record, the record would come behind it.
        let flip = entries.iter().find_map(|entry| self.stops.find_flip(&entry.fact));
        flip.map(JournalRefused::Flipped)
    }

    /// Gives a record its place in the chain. One that breaks a rule is a defect, and is kept out of the log.
    fn chain_entry(&mut self, entry: &JournalEntry) -> Result<(), Fatal> {
        let mut bytes = Vec::new();
        seal_entry(self.chain.head_hash(), entry, &mut bytes);
        let seq = JournalSeq::from(self.writer.next_seq());
        self.chain.take_record(seq, &bytes).map_err(|broken| Fatal {
            kind: FatalKind::Internal,
            what: "a record that breaks a rule was kept out of the journal; please report this".to_owned(),
            source: Some(Box::new(broken)),
        })?;
        self.stops.take_fact(&entry.fact);
        self.writer.push_record(|out| out.extend_from_slice(&bytes));
        Ok(())
    }

    /// Who made a record that breaks a rule may have decided other things wrongly, and would again behind a restart.
    ///
    /// Source: specification 001 §3, "trigger kill-switch on catastrophic invariants violations".
    fn latch_before_end(
        &mut self,
        me: &ActorRef<JournalMsg>,
        at_ms: TsMs,
        fatal: Fatal,
    ) -> Result<(), Fatal> {
        if self.stops.is_latched() {
            return Err(fatal);
        }
        let reason = bounded_detail(&Chain(&fatal).to_string());
        let latch = JournalEntry {
            who: JournalAuthor::Actor("journal".to_owned()),
            planned_ts_ms: None,
            at_ms,
            correlation: latch_correlation(),
            fact: JournalFact::KillLatched(KillLatched { latched: true, reason }),
        };
        if self.chain_entry(&latch).is_err() {
            return Err(fatal);
        }
        tracing::error!(error = %Chain(&fatal), "trading is latched as stopped before the plane ends");
        self.ending = Some(fatal);
        self.want_everything(me);
        Ok(())
    }

    /// The failure that the plane ends with, when nothing of it is on its way any more.
    fn end_behind_latch(&mut self) -> Result<(), Fatal> {
        let is_behind = self.fold.tail() == self.chain.tail();
        self.ending.take_if(|_| is_behind).map_or(Ok(()), Err)
    }

    fn flush_later(&mut self, me: &ActorRef<JournalMsg>) {
        if !self.flush_queued {
            self.flush_queued = me.cast(JournalMsg::Flush).is_ok();
        }
    }

    fn linger_later(&mut self, me: &ActorRef<JournalMsg>) {
        if !self.linger_queued {
            self.linger_queued = true;
            me.send_after(self.args.settings.linger, || JournalMsg::Linger);
        }
    }

    fn want_everything(&mut self, me: &ActorRef<JournalMsg>) {
        self.wanted_until = self.writer.next_seq();
        self.begin_append(me);
    }

    /// Sends the oldest batch if anything of it is wanted.
    fn begin_append(&mut self, me: &ActorRef<JournalMsg>) {
        if Seq::from(self.fold.tail()).next() < self.wanted_until {
            self.send_batch(me);
        }
    }

    fn send_batch(&mut self, me: &ActorRef<JournalMsg>) {
        let Some(append) = self.writer.begin_append() else { return };
        self.in_flight_since = Some(Instant::now());
        self.check_slow_later(me);
        let me = me.clone();
        tokio::spawn(async move {
            let landed = append.await;
            if me.cast(JournalMsg::Flushed(landed)).is_err() {
                tracing::debug!("the journal ended before its last batch landed");
            }
        });
    }

    fn check_slow_later(&mut self, me: &ActorRef<JournalMsg>) {
        if !self.slow_queued {
            self.slow_queued = true;
            me.send_after(self.args.settings.slow_after, || JournalMsg::CheckSlow);
        }
    }

    /// A storage that hangs says nothing, so it is said here.
    fn check_slow_append(&mut self, me: &ActorRef<JournalMsg>) {
        self.slow_queued = false;
        let Some(since) = self.in_flight_since else { return };
        if self.args.settings.slow_after <= since.elapsed() {
            let detail = format!("no answer for {} ms", since.elapsed().as_millis());
            self.health.note_trouble(LOG, LogTrouble::NoAnswer, &detail);
        }
        self.check_slow_later(me);
    }

    /// Sees to it that a probe comes, when the log can go away or has no room; one is on its way at a time.
    fn probe_later(&mut self, me: &ActorRef<JournalMsg>) {
        if let Some(after) = self.writer.probe_after()
            && !self.probe_queued
        {
            self.probe_queued = true;
            me.send_after(after, || JournalMsg::Probe);
        }
    }

    fn probe_log(&mut self, me: &ActorRef<JournalMsg>) {
        self.probe_queued = false;
        self.writer.queue_probe();
        self.send_batch(me);
        self.probe_later(me);
    }

    fn settle_landed_batch(
        &mut self,
        me: &ActorRef<JournalMsg>,
        landed: Landed<JournalWaiter>,
    ) -> Result<(), Fatal> {
        self.in_flight_since = None;
        match self.writer.land_batch(landed, self.fold.tail().into())? {
            Landing::Durable { batch, waiters, .. } => {
                self.is_full = false;
                self.take_committed(&batch, waiters)?;
            }
            Landing::Refused { waiters, detail } => {
                self.forget_refused(waiters, &detail);
                self.probe_later(me);
            }
            Landing::StillFull => self.probe_later(me),
        }
        self.end_behind_latch()?;
        self.begin_append(me);
        Ok(())
    }

    fn take_committed(&mut self, batch: &Arc<RecordBatch>, waiters: Vec<JournalWaiter>) -> Result<(), Fatal> {
        for (seq, payload) in batch.iter() {
            let entry = take_shown_record(&mut self.fold, seq, payload, &self.args.view)?;
            self.watch.tell_entry(&entry, &self.fold.index);
        }
        if !batch.is_empty() {
            let (tail, epoch) = (self.fold.tail(), self.writer.epoch());
            self.args.committed.send_modify(|committed| {
                (committed.tail, committed.epoch, committed.batch) = (tail, epoch, Arc::clone(batch));
            });
            let fold = &self.fold;
            self.checkpoints.save_when_due(tail.into(), epoch, || encode_checkpoint(&fold.to_saved()));
        }
        // Shown before it is answered: whoever is told that it is done can read that it is.
        for JournalWaiter { last, reply, _room } in waiters {
            reply.into_iter().for_each(|reply| send_reply(reply, Ok(last)));
        }
        self.answer_awaiting();
        Ok(())
    }

    fn answer_awaiting(&mut self) {
        let tail = self.fold.tail();
        for JournalWaiter { last, reply, _room } in self.awaiting.extract_if(.., |it| it.last <= tail) {
            reply.into_iter().for_each(|reply| send_reply(reply, Ok(last)));
        }
    }

    /// No room: the chain goes on behind the last durable record, and a new term begins, so that nobody continues what
    /// is not there.
    fn forget_refused(&mut self, waiters: Vec<JournalWaiter>, detail: &str) {
        self.is_full = true;
        self.args.door.term.fetch_add(1, Ordering::AcqRel);
        self.chain = self.fold.audit.clone();
        self.stops = AcceptedStops::of_index(&self.fold.index);
        self.wanted_until = self.writer.next_seq();
        for JournalWaiter { reply, .. } in waiters.into_iter().chain(self.awaiting.drain(..)) {
            let refused = JournalRefused::Full(detail.to_owned());
            reply.into_iter().for_each(|reply| send_reply(reply, Err(refused.clone())));
        }
    }

    /// Answers those who ask what the records add up to, when all of them are durable; while there is no room they
    /// wait, because nobody could begin anything.
    fn answer_asked(&mut self) {
        if self.is_full || self.asked.is_empty() || self.ending.is_some() {
            return;
        }
        let index = Arc::new(self.fold.index.clone());
        let term = self.args.door.term.load(Ordering::Acquire);
        for reply in self.asked.drain(..) {
            send_reply(reply, JournalSnapshot { index: Arc::clone(&index), term });
        }
    }

    async fn finish_drain(&mut self) {
        let Some(reply) = self.drain.take() else { return };
        self.checkpoints.save_now(self.writer.epoch(), encode_checkpoint(&self.fold.to_saved())).await;
        send_reply(reply, ());
    }
}

/// The correlation of a latch that no command asked for.
fn latch_correlation() -> CorrelationId {
    #[expect(clippy::expect_used, reason = "the text is a correlation")]
    CorrelationId::new("journal").expect("a correlation")
}
