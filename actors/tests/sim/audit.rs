//! The invariants, on what ports see. Written apart from the kernel's own checks, so that a defect there is no defect
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt;
use orchestrator_actors::testkit::{replayed_bodies, without_publish_time};
use orchestrator_kernel::engine::contracts::engine_run::{RunFacts, RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::manifest::{ManifestEntry, OutputsAct};
use orchestrator_kernel::engine::contracts::orchestrator_event::{events, outputs_of};
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::raw_market_event::normalized;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::outbox::{Holds, PublishProgress};
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Seq, Symbol, TsMs};
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineCall};
use orchestrator_kernel::ports::fan_out::OutputMessage;
use orchestrator_kernel::ports::log::{Log, ReadLimit};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::ports::source::ItemFate;

/// An objection, or nothing.
pub(crate) type Checked = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

mod retention;

pub(crate) use self::retention::Stage;

/// Runs a check with the kernel as it is meant to be, also while a mutant lives in the product.
pub(crate) fn as_it_should_be<T>(check: impl FnOnce() -> T) -> T {
    #[cfg(feature = "mutants")]
    return orchestrator_kernel::mutants::suspended(check);
    #[cfg(not(feature = "mutants"))]
    check()
}

/// The runs of one symbol.
#[derive(Debug, Default)]
struct Runs {
    last: Option<RunFacts>,
    /// The run without a terminal record, with its attempts.
    open: Option<(RunFacts, u32)>,
    ended: BTreeSet<RunId>,
    state: Option<String>,
    outputs: u64,
    /// Outputs that subscribers have, from the first on without a hole.
    taken: u64,
    /// What they have, by number.
    bodies: BTreeMap<u64, String>,
}

/// Everything that is durable or was seen outside.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    receipts: Vec<Vec<u8>>,
    stamps: Vec<TsMs>,
    positions: BTreeMap<String, u64>,
    /// How often the bytes of an item stand in the receipt log or in the quarantine.
    stored: BTreeMap<Vec<u8>, u64>,
    quarantine: Vec<Vec<u8>>,
    /// The first receipt of each symbol.
    firsts: BTreeMap<Symbol, IngestSeq>,
    records: Vec<RunRecord>,
    runs: BTreeMap<Symbol, Runs>,
    sealed: Option<TsMs>,
    outputs: u64,
    confirmed: BTreeSet<(RunSeq, u32)>,
    /// The cursor of the last save that was checked, and the outputs up to there.
    cursor: (u64, u64),
    /// Outputs up to the cursor that this life began with; nothing before it was loaded.
    loaded: Option<u64>,
    open_at_start: u64,
    outputs_at_start: u64,
    kept: retention::Kept,
    /// Operators' acts.
    manifests: Option<Arc<MemoryLog>>,
}

/// Which log a record landed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Receipts,
    Quarantine,
    Runs,
}

impl Audit {
    /// Where operators' acts are recorded.
    pub(crate) fn set_manifests(&mut self, manifests: Arc<MemoryLog>) {
        self.manifests = Some(manifests);
    }

    /// Outputs that operators let go, as far as that is durable.
    fn let_go(&self) -> BTreeSet<(Symbol, u64)> {
        let read =
            self.manifests.as_ref().and_then(|log| log.read(Seq(1), ReadLimit::default()).now_or_never());
        let batch = read.and_then(Result::ok).unwrap_or_default();
        let mut let_go = BTreeSet::new();
        for (_, payload) in batch.iter() {
            if let Ok(ManifestEntry::Operator(record)) = ManifestEntry::decode(payload)
                && let OutputsAct::Skip { symbol, first, last, .. } = record.act
            {
                let_go.extend((first..=last).map(|number| (symbol.clone(), number)));
            }
        }
        let_go
    }

    pub(crate) fn begin_life(&mut self) {
        self.loaded = None;
        self.kept.base_outputs = 0;
        self.kept.stage = Stage::Idle;
    }

    /// The run log has a new writer: what it finds is what an earlier one left.
    pub(crate) fn runs_acquired(&mut self) {
        self.open_at_start = self.open_runs();
        self.outputs_at_start = self.outputs;
    }

    /// Records of this log that were looked at.
    pub(crate) fn seen(&self, role: Role) -> usize {
        match role {
            Role::Receipts => self.receipts.len(),
            Role::Quarantine => self.quarantine.len(),
            Role::Runs => self.records.len(),
        }
    }

    /// A record stands in a log that was not there before.
    pub(crate) fn landed(&mut self, role: Role, payload: &[u8]) -> Checked {
        match role {
            Role::Receipts => self.receipt(payload),
            Role::Quarantine => {
                let record = QuarantineRecord::decode(payload).map_err(|error| error.to_string())?;
                self.quarantine.push(payload.to_vec());
                *self.stored.entry(record.bytes).or_default() += 1;
                Ok(())
            }
            Role::Runs => self.run(payload),
        }
    }

    fn receipt(&mut self, payload: &[u8]) -> Checked {
        let record = ReceiptRecord::decode(payload).map_err(|error| error.to_string())?;
        let seq = self.receipts.len() as u64 + 1;
        must!(record.ingest_seq.0 == seq, "LOG-1: record {seq} says that it is {}", record.ingest_seq);
        let stamp = record.ingest_ts_ms;
        must!(
            self.stamps.last().is_none_or(|last| *last <= stamp),
            "LOG-5: receipt {seq} is older than the one before"
        );
        must!(
            self.sealed.is_none_or(|sealed| sealed < stamp),
            "CUT-2: receipt {seq} at {stamp} came after the seal of {:?}",
            self.sealed
        );
        if record.position > 0 {
            let last = self.positions.entry(record.origin.to_owned()).or_default();
            must!(
                *last < record.position,
                "position {} of {} is stored twice",
                record.position,
                record.origin
            );
            *last = record.position;
        }
        *self.stored.entry(record.event.to_vec()).or_default() += 1;
        if !self.firsts.contains_key(record.symbol) {
            self.firsts.insert(Symbol::from(record.symbol), record.ingest_seq);
        }
        self.stamps.push(stamp);
        self.receipts.push(payload.to_vec());
        Ok(())
    }

    fn run(&mut self, payload: &[u8]) -> Checked {
        let record = RunRecord::decode(payload).map_err(|error| error.to_string())?;
        let facts = &record.facts;
        let runs = self.runs.entry(facts.symbol.clone()).or_default();
        let id = facts.run_id;
        match &record.status {
            RunStatus::Started { attempts } => match &runs.open {
                Some((open, before)) => {
                    must!(open == facts, "RUN-4: run {id} started while {} is open", open.run_id);
                    must!(
                        before < attempts,
                        "RUN-4: run {id} started again as attempt {attempts} after {before}"
                    );
                    runs.open = Some((facts.clone(), *attempts));
                }
                None => {
                    check_start(runs, facts)?;
                    check_cut(&self.stamps, facts)?;
                    self.kept.check_start(facts)?;
                    runs.open = Some((facts.clone(), *attempts));
                    runs.last = Some(facts.clone());
                    self.sealed = self.sealed.max(Some(facts.planned_ts_ms));
                }
            },
            RunStatus::Completed { .. } | RunStatus::Failed { .. } => {
                must!(runs.ended.insert(id), "RUN-2: run {id} ends twice");
                let open = runs.open.take();
                must!(
                    open.is_some_and(|(open, _)| open == *facts),
                    "RUN-1: run {id} ends, but it is not open"
                );
            }
        }
        if let RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } = &record.status {
            runs.state = Some(state.clone());
        }
        must!(
            !record.is_terminal() || facts.symbol_seq == runs.outputs + 1,
            "outputs of run {id} are numbered from {}, {} are there",
            facts.symbol_seq,
            runs.outputs
        );
        runs.outputs += outputs_of(&record);
        self.outputs += outputs_of(&record);
        self.records.push(record);
        Ok(())
    }

    /// RUN-1, RUN-4: the engine is asked only for a run whose start is durable, with the state that the log holds.
    pub(crate) fn called(&self, call: &EngineCall) -> Checked {
        let runs = self.runs.get(&call.symbol);
        let open = runs.and_then(|runs| runs.open.as_ref()).map(|(facts, _)| facts);
        let Some(facts) = open.filter(|facts| facts.engine_timestamp_ms == call.engine_timestamp_ms) else {
            return Err(format!(
                "RUN-1: the engine is called for {} at {} without a durable start",
                call.symbol, call.engine_timestamp_ms
            ));
        };
        let state = runs.and_then(|runs| runs.state.clone()).filter(|_| call.mode == EngineMode::Hysteresis);
        must!(
            state == call.state,
            "the engine gets the state {:?} of {}, the log holds {state:?}",
            call.state,
            call.symbol
        );
        let at = facts.snapshot_seq.ok_or("the engine is called without a snapshot")?;
        let stored = self.receipts.get(at.0 as usize - 1).ok_or("the snapshot is not in the log")?;
        let record = ReceiptRecord::decode(stored).map_err(|error| error.to_string())?;
        must!(
            normalized(record.event) == Some(call.inputs.as_str()),
            "LOG-4: the engine does not get the bytes of receipt {at}"
        );
        Ok(())
    }

    /// LOG-2: what is acknowledged upstream is durable.
    pub(crate) fn settled<'a>(&self, items: impl Iterator<Item = &'a [u8]>, fates: &[ItemFate]) -> Checked {
        for (item, fate) in items.zip(fates) {
            must!(
                self.stored.contains_key(item),
                "LOG-2: {} is acknowledged as {fate:?} and not durable",
                String::from_utf8_lossy(item)
            );
        }
        Ok(())
    }

    /// How often an item is stored.
    pub(crate) fn stored(&self, item: &[u8]) -> u64 {
        self.stored.get(item).copied().unwrap_or(0)
    }

    /// OUT-1, RUN-1: subscribers get what the durable terminal records say, per symbol in order and without a hole.
    pub(crate) fn published(&mut self, message: &OutputMessage) -> Checked {
        let (seq, symbol) = (message.run_seq, &message.symbol);
        let Some(record) = self.records.get(seq.0 as usize - 1) else {
            return Err(format!("RUN-1: an output of run record {seq} is published before it is durable"));
        };
        let made = events(seq, record, None).map_err(|error| error.to_string())?;
        let body = without_publish_time(&message.body);
        let expected = made.get(message.index as usize).map(|expected| without_publish_time(&expected.body));
        must!(
            expected.as_ref() == Some(&body),
            "OUT-1: output {seq}.{} is not what its record says",
            message.index
        );
        let let_go = self.let_go();
        let runs = self.runs.entry(symbol.clone()).or_default();
        let missing =
            (runs.taken + 1..message.symbol_seq).find(|number| !let_go.contains(&(symbol.clone(), *number)));
        must!(
            missing.is_none(),
            "OUT-1: output {} of {symbol} comes after {}",
            message.symbol_seq,
            runs.taken
        );
        runs.taken = runs.taken.max(message.symbol_seq);
        runs.bodies.entry(message.symbol_seq).or_insert(body);
        Ok(())
    }

    pub(crate) fn confirmed(&mut self, messages: &[OutputMessage]) {
        self.confirmed.extend(messages.iter().map(|message| (message.run_seq, message.index)));
    }

    /// OUT-2: the cursor stands only behind messages that are confirmed, held, or let go by a durable record.
    pub(crate) fn cursor_saved(&mut self, value: &[u8]) -> Checked {
        let (run_seq, outputs, holds) = parse_cursor(value)?;
        let let_go = self.let_go();
        must!(
            run_seq as usize <= self.records.len(),
            "OUT-2: the cursor is at {run_seq}, the log ends at {}",
            self.records.len()
        );
        if run_seq < self.cursor.0 {
            // Begun again from an older cursor: that part was looked at.
            self.cursor = (0, 0);
        }
        let (mut seq, mut sum) = self.cursor;
        while seq < run_seq {
            let record = &self.records[seq as usize];
            let (made, symbol) = (outputs_of(record), &record.facts.symbol);
            seq += 1;
            for index in 0..made {
                let number = record.facts.symbol_seq + index;
                let there = self.confirmed.contains(&(RunSeq(seq), index as u32))
                    || let_go.contains(&(symbol.clone(), number))
                    || holds.iter().any(|(held, _, hold)| held == symbol && hold.first <= number);
                must!(there, "OUT-2: the cursor is at {run_seq}, but output {seq}.{index} was not confirmed");
            }
            sum += made;
        }
        if holds.is_empty() {
            // What is held now has to be looked at again.
            self.cursor = (seq, sum);
        }
        must!(sum == outputs, "OUT-2: the cursor counts {outputs} outputs up to {run_seq}, there are {sum}");
        Ok(())
    }

    /// The publisher's first load of this life.
    pub(crate) fn cursor_loaded(&mut self, value: Option<&[u8]>) {
        let parsed = value.and_then(|value| parse_cursor(value).ok());
        let outputs = parsed.map_or(0, |(_, outputs, holds)| outputs - holds.waiting_outputs());
        self.loaded.get_or_insert(outputs.max(self.kept.base_outputs));
    }

    pub(crate) fn open_runs(&self) -> u64 {
        self.runs.values().filter(|runs| runs.open.is_some()).count() as u64
    }

    /// What this life found: open runs, outputs behind the cursor.
    pub(crate) fn found_at_start(&self) -> (u64, u64) {
        (self.open_at_start, self.outputs_at_start.saturating_sub(self.loaded.unwrap_or(0)))
    }

    /// Outputs that subscribers do not have yet.
    pub(crate) fn missing_outputs(&self) -> u64 {
        let let_go = self.let_go();
        let missing = |(symbol, runs): (&Symbol, &Runs)| {
            let left =
                (runs.taken + 1..=runs.outputs).filter(|number| !let_go.contains(&(symbol.clone(), *number)));
            left.count() as u64
        };
        self.runs.iter().map(missing).sum()
    }

    /// Engine time of the symbol's last ended run.
    pub(crate) fn last_run(&self, symbol: &str) -> Option<TsMs> {
        let runs = self.runs.get(symbol)?;
        runs.last.as_ref().filter(|_| runs.open.is_none()).map(|facts| facts.engine_timestamp_ms)
    }

    /// REP-1, OUT-1: what subscribers have is what the two logs alone give. CUT-2: every cut again, from the receipts.
    pub(crate) fn oracle(&self) -> Checked {
        for record in &self.records {
            check_cut(&self.stamps, &record.facts)?;
        }
        let replayed = std::panic::catch_unwind(|| replayed_bodies(&self.receipts, &self.records));
        let replayed = replayed.map_err(|panic| {
            let what = panic.downcast_ref::<String>().map_or("", String::as_str);
            format!("REP-1: the logs contradict each other in a replay: {what:.2000}")
        })?;
        if self.is_trimmed() {
            self.oracle_from_the_base()?;
        }
        let let_go = self.let_go();
        for (symbol, runs) in &self.runs {
            let expected = replayed.get(symbol).map_or(&[][..], Vec::as_slice);
            let is_as_expected = |(number, expected): &(u64, &String)| match runs.bodies.get(number) {
                Some(found) => found == *expected,
                None => let_go.contains(&(symbol.clone(), *number)),
            };
            let differs = (1..).zip(expected).position(|numbered| !is_as_expected(&numbered));
            let is_more = runs.bodies.keys().any(|number| (expected.len() as u64) < *number);
            must!(
                differs.is_none() && !is_more,
                "REP-1: {symbol} has {} outputs, replay gives {}, the first difference is at {differs:?}",
                runs.bodies.len(),
                expected.len()
            );
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> (usize, usize, usize, u64) {
        (self.receipts.len(), self.quarantine.len(), self.records.len(), self.outputs)
    }
}

/// RUN-3, CUT-1: a new run of a symbol comes after the one before it, and its cut begins where that one's ended.
fn check_start(runs: &Runs, facts: &RunFacts) -> Checked {
    let id = facts.run_id;
    let named = RunId::derive(&facts.symbol, facts.engine_timestamp_ms, facts.cut.end, facts.engine_mode);
    must!(named == id, "run {id} should have the id {named}");
    must!(!runs.ended.contains(&id), "RUN-2: run {id} starts after its end");
    must!(facts.cut.start <= facts.cut.end.next(), "CUT-1: the cut of run {id} ends before it begins");
    let Some(last) = &runs.last else { return Ok(()) };
    must!(
        last.engine_timestamp_ms < facts.engine_timestamp_ms,
        "RUN-3: run {id} is not later than the one before"
    );
    must!(
        last.cut.end.next() == facts.cut.start,
        "CUT-1: run {id} starts at {}, the last cut ended at {}",
        facts.cut.start,
        last.cut.end
    );
    Ok(())
}

/// CUT-2: the end is the highest sequence stamped at or before the planned time; the snapshot lies in the cut.
fn check_cut(stamps: &[TsMs], facts: &RunFacts) -> Checked {
    let end = stamps.partition_point(|stamp| *stamp <= facts.planned_ts_ms) as u64;
    must!(
        end == facts.cut.end.0,
        "CUT-2: the cut of run {} planned for {} ends at {}, the receipts say {end}",
        facts.run_id,
        facts.planned_ts_ms,
        facts.cut.end
    );
    let inside = facts.snapshot_seq.is_none_or(|seq| facts.cut.start <= seq && seq <= facts.cut.end);
    must!(inside, "the snapshot {:?} of run {} is not in its cut", facts.snapshot_seq, facts.run_id);
    Ok(())
}

fn parse_cursor(value: &[u8]) -> Result<(u64, u64, Holds), String> {
    let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("sixteen bytes"));
    let progress = PublishProgress::decode(value).map_err(|error| error.to_string())?;
    Ok((number(0), number(8), progress.holds))
}
