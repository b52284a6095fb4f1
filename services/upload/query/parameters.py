"""Defines the parameters of all routes in one table, and reads them from text.

The table is the source of the parser, of the parameters in openapi.json, and of the table in
docs/search.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.shared.contracts import MAX_CURSOR, MAX_NEIGHBORS, Box, Filter, Question
from services.shared.errors import MalformedRequest
from services.upload.query.filter_text import MAX_FILTER_BYTES, parse_filter
from services.upload.query.remote_image import MAX_URL

DEFAULT_SAMPLE: Final = 24
TIMEOUT_HEADER: Final = "Request-Timeout"
"""How long the caller waits, in seconds, as in draft-thomson-hybi-http-timeout, with fractions."""

_MAX_SAMPLE: Final = 200
_MAX_DISTANCE: Final = 2
_MAX_FIELD_BYTES: Final = 1024
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_BOX_NUMBERS: Final = 4
_BOX_TOLERANCE: Final = 1e-6
"""A box computed in floating point may exceed the image by this fraction."""

Fields = Mapping[str, str]
Schema = Mapping[str, Any]


class Route(StrEnum):
    """The routes that take parameters."""

    SEARCH = "/v1/search"
    BATCH = "/v1/search/batch"
    EMBED = "/v1/embed"
    SIMILAR = "/v1/items/{collection}/{item_id}/similar"
    SAMPLE = "/v1/collections/{name}/sample"


_IMAGE: Final = (Route.SEARCH, Route.BATCH)
_NEIGHBORS: Final = (Route.SEARCH, Route.BATCH, Route.SIMILAR)
_PAGES: Final = (Route.SEARCH, Route.SIMILAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of one or more routes.

    Attributes:
        name: the name in query string and form.
        parse: reads the value from the name and its text; raises MalformedRequest.
        accepts: the accepted values, in words.
        description: the effect of the parameter; Markdown.
        routes: the routes that take the parameter.
        schema: the OpenAPI schema in a query string.
        form_schema: the OpenAPI schema in a form, where it differs.
        example: an example for OpenAPI.
        max_bytes: the longest accepted form field.
        in_query: openapi.json lists the parameter in the query string, too.
    """

    name: str
    parse: Callable[[str, str], Any]
    accepts: str
    description: str
    routes: tuple[Route, ...]
    schema: Schema
    form_schema: Schema = field(default_factory=dict)
    example: str | None = None
    max_bytes: int = _MAX_FIELD_BYTES
    in_query: bool = True


def parse(fields: Fields, route: Route) -> dict[str, Any]:
    """Return the values of the given parameters of a route, by name.

    Raises:
        MalformedRequest: a parameter is unknown, or its value is wrong; the message names it.
    """
    require_known(fields, names(route))
    return {name: _BY_NAME[name].parse(name, text) for name, text in fields.items()}


def parse_search(fields: Fields, route: Route) -> tuple[Question, Box | None]:
    """Return the question of a search, with an empty collection for the default, and the box.

    Raises MalformedRequest, as `parse`.
    """
    values = parse(fields, route)
    box = values.pop("box", None)
    return Question(**values), box


def names(route: Route) -> frozenset[str]:
    """Return the names of the parameters that a route takes."""
    return frozenset(parameter.name for parameter in PARAMETERS if route in parameter.routes)


def max_field_bytes(name: str) -> int:
    """Return how long the form field of that name may be."""
    known = _BY_NAME.get(name)
    return _MAX_FIELD_BYTES if known is None else known.max_bytes


def require_known(fields: Fields, known: frozenset[str]) -> None:
    """Raise MalformedRequest for an unknown parameter: it may be misspelt."""
    unknown = sorted(fields.keys() - known)
    if unknown:
        listed = ", ".join(sorted(known)) or "none"
        message = f"unknown parameter {unknown[0][:40]!r}; this address takes: {listed}"
        raise MalformedRequest(message)


def parse_timeout(text: str) -> float:
    """Return a number of seconds over 0. Raises MalformedRequest."""
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        message = f"{TIMEOUT_HEADER} must be a number of seconds over 0, not {text[:40]!r}"
        raise MalformedRequest(message)
    return seconds


def _whole_number(low: int, high: int) -> Callable[[str, str], int]:
    def parse_number(name: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
            message = f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}"
            raise MalformedRequest(message)
        return int(text[:9])

    return parse_number


def _collection(_name: str, text: str) -> str:
    if not text:
        message = "collection must be a name; leave it out for the default"
        raise MalformedRequest(message)
    return text


def _distance(name: str, text: str) -> float:
    distance = _number(text)
    if not 0 <= distance <= _MAX_DISTANCE:
        message = f"{name} must be a number from 0 to {_MAX_DISTANCE:g}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return distance


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


def _component(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _integer(high: int, default: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": high, "default": default}


_DISTANCE_SCHEMA: Final[Schema] = {"type": "number", "minimum": 0, "maximum": _MAX_DISTANCE}
_FILTER_SCHEMA: Final[Schema] = {
    "type": "string",
    "maxLength": MAX_FILTER_BYTES,
    "contentMediaType": "application/json",
    "contentSchema": _component("Filter"),
}

PARAMETERS: Final = (
    Parameter(
        name="image_url", parse=_address, routes=(*_IMAGE, Route.EMBED), in_query=False,
        accepts=f"an `http` or `https` address of at most {MAX_URL:,} bytes",
        description="An address that Simile fetches the image from, instead of `image`. In a batch "
        "you can send several. Off unless `SIMILE_UPLOAD_QUERY_BY_URL` is set.",
        schema=_component("ImageUrl"), max_bytes=MAX_URL,
    ),
    Parameter(
        name="collection", parse=_collection, routes=_IMAGE,
        accepts="the name of a collection",
        description="The collection to search; may be left out where there is one, or a default.",
        schema=_component("CollectionName"),
    ),
    Parameter(
        name="k", parse=_whole_number(1, MAX_NEIGHBORS), routes=_NEIGHBORS,
        accepts=f"1 to {MAX_NEIGHBORS}; {Question().k} by default",
        description="How many neighbours.",
        schema=_integer(MAX_NEIGHBORS, Question().k),
    ),
    Parameter(
        name="max_distance", parse=_distance, routes=_NEIGHBORS,
        accepts=f"0 to {_MAX_DISTANCE:g}",
        description="Leave out neighbours farther than this angular distance, `sqrt(2 - 2 cos)`.",
        schema=_DISTANCE_SCHEMA,
    ),
    Parameter(
        name="collapse", parse=_distance, routes=_NEIGHBORS,
        accepts=f"0 to {_MAX_DISTANCE:g}",
        description="Fold items within this angular distance of a nearer one into it, as its "
        "`duplicates`.",
        schema=_DISTANCE_SCHEMA,
    ),
    Parameter(
        name="filter", parse=_filter, routes=_NEIGHBORS,
        accepts='JSON, such as `{"label": ["cat", "dog"], "attributes": {"author": "Ann"}}`',
        description="Only items that pass the filter are returned. Several values of a name are "
        "alternatives; several names must all match.",
        schema=_FILTER_SCHEMA, form_schema=_component("Filter"),
        example='{"label": ["cat", "dog"]}', max_bytes=MAX_FILTER_BYTES,
    ),
    Parameter(
        name="box", parse=_box, routes=_IMAGE,
        accepts="`left,top,width,height`",
        description="Search by this part of the image, in fractions (0 to 1) of the upright image.",
        schema=_component("Box"),
    ),
    Parameter(
        name="cursor", parse=_cursor, routes=_PAGES,
        accepts="the `next_cursor` of an answer",
        description="Return the next page; send the same image and the same other parameters.",
        schema=_component("Cursor"), max_bytes=MAX_CURSOR,
    ),
    Parameter(
        name="count", parse=_whole_number(1, _MAX_SAMPLE), routes=(Route.SAMPLE,),
        accepts=f"1 to {_MAX_SAMPLE}; {DEFAULT_SAMPLE} by default",
        description="How many items.",
        schema=_integer(_MAX_SAMPLE, DEFAULT_SAMPLE),
    ),
)  # fmt: skip
"""All parameters, in the order of the documentation."""

_BY_NAME: Final = {parameter.name: parameter for parameter in PARAMETERS}
