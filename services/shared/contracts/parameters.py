"""Defines the parameters of the HTTP API in one table.

The table is the source of upload's parser, of the parameters in openapi.json, of the options of
`simile query`, and of the table in docs/search.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.shared.contracts import MAX_CURSOR, MAX_NEIGHBORS, Question

DEFAULT_SAMPLE: Final = 24
DEFAULT_PREVIEW_PIXELS: Final = 1280
THUMBNAIL_SIZES: Final = (320, 640, 1280, 2048)
"""Few, so that a thumbnail that was made serves many screens."""

MAX_FIELD_BYTES: Final = 1024
MAX_FILTER_BYTES: Final = 4096
MAX_URL_BYTES: Final = 2048
MAX_VECTOR_BYTES: Final = 256 * 1024

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000
MAX_PAGE_OF_VECTORS: Final = 100

_MAX_SAMPLE: Final = 200
_MAX_DISTANCE: Final = 2

Schema = Mapping[str, Any]


class Route(StrEnum):
    """The routes that take parameters."""

    SEARCH = "/v1/search"
    BATCH = "/v1/search/batch"
    EMBED = "/v1/embed"
    SIMILAR = "/v1/items/{collection}/{item_id}/similar"
    SAMPLE = "/v1/collections/{name}/sample"
    ITEMS = "/v1/items/{collection}"
    THUMBNAIL = "/v1/items/{collection}/{item_id}/thumbnail"
    PREVIEW = "/v1/preview"


_IMAGE: Final = (Route.SEARCH, Route.BATCH)
_NEIGHBORS: Final = (Route.SEARCH, Route.BATCH, Route.SIMILAR)
_PAGES: Final = (Route.SEARCH, Route.SIMILAR, Route.ITEMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of one or more routes.

    Attributes:
        name: the name in query string and form.
        accepts: the accepted values, in words.
        description: the effect of the parameter; Markdown.
        routes: the routes that take the parameter.
        schema: the OpenAPI schema in a query string; of a number it holds the range.
        form_schema: the OpenAPI schema in a form, where it differs.
        example: an example for OpenAPI.
        max_bytes: the longest accepted form field.
        in_query: openapi.json lists the parameter in the query string, too.
        in_form: openapi.json lists the parameter in forms, too; all are in JSON bodies.
    """

    name: str
    accepts: str
    description: str
    routes: tuple[Route, ...]
    schema: Schema
    form_schema: Schema = field(default_factory=dict)
    example: str | None = None
    max_bytes: int = MAX_FIELD_BYTES
    in_query: bool = True
    in_form: bool = True


def of_route(route: Route) -> tuple[Parameter, ...]:
    """Return the parameters that a route takes, in the order of the documentation."""
    return tuple(parameter for parameter in PARAMETERS if route in parameter.routes)


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
        name="image_url", routes=(*_IMAGE, Route.EMBED), in_query=False,
        accepts=f"an `http` or `https` address of at most {MAX_URL_BYTES:,} bytes",
        description="An address that Simile fetches the image from, instead of `image`. In a batch "
        "you can send several. Off unless `SIMILE_UPLOAD_QUERY_BY_URL` is set.",
        schema=_component("ImageUrl"), max_bytes=MAX_URL_BYTES,
    ),
    Parameter(
        name="vector", routes=(Route.SEARCH,), in_query=False, in_form=False,
        accepts="a JSON list of numbers, in a JSON body",
        description="A vector to search by, instead of an image: as many numbers as the "
        "collection's `dimension`, of any length but 0. `POST /v1/embed` makes one.",
        schema={"type": "array", "items": {"type": "number"}, "minItems": 1},
        max_bytes=MAX_VECTOR_BYTES,
    ),
    Parameter(
        name="collection", routes=_IMAGE,
        accepts="the name of a collection",
        description="The collection to search; may be left out where there is one, or a default.",
        schema=_component("CollectionName"),
    ),
    Parameter(
        name="k", routes=_NEIGHBORS,
        accepts=f"1 to {MAX_NEIGHBORS}; {Question().k} by default",
        description="How many neighbours.",
        schema=_integer(MAX_NEIGHBORS, Question().k),
    ),
    Parameter(
        name="max_distance", routes=_NEIGHBORS,
        accepts=f"0 to {_MAX_DISTANCE:g}",
        description="Leave out neighbours farther than this angular distance, `sqrt(2 - 2 cos)`.",
        schema=_DISTANCE_SCHEMA,
    ),
    Parameter(
        name="collapse", routes=_NEIGHBORS,
        accepts=f"0 to {_MAX_DISTANCE:g}",
        description="Fold items within this angular distance of a nearer one into it, as its "
        "`duplicates`.",
        schema=_DISTANCE_SCHEMA,
    ),
    Parameter(
        name="filter", routes=(*_NEIGHBORS, Route.ITEMS),
        accepts='JSON, such as `{"label": ["cat", "dog"], "attributes": {"author": "Ann"}}`',
        description="Only items that pass the filter are returned. Several values of a name are "
        "alternatives; several names must all match.",
        schema=_FILTER_SCHEMA, form_schema=_component("Filter"),
        example='{"label": ["cat", "dog"]}', max_bytes=MAX_FILTER_BYTES,
    ),
    Parameter(
        name="box", routes=_IMAGE,
        accepts="`left,top,width,height`",
        description="Search by this part of the image, in fractions (0 to 1) of the upright image.",
        schema=_component("Box"),
    ),
    Parameter(
        name="cursor", routes=_PAGES,
        accepts="the `next_cursor` of an answer",
        description="Return the next page; send the same image and the same other parameters.",
        schema=_component("Cursor"), max_bytes=MAX_CURSOR,
    ),
    Parameter(
        name="limit", routes=(Route.ITEMS,),
        accepts=f"1 to {MAX_PAGE:,}; {DEFAULT_PAGE} by default",
        description=f"How many items a page holds; with `vectors`, at most {MAX_PAGE_OF_VECTORS}.",
        schema=_integer(MAX_PAGE, DEFAULT_PAGE),
    ),
    Parameter(
        name="vectors", routes=(Route.ITEMS,),
        accepts="`true` or `false`; `false` by default",
        description="Return the vector of each item, too.",
        schema={"type": "boolean", "default": False},
    ),
    Parameter(
        name="count", routes=(Route.SAMPLE,),
        accepts=f"1 to {_MAX_SAMPLE}; {DEFAULT_SAMPLE} by default",
        description="How many items.",
        schema=_integer(_MAX_SAMPLE, DEFAULT_SAMPLE),
    ),
    Parameter(
        name="size", routes=(Route.THUMBNAIL, Route.PREVIEW),
        accepts=", ".join(map(str, THUMBNAIL_SIZES)),
        description="The longest side in pixels, at most; a smaller image is not enlarged. By "
        f"default {DEFAULT_PREVIEW_PIXELS} for a preview, and `SIMILE_UPLOAD_THUMBNAIL_PIXELS` for "
        "a thumbnail.",
        schema={"type": "integer", "enum": [*THUMBNAIL_SIZES]},
    ),
)  # fmt: skip
"""All parameters, in the order of the documentation."""
