"""Stages and hooks over both carriers, seen from outside the process."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from support import DEADLINE_SECONDS, ENGINES, converse, environment

EXAMPLE = ENGINES / "examples" / "stage_worker.py"
GOLDEN = ENGINES.parent / "tests" / "golden"

ANSWERS = '''
from orchestrator_engine.stages import allow, deny, modify, serve_stages

DECISION = {"decisionId": "d-1", "symbol": "AAPL", "strategyId": "a", "action": "BUY", "confidence": 0.7,
            "reasoning": "up", "suggestedQuantity": "10.5", "suggestedPrice": None}
VERDICTS = [
    {"decisionId": "d-1", "outcome": "allowed", "quantity": "7", "price": "150.10", "loweredBy": ["capital"]},
    {"decisionId": "d-2", "outcome": "held"},
    {"decisionId": "d-3", "outcome": "denied", "rule": "price_unavailable"},
]

def signals(request):
    seen = len(request.data("ING")["prices"])
    return {"data": {"seen": seen}, "decisions": [DECISION], "failures": [{"strategyId": "b", "detail": "no model"}]}

def features(request):
    from orchestrator_engine import EngineError
    raise EngineError("no features")

def broken(request):
    return {"decision": []}

patch = [{"decisionId": "d-1", "quantity": "2.5"}, {"decisionId": "d-2", "drop": True}]
serve_stages(name="answers", version="1", stages={"SIG": signals, "RISK": lambda request: {"verdicts": VERDICTS},
    "FEAT": features, "ANA": broken, "GOV": lambda request: 1 / 0, "PORT": lambda request: exit(1)},
    hooks={"allows": lambda q: allow(), "denies": lambda q: deny("not today"),
           "narrows": lambda q: modify(patch, "too large"), "wrong": lambda q: {"reasons": []}})
'''


def golden(name: str) -> list[bytes]:
    return (GOLDEN / name).read_bytes().splitlines()


class StagesTest(unittest.TestCase):
    def setUp(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.program = Path(self._folder.name) / "answers.py"
        self.program.write_text(ANSWERS, encoding="utf-8")
        self.stage, self.hook = (json.loads(line) for line in golden("stage_requests_v1.ndjson"))

    def ask_for(self, *names: str) -> list[bytes]:
        """Asks each stage or hook the golden question, without an id."""
        hooks = {"allows", "denies", "narrows", "wrong", "nobody"}
        requests = [{**self.hook, "hook": name} if name in hooks else {**self.stage, "stage": name} for name in names]
        return converse(self.program, requests).answers

    def test_answers_have_the_golden_bytes_of_version_1(self) -> None:
        answers = self.ask_for("SIG", "RISK", "FEAT", "allows", "denies", "narrows")
        self.assertEqual(answers, golden("stage_answers_v1.ndjson"))

    def test_an_id_comes_back(self) -> None:
        answer = converse(self.program, [{**self.stage, "id": 7, "stage": "RISK"}]).decoded()[0]
        self.assertEqual((answer["id"], answer["ok"]), (7, True))

    def test_hello_names_what_is_served(self) -> None:
        hello = json.loads(converse(self.program, []).hello)
        self.assertEqual((hello["ops"], hello["protocol"]), (["stage", "hook"], 1))

    def test_what_goes_wrong_is_a_failed_answer_and_the_next_one_is_good(self) -> None:
        names = ("ANA", "GOV", "PORT", "NEWS", "wrong", "nobody")
        *failed, good = (json.loads(answer) for answer in self.ask_for(*names, "RISK"))
        said = [answer["error_detail"] for answer in failed]
        self.assertEqual([answer["ok"] for answer in failed], [False] * len(names))
        self.assertIn("ANA answered decision; it may answer data, decisions, failures, verdicts", said[0])
        self.assertIn("ZeroDivisionError", said[1])
        self.assertIn("SystemExit", said[2])
        self.assertEqual(said[3], "there is no stage NEWS here")
        self.assertIn("has to return allow(), deny() or modify()", said[4])
        self.assertEqual(said[5], "there is no hook nobody here")
        self.assertTrue(good["ok"])

    def test_what_is_no_request_is_answered(self) -> None:
        lines: list[Any] = [b"hello", b"[]", {"op": "run", "id": 1}, {"op": "stage", "id": 2}]
        answers = converse(self.program, lines).decoded()
        self.assertEqual([answer["id"] for answer in answers], [None, None, 1, 2])
        self.assertEqual([answer["ok"] for answer in answers], [False] * 4)

    def test_the_example_decides_judges_and_limits(self) -> None:
        decision = {"decisionId": "a:AAPL", "action": "BUY", "suggestedQuantity": "8", "suggestedPrice": "150.10"}
        unsized = {**decision, "decisionId": "b", "suggestedQuantity": None}
        requests = [
            {**self.stage, "id": 1},
            {**self.stage, "id": 2, "stage": "RISK", "decisions": [decision, unsized]},
            {**self.hook, "id": 3, "decisions": [decision, unsized]},
            {**self.hook, "id": 4, "decisions": [decision] * 101},
        ]
        signals, risk, narrowed, denied = converse(EXAMPLE, requests).decoded()
        self.assertEqual([made["symbol"] for made in signals["decisions"]], ["AAPL"])
        self.assertEqual([verdict["outcome"] for verdict in risk["verdicts"]], ["allowed", "denied"])
        self.assertEqual([entry["quantity"] for entry in narrowed["patch"]], ["5", "5"])
        self.assertEqual(denied["decision"], "deny")

    def test_the_example_answers_over_http(self) -> None:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLE), "--port", "0"], stderr=subprocess.PIPE, env=environment(None)
        )
        try:
            assert process.stderr is not None
            port = int(process.stderr.readline().decode().rsplit(":", 1)[1].strip().rstrip("/"))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
            connection.request("POST", "/", json.dumps(self.stage), {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            self.assertEqual((response.status, answer["ok"], answer["data"]), (200, True, {"seen": 2}))
            self.assertEqual(answer["engine"]["name"], "stage-example")
            connection.request("POST", "/", "hello", {"Content-Type": "application/json"})
            self.assertEqual(connection.getresponse().status, 400)
            connection.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(DEADLINE_SECONDS)
            process.stderr.close()


if __name__ == "__main__":
    unittest.main()
