"""Folds near-duplicates: an item close to a nearer one of the answer is named there instead."""

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
"""Items that a neighbour names as folded into it."""

MAX_FOLDING_COST: Final = 2**24
"""Comparisons that the folding of one page may take: under a second at 1,280 dimensions."""

_ROW_COST: Final = 64
"""What fetching a row takes, in comparisons."""

_BLOCK_ROWS: Final = 2048
_ROUNDING: Final = 1e-6
"""Two products of the same rows differ by less: what one page folded no later page may show."""


@dataclass(slots=True)
class Selection:
    """What an answer is made of: positions and distances, nearest first.

    duplicates: by position, the nearest of those folded into it. before: what earlier pages
    showed. matching: how many items pass the filter. more: whether some are left.
    """

    positions: list[int]
    distances: list[float]
    duplicates: dict[int, list[int]] = field(default_factory=dict)
    before: list[int] = field(default_factory=list)
    matching: int = 0
    more: bool = False

    @property
    def shown(self) -> Iterator[int]:
        """Every position that this page or one before it shows, without those folded into them."""
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
    """The first k of `found`; with `collapse`, without those close to one before them.

    before: what earlier pages showed; what is close to that is left out, too. max_cost: how many
    comparisons this may take; what it ends at is not exhausted, so `more` is true where the page
    shows anything, and false where going on would come to the same end.
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
    """One page in the making: candidates go through it in blocks, nearest first."""

    def __init__(self, vectors: Vectors, k: int, collapse: float, before: Positions) -> None:
        self._vectors = vectors
        self._k = k
        self._cosine = 1.0 - collapse**2 / 2.0
        self._before = np.take(vectors, before, axis=0)
        self._kept = Selection([], [], before=before.tolist())

    def through(self, found: Found, max_cost: int) -> Selection:
        """The page made of these candidates."""
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
        """Keep what is close to nothing kept, up to k; whether some of the block is left then."""
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
        """Take out of `left` what is close to that one, and name it there."""
        folded = left & (rows @ self._vectors[kept] >= self._cosine)
        if folded.any():
            left &= ~folded
            named = self._kept.duplicates.setdefault(kept, [])
            named += positions[folded][: MAX_DUPLICATES - len(named)].tolist()
