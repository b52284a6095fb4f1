"""Finds near-duplicates in a collection: groups of items whose vectors are close to each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.searcher.index import scan
from services.searcher.index.index import Index
from services.searcher.index.scan import Positions, Vectors
from services.searcher.progress import Progress
from services.shared.volume.items import Item, ItemCatalog
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
    volume: Volume,
    collection: str,
    version: str,
    distance: float,
    progress: Progress,
    *,
    block_rows: int = _BLOCK_ROWS,
) -> list[Group]:
    """Return the groups within that angular distance: with several labels first, then the largest.

    Compares every pair exactly: time grows with the square of the collection, memory with
    the collection. Raises IndexCorrupt.
    """
    index = Index.open(volume, collection, version)
    vectors = index.engine.vectors
    progress.begin("comparing", len(vectors), "images")
    families = _compared(vectors, 1.0 - distance**2 / 2.0, progress, block_rows)
    groups = [_group(vectors, index.items, families.degree, some) for some in families.groups()]
    return sorted(groups, key=lambda group: (-len(group.labels), -len(group.items)))


def _compared(vectors: Vectors, cosine: float, progress: Progress, block_rows: int) -> _Families:
    """Join every two rows that are at least that close."""
    families = _Families(len(vectors))
    for start in range(0, len(vectors), block_rows):
        rows = vectors[start : start + block_rows]
        for other in range(start, len(vectors), block_rows):
            close = rows @ vectors[other : other + block_rows].T >= cosine
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


class _Families:
    """Disjoint sets of rows; `degree` counts the rows that each row is close to.

    In memory of two numbers a row: pairs are not stored, since a thousand copies of a picture are
    half a million pairs.
    """

    def __init__(self, count: int) -> None:
        self.degree = np.zeros(count, np.int64)
        self._parent = np.arange(count)

    def join(self, start: int, other: int, close: NDArray[np.bool_]) -> None:
        """Add a block of pairs: row start + i is close to row other + j where close[i, j].

        Each pair must be added once, and no row with itself.
        """
        rows, columns = close.shape
        self.degree[start : start + rows] += close.sum(axis=1)
        self.degree[other : other + columns] += close.sum(axis=0)
        for row in np.flatnonzero(close.any(axis=1)).tolist():
            self._join(start + row, np.flatnonzero(close[row]) + other)

    def groups(self) -> Iterator[Positions]:
        """Yield the rows of each group of at least two, ascending."""
        heads = self._parent
        while np.any(heads != (further := heads[heads])):
            heads = further
        joined = np.flatnonzero(self.degree)
        order = joined[np.argsort(heads[joined], kind="stable")]
        edges = np.flatnonzero(np.diff(heads[order])) + 1
        return iter(np.split(order, edges) if len(order) else [])

    def _join(self, row: int, columns: Positions) -> None:
        heads = {self._head(one) for one in np.unique(self._parent[columns]).tolist()}
        heads.add(self._head(row))
        first = min(heads)
        self._parent[[row, *heads]] = first
        self._parent[columns] = first

    def _head(self, row: int) -> int:
        while (parent := int(self._parent[row])) != row:
            row = parent
        return row
