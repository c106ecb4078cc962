"""The fault engine really has the faults that the orchestrator's tests count on."""

from __future__ import annotations

import json
import tempfile
import time
import unittest
from pathlib import Path

from support import ENGINES, Worker, converse, hysteresis_request, run_request

FAULTS = ENGINES / "examples" / "fault_engine.py"


class FaultTest(unittest.TestCase):
    def test_a_fault_of_one_symbol_leaves_the_others_alone(self) -> None:
        requests = [
            run_request(1, {}, "BAD"),
            run_request(2, {}, "GOOD"),
            hysteresis_request(3, {}, None, symbol="BAD"),
        ]
        answers = converse(FAULTS, requests, "--fail-symbol", "BAD").decoded()
        self.assertEqual([answer["ok"] for answer in answers], [False, True, False])
        self.assertEqual(answers[0]["error_kind"], "engine_failure")

    def test_the_environment_works_like_the_arguments(self) -> None:
        env = {"ORCHESTRATOR_FAULTS": "--snapshot-fail-symbol '*'"}
        answers = converse(FAULTS, [run_request(1, {})], env=env).decoded()
        self.assertEqual(answers[0]["error_kind"], "snapshot_build_failure")

    def test_an_unknown_option_is_refused(self) -> None:
        self.assertEqual(converse(FAULTS, [], "--fial-symbol", "X").exit_code, 2)

    def test_hang_answers_nothing_until_the_worker_is_killed(self) -> None:
        with Worker(FAULTS, "--hang-symbol", "BAD") as worker:
            worker.receive()
            worker.send(run_request(1, {}, "GOOD"))
            self.assertIsNotNone(worker.receive())
            worker.send(run_request(2, {}, "BAD"))
            self.assertIsNone(worker.receive(timeout=0.3))
            self.assertIsNone(worker.process.poll())

    def test_memory_grows_to_the_limit_and_stays(self) -> None:
        with Worker(FAULTS, "--memory-symbol", "*", "--memory-mb-max", "64") as worker:
            worker.receive()
            worker.send(run_request(1, {}))
            status = Path(f"/proc/{worker.process.pid}/status")
            if not status.is_file():
                self.skipTest("no /proc on this system")
            deadline = time.monotonic() + 5
            while resident_kb(status) < 64 * 1024:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            self.assertIsNone(worker.receive(timeout=0.1))

    def test_exit_and_torn_end_the_process_in_the_middle_of_the_call(self) -> None:
        conversation = converse(FAULTS, [run_request(1, {})], "--exit-symbol", "*")
        self.assertEqual((conversation.exit_code, conversation.answers), (3, []))
        with Worker(FAULTS, "--torn-symbol", "*") as worker:
            worker.receive()
            worker.send(run_request(1, {}))
            self.assertEqual(worker.receive(), b'{"id":')

    def test_garbage_and_wrong_id_stand_on_the_protocols_pipe(self) -> None:
        conversation = converse(FAULTS, [run_request(1, {})], "--garbage-symbol", "*", "--wrong-id-symbol", "*")
        garbage, stray, answer = conversation.answers
        with self.assertRaises(ValueError):
            json.loads(garbage)
        self.assertEqual((json.loads(stray)["id"], json.loads(answer)["id"]), (999999999, 1))

    def test_noise_does_not_reach_the_protocols_pipe(self) -> None:
        conversation = converse(FAULTS, [run_request(1, {})], "--noise-symbol", "*")
        self.assertTrue(conversation.decoded()[0]["ok"])
        self.assertIn("noise from print()\nnoise on file descriptor 1", conversation.stderr)

    def test_huge_and_nan_answers(self) -> None:
        answers = converse(FAULTS, [run_request(1, {})], "--huge-symbol", "*", "--huge-bytes", "3000000").answers
        self.assertLess(3_000_000, len(answers[0]))
        answer = converse(FAULTS, [run_request(1, {})], "--nan-symbol", "*").decoded()[0]
        self.assertEqual(answer["error_detail"], "regime_output.confidence is NaN")

    def test_the_first_calls_fail_and_the_next_succeeds(self) -> None:
        requests = [run_request(number, {}) for number in range(4)]
        answers = converse(FAULTS, requests, "--fail-first", "2").decoded()
        self.assertEqual([answer["ok"] for answer in answers], [False, False, True, True])

    def test_a_counter_file_counts_across_restarts(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = ("--exit-first", "2", "--counter-file", f"{folder}/calls")
            exits = [converse(FAULTS, [run_request(1, {})], *arguments).exit_code for _ in range(3)]
            self.assertEqual(exits, [3, 3, 0])

    def test_sleep_delays_the_answer(self) -> None:
        with Worker(FAULTS, "--sleep-ms", "200") as worker:
            worker.receive()
            worker.send(run_request(1, {}))
            started = time.monotonic()
            self.assertIsNotNone(worker.receive())
            self.assertLess(0.15, time.monotonic() - started)

    def test_start_can_hang_exit_and_be_garbage(self) -> None:
        self.assertEqual(converse(FAULTS, [], "--start", "exit").exit_code, 3)
        self.assertEqual(converse(FAULTS, [], "--start", "garbage").hello, b"Welcome to the engine!")
        with Worker(FAULTS, "--start", "hang") as worker:
            self.assertIsNone(worker.receive(timeout=0.3))


def resident_kb(status: Path) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


if __name__ == "__main__":
    unittest.main()
