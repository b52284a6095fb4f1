"""Folds near-duplicates: an item close to a nearer item of the answer becomes its duplicate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.searcher.index.engine import Found
from services.searcher.index.scan import Positions, Vectors
from services.shared.contracts import Question

MAX_DUPLICATES: Final = 100
"""The maximum of folded items that a neighbour lists."""

MAX_FOLDING_COST: Final = 2**24
"""The maximum of comparisons for a page: under a second at 1,280 dimensions."""

_ROW_COST: Final = 64
"""The cost of fetching a row, in comparisons."""

_BLOCK_ROWS: Final = 2048
_ROUNDING: Final = 1e-6
"""Dot products of the same rows differ by less, so no later page shows a folded item."""


@dataclass(slots=True)
class Selection:
    """The contents of an answer: positions and distances, nearest first.

    duplicates: by position, the nearest items folded into it. before: items of earlier
    pages. matching: how many items pass the filter. more: whether some are left.
    """

    positions: list[int]
    distances: list[float]
    duplicates: dict[int, list[int]] = field(default_factory=dict)
    before: list[int] = field(default_factory=list)
    matching: int = 0
    more: bool = False

    @property
    def shown(self) -> Iterator[int]:
        """Yield the positions of this page and of earlier pages, without folded items."""
        yield from self.before
        yield from self.positions


def fold(
    vectors: Vectors,
    found: Found,
    question: Question,
    *,
    before: Positions,
    max_cost: int = MAX_FOLDING_COST,
) -> Selection:
    """Return the first k of `found`; with `collapse`, without items close to an earlier one.

    before: items of earlier pages; items close to these are left out, too. max_cost: the maximum of
    comparisons. A page that ends at this maximum has `more` set, unless it is empty: then another
    page would end at the same point.
    """
    if question.collapse is not None:
        return _Folding(vectors, question.k, question.collapse, before).through(found, max_cost)
    positions, distances = found
    kept = slice(None, question.k)
    return Selection(
        positions[kept].tolist(),
        distances[kept].tolist(),
        before=before.tolist(),
        more=len(positions) > question.k,
    )


class _Folding:
    """Builds a page from blocks of candidates, nearest first."""

    def __init__(self, vectors: Vectors, k: int, collapse: float, before: Positions) -> None:
        self._vectors = vectors
        self._k = k
        self._cosine = 1.0 - collapse**2 / 2.0
        self._before = np.take(vectors, before, axis=0)
        self._kept = Selection([], [], before=before.tolist())

    def through(self, found: Found, max_cost: int) -> Selection:
        """Return the page made of these candidates."""
        positions, distances = found
        kept = self._kept
        for start in range(0, len(positions), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            left = self._fold_block(positions[block], distances[block])
            if len(kept.positions) >= self._k:
                kept.more = left or start + _BLOCK_ROWS < len(positions)
                break
            compared = _ROW_COST + len(self._before) + len(kept.positions)
            max_cost -= _BLOCK_ROWS * compared
            if max_cost <= 0:
                kept.more = bool(kept.positions) and start + _BLOCK_ROWS < len(positions)
                break
        return kept

    def _fold_block(self, positions: Positions, distances: Vectors) -> bool:
        """Keep up to k items that are close to none kept; return whether some are left."""
        rows = np.take(self._vectors, positions, axis=0)
        left = ~np.any(rows @ self._before.T >= self._cosine - _ROUNDING, axis=1)
        for one in self._kept.positions:
            self._fold_into(one, positions, left, rows)
        while left.any() and len(self._kept.positions) < self._k:
            first = int(left.argmax())
            left[first] = False
            self._kept.positions.append(int(positions[first]))
            self._kept.distances.append(float(distances[first]))
            self._fold_into(int(positions[first]), positions, left, rows)
        return bool(left.any())

    def _fold_into(
        self, kept: int, positions: Positions, left: NDArray[np.bool_], rows: Vectors
    ) -> None:
        """Remove the items of `left` close to that item, and list them as its duplicates."""
        folded = left & (rows @ self._vectors[kept] >= self._cosine)
        if folded.any():
            left &= ~folded
            named = self._kept.duplicates.setdefault(kept, [])
            named += positions[folded][: MAX_DUPLICATES - len(named)].tolist()
