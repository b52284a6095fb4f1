"""Joins rows that are close to each other into groups, in memory of two numbers per row.

Pairs are not stored: a thousand copies of a picture are half a million pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from services.searcher.index.scan import Positions


class Families:
    """Disjoint sets of rows; `degree` counts the rows that each row is close to."""

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
