"""Live quality compares sampled answers with exact search in the background."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.searcher.index.finder import Finder
from services.searcher.index.index import Index
from services.searcher.metrics import SearcherMetrics
from services.searcher.quality import LiveQuality
from services.shared.contracts import Filter, Neighbors, Question
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 300
ASK = Question(collection="birds")


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return the metrics' registry."""
    return CollectorRegistry()


@pytest.fixture
def finder(tmp_path: Path) -> Finder:
    """Return a finder of an open index."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT))
    return Finder(Index.open(volume, "birds", manifest.version))


def _live(registry: CollectorRegistry, name: str) -> float:
    labels = {"collection": "birds"}
    return registry.get_sample_value(f"simile_searcher_live_recall_{name}_total", labels) or 0.0


def _ended(quality: LiveQuality) -> None:
    """Close the sampler after all pending comparisons, which closing alone would drop."""
    quality.wait()
    quality.close()


def _answer(finder: Finder, question: Question) -> Neighbors:
    (answer,) = finder.find([unit_vectors(1, seed=3)[0]], [question])
    assert isinstance(answer, Neighbors)
    return answer


def test_a_right_answer_counts_in_full(finder: Finder, registry: CollectorRegistry) -> None:
    """The answer counts ten of ten, and the distances of the nearest and the farthest neighbour."""
    quality = LiveQuality(1.0, SearcherMetrics(registry))
    quality.observe(finder.index, unit_vectors(1, seed=3)[0], ASK, _answer(finder, ASK))
    _ended(quality)
    assert (_live(registry, "found"), _live(registry, "expected")) == (10, 10)
    for rank in ("nearest", "farthest"):
        labels = {"collection": "birds", "rank": rank}
        assert registry.get_sample_value("simile_searcher_neighbor_distance_count", labels) == 1


def test_what_is_missing_lowers_the_recall(finder: Finder, registry: CollectorRegistry) -> None:
    """An answer with four wrong neighbours has a live recall of .6."""
    right = _answer(finder, ASK)
    wrong = tuple(one._replace(distance=1.99) for one in right.neighbors[6:])
    answer = dataclasses.replace(right, neighbors=(*right.neighbors[:6], *wrong))
    quality = LiveQuality(1.0, SearcherMetrics(registry))
    quality.observe(finder.index, unit_vectors(1, seed=3)[0], ASK, answer)
    _ended(quality)
    assert (_live(registry, "found"), _live(registry, "expected")) == (6, 10)


@pytest.mark.parametrize(
    ("share", "question"),
    [(0.0, ASK), (1.0, dataclasses.replace(ASK, filter=Filter(("image odd",))))],
    ids=["not sampled", "filtered"],
)
def test_only_plain_questions_are_sampled(
    finder: Finder, registry: CollectorRegistry, share: float, question: Question
) -> None:
    """Queries that exact search over all items can't judge are not sampled."""
    quality = LiveQuality(share, SearcherMetrics(registry))
    quality.observe(finder.index, unit_vectors(1, seed=3)[0], question, _answer(finder, question))
    _ended(quality)
    assert _live(registry, "expected") == 0


def test_a_sample_that_fails_affects_no_other(finder: Finder, registry: CollectorRegistry) -> None:
    """A vector that can't be compared is logged, and the next sample counts."""
    quality, answer = LiveQuality(1.0, SearcherMetrics(registry)), _answer(finder, ASK)
    quality.observe(finder.index, np.ones(3, "f4"), ASK, answer)
    quality.observe(finder.index, unit_vectors(1, seed=3)[0], ASK, answer)
    _ended(quality)
    assert _live(registry, "expected") == 10


def test_a_backlog_of_samples_is_dropped(finder: Finder, registry: CollectorRegistry) -> None:
    """Only a few queries wait for a comparison, however many arrive."""
    quality, answer = LiveQuality(1.0, SearcherMetrics(registry)), _answer(finder, ASK)
    for _ in range(1000):
        quality.observe(finder.index, unit_vectors(1, seed=3)[0], ASK, answer)
    _ended(quality)
    assert _live(registry, "expected") < 10_000
