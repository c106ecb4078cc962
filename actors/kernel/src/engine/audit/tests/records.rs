//! Whatever is changed in the run log is named.

use proptest::prelude::*;

use super::*;
use crate::engine::contracts::engine_run::CutRange;
use crate::ids::EventType;

/// A change of one fact in all records of a run, and what must name it.
type FactFlip = (Check, &'static str, fn(&mut RunFacts));

fn rename(facts: &mut RunFacts) {
    facts.run_id = RunId::derive(&facts.symbol, facts.engine_timestamp_ms, facts.cut.end, facts.engine_mode);
}

/// Facts that follow from the receipts, or from the records before.
fn fact_flips() -> impl Strategy<Value = FactFlip> {
    let flips: Vec<FactFlip> = vec![
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.run_id = RunId::derive(&Symbol::from("?"), TsMs(0), IngestSeq(0), EngineMode::Truth);
        }),
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.engine_timestamp_ms = facts.engine_timestamp_ms.plus_ms(1)
        }),
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.cut = CutRange { end: facts.cut.end.next(), ..facts.cut }
        }),
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.engine_mode = match facts.engine_mode {
                EngineMode::Truth => EngineMode::Hysteresis,
                EngineMode::Hysteresis => EngineMode::Truth,
            };
        }),
        (Check::Cuts, "cut_end_ingest_seq", |facts: &mut RunFacts| {
            facts.cut = CutRange { end: facts.cut.end.next(), ..facts.cut };
            rename(facts);
        }),
        (Check::Cuts, "cut_end_ingest_seq", |facts: &mut RunFacts| {
            facts.cut =
                CutRange { end: IngestSeq(facts.cut.end.0.wrapping_sub(1).min(1 << 40)), ..facts.cut };
            rename(facts);
        }),
        (Check::Cuts, "cut_start_ingest_seq", |facts: &mut RunFacts| {
            facts.cut = CutRange { start: facts.cut.start.next(), ..facts.cut };
        }),
        (Check::Cuts, "snapshot_seq", |facts: &mut RunFacts| {
            facts.snapshot_seq = match facts.snapshot_seq {
                Some(_) => None,
                None => Some(facts.cut.end),
            };
        }),
        (Check::Cuts, "snapshot_seq", |facts: &mut RunFacts| {
            facts.snapshot_seq = Some(facts.snapshot_seq.unwrap_or_default().next());
        }),
        (Check::Cuts, "counts_by_event_type", |facts: &mut RunFacts| {
            *facts.counts_by_event_type.entry(EventType::from("Candle")).or_default() += 1;
        }),
        (Check::Numbering, "symbol_seq", |facts: &mut RunFacts| facts.symbol_seq += 1),
    ];
    prop::sample::select(flips)
}

/// A change of one fact in a terminal record, and the field that must be named.
type TerminalFlip = (&'static str, fn(&mut RunFacts));

/// Facts of a terminal record that its started record says otherwise.
fn terminal_flips() -> impl Strategy<Value = TerminalFlip> {
    let flips: Vec<TerminalFlip> = vec![
        ("order", |facts: &mut RunFacts| facts.symbol = Symbol::from("?")),
        ("engine_timestamp_ms", |facts: &mut RunFacts| {
            facts.engine_timestamp_ms = facts.engine_timestamp_ms.plus_ms(1)
        }),
        ("engine_mode", |facts: &mut RunFacts| {
            facts.engine_mode = match facts.engine_mode {
                EngineMode::Truth => EngineMode::Hysteresis,
                EngineMode::Hysteresis => EngineMode::Truth,
            };
        }),
        ("cut_kind", |facts: &mut RunFacts| facts.cut.kind = crate::ids::CutKind::Timer),
        ("cut_start_ingest_seq", |facts: &mut RunFacts| facts.cut.start = facts.cut.start.next()),
        ("cut_end_ingest_seq", |facts: &mut RunFacts| facts.cut.end = facts.cut.end.next()),
        ("planned_ts_ms", |facts: &mut RunFacts| facts.planned_ts_ms = facts.planned_ts_ms.plus_ms(1)),
        ("started_ts_ms", |facts: &mut RunFacts| facts.started_ts_ms = facts.started_ts_ms.plus_ms(1)),
        ("snapshot_seq", |facts: &mut RunFacts| facts.snapshot_seq = Some(IngestSeq(u64::MAX))),
        ("counts_by_event_type", |facts: &mut RunFacts| {
            *facts.counts_by_event_type.entry(EventType::from("Candle")).or_default() += 1;
        }),
        ("symbol_seq", |facts: &mut RunFacts| facts.symbol_seq += 1),
    ];
    prop::sample::select(flips)
}

/// A change of what a terminal record says beside its facts; `None` when it does not fit the record.
type StatusFlip = fn(&mut RunStatus) -> Option<(Check, &'static str)>;

fn status_flips() -> impl Strategy<Value = StatusFlip> {
    let flips: Vec<StatusFlip> = vec![
        |status: &mut RunStatus| match status {
            RunStatus::Completed { attempts, .. } | RunStatus::Started { attempts } => {
                *attempts += 1;
                Some((Check::Attempts, "attempts"))
            }
            RunStatus::Failed { attempts, .. } => {
                *attempts += 2;
                Some((Check::Attempts, "attempts"))
            }
        },
        |status: &mut RunStatus| match status {
            RunStatus::Completed { answered, .. } => {
                *answered = 0;
                Some((Check::Attempts, "answered"))
            }
            RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Completed { answer: EngineAnswer::Truth { regime_output }, .. } => {
                *regime_output = "{}".to_owned();
                Some((Check::Answers, "regime_output"))
            }
            RunStatus::Completed { answer: EngineAnswer::Hysteresis { decision, .. }, .. } => {
                *decision = r#"{"selected_output":{}}"#.to_owned();
                Some((Check::Answers, "hysteresis_decision"))
            }
            RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } => {
                state.push(' ');
                Some((Check::Answers, "hysteresis_state"))
            }
            RunStatus::Completed { .. } | RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Failed { error_kind: ErrorKind::MissingSnapshotInputs, error_detail, .. } => {
                error_detail.push('.');
                Some((Check::Failures, "error_detail"))
            }
            RunStatus::Failed { error_kind, .. } => {
                *error_kind = ErrorKind::MissingSnapshotInputs;
                Some((Check::Failures, "error_kind"))
            }
            RunStatus::Started { .. } | RunStatus::Completed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Failed { error_kind: kind @ ErrorKind::MissingSnapshotInputs, .. } => {
                *kind = ErrorKind::EngineFailure;
                Some((Check::Failures, "error_kind"))
            }
            RunStatus::Failed { .. } | RunStatus::Started { .. } | RunStatus::Completed { .. } => None,
        },
    ];
    prop::sample::select(flips)
}

proptest! {
    /// Method: change one fact in every record of a run, so that they agree with each other.
    #[test]
    fn a_fact_that_does_not_follow_from_the_records_before_is_named(
        history in history(), at in any::<prop::sample::Index>(), (check, field, flip) in fact_flips(),
    ) {
        let mut live = Live::after(history);
        let ended = ended_runs(&live.runs);
        if ended.is_empty() {
            return Ok(());
        }
        for record in &ended[at.index(ended.len())] {
            flip(&mut live.runs[*record].facts);
        }

        let audited = audit(&live.log, &live.runs);

        prop_assert!(audited.has(check, field), "{:?}", audited.found);
    }

    /// Method: change one fact in the terminal record only.
    #[test]
    fn a_terminal_record_with_other_facts_than_its_started_one_is_named(
        history in history(), at in any::<prop::sample::Index>(), (field, flip) in terminal_flips(),
    ) {
        let mut live = Live::after(history);
        let ended = ended_runs(&live.runs);
        if ended.is_empty() {
            return Ok(());
        }
        let terminal = *ended[at.index(ended.len())].last().unwrap();
        let honest = live.runs[terminal].facts.clone();
        flip(&mut live.runs[terminal].facts);
        prop_assume!(live.runs[terminal].facts != honest);

        let audited = audit(&live.log, &live.runs);

        prop_assert!(audited.has(Check::Runs, field), "{:?}", audited.found);
    }

    #[test]
    fn a_status_that_does_not_follow_is_named_and_no_answer_is_trusted(
        history in history(), at in any::<prop::sample::Index>(), flip in status_flips(),
    ) {
        let mut live = Live::after(history);
        if live.runs.is_empty() {
            return Ok(());
        }
        let index = at.index(live.runs.len());
        let honest = live_events(&live.runs);
        let Some((check, field)) = flip(&mut live.runs[index].status) else { return Ok(()) };

        let audited = audit(&live.log, &live.runs);

        let place = DivergencePlace::of_run(RunSeq(index as u64 + 1), &live.runs[index].facts);
        let named = audited.found.iter().any(|found| (found.check, found.field) == (check, field) && found.place == place);
        prop_assert!(named, "{:?}", audited.found);
        if check == Check::Answers {
            // A recorded state is given to the next call; one that was computed is not touched by what is recorded.
            let recomputed = audit_from(records(&live.log), &live.runs, StateFrom::Replay, ReplayStart::default());
            prop_assert_eq!(replayed_events(&recomputed), honest);
        }
    }

    /// RUN-2, RUN-3. Method: leave a record out, or repeat one.
    #[test]
    fn a_record_that_is_missing_or_comes_twice_is_named(
        history in history(), at in any::<prop::sample::Index>(), twice in any::<bool>(),
    ) {
        let mut live = Live::after(history);
        if live.runs.is_empty() {
            return Ok(());
        }
        let index = at.index(live.runs.len());
        let record = if twice { live.runs[index].clone() } else { live.runs.remove(index) };
        let later = live.runs[index..].iter().any(|later| later.facts.symbol == record.facts.symbol);
        if twice {
            live.runs.insert(index, record);
        } else if !later {
            return Ok(());
        }

        prop_assert!(!audit(&live.log, &live.runs).found.is_empty());
    }
}
