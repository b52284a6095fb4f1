"""Checks a dashboard's JSON against Grafana's schema, by the models generated from it.

The models read leniently: they skip unknown fields and check no type. Therefore their output is
compared with their input, and every value with the type in the schema.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def faults(dashboard: Mapping[str, Any]) -> list[str]:
    """Return unknown fields, missing fields and fields of another type."""
    register_default_plugins()
    model = Dashboard.from_json(dict(dashboard))
    written = json.loads(JSONEncoder().encode(model))
    return [*_differences(dict(dashboard), written, "$"), *_mistyped(model, Dashboard, "$")]


def _differences(given: Any, written: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(written, dict):
        for key in given.keys() | written.keys():
            if key not in written:
                yield f"{path}.{key} is unknown"
            elif key in given:
                yield from _differences(given[key], written[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for number, pair in enumerate(zip(given, written, strict=True)):
            yield from _differences(*pair, f"{path}[{number}]")
    elif given != written:
        yield f"{path} is read as {written!r}, not {given!r}"


def _mistyped(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Yield the places where the value, or a value inside it, is not of its type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        its_own = [one for one in inner if one is type(value)]
        others = [one for one in inner if one is not types.NoneType or value is None]
        yield from min((list(_mistyped(value, one, path)) for one in its_own or others), key=len)
    elif origin is list and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _mistyped(item, inner[0], f"{path}[{number}]")
    elif hasattr(hint, "from_json") or hasattr(value, "to_json"):
        yield from _of_model(value, hint, path)
    elif not _is_plain(value, hint):
        yield f"{path} is {value!r}, not {hint}"


def _of_model(value: Any, hint: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):  # some models leave nested values unparsed
        model = hint.from_json(value)
        yield from _differences(value, json.loads(JSONEncoder().encode(model)), path)
        value = model
    if not hasattr(value, "to_json"):
        yield f"{path} is {value!r}, not {hint}"
        return
    for name, of_it in typing.get_type_hints(type(value)).items():
        yield from _mistyped(getattr(value, name), of_it, f"{path}.{name}")


def _is_plain(value: Any, hint: Any) -> bool:
    if hint in (object, typing.Any):
        return True
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint]
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)  # a model may serialize its kind as a member of an enum
    return type(value) is (typing.get_origin(hint) or hint)
