"""An engine that does what its input says, to look at the worker kit from inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum

from orchestrator_engine import JsonObject, Snapshot, serve
from orchestrator_engine.http import serve_http


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Output:
    symbol: str
    colour: Colour
    pair: tuple[int, float]


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


def run(snapshot: Snapshot) -> object:
    match snapshot.inputs.get("do"):
        case "echo":
            return {"symbol": snapshot.symbol, "timestamp": snapshot.timestamp_ms, "inputs": snapshot.inputs}
        case "dataclass":
            return Output(snapshot.symbol, Colour.RED, (1, 1.0))
        case "types":
            price = snapshot.value("market", "price")
            return {"type": type(price).__name__, "value": repr(price), "number": snapshot.number("market", "price")}
        case "nan":
            return {"drivers": ["a", {"score": float("nan")}]}
        case "set":
            return {"drivers": {"a", "b"}}
        case "number":
            return 1
        case "raise":
            raise ValueError("a\nb\x1b[31m" + "long " * 200)
        case "raise_unreadable":
            raise Unreadable
        case "sys_exit":
            sys.exit(7)
        case "recursion":
            return run(snapshot)
        case "print":
            print("printed")
            sys.stdout.flush()
            os.write(1, b"written to descriptor 1\n")
            subprocess.run(["echo", "from a child"], check=True)
            return {}
        case "read_stdin":
            child = subprocess.run(["cat"], check=True, capture_output=True)
            return {"own": sys.stdin.read(), "child": child.stdout.decode()}
        case "sleep":
            begun = time.monotonic()
            time.sleep(0.05)
            return {"begun": begun, "ended": time.monotonic()}
        case "hang":
            time.sleep(1000)
            return {}
        case "half_surrogate":
            return {"text": "\ud800"}
        case _:
            return {}


def run_with_hysteresis(snapshot: Snapshot, state: JsonObject | None, config: JsonObject) -> tuple[object, object]:
    before = {} if state is None else state
    count = before.get("count", 0)
    assert isinstance(count, int)
    before["count"] = count + 1  # In place, as the Regime Engine does it.
    return {"selected_output": run(snapshot), "config": config}, before


with_hysteresis = None if "--truth-only" in sys.argv else run_with_hysteresis
if "--http" in sys.argv:
    serve_http(
        port=0,
        name="probe",
        version="1.0",
        run=run,
        run_with_hysteresis=with_hysteresis,
        token=os.environ.get("PROBE_TOKEN"),
        body_bytes_max=100_000,
        connections_max=2,
    )
else:
    print("printed before serve()")
    serve(name="probe", version="1.0", run=run, run_with_hysteresis=with_hysteresis)
