"""Folds near-duplicates: an item close to a nearer one of the answer is named there instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.searcher.engine import Found
from services.searcher.scan import Positions, Vectors
from services.shared.contracts import Question


@dataclass(slots=True)
class Kept:
    """What an answer is made of: positions and distances, nearest first.

    duplicates: by position, those folded into it. hidden: what earlier pages showed, and what is
    folded into that. matching: how many items pass the filter. more: whether some are left.
    """

    positions: list[int]
    distances: list[float]
    duplicates: dict[int, list[int]] = field(default_factory=dict)
    hidden: list[int] = field(default_factory=list)
    matching: int = 0
    more: bool = False

    @property
    def shown(self) -> Iterator[int]:
        """Every position that no later page may show."""
        yield from self.hidden
        yield from self.positions
        for duplicates in self.duplicates.values():
            yield from duplicates


def fold(vectors: Vectors, found: Found, question: Question, *, before: Positions) -> Kept:
    """The first k of `found`; with `collapse`, without those close to one before them.

    before: what earlier pages showed; what is close to that is left out, too.
    """
    positions, distances = found
    if question.collapse is None:
        kept = slice(None, question.k)
        return Kept(
            positions[kept].tolist(),
            distances[kept].tolist(),
            hidden=before.tolist(),
            more=len(positions) > question.k,
        )
    cosine = 1.0 - question.collapse**2 / 2.0
    rows = np.take(vectors, positions, axis=0)
    close = _close_to(rows, np.take(vectors, before, axis=0), cosine)
    answer = Kept([], [], hidden=[*before.tolist(), *positions[close].tolist()])
    left = ~close
    while left.any() and len(answer.positions) < question.k:
        first = int(left.argmax())
        left[first] = False
        folded = left & (rows @ rows[first] >= cosine)
        left &= ~folded
        answer.positions.append(int(positions[first]))
        answer.distances.append(float(distances[first]))
        if folded.any():
            answer.duplicates[int(positions[first])] = positions[folded].tolist()
    answer.more = bool(left.any())
    return answer


def _close_to(rows: Vectors, others: Vectors, cosine: float) -> NDArray[np.bool_]:
    """Which rows are that close to any of the others."""
    close: NDArray[np.bool_] = np.any(rows @ others.T >= cosine, axis=1)
    return close
