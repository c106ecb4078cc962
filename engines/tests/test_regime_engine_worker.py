"""The adapter for the real Regime Engine, with a small package of the same public names in its place."""

from __future__ import annotations

import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any

from support import ENGINES, FAKES, Conversation, converse, hysteresis_request, run_request

ADAPTER = ENGINES / "regime_engine_worker.py"
CONFIG = {"min_persistence_updates": 2, "min_confidence_for_flip": 0.7}


class RegimeEngineWorkerTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.packages = Path(folder.name)
        shutil.copytree(FAKES / "regime_engine", self.packages / "regime_engine")

    def converse(self, *requests: Any) -> Conversation:
        return converse(ADAPTER, requests, env={"PYTHONPATH": str(self.packages)})

    def change(self, file: str, old: str, new: str) -> None:
        path = self.packages / "regime_engine" / file
        self.assertIn(old, path.read_text())
        path.write_text(path.read_text().replace(old, new))

    def test_absence_becomes_missing_null_stays_none_and_values_pass_unchanged(self) -> None:
        inputs = {
            "timestamp_ms": 1,
            "market": {"price": 5, "vwap": None, "structure_levels": {"high": [1, {"deep": None}]}},
            "context": {"btc_regime": None},
        }
        output = self.converse(run_request(1, inputs)).decoded()[0]["regime_output"]

        expected = [
            "market.price=5",
            "market.vwap=None",
            "market.atr=MISSING",
            "market.structure_levels={'high': [1, {'deep': None}]}",
            "derivatives.open_interest=MISSING",
            "derivatives.liquidation_intensity=MISSING",
            "flow.cvd=MISSING",
            "context.btc_regime=None",
            "context.eth_regime=MISSING",
        ]
        self.assertEqual(output["drivers"], expected)
        self.assertEqual((output["symbol"], output["timestamp"], output["regime"]), ("BTCUSDT", 1, "CHOP_BALANCED"))

    def test_unknown_keys_are_dropped_and_named_once(self) -> None:
        inputs = {"timestamp_ms": 1, "market": {"price": 1.0, "moon_phase": 3}, "rumours": {}}
        conversation = self.converse(run_request(1, inputs), run_request(2, inputs))
        self.assertEqual([answer["ok"] for answer in conversation.decoded()], [True, True])
        named = [line for line in conversation.stderr.splitlines() if "unknown input" in line]
        self.assertEqual(len(named), 2, named)
        self.assertIn("market.moon_phase", conversation.stderr)
        self.assertIn("'rumours'", conversation.stderr)

    def test_a_group_that_is_no_object_is_a_snapshot_build_failure(self) -> None:
        answer = self.converse(run_request(1, {"market": 5})).decoded()[0]
        self.assertEqual(
            (answer["error_kind"], answer["error_detail"]), ("snapshot_build_failure", "market is not an object")
        )

    def test_state_comes_back_and_goes_in_again(self) -> None:
        first = self.converse(hysteresis_request(1, {}, None, CONFIG)).decoded()[0]
        self.assertEqual(first["state"]["candidate_count"], 1)
        self.assertEqual(first["state"]["stable_output"], first["hysteresis_decision"]["selected_output"])
        self.assertEqual(first["hysteresis_decision"]["effective_confidence"], 0.7)

        second = self.converse(hysteresis_request(2, {}, first["state"], CONFIG, timestamp_ms=2)).decoded()[0]
        self.assertEqual((second["state"]["candidate_count"], second["state"]["last_timestamp"]), (2, 2))

    def test_every_attempt_starts_from_the_same_state_and_symbols_do_not_mix(self) -> None:
        requests = [hysteresis_request(n, {}, None, CONFIG, symbol) for n, symbol in enumerate("AABA")]
        answers = self.converse(*requests).decoded()
        self.assertEqual([answer["state"]["candidate_count"] for answer in answers], [1, 1, 1, 1])
        self.assertEqual([answer["state"]["stable_output"]["symbol"] for answer in answers], list("AABA"))

    def test_a_timestamp_that_is_not_newer_is_a_monotonicity_violation(self) -> None:
        state = self.converse(hysteresis_request(1, {}, None, CONFIG, timestamp_ms=5)).decoded()[0]["state"]
        requests = [hysteresis_request(n, {}, state, CONFIG, timestamp_ms=n) for n in (4, 5, 6)]
        answers = self.converse(*requests).decoded()
        kinds = [answer.get("error_kind") for answer in answers]
        self.assertEqual(kinds, ["hysteresis_monotonicity_violation"] * 2 + [None])

    def test_a_refusal_of_another_name_is_still_a_monotonicity_violation(self) -> None:
        self.change("hysteresis/__init__.py", "HysteresisError", "StaleInput")
        state = {"candidate_count": 0, "last_timestamp": 5}
        answer = self.converse(hysteresis_request(1, {}, state, CONFIG, timestamp_ms=5)).decoded()[0]
        self.assertEqual(answer["error_kind"], "hysteresis_monotonicity_violation")

    def test_the_engines_refusal_counts_even_if_the_state_has_other_members(self) -> None:
        self.change("hysteresis/__init__.py", "last_timestamp", "newest_ms")
        answer = self.converse(hysteresis_request(1, {}, {"newest_ms": 5}, CONFIG, timestamp_ms=5)).decoded()[0]
        detail = (answer["error_kind"], answer["error_detail"])
        self.assertEqual(detail, ("hysteresis_monotonicity_violation", "timestamp does not increase"))

    def test_the_engines_own_failure_is_an_engine_failure(self) -> None:
        requests = [run_request(1, {}, "BROKEN"), hysteresis_request(2, {}, None, CONFIG, "BROKEN")]
        for answer in self.converse(*requests).decoded():
            detail = (answer["error_kind"], answer["error_detail"])
            self.assertEqual(detail, ("engine_failure", "ZeroDivisionError: the engine is broken"))

    def test_config_and_state_the_engine_does_not_know_are_refused(self) -> None:
        requests = [
            hysteresis_request(1, {}, None, {"patience": 3}),
            hysteresis_request(2, {}, {"anchor_regime": "A"}, CONFIG),
            hysteresis_request(3, {}, {"candidate_regime": "NO_SUCH_REGIME"}, CONFIG),
            hysteresis_request(4, {}, {"stable_output": {"symbol": "BTCUSDT"}}, CONFIG),
        ]
        answers = self.converse(*requests).decoded()
        self.assertEqual([answer["error_kind"] for answer in answers], ["engine_failure"] * 4)
        for answer, word in zip(
            answers, ("patience", "anchor_regime", "candidate_regime", "stable_output"), strict=True
        ):
            self.assertIn(word, answer["error_detail"])
        for answer in answers[:2]:
            self.assertIn("does not know", answer["error_detail"])

    def test_a_further_field_of_the_engine_is_served_without_a_change(self) -> None:
        self.change("contracts/snapshots.py", "    cvd: float\n", "    cvd: float\n    delta: float\n")
        output = self.converse(run_request(1, {"flow": {"delta": 2}})).decoded()[0]["regime_output"]
        self.assertIn("flow.delta=2", output["drivers"])

    def test_an_engine_that_decides_in_another_form_is_named(self) -> None:
        self.change(
            "engine.py", "return advance(run(snapshot), state, config or HysteresisConfig())", "return run(snapshot)"
        )
        conversation = self.converse(hysteresis_request(1, {}, None, CONFIG), run_request(2, {}))
        self.assertIn(b'"ops":["run"]', conversation.hello)
        self.assertIn("answers with a RegimeOutput without selected_output", conversation.stderr)
        failed, served = conversation.decoded()
        self.assertEqual(failed["error_kind"], "engine_failure")
        self.assertTrue(served["ok"], "truth is served all the same")

    def test_an_engine_that_refuses_the_trial_is_believed_its_declaration(self) -> None:
        self.change("engine.py", 'if snapshot.symbol == "BROKEN":', 'if snapshot.symbol != "BTCUSDT":')
        self.assertIn(b'"ops":["run","run_with_hysteresis"]', self.converse().hello)
        self.change("engine.py", ") -> HysteresisDecision:", ") -> RegimeOutput:")
        self.assertIn(b'"ops":["run"]', self.converse().hello)

    def test_what_the_trial_prints_is_not_taken_for_the_hello(self) -> None:
        self.change("engine.py", "    arrived: list[str] = []", "    print('noise')\n    arrived: list[str] = []")
        self.assertTrue(self.converse().hello.startswith(b'{"engine"'))

    def test_version_and_code_hash_are_those_of_the_package(self) -> None:
        before = self.converse().hello
        self.assertIn(b'"name":"regime-engine","version":"0.0-fake"', before)
        self.change("engine.py", "0.5", "0.6")
        self.assertNotEqual(self.converse().hello, before)

    def test_without_the_package_the_worker_says_so_and_exits_with_two(self) -> None:
        conversation = converse(ADAPTER, [], env={"PYTHONPATH": ""})
        self.assertEqual((conversation.exit_code, conversation.hello), (2, b""))
        self.assertIn("PYTHONPATH", conversation.stderr)


if __name__ == "__main__":
    unittest.main()
