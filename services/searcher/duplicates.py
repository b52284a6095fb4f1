"""Near-duplicates in a collection: groups of items whose vectors are close to each other's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.searcher import publisher
from services.searcher.engine import mapped
from services.searcher.progress import Progress
from services.searcher.scan import Vectors
from services.shared.collection import Volume
from services.shared.items import ITEMS, Item, ItemCatalog
from services.shared.manifest import VECTORS

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

    Every pair is compared exactly: time grows with the square of the collection, memory with the
    number of pairs found. Raises IndexCorrupt.
    """
    lease = volume.hold(collection, version)
    publisher.verify(volume, collection, version)
    manifest = volume.manifest(collection, version)
    directory = volume.directory(collection, version)
    vectors = mapped(directory / VECTORS, manifest.count, manifest.dimension)
    neighbors: dict[int, list[int]] = defaultdict(list)
    progress.begin("comparing", manifest.count, "images")
    for one, other in _pairs(vectors, 1.0 - distance**2 / 2.0, progress):
        neighbors[one].append(other)
        neighbors[other].append(one)
    catalog = ItemCatalog(directory / ITEMS)
    groups = [_group(vectors, catalog, neighbors, some) for some in _components(neighbors)]
    catalog.close()
    del lease
    return sorted(groups, key=lambda group: (-len(group.labels), -len(group.items)))


def _pairs(vectors: Vectors, cosine: float, progress: Progress) -> Iterator[tuple[int, int]]:
    """Every two rows that are that close, the lower first."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = vectors[start : start + _ROWS_AT_ONCE]
        for other in range(start, len(vectors), _ROWS_AT_ONCE):
            close = rows @ vectors[other : other + _ROWS_AT_ONCE].T >= cosine
            for one, two in np.argwhere(close).tolist():
                if start + one < other + two:
                    yield start + one, other + two
        progress.advance(len(rows))


def _components(neighbors: dict[int, list[int]]) -> Iterator[list[int]]:
    seen = set[int]()
    for start in sorted(neighbors):
        if start in seen:
            continue
        group, waiting = [], [start]
        seen.add(start)
        while waiting:
            one = waiting.pop()
            group.append(one)
            fresh = [other for other in neighbors[one] if other not in seen]
            seen.update(fresh)
            waiting += fresh
        yield sorted(group)


def _group(
    vectors: Vectors, catalog: ItemCatalog, neighbors: dict[int, list[int]], positions: list[int]
) -> Group:
    first = max(positions, key=lambda position: len(neighbors[position]))
    dots = np.take(vectors, positions, axis=0) @ vectors[first]
    nearest_first = [positions[place] for place in np.argsort(-dots, kind="stable")]
    nearest_first.remove(first)
    items = tuple(catalog.at([first, *nearest_first]))
    return Group(
        items,
        float(np.sqrt(max(0.0, 2.0 - 2.0 * float(dots.min())))),
        len(items) - len({item.sha256 for item in items}),
    )
