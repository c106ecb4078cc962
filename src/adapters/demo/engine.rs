//! The demo engine: in process, small, pure, with the entry points and outputs of the Regime Engine.
//!
//! It makes the first command show something, and gives benchmarks an engine that costs next to nothing. Its rules are
//! no market knowledge: never trade on them.

pub mod hysteresis;
pub mod output;
mod rules;

use async_trait::async_trait;
use orchestrator_kernel::error::{ErrorKind, bounded_detail};
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::hysteresis::DemoHysteresisConfig;
use self::hysteresis::{HysteresisState, NotAfterLast};

/// What decides the answers; its hash tells one demo engine from another.
const CODE: [&str; 4] = [
    include_str!("engine.rs"),
    include_str!("engine/hysteresis.rs"),
    include_str!("engine/output.rs"),
    include_str!("engine/rules.rs"),
];

/// An engine in process. Answers are a pure function of the call and the config.
#[derive(Clone, Debug)]
pub struct DemoEngine {
    identity: EngineIdentity,
    hysteresis: DemoHysteresisConfig,
}

impl DemoEngine {
    /// An engine with this hysteresis.
    #[must_use]
    pub fn new(hysteresis: DemoHysteresisConfig) -> Self {
        let hash = CODE.iter().fold(Sha256::new(), |hash, file| hash.chain_update(file)).finalize();
        let code_hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let identity = EngineIdentity {
            name: "demo".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            code_hash,
        };
        Self { identity, hysteresis }
    }

    fn answer_call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let output = rules::run(call.symbol.as_str(), call.engine_timestamp_ms.0, &call.inputs)
            .map_err(|error| engine_error(ErrorKind::SnapshotBuildFailure, &error))?;
        match call.mode {
            EngineMode::Truth => Ok(EngineAnswer::Truth { regime_output: to_canonical_json(&output)? }),
            EngineMode::Hysteresis => {
                let state = match call.state.as_deref() {
                    Some(state) => serde_json::from_str(state)
                        .map_err(|error| engine_error(ErrorKind::EngineFailure, &error))?,
                    None => HysteresisState::default(),
                };
                let (decision, state) = hysteresis::apply_output(state, output, &self.hysteresis).map_err(
                    |error: NotAfterLast| engine_error(ErrorKind::HysteresisMonotonicityViolation, &error),
                )?;
                Ok(EngineAnswer::Hysteresis {
                    decision: to_canonical_json(&decision)?,
                    state: to_canonical_json(&state)?,
                })
            }
        }
    }
}

#[async_trait]
impl Engine for DemoEngine {
    /// Known from the start.
    fn identity(&self) -> EngineIdentity {
        self.identity.clone()
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        self.answer_call(call)
    }
}

/// The canonical form: serde_json writes compactly, and the types declare their fields in sorted order.
fn to_canonical_json<T: Serialize>(value: &T) -> Result<String, EngineError> {
    serde_json::to_string(value).map_err(|error| engine_error(ErrorKind::EngineFailure, &error))
}

fn engine_error(kind: ErrorKind, error: &dyn std::error::Error) -> EngineError {
    EngineError::from_engine(kind, bounded_detail(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use orchestrator_kernel::ids::{Symbol, TsMs};
    use orchestrator_kernel::json;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;

    fn check_call(
        mode: EngineMode,
        ts: i64,
        inputs: &str,
        state: Option<String>,
    ) -> Result<EngineAnswer, EngineError> {
        let call = EngineCall {
            symbol: Symbol::from("BTCUSDT"),
            engine_timestamp_ms: TsMs(ts),
            mode,
            inputs: inputs.to_owned(),
            state,
        };
        DemoEngine::new(DemoHysteresisConfig::default()).answer_call(&call)
    }

    #[test]
    fn the_answer_has_the_form_of_the_regime_engine() {
        let inputs = r#"{"timestamp_ms":180000,"market":{"price":101.0,"vwap":100.0,"atr":2.0},"flow":{"cvd":5,"cvd_slope":5.0,"aggressive_volume_ratio":0.7},"derivatives":null}"#;

        let answer = check_call(EngineMode::Truth, 180_000, inputs, None);

        let regime_output = r#"{"confidence":0.7333,"drivers":["Market price against VWAP","Flow aggressive volume","Flow CVD slope"],"invalidations":[],"permissions":["TREND_BUILD_UP"],"regime":"TREND_BUILD_UP","symbol":"BTCUSDT","timestamp":180000}"#;
        assert_eq!(answer, Ok(EngineAnswer::Truth { regime_output: regime_output.to_owned() }));
    }

    #[test]
    fn nothing_known_and_divisions_by_zero_are_a_balanced_chop() {
        let zeros = r#"{"market":{"price":1,"vwap":1,"atr":0},"flow":{"cvd":0,"cvd_slope":0}}"#;
        for inputs in ["{}", r#"{"market":null,"flow":{"cvd":null}}"#, zeros] {
            let answer = check_call(EngineMode::Truth, 1, inputs, None).unwrap();

            let regime_output = r#"{"confidence":1.0,"drivers":[],"invalidations":[],"permissions":["CHOP_BALANCED"],"regime":"CHOP_BALANCED","symbol":"BTCUSDT","timestamp":1}"#;
            assert_eq!(answer, EngineAnswer::Truth { regime_output: regime_output.to_owned() });
        }
    }

    #[test]
    fn inputs_of_the_wrong_type_are_a_snapshot_build_failure() {
        for inputs in
            ["", "[]x", r#"{"market":{"price":"1"}}"#, r#"{"flow":[1]}"#, r#"{"market":{"atr":1e999}}"#]
        {
            let error = check_call(EngineMode::Truth, 1, inputs, None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::SnapshotBuildFailure, "{inputs}");
        }
    }

    #[test]
    fn hysteresis_goes_on_from_its_own_state_and_refuses_the_same_timestamp() {
        let EngineAnswer::Hysteresis { decision, state } =
            check_call(EngineMode::Hysteresis, 180_000, "{}", None).unwrap()
        else {
            panic!("not a decision");
        };

        let again = check_call(EngineMode::Hysteresis, 180_000, "{}", Some(state.clone())).unwrap_err();
        let next = check_call(EngineMode::Hysteresis, 360_000, "{}", Some(state)).unwrap();
        let foreign = check_call(EngineMode::Hysteresis, 1, "{}", Some("{}".to_owned())).unwrap_err();

        assert!(decision.contains("\"stable_regime\":\"CHOP_BALANCED\""));
        assert_eq!(again.kind, ErrorKind::HysteresisMonotonicityViolation);
        assert!(matches!(next, EngineAnswer::Hysteresis { .. }));
        assert_eq!(foreign.kind, ErrorKind::EngineFailure);
    }

    fn number() -> impl Strategy<Value = String> {
        let finite = prop_oneof![4 => -1.0..1.0, 1 => -3.0..3.0, 1 => -1.0e6..1.0e6, 1 => Just(0.0), 1 => any::<f64>()];
        prop_oneof![
            6 => finite.prop_filter_map("finite", |x: f64| x.is_finite().then(|| format!("{x:?}"))),
            1 => Just("null".to_owned()),
        ]
    }

    fn group(names: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::btree_map(prop::sample::select(names), number(), 0..names.len()).prop_map(
            |fields| {
                let fields: Vec<_> =
                    fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            },
        )
    }

    prop_compose! {
        fn any_inputs()(
            market in group(&["price", "vwap", "atr", "sweep_score", "unknown"]),
            derivatives in group(&["funding_z", "liquidation_intensity"]),
            flow in group(&["cvd", "cvd_slope", "aggressive_volume_ratio"]),
        ) -> String {
            format!(r#"{{"market":{market},"derivatives":{derivatives},"flow":{flow}}}"#)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_numbers_give_a_canonical_answer_with_a_confidence(inputs in any_inputs()) {
            let EngineAnswer::Hysteresis { decision, state } =
                check_call(EngineMode::Hysteresis, 1, &inputs, None).unwrap() else { panic!("not a decision") };

            for text in [&decision, &state] {
                prop_assert_eq!(&json::canonical(text).unwrap(), text);
            }
            let decision: serde_json::Value = serde_json::from_str(&decision).unwrap();
            let confidence = decision["selected_output"]["confidence"].as_f64().unwrap();
            prop_assert!((0.0..=1.0).contains(&confidence), "{}", confidence);
        }
    }

    #[test]
    fn every_regime_can_be_reached() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut regimes = BTreeSet::new();
        for _ in 0..5000 {
            let inputs = any_inputs().new_tree(&mut runner).unwrap().current();
            let output = rules::run("A", 1, &inputs).unwrap();
            regimes.insert(to_canonical_json(&output.regime).unwrap());
        }
        assert_eq!(regimes.len(), 9, "{regimes:?}");
    }
}
