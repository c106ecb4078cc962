"""The engine's input: frozen, with a marker for what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class _Marker:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Marker()


@dataclass(frozen=True)
class MarketSnapshot:
    price: float
    vwap: float
    atr: float
    structure_levels: dict[str, Any]


@dataclass(frozen=True)
class DerivativesSnapshot:
    open_interest: float
    liquidation_intensity: float | None


@dataclass(frozen=True)
class FlowSnapshot:
    cvd: float


@dataclass(frozen=True)
class ContextSnapshot:
    btc_regime: str | None
    eth_regime: str | None


@dataclass(frozen=True)
class RegimeInputSnapshot:
    symbol: str
    timestamp: int
    market: MarketSnapshot
    derivatives: DerivativesSnapshot
    flow: FlowSnapshot
    context: ContextSnapshot
