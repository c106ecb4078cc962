//! A small model of the live system for tests: buffer, scheduler, runners and run log as plain calls, without actors.
//!
//! It follows the actors step by step, so that a random history goes through the kernel as it does in the service;
//! what the service does concurrently is an order of operations here.

mod let_go;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use crate::engine::cadence::{Cadence, Tick};
use crate::engine::contracts::engine_run::RunRecord;
use crate::engine::contracts::raw_market_event::normalized;
use crate::engine::contracts::receipt::ReceiptRecord;
use crate::engine::cut::{CutBook, CutRequest, Rebuild, SymbolCut};
use crate::engine::retention::{RetentionBase, Scheduled};
use crate::engine::run::{self, Attempts, RunIndex};
use crate::error::ErrorKind;
use crate::ids::{EngineMode, IngestSeq, Symbol, TsMs};
use crate::ports::engine::{EngineAnswer, EngineCall, EngineError, EngineIdentity};

pub(crate) use let_go::{advance, later};

/// The symbols that receipts come for; the last one is not listed.
const SYMBOLS: [&str; 4] = ["A", "B", "C", "unlisted"];
const LISTED: usize = 3;
const TYPES: [&str; 3] = ["TradeTick", "Candle", "Brand/New"];
const INTERVAL_MS: i64 = 100;
const CADENCE: Cadence = Cadence::Boundary { interval_ms: INTERVAL_MS, delay_ms: 7 };
const ATTEMPTS_MAX: u32 = 3;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Time passes, then a receipt arrives. A snapshot is for the next engine timestamp plus this offset.
    Receipt { wait_ms: i64, symbol: usize, kind: usize, snapshot: Option<i64> },
    /// The next tick but `missed` fires, without the symbols of `busy`; the one after it is armed `arm_off_by` beside
    /// its time, or not at all.
    Tick { missed: u8, busy: u8, arm_off_by: Option<i64> },
    /// A symbol's oldest outstanding run is made.
    Run { symbol: usize, errors: u32, gives_up: bool },
    /// A symbol's runner dies, perhaps in the middle of a run, and starts again.
    RunnerRestart { symbol: usize, begun: bool },
    /// The buffer saves its book.
    Checkpoint,
    /// The process dies with runs begun for the symbols of `begun`, and starts again in another mode perhaps.
    Crash { begun: u8, uses_checkpoint: bool, mode: EngineMode },
    /// The process stops and starts again with these symbols, or all that are discovered.
    Relist { listed: Option<u8>, uses_checkpoint: bool },
    /// Retention lets these parts of the receipts and of the run records go, as far as they are not needed.
    LetGo { receipts: u8, runs: u8 },
}

/// A random history.
pub(crate) fn history() -> impl Strategy<Value = (bool, Vec<Op>)> {
    (any::<bool>(), prop::collection::vec(op(), 1..160))
}

/// A random history of a service with retention, whose symbols are listed and taken out.
pub(crate) fn trimmed_history() -> impl Strategy<Value = (bool, Vec<Op>)> {
    // Not only the one that never gets to run alone, nor none.
    let listed = prop_oneof![4 => (1..16u8).prop_map(Some), 1 => Just(None)];
    let parts = prop_oneof![1 => Just(255u8), 1 => any::<u8>()];
    let op = prop_oneof![
        24 => op(),
        1 => (listed, any::<bool>()).prop_map(|(listed, uses_checkpoint)| Op::Relist { listed, uses_checkpoint }),
        2 => (parts, prop_oneof![Just(0u8), any::<u8>()])
            .prop_map(|(receipts, runs)| Op::LetGo { receipts, runs }),
    ];
    (any::<bool>(), prop::collection::vec(op, 1..240))
}

fn op() -> impl Strategy<Value = Op> {
    let snapshot = prop_oneof![
        3 => Just(None),
        4 => Just(Some(0)),
        1 => prop::sample::select(vec![-100i64, 13, 100, 200]).prop_map(Some),
    ];
    let mode = prop_oneof![Just(EngineMode::Truth), Just(EngineMode::Hysteresis)];
    let arm = prop_oneof![4 => Just(Some(0i64)), 1 => Just(None), 1 => (-60..60i64).prop_map(Some)];
    prop_oneof![
        12 => (0..40i64, 0..SYMBOLS.len(), 0..TYPES.len(), snapshot)
            .prop_map(|(wait_ms, symbol, kind, snapshot)| Op::Receipt { wait_ms, symbol, kind, snapshot }),
        3 => (prop_oneof![5 => Just(0u8), 1 => 1..3u8], prop_oneof![Just(0u8), any::<u8>()], arm)
            .prop_map(|(missed, busy, arm_off_by)| Op::Tick { missed, busy, arm_off_by }),
        6 => (0..SYMBOLS.len(), 0..5u32, prop::bool::weighted(0.1))
            .prop_map(|(symbol, errors, gives_up)| Op::Run { symbol, errors, gives_up }),
        1 => (0..SYMBOLS.len(), any::<bool>()).prop_map(|(symbol, begun)| Op::RunnerRestart { symbol, begun }),
        1 => Just(Op::Checkpoint),
        1 => (any::<u8>(), prop::bool::weighted(0.8), mode)
            .prop_map(|(begun, uses_checkpoint, mode)| Op::Crash { begun, uses_checkpoint, mode }),
    ]
}

/// A receipt in the log.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) ingest_ts_ms: TsMs,
    pub(crate) symbol: &'static str,
    pub(crate) event_type: &'static str,
    pub(crate) snapshot_ts_ms: Option<TsMs>,
    pub(crate) event: String,
}

/// The log's records with their positions.
pub(crate) fn records(log: &[Stored]) -> impl Iterator<Item = ReceiptRecord<'_>> {
    log.iter().zip(1..).map(|(stored, seq)| ReceiptRecord {
        ingest_seq: IngestSeq(seq),
        ingest_ts_ms: stored.ingest_ts_ms,
        origin: "o",
        position: seq,
        symbol: stored.symbol,
        event_type: stored.event_type,
        snapshot_ts_ms: stored.snapshot_ts_ms,
        event: stored.event.as_bytes(),
    })
}

/// Requests and cuts of one seal.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) tick: Tick,
    pub(crate) requests: Vec<CutRequest>,
    pub(crate) end: IngestSeq,
    pub(crate) cuts: Vec<SymbolCut>,
    /// How many of the cuts were at hand.
    pub(crate) quick: usize,
    /// How long the log was.
    pub(crate) log_len: usize,
}

#[derive(Debug, Default)]
struct Lane {
    next_start: Option<IngestSeq>,
    floor: Option<TsMs>,
    outstanding: VecDeque<(Tick, SymbolCut)>,
}

/// The system after some history.
#[derive(Debug)]
pub(crate) struct Live {
    /// The receipt log.
    pub(crate) log: Vec<Stored>,
    /// The run log.
    pub(crate) runs: Vec<RunRecord>,
    /// The index of the run log.
    pub(crate) index: RunIndex,
    /// Every seal.
    pub(crate) taken: Vec<Taken>,
    /// Each base that was saved, the last one at the end.
    pub(crate) bases: Vec<RetentionBase>,
    book: CutBook,
    lanes: BTreeMap<Symbol, Lane>,
    scheduled: Scheduled,
    mode: EngineMode,
    now: TsMs,
    sealed: Option<TsMs>,
    next: Tick,
    checkpoint: Option<Vec<u8>>,
}

impl Live {
    /// What a history leads to.
    pub(crate) fn after((discover, ops): (bool, Vec<Op>)) -> Self {
        let now = TsMs(1_000_000);
        let mut live = Self {
            log: Vec::new(),
            runs: Vec::new(),
            index: RunIndex::default(),
            taken: Vec::new(),
            bases: Vec::new(),
            book: CutBook::default(),
            lanes: BTreeMap::new(),
            scheduled: scheduled(Some((1 << LISTED) - 1).filter(|_| !discover)),
            mode: EngineMode::Hysteresis,
            now,
            sealed: None,
            next: CADENCE.first_tick(now),
            checkpoint: None,
        };
        live.admit_lanes();
        live.book.arm_seal(live.next.planned_ts_ms);
        ops.into_iter().for_each(|op| live.step(op));
        live
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Receipt { wait_ms, symbol, kind, snapshot } => self.receive(wait_ms, symbol, kind, snapshot),
            Op::Tick { missed, busy, arm_off_by } => {
                (0..missed).for_each(|_| self.next = CADENCE.tick_after(self.next.planned_ts_ms));
                let tick = self.next;
                self.now = self.now.max(tick.planned_ts_ms);
                self.next = CADENCE.tick_after(tick.planned_ts_ms);
                let next = arm_off_by.map(|off_by| self.next.planned_ts_ms.plus_ms(off_by));
                self.fire(tick, |index| busy & (1 << index) == 0, next);
            }
            Op::Run { symbol, errors, gives_up } => self.run_next(symbol, errors, gives_up),
            Op::RunnerRestart { symbol, begun } => self.restart_runner(symbol, begun),
            Op::Checkpoint => {
                self.checkpoint = Some(postcard::to_stdvec(&self.book.to_checkpoint()).unwrap());
            }
            Op::Crash { begun, uses_checkpoint, mode } => {
                (0..SYMBOLS.len())
                    .filter(|index| begun & (1 << index) != 0)
                    .for_each(|index| drop(self.begin(index)));
                self.mode = mode;
                self.recover(uses_checkpoint);
            }
            Op::Relist { listed, uses_checkpoint } => {
                self.scheduled = scheduled(listed);
                self.recover(uses_checkpoint);
            }
            Op::LetGo { receipts, runs } => self.let_go(receipts, runs),
        }
    }

    /// As the buffer's `number` and `observe`.
    fn receive(&mut self, wait_ms: i64, symbol: usize, kind: usize, snapshot: Option<i64>) {
        self.now = self.now.plus_ms(wait_ms);
        let last = self.log.last().map(|stored| stored.ingest_ts_ms);
        let floor = last.max(self.sealed.map(|sealed| sealed.plus_ms(1)));
        let snapshot_ts_ms = snapshot.map(|offset| self.next.engine_timestamp_ms.plus_ms(offset));
        let n = self.log.len();
        let event = match snapshot_ts_ms {
            Some(ts) => {
                format!(r#"{{"n":{n},"normalized":{{"flow":{{"cvd":{n}.50}},"timestamp_ms":{ts}}}}}"#)
            }
            None => format!(r#"{{"n":{n},"normalized":{{}}}}"#),
        };
        self.log.push(Stored {
            ingest_ts_ms: floor.map_or(self.now, |floor| self.now.max(floor)),
            symbol: SYMBOLS[symbol],
            event_type: if snapshot.is_some() { "SnapshotInputs" } else { TYPES[kind] },
            snapshot_ts_ms,
            event,
        });
        self.book.observe_receipt(&records(&self.log).last().unwrap());
        if self.discovers() {
            for symbol in self.book.take_discovered() {
                self.lanes.entry(symbol).or_default();
            }
        }
    }

    /// As the scheduler's `fire` and the buffer's `take_cuts`.
    fn fire(&mut self, tick: Tick, wanted: impl Fn(usize) -> bool, next: Option<TsMs>) {
        let (planned, engine_ts) = (tick.planned_ts_ms, tick.engine_timestamp_ms);
        let requests: Vec<CutRequest> = SYMBOLS
            .iter()
            .enumerate()
            .filter(|(index, _)| wanted(*index))
            .filter_map(|(_, name)| self.lanes.get_key_value(*name))
            .filter(|(_, lane)| lane.floor.is_none_or(|floor| floor < engine_ts))
            .map(|(symbol, lane)| CutRequest {
                symbol: symbol.clone(),
                start: lane.next_start,
                floor: lane.floor,
                only_if_seen: self.discovers() && lane.next_start.is_none(),
            })
            .collect();
        self.sealed = self.sealed.max(Some(planned));
        let sealed = self.book.seal_tick(planned, engine_ts, requests.clone(), next);
        let end = sealed.end.unwrap_or_else(|| last_at_or_before(&self.log, planned));
        let (mut cuts, quick) = (sealed.cuts.clone(), sealed.cuts.len());
        if !sealed.missing.is_empty() {
            let kept = self.base().receipts_from();
            let from = Rebuild::new(end, engine_ts, sealed.missing.clone()).from();
            assert!(kept <= from, "receipts from {from} are wanted, those before {kept} are gone");
            let (rebuilt, slices) = rebuild(&self.log, end, engine_ts, sealed.missing);
            slices.into_iter().for_each(|(symbol, slice)| self.book.restore_slice(symbol, slice));
            cuts.extend(rebuilt);
        }
        for cut in &cuts {
            let lane = self.lanes.get_mut(&cut.symbol).unwrap();
            lane.next_start = Some(cut.end.next());
            lane.floor = Some(engine_ts);
            lane.outstanding.push_back((tick, cut.clone()));
        }
        self.taken.push(Taken { tick, requests, end, cuts, quick, log_len: self.log.len() });
    }

    fn run_next(&mut self, symbol: usize, errors: u32, gives_up: bool) {
        if let Some(attempts) = self.begin(symbol) {
            self.finish(attempts, errors, gives_up);
        }
    }

    /// As the runner's `run` up to the durable `started` record.
    fn begin(&mut self, symbol: usize) -> Option<Attempts> {
        let lane = self.lanes.get_mut(SYMBOLS[symbol])?;
        let (tick, cut) = lane.outstanding.pop_front()?;
        let symbol_seq = self.index.symbol_runs(&cut.symbol).outputs + 1;
        let started = run::first_started_record(tick, cut, self.mode, self.now, symbol_seq);
        let facts = started.facts.clone();
        self.record(started);
        Some(Attempts::first_attempt(facts))
    }

    /// As the runner's `finish`: the engine fails `errors` times, then answers; or the service gives up before.
    fn finish(&mut self, mut attempts: Attempts, errors: u32, gives_up: bool) {
        let facts = attempts.facts().clone();
        let Some(seq) = facts.snapshot_seq else {
            let error = run::missing_snapshot(&facts);
            return self.record(attempts.failed_record(&error, self.now));
        };
        let event = &self.log[usize::try_from(seq.0).unwrap() - 1].event;
        let call = EngineCall {
            symbol: facts.symbol.clone(),
            engine_timestamp_ms: facts.engine_timestamp_ms,
            mode: facts.engine_mode,
            inputs: normalized(event.as_bytes()).unwrap().to_owned(),
            state: (facts.engine_mode == EngineMode::Hysteresis)
                .then(|| self.index.symbol_runs(&facts.symbol).hysteresis_state)
                .flatten(),
        };
        for error in 1..=errors.min(ATTEMPTS_MAX) {
            attempts.note_error();
            if error == ATTEMPTS_MAX {
                let error = EngineError::no_answer(ErrorKind::EngineTimeout, "no answer");
                return self.record(attempts.failed_record(&error, self.now));
            }
            if gives_up {
                let error = EngineError::no_answer(ErrorKind::Shutdown, "stopped");
                return self.record(attempts.failed_record(&error, self.now));
            }
            attempts.note_retry();
        }
        self.record(attempts.completed_record(engine(&call), EngineIdentity::default(), self.now));
    }

    fn record(&mut self, record: RunRecord) {
        self.index.admit_record(&record).unwrap();
        self.runs.push(record);
    }

    /// As the runner's `recover`: what has a `started` record only is finished under the same id (RUN-4).
    fn finish_interrupted(&mut self, symbol: &Symbol) {
        let Some((facts, attempts)) = self.index.symbol_runs(symbol).open else { return };
        let mut again = Attempts::new(facts, attempts);
        if again.facts().snapshot_seq.is_some() {
            again.note_retry();
            self.record(again.started_record());
        }
        self.finish(again, 0, false);
    }

    /// As the runner's restart and the scheduler's `runner_up`: what was outstanding is taken from the log again.
    fn restart_runner(&mut self, symbol: usize, begun: bool) {
        if begun {
            drop(self.begin(symbol));
        }
        let Some((symbol_name, lane)) = self.lanes.get_key_value(SYMBOLS[symbol]) else { return };
        let (name, outstanding) = (symbol_name.clone(), lane.outstanding.clone());
        self.finish_interrupted(&name);
        self.reset_lane(&name);
        let floor = self.lanes[&name].floor;
        for (tick, _) in outstanding {
            if floor.is_none_or(|floor| floor < tick.engine_timestamp_ms) {
                self.fire(tick, |index| index == symbol, Some(self.next.planned_ts_ms));
            }
        }
    }

    fn reset_lane(&mut self, symbol: &Symbol) {
        let runs = self.index.symbol_runs(symbol);
        let lane =
            Lane { next_start: runs.next_start(), floor: runs.last_engine_ts, outstanding: VecDeque::new() };
        self.lanes.insert(symbol.clone(), lane);
    }

    fn admit_lanes(&mut self) {
        let known: BTreeSet<Symbol> = match &self.scheduled {
            Scheduled::Listed(symbols) => symbols.clone(),
            Scheduled::Discovered { .. } => self.book.symbols().cloned().collect(),
        };
        self.lanes = known.into_iter().map(|symbol| (symbol, Lane::default())).collect();
    }

    /// As `recovery::run_index`, `recovery::cut_book` and the scheduler's `first_ticks`.
    fn recover(&mut self, uses_checkpoint: bool) {
        let stored = postcard::to_stdvec(&self.index).unwrap();
        self.index = postcard::from_bytes(&stored).unwrap();
        self.index.resume_after(self.base().run_index());
        self.book = self.recovered_book(uses_checkpoint);
        self.book.take_discovered();
        self.sealed = self.index.last_planned_ts();
        self.admit_lanes();
        // Also of a symbol that is run no longer.
        for symbol in self.index.symbols().map(|(symbol, _)| symbol.clone()).collect::<Vec<_>>() {
            self.finish_interrupted(&symbol);
        }
        for symbol in self.lanes.keys().cloned().collect::<Vec<_>>() {
            self.reset_lane(&symbol);
        }
        match self.index.last_planned_ts() {
            None => self.next = CADENCE.first_tick(self.now),
            Some(last) => {
                self.next = CADENCE.tick_after(last);
                self.fire(CADENCE.planned_at(last), |_| true, Some(self.next.planned_ts_ms));
            }
        }
    }
}

/// The symbols of a mask, or all that are discovered.
fn scheduled(listed: Option<u8>) -> Scheduled {
    let Some(mask) = listed else { return Scheduled::Discovered { limit: usize::MAX } };
    let names = SYMBOLS.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0);
    Scheduled::Listed(names.map(|(_, name)| Symbol::from(*name)).collect())
}

/// The cut end of a planned time, by looking at every receipt.
pub(crate) fn last_at_or_before(log: &[Stored], planned: TsMs) -> IngestSeq {
    let end =
        records(log).filter(|record| record.ingest_ts_ms <= planned).map(|record| record.ingest_seq).max();
    end.unwrap_or_default()
}

/// Takes cuts from the log.
pub(crate) fn rebuild(
    log: &[Stored],
    end: IngestSeq,
    engine_ts: TsMs,
    requests: Vec<CutRequest>,
) -> (Vec<SymbolCut>, Vec<(Symbol, crate::engine::cut::OpenSlice)>) {
    let mut rebuild = Rebuild::new(end, engine_ts, requests);
    let from = rebuild.from();
    records(log)
        .filter(|record| from <= record.ingest_seq)
        .for_each(|record| rebuild.observe_receipt(&record));
    rebuild.into_cuts()
}

/// A pure engine: its answer shows every byte of its call.
pub(crate) fn engine(call: &EngineCall) -> EngineAnswer {
    let EngineCall { symbol, engine_timestamp_ms, mode, inputs, state } = call;
    let regime_output =
        format!(r#"{{"inputs":{inputs},"symbol":"{symbol}","timestamp":{engine_timestamp_ms}}}"#);
    let state = state.as_deref().unwrap_or("null");
    match mode {
        EngineMode::Truth => {
            EngineAnswer::Truth { regime_output: format!(r#"{{"output":{regime_output},"state":{state}}}"#) }
        }
        EngineMode::Hysteresis => {
            // The state remembers how long the chain of states is, so a state that was skipped shows for ever.
            let updates = state
                .bytes()
                .filter(|byte| byte.is_ascii_digit())
                .fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
            EngineAnswer::Hysteresis {
                decision: format!(r#"{{"selected_output":{regime_output},"state":{state}}}"#),
                state: format!(r#"{{"last":{engine_timestamp_ms},"updates":{updates}}}"#),
            }
        }
    }
}
