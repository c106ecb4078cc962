"""The smallest engine. Start: ``PYTHONPATH=engines python3 engines/examples/minimal.py``."""

from orchestrator_engine import JsonObject, Snapshot, serve


def run(snapshot: Snapshot) -> JsonObject:
    """Calls every market balanced."""
    return {
        "symbol": snapshot.symbol,
        "timestamp": snapshot.timestamp_ms,
        "regime": "CHOP_BALANCED",
        "confidence": 0.5,
        "drivers": [],
        "invalidations": [],
        "permissions": [],
    }


serve(name="minimal", version="1.0", run=run)
