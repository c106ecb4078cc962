//! CUT-1, CUT-2: each cut is what a look at every receipt of the log gives, whatever happened before.

use proptest::prelude::*;

use super::*;
use crate::engine::tests::model::{Live, Op, Stored, Taken, history, last_at_or_before, rebuild, records};

/// The receipts of a request's cut by brute force: none when no cut is to be taken.
fn expected(log: &[Stored], taken: &Taken, request: &CutRequest) -> Option<SymbolCut> {
    let engine_ts = taken.tick.engine_timestamp_ms;
    let of_symbol =
        || records(log).filter(|r| r.symbol == request.symbol.as_str() && r.ingest_seq <= taken.end);
    let first = of_symbol().map(|record| record.ingest_seq).min();
    if request.only_if_seen && first.is_none() {
        return None;
    }
    let start = request.start.or(first).unwrap_or(taken.end.next());
    let slice = || of_symbol().filter(move |record| start <= record.ingest_seq);
    let mut counts = BTreeMap::new();
    slice().for_each(|record| *counts.entry(EventType::from(record.event_type)).or_default() += 1);
    let snapshot = slice().filter(|record| record.snapshot_ts_ms == Some(engine_ts)).last();
    let snapshot = snapshot.map(|record| SelectedSnapshot { seq: record.ingest_seq, event: None });
    Some(SymbolCut { symbol: request.symbol.clone(), start, end: taken.end, counts, snapshot })
}

/// Without the event at hand, which is checked to be the log's.
fn stripped(log: &[Stored], mut cut: SymbolCut) -> SymbolCut {
    if let Some(SelectedSnapshot { seq, event }) = &mut cut.snapshot
        && let Some(event) = event.take()
    {
        let stored = &log[usize::try_from(seq.0).unwrap() - 1].event;
        assert_eq!(event, stored.as_bytes());
    }
    cut
}

fn by_symbol(log: &[Stored], cuts: impl IntoIterator<Item = SymbolCut>) -> BTreeMap<Symbol, SymbolCut> {
    cuts.into_iter().map(|cut| (cut.symbol.clone(), stripped(log, cut))).collect()
}

proptest! {
    /// Method: a random history of receipts, ticks, runs, restarts and crashes; each cut against brute force.
    #[test]
    fn every_cut_is_what_the_log_says(history in history()) {
        let live = Live::after(history);

        for taken in &live.taken {
            let log = &live.log[..taken.log_len];
            prop_assert_eq!(taken.end, last_at_or_before(log, taken.tick.planned_ts_ms));
            let expected = taken.requests.iter().filter_map(|request| expected(log, taken, request));
            prop_assert_eq!(by_symbol(log, taken.cuts.clone()), by_symbol(log, expected));
        }
    }

    /// Method: the same, each cut against a rebuild that knows the log and the requests only.
    #[test]
    fn every_cut_equals_a_rebuild_from_the_log(history in history()) {
        let live = Live::after(history);

        for taken in &live.taken {
            let log = &live.log[..taken.log_len];
            let located = taken.requests.iter().map(|request| {
                let first = records(log).find(|record| record.symbol == request.symbol.as_str());
                CutRequest { start: request.start.or(first.map(|first| first.ingest_seq)), ..request.clone() }
            });
            let (cuts, _) = rebuild(log, taken.end, taken.tick.engine_timestamp_ms, located.collect());
            prop_assert_eq!(by_symbol(log, taken.cuts.clone()), by_symbol(log, cuts));
        }
    }

    /// Method: a history whose ticks come in order and less than an interval late.
    #[test]
    fn a_seal_in_time_reads_nothing_from_the_log((discover, ops) in history()) {
        let tick = |busy| Op::Tick { missed: 0, busy, arm_off_by: Some(0) };
        let mut ops: Vec<Op> = ops.into_iter().filter_map(|op| match op {
            Op::Receipt { wait_ms, symbol, kind, snapshot } =>
                Some(Op::Receipt { wait_ms: wait_ms % 20, symbol, kind, snapshot }),
            Op::Tick { busy, .. } => Some(tick(busy)),
            Op::Run { .. } | Op::Checkpoint => Some(op),
            Op::RunnerRestart { .. } | Op::Crash { .. } | Op::Relist { .. } | Op::LetGo { .. } => None,
        }).collect();
        ops = ops.chunks(5).flat_map(|chunk| chunk.iter().cloned().chain([tick(0)])).collect();

        let live = Live::after((discover, ops));

        for taken in live.taken {
            prop_assert_eq!(taken.quick, taken.cuts.len());
        }
    }

    /// Method: lay the recorded cuts of each symbol side by side.
    #[test]
    fn recorded_cuts_tile_the_log(history in history()) {
        let live = Live::after(history);

        for (symbol, _) in live.index.symbols() {
            let runs = || live.runs.iter().filter(|r| r.is_terminal() && r.facts.symbol == *symbol);
            let cuts: Vec<_> = runs().map(|record| record.facts.cut).collect();
            for pair in cuts.windows(2) {
                prop_assert_eq!(pair[0].end.next(), pair[1].start);
            }
            // No receipt up to the last cut is in none of them, or in two.
            let Some(last) = cuts.last() else { continue };
            let receipts = records(&live.log)
                .filter(|record| record.symbol == symbol.as_str() && record.ingest_seq <= last.end)
                .count();
            let counted: u64 = runs().flat_map(|record| record.facts.counts_by_event_type.values()).sum();
            prop_assert_eq!(counted, receipts as u64);
        }
    }
}

fn receipt(seq: u64, ts: i64, symbol: &'static str) -> ReceiptRecord<'static> {
    ReceiptRecord {
        ingest_seq: IngestSeq(seq),
        ingest_ts_ms: TsMs(ts),
        origin: "o",
        position: seq,
        symbol,
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(ts)),
        event: b"{}",
    }
}

fn book(receipts: &[ReceiptRecord<'_>]) -> CutBook {
    let mut book = CutBook::default();
    receipts.iter().for_each(|record| book.observe_receipt(record));
    book
}

fn first_cut(symbol: &str) -> CutRequest {
    CutRequest { symbol: Symbol::from(symbol), start: None, floor: None, only_if_seen: false }
}

fn starts(sealed: SealedCuts) -> (Option<u64>, Vec<u64>, Vec<Option<u64>>) {
    (
        sealed.end.map(|end| end.0),
        sealed.cuts.iter().map(|cut| cut.start.0).collect(),
        sealed.missing.iter().map(|request| request.start.map(|start| start.0)).collect(),
    )
}

/// A runner that dies before its first `started` record is durable asks for its first cut once more.
#[test]
fn a_first_cut_that_was_not_recorded_starts_at_the_first_receipt_again() {
    let mut book = book(&[receipt(1, 10, "B"), receipt(2, 10, "A")]);

    let taken = book.seal_tick(TsMs(10), TsMs(10), vec![first_cut("A")], Some(TsMs(20)));
    assert_eq!(starts(taken), (Some(2), vec![2], vec![]));
    let again = book.seal_tick(TsMs(10), TsMs(10), vec![first_cut("A")], Some(TsMs(20)));
    assert_eq!(starts(again), (Some(2), vec![], vec![Some(2)]));
}

#[test]
fn a_first_cut_that_was_not_recorded_is_taken_again_after_a_restart() {
    let mut book = book(&[receipt(1, 10, "B"), receipt(2, 10, "A")]);
    drop(book.seal_tick(TsMs(10), TsMs(10), vec![first_cut("A")], Some(TsMs(20))));

    let mut book = book.to_checkpoint().into_book();
    let again = book.seal_tick(TsMs(20), TsMs(20), vec![first_cut("A")], None);

    assert_eq!(starts(again), (Some(2), vec![], vec![Some(2)]));
}

/// The armed tick was given up for a later one: what was kept apart for it belongs to the later one.
#[test]
fn a_seal_after_a_missed_tick_ends_at_its_own_time() {
    let mut book = book(&[receipt(1, 10, "A")]);
    book.arm_seal(TsMs(20));
    book.observe_receipt(&receipt(2, 25, "A"));

    let sealed = book.seal_tick(TsMs(30), TsMs(30), vec![first_cut("A")], None);

    assert_eq!(starts(sealed), (Some(2), vec![1], vec![]));
}

#[test]
fn a_symbol_first_seen_after_a_missed_tick_is_in_the_next_seal() {
    let mut book = book(&[receipt(1, 10, "A")]);
    book.arm_seal(TsMs(20));
    book.observe_receipt(&receipt(2, 25, "B"));
    book.observe_receipt(&receipt(3, 35, "A"));

    let sealed = book.seal_tick(TsMs(30), TsMs(30), vec![first_cut("B")], None);

    assert_eq!(starts(sealed), (None, vec![], vec![Some(2)]));
}

#[test]
fn a_symbol_without_a_receipt_has_no_cut_when_only_seen_ones_are_wanted() {
    let mut book = book(&[receipt(1, 10, "A")]);
    let request = CutRequest { only_if_seen: true, ..first_cut("B") };

    let sealed = book.seal_tick(TsMs(10), TsMs(10), vec![request.clone()], None);
    let (rebuilt, _) = rebuild(&[], IngestSeq(1), TsMs(10), vec![request.clone()]);

    assert_eq!((starts(sealed), rebuilt), ((Some(1), vec![], vec![]), vec![]));
    // The same after it was listed once, when it had an empty cut that was not recorded.
    drop(book.seal_tick(TsMs(10), TsMs(10), vec![first_cut("B")], None));
    assert_eq!(starts(book.seal_tick(TsMs(20), TsMs(20), vec![request], None)), (Some(1), vec![], vec![]));
}

/// Otherwise the first tick after each start would read the log again for every symbol (CUT-3).
#[test]
fn a_recovered_symbols_next_cut_is_at_hand() {
    let receipts = [receipt(1, 10, "A"), receipt(2, 20, "A"), receipt(3, 30, "A")];
    let mut book = book(&receipts).to_checkpoint().into_book();

    assert!(book.track_symbol(&Symbol::from("A"), IngestSeq(2), Some(TsMs(10))));
    receipts[1..].iter().for_each(|record| book.backfill_receipt(record));
    assert!(!book.track_symbol(&Symbol::from("A"), IngestSeq(2), Some(TsMs(10))), "it is whole now");
    let request = CutRequest { start: Some(IngestSeq(2)), floor: Some(TsMs(10)), ..first_cut("A") };
    let sealed = book.seal_tick(TsMs(30), TsMs(30), vec![request], None);

    assert_eq!(sealed.cuts[0].snapshot.as_ref().unwrap().seq, IngestSeq(3));
    assert_eq!(starts(sealed), (Some(3), vec![2], vec![]));
}

#[test]
fn receipts_after_the_armed_time_wait_for_the_seal_however_late_it_is() {
    let mut book = book(&[receipt(1, 10, "A")]);
    book.arm_seal(TsMs(20));
    book.observe_receipt(&receipt(2, 20, "A"));
    book.observe_receipt(&receipt(3, 21, "A"));

    let sealed = book.seal_tick(TsMs(20), TsMs(20), vec![first_cut("A")], Some(TsMs(30)));

    assert_eq!(sealed.end, Some(IngestSeq(2)));
    assert_eq!(
        sealed.cuts[0].snapshot,
        Some(SelectedSnapshot { seq: IngestSeq(2), event: Some(Bytes::from("{}")) })
    );
}

#[test]
fn more_late_receipts_than_the_limit_make_the_seal_read_the_log() {
    let mut book = CutBook::default();
    book.arm_seal(TsMs(5));
    (1..=LATE_MAX as u64 + 1).for_each(|seq| book.observe_receipt(&receipt(seq, 10, "A")));

    let sealed = book.seal_tick(TsMs(5), TsMs(5), vec![first_cut("A")], None);

    assert_eq!(starts(sealed), (None, vec![], vec![Some(1)]));
    assert_eq!(book.slices["A"].counts.values().sum::<u64>(), LATE_MAX as u64 + 1);
}

#[test]
fn event_types_beyond_the_limit_are_counted_together() {
    let mut slice = OpenSlice::starting_at(IngestSeq(1), None);

    (1..=300).for_each(|n| slice.add_receipt(&format!("T{n}"), None, IngestSeq(n), b"{}"));

    assert_eq!(slice.counts_by_type().len(), COUNTED_TYPES_MAX + 1);
    assert_eq!(slice.counts_by_type()[OTHER_TYPES], 300 - COUNTED_TYPES_MAX as u64);
}

#[test]
fn snapshot_timestamps_beyond_the_limit_lose_the_largest() {
    let mut slice = OpenSlice::starting_at(IngestSeq(1), Some(TsMs(0)));
    let max = i64::try_from(CANDIDATES_MAX).unwrap();

    (0..=max + 1)
        .zip(1..)
        .for_each(|(ts, seq)| slice.add_receipt("S", Some(TsMs(ts)), IngestSeq(seq), b"{}"));

    assert_eq!(slice.candidates.len(), CANDIDATES_MAX);
    assert_eq!(slice.select_snapshot(TsMs(0)), None, "at the floor");
    assert_eq!(slice.select_snapshot(TsMs(1)).unwrap().seq, IngestSeq(2));
    assert_eq!(slice.select_snapshot(TsMs(max)).unwrap().seq, IngestSeq(CANDIDATES_MAX as u64 + 1));
    assert_eq!(slice.select_snapshot(TsMs(max + 1)), None);
}

#[test]
#[should_panic(expected = "LOG-1")]
fn a_receipt_out_of_turn_breaks_log_1() {
    book(&[receipt(1, 10, "A"), receipt(3, 10, "A")]);
}

#[test]
#[should_panic(expected = "LOG-5")]
fn a_receipt_older_than_its_predecessor_breaks_log_5() {
    book(&[receipt(1, 10, "A"), receipt(2, 9, "A")]);
}
