"""A store that is changed in place, and the refusal of a timestamp that is not newer.

No real rule: the count only goes up with every call, so that a state that survived a call where it should not, or got
lost where it should not, shows in the next answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from regime_engine.contracts.outputs import Regime, RegimeOutput


class HysteresisError(ValueError):
    pass


@dataclass(frozen=True)
class HysteresisConfig:
    min_persistence_updates: int = 3
    min_confidence_for_flip: float = 0.6


@dataclass(frozen=True)
class HysteresisState:
    stable_output: RegimeOutput | None = None
    candidate_regime: Regime | None = None
    candidate_count: int = 0
    last_timestamp: int | None = None


@dataclass
class HysteresisStore:
    states: dict[str, HysteresisState]


@dataclass(frozen=True)
class HysteresisTransition:
    stable_regime: Regime | None
    candidate_regime: Regime | None
    candidate_count: int
    transition_active: bool
    flipped: bool
    reset_due_to_gap: bool


@dataclass(frozen=True)
class HysteresisDecision:
    selected_output: RegimeOutput
    effective_confidence: float
    transition: HysteresisTransition


def advance(output: RegimeOutput, store: HysteresisStore, config: HysteresisConfig) -> HysteresisDecision:
    before = store.states.get(output.symbol, HysteresisState())
    if before.last_timestamp is not None and output.timestamp <= before.last_timestamp:
        raise HysteresisError("timestamp does not increase")
    if before.stable_output is not None and not isinstance(before.stable_output.regime, Regime):
        raise TypeError("the state's regime is not a Regime")
    after = HysteresisState(output, Regime.SQUEEZE_UP, before.candidate_count + 1, output.timestamp)
    store.states[output.symbol] = after
    transition = HysteresisTransition(output.regime, after.candidate_regime, after.candidate_count, True, False, False)
    return HysteresisDecision(output, config.min_confidence_for_flip, transition)
