"""Points out the labels and attributes of a filter that no item has: most are misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from services.shared.contracts import Filter
from services.shared.volume.items import Facet, Facets
from services.upload.collections import CollectionReader, OpenCollection

_MAX_WARNINGS: Final = 10
_MAX_SHOWN: Final = 60
"""Characters of a value that a warning repeats."""


async def filter_warnings(
    collections: CollectionReader, opened: OpenCollection, wanted: Filter | None
) -> list[str]:
    """Return a sentence for each value of the filter that no item has, at most ten."""
    if wanted is None or wanted == Filter():
        return []
    absent = await collections.absent(opened, wanted)
    if absent == Filter():
        return []
    facets = await collections.facets(opened)
    return list(islice(_sentences(absent, facets), _MAX_WARNINGS))


def _sentences(absent: Filter, facets: Facets) -> Iterator[str]:
    for label in absent.labels:
        yield f"no item has the label {_shown(label)}{_nearest(label, _values(facets.labels))}"
    for name, values in absent.attributes.items():
        if name not in facets.attributes:
            yield f"no item has an attribute {_shown(name)}{_nearest(name, facets.attributes)}"
            continue
        known = _values(facets.attributes[name])
        for value in values:
            where = f"{_shown(value)} as attribute {_shown(name)}"
            yield f"no item has {where}{_nearest(value, known)}"


def _nearest(given: str, known: Iterable[str]) -> str:
    """Return the most similar name, in words; nothing where none is similar."""
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(given[:_MAX_SHOWN].casefold(), by_folded, n=1)
    return f"; did you mean {_shown(by_folded[found[0]])}?" if found else ""


def _values(facets: Sequence[Facet]) -> list[str]:
    return [facet.value for facet in facets]


def _shown(text: str) -> str:
    return repr(text[:_MAX_SHOWN])
