"""The engine itself, whatever carries its calls: who it is, and one answer to one request.

It keeps nothing between two calls. The state comes with the request and goes back with the answer, so an engine that
was killed is replaced by starting another, and every attempt starts from the same state.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

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
class Answer:
    """One line. ``readable`` is False when not even the id of the request could be read."""

    line: bytes
    readable: bool = True


class Calls(Protocol):
    """Whatever answers requests: an engine, or stages and hooks."""

    hello: JsonObject

    def answer(self, line: bytes, extra: JsonObject | None = None) -> Answer:
        """Returns the one answer to ``line``, with the members of ``extra`` in it."""


class Engine:
    """Two functions and who they are."""

    def __init__(
        self,
        name: str,
        version: str,
        run: Run,
        run_with_hysteresis: RunWithHysteresis | None,
        sources: Iterable[str | Path] | None,
        record_requests: str | Path | None,
    ) -> None:
        functions = [run] if run_with_hysteresis is None else [run, run_with_hysteresis]
        paths = sources_of(*functions) if sources is None else [Path(source) for source in sources]
        self.hello: JsonObject = {
            "engine": {"name": name, "version": version, "code_hash": code_hash(paths)},
            "ops": ["run"] if run_with_hysteresis is None else ["run", "run_with_hysteresis"],
            "protocol": PROTOCOL,
        }
        self._run = run
        self._run_with_hysteresis = run_with_hysteresis
        self._record_fd = open_record(record_requests or os.environ.get(RECORD_ENV))

    def answer(self, line: bytes, extra: JsonObject | None = None) -> Answer:
        """Returns the one answer to ``line``, with the members of ``extra`` in it. Nothing an engine raises gets out."""
        extra = extra or {}
        if self._record_fd is not None:
            os.write(self._record_fd, line + b"\n")
        request_id: int | None = None
        try:
            request = parse_request(line)
            request_id = request.id
            return Answer(encode_line({**extra, **self._call(request)}))
        except BadRequest as error:
            print(error_detail(error), file=sys.stderr)
            return Answer(_failure(error.request_id, error, extra), readable=error.request_id is not None)
        except EngineError as error:
            return Answer(_failure(request_id, error, extra))
        except (Exception, SystemExit) as error:  # An engine's sys.exit() is a failed call, not a wish to stop.
            traceback.print_exc(file=sys.stderr)
            return Answer(_failure(request_id, error, extra))

    def _call(self, request: RunRequest | HysteresisRequest) -> JsonObject:
        match request:
            case RunRequest():
                output = to_json_object(self._run(request.snapshot), "regime_output")
                return {"id": request.id, "ok": True, "regime_output": output}
            case HysteresisRequest():
                if self._run_with_hysteresis is None:
                    raise EngineError("this engine has no run_with_hysteresis")
                answer = self._run_with_hysteresis(request.snapshot, request.state, request.config)
                if not isinstance(answer, tuple) or len(answer) != 2:
                    raise EngineError("run_with_hysteresis has to return the decision and the next state")
                decision = to_json_object(answer[0], "hysteresis_decision")
                state = to_json_object(answer[1], "state")
                return {"id": request.id, "ok": True, "hysteresis_decision": decision, "state": state}


def _failure(request_id: int | None, error: BaseException, extra: JsonObject) -> bytes:
    kind, detail = error_kind(error), error_detail(error)
    return encode_line({**extra, "id": request_id, "ok": False, "error_kind": kind, "error_detail": detail})


def open_record(path: str | Path | None) -> int | None:
    """Readable by its owner only: requests hold the market data of whoever runs this."""
    return None if not path else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
