//! The comparison of what is recorded with what follows, field by field.

use crate::engine::contracts::engine_run::{RunFacts, RunRecord, RunStatus};
use crate::engine::divergence::{Check, Divergence, DivergencePlace};
use crate::engine::replay::{counts_text, seq_text};
use crate::ids::{IngestSeq, RunSeq};
use crate::ports::engine::EngineAnswer;

use super::Open;

pub(super) fn receipt_divergence(
    check: Check,
    at: IngestSeq,
    field: &'static str,
    recorded: impl ToString,
    replayed: impl ToString,
) -> Divergence {
    let place = DivergencePlace::Receipt(at);
    Divergence { check, place, field, recorded: recorded.to_string(), replayed: replayed.to_string() }
}

pub(super) fn run_divergence(
    check: Check,
    (at, facts): (RunSeq, &RunFacts),
    field: &'static str,
    recorded: String,
    replayed: String,
) -> Divergence {
    Divergence { check, place: DivergencePlace::of_run(at, facts), field, recorded, replayed }
}

/// A later record of a run must repeat the facts of its first one.
pub(super) fn compare_facts(at: RunSeq, facts: &RunFacts, first: &RunFacts, found: &mut Vec<Divergence>) {
    if facts == first {
        return;
    }
    let fields = |facts: &RunFacts| {
        [
            ("engine_timestamp_ms", facts.engine_timestamp_ms.to_string()),
            ("engine_mode", facts.engine_mode.as_str().to_owned()),
            ("cut_kind", facts.cut.kind.as_str().to_owned()),
            ("cut_start_ingest_seq", facts.cut.start.to_string()),
            ("cut_end_ingest_seq", facts.cut.end.to_string()),
            ("planned_ts_ms", facts.planned_ts_ms.to_string()),
            ("started_ts_ms", facts.started_ts_ms.to_string()),
            ("snapshot_seq", seq_text(facts.snapshot_seq)),
            ("counts_by_event_type", counts_text(&facts.counts_by_event_type)),
            ("symbol_seq", facts.symbol_seq.to_string()),
        ]
    };
    for ((field, recorded), (_, expected)) in fields(facts).into_iter().zip(fields(first)) {
        if recorded != expected {
            found.push(run_divergence(Check::Runs, (at, facts), field, recorded, expected));
        }
    }
}

/// Attempts go up by one with each started record and each error that was answered (RUN-4).
pub(super) fn check_attempts(at: RunSeq, record: &RunRecord, open: &Open, found: &mut Vec<Divergence>) {
    let facts = &record.facts;
    let called = u32::from(facts.snapshot_seq.is_some());
    let (attempts, expected) = match &record.status {
        RunStatus::Started { attempts } => (*attempts, open.attempts + called..=open.attempts + called),
        RunStatus::Completed { attempts, answered, .. } => {
            if *answered == 0 {
                found.push(run_divergence(
                    Check::Attempts,
                    (at, facts),
                    "answered",
                    "0".to_owned(),
                    "1 or more".to_owned(),
                ));
            }
            let expected = (open.attempts + answered).saturating_sub(1);
            (*attempts, expected..=expected)
        }
        // A service that stops can give up before or after the next attempt was counted.
        RunStatus::Failed { attempts, answered, .. } => {
            (*attempts, (open.attempts + answered).saturating_sub(1)..=open.attempts + answered)
        }
    };
    if !expected.contains(&attempts) {
        let expected = match expected.start() == expected.end() {
            true => expected.start().to_string(),
            false => format!("{} or {}", expected.start(), expected.end()),
        };
        found.push(run_divergence(Check::Attempts, (at, facts), "attempts", attempts.to_string(), expected));
    }
}

pub(super) fn compare_failure(
    at: RunSeq,
    record: &RunRecord,
    derived: &RunRecord,
    found: &mut Vec<Divergence>,
) {
    let fields = |record: &RunRecord| match &record.status {
        RunStatus::Failed { error_kind, error_detail, attempts, answered, .. } => [
            ("error_kind", error_kind.to_string()),
            ("error_detail", error_detail.clone()),
            ("attempts", attempts.to_string()),
            ("answered", answered.to_string()),
        ],
        RunStatus::Started { .. } | RunStatus::Completed { .. } => Default::default(),
    };
    for ((field, recorded), (_, replayed)) in fields(record).into_iter().zip(fields(derived)) {
        if recorded != replayed {
            found.push(run_divergence(Check::Failures, (at, &record.facts), field, recorded, replayed));
        }
    }
}

pub(super) fn compare_answers(
    at: RunSeq,
    facts: &RunFacts,
    recorded: &EngineAnswer,
    replayed: &EngineAnswer,
    found: &mut Vec<Divergence>,
) {
    use EngineAnswer::{Hysteresis, Truth};
    let mut compare = |field, recorded: &str, replayed: &str| {
        if recorded != replayed {
            let (recorded, replayed) = (recorded.to_owned(), replayed.to_owned());
            found.push(run_divergence(Check::Answers, (at, facts), field, recorded, replayed));
        }
    };
    match (recorded, replayed) {
        (Truth { regime_output: recorded }, Truth { regime_output: replayed }) => {
            compare("regime_output", recorded, replayed);
        }
        (Hysteresis { decision, state }, Hysteresis { decision: decision_now, state: state_now }) => {
            compare("hysteresis_decision", decision, decision_now);
            compare("hysteresis_state", state, state_now);
        }
        (Truth { .. }, Hysteresis { .. }) => compare("answer", "a regime output", "a hysteresis decision"),
        (Hysteresis { .. }, Truth { .. }) => compare("answer", "a hysteresis decision", "a regime output"),
    }
}
