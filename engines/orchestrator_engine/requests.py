"""From one input line to one checked request.

A request that cannot be read is answered like any other, so that one answer a line stays true and the sender never
waits for an answer that does not come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from .errors import EngineError, ErrorKind
from .snapshot import Snapshot
from .wire import JsonObject, decode_line


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Run the engine on this snapshot."""

    id: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class HysteresisRequest:
    """Run the engine on this snapshot, starting from this state. None is the state before the first call."""

    id: int
    snapshot: Snapshot
    state: JsonObject | None
    config: JsonObject


class BadRequest(EngineError):
    """The line is no request. ``request_id`` is None when not even that could be read."""

    def __init__(self, request_id: int | None, kind: ErrorKind, detail: str) -> None:
        super().__init__(f"bad request: {detail}")
        self.request_id = request_id
        self.kind = kind


def parse_request(line: bytes) -> RunRequest | HysteresisRequest:
    """Returns the request on ``line``. Raises BadRequest. Unknown members are ignored, so that v1 can grow."""
    try:
        message = decode_line(line)
    except ValueError as error:
        raise BadRequest(None, "engine_failure", f"not JSON ({error})") from None
    if not isinstance(message, dict):
        raise BadRequest(None, "engine_failure", "not an object")
    request_id = message.get("id")
    if not _is_int(request_id):
        raise BadRequest(None, "engine_failure", "id is not an integer")
    match message.get("op"):
        case "run":
            return RunRequest(request_id, _snapshot(request_id, message))
        case "run_with_hysteresis":
            snapshot = _snapshot(request_id, message)
            state = message.get("state", "absent")
            if state is not None and not isinstance(state, dict):
                raise BadRequest(request_id, "engine_failure", "state is neither an object nor null")
            config = message.get("config")
            if not isinstance(config, dict):
                raise BadRequest(request_id, "engine_failure", "config is not an object")
            return HysteresisRequest(request_id, snapshot, state, config)
        case _:
            raise BadRequest(request_id, "engine_failure", "op is neither run nor run_with_hysteresis")


def _snapshot(request_id: int, message: JsonObject) -> Snapshot:
    snapshot = message.get("snapshot")
    if not isinstance(snapshot, dict):
        raise BadRequest(request_id, "snapshot_build_failure", "snapshot is not an object")
    symbol, timestamp_ms, inputs = (snapshot.get(key) for key in ("symbol", "timestamp_ms", "inputs"))
    if not isinstance(symbol, str):
        raise BadRequest(request_id, "snapshot_build_failure", "snapshot.symbol is not a text")
    if not _is_int(timestamp_ms):
        raise BadRequest(request_id, "snapshot_build_failure", "snapshot.timestamp_ms is not an integer")
    if not isinstance(inputs, dict):
        raise BadRequest(request_id, "snapshot_build_failure", "snapshot.inputs is not an object")
    return Snapshot(symbol, timestamp_ms, inputs)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
