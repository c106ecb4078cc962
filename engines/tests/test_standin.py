"""The stand-in engine against the recordings, and rule by rule."""

from __future__ import annotations

from support import CONFIG, ENGINES, Worker, converse, hysteresis_request, run_request, shared_file  # isort: skip

import gzip
import json
import unittest
from typing import Any

import standin_hysteresis as hysteresis
from orchestrator_engine import EngineError, HysteresisMonotonicityViolation, Snapshot, SnapshotBuildFailure
from standin_engine import run

STANDIN = ENGINES / "standin_engine.py"
REPLAY = ENGINES / "replay_output_engine.py"

NEUTRAL: dict[str, dict[str, Any]] = {
    "market": {"price": 100.0, "vwap": 100.0, "atr": 1.0, "atr_z": 0.0, "range_expansion": 0.0, "sweep_score": 0.0},
    "derivatives": {"oi_slope_short": 0.0, "funding_rate": 0.0, "liquidation_intensity": None},
    "flow": {"cvd_efficiency": 0.0, "aggressive_volume_ratio": 0.5},
    "context": {"btc_regime": None},
}


class GoldenTest(unittest.TestCase):
    def test_neutral_snapshots_give_the_recorded_truth_byte_for_byte(self) -> None:
        golden = shared_file("golden_truth.jsonl").read_bytes().splitlines()
        requests: list[Any] = []
        for line in golden:
            recorded = json.loads(line)
            output = recorded["regime_output"]
            inputs = {"timestamp_ms": output["timestamp"], **NEUTRAL}
            requests.append(run_request(recorded["id"], inputs, output["symbol"], output["timestamp"]))

        self.assertEqual(converse(STANDIN, requests).answers, golden)
        self.assertEqual(len(golden), 6)

    def test_hysteresis_reproduces_every_recorded_step_over_the_protocol(self) -> None:
        """Method: each step goes in with the state the step before gave back, a refused step changes nothing."""
        steps = [json.loads(line) for line in shared_file("golden_hysteresis.jsonl").read_text().splitlines()]
        state: Any = None
        with Worker(REPLAY) as worker:
            worker.receive()
            for step in steps:
                output = step["input"]
                inputs = {"timestamp_ms": output["timestamp"], "recorded_output": output}
                request = hysteresis_request(step["i"], inputs, state, CONFIG, output["symbol"], output["timestamp"])
                worker.send(request)
                line = worker.receive()

                assert line is not None
                answer = json.loads(line)
                if "error" in step:
                    detail = (answer["error_kind"], answer["error_detail"])
                    self.assertEqual(detail, ("hysteresis_monotonicity_violation", step["error"]))
                else:
                    state = answer["state"]
                    self.assertEqual(as_text(answer["hysteresis_decision"]), as_text(step["decision"]), step["i"])
                self.assertEqual(as_text(state), as_text(step["state_after"]), step["i"])
        self.assertEqual(len(steps), 23)

    def test_every_recorded_real_snapshot_is_answered_with_some_variety(self) -> None:
        requests: list[Any] = []
        with gzip.open(shared_file("binance_usdm_20240808.jsonl.gz"), "rt", encoding="utf-8") as lines:
            for line in lines:
                if '"SnapshotInputs"' in line:
                    event = json.loads(line)
                    inputs = event["normalized"]
                    requests.append(run_request(len(requests), inputs, event["symbol"], inputs["timestamp_ms"]))

        first, second = converse(STANDIN, requests), converse(STANDIN, requests)
        self.assertEqual(len(requests), 44)
        self.assertEqual([answer["ok"] for answer in first.decoded()], [True] * 44)
        self.assertLessEqual(4, len({answer["regime_output"]["regime"] for answer in first.decoded()}))
        self.assertEqual((first.hello, first.answers), (second.hello, second.answers))


class TruthRuleTest(unittest.TestCase):
    def check_regime(self, regime: str, **changes: dict[str, Any]) -> dict[str, Any]:
        inputs: dict[str, Any] = {group: {**fields, **changes.get(group, {})} for group, fields in NEUTRAL.items()}
        output: dict[str, Any] = run(Snapshot("X", 1, inputs))
        self.assertEqual((output["regime"], output["permissions"]), (regime, [regime]))
        self.assertTrue(0.5 <= output["confidence"] <= 1.0)
        return output

    def test_each_rule_gives_its_regime(self) -> None:
        up, down = {"price": 101.0}, {"price": 99.0}
        buy, sell = {"aggressive_volume_ratio": 0.8}, {"aggressive_volume_ratio": 0.2}
        self.check_regime("LIQUIDATION_UP", market=up, derivatives={"liquidation_intensity": 0.7})
        self.check_regime("LIQUIDATION_DOWN", market=down, derivatives={"liquidation_intensity": 0.9})
        self.check_regime("CHOP_STOPHUNT", market={**up, "sweep_score": 0.7}, flow=buy)
        self.check_regime("SQUEEZE_UP", market=up, flow=buy, derivatives={"oi_slope_short": -0.1})
        self.check_regime("SQUEEZE_DOWN", market=down, flow=sell, derivatives={"oi_slope_short": -0.1})
        self.check_regime("TREND_BUILD_UP", market=up, flow=buy)
        self.check_regime("TREND_BUILD_DOWN", market=down, flow=sell)
        self.check_regime("TREND_EXHAUSTION", market=up, flow=sell)
        self.check_regime("TREND_EXHAUSTION", market=down, flow=buy)
        self.check_regime("CHOP_BALANCED")

    def test_small_moves_and_scores_stay_balanced(self) -> None:
        self.check_regime("CHOP_BALANCED", market={"price": 100.24, "sweep_score": 0.69})
        self.check_regime("CHOP_BALANCED", market={"price": 101.0}, flow={"aggressive_volume_ratio": 0.54})
        self.check_regime("CHOP_BALANCED", derivatives={"liquidation_intensity": 0.9})

    def test_a_gauge_that_is_not_calm_speaks_against_balance(self) -> None:
        output = self.check_regime("CHOP_BALANCED", market={"atr_z": -2.0})
        self.assertEqual(output["invalidations"], ["Market ATR z-score"])
        self.assertNotIn("Market ATR z-score", output["drivers"])

    def test_an_empty_snapshot_is_answered(self) -> None:
        empty: list[dict[str, Any]] = [{}, {"market": None}, {"market": {"price": 1.0, "vwap": 1.0, "atr": 0.0}}]
        for inputs in empty:
            output = run(Snapshot("X", 1, inputs))
            self.assertEqual((output["regime"], output["drivers"]), ("CHOP_BALANCED", []))

    def test_a_price_that_is_a_text_is_refused(self) -> None:
        with self.assertRaises(SnapshotBuildFailure):
            run(Snapshot("X", 1, {"market": {"price": "100"}}))


class HysteresisConfigTest(unittest.TestCase):
    """The recordings use the default settings only; here each one is changed and has to matter."""

    def steps(self, *outputs: tuple[int, str, float], **changes: Any) -> list[Any]:
        config = hysteresis.HysteresisConfig.from_json({**CONFIG, **changes})
        state, decisions = hysteresis.HysteresisState(), []
        for timestamp, regime, confidence in outputs:
            output: dict[str, Any] = {"timestamp": timestamp, "regime": regime, "confidence": confidence}
            decision, state = hysteresis.step(output, state, config)
            decisions.append(decision)
        return decisions

    def test_each_setting_matters(self) -> None:
        two = ((1, "A", 0.8), (2, "B", 0.9))
        self.assertFalse(self.steps(*two)[1]["transition"]["flipped"])
        self.assertTrue(self.steps(*two, min_persistence_updates=1)[1]["transition"]["flipped"])
        flipped = self.steps(*two, min_persistence_updates=1, min_confidence_for_flip=0.91)[1]["transition"]["flipped"]
        self.assertFalse(flipped)
        self.assertEqual(self.steps(*two, decay_factor=0.5)[1]["effective_confidence"], 0.4)
        self.assertEqual(self.steps(*two, min_confidence_floor=0.75)[1]["effective_confidence"], 0.75)
        gap = ((1, "A", 0.8), (12, "B", 0.9))
        self.assertTrue(self.steps(*gap, update_interval_ms=10)[1]["transition"]["reset_due_to_gap"])
        self.assertFalse(self.steps(*gap, update_interval_ms=11)[1]["transition"]["reset_due_to_gap"])

    def test_a_setting_that_is_not_given_has_its_default(self) -> None:
        self.assertEqual(hysteresis.HysteresisConfig.from_json({}), hysteresis.HysteresisConfig.from_json({**CONFIG}))

    def test_unknown_or_wrong_settings_and_states_are_refused(self) -> None:
        configs: list[dict[str, Any]] = [{"min_persistance_updates": 3}, {"decay_factor": "0.85"}]
        for config in [*configs, {"update_interval_ms": 1.5}]:
            with self.assertRaises(EngineError):
                hysteresis.HysteresisConfig.from_json(config)
        states: list[dict[str, Any]] = [{}, {"candidate_count": 0, "stable_output": 5}]
        for state in [*states, {"candidate_count": 0, "last_timestamp": "1"}]:
            with self.assertRaises(EngineError):
                hysteresis.HysteresisState.from_json(state)

    def test_a_timestamp_that_is_not_newer_is_refused(self) -> None:
        with self.assertRaises(HysteresisMonotonicityViolation):
            self.steps((2, "A", 0.5), (2, "A", 0.5))


class ReplayOutputTest(unittest.TestCase):
    def test_a_snapshot_without_its_recorded_output_is_refused(self) -> None:
        other = {"recorded_output": {"symbol": "BTCUSDT", "timestamp": 2}}
        answers = converse(REPLAY, [run_request(1, {}), run_request(2, other)]).decoded()
        self.assertEqual([answer["error_kind"] for answer in answers], ["snapshot_build_failure"] * 2)


def as_text(value: Any) -> str:
    """Compares 1 and 1.0, and 0.2 and 0.20000000000000001, as the bytes they become."""
    return json.dumps(value, sort_keys=True)


if __name__ == "__main__":
    unittest.main()
