//! Replay: the outputs again, from the two logs alone.
//!
//! The schedule comes from the run log, never from a clock. Cuts are derived again from the receipt log: their starts
//! and slices, and their ends from the planned times alone (CUT-2). What the run log says beyond that is checked by
//! [`audit`](crate::engine::audit), which owns a replay.
//!
//! ```text
//! run log ──▶ Outline: planned times, each symbol's last cut end      (a first pass, small)
//! receipt log ──▶ Replay ──▶ ends by planned time, receipts per symbol since its last cut
//! run log ──▶ Replay ──▶ Derived: what the record must say, and the engine's inputs
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use crate::engine::contracts::engine_run::{RunFacts, RunRecord};
use crate::engine::contracts::raw_market_event::normalized;
use crate::engine::contracts::receipt::ReceiptRecord;
use crate::engine::cut::OpenSlice;
use crate::engine::divergence::{Check, Divergence, DivergencePlace};
use crate::engine::run::{missing_snapshot, unusable_snapshot};
use crate::engine::run_id::RunId;
use crate::ids::{EventType, IngestSeq, RunSeq, Symbol, TsMs};
use crate::ports::engine::EngineError;

/// Distinct event types whose names are shared in memory; further ones are kept once each.
const SHARED_TYPES_MAX: usize = 1024;

/// Outline of the run log, read before the receipts: the planned ends of its cuts.
///
/// Runs of a symbol that lags stand behind later runs of others, so the receipts alone cannot tell what to remember.
/// Takes memory for each tick and each symbol, not for each run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLogOutline {
    planned: BTreeSet<TsMs>,
    cuts: BTreeMap<Symbol, OutlinedCuts>,
}

/// Extent of a symbol's cuts in a run log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OutlinedCuts {
    /// Where the first one starts.
    first_start: IngestSeq,
    /// Where the last one ends.
    last_end: IngestSeq,
}

impl RunLogOutline {
    /// Takes the next record of the run log.
    pub fn note_record(&mut self, record: &RunRecord) {
        let facts = &record.facts;
        self.planned.insert(facts.planned_ts_ms);
        match self.cuts.get_mut(&facts.symbol) {
            Some(cuts) => cuts.last_end = cuts.last_end.max(facts.cut.end),
            None => {
                let cuts = OutlinedCuts { first_start: facts.cut.start, last_end: facts.cut.end };
                self.cuts.insert(facts.symbol.clone(), cuts);
            }
        }
    }

    /// The last receipt that any run needs; 0 when there is no run.
    #[must_use]
    pub fn last_end(&self) -> IngestSeq {
        self.cuts.values().map(|cuts| cuts.last_end).max().unwrap_or_default()
    }

    /// Every symbol that has a run, and where its first cut is recorded to start.
    pub fn first_starts(&self) -> impl Iterator<Item = (&Symbol, IngestSeq)> {
        self.cuts.iter().map(|(symbol, cuts)| (symbol, cuts.first_start))
    }
}

/// Inputs of a run, derived from the receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The `normalized` object of the selected snapshot, byte for byte; or why the engine cannot be called.
    pub inputs: Result<String, EngineError>,
}

/// A receipt that no replayed cut has taken yet.
#[derive(Debug)]
struct Pending {
    seq: IngestSeq,
    event_type: EventType,
    snapshot: Option<Box<(TsMs, Vec<u8>)>>,
}

#[derive(Debug, Default)]
struct SymbolReplay {
    /// Its last run in the log ends here: later receipts are not kept.
    last_end: IngestSeq,
    pending: VecDeque<Pending>,
    next_start: Option<IngestSeq>,
    floor: Option<TsMs>,
    /// What was let go without a cut of it, oldest first.
    gaps: VecDeque<Gap>,
}

/// Receipts that are in no cut, since they were let go before the symbol was run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the symbol's next cut would have started; `None` for its first one.
    pub from: Option<IngestSeq>,
    /// The first receipt behind it.
    pub to: IngestSeq,
    /// Where the first record of the run is whose cut begins anew.
    pub run: RangeInclusive<RunSeq>,
    /// Receipts of the symbol in it, as far as they were shown.
    pub receipts: u64,
}

/// A replay of the cuts. Show it receipts as long as it [`wants_receipts_for`](Self::wants_receipts_for) them, then the
/// run.
#[derive(Debug, Default)]
pub struct CutReplay {
    lanes: BTreeMap<Symbol, SymbolReplay>,
    /// Planned times whose cut end is not known yet, the next one first.
    planned: VecDeque<TsMs>,
    ends: BTreeMap<TsMs, IngestSeq>,
    types: BTreeSet<EventType>,
    seen: IngestSeq,
    ended: bool,
}

impl CutReplay {
    /// A replay of a run log with this outline, of receipts that begin after `base` (0: the beginning).
    #[must_use]
    pub fn new(outline: RunLogOutline, base: IngestSeq) -> Self {
        let lanes = outline.cuts.into_iter();
        Self {
            lanes: lanes
                .map(|(symbol, OutlinedCuts { last_end, .. })| {
                    (symbol, SymbolReplay { last_end, ..SymbolReplay::default() })
                })
                .collect(),
            planned: outline.planned.into_iter().collect(),
            seen: base,
            ..Self::default()
        }
    }

    /// Continues `symbol` after a cut that ended before the logs begin.
    pub fn continue_at(&mut self, symbol: &Symbol, next_start: Option<IngestSeq>, floor: Option<TsMs>) {
        let lane = self.lanes.entry(symbol.clone()).or_default();
        lane.next_start = next_start;
        lane.floor = floor;
    }

    /// Tells which receipts of `symbol` are in no cut, oldest first.
    pub fn leave_out(&mut self, symbol: &Symbol, gaps: VecDeque<Gap>) {
        if let Some(lane) = self.lanes.get_mut(symbol) {
            lane.gaps = gaps;
        }
    }

    /// Before [`take_run`](Self::take_run), for the record at `at`: continues `symbol` behind a gap if it begins anew
    /// there.
    pub fn begin_anew(&mut self, at: RunSeq, symbol: &Symbol) -> Option<Gap> {
        let lane = self.lanes.get_mut(symbol)?;
        let next_start = lane.next_start;
        let gap = lane.gaps.pop_front_if(|gap| gap.from == next_start && gap.run.contains(&at))?;
        // A first cut starts at the first receipt behind it.
        lane.next_start = next_start.and(Some(gap.to));
        Some(gap)
    }

    /// The last receipt shown.
    #[must_use]
    pub const fn last_receipt(&self) -> IngestSeq {
        self.seen
    }

    /// Whether the run cannot be derived before more receipts are shown: those up to its cut end, and one after its
    /// planned time, which proves the end.
    #[must_use]
    pub fn wants_receipts_for(&self, facts: &RunFacts) -> bool {
        !self.ended && (self.seen < facts.cut.end || !self.ends.contains_key(&facts.planned_ts_ms))
    }

    /// Takes the next receipt of the log.
    pub fn take_receipt(&mut self, record: &ReceiptRecord<'_>) {
        while let Some(planned) = self.planned.pop_front_if(|planned| *planned < record.ingest_ts_ms) {
            self.ends.insert(planned, self.seen);
        }
        self.seen = record.ingest_seq;
        let Some(lane) = self.lanes.get_mut(record.symbol) else { return };
        let is_cut = lane.next_start.is_some_and(|start| record.ingest_seq < start);
        if is_cut || lane.last_end < record.ingest_seq {
            return;
        }
        if let Some(gap) = lane.gaps.iter_mut().find(|gap| gap.has_receipt(record.ingest_seq)) {
            gap.receipts += 1;
            return;
        }
        let event_type = match lane.pending.back() {
            Some(last) if last.event_type.as_str() == record.event_type => last.event_type.clone(),
            Some(_) | None => intern_type(&mut self.types, record.event_type),
        };
        lane.pending.push_back(Pending {
            seq: record.ingest_seq,
            event_type,
            snapshot: record.snapshot_ts_ms.map(|ts| Box::new((ts, record.event.to_vec()))),
        });
    }

    /// Tells that the log holds no further receipt: what was shown last ends every cut planned later.
    pub fn receipts_ended(&mut self) {
        self.ended = true;
        let ends = self.planned.drain(..).map(|planned| (planned, self.seen));
        self.ends.extend(ends);
    }

    /// Takes the first record of the next run of the run log, once no receipts are wanted for it. What its facts say
    /// otherwise than the receipts is added to `found`; the replay then goes on from what is recorded.
    pub fn take_run(&mut self, at: RunSeq, facts: &RunFacts, found: &mut Vec<Divergence>) -> Derived {
        if !self.lanes.contains_key(&facts.symbol) {
            self.lanes.insert(facts.symbol.clone(), SymbolReplay::default());
        }
        let mut differs = |check, field, recorded: String, replayed: String| {
            if recorded != replayed {
                found.push(Divergence {
                    check,
                    place: DivergencePlace::of_run(at, facts),
                    field,
                    recorded,
                    replayed,
                });
            }
        };
        let id = RunId::derive(&facts.symbol, facts.engine_timestamp_ms, facts.cut.end, facts.engine_mode);
        differs(Check::Identity, "run_id", facts.run_id.to_string(), id.to_string());
        let end = self.ends.get(&facts.planned_ts_ms).copied().unwrap_or(self.seen);
        differs(Check::Cuts, "cut_end_ingest_seq", facts.cut.end.to_string(), end.to_string());
        let Some(lane) = self.lanes.get_mut(&facts.symbol) else {
            return Derived { inputs: Err(missing_snapshot(facts)) };
        };
        let (slice, snapshot) = lane.take_slice(facts);
        let selected = slice.select_snapshot(facts.engine_timestamp_ms).map(|snapshot| snapshot.seq);
        differs(Check::Cuts, "cut_start_ingest_seq", facts.cut.start.to_string(), slice.start().to_string());
        differs(Check::Cuts, "snapshot_seq", seq_text(facts.snapshot_seq), seq_text(selected));
        if *slice.counts_by_type() != facts.counts_by_event_type {
            let (recorded, replayed) =
                (counts_text(&facts.counts_by_event_type), counts_text(slice.counts_by_type()));
            differs(Check::Cuts, "counts_by_event_type", recorded, replayed);
        }
        let inputs = match (selected, snapshot) {
            (Some(seq), Some(event)) => {
                normalized(&event).map(str::to_owned).ok_or_else(|| unusable_snapshot(seq))
            }
            (Some(_) | None, _) => Err(missing_snapshot(facts)),
        };
        Derived { inputs }
    }
}

/// A receipt, or none.
pub(crate) fn seq_text(seq: Option<IngestSeq>) -> String {
    seq.map_or_else(|| "none".to_owned(), |seq| seq.to_string())
}

/// Receipts by type as people read them.
pub(crate) fn counts_text(counts: &BTreeMap<EventType, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
}

/// The name in memory once, however often it comes.
fn intern_type(types: &mut BTreeSet<EventType>, name: &str) -> EventType {
    if let Some(known) = types.get(name) {
        return known.clone();
    }
    let new = EventType::from(name);
    if types.len() < SHARED_TYPES_MAX {
        types.insert(new.clone());
    }
    new
}

impl Gap {
    fn has_receipt(&self, seq: IngestSeq) -> bool {
        self.from <= Some(seq) && seq < self.to
    }
}

impl SymbolReplay {
    /// The slice up to the recorded end, and the event of the snapshot that it selects.
    fn take_slice(&mut self, facts: &RunFacts) -> (OpenSlice, Option<Vec<u8>>) {
        let end = facts.cut.end;
        let first = self.pending.front().map(|receipt| receipt.seq).filter(|seq| *seq <= end);
        let start = self.next_start.or(first).unwrap_or(end.next());
        let mut slice = OpenSlice::starting_at(start, self.floor);
        let mut snapshot = None;
        while let Some(receipt) = self.pending.pop_front_if(|receipt| receipt.seq <= end) {
            let ts = receipt.snapshot.as_ref().map(|snapshot| snapshot.0);
            slice.add_receipt(receipt.event_type.as_str(), ts, receipt.seq, &[]);
            if let Some(kept) = receipt.snapshot.filter(|kept| kept.0 == facts.engine_timestamp_ms) {
                snapshot = Some(kept.1);
            }
        }
        self.next_start = Some(end.next());
        self.floor = Some(facts.engine_timestamp_ms);
        (slice, snapshot)
    }
}
