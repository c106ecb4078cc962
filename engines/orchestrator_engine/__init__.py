"""Serve a Python function to the orchestrator as an engine worker.

    from orchestrator_engine import serve
    def run(snapshot): ...
    serve(name="my-engine", version="1.0", run=run)

The worker speaks JSON Lines on stdin and stdout. ``orchestrator_engine.http.serve_http`` serves the same function
behind HTTP; it is not imported here because a worker has to start fast, and the library's HTTP server takes 20 ms.
``engines/README.md`` is the protocol's description.
"""

from .errors import EngineError, HysteresisMonotonicityViolation, SnapshotBuildFailure
from .snapshot import MISSING, Snapshot
from .wire import JsonObject, JsonValue
from .worker import serve

__all__ = [
    "MISSING",
    "EngineError",
    "HysteresisMonotonicityViolation",
    "JsonObject",
    "JsonValue",
    "Snapshot",
    "SnapshotBuildFailure",
    "serve",
]
