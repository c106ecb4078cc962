"""Serves the real Regime Engine, unchanged: ``regime_engine.engine.run`` and ``run_with_hysteresis``.

The engine wants frozen dataclasses with a marker for what is missing, and a store it changes in place; the
orchestrator has JSON and keeps the state itself. This file stands between the two and decides nothing about markets:

- A key that is absent becomes the engine's own MISSING, null stays None, and a key the engine does not know is
  dropped and named once on stderr.
- Each call gets a store built anew from the state in the request, so every attempt starts from the same state, and
  what the engine has put there afterwards is the state in the answer.
- The engine's refusal of a timestamp that is not newer is reported as ``hysteresis_monotonicity_violation``.

Classes are read from the installed package (fields and type hints), not repeated here: an engine with a further field
is served without a change. Only these names are relied on: ``contracts.snapshots.RegimeInputSnapshot`` and
``MISSING``, ``hysteresis.HysteresisConfig``, ``HysteresisState``, ``HysteresisStore(states=...)`` and, if there,
``HysteresisError``.

Start: ``PYTHONPATH=<folder that holds regime_engine> python3 engines/regime_engine_worker.py``
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from orchestrator_engine import (
    EngineError,
    HysteresisMonotonicityViolation,
    JsonObject,
    JsonValue,
    Snapshot,
    SnapshotBuildFailure,
    serve,
)

PROBE_SYMBOL = "CONTRACT_CHECK"

UNKNOWN_KEYS_NAMED_MAX = 100
"""Unknown keys are named on stderr up to this many, so that invented ones can fill neither memory nor log."""


@dataclass(frozen=True, slots=True)
class RegimeEngine:
    """The names of the installed package that the adapter uses. It ships no types, hence ``Any``."""

    run: Callable[[Any], Any]
    run_with_hysteresis: Callable[[Any, Any, Any], Any]
    missing: Any
    snapshot_class: Any
    config_class: Any
    state_class: Any
    store_class: Any
    refusals: tuple[type[Exception], ...]
    version: str
    folder: Path

    @classmethod
    def load(cls) -> RegimeEngine:
        """Imports the package. Raises ImportError or AttributeError when it is absent or another one."""
        package = import_module("regime_engine")
        engine = import_module("regime_engine.engine")
        snapshots = import_module("regime_engine.contracts.snapshots")
        hysteresis = import_module("regime_engine.hysteresis")
        refusal = getattr(hysteresis, "HysteresisError", None)
        return cls(
            run=engine.run,
            run_with_hysteresis=engine.run_with_hysteresis,
            missing=snapshots.MISSING,
            snapshot_class=snapshots.RegimeInputSnapshot,
            config_class=hysteresis.HysteresisConfig,
            state_class=hysteresis.HysteresisState,
            store_class=hysteresis.HysteresisStore,
            refusals=() if refusal is None else (refusal,),
            version=str(getattr(package, "__version__", "unversioned")),
            folder=Path(str(engine.__file__)).parent,
        )


class OtherContract(EngineError):
    """The package's ``run_with_hysteresis`` is another one than the adapter's."""

    def __init__(self, answer: str) -> None:
        super().__init__(
            f"this regime_engine answers with a {answer} without selected_output; "
            "one whose run_with_hysteresis returns a HysteresisDecision is needed"
        )


class Adapter:
    """The two calls, in the form the worker kit wants."""

    def __init__(self, engine: RegimeEngine) -> None:
        self._engine = engine
        self._hints = get_type_hints(engine.snapshot_class)
        self._unknown_keys: set[str] = set()

    def run(self, snapshot: Snapshot) -> object:
        """Returns the engine's RegimeOutput."""
        return self._engine.run(self._build(snapshot))

    def run_with_hysteresis(
        self, snapshot: Snapshot, state: JsonObject | None, config: JsonObject
    ) -> tuple[object, object]:
        """Returns the engine's HysteresisDecision and the symbol's state after it."""
        built = self._build(snapshot)
        known = {} if state is None else {snapshot.symbol: decode(self._engine.state_class, state, "state")}
        store = self._engine.store_class(states=known)
        engine_config = decode(self._engine.config_class, config, "config")
        try:
            decision = self._engine.run_with_hysteresis(built, store, engine_config)
        except self._engine.refusals as error:
            raise HysteresisMonotonicityViolation(str(error)) from error
        except Exception as error:
            if _is_not_newer(snapshot, state):  # An engine that refuses with an error class of another name.
                raise HysteresisMonotonicityViolation(str(error)) from error
            raise
        if not hasattr(decision, "selected_output"):
            raise OtherContract(type(decision).__name__)
        return decision, store.states.get(snapshot.symbol)

    def other_contract(self) -> OtherContract | None:
        """Says what is wrong when ``run_with_hysteresis`` is seen to answer with something else than a HysteresisDecision.

        By one call with nothing in the snapshot and a store of its own: the engine is a pure function of both, so that
        changes nothing. One that refuses such a snapshot is believed what it is declared to return.
        """
        try:
            with redirect_stdout(sys.stderr):
                self.run_with_hysteresis(Snapshot(PROBE_SYMBOL, 1, {}), None, {})
            return None
        except OtherContract as error:
            return error
        except Exception:
            pass
        try:
            declared = get_type_hints(self._engine.run_with_hysteresis).get("return")
        except Exception:  # Names that only a type checker can see.
            return None
        if not (is_dataclass(declared) and isinstance(declared, type)):
            return None
        names = [field.name for field in fields(declared)]
        return None if "selected_output" in names else OtherContract(declared.__name__)

    def _build(self, snapshot: Snapshot) -> Any:
        members: dict[str, Any] = {"symbol": snapshot.symbol, "timestamp": snapshot.timestamp_ms}
        for field in fields(self._engine.snapshot_class):
            if field.name not in members:
                members[field.name] = self._member(snapshot, field.name)
        self._name_unknown(name for name in snapshot.inputs if name not in members and name != "timestamp_ms")
        try:
            return self._engine.snapshot_class(**members)
        except Exception as error:
            raise SnapshotBuildFailure(f"the engine refused the snapshot: {error}") from error

    def _member(self, snapshot: Snapshot, name: str) -> Any:
        value: Any = snapshot.inputs.get(name, self._engine.missing)
        group_class: Any = self._hints[name]
        is_group: bool = is_dataclass(group_class)
        if not is_group:
            return value
        if value is None or value is self._engine.missing:
            value = {}  # The engine looks into every group, so a group that is not there is one with nothing in it.
        if not isinstance(value, dict):
            raise SnapshotBuildFailure(f"{name} is not an object")
        known = [field.name for field in fields(group_class)]
        self._name_unknown(f"{name}.{key}" for key in value if key not in known)
        try:
            return group_class(**{key: value.get(key, self._engine.missing) for key in known})
        except Exception as error:
            raise SnapshotBuildFailure(f"the engine refused {name}: {error}") from error

    def _name_unknown(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._unknown_keys and len(self._unknown_keys) < UNKNOWN_KEYS_NAMED_MAX:
                self._unknown_keys.add(name)
                print(f"regime engine: dropping the unknown input {ascii(name)[:100]}", file=sys.stderr)


def decode(hint: Any, value: JsonValue, where: str) -> Any:
    """Returns ``value`` as the type ``hint``: dataclasses, enums, optionals, lists and tuples of them.

    Raises EngineError when they do not fit, for example a state that another version of the engine has written.
    """
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
        return decode(hint, value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return _decode_dataclass(hint, value, where)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise EngineError(f"{where} is no {hint.__name__}") from None
    if isinstance(value, list) and isinstance(origin, type) and not issubclass(origin, Mapping):
        arguments = get_args(hint)
        items = [decode(arguments[0] if arguments else Any, item, f"{where}[]") for item in value]
        return tuple(items) if origin is tuple else items
    return value


def _decode_dataclass(cls: type, value: JsonValue, where: str) -> Any:
    if not isinstance(value, dict):
        raise EngineError(f"{where} is not an object")
    hints = get_type_hints(cls)
    unknown = sorted(set(value) - {field.name for field in fields(cls)})
    if unknown:
        raise EngineError(f"{where} has members {cls.__name__} does not know: {', '.join(unknown)}")
    members = {name: decode(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return cls(**members)
    except Exception as error:
        raise EngineError(f"{where} does not fit {cls.__name__}: {error}") from error


def _is_not_newer(snapshot: Snapshot, state: JsonObject | None) -> bool:
    last = None if state is None else state.get("last_timestamp")
    return isinstance(last, int) and snapshot.timestamp_ms <= last


def main() -> None:
    """Serves the installed package; exits with 2 when there is none."""
    try:
        engine = RegimeEngine.load()
    except (ImportError, AttributeError) as error:
        print(f"cannot load the Regime Engine: {error}. Is its folder on PYTHONPATH?", file=sys.stderr)
        sys.exit(2)
    adapter = Adapter(engine)
    other_contract = adapter.other_contract()
    if other_contract is not None:
        print(f"run_with_hysteresis is not offered: {other_contract}", file=sys.stderr)
    serve(
        name="regime-engine",
        version=engine.version,
        run=adapter.run,
        run_with_hysteresis=adapter.run_with_hysteresis if other_contract is None else None,
        sources=[Path(__file__), engine.folder],
    )


if __name__ == "__main__":
    main()
