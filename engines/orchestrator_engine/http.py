"""The same engine behind HTTP: one call a POST, the answer of the pipe with the hello's members in it.

An answer names the engine because a load balancer or a new deployment can put another one behind the same address.
Everything a client can make the server hold is bounded: connections, time, and the body of a request.
"""

from __future__ import annotations

import hmac
import select
import socket
import sys
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .calls import Calls, Engine, Run, RunWithHysteresis
from .wire import JsonObject, encode_line

IDLE_SECONDS_MAX = 75.0
"""How long a client may leave its connection idle, or be slow. The orchestrator closes idle ones after 30 seconds."""


def serve_http(
    host: str = "127.0.0.1",
    port: int = 8090,
    *,
    name: str,
    version: str,
    run: Run,
    run_with_hysteresis: RunWithHysteresis | None = None,
    sources: Iterable[str | Path] | None = None,
    record_requests: str | Path | None = None,
    token: str | None = None,
    body_bytes_max: int = 16 * 1024 * 1024,
    connections_max: int = 64,
) -> None:
    """Serves the engine on ``http://host:port/``, whatever the path. Returns on Ctrl-C. Port 0 takes a free one.

    Calls come one at a time, as they do to a worker: an engine need not be safe for threads. For more cores, serve it
    from several processes behind one address. ``token``, if given, is what every request has to carry as
    ``Authorization: Bearer ...``; without it, anybody who reaches the port can use the engine.

    The other arguments are those of ``serve``.
    """
    engine = Engine(name, version, run, run_with_hysteresis, sources, record_requests)
    serve_calls_http(host, port, engine, token, body_bytes_max, connections_max)


def serve_calls_http(
    host: str, port: int, calls: Calls, token: str | None, body_bytes_max: int, connections_max: int
) -> None:
    """Serves whatever answers requests. Says on stderr who listens where."""
    who = calls.hello["engine"]
    assert isinstance(who, dict)
    with _Server((host, port), calls, token, body_bytes_max, connections_max) as server:
        try:
            print(f"{who['name']} {who['version']} listens on http://{host}:{server.server_port}/", file=sys.stderr, flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("interrupted; stopping", file=sys.stderr)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], engine: Calls, token: str | None, body_bytes_max: int, connections_max: int
    ) -> None:
        self.engine = engine
        self.turn = threading.Lock()
        self.body_bytes_max = body_bytes_max
        self.authorization = None if token is None else f"Bearer {token}".encode()
        self._room = threading.BoundedSemaphore(connections_max)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Further connections wait in the listen queue until one of those that are served ends."""
        self._room.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is no failure of the engine: one line, no traceback."""
        print(f"a connection failed: {type(sys.exception()).__name__}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # Connections stay open for the next call.
    timeout = IDLE_SECONDS_MAX
    wbufsize = -1  # Head and body leave together,
    disable_nagle_algorithm = True  # and at once.

    def do_GET(self) -> None:
        """Says who the engine is, without calling it: for people and health checks."""
        if self._is_allowed():
            self._send(HTTPStatus.OK, encode_line(self.server.engine.hello))

    def do_POST(self) -> None:
        """One call."""
        if not self._is_allowed():
            return
        body = self._body()
        if body is None:
            return
        with self.server.turn:
            if self._client_is_gone():  # It gave up while it waited; the engine's time is for those who still wait.
                self.close_connection = True
                return
            answer = self.server.engine.answer(body.replace(b"\n", b" "), self.server.engine.hello)
        self._send(HTTPStatus.OK if answer.readable else HTTPStatus.BAD_REQUEST, answer.line)

    def _is_allowed(self) -> bool:
        expected = self.server.authorization
        given = (self.headers.get("Authorization") or "").encode()
        if expected is None or hmac.compare_digest(given, expected):
            return True
        self._refuse(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        return False

    def _body(self) -> bytes | None:
        """Returns the body, or None when the request was answered already."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
            return None
        size = int(length) if len(length) < 20 else sys.maxsize
        if self.server.body_bytes_max < size:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {self.server.body_bytes_max} bytes")
            return None
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            return None
        return body

    def _client_is_gone(self) -> bool:
        """A client that waits for its answer sends nothing, so what can be read now is the end of its connection."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """The body of the request was not read, so the connection cannot be used for another one."""
        self.close_connection = True
        refusal: JsonObject = {"error": why}
        self._send(status, encode_line(refusal))

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Nothing: a line a call would drown what the engine says."""
