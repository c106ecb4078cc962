"""The worker: says who it is, then answers one request after the other until its input ends.

It keeps nothing between two calls. The state comes with the request and goes back with the answer, so a worker that
was killed is replaced by starting another, and every attempt starts from the same state.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .channel import Channel
from .errors import EngineError, error_detail, error_kind
from .requests import BadRequest, HysteresisRequest, RunRequest, parse_request
from .snapshot import Snapshot
from .source_hash import code_hash, sources_of
from .wire import JsonObject, encode_line, to_json_object

PROTOCOL = 1

RECORD_ENV = "ORCHESTRATOR_ENGINE_RECORD"

Run: TypeAlias = Callable[[Snapshot], object]
"""Answers with a RegimeOutput: a dict or a dataclass."""

RunWithHysteresis: TypeAlias = Callable[[Snapshot, JsonObject | None, JsonObject], tuple[object, object]]
"""Answers with the decision and the next state. It may change the state it is given: it is a copy of its own."""


@dataclass(frozen=True, slots=True)
class _Engine:
    run: Run
    run_with_hysteresis: RunWithHysteresis | None


def serve(
    *,
    name: str,
    version: str,
    run: Run,
    run_with_hysteresis: RunWithHysteresis | None = None,
    sources: Iterable[str | Path] | None = None,
    record_requests: str | Path | None = None,
) -> None:
    """Serves the engine on stdin and stdout. Returns when the input ends, so that the process exits with 0.

    ``sources`` are the files and folders the code hash covers; by default the files that define the two functions.
    Name them when the engine's answers depend on more files than those.

    ``record_requests`` (or the environment variable ORCHESTRATOR_ENGINE_RECORD) names a file to which every request is
    appended before the engine sees it, so that the request that killed a worker is there to be replayed by hand.
    """
    functions = [run] if run_with_hysteresis is None else [run, run_with_hysteresis]
    paths = sources_of(*functions) if sources is None else [Path(source) for source in sources]
    identity: JsonObject = {"name": name, "version": version, "code_hash": code_hash(paths)}
    record_fd = _open_record(record_requests or os.environ.get(RECORD_ENV))
    _leave_interrupts_to_the_parent()
    channel = Channel.claim()
    engine = _Engine(run, run_with_hysteresis)
    try:
        channel.write(encode_line({"engine": identity, "protocol": PROTOCOL}))
        for line in channel.lines():
            if record_fd is not None:
                os.write(record_fd, line + b"\n")
            channel.write(_answer(engine, line))
    except BrokenPipeError:
        print("the orchestrator has closed the pipe; stopping", file=sys.stderr)


def _answer(engine: _Engine, line: bytes) -> bytes:
    """Returns the one answer to ``line``. Nothing an engine raises ends the worker."""
    request_id: int | None = None
    try:
        request = parse_request(line)
        request_id = request.id
        return encode_line(_call(engine, request))
    except BadRequest as error:
        print(error_detail(error), file=sys.stderr)
        return _failure(error.request_id, error)
    except EngineError as error:
        return _failure(request_id, error)
    except (Exception, SystemExit) as error:  # An engine's sys.exit() is a failed call, not a wish to stop.
        traceback.print_exc(file=sys.stderr)
        return _failure(request_id, error)


def _call(engine: _Engine, request: RunRequest | HysteresisRequest) -> JsonObject:
    match request:
        case RunRequest():
            output = to_json_object(engine.run(request.snapshot), "regime_output")
            return {"id": request.id, "ok": True, "regime_output": output}
        case HysteresisRequest():
            if engine.run_with_hysteresis is None:
                raise EngineError("this engine has no run_with_hysteresis")
            answer = engine.run_with_hysteresis(request.snapshot, request.state, request.config)
            if not isinstance(answer, tuple) or len(answer) != 2:
                raise EngineError("run_with_hysteresis has to return the decision and the next state")
            decision = to_json_object(answer[0], "hysteresis_decision")
            state = to_json_object(answer[1], "state")
            return {"id": request.id, "ok": True, "hysteresis_decision": decision, "state": state}


def _failure(request_id: int | None, error: BaseException) -> bytes:
    kind, detail = error_kind(error), error_detail(error)
    return encode_line({"id": request_id, "ok": False, "error_kind": kind, "error_detail": detail})


def _open_record(path: str | Path | None) -> int | None:
    """Readable by its owner only: requests hold the market data of whoever runs this."""
    return None if not path else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches every process of the terminal, but the orchestrator drains first and then closes our input.

    A person who runs the worker by hand keeps Ctrl-C.
    """
    if not os.isatty(0):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
