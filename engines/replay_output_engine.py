"""An engine whose truth is recorded: it answers with the RegimeOutput that lies in the snapshot.

``golden_hysteresis.jsonl`` records RegimeOutputs, not the snapshots they came from. A SnapshotInputs event whose
``normalized`` object has the extra member ``recorded_output`` carries such an output through the whole system, so the
recording checks the hysteresis step over the real protocol. It is a file of its own because an engine that is meant to
judge must have no way to be told the answer.

Start: ``python3 engines/replay_output_engine.py``
"""

from __future__ import annotations

from pathlib import Path

import standin_hysteresis as hysteresis
from orchestrator_engine import JsonObject, Snapshot, SnapshotBuildFailure, serve

RECORDED_OUTPUT = "recorded_output"


def run(snapshot: Snapshot) -> JsonObject:
    """Returns the recorded output. Raises SnapshotBuildFailure when there is none, or one of another run."""
    output = snapshot.inputs.get(RECORDED_OUTPUT)
    if not isinstance(output, dict):
        raise SnapshotBuildFailure(f"inputs.{RECORDED_OUTPUT} is not an object")
    if output.get("symbol") != snapshot.symbol or output.get("timestamp") != snapshot.timestamp_ms:
        raise SnapshotBuildFailure(f"inputs.{RECORDED_OUTPUT} is of another symbol or timestamp than the snapshot")
    return output


def run_with_hysteresis(
    snapshot: Snapshot, state: JsonObject | None, config: JsonObject
) -> tuple[JsonObject, hysteresis.HysteresisState]:
    """Returns the hysteresis decision on the recorded output, and the next state."""
    before = hysteresis.HysteresisState.from_json(state)
    return hysteresis.step(run(snapshot), before, hysteresis.HysteresisConfig.from_json(config))


if __name__ == "__main__":
    serve(
        name="replay-output-engine",
        version="1.0",
        run=run,
        run_with_hysteresis=run_with_hysteresis,
        sources=[Path(__file__), Path(hysteresis.__file__)],
    )
