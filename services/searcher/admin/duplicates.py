"""Finds near-duplicates in a collection: groups of items whose vectors are close to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.searcher.admin import versions
from services.searcher.admin.families import Families
from services.searcher.index import scan
from services.searcher.index.scan import Positions, Vectors, mapped
from services.searcher.progress import Progress
from services.shared.volume.items import ITEMS, Item, ItemCatalog
from services.shared.volume.manifest import VECTORS
from services.shared.volume.volume import Volume

_BLOCK_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class Group:
    """A group of items, each close to another item of the group; the first is close to most others.

    farthest: the largest angular distance from the first. same_bytes: how many are identical copies
    of another item of the group.
    """

    items: tuple[Item, ...]
    farthest: float
    same_bytes: int

    @property
    def labels(self) -> list[str]:
        """Return the labels of the group; several may mean that a label is wrong."""
        return sorted({item.label for item in self.items})

    def to_json(self) -> dict[str, Any]:
        """Return the group as JSON values."""
        return {
            "farthest": round(self.farthest, 4),
            "same_bytes": self.same_bytes,
            "labels": self.labels,
            "items": [
                {"item_id": item.item_id, "path": item.path, "label": item.label}
                for item in self.items
            ],
        }


def find_duplicates(
    volume: Volume, collection: str, version: str, distance: float, progress: Progress
) -> list[Group]:
    """Return the groups within that angular distance: with several labels first, then the largest.

    Compares every pair exactly: time grows with the square of the collection, memory with
    the collection. Raises IndexCorrupt.
    """
    lease = volume.hold(collection, version)
    versions.verify(volume, collection, version)
    manifest = volume.manifest(collection, version)
    directory = volume.directory(collection, version)
    vectors = mapped(directory / VECTORS, manifest.count, manifest.dimension)
    progress.begin("comparing", manifest.count, "images")
    families = _compared(vectors, 1.0 - distance**2 / 2.0, progress)
    catalog = ItemCatalog(directory / ITEMS)
    groups = [_group(vectors, catalog, families.degree, some) for some in families.groups()]
    catalog.close()
    del lease
    return sorted(groups, key=lambda group: (-len(group.labels), -len(group.items)))


def _compared(vectors: Vectors, cosine: float, progress: Progress) -> Families:
    """Join every two rows that are at least that close."""
    families = Families(len(vectors))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rows = vectors[start : start + _BLOCK_ROWS]
        for other in range(start, len(vectors), _BLOCK_ROWS):
            close = rows @ vectors[other : other + _BLOCK_ROWS].T >= cosine
            families.join(start, other, np.triu(close, 1) if other == start else close)
        progress.advance(len(rows))
    return families


def _group(
    vectors: Vectors, catalog: ItemCatalog, degree: Positions, positions: Positions
) -> Group:
    first = int(positions[degree[positions].argmax()])
    ordered, dots = scan.ranked(vectors, vectors[first], positions)
    items = tuple(catalog.at([first, *ordered[ordered != first].tolist()]))
    return Group(
        items,
        float(np.sqrt(max(0.0, 2.0 - 2.0 * float(dots[-1])))),
        len(items) - len({item.sha256 for item in items}),
    )
