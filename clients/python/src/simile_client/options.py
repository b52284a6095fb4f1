"""Defines the options of searches, and writes them as the parameters of the API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypedDict

from simile_client.models import Filter


class FilterOptions(TypedDict, total=False):
    """A filter as a dictionary: one value or alternatives for the label and each attribute."""

    label: str | list[str]
    attributes: Mapping[str, str | list[str]]


class NeighborOptions(TypedDict, total=False):
    """The options of all searches; None stands for the server's default.

    Attributes:
        k: the number of neighbours in an answer, 1 to 100.
        max_distance: the maximum angular distance, 0 to 2.
        collapse: folds items within this angular distance of a nearer one into it.
        filter: only items that pass the filter are returned.
    """

    k: int | None
    max_distance: float | None
    collapse: float | None
    filter: Filter | FilterOptions | None


class VectorOptions(NeighborOptions, total=False):
    """The options of searches by a vector.

    Attributes:
        collection: the collection to search; needed where there are several and no default.
    """

    collection: str | None


class ImageOptions(VectorOptions, total=False):
    """The options of searches by an image.

    Attributes:
        box: left, top, width and height of a part of the image, as fractions of the image.
    """

    box: Sequence[float] | None


class ItemsOptions(TypedDict, total=False):
    """The options of listing items.

    Attributes:
        filter: only items that pass the filter are listed.
        limit: the number of items in a page.
        vectors: each item comes with its vector.
    """

    filter: Filter | FilterOptions | None
    limit: int | None
    vectors: bool | None


def parameters(options: Mapping[str, object]) -> dict[str, str]:
    """Return the options as parameters of the API, without those that are None."""
    return {name: _text(value) for name, value in options.items() if value is not None}


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case Filter():
            return value.model_dump_json(exclude_none=True)
        case Mapping():
            return json.dumps(value)
        case Sequence():
            return ",".join(str(number) for number in value)
        case _:
            return str(value)
