"""Answers questions from an open index: bounds, pages, filters, and the folding of duplicates.

Plain questions share a batch; the rest is asked deeper and deeper until the answer is full, or
there is nothing left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from services.searcher import paging
from services.searcher.engine import Found, Spent
from services.searcher.filters import Filters
from services.searcher.folding import Kept, fold
from services.searcher.index import Index
from services.searcher.scan import Positions, Vectors
from services.shared.contracts import Neighbor, Neighbors, Question
from services.shared.errors import SimileError, UnknownItem
from services.shared.items import Item

_SCANNED_BYTES: Final = 32 * 2**20
"""A filter that leaves no more vectors than this is answered by looking at all of them."""

_MOST_FETCHED: Final = 2048
_DEEPER: Final = 4
_SPARE: Final = 1.5
_MOST_DUPLICATES: Final = 100

_NONE: Final[Positions] = np.empty(0, np.int64)


class Finder:
    """Asks one index; usable from several threads."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._filters = Filters(index.items)

    def quick(self, questions: Sequence[Question]) -> bool:
        """Whether all are plain, and answered in a millisecond or so."""
        return self.index.engine.quick(one.k for one in questions) and all(
            map(_is_plain, questions)
        )

    def find(
        self,
        vectors: Sequence[Vectors],
        questions: Sequence[Question],
        spent: Spent | None = None,
    ) -> list[Neighbors | SimileError]:
        """The answer to each question about its vector (dimension,); what fails, fails alone.

        `spent` gets what the engine took.

        Raises IndexCorrupt when a file of the index was written to: then no answer is safe.
        """
        self.index.require_intact()
        kept: dict[int, Kept | SimileError] = {}
        together: dict[int, list[int]] = defaultdict(list)
        for number, (vector, question) in enumerate(zip(vectors, questions, strict=True)):
            try:
                self.index.check_vector(vector)
                if _is_plain(question):
                    together[question.k].append(number)
                else:
                    kept[number] = self._search_deeper(vector, question, spent)
            except SimileError as error:
                kept[number] = error
        for k, numbers in together.items():
            stacked = np.stack([vectors[one] for one in numbers])
            found = self.index.engine.search(stacked, k, spent)
            for number, one in zip(numbers, found, strict=True):
                kept[number] = self._plain(questions[number], one)
        answers = self._answers(questions, [kept[number] for number in range(len(questions))])
        # After the search too: what was read while somebody wrote must not get out.
        self.index.require_intact()
        return answers

    def _plain(self, question: Question, found: Found) -> Kept:
        positions, distances = found
        near = _within(found, question.max_distance)
        count = self.index.manifest.count
        return Kept(
            positions=positions[:near].tolist(),
            distances=distances[:near].tolist(),
            matching=count,
            more=near == len(positions) < count,
        )

    def _search_deeper(self, vector: Vectors, question: Question, spent: Spent | None) -> Kept:
        """Ask for more and more until k are left after all that is taken out."""
        allowed = None if question.filter is None else self._filters.positions(question.filter)
        matching = self.index.manifest.count if allowed is None else len(allowed)
        shown = self._shown(question)
        unwanted = np.append(shown, self._excluded(question))
        depth = question.k + len(unwanted)
        while True:
            found = self._nearest(vector, min(depth, matching), allowed, spent)
            near = _within(found, question.max_distance)
            exhausted = near < len(found[0]) or len(found[0]) >= matching
            fresh = np.flatnonzero(~np.isin(found[0][:near], unwanted))
            kept = fold(
                self.index.engine.vectors,
                (found[0][fresh], found[1][fresh]),
                question,
                before=shown,
            )
            if len(kept.positions) >= question.k or exhausted or depth >= _MOST_FETCHED:
                kept.matching = matching
                kept.more = kept.more or not exhausted
                return kept
            depth *= _DEEPER

    def _nearest(
        self, vector: Vectors, depth: int, allowed: Positions | None, spent: Spent | None
    ) -> Found:
        """The nearest `depth`, of those allowed."""
        engine, manifest = self.index.engine, self.index.manifest
        if allowed is None:
            return engine.search(vector[None], depth, spent)[0]
        selective = allowed.size * engine.vectors.itemsize * manifest.dimension <= _SCANNED_BYTES
        fetched = int(_SPARE * depth * manifest.count / max(1, len(allowed)))
        if not selective and fetched <= _MOST_FETCHED:
            positions, distances = engine.search(vector[None], fetched, spent)[0]
            at = np.minimum(np.searchsorted(allowed, positions), len(allowed) - 1)
            passing = np.flatnonzero(allowed[at] == positions)[:depth]
            if len(passing) == depth:
                return positions[passing], distances[passing]
        return engine.among(vector, allowed, depth)

    def _shown(self, question: Question) -> Positions:
        if not question.cursor:
            return _NONE
        shown = paging.decode(question.cursor, self.index.manifest.version, question)
        return shown[shown < self.index.manifest.count]

    def _excluded(self, question: Question) -> Positions:
        if not question.exclude:
            return _NONE
        try:
            return np.array([self.index.items.by_id(question.exclude).position])
        except UnknownItem:  # it is of an older version: nothing to leave out
            return _NONE

    def _answers(
        self, questions: Sequence[Question], kept: Sequence[Kept | SimileError]
    ) -> list[Neighbors | SimileError]:
        """With what the catalogue says of each item, read at once for all."""
        sound = [one for one in kept if isinstance(one, Kept)]
        wanted = {position for one in sound for position in _named(one)}
        items = dict(zip(wanted, self.index.items.at([*wanted]), strict=True))
        return [
            one if isinstance(one, SimileError) else self._answer(question, one, items)
            for question, one in zip(questions, kept, strict=True)
        ]

    def _answer(self, question: Question, kept: Kept, items: Mapping[int, Item]) -> Neighbors:
        manifest = self.index.manifest
        shown = [*kept.shown]
        cursor = ""
        if kept.more and len(shown) < paging.MOST_SHOWN:
            cursor = paging.encode(manifest.version, question, shown)
        return Neighbors(
            collection=manifest.collection,
            index_version=manifest.version,
            model_id=manifest.model_id,
            neighbors=tuple(_neighbors(kept, items)),
            matching=kept.matching,
            next_cursor=cursor,
        )


def _is_plain(question: Question) -> bool:
    special = (question.filter, question.collapse)
    return special == (None, None) and not question.cursor and not question.exclude


def _within(found: Found, max_distance: float | None) -> int:
    """How many are near enough; distances ascend."""
    _, distances = found
    if max_distance is None:
        return len(distances)
    return int(np.searchsorted(distances, max_distance, side="right"))


def _named(kept: Kept) -> Iterable[int]:
    """Every position that the answer names."""
    yield from kept.positions
    for duplicates in kept.duplicates.values():
        yield from duplicates[:_MOST_DUPLICATES]


def _neighbors(kept: Kept, items: Mapping[int, Item]) -> Iterable[Neighbor]:
    for position, distance in zip(kept.positions, kept.distances, strict=True):
        item, folded = items[position], kept.duplicates.get(position, [])[:_MOST_DUPLICATES]
        yield Neighbor(
            item.item_id,
            item.label,
            item.attributes,
            distance,
            1.0 - distance**2 / 2.0,
            tuple(items[one].item_id for one in folded),
        )
