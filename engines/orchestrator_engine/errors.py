"""The failures a worker can report, and how any exception becomes one of them.

The orchestrator decides by ``error_kind`` alone what to do next, so the set is closed. ``error_detail`` is for
people: it is published, so it stays one short line and carries no traceback.
"""

from __future__ import annotations

from typing import Literal

ErrorKind = Literal["engine_failure", "snapshot_build_failure", "hysteresis_monotonicity_violation"]

ERROR_DETAIL_CHARS_MAX = 500


class EngineError(Exception):
    """The engine could not answer. Raise it, or any other exception: both become ``engine_failure``."""

    kind: ErrorKind = "engine_failure"


class SnapshotBuildFailure(EngineError):
    """The inputs cannot be turned into the engine's snapshot. Trying again cannot help."""

    kind: ErrorKind = "snapshot_build_failure"


class HysteresisMonotonicityViolation(EngineError):
    """The snapshot is not newer than the state it came with."""

    kind: ErrorKind = "hysteresis_monotonicity_violation"


def error_kind(error: BaseException) -> ErrorKind:
    """Returns the published category of ``error``."""
    return error.kind if isinstance(error, EngineError) else "engine_failure"


def error_detail(error: BaseException) -> str:
    """Returns ``error`` as one printable line of at most 500 characters.

    Our own errors are sentences already; any other gets its class in front, because ``KeyError('x')`` says only
    ``'x'``. A broken ``__str__`` must not turn a reported failure into a dead worker.
    """
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be read)"
    text = message if isinstance(error, EngineError) else f"{type(error).__name__}: {message}"
    printable = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(printable.split())
    return line if len(line) <= ERROR_DETAIL_CHARS_MAX else line[: ERROR_DETAIL_CHARS_MAX - 1] + "…"
