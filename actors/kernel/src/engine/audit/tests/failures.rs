//! Failures that follow from the receipts are derived, and those of the engine are named.

use super::*;
use crate::ids::EventType;

#[test]
fn a_completed_run_without_a_snapshot_and_an_engine_that_fails_now_diverge() {
    let tick =
        crate::engine::cadence::Cadence::Boundary { interval_ms: 100, delay_ms: 0 }.first_tick(TsMs(0));
    let cut = |snapshot| crate::engine::cut::SymbolCut {
        symbol: Symbol::from("A"),
        start: IngestSeq(if snapshot { 1 } else { 2 }),
        end: IngestSeq(1),
        counts: if snapshot {
            BTreeMap::from([(EventType::from("SnapshotInputs"), 1)])
        } else {
            BTreeMap::new()
        },
        snapshot: snapshot.then_some(crate::engine::cut::SelectedSnapshot { seq: IngestSeq(1), event: None }),
    };
    let completed = |snapshot| {
        let started =
            crate::engine::run::first_started_record(tick, cut(snapshot), EngineMode::Truth, TsMs(0), 1);
        let answer = EngineAnswer::Truth { regime_output: "{}".to_owned() };
        let completed = Attempts::first_attempt(started.facts.clone()).completed_record(
            answer,
            EngineIdentity::default(),
            TsMs(1),
        );
        [started, completed]
    };

    let without = completed(false);
    let mut audit = Audit::new(outline(&without), StateFrom::Record, ReplayStart::default());
    let mut found = Vec::new();
    audit.receipts_ended();
    without.iter().for_each(|record| drop(audit.take_run_record(RunSeq(1), record, &mut found)));
    let status = found.iter().find(|found| found.field == "status").unwrap();
    assert!(status.replayed.starts_with("failed (missing_snapshot_inputs"), "{status}");

    let log = [Stored {
        ingest_ts_ms: TsMs(50),
        symbol: "A",
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(100)),
        event: r#"{"normalized":{}}"#.to_owned(),
    }];
    let with = completed(true);
    let mut audit = Audit::new(outline(&with), StateFrom::Record, ReplayStart::default());
    let mut found = Vec::new();
    records(&log).for_each(|record| audit.take_receipt(record.ingest_seq.into(), &record, &mut found));
    audit.receipts_ended();
    assert_eq!(audit.take_run_record(RunSeq(1), &with[0], &mut found), AuditStep::Nothing);
    assert!(matches!(audit.take_run_record(RunSeq(2), &with[1], &mut found), AuditStep::Call(_)));
    assert_eq!(found, []);
    let error = EngineError::from_engine(ErrorKind::EngineFailure, "boom");
    audit.compare_answer(RunSeq(2), &with[1], Err(error), &mut found);
    assert_eq!((found[0].field, found[0].replayed.as_str()), ("status", "failed (engine_failure: boom)"));
}

/// Method: a snapshot that holds no object to give to the engine; the failure is derived, not believed.
#[test]
fn a_snapshot_that_cannot_be_given_to_the_engine_is_a_derived_failure() {
    let log = [Stored {
        ingest_ts_ms: TsMs(50),
        symbol: "A",
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(100)),
        event: r#"{"no":"normalized"}"#.to_owned(),
    }];
    let tick =
        crate::engine::cadence::Cadence::Boundary { interval_ms: 100, delay_ms: 0 }.first_tick(TsMs(0));
    let cut = crate::engine::cut::SymbolCut {
        symbol: Symbol::from("A"),
        start: IngestSeq(1),
        end: IngestSeq(1),
        counts: BTreeMap::from([(EventType::from("SnapshotInputs"), 1)]),
        snapshot: Some(crate::engine::cut::SelectedSnapshot { seq: IngestSeq(1), event: None }),
    };
    let started = crate::engine::run::first_started_record(tick, cut, EngineMode::Truth, TsMs(0), 1);
    let failed = Attempts::first_attempt(started.facts.clone())
        .failed_record(&crate::engine::run::unusable_snapshot(IngestSeq(1)), TsMs(1));

    let honest = audit(&log, &[started.clone(), failed.clone()]);
    let mut forged = failed.clone();
    if let RunStatus::Failed { error_detail, .. } = &mut forged.status {
        error_detail.push('!');
    }

    assert_eq!((honest.found.as_slice(), honest.replayed), ([].as_slice(), vec![(RunSeq(2), failed)]));
    assert!(audit(&log, &[started, forged]).has(Check::Failures, "error_detail"));
}
