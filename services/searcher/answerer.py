"""Answers queries from an open index; queues are handled elsewhere.

Searches run in threads, except those that take less time than the change of threads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from services.searcher.catalog import Catalog
from services.searcher.index.engine import SearchTimings
from services.searcher.index.finder import Finder, alone
from services.searcher.index.index import as_vector
from services.searcher.index.scan import Vectors
from services.searcher.metrics import SearcherMetrics
from services.searcher.quality import LiveQuality
from services.shared.contracts import Embedding, Failure, Neighbors, Question, Reply
from services.shared.errors import IndexCorrupt, Internal, ModelMismatch, NoIndex, SimileError
from services.shared.imaging import current_name
from services.shared.telemetry.stopwatch import Stopwatch, clock
from services.shared.telemetry.watchdog import Watchdog
from services.shared.volume.manifest import Manifest

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class VectorQuery:
    """A vector to search by.

    Attributes:
        item: the vector with its slip.
        model_id: the model that made the vector.
        watch: the seconds of the query's stages in this process.
        code: the outcome: ok, or the code of an error.
        passes: how often searchers without its collection returned it to the queue.
    """

    item: Embedding
    model_id: str
    watch: Stopwatch
    code: str = "ok"
    passes: int = 0

    @property
    def question(self) -> Question:
        """The search parameters."""
        return self.item.slip.question


_Outcomes = Sequence[Neighbors | SimileError]


class Answerer:
    """Answers queries of one collection at a time from its open index."""

    def __init__(
        self,
        catalog: Catalog,
        quality: LiveQuality,
        metrics: SearcherMetrics,
        watchdog: Watchdog,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._catalog = catalog
        self._quality = quality
        self._metrics = metrics
        self._watchdog = watchdog
        self._threads = threads

    async def answer(self, queries: Sequence[VectorQuery]) -> list[Reply]:
        """Return a reply to each query of one collection, in order; each fails alone."""
        collection = queries[0].question.collection
        try:
            # The same reference for the whole batch, even where the version is swapped meanwhile.
            finder = await self._catalog.opened(collection)
        except NoIndex as error:
            return self._replies(queries, [error] * len(queries))
        loop = asyncio.get_running_loop()
        try:
            if finder.quick([query.question for query in queries]):
                outcomes = self._search(finder, queries)
            else:
                outcomes = await loop.run_in_executor(self._threads, self._search, finder, queries)
        except IndexCorrupt as error:
            self._catalog.drop(collection, finder, error)
            outcomes = [NoIndex(str(error))] * len(queries)
        return self._replies(queries, outcomes)

    def _search(self, finder: Finder, queries: Sequence[VectorQuery]) -> _Outcomes:
        """Search, in any thread. Raises IndexCorrupt when this index can't be trusted."""
        with self._watchdog.work(), self._timed(queries) as spent:
            manifest = finder.index.manifest
            outcomes: dict[int, Neighbors | SimileError] = {
                number: _mismatch(query, manifest)
                for number, query in enumerate(queries)
                if not _fits(query, manifest)
            }
            valid = [number for number in range(len(queries)) if number not in outcomes]
            vectors = [as_vector(queries[number].item.vector) for number in valid]
            found = _found(finder, vectors, [queries[number].question for number in valid], spent)
            outcomes |= zip(valid, found, strict=True)
            for number, vector in zip(valid, vectors, strict=True):
                self._observe(finder, queries[number], vector, outcomes[number])
            return [outcomes[number] for number in range(len(queries))]

    def _observe(
        self, finder: Finder, query: VectorQuery, vector: Vectors, outcome: Neighbors | SimileError
    ) -> None:
        """Measure the answer; where a defect made it fail, log the cause."""
        if isinstance(outcome, SimileError):
            if outcome.__cause__ is not None and isinstance(outcome, Internal):
                _log.error(
                    "search failed",
                    action=outcome.code,
                    query=query.item.slip.correlation_id,
                    exc_info=outcome.__cause__,
                )
        elif not query.item.slip.canary:
            fault = alone(
                partial(self._quality.observe, finder.index, vector, query.question, outcome)
            )
            if fault is not None:
                _log.error("live quality failed", action=fault.code, exc_info=fault.__cause__)

    @contextmanager
    def _timed(self, queries: Sequence[VectorQuery]) -> Iterator[SearchTimings]:
        """Measure the work inside the context for each query: all of a batch wait for it."""
        spent, began = SearchTimings(), clock()
        for query in queries:
            query.watch.lap("search_queue", began)
        try:
            yield spent
        finally:
            ended = clock()
            self._metrics.busy.inc(ended - began)
            for query in queries:
                query.watch.lap("search", ended - spent.rerank_seconds)
                if spent.rerank_seconds:
                    query.watch.lap("rerank", ended)

    def _replies(self, queries: Sequence[VectorQuery], outcomes: _Outcomes) -> list[Reply]:
        replies = []
        for query, outcome in zip(queries, outcomes, strict=True):
            answer, code = _answer(outcome)
            query.code = code
            stages = {**query.item.stages, **query.watch.stages}
            wanted = query.item.slip.return_vector and code == "ok"
            vector = query.item.vector if wanted else b""
            replies.append(
                Reply(
                    query.item.slip.correlation_id, answer, stages, vector, query.item.batch_images
                )
            )
        return replies


def _found(
    finder: Finder, vectors: Sequence[Vectors], questions: Sequence[Question], spent: SearchTimings
) -> _Outcomes:
    """Search; where the whole search fails, every query gets that error."""
    found = alone(partial(finder.find, vectors, questions, spent))
    return [found] * len(questions) if isinstance(found, SimileError) else found


def _answer(outcome: Neighbors | SimileError) -> tuple[Neighbors | Failure, str]:
    """Return the outcome to reply, and the code to count."""
    if isinstance(outcome, SimileError):
        return Failure(outcome.code, str(outcome)), outcome.code
    return outcome, "ok"


def by_collection(queries: Sequence[VectorQuery]) -> Collection[Sequence[VectorQuery]]:
    """Group the queries by collection."""
    grouped: dict[str, list[VectorQuery]] = defaultdict(list)
    for query in queries:
        grouped[query.question.collection].append(query)
    return grouped.values()


def _fits(query: VectorQuery, manifest: Manifest) -> bool:
    """Return whether the vectors of the query and of the index can be compared."""
    if query.model_id == manifest.model_id:
        return True
    # An index of the previous preprocessing answers until it is built again.
    return current_name(query.model_id) == current_name(manifest.model_id)


def _mismatch(query: VectorQuery, manifest: Manifest) -> ModelMismatch:
    return ModelMismatch(
        f"the query is of {query.model_id}, the index of {manifest.model_id}: "
        "run one model everywhere, then build the index again"
    )
