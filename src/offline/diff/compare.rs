//! One run against its partner: field by field, number by number.

use std::collections::BTreeMap;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::selected_output;
use orchestrator_kernel::ports::engine::EngineAnswer;
use serde_json::{Map, Value, json};

use super::{Changed, Differences, Drift, RegimeChange, RunName};

/// Places that are told apart; further ones are counted together.
const PATHS_MAX: usize = 1000;
/// The place of the further ones.
const OTHER_PATHS: &str = "(other places)";
/// The place of a difference that is none in value: `1.0` and `1.00`.
const DIGITS: &str = "(how a number is written)";
/// Bytes of a value that are shown.
const SHOWN_MAX: usize = 120;

/// Differences of the runs compared so far.
#[derive(Debug, Default)]
pub struct RunFindings {
    regimes: BTreeMap<(String, String), RegimeChange>,
    drift: BTreeMap<String, Drift>,
    changed: BTreeMap<String, Changed>,
}

impl RunFindings {
    /// Compares two records of one run; whether they are equal.
    pub fn compare_runs(&mut self, a: &RunRecord, b: &RunRecord) -> bool {
        let (facts, results) = (facts_of(a) == facts_of(b), is_same_result(&a.status, &b.status));
        if facts && results {
            return true;
        }
        let name = RunName::of_record(a);
        let before = self.places_noted();
        if !facts {
            self.compare_values("", &facts_of(a), &facts_of(b), &name);
        }
        if !results {
            self.note_regime(a, b, &name);
            let (a, b) = results_of(&a.status, &b.status);
            self.compare_values("", &a, &b, &name);
            if self.places_noted() == before {
                self.note_changed(DIGITS, &a, &b, &name);
            }
        }
        false
    }

    fn places_noted(&self) -> u64 {
        self.drift.values().map(|drift| drift.count).sum::<u64>()
            + self.changed.values().map(|changed| changed.count).sum::<u64>()
            + self.regimes.values().map(|change| change.count).sum::<u64>()
    }

    fn note_regime(&mut self, a: &RunRecord, b: &RunRecord, name: &RunName) {
        let (from, to) = (regime_of(&a.status), regime_of(&b.status));
        if from == to {
            return;
        }
        let new = || RegimeChange { from: from.clone(), to: to.clone(), count: 0, first: name.clone() };
        let change = self.regimes.entry((from.clone(), to.clone())).or_insert_with(new);
        change.count += 1;
        keep_earliest(&mut change.first, name);
    }

    fn compare_values(&mut self, path: &str, a: &Value, b: &Value, name: &RunName) {
        match (a, b) {
            (a, b) if a == b => {}
            (Value::Object(a), Value::Object(b)) => self.walk_objects(path, a, b, name),
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for ((a, b), index) in a.iter().zip(b).zip(0..) {
                    self.compare_values(&format!("{path}[{index}]"), a, b, name);
                }
            }
            (Value::Number(x), Value::Number(y)) => match (x.as_f64(), y.as_f64()) {
                (Some(x), Some(y)) if !is_position(path) => self.note_drift(path, x, y, name),
                (_, _) => self.note_changed(path, a, b, name),
            },
            // It has a table of its own.
            (Value::String(_), Value::String(_)) if is_regime(path) => {}
            (a, b) => self.note_changed(path, a, b, name),
        }
    }

    fn walk_objects(&mut self, path: &str, a: &Map<String, Value>, b: &Map<String, Value>, name: &RunName) {
        let absent = Value::String("(absent)".to_owned());
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.compare_values(&below, a.get(key).unwrap_or(&absent), b.get(key).unwrap_or(&absent), name);
        }
    }

    fn note_drift(&mut self, path: &str, a: f64, b: f64, name: &RunName) {
        let path = known_or_other(&self.drift, path);
        let new = || Drift {
            path: path.to_owned(),
            count: 0,
            max_abs: 0.0,
            max_rel: 0.0,
            mean: 0.0,
            first: name.clone(),
        };
        let drift = self.drift.entry(path.to_owned()).or_insert_with(new);
        let difference = b - a;
        drift.count += 1;
        drift.max_abs = drift.max_abs.max(difference.abs());
        drift.max_rel = drift.max_rel.max(difference.abs() / a.abs().max(b.abs()));
        // A running mean: a sum would lose small differences behind large ones.
        #[expect(clippy::cast_precision_loss, reason = "a count of runs is far below 2^53")]
        let count = drift.count as f64;
        drift.mean += (difference - drift.mean) / count;
        keep_earliest(&mut drift.first, name);
    }

    fn note_changed(&mut self, path: &str, a: &Value, b: &Value, name: &RunName) {
        let path = known_or_other(&self.changed, path);
        let new = || Changed {
            path: path.to_owned(),
            count: 0,
            first: name.clone(),
            a: shown_value(a),
            b: shown_value(b),
        };
        let changed = self.changed.entry(path.to_owned()).or_insert_with(new);
        changed.count += 1;
        if name.sort_key() < changed.first.sort_key() {
            (changed.a, changed.b) = (shown_value(a), shown_value(b));
            changed.first = name.clone();
        }
    }

    /// Moves everything into `differences`, what is most frequent first.
    pub(super) fn move_into(self, differences: &mut Differences) {
        differences.regime_changes = self.regimes.into_values().collect();
        differences.regime_changes.sort_by_key(|change| std::cmp::Reverse(change.count));
        differences.drift = self.drift.into_values().collect();
        differences.drift.sort_by_key(|drift| std::cmp::Reverse(drift.count));
        differences.changed = self.changed.into_values().collect();
        differences.changed.sort_by_key(|changed| std::cmp::Reverse(changed.count));
    }
}

fn keep_earliest(first: &mut RunName, name: &RunName) {
    if name.sort_key() < first.sort_key() {
        *first = name.clone();
    }
}

fn known_or_other<'p, T>(known: &BTreeMap<String, T>, path: &'p str) -> &'p str {
    if known.contains_key(path) || known.len() < PATHS_MAX { path } else { OTHER_PATHS }
}

/// Positions are numbers whose difference means nothing.
fn is_position(path: &str) -> bool {
    path.ends_with("_ingest_seq")
}

fn is_regime(path: &str) -> bool {
    matches!(path, "regime_output.regime" | "decision.selected_output.regime")
}

fn shown_value(value: &Value) -> String {
    let mut text = value.to_string();
    if SHOWN_MAX < text.len() {
        let cut = (0..=SHOWN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// What of the run's facts is published. The id follows from them.
fn facts_of(record: &RunRecord) -> Value {
    let facts = &record.facts;
    json!({
        "counts_by_event_type": facts.counts_by_event_type,
        "cut_end_ingest_seq": facts.cut.end,
        "cut_kind": facts.cut.kind,
        "cut_start_ingest_seq": facts.cut.start,
        "engine_mode": facts.engine_mode,
    })
}

/// Whether consumers and the next run see the same. Answers are in canonical form, so equal ones are equal texts.
fn is_same_result(a: &RunStatus, b: &RunStatus) -> bool {
    match (a, b) {
        (
            RunStatus::Completed { answered: a_answered, answer: a, .. },
            RunStatus::Completed { answered: b_answered, answer: b, .. },
        ) => a_answered == b_answered && a == b,
        (
            RunStatus::Failed { answered: a_answered, error_kind: a_kind, error_detail: a_detail, .. },
            RunStatus::Failed { answered: b_answered, error_kind: b_kind, error_detail: b_detail, .. },
        ) => (a_answered, a_kind, a_detail) == (b_answered, b_kind, b_detail),
        (RunStatus::Started { .. }, RunStatus::Started { .. }) => true,
        (RunStatus::Completed { .. } | RunStatus::Failed { .. } | RunStatus::Started { .. }, _) => false,
    }
}

/// Both results as JSON. In different modes only the regime outputs can be compared.
fn results_of(a: &RunStatus, b: &RunStatus) -> (Value, Value) {
    let is_hysteresis = |status: &RunStatus| {
        matches!(status, RunStatus::Completed { answer: EngineAnswer::Hysteresis { .. }, .. })
    };
    let whole = is_hysteresis(a) && is_hysteresis(b);
    (result_of(a, whole), result_of(b, whole))
}

fn result_of(status: &RunStatus, whole: bool) -> Value {
    match status {
        RunStatus::Started { .. } => json!({"status": "started"}),
        RunStatus::Failed { answered, error_kind, error_detail, .. } => json!({
            "attempt": (*answered).max(1), "status": "failed", "error_kind": error_kind, "error_detail": error_detail,
        }),
        RunStatus::Completed { answered, answer: EngineAnswer::Hysteresis { decision, state }, .. }
            if whole =>
        {
            json!({"attempt": answered, "status": "completed", "decision": parse_answer(decision), "state": parse_answer(state)})
        }
        RunStatus::Completed { answered, .. } => json!({
            "attempt": answered, "status": "completed", "regime_output": parse_answer(regime_output(status).unwrap_or("null")),
        }),
    }
}

fn regime_output(status: &RunStatus) -> Option<&str> {
    match status {
        RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        RunStatus::Completed { answer: EngineAnswer::Truth { regime_output }, .. } => Some(regime_output),
        RunStatus::Completed { answer: EngineAnswer::Hysteresis { decision, .. }, .. } => {
            selected_output(decision).ok().map(serde_json::value::RawValue::get)
        }
    }
}

/// An answer in the log is JSON. If it were not, its text is compared.
fn parse_answer(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn regime_of(status: &RunStatus) -> String {
    match status {
        RunStatus::Started { .. } => "(started)".to_owned(),
        RunStatus::Failed { error_kind, .. } => format!("({error_kind})"),
        RunStatus::Completed { .. } => {
            let output = regime_output(status).map_or(Value::Null, parse_answer);
            output.get("regime").and_then(Value::as_str).unwrap_or("(no regime)").to_owned()
        }
    }
}
