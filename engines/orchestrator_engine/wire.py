"""JSON as it stands on the pipe: compact, keys sorted, UTF-8, one object a line.

The bytes have to be the same in every process, because a replay compares them. Hence the sorted keys, and hence the
refusal of sets (their order changes from process to process) and of NaN and Infinity (they are not JSON). Integers
stay integers, and floats are written with the fewest digits that read back as the same number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TypeAlias

from .errors import EngineError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, "JsonValue"]


def to_json(value: object, where: str) -> JsonValue:
    """Returns ``value`` as JSON values only: dataclasses become objects, enums their value, tuples arrays.

    Raises EngineError naming the place, such as ``regime_output.drivers[2] is NaN``.
    """
    if isinstance(value, Enum):  # Before str and int: an enum may be a subclass of either.
        return to_json(value.value, where)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EngineError(f"{where} is {'NaN' if math.isnan(value) else 'infinite'}")
        return value
    if isinstance(value, Mapping):
        return {_key(key, where): to_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name), f"{where}.{field.name}") for field in fields(value)}
    raise EngineError(f"{where} has the type {type(value).__name__}, which has no JSON form")


def to_json_object(value: object, where: str) -> JsonObject:
    """Returns ``value`` as a JSON object. Raises EngineError when it is anything else."""
    converted = to_json(value, where)
    if not isinstance(converted, dict):
        raise EngineError(f"{where} is not an object")
    return converted


def encode_line(message: JsonObject) -> bytes:
    """Returns the line for ``message``, with its line end.

    Raises EngineError for text that UTF-8 cannot carry (half of a surrogate pair).
    """
    text = json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        raise EngineError("the answer holds text that is not valid Unicode") from None


def decode_line(line: bytes) -> object:
    """Returns the value on ``line``.

    Raises ValueError when it is not JSON. Stricter than Python's default, which also takes NaN and UTF-16.
    """
    try:
        value: object = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _key(key: object, where: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise EngineError(f"{where} has a key of the type {type(key).__name__}; only texts can be keys")
    return key


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")
