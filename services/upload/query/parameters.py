"""Reads the parameters of a query: from text, each within its range, to the question asked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from services.shared.contracts import MAX_CURSOR, MAX_NEIGHBORS, Box, Question
from services.shared.errors import MalformedRequest
from services.upload.query.filter_text import MAX_FILTER_BYTES, parse_filter
from services.upload.query.remote_image import MAX_URL

IMAGE_QUERY: Final = frozenset(
    {"collection", "k", "max_distance", "collapse", "filter", "box", "cursor"}
)
BATCH_QUERY: Final = IMAGE_QUERY - {"cursor"}
ITEM_QUERY: Final = IMAGE_QUERY - {"collection", "box"}

_DEFAULT_K: Final = 10
_MAX_DISTANCE: Final = 2.0
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_BOX_NUMBERS: Final = 4
_BOX_SLACK: Final = 1e-6
"""A box computed in floating point may end that much after the image."""

FIELD_BYTES: Final[Mapping[str, int]] = {
    "filter": MAX_FILTER_BYTES,
    "cursor": MAX_CURSOR,
    "image_url": MAX_URL,
}
"""How long the parameters may be that need more than `SHORT_FIELD_BYTES`."""

SHORT_FIELD_BYTES: Final = 1024

TIMEOUT_HEADER: Final = "Request-Timeout"
"""How long the caller will wait, as draft-thomson-hybi-http-timeout has it; fractions, too."""

Fields = Mapping[str, str]


def parse_search(fields: Fields, known: frozenset[str]) -> tuple[Question, Box | None]:
    """The parameters of a search that takes those in `known`.

    Raises MalformedRequest, naming the one that is wrong.
    """
    require_known(fields, known)
    question = Question(
        collection=_collection(fields),
        k=parse_int(fields, "k", default=_DEFAULT_K, low=1, high=MAX_NEIGHBORS),
        max_distance=_distance(fields, "max_distance"),
        collapse=_distance(fields, "collapse"),
        filter=parse_filter(fields["filter"]) if "filter" in fields else None,
        cursor=_cursor(fields),
    )
    return question, _box(fields)


def require_known(fields: Fields, known: frozenset[str]) -> None:
    """Raise MalformedRequest for a parameter that nobody reads: it may be a misspelt one."""
    unknown = sorted(fields.keys() - known)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        message = f"unknown parameter {unknown[0][:40]!r}; this address takes: {names}"
        raise MalformedRequest(message)


def parse_int(fields: Fields, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number between low and high. Raises MalformedRequest."""
    text = fields.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
        message = f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return int(text[:9])


def parse_timeout(text: str) -> float:
    """Seconds, more than 0. Raises MalformedRequest."""
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        message = f"{TIMEOUT_HEADER} must be a number of seconds over 0, not {text[:40]!r}"
        raise MalformedRequest(message)
    return seconds


def _collection(fields: Fields) -> str:
    name = fields.get("collection")
    if name == "":
        message = "collection must be a name; leave it out for the default"
        raise MalformedRequest(message)
    return name or ""


def _distance(fields: Fields, name: str) -> float | None:
    text = fields.get(name)
    if text is None:
        return None
    distance = _number(text)
    if not 0 <= distance <= _MAX_DISTANCE:
        message = f"{name} must be a number from 0 to {_MAX_DISTANCE:g}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return distance


def _number(text: str) -> float:
    """The number, NaN for what is none; Python's own 1_000 and other scripts' digits are none."""
    if not text.isascii() or "_" in text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def _box(fields: Fields) -> Box | None:
    text = fields.get("box")
    if text is None:
        return None
    numbers = [_number(part) for part in text.split(",")]
    if len(numbers) == _BOX_NUMBERS and all(map(math.isfinite, numbers)):
        box = Box(*numbers)
        if (
            min(box.left, box.top) >= 0
            and min(box.width, box.height) > 0
            and max(box.left + box.width, box.top + box.height) <= 1 + _BOX_SLACK
        ):
            return box
    message = (
        "box must be left,top,width,height: four fractions (0 to 1) of the upright image that "
        f"stay inside it, not {text[:80]!r}"
    )
    raise MalformedRequest(message)


def _cursor(fields: Fields) -> str:
    cursor = fields.get("cursor")
    if cursor is None:
        return ""
    if len(cursor) > MAX_CURSOR or not _CURSOR.fullmatch(cursor):
        message = "cursor must be the next_cursor of an answer, as it came"
        raise MalformedRequest(message)
    return cursor
