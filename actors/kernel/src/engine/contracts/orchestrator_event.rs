//! OrchestratorEvent v1: what consumers get. A pure function of a terminal run record.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::engine_run::{RunRecord, RunStatus};
use crate::error::ErrorKind;
use crate::ids::{EngineMode, EventType, IngestSeq, RunSeq, TsMs};
use crate::ports::engine::EngineAnswer;
use crate::ports::fan_out::OutputMessage;

/// `event_type` values, in the order in which a run emits them.
pub mod event_type {
    /// The run was started.
    pub const RUN_STARTED: &str = "EngineRunStarted";
    /// Only in hysteresis mode.
    pub const HYSTERESIS_DECISION: &str = "HysteresisDecisionPublished";
    /// The engine answered.
    pub const RUN_COMPLETED: &str = "EngineRunCompleted";
    /// The run ended without an answer.
    pub const RUN_FAILED: &str = "EngineRunFailed";

    /// All of them.
    pub const ALL: [&str; 4] = [RUN_STARTED, HYSTERESIS_DECISION, RUN_COMPLETED, RUN_FAILED];
}

/// The wire form. Fields stand in alphabetical order: that is the order of the keys on the wire.
#[derive(Serialize)]
struct Wire<'a> {
    attempt: u32,
    counts_by_event_type: &'a BTreeMap<EventType, u64>,
    cut_end_ingest_seq: IngestSeq,
    cut_kind: &'static str,
    cut_start_ingest_seq: IngestSeq,
    engine_mode: EngineMode,
    engine_timestamp_ms: TsMs,
    event_type: &'static str,
    payload: Payload<'a>,
    published_ts_ms: Option<TsMs>,
    run_id: String,
    schema: &'static str,
    schema_version: &'static str,
    symbol: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Nothing {},
    Completed { regime_output: &'a RawValue },
    Decision { hysteresis_decision: &'a RawValue },
    Failed { error_detail: &'a str, error_kind: ErrorKind },
}

/// Stored answer that cannot be published. Answers are checked before they are stored, so this is a defect of the log.
#[derive(Debug, thiserror::Error)]
#[error("run {run_id} holds an answer that is no JSON: {detail}")]
pub struct BadAnswer {
    /// The run.
    pub run_id: String,
    /// What is wrong.
    pub detail: String,
}

/// How many outputs a terminal record makes; 0 for a record that is not terminal.
#[must_use]
pub const fn outputs_of(record: &RunRecord) -> u64 {
    match &record.status {
        RunStatus::Started { .. } => 0,
        RunStatus::Failed { .. } => 2,
        RunStatus::Completed { answer: EngineAnswer::Truth { .. }, .. } => 2,
        RunStatus::Completed { answer: EngineAnswer::Hysteresis { .. }, .. } => 3,
    }
}

/// The outputs of the record at `run_seq`, in order; none for a record that is not terminal (RUN-1: nothing is
/// published before the terminal record is durable).
///
/// `published` is the local publish time, or `None` where the process has no wall clock of its own.
///
/// # Errors
///
/// [`BadAnswer`].
///
/// Source: specification 000, "OrchestratorEvent (v1)"; CONTRACTS §2.
pub fn events(
    run_seq: RunSeq,
    record: &RunRecord,
    published: Option<TsMs>,
) -> Result<Vec<OutputMessage>, BadAnswer> {
    let outputs = match &record.status {
        RunStatus::Started { .. } => Vec::new(),
        RunStatus::Failed { answered, error_kind, error_detail, .. } => vec![
            OutputContent::RUN_STARTED,
            OutputContent {
                kind: event_type::RUN_FAILED,
                attempt: (*answered).max(1),
                payload: Payload::Failed { error_detail, error_kind: *error_kind },
            },
        ],
        RunStatus::Completed { answered, answer, .. } => completed_outputs(record, *answered, answer)?,
    };
    let numbered = outputs.into_iter().zip(0u32..);
    Ok(numbered
        .map(|(content, index)| output_message((run_seq, index), record, published, content))
        .collect())
}

/// Part of an output that differs among the outputs of one record.
struct OutputContent<'a> {
    kind: &'static str,
    attempt: u32,
    payload: Payload<'a>,
}

impl OutputContent<'_> {
    /// The first output of every run.
    const RUN_STARTED: Self =
        Self { kind: event_type::RUN_STARTED, attempt: 1, payload: Payload::Nothing {} };
}

fn completed_outputs<'a>(
    record: &RunRecord,
    answered: u32,
    answer: &'a EngineAnswer,
) -> Result<Vec<OutputContent<'a>>, BadAnswer> {
    let bad = |error: serde_json::Error| BadAnswer {
        run_id: record.facts.run_id.to_string(),
        detail: error.to_string(),
    };
    let content = |kind, payload| OutputContent { kind, attempt: answered, payload };
    match answer {
        EngineAnswer::Truth { regime_output } => {
            let regime_output: &RawValue = serde_json::from_str(regime_output).map_err(bad)?;
            let completed = content(event_type::RUN_COMPLETED, Payload::Completed { regime_output });
            Ok(vec![OutputContent::RUN_STARTED, completed])
        }
        EngineAnswer::Hysteresis { decision, .. } => {
            let hysteresis_decision: &RawValue = serde_json::from_str(decision).map_err(bad)?;
            let regime_output = selected_output(decision).map_err(bad)?;
            Ok(vec![
                OutputContent::RUN_STARTED,
                content(event_type::HYSTERESIS_DECISION, Payload::Decision { hysteresis_decision }),
                content(event_type::RUN_COMPLETED, Payload::Completed { regime_output }),
            ])
        }
    }
}

/// The `selected_output` of a hysteresis decision: the regime output of the completed event.
///
/// # Errors
///
/// The decision is not an object with that field.
pub fn selected_output(decision: &str) -> Result<&RawValue, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Decision<'a> {
        #[serde(borrow)]
        selected_output: &'a RawValue,
    }
    serde_json::from_str::<Decision<'_>>(decision).map(|decision| decision.selected_output)
}

fn output_message(
    (run_seq, index): (RunSeq, u32),
    record: &RunRecord,
    published: Option<TsMs>,
    OutputContent { kind, attempt, payload }: OutputContent<'_>,
) -> OutputMessage {
    let facts = &record.facts;
    let wire = Wire {
        attempt,
        counts_by_event_type: &facts.counts_by_event_type,
        cut_end_ingest_seq: facts.cut.end,
        cut_kind: facts.cut.kind.as_str(),
        cut_start_ingest_seq: facts.cut.start,
        engine_mode: facts.engine_mode,
        engine_timestamp_ms: facts.engine_timestamp_ms,
        event_type: kind,
        payload,
        published_ts_ms: published,
        run_id: facts.run_id.to_string(),
        schema: "orchestrator_event",
        schema_version: "1",
        symbol: facts.symbol.as_str(),
    };
    // Strings, numbers and checked JSON: serialising into memory has no way to fail.
    #[expect(clippy::expect_used, reason = "no failing path exists for this type")]
    let body = serde_json::to_vec(&wire).expect("an event serialises");
    OutputMessage {
        run_seq,
        index,
        run_id: facts.run_id,
        event_type: kind,
        symbol: facts.symbol.clone(),
        symbol_seq: facts.symbol_seq + u64::from(index),
        body: body.into(),
    }
}

#[cfg(test)]
mod tests;
