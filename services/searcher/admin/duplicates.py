"""Near-duplicates in a collection: groups of items whose vectors are close to each other's."""

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

_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class Group:
    """Items each close to another of the group, the first to the most of them.

    farthest: the largest angular distance from the first. same_bytes: how many are copies, byte
    by byte, of another one of the group.
    """

    items: tuple[Item, ...]
    farthest: float
    same_bytes: int

    @property
    def labels(self) -> list[str]:
        """The labels in it; several may mean that one is wrong."""
        return sorted({item.label for item in self.items})

    def to_json(self) -> dict[str, Any]:
        """The group as JSON values."""
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
    """The groups within that angular distance; those of several labels first, then the largest.

    Every pair is compared exactly: time grows with the square of the collection, memory with
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
    """Every two rows that are that close, joined."""
    families = Families(len(vectors))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = vectors[start : start + _ROWS_AT_ONCE]
        for other in range(start, len(vectors), _ROWS_AT_ONCE):
            close = rows @ vectors[other : other + _ROWS_AT_ONCE].T >= cosine
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
