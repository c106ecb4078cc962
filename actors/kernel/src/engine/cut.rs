//! Which receipts belong to a run: cuts that tile the log, taken in time O(slice).
//!
//! ```text
//!  ingest_seq   1 2 3 4 5 6 | 7 8 9 | 10 11 …        | = a seal: the cut end of a tick, the highest seq
//!  symbol A     a   a     a |     a |  a                 with ingest_ts_ms ≤ planned_ts_ms
//!  cuts of A   [1 ······· 6] [7 ··9] [10 …           global ranges; the slice is A's receipts in it
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::check_invariant;
use crate::engine::contracts::receipt::ReceiptRecord;
use crate::engine::positions::Positions;
use crate::ids::{EventType, IngestSeq, Origin, Symbol, TsMs};
use crate::invariants::Invariant;
use crate::mutant;

/// Distinct event types counted in one slice; further ones are counted together as [`OTHER_TYPES`].
pub const COUNTED_TYPES_MAX: usize = 256;
/// Longest event type that is counted under its own name, in bytes.
pub const COUNTED_TYPE_BYTES_MAX: usize = 128;
/// Largest snapshot that is kept at hand until its run; a larger one is read back from the log.
pub const SNAPSHOT_KEPT_BYTES_MAX: usize = 16 * 1024;
/// The name under which event types beyond [`COUNTED_TYPES_MAX`] are counted.
pub const OTHER_TYPES: &str = "(other)";
/// Distinct snapshot timestamps remembered in one slice: over a month of 3-minute snapshots. Beyond it the largest go.
pub const CANDIDATES_MAX: usize = 16_384;
/// Receipts that may arrive between a tick's planned time and its seal before the seal falls back to reading the log.
/// Few in tests, so that they meet the limit.
const LATE_MAX: usize = if cfg!(test) { 6 } else { 1 << 20 };

/// A symbol's receipts since its last cut: what a run needs to know of them, not the receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSlice {
    start: IngestSeq,
    floor: Option<TsMs>,
    counts: BTreeMap<EventType, u64>,
    candidates: BTreeMap<TsMs, IngestSeq>,
    latest_snapshot: Option<(IngestSeq, Bytes)>,
}

impl OpenSlice {
    /// An empty slice from `start` on. Snapshots at or before `floor`, the last engine timestamp, can never be
    /// selected.
    #[must_use]
    pub const fn starting_at(start: IngestSeq, floor: Option<TsMs>) -> Self {
        Self { start, floor, counts: BTreeMap::new(), candidates: BTreeMap::new(), latest_snapshot: None }
    }

    /// Takes one receipt of the symbol, in log order.
    pub fn add_receipt(&mut self, event_type: &str, snapshot_ts: Option<TsMs>, seq: IngestSeq, event: &[u8]) {
        self.count_event_type(event_type);
        let Some(ts) = snapshot_ts.filter(|ts| self.floor.is_none_or(|floor| floor < *ts)) else { return };
        self.candidates.insert(ts, seq);
        if self.candidates.len() > CANDIDATES_MAX {
            self.candidates.pop_last();
        }
        self.latest_snapshot =
            (event.len() <= SNAPSHOT_KEPT_BYTES_MAX).then(|| (seq, Bytes::copy_from_slice(event)));
    }

    fn count_event_type(&mut self, event_type: &str) {
        if let Some(count) = self.counts.get_mut(event_type) {
            *count += 1;
            return;
        }
        let counted = self.counts.len() < COUNTED_TYPES_MAX && event_type.len() <= COUNTED_TYPE_BYTES_MAX;
        let name = if counted { event_type } else { OTHER_TYPES };
        *self.counts.entry(EventType::from(name)).or_default() += 1;
    }

    /// The single SnapshotInputs with this timestamp and the highest sequence of the slice, if there is one.
    ///
    /// Source: specification 000, "Snapshot sourcing".
    #[must_use]
    pub fn select_snapshot(&self, engine_ts: TsMs) -> Option<SelectedSnapshot> {
        let seq = *self.candidates.get(&engine_ts)?;
        let event =
            self.latest_snapshot.as_ref().filter(|(at, _)| *at == seq).map(|(_, event)| event.clone());
        Some(SelectedSnapshot { seq, event })
    }

    /// Where it starts.
    #[must_use]
    pub const fn start(&self) -> IngestSeq {
        self.start
    }

    /// Receipts by type.
    #[must_use]
    pub const fn counts_by_type(&self) -> &BTreeMap<EventType, u64> {
        &self.counts
    }

    fn into_cut(self, symbol: Symbol, end: IngestSeq, engine_ts: TsMs) -> SymbolCut {
        let snapshot = self.select_snapshot(engine_ts);
        SymbolCut { symbol, start: self.start, end, counts: self.counts, snapshot }
    }
}

/// A selected SnapshotInputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedSnapshot {
    /// Where it stands in the receipt log.
    pub seq: IngestSeq,
    /// The event, when it is still at hand; otherwise it is to be read from the log.
    pub event: Option<Bytes>,
}

/// One symbol's cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolCut {
    /// The symbol.
    pub symbol: Symbol,
    /// First sequence; `end + 1` when the cut is empty.
    pub start: IngestSeq,
    /// Last sequence.
    pub end: IngestSeq,
    /// Receipts of the symbol in it, by type.
    pub counts: BTreeMap<EventType, u64>,
    /// The snapshot to run on, if there is one.
    pub snapshot: Option<SelectedSnapshot>,
}

/// A cut to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRequest {
    /// The symbol.
    pub symbol: Symbol,
    /// Where the cut has to start: the end of its last one + 1; `None` for its first cut, which starts at its first
    /// receipt.
    pub start: Option<IngestSeq>,
    /// The symbol's last engine timestamp.
    pub floor: Option<TsMs>,
    /// Take no cut when the symbol has no receipt up to the end: a discovered symbol has no run before its first
    /// receipt.
    pub only_if_seen: bool,
}

/// The answer to a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCuts {
    /// The cut end, where it is known without reading the log.
    pub end: Option<IngestSeq>,
    /// The cuts that were at hand.
    pub cuts: Vec<SymbolCut>,
    /// The cuts that have to be rebuilt from the log, see [`Rebuild`].
    pub missing: Vec<CutRequest>,
}

/// A receipt that came after the armed time and waits for the seal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Late {
    symbol: Symbol,
    event_type: EventType,
    snapshot_ts: Option<TsMs>,
    seq: IngestSeq,
    event: Bytes,
}

/// Part of a receipt that goes into its symbol's slice.
#[derive(Clone, Copy)]
struct SliceReceipt<'a> {
    symbol: &'a str,
    event_type: &'a str,
    snapshot_ts: Option<TsMs>,
    seq: IngestSeq,
    event: &'a [u8],
}

impl<'a> From<&ReceiptRecord<'a>> for SliceReceipt<'a> {
    fn from(record: &ReceiptRecord<'a>) -> Self {
        Self {
            symbol: record.symbol,
            event_type: record.event_type,
            snapshot_ts: record.snapshot_ts_ms,
            seq: record.ingest_seq,
            event: record.event,
        }
    }
}

impl<'a> From<&'a Late> for SliceReceipt<'a> {
    fn from(late: &'a Late) -> Self {
        Self {
            symbol: late.symbol.as_str(),
            event_type: late.event_type.as_str(),
            snapshot_ts: late.snapshot_ts,
            seq: late.seq,
            event: &late.event,
        }
    }
}

/// Book of the buffer: what the growing receipt log says about cuts and producers. Can be rebuilt from the log alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutBook {
    tail: IngestSeq,
    first_ts: Option<TsMs>,
    last_ts: Option<TsMs>,
    positions: Positions,
    slices: BTreeMap<Symbol, OpenSlice>,
    /// Each symbol's first receipt: where its first cut starts, also when it has to be taken again.
    firsts: BTreeMap<Symbol, IngestSeq>,
    discovered: Vec<Symbol>,
    armed: Option<TsMs>,
    late: Vec<Late>,
}

impl CutBook {
    /// The last receipt taken in.
    #[must_use]
    pub const fn tail(&self) -> IngestSeq {
        self.tail
    }

    /// `ingest_ts_ms` of the last receipt.
    #[must_use]
    pub const fn last_ts(&self) -> Option<TsMs> {
        self.last_ts
    }

    /// `ingest_ts_ms` of the first receipt ever.
    #[must_use]
    pub const fn first_ts(&self) -> Option<TsMs> {
        self.first_ts
    }

    /// How far each origin has come.
    #[must_use]
    pub const fn positions(&self) -> &Positions {
        &self.positions
    }

    /// What a base knows of the positions is known here too.
    pub fn know_positions(&mut self, base: &Positions) {
        self.positions.absorb_positions(base);
    }

    /// Forgets how far an origin has come, see [`Positions::forget_origin`].
    pub fn forget_origin(&mut self, origin: &Origin) {
        self.positions.forget_origin(origin);
    }

    /// A quarantined item is durable.
    pub fn note_quarantined(&mut self, origin: &str, position: u64) {
        self.positions.note_quarantined(origin, position);
    }

    /// Every symbol that has a slice.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.slices.keys()
    }

    /// Takes the next durable receipt. Records must come in log order.
    pub fn observe_receipt(&mut self, record: &ReceiptRecord<'_>) {
        check_invariant!(
            Invariant::Log1,
            record.ingest_seq == self.tail.next(),
            "receipt {} follows {}",
            record.ingest_seq,
            self.tail
        );
        check_invariant!(
            Invariant::Log5,
            self.last_ts.is_none_or(|last| last <= record.ingest_ts_ms),
            "receipt {} is older than its predecessor",
            record.ingest_seq
        );
        self.tail = record.ingest_seq;
        self.first_ts = self.first_ts.or(Some(record.ingest_ts_ms));
        self.last_ts = Some(record.ingest_ts_ms);
        self.positions.note_receipt(record.origin, record.position);
        if self.armed.is_some_and(|armed| armed < record.ingest_ts_ms) {
            self.hold_back(record);
        } else {
            self.file_receipt(SliceReceipt::from(record));
        }
    }

    fn file_receipt(&mut self, receipt: SliceReceipt<'_>) {
        let SliceReceipt { symbol, event_type, snapshot_ts, seq, event } = receipt;
        if let Some(slice) = self.slices.get_mut(symbol) {
            if slice.counts.is_empty() && !self.firsts.contains_key(symbol) {
                self.firsts.insert(Symbol::from(symbol), seq);
            }
            if slice.start <= seq {
                slice.add_receipt(event_type, snapshot_ts, seq, event);
            }
            return;
        }
        let symbol = Symbol::from(symbol);
        self.firsts.entry(symbol.clone()).or_insert(seq);
        let mut slice = OpenSlice::starting_at(seq, None);
        slice.add_receipt(event_type, snapshot_ts, seq, event);
        self.discovered.push(symbol.clone());
        self.slices.insert(symbol, slice);
    }

    fn hold_back(&mut self, record: &ReceiptRecord<'_>) {
        if self.late.len() >= LATE_MAX {
            self.file_late_receipts();
            self.armed = None;
            self.file_receipt(SliceReceipt::from(record));
            return;
        }
        self.late.push(Late {
            symbol: Symbol::from(record.symbol),
            event_type: EventType::from(record.event_type),
            snapshot_ts: record.snapshot_ts_ms,
            seq: record.ingest_seq,
            event: match record.snapshot_ts_ms {
                Some(_) => Bytes::copy_from_slice(record.event),
                None => Bytes::new(),
            },
        });
    }

    fn file_late_receipts(&mut self) {
        for late in std::mem::take(&mut self.late) {
            self.file_receipt(SliceReceipt::from(&late));
        }
    }

    /// Announces the next seal: receipts after `planned` are kept apart until it comes, however late it is.
    pub fn arm_seal(&mut self, planned: TsMs) {
        self.file_late_receipts();
        self.armed = self.last_ts.is_none_or(|last| last <= planned).then_some(planned);
    }

    /// Continues `symbol` after a cut that the run log holds: its next one starts at `start`.
    ///
    /// Keeps the slice that is at hand when it starts there. Returns whether receipts from `start` up to the tail are
    /// missing in the slice and have to be shown to [`backfill_receipt`](Self::backfill_receipt).
    #[must_use]
    pub fn track_symbol(&mut self, symbol: &Symbol, start: IngestSeq, floor: Option<TsMs>) -> bool {
        // One with a higher floor was sealed for a tick that no run followed: snapshots for it are gone.
        if let Some(slice) = self.slices.get_mut(symbol.as_str())
            && slice.start == start
            && slice.floor <= floor
        {
            slice.floor = floor;
            if let Some(floor) = floor {
                slice.candidates = slice.candidates.split_off(&floor.plus_ms(1));
            }
            return false;
        }
        self.slices.insert(symbol.clone(), OpenSlice::starting_at(start, floor));
        start <= self.tail
    }

    /// Shows a receipt at or before the tail to a slice that [`track_symbol`](Self::track_symbol) found missing, in log
    /// order.
    pub fn backfill_receipt(&mut self, record: &ReceiptRecord<'_>) {
        self.file_receipt(SliceReceipt::from(record));
    }

    /// Takes the symbols that were seen for the first time since the last call.
    pub fn take_discovered(&mut self) -> Vec<Symbol> {
        std::mem::take(&mut self.discovered)
    }

    /// Takes the cuts of one tick (CUT-2), in the order of `requests`, and arms the next tick.
    ///
    /// Every receipt with `ingest_ts_ms ≤ planned` must have been observed.
    pub fn seal_tick(
        &mut self,
        planned: TsMs,
        engine_ts: TsMs,
        requests: Vec<CutRequest>,
        next: Option<TsMs>,
    ) -> SealedCuts {
        let end = if self.armed == Some(planned) {
            let beyond = u64::from(!mutant!(CutTakesOneTooMany));
            Some(self.late.first().map_or(self.tail, |late| IngestSeq(late.seq.0 - beyond)))
        } else {
            // What was kept apart for another time may belong to this one.
            self.file_late_receipts();
            self.last_ts.is_none_or(|last| last <= planned).then_some(self.tail)
        };
        let (cuts, missing) = match end {
            Some(end) => self.take_cut(end, engine_ts, requests),
            None => {
                (Vec::new(), requests.into_iter().map(|request| self.locate_first_cut(request)).collect())
            }
        };
        self.file_late_receipts();
        self.armed = None;
        if let Some(next) = next {
            self.arm_seal(next);
        }
        SealedCuts { end, cuts, missing }
    }

    /// A first cut starts at the symbol's first receipt: no need to search the log for it.
    fn locate_first_cut(&self, request: CutRequest) -> CutRequest {
        let start = request.start.or_else(|| self.firsts.get(request.symbol.as_str()).copied());
        CutRequest { start, ..request }
    }

    fn take_cut(
        &mut self,
        end: IngestSeq,
        engine_ts: TsMs,
        requests: Vec<CutRequest>,
    ) -> (Vec<SymbolCut>, Vec<CutRequest>) {
        let mut cuts = Vec::with_capacity(requests.len());
        let mut missing = Vec::new();
        for request in requests {
            let request = self.locate_first_cut(request);
            let start = match request.start.filter(|start| *start <= end.next()) {
                Some(start) => start,
                None if request.only_if_seen => continue,
                None => end.next(),
            };
            let fresh = OpenSlice::starting_at(end.next(), Some(engine_ts));
            let slice = match self.slices.get_mut(request.symbol.as_str()) {
                // As in `track_symbol`: with a higher floor it lacks snapshots.
                Some(slice) if slice.start == start && slice.floor <= request.floor => {
                    let taken = std::mem::replace(slice, fresh);
                    if mutant!(SnapshotOfThePreviousCut) {
                        slice.candidates.clone_from(&taken.candidates);
                    }
                    taken
                }
                None if start == end.next() => {
                    self.slices.insert(request.symbol.clone(), fresh);
                    OpenSlice::starting_at(start, request.floor)
                }
                None | Some(_) => {
                    missing.push(CutRequest { start: Some(start), ..request });
                    continue;
                }
            };
            cuts.push(slice.into_cut(request.symbol, end, engine_ts));
        }
        (cuts, missing)
    }

    /// Puts back what a rebuild found after its end.
    pub fn restore_slice(&mut self, symbol: Symbol, slice: OpenSlice) {
        self.slices.insert(symbol, slice);
    }

    /// Forgets what was before `start` of symbols that never ran: their first cut starts with what is still in the log.
    /// Returns those whose receipts from there up to the tail have to be shown to
    /// [`backfill_receipt`](Self::backfill_receipt).
    pub fn forget_before(&mut self, start: IngestSeq, ran: impl Fn(&Symbol) -> bool) -> Vec<Symbol> {
        // A slice that was sealed for a tick without a run may start later than the first cut.
        let first =
            |symbol: &Symbol, slice: &OpenSlice| self.firsts.get(symbol).map_or(slice.start, |at| *at);
        let is_old = |(symbol, slice): &(&Symbol, &OpenSlice)| {
            slice.start.min(first(symbol, slice)) < start && !ran(symbol)
        };
        let old: Vec<Symbol> = self.slices.iter().filter(is_old).map(|(symbol, _)| symbol.clone()).collect();
        for symbol in &old {
            self.slices.remove(symbol);
            self.firsts.remove(symbol);
        }
        old
    }

    /// Keeps only these symbols, to compare two books.
    #[cfg(test)]
    pub(crate) fn forget_all_but(&mut self, keeps: impl Fn(&Symbol) -> bool) {
        self.slices.retain(|symbol, _| keeps(symbol));
        self.firsts.retain(|symbol, _| keeps(symbol));
    }

    /// The form that a base keeps: without slices, which start after it, and without the symbols that never ran.
    #[must_use]
    pub fn to_base(&self, ran: impl Fn(&Symbol) -> bool) -> BookCheckpoint {
        let mut base = BookCheckpoint { slices: BTreeMap::new(), ..self.to_checkpoint() };
        base.firsts.retain(|symbol, _| ran(symbol));
        base
    }

    /// The form that a checkpoint keeps.
    #[must_use]
    pub fn to_checkpoint(&self) -> BookCheckpoint {
        let mut whole = self.clone();
        whole.file_late_receipts();
        BookCheckpoint {
            tail: whole.tail,
            first_ts: whole.first_ts,
            last_ts: whole.last_ts,
            positions: whole.positions,
            firsts: whole.firsts,
            slices: whole
                .slices
                .into_iter()
                .map(|(symbol, slice)| (symbol, (slice.start, slice.floor, slice.counts, slice.candidates)))
                .collect(),
        }
    }
}

/// A symbol's slice in a checkpoint: start, floor, counts, candidates.
type SliceCheckpoint = (IngestSeq, Option<TsMs>, BTreeMap<EventType, u64>, BTreeMap<TsMs, IngestSeq>);

/// A [`CutBook`] as of one position, so that a start need not read the log from its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookCheckpoint {
    tail: IngestSeq,
    first_ts: Option<TsMs>,
    last_ts: Option<TsMs>,
    positions: Positions,
    firsts: BTreeMap<Symbol, IngestSeq>,
    slices: BTreeMap<Symbol, SliceCheckpoint>,
}

impl BookCheckpoint {
    /// The last receipt in it.
    #[must_use]
    pub const fn tail(&self) -> IngestSeq {
        self.tail
    }

    /// The book as it was.
    #[must_use]
    pub fn into_book(self) -> CutBook {
        let slices = self.slices.into_iter().map(|(symbol, (start, floor, counts, candidates))| {
            (symbol, OpenSlice { start, floor, counts, candidates, latest_snapshot: None })
        });
        CutBook {
            tail: self.tail,
            first_ts: self.first_ts,
            last_ts: self.last_ts,
            positions: self.positions,
            firsts: self.firsts,
            slices: slices.collect(),
            ..CutBook::default()
        }
    }
}

/// Takes cuts from the log itself: the truth that the quick path of [`CutBook::seal_tick`] has to agree with.
#[derive(Debug)]
pub struct Rebuild {
    end: IngestSeq,
    engine_ts: TsMs,
    /// Per symbol the slice up to the end, and the one after it.
    wanted: BTreeMap<Symbol, (OpenSlice, OpenSlice)>,
}

impl Rebuild {
    /// A rebuild of `requests`, all ending at `end`.
    #[must_use]
    pub fn new(end: IngestSeq, engine_ts: TsMs, requests: Vec<CutRequest>) -> Self {
        let unseen = |request: &CutRequest| request.start.is_none_or(|start| end < start);
        let wanted = requests.into_iter().filter(|request| !(request.only_if_seen && unseen(request))).map(
            |request| {
                let start = request.start.map_or(end.next(), |start| start.min(end.next()));
                let before = OpenSlice::starting_at(start, request.floor);
                (request.symbol, (before, OpenSlice::starting_at(end.next(), Some(engine_ts))))
            },
        );
        Self { end, engine_ts, wanted: wanted.collect() }
    }

    /// The first record that has to be shown to [`observe_receipt`](Self::observe_receipt).
    #[must_use]
    pub fn from(&self) -> IngestSeq {
        self.wanted.values().map(|(before, _)| before.start).min().unwrap_or(self.end.next())
    }

    /// Takes the next record, in log order, from [`from`](Self::from) up to the tail.
    pub fn observe_receipt(&mut self, record: &ReceiptRecord<'_>) {
        let Some((before, after)) = self.wanted.get_mut(record.symbol) else { return };
        let slice = if self.end < record.ingest_seq { after } else { before };
        if slice.start <= record.ingest_seq {
            slice.add_receipt(record.event_type, record.snapshot_ts_ms, record.ingest_seq, record.event);
        }
    }

    /// The cuts, and the slices after them that continue the book.
    #[must_use]
    pub fn into_cuts(self) -> (Vec<SymbolCut>, Vec<(Symbol, OpenSlice)>) {
        let (end, engine_ts) = (self.end, self.engine_ts);
        self.wanted
            .into_iter()
            .map(|(symbol, (before, after))| {
                (before.into_cut(symbol.clone(), end, engine_ts), (symbol, after))
            })
            .unzip()
    }
}

#[cfg(test)]
mod tests;
