"""The worker: says who it is, then answers one request after the other until its input ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from .calls import Calls, Engine, Run, RunWithHysteresis
from .channel import Channel
from .wire import encode_line


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

    Without ``run_with_hysteresis`` the hello says so, and an orchestrator that wants it refuses to start.

    ``record_requests`` (or the environment variable ORCHESTRATOR_ENGINE_RECORD) names a file to which every request is
    appended before the engine sees it, so that the request that killed a worker is there to be replayed by hand.
    """
    serve_lines(Engine(name, version, run, run_with_hysteresis, sources, record_requests))


def serve_lines(calls: Calls) -> None:
    """Says who answers, then answers line by line until the input ends."""
    _leave_interrupts_to_the_parent()
    channel = Channel.claim()
    try:
        channel.write(encode_line(calls.hello))
        for line in channel.lines():
            channel.write(calls.answer(line).line)
    except BrokenPipeError:
        print("the orchestrator has closed the pipe; stopping", file=sys.stderr)


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches every process of the terminal, but the orchestrator drains first and then closes our input.

    A person who runs the worker by hand keeps Ctrl-C.
    """
    if not os.isatty(0):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
