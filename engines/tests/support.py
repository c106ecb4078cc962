"""Runs a worker as the orchestrator does: a real process, requests in, answers out."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import unittest
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ENGINES = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ENGINES))
FAKES = ENGINES / "tests" / "fakes"
DEADLINE_SECONDS = 10.0

CONFIG = {
    "min_persistence_updates": 3,
    "min_confidence_for_flip": 0.6,
    "decay_factor": 0.85,
    "min_confidence_floor": 0.2,
    "update_interval_ms": 180000,
}


def shared_file(name: str) -> Path:
    """Returns a file of the recordings, or skips the test: they are not part of the repository."""
    folder = Path(os.environ.get("ORCHESTRATOR_SHARED") or ENGINES.parents[1] / "shared")
    file = folder / "data" / name
    if not file.is_file():
        reason = f"{file.name} is not there; set ORCHESTRATOR_SHARED to the folder whose data/ holds it"
        print(f"skipped: {reason}", file=sys.stderr)
        raise unittest.SkipTest(reason)
    return file


def run_request(request_id: int, inputs: Mapping[str, Any], symbol: str = "BTCUSDT", timestamp_ms: int = 1) -> Any:
    snapshot = {"symbol": symbol, "timestamp_ms": timestamp_ms, "inputs": inputs}
    return {"id": request_id, "op": "run", "snapshot": snapshot}


def hysteresis_request(
    request_id: int,
    inputs: Mapping[str, Any],
    state: Any,
    config: Any = CONFIG,
    symbol: str = "BTCUSDT",
    timestamp_ms: int = 1,
) -> Any:
    request = run_request(request_id, inputs, symbol, timestamp_ms)
    return {**request, "op": "run_with_hysteresis", "state": state, "config": config}


@dataclass(frozen=True)
class Conversation:
    """Everything a worker said until it ended."""

    hello: bytes
    answers: list[bytes]
    stderr: str
    exit_code: int

    def decoded(self) -> list[Any]:
        return [json.loads(answer) for answer in self.answers]


def converse(
    program: Path, requests: Iterable[Any], *arguments: str, env: Mapping[str, str] | None = None
) -> Conversation:
    """Sends all requests, closes the pipe and waits. A request of bytes is sent as it is."""
    lines = [request if isinstance(request, bytes) else json.dumps(request).encode() for request in requests]
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        env=environment(env),
        check=False,
    )
    hello, *answers = done.stdout.split(b"\n")[:-1] or [b""]
    return Conversation(hello, answers, done.stderr.decode(errors="replace"), done.returncode)


class Worker:
    """A worker that is spoken to line by line. Killed at the end of its ``with`` block."""

    def __init__(self, program: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(env),
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self._reader.join(DEADLINE_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(DEADLINE_SECONDS)

    def send(self, request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self, timeout: float = DEADLINE_SECONDS) -> bytes | None:
        """Returns the next line, or None when none comes in time. An empty one means that the worker has ended."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ENGINES), **(extra or {})}
