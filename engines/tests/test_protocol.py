"""The worker protocol, seen from outside the process."""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
import unittest
from pathlib import Path

from support import CONFIG, ENGINES, FAKES, Worker, converse, hysteresis_request, run_request

PROBE = FAKES / "probe_engine.py"


class ProtocolTest(unittest.TestCase):
    def answer(self, request: object, *arguments: str) -> bytes:
        conversation = converse(PROBE, [request], *arguments)
        self.assertEqual(len(conversation.answers), 1, conversation.stderr)
        return conversation.answers[0]

    def failure(self, request: object, *arguments: str) -> tuple[object, str, str]:
        answer = json.loads(self.answer(request, *arguments))
        self.assertEqual(set(answer), {"id", "ok", "error_kind", "error_detail"})
        self.assertIs(answer["ok"], False)
        return answer["id"], answer["error_kind"], answer["error_detail"]

    def test_hello_comes_first_and_names_engine_protocol_and_code_hash(self) -> None:
        conversation = converse(PROBE, [])
        name, content = PROBE.name.encode(), PROBE.read_bytes()
        parts = (len(name).to_bytes(8, "big"), name, len(content).to_bytes(8, "big"), content)
        code_hash = hashlib.sha256(b"".join(parts)).hexdigest()

        engine = f'{{"code_hash":"{code_hash}","name":"probe","version":"1.0"}}'
        expected = f'{{"engine":{engine},"ops":["run","run_with_hysteresis"],"protocol":1}}'
        self.assertEqual(conversation.hello.decode(), expected)

    def test_end_of_input_ends_the_worker_with_zero(self) -> None:
        self.assertEqual(converse(PROBE, []).exit_code, 0)
        self.assertEqual(converse(PROBE, [run_request(1, {})]).exit_code, 0)

    def test_answer_to_run_is_compact_and_sorted(self) -> None:
        request = run_request(7, {"z": 1, "do": "echo"}, timestamp_ms=1768002660000)
        output = b'{"inputs":{"do":"echo","z":1},"symbol":"BTCUSDT","timestamp":1768002660000}'
        self.assertEqual(self.answer(request), b'{"id":7,"ok":true,"regime_output":' + output + b"}")

    def test_answer_to_run_with_hysteresis_has_decision_and_state(self) -> None:
        answer = json.loads(self.answer(hysteresis_request(2, {}, {"count": 4})))
        decision = {"selected_output": {}, "config": CONFIG}
        self.assertEqual(answer, {"id": 2, "ok": True, "hysteresis_decision": decision, "state": {"count": 5}})

    def test_every_attempt_starts_from_the_state_in_its_request(self) -> None:
        requests = [hysteresis_request(number, {}, {"count": 4}) for number in range(3)]
        states = [answer["state"] for answer in converse(PROBE, requests).decoded()]
        self.assertEqual(states, [{"count": 5}] * 3)

    def test_null_state_is_the_state_before_the_first_call(self) -> None:
        self.assertEqual(json.loads(self.answer(hysteresis_request(1, {}, None)))["state"], {"count": 1})

    def test_answers_come_in_the_order_of_the_requests(self) -> None:
        requests = [run_request(number, {"do": "nan"} if number % 3 else {}) for number in range(200)]
        self.assertEqual([answer["id"] for answer in converse(PROBE, requests).decoded()], list(range(200)))

    def test_an_answer_is_sent_before_the_next_request_is_read(self) -> None:
        with Worker(PROBE) as worker:
            worker.receive()
            for number in range(3):
                worker.send(run_request(number, {}))
                self.assertEqual(worker.receive(), b'{"id":%d,"ok":true,"regime_output":{}}\n' % number)

    def test_numbers_and_text_come_back_as_they_were(self) -> None:
        numbers = b'"a":1,"b":1.0,"big":123456789012345678901,"c":0.1,"d":5e-324'
        inputs = b"{" + numbers + b',"do":"echo","e":-0.0,"t":"\xc3\xbc\xe2\x82\xbf"}'
        line = b'{"id":1,"op":"run","snapshot":{"symbol":"B","timestamp_ms":1,"inputs":' + inputs + b"}}"
        expected = b'{"id":1,"ok":true,"regime_output":{"inputs":' + inputs + b',"symbol":"B","timestamp":1}}'
        self.assertEqual(self.answer(line), expected)

    def test_dataclasses_enums_and_tuples_have_a_json_form(self) -> None:
        output = b'{"colour":"red","pair":[1,1.0],"symbol":"BTCUSDT"}'
        self.assertEqual(
            self.answer(run_request(1, {"do": "dataclass"})), b'{"id":1,"ok":true,"regime_output":' + output + b"}"
        )

    def test_missing_and_null_are_different_values(self) -> None:
        for market, expected in (({}, "MISSING"), ({"price": None}, "None"), ({"price": 5}, "5"), (None, "MISSING")):
            output = json.loads(self.answer(run_request(1, {"do": "types", "market": market})))["regime_output"]
            self.assertEqual(output["value"], expected)

    def test_a_field_that_is_no_number_is_a_snapshot_build_failure(self) -> None:
        for price in (b'"5"', b"true", b"1e999", b"1" + b"0" * 400):
            inputs = b'{"do":"types","market":{"price":' + price + b"}}"
            line = b'{"id":1,"op":"run","snapshot":{"symbol":"B","timestamp_ms":1,"inputs":' + inputs + b"}}"
            self.assertEqual(self.failure(line)[1], "snapshot_build_failure")

    def test_a_line_of_five_megabytes_is_read_whole(self) -> None:
        text = "x" * 5_000_000
        answer = json.loads(self.answer(run_request(1, {"do": "echo", "text": text})))
        self.assertEqual(answer["regime_output"]["inputs"]["text"], text)

    def test_nan_in_an_output_is_an_engine_failure_that_names_the_place(self) -> None:
        failure = self.failure(run_request(3, {"do": "nan"}))
        self.assertEqual(failure, (3, "engine_failure", "regime_output.drivers[1].score is NaN"))

    def test_an_output_without_json_form_is_an_engine_failure(self) -> None:
        for do, detail in (
            ("set", "regime_output.drivers has the type set, which has no JSON form"),
            ("number", "regime_output is not an object"),
            ("half_surrogate", "the answer holds text that is not valid Unicode"),
        ):
            self.assertEqual(self.failure(run_request(1, {"do": do})), (1, "engine_failure", detail))

    def test_an_exception_is_one_short_printable_line(self) -> None:
        request_id, kind, detail = self.failure(run_request(1, {"do": "raise"}))
        self.assertEqual((request_id, kind), (1, "engine_failure"))
        self.assertTrue(detail.startswith("ValueError: a b [31mlong") and len(detail) == 500, detail)

    def test_nothing_an_engine_raises_ends_the_worker(self) -> None:
        requests = [run_request(n, {"do": do}) for n, do in enumerate(("raise_unreadable", "sys_exit", "recursion"))]
        answers = converse(PROBE, [*requests, run_request(9, {})]).decoded()
        self.assertEqual([answer["ok"] for answer in answers], [False, False, False, True])

    def test_what_the_engine_prints_goes_to_stderr(self) -> None:
        conversation = converse(PROBE, [run_request(1, {"do": "print"})])
        self.assertEqual(conversation.answers, [b'{"id":1,"ok":true,"regime_output":{}}'])
        for text in ("printed before serve()", "printed", "written to descriptor 1", "from a child"):
            self.assertIn(text, conversation.stderr)

    def test_neither_engine_nor_its_children_can_eat_requests(self) -> None:
        """Method: the pipe stays open, so whoever reads from it waits for ever."""
        with Worker(PROBE) as worker:
            worker.receive()
            worker.send(run_request(1, {"do": "read_stdin"}))
            answer = worker.receive(timeout=3)
            self.assertEqual(answer, b'{"id":1,"ok":true,"regime_output":{"child":"","own":""}}\n')

    def test_a_line_that_is_not_a_request_is_answered_with_null_and_named_on_stderr(self) -> None:
        lines = [
            b"not json",
            b"[1]",
            b'{"op":"run"}',
            b'{"id":true}',
            b'{"id":1,"op":"run","x":NaN}',
            b"\xff\xfe{}",
            json.dumps(run_request(1, {})).encode("utf-16-le"),
            b"[" * 99999,
        ]
        conversation = converse(PROBE, [*lines, run_request(9, {})])
        answers = conversation.decoded()
        self.assertEqual([answer["id"] for answer in answers], [None] * len(lines) + [9])
        self.assertEqual({answer.get("error_kind") for answer in answers[:-1]}, {"engine_failure"})
        self.assertEqual(conversation.stderr.count("bad request"), len(lines))

    def test_a_request_that_lacks_a_field_is_answered_with_its_id(self) -> None:
        good = hysteresis_request(5, {}, None)
        for change, kind in (
            ({"op": "dance"}, "engine_failure"),
            ({"config": None}, "engine_failure"),
            ({"state": 5}, "engine_failure"),
            ({"snapshot": None}, "snapshot_build_failure"),
            ({"snapshot": {**good["snapshot"], "symbol": 5}}, "snapshot_build_failure"),
            ({"snapshot": {**good["snapshot"], "timestamp_ms": 1.5}}, "snapshot_build_failure"),
            ({"snapshot": {**good["snapshot"], "inputs": []}}, "snapshot_build_failure"),
        ):
            self.assertEqual(self.failure({**good, **change})[:2], (5, kind), change)
        del good["state"]
        self.assertEqual(self.failure(good)[:2], (5, "engine_failure"))

    def test_empty_lines_are_not_requests(self) -> None:
        self.assertEqual(len(converse(PROBE, [b"", run_request(1, {}), b"\r"]).answers), 1)

    def test_an_engine_without_hysteresis_says_so(self) -> None:
        failure = self.failure(hysteresis_request(1, {}, None), "--truth-only")
        self.assertEqual(failure, (1, "engine_failure", "this engine has no run_with_hysteresis"))

    def test_ctrl_c_at_the_terminal_leaves_the_end_to_the_parent(self) -> None:
        # A suite that runs in the background has interrupts ignored, and its children would inherit that.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        with Worker(PROBE) as worker:
            worker.receive()
            worker.process.send_signal(signal.SIGINT)
            worker.send(run_request(1, {}))
            self.assertEqual(worker.receive(), b'{"id":1,"ok":true,"regime_output":{}}\n')

    def test_requests_are_recorded_before_the_engine_sees_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "requests.jsonl"
            env = {"ORCHESTRATOR_ENGINE_RECORD": str(record)}
            program = ENGINES / "examples" / "fault_engine.py"
            request = run_request(1, {})
            conversation = converse(program, [request], "--exit-symbol", "*", env=env)
            self.assertEqual((conversation.exit_code, conversation.answers), (3, []))
            self.assertEqual(json.loads(record.read_text()), request)
            self.assertEqual(record.stat().st_mode & 0o777, 0o600)

    def test_the_three_line_example_serves(self) -> None:
        conversation = converse(ENGINES / "examples" / "minimal.py", [run_request(1, {})])
        self.assertEqual(conversation.decoded()[0]["regime_output"]["regime"], "CHOP_BALANCED")


if __name__ == "__main__":
    unittest.main()
