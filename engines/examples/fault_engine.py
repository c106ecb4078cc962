"""An engine that misbehaves on demand, for tests of whoever calls engines.

Start: ``python3 engines/examples/fault_engine.py --hang-symbol BTCUSDT``, or with the same words in the environment
variable ORCHESTRATOR_FAULTS. A ``--…-symbol`` option can be given more than once, and ``*`` means every symbol; a
symbol without a fault gets the stand-in engine's answer, so that one can see the others go on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import standin_engine
from orchestrator_engine import EngineError, JsonObject, Snapshot, SnapshotBuildFailure, serve

FAULTS_ENV = "ORCHESTRATOR_FAULTS"

MEMORY_STEP_BYTES = 16 * 1024 * 1024

SYMBOL_FAULTS = {
    "fail": "answer with an engine_failure",
    "snapshot-fail": "answer with a snapshot_build_failure",
    "nan": "answer with a confidence that is NaN",
    "hang": "never answer",
    "exit": "end the process in the middle of the call, with code 3",
    "garbage": "write a line that is not JSON to the protocol's pipe, then answer",
    "torn": "write half an answer without a line end, then end the process",
    "wrong-id": "answer for a request that was never made, then answer",
    "memory": "take memory until something stops it, at most --memory-mb-max, then hang",
    "memory-abort": "take memory until it is refused, then end as native code does, with SIGABRT",
    "huge": "answer with --huge-bytes of driver text",
    "noise": "print() to stdout and write to file descriptor 1 in the middle of the call, then answer",
}


class FaultEngine:
    """Answers as its options say. ``pipe`` is the protocol's real pipe, which no honest engine can reach."""

    def __init__(self, options: argparse.Namespace, pipe: int) -> None:
        self._options = options
        self._pipe = pipe
        self._calls = 0

    def run(self, snapshot: Snapshot) -> JsonObject:
        """Returns the stand-in's RegimeOutput, after the faults asked for."""
        output = standin_engine.run(snapshot)
        self._disturb(snapshot, output)
        return output

    def run_with_hysteresis(
        self, snapshot: Snapshot, state: JsonObject | None, config: JsonObject
    ) -> tuple[JsonObject, object]:
        """Returns the stand-in's decision and state, after the faults asked for."""
        decision, after = standin_engine.run_with_hysteresis(snapshot, state, config)
        self._disturb(snapshot, decision)
        return decision, after

    def _disturb(self, snapshot: Snapshot, answer: JsonObject) -> None:
        call = self._count_call()
        time.sleep(self._options.sleep_ms / 1000)
        if call <= self._options.exit_first:
            os._exit(3)
        if call <= self._options.fail_first:
            raise EngineError(f"call {call} of the first {self._options.fail_first} fails as asked")
        if self._has("noise", snapshot):
            print("noise from print()")
            os.write(1, b"noise on file descriptor 1\n")
        if self._has("garbage", snapshot):
            os.write(self._pipe, b"\x00\xff this is not JSON\n")
        if self._has("wrong-id", snapshot):
            os.write(self._pipe, b'{"id":999999999,"ok":true,"regime_output":{}}\n')
        if self._has("fail", snapshot):
            raise EngineError(f"{snapshot.symbol} fails as asked")
        if self._has("snapshot-fail", snapshot):
            raise SnapshotBuildFailure(f"{snapshot.symbol} has no snapshot, as asked")
        if self._has("torn", snapshot):
            os.write(self._pipe, b'{"id":')
            os._exit(3)
        if self._has("exit", snapshot):
            os._exit(3)
        if self._has("memory", snapshot):
            self._take_memory()
        if self._has("memory-abort", snapshot):
            self._take_memory_and_abort()
        if self._has("hang", snapshot):
            hang()
        if self._has("nan", snapshot):
            answer["confidence"] = float("nan")
        if self._has("huge", snapshot):
            answer["drivers"] = ["x" * self._options.huge_bytes]

    def _has(self, fault: str, snapshot: Snapshot) -> bool:
        symbols: list[str] = getattr(self._options, f"{fault.replace('-', '_')}_symbol")
        return snapshot.symbol in symbols or "*" in symbols

    def _count_call(self) -> int:
        """Counts in the file, if one is given: then the count goes on in the worker that replaces a killed one."""
        self._calls += 1
        if self._options.counter_file is None:
            return self._calls
        fd = os.open(self._options.counter_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, b".")
        calls = os.fstat(fd).st_size
        os.close(fd)
        return calls

    def _take_memory(self) -> NoReturn:
        taken: list[bytes] = []
        while len(taken) * MEMORY_STEP_BYTES < self._options.memory_mb_max * 1024 * 1024:
            taken.append(os.urandom(4096) * (MEMORY_STEP_BYTES // 4096))  # Written to, so that it is really used.
        hang()

    def _take_memory_and_abort(self) -> NoReturn:
        try:
            self._take_memory()
        except MemoryError:
            os.abort()


def hang() -> NoReturn:
    """Waits for the signal that ends the process."""
    while True:
        time.sleep(3600)


def parse_options(words: list[str]) -> argparse.Namespace:
    """Reads the options. Unknown ones end the process with 2: a test must not pass because of a typing error."""
    parser = argparse.ArgumentParser(description="An engine that misbehaves on demand.")
    for fault, effect in SYMBOL_FAULTS.items():
        parser.add_argument(f"--{fault}-symbol", action="append", default=[], metavar="SYMBOL", help=effect)
    parser.add_argument("--sleep-ms", type=int, default=0, help="wait this long in every call")
    parser.add_argument("--fail-first", type=int, default=0, metavar="K", help="the first K calls fail, then none")
    parser.add_argument("--exit-first", type=int, default=0, metavar="K", help="the first K calls end the process")
    parser.add_argument("--counter-file", help="count calls here, across restarts of the worker")
    parser.add_argument("--huge-bytes", type=int, default=8 * 1024 * 1024)
    parser.add_argument("--memory-mb-max", type=int, default=1024)
    start_help = "instead of introducing itself: hang, exit with 3, or write garbage first"
    parser.add_argument("--start", choices=["normal", "hang", "exit", "garbage"], default="normal", help=start_help)
    return parser.parse_args(words)


def main() -> None:
    """Serves the engine its options describe."""
    options = parse_options(shlex.split(os.environ.get(FAULTS_ENV, "")) + sys.argv[1:])
    pipe = os.dup(1)
    if options.start == "hang":
        hang()
    if options.start == "exit":
        sys.exit(3)
    if options.start == "garbage":
        os.write(pipe, b"Welcome to the engine!\n")
    engine = FaultEngine(options, pipe)
    serve(
        name="fault-engine",
        version="1.0",
        run=engine.run,
        run_with_hysteresis=engine.run_with_hysteresis,
        sources=[Path(__file__), Path(standin_engine.__file__)],
    )


if __name__ == "__main__":
    main()
