//! The driver: shows the audit receipts and runs in the right order, calls the engine, hands out what comes of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_kernel::engine::audit::{Audit, AuditStep, ResumedAfterTrim, StateFrom};
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::divergence::Divergence;
use orchestrator_kernel::engine::replay::RunLogOutline;
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Seq, Symbol};
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use orchestrator_kernel::ports::log::{Log, LogName, ReadError, RecordBatch};
use tokio_util::task::AbortOnDropHandle;

use super::pages::Pages;
use super::plan::ReplayPlan;

/// How often an engine that fails is asked again: a call that once succeeded may have needed it too.
const CALLS_PER_RUN_MAX: u32 = 3;

/// Provider of the answers to the calls of completed runs.
#[derive(Clone)]
pub enum Answers {
    /// An engine; what it answers is compared with the record.
    Engine(Arc<dyn Engine>),
    /// The record itself: only what follows without the engine is derived.
    Recorded,
}

/// A terminal record and what the replay makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedRun {
    /// Its position in the run log.
    pub at: RunSeq,
    /// As recorded.
    pub recorded: RunRecord,
    /// As replayed.
    pub replayed: RunRecord,
    /// What the engine was asked, if it was.
    pub call: Option<EngineCall>,
    /// Who answered now; known once an engine was asked.
    pub engine: Option<EngineIdentity>,
    /// The error that it answered now, if it did.
    pub failure: Option<EngineError>,
    /// Where the two differ.
    pub found: Vec<Divergence>,
    /// Whether the plan includes it. One that it does not include was only indexed: it is as recorded.
    pub included: bool,
}

/// Takes what comes of a replay.
#[async_trait]
pub trait Sink: Send {
    /// Takes a terminal record, in the order of the run log. Returns whether to go on.
    async fn take_run(&mut self, run: ReplayedRun) -> bool;

    /// Takes divergences of receipts and of records that are not terminal.
    fn take_divergences(&mut self, found: Vec<Divergence>);

    /// Learns now and then how many receipts and run records were read.
    fn note_progress(&mut self, receipts: IngestSeq, runs: RunSeq);
}

/// Reason for which a replay could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A log cannot be read on.
    #[error("log {log} cannot be read")]
    Read {
        /// Which: `receipts` or `runs`.
        log: LogName,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// A log was trimmed, and nothing says what stood before.
    #[error(
        "log {log} was trimmed: it starts at {start}, and nothing says what stood before; replay it with its archive"
    )]
    Trimmed {
        /// Which: `receipts` or `runs`.
        log: LogName,
        /// The first record that is there.
        start: Seq,
    },
    /// The engine gives no answer, not even an error of its own. That says nothing about the logs.
    #[error("the engine gives no answer to run record {at}, run {run_id} of {symbol}")]
    Engine {
        /// The run's terminal record.
        at: RunSeq,
        /// The run.
        run_id: RunId,
        /// Its symbol.
        symbol: Symbol,
        /// What came instead, last.
        #[source]
        source: EngineError,
    },
}

/// Summary of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// The last receipt that was read.
    pub receipts: IngestSeq,
    /// The last run record that was read, or that the base continues from.
    pub runs: RunSeq,
    /// Terminal records handed out that the plan includes.
    pub replayed: u64,
    /// Runs that were started and have no terminal record.
    pub unfinished: Vec<(Symbol, RunId)>,
    /// Cuts that resumed behind receipts that retention trimmed.
    pub anew: Vec<ResumedAfterTrim>,
}

/// A terminal record on its way to the sink.
struct PendingRun {
    run: ReplayedRun,
    answer: Option<AbortOnDropHandle<Result<EngineAnswer, EngineError>>>,
}

/// A replay of two logs.
pub struct Driver {
    plan: ReplayPlan,
    answers: Answers,
    audit: Audit,
    receipts: ReceiptPages,
    runs: Arc<dyn Log>,
    runs_last: Seq,
    waiting: VecDeque<PendingRun>,
    /// Per symbol, how many of `waiting` are calls.
    calls: BTreeMap<Symbol, usize>,
    found: Vec<Divergence>,
    done: ReplaySummary,
}

/// The receipt log, a page at a time.
struct ReceiptPages {
    pages: Pages,
    page: RecordBatch,
    /// How many of `page` were shown.
    shown: usize,
}

impl Driver {
    /// Prepares a replay: reads the run log once, for its outline. A run log that grows meanwhile is replayed up to
    /// where it ended now.
    ///
    /// # Errors
    ///
    /// [`ReplayError::Trimmed`], [`ReplayError::Read`]. A run record that cannot be read is left to the replay, which
    /// comes that far.
    pub async fn new(
        receipts: Arc<dyn Log>,
        runs: Arc<dyn Log>,
        answers: Answers,
        plan: ReplayPlan,
    ) -> Result<Self, ReplayError> {
        let runs_last = runs.stat().tail;
        let runs_first = begins_at(LogName::Runs, runs.as_ref(), plan.base.runs.tail().into())?;
        let receipts_first = begins_at(LogName::Receipts, receipts.as_ref(), plan.base.receipts.into())?;
        let outline = read_outline(&runs, runs_first, runs_last).await?;
        let audit = Audit::new(outline, plan.state_from, plan.base.clone());
        let before = plan.base.runs.tail();
        let pages = Pages::read_ahead(receipts, receipts_first, None);
        let receipts = ReceiptPages { pages, page: RecordBatch::default(), shown: 0 };
        Ok(Self {
            plan,
            answers,
            audit,
            receipts,
            runs,
            runs_last,
            waiting: VecDeque::new(),
            calls: BTreeMap::new(),
            found: Vec::new(),
            done: ReplaySummary { runs: before, ..ReplaySummary::default() },
        })
    }

    /// Replays to the end, or until the sink has seen enough.
    ///
    /// # Errors
    ///
    /// [`ReplayError`]; what stood before it was handed to the sink.
    pub async fn replay_logs(mut self, sink: &mut dyn Sink) -> Result<ReplaySummary, ReplayError> {
        let replayed = self.replay_records(sink).await;
        self.tell_found(sink);
        // What was asked before a log became unreadable still counts.
        let delivered = self.deliver_all(sink).await;
        self.tell_found(sink);
        self.done.receipts = self.audit.last_receipt_seen();
        self.done.unfinished =
            self.audit.unfinished_runs().map(|(symbol, run_id)| (symbol.clone(), run_id)).collect();
        self.done.anew = self.audit.resumed_after_trim().to_vec();
        replayed.and(delivered).map(|()| self.done)
    }

    async fn replay_records(&mut self, sink: &mut dyn Sink) -> Result<(), ReplayError> {
        let (first, last) = (Seq::from(self.plan.base.runs.tail()).next(), self.runs_last);
        let mut pages = Pages::read_ahead(Arc::clone(&self.runs), first, Some(last));
        while let Some(page) =
            pages.next_page().await.map_err(|source| unreadable_log(LogName::Runs, source))?
        {
            for (seq, payload) in page.iter().take_while(|(seq, _)| *seq <= last) {
                let record = RunRecord::decode(payload)
                    .map_err(|error| undecodable_record(LogName::Runs, seq, &error))?;
                while self.audit.wants_receipts_for(&record) {
                    self.show_receipts(&record, sink).await?;
                }
                if !self.take_record(seq.into(), record, sink).await? {
                    return Ok(());
                }
            }
            sink.note_progress(self.audit.last_receipt_seen(), self.done.runs);
        }
        while self.plan.to_the_end && self.receipts.fill_page().await? {
            self.show_page(sink)?;
        }
        Ok(())
    }

    /// Shows receipts until the record can be derived or the page is used up.
    async fn show_receipts(&mut self, record: &RunRecord, sink: &mut dyn Sink) -> Result<(), ReplayError> {
        if !self.receipts.fill_page().await? {
            self.audit.receipts_ended();
            return Ok(());
        }
        let ReceiptPages { page, shown, .. } = &mut self.receipts;
        while self.audit.wants_receipts_for(record)
            && show_receipt(&mut self.audit, page, shown, &mut self.found)?
        {}
        if self.receipts.is_used_up() {
            sink.note_progress(self.audit.last_receipt_seen(), self.done.runs);
        }
        self.tell_found(sink);
        Ok(())
    }

    fn show_page(&mut self, sink: &mut dyn Sink) -> Result<(), ReplayError> {
        let ReceiptPages { page, shown, .. } = &mut self.receipts;
        while show_receipt(&mut self.audit, page, shown, &mut self.found)? {}
        self.tell_found(sink);
        sink.note_progress(self.audit.last_receipt_seen(), self.done.runs);
        Ok(())
    }

    /// Tells the sink what was found that belongs to no terminal record.
    fn tell_found(&mut self, sink: &mut dyn Sink) {
        if !self.found.is_empty() {
            sink.take_divergences(std::mem::take(&mut self.found));
        }
    }

    /// Takes the next run record; returns whether to go on.
    async fn take_record(
        &mut self,
        at: RunSeq,
        record: RunRecord,
        sink: &mut dyn Sink,
    ) -> Result<bool, ReplayError> {
        self.done.runs = at;
        // The state that the call before computed has to be known.
        while self.plan.state_from == StateFrom::Replay && self.calls.contains_key(&record.facts.symbol) {
            if !self.deliver_first(sink).await? {
                return Ok(false);
            }
        }
        let step = self.audit.take_run_record(at, &record, &mut self.found);
        if !record.is_terminal() {
            self.tell_found(sink);
            return Ok(true);
        }
        let found = std::mem::take(&mut self.found);
        let included = self.plan.includes_run(at, &record);
        self.done.replayed += u64::from(included);
        self.enqueue_run(
            step,
            ReplayedRun {
                at,
                replayed: record.clone(),
                recorded: record,
                call: None,
                engine: None,
                failure: None,
                found,
                included,
            },
        );
        while self.plan.calls_max.max(1) <= self.waiting.len() || self.first_is_ready() {
            if !self.deliver_first(sink).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn enqueue_run(&mut self, step: AuditStep, mut run: ReplayedRun) {
        let answer = match (step, &self.answers) {
            (AuditStep::Call(call), Answers::Engine(engine)) if run.included => {
                *self.calls.entry(run.recorded.facts.symbol.clone()).or_default() += 1;
                run.call = Some((*call).clone());
                let engine = Arc::clone(engine);
                Some(AbortOnDropHandle::new(tokio::spawn(
                    async move { ask_engine(engine.as_ref(), &call).await },
                )))
            }
            (AuditStep::Call(call), Answers::Engine(_) | Answers::Recorded) => {
                run.call = Some(*call);
                self.audit.accept_recorded_state(&run.recorded);
                None
            }
            (AuditStep::Settled(settled), _) => {
                run.replayed = *settled;
                None
            }
            (AuditStep::Nothing, _) => None,
        };
        self.waiting.push_back(PendingRun { run, answer });
    }

    fn first_is_ready(&self) -> bool {
        self.waiting
            .front()
            .is_some_and(|first| first.answer.as_ref().is_none_or(|answer| answer.is_finished()))
    }

    async fn deliver_all(&mut self, sink: &mut dyn Sink) -> Result<(), ReplayError> {
        while !self.waiting.is_empty() && self.deliver_first(sink).await? {}
        self.waiting.clear();
        Ok(())
    }

    /// Hands the first waiting run to the sink; returns whether to go on.
    async fn deliver_first(&mut self, sink: &mut dyn Sink) -> Result<bool, ReplayError> {
        let Some(PendingRun { mut run, answer }) = self.waiting.pop_front() else { return Ok(true) };
        if let Some(answer) = answer {
            let answer = answer.await.unwrap_or_else(|error| {
                Err(EngineError::no_answer(ErrorKind::EngineFailure, error.to_string()))
            });
            self.note_answered(&run.recorded.facts.symbol);
            if let Err(source) = &answer
                && !source.said
            {
                let facts = &run.recorded.facts;
                let (run_id, symbol) = (facts.run_id, facts.symbol.clone());
                // No later run is handed out, since this one would be missing; what was found without the engine stands.
                self.found.append(&mut run.found);
                self.found.extend(self.waiting.drain(..).flat_map(|waiting| waiting.run.found));
                return Err(ReplayError::Engine { at: run.at, run_id, symbol, source: source.clone() });
            }
            if let Answers::Engine(engine) = &self.answers {
                run.engine = Some(engine.identity());
            }
            run.failure = answer.as_ref().err().cloned();
            run.replayed = self.audit.compare_answer(run.at, &run.recorded, answer, &mut run.found);
            // A replayed record says who answered now.
            if let (RunStatus::Completed { engine, .. }, Some(now)) = (&mut run.replayed.status, &run.engine)
            {
                engine.clone_from(now);
            }
        }
        Ok(sink.take_run(run).await)
    }

    fn note_answered(&mut self, symbol: &Symbol) {
        if let Some(calls) = self.calls.get_mut(symbol) {
            *calls -= 1;
            if *calls == 0 {
                self.calls.remove(symbol);
            }
        }
    }
}

impl ReceiptPages {
    fn is_used_up(&self) -> bool {
        self.page.len() <= self.shown
    }

    /// Makes sure that the page holds something to show; `false` at the end of the log.
    async fn fill_page(&mut self) -> Result<bool, ReplayError> {
        if !self.is_used_up() {
            return Ok(true);
        }
        match self.pages.next_page().await.map_err(|source| unreadable_log(LogName::Receipts, source))? {
            None => Ok(false),
            Some(page) => {
                self.page = page;
                self.shown = 0;
                Ok(true)
            }
        }
    }
}

/// Shows the next receipt of a page; `false` when there is none.
fn show_receipt(
    audit: &mut Audit,
    page: &RecordBatch,
    shown: &mut usize,
    found: &mut Vec<Divergence>,
) -> Result<bool, ReplayError> {
    let Some(payload) = page.get(*shown) else { return Ok(false) };
    let at = Seq(page.first_seq().0 + *shown as u64);
    let record =
        ReceiptRecord::decode(payload).map_err(|error| undecodable_record(LogName::Receipts, at, &error))?;
    audit.take_receipt(at, &record, found);
    *shown += 1;
    Ok(true)
}

/// Asks the engine, again where that can help.
async fn ask_engine(engine: &dyn Engine, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
    let mut calls = 1;
    loop {
        match engine.call(call).await {
            Err(error) if error.kind.is_retryable() && calls < CALLS_PER_RUN_MAX => calls += 1,
            answer => return answer,
        }
    }
}

/// The first record of a log that continues behind `before`.
fn begins_at(log: LogName, from: &dyn Log, before: Seq) -> Result<Seq, ReplayError> {
    let start = from.stat().start;
    if before.next() < start {
        return Err(ReplayError::Trimmed { log, start });
    }
    Ok(before.next())
}

async fn read_outline(runs: &Arc<dyn Log>, first: Seq, last: Seq) -> Result<RunLogOutline, ReplayError> {
    let mut outline = RunLogOutline::default();
    let mut pages = Pages::read_ahead(Arc::clone(runs), first, Some(last));
    loop {
        let page = match pages.next_page().await {
            Ok(Some(page)) => page,
            Ok(None) | Err(ReadError::Corrupt { .. }) => return Ok(outline),
            Err(source) => return Err(unreadable_log(LogName::Runs, source)),
        };
        for (_, payload) in page.iter() {
            match RunRecord::decode(payload) {
                Ok(record) => outline.note_record(&record),
                Err(_) => return Ok(outline),
            }
        }
    }
}

const fn unreadable_log(log: LogName, source: ReadError) -> ReplayError {
    ReplayError::Read { log, source }
}

fn undecodable_record(log: LogName, at: Seq, error: &dyn std::fmt::Display) -> ReplayError {
    unreadable_log(log, ReadError::Corrupt { at, detail: error.to_string() })
}
