"""The engine behind HTTP, seen from outside the process."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import DEADLINE_SECONDS, ENGINES, FAKES, converse, environment, hysteresis_request, run_request

PROBE = FAKES / "probe_engine.py"
EXAMPLE = ENGINES / "examples" / "http_engine.py"


class Server:
    """An engine's process and the port that it said it listens on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stderr is not None
        self.announced = process.stderr.readline().decode()
        self.port = int(self.announced.rsplit(":", 1)[1].strip().rstrip("/"))

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)

    def ask(self, request: Any, **headers: str) -> tuple[int, Any]:
        """Posts over a connection of its own. A request of bytes is sent as it is."""
        connection = self.connect()
        try:
            return post(connection, request, **headers)
        finally:
            connection.close()


def post(connection: http.client.HTTPConnection, request: Any, **headers: str) -> tuple[int, Any]:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    connection.request("POST", "/any/path", body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@contextmanager
def serving(program: Path, *arguments: str, **env: str) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(env),
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.wait(DEADLINE_SECONDS)
        assert process.stderr is not None
        process.stderr.close()


class HttpTest(unittest.TestCase):
    def test_an_answer_is_that_of_the_pipe_with_the_hello_in_it(self) -> None:
        requests = [
            run_request(7, {"do": "echo", "z": 1.0}),
            hysteresis_request(8, {}, {"count": 4}),
            run_request(9, {"do": "nan"}),
            run_request(10, {"do": "sys_exit"}),
            {**run_request(11, {}), "snapshot": None},
        ]
        piped = converse(PROBE, requests)
        hello = json.loads(piped.hello)

        with serving(PROBE, "--http") as server:
            connection = server.connect()
            answers = [post(connection, request) for request in requests]
            connection.close()

        self.assertEqual(answers, [(200, {**hello, **answer}) for answer in piped.decoded()])

    def test_answers_are_compact_and_sorted(self) -> None:
        with serving(PROBE, "--http") as server:
            connection = server.connect()
            connection.request("POST", "/", json.dumps(run_request(1, {})))
            body = connection.getresponse().read()
            connection.close()
        expected = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")) + "\n"
        self.assertEqual(body.decode(), expected)

    def test_a_get_says_who_the_engine_is_even_while_a_call_hangs(self) -> None:
        with serving(PROBE, "--http") as server, socket.create_connection(("127.0.0.1", server.port)) as hanging:
            body = json.dumps(run_request(1, {"do": "hang"})).encode()
            hanging.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            connection = server.connect()
            connection.request("GET", "/")
            response = connection.getresponse()
            self.assertEqual((response.status, response.read().strip()), (200, converse(PROBE, []).hello))
            connection.close()

    def test_a_connection_serves_many_calls(self) -> None:
        with serving(PROBE, "--http") as server:
            connection = server.connect()
            connection.connect()
            port = connection.sock.getsockname()
            answers = [post(connection, run_request(number, {}))[1]["id"] for number in range(50)]
            self.assertEqual((answers, connection.sock.getsockname()), (list(range(50)), port))
            connection.close()

    def test_a_body_that_is_no_request_is_answered_400(self) -> None:
        with serving(PROBE, "--http") as server:
            for body in (b"not json", b"[1]", b"", b'{"id":true}', b"\xff"):
                status, answer = server.ask(body)
                self.assertEqual((status, answer["id"], answer["ok"]), (400, None, False), body)
            self.assertEqual(server.ask(run_request(1, {}))[0], 200)

    def test_a_request_on_several_lines_is_recorded_on_one(self) -> None:
        request = run_request(1, {"do": "echo"})
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "requests.jsonl"
            with serving(PROBE, "--http", ORCHESTRATOR_ENGINE_RECORD=str(record)) as server:
                answer = server.ask(json.dumps(request, indent=2).encode())[1]
            self.assertEqual(answer["regime_output"]["inputs"], {"do": "echo"})
            self.assertEqual([json.loads(line) for line in record.read_text().splitlines()], [request])

    def test_a_body_beyond_the_limit_is_refused_unread(self) -> None:
        with serving(PROBE, "--http") as server:
            for length in ("100001", "9" * 40, "0" * 30 + "9" * 9):
                connection = server.connect()
                connection.putrequest("POST", "/")
                connection.putheader("Content-Length", length)
                connection.endheaders()
                response = connection.getresponse()
                self.assertEqual((response.status, response.getheader("Connection")), (413, "close"), length)
                connection.close()
            self.assertEqual(server.ask(run_request(1, {"text": "x" * 90_000}))[0], 200)

    def test_a_body_of_unknown_length_is_refused(self) -> None:
        with serving(PROBE, "--http") as server:
            for header in (("Transfer-Encoding", "chunked"), ("Content-Length", "-1"), ("Content-Length", "1e3")):
                connection = server.connect()
                connection.putrequest("POST", "/")
                connection.putheader(*header)
                connection.endheaders()
                self.assertEqual(connection.getresponse().status, 411, header)
                connection.close()

    def test_without_the_token_nothing_is_answered(self) -> None:
        with serving(PROBE, "--http", PROBE_TOKEN="secret") as server:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
                self.assertEqual(server.ask(run_request(1, {}), **headers)[0], 401)
            self.assertEqual(server.ask(run_request(1, {}), Authorization="Bearer secret")[0], 200)

    def test_calls_come_one_at_a_time(self) -> None:
        """Method: eight clients at once, two connections at a time; the calls' times must not overlap."""
        spans: list[tuple[float, float]] = []

        def ask(server: Server) -> None:
            output = server.ask(run_request(1, {"do": "sleep"}))[1]["regime_output"]
            spans.append((output["begun"], output["ended"]))

        with serving(PROBE, "--http") as server:
            threads = [threading.Thread(target=ask, args=(server,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE_SECONDS)

        spans.sort()
        self.assertEqual(len(spans), 8)
        for earlier, later in zip(spans, spans[1:], strict=False):
            self.assertLessEqual(earlier[1], later[0])

    def test_a_call_whose_client_gave_up_in_the_queue_is_not_made(self) -> None:
        """Method: the engine is busy; a client posts and leaves; the record of requests tells what was called."""
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "requests.jsonl"
            with serving(PROBE, "--http", ORCHESTRATOR_ENGINE_RECORD=str(record)) as server:
                busy = threading.Thread(target=server.ask, args=(run_request(1, {"do": "sleep"}),))
                busy.start()
                deadline = time.monotonic() + DEADLINE_SECONDS
                while not (record.exists() and record.read_bytes()) and time.monotonic() < deadline:
                    time.sleep(0.001)
                connection = server.connect()
                connection.request("POST", "/", json.dumps(run_request(2, {})))
                connection.close()
                busy.join(DEADLINE_SECONDS)
                server.ask(run_request(3, {}))
            called = [json.loads(line)["id"] for line in record.read_text().splitlines()]
            self.assertEqual(called, [1, 3])

    def test_a_client_that_breaks_off_leaves_the_server_alone(self) -> None:
        with serving(PROBE, "--http") as server:
            for sent in (b"", b"POST", b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\n{", b"\x16\x03\x01\r\n\r\n"):
                with socket.create_connection(("127.0.0.1", server.port)) as client:
                    client.sendall(sent)
            self.assertEqual(server.ask(run_request(1, {}))[0], 200)

    def test_an_interrupt_ends_the_server_with_zero(self) -> None:
        # A suite that runs in the background has interrupts ignored, and its children would inherit that.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        with serving(PROBE, "--http") as server:
            server.process.send_signal(signal.SIGINT)
            self.assertEqual(server.process.wait(DEADLINE_SECONDS), 0)

    def test_the_example_is_the_same_engine_as_the_worker(self) -> None:
        request = run_request(1, {"market": {"price": 100.0, "vwap": 99.0, "atr": 1.0}})
        piped = converse(ENGINES / "standin_engine.py", [request])
        with serving(EXAMPLE, "--port", "0") as server:
            self.assertEqual(server.ask(request), (200, {**json.loads(piped.hello), **piped.decoded()[0]}))


if __name__ == "__main__":
    unittest.main()
