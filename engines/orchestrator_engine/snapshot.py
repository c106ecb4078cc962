"""What an engine is given: one symbol's inputs at one engine time.

A field that is absent and a field that is null are different facts (never delivered, and delivered as unknown),
so reading one never turns the first into the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

from .errors import SnapshotBuildFailure
from .wire import JsonObject, JsonValue


class _Missing(Enum):
    """One value of its own type, so that a type checker can tell it from every JSON value."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One call's input. ``inputs`` is the ``normalized`` object of the SnapshotInputs event, as it was recorded."""

    symbol: str
    timestamp_ms: int
    inputs: JsonObject

    def value(self, group: str, field: str) -> JsonValue | _Missing:
        """Returns ``inputs[group][field]``: a JSON value, None for null, MISSING when either key is absent.

        Raises SnapshotBuildFailure when the group is there but is no object.
        """
        members = self.inputs.get(group, MISSING)
        if members is MISSING or members is None:
            return MISSING
        if not isinstance(members, dict):
            raise SnapshotBuildFailure(f"{group} is not an object")
        return members.get(field, MISSING)

    def number(self, group: str, field: str) -> float | None:
        """Returns a finite number, or None when the field is null or missing and the difference does not matter.

        Raises SnapshotBuildFailure for anything else: a price that is a text must not read as "no price".
        """
        value = self.value(group, field)
        if value is None or value is MISSING:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SnapshotBuildFailure(f"{group}.{field} is not a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise SnapshotBuildFailure(f"{group}.{field} is not a finite number")
        return number
