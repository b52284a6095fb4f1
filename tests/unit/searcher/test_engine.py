"""Every search method finds the neighbours of exact search, with exact distances and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.searcher.index import scan
from services.searcher.index.index import Index
from services.searcher.index.methods import registry
from services.searcher.index.scan import Vectors
from services.shared.volume.manifest import MethodName
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 700
METHODS = [*registry.METHODS]


def _index(tmp_path: Path, method: MethodName, vectors: Vectors, shard_items: int = 10**6) -> Index:
    volume = Volume(tmp_path)
    manifest = publish_version(
        volume, "birds", vectors, items(len(vectors)), method=method, shard_items=shard_items
    )
    return Index.open(volume, "birds", manifest.version)


@pytest.mark.parametrize("shard_items", [10**6, 100])
@pytest.mark.parametrize("method", METHODS)
def test_neighbours_are_those_of_exact_search(
    tmp_path: Path, method: MethodName, shard_items: int
) -> None:
    """Whole or in shards, nearly all neighbours are right, in exact order, at exact distances."""
    vectors, queries = unit_vectors(COUNT), unit_vectors(50, seed=2)
    engine = _index(tmp_path, method, vectors, shard_items).engine
    hits = 0
    for query, (positions, distances) in zip(queries, engine.search(queries, 10), strict=True):
        cosines = vectors @ query
        hits += len(set(np.argsort(-cosines)[:10].tolist()) & set(positions.tolist()))
        assert distances.tolist() == sorted(distances.tolist())
        assert distances == pytest.approx(np.sqrt(2 - 2 * cosines[positions]), abs=1e-3)
    assert hits / 500 >= 0.97


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("method", METHODS)
def test_more_neighbours_than_items_gives_them_all(
    tmp_path: Path, method: MethodName, count: int
) -> None:
    """A tiny collection answers with all of its items."""
    engine = _index(tmp_path, method, unit_vectors(count)).engine
    ((positions, _),) = engine.search(unit_vectors(1, seed=9), 100)
    assert sorted(positions.tolist()) == list(range(count))


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_vector_finds_itself(tmp_path: Path, method: MethodName) -> None:
    """A stored vector is at distance 0 from itself, in any batch."""
    vectors = unit_vectors(COUNT)
    engine = _index(tmp_path, method, vectors).engine
    for number, (positions, distances) in enumerate(engine.search(vectors[:70], 1)):
        assert positions.tolist() == [number]
        assert distances[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("k", [1, 10, 63, 64, 65, 400, 1999, 2000, 3000])
def test_a_scan_finds_the_same_as_a_sort(k: int) -> None:
    """Blocks and bounds do not change the result, also among equal rows."""
    rng = np.random.default_rng(3)
    matrix = rng.integers(0, 3, size=(2000, 6)).astype("f4")  # this makes many rows equal
    queries = rng.integers(0, 3, size=(40, 6)).astype("f4")
    found = scan.nearest(matrix, queries, k, block_rows=300)
    for query, (positions, dots) in zip(queries, found, strict=True):
        expected = np.argsort(-(matrix @ query), kind="stable")[:k]
        assert positions.tolist() == expected.tolist()
        assert dots.tolist() == (matrix @ query)[expected].tolist()


def test_a_scan_of_some_rows_names_no_others() -> None:
    """The order among chosen positions is the same, and no other position is found."""
    vectors, query = unit_vectors(500), unit_vectors(1, seed=4)[0]
    chosen = np.arange(1, 500, 3)
    positions, _ = scan.nearest_among(vectors, chosen, query, 20, block_rows=50)
    expected = chosen[np.argsort(-(vectors[chosen] @ query), kind="stable")[:20]]
    assert positions.tolist() == expected.tolist()
