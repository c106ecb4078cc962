"""Serve the work of stages and the answers of hooks to the orchestrator's trading cycles.

    from orchestrator_engine.stages import StageRequest, serve_stages
    def signals(request: StageRequest): return {"decisions": [...]}
    serve_stages(name="my-signals", version="1.0", stages={"SIG": signals})

The carrier is that of engines: JSON Lines on stdin and stdout, or HTTP (``serve_stages_http``). What is asked and
answered stands in ``docs/trading_stages.md``.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .calls import PROTOCOL, RECORD_ENV, Answer, open_record
from .errors import EngineError, error_detail
from .source_hash import code_hash, sources_of
from .wire import JsonObject, JsonValue, decode_line, encode_line, to_json_object
from .worker import serve_lines

STAGE_MEMBERS = frozenset(("data", "decisions", "failures", "verdicts"))
HOOK_MEMBERS = frozenset(("decision", "patch", "reasons"))


@dataclass(frozen=True, slots=True)
class StageRequest:
    """One attempt of a stage. ``members`` is everything that came, also what is not named here."""

    stage: str
    strategy: str | None
    """The strategy that decisions are wanted for; None where the stage works for all of ``strategies`` at once."""
    strategies: list[str]
    attempt: int
    budget_ms: int
    """Time for the answer. One that comes later is thrown away, and the worker is ended."""
    idempotency_key: str
    """Names the question: the same key again is the same question."""
    decisions: list[JsonObject]
    members: JsonObject

    def data(self, stage: str) -> JsonValue:
        """Returns what an earlier stage answered as its data; None when it answered none, or was not done."""
        return self._output(stage).get("data")

    def verdicts(self, stage: str) -> list[JsonObject]:
        """Returns the verdicts of an earlier RISK stage."""
        return _objects(self._output(stage), "verdicts")

    def _output(self, stage: str) -> JsonObject:
        outputs = _objects(self.members, "outputs")
        return next((output for output in outputs if output.get("stage") == stage), {})


@dataclass(frozen=True, slots=True)
class HookRequest:
    """One question to a hook: may the cycle go on ``before`` or ``after`` (``action``) its stage (``component_id``)?"""

    hook: str
    component_id: str
    action: str
    budget_ms: int
    idempotency_key: str
    decisions: list[JsonObject]
    members: JsonObject


StageFunction: TypeAlias = Callable[[StageRequest], object]
"""Answers with a dict (or a dataclass) of any of ``data``, ``decisions``, ``verdicts`` and ``failures``."""

HookFunction: TypeAlias = Callable[[HookRequest], object]
"""Answers with :func:`allow`, :func:`deny` or :func:`modify`."""


def allow(*reasons: str) -> JsonObject:
    """The cycle may go on."""
    return _vote("allow", reasons)


def deny(*reasons: str) -> JsonObject:
    """The cycle may not go on, where the hook is HARD."""
    return _vote("deny", reasons)


def modify(patch: Iterable[JsonObject], *reasons: str) -> JsonObject:
    """The cycle may go on with fewer shares: each entry is a ``decisionId`` with ``drop: True`` or a ``quantity``.

    A patch may only narrow. One that widens is as good as a denial.
    """
    entries: list[JsonValue] = list(patch)
    return {**_vote("modify", reasons), "patch": entries}


class Stages:
    """Functions by the names of stages and hooks, and who they are."""

    def __init__(
        self,
        name: str,
        version: str,
        stages: Mapping[str, StageFunction] | None,
        hooks: Mapping[str, HookFunction] | None,
        sources: Iterable[str | Path] | None,
        record_requests: str | Path | None,
    ) -> None:
        self._stages, self._hooks = dict(stages or {}), dict(hooks or {})
        functions: list[Callable[..., object]] = [*self._stages.values(), *self._hooks.values()]
        if not functions:
            raise ValueError("neither stages nor hooks: there is nothing to serve")
        paths = sources_of(*functions) if sources is None else [Path(source) for source in sources]
        ops: list[JsonValue] = [op for op, names in (("stage", self._stages), ("hook", self._hooks)) if names]
        self.hello: JsonObject = {
            "engine": {"name": name, "version": version, "code_hash": code_hash(paths)},
            "ops": ops,
            "protocol": PROTOCOL,
        }
        self._record_fd = open_record(record_requests or os.environ.get(RECORD_ENV))

    def answer(self, line: bytes, extra: JsonObject | None = None) -> Answer:
        """Returns the one answer to ``line``. Nothing that a function raises gets out."""
        members = dict(extra or {})
        if self._record_fd is not None:
            os.write(self._record_fd, line + b"\n")
        try:
            message = decode_line(line)
            if not isinstance(message, dict):
                raise EngineError("bad request: not an object")
        except (EngineError, ValueError) as error:
            print(error_detail(error), file=sys.stderr)
            return Answer(encode_line({**members, "id": None, **_failure(error)}), readable=False)
        if "id" in message:  # Over HTTP there is none: a connection has one question at a time.
            members["id"] = message["id"]
        try:
            return Answer(encode_line({**members, "ok": True, **self._call(message)}))
        except EngineError as error:
            return Answer(encode_line({**members, **_failure(error)}))
        except (Exception, SystemExit) as error:  # A sys.exit() is a failed call, not a wish to stop.
            traceback.print_exc(file=sys.stderr)
            return Answer(encode_line({**members, **_failure(error)}))

    def _call(self, message: JsonObject) -> JsonObject:
        match message.get("op"):
            case "stage":
                stage = _stage_request(message)
                function = self._stages.get(stage.stage)
                if function is None:
                    raise EngineError(f"there is no stage {stage.stage} here")
                return _members(function(stage), stage.stage, STAGE_MEMBERS)
            case "hook":
                question = _hook_request(message)
                hook = self._hooks.get(question.hook)
                if hook is None:
                    raise EngineError(f"there is no hook {question.hook} here")
                vote = _members(hook(question), question.hook, HOOK_MEMBERS)
                if "decision" not in vote:
                    raise EngineError(f"hook {question.hook} has to return allow(), deny() or modify()")
                return vote
            case _:
                raise EngineError("bad request: op is neither stage nor hook")


def serve_stages(
    *,
    name: str,
    version: str,
    stages: Mapping[str, StageFunction] | None = None,
    hooks: Mapping[str, HookFunction] | None = None,
    sources: Iterable[str | Path] | None = None,
    record_requests: str | Path | None = None,
) -> None:
    """Serves stages and hooks, by their names, on stdin and stdout. Returns when the input ends.

    A function that raises fails its stage; its hook then has not answered. ``sources`` and ``record_requests`` are
    those of ``serve``.
    """
    serve_lines(Stages(name, version, stages, hooks, sources, record_requests))


def serve_stages_http(
    host: str = "127.0.0.1",
    port: int = 8091,
    *,
    name: str,
    version: str,
    stages: Mapping[str, StageFunction] | None = None,
    hooks: Mapping[str, HookFunction] | None = None,
    sources: Iterable[str | Path] | None = None,
    record_requests: str | Path | None = None,
    token: str | None = None,
    body_bytes_max: int = 16 * 1024 * 1024,
    connections_max: int = 64,
) -> None:
    """Serves stages and hooks on ``http://host:port/``, whatever the path. Returns on Ctrl-C.

    Questions come one at a time. The other arguments are those of ``serve_http``.
    """
    from .http import serve_calls_http  # The library's HTTP server takes 20 ms to import; a worker starts without it.

    calls = Stages(name, version, stages, hooks, sources, record_requests)
    serve_calls_http(host, port, calls, token, body_bytes_max, connections_max)


def _vote(decision: str, reasons: Iterable[str]) -> JsonObject:
    listed: list[JsonValue] = list(reasons)
    return {"decision": decision, "reasons": listed} if listed else {"decision": decision}


def _failure(error: BaseException) -> JsonObject:
    return {"ok": False, "error_detail": error_detail(error)}


def _members(answer: object, where: str, known: frozenset[str]) -> JsonObject:
    """Refuses what would be ignored: a misspelled ``decisions`` must not read as none."""
    members = to_json_object(answer, where)
    strange = sorted(set(members) - known)
    if strange:
        raise EngineError(f"{where} answered {', '.join(strange)}; it may answer {', '.join(sorted(known))}")
    return members


def _stage_request(message: JsonObject) -> StageRequest:
    strategy = message.get("strategy")
    if strategy is not None and not isinstance(strategy, str):
        raise EngineError("bad request: strategy is neither a text nor null")
    return StageRequest(
        stage=_text(message, "stage"),
        strategy=strategy,
        strategies=[name for name in _list(message, "strategies") if isinstance(name, str)],
        attempt=_integer(message, "attempt"),
        budget_ms=_integer(message, "budget_ms"),
        idempotency_key=_text(message, "idempotency_key"),
        decisions=_objects(message, "decisions"),
        members=message,
    )


def _hook_request(message: JsonObject) -> HookRequest:
    return HookRequest(
        hook=_text(message, "hook"),
        component_id=_text(message, "component_id"),
        action=_text(message, "action"),
        budget_ms=_integer(message, "budget_ms"),
        idempotency_key=_text(message, "idempotency_key"),
        decisions=_objects(message, "decisions"),
        members=message,
    )


def _text(message: JsonObject, key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise EngineError(f"bad request: {key} is not a text")
    return value


def _integer(message: JsonObject, key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise EngineError(f"bad request: {key} is not an integer")
    return value


def _list(message: JsonObject, key: str) -> list[JsonValue]:
    value = message.get(key)
    if not isinstance(value, list):
        raise EngineError(f"bad request: {key} is not an array")
    return value


def _objects(message: JsonObject, key: str) -> list[JsonObject]:
    return [item for item in _list(message, key) if isinstance(item, dict)] if key in message else []
