"""Answers questions from an open index: bounds, pages, filters, and folding of duplicates.

Plain questions share a batch; others search deeper until the answer is full, or the collection
is exhausted.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Final, TypeVar

import numpy as np
from cachetools import LRUCache, cachedmethod

from services.searcher.index import paging
from services.searcher.index.engine import Found, SearchTimings
from services.searcher.index.folding import Selection, fold
from services.searcher.index.index import Index
from services.searcher.index.scan import Positions, Vectors
from services.shared.contracts import Filter, Neighbor, Neighbors, Question
from services.shared.errors import (
    IndexCorrupt,
    Internal,
    MalformedRequest,
    SimileError,
    UnknownItem,
)
from services.shared.volume.items import Item

_T = TypeVar("_T")

_SCANNED_BYTES: Final = 32 * 2**20
"""A filter that leaves at most this size of vectors is answered by a scan of them."""

_MAX_FETCHED: Final = 2048
_DEEPER: Final = 4
_MAX_FILTERS: Final = 16
_SPARE: Final = 1.5

_NONE: Final[Positions] = np.empty(0, np.int64)


class Finder:
    """Searches an index; thread-safe."""

    def __init__(self, index: Index, *, scanned_bytes: int = _SCANNED_BYTES) -> None:
        """Create a finder; `scanned_bytes`: vectors that a filter may leave to be scanned."""
        self.index = index
        self._scanned_bytes = scanned_bytes
        self._filters = LRUCache[str, Positions](_MAX_FILTERS)
        self._filters_lock = threading.Lock()

    def quick(self, questions: Sequence[Question]) -> bool:
        """Return whether all are plain, and take about a millisecond."""
        return self.index.engine.quick(one.k for one in questions) and all(
            map(_is_plain, questions)
        )

    def find(
        self,
        vectors: Sequence[Vectors],
        questions: Sequence[Question],
        spent: SearchTimings | None = None,
    ) -> list[Neighbors | SimileError]:
        """Return the answer to each question about its vector (dimension,), or its error.

        A defect becomes Internal with its cause, for that question only. `spent` adds up the time.

        Raises IndexCorrupt when a file of the index was written to: then no answer is safe.
        """
        self.index.require_intact()
        kept: dict[int, Selection | SimileError] = {}
        together: dict[int, list[int]] = defaultdict(list)
        for number, (vector, question) in enumerate(zip(vectors, questions, strict=True)):
            fault = alone(partial(self._check, vector, question))
            if fault is not None:
                kept[number] = fault
            elif _is_plain(question):
                together[question.k].append(number)
            else:
                kept[number] = alone(partial(self._search_deeper, vector, question, spent))
        for numbers in together.values():
            kept |= self._search_plain(numbers, vectors, questions, spent)
        answers = self._answers(questions, [kept[number] for number in range(len(questions))])
        # Again after the search: results read during a write must not be returned.
        self.index.require_intact()
        return answers

    def _check(self, vector: Vectors, question: Question) -> None:
        self.index.check_vector(vector)
        if question.k < 1:
            message = f"k is {question.k}; it must be at least 1"
            raise MalformedRequest(message)

    def _search_plain(
        self,
        numbers: Sequence[int],
        vectors: Sequence[Vectors],
        questions: Sequence[Question],
        spent: SearchTimings | None,
    ) -> dict[int, Selection | SimileError]:
        """Search for plain questions of the same k together; if that fails, for each alone."""

        def search(some: Sequence[int]) -> list[Selection]:
            stacked = np.stack([vectors[one] for one in some])
            found = self.index.engine.search(stacked, questions[some[0]].k, spent)
            return [self._plain(questions[one], of) for one, of in zip(some, found, strict=True)]

        kept = alone(partial(search, numbers))
        if not isinstance(kept, SimileError):
            return dict(zip(numbers, kept, strict=True))
        if len(numbers) == 1:
            return {numbers[0]: kept}
        return {
            number: outcome
            for one in numbers
            for number, outcome in self._search_plain([one], vectors, questions, spent).items()
        }

    def _plain(self, question: Question, found: Found) -> Selection:
        positions, distances = found
        near = _within(found, question.max_distance)
        count = self.index.manifest.count
        return Selection(
            positions=positions[:near].tolist(),
            distances=distances[:near].tolist(),
            matching=count,
            more=near == len(positions) < count,
        )

    def _search_deeper(
        self, vector: Vectors, question: Question, spent: SearchTimings | None
    ) -> Selection:
        """Search with growing depth until k are left after exclusions and folding."""
        allowed = None if question.filter is None else self._passing(question.filter)
        matching = self.index.manifest.count if allowed is None else len(allowed)
        shown = self._shown(question)
        unwanted = np.append(shown, self._excluded(question))
        vectors = self.index.engine.vectors

        def keep(found: Found) -> tuple[Selection, bool]:
            """Return the page of the found items, and whether it has all that are near enough."""
            near = _within(found, question.max_distance)
            fresh = np.flatnonzero(~np.isin(found[0][:near], unwanted))
            some = found[0][fresh], found[1][fresh]
            exhausted = near < len(found[0]) or len(found[0]) >= matching
            return fold(vectors, some, question, before=shown), exhausted

        depth = question.k + len(unwanted)
        while True:
            found = self._nearest(vector, min(depth, matching), allowed, spent)
            kept, exhausted = keep(found)
            if exhausted or len(kept.positions) >= question.k or depth >= _MAX_FETCHED:
                break
            depth *= _DEEPER
        kept.more = kept.more or not exhausted
        if len(kept.positions) < question.k and not exhausted and question.collapse is not None:
            # All found items may be copies of a few pictures: go through the whole collection.
            kept, _ = keep(self.index.engine.ranked(vector, allowed))
        kept.matching = matching
        return kept

    @cachedmethod(
        attrgetter("_filters"), key=lambda _, wanted: _key(wanted), lock=attrgetter("_filters_lock")
    )
    def _passing(self, wanted: Filter) -> Positions:
        """Return the positions that pass a filter, ascending."""
        return np.frombuffer(self.index.items.matching(wanted), np.int64)

    def _nearest(
        self, vector: Vectors, depth: int, allowed: Positions | None, spent: SearchTimings | None
    ) -> Found:
        """Return the nearest `depth` of the allowed positions."""
        engine, manifest = self.index.engine, self.index.manifest
        if allowed is None:
            return engine.search(vector[None], depth, spent)[0]
        selective = (
            allowed.size * engine.vectors.itemsize * manifest.dimension <= self._scanned_bytes
        )
        fetched = int(_SPARE * depth * manifest.count / max(1, len(allowed)))
        if not selective and fetched <= _MAX_FETCHED:
            positions, distances = engine.search(vector[None], fetched, spent)[0]
            at = np.minimum(np.searchsorted(allowed, positions), len(allowed) - 1)
            passing = np.flatnonzero(allowed[at] == positions)[:depth]
            if len(passing) == depth:
                return positions[passing], distances[passing]
        return engine.among(vector, allowed, depth)

    def _shown(self, question: Question) -> Positions:
        if not question.cursor:
            return _NONE
        manifest = self.index.manifest
        return paging.decode(question.cursor, manifest.version, question, manifest.count)

    def _excluded(self, question: Question) -> Positions:
        if not question.exclude:
            return _NONE
        try:
            return np.array([self.index.items.by_id(question.exclude).position])
        except UnknownItem:  # of an older version: nothing to exclude
            return _NONE

    def _answers(
        self, questions: Sequence[Question], kept: Sequence[Selection | SimileError]
    ) -> list[Neighbors | SimileError]:
        """Add the catalogue's data of each item, read for all questions at once if that works."""
        items = alone(partial(self._items, [one for one in kept if isinstance(one, Selection)]))
        return [
            one
            if isinstance(one, SimileError)
            else alone(
                partial(
                    self._answer, question, one, None if isinstance(items, SimileError) else items
                )
            )
            for question, one in zip(questions, kept, strict=True)
        ]

    def _items(self, kept: Iterable[Selection]) -> Mapping[int, Item]:
        wanted = {position for one in kept for position in _named(one)}
        return dict(zip(wanted, self.index.items.at([*wanted]), strict=True))

    def _answer(
        self, question: Question, kept: Selection, items: Mapping[int, Item] | None
    ) -> Neighbors:
        """Build an answer; without `items` read its own."""
        items = self._items([kept]) if items is None else items
        manifest = self.index.manifest
        shown = [*kept.shown]
        cursor = ""
        if kept.more and len(shown) < paging.MAX_SHOWN:
            cursor = paging.encode(manifest.version, question, shown)
        return Neighbors(
            collection=manifest.collection,
            index_version=manifest.version,
            model_id=manifest.model_id,
            neighbors=tuple(_neighbors(kept, items)),
            matching=kept.matching,
            next_cursor=cursor,
            close_above=manifest.close_above,
        )


def alone(work: Callable[[], _T]) -> _T | SimileError:
    """Return what the work returns, or the error that it ends in; a defect becomes Internal.

    Raises IndexCorrupt: it is a fault of the index, and no answer of it is safe.
    """
    try:
        return work()
    except IndexCorrupt:
        raise
    except SimileError as error:
        return error
    except Exception as error:  # noqa: BLE001 (a query must not fail the others of its batch)
        failed = Internal("the search failed; the log says why")
        failed.__cause__ = error
        return failed


def _key(wanted: Filter) -> str:
    return repr((sorted(wanted.labels), sorted(wanted.attributes.items())))


def _is_plain(question: Question) -> bool:
    special = (question.filter, question.collapse)
    return special == (None, None) and not question.cursor and not question.exclude


def _within(found: Found, max_distance: float | None) -> int:
    """Return how many are near enough; distances ascend."""
    _, distances = found
    if max_distance is None:
        return len(distances)
    return int(np.searchsorted(distances, max_distance, side="right"))


def _named(kept: Selection) -> Iterable[int]:
    """Yield every position that the answer names."""
    yield from kept.positions
    for duplicates in kept.duplicates.values():
        yield from duplicates


def _neighbors(kept: Selection, items: Mapping[int, Item]) -> Iterable[Neighbor]:
    for position, distance in zip(kept.positions, kept.distances, strict=True):
        item, folded = items[position], kept.duplicates.get(position, [])
        yield Neighbor(
            item.item_id,
            item.label,
            item.attributes,
            distance,
            1.0 - distance**2 / 2.0,
            tuple(items[one].item_id for one in folded),
            item.path,
        )
