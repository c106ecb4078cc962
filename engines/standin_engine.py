"""A stand-in for the Regime Engine: same outputs' shape, small readable rules, no other purpose.

It lets the orchestrator be run, tested and shown without the real engine, whose scoring it does not imitate. What it
guarantees: it answers every snapshot, however few fields it has; the same snapshot gives the same bytes; and a neutral
snapshot gives the output recorded in ``golden_truth.jsonl``.

The rules, first match wins. ``displacement`` is (price - vwap) / atr, ``pressure`` is aggressive_volume_ratio moved
from 0 .. 1 to -1 .. 1; a rule whose fields are null or missing does not match.

1. liquidation_intensity from 0.7 and a displacement: LIQUIDATION, on the displacement's side.
2. sweep_score from 0.7: CHOP_STOPHUNT.
3. displacement and pressure both clear, same side: SQUEEZE when open interest falls (positions close into the move),
   TREND_BUILD otherwise.
4. displacement and pressure both clear, opposite sides: TREND_EXHAUSTION.
5. CHOP_BALANCED with confidence 0.5. Its drivers are the gauges that are calm, its invalidations those that are not.

Start: ``python3 engines/standin_engine.py``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import standin_hysteresis as hysteresis
from orchestrator_engine import JsonObject, JsonValue, Snapshot, serve

INTENSITY_MIN = 0.7
"""From here on a liquidation or a sweep decides alone. Both scores go from 0 to 1."""

DISPLACEMENT_MIN = 0.25
"""In units of atr."""

PRESSURE_MIN = 0.1

GAUGES = (
    ("market", "atr_z", "Market ATR z-score", 1.0),
    ("market", "range_expansion", "Market range expansion", 1.0),
    ("flow", "cvd_efficiency", "Flow CVD efficiency", 0.5),
    ("derivatives", "oi_slope_short", "Derivatives OI slope short", 0.5),
    ("derivatives", "funding_rate", "Derivatives funding level", 0.0005),
)
"""Group, field, the name it has among the drivers, and the size up to which it counts as calm."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A regime, how clear it is (0 to 1), and what speaks for and against it."""

    regime: str
    strength: float
    drivers: list[str]
    invalidations: list[str]


def run(snapshot: Snapshot) -> JsonObject:
    """Returns the RegimeOutput for ``snapshot``."""
    verdict = classify(snapshot)
    drivers: list[JsonValue] = [*verdict.drivers]
    invalidations: list[JsonValue] = [*verdict.invalidations]
    return {
        "symbol": snapshot.symbol,
        "timestamp": snapshot.timestamp_ms,
        "regime": verdict.regime,
        "confidence": round(0.5 + 0.5 * verdict.strength, 6),
        "drivers": drivers,
        "invalidations": invalidations,
        "permissions": [verdict.regime],
    }


def run_with_hysteresis(
    snapshot: Snapshot, state: JsonObject | None, config: JsonObject
) -> tuple[JsonObject, hysteresis.HysteresisState]:
    """Returns the hysteresis decision on ``run(snapshot)``, and the next state."""
    before = hysteresis.HysteresisState.from_json(state)
    return hysteresis.step(run(snapshot), before, hysteresis.HysteresisConfig.from_json(config))


def classify(snapshot: Snapshot) -> Verdict:
    """Applies the rules in this file's description, in their order."""
    displacement, pressure = _displacement(snapshot), _pressure(snapshot)
    side = None if not displacement else "UP" if 0 < displacement else "DOWN"

    liquidation = snapshot.number("derivatives", "liquidation_intensity")
    if liquidation is not None and INTENSITY_MIN <= liquidation and side is not None:
        return Verdict(f"LIQUIDATION_{side}", min(1.0, liquidation), ["Derivatives liquidation intensity"], [])

    sweep = snapshot.number("market", "sweep_score")
    if sweep is not None and INTENSITY_MIN <= sweep:
        return Verdict("CHOP_STOPHUNT", min(1.0, sweep), ["Market sweep score"], [])

    if displacement is None or pressure is None:
        return _balanced(snapshot)
    if abs(displacement) < DISPLACEMENT_MIN or abs(pressure) < PRESSURE_MIN:
        return _balanced(snapshot)

    strength = (min(1.0, abs(displacement)) + min(1.0, abs(pressure))) / 2
    drivers = ["Market distance from VWAP", "Flow aggressive volume ratio"]
    if (0 < displacement) != (0 < pressure):
        return Verdict("TREND_EXHAUSTION", strength, drivers, [])
    oi_slope = snapshot.number("derivatives", "oi_slope_short")
    if oi_slope is not None and oi_slope < 0:
        return Verdict(f"SQUEEZE_{side}", strength, [*drivers, "Derivatives OI slope short"], [])
    return Verdict(f"TREND_BUILD_{side}", strength, drivers, [])


def _balanced(snapshot: Snapshot) -> Verdict:
    calm: list[str] = []
    loud: list[str] = []
    for group, field, name, calm_max in GAUGES:
        value = snapshot.number(group, field)
        if value is not None:
            (calm if abs(value) <= calm_max else loud).append(name)
    return Verdict("CHOP_BALANCED", 0.0, calm, loud)


def _displacement(snapshot: Snapshot) -> float | None:
    price, vwap, atr = (snapshot.number("market", field) for field in ("price", "vwap", "atr"))
    if price is None or vwap is None or atr is None or atr <= 0:
        return None
    return (price - vwap) / atr


def _pressure(snapshot: Snapshot) -> float | None:
    ratio = snapshot.number("flow", "aggressive_volume_ratio")
    return None if ratio is None else 2 * ratio - 1


if __name__ == "__main__":
    serve(
        name="standin-engine",
        version="1.0",
        run=run,
        run_with_hysteresis=run_with_hysteresis,
        sources=[Path(__file__), Path(hysteresis.__file__)],
    )
