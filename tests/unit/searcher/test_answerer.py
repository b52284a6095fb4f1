"""A batch of queries against an open index gives each query its own answer or failure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.searcher.answerer import Answerer, VectorQuery
from services.searcher.catalog import Catalog
from services.searcher.index.scan import Vectors
from services.searcher.metrics import SearcherMetrics
from services.searcher.quality import LiveQuality
from services.shared.contracts import Embedding, Failure, Neighbors, Question, Reply, Slip
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.telemetry.watchdog import Watchdog
from services.shared.volume.items import Item
from services.shared.volume.volume import Volume
from tests.support.volume import MODEL, items, publish_version, unit_vectors

COUNT = 30
FOREIGN = "other@1/pixels/8"
IDS = [item.item_id for item in items(COUNT)]
VECTORS = unit_vectors(COUNT)


class Parts:
    """An answerer of one collection."""

    def __init__(self, root: Path) -> None:
        self.volume = Volume(root)
        publish_version(self.volume, "birds", VECTORS, items(COUNT), number=1)
        metrics = SearcherMetrics(CollectorRegistry())
        self.catalog = Catalog(self.volume, metrics)
        self.quality = LiveQuality(0.0, metrics)
        self.threads = ThreadPoolExecutor(1)
        self.answerer = Answerer(
            self.catalog, self.quality, metrics, Watchdog("search"), self.threads
        )


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """An answerer whose index is open."""
    parts = Parts(tmp_path)
    await parts.catalog.refresh()
    yield parts
    parts.quality.close()
    parts.threads.shutdown()


def _query(name: str, vector: Vectors, model_id: str = MODEL, *, exclude: str = "") -> VectorQuery:
    question = Question(collection="birds", k=3, exclude=exclude)
    slip = Slip(correlation_id=name, reply_to="a", final_reply_to="b", question=question)
    return VectorQuery(Embedding(slip, vector.tobytes()), model_id, Stopwatch(0.0))


def _nearest(reply: Reply) -> str:
    assert isinstance(reply.outcome, Neighbors)
    return reply.outcome.neighbors[0].item_id


@pytest.mark.parametrize("foreign_at", [0, 1, 2, 3])
@pytest.mark.parametrize("exclude", ["", "nothing"], ids=["plain", "filtered"])
async def test_a_foreign_model_in_a_batch_shifts_no_answer(
    parts: Parts, foreign_at: int, exclude: str
) -> None:
    """The query of another model is refused, and the later queries get their own answers."""
    queries = [_query(str(number), VECTORS[number], exclude=exclude) for number in range(3)]
    queries.insert(foreign_at, _query("foreign", VECTORS[9], FOREIGN))
    replies = await parts.answerer.answer(queries)
    assert [reply.correlation_id for reply in replies] == [
        query.item.slip.correlation_id for query in queries
    ]
    refused = replies.pop(foreign_at).outcome
    assert isinstance(refused, Failure)
    assert refused.code == "model_mismatch"
    assert [_nearest(reply) for reply in replies] == IDS[:3]


async def test_a_defect_fails_its_own_query_and_is_logged(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to the failing query is `internal`, without details; the others are right."""
    catalogue = parts.catalog.get("birds").index.items
    by_id = catalogue.by_id

    def breaks(item_id: str) -> Item:
        if item_id == "failing":
            raise IndexError
        return by_id(item_id)

    monkeypatch.setattr(catalogue, "by_id", breaks)
    excludes = ["", "failing", "other"]
    queries = [
        _query(str(number), VECTORS[number], exclude=exclude)
        for number, exclude in enumerate(excludes)
    ]
    first, failed, last = await parts.answerer.answer(queries)
    assert (_nearest(first), _nearest(last)) == (IDS[0], IDS[2])
    assert failed.outcome == Failure("internal", "the search failed; the log says why")
    assert [query.code for query in queries] == ["ok", "internal", "ok"]


async def test_a_measurement_that_fails_costs_no_answer(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the live quality does not affect the answers."""

    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(parts.quality, "observe", breaks)
    replies = await parts.answerer.answer([_query(str(one), VECTORS[one]) for one in range(3)])
    assert [_nearest(reply) for reply in replies] == IDS[:3]


async def test_after_a_swap_the_new_vectors_answer_under_the_new_name(parts: Parts) -> None:
    """After a swap, the named version is the version that was searched."""
    old = parts.catalog.get("birds")
    queries = [_query(str(number), VECTORS[number]) for number in range(COUNT)]
    rotated = np.roll(VECTORS, 1, axis=0)
    new = publish_version(parts.volume, "birds", rotated, items(COUNT), number=2)
    before = await parts.answerer.answer(queries)
    await parts.catalog.refresh()
    after = await parts.answerer.answer(queries)
    held = old.find([*VECTORS], [query.question for query in queries])
    rotated_ids = [*IDS[1:], IDS[0]]
    for outcomes, version, ids in (
        ([reply.outcome for reply in before], old.index.manifest.version, IDS),
        ([reply.outcome for reply in after], new.version, rotated_ids),
        (held, old.index.manifest.version, IDS),
    ):
        for outcome, item_id in zip(outcomes, ids, strict=True):
            assert isinstance(outcome, Neighbors)
            assert outcome.index_version == version
            assert outcome.neighbors[0].item_id == item_id
            assert outcome.neighbors[0].distance == pytest.approx(0, abs=1e-3)
