"""Signals, risk and a hook of others, as a worker of trading stages.

Start: ``PYTHONPATH=engines python3 engines/examples/stage_worker.py``, or with ``--port 8091`` behind HTTP. To have the
orchestrator ask it, name it in the configuration:

    [trading.providers.example]
    kind = "worker"
    command = ["python3", "engines/examples/stage_worker.py"]
    env = {PYTHONPATH = "engines"}
    [trading.pipelines.canonical.stage.SIG]
    provider = "example"
    [trading.pipelines.canonical.stage.RISK]
    provider = "example"
    [trading.pipelines.canonical.hook.compliance]
    stage = "RISK"
    mode = "HARD"
    provider = "example"
"""

from __future__ import annotations

import argparse
import os
from decimal import Decimal

from orchestrator_engine import JsonObject
from orchestrator_engine.stages import (
    HookRequest,
    StageRequest,
    allow,
    deny,
    modify,
    serve_stages,
    serve_stages_http,
)

ORDER_SHARES_MAX = Decimal(5)
SHARES = Decimal(8)


def signals(request: StageRequest) -> JsonObject:
    """Buys the first symbol that has a price."""
    data = request.data("ING")
    prices = data.get("prices") if isinstance(data, dict) else None
    if not isinstance(prices, dict) or not prices or request.strategy is None:
        return {"data": {"seen": 0}}
    symbol = sorted(prices)[0]
    decision: JsonObject = {
        "decisionId": f"{request.strategy}:{symbol}",
        "strategyId": request.strategy,
        "symbol": symbol,
        "action": "BUY",
        "confidence": 0.7,
        "reasoning": "the first symbol of the list",
        "suggestedQuantity": str(SHARES),
        "suggestedPrice": str(prices[symbol]),
    }
    return {"data": {"seen": len(prices)}, "decisions": [decision]}


def risk(request: StageRequest) -> JsonObject:
    """Allows what has a price and a quantity."""
    return {"verdicts": [_verdict(decision) for decision in request.decisions]}


def _verdict(decision: JsonObject) -> JsonObject:
    quantity, price = decision.get("suggestedQuantity"), decision.get("suggestedPrice")
    if decision["action"] == "HOLD":
        return {"decisionId": decision["decisionId"], "outcome": "held"}
    if quantity is None or price is None:
        return {"decisionId": decision["decisionId"], "outcome": "denied", "rule": "price_unavailable"}
    return {"decisionId": decision["decisionId"], "outcome": "allowed", "quantity": quantity, "price": price}


def compliance(request: HookRequest) -> JsonObject:
    """Limits each order to a few shares; a cycle of very many orders may not go on."""
    if len(request.decisions) > 100:
        return deny("too many orders at once")
    large = [decision for decision in request.decisions if _shares(decision) > ORDER_SHARES_MAX]
    if not large:
        return allow()
    patch: list[JsonObject] = [
        {"decisionId": decision["decisionId"], "quantity": str(ORDER_SHARES_MAX)} for decision in large
    ]
    return modify(patch, "orders are small")


def _shares(decision: JsonObject) -> Decimal:
    """A decision without a quantity is sized later, and may become large."""
    quantity = decision.get("suggestedQuantity")
    return Decimal("Infinity") if quantity is None else Decimal(str(quantity))


def main() -> None:
    """Serves until the input ends, or until it is interrupted."""
    parser = argparse.ArgumentParser(description="Stages and a hook of a trading cycle.")
    parser.add_argument("--port", type=int, help="serve behind HTTP; 0 takes a free port and says which")
    options = parser.parse_args()
    stages, hooks = {"SIG": signals, "RISK": risk}, {"compliance": compliance}
    if options.port is None:
        serve_stages(name="stage-example", version="1.0", stages=stages, hooks=hooks)
    else:
        token = os.environ.get("STAGE_TOKEN")
        serve_stages_http(
            "127.0.0.1", options.port, name="stage-example", version="1.0", stages=stages, hooks=hooks, token=token
        )


if __name__ == "__main__":
    main()
