"""Queries in, replies out: opens the index, searches, names what failed. No queues.

In a thread, but for what takes less time than the way there and back.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from services.searcher.catalog import Catalog
from services.searcher.engine import Spent
from services.searcher.finder import Finder
from services.searcher.index import as_vector
from services.searcher.metrics import SearcherMetrics
from services.searcher.quality import LiveQuality
from services.shared.contracts import Embedding, Failure, Neighbors, Question, Reply
from services.shared.errors import IndexCorrupt, Internal, ModelMismatch, NoIndex, SimileError
from services.shared.manifest import Manifest
from services.shared.telemetry.stopwatch import Stopwatch, clock
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Query:
    """One vector to search, the model it came from, and its time here; in the end its code."""

    item: Embedding
    model_id: str
    watch: Stopwatch
    code: str = "ok"

    @property
    def question(self) -> Question:
        """What is asked."""
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

    async def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """A reply to each query of one collection, in their order; one that fails, fails alone."""
        collection = queries[0].question.collection
        try:
            # One reference for the whole batch: a swap can't come between.
            finder = await self._catalog.opened(collection)
        except NoIndex as error:
            return self._replies(queries, [error] * len(queries))
        loop = asyncio.get_running_loop()
        try:
            if finder.quick([one.question for one in queries]):
                outcomes = self._search(finder, queries)
            else:
                outcomes = await loop.run_in_executor(self._threads, self._search, finder, queries)
        except IndexCorrupt as error:
            self._catalog.drop(collection, finder, error)
            outcomes = [NoIndex(str(error))] * len(queries)
        return self._replies(queries, outcomes)

    def _search(self, finder: Finder, queries: Sequence[Query]) -> _Outcomes:
        """In either way. Raises IndexCorrupt when no answer of this index is safe any more."""
        with self._watchdog.work(), self._timed(queries) as spent:
            manifest = finder.index.manifest
            sound = [one for one in queries if one.model_id == manifest.model_id]
            vectors = [as_vector(one.item.vector) for one in sound]
            questions = [one.question for one in sound]
            try:
                found = finder.find(vectors, questions, spent)
            except IndexCorrupt:
                raise
            except Exception:  # noqa: BLE001 (a batch must not take the process along)
                ids = [one.item.slip.correlation_id for one in sound]
                _log.exception("search failed", action=Internal.code, queries=ids)
                found = [Internal("the search failed; the log says why")] * len(sound)
            canaries = [one.item.slip.canary for one in sound]
            for vector, question, outcome, canary in zip(
                vectors, questions, found, canaries, strict=True
            ):
                if isinstance(outcome, Neighbors) and not canary:
                    self._quality.observe(finder.index, vector, question, outcome)
            answers = iter(found)
            return [
                next(answers) if one.model_id == manifest.model_id else _mismatch(one, manifest)
                for one in queries
            ]

    @contextmanager
    def _timed(self, queries: Sequence[Query]) -> Iterator[Spent]:
        """Around the work; each query waits for that of all."""
        spent, began = Spent(), clock()
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

    def _replies(self, queries: Sequence[Query], outcomes: _Outcomes) -> list[Reply]:
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


def _answer(outcome: Neighbors | SimileError) -> tuple[Neighbors | Failure, str]:
    """What to reply, and the code to count."""
    if isinstance(outcome, SimileError):
        return Failure(outcome.code, str(outcome)), outcome.code
    return outcome, "ok"


def by_collection(queries: Sequence[Query]) -> Collection[Sequence[Query]]:
    """The queries, those of one collection together."""
    grouped: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        grouped[query.question.collection].append(query)
    return grouped.values()


def _mismatch(query: Query, manifest: Manifest) -> ModelMismatch:
    return ModelMismatch(
        f"the query is of {query.model_id}, the index of {manifest.model_id}: "
        "run one model everywhere, then build the index again"
    )
