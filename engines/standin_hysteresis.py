"""The hysteresis rule of CONTRACTS section 3, as a pure function: RegimeOutput and state in, decision and state out.

A regime is not left at the first sign of another. The steps of ``golden_hysteresis.jsonl`` that show each part of the
rule:

======  ==========================================================================================================
step    what it shows
======  ==========================================================================================================
0       without a state the first output is adopted, whatever its confidence
1, 6    an output of the stable regime replaces the stable output, and its confidence with it
2, 3    another regime becomes the candidate and is counted; the stable output is held, and its own confidence (not
        the candidate's, nor the last effective one) decays by ``decay_factor ** candidate_count``
4       a count of ``min_persistence_updates`` does not flip while the confidence is below ``min_confidence_for_flip``
5, 22   a confidence equal to the minimum flips, at a count above the minimum as well
8       a third regime starts the count again at 1
9       an output of the stable regime ends the candidacy
11      decay is confidence times a power: 0.8 * 0.85 ** 2 is 0.578, while 0.8 * 0.85 * 0.85 is 0.5780000000000001.
        Nothing is rounded (3: 0.5057499999999999)
12      a flip at exactly ``min_persistence_updates``; neither candidate nor decay is left behind
13      more than ``update_interval_ms`` since the last update forgets the state: the output is adopted, and that is
        ``reset_due_to_gap``, not ``flipped``, although the regime changed. Exactly the interval is no gap (1)
15, 16  the same or an older timestamp is refused and changes nothing: 17 continues from 14 and sees no gap
20, 21  the decayed confidence stops at ``min_confidence_floor`` while the count goes on
======  ==========================================================================================================

What the steps leave open, and how it is read here: a gap is checked before the regime is compared; the floor holds
even where the stable confidence is below it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from orchestrator_engine import EngineError, HysteresisMonotonicityViolation, JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class HysteresisConfig:
    """The five settings, with the Regime Engine's defaults."""

    min_persistence_updates: int = 3
    min_confidence_for_flip: float = 0.6
    decay_factor: float = 0.85
    min_confidence_floor: float = 0.2
    update_interval_ms: int = 180_000

    @classmethod
    def from_json(cls, config: JsonObject) -> HysteresisConfig:
        """Reads the request's config. A setting it does not have keeps its default; an unknown one is refused."""
        unknown = sorted(set(config) - {field.name for field in fields(cls)})
        if unknown:
            raise EngineError(f"config has unknown settings: {', '.join(unknown)}")
        default = cls()
        return cls(
            min_persistence_updates=_int(config, "min_persistence_updates", default.min_persistence_updates),
            min_confidence_for_flip=_float(config, "min_confidence_for_flip", default.min_confidence_for_flip),
            decay_factor=_float(config, "decay_factor", default.decay_factor),
            min_confidence_floor=_float(config, "min_confidence_floor", default.min_confidence_floor),
            update_interval_ms=_int(config, "update_interval_ms", default.update_interval_ms),
        )


@dataclass(frozen=True, slots=True)
class HysteresisState:
    """What one symbol's hysteresis remembers. The default is the state before the first step."""

    stable_output: JsonObject | None = None
    candidate_regime: str | None = None
    candidate_count: int = 0
    last_timestamp: int | None = None

    @classmethod
    def from_json(cls, state: JsonObject | None) -> HysteresisState:
        """Reads the state a former step returned. Raises EngineError when it is not one."""
        if state is None:
            return cls()
        stable_output = state.get("stable_output")
        candidate_regime = state.get("candidate_regime")
        if stable_output is not None and not isinstance(stable_output, dict):
            raise EngineError("state.stable_output is neither an object nor null")
        if candidate_regime is not None and not isinstance(candidate_regime, str):
            raise EngineError("state.candidate_regime is neither a text nor null")
        last_timestamp = None if state.get("last_timestamp") is None else _int(state, "last_timestamp")
        return cls(stable_output, candidate_regime, _int(state, "candidate_count"), last_timestamp)


def step(output: JsonObject, state: HysteresisState, config: HysteresisConfig) -> tuple[JsonObject, HysteresisState]:
    """Returns the decision for ``output`` and the state after it. The state passed in is not changed.

    Raises HysteresisMonotonicityViolation when ``output`` is not newer than the state.
    """
    timestamp, regime, confidence = _int(output, "timestamp"), output.get("regime"), _float(output, "confidence")
    if not isinstance(regime, str):
        raise EngineError("regime_output.regime is not a text")

    last = state.last_timestamp
    if last is not None and timestamp <= last:
        raise HysteresisMonotonicityViolation("Non-increasing timestamp for hysteresis input.")

    gap = last is not None and config.update_interval_ms < timestamp - last
    stable = state.stable_output
    if stable is None or gap or stable.get("regime") == regime:
        return _adopt(output, timestamp, flipped=False, reset_due_to_gap=gap)

    count = state.candidate_count + 1 if state.candidate_regime == regime else 1
    if config.min_persistence_updates <= count and config.min_confidence_for_flip <= confidence:
        return _adopt(output, timestamp, flipped=True, reset_due_to_gap=False)

    after = HysteresisState(stable, regime, count, timestamp)
    decayed = _float(stable, "confidence") * config.decay_factor**count
    return _decision(after, max(decayed, config.min_confidence_floor), flipped=False, reset_due_to_gap=False), after


def _adopt(
    output: JsonObject, timestamp: int, *, flipped: bool, reset_due_to_gap: bool
) -> tuple[JsonObject, HysteresisState]:
    after = HysteresisState(stable_output=output, last_timestamp=timestamp)
    decision = _decision(after, output.get("confidence"), flipped=flipped, reset_due_to_gap=reset_due_to_gap)
    return decision, after


def _decision(
    after: HysteresisState, effective_confidence: JsonValue, *, flipped: bool, reset_due_to_gap: bool
) -> JsonObject:
    stable = after.stable_output
    return {
        "selected_output": stable,
        "effective_confidence": effective_confidence,
        "transition": {
            "stable_regime": None if stable is None else stable.get("regime"),
            "candidate_regime": after.candidate_regime,
            "candidate_count": after.candidate_count,
            "transition_active": after.candidate_regime is not None,
            "flipped": flipped,
            "reset_due_to_gap": reset_due_to_gap,
        },
    }


def _int(members: JsonObject, key: str, default: int | None = None) -> int:
    value = members.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise EngineError(f"{key} is not an integer")
    return value


def _float(members: JsonObject, key: str, default: float | None = None) -> float:
    value = members.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EngineError(f"{key} is not a number")
    return value
