"""The engine's output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Regime(Enum):
    CHOP_BALANCED = "CHOP_BALANCED"
    SQUEEZE_UP = "SQUEEZE_UP"


@dataclass(frozen=True)
class RegimeOutput:
    symbol: str
    timestamp: int
    regime: Regime
    confidence: float
    drivers: list[str]
    invalidations: list[str]
    permissions: list[str]
