//! Retention against random histories: what is left replays and recovers as if nothing had gone.

use proptest::prelude::*;

use super::*;
use crate::engine::audit::{self, Audit, AuditStep, StateFrom};
use crate::engine::contracts::orchestrator_event::events;
use crate::engine::cut::CutRequest;
use crate::engine::divergence::Divergence;
use crate::engine::replay::RunLogOutline;
use crate::engine::tests::model::{Live, Stored, advance, engine, history, later, records, trimmed_history};
use crate::ports::fan_out::OutputMessage;
use crate::ports::log::LogStat;

/// Who can be scheduled from now on.
const SYMBOLS: [&str; 4] = ["A", "B", "C", "unlisted"];

/// These of them, or all that are discovered.
fn scheduled() -> impl Strategy<Value = Scheduled> {
    let listed = |mask: u8| {
        let names = SYMBOLS.iter().enumerate().filter(move |(at, _)| mask & (1 << at) != 0);
        Scheduled::Listed(names.map(|(_, name)| Symbol::from(*name)).collect())
    };
    prop_oneof![
        3 => (0..16u8).prop_map(listed),
        2 => (0..5usize).prop_map(|limit| Scheduled::Discovered { limit }),
    ]
}

/// The outputs of the terminal records after the base, by an audit of nothing but what is left; and what it found.
fn replayed(base: &RetentionBase, live: &Live) -> (Vec<OutputMessage>, Vec<Divergence>) {
    let rest: Vec<(RunSeq, &RunRecord)> =
        (1..).map(RunSeq).zip(&live.runs).filter(|(seq, _)| base.runs_from() <= *seq).collect();
    let mut outline = RunLogOutline::default();
    rest.iter().for_each(|(_, record)| outline.note_record(record));
    let mut audit = Audit::new(outline, StateFrom::Replay, audit::ReplayStart::from(base));
    let (mut outputs, mut found) = (Vec::new(), Vec::new());
    for record in records(&live.log).filter(|record| base.receipts_from() <= record.ingest_seq) {
        audit.take_receipt(record.ingest_seq.into(), &record, &mut found);
    }
    audit.receipts_ended();
    for (at, record) in rest {
        let again = match audit.take_run_record(at, record, &mut found) {
            AuditStep::Nothing => continue,
            AuditStep::Settled(settled) => *settled,
            AuditStep::Call(call) => audit.compare_answer(at, record, Ok(engine(&call)), &mut found),
        };
        outputs.extend(events(at, &again, None).unwrap());
    }
    (outputs, found)
}

fn published(base: &RetentionBase, live: &Live) -> Vec<OutputMessage> {
    let rest = (1..).map(RunSeq).zip(&live.runs).filter(|(seq, _)| base.runs_from() <= *seq);
    rest.flat_map(|(seq, record)| events(seq, record, None).unwrap()).collect()
}

/// As `recovery::run_index` and `recovery::cut_book`, without checkpoints.
fn recovered(base: &RetentionBase, runs: &[RunRecord], log: &[Stored]) -> (RunIndex, CutBook) {
    let mut index = base.run_index().clone();
    let rest = runs.iter().zip(1..).filter(|(_, seq)| base.runs_from().0 <= *seq);
    rest.for_each(|(record, _)| index.admit_record(record).unwrap());
    let mut book = base.cut_book();
    for (symbol, runs) in index.symbols() {
        let missing = book.track_symbol(symbol, runs.next_start().unwrap(), runs.last_engine_ts);
        assert!(!missing, "{symbol} needs receipts before the base");
    }
    records(log)
        .filter(|record| base.receipts_from() <= record.ingest_seq)
        .for_each(|r| book.observe_receipt(&r));
    (index, book)
}

fn part(of: usize, part: u8) -> u64 {
    of as u64 * u64::from(part) / 255
}

/// Asks for these parts of the logs.
fn asked(live: &Live, (receipts, runs, age, published): (u8, u8, u8, u8)) -> TrimRequest {
    let span = live.log.last().map_or(0, |last| last.ingest_ts_ms.0 - 1_000_000);
    TrimRequest {
        receipts_below: IngestSeq(1 + part(live.log.len(), receipts)),
        receipts_stop: None,
        runs_below: RunSeq(1 + part(live.runs.len(), runs)),
        runs_older_than: Some(TsMs(1_000_000 + span * i64::from(age) / 255)),
        published: RunSeq(part(live.runs.len(), published)),
    }
}

fn parts() -> impl Strategy<Value = (u8, u8, u8, u8)> {
    let often_none = prop_oneof![2 => Just(0u8), 1 => any::<u8>()];
    let often_all = prop_oneof![2 => Just(255u8), 1 => any::<u8>()];
    (any::<u8>(), often_none.clone(), often_none, often_all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_replays_and_recovers_as_if_nothing_had_gone(
        history in history(), parts in parts(), first in any::<u8>(), scheduled in scheduled(),
    ) {
        let live = Live::after(history);
        let asked = asked(&live, parts);

        // In two steps when the first one stops earlier; the base between them as it is stored.
        let less = |seq: u64| 1 + (seq.max(1) - 1) * u64::from(first) / 255;
        let less = TrimRequest {
            receipts_stop: Some(IngestSeq(less(asked.receipts_below.0))),
            runs_below: RunSeq(less(asked.runs_below.0)),
            runs_older_than: None,
            ..asked
        };
        let (step, _) = advance(&live.log, &live.runs, RetentionBase::default(), less, &scheduled);
        let step = RetentionBase::decode(&step.encode()).unwrap();
        let (base, held) = advance(&live.log, &live.runs, step, asked, &scheduled);

        prop_assert!(base.receipts_from() <= asked.receipts_below.max(IngestSeq(1)));
        prop_assert!(base.runs_from() <= asked.published.next());
        let is_short = base.receipts_from() < asked.receipts_below;
        prop_assert_eq!(is_short, held != TrimBlocker::No, "what holds is named: {:?}", held);
        prop_assert_eq!(replayed(&base, &live), (published(&base, &live), Vec::new()));

        let later = later(&base, &live.runs);
        let holders = RetainedFor { scheduled: &scheduled, later: &later };
        let ran = live.index.symbols().count();
        let needs = |symbol: &Symbol| match base.run_index().get(symbol) {
            Some(known) => holders.needs_receipts(symbol, known),
            None => later.symbols.contains_key(symbol) || holders.need_first(ran),
        };
        let (index, mut book) = recovered(&base, &live.runs, &live.log);
        let (_, mut whole) = recovered(&RetentionBase::default(), &live.runs, &live.log);
        prop_assert_eq!((index.tail(), index.run_counts()), (live.index.tail(), live.index.run_counts()));
        for (symbol, runs) in live.index.symbols() {
            let mut again = index.symbol_runs(symbol);
            if !needs(symbol) {
                prop_assert!(runs.last_cut_end <= again.last_cut_end);
                again.last_cut_end = runs.last_cut_end;
            }
            prop_assert_eq!(&again, runs);
        }
        // Of symbols that nobody runs the book may know less.
        for book in [&mut book, &mut whole] {
            book.forget_all_but(needs);
            book.take_discovered();
        }
        prop_assert_eq!(book, whole);
    }

    /// Method: a history in which the service itself lets go, and symbols are taken out and listed again.
    #[test]
    fn what_is_left_of_a_trimmed_service_replays_from_its_base(history in trimmed_history()) {
        let live = Live::after(history);
        let base = live.base();

        prop_assert_eq!(replayed(&base, &live), (published(&base, &live), Vec::new()));
    }

    #[test]
    fn the_first_young_record_is_found_with_few_questions(
        from in 1..50u64, count in 0..5000u64, old in 0..5000u64,
    ) {
        let (tail, young) = (from + count - 1, from + old.min(count));
        let mut search = FirstYoung::new(Seq(from), Seq(tail));
        let mut questions = 0;

        while let Some(at) = search.record_to_ask() {
            prop_assert!((from..=tail).contains(&at.0));
            search.tell_age(at, at.0 < young);
            questions += 1;
        }

        prop_assert_eq!(search.first_to_stay(), Seq(young));
        prop_assert!(questions <= 2 * (64 - (young - from + 1).leading_zeros()) + 2 + 13, "{}", questions);
    }
}

fn receipt(seq: u64, symbol: &str) -> ReceiptRecord<'_> {
    ReceiptRecord {
        ingest_seq: IngestSeq(seq),
        ingest_ts_ms: TsMs(1000),
        origin: "o",
        position: seq,
        symbol,
        event_type: "TradeTick",
        snapshot_ts_ms: None,
        event: b"{}",
    }
}

/// A discovered symbol holds its first receipt until it has run, as long as there is room for it; a listed one holds
/// everything until its first run, which every tick makes; one that nobody runs holds nothing.
#[test]
fn a_symbol_that_never_ran_holds_only_when_it_is_to_be_run() {
    let asked = TrimRequest { receipts_below: IngestSeq(9), ..TrimRequest::default() };
    let later = RunsAfterBase::default();
    let floor = |scheduled: Scheduled| {
        let mut advance = BaseAdvance::new(
            RetentionBase::default(),
            asked,
            RetainedFor { scheduled: &scheduled, later: &later },
        );
        let (limit, held) = advance.receipt_limit();
        let taken =
            (1..limit.0).map(|seq| advance.take_receipt(&receipt(seq, if seq < 5 { "X" } else { "Y" })));
        let taken = taken.take_while(|held| *held == TrimBlocker::No).count();
        (taken, held, advance.into_base())
    };
    let listed = |names: &[&str]| Scheduled::Listed(names.iter().map(|name| Symbol::from(*name)).collect());

    assert_eq!(floor(Scheduled::Discovered { limit: 1 }).0, 0);
    let (taken, held, _) = floor(listed(&["Z"]));
    assert_eq!((taken, held), (0, TrimBlocker::BySymbol(Symbol::from("Z"), IngestSeq(1))));
    assert_eq!(floor(Scheduled::Discovered { limit: 0 }).0, 8);
    let (taken, _, base) = floor(listed(&[]));
    assert_eq!((taken, base.receipts_from()), (8, IngestSeq(9)));
    assert_eq!(
        base.cut_book().positions().settled_up_to("o"),
        8,
        "what its producer has settled is still known"
    );

    let mut book = base.cut_book();
    book.observe_receipt(&receipt(9, "Y"));
    let request =
        |symbol| CutRequest { symbol: Symbol::from(symbol), start: None, floor: None, only_if_seen: true };
    let cuts = book.seal_tick(TsMs(1000), TsMs(1000), vec![request("X"), request("Y")], None).cuts;
    let starts: Vec<_> = cuts.iter().map(|cut| (cut.symbol.as_str(), cut.start)).collect();
    assert_eq!(
        starts,
        [("Y", IngestSeq(9))],
        "a first cut starts with the first receipt that is still there"
    );
}

/// A checkpoint of the book that is newer than the base still has what was let go.
#[test]
fn a_checkpoint_forgets_what_a_base_let_go() {
    let mut book = CutBook::default();
    (1..9).for_each(|seq| book.observe_receipt(&receipt(seq, if seq % 2 == 0 { "X" } else { "ran" })));

    let again = book.forget_before(IngestSeq(5), |symbol| symbol.as_str() == "ran");

    assert_eq!(again, [Symbol::from("X")]);
    (5..9).for_each(|seq| book.backfill_receipt(&receipt(seq, if seq % 2 == 0 { "X" } else { "-" })));
    let request = CutRequest { symbol: Symbol::from("X"), start: None, floor: None, only_if_seen: true };
    let cuts = book.seal_tick(TsMs(1000), TsMs(1000), vec![request], None).cuts;
    assert_eq!((cuts[0].start, cuts[0].counts.values().sum::<u64>()), (IngestSeq(6), 2));
    assert_eq!(book.forget_before(IngestSeq(5), |_| false), [Symbol::from("ran")]);
}

/// A seal whose run was never recorded leaves a slice behind the base; the first cut would still start before it.
#[test]
fn a_checkpoint_forgets_where_a_first_cut_without_a_run_started() {
    let mut book = CutBook::default();
    (1..5).for_each(|seq| book.observe_receipt(&receipt(seq, "X")));
    let request = CutRequest { symbol: Symbol::from("X"), start: None, floor: None, only_if_seen: true };
    assert_eq!(book.seal_tick(TsMs(1000), TsMs(1000), vec![request.clone()], None).cuts.len(), 1);

    let again = book.forget_before(IngestSeq(3), |_| false);

    assert_eq!(again, [Symbol::from("X")]);
    (3..5).for_each(|seq| book.backfill_receipt(&receipt(seq, "X")));
    let cuts = book.seal_tick(TsMs(1000), TsMs(1000), vec![request], None).cuts;
    assert_eq!((cuts[0].start, cuts[0].counts.values().sum::<u64>()), (IngestSeq(3), 2));
}

/// What a base remembers of a symbol that was taken out, came back, and was taken out again; through every later base.
#[test]
fn a_base_remembers_each_stretch_that_went_without_a_run() {
    let mut let_go = TrimmedCuts::default();
    let a = Symbol::from("A");

    let_go.end_range(&a, RunSeq(1));
    let_go.extend_range(&a, IngestSeq(7), IngestSeq(12));
    let_go.extend_range(&a, IngestSeq(12), IngestSeq(20));
    let_go.end_range(&a, RunSeq(30));
    let_go.end_range(&a, RunSeq(32));
    let_go.extend_range(&a, IngestSeq(20), IngestSeq(40));

    let stretch = |from: u64, to: u64, begun: Option<u64>| TrimmedRange {
        from: Some(IngestSeq(from)),
        to: IngestSeq(to),
        begun: begun.map(RunSeq),
    };
    assert_eq!(let_go.ranges_of(&a), [stretch(7, 20, Some(30)), stretch(20, 40, None)]);

    let b = Symbol::from("B");
    let_go.begin_first(&b, RunSeq(33), IngestSeq(1));
    assert!(let_go.ranges_of(&b).is_empty(), "nothing was let go before its first run");
    let_go.begin_first(&b, RunSeq(33), IngestSeq(40));
    assert_eq!(let_go.ranges_of(&b), [TrimmedRange { from: None, ..stretch(0, 40, Some(33)) }]);
}

#[test]
fn limits_of_count_and_bytes_say_what_stays() {
    let stat = LogStat { start: Seq(101), tail: Seq(200), bytes: 1000 };
    let below =
        |records_max, bytes_max| Policy { age_ms_max: None, records_max, bytes_max }.trim_point(stat).0;

    assert_eq!(below(None, None), 101);
    assert_eq!(below(Some(100), Some(1000)), 101);
    assert_eq!(below(Some(30), None), 171);
    assert_eq!(below(None, Some(500)), 151);
    assert_eq!(below(Some(30), Some(500)), 171, "whichever lets more go");
    assert_eq!(below(Some(0), Some(0)), 201);
    let empty = LogStat { start: Seq(201), tail: Seq(200), bytes: 64 };
    assert_eq!(
        Policy { records_max: Some(0), bytes_max: Some(0), age_ms_max: None }.trim_point(empty),
        Seq(201)
    );
}
