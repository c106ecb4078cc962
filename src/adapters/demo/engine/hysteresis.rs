//! The hysteresis of the Regime Engine as a pure step: another regime becomes the stable one only when it persists and
//! is confident enough; until then the stable one's confidence decays.
//!
//! Source: CONTRACTS §3 and the 23 recorded steps of `golden_hysteresis.jsonl`.

use serde::{Deserialize, Serialize};

use super::output::{Regime, RegimeOutput};

/// Beyond this many steps without a flip the confidence decays no further; by far most configs are at the floor by
/// then.
const DECAY_STEPS_MAX: u64 = 1000;

/// The hysteresis parameters; the defaults are the Regime Engine's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemoHysteresisConfig {
    /// Updates in a row that another regime needs to become the stable one.
    pub min_persistence_updates: u64,
    /// Confidence that the last of them needs, 0 to 1.
    pub min_confidence_for_flip: f64,
    /// What the stable regime's confidence is multiplied with for each update of another regime, 0 to 1.
    pub decay_factor: f64,
    /// What the decayed confidence never falls below, 0 to 1.
    pub min_confidence_floor: f64,
    /// Expected distance of two updates in milliseconds; after a longer one the past is forgotten.
    pub update_interval_ms: i64,
}

impl Default for DemoHysteresisConfig {
    fn default() -> Self {
        Self {
            min_persistence_updates: 3,
            min_confidence_for_flip: 0.6,
            decay_factor: 0.85,
            min_confidence_floor: 0.2,
            update_interval_ms: 180_000,
        }
    }
}

/// Hysteresis state of one symbol between two updates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HysteresisState<'a> {
    /// Updates in a row that said `candidate_regime`.
    pub candidate_count: u64,
    /// The regime that may become the stable one.
    pub candidate_regime: Option<Regime>,
    /// Timestamp of the last update in milliseconds.
    pub last_timestamp: Option<i64>,
    /// The last output of the stable regime.
    #[serde(borrow)]
    pub stable_output: Option<RegimeOutput<'a>>,
}

/// Return value of `run_with_hysteresis`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HysteresisDecision<'a> {
    /// The selected output's confidence, decayed while another regime is a candidate.
    pub effective_confidence: f64,
    /// The stable regime's last output.
    pub selected_output: RegimeOutput<'a>,
    /// How the stable regime stands.
    pub transition: RegimeTransition,
}

/// The part of a decision about change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegimeTransition {
    /// As in the state after the update.
    pub candidate_count: u64,
    /// As in the state after the update.
    pub candidate_regime: Option<Regime>,
    /// This update made another regime the stable one.
    pub flipped: bool,
    /// The past was forgotten because this update came too late.
    pub reset_due_to_gap: bool,
    /// The stable regime after the update.
    pub stable_regime: Regime,
    /// Another regime is a candidate.
    pub transition_active: bool,
}

/// The update is not newer than the last one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timestamp {found} is not after {last}, the last of this symbol's state")]
pub struct NotAfterLast {
    /// The update's timestamp.
    pub found: i64,
    /// The state's.
    pub last: i64,
}

/// Applies one output to the state.
///
/// # Errors
///
/// [`NotAfterLast`]; the state before stays the one to use.
pub fn apply_output<'a>(
    state: HysteresisState<'a>,
    output: RegimeOutput<'a>,
    config: &DemoHysteresisConfig,
) -> Result<(HysteresisDecision<'a>, HysteresisState<'a>), NotAfterLast> {
    let mut gap = false;
    if let Some(last) = state.last_timestamp {
        if output.timestamp <= last {
            return Err(NotAfterLast { found: output.timestamp, last });
        }
        gap = output.timestamp.saturating_sub(last) > config.update_interval_ms;
    }
    let stable = match state.stable_output {
        Some(stable) if !gap && stable.regime != output.regime => stable,
        Some(_) | None => return Ok(adopt_output(output, false, gap)),
    };
    let persists = state.candidate_regime == Some(output.regime);
    let count = if persists { state.candidate_count.saturating_add(1) } else { 1 };
    if config.min_persistence_updates <= count && config.min_confidence_for_flip <= output.confidence {
        return Ok(adopt_output(output, true, false));
    }
    Ok(keep_stable(stable, &output, count, config))
}

/// `output` is the stable one from now on.
fn adopt_output(
    output: RegimeOutput<'_>,
    flipped: bool,
    reset_due_to_gap: bool,
) -> (HysteresisDecision<'_>, HysteresisState<'_>) {
    let transition = RegimeTransition {
        candidate_count: 0,
        candidate_regime: None,
        flipped,
        reset_due_to_gap,
        stable_regime: output.regime,
        transition_active: false,
    };
    let state = HysteresisState {
        candidate_count: 0,
        candidate_regime: None,
        last_timestamp: Some(output.timestamp),
        stable_output: Some(output.clone()),
    };
    (
        HysteresisDecision { effective_confidence: output.confidence, selected_output: output, transition },
        state,
    )
}

/// `stable` stays the stable one; `output` makes its regime the candidate for the `count`th time.
fn keep_stable<'a>(
    stable: RegimeOutput<'a>,
    output: &RegimeOutput<'a>,
    count: u64,
    config: &DemoHysteresisConfig,
) -> (HysteresisDecision<'a>, HysteresisState<'a>) {
    let transition = RegimeTransition {
        candidate_count: count,
        candidate_regime: Some(output.regime),
        flipped: false,
        reset_due_to_gap: false,
        stable_regime: stable.regime,
        transition_active: true,
    };
    let state = HysteresisState {
        candidate_count: count,
        candidate_regime: Some(output.regime),
        last_timestamp: Some(output.timestamp),
        stable_output: Some(stable.clone()),
    };
    let effective_confidence = decay_confidence(stable.confidence, count, config);
    (HysteresisDecision { effective_confidence, selected_output: stable, transition }, state)
}

/// The factor to the power of `steps`, multiplied step by step: `powi` may round differently on another machine.
fn decay_confidence(confidence: f64, steps: u64, config: &DemoHysteresisConfig) -> f64 {
    let mut factor = 1.0;
    for _ in 0..steps.min(DECAY_STEPS_MAX) {
        if confidence * factor <= config.min_confidence_floor {
            break;
        }
        factor *= config.decay_factor;
    }
    (confidence * factor).max(config.min_confidence_floor)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use orchestrator_kernel::json;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct GoldenStep<'a> {
        i: usize,
        #[serde(borrow)]
        input: &'a RawValue,
        #[serde(borrow)]
        decision: Option<&'a RawValue>,
        error: Option<&'a str>,
        #[serde(borrow)]
        state_after: &'a RawValue,
    }

    fn golden() -> Option<String> {
        let shared = std::env::var("ORCHESTRATOR_SHARED")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_owned());
        let path = Path::new(&shared).join("data/golden_hysteresis.jsonl");
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                println!("skipped: cannot read {}: {error}", path.display());
                None
            }
        }
    }

    /// Method: each step starts from the text of the state that the step before wrote, as in a run log.
    #[test]
    fn the_recorded_steps_come_out_byte_for_byte() {
        let Some(golden) = golden() else { return };
        let mut state = text_of(&HysteresisState::default());
        for line in golden.lines() {
            let golden: GoldenStep<'_> = serde_json::from_str(line).unwrap();
            let before: HysteresisState<'_> = serde_json::from_str(&state).unwrap();
            let input: RegimeOutput<'_> = serde_json::from_str(golden.input.get()).unwrap();

            let after = match apply_output(before, input, &DemoHysteresisConfig::default()) {
                Ok((decision, after)) => {
                    assert_eq!(text_of(&decision), canonical(golden.decision.unwrap()), "step {}", golden.i);
                    text_of(&after)
                }
                Err(NotAfterLast { .. }) => {
                    assert!(golden.error.is_some(), "step {}", golden.i);
                    state.clone()
                }
            };

            assert_eq!(after, canonical(golden.state_after), "step {}", golden.i);
            state = after;
        }
        assert_eq!(golden.lines().count(), 23);
    }

    fn text_of<T: Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    fn canonical(value: &RawValue) -> String {
        json::canonical(value.get()).unwrap()
    }

    #[test]
    fn decay_ends_soon_and_at_the_floor_whatever_the_count() {
        let config = DemoHysteresisConfig::default();

        assert_eq!(decay_confidence(0.9, u64::MAX, &config), 0.2);
        assert_eq!(decay_confidence(0.1, 1, &config), 0.2);
        assert_eq!(
            decay_confidence(0.9, u64::MAX, &DemoHysteresisConfig { decay_factor: 1.0, ..config }),
            0.9
        );
    }

    #[test]
    fn a_stored_confidence_is_read_back_exactly() {
        let confidence = 0.958_327_592_195_351_1_f64; // serde_json's fast way reads …3512
        let text = format!(
            r#"{{"confidence":{confidence:?},"drivers":[],"invalidations":[],"permissions":[],"regime":"SQUEEZE_UP","symbol":"A","timestamp":1}}"#
        );

        assert_eq!(text_of(&serde_json::from_str::<RegimeOutput<'_>>(&text).unwrap()), text);
    }
}
