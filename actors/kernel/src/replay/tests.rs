//! REP-1: replay = live. What the two logs hold gives the published events again, byte for byte.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::contracts::engine_run::Cut;
use crate::contracts::orchestrator_event::events;
use crate::ids::RunSeq;
use crate::model::{Live, Stored, engine, history, records};
use crate::ports::fan_out::OutputMessage;

/// Replays the two logs; the replayed terminal records with their positions.
fn replay(log: &[Stored], runs: &[RunRecord]) -> Result<Vec<(RunSeq, RunRecord)>, Divergence> {
    let (mut replay, mut receipts) = (Replay::default(), records(log).peekable());
    let mut replayed = Vec::new();
    for (record, run_seq) in runs.iter().zip(1..) {
        while let Some(receipt) = receipts.next_if(|receipt| receipt.ingest_seq <= record.facts.cut.end) {
            replay.receipt(&receipt);
        }
        match replay.run(record)? {
            Step::Nothing => {}
            Step::Settled(settled) => replayed.push((RunSeq(run_seq), *settled)),
            Step::Call(call) => {
                let finished = replay.finish(record, Ok(engine(&call)))?;
                replayed.push((RunSeq(run_seq), finished));
            }
        }
    }
    Ok(replayed)
}

fn published<'a>(terminals: impl Iterator<Item = (RunSeq, &'a RunRecord)>) -> Vec<OutputMessage> {
    terminals.flat_map(|(run_seq, record)| events(run_seq, record, None).unwrap()).collect()
}

fn live_events(runs: &[RunRecord]) -> Vec<OutputMessage> {
    published((1..).map(RunSeq).zip(runs))
}

fn replayed_events(log: &[Stored], runs: &[RunRecord]) -> Result<Vec<OutputMessage>, Divergence> {
    replay(log, runs).map(|replayed| published(replayed.iter().map(|(seq, record)| (*seq, record))))
}

/// A record, changed in one fact, and the field that a divergence must name.
fn flips() -> impl Strategy<Value = (&'static str, fn(&mut RunFacts))> {
    prop::sample::select(vec![
        (
            "run_id",
            (|facts| {
                facts.run_id = RunId::derive(&Symbol::from("?"), TsMs(0), IngestSeq(0), EngineMode::Truth)
            }) as fn(&mut RunFacts),
        ),
        ("run_id", |facts| facts.symbol = Symbol::from("?")),
        ("run_id", |facts| facts.engine_timestamp_ms = facts.engine_timestamp_ms.plus(1)),
        ("run_id", |facts| facts.cut = Cut { end: facts.cut.end.next(), ..facts.cut }),
        ("run_id", |facts| {
            facts.engine_mode = match facts.engine_mode {
                EngineMode::Truth => EngineMode::Hysteresis,
                EngineMode::Hysteresis => EngineMode::Truth,
            };
        }),
        ("cut_start_ingest_seq", |facts| facts.cut = Cut { start: facts.cut.start.next(), ..facts.cut }),
        ("snapshot", |facts| {
            facts.snapshot_seq = match facts.snapshot_seq {
                Some(_) => None,
                None => Some(facts.cut.end),
            };
        }),
        ("snapshot", |facts| facts.snapshot_seq = Some(facts.snapshot_seq.unwrap_or_default().next())),
        ("counts_by_event_type", |facts| {
            *facts.counts_by_event_type.entry(EventType::from("Candle")).or_default() += 1;
        }),
    ])
}

proptest! {
    #[test]
    fn replay_gives_the_live_events_byte_for_byte(history in history()) {
        let live = Live::after(history);

        prop_assert_eq!(replayed_events(&live.log, &live.runs), Ok(live_events(&live.runs)));
        let ended: Vec<_> = (1..).map(RunSeq).zip(live.runs.clone()).filter(|(_, r)| r.is_terminal()).collect();
        prop_assert_eq!(replay(&live.log, &live.runs), Ok(ended));
    }

    /// Outputs are numbered per symbol without gap, and come in the order of engine time (OUT-1).
    #[test]
    fn outputs_of_a_symbol_are_numbered_without_gap(history in history()) {
        let live = Live::after(history);

        let mut by_symbol: BTreeMap<Symbol, Vec<u64>> = BTreeMap::new();
        for output in live_events(&live.runs) {
            by_symbol.entry(output.symbol).or_default().push(output.symbol_seq);
        }
        for (symbol, numbers) in by_symbol {
            prop_assert_eq!(&numbers, &(1..=numbers.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(live.index.symbol(&symbol).outputs, numbers.len() as u64);
        }
    }

    #[test]
    fn a_recorded_fact_that_does_not_follow_from_the_receipts_is_named(
        history in history(), at in any::<prop::sample::Index>(), (field, flip) in flips(),
    ) {
        let mut live = Live::after(history);
        let terminals: Vec<usize> =
            (0..live.runs.len()).filter(|index| live.runs[*index].is_terminal()).collect();
        if terminals.is_empty() {
            return Ok(());
        }
        let flipped = &mut live.runs[terminals[at.index(terminals.len())]].facts;
        flip(flipped);
        let run_id = flipped.run_id;

        let divergence = replay(&live.log, &live.runs).unwrap_err();

        prop_assert_eq!((divergence.field, divergence.run_id), (field, run_id));
        prop_assert_ne!(&divergence.recorded, &divergence.replayed);
    }

    /// Method: change one recorded answer; replay gives the engine's, so the bytes differ for the caller to see.
    #[test]
    fn a_recorded_answer_is_never_trusted(history in history(), at in any::<prop::sample::Index>()) {
        let mut live = Live::after(history);
        let honest = live_events(&live.runs);
        let answers: Vec<&mut EngineAnswer> = live.runs.iter_mut().filter_map(|record| match &mut record.status {
            RunStatus::Completed { answer, .. } => Some(answer),
            RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        }).collect();
        if answers.is_empty() {
            return Ok(());
        }
        let chosen = at.index(answers.len());
        match answers.into_iter().nth(chosen).unwrap() {
            EngineAnswer::Truth { regime_output } => *regime_output = "{}".to_owned(),
            EngineAnswer::Hysteresis { decision, .. } => *decision = r#"{"selected_output":{}}"#.to_owned(),
        }

        prop_assert_eq!(replayed_events(&live.log, &live.runs), Ok(honest.clone()));
        prop_assert_ne!(live_events(&live.runs), honest);
    }

    /// Method: change one receipt that some run counted, without a trace in the run log.
    #[test]
    fn a_receipt_of_another_type_is_noticed(history in history(), at in any::<prop::sample::Index>()) {
        let mut live = Live::after(history);
        let counted: Vec<usize> = records(&live.log)
            .filter(|receipt| live.runs.iter().any(|run| run.is_terminal()
                && run.facts.symbol.as_str() == receipt.symbol
                && receipt.ingest_seq <= run.facts.cut.end))
            .map(|receipt| usize::try_from(receipt.ingest_seq.0).unwrap() - 1)
            .collect();
        if counted.is_empty() {
            return Ok(());
        }
        live.log[counted[at.index(counted.len())]].event_type = "Forged";

        prop_assert_eq!(replay(&live.log, &live.runs).unwrap_err().field, "counts_by_event_type");
    }
}

#[test]
fn a_completed_run_without_a_snapshot_and_an_engine_that_fails_now_diverge() {
    let tick = crate::cadence::Cadence::Boundary { interval_ms: 100, delay_ms: 0 }.first(TsMs(0));
    let cut = |snapshot| crate::cut::CutSlice {
        symbol: Symbol::from("A"),
        start: IngestSeq(if snapshot { 1 } else { 2 }),
        end: IngestSeq(1),
        counts: if snapshot {
            BTreeMap::from([(EventType::from("SnapshotInputs"), 1)])
        } else {
            BTreeMap::new()
        },
        snapshot: snapshot.then_some(crate::cut::Snapshot { seq: IngestSeq(1), event: None }),
    };
    let completed = |snapshot| {
        let started = crate::run::start(tick, cut(snapshot), EngineMode::Truth, TsMs(0), 1);
        let answer = EngineAnswer::Truth { regime_output: "{}".to_owned() };
        Attempts::first(started.facts).completed(
            answer,
            crate::ports::engine::EngineIdentity::default(),
            TsMs(1),
        )
    };

    let without = Replay::default().run(&completed(false)).unwrap_err();
    assert_eq!((without.field, without.replayed.as_str()), ("status", "missing_snapshot_inputs"));

    let log = [Stored {
        ingest_ts_ms: TsMs(50),
        symbol: "A",
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(100)),
        event: r#"{"normalized":{}}"#.to_owned(),
    }];
    let mut replay = Replay::default();
    records(&log).for_each(|record| replay.receipt(&record));
    let record = completed(true);
    assert!(matches!(replay.run(&record), Ok(Step::Call(_))));
    let error = EngineError { kind: ErrorKind::EngineFailure, detail: "boom".to_owned() };
    let failing = replay.finish(&record, Err(error)).unwrap_err();
    assert_eq!((failing.field, failing.replayed.as_str()), ("status", "failed (engine_failure: boom)"));
}
