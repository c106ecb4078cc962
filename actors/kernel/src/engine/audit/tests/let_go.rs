//! Whole logs of a service that had let a part of them go, and lists symbols again after it: what began anew is
//! recognised by the base alone, and nothing else is.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::engine::tests::model::{Op, trimmed_history};

/// Of the runs whose cut does not continue the symbol's last one: where, of whom, and where the cut starts.
fn skipping(runs: &[RunRecord]) -> Vec<(RunSeq, Symbol, IngestSeq)> {
    let mut ends: BTreeMap<&Symbol, IngestSeq> = BTreeMap::new();
    let mut found = Vec::new();
    let started = (1..).map(RunSeq).zip(runs).filter(|(_, record)| !record.is_terminal());
    for (at, RunRecord { facts, .. }) in started {
        let before = ends.insert(&facts.symbol, facts.cut.end);
        if before.is_some_and(|end| end.next() < facts.cut.start) {
            found.push((at, facts.symbol.clone(), facts.cut.start));
        }
    }
    found
}

/// First cuts that leave out receipts of their symbol: where, of whom, where the cut starts, and how many.
fn begun_late(live: &Live) -> Vec<(RunSeq, Symbol, IngestSeq, u64)> {
    let first = |symbol: &Symbol| {
        let mut runs = (1..).map(RunSeq).zip(&live.runs);
        let (at, record) = runs.find(|(_, record)| record.facts.symbol == *symbol)?;
        let start = record.facts.cut.start;
        let left_out =
            |receipt: &ReceiptRecord<'_>| receipt.symbol == symbol.as_str() && receipt.ingest_seq < start;
        let left_out = records(&live.log).filter(left_out).count() as u64;
        (0 < left_out).then_some((at, symbol.clone(), start, left_out))
    };
    live.index.symbols().filter_map(|(symbol, _)| first(symbol)).collect()
}

fn whole(
    live: &Live,
    runs: &[RunRecord],
    base: &retention::RetentionBase,
) -> (Audited, Vec<ResumedAfterTrim>) {
    let mut audit = Audit::new(outline(runs), StateFrom::Replay, ReplayStart::of_whole_logs(base));
    let audited = audit_with(&mut audit, records(&live.log), runs, (IngestSeq(0), RunSeq(1)));
    (audited, audit.resumed_after_trim().to_vec())
}

/// Changes the cut of the run that begins at `at` in all of its records.
fn with_start(runs: &[RunRecord], at: RunSeq, start: IngestSeq) -> Vec<RunRecord> {
    let mut runs = runs.to_vec();
    let run_id = runs[usize::try_from(at.0).unwrap() - 1].facts.run_id;
    let of_run = runs.iter_mut().filter(|record| record.facts.run_id == run_id);
    of_run.for_each(|record| record.facts.cut.start = start);
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_let_go_without_a_run_is_told_and_is_no_difference(history in trimmed_history()) {
        let live = Live::after(history);

        let (audited, anew) = whole(&live, &live.runs, &live.base());

        prop_assert_eq!(&audited.found, &[]);
        prop_assert_eq!(replayed_events(&audited), live_events(&live.runs));
        let mut expected = skipping(&live.runs);
        let told: Vec<_> = anew.iter().map(|anew| (anew.at, anew.symbol.clone(), anew.before)).collect();
        for (at, symbol, start, left_out) in begun_late(&live) {
            let told = anew.iter().find(|anew| anew.at == at).expect("a first cut that leaves out receipts is told");
            prop_assert_eq!(told.receipts, left_out);
            prop_assert!(told.before <= start);
            expected.push((at, symbol, told.before));
        }
        expected.sort();
        prop_assert_eq!(told, expected);
    }

    /// Method: every cut that began anew starts elsewhere: one earlier, one later, where the last one ended.
    #[test]
    fn a_cut_that_begins_anew_elsewhere_is_named(history in trimmed_history()) {
        let live = Live::after(history);
        let base = live.base();

        for (at, symbol, start) in skipping(&live.runs) {
            let before = usize::try_from(at.0).unwrap() - 1;
            let last = live.runs[..before].iter().rfind(|record| record.facts.symbol == symbol).unwrap();
            for start in [IngestSeq(start.0 - 1), start.next(), last.facts.cut.end.next()] {
                let (audited, _) = whole(&live, &with_start(&live.runs, at, start), &base);
                prop_assert!(audited.has(Check::Cuts, "cut_start_ingest_seq"), "{at}: {:?}", audited.found);
            }
        }
        for (at, _, start, _) in begun_late(&live) {
            for start in [IngestSeq(start.0 - 1), start.next(), IngestSeq(1)] {
                let (audited, _) = whole(&live, &with_start(&live.runs, at, start), &base);
                prop_assert!(audited.found.iter().any(|found| found.check == Check::Cuts), "{at}");
            }
        }
    }

    /// Method: the base that knows least, and each that was saved before the cut could begin anew.
    #[test]
    fn a_base_that_did_not_let_it_go_excuses_nothing(history in trimmed_history()) {
        let live = Live::after(history);
        let bases: Vec<_> = std::iter::once(retention::RetentionBase::default()).chain(live.bases.clone()).collect();

        for (at, _, start) in skipping(&live.runs) {
            for base in bases.iter().filter(|base| base.receipts_from() < start) {
                let (audited, _) = whole(&live, &live.runs, base);
                let place = DivergencePlace::of_run(at, &live.runs[usize::try_from(at.0).unwrap() - 1].facts);
                let named = audited.found.iter().filter(|found| found.place == place);
                prop_assert!(named.clone().any(|found| found.field == "cut_start_ingest_seq"), "{:?}", audited.found);
                prop_assert!(named.clone().any(|found| found.check == Check::Runs), "{:?}", audited.found);
            }
        }
        for (at, ..) in begun_late(&live) {
            let (audited, _) = whole(&live, &live.runs, &retention::RetentionBase::default());
            prop_assert!(audited.found.iter().any(|found| found.check == Check::Cuts), "{at}");
        }
    }
}

/// A gap holds for one run record only, and where the symbol's cuts had come so far; one that is open, behind the base.
#[test]
fn a_gap_is_left_at_its_run_record_and_nowhere_else() {
    let a = Symbol::from("A");
    let gap = |run| Gap { from: Some(IngestSeq(7)), to: IngestSeq(12), run, receipts: 0 };
    let begins = |run, next_start: u64, at| {
        let started = crate::engine::run::first_started_record(
            crate::engine::cadence::Cadence::Boundary { interval_ms: 100, delay_ms: 0 }.first_tick(TsMs(0)),
            crate::engine::cut::SymbolCut {
                symbol: a.clone(),
                start: IngestSeq(1),
                end: IngestSeq(6),
                counts: BTreeMap::new(),
                snapshot: None,
            },
            EngineMode::Truth,
            TsMs(0),
            1,
        );
        let mut replay = CutReplay::new(outline(&[started]), IngestSeq(0));
        replay.continue_at(&a, Some(IngestSeq(next_start)), None);
        replay.leave_out(&a, [gap(run)].into());
        replay.begin_anew(RunSeq(at), &a).is_some()
    };

    assert!(begins(RunSeq(5)..=RunSeq(5), 7, 5));
    assert!(!begins(RunSeq(5)..=RunSeq(5), 7, 4));
    assert!(!begins(RunSeq(5)..=RunSeq(5), 7, 6));
    assert!(!begins(RunSeq(5)..=RunSeq(5), 8, 5));
    assert!(begins(RunSeq(9)..=RunSeq(u64::MAX), 7, 9));
    assert!(!begins(RunSeq(9)..=RunSeq(u64::MAX), 7, 8));
}

/// A process that discovered the symbol before its receipts went still had them for its first cut, which then is what a
/// cut of the whole log is.
#[test]
fn a_first_cut_that_has_receipts_from_before_the_base_leaves_nothing_out() {
    let live = Live::after((
        false,
        vec![
            Op::Receipt { wait_ms: 1, symbol: 0, kind: 0, snapshot: None },
            Op::Receipt { wait_ms: 1, symbol: 3, kind: 0, snapshot: None },
            Op::Tick { missed: 0, busy: 0, arm_off_by: Some(0) },
            Op::Run { symbol: 0, errors: 0, gives_up: false },
            Op::Run { symbol: 1, errors: 0, gives_up: false },
            Op::Run { symbol: 2, errors: 0, gives_up: false },
            Op::Receipt { wait_ms: 1, symbol: 3, kind: 0, snapshot: None },
            Op::LetGo { receipts: 255, runs: 255 },
        ],
    ));
    let (gone, never_ran) = (SavedTrims::from(&live.base()), Symbol::from("unlisted"));
    assert_eq!(live.base().receipts_from(), IngestSeq(3));

    let gaps = gone.gaps_of_symbol(&never_ran, IngestSeq(3));
    assert_eq!(gaps.iter().map(|gap| (gap.from, gap.to)).collect::<Vec<_>>(), [(None, IngestSeq(3))]);
    assert!(gone.gaps_of_symbol(&never_ran, IngestSeq(2)).is_empty());
    assert!(gone.gaps_of_symbol(&Symbol::from("A"), IngestSeq(3)).is_empty(), "it ran before");
}

/// The properties above see what they are about: symbols of several kinds, let go by earlier bases than the last one.
#[test]
fn the_histories_have_symbols_that_begin_anew() {
    let mut runner = TestRunner::deterministic();
    let (mut skips, mut late, mut earlier, mut twice) = (0, 0, 0, 0);
    for _ in 0..400 {
        let live = Live::after(trimmed_history().new_tree(&mut runner).unwrap().current());
        let skipping = skipping(&live.runs);
        skips += skipping.len();
        late += begun_late(&live).len();
        earlier += skipping.iter().filter(|(_, _, start)| *start < live.base().receipts_from()).count();
        let of = |wanted: &Symbol| skipping.iter().filter(|(_, symbol, _)| symbol == wanted).count();
        twice += live.index.symbols().filter(|(symbol, _)| 1 < of(symbol)).count();
    }
    println!("{skips} cuts began anew, {earlier} by earlier bases, {twice} symbols twice, {late} first cuts");
    assert!(40 < skips && 10 < earlier && 3 < twice && 10 < late);
}
