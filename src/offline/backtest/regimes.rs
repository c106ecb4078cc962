//! What the engine said of each symbol over time, as far as its outputs name a `regime` and a `confidence`.

use std::collections::BTreeMap;

use orchestrator_kernel::engine::contracts::orchestrator_event::selected_output;
use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::ports::engine::EngineAnswer;
use serde::{Deserialize, Serialize};

/// Members of an output that count here; everything else of it is not looked at.
#[derive(Deserialize)]
struct Output {
    regime: String,
    confidence: Option<f64>,
}

/// A time in which a symbol's regime stayed the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// The regime.
    pub regime: String,
    /// Engine timestamp of its first run.
    pub from_ts_ms: TsMs,
    /// Engine timestamp of its last run.
    pub to_ts_ms: TsMs,
    /// Runs that said so.
    pub runs: u64,
    /// Mean of their confidences, as far as they have one.
    pub confidence_mean: Option<f64>,
    #[serde(skip)]
    confidences: u64,
}

/// One symbol's regimes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RegimeLine {
    /// How often the regime changed.
    pub changes: u64,
    /// The regimes in order. A run without an answer ends none.
    pub segments: Vec<Segment>,
}

/// The regimes of all symbols.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Regimes {
    /// Runs by regime.
    pub runs: BTreeMap<String, u64>,
    /// The regimes over time.
    pub by_symbol: BTreeMap<Symbol, RegimeLine>,
}

impl Regimes {
    /// Takes the answer of a symbol's run; runs of one symbol come in order.
    pub fn add_answer(&mut self, symbol: &Symbol, at: TsMs, answer: &EngineAnswer) {
        let output = match answer {
            EngineAnswer::Truth { regime_output } => Some(regime_output.as_str()),
            EngineAnswer::Hysteresis { decision, .. } => {
                selected_output(decision).ok().map(serde_json::value::RawValue::get)
            }
        };
        if let Some(output) = output.and_then(|output| serde_json::from_str::<Output>(output).ok()) {
            self.add_output(symbol, at, output);
        }
    }

    fn add_output(&mut self, symbol: &Symbol, at: TsMs, Output { regime, confidence }: Output) {
        *self.runs.entry(regime.clone()).or_default() += 1;
        let line = self.by_symbol.entry(symbol.clone()).or_default();
        match line.segments.last_mut() {
            Some(last) if last.regime == regime => last.extend_to(at, confidence),
            previous => {
                line.changes += u64::from(previous.is_some());
                line.segments.push(Segment {
                    regime,
                    from_ts_ms: at,
                    to_ts_ms: at,
                    runs: 1,
                    confidence_mean: confidence,
                    confidences: u64::from(confidence.is_some()),
                });
            }
        }
    }
}

impl Segment {
    fn extend_to(&mut self, at: TsMs, confidence: Option<f64>) {
        self.to_ts_ms = at;
        self.runs += 1;
        let Some(confidence) = confidence else { return };
        self.confidences += 1;
        let mean = self.confidence_mean.unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
        let weight = 1.0 / self.confidences as f64;
        self.confidence_mean = Some(mean + (confidence - mean) * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(output: &str) -> EngineAnswer {
        EngineAnswer::Truth { regime_output: output.to_owned() }
    }

    #[test]
    fn equal_regimes_in_a_row_are_one_segment_with_their_mean_confidence() {
        let mut regimes = Regimes::default();
        let symbol = Symbol::from("A");
        for (at, output) in [
            (1, r#"{"confidence":0.4,"regime":"CHOP"}"#),
            (2, r#"{"confidence":0.6,"regime":"CHOP"}"#),
            (3, r#"{"regime":"CHOP"}"#),
            (4, r#"{"regime":"TREND"}"#),
            (5, r#"{"confidence":1,"regime":"CHOP"}"#),
        ] {
            regimes.add_answer(&symbol, TsMs(at), &truth(output));
        }

        let line = &regimes.by_symbol[&symbol];
        let seen: Vec<_> = line
            .segments
            .iter()
            .map(|segment| {
                let Segment { regime, from_ts_ms, to_ts_ms, runs, confidence_mean, .. } = segment;
                (regime.as_str(), from_ts_ms.0, to_ts_ms.0, *runs, *confidence_mean)
            })
            .collect();
        assert_eq!(
            seen,
            [("CHOP", 1, 3, 3, Some(0.5)), ("TREND", 4, 4, 1, None), ("CHOP", 5, 5, 1, Some(1.0))]
        );
        assert_eq!(line.changes, 2);
        assert_eq!(regimes.runs["CHOP"], 4);
    }

    #[test]
    fn a_decision_counts_by_its_selected_output_and_other_answers_not_at_all() {
        let mut regimes = Regimes::default();
        let decision = r#"{"selected_output":{"regime":"TREND"},"stable_regime":"CHOP"}"#;
        let answer = EngineAnswer::Hysteresis { decision: decision.to_owned(), state: "{}".to_owned() };

        regimes.add_answer(&Symbol::from("A"), TsMs(1), &answer);
        for output in ["{}", "[1]", r#"{"regime":7}"#] {
            regimes.add_answer(&Symbol::from("B"), TsMs(1), &truth(output));
        }

        assert_eq!(regimes.by_symbol.keys().map(Symbol::as_str).collect::<Vec<_>>(), ["A"]);
        assert_eq!(regimes.runs.len(), 1);
    }
}
