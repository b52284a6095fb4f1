"""Reads the parameters of requests from text, by the table of services/shared/contracts."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from services.shared.contracts import MAX_CURSOR, Box, Filter, Question
from services.shared.contracts.parameters import (
    MAX_FIELD_BYTES,
    PARAMETERS,
    Parameter,
    Route,
    of_route,
)
from services.shared.errors import MalformedRequest
from services.upload.query.filter_text import parse_filter

TIMEOUT_HEADER: Final = "Request-Timeout"
"""How long the caller waits, in seconds, as in draft-thomson-hybi-http-timeout, with fractions."""

_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_MAX_NUMBER: Final = 1e30
"""Numbers beyond it are no vectors' values, and their squares no float's."""
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}
_BOX_NUMBERS: Final = 4
_BOX_TOLERANCE: Final = 1e-6
"""A box computed in floating point may exceed the image by this fraction."""

Fields = Mapping[str, str]
Parser = Callable[[str, str], Any]
"""Reads a value from the name of its parameter and its text; raises MalformedRequest."""


def parse(fields: Fields, route: Route) -> dict[str, Any]:
    """Return the values of the given parameters of a route, by name.

    Raises:
        MalformedRequest: a parameter is unknown, or its value is wrong; the message names it.
    """
    require_known(fields, names(route))
    return {name: parse_one(name, text) for name, text in fields.items()}


def parse_one(name: str, text: str) -> Any:  # noqa: ANN401 (of the parameter's type)
    """Return the value of a parameter. Raises MalformedRequest, naming it."""
    return _PARSERS[name](name, text)


def parse_search(fields: Fields, route: Route) -> tuple[Question, Box | None]:
    """Return the question of a search, with an empty collection for the default, and the box.

    Raises MalformedRequest, as `parse`.
    """
    values = parse(fields, route)
    box = values.pop("box", None)
    return Question(**values), box


def names(route: Route) -> frozenset[str]:
    """Return the names of the parameters that a route takes."""
    return frozenset(parameter.name for parameter in of_route(route))


def is_parameter(name: str) -> bool:
    """Return whether any route takes a parameter of that name."""
    return name in _PARSERS


def max_field_bytes(name: str) -> int:
    """Return how long the form field of that name may be."""
    return _MAX_BYTES.get(name, MAX_FIELD_BYTES)


def require_known(fields: Fields, known: frozenset[str]) -> None:
    """Raise MalformedRequest for an unknown parameter: it may be misspelt."""
    unknown = sorted(fields.keys() - known)
    if unknown:
        given = unknown[0][:40]
        # An image has a field, and is no parameter.
        names = sorted({*known, "image"} if "image_url" in known else known)
        near = difflib.get_close_matches(given, names, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        listed = ", ".join(names) or "none"
        message = f"unknown parameter {given!r}{meant} this address takes: {listed}"
        raise MalformedRequest(message)


def parse_timeout(text: str) -> float:
    """Return a number of seconds over 0. Raises MalformedRequest."""
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        message = f"{TIMEOUT_HEADER} must be a number of seconds over 0, not {text[:40]!r}"
        raise MalformedRequest(message)
    return seconds


def _whole_number(low: int, high: int, name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
        message = f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return int(text[:9])


def _number_within(low: float, high: float, name: str, text: str) -> float:
    number = _number(text)
    if not low <= number <= high:
        message = f"{name} must be a number from {low:g} to {high:g}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return number


def _collection(_name: str, text: str) -> str:
    if not text:
        message = "collection must be a name; leave it out for the default"
        raise MalformedRequest(message)
    return text


def _number(text: str) -> float:
    """Return the number, or NaN; Python's 1_000 and non-ASCII digits are not accepted."""
    if not text.isascii() or "_" in text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def _filter(_name: str, text: str) -> Filter | None:
    return parse_filter(text)


def _box(_name: str, text: str) -> Box:
    numbers = [_number(part) for part in text.split(",")]
    if len(numbers) == _BOX_NUMBERS and all(map(math.isfinite, numbers)):
        box = Box(*numbers)
        if (
            min(box.left, box.top) >= 0
            and min(box.width, box.height) > 0
            and max(box.left + box.width, box.top + box.height) <= 1 + _BOX_TOLERANCE
        ):
            return box
    message = (
        "box must be left,top,width,height: four fractions (0 to 1) of the upright image that "
        f"stay inside it, not {text[:80]!r}"
    )
    raise MalformedRequest(message)


def _cursor(_name: str, text: str) -> str:
    if len(text) > MAX_CURSOR or not _CURSOR.fullmatch(text):
        message = "cursor must be the next_cursor of an answer, unchanged"
        raise MalformedRequest(message)
    return text


def _address(_name: str, text: str) -> str:
    return text


def _vector(name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError):
        numbers = None
    if not isinstance(numbers, list) or not numbers or not all(map(_is_finite, numbers)):
        message = f"{name} must be a JSON list of finite numbers, such as [0.1, -0.2]"
        raise MalformedRequest(message)
    return tuple(map(float, numbers))


def _is_finite(number: Any) -> bool:  # noqa: ANN401 (any JSON)
    # Compared before it is converted: Python reads integers that no float can hold.
    plain = isinstance(number, int | float) and not isinstance(number, bool)
    return plain and bool(-_MAX_NUMBER <= number <= _MAX_NUMBER)


def _yes_or_no(name: str, text: str) -> bool:
    if text not in _BOOLEANS:
        message = f"{name} must be true or false, not {text[:40]!r}"
        raise MalformedRequest(message)
    return _BOOLEANS[text]


def _one_of(values: Sequence[int], name: str, text: str) -> int:
    known = {str(value): value for value in values}
    if text not in known:
        message = f"{name} must be one of {', '.join(known)}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return known[text]


_OF_TEXT: Final[Mapping[str, Parser]] = {
    "image_url": _address,
    "collection": _collection,
    "filter": _filter,
    "vector": _vector,
    "box": _box,
    "cursor": _cursor,
}


def _parser(parameter: Parameter) -> Parser:
    """Return the parser of a parameter; numbers are bounded by the table's range."""
    schema = parameter.schema
    match schema.get("type"):
        case "integer" if "enum" in schema:
            return partial(_one_of, schema["enum"])
        case "integer":
            return partial(_whole_number, schema["minimum"], schema["maximum"])
        case "boolean":
            return _yes_or_no
        case "number":
            return partial(_number_within, schema["minimum"], schema["maximum"])
        case _:
            return _OF_TEXT[parameter.name]


_PARSERS: Final = {parameter.name: _parser(parameter) for parameter in PARAMETERS}
_MAX_BYTES: Final = {parameter.name: parameter.max_bytes for parameter in PARAMETERS}
